"""Generate the tables of docs/testing/udf-behaviour.md from ``behaviours.py``.

``python behaviour_page.py docs/testing/udf-behaviour.md`` writes them into the page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import behaviours

if TYPE_CHECKING:
    from collections.abc import Iterable


_SECTION = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """Return the page's text with its tables filled in.

    Args:
        page: the text, with comments ``<!-- table: NAME -->`` … ``<!-- end -->``.

    Raises:
        ValueError: the page does not have the comments of every table once.
    """
    names = [found[2] for found in _SECTION.finditer(page)]
    if sorted(names) != sorted(_TABLES):
        raise ValueError(f"the page has comments for the tables {names}; expected {[*_TABLES]}")
    return _SECTION.sub(lambda found: f"{found[1]}\n{_TABLES[found[2]]()}\n\n{found[3]}", page)


def _emitted(rows: Iterable[behaviours.Emitted]) -> str:
    head = [f"`{output}`" for output in behaviours.OUTPUTS]
    body = [
        [
            _code(row.code),
            *(_shown(row.outcome(output)) for output in behaviours.OUTPUTS),
            row.note,
            row.evidence,
        ]
        for row in rows
    ]
    return _table(["emitted", *head, "note", "evidence"], body)


def _reads() -> str:
    head = ["column", "value", "frame: no NULL", "some NULL", "only NULL", "`ctx.column`"]
    body = [
        [
            _code(read.column),
            _code(repr(read.value)),
            *map(_code, read.frames),
            _code(read.row),
            read.evidence,
        ]
        for read in behaviours.READS
    ]
    return _table([*head, "evidence"], body)


def _steps() -> str:
    body = [
        [step.what, _lines(step.code), _shown(step.outcome), step.evidence]
        for step in behaviours.STEPS
    ]
    return _table(["behaviour", "code", "sent", "evidence"], body)


def _scripts() -> str:
    body = []
    for script in behaviours.SCRIPTS:
        outcome = script.outcome
        is_text = isinstance(outcome, str)
        shown = _lines(outcome) if is_text else _shown(outcome)
        kind = f"{script.head.split()[0]} {'RETURNS' if 'RETURNS' in script.head else 'EMITS'}"
        body.append([script.what, kind, _lines(script.code), shown, script.evidence])
    return _table(["behaviour", "script", "code", "rows, or the error's text", "evidence"], body)


def _shown(outcome: behaviours.Outcome) -> str:
    if isinstance(outcome, tuple):
        sent, refused = outcome
        return f"{_values(sent)}, then {_shown(refused)}"
    if isinstance(outcome, str):
        return f"error {outcome}" if outcome.isdigit() else outcome
    return _values(outcome)


def _values(values: list[Any]) -> str:
    return ", ".join("NULL" if value is None else _code(repr(value)) for value in values)


def _lines(text: str) -> str:
    return "<br>".join(_code(line) for line in text.rstrip().splitlines())


def _code(text: str) -> str:
    # Markdown collapses spaces
    visible = text.replace("|", "\\|").replace("\0", "\\0").replace("    ", "\u00a0\u00a0")
    return f"`{visible}`"


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


_TABLES = {
    "reads": _reads,
    "frames": lambda: _emitted(behaviours.FRAMES),
    "values": lambda: _emitted(behaviours.VALUES),
    "steps": _steps,
    "scripts": _scripts,
    "evidence": lambda: _table(
        ["evidence", "how we know"],
        [[f"**{key}**", text] for key, text in behaviours.EVIDENCE.items()],
    ),
}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
