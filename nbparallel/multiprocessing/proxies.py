"""How proxies talk to a manager's server so that Stop, and the end of a process, leave the objects in there in order.

The server knows nothing of a client that has gone: whatever it waits for there, it takes, and gives it to nobody. So
what may last long is asked for in pieces. Called by `managers`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import connection as standard
from multiprocessing import current_process, managers
from queue import Empty, Full
from typing import Any

from nbparallel.interrupts import deferred
from nbparallel.multiprocessing.connection import Connection
from nbparallel.tracebacks import hidden

# The longest piece of a wait, in seconds: Stop has one second, and each piece costs the server a message.
_PIECE_SECONDS = 0.5

if sys.platform == "win32":
    from nbparallel.multiprocessing.connection import PipeConnection as _Base
else:
    _Base = Connection


class _Line(_Base):
    """A proxy's connection.

    Interrupted before the answer has come, it is begun anew: that answer would be taken for the one to the next
    question. So it is, at the next question, where the interrupt came anywhere between the two calls.
    """

    _address: Any
    _authkey: bytes | None
    _awaits = False  # an answer

    def send(self, obj: Any) -> None:
        """Ask."""
        with hidden:
            if self._awaits:
                self._begin_anew()
            self._awaits = True
            super().send(obj)

    def recv(self) -> Any:
        """Return the next answer."""
        with hidden:
            try:
                answer = super().recv()
            except KeyboardInterrupt:
                with deferred, contextlib.suppress(OSError, EOFError):  # the manager has ended: the next call says so
                    self._begin_anew()
                raise
            self._awaits = False
            return answer

    def _begin_anew(self) -> None:
        self.close()
        fresh = standard.Client(self._address, authkey=self._authkey)
        name = f"{current_process().name}|{threading.current_thread().name}"
        managers.dispatch(fresh, None, "accept_connection", (name,))
        self._handle, fresh._handle = fresh._handle, None
        self._awaits = False


def client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Any:
    """Return a proxy's connection to its server."""
    line = standard.Client(address, family, authkey)
    if type(line) in _Line.__mro__:  # one by TCP on Windows is not, and stays as it is
        line.__class__ = _Line
        line._address, line._authkey = address, authkey
    return line


def _in_pieces(ask: Callable[[float], Any], timeout: float | None) -> Any:
    """Ask until there is an answer that is true, or the time is over; return the last one."""
    limit = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _PIECE_SECONDS if limit is None else max(0.0, limit - time.monotonic())
        piece = min(left, _PIECE_SECONDS)
        with deferred:
            answer = ask(piece)
        if answer or (limit is not None and piece == left):
            return answer


_QUEUE_METHODS = ("empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "task_done")
_BaseQueueProxy: Any = managers.MakeProxyType("_BaseQueueProxy", _QUEUE_METHODS)


class QueueProxy(_BaseQueueProxy):
    """A manager's queue."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next item; as `queue.Queue.get`."""
        found: list[Any] = []

        def ask(seconds: float) -> bool:
            with contextlib.suppress(Empty):
                found.append(self._callmethod("get", (True, seconds)))
            return bool(found)

        with hidden:
            if not block or (timeout is not None and timeout <= 0):
                return self._callmethod("get", (block, timeout))
            if not _in_pieces(ask, timeout):
                raise Empty
            return found[0]

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item; as `queue.Queue.put`."""

        def ask(seconds: float) -> bool:
            try:
                self._callmethod("put", (item, True, seconds))
            except Full:
                return False
            return True

        with hidden:
            if not block or (timeout is not None and timeout <= 0):
                self._callmethod("put", (item, block, timeout))
            elif not _in_pieces(ask, timeout):
                raise Full


class _Acquirer:
    """What can be taken: waited for in pieces."""

    def acquire(self: Any, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take it; as `threading.Lock.acquire`."""
        taken = False

        def ask(seconds: float) -> bool:
            nonlocal taken
            taken = self._callmethod("acquire", (True, seconds))
            return bool(taken)

        with hidden:
            if not blocking or (timeout is not None and timeout <= 0):
                return bool(super().acquire(blocking, timeout))
            try:
                return bool(_in_pieces(ask, timeout))
            except KeyboardInterrupt:
                if taken:  # in the same moment, and nobody would give it back
                    self.release()
                raise

    def __enter__(self) -> bool:
        with hidden:
            return self.acquire()


class AcquirerProxy(_Acquirer, managers.AcquirerProxy):  # type: ignore[name-defined, misc, unused-ignore]
    """A manager's lock or semaphore."""


class ConditionProxy(_Acquirer, managers.ConditionProxy):  # type: ignore[name-defined, misc, unused-ignore]
    """A manager's condition."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a notification; as `threading.Condition.wait`."""
        with hidden:
            return bool(_in_pieces(lambda seconds: self._callmethod("wait", (seconds,)), timeout))
