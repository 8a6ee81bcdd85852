"""Resolve relative links to files of the repository, for the site.

GitHub resolves a link relative to its file. On the site, a link to a file below ``docs/`` becomes
a link to its page, a link to a file that a page includes becomes one to that page, and all others
become links to GitHub. A link to a missing file is not changed, so that MyST warns.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class RepositoryLinks(SphinxTransform):
    """A transform that redirects MyST's links to pages of the site, or to GitHub."""

    # before Sphinx collects the files to download: nothing outside docs/ is one
    default_priority = 100

    def apply(self, **_: object) -> None:
        """Redirect the links of one page."""
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link["reftype"] == "myst":
                self._redirect(link)
        for link in list(self.document.findall(addnodes.download_reference)):
            self._redirect(link)

    def _redirect(self, link: nodes.Element) -> None:
        target, anchor = self._target_of(link)
        if target is None:
            return
        if page := self._page_of(target):
            new = addnodes.pending_xref("", *link.children, **link.attributes)
            new["refdomain"], new["reftype"] = "doc", "myst"
            new["reftarget"], new["reftargetid"] = page, anchor
        else:
            kind = "tree" if target.is_dir() else "blob"
            path = target.relative_to(self._root).as_posix()
            url = f"{self.config.repository_url}/{kind}/main/{path}{f'#{anchor}' * bool(anchor)}"
            new = nodes.reference("", "", *link.children, refuri=url, internal=False)
        new.source, new.line = link.source, link.line
        link.replace_self(new)

    @property
    def _root(self) -> Path:
        return Path(self.env.srcdir).resolve().parent

    def _target_of(self, link: nodes.Element) -> tuple[Path | None, str | None]:
        """Return the target of a link, if it is in the repository, and the anchor in it."""
        page = Path(self.env.doc2path(self.env.docname)).resolve()
        text = link["reftarget"]
        if link.get("refdomain") == "doc":
            # outside of docs/, MyST has made an absolute page name of it, without suffix
            text, anchor = f"{Path(self.env.srcdir).resolve() / text}.md", link["reftargetid"]
        else:
            text, _, anchor = text.partition("#")
        # links are relative to the page, or to the file that the page includes
        for origin in (page, Path(link.source or page).resolve()):
            target = Path(os.path.normpath(origin.parent / text))
            if text and target.exists() and self._root in target.parents:
                return target, anchor or None
        return None, None

    def _page_of(self, target: Path) -> str | None:
        path = target.relative_to(self._root).as_posix()
        if path in self.config.repository_pages:
            return str(self.config.repository_pages[path])
        file = target / "index.md" if target.is_dir() else target
        name = self.env.path2doc(str(file))
        return name if name in self.env.found_docs else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform and its values in conf.py."""
    app.add_config_value("repository_url", "", "env", [str])
    app.add_config_value("repository_pages", {}, "env", [dict])
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
