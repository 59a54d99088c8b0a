"""Parallel Python that feels like the cell it is written in.

Layout: `mapping`, `jobs`, `pool` and `executor` are the front, `runs` one call of it; `backends` are the places where
tasks go, `engine` the local workers among them; `serialize` is how code and data travel; `output`, `timeline` and
`progress` are what is seen of a run; `comparison` measures maps; `notebook` is what only a notebook has. Imports go
one way, as tests/test_layout.py says.

The names below are loaded when they are first used: a worker imports this package, and needs none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nbparallel.comparison.compare import compare as compare
    from nbparallel.comparison.result import Comparison as Comparison
    from nbparallel.config import configure as configure
    from nbparallel.engine.streams import rng as rng
    from nbparallel.errors import BackendUnavailable as BackendUnavailable
    from nbparallel.errors import CheckpointError as CheckpointError
    from nbparallel.errors import NBParallelError as NBParallelError
    from nbparallel.errors import NBParallelWarning as NBParallelWarning
    from nbparallel.errors import SerializationError as SerializationError
    from nbparallel.errors import TaskError as TaskError
    from nbparallel.errors import TaskTimeout as TaskTimeout
    from nbparallel.errors import WorkerCrashed as WorkerCrashed
    from nbparallel.executor import Executor as Executor
    from nbparallel.jobs import Job as Job
    from nbparallel.jobs import background as background
    from nbparallel.machine import resources as resources
    from nbparallel.mapping import last_run as last_run
    from nbparallel.mapping import pmap as pmap
    from nbparallel.mapping import pmap_async as pmap_async
    from nbparallel.pool import Pool as Pool
    from nbparallel.runs.run import Run as Run

_HOMES = {
    "compare": "comparison.compare",
    "Comparison": "comparison.result",
    "configure": "config",
    "rng": "engine.streams",
    "BackendUnavailable": "errors",
    "CheckpointError": "errors",
    "NBParallelError": "errors",
    "NBParallelWarning": "errors",
    "SerializationError": "errors",
    "TaskError": "errors",
    "TaskTimeout": "errors",
    "WorkerCrashed": "errors",
    "Executor": "executor",
    "background": "jobs",
    "Job": "jobs",
    "last_run": "mapping",
    "pmap": "mapping",
    "pmap_async": "mapping",
    "Pool": "pool",
    "resources": "machine",
    "Run": "runs.run",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if name == "multiprocessing":  # a room that users enter; `import nbparallel` does not load it
        return importlib.import_module(f"{__name__}.multiprocessing")
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "multiprocessing"})


def load_ipython_extension(shell: Any) -> None:
    """Make ``%load_ext nbparallel`` work: register the magics, and prepare the workers' start."""
    from nbparallel.notebook import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take back what ``%load_ext nbparallel`` registered."""
    from nbparallel.notebook import unload

    unload(shell)
