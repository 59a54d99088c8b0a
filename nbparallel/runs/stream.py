"""`Stream`: an execution whose results are read once and forgotten, for ``Pool.imap`` over endless input."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from nbparallel.engine.scheduler import PREFETCH_CHUNKS, PREFETCH_SECONDS
from nbparallel.engine.work import Failure
from nbparallel.runs.execution import Execution
from nbparallel.runs.failures import note_task

#: How many chunks may be under way or wait to be read, per worker, before the input is left alone: one that is run and
#: one that is read; and for tiny tasks twice what a worker is sent ahead of them.
CHUNKS_AHEAD = 2
TINY_CHUNKS_AHEAD = 2 * PREFETCH_CHUNKS


class Stream(Execution):
    """Results that pass by."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, stop_on_error=False, **options)
        self._values: dict[int, Any] = {}
        self._arrivals: deque[tuple[int, int]] = deque()
        self._read = 0
        self._is_tiny = False

    def await_result(self, index: int, timeout: float | None) -> bool:
        """Wait until a result can be taken.

        Returns:
            False if there is none: the input ended before.

        Raises:
            TimeoutError: it is not there after `timeout` seconds.
        """
        return self._await(lambda: index in self._values, timeout)

    def await_arrivals(self, timeout: float | None) -> list[int]:
        """Wait for the next outcomes that nobody has been told of, and return their indices; none at the end."""
        if not self._await(lambda: bool(self._arrivals), timeout):
            return []
        first, count = self._arrivals.popleft()
        return list(range(first, first + count))

    def take(self, index: int) -> Any:
        """Return a result and forget it.

        Raises:
            Exception: what the task raised.
        """
        value = self._values.pop(index)
        failed = self.failures.pop(index, None)
        self._read += 1
        if self._wanted:  # the thread that pulls may have waited for room
            for bell in list(self._bells):
                bell.put(None)
        if failed is not None:
            note_task(failed)
            failed.throw()
        return value

    def drop(self) -> None:
        """Begin no further task: nobody reads the results any more."""
        self._cancel(abort=False)

    def raise_if_cut_short(self) -> None:
        """Raise what ended the results early: the input's own error, or a cancellation."""
        self._raise_if_failed()

    def _room(self) -> int | None:
        ahead = TINY_CHUNKS_AHEAD if self._is_tiny else CHUNKS_AHEAD
        return max(0, ahead * self.width * (self.chunksize or 1) - (self._offered - self._read))

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        """Take outcomes."""
        self._is_tiny = seconds < PREFETCH_SECONDS
        super().settle(first, values, failures, seconds)

    def _store(self, first: int, values: Sequence[Any]) -> None:
        self._values.update(zip(range(first, first + len(values)), values, strict=True))
        self._arrivals.append((first, len(values)))

    def _has_outcome(self, index: int) -> bool:
        return index < self._read or index in self._values
