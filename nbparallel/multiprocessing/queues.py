"""Queues, as in `multiprocessing.queues`, that carry what cells define.

What is put is pickled at the call: an error is raised there, and what is changed afterwards stays as it was put. The
standard queue's own thread then pickles bytes, which costs a copy.
"""

from __future__ import annotations

import math
import pickle
import select
import time
from multiprocessing import queues as standard
from multiprocessing.queues import Empty, Full
from typing import Any

from nbparallel.interrupts import WAIT_SECONDS, deferred
from nbparallel.multiprocessing.messages import dumps, loads
from nbparallel.tracebacks import hidden

_HAS_POLL = hasattr(select, "poll")  # Windows waits otherwise

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]


def _receive(queue: Any, reader: Any, timeout: float | None) -> bytes:
    """Return the next message of a queue; an interrupt neither cuts one in two nor leaves the lock taken.

    Raises:
        queue.Empty: there is none in time.
    """
    limit = None if timeout is None else time.monotonic() + max(0.0, timeout)

    def left() -> float | None:
        return None if limit is None else max(0.0, limit - time.monotonic())

    with deferred:
        while True:
            rest = left()
            if queue._rlock.acquire(True, WAIT_SECONDS if rest is None else min(rest, WAIT_SECONDS)):
                break
            deferred.check()
            if rest == 0:
                raise Empty
        try:
            ready = select.poll()
            ready.register(reader, select.POLLIN)
            if not ready.poll(0):
                rest = left()
                with deferred.lifted():
                    if not ready.poll(None if rest is None else math.ceil(rest * 1000)):
                        raise Empty
            return reader.recv_bytes()  # type: ignore[no-any-return]
        finally:
            queue._rlock.release()


class _Carrying:
    """A queue with a thread that sends."""

    def put(self: Any, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object.

        Args:
            obj: what to put.
            block: whether to wait for room.
            timeout: seconds to wait at most.

        Raises:
            SerializationError: it can't travel; nothing was put.
            queue.Full: there is no room (in time).
            ValueError: the queue is closed.
        """
        with hidden:
            super().put(dumps(obj), block, timeout)

    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next object.

        Args:
            block: whether to wait for one.
            timeout: seconds to wait at most.

        Raises:
            queue.Empty: there is none (in time).
            ValueError: the queue is closed.
        """
        with hidden:
            if not block or not _HAS_POLL or self._closed:
                return loads(super().get(block, timeout))
            data = _receive(self, self._reader, timeout)
            self._sem.release()
            return loads(pickle.loads(data))


class Queue(_Carrying, standard.Queue):  # type: ignore[type-arg]
    """A queue for any number of processes."""


class JoinableQueue(_Carrying, standard.JoinableQueue):  # type: ignore[type-arg]
    """A queue whose `join` waits until each item was reported by `task_done`."""


class SimpleQueue(standard.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a size: a pipe with two locks."""

    def put(self, obj: Any) -> None:
        """Put an object.

        Raises:
            SerializationError: it can't travel; nothing was put.
        """
        with hidden:
            super().put(dumps(obj))

    def get(self) -> Any:
        """Return the next object, once there is one."""
        with hidden:
            return loads(pickle.loads(_receive(self, self._reader, None)) if _HAS_POLL else super().get())
