"""Start methods and what is made with them: the functions of the module `multiprocessing`, by context.

All that processes share (locks, queues, shared memory) is made so that a process of any start method can have it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from multiprocessing.context import (
    AuthenticationError,
    BaseContext,
    BufferTooShort,
    ProcessError,
    TimeoutError,
    assert_spawning,
)
from typing import Any

from nbparallel.engine.methods import START_METHODS
from nbparallel.machine import effective_cores
from nbparallel.multiprocessing.synchronize import SHARING
from nbparallel.tracebacks import hidden

__all__ = [
    "AuthenticationError",
    "BufferTooShort",
    "Context",
    "DefaultContext",
    "ProcessError",
    "TimeoutError",
    "assert_spawning",
    "default",
]

# Its methods are typed for the standard module's own classes.
_BaseContext: Any = BaseContext


class Context(_BaseContext):
    """One start method, with all that `multiprocessing` offers.

    Args:
        method: its name; `None` for that of the notebook.
    """

    def __init__(self, method: str | None) -> None:
        self._method = method

    @property
    def current_method(self) -> str:
        """The start method that is in force."""
        return self._method or _config().settings().start_method

    @property
    def _name(self) -> str:  # as the standard class has it
        return self.current_method

    def get_context(self, method: str | None = None) -> Context:
        """Return the context of a start method.

        Raises:
            ValueError: this system has none of that name.
        """
        with hidden:
            if method is None:
                return self
            if method not in _contexts:
                raise ValueError(f"cannot find context for {method!r}")
            return _contexts[method]

    def cpu_count(self) -> int:
        """Return how many cores this process may use: in a container, those that it was given."""
        return effective_cores()

    @property
    def Process(self) -> Any:  # noqa: N802 - the standard module's names, from here on
        """The class of its processes."""
        from nbparallel.multiprocessing import process

        kinds = {"fork": process.ForkProcess, "spawn": process.SpawnProcess, "forkserver": process.ForkServerProcess}
        return process.Process if self._method is None else kinds[self._method]

    def Pool(  # noqa: N802
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """Return a pool of processes: a `nbparallel.Pool`."""
        from nbparallel.pool import Pool

        with hidden:
            return Pool(processes, initializer, initargs, maxtasksperchild, start_method=self.current_method)

    def Manager(self) -> Any:  # noqa: N802
        """Return a manager whose server process was started."""
        from nbparallel.multiprocessing.managers import SyncManager

        with hidden:
            manager = SyncManager(ctx=self)
            manager.start()
            return manager

    def Pipe(self, duplex: bool = True) -> Any:  # noqa: N802
        """Return two connected ends."""
        from nbparallel.multiprocessing.connection import Pipe

        with hidden:
            return Pipe(duplex)

    def Queue(self, maxsize: int = 0) -> Any:  # noqa: N802
        """Return a queue."""
        from nbparallel.multiprocessing.queues import Queue

        return Queue(maxsize, ctx=SHARING)

    def JoinableQueue(self, maxsize: int = 0) -> Any:  # noqa: N802
        """Return a queue with `task_done` and `join`."""
        from nbparallel.multiprocessing.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=SHARING)

    def SimpleQueue(self) -> Any:  # noqa: N802
        """Return a queue without a size."""
        from nbparallel.multiprocessing.queues import SimpleQueue

        if sys._getframe(1).f_globals.get("__name__") == "concurrent.futures.process":
            with hidden:  # it would read from the queue's pipe what only the queue can read, and wait for ever
                raise TypeError(
                    "ProcessPoolExecutor can't use a context of nbparallel.multiprocessing: nbparallel.Executor is an "
                    "executor for functions of cells"
                )
        return SimpleQueue(ctx=SHARING)

    def Lock(self) -> Any:  # noqa: N802
        """Return a lock."""
        return SHARING.Lock()

    def RLock(self) -> Any:  # noqa: N802
        """Return a lock that its owner may take again."""
        return SHARING.RLock()

    def Condition(self, lock: Any = None) -> Any:  # noqa: N802
        """Return a condition."""
        return SHARING.Condition(lock)

    def Semaphore(self, value: int = 1) -> Any:  # noqa: N802
        """Return a semaphore."""
        return SHARING.Semaphore(value)

    def BoundedSemaphore(self, value: int = 1) -> Any:  # noqa: N802
        """Return a semaphore that can't be released more often than it was taken."""
        return SHARING.BoundedSemaphore(value)

    def Event(self) -> Any:  # noqa: N802
        """Return an event."""
        return SHARING.Event()

    def Barrier(self, parties: int, action: Callable[[], Any] | None = None, timeout: float | None = None) -> Any:  # noqa: N802
        """Return a barrier."""
        return SHARING.Barrier(parties, action, timeout)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:  # noqa: N802
        """Return a number, or a structure, in shared memory."""
        return SHARING.Value(typecode_or_type, *args, lock=lock)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:  # noqa: N802
        """Return an array in shared memory."""
        return SHARING.Array(typecode_or_type, size_or_initializer, lock=lock)


class DefaultContext(Context):
    """That of the notebook: its start method can be chosen."""

    def __init__(self) -> None:
        super().__init__(None)
        self._chosen = False
        self._inherited: str | None = None

    @property
    def current_method(self) -> str:
        """The start method that is in force."""
        return self._inherited or super().current_method

    def inherit(self, method: str) -> None:
        """Take over the start method of the process that has started this one."""
        self._inherited = method

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the start method in force; `None` where none was chosen and that is allowed."""
        return None if allow_none and not self._chosen else self.current_method

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Choose how processes start: the same as ``nbparallel.configure(start_method=…)``.

        Args:
            method: its name; `None`, with `force`, for the package's own.
            force: whether another one may have been chosen before. The same one may always be: a cell is run again.

        Raises:
            ValueError: this system has none of that name.
            RuntimeError: another one was chosen.
        """
        with hidden:
            if method is None and not force:
                raise ValueError("the start method is None: give its name, or force=True to go back to the default")
            wanted = next(iter(_contexts)) if method is None else self.get_context(method).current_method
            if self._chosen and not force and wanted != self.current_method:
                raise RuntimeError(f"context has already been set, to {self.current_method!r}: force=True changes it")
            _config().configure(start_method=wanted)
            self._chosen, self._inherited = method is not None, None

    def get_all_start_methods(self) -> list[str]:
        """Return the names of the start methods of this system, the package's default first."""
        return list(_contexts)


default = DefaultContext()
_contexts = {method: Context(method) for method in START_METHODS}


def _config() -> Any:
    from nbparallel import config  # a process that is started imports this module, and few need that

    return config
