"""Which backend a call runs on: the notebook's warm one, one of its own, or, inside a task, the serial one.

Called by `mapping`, `jobs`, `pool` and `executor`, which also share the checks of their arguments here.
"""

from __future__ import annotations

import inspect
import numbers
import operator
import types
import warnings
from collections.abc import Callable
from typing import Any

from nbparallel import backends, config
from nbparallel.backends import local, processes, serial, threads
from nbparallel.engine import worker
from nbparallel.engine.relay import is_first, say_once
from nbparallel.engine.work import Backend
from nbparallel.errors import NBParallelWarning
from nbparallel.serialize import name_of
from nbparallel.tracebacks import stacklevel

_NESTED = "a map or pool inside a task runs serially there: the cores are taken by the outer one"


def find_backend(name: str | None, width: int, total: int | None) -> Backend:
    """Return the warm backend of a map; inside a task, and for no tasks at all, the serial one.

    Raises:
        ValueError: there is no such backend.
        BackendUnavailable: it needs a package that is not installed.
    """
    chosen = backends.check(name or config.settings().backend)
    if total == 0 or (chosen != "serial" and _is_nested()):
        chosen = "serial"
    return backends.get(chosen, width, config.settings().start_method)


def open_backend(
    width: int,
    initializer: Callable[..., Any] | None,
    initargs: tuple[Any, ...],
    max_tasks: int | None,
    start_method: str | None,
    timeout: float | None,
) -> Backend:
    """Return workers of their own, for a pool or an executor; inside a task, none but this process.

    Raises:
        ValueError: a number or the start method is out of range, or tasks that can't be ended are to have a limit.
        TypeError: the initializer is not callable.
        SerializationError: the initializer or its arguments can't travel.
    """
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be callable, not {type(initializer).__name__}")
    if max_tasks is not None:
        max_tasks = check_count(max_tasks, "the number of tasks per worker")
    method = config.settings().start_method if start_method is None else config.check_start_method(start_method)
    if timeout is not None and (worker.is_active() or local.is_inside_task()):
        raise ValueError("timeout needs workers that can be ended: a pool inside a task has none")
    if _is_nested():
        if initializer is not None:
            initializer(*initargs)
        return serial.SerialBackend()
    with_args = None if initializer is None else (initializer, tuple(initargs))
    return processes.open_private(width, method, with_args, max_tasks)


def open_single(name: str) -> Backend:
    """Return a worker for one call in the background, of the kind `name`; inside a task, none but this process."""
    if _is_nested():
        return serial.SerialBackend()
    if name == "threads":
        return threads.open_backend(1, "")
    return processes.open_private(1, config.settings().start_method, None, None)


def check_function(fn: Any) -> None:
    """Raise TypeError for what can't be called in a worker."""
    if not callable(fn):
        raise TypeError(f"the first argument must be callable, not {type(fn).__name__}")
    # A plain function tells by itself; asking inspect costs as much as sending a small task.
    plain = type(fn) is types.FunctionType and not fn.__code__.co_flags & inspect.CO_COROUTINE
    if not plain and inspect.iscoroutinefunction(fn):
        name = name_of(fn)
        raise TypeError(
            f"{name} is a coroutine function: calling it only makes a coroutine. For waiting tasks, "
            f"await asyncio.gather(*map({name}, xs)) here; to run it in workers, map a function that does "
            f"asyncio.run({name}(x))"
        )


def _index(number: Any) -> int:
    if isinstance(number, bool):
        raise TypeError
    return operator.index(number)


def check_count(count: Any, what: str) -> int:
    """Return a whole number of at least 1, or raise what a wrong one deserves."""
    try:
        number = _index(count)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, not {count!r}") from None
    if number < 1:
        raise ValueError(f"{what} must be at least 1, not {number}")
    return number


def check_seconds(seconds: Any, what: str) -> float | None:
    """Return a limit in seconds, `None` for none, or raise what a wrong one deserves."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise TypeError(f"{what} must be a number of seconds, not {seconds!r}")
    if not 0 < float(seconds) < float("inf"):
        raise ValueError(f"{what} must be more than 0 seconds and finite, not {seconds!r}")
    return float(seconds)


def check_chunksize(chunksize: Any) -> int | None:
    """Return a chunk size, `None` for an automatic one."""
    return None if chunksize in ("auto", None) else check_count(chunksize, "chunksize")


def _is_nested() -> bool:
    """Return whether a task asks, and say once what that means."""
    if worker.is_active():
        say_once(f"NBParallelWarning: {_NESTED}")
        return True
    if local.is_inside_task() and is_first(_NESTED):
        warnings.warn(_NESTED, NBParallelWarning, stacklevel=stacklevel())
    return local.is_inside_task()
