"""The defaults of this notebook: how many workers, which backend, how they start, what is shown.

Read by the front at each call; written by `configure` and by ``%config NBParallel``, which is the same.
"""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass, replace
from typing import Any, Literal

from nbparallel import backends
from nbparallel.engine import memory
from nbparallel.engine.methods import START_METHODS
from nbparallel.machine import effective_cores
from nbparallel.output.outbox import Output
from nbparallel.tracebacks import hidden

Progress = Literal["auto"] | bool


@dataclass(frozen=True)
class Settings:
    """The defaults that are in force.

    Attributes:
        workers: how many; `None` for one per effective core.
        backend: where tasks go.
        start_method: how worker processes start.
        progress: whether maps show a bar; ``"auto"`` where somebody looks, for runs over half a second.
        output: what becomes of what tasks print, log, warn of and display; `None` for dropped.
        memory_pause: the share of the memory above which tasks begin one at a time; False for never.
        memory_stop: the share above which the largest worker is ended; False for never.
    """

    workers: int | None = None
    backend: str = "processes"
    start_method: str = START_METHODS[0]
    progress: Progress = "auto"
    output: Output = "live"
    memory_pause: float | Literal[False] = memory.Thresholds.pause or False
    memory_stop: float | Literal[False] = memory.Thresholds.stop or False


_settings = Settings()


def settings() -> Settings:
    """Return the defaults that are in force."""
    return _settings


def configure(
    workers: int | Literal["auto"] | None = None,
    backend: str | None = None,
    start_method: str | None = None,
    progress: Progress | None = None,
    output: Output | Literal[False] = None,
    memory_pause: float | Literal[False] | None = None,
    memory_stop: float | Literal[False] | None = None,
) -> Settings:
    """Set the defaults of this notebook; ``%config NBParallel`` is the same.

    Args:
        workers: how many workers a map uses; ``"auto"`` for one per effective core.
        backend: where tasks go, such as ``"processes"``, ``"threads"`` or ``"serial"``.
        start_method: ``"forkserver"``, ``"spawn"`` or ``"fork"``, where the system has it.
        progress: whether a bar is shown: True, False or ``"auto"``.
        output: what becomes of what tasks print, log, warn of and display (see `pmap`); False for dropped. It is for
            pools and executors too, but for single calls ``"ordered"`` is live and ``"collect"`` dropped.
        memory_pause: while more than this share of the machine's or container's memory is used (0.85 at first),
            tasks begin one at a time, which is said; ``False`` for never. It is for worker processes, also of maps
            that run already.
        memory_stop: above this share (0.95 at first) the largest worker is ended, before the system ends the kernel;
            its task fails with `WorkerCrashed`. ``False`` for never.

    Returns:
        The defaults now in force. What is `None` stays as it was, so ``configure()`` only shows them.

    Raises:
        ValueError: a value is not one of those possible; nothing was changed.
        TypeError: `workers` is no whole number, or a share of the memory is no number.

    Example:
        >>> configure(start_method="spawn").start_method
        'spawn'
    """
    global _settings
    with hidden:
        changes: dict[str, Any] = {}
        if workers is not None:
            changes["workers"] = None if workers == "auto" else check_workers(workers)
        if backend is not None:
            changes["backend"] = backends.check(backend)
        if start_method is not None:
            changes["start_method"] = check_start_method(start_method)
        if progress is not None:
            changes["progress"] = check_progress(progress)
        if output is not None:
            changes["output"] = check_output(output)
        if memory_pause is not None:
            changes["memory_pause"] = check_share(memory_pause, "memory_pause")
        if memory_stop is not None:
            changes["memory_stop"] = check_share(memory_stop, "memory_stop")
        settings = replace(_settings, **changes)
        if settings.memory_pause and settings.memory_stop and settings.memory_pause > settings.memory_stop:
            raise ValueError(
                f"memory_pause ({settings.memory_pause}) must not be above memory_stop ({settings.memory_stop})"
            )
        memory.set_thresholds(memory.Thresholds(settings.memory_pause or None, settings.memory_stop or None))
        _settings = settings
        return _settings


def check_workers(workers: Any) -> int:
    """Return a number of workers, or raise what a wrong one deserves."""
    if isinstance(workers, bool):
        raise TypeError("workers must be a whole number of at least 1, not a bool")
    try:
        number = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers must be a whole number of at least 1, not {workers!r}") from None
    if number < 1:
        raise ValueError(f"workers must be at least 1, not {number}")
    return number


def resolve_workers(workers: int | None) -> int:
    """Return the number of workers of a call: its own, the notebook's, or one per effective core."""
    if workers is not None:
        return check_workers(workers)
    return _settings.workers or effective_cores()


def check_start_method(start_method: str) -> str:
    """Return a start method that this system has, or raise ValueError."""
    if start_method not in START_METHODS:
        raise ValueError(f"unknown start method {start_method!r}; this system has: {', '.join(START_METHODS)}")
    return start_method


def check_share(share: Any, what: str) -> float | Literal[False]:
    """Return a share of the memory, False for none, or raise what a wrong one deserves."""
    if share is False:
        return False
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(f"{what} must be a share of the memory such as 0.9, or False, not {share!r}")
    if not 0 < float(share) <= 1:
        raise ValueError(f"{what} must be a share of the memory, above 0 and at most 1, not {share!r}")
    return float(share)


def check_progress(progress: Any) -> Progress:
    """Return whether a bar is shown, or raise ValueError."""
    if progress not in ("auto", True, False):
        raise ValueError(f"progress must be True, False or 'auto', not {progress!r}")
    return progress  # type: ignore[no-any-return]


def check_output(output: Any) -> Output:
    """Return what becomes of the output of tasks, or raise ValueError."""
    if output is None or output is False:
        return None
    if output not in ("live", "ordered", "collect"):
        raise ValueError(f"output must be 'live', 'ordered', 'collect' or None, not {output!r}")
    return output  # type: ignore[no-any-return]


def resolve_output(output: Any) -> Output:
    """Return what becomes of the output of a map's tasks: as it says itself, or as in the notebook."""
    return _settings.output if output == "auto" else check_output(output)
