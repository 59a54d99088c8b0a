"""A run's timeline as text and as HTML: what a notebook shows for a `Run`.

The HTML needs nothing but itself: no script, no file, no identifier. It reads in light and in dark themes, since text
takes the page's own colour, and where a page drops drawings (an untrusted notebook), since each colour's share stands
beside it in words. The same run gives the same text each time. Called by `recorded`; `figures` draws with matplotlib.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from nbparallel.timeline.lanes import Lane, Mark, Timeline
from nbparallel.words import duration

#: More lanes are folded into a line of text.
LANES = 8

#: Okabe and Ito's palette (2008), told apart by all kinds of colour vision; each has 3:1 against white or black.
COLOURS = {"compute": "#0072B2", "send": "#E69F00", "failed": "#D55E00"}

_WIDTH, _LEFT, _BAR, _GAP = 728, 86, 16, 8
_LANE = _WIDTH - _LEFT
_TEXT_COLUMNS = 48


@dataclass(frozen=True)
class Portrait:
    """All that is shown of a run.

    Attributes:
        label: what it is called.
        headline: such as ``"square: 98 ok, 2 failed in 1.2 s"``.
        timeline: its figures.
        place: where it ran, if not in processes, such as ``"threads"``.
        remarks: what else a reader must know.
        advice: what would help.
    """

    label: str
    headline: str
    timeline: Timeline
    place: str
    remarks: list[str]
    advice: list[str]

    @property
    def efficiency(self) -> str:
        """What the workers did, in a line."""
        found = self.timeline
        workers = "1 worker" if found.width == 1 else f"{found.width} workers"
        place = f" ({self.place})" if self.place else ""
        return f"{duration(found.compute)} of work on {workers}{place}, efficiency {found.efficiency:.0%}"

    def shares(self) -> list[tuple[str, str]]:
        """Return each kind of time, and how much of it there was."""
        found = self.timeline
        kinds = [("compute", found.compute), ("send", found.send), ("idle", found.idle)]
        shares = [(kind, f"{duration(seconds)} ({found.share(seconds):.0%})") for kind, seconds in kinds]
        if found.failed:
            shares.append(("failed", f"{found.failed} {'task' if found.failed == 1 else 'tasks'}"))
        if found.ended:
            shares.append(("ended", f"{found.ended} {'task' if found.ended == 1 else 'tasks'} with the run"))
        return shares

    def folded(self) -> str:
        """Return the words for the lanes that are not drawn."""
        rest = self.timeline.lanes[LANES:]
        if not rest:
            return ""
        busy = [lane.compute / self.timeline.seconds for lane in rest]
        return f"and {len(rest)} more workers, which computed {min(busy):.0%} to {max(busy):.0%} of the time"


# ---- text ----


def text(portrait: Portrait) -> str:
    """Return a run's portrait in lines of text."""
    found = portrait.timeline
    lines = [portrait.headline]
    if found.lanes:
        lines.append(portrait.efficiency)
        lines += [_text_lane(found, lane) for lane in found.lanes[:LANES]]
        if folded := portrait.folded():
            lines.append(folded)
        keys = {"compute": "█", "send": "▒", "idle": "·", "failed": "×", "ended": "×"}
        lines.append("   ".join(f"{keys[kind]} {kind} {told}" for kind, told in portrait.shares()))
    lines += portrait.remarks
    lines += [f"- {advice}" for advice in portrait.advice]
    return "\n".join(lines)


def _text_lane(found: Timeline, lane: Lane) -> str:
    cells = ["·"] * _TEXT_COLUMNS
    step = max(found.seconds, 1e-9) / _TEXT_COLUMNS
    for column, (compute, send) in enumerate(_shares(found, lane, _TEXT_COLUMNS)):
        if compute >= 0.5:
            cells[column] = "█"
        elif compute + send >= 0.5:
            cells[column] = "▒"
    for mark in found.marks:
        if mark.lane == lane.number:
            cells[min(int(mark.stop / step), _TEXT_COLUMNS - 1)] = "×"
    tasks = "1 task" if lane.tasks == 1 else f"{lane.tasks} tasks"
    return f"worker {lane.number:<3} {''.join(cells)}  {tasks}"


def _shares(found: Timeline, lane: Lane, count: int) -> list[tuple[float, float]]:
    """Return the shares of a lane's time in `count` equal parts of the run."""
    if lane.columns:
        known = len(lane.columns)
        return [lane.columns[int((column + 0.5) * known / count)] for column in range(count)]
    step = max(found.seconds, 1e-9) / count
    sums = {"compute": [0.0] * count, "send": [0.0] * count}
    for start, stop, kind in lane.spans:
        for column in range(min(int(start / step), count - 1), min(int(stop / step), count - 1) + 1):
            part = min(stop, (column + 1) * step) - max(start, column * step)
            sums[kind][column] += max(0.0, part) / step
    return list(zip(sums["compute"], sums["send"], strict=True))


# ---- HTML ----


def page(portrait: Portrait) -> str:
    """Return a run's portrait as a piece of HTML."""
    found = portrait.timeline
    parts = [f"<div><b>{html.escape(portrait.headline)}</b></div>"]
    if found.lanes:
        parts.append(f"<div>{html.escape(portrait.efficiency)}</div>")
        parts.append(_drawing(found))
        if folded := portrait.folded():
            parts.append(f"<div>{html.escape(folded)}</div>")
        parts.append(f"<div>{_legend(portrait)}</div>")
    parts += [f"<div>{html.escape(remark)}</div>" for remark in portrait.remarks]
    if portrait.advice:
        items = "".join(f"<li>{html.escape(advice)}</li>" for advice in portrait.advice)
        parts.append(f'<ul style="margin: 4px 0 0 0">{items}</ul>')
    return f'<div style="max-width: {_WIDTH}px">{"".join(parts)}</div>'


def _legend(portrait: Portrait) -> str:
    entries = []
    for kind, told in portrait.shares():
        colour = COLOURS.get(kind)
        if kind in ("failed", "ended"):
            sign = f'<span style="color: {COLOURS["failed"]}">✕</span>'
        elif colour:
            sign = f'<span style="color: {colour}">■</span>'
        else:
            sign = "□"
        entries.append(
            f'<span style="display: inline-block; margin-right: 1.5em">{sign} {kind} {html.escape(told)}</span>'
        )
    return "".join(entries)


def _drawing(found: Timeline) -> str:
    # Its words stand outside of the drawings: a page that drops those keeps the words in them, all run together.
    lanes = "".join(_draw_lane(found, lane) for lane in found.lanes[:LANES])
    times = ("0", duration(found.seconds / 2), duration(found.seconds))
    axis = " ".join(f"<span>{time}</span>" for time in times)
    return (
        f'<div role="img" aria-label="timeline of {len(found.lanes)} workers over {duration(found.seconds)}"'
        f' style="margin: 4px 0">{lanes}<div style="display: flex; justify-content: space-between;'
        f' margin-left: {_LEFT}px; font-size: 85%">{axis}</div></div>'
    )


def _draw_lane(found: Timeline, lane: Lane) -> str:
    parts = [f'<rect width="{_LANE}" height="{_BAR}" fill-opacity="0.1"/>']
    paths: dict[str, list[str]] = {"compute": [], "send": [], "failed": []}
    for start, stop, kind in lane.spans:
        # Sending is drawn lower, so that it is told from computing without a colour too.
        bar = _BAR if kind == "compute" else _BAR // 2
        paths[kind].append(_box(_x(found, start), _x(found, stop), _BAR - bar, bar))
    step = _LANE / max(1, len(lane.columns))
    for column, (compute, send) in enumerate(lane.columns):
        left = column * step
        high, more = compute * _BAR, min(1.0 - compute, send) * _BAR
        if high >= 0.1:
            paths["compute"].append(_box(left, left + step, _BAR - high, high))
        if more >= 0.1:
            paths["send"].append(_box(left, left + step, _BAR - high - more, more))
    signs = []
    for mark in found.marks:
        if mark.lane == lane.number:
            paths["failed"].append(_box(_x(found, mark.start), _x(found, mark.stop), 0, _BAR))
            signs.append(_sign(mark, _x(found, mark.stop) / _LANE))
    parts += [f'<path fill="{COLOURS[kind]}" d="{"".join(boxes)}"/>' for kind, boxes in paths.items() if boxes]
    return (
        f'<div style="display: flex; align-items: center; margin-bottom: {_GAP}px">'
        f'<div style="flex: 0 0 {_LEFT}px">worker {lane.number}</div>'
        f' <div style="flex: 1 1 0; height: {_BAR}px; position: relative">'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LANE} {_BAR}" width="100%" height="{_BAR}"'
        f' preserveAspectRatio="none" style="display: block" fill="currentColor">{"".join(parts)}</svg>'
        f"{''.join(signs)}</div></div>"
    )


def _sign(mark: Mark, share: float) -> str:
    told = f"task {mark.index} {'failed' if mark.failed else 'was ended'} after {duration(mark.stop - mark.start)}"
    place = f"position: absolute; left: {share:.1%}; top: 0; line-height: {_BAR}px; transform: translateX(-50%)"
    return f'<span title="{told}" style="{place}">✕</span>'


def _x(found: Timeline, time: float) -> float:
    return round(_LANE * min(1.0, max(0.0, time / max(found.seconds, 1e-9))), 1)


def _box(left: float, right: float, top: float, height: float) -> str:
    width = max(0.4, right - left)  # what is there is seen, however short
    return f"M{left:.1f} {top:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z"
