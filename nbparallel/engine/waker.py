"""What wakes the manager's thread from its wait, from any other thread: a pair of sockets.

Called by `manager`. A pipe would do, but Windows' selector takes nothing but sockets.
"""

from __future__ import annotations

import contextlib
import selectors
import socket


class Waker:
    """Makes a selector return."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        selector.register(self._read, selectors.EVENT_READ, self._woken)

    def wake(self) -> None:
        """Have the selector return now, or as soon as it is asked."""
        # Full: it is awake already. Closed: the thread has ended, after a shutdown.
        with contextlib.suppress(OSError):
            self._write.send(b"\0")

    def _woken(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read.recv(4096)

    def close(self) -> None:
        self._read.close()
        self._write.close()
