"""What a worker writes to its descriptors 1 and 2, in a form that a selector can wait for.

That is a pipe, except on Windows, whose selector takes nothing but sockets: there a thread moves the bytes to one.
Called by `process`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from typing import Protocol

_PIPE_BYTES = 65536
_SETTLE_SECONDS = 0.5
WAITABLE = sys.platform != "win32"


class Output(Protocol):
    """The read end: non-blocking."""

    def fileno(self) -> int: ...

    def read(self) -> bytes:
        """Return what is there, nothing at the end.

        Raises:
            BlockingIOError: there is nothing yet.
        """

    def settle(self) -> None:
        """Have all that an ended writer wrote there to be read."""

    def close(self) -> None: ...


class Pipe:
    """A pipe as it is."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes:
        return os.read(self._fd, _PIPE_BYTES)

    def settle(self) -> None:
        """It is there."""

    def close(self) -> None:
        os.close(self._fd)


class Pumped:
    """A pipe that a thread empties into a socket."""

    def __init__(self, fd: int) -> None:
        self._socket, self._fill = socket.socketpair()
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._pump, args=(fd,), name="nbparallel-pump", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        return self._socket.recv(_PIPE_BYTES)

    def settle(self) -> None:
        self._thread.join(_SETTLE_SECONDS)  # unless a child of the writer still holds the pipe

    def close(self) -> None:
        self._socket.close()

    def _pump(self, fd: int) -> None:
        with self._fill, contextlib.suppress(OSError), open(fd, "rb", buffering=0) as pipe:
            while data := pipe.read(_PIPE_BYTES):
                self._fill.sendall(data)


def open_pipe() -> tuple[Output, int]:
    """Return the read end of a new pipe, and the descriptor of its write end."""
    read, write = os.pipe()
    return (Pipe(read) if WAITABLE else Pumped(read)), write
