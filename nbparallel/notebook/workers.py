"""``%pworkers``: what this notebook may use, what its maps use, and which workers are warm. Registered by `load`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import psutil
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from nbparallel import backends, config
from nbparallel.backends.processes import ProcessesBackend
from nbparallel.machine import resources
from nbparallel.notebook.options import whole_number
from nbparallel.tracebacks import hidden


@magics_class
class WorkerMagics(Magics):
    """``%pworkers``."""

    words: ClassVar[Mapping[str, Iterable[str]]] = {"pworkers": ("auto", "restart")}

    @line_magic
    def pworkers(self, line: str) -> None:
        """Show what this notebook may use and which workers are warm, or set how many a map uses.

        %pworkers            cores and memory and why, how workers start, which are warm
        %pworkers 4          maps use 4 workers from now on
        %pworkers auto       maps use one worker per effective core, as at the beginning
        %pworkers restart    stop the warm workers; the next map starts fresh ones

        The same without the magic: `resources()`, `configure(workers=4)`.
        """
        with hidden:
            word = line.strip()
            if word == "restart":
                count = len(warm_pids())
                backends.shutdown()
                print(f"{count} stopped; the next map starts fresh workers")
            elif word:
                try:
                    config.configure(workers="auto" if word == "auto" else whole_number(word))
                except ValueError as error:
                    raise UsageError(f"%pworkers takes a number, auto or restart, not {word}: {error}") from None
                print(f"workers  {config.resolve_workers(None)}")
            else:
                print(overview())


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
