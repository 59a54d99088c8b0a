"""One method of a comparison, run and timed: the plain loop, or a backend with fresh workers of its own.

Called by `compare`. The notebook's warm workers are left alone, so that a first run is one in workers that are really
new; the runs after it find these warm.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from nbparallel import backends, config, mapping
from nbparallel.backends import local
from nbparallel.comparison.quiet import silence, without_figures
from nbparallel.engine import streams
from nbparallel.engine.work import Backend
from nbparallel.interrupts import deferred
from nbparallel.runs.inputs import SequenceInput
from nbparallel.runs.run import Run
from nbparallel.tracebacks import Origin, without_ours

if sys.platform != "win32":
    import resource

    #: Of this thread, where the system counts that (Linux); the others of a kernel hardly wake meanwhile.
    _WHOSE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


@dataclass(frozen=True)
class Job:
    """What each method does: one and the same map.

    Attributes:
        function: the user's.
        inputs: all there, so that each method gets the same.
        style: how an input holds the arguments, ``"one"`` or ``"star"``.
        seed: of the tasks' random streams.
        label: what it is called.
    """

    function: Callable[..., Any]
    inputs: SequenceInput
    style: str
    seed: int | None
    label: str

    @property
    def tasks(self) -> int:
        """Their number."""
        return self.inputs.total or 0


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        seconds: how long it took.
        answers: by item.
        cores: how many cores this process kept busy meanwhile, with all its threads.
        own: the same for the thread that ran it alone.
        waits: how often that gave up the processor to wait for something; `None` where the system does not say.
    """

    seconds: float
    answers: list[Any]
    cores: float
    own: float
    waits: int | None


def _waits() -> int | None:
    return None if sys.platform == "win32" else resource.getrusage(_WHOSE).ru_nvcsw


class Stopwatch:
    """Measures a stretch of this process."""

    def __init__(self) -> None:
        self._waits = _waits()
        self._own, self._cpu, self._began = time.thread_time(), time.process_time(), time.perf_counter()

    def stop(self, answers: list[Any]) -> Outcome:
        """Return what was measured since it was made."""
        seconds = time.perf_counter() - self._began
        cpu, own = time.process_time() - self._cpu, time.thread_time() - self._own
        waits = _waits()
        if waits is not None and self._waits is not None:
            waits -= self._waits
        return Outcome(seconds, answers, cpu / max(seconds, 1e-9), own / max(seconds, 1e-9), waits)


class Method(Protocol):
    """A way to compute a job.

    Attributes:
        name: as users call it.
        workers: how many tasks run at once.
    """

    name: str
    workers: int

    def run(self) -> Outcome:
        """Compute the job."""

    def close(self, *, wait: bool) -> None:
        """Let the workers go."""


class Loop(Method):
    """``[f(x) for x in xs]``, as it would be written without this package.

    The backend ``"serial"`` does the same with some 10 µs a task, which would flatter all others.

    Args:
        job: what to compute.

    Attributes:
        speaks: whether its tasks may print.
    """

    name = "serial"
    workers = 1

    def __init__(self, job: Job) -> None:
        self._job = job
        self.speaks = True

    def run(self) -> Outcome:
        """Compute the job here."""
        with local.as_task(), contextlib.ExitStack() as stack:
            if not self.speaks:
                stack.enter_context(without_figures())
                stack.enter_context(silence())
            watch = Stopwatch()
            try:
                return watch.stop(self._answers())
            except Exception as error:
                if without_ours(error.__traceback__) is None:  # the call could not be made: that's no fault of ours
                    Origin(None, error.__context__).throw(error)
                raise

    def _answers(self) -> list[Any]:
        job = self._job
        call = local.caller(job.function, job.style)
        items = job.inputs.items(0, job.tasks)
        if job.seed is None:
            return [call(item) for item in items]
        try:
            seeded = streams.seeded(call, job.seed)
            return [seeded(item, index) for index, item in enumerate(items)]
        finally:
            streams.unseed()

    def close(self, *, wait: bool) -> None:
        """It has none."""


class Parallel(Method):
    """A backend, with workers that nobody else uses and that its first run starts.

    Args:
        name: the backend's.
        job: what to compute.
        workers: how many.

    Raises:
        BackendUnavailable: it needs a package that is not installed.
    """

    def __init__(self, name: str, job: Job, workers: int) -> None:
        self.name = name
        self.workers = workers
        self._job = job
        self._backend: Backend | None = None

    def run(self) -> Outcome:
        """Compute the job in the workers; the first time they start."""
        job = self._job
        watch = Stopwatch()
        if self._backend is None:
            with deferred:  # an interrupt must not lose it
                self._backend = backends.open_fresh(self.name, self.workers, config.settings().start_method)
        # Where tasks print by themselves they do so in the context in which the run was made.
        with contextlib.nullcontext() if None in self._backend.outputs else silence():
            run = Run(
                job.function,
                job.inputs,
                self._backend,
                self.workers,
                style=job.style,
                seed=job.seed,
                label=job.label,
                output=None,
            )
        with without_figures():
            return watch.stop(mapping.carry_out(run))

    def close(self, *, wait: bool) -> None:
        """End the workers."""
        if self._backend is not None:
            with deferred:
                self._backend.shutdown(abort=True, wait=wait)
