"""A run's timeline as a matplotlib figure. Imported when a figure is asked for, as it imports matplotlib.

The figure is made without pyplot: nothing is registered, so nothing must be closed, and no window opens.
"""

from __future__ import annotations

import io
import textwrap
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from nbparallel.timeline.lanes import Lane
from nbparallel.timeline.pictures import COLOURS, Portrait

#: More lanes are not drawn.
LANES = 64
#: The idle part of a lane: it is the ground on which the others stand.
_GROUND = "#E6E6E6"
_INCHES_WIDE = 8.0


class PlainFigure(Figure):  # type: ignore[misc,unused-ignore] # without matplotlib its base class is Any
    """A figure that a notebook shows as a picture, whether or not pyplot has been imported there.

    Args:
        title: what it is, such as ``"timeline of square"``.
        **options: as for matplotlib's own.
    """

    def __init__(self, title: str, **options: Any) -> None:
        super().__init__(**options)
        self.plain_title = title

    def __repr__(self) -> str:
        # Without a size, which depends on the advice: a saved notebook shall not differ where it is run again.
        return f"<{self.plain_title}>"

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def draw(portrait: Portrait) -> PlainFigure:
    """Return a figure of a run."""
    found = portrait.timeline
    lanes = found.lanes[:LANES]
    advice = [line for each in portrait.remarks + portrait.advice for line in textwrap.wrap(f"• {each}", 124)]
    rows = max(1, len(lanes))
    high = 0.28 * rows + 1.35 + 0.19 * len(advice)
    figure = PlainFigure(f"timeline of {portrait.label}", figsize=(_INCHES_WIDE, high), dpi=100, facecolor="white")
    low = (0.78 + 0.19 * len(advice)) / high
    axes = figure.add_axes((0.11, low, 0.86, 1 - low - 0.5 / high))
    for position, lane in enumerate(lanes):
        axes.barh(position, found.seconds, 0.7, color=_GROUND)
        _draw_lane(axes, found.seconds, position, lane)
    for mark in found.marks:
        if mark.lane <= len(lanes):
            start, length = mark.start, mark.stop - mark.start
            axes.broken_barh([(start, length)], (mark.lane - 1.35, 0.7), color=COLOURS["failed"])
            axes.plot(mark.stop, mark.lane - 1, "kx", markersize=6, clip_on=False)
    unit, name = time_unit(found.seconds)
    axes.set_xlim(0, max(found.seconds, 1e-9))
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks(range(len(lanes)), [f"worker {lane.number}" for lane in lanes])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time / unit:g}"))
    axes.set_xlabel(f"time since the run began [{name}]")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    title = portrait.headline if not lanes else f"{portrait.headline}\n{portrait.efficiency}"
    axes.set_title(title, loc="left", fontsize=10)
    _legend(figure, portrait, (0.19 * len(advice) + 0.02) / high)
    for line, words in enumerate(reversed(advice)):
        figure.text(0.02, (0.05 + 0.19 * line) / high, words, fontsize=8.5)
    return figure


def _draw_lane(axes: Any, seconds: float, position: int, lane: Lane) -> None:
    for kind, half in (("compute", 0.35), ("send", 0.0)):  # sending is drawn lower, as in a notebook
        spans = [(start, stop - start) for start, stop, what in lane.spans if what == kind]
        if spans:
            axes.broken_barh(spans, (position - half, 0.35 + half), color=COLOURS[kind], linewidth=0.3)
    if lane.columns:
        times = [seconds * column / len(lane.columns) for column in range(len(lane.columns) + 1)]
        shares = [*lane.columns, lane.columns[-1]]
        floor = position + 0.35
        low = [floor - 0.7 * compute for compute, _ in shares]
        high = [floor - 0.7 * min(1.0, compute + send) for compute, send in shares]
        axes.fill_between(times, floor, low, step="post", color=COLOURS["compute"], linewidth=0)
        axes.fill_between(times, low, high, step="post", color=COLOURS["send"], linewidth=0)


def _legend(figure: Figure, portrait: Portrait, height: float) -> None:
    entries = []
    for kind, told in portrait.shares():
        colour = COLOURS.get("failed" if kind == "ended" else kind, _GROUND)
        entries.append(Patch(color=colour, label=f"{kind} {told}"))
    figure.legend(handles=entries, loc="lower center", bbox_to_anchor=(0.5, height), ncols=5, frameon=False, fontsize=9)


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the unit in which times are written, in seconds, and its name."""
    if seconds < 1e-3:
        return 1e-6, "µs"
    if seconds < 1:
        return 1e-3, "ms"
    return (1.0, "s") if seconds < 120 else (60.0, "min")
