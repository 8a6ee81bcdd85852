"""The ratios as a bar chart in SVG, readable on light and on dark pages."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.results import Row

# Greys and colours of medium lightness have enough contrast on white and on black.
_GREY, _REACHED, _MISSED = "#767676", "#2f8f6b", "#c8553d"
_WIDTH, _LEFT, _RIGHT = 820, 390, 70
_STYLE = 'role="img" font-family="system-ui, sans-serif"'
_TOP, _BAR, _STEP, _BOTTOM = 40, 18, 40, 14


def chart(rows: Sequence[Row]) -> str:
    """Draw how many times as fast as its counterpart each case is, on a logarithmic axis."""
    ratios = [row.ratio for row in rows]
    first = math.floor(min(0.0, *(math.log10(ratio) for ratio in ratios)))
    last = math.ceil(max(1.0, *(math.log10(ratio) for ratio in ratios)))

    def place(ratio: float) -> float:
        share = (math.log10(ratio) - first) / (last - first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    height = _TOP + len(rows) * _STEP + _BOTTOM
    namespace = "http://www.w3.org/2000/svg"
    parts = [
        f'<svg xmlns="{namespace}" viewBox="0 0 {_WIDTH} {height}" {_STYLE}>',
        "<title>How many times as fast as its counterpart each case is</title>",
    ]
    for power in range(first, last + 1):
        x = place(10.0**power)
        width = 2 if power == 0 else 1
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 10}" y2="{height - _BOTTOM}" '
            f'stroke="{_GREY}" stroke-opacity="0.4" stroke-width="{width}"/>'
        )
        label = "as fast" if power == 0 else f"{10.0**power:g}x"
        parts.append(_text(x, _TOP - 18, label, "middle"))
    for index, row in enumerate(rows):
        parts += _bar(row, _TOP + index * _STEP, place)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: Row, y: float, place: Callable[[float], float]) -> list[str]:
    start, end = sorted((place(1), place(row.ratio)))
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
