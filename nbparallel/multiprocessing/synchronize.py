"""Locks and the like, as in `multiprocessing.synchronize`, that have no name where the system allows it.

The standard module's have names in a folder that all programs share: killed outright, a notebook leaves them there, and
a process that starts too late finds them gone. On Linux with glibc those made here lie in memory without a name, whose
descriptor goes along when they travel; elsewhere they are the standard module's. Made by `context`.
"""

from __future__ import annotations

import _multiprocessing
import ctypes
import mmap
import multiprocessing
import os
import sys
import threading
from multiprocessing import reduction, util
from multiprocessing import synchronize as standard
from multiprocessing.context import assert_spawning
from multiprocessing.synchronize import SEM_VALUE_MAX, Barrier, Condition, Event, SemLock
from typing import Any

__all__ = ["SHARING", "Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "SemLock", "Semaphore"]


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):  # musl
        return False


# Where C's own semaphores may lie in any shared memory, and closing one that was not opened by name does no harm: glibc
# refuses it (sem_close.c: EINVAL), musl does not look; macOS has none without a name.
_NAMELESS = sys.platform == "linux" and hasattr(os, "memfd_create") and _is_glibc()
#: A semaphore takes 32 bytes (glibc's sem_t); one to a cache line, as processes on several cores use them.
_SLOT_BYTES = 64
_SLOTS = 64

_RECURSIVE, _COUNTING = 0, 1  # synchronize.py: RECURSIVE_MUTEX, SEMAPHORE


class _Memory:
    """A piece of shared memory for semaphores; no place in it is ever used twice, as another process may still use it.

    Args:
        descriptor: of memory that another process has made; without it, new memory.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.memfd_create("nbparallel-semaphores")
            os.ftruncate(descriptor, _SLOTS * _SLOT_BYTES)
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SLOTS * _SLOT_BYTES)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.used = 0

    def __del__(self, close: Any = os.close) -> None:
        close(self.descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_memory_of, (reduction.DupFd(self.descriptor),))

    def address(self, slot: int) -> int:
        """Return where a semaphore lies."""
        return self._address + slot * _SLOT_BYTES


def _memory_of(handed: Any) -> _Memory:
    return _Memory(handed.detach())


_current: _Memory | None = None
_lock = threading.Lock()


def _forget() -> None:
    global _current, _lock
    _current, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # parent and child would use the same places
    os.register_at_fork(after_in_child=_forget)


def _new_place(value: int) -> tuple[_Memory, int]:
    """Make a semaphore; return where it lies."""
    global _current
    with _lock:
        if _current is None or _current.used == _SLOTS:
            _current = _Memory()
        memory, slot = _current, _current.used
        memory.used += 1
    if ctypes.CDLL(None, use_errno=True).sem_init(ctypes.c_void_p(memory.address(slot)), 1, ctypes.c_uint(value)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return memory, slot


class _Nameless:
    """In place of `SemLock.__init__` and its way to travel."""

    def _make(self, kind: int, value: int, most: int) -> None:
        memory, slot = _new_place(value)
        self.__setstate__((memory, slot, kind, most))

    def __getstate__(self: Any) -> tuple[Any, ...]:
        assert_spawning(self)
        return (*self._place, self._semlock.kind, self._semlock.maxvalue)

    def __setstate__(self: Any, state: tuple[Any, ...]) -> None:
        memory, slot, kind, most = state
        self._place = (memory, slot)
        self._is_fork_ctx = False
        self._semlock = _multiprocessing.SemLock._rebuild(memory.address(slot), kind, most, None)
        self._make_methods()
        util.register_after_fork(self, _after_fork)


def _after_fork(lock: Any) -> None:
    lock._semlock._after_fork()


class Lock(_Nameless, standard.Lock):
    """A lock."""

    def __init__(self, *, ctx: Any = None) -> None:
        self._make(_COUNTING, 1, 1)


class RLock(_Nameless, standard.RLock):
    """A lock that its owner may take again."""

    def __init__(self, *, ctx: Any = None) -> None:
        self._make(_RECURSIVE, 1, 1)


class Semaphore(_Nameless, standard.Semaphore):
    """A semaphore."""

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        self._make(_COUNTING, _check(value), SEM_VALUE_MAX)


class BoundedSemaphore(_Nameless, standard.BoundedSemaphore):
    """A semaphore that can't be released more often than it was taken."""

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        self._make(_COUNTING, _check(value), value)


def _check(value: int) -> int:
    if not 0 <= value <= SEM_VALUE_MAX:
        raise OSError(22, "Invalid argument")  # EINVAL, as the standard module's
    return value


class _Sharing(type(multiprocessing.get_context("spawn"))):
    """What makes all that processes share: conditions, events, barriers and queues are built of these four."""

    def Lock(self) -> Any:  # noqa: N802 - the standard module's names
        return Lock()

    def RLock(self) -> Any:  # noqa: N802
        return RLock()

    def Semaphore(self, value: int = 1) -> Any:  # noqa: N802
        return Semaphore(value)

    def BoundedSemaphore(self, value: int = 1) -> Any:  # noqa: N802
        return BoundedSemaphore(value)


#: The standard module's way to make what any process can be given, by a descriptor or else by a name.
SHARING: Any = _Sharing() if _NAMELESS else multiprocessing.get_context("spawn")
