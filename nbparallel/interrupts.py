"""Interrupts that wait: short sections that a KeyboardInterrupt must not cut in two.

Python raises KeyboardInterrupt in the main thread between any two instructions, also just after a lock was taken and
before anything knows that it was. Inside ``with deferred:`` it is raised at the end of the section instead. Called by
the backends' lock and by the front; other threads are never interrupted, and pass through.

Workers ignore interrupts, which Jupyter sends to the whole process group: the parent decides. They are born with
interrupts held back, so that none hits them before they can say so. What the parent sends instead waits for the end of
a section ``with uncut:``: a message that is half sent, or a line that is half kept, would not be mended.
"""

from __future__ import annotations

# What the module `signal` wraps: making its enums would cost more than the system calls.
import _signal  # type: ignore[import-not-found]
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: A wait is made of pieces no longer than this, in seconds: an interrupt that arrives just as a lock begins to wait is
#: only acted on when it ends (Python looks for signals before, the system's wait does not), and on Windows any is.
WAIT_SECONDS = 0.1

_SIGINT = int(_signal.SIGINT)


def _main_thread() -> int | None:
    return threading.main_thread().ident


class _Deferred:
    """Sections of the main thread, which may be nested, with stretches in them where interrupts come through.

    One handler, installed by the outermost section, notes an interrupt or hands it on. It is asked after each change
    here, so the order of the lines counts: an interrupt between any two of them must find all in order.
    """

    def __init__(self) -> None:
        self._handler: Any = None  # the one that was there, while a section is entered
        self._pending = False
        self._lifted = False
        self._outer: list[bool] = []  # for each section, whether it was entered where interrupts were let through
        self._bell: queue.SimpleQueue[None] | None = None

    def __enter__(self) -> None:
        if threading.get_ident() != _main_thread():
            return
        if not self._outer:
            handler = _signal.getsignal(_SIGINT)
            # A handler that Python did not install can't be put back; one that is no function does not raise.
            if callable(handler):
                self._handler, self._pending = handler, False
                _signal.signal(_SIGINT, self._note)
        lifted = self._lifted and bool(self._outer)
        self._lifted = False
        self._outer.append(lifted)

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() != _main_thread():
            return
        lifted = self._outer.pop()
        if not self._outer and self._handler is not None:
            handler, self._handler = self._handler, None
            _signal.signal(_SIGINT, handler)  # from here on one raises by itself; those before were noted
            if self._pending:
                self._pending = False
                handler(_SIGINT, None)
        elif lifted:
            self._lifted = True
            self.check()

    def check(self) -> None:
        """Raise what has waited: called inside a long section, where that does no harm."""
        if self._pending and self._handler is not None and threading.get_ident() == _main_thread():
            self._pending = False
            self._handler(_SIGINT, None)

    def forget(self) -> None:
        """Drop what has waited: it says nothing new where one was raised already."""
        self._pending = False

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Let interrupts through in here, where a user's code runs inside a section."""
        if threading.get_ident() != _main_thread() or not self._outer:
            yield
            return
        before = self._lifted
        try:
            self._lifted = True
            self.check()
            yield
        finally:
            self._lifted = before

    @contextlib.contextmanager
    def ringing(self, bell: queue.SimpleQueue[None]) -> Iterator[None]:
        """Let an interrupt ring a bell that is waited for in here.

        `SimpleQueue.get` with a limit waits for ever, once its handler returns when the limit is over (seen in 3.11).
        """
        if threading.get_ident() != _main_thread():
            yield
            return
        before, self._bell = self._bell, bell
        try:
            yield
        finally:
            self._bell = before

    def start_afresh(self) -> None:
        """Forget the sections of the thread that forked this process."""
        self._handler, self._pending, self._lifted, self._bell = None, False, False, None
        self._outer.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._lifted and self._handler is not None:
            self._handler(number, frame)
            return
        self._pending = True
        if self._bell is not None:
            self._bell.put(None)


def join(thread: threading.Thread) -> None:
    """Wait for a thread's end, in pieces."""
    while thread.is_alive():
        thread.join(WAIT_SECONDS)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let no interrupt reach a process that is started here until it ignores them."""
    if not hasattr(_signal, "pthread_sigmask"):  # Windows: only the console's own group is interrupted
        yield
        return
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, [_SIGINT])
    try:
        yield
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore interrupts from now on, those that were held back included."""
    _signal.signal(_SIGINT, _signal.SIG_IGN)
    if hasattr(_signal, "pthread_sigmask"):
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_SIGINT])


class _Uncut:
    """As `_Deferred`, for a handler that knows of it: entering costs no system call."""

    def __init__(self) -> None:
        self._depth = 0
        self._late: Callable[[], None] | None = None

    def __enter__(self) -> None:
        if threading.get_ident() == _main_thread():
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() != _main_thread():
            return
        self._depth -= 1
        if self._depth == 0 and self._late is not None:
            late, self._late = self._late, None
            late()

    def postpones(self, handler: Callable[[], None]) -> bool:
        """Return whether a signal must wait; `handler` is then called at the end of the section."""
        if self._depth:
            self._late = handler
        return self._depth > 0


#: The ones of this process; sections may be nested.
deferred = _Deferred()
uncut = _Uncut()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=deferred.start_afresh)
