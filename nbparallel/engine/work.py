"""What the engine asks of a run, and what a run may ask of whatever executes it.

The two interfaces between the front (`run`, `pool`, `executor`) and the places where tasks go (`backends`). Neither
side imports the other.
"""

from __future__ import annotations

import contextvars
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from nbparallel.engine.memory import LastKnown
from nbparallel.engine.times import Times
from nbparallel.interrupts import deferred

_numbers = itertools.count(1)


def next_number() -> int:
    """Return a number for a run; unique in this process."""
    return next(_numbers)


@dataclass
class Failure:
    """A task that raised, as plain data.

    Attributes:
        error: the exception; `None` when it could not be rebuilt here, or when the worker died.
        type: the name of its class.
        message: its text.
        traceback: the worker's traceback.
        unpicklable: what could not travel back ("its result, a …,"), empty otherwise.
        pid: the worker that died.
        exitcode: how it died (negative: a signal).
        limit: the time limit that the task ran over, in seconds.
        memory: what is known of the memory at the worker's end.
        frames: where in the user's code it was raised, for an exception that is not here.
    """

    error: BaseException | None
    type: str
    message: str
    traceback: str = ""
    unpicklable: str = ""
    pid: int | None = None
    exitcode: int | None = None
    crashed: bool = False
    limit: float | None = None
    memory: LastKnown | None = None
    frames: TracebackType | None = None

    @property
    def ended_with_run(self) -> bool:
        """Whether the end of its run may have caused it: its worker was interrupted or ended."""
        return self.crashed or isinstance(self.error, KeyboardInterrupt)


@dataclass(frozen=True)
class Payload:
    """Tasks to execute.

    Attributes:
        function: what `Backend.prepare` made of it.
        inputs: one a task.
        context: of whoever called; in it, what tasks of this process print belongs to the calling cell.
    """

    function: Any
    inputs: Sequence[Any]
    context: contextvars.Context


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that a task said.

    Attributes:
        kind: how: ``"stdout"``, ``"stderr"``, ``"log"``, ``"warning"``, ``"display"``, ``"bar"`` or ``"traceback"``
            (how a process ended, which no flood hides).
        text: what it said, or what can be said of it in text; of a bar, its place and its line (see `relay.show_bar`).
        details: the pickled rest, of what is more than text.
        once: whether a run tells it once, however many tasks say it.
        context: of the call that it belongs to; `None` for the run's own.
    """

    kind: str
    text: str
    details: Sequence[bytes | bytearray] = ()
    once: bool = False
    context: contextvars.Context | None = None


class Work(Protocol):
    """A run, as seen by a backend. Its methods may be called on any thread, and must not block.

    All are called under the backend's lock but `deliver`, which is where users' callbacks may run.
    """

    number: int
    width: int
    chunksize: int | None
    streams: bool
    style: str
    stop_on_error: bool
    seed: int | None
    timeout: float | None
    retries: int
    retry_on: tuple[type[BaseException], ...]

    def payload(self, start: int, stop: int) -> Payload | None:
        """Return tasks `start` to `stop`, which are about to begin; `None` to leave them out."""

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        """Take the outcomes of consecutive tasks from `first` on; a failed one's value is meaningless."""

    def timed(self, first: int, count: int, times: Times) -> None:
        """Take note of when and where consecutive tasks ran; their outcomes follow, or they are run again."""

    def give_up(self, why: Failure) -> None:
        """Take note that none of the outstanding tasks can be run."""

    def hungry(self, count: int) -> None:
        """Take note that `count` more inputs are wanted."""

    def write(self, index: int, said: Said) -> None:
        """Take what a task said: `index` is -1 where the task is not known, or `relay.OWN`."""

    def finish(self) -> None:
        """Take note that no task is waiting or under way."""

    def deliver(self) -> None:
        """Tell whoever waits what has been settled; called without a lock, soon after the methods above."""


class Gate:
    """A backend's lock, which lets works deliver once it is free again, and interrupts wait until then."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._touched: dict[int, Work] = {}

    def touch(self, work: Work) -> None:
        """Have `work` deliver when the lock is released."""
        self._touched[work.number] = work

    def __enter__(self) -> None:
        deferred.__enter__()
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        touched: dict[int, Work] = {}
        if self._depth == 0 and self._touched:
            touched, self._touched = self._touched, touched
        self._lock.release()
        try:
            for work in touched.values():
                try:
                    work.deliver()
                except Exception:  # a user's callback: told, as by concurrent.futures, and in nobody's way
                    sys.excepthook(*sys.exc_info())
        finally:
            deferred.__exit__()


def how_it_ended(pid: int | None, code: int | None) -> str:
    """Return in words how a worker ended: by an exit code, or by a signal, which is negative."""
    if code is None:
        return f"with pid {pid} was lost"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"with pid {pid} was killed by {name}"
    return f"with pid {pid} ended with exit code {code}"


class Backend(Protocol):
    """Where tasks go.

    Attributes:
        usable: whether works can be submitted: false once it was shut down.
        ends_tasks: whether a task can be ended from outside, as a time limit demands.
        outputs: what can become of what tasks print (see `outbox.Outbox`).
    """

    name: str
    ends_tasks: bool
    outputs: tuple[str | None, ...]

    @property
    def usable(self) -> bool: ...

    def prepare(self, function: Callable[..., Any]) -> Any:
        """Return `function` in the form in which this backend ships it: its present version, for one run.

        Raises:
            SerializationError: it can't travel.
        """

    def submit(self, work: Work) -> None:
        """Begin a run; its tasks come by `offer`."""

    def offer(self, work: Work, count: int, *, last: bool, known: int = 0) -> None:
        """Make `count` more tasks available, after `known` that are not to be run; with `last`, these are all."""

    def cancel(self, work: Work, *, abort: bool) -> None:
        """Drop what has not begun; with `abort`, end what has, where the backend can."""

    def under_way(self, work: Work) -> dict[int, tuple[int, float]] | None:
        """Return the task that each worker process is at, by its pid, and for how many seconds; `None` if not known."""

    def shutdown(self, *, abort: bool, wait: bool = True) -> None:
        """Let the workers go: after their work, or at once; with `wait`, return when they are gone."""


def settle(
    work: Work,
    retry: Callable[[int, int], bool],
    first: int,
    values: Sequence[Any],
    failures: dict[int, Failure],
    times: Times | None,
) -> None:
    """Hand outcomes to a run, but for those failures whose task is run again.

    Args:
        work: the run.
        retry: asked with the run's number and a task's index whether it is run again; `Scheduler.retry`.
        first: the index of the first outcome.
        values: consecutive results.
        failures: the failed ones among them.
        times: when and where they ran; `None` where they did not.
    """
    seconds = 0.0
    if times is not None and values:
        seconds = times.seconds
        work.timed(first, len(values), times)
    again = sorted(
        index
        for index, failure in failures.items()
        if isinstance(failure.error, work.retry_on) and retry(work.number, index)
    )
    end = first + len(values)
    for stop in [*again, end]:
        if stop > first:
            kept = {index: failure for index, failure in failures.items() if first <= index < stop}
            share = seconds * (stop - first) / (end - first)
            work.settle(first, values[len(values) - (end - first) : len(values) - (end - stop)], kept, share)
        first = stop + 1
