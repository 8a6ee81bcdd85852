"""The directive ``command-help``: what a command prints for ``--help``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, ClassVar

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_COLUMNS = 78


class CommandHelp(SphinxDirective):
    """Show the help of a command that is made with click.

    The arguments are what one types: an installed script and its subcommands.
    """

    required_arguments: ClassVar[int] = 1
    optional_arguments: ClassVar[int] = 9

    def run(self) -> list[nodes.Node]:
        """Return the help as a block of text."""
        script, *path = self.arguments
        (entry,) = entry_points(group="console_scripts", name=script)
        command: click.Command = entry.load()
        context = click.Context(command, info_name=script, terminal_width=_COLUMNS)
        for name in path:
            if not isinstance(command, click.Group) or name not in command.commands:
                raise self.error(f"{command.name} has no command {name}")
            command = command.commands[name]
            context = click.Context(command, context, name, terminal_width=_COLUMNS)
        text = command.get_help(context)
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
