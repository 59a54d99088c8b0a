"""What a run keeps of when and where its tasks ran: one packed row a report, and a table with one row a task.

Filled by `recorded` from the times that backends tell (`engine.times`), read by `lanes`. A report is of one long task
or of many tiny ones, so a million tiny tasks are some hundred rows.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nbparallel.engine.times import LONG_NS, Times
from nbparallel.errors import TaskError

#: Reports of tiny tasks that ran in this process, with no more than this between them, in seconds, become one row: the
#: serial backend reports each task by itself.
JOIN_SECONDS = 0.0001

_ROW = struct.Struct("=iiqddffffiqq")


@dataclass(slots=True)
class Record:
    """One report: consecutive tasks on one worker.

    Times are seconds since the run began.

    Attributes:
        lane: the worker: the first that had something to tell is 1.
        count: the number of tasks.
        first: the first one's index.
        began: when it began.
        seconds: how long they took together.
        lead: how long before `began` the pickling of their inputs had begun.
        back: how long after their end their outcomes were here.
        cpu: the processor time that they used.
        own: the same without the threads that they started.
        waits: how often they gave up the processor to wait for something; -1 where that is not known.
        sent: what their inputs weighed, in bytes.
        returned: the same of their results.
        each: how long each took; empty where only all together are known.
    """

    lane: int
    count: int
    first: int
    began: float
    seconds: float
    lead: float
    back: float
    cpu: float
    own: float
    waits: int
    sent: int
    returned: int
    each: array[float] = field(default_factory=lambda: array("f"))

    def tasks(self) -> Iterator[tuple[int, float, float]]:
        """Yield the index, the begin and the length of each task; where they aren't known, as if all were the same."""
        began, mean = self.began, self.seconds / self.count
        for offset in range(self.count):
            seconds = self.each[offset] if self.each else mean
            yield self.first + offset, began, seconds
            began += seconds


class Records:
    """The reports of one run, in the order in which they came.

    Attributes:
        pids: the process of each lane.
        counts: how many tasks it has run.
    """

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.counts: list[int] = []
        self._lanes: dict[int, int] = {}
        self._rows = bytearray()
        self._each: dict[int, bytes] = {}  # by row

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    def add(self, first: int, count: int, times: Times, origin: float) -> None:
        """Take a report; `origin` is when the run began (`time.perf_counter`)."""
        lane = self._lanes.get(times.worker)
        if lane is None:
            self.counts.append(0)
            self.pids.append(times.pid)
            lane = self._lanes[times.worker] = len(self.pids)
        self.counts[lane - 1] += count
        began = times.began - origin
        if times.sent == times.began and self._join(lane, first, count, began, times):
            return
        if times.each:
            self._each[len(self)] = times.each
        self._rows += _ROW.pack(
            lane,
            count,
            first,
            began,
            times.seconds,
            times.began - times.sent,
            times.arrived - times.began - times.seconds,
            times.cpu,
            times.own,
            times.waits,
            times.bytes_sent,
            times.bytes_returned,
        )

    def _join(self, lane: int, first: int, count: int, began: float, times: Times) -> bool:
        """Lengthen the last row, if that is what the report comes to."""
        if not self._rows or times.each or times.seconds > count * LONG_NS * 1e-9:
            return False
        at = len(self._rows) - _ROW.size
        last_lane, last_count, last_first, last_began, seconds, _, _, cpu, own, *_ = _ROW.unpack_from(self._rows, at)
        if lane != last_lane or first != last_first + last_count or seconds > last_count * LONG_NS * 1e-9:
            return False
        if began - last_began - seconds > JOIN_SECONDS:
            return False
        seconds = began + times.seconds - last_began
        count, cpu, own = last_count + count, cpu + times.cpu, own + times.own
        row = (lane, count, last_first, last_began, seconds, 0, 0, cpu, own, -1, 0, 0)
        _ROW.pack_into(self._rows, at, *row)
        return True

    def __iter__(self) -> Iterator[Record]:
        rows = bytes(self._rows)  # a copy: more may come meanwhile
        for number, row in enumerate(_ROW.iter_unpack(rows)):
            record = Record(*row)
            record.each = array("f", self._each.get(number, b""))
            yield record


def columns(
    records: Records, total: int, outcome: Callable[[int], str], failures: dict[int, TaskError]
) -> dict[str, list[Any]]:
    """Return a table of tasks, as its columns.

    Args:
        records: what is known of their times; of a task that ran more than once its last time counts.
        total: their number.
        outcome: asked for each index.
        failures: the failed ones.
    """
    lanes = array("i", bytes(4 * total))
    starts = array("d", bytes(8 * total))
    lengths = array("d", bytes(8 * total))
    for record in records:
        for index, began, seconds in record.tasks():
            if index < total:
                lanes[index], starts[index], lengths[index] = record.lane, began, seconds
    pids = [None, *records.pids]
    outcomes = [outcome(index) for index in range(total)]
    return {
        "index": list(range(total)),
        "outcome": [
            "ended" if lane and told == "not run" else told for told, lane in zip(outcomes, lanes, strict=True)
        ],
        "worker": [lane or None for lane in lanes],
        "pid": [pids[lane] for lane in lanes],
        "start": [start if lane else None for start, lane in zip(starts, lanes, strict=True)],
        "seconds": [seconds if lane else None for seconds, lane in zip(lengths, lanes, strict=True)],
        "error": [_error(failures.get(index)) for index in range(total)],
    }


def _error(failed: TaskError | None) -> str | None:
    return None if failed is None else type(failed.error or failed).__name__
