"""The pickler: C speed for data, dill's ways for code.

A `pickle.Pickler` (protocol 5, large buffers out of band) whose ``reducer_override`` is asked about everything that is
not a built-in container or atom. Functions and classes that a worker can't import go by value (`functions`,
`classes`); the other parts of code go to the saver that dill has for them; all else is left to C. Pure-Python dill is
used for nothing but code, because on data it measured 15-27 times slower.

Three kinds of pickle are made, which differ in what a function or class of the notebook becomes:

* a *unit* (code, parent to worker) embeds it;
* *data* (arguments, parent to worker) holds the number of its unit, which travels once per worker and version;
* a *result* (worker to parent) names what came from the parent, and embeds what the worker defined.
"""

from __future__ import annotations

import copyreg
import io
import operator
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbparallel.serialize import (
    classes,
    exceptions,
    functions,
    handover,
    hints,
    modules,
    namespaces,
    objects,
    tracker,
)
from nbparallel.serialize.functions import Reduction
from nbparallel.serialize.lazy import dill_module

#: Buffers smaller than this stay in the stream: a segment of its own costs more than copying a few pages.
OUT_OF_BAND_BYTES = 16 * 1024

Buffer = bytes | bytearray | memoryview

_REDUCERS: dict[type, Callable[[Any, Any], Reduction]] = {
    **functions.REDUCERS,
    **hints.REDUCERS,
    **namespaces.REDUCERS,
    **objects.REDUCERS,
}

# The parts of functions and classes that are left to dill's own savers.
_FROM_DILL = (
    types.CodeType,
    types.MappingProxyType,
    types.GetSetDescriptorType,
    types.ClassMethodDescriptorType,
    property,
    staticmethod,
    classmethod,
    super,
    weakref.ReferenceType,
)


class _Recorder:
    """Stands in for dill's pickler and keeps the one reduction that a saver asks it to save."""

    def __init__(self) -> None:
        self.reduction: tuple[Any, ...] | None = None

    def save_reduce(self, *reduction: Any, obj: Any = None) -> None:
        self.reduction = reduction


def _by_dill(pickler: Pickler, obj: Any) -> Reduction:
    recorder = _Recorder()
    dill_module().Pickler.dispatch[type(obj)](recorder, obj)
    return NotImplemented if recorder.reduction is None else recorder.reduction


def _by_dill_as(family: type) -> Callable[[Pickler, Any], Reduction]:
    def reduce(pickler: Pickler, obj: Any) -> Reduction:
        recorder = _Recorder()
        dill_module().Pickler.dispatch[family](recorder, obj)
        state = getattr(obj, "__dict__", None) or None
        return NotImplemented if recorder.reduction is None else (*recorder.reduction, state)

    return reduce


_REDUCERS.update(dict.fromkeys(_FROM_DILL, _by_dill))

# Asked for subclasses, in this order, of what has no entry of its own.
_FAMILIES: dict[type, Callable[[Any, Any], Reduction]] = {
    type: classes.reduce_class,
    BaseException: exceptions.reduce_exception,
    **functions.FAMILIES,
    **objects.FAMILIES,
    **{family: _by_dill_as(family) for family in (property, staticmethod, classmethod)},
}
_OF_FAMILY = tuple(_FAMILIES)


# What stays in the notebook's process, by package and class: some of these could be pickled, to no use.
_LIVE = frozenset({("tqdm", "tqdm"), ("IPython", "InteractiveShell"), ("ipywidgets", "Widget")})


def _reducer_for(cls: type) -> Callable[[Any, Any], Reduction]:
    if issubclass(cls, _OF_FAMILY):
        return next(of_family for family, of_family in _FAMILIES.items() if issubclass(cls, family))
    if cls in registered_with_dill():
        return _by_dill
    inherited = handover.reducer_for(cls)
    if inherited is not None:
        return inherited
    if any((base.__module__.partition(".")[0], base.__name__) in _LIVE for base in cls.__mro__):
        return _refuse
    if cls in copyreg.dispatch_table:
        return _leave_to_c
    if type(cls.__reduce__) is types.FunctionType or type(cls.__reduce_ex__) is types.FunctionType:
        return objects.reduce_by_own_method
    if type(getattr(cls, "__getattr__", None)) is types.FunctionType and not hasattr(cls, "__setstate__"):
        return objects.reduce_past_getattr
    return _leave_to_c


def _refuse(pickler: Pickler, obj: Any) -> Reduction:
    raise pickle.PicklingError(f"a live {type(obj).__name__} stays in its process")


def _leave_to_c(pickler: Pickler, obj: Any) -> Reduction:
    return NotImplemented


class Pickler(pickle.Pickler):
    """Pickles one object graph; the public way in is `dumps_data`, `dumps_result` or `units.Unit`."""

    to_parent = False
    #: Whether exceptions are written without what led to them.
    alone = False

    def __init__(self, buffer_callback: Callable[[pickle.PickleBuffer], bool | None] | None) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file, protocol=5, buffer_callback=buffer_callback)
        self.shell_cells: set[int] = set()
        self.stated_classes: set[int] = set()
        self.open_hints: set[int] = set()
        self.volatile = False
        self.stand_ins: dict[int, tuple[str, str, str, str]] = {}  # of exceptions that can't be written, by id
        self._claimed: set[int] = set()
        self._reducers: dict[type, Callable[[Any, Any], Reduction]] = {}
        self._namespaces: dict[int, namespaces.Namespace] = {}
        self._homes: dict[int, namespaces.Home] = {}

    def reducer_override(self, obj: Any) -> Reduction:
        """Return how `obj` is written: asked by the C pickler, for all but built-in containers and atoms."""
        cls = type(obj)
        try:
            reducer = _REDUCERS.get(cls) or self._reducers.get(cls)
        except TypeError:  # a metaclass with __eq__ and without __hash__
            return obj.__reduce_ex__(5)
        if reducer is None:
            reducer = self._reducers[cls] = _reducer_for(cls)
        return reducer(self, obj)

    def write(self, obj: Any) -> None:
        """Pickle `obj`, and after it what its kind of pickle adds."""
        self.dump(obj)

    # ---- what the reducers ask of the pickler ----

    def token(self, obj: Any) -> Reduction | None:
        """Return a reduction that only names `obj`, a function or a class; `None` to embed it."""
        return None

    def can_write(self, obj: Any) -> bool:
        """Return whether `obj` can be pickled, tried apart."""
        try:
            type(self)(None).dump(obj)
        except Exception:
            return False
        return True

    def track(self, obj: Any) -> str:
        return tracker.id_of(obj)

    def record_function(self, function: types.FunctionType, values: dict[str, Any]) -> None:
        """Take note that a function was embedded, with the globals that it refers to."""

    def claim(self, function: types.FunctionType) -> bool:
        """Return whether the caller is the first to ask, and therefore the one who fills `function`."""
        if id(function) in self._claimed:
            return False
        self._claimed.add(id(function))
        return True

    def claim_all(self, found: Iterable[types.FunctionType]) -> list[types.FunctionType]:
        """Return those of `found` that go by value and whose contents the caller has to add."""
        return [
            function
            for function in found
            if not modules.travels_by_name(function) and self.token(function) is None and self.claim(function)
        ]

    def namespace(self, namespace: dict[str, Any]) -> namespaces.Namespace:
        known = self._namespaces.get(id(namespace))
        if known is None:
            owner = namespaces.owner_of(namespace)
            home = None if owner is None else self.home(owner)
            known = self._namespaces[id(namespace)] = namespaces.Namespace(namespace, home)
        return known

    def home(self, module: types.ModuleType) -> namespaces.Home:
        known = self._homes.get(id(module))
        if known is None:
            known = self._homes[id(module)] = namespaces.Home(module)
            # It need not be in sys.modules: its functions are known by their globals.
            if id(vars(module)) not in self._namespaces:
                self._namespaces[id(vars(module))] = namespaces.Namespace(vars(module), known)
        return known


class _ResultPickler(Pickler):
    to_parent = True

    def token(self, obj: Any) -> Reduction | None:
        key = tracker.foreign_id_of(obj)
        return None if key is None else (tracker.resolve, (key,))


class _AlonePickler(_ResultPickler):
    alone = True


def dump_with(make: Callable[[Any], Pickler], obj: Any) -> tuple[Pickler, bytes, list[memoryview]]:
    """Pickle `obj` with a pickler that `make` makes for a buffer callback.

    Returns:
        The pickler, the stream, and the buffers that were left out of it (zero-copy views).
    """
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < OUT_OF_BAND_BYTES:
            return True
        buffers.append(view)
        return False

    pickler = make(keep)
    pickler.write(obj)
    return pickler, pickler.file.getvalue(), buffers


def dumps_result(obj: Any) -> list[Buffer]:
    """Pickle what a task returned or raised: the stream, then its buffers."""
    _, stream, buffers = dump_with(_ResultPickler, obj)
    return [stream, *buffers]


def dumps_error(error: BaseException) -> list[Buffer]:
    """Pickle what a task raised; of what led to it, that which can't be pickled is replaced by its words."""
    try:
        return dumps_result(error)
    except Exception:
        stand_ins = {}
        for each in exceptions.led_to(error):
            try:
                _AlonePickler(None).dump(each)
            except Exception as why:
                stand_ins[id(each)] = exceptions.words_of(each, why)
        if not stand_ins:
            raise

    def make(keep: Any) -> Pickler:
        pickler = _ResultPickler(keep)
        pickler.stand_ins = stand_ins
        return pickler

    _, stream, buffers = dump_with(make, error)
    return [stream, *buffers]


def loads(segments: Sequence[Buffer], descriptors: Sequence[int] = ()) -> Any:
    """Rebuild what any of the picklers of this package wrote.

    Args:
        segments: the stream, then its buffers in order; arrays are built on the buffers without a copy.
        descriptors: those that came along.
    """
    return load_with(segments, descriptors)[0]


def load_with(segments: Sequence[Buffer], descriptors: Sequence[int] = ()) -> tuple[Any, pickle.Unpickler]:
    """Rebuild an object as `loads` does, and return the unpickler too, for what the stream holds after it."""
    unpickler = pickle.Unpickler(io.BytesIO(segments[0]), buffers=segments[1:])
    if not descriptors:
        return unpickler.load(), unpickler
    with handover.arrived(descriptors):
        return unpickler.load(), unpickler


def registered_with_dill() -> dict[type, Any]:
    """Return the savers that users gave to ``dill.register``: another dictionary whenever they change."""
    global _user_savers, _dispatch_size
    dill = sys.modules.get("dill._dill")
    if dill is None or getattr(dill.__spec__, "_initializing", False):  # another thread is importing it
        return _user_savers
    dispatch = dill.Pickler.dispatch
    again = _user_savers and any(map(operator.is_not, map(dispatch.get, _user_savers), _user_savers.values()))
    if again or len(dispatch) != _dispatch_size:
        _dispatch_size = len(dispatch)
        savers = {
            cls: saver
            for cls, saver in dispatch.items()
            if not getattr(saver, "__module__", "").startswith(("dill.", "pickle", "_pickle"))
        }
        if savers != _user_savers:
            _user_savers = savers
    return _user_savers


_user_savers: dict[type, Any] = {}
_dispatch_size = 0
