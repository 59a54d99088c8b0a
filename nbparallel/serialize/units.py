"""Units of code: a function with all that it refers to, pickled once per version and shipped once per worker.

The parent's side (`unit_of`, `dumps_data`) finds out cheaply whether a definition or anything it refers to has changed
since it was last pickled; the worker's side (`receive`, `load_unit`) keeps what it was sent and builds it at its first
use. Called by the backends and by the worker.
"""

from __future__ import annotations

import copyreg
import functools
import gc
import itertools
import linecache
import os
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nbparallel.serialize import frames, functions, initial, modules, references, tracker, weakly
from nbparallel.serialize.functions import Reduction
from nbparallel.serialize.handover import Descriptors, Handover
from nbparallel.serialize.lazy import dill_module
from nbparallel.serialize.pickler import (
    Buffer,
    Pickler,
    dump_with,
    dumps_result,
    load_with,
    loads,
    registered_with_dill,
)
from nbparallel.serialize.snapshot import Snapshot, is_frozen

_numbers = itertools.count(1)


class Unit:
    """One version of a piece of code, as it travels; whoever uses it keeps alive what a result may name.

    Attributes:
        number: its name on the wire, never used twice in a process.
        segments: the pickle's stream and its buffers (copied: the original may be changed in place).
        descriptors: those that go along.
    """

    __slots__ = ("__weakref__", "_keep", "_version", "descriptors", "number", "segments")

    def __init__(self, version: _Version) -> None:
        self.number = version.number
        self.segments = version.segments
        self.descriptors = version.descriptors
        self._version = version
        self._keep = [ref() for ref in version.tracked]

    @property
    def nbytes(self) -> int:
        return sum(len(segment) for segment in self.segments)


class _Version:
    """What is kept of a unit while its object lives. It holds no by-value function or class: they may be dropped."""

    __slots__ = ("__weakref__", "_unit", "descriptors", "number", "segments", "tracked")

    def __init__(self, segments: tuple[Buffer, ...], descriptors: Descriptors) -> None:
        self.number = next(_numbers)
        self.segments = segments
        self.descriptors = descriptors
        self.tracked: list[Callable[[], Any]] = []
        self._unit: weakref.ref[Unit] | None = None
        _alive[self.number] = weakly.reference(self, _alive, self.number)

    def unit(self) -> Unit:
        unit = None if self._unit is None else self._unit()
        if unit is None:
            unit = Unit(self)
            self._unit = weakref.ref(unit)
        return unit


# What a module has under a name, and a pickle then only names.
_NAMED = (types.FunctionType, type, functools._lru_cache_wrapper)


class _UnitPickler(Pickler):
    def __init__(self, buffer_callback: Any) -> None:
        super().__init__(buffer_callback)
        self.snapshot = Snapshot()
        self.keep: dict[int, Any] = {}
        self.files: set[str] = set()

    def reducer_override(self, obj: Any) -> Reduction:
        reduction = super().reducer_override(obj)
        if reduction is NotImplemented and isinstance(obj, _NAMED):
            self.snapshot.add_named(obj)
        return reduction

    def track(self, obj: Any) -> str:
        self.keep[id(obj)] = obj
        return super().track(obj)

    def record_function(self, function: types.FunctionType, values: dict[str, Any]) -> None:
        self.files.add(function.__code__.co_filename)
        if self.volatile:
            return
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        self.volatile = bool(function.__dict__) or not all(
            is_frozen(value) for value in (*values.values(), *references.closure_values(function).values(), *defaults)
        )
        # Names that do not exist yet count too: defining one later makes the function another.
        shared = self.namespace(function.__globals__).module is not None
        self.snapshot.add(function, () if shared else references.global_names(function.__code__))

    def write(self, obj: Any) -> None:
        super().write(obj)
        self.dump((_sources(self.files), _registrations()))


def _registrations() -> list[tuple[str, type, Any]]:
    """Return the reducers that the notebook registered, by module, for the results that a worker makes."""
    return [
        (registry, cls, reducer)
        for registry, table in (("copyreg", copyreg.dispatch_table), ("dill", registered_with_dill()))
        for cls, reducer in table.items()
        if isinstance(reducer, types.FunctionType) and not modules.is_importable(reducer.__module__)
    ]


def _sources(files: set[str]) -> dict[str, list[str]]:
    """Return the lines of the cells that the code came from, for tracebacks and ``inspect`` in the worker."""
    found = {}
    for file in sorted(files):
        entry = linecache.cache.get(file)
        if entry is not None and len(entry) == 4 and not os.path.exists(file):
            found[file] = entry[2]
    return found


# ---- the parent's side --------------------------------------------------------------------------------------------

_alive: dict[int, weakref.ref[_Version]] = {}
_by_object: dict[Any, tuple[weakref.ref[Any], _Version, Snapshot | None]] = {}
_by_content: dict[bytes, weakref.ref[_Version]] = {}


def unit_of(obj: Any) -> Unit:
    """Return the unit of a callable or a class in its present version.

    Raises:
        Exception: something in it can't travel (`explain` says what), or the user's own ``__reduce__`` raised.
    """
    # A bound method is a new object each time that it is asked for: it is known by what it is bound to.
    bound = type(obj) is types.MethodType
    owner, key = (obj.__self__, (id(obj.__self__), id(obj.__func__))) if bound else (obj, id(obj))
    known = _by_object.get(key)
    _, last, snapshot = known if known is not None and known[0]() is owner else (None, None, None)
    if last is not None and snapshot is not None and snapshot.holds():
        return last.unit()
    with Handover() as handover:
        pickler, stream, buffers = dump_with(_UnitPickler, obj)
    assert isinstance(pickler, _UnitPickler)
    if last is None:
        same = _by_content.get(stream)
        last = None if same is None else same()
    if last is None or not _same(last.segments, stream, buffers):
        last = _Version((stream, *(bytearray(view) for view in buffers)), handover.descriptors)
    snapshot = None if pickler.volatile or not is_frozen(obj) else pickler.snapshot
    last.tracked = [tracker.reference_to(tracked) for tracked in pickler.keep.values()]
    unit = last.unit()
    _by_content[stream] = weakly.reference(last, _by_content, stream)
    _remember(owner, key, last, snapshot)
    return unit


def attempt(obj: Any) -> None:
    """Pickle `obj` as a unit is, and keep nothing: for `explain`, which only asks whether it can be done."""
    with Handover():
        dump_with(_UnitPickler, obj)


def _same(segments: tuple[Buffer, ...], stream: bytes, buffers: Sequence[memoryview]) -> bool:
    # The buffers are kept as bytearrays because those compare with any buffer at the speed of memcmp; bytes do not.
    return (
        segments[0] == stream
        and len(segments) == len(buffers) + 1
        and all(old == new for old, new in zip(segments[1:], buffers, strict=True))
    )


def _remember(owner: Any, key: Any, version: _Version, snapshot: Snapshot | None) -> None:
    try:
        # The snapshot is the object's: another whose pickle is the same has one of its own.
        _by_object[key] = (weakly.reference(owner, _by_object, key), version, snapshot)
    except TypeError:  # no weak references: bound built-in methods, some extension types
        return


class _DataPickler(Pickler):
    def __init__(self, buffer_callback: Any) -> None:
        super().__init__(buffer_callback)
        self.units: dict[int, Unit] = {}

    def claim_all(self, found: Any) -> list[types.FunctionType]:
        return []  # each is a unit

    def token(self, obj: Any) -> Reduction | None:
        unit = unit_of(obj)
        self.units[unit.number] = unit
        return (load_unit, (unit.number,))


class Data(NamedTuple):
    """Pickled arguments.

    Attributes:
        segments: the stream and its buffers, which are views of the caller's memory.
        units: those that they need.
        descriptors: those that go along.
    """

    segments: list[Buffer]
    units: dict[int, Unit]
    descriptors: Descriptors


def dumps_data(obj: Any, handover: Handover | None = None) -> Data:
    """Pickle arguments.

    Args:
        obj: the arguments.
        handover: collects the descriptors that go along.
    """
    with handover or Handover() as handover:
        pickler, stream, buffers = dump_with(_DataPickler, obj)
    assert isinstance(pickler, _DataPickler)
    return Data([stream, *buffers], pickler.units, handover.descriptors)


def is_alive(number: int) -> bool:
    """Return whether a unit can still be asked for; a worker may forget one that can't."""
    return number in _alive


# ---- the worker's side --------------------------------------------------------------------------------------------

_received: dict[int, tuple[Sequence[Buffer], Sequence[int]]] = {}
_loaded: dict[int, Any] = {}
_published: dict[int, tuple[Any, ...]] = {}  # what a unit put into the worker's ``__main__``


def receive(number: int, segments: Sequence[Buffer], descriptors: Sequence[int] = ()) -> None:
    """Keep a unit as it came, with its descriptors; it is built when a task first needs it."""
    _received[number] = (segments, descriptors)


def forget(numbers: Sequence[int]) -> None:
    """Drop units that no task will ask for again, with what they put into ``__main__``."""
    main = sys.modules["__main__"]
    for number in numbers:
        for descriptor in _received.pop(number, ((), ()))[1]:
            os.close(descriptor)
        _loaded.pop(number, None)
        for put in _published.pop(number, ()):
            name = put.__name__
            if vars(main).get(name) is put:
                delattr(main, name)
    gc.collect()  # a function and its globals refer to each other, and those may be large


def load_unit(number: int) -> Any:
    """Return the object of a unit, built at the first call.

    Raises:
        Exception: what building it raises, each time it is asked for: a module that is missing, say.
    """
    if number in _loaded:
        return _loaded[number]
    segments, descriptors = _received[number]
    functions.publishing.done = ()
    # Copies: it may raise, and be asked for again.
    obj = loads_unit(segments, [os.dup(number) for number in descriptors])
    for descriptor in descriptors:
        os.close(descriptor)
    _published[number] = functions.publishing.done
    _loaded[number] = obj
    del _received[number]
    return obj


def call_initializer(number: int, segments: Sequence[Buffer], descriptors: Sequence[int] = ()) -> None:
    """Call the function of a unit with pickled arguments; what it stores in globals, later units find there.

    Raises:
        Exception: what loading or calling it raises.
    """
    initial.call(lambda: functools.partial(load_unit(number), *loads(segments, descriptors)), dumps_result)


def loads_unit(segments: Sequence[Buffer], descriptors: Sequence[int] = ()) -> Any:
    """Rebuild a unit from its segments, and make the sources of its cells known to tracebacks."""
    before, functions.publishing.active = functions.publishing.active, True
    try:
        obj, unpickler = load_with(segments, descriptors)
        sources, registrations = unpickler.load()
    finally:
        functions.publishing.active = before
    frames.learn(sources)
    for registry, cls, reducer in registrations:
        if registry == "copyreg":
            copyreg.dispatch_table[cls] = reducer
        else:
            dill_module().Pickler.dispatch[cls] = reducer
    return obj


def start_afresh() -> None:
    """Forget the parent's side: called in a forked worker."""
    for table in (_by_object, _by_content, _received, _loaded, _published):
        table.clear()
    initial.forget()
    tracker.inherit()
    frames.inherit()
