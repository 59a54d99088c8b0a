"""The standard module `multiprocessing`, for code that is written in cells: change the import, and nothing else.

``from nbparallel import multiprocessing`` in place of ``import multiprocessing``. A `Process` or a `Pool` runs
functions of a cell under each start method, without a guard, and what it prints is shown in the cell; queues, pipes and
managers carry instances of a cell's classes; locks, values and arrays may be arguments, globals, or ``initargs``.

`context` has the functions below; `process`, `popen`, `keeper` and `child` are how a process lives; `connection`,
`queues`, `managers`, `proxies` and `messages` what goes between them; `synchronize` makes locks without a name; `shown`
is what is seen of a process. The rest is the standard module's own.
"""

from __future__ import annotations

import sys
from multiprocessing import (
    AuthenticationError,
    BufferTooShort,
    ProcessError,
    TimeoutError,
    active_children,
    current_process,
    parent_process,
    reduction,
    resource_tracker,
    util,
)
from typing import Any

from nbparallel.engine.resource_tracker import keep_apart
from nbparallel.multiprocessing import context
from nbparallel.multiprocessing.process import Process

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

keep_apart()

# The standard module's own, by `import` too.
for _module in (reduction, resource_tracker, util):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module

_default: Any = context.default

Array = _default.Array
Barrier = _default.Barrier
BoundedSemaphore = _default.BoundedSemaphore
Condition = _default.Condition
Event = _default.Event
JoinableQueue = _default.JoinableQueue
Lock = _default.Lock
Manager = _default.Manager
Pipe = _default.Pipe
Pool = _default.Pool
Queue = _default.Queue
RLock = _default.RLock
RawArray = _default.RawArray
RawValue = _default.RawValue
Semaphore = _default.Semaphore
SimpleQueue = _default.SimpleQueue
Value = _default.Value
allow_connection_pickling = _default.allow_connection_pickling
cpu_count = _default.cpu_count
freeze_support = _default.freeze_support
get_all_start_methods = _default.get_all_start_methods
get_context = _default.get_context
get_logger = _default.get_logger
reducer = reduction
get_start_method = _default.get_start_method
log_to_stderr = _default.log_to_stderr
set_executable = _default.set_executable
set_forkserver_preload = _default.set_forkserver_preload
set_start_method = _default.set_start_method


def __getattr__(name: str) -> Any:
    # The submodules, which `import multiprocessing` does not load either, but finds once they are.
    if name in ("dummy", "managers", "pool", "queues", "connection", "shared_memory", "sharedctypes", "synchronize"):
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
