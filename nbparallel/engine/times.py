"""When and where tasks ran: measured beside them, completed here, and handed to their run.

A `Meter` stands in the loop that runs the tasks, in a worker or a thread; a `Ledger` stands in this process, one for
each worker, and knows what was sent to it and when. Whoever backs a run gives its `Times` to `work.settle`. It
imports nothing of the package: a worker loads it too.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

if sys.platform != "win32":
    import resource

#: Tasks are timed one by one where they take longer than this on average, in nanoseconds; of shorter ones only their
#: mean is known. Taking the differences costs 0.1 µs a task, half of what a tiny task costs in all.
LONG_NS = 20_000

#: What a worker measured: the begin of the first task and the length of all (`time.perf_counter_ns`), the processor
#: time that its process and the task's own thread used meanwhile (nanoseconds), how often the process began to wait for
#: something (-1: unknown), and the length of each task in seconds as 32-bit floats, or nothing.
Measured = tuple[int, int, int, int, int, bytes]


@dataclass(slots=True)
class Times:
    """When and where the consecutive tasks of one report ran.

    Times are in seconds, of this process's `time.perf_counter`.

    Attributes:
        worker: its number; unique in its backend.
        pid: its process.
        sent: when the pickling of their inputs began.
        began: when the first of them began.
        seconds: how long they took together.
        arrived: when their outcomes were here.
        cpu: the processor time that they used, with all threads of the worker's process; without, on a backend whose
            tasks share a process.
        own: that of the thread that ran the tasks.
        waits: how often they gave up the processor to wait for something; -1 where that is not known.
        bytes_sent: what their inputs weighed, pickled.
        bytes_returned: the same of their results.
        each: how long each of them took, as 32-bit floats; empty where they were too short to tell.
    """

    worker: int
    pid: int
    sent: float
    began: float
    seconds: float
    arrived: float
    cpu: float = 0.0
    own: float = 0.0
    waits: int = -1
    bytes_sent: int = 0
    bytes_returned: int = 0
    each: bytes = b""


@dataclass(slots=True)
class CutShort:
    """A task whose worker ended before it did: its run, its index and what is known of its times."""

    run: int
    index: int
    times: Times


class Meter:
    """Measures the tasks of one report.

    Args:
        alone: whether no other task runs in this process, so that all its threads work for this one.

    Attributes:
        stamp: called with the time at which a task begins (`time.perf_counter_ns`).
    """

    __slots__ = ("_alone", "_cpu", "_own", "_stamps", "_waits", "stamp")

    def __init__(self, *, alone: bool) -> None:
        self._stamps: list[int] = []
        self.stamp = self._stamps.append
        self._alone = alone
        self._own = time.thread_time_ns()
        self._cpu, self._waits = _process_use() if alone else (0, 0)

    def read(self, count: int) -> Measured:
        """Return what the first `count` tasks took, of which the last has just ended unless a further one began."""
        own = time.thread_time_ns() - self._own
        cpu, waits = own, -1
        if self._alone:
            cpu, switches = _process_use()
            cpu, waits = cpu - self._cpu, -1 if switches < 0 else switches - self._waits
        now = time.perf_counter_ns()
        stamps = self._stamps
        if not count or not stamps:  # none was begun: their inputs can't be rebuilt
            return now, 0, cpu, own, waits, b""
        del stamps[count + 1 :]
        if len(stamps) == count:
            stamps.append(now)
        elapsed = stamps[-1] - stamps[0]
        each = b""
        if count > 1 and elapsed > count * LONG_NS:
            each = array("f", [(after - before) * 1e-9 for before, after in pairwise(stamps)]).tobytes()
        return stamps[0], elapsed, cpu, own, waits, each


def _process_use() -> tuple[int, int]:
    """Return the processor time of this process in nanoseconds, and how often it waited (-1: unknown)."""
    if sys.platform == "win32":
        return time.process_time_ns(), -1
    use = resource.getrusage(resource.RUSAGE_SELF)
    return int((use.ru_utime + use.ru_stime) * 1e9), use.ru_nvcsw


class Ledger:
    """What one worker was sent, and has not reported on to the end.

    Args:
        worker: its number.
        pid: its process.
    """

    def __init__(self, worker: int, pid: int) -> None:
        self._worker = worker
        self._pid = pid
        self._chunks: dict[int, tuple[int, float, int]] = {}  # its run, when, bytes

    def sent(self, chunk: int, run: int, began: float, segments: Sequence[bytes | bytearray | memoryview]) -> None:
        """Take note of a chunk that is sent, and of when its pickling began (`time.perf_counter`)."""
        self._chunks[chunk] = (run, began, _nbytes(segments))

    def dropped(self, chunk: int) -> None:
        """Take note that a chunk is not run."""
        self._chunks.pop(chunk, None)

    def reported(self, chunk: int, measured: Measured, arrived: float, weight: int, *, last: bool) -> Times:
        """Return the times of a report that came at a time, with results of so many bytes; `last` ends its chunk."""
        run, sent, size = self._chunks.pop(chunk)
        if not last:
            self._chunks[chunk] = (run, sent, 0)  # its inputs are counted with its first report
        began_ns, nanoseconds, cpu, own, waits, each = measured
        began, seconds = began_ns / 1e9, nanoseconds / 1e9
        # On all systems that are known the clock counts from the machine's start. Where a worker's does not, what it
        # did is taken to have ended just now.
        if not sent <= began <= arrived - seconds:
            began = max(sent, arrived - seconds)
        return Times(
            self._worker,
            self._pid,
            sent,
            began,
            seconds,
            arrived,
            cpu / 1e9,
            own / 1e9,
            waits,
            size,
            weight,
            each,
        )

    def cut_short(self, chunk: int, index: int, started_ns: int) -> CutShort | None:
        """Return what is known of the task at which the worker has ended."""
        if chunk not in self._chunks or not started_ns:
            return None
        now = time.perf_counter()
        run, sent, _ = self._chunks.pop(chunk)
        began = min(max(sent, started_ns / 1e9), now)
        return CutShort(run, index, Times(self._worker, self._pid, sent, began, now - began, now))


def here(measured: Measured, worker: int, pid: int) -> Times:
    """Return the times of tasks that ran in this process, to which nothing was sent."""
    began_ns, nanoseconds, cpu, own, waits, each = measured
    began, seconds = began_ns / 1e9, nanoseconds / 1e9
    return Times(worker, pid, began, began, seconds, began + seconds, cpu / 1e9, own / 1e9, waits, each=each)


def _nbytes(segments: Sequence[bytes | bytearray | memoryview]) -> int:
    return sum(each.nbytes if isinstance(each, memoryview) else len(each) for each in segments)
