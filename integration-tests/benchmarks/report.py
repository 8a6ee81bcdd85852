"""The results as Markdown tables and as a bar chart."""

from __future__ import annotations

import math
import os
import platform
from datetime import datetime, timezone
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import curl
from benchmarks.results import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.contenders import Contender
    from benchmarks.results import Cost, Measurement, Row, Traffic

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


MEMORY = Path("/dev/shm")  # noqa: S108 -- a directory with a random name is made in it
_COST_HEADINGS = ("step", "owner of the code", "time", "target", "reached")
# Greys and colours of medium lightness have enough contrast on white and on black.
_GREY, _REACHED, _MISSED = "#767676", "#2f8f6b", "#c8553d"
_WIDTH, _LEFT, _RIGHT = 820, 390, 70
_STYLE = 'role="img" font-family="system-ui, sans-serif"'
_TOP, _BAR, _STEP, _BOTTOM = 40, 18, 40, 14


def table(rows: Sequence[Row]) -> str:
    """Format the results; in a cell with two figures, the first is ours."""
    return _table(_HEADINGS, map(_cells, rows))


def cost_table(costs: Sequence[Cost]) -> str:
    """Format the results that have no counterpart."""
    return _table(_COST_HEADINGS, map(_cost_cells, costs))


def surroundings(command: str, facts: Mapping[str, str]) -> str:
    """Format the conditions of the measurement as a Markdown list.

    Args:
        command: the command that repeats it.
        facts: further entries.
    """
    everywhere = {
        "command": f"`{command}`",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}, {platform.machine()}",
        "Python": platform.python_version(),
    }
    return "".join(f"- {name}: {fact}\n" for name, fact in {**everywhere, **facts}.items())


def competition(ours: Contender, peer: Contender, server: Path) -> dict[str, str]:
    """Return the versions of clients and server, for :func:`surroundings`."""
    return {
        "ours": ours.versions(),
        "theirs": peer.versions(),
        "curl": curl.version(),
        "server": f"mlflow-bucketfs-testing {version('mlflow-bucketfs-testing')}, "
        f"uvicorn {version('uvicorn')}, h11 {version('h11')}; "
        f"its objects are {'in memory' if server.is_relative_to(MEMORY) else 'on disk'}",
    }


def chart(rows: Sequence[Row]) -> str:
    """Draw how many times as fast as its counterpart each case is, on a logarithmic axis."""
    ratios = [row.ratio for row in rows]
    first = math.floor(min(0.0, *(math.log10(ratio) for ratio in ratios)))
    last = math.ceil(max(1.0, *(math.log10(ratio) for ratio in ratios)))

    def x_of(ratio: float) -> float:
        share = (math.log10(ratio) - first) / (last - first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    height = _TOP + len(rows) * _STEP + _BOTTOM
    namespace = "http://www.w3.org/2000/svg"
    parts = [
        f'<svg xmlns="{namespace}" viewBox="0 0 {_WIDTH} {height}" {_STYLE}>',
        "<title>How many times as fast as its counterpart each case is</title>",
    ]
    for power in range(first, last + 1):
        x = x_of(10.0**power)
        width = 2 if power == 0 else 1
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 10}" y2="{height - _BOTTOM}" '
            f'stroke="{_GREY}" stroke-opacity="0.4" stroke-width="{width}"/>'
        )
        label = "as fast" if power == 0 else f"{10.0**power:g}x"
        parts.append(_text(x, _TOP - 18, label, "middle"))
    for index, row in enumerate(rows):
        parts += _bar(row, _TOP + index * _STEP, x_of)
    return "\n".join([*parts, "</svg>"]) + "\n"


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
    grown, peak = measurement.memory_bytes, measurement.peak_bytes
    shown = "" if grown is None else f"{grown / MIB:.1f} MiB"
    return shown if peak is None else f"{shown} (peak {peak / MIB:.1f})"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _bar(row: Row, y: float, x_of: Callable[[float], float]) -> list[str]:
    start, end = sorted((x_of(1), x_of(row.ratio)))
    colour = _MISSED if row.shortfalls() else _REACHED
    digits = 0 if row.ratio >= 10 else 2  # noqa: PLR2004 -- two digits suffice
    size = f'width="{max(end - start, 1):.1f}" height="{_BAR}"'
    return [
        _text(_LEFT - 12, y + 8, row.title.replace("`", ""), "end"),
        _text(_LEFT - 12, y + 23, f"vs {row.counterpart}".replace("`", ""), "end", size=11),
        f'<rect x="{start:.1f}" y="{y}" {size} rx="2" fill="{colour}"/>',
        _text(end + 6, y + 13, f"{row.ratio:.{digits}f}x", "start"),
    ]


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{_GREY}" text-anchor="{anchor}" '
        f'font-size="{size}">{escape(text)}</text>'
    )
