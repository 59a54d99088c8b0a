"""Queues, as in `multiprocessing.queues`, that carry what cells define.

What is put is pickled at the call: an error is raised there, and what is changed afterwards stays as it was put. The
standard queue's own thread then pickles bytes, which costs a copy.
"""

from __future__ import annotations

from multiprocessing import queues as standard
from multiprocessing.queues import Empty, Full
from typing import Any

from nbparallel.multiprocessing.messages import dumps, loads
from nbparallel.tracebacks import hidden

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]


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
            return loads(super().get(block, timeout))


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
            return loads(super().get())
