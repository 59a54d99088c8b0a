"""A worker's ``sys.stdout`` and ``sys.stderr``: whole lines, sent to the parent with the task that wrote them.

What is written to the descriptors themselves, by C code or a subprocess, takes another way: the parent reads those.
Called by `worker`; what is to be said once, by the front and, in the parent, by those that receive it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections import deque

from nbparallel.engine.wire import Channel
from nbparallel.interrupts import uncut

#: The index of what this package itself says of a run; -1 stands for what no task is known to have written.
OWN = -2
#: The task that runs, and its run; -1 outside of one.
task = -1
run = -1
#: Whether a line was begun and not ended.
unfinished = False

_streams: list[_Stream] = []


class _Stream(io.TextIOBase):
    def __init__(self, number: int, channel: Channel) -> None:
        self._number = number
        self._channel: Channel | None = channel
        self._pieces: deque[str] = deque()  # of the line that was begun
        self._lock = threading.RLock()  # a signal handler or a finaliser may print while its thread prints
        # For code that writes bytes: straight to the descriptor.
        self.buffer = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115 - it lives as long as the stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def name(self) -> str:
        return "<stdout>" if self._number == 1 else "<stderr>"

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
            unfinished = unfinished or bool(self._pieces)
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
            if text := self._take():
                self._send(text)

    def _send(self, text: str) -> None:
        assert self._channel is not None
        self._channel.send(("output", run, task, self._number, text))

    def send_once(self, text: str) -> None:
        if self._channel is not None:
            self._channel.send(("once", run, OWN, self._number, text))

    def leave_channel(self) -> None:
        """Write to the descriptor from now on, in a child that a task has forked: the connection is the worker's."""
        self._channel, self._lock = None, threading.RLock()
        self._pieces.clear()


def install(channel: Channel) -> None:
    """Replace the standard streams of this worker."""
    global _streams
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
    for stream in _streams:
        stream.leave_channel()


_said: set[str] = set()


def is_first(text: str) -> bool:
    """Return whether this process hears a text for the first time."""
    known = text in _said
    _said.add(text)
    return not known


def say_once(text: str) -> None:
    """Send a line for standard error that the notebook shows once, whichever worker sends it first."""
    if is_first(text):
        _streams[1].end_line()
        _streams[1].send_once(text + "\n")


def finish_task() -> None:
    """Send what a task wrote without ending the line."""
    global unfinished
    unfinished = False
    for stream in _streams:
        stream.end_line()
