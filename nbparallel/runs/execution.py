"""The inside of a run: what a backend executes, and what the thread that waits for it does meanwhile.

That thread drives the run: it pulls the input and prints the output, so that both happen where the user's code is. A
run that nobody waits for has a thread that pulls, and prints from wherever output arrives. `run.Run` and
`stream.Stream` are executions; they differ in what becomes of the results.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from nbparallel.engine.times import Times
from nbparallel.engine.work import Backend, Failure, Payload, Said, next_number
from nbparallel.errors import TaskError
from nbparallel.interrupts import WAIT_SECONDS, deferred
from nbparallel.output import showing
from nbparallel.output.inner import InnerBars
from nbparallel.output.outbox import Kept, Outbox, Output
from nbparallel.runs.failures import note_task, task_error
from nbparallel.runs.inputs import Input, IteratorInput
from nbparallel.serialize import name_of
from nbparallel.tracebacks import Origin, without_ours
from nbparallel.words import duration

#: For so long, in seconds, items of an input that is pulled are gathered, to be handed over together.
PULL_SECONDS = 0.001


class Execution:
    """Tasks on their way through a backend (`engine.work.Work`).

    Args:
        function: the user's.
        inputs: what it is called with.
        backend: where the tasks go.
        width: how many may run at once.
        style: how an input holds the arguments: ``"one"`` or ``"star"``.
        chunksize: tasks that travel together; `None` to measure.
        stop_on_error: whether a failed task ends the run.
        seed: of the tasks' random streams.
        timeout: a task's time limit, in seconds.
        retries: how often a failed task is run again.
        retry_on: the exceptions after which it is; the death of its worker always counts.
        deadline: the whole run's time limit, in seconds.
        label: what it is called in its bar and summary; by default the function's name.
        output: what becomes of what tasks write (see `Outbox`).
        kept: where their text is kept.
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
        timeout: float | None = None,
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] = (Exception,),
        deadline: float | None = None,
        label: str | None = None,
        output: Output = "live",
        kept: Kept | None = None,
    ) -> None:
        self.number = next_number()
        self.style = style
        self.width = width
        self.chunksize = chunksize
        self.stop_on_error = stop_on_error
        self.seed = seed
        self.timeout = timeout
        self.retries = retries
        self.retry_on = retry_on
        self.streams = inputs.streams
        self.label = label or name_of(function)
        self.total = inputs.total
        self.failures: dict[int, TaskError] = {}
        self._function = function
        self._inputs = inputs
        self._backend = backend
        self._prepared: Any = None
        self._submitted = False
        self._wanted = 0  # how many inputs the backend asked for
        self._lock = threading.Lock()
        self._bells: list[queue.SimpleQueue[None]] = []
        self._finished = False
        self._cancelled = False
        self._input_error: BaseException | None = None
        self._input_origin = Origin(None, None)
        self._deadline = deadline
        self._timer: threading.Timer | None = None
        self._late = False
        self._offered = 0
        self._done_count = 0
        self._known_count = 0  # of those, the ones that were not computed by this run
        #: The bars that its tasks show.
        self.inner = InnerBars()
        self._outbox = Outbox(output, kept, showing.budgets())
        self._background_bells = 0
        #: Shows what tasks said; a bar in a terminal has it shown beside itself.
        self.show: Callable[[Said], object] = showing.show
        self._pulls_in_background = False
        self._context = contextvars.copy_context()
        self._callbacks: list[Callable[[Any], Any]] = []
        #: Called by whichever thread delivers outcomes or output.
        self.listeners: list[Callable[[], None]] = []
        self._began = time.perf_counter()
        self._ended: float | None = None

    # ---- its state ----

    @property
    def done(self) -> bool:
        """Whether nothing is waiting or under way any more."""
        return self._finished

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    @property
    def completed(self) -> int:
        """How many tasks have an outcome."""
        return self._done_count

    @property
    def completed_before(self) -> int:
        """How many of those this run did not have to compute."""
        return self._known_count

    @property
    def is_within_line(self) -> bool:
        """Whether what its tasks printed last has not ended its line."""
        return self._outbox.is_within_line

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self._ended or time.perf_counter()) - self._began

    def summary(self) -> str:
        """Return one line on how it went, such as ``"98 ok, 2 failed in 1.2 s"``."""
        counts = [f"{self._done_count - len(self.failures)} ok"]
        if self._known_count:
            counts[0] += f" ({self._known_count} from before)"
        if self.failures:
            counts.append(f"{len(self.failures)} failed")
        left = (self.total or self._done_count) - self._done_count
        if left:
            counts.append(f"{left} {'not run' if self._finished else 'to go'}")
        return f"{', '.join(counts)} in {duration(self.seconds)}"

    def cancel(self) -> bool:
        """Drop the tasks that have not begun and end those that have; finished results stay.

        Returns:
            Whether there was anything to cancel.
        """
        return self._cancel(abort=True)

    def _cancel(self, *, abort: bool) -> bool:
        with deferred:
            with self._lock:
                if self._finished:
                    return False
                self._cancelled = True
            if self._submitted:
                self._backend.cancel(self, abort=abort)
            else:
                self.finish()
                self.deliver()
        return True

    def _pass_deadline(self) -> None:
        self._late = True
        self.cancel()

    def _raise_if_failed(self) -> None:
        if self._input_error is not None:
            self._input_origin.throw(self._input_error)
        if self.failures and self.stop_on_error:
            failed = self.failures[min(self.failures)]
            note_task(failed, f"{self.label}: {self.summary()}")
            failed.throw()
        if self.total is not None and self._done_count == self.total:  # by then there was nothing to end
            return
        if self._late:
            raise TimeoutError(f"{self.label} is not finished after {self._deadline:g} s: {self.summary()}")
        if self._cancelled:
            raise CancelledError(f"{self.label} was cancelled: {self.summary()}")

    # ---- driving: pulling input, printing output ----

    def start(self, *, background: bool) -> None:
        """Hand the tasks to the backend.

        Args:
            background: whether nobody may be waiting: input that must be pulled then gets a thread.

        Raises:
            SerializationError: the function can't travel; nothing was started.
        """
        with deferred.lifted():
            self._prepared = self._backend.prepare(self._function)
        if self._deadline is not None:
            self._timer = threading.Timer(min(self._deadline, threading.TIMEOUT_MAX), self._pass_deadline)
            self._timer.name, self._timer.daemon = f"nbparallel-deadline-{self.label}", True
            self._timer.start()
        if isinstance(self._inputs, IteratorInput):
            self._pulls_in_background = background
            with deferred:  # at once: a pool that is closed a moment later makes these calls still
                self._backend.submit(self)
                self._submitted = True
            if self._inputs.pulled:  # by a run that this one goes on with
                self._recall(self._inputs.pulled)
                self._offer(self._inputs.pulled, last=False)
            if background:
                name = f"nbparallel-input-{self.label}"
                threading.Thread(target=self._pull_until_finished, name=name, daemon=True).start()
        else:
            with deferred.lifted():
                self._recall(self._inputs.total or 0)
            self._offer(self._inputs.total or 0, last=True)

    def drive(
        self,
        until: Callable[[], bool],
        timeout: float | None = None,
        beat: float | None = None,
        *,
        interruptible: bool = True,
    ) -> bool:
        """Wait in this thread until something is the case, doing meanwhile what the run needs.

        Args:
            until: asked after each change.
            timeout: seconds.
            beat: return False after so many seconds without an end, for the caller to move its bar.
            interruptible: whether an interrupt ends the waiting at once, or waits until it is over.

        Raises:
            TimeoutError: it was not the case in time.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        next_beat = None if beat is None else time.monotonic() + beat
        # A queue of the C library is waited for without a lock that an interrupt could leave taken.
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        with deferred, deferred.ringing(bell):
            self._bells.append(bell)
            try:
                while True:
                    self._print()
                    if interruptible:
                        deferred.check()
                    if until():
                        return True
                    if self._must_pull():
                        self._pull()
                        continue
                    now = time.monotonic()
                    if limit is not None and now >= limit:
                        raise TimeoutError(f"{self.label} is not finished: {self.summary()}")
                    if next_beat is not None and now >= next_beat:
                        return False
                    ends = [each - now for each in (limit, next_beat) if each is not None]
                    with contextlib.suppress(queue.Empty):
                        bell.get(timeout=min([WAIT_SECONDS, *ends]))
            finally:
                self._bells.remove(bell)
                self._print()

    def _await(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `condition` or the end; return whether it is the case."""
        self.drive(lambda: condition() or self._finished, timeout)
        return condition()

    def _room(self) -> int | None:
        """Return how many more inputs may be pulled before results are read; `None`: any number."""
        return None

    def _must_pull(self) -> bool:
        return self._wanted > 0 and not self._pulls_in_background and self._room() != 0

    def _pull(self) -> None:
        assert isinstance(self._inputs, IteratorInput)
        with self._lock:
            room = self._room()
            count, self._wanted = self._wanted if room is None else min(self._wanted, room), 0
        before = self._inputs.pulled
        try:
            # Where the user says how many make a chunk, or a worker has none yet, each is on its way before the input
            # is asked for the next.
            seconds = PULL_SECONDS if self.chunksize is None and self._offered >= self.width else 0.0
            pulled, last = self._inputs.pull(count, self.chunksize or 1, seconds)
            self._recall(pulled)
        except BaseException as error:
            # What was pulled before is still run; an interrupt of the pulling thread goes on to its caller.
            self._input_error, self._input_origin = error, Origin(without_ours(error.__traceback__), error.__context__)
            self._offer(self._inputs.pulled - before, last=True)
            if not isinstance(error, Exception):
                raise
        else:
            self._offer(pulled, last=last)

    def _pull_until_finished(self) -> None:
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._bells.append(bell)
        self._background_bells += 1
        while not self._finished:
            if self._wanted and self._room() != 0:
                self._pull()
            else:
                bell.get()

    def _offer(self, count: int, *, last: bool) -> None:
        with deferred:
            with self._lock:
                self._offered += count
                parts = self._expect(count)
                if last:
                    self.total = self._offered
                begins = not self._submitted
                self._submitted = True
            if begins:
                self._backend.submit(self)
            for known, fresh in parts[:-1]:
                self._backend.offer(self, fresh, last=False, known=known)
            known, fresh = parts[-1]
            self._backend.offer(self, fresh, last=last, known=known)

    def _recall(self, count: int) -> None:
        """Find out what is known of `count` more tasks."""

    def _expect(self, count: int) -> list[tuple[int, int]]:
        """Make room for the results of `count` more tasks; called with the lock.

        Returns:
            How many of them are known, how many are not, and so on, in their order.
        """
        return [(0, count)]

    def _print(self) -> None:
        for said in self._outbox.take():
            self._context.copy().run(self.show, said)

    # ---- what backends ask (engine.work.Work) ----

    def payload(self, start: int, stop: int) -> Payload | None:
        """Return tasks to execute."""
        return Payload(self._prepared, self._inputs.items(start, stop), self._context)

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        """Take outcomes."""
        if self._cancelled:  # what its own end breaks is no news
            broken = [index for index, failure in failures.items() if failure.ended_with_run]
            if broken:
                values = values[: min(broken) - first]
                failures = {index: failure for index, failure in failures.items() if index < min(broken)}
        for index, failure in failures.items():
            item = self._inputs.items(index, index + 1)[0]
            self.failures[index] = task_error(failure, self._function, self.style, index, item, self.seed)
        with self._lock:
            self._store(first, values)
            self._done_count += len(values)
        self._inputs.release(first, first + len(values))
        self._outbox.settled(first, len(values))
        self.inner.settled(first, len(values))
        if failures and self.stop_on_error:
            self._backend.cancel(self, abort=False)

    def _store(self, first: int, values: Sequence[Any]) -> None:
        """Keep results; called with the lock."""
        raise AssertionError("each kind of execution stores in its own way")

    def timed(self, first: int, count: int, times: Times) -> None:
        """Take note of when and where tasks ran."""

    def give_up(self, why: Failure) -> None:
        """Fail the tasks that have no outcome: none can be run."""
        for index in range(self._offered):
            if not self._has_outcome(index):
                self.settle(index, [None], {index: why}, 0.0)
                if self.stop_on_error:
                    return

    def _has_outcome(self, index: int) -> bool:
        raise AssertionError("each kind of execution stores in its own way")

    def hungry(self, count: int) -> None:
        """Take note that more inputs are wanted."""
        self._wanted = count

    def write(self, index: int, said: Said) -> None:
        """Take what a task said."""
        if said.kind != "bar":
            self._outbox.put(index, said)
        elif not self._has_outcome(index):
            self.inner.put(index, said.text)

    def finish(self) -> None:
        """Take note of the end."""
        self._ended = time.perf_counter()
        self._outbox.end()
        with self._lock:
            self._finished = True
            if self._timer is not None:
                self._timer.cancel()
            complete = self.total is not None and self._done_count == self._offered
            # The backend was shut down at once: what is missing will never come.
            self._cancelled = self._cancelled or not (complete or (self.failures and self.stop_on_error))

    def deliver(self) -> None:
        """Wake whoever waits."""
        if len(self._bells) == self._background_bells:  # nobody waits who would print
            self._print()
        for bell in list(self._bells):
            bell.put(None)
        callbacks: list[Callable[[Any], Any]] = []
        with self._lock:
            if self._finished:
                callbacks, self._callbacks = self._callbacks, []
        for listener in list(self.listeners):
            listener()
        for callback in callbacks:
            callback(self)
