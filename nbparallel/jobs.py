"""`background`: one call in the background, in a process of its own, as a `Job`.

Built on `Run`, of which a job is one with a single task. ``%%pbackground`` and ``%pjobs`` are made of what is here.
"""

from __future__ import annotations

import atexit
import html
import itertools
import weakref
from collections.abc import Callable, Generator
from typing import Any, Literal

from nbparallel import config
from nbparallel.choice import check_function, open_single
from nbparallel.errors import short_repr
from nbparallel.interrupts import deferred
from nbparallel.progress.watch import follow
from nbparallel.runs.inputs import SequenceInput
from nbparallel.runs.run import Run
from nbparallel.tracebacks import hidden, in_words
from nbparallel.words import duration

_numbers = itertools.count(1)
_known: weakref.WeakValueDictionary[int, Job] = weakref.WeakValueDictionary()


def background(
    fn: Callable[..., Any],
    *args: Any,
    backend: Literal["processes", "threads"] = "processes",
    label: str | None = None,
) -> Job:
    """Call ``fn(*args)`` in the background, and return at once.

    The call has a worker process of its own, which ends with it: it takes none from maps, and it begins at once,
    however many others there are. It goes on until it is finished or cancelled, whatever is interrupted here, and ends
    with the kernel. What it prints is shown by the cell that has started it. A cell whose last line is the job shows
    how long it runs, and a button that cancels it. It is no map: `last_run` does not know it.

    Args:
        fn: what to call; what it refers to travels as it is now.
        *args: its arguments.
        backend: ``"processes"``, or ``"threads"`` for a thread of this process, which shares the notebook's variables
            and can't be ended.
        label: what it is called; by default the function's name.

    Raises:
        TypeError: `fn` is not callable, or is a coroutine function.
        ValueError: `backend` is neither of the two.
        SerializationError: the function can't be sent to a worker.

    Example:
        >>> job = background(pow, 2, 10)
        >>> job.result()
        1024
    """
    with hidden:
        check_function(fn)
        check_backend(backend)
        # As a whole: an interrupt in the midst would leave workers that nobody has.
        with deferred:
            inputs, output = SequenceInput([[args]]), config.settings().output
            run = _Single(fn, inputs, open_single(backend), 1, style="star", chunksize=1, label=label, output=output)
            run.follow = follow
            job = Job(run)
            try:
                run.start(background=True)
            except BaseException:  # it can't travel, or an interrupt
                run.cancel()
                forget(job)
                raise
        return job


def check_backend(backend: str) -> Literal["processes", "threads"]:
    """Return where a job can run, or raise ValueError."""
    if backend not in ("processes", "threads"):
        raise ValueError(f"a job runs on 'processes' or 'threads', not on {backend!r}")
    return backend  # type: ignore[return-value]


State = Literal["running", "done", "failed", "cancelled"]


class _Single(Run):
    """The run of a job: it shows what came of the one task, instead of when it ran."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.job_number = next(_numbers)

    @property
    def state(self) -> State:
        if not self.done:
            return "running"
        if self.failures:
            return "failed"
        return "done" if self.completed else "cancelled"

    def outcome(self) -> str:
        if self.state == "failed":
            error = self.failures[0].raised
            return f"{type(error).__name__}: {in_words(error)[0]}".partition("\n")[0]
        return short_repr(self.results[0]) if self.state == "done" else ""

    def __repr__(self) -> str:
        how = {"running": "running for", "done": "done in", "failed": "failed after", "cancelled": "cancelled after"}
        told = f"Job {self.job_number} ({self.label}): {how[self.state]} {duration(self.seconds)}"
        outcome = self.outcome()
        return f"<{told}: {outcome}>" if outcome else f"<{told}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


class Job:
    """A call in the background: wait for its `result`, ``await`` it, or `cancel` it. Made by `background`.

    Attributes:
        number: by which ``%pjobs`` knows it.
        label: what it is called.
    """

    def __init__(self, run: _Single) -> None:
        self.number = run.job_number
        self.label = run.label
        self._run = run
        _known[self.number] = self
        run.add_done_callback(self._ended)  # and so the job is known at least until then

    @property
    def state(self) -> State:
        """How it is."""
        return self._run.state

    @property
    def done(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self._run.done

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return self._run.seconds

    @property
    def output(self) -> str:
        """What it has written, logged and displayed so far, as text; on a thread nothing of it is kept."""
        return self._run.output[0]

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return what the call has returned. An interrupt ends the waiting, not the job.

        Args:
            timeout: seconds to wait at most; the job itself goes on.

        Raises:
            TimeoutError: it is not finished in time.
            CancelledError: it was cancelled.
            WorkerCrashed: its process died.
            Exception: what the call has raised, as itself.
        """
        with hidden:
            return self._run.result(timeout)[0]

    def cancel(self) -> bool:
        """End it. One on a thread goes on to its end if it has begun.

        Returns:
            Whether there was anything to cancel.
        """
        with hidden:
            return self._run.cancel()

    def outcome(self) -> str:
        """Return in a few words what came of it: its result, or its error; nothing while there is none."""
        return self._run.outcome()

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result without blocking the event loop; returns and raises as `result` does."""
        return self._result_in_loop().__await__()

    async def _result_in_loop(self) -> Any:
        with hidden:
            return (await self._run)[0]

    def __repr__(self) -> str:
        return repr(self._run)

    def _ipython_display_(self) -> None:
        """Show how long it runs and a button that cancels, if it is under way; its words follow."""
        self._run._ipython_display_()

    def _ended(self, _: Run) -> None:
        self._run._backend.shutdown(abort=False, wait=False)  # this may be its own thread

    def _end(self) -> None:
        backend = self._run._backend
        backend.shutdown(abort=True, wait=backend.ends_tasks)


def known() -> list[Job]:
    """Return the jobs that run, and those that somebody still holds, by their numbers."""
    return [job for _, job in sorted(_known.items())]


def forget(job: Job) -> None:
    """Let `known` not return a job any more."""
    _known.pop(job.number, None)


@atexit.register
def _end_all() -> None:
    for job in known():
        if not job.done:
            job._end()
