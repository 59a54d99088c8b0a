"""Tracebacks without frames of this package: what a user sees are the lines that the user wrote.

`hidden` stands in each public function: ``with hidden:`` takes the package's frames out of what leaves it, its own
function's too. That rests on how CPython works: a frame enters a traceback once, as the exception gets to it, and what
``__exit__`` leaves as the traceback is what the caller's frame is put in front of. Errors that are a fault of this
package keep their frames. This module imports nothing of the package; workers use it too.
"""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import traceback
from types import FrameType, TracebackType
from typing import NamedTuple, NoReturn

_PACKAGE = __name__.partition(".")[0]
# What the package calls to wait, to pickle and to import: seen from outside, these frames are its own.
_HELPERS = frozenset(
    {"asyncio", "concurrent", "contextlib", "copyreg", "dill", "functools", "importlib", "multiprocessing", "pickle"}
    | {"queue", "selectors", "socket", "sqlite3", "threading"}
)
# What is called here, or is thrown again, is the user's, whatever module it is of.
_CALLERS = frozenset(
    f"{_PACKAGE}.{name}"
    for name in (
        "backends.local",
        "comparison.measuring",
        "engine.streams",
        "engine.worker",
        "runs.failures",
        "runs.inputs",
        "tracebacks",
    )
)
_RAISE = dis.opmap["RAISE_VARARGS"]


def without_ours(trace: TracebackType | None, *, interrupted: bool = False) -> TracebackType | None:
    """Return a traceback without the frames of this package, and of what only works for it.

    Args:
        trace: of an exception.
        interrupted: whether that is an interrupt, which comes anywhere: also in a library that the package called.
    """
    entries = [entry for entry, ours in _marked(trace, libraries=interrupted) if not ours]
    shown: TracebackType | None = None
    for entry in reversed(entries):
        same = shown is entry.tb_next
        shown = entry if same else TracebackType(shown, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return shown


def in_words(error: BaseException) -> tuple[str, str]:
    """Return the message of an exception, and its traceback as text."""
    try:
        text = "".join(traceback.format_exception(type(error), error, without_ours(error.__traceback__)))
        return "" + str(error), text  # of str itself, which the wire insists on
    except Exception as broken:  # a user's __str__ may raise
        told = f"<{type(error).__name__} whose message raised {type(broken).__name__}>"
        return told, told


def tidy(error: BaseException) -> None:
    """Take the package's frames out of an exception, and of those that led to it."""
    if _is_our_fault(error):
        return
    frames = without_ours(error.__traceback__, interrupted=_comes_anywhere(error))
    BaseException.with_traceback(error, frames)  # past the class: it may be frozen
    seen = {id(error)}
    while True:
        link = error.__context__ if error.__cause__ is None and not error.__suppress_context__ else error.__cause__
        if link is None or id(link) in seen:
            return
        seen.add(id(link))
        shown = without_ours(link.__traceback__)
        if shown is None and link.__traceback__ is not None and link.__context__ is not error:
            # Raised and caught in here: the message says what is to be known of it.
            object.__setattr__(error, "__cause__", None)
            object.__setattr__(error, "__context__", link.__context__)
            object.__setattr__(error, "__suppress_context__", False)
        else:
            BaseException.with_traceback(link, shown)
            error = link


class Origin(NamedTuple):
    """What an exception came with, for one that is raised here more than once: each time it begins with this alone."""

    frames: TracebackType | None
    context: BaseException | None

    @classmethod
    def of(cls, error: BaseException) -> Origin:
        """Return the origin of an exception that was caught or came from a worker."""
        frames = error.__traceback__ if _is_our_fault(error) else without_ours(error.__traceback__)
        return cls(frames, error.__context__)

    def throw(self, error: BaseException) -> NoReturn:
        """Raise the exception."""
        object.__setattr__(error, "__context__", self.context)
        try:
            raise BaseException.with_traceback(error, self.frames)  # past the class: it may be frozen
        finally:
            # What is being handled here, Python has put in the place of what led to it there.
            if self.context is not None:
                object.__setattr__(error, "__context__", self.context)


def stacklevel() -> int:
    """Return the `stacklevel` with which a warning by the caller names the user's line, also where a magic called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _root(frame) in (_PACKAGE, "IPython", *_HELPERS):
        level, frame = level + 1, frame.f_back
    return level


class _Hidden:
    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # A generator that is dropped shows nothing; at the interpreter's end there is no `sys` any more to ask.
        if error is None or isinstance(error, GeneratorExit):
            return
        if not _called_by_us(sys._getframe(1).f_back):
            tidy(error)


#: Takes the package's frames out of exceptions that leave a ``with hidden:``, those of the function around it included.
hidden = _Hidden()


def _root(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


def _called_by_us(frame: FrameType | None) -> bool:
    """Return whether a frame is this package's, or one that works for it: the outermost ``with hidden:`` acts."""
    while frame is not None and _root(frame) in _HELPERS:
        frame = frame.f_back
    return frame is not None and _root(frame) == _PACKAGE


def _is_library(frame: FrameType) -> bool:
    """Return whether a frame is of one of Python's own modules, of an installed package, or of compiled code."""
    file = frame.f_globals.get("__file__")
    root = _root(frame)
    if root == "__main__":
        return False
    # Cython's frames may have no globals at all.
    return root in sys.stdlib_module_names or not isinstance(file, str) or file.startswith(_library_folders())


@functools.cache
def _library_folders() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _marked(trace: TracebackType | None, *, libraries: bool) -> list[tuple[TracebackType, bool]]:
    """Return the entries of a traceback, and of each whether it is the package's.

    Args:
        trace: of an exception.
        libraries: whether what is in any library counts as the package's where the package has called it.
    """
    found = []
    ours = helps = False
    while trace is not None:
        root = _root(trace.tb_frame)
        helper = root in _HELPERS or (libraries and _is_library(trace.tb_frame))
        ours = root == _PACKAGE or (helps and helper)
        helps = ours and trace.tb_frame.f_globals["__name__"] not in _CALLERS
        found.append((trace, ours))
        trace = trace.tb_next
    return found


def _comes_anywhere(error: BaseException) -> bool:
    """Return whether it is an interrupt, a cancellation, an exit, or a warning that the user's filters have raised."""
    return not isinstance(error, Exception) or isinstance(error, Warning)


def _is_our_fault(error: BaseException) -> bool:
    """Return whether an exception comes from inside of this package, otherwise than by a ``raise`` or an interrupt."""
    marked = _marked(error.__traceback__, libraries=True)
    if not marked or _comes_anywhere(error):
        return False
    last, ours = marked[-1]
    deliberate = last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE
    return ours and not (deliberate and _root(last.tb_frame) in (_PACKAGE, *_HELPERS))
