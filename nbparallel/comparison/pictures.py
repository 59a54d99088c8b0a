"""A comparison as text and as HTML: a table, the bars of its times, and what they mean.

The HTML needs nothing but itself, no script, file or identifier: a saved notebook reads right without a kernel, in
light and dark themes, and also where a page drops drawings. Called by `result`; `figures` draws with matplotlib.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbparallel.comparison.rows import Row
from nbparallel.timeline.pictures import COLOURS
from nbparallel.words import duration

if TYPE_CHECKING:
    from nbparallel.comparison.result import Comparison

HEADS = ("method", "workers", "first run", "median", "speed-up", "efficiency", "answers")
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_WIDTH, _LEFT, _RIGHT, _ROW, _BAR = 728, 86, 70, 24, 16


def cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table."""
    if row.error is not None:
        return (row.method, str(row.workers), "–", "–", "–", "–", row.answers)
    times = (_time(row.first), _time(row.seconds), gain(row), f"{row.efficiency:.0%}")
    return (row.method, str(row.workers), *times, row.answers)


def gain(row: Row) -> str:
    """Return a speed-up in words."""
    return f"{row.speedup:.2f} ×" if row.speedup >= 0.095 else f"{row.speedup:.1g} ×"


def _time(seconds: float) -> str:
    """Return a length of time with three digits: a table's times are compared with each other."""
    size, name = next(((size, name) for size, name in _UNITS if seconds >= size), _UNITS[-1])
    return f"{seconds / size:#.3g}".rstrip(".") + f" {name}"


def text(found: Comparison) -> str:
    """Return it in lines of text."""
    table = [HEADS, *map(cells, found.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [found.headline, *(_aligned(row, widths) for row in table), found.verdict]
    return "\n".join([*lines, *(f"- {remark}" for remark in found.remarks)])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    # Numbers stand to the right.
    inner = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *inner, row[-1]])


def page(found: Comparison) -> str:
    """Return it as a piece of HTML."""
    parts = [f"<div><b>{html.escape(found.headline)}</b></div>", _table(found), _drawing(found)]
    parts.append(f"<div>{html.escape(found.verdict)}</div>")
    if found.remarks:
        items = "".join(f"<li>{html.escape(remark)}</li>" for remark in found.remarks)
        parts.append(f'<ul style="margin: 4px 0 0 0">{items}</ul>')
    return f'<div style="max-width: {_WIDTH}px">{"".join(parts)}</div>'


def _table(found: Comparison) -> str:
    rows = [_cells("th", HEADS)] + [_cells("td", cells(row)) for row in found.rows]
    return f'<table style="margin: 4px 0">{"".join(f"<tr>{row}</tr>" for row in rows)}</table>'


def _cells(kind: str, row: Sequence[str]) -> str:
    sides = ["left", *["right"] * (len(row) - 2), "left"]
    pairs = zip(row, sides, strict=True)
    return "".join(f'<{kind} style="text-align: {side}">{html.escape(cell)}</{kind}>' for cell, side in pairs)


def _drawing(found: Comparison) -> str:
    rows = [row for row in found.rows if row.error is None]
    longest = max(max(row.first, row.seconds) for row in rows)
    height = _ROW * len(rows) + 18
    told = ", ".join(f"{row.method} {duration(row.seconds)}" for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="100%" role="img"'
        f' aria-label="{html.escape(f"medians: {told}")}" style="display: block; margin: 4px 0"'
        ' font-family="sans-serif" font-size="11" fill="currentColor">'
    ]
    for position, row in enumerate(rows):
        top = position * _ROW
        median, first = _x(row.seconds, longest), _x(row.first, longest)
        parts.append(
            f'<text x="0" y="{top + 12}">{html.escape(row.method)}</text>'
            f'<rect x="{_LEFT}" y="{top}" width="{median:g}" height="{_BAR}" fill="{COLOURS["compute"]}"/>'
            f'<path d="M{_LEFT} {top + 0.5}h{first:g}v{_BAR - 1}h{-first:g}" fill="none" stroke="currentColor"/>'
            f'<text x="{_LEFT + max(median, first) + 6:g}" y="{top + 12}">{gain(row)}</text>'
        )
    legend = f'<tspan fill="{COLOURS["compute"]}">■</tspan> median <tspan>□</tspan> first run, to {duration(longest)}'
    return f'{"".join(parts)}<text x="{_LEFT}" y="{_ROW * len(rows) + 12}">{legend}</text></svg>'


def _x(seconds: float, longest: float) -> float:
    room = _WIDTH - _LEFT - _RIGHT
    return max(0.4, round(room * seconds / max(longest, 1e-9), 1))  # what is there is seen, however short
