"""`Run`: one map call, under way or finished, with its results. Made by `mapping` and `pool`."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbparallel.engine.relay import OWN
from nbparallel.engine.work import Backend, Failure, Said, Work
from nbparallel.interrupts import WAIT_SECONDS, deferred
from nbparallel.output.outbox import Kept, Output
from nbparallel.runs.recorded import Recorded
from nbparallel.tracebacks import hidden

if TYPE_CHECKING:
    from nbparallel.checkpoints import Checkpoint


class _Pending:
    def __repr__(self) -> str:
        return "<pending>"


#: For so long, in seconds, results that are there are handed out before the event loop's others have their turn.
TURN_SECONDS = 0.01

#: Stands in `Run.results` where a task has no result: not run yet, or left out.
PENDING: Any = _Pending()


#: What a run has for the engine and for whoever drives it, and for nobody who completes its name in a cell.
_INSIDE = frozenset(name for name, value in vars(Work).items() if callable(value) and not name.startswith("_")) | {
    "completed_before",
    "drive",
    "follow",
    "is_within_line",
    "listeners",
    "number",
    "show",
    "start",
    "stop_on_error",
    "streams",
    "style",
    "wait_until_kept",
}


class Run(Recorded):
    """One map call, under way or finished.

    Attributes:
        label: what it is called in its bar and summary.
        total: the number of tasks; `None` while the input's end is not known.
        failures: the failed tasks so far, as `TaskError`, by index.
        output: what each task has written, logged and displayed, as text: ``run.output[3]`` is that of task 3.
    """

    def __init__(
        self,
        *args: Any,
        known: Mapping[int, Any] | None = None,
        checkpoint: Checkpoint | None = None,
        reopen: Callable[[], Backend] | None = None,
        finish: Callable[[Run], list[Any]] | None = None,
        output: Output = "live",
        **options: Any,
    ) -> None:
        """Make a run.

        Args:
            *args: as for `Execution`.
            known: results from before, by index: their tasks are not run.
            checkpoint: knows others, and keeps those that come.
            reopen: opens the backend for a run that resumes this one.
            finish: starts that run and waits for its results.
            output: what becomes of what tasks write; but for `None`, it is kept too.
            **options: as for `Execution`.
        """
        self.output = Kept(lambda: len(self._values))
        self._output: Output = output
        super().__init__(*args, output=output, kept=self.output, **options)
        self._known: dict[int, Any] = {}
        self._checkpoint = checkpoint
        self._closing: threading.Thread | None = None
        self._is_kept = checkpoint is None
        self._told_what_is_known = False
        self._reopen = reopen
        self._finish = finish
        self._successor: Run | None = None
        #: Displays it while it is under way, if it can, and returns what shows its end; of a run that nobody waits for.
        self.follow: Callable[[Run], Callable[[], None] | None] | None = None
        self._displayed: list[Callable[[], None]] = []
        self._values: list[Any] = []
        self._arrivals: list[tuple[int, int]] = []  # in the order of completion: first index, count
        self._take_known(known or {})

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
        with hidden:
            self.wait(timeout)
            self.wait_until_kept()
            self._raise_if_failed()
            return self.results

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end, printing what tasks print.

        Raises:
            TimeoutError: it is not finished after `timeout` seconds.
        """
        with hidden:
            self.drive(lambda: self._finished, timeout)
            self._show_end()

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

    def _ipython_display_(self) -> None:
        """Show a bar and a button that cancels, if it is under way; its picture follows."""
        show_end = None if self._finished or self.follow is None else self.follow(self)
        if show_end is None:
            raise NotImplementedError  # IPython goes on to its picture
        self._displayed.append(show_end)

    def _show_end(self) -> None:
        """Show where it was displayed how it ended, on behalf of this cell.

        Programs that execute notebooks (nbclient, papermill) hear nothing of a cell that has ended but what another
        one, which runs, has to say of its displays.
        """
        with deferred:
            displayed, self._displayed = self._displayed, []
            for show_end in displayed:
                show_end()

    def _raise_if_failed(self) -> None:
        self._show_end()
        super()._raise_if_failed()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _INSIDE]

    # ---- reading it while it goes on ----

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the input, each as soon as it and those before it are there."""
        with hidden:
            index = 0
            while self._await(lambda: self._readable(index)):  # noqa: B023 - asked before `index` moves on
                yield self._outcome(index)
                index += 1
            self._raise_if_failed()

    def as_completed(self) -> Iterator[Any]:
        """Yield the results in the order in which the tasks finish."""
        with hidden:
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
        with hidden:
            async for _ in self._turns():
                if self._finished and self._is_kept:
                    break
            return self.result()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the results in the order of the input, without blocking the event loop."""
        with hidden:
            index = 0
            async for _ in self._turns():
                began = time.monotonic()
                while self._readable(index):
                    if time.monotonic() - began > TURN_SECONDS:
                        await asyncio.sleep(0)
                        began = time.monotonic()
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

    # ---- going on with it ----

    def resume(self) -> list[Any]:
        """Compute what this run has no result for, and return the results of all tasks, as `pmap` does.

        For a run that was interrupted, cancelled, too late, or whose tasks failed: those with a result are not run
        again. The rest becomes a run of its own, which is then `last_run`: with the same function, whose globals are
        what they are now, the same options, and a time limit that begins anew. If that is interrupted too, resume it,
        or this one again.

        Returns:
            One result per task, those from before included.

        Raises:
            RuntimeError: the run is still going on, or its input was ended by an error in its own code.
            Exception: as `pmap`.

        Example:
            >>> run = pmap_async(abs, [-1, -2])
            >>> run.cancel()
            True
            >>> run.resume()
            [1, 2]
        """
        with hidden:
            if self._successor is not None:
                return self._successor.resume()
            if self._reopen is None or self._finish is None:
                raise RuntimeError(f"{self.label} can't be resumed: it is a pool's")
            if self._cancelled:
                self.wait()  # for tasks that can't be ended
            elif not self._finished:
                raise RuntimeError(f"{self.label} is still going on: wait for its result, or cancel it")
            for index, failed in self.failures.items():
                assert failed.input is not None
                self._inputs.take_back(index, failed.input[0] if self.style == "one" else failed.input)
            if self._checkpoint is not None:
                self.wait_until_kept()
                self._checkpoint.reopen()
            self._successor = Run(
                self._function,
                self._inputs,
                self._reopen(),
                self.width,
                known={index: value for index, value in enumerate(self._values) if self._has_result(index)},
                checkpoint=self._checkpoint,
                reopen=self._reopen,
                finish=self._finish,
                style=self.style,
                chunksize=self.chunksize,
                stop_on_error=self.stop_on_error,
                seed=self.seed,
                timeout=self.timeout,
                retries=self.retries,
                retry_on=self.retry_on,
                deadline=self._deadline,
                label=self.label,
                output=self._output,
            )
            self._successor.output.inherit(self.output, self._successor._known)
            return self._finish(self._successor)

    # ---- keeping results ----

    def wait_until_kept(self, timeout: float | None = None) -> None:
        """Wait until the results of a finished run are in its checkpoint; print what could not be kept."""
        if self._closing is not None:
            limit = math.inf if timeout is None else time.monotonic() + timeout
            while self._closing.is_alive() and (left := limit - time.monotonic()) > 0:
                self._closing.join(min(WAIT_SECONDS, left))
                if timeout is None:
                    deferred.check()
            self._print()

    def _recall(self, count: int) -> None:
        if self._checkpoint is not None:
            # A run that this one goes on with has asked for the first ones.
            start, stop = max(self._offered, self._checkpoint.asked), self._offered + count
            if start < stop:
                self._take_known(self._checkpoint.known(start, self._inputs.items(start, stop)))

    def _offer(self, count: int, *, last: bool) -> None:
        super()._offer(count, last=last)
        if last and not self._told_what_is_known and self._checkpoint is not None and self._known_count:
            self._told_what_is_known = True
            told = f"{self._known_count} of {self.total} results are from the checkpoint {self._checkpoint.path}"
            self.write(OWN, Said("stdout", f"{self.label}: {told}\n"))
            self.deliver()

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        """Take outcomes, and keep results."""
        super().settle(first, values, failures, seconds)
        if self._checkpoint is not None:
            for index, value in enumerate(values, first):
                if self._has_result(index):
                    self._checkpoint.keep(index, value)

    def finish(self) -> None:
        """Take note of the end."""
        if self._checkpoint is not None:
            name = f"nbparallel-checkpoint-close-{self.label}"
            closing = threading.Thread(target=self._close_checkpoint, name=name, daemon=True)
            closing.start()
            self._closing = closing
        super().finish()

    def _close_checkpoint(self) -> None:
        assert self._checkpoint is not None
        try:
            self._checkpoint.close()
            for trouble in self._checkpoint.troubles:
                self.write(OWN, Said("stderr", f"NBParallelWarning: {self.label}: {trouble}\n"))
        finally:
            self._is_kept = True
            self.deliver()

    # ---- storage ----

    def _take_known(self, found: Mapping[int, Any]) -> None:
        """Take results from before, by index in rising order: at once, so that they are there if nothing else comes."""
        with self._lock:
            self._known.update(found)
            self._values += [PENDING] * (max(found, default=-1) + 1 - len(self._values))
            for index, value in found.items():
                self._values[index] = value
                self._arrivals.append((index, 1))
            self._done_count += len(found)
            self._known_count += len(found)

    def _expect(self, count: int) -> list[tuple[int, int]]:
        self._values += [PENDING] * (self._offered - len(self._values))
        if not self._known:
            return [(0, count)]
        parts = [(0, 0)]
        for is_known, group in itertools.groupby(range(self._offered - count, self._offered), self._known.__contains__):
            found = list(group)
            if is_known:
                parts.append((len(found), 0))
                self._outbox.settled(found[0], len(found))
            else:
                parts[-1] = (parts[-1][0], len(found))
        return parts

    def _store(self, first: int, values: Sequence[Any]) -> None:
        self._values[first : first + len(values)] = values
        self._arrivals.append((first, len(values)))

    def _has_result(self, index: int) -> bool:
        return self._has_outcome(index) and index not in self.failures

    def _has_outcome(self, index: int) -> bool:
        return index < len(self._values) and self._values[index] is not PENDING

    def _is_from_before(self, index: int) -> bool:
        return index in self._known
