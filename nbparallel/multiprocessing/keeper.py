"""Starting processes, and one thread that looks after them: it shows what they print and takes note of their end.

A process is a worker of the engine that is told to be something else. It is started on this thread, as on Linux it
ends with the thread that has started it; the thread lasts as long as any process. Called by `popen`.

    cell ─ Process.start ─▶ Popen ─▶ keeper's thread ─▶ WorkerProcess ──socket──▶ worker ─▶ child.live ─▶ target
      ▲                                    │                                          │
      └── sentinel, exit code, prints ◀────┴────────────── Connection ◀── socket, descriptors 1 and 2
"""

from __future__ import annotations

import atexit
import functools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbparallel.engine import environment
from nbparallel.engine.connection import Connection
from nbparallel.engine.process import WorkerProcess, prepare
from nbparallel.engine.waker import Waker
from nbparallel.engine.wire import Message
from nbparallel.interrupts import WAIT_SECONDS
from nbparallel.progress.board import BEAT_SECONDS
from nbparallel.serialize import Data

if TYPE_CHECKING:
    from nbparallel.multiprocessing.popen import Popen

#: The module whose `live` the worker is told to be.
LIFE = "nbparallel.multiprocessing.child"
# What most processes need, and would take most of their start to import.
_MODULES = (LIFE, "nbparallel.multiprocessing.queues", "multiprocessing.synchronize")
#: How long a process that has closed its connection may take to end, in seconds.
EXIT_GRACE = 2.0
# How long, in seconds, the end of this process waits for those that begin.
_BEGIN_SECONDS = 10.0
# How often, in seconds, a process is looked at whose end can't be waited for.
_LOOK_SECONDS = 0.2

_heir: Any = None


def take_heir() -> Any:
    """Return the process that this one was forked to be."""
    return _heir


def start(popen: Popen, method: str, heir: Any = None) -> Connection:
    """Start a process, and return its connection.

    Args:
        popen: is told of its end.
        method: how it starts.
        heir: what a forked one finds by `take_heir`.

    Raises:
        OSError: none can be started.
    """
    prepare(method, _MODULES)
    return _keeper.start(_Start(popen, method, heir))


def send(connection: Connection, data: Data) -> None:
    """Tell a process what it is."""
    _keeper.send(connection, data)


class _Start:
    """A process that is to be started."""

    def __init__(self, popen: Popen, method: str, heir: Any) -> None:
        self.popen = popen
        self.method = method
        self.heir = heir
        self.done = threading.Event()
        self.connection: Connection | None = None
        self.error: BaseException | None = None

    def act(self) -> None:
        """Start it."""
        global _heir
        _heir = self.heir
        try:
            self.connection = Connection(0, WorkerProcess(self.method, {}))
        except Exception as error:  # the one who asked gets it
            self.error = error
        finally:
            _heir = None


class _Keeper:
    """The processes of this one, and the thread that looks after them while there are any."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._wanted: deque[_Start] = deque()
        self._kept: dict[Connection, Popen] = {}
        self._thread: threading.Thread | None = None

    # ---- on any thread ----

    def start(self, wanted: _Start) -> Connection:
        with self._lock:
            self._wanted.append(wanted)
            if self._thread is None:
                self._selector = selectors.DefaultSelector()
                self._waker = Waker(self._selector)
                self._thread = threading.Thread(target=self._serve, name="nbparallel-processes", daemon=True)
                self._thread.start()
            self._waker.wake()
        while not wanted.done.wait(WAIT_SECONDS):
            pass
        if wanted.connection is None:
            assert wanted.error is not None
            raise wanted.error
        return wanted.connection

    def send(self, connection: Connection, data: Data) -> None:
        with self._lock:
            if connection not in self._kept:  # it has ended as it started
                return
            connection.put_environment(environment.current())
            connection.put_life(LIFE, data)
            connection.flush()
            self._waker.wake()

    def wait_until_begun(self) -> None:
        """Wait until each process has what it was sent, or has ended."""
        limit = time.monotonic() + _BEGIN_SECONDS
        while any(popen.is_beginning for popen in list(self._kept.values())) and time.monotonic() < limit:
            time.sleep(0.001)

    def forget(self) -> None:
        """Close what a fork of this process has copies of."""
        for popen in self._kept.values():
            popen.let_go()
        if self._thread is not None:
            self._selector.close()
            self._waker.close()

    # ---- on its thread ----

    def _serve(self) -> None:
        wait: float | None = None
        while True:
            for key, mask in self._selector.select(wait):
                key.data(mask)
            for popen in self._kept.values():
                popen.output.show()
            while self._wanted:
                self._start(self._wanted.popleft())
            unseen = [connection for connection in self._kept if connection.process.sentinel is None]
            for connection in unseen:
                if connection.process.exitcode() is not None:
                    self._lost(connection)
            wait = _LOOK_SECONDS if unseen else None
            if any(popen.output.is_behind for popen in self._kept.values()):
                wait = BEAT_SECONDS
            with self._lock:
                for connection in self._kept:
                    connection.watch_for_room(self._selector)
                if not self._kept and not self._wanted:
                    self._thread = None
                    self._selector.close()
                    self._waker.close()
                    return

    def _start(self, wanted: _Start) -> None:
        wanted.act()
        if wanted.connection is not None:
            connection = wanted.connection
            connection.adopt(wanted.popen.output.as_work)
            connection.watch(self._selector, self._on_socket, self._on_output, self._on_exit)
            with self._lock:
                self._kept[connection] = wanted.popen
        wanted.done.set()

    def _on_socket(self, connection: Connection, mask: int) -> None:
        if connection not in self._kept:  # it was lost by an earlier event of the same round
            return
        if mask & selectors.EVENT_WRITE:
            with self._lock:
                connection.flush()
        if mask & selectors.EVENT_READ:
            messages, alive = connection.receive()
            self._hear(connection, messages)
            if not alive:
                self._lost(connection)

    def _on_output(self, connection: Connection, position: int, _: int) -> None:
        self._on_socket(connection, selectors.EVENT_READ)  # what was said before
        if connection in self._kept and not connection.relay_output(position):
            self._selector.unregister(connection.process.outputs[position])

    def _on_exit(self, connection: Connection, _: int) -> None:
        if connection in self._kept:
            self._lost(connection)

    def _hear(self, connection: Connection, messages: Iterable[Message]) -> None:
        popen = self._kept[connection]
        for header, segments in messages:
            if header[0] == "begun":
                popen.begun()
            elif header[0] != "ready":
                connection.listener.hear(header, segments, functools.partial(connection.say, popen.output.as_work))

    def _lost(self, connection: Connection) -> None:
        self._hear(connection, connection.receive_rest())
        code = connection.end(EXIT_GRACE)
        with self._lock:
            popen = self._kept.pop(connection)
            connection.close(self._selector)
        popen.ended(-9 if code is None else code)


_keeper = _Keeper()


# Registered after the standard module's own, and so before it: that one removes the names of locks, by which a process
# that has not begun yet would look for them.
@atexit.register
def _wait_until_begun() -> None:
    _keeper.wait_until_begun()


def _after_fork() -> None:
    global _keeper
    _keeper.forget()
    _keeper = _Keeper()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
