"""Classes by value: one empty skeleton per definition, its attributes set afterwards.

The skeleton is made without running the metaclass's Python code, ``__init_subclass__`` or ``__set_name__``: they ran
when the cell did, and what they left is part of the state. States of a class's bases and metaclasses ride with the
class that brings them, so that a registry in a base may refer to the class. Called by `pickler`.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import modules, tracker
from nbparallel.serialize.functions import Reduction, publish

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler

# Attributes that the skeleton gets at birth, or that only the class that has them may have.
_OF_SKELETON = frozenset(
    {"__dict__", "__weakref__", "__module__", "__qualname__", "__slots__", "_abc_impl", "__classcell__"}
)


# Built-in classes that `builtins` does not have under their name.
_NAMED_IN_TYPES = {
    cls: name
    for name, cls in vars(types).items()
    if isinstance(cls, type) and cls.__module__ == "builtins" and not hasattr(builtins, cls.__name__)
}


def reduce_class(pickler: Pickler, cls: type) -> Reduction:
    if cls in _NAMED_IN_TYPES:
        return (getattr, (types, _NAMED_IN_TYPES[cls]))
    if modules.travels_by_name(cls) or cls.__module__ == "builtins":
        return NotImplemented
    token = pickler.token(cls)
    if token is not None:
        return token
    key = pickler.track(cls)
    pickler.volatile = True  # a class's attributes may be set at any time
    shape: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if isinstance(cls, enum.EnumMeta):
        members = {name: member._value_ for name, member in cls.__members__.items()}
        if issubclass(cls, enum.Flag) and hasattr(cls, "_boundary_"):
            shape["boundary"] = cls._boundary_
        skeleton = (make_enum, (type(cls), cls.__name__, cls.__bases__, shape, members, key))
    else:
        if "__slots__" in vars(cls):
            shape["__slots__"] = _slot_names(cls)
        if "__orig_bases__" in vars(cls):  # typing.Generic's own hook insists on it
            shape["__orig_bases__"] = vars(cls)["__orig_bases__"]
        skeleton = (make_class, (type(cls), cls.__name__, cls.__bases__, shape, key))
    if id(cls) in pickler.stated_classes:
        return skeleton
    lineage = [known for known in _lineage(cls) if id(known) not in pickler.stated_classes]
    pickler.stated_classes.update(id(known) for known in lineage)
    return (*skeleton, [(known, _state(known)) for known in lineage], None, None, fill_classes)


def _lineage(cls: type) -> list[type]:
    """Return the by-value classes among `cls`, its bases and their metaclasses, the most basic first."""
    found: dict[type, None] = {}

    def visit(known: type) -> None:
        if known in found or modules.travels_by_name(known) or known.__module__ == "builtins":
            return
        if type(known) is not type:
            visit(type(known))
        for base in known.__bases__:
            visit(base)
        found[known] = None

    visit(cls)
    return list(found)


def _slot_names(cls: type) -> list[str]:
    names = [
        name
        for name, value in vars(cls).items()
        if isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls
    ]
    return names + [name for name in ("__dict__", "__weakref__") if name in vars(cls)]


def _state(cls: type) -> dict[str, Any]:
    slots = set(_slot_names(cls)) if "__slots__" in vars(cls) else set()
    attributes = {
        name: value for name, value in vars(cls).items() if name not in _OF_SKELETON and name not in slots
    }
    state: dict[str, Any] = {"attributes": attributes}
    if "__slots__" in vars(cls):
        declared = vars(cls)["__slots__"]
        attributes["__slots__"] = declared if isinstance(declared, (str, tuple, list, dict)) else tuple(slots)
    if isinstance(cls, abc.ABCMeta):
        state["virtual"] = [ref() for ref in _virtual_subclasses(cls)]
    if isinstance(cls, enum.EnumMeta):
        state["members"] = {name: dict(vars(member)) for name, member in cls.__members__.items()}
        for name in cls.__members__:
            attributes.pop(name, None)
    return state


def _virtual_subclasses(cls: abc.ABCMeta) -> Any:
    # The registry of `ABC.register` has no public reader.
    import _abc

    return _abc._get_dump(cls)[0]


def make_class(meta: Any, name: str, bases: tuple[type, ...], shape: dict[str, Any], key: str) -> type:
    known = tracker.find(key)
    if known is not None:
        return known  # type: ignore[no-any-return]
    if issubclass(meta, abc.ABCMeta):
        new = abc.ABCMeta.__new__  # it also makes the registry, without which isinstance() fails
    else:
        new = next(base.__new__ for base in meta.__mro__ if not isinstance(base.__new__, types.FunctionType))
    with _no_subclass_hooks(bases):
        cls = new(meta, name, bases, dict(shape))
    return tracker.adopt(cls, key)  # type: ignore[no-any-return]


def make_enum(
    meta: Any, name: str, bases: tuple[type, ...], shape: dict[str, Any], members: dict[str, Any], key: str
) -> type:
    known = tracker.find(key)
    if known is not None:
        return known  # type: ignore[no-any-return]
    keywords = {"boundary": shape.pop("boundary")} if "boundary" in shape else {}
    with _no_subclass_hooks(bases):
        body = meta.__prepare__(name, bases)
        for attribute, value in {**shape, **members}.items():
            body[attribute] = value
        cls = meta.__new__(meta, name, bases, body, **keywords)
    return tracker.adopt(cls, key)  # type: ignore[no-any-return]


def fill_classes(_: type, states: list[tuple[type, dict[str, Any]]]) -> None:
    for cls, state in states:
        present = set(vars(cls)) if isinstance(cls, enum.EnumMeta) else set()
        for name, value in state["attributes"].items():
            # An Enum's skeleton already made the attributes that its metaclass makes; only its own code is missing.
            if name in present and (not _is_code(value) or name == "__new__"):
                continue
            if name in ("__firstlineno__", "__static_attributes__") and sys.version_info < (3, 13):
                continue
            type.__setattr__(cls, name, value)
        for name, attributes in state.get("members", {}).items():
            cls.__members__[name].__dict__.update(attributes)  # type: ignore[attr-defined]
        for subclass in state.get("virtual", ()):
            if subclass is not None:
                cls.register(subclass)  # type: ignore[attr-defined]
        publish(cls)


def _is_code(value: Any) -> bool:
    return isinstance(value, (types.FunctionType, classmethod, staticmethod, property))


@contextlib.contextmanager
def _no_subclass_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    """Keep ``type.__new__`` from calling the bases' ``__init_subclass__`` for a second time, without its keywords."""
    removed = []
    for base in dict.fromkeys(known for base in bases for known in base.__mro__):
        if base.__module__ != "typing" and "__init_subclass__" in vars(base) and base.__flags__ & (1 << 9):
            removed.append((base, vars(base)["__init_subclass__"]))
            type.__delattr__(base, "__init_subclass__")
    try:
        yield
    finally:
        for base, hook in removed:
            type.__setattr__(base, "__init_subclass__", hook)


# ---- what classes are made of, beside functions -------------------------------------------------------------------

# Sentinels of `dataclasses` that are told apart by identity: they have no reduction of their own.
_SENTINELS = {
    id(getattr(dataclasses, name)): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY", "_FIELD", "_FIELD_CLASSVAR", "_FIELD_INITVAR")
    if hasattr(dataclasses, name)
}


def reduce_sentinel(pickler: Pickler, sentinel: Any) -> Reduction:
    name = _SENTINELS.get(id(sentinel))
    return NotImplemented if name is None else (getattr, (dataclasses, name))


def reduce_type_variable(pickler: Pickler, variable: Any) -> Reduction:
    home = sys.modules.get(variable.__module__ or "")
    if modules.is_importable(variable.__module__) and getattr(home, variable.__name__, None) is variable:
        return NotImplemented
    key = tracker.foreign_id_of(variable) if pickler.to_parent else None
    if key is not None:
        return (tracker.resolve, (key,))
    details: dict[str, Any] = {}
    if isinstance(variable, typing.TypeVar):
        details = {
            "bound": variable.__bound__,
            "constraints": variable.__constraints__,
            "covariant": variable.__covariant__,
            "contravariant": variable.__contravariant__,
        }
    details["module"] = variable.__module__
    return (make_type_variable, (type(variable), variable.__name__, details, pickler.track(variable)))


def make_type_variable(kind: Any, name: str, details: dict[str, Any], key: str) -> Any:
    known = tracker.find(key)
    if known is not None:
        return known
    module = details.pop("module")
    variable = kind(name, *details.pop("constraints", ()), **details)
    with contextlib.suppress(AttributeError):  # read-only for some kinds; only shown in a repr
        variable.__module__ = module
    return tracker.adopt(variable, key)


REDUCERS: dict[type, Any] = {
    **{type(getattr(dataclasses, name)): reduce_sentinel for name in _SENTINELS.values()},
    typing.TypeVar: reduce_type_variable,
    typing.ParamSpec: reduce_type_variable,
    typing.TypeVarTuple: reduce_type_variable,
}
