"""What ``%pworkers`` shows: what this notebook may use, what its maps use, and which workers are warm.

Called by `magics`.
"""

from __future__ import annotations

import psutil

from nbparallel import backends, config
from nbparallel.backends.processes import ProcessesBackend
from nbparallel.machine import resources


def overview() -> str:
    """Return the resources, the defaults and the warm workers as lines of text."""
    settings = config.settings()
    if settings.workers is None:
        workers = f"{config.resolve_workers(None)} (auto: one per effective core)"
    else:
        workers = f"{settings.workers} (set by %pworkers, %config NBParallel or configure)"
    return "\n".join(
        [
            repr(resources()),
            f"workers        {workers}",
            f"start method   {settings.start_method}",
            f"warm           {_warm()}",
        ]
    )


def warm_pids() -> list[int]:
    """Return the process ids of the workers that wait for the next map."""
    engines = [backend.engine for backend in backends.warm().values() if isinstance(backend, ProcessesBackend)]
    return [pid for engine in engines for pid in engine.pids]


def _warm() -> str:
    pids = warm_pids()
    if not pids:
        return "none yet: the first map starts them"
    return f"{len(pids)}: " + ", ".join(f"pid {pid} ({_memory(pid)})" for pid in pids)


def _memory(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).memory_info().rss / 2**20:.0f} MiB"
    except psutil.Error:
        return "has just ended"
