"""Who is to be ended, and when: workers that were told to stop, and tasks that run over their time.

It keeps times, decides, and ends them; `manager` has it look whenever it wakes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from nbparallel.engine.actions import Abort, Chunk
from nbparallel.engine.connection import Connection

#: How long a worker may take to react to an interrupt before it is ended, in seconds.
STOP_SECONDS = 0.25
#: How often, in seconds, workers are looked at that are to end, where their end can't be waited for.
LOOK_SECONDS = 0.2
# A worker between two tasks is looked at again after so many seconds.
_AGAIN_SECONDS = 0.02


@dataclass
class Verdict:
    """Why a worker is ended.

    Attributes:
        limit: the time limit that was passed, in seconds; `None` if it did not react to an interrupt.
        running: the index of its task at that moment.
    """

    limit: float | None
    running: int | None


class Limits:
    """The limits of one engine's workers."""

    def __init__(self) -> None:
        self._stops: dict[int, tuple[float, int]] = {}
        self._timeouts: dict[int, float] = {}
        self._verdicts: dict[int, Verdict] = {}  # by process id

    def limit(self, run: int, seconds: float | None) -> None:
        """A run begins whose tasks have a time limit, if `seconds` says so."""
        if seconds is not None:
            self._timeouts[run] = seconds

    def forget(self, run: int) -> None:
        """A run is over."""
        self._timeouts.pop(run, None)

    def told_to_stop(self, abort: Abort) -> None:
        """A worker was interrupted; if it can't be, or does not react, it is ended."""
        self._stops[abort.worker] = (time.monotonic() + STOP_SECONDS, abort.chunk)

    def reacted(self, worker: int, chunk: int) -> None:
        """A worker has finished a chunk."""
        if worker in self._stops and self._stops[worker][1] == chunk:
            del self._stops[worker]

    def gone(self, worker: Connection) -> None:
        """A worker has ended, and all have been told why."""
        self._stops.pop(worker.number, None)
        self._verdicts.pop(worker.process.pid, None)

    def verdict(self, pid: int) -> Verdict | None:
        """Return why a worker is being ended; `None` if it is not."""
        return self._verdicts.get(pid)

    def end_those_over(self, workers: Iterable[tuple[Connection, Chunk | None]]) -> float | None:
        """End the workers that are to be ended now; return how long to wait at most until the next look, in seconds.

        Args:
            workers: all of them, with the chunk that each is thought to be at.
        """
        over, wait = self._look(workers)
        for worker, verdict in over:
            if worker.process.pid not in self._verdicts:
                self._verdicts[worker.process.pid] = verdict
                worker.process.kill()
        return LOOK_SECONDS if over and (wait is None or wait > LOOK_SECONDS) else wait

    def _look(
        self, workers: Iterable[tuple[Connection, Chunk | None]]
    ) -> tuple[list[tuple[Connection, Verdict]], float | None]:
        """Return which workers are to be ended now, and after how many seconds to look again.

        Args:
            workers: all of them, with the chunk that each is thought to be at.
        """
        if not self._stops and not self._timeouts:
            return [], None
        over: list[tuple[Connection, Verdict]] = []
        waits: list[float] = []
        now = time.monotonic()
        for worker, chunk in workers:
            stop = self._stops.get(worker.number)
            if stop is not None:
                if now >= stop[0]:
                    over.append((worker, Verdict(None, worker.running)))
                    continue
                waits.append(stop[0] - now)
            limit = None if chunk is None else self._timeouts.get(chunk.run)
            if limit is None or chunk is None:
                continue
            running = worker.running
            left = limit - worker.seconds_running
            if worker.chunk != chunk.number:  # its report is on the way
                waits.append(_AGAIN_SECONDS)
            elif left <= 0:
                over.append((worker, Verdict(limit, running)))
            else:
                waits.append(max(left, 0.001))
        return over, min(waits, default=None)
