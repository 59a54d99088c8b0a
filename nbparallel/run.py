"""A run: one map call, with its tasks, results, failures and output.

It is what a backend executes (`engine.work.Work`) and what a user holds. The thread that waits for it drives it: pulls
its input, prints its output, moves its bar. A run that nobody waits for has a thread that pulls, and prints from
wherever output arrives. Made by `mapping` and `pool`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

from nbparallel.engine.work import Backend, Failure, Payload, next_number
from nbparallel.errors import TaskError
from nbparallel.failures import exception_of, task_error
from nbparallel.inputs import Input, IteratorInput
from nbparallel.serialize import name_of

# On Windows a lock that is waited for without a limit can't be interrupted.
_WAIT_SECONDS = 0.1 if sys.platform == "win32" else None


class _Pending:
    def __repr__(self) -> str:
        return "<pending>"


#: Stands in `Run.results` where a task has no result: not run yet, failed, or left out.
PENDING: Any = _Pending()


class Run:
    """One map call, under way or finished.

    Attributes:
        label: what it is called in its bar and summary.
        total: the number of tasks; `None` while the input's end is not known.
        failures: the failed tasks so far, as `TaskError`, by index.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Input,
        backend: Backend,
        width: int,
        *,
        style: str = "one",
        chunksize: int | None = None,
        stop_on_error: bool = True,
        seed: int | None = None,
        label: str | None = None,
        window: int | None = None,
    ) -> None:
        self.number = next_number()
        self.style = style
        self.width = width
        self.chunksize = chunksize
        self.stop_on_error = stop_on_error
        self.seed = seed
        self.streams = inputs.streams
        self.label = label or name_of(function)
        self.total = inputs.total
        self.failures: dict[int, TaskError] = {}
        self._function = function
        self._inputs = inputs
        self._backend = backend
        self._prepared: Any = None
        self._window = window
        self._values: list[Any] | dict[int, Any] = {} if window else [PENDING] * (inputs.total or 0)
        self._settled: deque[tuple[int, int]] = deque()  # in the order of completion: first index, count
        self._done_count = 0
        self._consumed = 0
        self._wanted = 0
        self._changed = threading.Condition(threading.Lock())
        self._finished = False
        self._cancelled = False
        self._given_up: Failure | None = None
        self._input_error: BaseException | None = None
        self._output: deque[tuple[int, str]] = deque()
        self._drivers = 0
        self._context = contextvars.copy_context()
        self._callbacks: list[Callable[[Run], Any]] = []
        self._listeners: list[Callable[[], None]] = []
        self._began = time.perf_counter()
        self._ended: float | None = None

    # ---- what users ask ----

    @property
    def done(self) -> bool:
        """Whether nothing is waiting or under way any more."""
        return self._finished

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def results(self) -> list[Any]:
        """The results so far, in the order of the input; `PENDING` where there is none, a `TaskError` where one failed."""
        with self._changed:
            values = self._values if isinstance(self._values, list) else []
            found = list(values)
        for index, failed in self.failures.items():
            if index < len(found):
                found[index] = failed
        return found

    @property
    def completed(self) -> int:
        """How many tasks have an outcome."""
        return self._done_count

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self._ended or time.perf_counter()) - self._began

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

    def cancel(self) -> bool:
        """Drop the tasks that have not begun and end those that have; finished results stay.

        Returns:
            Whether there was anything to cancel.
        """
        with self._changed:
            if self._finished:
                return False
            self._cancelled = True
        self._backend.cancel(self, abort=True)
        return True

    def summary(self) -> str:
        """Return one line on how it went, such as ``"98 ok, 2 failed in 1.2 s"``."""
        counts = [f"{self._done_count - len(self.failures)} ok"]
        if self.failures:
            counts.append(f"{len(self.failures)} failed")
        left = (self.total or self._done_count) - self._done_count
        if left:
            counts.append(f"{left} {'not run' if self._finished else 'to go'}")
        return f"{', '.join(counts)} in {_duration(self.seconds)}"

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else "done" if self._finished else "running"
        return f"<Run {self.label}: {state}, {self.summary()}>"

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the input, each as soon as it and those before it are there."""
        index = 0
        while self.await_(lambda: self.has(index)):
            yield self._outcome(index)
            index += 1
        self._raise_if_failed()

    def as_completed(self) -> Iterator[Any]:
        """Yield the results in the order in which the tasks finish."""
        position = 0
        while self.await_(lambda: position < len(self._settled)):
            first, count = self._settled[position]
            position += 1
            for index in range(first, first + count):
                yield self._outcome(index)
        self._raise_if_failed()

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self._result_soon().__await__()

    async def _result_soon(self) -> list[Any]:
        async for _ in self._turns():
            if self._finished:
                break
        self._raise_if_failed()
        return self.results

    async def __aiter__(self) -> AsyncIterator[Any]:
        index = 0
        async for _ in self._turns():
            while self.has(index):
                yield self._outcome(index)
                index += 1
            if self._finished and not self.has(index):
                break
        self._raise_if_failed()

    async def _turns(self) -> AsyncIterator[None]:
        """Yield once now, and again whenever something was settled, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def listener() -> None:
            loop.call_soon_threadsafe(changed.set)

        self._listeners.append(listener)
        try:
            while True:
                changed.clear()
                yield
                await changed.wait()
        finally:
            self._listeners.remove(listener)

    def add_done_callback(self, callback: Callable[[Run], Any]) -> None:
        """Call `callback` with this run when it is finished; at once if it is."""
        with self._changed:
            if not self._finished:
                self._callbacks.append(callback)
                return
        callback(self)

    # ---- driving: pulling input, printing output ----

    def start(self, *, background: bool) -> None:
        """Hand the tasks to the backend.

        Args:
            background: whether nobody may be waiting: input that must be pulled then gets a thread.

        Raises:
            SerializationError: the function can't travel; nothing was started.
        """
        self._prepared = self._backend.prepare(self._function)
        if self.total == 0:
            self.finish()
            self.deliver()
            return
        if isinstance(self._inputs, IteratorInput):
            if background:
                name = f"nbparallel-input-{self.label}"
                threading.Thread(target=self._pull_in_background, name=name, daemon=True).start()
            else:
                self._begin_streaming()
            return
        self._backend.submit(self)
        assert self.total is not None
        self._backend.offer(self, self.total, last=True)

    def drive(self, until: Callable[[], bool], timeout: float | None = None, beat: float | None = None) -> bool:
        """Wait in this thread until something is the case, doing meanwhile what the run needs.

        Args:
            until: asked after each change.
            timeout: seconds.
            beat: return False after so many seconds without an end, for the caller to move its bar.

        Raises:
            TimeoutError: it was not the case in time.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        next_beat = None if beat is None else time.monotonic() + beat
        self._drivers += 1
        try:
            while True:
                with self._changed:
                    while not (until() or self._output or self._must_pull()):
                        now = time.monotonic()
                        if limit is not None and now >= limit:
                            raise TimeoutError(f"{self.label} is not finished: {self.summary()}")
                        if next_beat is not None and now >= next_beat:
                            return False
                        ends = [each - now for each in (limit, next_beat) if each is not None]
                        self._changed.wait(min([*ends, *([_WAIT_SECONDS] if _WAIT_SECONDS else [])], default=None))
                    met = until()
                self._print()
                if met:
                    return True
                if self._must_pull():
                    self._pull()
        finally:
            self._drivers -= 1
            self._print()

    def _must_pull(self) -> bool:
        if not self._wanted or not isinstance(self._inputs, IteratorInput) or self._pulling_elsewhere:
            return False
        return self._window is None or self._inputs.pulled - self._consumed < self._window

    _pulling_elsewhere = False

    def _begin_streaming(self) -> None:
        self._submitted = False
        self._wanted = 1

    _submitted = True

    def _pull(self) -> None:
        assert isinstance(self._inputs, IteratorInput)
        with self._changed:
            count, self._wanted = self._wanted, 0
            if self._window is not None:
                count = min(count, self._window - (self._inputs.pulled - self._consumed))
        before = self._inputs.pulled
        try:
            pulled, last = self._inputs.pull(count)
        except BaseException as error:
            self._input_error = error
            pulled, last = self._inputs.pulled - before, True
            if not isinstance(error, Exception):
                self._offer(pulled, last=True)
                raise
        self._offer(pulled, last=last)

    def _offer(self, count: int, *, last: bool) -> None:
        assert isinstance(self._inputs, IteratorInput)
        with self._changed:
            if isinstance(self._values, list):
                self._values += [PENDING] * count
            if last:
                self.total = self._inputs.pulled
        if not self._submitted:
            if last and not self._inputs.pulled:  # an empty input: no worker is started for it
                self.finish()
                self.deliver()
                return
            self._submitted = True
            self._backend.submit(self)
        self._backend.offer(self, count, last=last)

    def _pull_in_background(self) -> None:
        self._begin_streaming()
        while not self._finished:
            with self._changed:
                while not (self._finished or self._must_pull()):
                    self._changed.wait()
            if not self._finished:
                self._pull()

    def await_(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `condition` or the end; return whether it is the case.

        Raises:
            TimeoutError: neither, after `timeout` seconds.
        """
        self.drive(lambda: condition() or self._finished, timeout)
        return condition()

    def has(self, index: int) -> bool:
        """Return whether the outcome of a task can be read."""
        if index in self.failures:
            return not self.stop_on_error
        if isinstance(self._values, list):
            return index < len(self._values) and self._values[index] is not PENDING
        return index in self._values

    def _outcome(self, index: int) -> Any:
        if index in self.failures:
            if self.stop_on_error:
                self._raise_if_failed()
            return self.failures[index]
        return self._values[index]

    # ---- streams, whose outcomes are read once ----

    def take(self, index: int) -> Any:
        """Return a result and forget it.

        Raises:
            Exception: what the task raised.
        """
        assert isinstance(self._values, dict)
        value = self._values.pop(index)
        failed = self.failures.pop(index, None)
        with self._changed:
            self._consumed += 1
            self._changed.notify_all()
        if failed is not None:
            raise exception_of(failed)
        return value

    @property
    def has_arrivals(self) -> bool:
        return bool(self._settled)

    def take_arrivals(self) -> tuple[int, int]:
        """Return the first index and the count of the outcomes that arrived first, and forget that they did."""
        return self._settled.popleft()

    def drop(self) -> None:
        """Begin no further task: nobody reads the results any more."""
        if not self._finished:
            self._cancelled = True
            self._backend.cancel(self, abort=False)

    def raise_if_cut_short(self) -> None:
        """Raise what ended the input early: its own error, or a cancellation."""
        if self._input_error is not None:
            raise self._input_error
        if self._cancelled:
            raise CancelledError(f"{self.label} was cancelled: {self.summary()}")

    def _raise_if_failed(self) -> None:
        if self._input_error is not None:
            raise self._input_error
        if self.failures and self.stop_on_error:
            raise exception_of(self.failures[min(self.failures)])
        self.raise_if_cut_short()

    def _print(self) -> None:
        while self._output:
            try:
                stream, text = self._output.popleft()
            except IndexError:  # another thread was quicker
                return
            parts = [text]
            while self._output and self._output[0][0] == stream:
                parts.append(self._output.popleft()[1])
            target = sys.stdout if stream == 1 else sys.stderr
            self._context.copy().run(target.write, "".join(parts))
            target.flush()

    # ---- what backends ask (engine.work.Work) ----

    def payload(self, start: int, stop: int) -> Payload | None:
        return Payload(self._prepared, self._inputs.items(start, stop))

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        if self._cancelled:  # what its end breaks is no news
            failures = {index: failure for index, failure in failures.items() if not failure.crashed}
            if not failures and len(values) == 1 and values[0] is None:
                return
        for index, failure in failures.items():
            item = self._inputs.items(index, index + 1)[0]
            self.failures[index] = task_error(failure, self._function, self.style, index, item)
        count = len(values)
        with self._changed:
            if isinstance(self._values, list):
                self._values[first : first + count] = values
                for index in failures:
                    self._values[index] = PENDING
            else:
                self._values.update(zip(range(first, first + count), values, strict=True))
            self._settled.append((first, count))
            self._done_count += count
        self._inputs.release(first, first + count)
        if failures and self.stop_on_error:
            self._backend.cancel(self, abort=False)

    def give_up(self, why: Failure) -> None:
        self._given_up = why
        index = next((i for i in range(self.total or 1) if not self.has(i)), 0)
        items = self._inputs.items(index, index + 1)
        self.failures[index] = task_error(why, self._function, self.style, index, items[0] if len(items) else ())

    def hungry(self, count: int) -> None:
        with self._changed:
            self._wanted = count

    def write(self, index: int, stream: int, text: str) -> None:
        self._output.append((stream, text))

    def finish(self) -> None:
        with self._changed:
            self._finished = True
            self._ended = time.perf_counter()

    def deliver(self) -> None:
        if not self._drivers:
            self._print()
        with self._changed:
            self._changed.notify_all()
            callbacks: list[Callable[[Run], Any]] = []
            if self._finished:
                callbacks, self._callbacks = self._callbacks, []
        for listener in list(self._listeners):
            listener()
        for callback in callbacks:
            callback(self)


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"
