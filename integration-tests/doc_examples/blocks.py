"""The fenced blocks of a Markdown page, each with the marks that stand before it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

EXECUTED = frozenset({"bash", "console", "python"})
NEVER_RUN = frozenset({"ini", "json", "mermaid", "text", "toml", "yaml"})
NEEDS_A_MARK = frozenset({"sql"})
RUN_ELSEWHERE = "run by "
"""How the reason of a block begins that is no test of its page, because another test runs it."""

# Containers of other blocks (:::) are no fences here: what is in them is read as usual.
_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_COMMENT = re.compile(r"[ \t]*<!--[ \t]*(?P<text>.*?)[ \t]*-->[ \t]*$")
_MARK = re.compile(
    r"skip: (?P<skip>.*)|(?P<stays>runs until stopped)|file: (?P<file>[\w.-]+)"
    r"|ends with (?P<status>\d+)|(?P<prints>prints this)"
)
_SKIP_NEXT = re.compile(r'next "(?P<reason>[^"]+)"$')
_CODE_DIRECTIVE = re.compile(r"\{(code|code-block|code-cell|sourcecode)\}")


@dataclass(frozen=True)
class Marks:
    """What the comments before a block say.

    Attributes:
        skip: why the block is not run.
        stays: whether it runs until it is stopped.
        file: under which name it is saved.
        status: with which status its last command ends.
        prints: whether its output is compared.
        problems: what is wrong with the comments themselves.
    """

    skip: str | None = None
    stays: bool = False
    file: str | None = None
    status: int = 0
    prints: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: the first word after the fence; empty if there is none.
        source: what is between the fences, without their indentation.
        line: number of the line with the opening fence, from 1.
        start: offset of this line in the page.
        end: offset of the end of the closing fence.
        marks: what the comments before it say.
    """

    language: str
    source: str
    line: int
    start: int
    end: int
    marks: Marks = field(default_factory=Marks)

    @property
    def problem(self) -> str | None:
        """Why nobody knows what to do with this block; None if somebody does."""
        if self.marks.problems:
            return self.marks.problems[0]
        if self.marks.skip or self.marks.file or self.language in EXECUTED | NEVER_RUN:
            return None
        if self.language in NEEDS_A_MARK:
            return f'a {self.language} block needs the mark <!-- skip: next "reason" -->'
        return f"the language {self.language!r} is neither executed nor known as never run"

    @property
    def is_test(self) -> bool:
        """Whether pytest reports it: one that another test runs is left to that."""
        if (self.marks.skip or "").startswith(RUN_ELSEWHERE):
            return False
        return self.language not in NEVER_RUN or self.marks != Marks()


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a page, those inside of directives too.

    Marks without a block are returned as blocks that have a problem.
    """
    return list(_blocks(text.splitlines(keepends=True), line=1, start=0))


def _blocks(lines: list[str], *, line: int, start: int) -> Iterator[Block]:
    offsets = [start]
    for each in lines:
        offsets.append(offsets[-1] + len(each))
    marks: list[str] = []
    position = 0
    while position < len(lines):
        here, stripped = line + position, lines[position].rstrip("\n")
        opening = _FENCE.match(stripped)
        if opening is None:
            comment = _COMMENT.match(stripped)
            if comment and _MARK.fullmatch(comment["text"]):
                marks.append(comment["text"])
            elif marks:
                yield _orphan(marks, here - 1, offsets[position - 1])
                marks = []
            position += 1
            continue
        end = _closing(lines, position, opening["fence"])
        inside = lines[position + 1 : end]
        info = opening["info"].strip()
        if info.startswith("{") and not _CODE_DIRECTIVE.match(info):
            if marks:
                yield _orphan(marks, here - 1, offsets[position - 1])
            yield from _blocks(inside, line=here + 1, start=offsets[position + 1])
        else:
            yield Block(
                language=info.split()[0] if info else "",
                source=textwrap.dedent("".join(inside)),
                line=here,
                start=offsets[position],
                end=offsets[min(end + 1, len(lines))],
                marks=_marks(marks),
            )
        marks = []
        position = end + 1
    if marks:
        yield _orphan(marks, line + len(lines) - 1, offsets[-2])


def _closing(lines: list[str], opening: int, fence: str) -> int:
    """Return the index of the closing fence; a block that is never closed ends with the page."""
    closing = re.compile(rf"[ \t]*{fence[0]}{{{len(fence)},}}[ \t]*$")
    following = range(opening + 1, len(lines))
    return next((n for n in following if closing.match(lines[n].rstrip("\n"))), len(lines))


def _marks(comments: list[str]) -> Marks:
    found: dict[str, str] = {}
    for comment in comments:
        match = _MARK.fullmatch(comment)
        if match:
            found.update({name: value for name, value in match.groupdict().items() if value})
    reason = _SKIP_NEXT.match(found.get("skip", ""))
    bad_skip = "skip" in found and reason is None
    return Marks(
        skip=reason["reason"] if reason else None,
        stays="stays" in found,
        file=found.get("file"),
        status=int(found.get("status", 0)),
        prints="prints" in found,
        problems=('the mark must be <!-- skip: next "reason" -->',) if bad_skip else (),
    )


def _orphan(comments: list[str], line: int, start: int) -> Block:
    problem = f"no block follows the mark <!-- {comments[-1]} -->"
    return Block("", "", line, start, start, Marks(problems=(problem,)))
