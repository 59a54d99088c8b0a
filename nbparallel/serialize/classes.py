"""Classes by value: one empty skeleton per definition, its attributes set afterwards.

The skeleton is made without running the metaclass's Python code, ``__init_subclass__`` or ``__set_name__``: they ran
when the cell did, and what they left is part of the state; only what they left in an importable module is not. States
of a class's bases and metaclasses ride with the class that brings them, so that a registry in a base may refer to the
class. The order is: methods, the attributes that Python itself reads, what the methods refer to, all else; so that
instances in a class's own attributes, or in its methods' globals, find their ``__hash__`` and ``__setstate__`` when
they are loaded. Called by `pickler`.
"""

from __future__ import annotations

import abc
import builtins
import collections.abc
import contextlib
import enum
import functools
import numbers
import sys
import types
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import enums, initial, modules, references, tracker
from nbparallel.serialize.functions import (
    Reduction,
    Step,
    annotations_of,
    fillings,
    functions_in,
    publish,
    publishing,
)

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler

_HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not one of C's static types, which are immutable

# Attributes that the skeleton gets at birth, or that only the class that has them may have.
_OF_SKELETON = frozenset(
    {"__dict__", "__weakref__", "__module__", "__qualname__", "__slots__", "_abc_impl", "__classcell__"}
)
# What the interpreter, `inspect` and `dataclasses` write into a class, in versions that have them.
_ONLY_SINCE_3_13 = frozenset({"__firstlineno__", "__static_attributes__"})

_CODE = (
    types.FunctionType,
    classmethod,
    staticmethod,
    property,
    functools.cached_property,
    functools._lru_cache_wrapper,
)

# Built-in classes that `builtins` does not have under their name. Keyed by id(): a metaclass may be unhashable.
_NAMED_IN_TYPES = {
    id(cls): name
    for name, cls in vars(types).items()
    if isinstance(cls, type) and cls.__module__ == "builtins" and not hasattr(builtins, cls.__name__)
}

# Those that no module has under any name.
_VIEWS = {id(type(getattr({}, name)())): name for name in ("keys", "values", "items")}

# Those that a class may be registered with and that don't find out by its methods.
_STANDARD_ABCS = [
    cls
    for module in (collections.abc, numbers)
    for name, cls in vars(module).items()
    if isinstance(cls, abc.ABCMeta) and "__subclasshook__" not in vars(cls) and name != "ByteString"  # it warns
]


def reduce_class(pickler: Pickler, cls: type) -> Reduction:
    if id(cls) in _NAMED_IN_TYPES:
        return (getattr, (types, _NAMED_IN_TYPES[id(cls)]))
    if id(cls) in _VIEWS:
        return (view_class, (_VIEWS[id(cls)],))
    if _is_elsewhere(cls):
        return NotImplemented
    token = pickler.token(cls)
    if token is not None:
        return token
    key = pickler.track(cls)
    pickler.volatile = True  # a class's attributes may be set at any time
    shape: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    claimed: list[types.FunctionType] = []
    skeleton: tuple[Any, ...]
    base = _inherits_metaclass(cls)
    meta = type(cls) if base is None else Step(type, base)
    if isinstance(cls, enum.EnumMeta):
        members, claimed = enums.members_of(pickler, cls)
        if "_boundary_" in vars(cls):
            shape["boundary"] = vars(cls)["_boundary_"]
        skeleton = (make_enum, (meta, cls.__name__, cls.__bases__, shape, members, key))
    else:
        if "__slots__" in vars(cls):
            shape["__slots__"] = _slot_names(cls)
        if "__orig_bases__" in vars(cls):  # typing.Generic's own hook insists on it
            shape["__orig_bases__"] = vars(cls)["__orig_bases__"]
        skeleton = (make_class, (meta, cls.__name__, cls.__bases__, shape, key))
    if id(cls) in pickler.stated_classes:
        return skeleton
    return (*skeleton, _states(pickler, cls, claimed), None, None, fill_nothing)


def _is_elsewhere(cls: type) -> bool:
    # A class that exec() made where there is no __name__ says that it is a builtin, too.
    built_in = cls.__module__ == "builtins" and not cls.__flags__ & _HEAP
    return built_in or modules.travels_by_name(cls)


def _inherits_metaclass(cls: type) -> type | None:
    """Return an importable base with the same metaclass, whose own name leads nowhere (those of `ctypes`)."""
    if _is_elsewhere(type(cls)):
        return None
    return next((base for base in cls.__bases__ if type(base) is type(cls) and _is_elsewhere(base)), None)


def _lineage(pickler: Pickler, cls: type) -> list[type]:
    """Return the by-value classes among `cls`, its bases and their metaclasses that have no state in the pickle yet.

    The most basic come first. Those of the other process are left out: it has them.
    """
    found: list[type] = []

    def visit(known: type) -> None:
        if id(known) in pickler.stated_classes or _is_elsewhere(known):
            return
        if known is not cls and pickler.token(known) is not None:
            return
        pickler.stated_classes.add(id(known))
        if _inherits_metaclass(known) is None:
            visit(type(known))
        for base in known.__bases__:
            visit(base)
        found.append(known)

    visit(cls)
    return found


def _states(pickler: Pickler, cls: type, claimed: list[types.FunctionType]) -> list[Step]:
    code, read_by_python, others, ends = [], [], [], []
    for known in _lineage(pickler, cls):
        attributes = _attributes(known)
        early = {name: value for name, value in attributes.items() if isinstance(value, _CODE)}
        dunder = {name: value for name, value in attributes.items() if name[:2] == name[-2:] == "__"}
        for value in early.values():
            claimed += pickler.claim_all(functions_in(value))
        code.append(Step(set_attributes, known, early))
        read_by_python.append(Step(set_attributes, known, {name: dunder[name] for name in dunder if name not in early}))
        late = {name: attributes[name] for name in attributes if name not in early and name not in dunder}
        others.append(Step(set_attributes, known, late))
        ends.append(Step(end_class, known, pickler.track(known), list(attributes), _relations(known)))
    return [*code, *read_by_python, *fillings(pickler, claimed), *others, *ends]


def _slot_names(cls: type) -> list[str]:
    names = [
        name
        for name, value in vars(cls).items()
        if isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls
    ]
    return names + [name for name in ("__dict__", "__weakref__") if name in vars(cls)]


def _attributes(cls: type) -> dict[str, Any]:
    slots = set(_slot_names(cls)) if "__slots__" in vars(cls) else set()
    attributes = {
        name: value
        for name, value in vars(cls).items()
        if name not in _OF_SKELETON and name not in slots and type(value).__name__ != "CField"  # of ctypes
    }
    if "__slots__" in vars(cls):
        declared = vars(cls)["__slots__"]
        attributes["__slots__"] = declared if isinstance(declared, (str, tuple, list, dict)) else tuple(slots)
    if isinstance(cls, enum.EnumMeta):
        attributes = enums.attributes_of(cls, attributes)
    return attributes


def _relations(cls: type) -> dict[str, Any]:
    """Return what a class has beside its attributes: virtual subclasses and bases, members, hints."""
    found: dict[str, Any] = {"bases": [known for known in _STANDARD_ABCS if _is_registered(cls, known)]}
    if isinstance(cls, abc.ABCMeta):
        found["subclasses"] = [sub for ref in _virtual_subclasses(cls) if (sub := ref()) is not None]
    if isinstance(cls, enum.EnumMeta):
        found["members"] = enums.states_of(cls)
        found["values"] = enums.extra_values(cls)
    module = vars(sys.modules.get(cls.__module__, types))
    found["hints"] = references.hinted_globals(annotations_of(cls), module)
    return found


def _is_registered(cls: Any, known: Any) -> bool:
    try:
        return issubclass(cls, known) and all(base is not known for base in cls.__mro__)
    except TypeError:  # an unhashable metaclass
        return False


def _virtual_subclasses(cls: abc.ABCMeta) -> Any:
    # The registry of `ABC.register` has no public reader.
    import _abc  # type: ignore[import-not-found]

    return _abc._get_dump(cls)[0]


# ---- on the other side --------------------------------------------------------------------------------------------

# The names that were set on a class by its last state: a name that the next one lacks was deleted in the notebook.
_set_names: dict[str, frozenset[str]] = {}


def view_class(name: str) -> type:
    return type(getattr({}, name)())


def make_class(meta: Any, name: str, bases: tuple[type, ...], shape: dict[str, Any], key: str) -> type:
    known = tracker.find(key)
    if known is not None:
        return known  # type: ignore[no-any-return]
    # ABCMeta's also makes the registry, without which isinstance() fails.
    new = abc.ABCMeta.__new__ if issubclass(meta, abc.ABCMeta) else _not_in_python(meta, "__new__")
    with _no_subclass_hooks(bases):
        cls = new(meta, name, bases, dict(shape))
        _not_in_python(meta, "__init__")(cls, name, bases, dict(shape))  # of C's own metaclasses, such as ctypes'
    return tracker.adopt(cls, key)  # type: ignore[no-any-return]


def make_enum(
    meta: Any, name: str, bases: tuple[type, ...], shape: dict[str, Any], members: list[Any], key: str
) -> type:
    known = tracker.find(key)
    if known is not None:
        return known  # type: ignore[no-any-return]
    with _no_subclass_hooks(bases):
        cls = enums.make(meta, name, bases, shape, members)
    return tracker.adopt(cls, key)  # type: ignore[no-any-return]


def fill_nothing(cls: type, steps: list[None]) -> None:
    """Leave it at what the steps did when they were loaded."""


def set_attributes(cls: type, attributes: dict[str, Any]) -> None:
    set_attribute = _not_in_python(type(cls), "__setattr__")
    for name, value in attributes.items():
        if sys.version_info >= (3, 13) or name not in _ONLY_SINCE_3_13:
            set_attribute(cls, name, value)


def _not_in_python(meta: type, method: str) -> Any:
    """Return a metaclass's method, past those written in Python, which ran when the class was defined."""
    found = (getattr(base, method) for base in meta.__mro__)
    return next(method for method in found if not isinstance(method, types.FunctionType))


def end_class(cls: type, key: str, names: list[str], relations: dict[str, Any]) -> None:
    before = _set_names.get(key)
    if before is None:
        weakref.finalize(cls, _set_names.pop, key, None).atexit = False
    else:
        for name in before.difference(names):
            if name in vars(cls):
                type.__delattr__(cls, name)
    _set_names[key] = frozenset(names)
    if isinstance(cls, enum.EnumMeta):
        enums.complete(cls, relations["members"], relations["values"])
    for base in relations["bases"]:
        base.register(cls)
    for subclass in relations.get("subclasses", ()):
        abc.ABCMeta.register(cls, subclass)  # type: ignore[arg-type]
    if publishing.active and cls.__module__ == "__main__":
        for name, hint in relations["hints"].items():
            setattr(sys.modules["__main__"], name, hint)
    initial.filled(cls)
    publish(cls)


@contextlib.contextmanager
def _no_subclass_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    """Keep ``type.__new__`` from calling the bases' ``__init_subclass__`` for a second time, without its keywords."""
    removed = []
    for base in {id(known): known for direct in bases for known in direct.__mro__}.values():
        if base.__module__ != "typing" and "__init_subclass__" in vars(base) and base.__flags__ & _HEAP:
            removed.append((base, vars(base)["__init_subclass__"]))
            type.__delattr__(base, "__init_subclass__")
    try:
        yield
    finally:
        for base, hook in removed:
            type.__setattr__(base, "__init_subclass__", hook)
