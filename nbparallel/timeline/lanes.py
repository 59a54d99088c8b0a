"""The timeline of a run: its workers as lanes over time, and what they add up to.

Plain numbers from `records`, for `advice` to read and for `pictures` and `figures` to show. Called by `recorded`.
Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nbparallel.timeline.records import Record, Records

#: With no more reports than this each is drawn as it is; of more, the shares of a lane's columns are.
EXACT = 240
#: The columns of a lane.
COLUMNS = 160
#: Failed tasks that are drawn, at most.
MARKS = 100


@dataclass(slots=True)
class Lane:
    """One worker.

    Times are seconds since the run began.

    Attributes:
        number: 1 for the first that had something to tell.
        pid: its process.
        tasks: how many it ran.
        compute: how long it ran them.
        send: how long it waited for their inputs and its results to be pickled and carried, with nothing else to do.
        end: when it had finished.
        spans: what it did when: begin, end, ``"compute"`` or ``"send"``; empty where there are too many.
        columns: the shares of both in equal parts of the run; empty where `spans` are not.
    """

    number: int
    pid: int
    tasks: int = 0
    compute: float = 0.0
    send: float = 0.0
    end: float = 0.0
    spans: list[tuple[float, float, str]] = field(default_factory=list)
    columns: list[tuple[float, float]] = field(default_factory=list)


@dataclass(slots=True)
class Mark:
    """A task that did not get to a result: it failed, or was ended with its worker or its run."""

    lane: int
    index: int
    start: float
    stop: float
    failed: bool


@dataclass(slots=True)
class Timeline:
    """What a run did.

    Attributes:
        seconds: how long it took, or has taken so far.
        width: on how many workers at once it might run.
        lanes: those that ran something.
        marks: tasks without a result, `MARKS` at most.
        failed: how many failed.
        ended: how many were ended with their run.
        tasks: how many ran; one that ran twice counts twice.
        sent: bytes of inputs.
        returned: bytes of results.
        cpu: processor seconds of the tasks.
        own: the same without the threads that they started.
        waits: how often they gave up the processor to wait for something; `None` where that is not known.
        first: when the first task began.
        lead: how long before that its inputs were on their way.
        last_task: of the report that came last, the index and the seconds of the longest task.
        last_count: the number of its tasks.
    """

    seconds: float
    width: int
    lanes: list[Lane] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    failed: int = 0
    ended: int = 0
    tasks: int = 0
    sent: int = 0
    returned: int = 0
    cpu: float = 0.0
    own: float = 0.0
    waits: int | None = 0
    first: float = 0.0
    lead: float = 0.0
    last_task: tuple[int, float] = (0, 0.0)
    last_count: int = 0

    @property
    def compute(self) -> float:
        """Seconds that the workers ran tasks, together."""
        return sum(lane.compute for lane in self.lanes)

    @property
    def send(self) -> float:
        """Seconds that they waited for inputs and results to travel."""
        return sum(lane.send for lane in self.lanes)

    @property
    def idle(self) -> float:
        """Seconds that they had nothing to do, or had not started."""
        return max(0.0, self.seconds * self.width - self.compute - self.send)

    @property
    def efficiency(self) -> float:
        """The part of the workers' time in which they ran tasks."""
        return self.compute / (self.seconds * self.width) if self.seconds > 0 else 0.0

    def share(self, seconds: float) -> float:
        """Return a part of the workers' time."""
        return seconds / (self.seconds * self.width) if self.seconds > 0 else 0.0

    def tail(self) -> float:
        """Return how long the lanes, together, were done and the last was not."""
        end = max((lane.end for lane in self.lanes), default=0.0)
        return sum(end - lane.end for lane in self.lanes)


def measure(
    records: Records, seconds: float, width: int, failed: Iterable[int] = (), ended: Callable[[int], bool] | None = None
) -> Timeline:
    """Return the timeline of a run.

    Args:
        records: its reports.
        seconds: how long it took, or has taken so far.
        width: on how many workers at once it might run.
        failed: the indices of its failed tasks.
        ended: whether a task that ran has no outcome; `None` where all have one.
    """
    marked = frozenset(failed)
    found = Timeline(seconds, width, failed=len(marked))
    drawing = _Drawing(found, exact=len(records) <= EXACT)
    last: dict[int, Record] = {}
    for record in records:
        while len(found.lanes) < record.lane:
            found.lanes.append(Lane(len(found.lanes) + 1, records.pids[len(found.lanes)]))
        lane = found.lanes[record.lane - 1]
        before = last.get(record.lane)
        arrived = 0.0 if before is None else drawing.returns(lane, before, record.began)
        drawing.add(lane, "send", max(record.began - record.lead, arrived, lane.end), record.began)
        drawing.add(lane, "compute", record.began, record.began + record.seconds)
        if not last or record.began < found.first:
            found.first, found.lead = record.began, record.lead
        lane.tasks += record.count
        lane.end = record.began + record.seconds
        last[record.lane] = record
        found.tasks += record.count
        found.sent += record.sent
        found.returned += record.returned
        found.cpu += record.cpu
        found.own += record.own
        found.waits = None if record.waits < 0 or found.waits is None else found.waits + record.waits
        if marked or ended is not None:
            _mark(found, record, marked, ended)
    for lane in found.lanes:
        drawing.returns(lane, last[lane.number], seconds)
    if last:
        final = max(last.values(), key=lambda record: record.began + record.seconds)
        index, _, length = max(final.tasks(), key=lambda task: task[2])
        found.last_task, found.last_count = (index, length), final.count
    drawing.finish()
    return found


def _mark(found: Timeline, record: Record, failed: frozenset[int], ended: Callable[[int], bool] | None) -> None:
    last = record.first + record.count - 1
    was_ended = ended is not None and last not in failed and ended(last)
    if not was_ended and failed.isdisjoint(range(record.first, last + 1)):
        return
    found.ended += was_ended
    for index, start, seconds in record.tasks():
        if len(found.marks) < MARKS and (index in failed or (was_ended and index == last)):
            found.marks.append(Mark(record.lane, index, start, start + seconds, index in failed))


class _Drawing:
    """Enters into lanes how their time was spent: each span as it is, or what share of each column."""

    def __init__(self, found: Timeline, *, exact: bool) -> None:
        self._found = found
        self._exact = exact
        self._step = max(found.seconds, 1e-9) / COLUMNS
        self._sums: dict[tuple[int, str], list[float]] = {}

    def returns(self, lane: Lane, record: Record, limit: float) -> float:
        """Enter the way back of a report's results, up to a limit, and return when they were there."""
        arrived = min(lane.end + record.back, limit)
        self.add(lane, "send", lane.end, arrived)
        return arrived

    def add(self, lane: Lane, kind: str, start: float, stop: float) -> None:
        """Enter a span, if it is one, and not a difference that rounding left."""
        if stop - start < 1e-9:
            return
        if kind == "compute":
            lane.compute += stop - start
        else:
            lane.send += stop - start
        if self._exact:
            lane.spans.append((start, stop, kind))
            return
        sums = self._sums.setdefault((lane.number, kind), [0.0] * COLUMNS)
        first, last = (min(max(int(time / self._step), 0), COLUMNS - 1) for time in (start, stop))
        for column in range(first, last + 1):
            sums[column] += max(0.0, min(stop, (column + 1) * self._step) - max(start, column * self._step))

    def finish(self) -> None:
        """Turn sums into shares."""
        nothing = [0.0] * COLUMNS
        for lane in [] if self._exact else self._found.lanes:
            both = (self._sums.get((lane.number, kind), nothing) for kind in ("compute", "send"))
            lane.columns = [(compute / self._step, send / self._step) for compute, send in zip(*both, strict=True)]
