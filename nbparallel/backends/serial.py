"""No parallelism: each task runs at once, in the thread that offers it. For debugging, comparison and nested maps.

Tasks print, log and display by themselves, as the cell does, so in the order of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nbparallel.backends import local
from nbparallel.engine.times import Times
from nbparallel.engine.work import Failure, Work, settle
from nbparallel.interrupts import deferred


class SerialBackend:
    """Runs works where they are."""

    name = "serial"
    ends_tasks = False
    outputs: tuple[str | None, ...] = ("live", "ordered")
    usable = True

    def __init__(self) -> None:
        self._next: dict[int, int] = {}
        self._cancelled: set[int] = set()

    def prepare(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def submit(self, work: Work) -> None:
        self._next[work.number] = 0
        if work.streams:
            work.hungry(1)
            work.deliver()

    def offer(self, work: Work, count: int, *, last: bool, known: int = 0) -> None:
        if work.number not in self._next:
            return
        start = self._next[work.number] + known
        stop = self._next[work.number] = start + count
        # One by one, so that an interrupt or a failure finds the others settled or not begun.
        for index in range(start, stop):
            for attempt in range(work.retries + 1):
                if work.number in self._cancelled or work.number not in self._next:
                    break
                if not self._run(work, index, last=attempt == work.retries):
                    break
        if last or work.number in self._cancelled:
            self._finish(work)
        elif work.streams and work.number in self._next:
            work.hungry(1)
            work.deliver()

    def cancel(self, work: Work, *, abort: bool) -> None:
        # From inside a task of its own, `offer` sees it; from outside, nothing of it is under way.
        if work.number in self._next:
            self._cancelled.add(work.number)
            if not local.is_inside_task():
                self._finish(work)

    def under_way(self, work: Work) -> None:
        """It is this process."""

    def shutdown(self, *, abort: bool, wait: bool = True) -> None:
        """Nothing to let go."""

    def _run(self, work: Work, index: int, *, last: bool) -> bool:
        """Run a task; return whether it is to be run again."""
        again = False

        def retry(run: int, failed: int) -> bool:
            nonlocal again
            again = not last
            return again

        def report(first: int, values: Sequence[Any], failures: dict[int, Failure], times: Times) -> None:
            settle(work, retry, first, values, failures, times)
            work.deliver()

        payload = work.payload(index, index + 1)
        if payload is not None:
            with deferred.lifted():
                local.run_chunk(work, payload, index, report, lambda: True, "borrowed")
        return again

    def _finish(self, work: Work) -> None:
        if self._next.pop(work.number, None) is not None:
            self._cancelled.discard(work.number)
            work.finish()
            work.deliver()


def configuration(workers: int, start_method: str) -> tuple[object, ...]:
    """Return nothing: there is only one way to run serially."""
    return ()


def open_backend(workers: int, start_method: str) -> SerialBackend:
    return SerialBackend()
