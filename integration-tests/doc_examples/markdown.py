"""The Markdown files of the repository, with their headings and links."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NOT_OURS = {"build", "dist", "mlruns", "mlartifacts", "node_modules", "_build"}
_FENCED = re.compile(r"(?ms)^[ \t]*(`{3,}|~{3,}).*?^[ \t]*\1[`~]*[ \t]*$")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_HEADING = re.compile(r"(?m)^#{1,6}[ \t]+(?P<title>.+?)[ \t]*#*$")
_TARGET = re.compile(r"(?m)^\((?P<name>[\w-]+)\)=$")
_LINK = re.compile(
    r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?(?P<to>[^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"
)


def markdown_files(root: Path) -> list[Path]:
    """Return all Markdown files below a directory that are not made by a tool."""
    found = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _NOT_OURS)
        found += [Path(directory, name) for name in sorted(files) if name.endswith(".md")]
    return found


def anchors(text: str) -> set[str]:
    """Return the anchors of a page: of its headings, as GitHub names them, and MyST's targets."""
    text = _FENCED.sub("", text)
    names = {match["name"] for match in _TARGET.finditer(text)}
    for match in _HEADING.finditer(text):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["title"]).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        repeated = sum(
            re.fullmatch(rf"{re.escape(slug)}(-\d+)?", name) is not None for name in names
        )
        names.add(f"{slug}-{repeated}" if repeated else slug)
    return names


def links(text: str) -> list[str]:
    """Return where the links and images of a page lead, those in code left out."""
    text = _CODE.sub("", _FENCED.sub("", text))
    return [match["to"] for match in _LINK.finditer(text)]
