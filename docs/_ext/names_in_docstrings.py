"""Short names in docstrings and annotations find what the site documents under its full name.

Docstrings name a class as the reader of the code sees it: ``BucketFSUri``, not
``mlflow_bucketfs_core.BucketFSUri``. If the API reference has exactly one object of this name,
that is the one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.domains.python import PythonDomain
    from sphinx.environment import BuildEnvironment

_ANYWHERE = 1


def find_by_short_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Return a link to the only object whose full name ends with the target."""
    if node.get("refdomain") != "py":
        return None
    domain = cast("PythonDomain", env.domains["py"])
    # the full name of where it is defined is not where it is documented
    name = node["reftarget"].rpartition(".")[2] if _is_ours(node) else node["reftarget"]
    found = domain.find_obj(env, None, None, name, None, _ANYWHERE)
    if len({entry.node_id for _, entry in found}) != 1:
        return None
    _, entry = found[0]
    docname = node["refdoc"]
    return make_refnode(app.builder, docname, entry.docname, entry.node_id, content, entry.objtype)


def _is_ours(node: pending_xref) -> bool:
    return str(node["reftarget"]).startswith("mlflow_bucketfs_")


def setup(app: Sphinx) -> dict[str, bool]:
    """Ask this module about names that Sphinx does not find."""
    app.connect("missing-reference", find_by_short_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
