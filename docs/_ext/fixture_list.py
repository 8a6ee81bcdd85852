"""The directive ``fixture-list``: the fixtures of a pytest plugin, from their docstrings."""

from __future__ import annotations

from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, ClassVar

from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


class FixtureList(SphinxDirective):
    """Document each fixture of a module as an object of the reference.

    Autodoc does not see a function in what ``pytest.fixture`` returns.
    """

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Return the fixtures in the order of the module."""
        module = import_module(self.arguments[0])
        lines = []
        for name, value in vars(module).items():
            if type(value).__name__ == "FixtureFunctionDefinition":
                lines += ["", f".. py:data:: {name}", ""]
                text = cleandoc(value.__doc__ or "").replace("Scope: ", "\n\nScope: ")
                lines += [f"   {line}" for line in text.splitlines()]
        return self.parse_text_to_nodes(StringList(lines, source=module.__file__ or ""))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("fixture-list", FixtureList)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
