"""A worker's way to say things: ``sys.stdout`` and ``sys.stderr`` in whole lines, and what `reports` makes.

All goes to the parent with the task that said it. What is written to the descriptors themselves, by C code or a
subprocess, takes another way: the parent reads those, and is waited for, so that all stays in order.
Called by `worker`; what is to be said once, by the front and, in the parent, by those that receive it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from nbparallel.engine.wire import Buffer, Channel
from nbparallel.interrupts import uncut

#: The index of what this package itself says of a run; -1 stands for what no task is known to have written.
OWN = -2
#: The task that runs, and its run; -1 outside of one.
task = -1
run = -1
#: What a bar is labelled by, if not by its task: the name of a process that is no worker any more.
name = ""
#: Whether a line was begun and not ended.
unfinished = False
#: What is done at the end of each task.
at_end: list[Callable[[], None]] = []

_streams: list[_Stream] = []
_channel: Channel | None = None


class _Stream(io.TextIOBase):
    def __init__(self, number: int, channel: Channel) -> None:
        self._number = number
        self._kind = "stdout" if number == 1 else "stderr"
        self._channel: Channel | None = channel
        self._pieces: deque[str] = deque()  # of the line that was begun
        self._begun = False  # whether the parent has the first of it
        self._lock = threading.RLock()  # a signal handler or a finaliser may print while its thread prints
        # For code that writes bytes: straight to the descriptor.
        self.buffer = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115 - it lives as long as the stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def name(self) -> str:
        return f"<{self._kind}>"

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        global unfinished
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._channel is None:
            self.buffer.write(text.encode("utf-8", "backslashreplace"))
            return len(text)
        with uncut, self._lock:
            self._pieces.append(text)
            if "\n" in text:
                whole, newline, rest = self._take().rpartition("\n")
                if rest:
                    self._pieces.appendleft(rest)
                if newline:
                    self._send(whole + newline)
            unfinished = unfinished or bool(self._pieces) or self._begun
        return len(text)

    def _take(self) -> str:
        # One by one, as what cuts in takes pieces too.
        parts = []
        with contextlib.suppress(IndexError):
            while True:
                parts.append(self._pieces.popleft())
        return "".join(parts)

    def end_line(self) -> None:
        """Send a line that was begun, as the task or the process ends."""
        with self._lock:
            text = self._take()
            if text or self._begun:
                self._send(text)

    def flush(self) -> None:
        """Bring a line that was begun to safety: the parent keeps it until it is ended, or the process is."""
        if self._channel is not None and self._pieces:
            with uncut, self._lock:
                self._send(self._take(), begun=True)

    def _send(self, text: str, *, begun: bool = False) -> None:
        assert self._channel is not None
        self._begun = begun
        await_reader()
        self._channel.send(("said", run, task, self._kind, text, "begun" if begun else ""))

    def leave_channel(self) -> None:
        """Write to the descriptor from now on, in a child that a task has forked: the connection is the worker's."""
        self._channel, self._lock = None, threading.RLock()
        self._pieces.clear()
        self._begun = False


def install(channel: Channel) -> None:
    """Replace the standard streams of this worker."""
    global _streams, _channel
    _channel = channel
    at_end.clear()  # of the process that this one was forked from
    out, err = _Stream(1, channel), _Stream(2, channel)
    _streams = [out, err]
    for old, new in ((sys.stdout, out), (sys.stderr, err)):
        if old is not None:  # a fork's logging handler may hold the notebook's own stream, which leads nowhere here
            old.write, old.flush = new.write, new.flush  # type: ignore[method-assign]
    sys.stdout = sys.__stdout__ = out  # type: ignore[assignment,misc]
    sys.stderr = sys.__stderr__ = err  # type: ignore[assignment,misc]
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_leave_channel)


def _leave_channel() -> None:
    global _channel
    _channel = None
    at_end.clear()
    for stream in _streams:
        stream.leave_channel()


# ---- the order of what is said and of what is written to the descriptors -------------------------------------------

#: How long a reader is waited for, in seconds: it is there at once, unless the machine is busy with others, or a
#: program never stops writing.
_READER_SECONDS = 0.1
_PAUSE_SECONDS = 0.0001
#: A task that takes less than this, in nanoseconds, hardly writes by C code or a program: looking would cost it more.
_NOTICEABLE_NS = 50_000
_is_unread: Callable[[int], bool] | None = None


def watch_descriptors() -> None:
    """Have descriptors 1 and 2 watched, which are pipes to the parent, where the system tells what is in a pipe."""
    global _is_unread
    if sys.platform == "linux":
        _is_unread = _look_into_pipe


def _look_into_pipe(fd: int) -> bool:
    import fcntl
    import termios

    try:
        return any(fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))
    except OSError:  # the task has closed it, or put something else there
        return False


def await_reader() -> None:
    """Wait until the parent has read what was written to the descriptors."""
    if _is_unread is None:
        return
    for fd in (1, 2):
        limit = None
        while _is_unread(fd):
            now = time.monotonic()
            limit = limit or now + _READER_SECONDS
            if now > limit:
                break
            time.sleep(_PAUSE_SECONDS)


def awaited(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a task's call that lasts until what it has written is read, so that it is known as its own."""
    if _is_unread is None:
        return call

    def call_and_wait(*args: Any) -> Any:
        began = time.perf_counter_ns()
        try:
            return call(*args)
        finally:
            if time.perf_counter_ns() - began > _NOTICEABLE_NS:
                await_reader()

    return call_and_wait


# ---- what is said once ----------------------------------------------------------------------------------------------

_said: set[str] = set()


def is_first(text: str) -> bool:
    """Return whether this process hears a text for the first time."""
    known = text in _said
    _said.add(text)
    return not known


def say_once(text: str) -> None:
    """Send a line for standard error that the notebook shows once, whichever worker sends it first."""
    if is_first(text) and _channel is not None:
        _streams[1].end_line()
        _channel.send(("said", run, OWN, "stderr", text + "\n", "process"))


def say(kind: str, text: str) -> None:
    """Send a text of a kind of its own, after what was printed before."""
    if _channel is None:  # a fork of the process writes to the descriptor
        sys.stderr.write(text)
        return
    finish_lines()
    await_reader()
    _channel.send(("said", run, task, kind, text, ""))


def report(kind: str, text: str, segments: Sequence[Buffer], *, once: bool = False) -> None:
    """Send something that is more than text.

    Args:
        kind: what it is.
        text: what it says.
        segments: the pickled rest.
        once: whether each run tells it once, whichever worker is first.
    """
    if _channel is not None:
        await_reader()
        _channel.send(("said", run, task, kind, text, "run" if once else ""), segments)
    else:  # a child that a task has forked writes to the descriptors
        (sys.stdout if kind == "display" else sys.stderr).write(text)


def tell(header: tuple[Any, ...]) -> bool:
    """Send the parent what is no output; return False in a child that a task has forked, which has none."""
    if _channel is None:
        return False
    _channel.send(header)
    return True


def is_ours(file: Any) -> bool:
    """Return whether it is a standard stream of this worker, also one that is wrapped to be equal to it."""
    return any(file == stream for stream in _streams)


def show_bar(index: int, place: int, line: str) -> None:
    """Send how a bar of a task looks now.

    Args:
        index: the task.
        place: which of its bars.
        line: empty once it is closed.
    """
    if _channel is not None:
        _channel.send(("said", run, index, "bar", f"{place}:{line}", ""))


def finish_task() -> None:
    """Do what is due at the end of a task."""
    for act in at_end:
        act()
    finish_lines()


def finish_lines() -> None:
    """Send what was written without ending the line."""
    global unfinished
    unfinished = False
    for stream in _streams:
        stream.end_line()
