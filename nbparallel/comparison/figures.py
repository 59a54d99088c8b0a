"""A comparison as a matplotlib figure. Imported when a figure is asked for, as it imports matplotlib."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter

from nbparallel.comparison.pictures import gain
from nbparallel.timeline.figures import PlainFigure, time_unit
from nbparallel.timeline.pictures import COLOURS

if TYPE_CHECKING:
    from nbparallel.comparison.result import Comparison


def draw(found: Comparison) -> PlainFigure:
    """Return a figure: the times on the left, the speed-ups on the right."""
    rows = [row for row in found.rows if row.error is None]
    told = [line for each in [found.verdict, *found.remarks] for line in textwrap.wrap(f"• {each}", 124)]
    high = 0.35 * len(rows) + 1.35 + 0.19 * len(told)
    figure = PlainFigure(f"comparison of {found.label}", figsize=(8.0, high), dpi=100, facecolor="white")
    low, height = (0.6 + 0.19 * len(told)) / high, 1 - (1.3 + 0.19 * len(told)) / high
    times, gains = figure.add_axes((0.11, low, 0.52, height)), figure.add_axes((0.68, low, 0.29, height))
    for position, row in enumerate(rows):
        times.barh(position, row.seconds, 0.6, color=COLOURS["compute"], label="" if position else "median")
        times.barh(position, row.first, 0.6, fill=False, edgecolor="black", label="" if position else "first run")
        times.plot(row.times, [position] * len(row.times), "k|", markersize=8, label="" if position else "each run")
        gains.barh(position, row.speedup, 0.6, color=COLOURS["compute"])
        gains.text(row.speedup, position, f" {gain(row)}", va="center", fontsize=9)
    seconds, name = time_unit(max(max(row.first, row.seconds) for row in rows))
    times.xaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time / seconds:g}"))
    times.set_xlabel(f"time [{name}]")
    times.set_yticks(range(len(rows)), [row.method for row in rows])
    times.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.02, 0.97), ncols=3)
    gains.axvline(1, color="black", linewidth=0.8)
    gains.set_yticks([])
    gains.set_xlim(0, 1.25 * max(1.0, *(row.speedup for row in rows)))
    gains.set_xlabel(f"speed-up on {found.machine.cores} {'core' if found.machine.cores == 1 else 'cores'}")
    for axes in (times, gains):
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.text(0.02, 1 - 0.25 / high, found.headline, fontsize=10)
    for line, words in enumerate(reversed(told)):
        figure.text(0.02, (0.05 + 0.19 * line) / high, words, fontsize=8.5)
    return figure
