"""The default backend: warm local worker processes, by the package's own engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from nbparallel.engine.manager import Engine
from nbparallel.engine.work import Work
from nbparallel.errors import NBParallelWarning, SerializationError
from nbparallel.machine import blas_threads_per_worker
from nbparallel.serialize import Unit, explain, heavy_globals, name_of, unit_of

#: A function that refers to more than this, in bytes, is remarked upon once.
LARGE_BYTES = 10_000_000


class ProcessesBackend:
    """Runs works on an `Engine`.

    Args:
        engine: the workers, whose owner this backend becomes.
    """

    name = "processes"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._remarked: set[tuple[str, str]] = set()

    def prepare(self, function: Callable[..., Any]) -> Unit:
        try:
            unit = unit_of(function)
        except SerializationError:
            raise
        except Exception as error:
            raise explain(error, function, unit_of, name_of(function)) from error
        if unit.nbytes > LARGE_BYTES:
            self._remark(function)
        return unit

    def submit(self, work: Work) -> None:
        self.engine.submit(work)

    def offer(self, work: Work, count: int, *, last: bool) -> None:
        self.engine.offer(work, count, last=last)

    def cancel(self, work: Work, *, abort: bool) -> None:
        self.engine.cancel(work, abort=abort)

    def shutdown(self, *, abort: bool, wait: bool = True) -> None:
        self.engine.shutdown(abort=abort, wait=wait)

    @property
    def usable(self) -> bool:
        return self.engine.usable

    def _remark(self, function: Callable[..., Any]) -> None:
        for name, size in heavy_globals(function, LARGE_BYTES):
            if (name_of(function), name) not in self._remarked:
                self._remarked.add((name_of(function), name))
                warnings.warn(
                    f"{name_of(function)} refers to {name}, {size / 1e6:.0f} MB, which is copied to every worker "
                    "(once per change of it)",
                    NBParallelWarning,
                    stacklevel=5,
                )


def configuration(workers: int, start_method: str) -> tuple[object, ...]:
    """Return what tells two sets of workers apart: how they started, and their BLAS threads."""
    return (start_method, blas_threads_per_worker(workers))


def open_backend(workers: int, start_method: str) -> ProcessesBackend:
    return ProcessesBackend(Engine(start_method, workers))


def open_private(
    workers: int,
    start_method: str,
    initializer: tuple[Callable[..., Any], tuple[Any, ...]] | None,
    max_tasks_per_worker: int | None,
) -> ProcessesBackend:
    """Start workers that are not shared with other maps."""
    engine = Engine(start_method, workers, max_tasks_per_worker, initializer)
    engine.grow(workers)
    return ProcessesBackend(engine)
