"""The frames of a traceback, as they travel: described in a worker, rebuilt in the notebook.

What is rebuilt is a traceback like any other, for IPython, pytest, ``%debug`` and plain Python: its code objects have
the names and places of the worker's, and its frames the arguments (plain values as they are, others by their type).
Called by `exceptions` and by the worker.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import linecache
import os
import sys
import types
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

from nbparallel.tracebacks import without_ours

#: A longer text is shown by its type alone.
TEXT_CHARACTERS = 200
#: Of a recursion so many frames have their arguments; the others are one to be repeated.
ALIKE = 20

_PLAIN = (bool, int, float, complex, type(None))


class Elsewhere:
    """Stands for an argument that stayed in the worker."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind} in the worker>"


class _Place(NamedTuple):
    """Where a frame was, and what it looked like."""

    file: str
    name: str
    qualname: str
    first_line: int
    line: int
    end_line: int | None
    column: int | None
    end_column: int | None
    arguments: tuple[str, ...]


#: What travels: each frame's place, module, values of the arguments and number of repetitions; and the lines of files
#: that are none.
Described = tuple[list[tuple[tuple[Any, ...], str, list[tuple[bool, Any]], int]], dict[str, list[str]]]

# Files that are none, such as cells, whose lines the other side has.
_shared: set[str] = set()


def learn(sources: Mapping[str, list[str]]) -> None:
    """Make the lines of cells known to tracebacks and ``inspect``."""
    for file, lines in sources.items():
        linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
    _shared.update(sources)


def inherit() -> None:
    """Take note that the parent has all that is known here: called in a forked worker."""
    _shared.update(linecache.cache)


def describe(traceback: types.TracebackType | None) -> Described | None:
    """Return the frames of a traceback as plain data, without those of this package; `None` if there are none."""
    found: list[tuple[tuple[Any, ...], str, list[tuple[bool, Any]], int]] = []
    sources: dict[str, list[str]] = {}
    last, alike = None, 0
    entry = without_ours(traceback)
    while entry is not None:
        frame = entry.tb_frame
        here = (frame.f_code, entry.tb_lasti)
        last, alike = here, alike + 1 if here == last else 1
        place = _place(entry)
        values = _values(frame, place.arguments) if alike <= ALIKE else [(False, "argument")] * len(place.arguments)
        what = (tuple(place), _module(frame), values)
        if found and found[-1][:3] == what:
            found[-1] = (*what, found[-1][3] + 1)
        else:
            found.append((*what, 1))
        file = place.file
        if file not in _shared and file not in sources and not os.path.exists(file) and _lines(file):
            sources[file] = _lines(file)
        entry = entry.tb_next
    return (found, sources) if found else None


def rebuild(described: Described | None) -> types.TracebackType | None:
    """Return a traceback of described frames."""
    if described is None:
        return None
    entries, sources = described
    learn({file: lines for file, lines in sources.items() if not _lines(file)})
    traceback: types.TracebackType | None = None
    for fields, module, values, repeats in reversed(entries):
        place = _Place(*fields)
        frame = _frame(
            _stand_in(place), module, [value if is_value else Elsewhere(value) for is_value, value in values]
        )
        for _ in range(repeats):
            traceback = types.TracebackType(traceback, frame, frame.f_lasti, place.line)
    return traceback


# ---- in the worker ------------------------------------------------------------------------------------------------


def _place(entry: types.TracebackType) -> _Place:
    code = entry.tb_frame.f_code
    positions = next(itertools.islice(code.co_positions(), entry.tb_lasti // 2, None), (None,) * 4)
    return _Place(
        code.co_filename,
        code.co_name,
        code.co_qualname,
        code.co_firstlineno,
        entry.tb_lineno,
        *positions[1:],
        arguments=_argument_names(code),
    )


def _argument_names(code: types.CodeType) -> tuple[str, ...]:
    count = code.co_argcount + code.co_kwonlyargcount
    names = [*code.co_varnames[:count]]
    for flag, mark in ((inspect.CO_VARARGS, "*"), (inspect.CO_VARKEYWORDS, "**")):
        if code.co_flags & flag:
            names.append(mark + code.co_varnames[len(names)])
    return tuple(names)


def _module(frame: types.FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return "" + name if isinstance(name, str) else ""


def _values(frame: types.FrameType, names: Sequence[str]) -> list[tuple[bool, Any]]:
    """Return of each argument whether it is a plain value, and that, or else its type."""
    known = frame.f_locals if names else {}
    found = [name.lstrip("*") for name in names]
    return [_shown(known[name]) if name in known else (False, "deleted variable") for name in found]


def _shown(value: Any) -> tuple[bool, Any]:
    cls = type(value)
    if cls in _PLAIN or (cls in (str, bytes) and len(value) <= TEXT_CHARACTERS):
        return True, value
    name = cls.__qualname__
    return False, name if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{name}"


def _lines(file: str) -> list[str]:
    """Return the lines that linecache holds, without a look at the disk."""
    entry = linecache.cache.get(file)
    return entry[2] if entry is not None and len(entry) == 4 else []


# ---- in the notebook ----------------------------------------------------------------------------------------------


def _frame(code: types.CodeType, module: str, values: list[Any]) -> types.FrameType:
    # Of a generator that has not begun: its frame has the arguments and its place, and nobody called it. One that has
    # run would keep alive all those below it.
    home = sys.modules.get(module)
    namespace = vars(home) if type(home) is types.ModuleType else {"__name__": module}
    return types.FunctionType(code, namespace)(*values).gi_frame  # type: ignore[no-any-return]


def _template() -> Generator[None, None, None]:
    yield


@functools.lru_cache(256)
def _stand_in(place: _Place) -> types.CodeType:
    """Return code that has the names of a place, and each of whose instructions stands there."""
    code = _template.__code__
    return code.replace(
        co_filename=place.file,
        co_name=place.name,
        co_qualname=place.qualname,
        co_firstlineno=place.first_line,
        co_linetable=_line_table(place, len(code.co_code) // 2),
        co_argcount=len(place.arguments),
        co_nlocals=len(place.arguments),
        co_varnames=place.arguments,
    )


def _line_table(place: _Place, units: int) -> bytes:
    """Return a table that gives all instructions one position, in the format of CPython's ``Objects/locations.md``.

    Args:
        place: has the position.
        units: the number of instructions, caches included.
    """
    line = place.line - place.first_line
    kind, columns = 13, b""  # a line alone
    if place.end_line is not None and place.column is not None and place.end_column is not None:
        numbers = (place.end_line - place.line, place.column + 1, place.end_column + 1)
        kind, columns = 14, b"".join(map(_variable_length, numbers))
    table = b""
    for start in range(0, units, 8):
        head = 0x80 | kind << 3 | min(units - start, 8) - 1
        # How far from the entry before; the sign is the lowest bit.
        delta = 0 if start else -line << 1 | 1 if line < 0 else line << 1
        table += bytes([head]) + _variable_length(delta) + columns
    return table


def _variable_length(number: int) -> bytes:
    """Return a number in pieces of six bits, the lowest first."""
    pieces = []
    while number >= 64:
        pieces.append(64 | number & 63)
        number >>= 6
    return bytes([*pieces, number])
