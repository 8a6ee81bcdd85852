"""Find the Markdown pages, and the fenced blocks of a page with the marks before them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from sybil import Document
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Region

_GENERATED = {"build", "dist", "mlruns", "mlartifacts", "node_modules", "_build"}

EXECUTED = frozenset({"bash", "console", "python"})
NEVER_RUN = frozenset({"ini", "json", "mermaid", "text", "toml", "yaml"})
NEEDS_A_MARK = frozenset({"sql"})
RUN_ELSEWHERE = "run by "
"""Prefix of the reason of a skipped block that another test runs."""

# name of a mark -> its arguments, and the correct form of the mark
_MARKS = {
    "skip": (re.compile(r'next "(?P<reason>[^"]+)"'), 'skip: next "reason"'),
    "runs until stopped": (re.compile(""), "runs until stopped"),
    "file": (re.compile(r"[\w.-]+"), "file: name.py"),
    "ends with": (re.compile(r"\d+"), "ends with 1"),
    "prints this": (re.compile(""), "prints this"),
}
_MARK_LEXER = DirectiveInHTMLCommentLexer(rf"(?:{'|'.join(_MARKS)})\b")
# The lexer ends a mark before the end of its comment; the marked block begins on the next line.
_END_OF_MARK = re.compile(r"\s*--+>[ \t]*\n")

_FENCE_LEXER = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^`\n]*)(?:\n|$)"))
_CODE_DIRECTIVE = re.compile(r"\{(code|code-block|code-cell|sourcecode)\}")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block and its marks.

    Attributes:
        start: offset of the opening fence in the page.
        end: offset of the end of the closing fence.
        line: line number of the opening fence, from 1.
        language: the first word after the fence; empty if there is none.
        source: the lines between the fences, without their indentation.
        skip: the reason why the block is not run.
        stays: whether the command runs until it is stopped.
        file: the name of the file to save the block as.
        status: the exit status of the last command.
        prints: whether the output is compared.
        mark_problem: the error in the marks themselves.
    """

    start: int
    end: int
    line: int
    language: str = ""
    source: str = ""
    skip: str | None = None
    stays: bool = False
    file: str | None = None
    status: int = 0
    prints: bool = False
    mark_problem: str | None = None

    @property
    def problem(self) -> str | None:
        """The reason why the block can be neither run nor ignored; None if there is none."""
        if self.mark_problem:
            return self.mark_problem
        if self.skip or self.file or self.language in EXECUTED | NEVER_RUN:
            return None
        if self.language in NEEDS_A_MARK:
            return f'a {self.language} block needs the mark <!-- skip: next "reason" -->'
        return f"the language {self.language!r} is neither executed nor known as never run"

    @property
    def is_test(self) -> bool:
        """Whether pytest reports the block; False if it is never run, or run by another test."""
        if (self.skip or "").startswith(RUN_ELSEWHERE):
            return False
        is_marked = self.skip or self.stays or self.file or self.status or self.prints
        return bool(is_marked) or self.language not in NEVER_RUN


def markdown_files(root: Path) -> list[Path]:
    """Return the Markdown files below a directory, without generated and hidden directories."""
    found = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _GENERATED)
        found += [Path(directory, name) for name in sorted(files) if name.endswith(".md")]
    return found


def blocks_of(text: str) -> list[Block]:
    """Parse the fenced blocks of a page, including those inside directives.

    A mark without a block after it is returned as a block with a problem.
    """
    return list(_blocks(Document(text, path="")))


def _blocks(document: Document) -> Iterator[Block]:
    fences = _code_fences(document)
    shown = [(fence.start, fence.end) for fence in fences]
    marks = [
        mark
        for mark in _MARK_LEXER(document)
        if not any(start < mark.start < end for start, end in shown)
    ]
    pending: list[Region] = []
    for region in sorted([*fences, *marks], key=attrgetter("start")):
        if pending and not _END_OF_MARK.fullmatch(document.text, pending[-1].end, region.start):
            yield _orphan(document, pending[-1])
            pending = []
        if "directive" in region.lexemes:
            pending.append(region)
        else:
            yield _block(document, region, pending)
            pending = []
    if pending:
        yield _orphan(document, pending[-1])


def _code_fences(document: Document) -> list[Region]:
    """Return the fences of code, without directives and without fences inside other fences."""
    found: list[Region] = []
    for fence in sorted(_FENCE_LEXER(document), key=attrgetter("start")):
        info = fence.lexemes["info"].strip()
        is_container = info.startswith("{") and not _CODE_DIRECTIVE.match(info)
        if not is_container and (not found or fence.start >= found[-1].end):
            found.append(fence)
    return found


def _block(document: Document, fence: Region, marks: list[Region]) -> Block:
    given = {mark.lexemes["directive"]: mark.lexemes["arguments"] for mark in marks}
    matches = {name: _MARKS[name][0].fullmatch(value) for name, value in given.items()}
    problems = (f"the mark must be <!-- {_MARKS[n][1]} -->" for n, m in matches.items() if not m)
    reason = matches.get("skip")
    problem = next(problems, None)
    return Block(
        start=fence.start,
        end=fence.end,
        line=_line(document, fence),
        language=next(iter(fence.lexemes["info"].split()), ""),
        source=str(fence.lexemes["source"]),
        skip=reason["reason"] if reason else None,
        stays="runs until stopped" in given,
        file=given.get("file"),
        status=0 if problem else int(given.get("ends with", 0)),
        prints="prints this" in given,
        mark_problem=problem,
    )


def _orphan(document: Document, mark: Region) -> Block:
    name, arguments = mark.lexemes["directive"], mark.lexemes["arguments"]
    problem = f"no block follows the mark <!-- {name} {arguments}".rstrip() + " -->"
    line = _line(document, mark)
    return Block(start=mark.start, end=mark.end, line=line, mark_problem=problem)


def _line(document: Document, region: Region) -> int:
    return int(document.text.count("\n", 0, region.start)) + 1
