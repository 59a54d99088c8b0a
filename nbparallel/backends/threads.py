"""Threads of this process: for tasks that wait (files, network) or release the GIL (NumPy), with nothing to pickle.

What threads share they share here too: a task that crashes takes the notebook along, one that runs can't be ended, the
lines that tasks print at the same time may mix, and a seed reaches only `rng`. Context variables are the caller's, so
that what tasks print and display belongs to the calling cell.
"""

from __future__ import annotations

from collections.abc import Sequence

from nbparallel.backends import local
from nbparallel.backends.slots import SlotsBackend
from nbparallel.engine.actions import Chunk
from nbparallel.engine.times import Times
from nbparallel.engine.work import Failure, Payload, Work


class ThreadsBackend(SlotsBackend):
    """A set of warm threads: a slot is nothing but its thread."""

    name = "threads"
    ends_tasks = False
    outputs: tuple[str | None, ...] = ("live",)

    def cancel(self, work: Work, *, abort: bool) -> None:
        """Drop what has not begun; a thread can't be ended: what runs goes on."""
        super().cancel(work, abort=False)

    def _open(self, number: int) -> None:
        return None

    def _close(self, slot: None) -> None:
        """Nothing to let go."""

    def _run(self, number: int, slot: None, work: Work, chunk: Chunk, payload: Payload) -> bool:
        def report(first: int, values: Sequence[object], failures: dict[int, Failure], times: Times) -> None:
            with self._lock:
                self._settle(work, first, values, failures, times)

        def wanted() -> bool:
            return work.number not in self._skipped

        context = payload.context.copy()  # one can't be entered twice at a time
        count, seconds = context.run(local.run_chunk, work, payload, chunk.start, report, wanted, "thread", number)
        with self._lock:
            self._perform(self._scheduler.done(number, chunk.number, count, seconds))
        return True


def configuration(workers: int, start_method: str) -> tuple[object, ...]:
    """Return nothing: one set of threads serves all."""
    return ()


def open_backend(workers: int, start_method: str) -> ThreadsBackend:
    """Return a set of threads, none started."""
    return ThreadsBackend()
