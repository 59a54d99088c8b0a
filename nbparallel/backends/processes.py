"""The default backend: warm local worker processes, by the package's own engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbparallel.backends.shipping import Shipping
from nbparallel.engine.manager import Engine
from nbparallel.engine.work import Work
from nbparallel.machine import blas_threads_per_worker


class ProcessesBackend(Shipping):
    """Runs works on an `Engine`.

    Args:
        engine: the workers, whose owner this backend becomes.
    """

    name = "processes"
    ends_tasks = True
    outputs: tuple[str | None, ...] = ("live", "ordered", "collect", None)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def submit(self, work: Work) -> None:
        self.engine.submit(work)

    def offer(self, work: Work, count: int, *, last: bool, known: int = 0) -> None:
        self.engine.offer(work, count, last=last, known=known)

    def cancel(self, work: Work, *, abort: bool) -> None:
        self.engine.cancel(work, abort=abort)

    def under_way(self, work: Work) -> dict[int, tuple[int, float]]:
        return self.engine.under_way(work)

    def shutdown(self, *, abort: bool, wait: bool = True) -> None:
        self.engine.shutdown(abort=abort, wait=wait)

    @property
    def usable(self) -> bool:
        return self.engine.usable


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
