"""Silence for repeated runs in this process: what their tasks print, log, warn of and display is dropped.

Called by `measuring`. Only what runs in the context that asked for silence is silent: threads of the user's own, and
maps that go on in the background, go on saying what they have to say. What C code and subprocesses write can't be told
apart, and is shown.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_silent: contextvars.ContextVar[bool] = contextvars.ContextVar("nbparallel_silent", default=False)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Be silent in this context, and in those that are copied from it meanwhile."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


@contextlib.contextmanager
def without_figures() -> Iterator[None]:
    """Close the figures of matplotlib's that are made in here: a notebook shows at a cell's end those left open."""
    before = set(_figures())
    try:
        yield
    finally:
        for number in _figures():
            if number not in before:
                sys.modules["matplotlib.pyplot"].close(number)


def _figures() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return [] if pyplot is None else list(pyplot.get_fignums())


class _Stream:
    """A stream that drops what comes from a silent context."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        return len(text) if _silent.get() else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextlib.contextmanager
def ready_for_silence() -> Iterator[None]:
    """Put in place, while a comparison lasts, what heeds `silence`."""
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stack.enter_context(_wrapped(name))
        for handler in _handlers():
            handler.addFilter(_heard)
            stack.callback(handler.removeFilter, _heard)
        ipython = sys.modules.get("IPython")
        shell = ipython.get_ipython() if ipython is not None else None
        if shell is not None:
            stack.enter_context(_publishing(shell.display_pub))
        yield


@contextlib.contextmanager
def _wrapped(name: str) -> Iterator[None]:
    stream = getattr(sys, name)
    if stream is None:  # pythonw has none
        yield
        return
    setattr(sys, name, _Stream(stream))
    try:
        yield
    finally:
        # Whatever stands there by now: `redirect_stdout` in several threads leaves one of its own.
        setattr(sys, name, stream)


@contextlib.contextmanager
def _publishing(publisher: Any) -> Iterator[None]:
    publish, before = publisher.publish, vars(publisher).get("publish")

    def heed(*args: Any, **options: Any) -> None:
        if not _silent.get():
            publish(*args, **options)

    publisher.publish = heed
    try:
        yield
    finally:
        del publisher.publish
        if before is not None:
            publisher.publish = before


def _heard(_: logging.LogRecord) -> bool:
    return not _silent.get()


def _handlers() -> list[logging.Handler]:
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    found = [handler for logger in (logging.root, *loggers) for handler in logger.handlers]
    return [*dict.fromkeys(found), *([logging.lastResort] if logging.lastResort is not None else [])]
