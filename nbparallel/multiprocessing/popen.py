"""One process that was started, in the shape that the standard `Process` asks for. Called by `process`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from multiprocessing.connection import wait as wait_for
from typing import Any

from nbparallel.engine.connection import Connection
from nbparallel.interrupts import deferred
from nbparallel.multiprocessing import keeper
from nbparallel.multiprocessing.shown import Shown
from nbparallel.serialize import Data, dumps_data, explain, tracker
from nbparallel.serialize.handover import Descriptors, Handover
from nbparallel.serialize.modules import travels_by_name


class Popen:
    """A process that was started, in the shape that `multiprocessing.process.BaseProcess` asks for.

    Attributes:
        pid: its process id.
        output: where what it says is shown.
        returncode: how it ended, negative for a signal; `None` until it has, and all that it printed is shown.
        sentinel: becomes ready then.

    Args:
        process: the `Process`, which travels whole.
        method: how it starts.

    Raises:
        SerializationError: it can't travel.
    """

    def __init__(self, process: Any, method: str) -> None:
        self.returncode: int | None = None
        self._held: Any = (process._target, process._args, process._kwargs)  # what these hold must last until it begins
        self._end: int | None = None
        self._over = threading.Event()
        self.output = Shown()
        if sys.platform != "win32":
            self.sentinel, self._end = os.pipe()
        forked = method == "fork"  # then it has everything by its memory
        if forked:
            _name_what_cells_define()
        try:
            connection = keeper.start(self, method, process if forked else None)
        except BaseException:  # no more processes, or descriptors
            self.let_go()
            self.close()
            raise
        self.pid = connection.process.pid
        if sys.platform == "win32":
            self.sentinel = connection.process.handle
        try:
            data = Data([], {}, Descriptors()) if forked else _pickle(process, method, connection)
        except BaseException:
            self.kill()
            self.wait()
            self.close()
            raise
        keeper.send(connection, data)

    # ---- what BaseProcess asks ----

    def poll(self, flag: int = 0) -> int | None:
        """Return how it ended; `None` if it has not."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, and return how it ended; `None` if it has not in time."""
        if self.returncode is None:
            wait_for([self.sentinel], timeout)
            if sys.platform == "win32":  # there it is the process's own, which ends before all is shown
                self._over.wait(timeout)
        return self.returncode

    def terminate(self) -> None:
        """End it by SIGTERM; on Windows at once."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in it."""
        self._signal(signal.SIGINT)

    def close(self) -> None:
        """Let go of what it took to wait for it."""
        if self._end is None and sys.platform != "win32" and self.sentinel >= 0:
            os.close(self.sentinel)
            self.sentinel = -1

    # A module's names may be gone by then.
    def __del__(self, close: Callable[[int], None] = os.close, windows: bool = sys.platform == "win32") -> None:
        if not windows and getattr(self, "returncode", None) is not None and self.sentinel >= 0:
            close(self.sentinel)

    def _signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    # ---- what the keeper tells ----

    @property
    def is_beginning(self) -> bool:
        """Whether it has not yet taken what it was sent."""
        return self._held is not None

    def begun(self) -> None:
        """Take note that it has all that it was sent."""
        self._held = None

    def ended(self, code: int) -> None:
        """Take note of its end."""
        self.output.end()
        self._held = None
        self.returncode = code
        self._over.set()
        self.let_go()

    def let_go(self) -> None:
        """Close this process's end of what says that it is over."""
        if self._end is not None:
            end, self._end = self._end, None
            os.close(end)


def _name_what_cells_define() -> None:
    """Give ids to the notebook's functions and classes before a fork, so that in both processes they are the same."""
    for value in list(vars(sys.modules["__main__"]).values()):
        if isinstance(value, (type, types.FunctionType)) and not travels_by_name(value):
            tracker.id_of(value)


def _pickle(process: Any, method: str, connection: Connection) -> Data:
    handle = connection.process.handle if sys.platform == "win32" else None
    with deferred.lifted():
        try:
            data = dumps_data((method, process), Handover(handle, sockets=True))
        except Exception as error:
            raise explain(error, _parts(process), _attempt, process.name) from error
    return data


def _attempt(part: Any) -> None:
    dumps_data(part, Handover(sockets=True))


def _parts(process: Any) -> dict[str, Any]:
    """Return what users have given to a process, by the names that they know."""
    given = {"target": process._target, "args": process._args, "kwargs": process._kwargs}
    own = {name: value for name, value in vars(process).items() if not name.startswith("_")}
    return {**given, **own, "class": type(process)}
