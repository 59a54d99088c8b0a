"""The exception tree: every error that this package raises of its own accord.

Each class also derives from the type that users of the standard library already catch, so that
``except BrokenProcessPool`` or ``except TimeoutError`` keeps working. This module imports nothing of the package
but `tracebacks`.
"""

from __future__ import annotations

import pickle
import re
import reprlib
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NoReturn

from nbparallel.tracebacks import Origin, hidden

__all__ = [
    "BackendUnavailable",
    "CheckpointError",
    "NBParallelError",
    "NBParallelWarning",
    "SerializationError",
    "TaskError",
    "TaskTimeout",
    "WorkerCrashed",
    "short_repr",
]

# Another in each run, and of no use in a message.
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 6


def short_repr(value: object) -> str:
    """Return ``repr(value)`` without addresses, cut to about one line; a ``repr`` that raises is named, not raised."""
    try:
        return _ADDRESS.sub("", _repr.repr(value))
    except Exception as error:  # a user's __repr__ must not hide the failure that is being reported
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


class NBParallelError(Exception):
    """The base of every error of this package."""


class NBParallelWarning(UserWarning):
    """Advice about a run that works, but not as its author may expect (a nested map, a large global)."""


class SerializationError(NBParallelError, pickle.PicklingError):
    """Something can't travel to a worker; the message names it by its path in the user's own names.

    Attributes:
        path: where it was found, such as ``"train → config['db']"``.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class TaskError(NBParallelError):
    """A task that failed, with what is needed to find out why.

    Attributes:
        index: the task's place in the input.
        input: the task's positional arguments, as a tuple; ``None`` where they are not known.
        error: the exception that the function raised; ``None`` when the worker died.
        traceback: the worker's traceback as text.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        input: tuple[Any, ...] | None = None,
        error: BaseException | None = None,
        traceback: str = "",
        call: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.index = index
        self.input = input
        self.error = error
        self.traceback = traceback
        self._call = call
        self._origin = Origin(None, None) if error is None else Origin.of(error)

    def rerun(self) -> Any:
        """Run the failing call again, here, in this process, so that ``%debug`` can look into it.

        Returns:
            What the function returns, if it does not fail this time.

        Raises:
            RuntimeError: the call is not known any more (the error was unpickled in another process).
        """
        with hidden:
            if self._call is None:
                raise RuntimeError("this error does not hold its call: it was made in another process")
            return self._call()

    @property
    def raised(self) -> BaseException:
        """What is raised for it: what the function raised, as itself; where the worker died, this error."""
        return self if self.error is None else self.error

    def throw(self) -> NoReturn:
        """Raise it."""
        self._origin.throw(self.raised)

    def __reduce__(self) -> Any:
        state = {"index": self.index, "input": self.input, "error": self.error, "traceback": self.traceback}
        return (type(self)._from_state, (self.args[0], state))

    @classmethod
    def _from_state(cls, message: str, state: dict[str, Any]) -> TaskError:
        return cls(message, **state)


class WorkerCrashed(TaskError, BrokenProcessPool):
    """A worker process died while it ran a task.

    Attributes:
        pid: the worker's process id.
        exitcode: its exit code, negative for a signal (as ``multiprocessing.Process.exitcode``); ``None`` if unknown.
        memory: what the worker held, in bytes: at most, where the system tells, else when it was last looked at
            (several times a second); ``None`` if it died before.
        memory_used: what all programs held of `memory_limit` at that time.
        memory_limit: the machine's memory, or what the container may hold.
    """

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        exitcode: int | None = None,
        memory: int | None = None,
        memory_used: int | None = None,
        memory_limit: int | None = None,
        **known: Any,
    ) -> None:
        super().__init__(message, **known)
        self.pid = pid
        self.exitcode = exitcode
        self.memory = memory
        self.memory_used = memory_used
        self.memory_limit = memory_limit

    def __reduce__(self) -> Any:
        build, (message, state) = super().__reduce__()
        own = ("pid", "exitcode", "memory", "memory_used", "memory_limit")
        return (build, (message, {**state, **{name: getattr(self, name) for name in own}}))


class TaskTimeout(TaskError, TimeoutError):
    """A task ran longer than its limit."""


class BackendUnavailable(NBParallelError, ImportError):
    """A backend needs a package that is not installed; the message holds the install line."""


class CheckpointError(NBParallelError, OSError):
    """A checkpoint file is damaged or foreign; it was left untouched."""
