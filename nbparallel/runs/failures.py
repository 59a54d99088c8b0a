"""From a failure, as an engine reports it, to the exception that a user sees.

Called by `execution`, `stream` and `calls`.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterable
from typing import Any

from nbparallel.engine import streams
from nbparallel.engine.memory import in_use
from nbparallel.engine.work import Failure, how_it_ended
from nbparallel.errors import SerializationError, TaskError, TaskTimeout, WorkerCrashed, short_repr
from nbparallel.runs.mends import LESS_MEMORY, mend_of
from nbparallel.serialize import name_of
from nbparallel.words import human_size


def task_error(
    failure: Failure, function: Callable[..., Any], style: str, index: int, item: Any, seed: int | None = None
) -> TaskError:
    """Return the `TaskError` of a failed task.

    Args:
        failure: what happened.
        function: the user's function.
        style: how `item` holds its arguments: ``"one"``, ``"star"`` or ``"call"``.
        index: the task's place in the input.
        item: its input.
        seed: the run's.
    """
    args, kwargs = _arguments(style, item)
    what = f"task {index} ({name_of(function)}({_shown(args, kwargs)}))"
    known: dict[str, Any] = {
        "index": index,
        "input": args,
        "traceback": failure.traceback,
        "call": functools.partial(_call_again, function, args, kwargs, seed, index),
    }
    if failure.crashed:
        if failure.limit is not None:
            return TaskTimeout(
                f"{what} ran longer than its limit of {failure.limit:g} s; its worker was ended", **known
            )
        if failure.pid is None:
            reason = failure.message or "no worker is there to run it"
            return WorkerCrashed(f"{what} was not run: {reason}", **known)
        message = f"{what}: the worker {_how_it_ended(failure)} while it ran this task{_how_much_memory(failure)}"
        if failure.memory is not None:
            known["memory"] = failure.memory.worker
            known["memory_used"], known["memory_limit"], _ = failure.memory.use
        return WorkerCrashed(message, pid=failure.pid, exitcode=failure.exitcode, **known)
    error = failure.error
    told = f"{what}: {failure.type}: {failure.message}"
    if error is None:
        told = f"{what}: {failure.unpicklable} can't be sent back to the notebook.\n{failure.type}: {failure.message}"
        error = SerializationError(told).with_traceback(failure.frames)
    elif (mend := mend_of(error, function)) and mend not in getattr(error, "__notes__", ()):
        _add_note(error, mend)
    known["error"] = error
    return TaskError(told, **known)


def _call_again(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], seed: int | None, index: int
) -> Any:
    if seed is None:
        return function(*args, **kwargs)
    return streams.seeded(lambda _: function(*args, **kwargs), seed, "borrowed")(None, index)


def note_task(failed: TaskError, summary: str = "") -> None:
    """Note on what is raised for a failed task which one it was.

    Args:
        failed: the task's failure.
        summary: what is said of the others.
    """
    marker = "" if failed.error is None else f"in {str(failed).partition('): ')[0]})"
    error = failed.raised
    told = "; ".join(filter(None, [marker, summary]))
    if told and not any(known.startswith("nbparallel: ") for known in getattr(error, "__notes__", ())):
        _add_note(error, f"nbparallel: {told}")


def _add_note(error: BaseException, note: str) -> None:
    # Past the class: it may be a frozen dataclass, for which `add_note` fails.
    object.__setattr__(error, "__notes__", [*getattr(error, "__notes__", ()), note])


def signal_number(name: str) -> int:
    """Return the number of a signal, 0 where the system has none of that name."""
    return int(getattr(signal, name, 0))


def _how_it_ended(failure: Failure) -> str:
    if failure.memory is not None and failure.memory.above is not None:
        return f"with pid {failure.pid} was ended to keep the memory from running out,"
    return how_it_ended(failure.pid, failure.exitcode)


def _how_much_memory(failure: Failure) -> str:
    """Return what is said of the memory, where the death may come of it."""
    known = failure.memory
    if known is None or not (known.above or failure.exitcode in (-signal_number("SIGKILL"), *_WINDOWS_MEMORY)):
        return ""
    held = "not looked at before" if known.worker is None else human_size(known.worker)
    figures = f"Its memory was {held}; {in_use(known.use)}"
    if known.above is not None:
        return f". {figures}, more than {known.above:.0%} (configure(memory_stop=...)). {LESS_MEMORY}"
    return f". Nothing in Python does that: most often the system was short of memory. {figures}. {LESS_MEMORY}"


# ntstatus.h: STATUS_NO_MEMORY, STATUS_COMMITMENT_LIMIT. Windows has no signals, and fails what asks for memory.
_WINDOWS_MEMORY = (0xC0000017, 0xC000012D)


def _arguments(style: str, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if style == "one":
        return (item,), {}
    if style == "star":
        return (tuple(item) if isinstance(item, Iterable) else (item,)), {}
    return tuple(item[0]), dict(item[1])


def _shown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return ", ".join([*map(short_repr, args), *(f"{name}={short_repr(value)}" for name, value in kwargs.items())])
