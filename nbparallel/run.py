"""`Run`: one map call, under way or finished, with its results. Made by `mapping` and `pool`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import Any

from nbparallel.execution import Execution


class _Pending:
    def __repr__(self) -> str:
        return "<pending>"


#: Stands in `Run.results` where a task has no result: not run yet, or left out.
PENDING: Any = _Pending()


class Run(Execution):
    """One map call, under way or finished.

    Attributes:
        label: what it is called in its bar and summary.
        total: the number of tasks; `None` while the input's end is not known.
        failures: the failed tasks so far, as `TaskError`, by index.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._values: list[Any] = []
        self._arrivals: list[tuple[int, int]] = []  # in the order of completion: first index, count

    @property
    def results(self) -> list[Any]:
        """The results so far, in the order of the input; a `TaskError` where a task failed, `PENDING` where none is."""
        with self._lock:
            found = list(self._values)
        for index, failed in self.failures.items():
            found[index] = failed
        return found

    def result(self, timeout: float | None = None) -> list[Any]:
        """Wait for the end and return the results, in the order of the input.

        Args:
            timeout: seconds to wait at most; the run itself goes on.

        Returns:
            One result per task; with ``on_error="return"`` a failed task's place holds its `TaskError`.

        Raises:
            TimeoutError: it is not finished in time.
            CancelledError: it was cancelled.
            Exception: the error of the failed task with the lowest index, as itself.
        """
        self.wait(timeout)
        self._raise_if_failed()
        return self.results

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end, printing what tasks print.

        Raises:
            TimeoutError: it is not finished after `timeout` seconds.
        """
        self.drive(lambda: self._finished, timeout)

    def add_done_callback(self, callback: Callable[[Run], Any]) -> None:
        """Call `callback` with this run when it is finished; at once if it is."""
        with self._lock:
            if not self._finished:
                self._callbacks.append(callback)
                return
        callback(self)

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else "done" if self._finished else "running"
        return f"<Run {self.label}: {state}, {self.summary()}>"

    # ---- reading it while it goes on ----

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the input, each as soon as it and those before it are there."""
        index = 0
        while self._await(lambda: self._readable(index)):  # noqa: B023 - asked before `index` moves on
            yield self._outcome(index)
            index += 1
        self._raise_if_failed()

    def as_completed(self) -> Iterator[Any]:
        """Yield the results in the order in which the tasks finish."""
        position = 0
        while self._await(lambda: position < len(self._arrivals)):  # noqa: B023 - asked before `position` moves on
            first, count = self._arrivals[position]
            position += 1
            for index in range(first, first + count):
                if self._readable(index):
                    yield self._outcome(index)
        self._raise_if_failed()

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Wait for the results without blocking the event loop; returns and raises as `result` does."""
        return self._result_in_loop().__await__()

    async def _result_in_loop(self) -> list[Any]:
        async for _ in self._turns():
            if self._finished:
                break
        return self.result()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the results in the order of the input, without blocking the event loop."""
        index = 0
        async for _ in self._turns():
            while self._readable(index):
                yield self._outcome(index)
                index += 1
            if self._finished and not self._readable(index):
                break
        self._raise_if_failed()

    async def _turns(self) -> AsyncIterator[None]:
        """Yield once now, and again whenever something was settled."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def listener() -> None:
            loop.call_soon_threadsafe(changed.set)

        self.listeners.append(listener)
        try:
            while True:
                changed.clear()
                yield
                await changed.wait()
        finally:
            self.listeners.remove(listener)

    def _readable(self, index: int) -> bool:
        """Return whether an outcome can be read: with ``on_error="raise"`` a failure can't, it is raised at the end."""
        return self._has_outcome(index) and not (self.stop_on_error and index in self.failures)

    def _outcome(self, index: int) -> Any:
        return self.failures.get(index, self._values[index])

    # ---- storage ----

    def _expect(self, count: int) -> None:
        self._values += [PENDING] * count

    def _store(self, first: int, values: Sequence[Any]) -> None:
        self._values[first : first + len(values)] = values
        self._arrivals.append((first, len(values)))

    def _has_outcome(self, index: int) -> bool:
        return index < len(self._values) and self._values[index] is not PENDING
