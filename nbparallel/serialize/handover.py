"""Descriptors that go along with a pickle: what locks, pipes and shared memory of `multiprocessing` need to travel.

The standard module pickles these only for a process that it starts, which inherits their descriptors. While a
`Handover` is entered it stands in for such a process and collects them; whoever sends the pickle sends them too, and
they are given out again, in their order, while it is loaded within `arrived`. Called by `units` and `pickler`.
"""

from __future__ import annotations

import _socket
import contextlib
import multiprocessing.context as context
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any


class Descriptors:
    """Descriptors of this process, closed when nothing refers to them any more."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # a name of a module may be gone by then
        for number in self.numbers:
            close(number)


class Handed:
    """Stands in a pickle for a descriptor.

    Args:
        position: among those that go along.
        identity: device and inode, so that the pickles of two different ones differ.
    """

    __slots__ = ("identity", "position")

    def __init__(self, position: int, identity: tuple[int, int]) -> None:
        self.position = position
        self.identity = identity

    def detach(self) -> int:
        """Return the descriptor, whose owner the caller becomes: called once, as the pickle is loaded."""
        return _arrivals.stack[-1].pop(self.position)


class Handover:
    """Collects, while it is entered, what `multiprocessing` wants a child to inherit.

    Args:
        process: on Windows, the handle of the process that the pickle is for: there each is duplicated into it. Without
            it nothing can be collected there.
        sockets: whether they may go along: to a process of its own, as by the standard module. A task is run where it
            happens to be, more than once perhaps: it opens its own.
    """

    def __init__(self, process: int | None = None, *, sockets: bool = False) -> None:
        self.descriptors = Descriptors()
        self.takes_sockets = sockets
        self._process = process

    # ---- what `multiprocessing` asks of a process that is being started ----

    def duplicate_for_child(self, descriptor: int) -> int:
        """Have a descriptor, or a handle, go along; return what stands for it."""
        if sys.platform == "win32":
            from multiprocessing.reduction import duplicate  # type: ignore[attr-defined,unused-ignore]

            if self._process is None:
                raise RuntimeError("on Windows this can only be an argument of a Process, not of a task")
            return int(duplicate(descriptor, self._process))
        self.descriptors.numbers.append(os.dup(descriptor))
        return len(self.descriptors) - 1

    def DupFd(self, position: int) -> Handed:  # noqa: N802 - the standard module's name
        """Return what stands for a descriptor in the pickle."""
        status = os.fstat(self.descriptors.numbers[position])
        return Handed(position, (status.st_dev, status.st_ino))

    # ---- the time in which it stands for one ----

    def __enter__(self) -> Handover:
        self._before = context.get_spawning_popen()
        context.set_spawning_popen(self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        context.set_spawning_popen(self._before)


def reducer_for(cls: type) -> Callable[[Any, Any], Any] | None:
    """Return how `multiprocessing` pickles a class for a process that it starts, if such a time is now."""
    handover: Any = context.get_spawning_popen()
    if handover is None or cls.__module__ == "builtins":
        return None
    if not getattr(handover, "takes_sockets", True) and issubclass(cls, _socket.socket):
        return None
    reduce = ForkingPickler._extra_reducers.get(cls)  # type: ignore[attr-defined]
    return None if reduce is None else lambda _pickler, obj: reduce(obj)


class _Arrivals(threading.local):
    def __init__(self) -> None:
        self.stack: list[dict[int, int]] = []


_arrivals = _Arrivals()


@contextlib.contextmanager
def arrived(descriptors: Sequence[int]) -> Iterator[None]:
    """Give out the descriptors that came with a pickle while it is loaded; those that nobody wants are closed."""
    left = dict(enumerate(descriptors))
    _arrivals.stack.append(left)
    try:
        yield
    finally:
        _arrivals.stack.pop()
        for number in left.values():
            os.close(number)
