"""Units of code: a function with all that it refers to, pickled once per version and shipped once per worker.

The parent's side (`unit_of`, `dumps_data`) finds out cheaply whether a definition or anything it refers to has changed
since it was last pickled; the worker's side (`receive`, `load_unit`) keeps what it was sent and builds it at its first
use. Called by the backends and by the worker.
"""

from __future__ import annotations

import itertools
import linecache
import os
import types
import weakref
from collections.abc import Sequence
from typing import Any

from nbparallel.serialize import modules, references, tracker
from nbparallel.serialize.functions import Reduction
from nbparallel.serialize.pickler import Buffer, Pickler, dump_with, load_with

_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None), range, types.ModuleType, type(...)})
_numbers = itertools.count(1)


class Unit:
    """One version of a piece of code, as it travels.

    Attributes:
        number: its name on the wire, never used twice in a process.
        segments: the pickle's stream and its buffers (copied: the original may be changed in place).
    """

    __slots__ = ("__weakref__", "_keep", "_snapshot", "number", "segments")

    def __init__(self, segments: tuple[Buffer, ...], keep: list[Any], snapshot: _Snapshot | None) -> None:
        self.number = next(_numbers)
        self.segments = segments
        self._keep = keep  # what a result may name must not vanish while a run is under way
        self._snapshot = snapshot
        _alive[self.number] = self

    @property
    def nbytes(self) -> int:
        return sum(len(segment) for segment in self.segments)

    def is_current(self) -> bool:
        """Return whether nothing that it was made from can have changed, without pickling anything."""
        return self._snapshot is not None and self._snapshot.holds()


class _Snapshot:
    """What functions and their names were when they were pickled, to be compared by identity.

    It only exists for units all of whose parts are immutable, functions or modules.
    """

    __slots__ = ("functions", "names")

    def __init__(self) -> None:
        self.functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = []
        self.names: list[tuple[dict[str, Any], tuple[str, ...], tuple[Any, ...]]] = []

    def holds(self) -> bool:
        for function, parts in self.functions:
            for now, then in zip(_parts(function), parts, strict=True):
                if now is not then:
                    return False
        for namespace, names, values in self.names:
            for name, then in zip(names, values, strict=True):
                if namespace.get(name, _ABSENT) is not then:
                    return False
        return True


_ABSENT = object()


def _parts(function: types.FunctionType) -> tuple[Any, ...]:
    cells = tuple(references.closure_values(function).values()) if function.__closure__ else ()
    return (function.__code__, function.__defaults__, function.__kwdefaults__, function.__doc__, *cells)


class _UnitPickler(Pickler):
    def __init__(self, buffer_callback: Any) -> None:
        super().__init__(buffer_callback)
        self.snapshot = _Snapshot()
        self.keep: list[Any] = []
        self.files: set[str] = set()

    def track(self, obj: Any) -> str:
        self.keep.append(obj)
        return super().track(obj)

    def record_function(self, function: types.FunctionType, values: dict[str, Any]) -> None:
        self.files.add(function.__code__.co_filename)
        if self.volatile:
            return
        # Names that do not exist yet count too: defining one later makes the function another.
        names = references.global_names(function.__code__)
        namespace = function.__globals__
        now = tuple(namespace.get(name, _ABSENT) for name in names)
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        self.volatile = bool(function.__dict__) or not all(
            _is_frozen(value)
            for value in (*values.values(), *references.closure_values(function).values(), *defaults)
        )
        self.snapshot.functions.append((function, _parts(function)))
        self.snapshot.names.append((namespace, names, now))

    def write(self, obj: Any) -> None:
        super().write(obj)
        self.dump(_sources(self.files))


def _is_frozen(value: Any) -> bool:
    """Return whether `value` can't change, or is a function, which has an entry of its own in the snapshot."""
    cls = type(value)
    if cls in _ATOMS or cls in (types.FunctionType, types.BuiltinFunctionType):
        return True
    if cls is tuple or cls is frozenset:
        return all(_is_frozen(item) for item in value)
    return isinstance(value, type) and (value.__module__ == "builtins" or modules.travels_by_name(value))


def _sources(files: set[str]) -> dict[str, list[str]]:
    """Return the lines of the cells that the code came from, for tracebacks and ``inspect`` in the worker."""
    found = {}
    for file in sorted(files):
        entry = linecache.cache.get(file)
        if entry is not None and len(entry) == 4 and not os.path.exists(file):
            found[file] = entry[2]
    return found


# ---- the parent's side --------------------------------------------------------------------------------------------

_alive: weakref.WeakValueDictionary[int, Unit] = weakref.WeakValueDictionary()
_by_object: dict[int, tuple[weakref.ref[Any], Unit]] = {}
_by_content: weakref.WeakValueDictionary[bytes, Unit] = weakref.WeakValueDictionary()


def unit_of(obj: Any) -> Unit:
    """Return the unit of a callable or a class in its present version.

    Raises:
        SerializationError: something in it can't travel; the message names it.
        Exception: whatever the user's own ``__reduce__`` or ``__getstate__`` raises.
    """
    known = _by_object.get(id(obj))
    last = None if known is None or known[0]() is not obj else known[1]
    if last is not None and last.is_current():
        return last
    pickler, stream, buffers = dump_with(_UnitPickler, obj)
    assert isinstance(pickler, _UnitPickler)
    if last is None:
        last = _by_content.get(stream)
    snapshot = None if pickler.volatile else pickler.snapshot
    if last is not None and _same(last.segments, stream, buffers):
        last._snapshot, last._keep = snapshot, pickler.keep
        unit = last
    else:
        unit = Unit((stream, *(bytearray(view) for view in buffers)), pickler.keep, snapshot)
    _by_content[stream] = unit
    _remember(obj, unit)
    return unit


def _same(segments: tuple[Buffer, ...], stream: bytes, buffers: Sequence[memoryview]) -> bool:
    # The buffers are kept as bytearrays because those compare with any buffer at the speed of memcmp; bytes do not.
    return (
        segments[0] == stream
        and len(segments) == len(buffers) + 1
        and all(old == new for old, new in zip(segments[1:], buffers, strict=True))
    )


def _remember(obj: Any, unit: Unit) -> None:
    number = id(obj)

    # The table is bound early: at interpreter exit the module's own names may be gone first.
    def forget(ref: Any, by_object: Any = _by_object) -> None:
        known = by_object.get(number)
        if known is not None and known[0] is ref:
            del by_object[number]

    try:
        _by_object[number] = (weakref.ref(obj, forget), unit)
    except TypeError:  # no weak references: bound built-in methods, some extension types
        return


class _DataPickler(Pickler):
    def __init__(self, buffer_callback: Any) -> None:
        super().__init__(buffer_callback)
        self.units: dict[int, Unit] = {}

    def token(self, obj: Any) -> Reduction | None:
        unit = unit_of(obj)
        self.units[unit.number] = unit
        return (load_unit, (unit.number,))


def dumps_data(obj: Any) -> tuple[list[Buffer], dict[int, Unit]]:
    """Pickle arguments: the stream and its buffers (views of the caller's memory), and the units that they need."""
    pickler, stream, buffers = dump_with(_DataPickler, obj)
    assert isinstance(pickler, _DataPickler)
    return [stream, *buffers], pickler.units


def is_alive(number: int) -> bool:
    """Return whether a unit can still be asked for; a worker may forget one that can't."""
    return number in _alive


# ---- the worker's side --------------------------------------------------------------------------------------------

_received: dict[int, Sequence[Buffer]] = {}
_loaded: dict[int, Any] = {}


def receive(number: int, segments: Sequence[Buffer]) -> None:
    """Keep a unit as it came; it is built when a task first needs it."""
    _received[number] = segments


def forget(numbers: Sequence[int]) -> None:
    """Drop units that no task will ask for again."""
    for number in numbers:
        _received.pop(number, None)
        _loaded.pop(number, None)


def load_unit(number: int) -> Any:
    """Return the object of a unit, built at the first call.

    Raises:
        Exception: what building it raises, each time it is asked for: a module that is missing, say.
    """
    if number in _loaded:
        return _loaded[number]
    segments = _received[number]
    obj = loads_unit(segments)
    _loaded[number] = obj
    del _received[number]
    return obj


def loads_unit(segments: Sequence[Buffer]) -> Any:
    """Rebuild a unit from its segments, and make the sources of its cells known to tracebacks."""
    obj, unpickler = load_with(segments)
    for file, lines in unpickler.load().items():
        linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
    return obj


def start_afresh() -> None:
    """Forget the parent's side: called in a forked worker."""
    for table in (_by_object, _by_content, _received, _loaded):
        table.clear()
    tracker.inherit()


