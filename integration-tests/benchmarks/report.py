"""The results as Markdown."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks import curl
from benchmarks.results import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.contenders import Contender
    from benchmarks.results import Cost, Measurement, Row, Traffic
    from benchmarks.workspace import Space

_NOTHING = "-"
_HEADINGS = (
    "case",
    "ours",
    "compared with",
    "theirs",
    "ratio",
    "requests (listings)",
    "connections",
    "memory",
    "target",
    "reached",
)


_COST_HEADINGS = ("what", "whose code", "time", "target", "reached")


def table(rows: Sequence[Row]) -> str:
    """Format the results; where two figures stand in a cell, the first is ours."""
    return _table(_HEADINGS, map(_cells, rows))


def cost_table(costs: Sequence[Cost]) -> str:
    """Format what has no counterpart."""
    return _table(_COST_HEADINGS, map(_cost_cells, costs))


def surroundings(command: str, facts: Mapping[str, str]) -> str:
    """Say what was measured where and with what, as a Markdown list.

    Args:
        command: what repeats it.
        facts: what else there is to say.
    """
    everywhere = {
        "command": f"`{command}`",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}, {platform.machine()}",
        "Python": platform.python_version(),
    }
    return "".join(f"- {name}: {fact}\n" for name, fact in {**everywhere, **facts}.items())


def competition(ours: Contender, peer: Contender, space: Space) -> dict[str, str]:
    """Say what took part, for :func:`surroundings`."""
    return {
        "ours": ours.versions(),
        "theirs": peer.versions(),
        "curl": curl.version(),
        "server": f"mlflow-bucketfs-testing {version('mlflow-bucketfs-testing')}, "
        f"uvicorn {version('uvicorn')}, h11 {version('h11')}; "
        f"its objects are {'in memory' if space.server_is_in_memory else 'on disk'}",
    }


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _cost_cells(cost: Cost) -> tuple[str, ...]:
    reached = "**no**" if cost.shortfalls() else "yes"
    target = str(cost.target)
    return (
        cost.title,
        cost.whose,
        _duration(cost.measured.seconds),
        target or _NOTHING,
        reached if target else _NOTHING,
    )


def _cells(row: Row) -> tuple[str, ...]:
    shortfalls = row.shortfalls()
    return (
        row.title,
        _duration(row.ours.seconds),
        row.counterpart,
        _duration(row.theirs.seconds),
        f"{row.ratio:.{2 if row.ratio < 10 else 0}f}x",  # noqa: PLR2004 -- two digits suffice
        _both(row, lambda m: _traffic(m, lambda t: f"{t.requests} ({t.listings})")),
        _both(row, lambda m: _traffic(m, lambda t: str(t.connections))),
        _both(row, _memory),
        str(row.target),
        f"**no**: {', '.join(shortfalls)}" if shortfalls else "yes",
    )


def _both(row: Row, show: Callable[[Measurement], str]) -> str:
    shown = [show(row.ours), show(row.theirs)]
    return " / ".join(text or _NOTHING for text in shown) if any(shown) else _NOTHING


def _traffic(measurement: Measurement, show: Callable[[Traffic], str]) -> str:
    return show(measurement.traffic) if measurement.traffic else ""


def _memory(measurement: Measurement) -> str:
    grown = measurement.memory_bytes
    return "" if grown is None else f"{grown / MIB:.1f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
