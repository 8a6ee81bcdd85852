"""Compares what a page shows as output with what was printed."""

from __future__ import annotations

import re

_WILDCARD = re.compile(r"(?P<number>\d+(?:\.\d+)?)|(?P<any> ?… ?)|(?P<space>[ \t]+)|.", re.DOTALL)


def missing_line(shown: list[str], printed: str) -> str | None:
    """Return the first line that was not printed after those before it, if there is one.

    Lines may have been printed that are not shown. Numbers may differ, and so may the width of
    blanks; ``…`` stands for anything, as a line of its own for any lines.
    """
    lines = iter(printed.splitlines())
    for each in shown:
        pattern = re.compile(_pattern(each.strip()))
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            return each
    return None


def _pattern(shown: str) -> str:
    return "".join(
        r"\d+(?:\.\d+)?"
        if part["number"]
        else ".*"
        if part["any"]
        else r"\s+"
        if part["space"]
        else re.escape(part[0])
        for part in _WILDCARD.finditer(shown)
    )
