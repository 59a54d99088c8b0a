"""Single calls, each with a future of its own: what `Executor.submit` and `Pool.apply_async` make.

One `Calls` per executor or pool is a run without an end, to which each call adds a task.
"""

from __future__ import annotations

import contextvars
import dataclasses
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from nbparallel import config
from nbparallel.engine.times import Times
from nbparallel.engine.work import Backend, Failure, Payload, Said, next_number
from nbparallel.interrupts import WAIT_SECONDS, deferred
from nbparallel.output import showing
from nbparallel.output.outbox import Outbox
from nbparallel.runs.failures import note_task, task_error
from nbparallel.tracebacks import Origin, hidden


class TaskFuture(Future[Any]):
    """One that is waited for in pieces, and raises an error without the frames of whoever asked before."""

    _origin = Origin(None, None)

    def set_exception(self, exception: BaseException | None) -> None:
        if exception is not None:
            self._origin = Origin.of(exception)
        super().set_exception(exception)

    def result(self, timeout: float | None = None) -> Any:
        with hidden:
            error = self.exception(timeout)
            if error is not None:
                self._origin.throw(error)
            return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        with hidden:
            self._wait(timeout)
            return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        limit = math.inf if timeout is None else time.monotonic() + timeout
        # Not by `exception(timeout)`: an interrupt that comes as that raises would have a TimeoutError as its context.
        while not self.done() and (left := limit - time.monotonic()) > 0:
            with self._condition:
                if not self.done():
                    self._condition.wait(min(left, WAIT_SECONDS))


class _Call:
    __slots__ = ("context", "function", "future", "is_shown", "item", "prepared")

    def __init__(self, function: Callable[..., Any], item: Any, prepared: Any) -> None:
        self.function = function
        self.item = item
        self.prepared = prepared
        self.future = TaskFuture()
        self.context = contextvars.copy_context()
        # Nobody waits for a call's place in the order, and nothing of it is kept.
        self.is_shown = config.settings().output in ("live", "ordered")


class Calls:
    """An endless run of single calls (`engine.work.Work`)."""

    style = "call"
    chunksize: int | None = 1
    streams = False
    stop_on_error = False
    seed: int | None = None
    retries = 0
    retry_on: tuple[type[BaseException], ...] = ()

    def __init__(self, backend: Backend, width: int, timeout: float | None = None) -> None:
        self.number = next_number()
        self.width = width
        self.timeout = timeout
        self._backend = backend
        self._waiting: dict[int, _Call] = {}
        self._order = threading.Lock()
        self._next = itertools.count()
        self._outcomes: deque[tuple[_Call, Any, BaseException | None]] = deque()
        self._outbox = Outbox("live", budgets=showing.budgets())
        backend.submit(self)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Add a call.

        Raises:
            SerializationError: the function can't travel.
        """
        call = _Call(function, (args, kwargs), self._backend.prepare(function))
        # The number is taken and offered in one step: callers may be on several threads, and be interrupted.
        with deferred, self._order:
            self._waiting[next(self._next)] = call
            self._backend.offer(self, 1, last=False)
        return call.future

    def close(self) -> None:
        """Take no more calls; those that wait are still made."""
        self._backend.offer(self, 0, last=True)

    def cancel(self) -> None:
        """Cancel the calls that have not begun."""
        for call in list(self._waiting.values()):
            call.future.cancel()

    # ---- engine.work.Work ----

    # What these methods are for, `Work` says.

    def payload(self, start: int, stop: int) -> Payload | None:
        call = self._waiting[start]
        future = call.future
        # A call that is sent again, because its worker died before it began, is running already.
        if not future.running() and not future.set_running_or_notify_cancel():
            del self._waiting[start]
            return None
        return Payload(call.prepared, [call.item], call.context)

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        for index, value in enumerate(values, first):
            call = self._waiting.pop(index)
            error = None
            if index in failures:
                failed = task_error(failures[index], call.function, self.style, index, call.item)
                note_task(failed)
                error = failed.raised
            self._outcomes.append((call, value, error))

    def timed(self, first: int, count: int, times: Times) -> None:
        """Each call stands for itself: there is no run to look at."""

    def give_up(self, why: Failure) -> None:
        for index in list(self._waiting):
            self.settle(index, [None], {index: why}, 0.0)

    def hungry(self, count: int) -> None:
        """Nothing to pull: calls come when they are made."""

    def write(self, index: int, said: Said) -> None:
        if said.kind == "bar":  # there is none of the calls that it could stand below
            return
        call = self._waiting.get(index)
        if call is None or call.is_shown:
            context = None if call is None else call.context
            self._outbox.put(index, dataclasses.replace(said, context=context))

    def finish(self) -> None:
        # The backend was shut down at once: these will never be made, or never be finished.
        for index in list(self._waiting):
            why = CancelledError("the workers were ended before this call was finished")
            self._outcomes.append((self._waiting.pop(index), None, why))
        self._outbox.end()

    def deliver(self) -> None:
        for said in self._outbox.take():
            (said.context or contextvars.copy_context()).copy().run(showing.show, said)
        while self._outcomes:
            try:
                call, value, error = self._outcomes.popleft()
            except IndexError:  # another thread was quicker
                return
            if call.future.cancelled():
                continue
            if error is not None:
                call.future.set_exception(error)
            else:
                call.future.set_result(value)
