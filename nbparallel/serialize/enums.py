"""Enum classes by value: the members are made anew, without the class's own ``__new__`` and ``__init__``.

Both ran when the cell did, and may not run on the values that they made. Called by `classes`.
"""

from __future__ import annotations

import enum
import functools
import types
from typing import TYPE_CHECKING, Any

from nbparallel.serialize.functions import functions_in

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler

_RAW: tuple[Any, ...] = (int, float, complex, str, bytes, tuple)


def members_of(pickler: Pickler, cls: Any) -> tuple[list[Any], list[types.FunctionType]]:
    """Return what `make` needs (name, value, data type, its arguments), and the functions claimed in the values."""
    claimed = []
    for member in cls.__members__.values():
        claimed += pickler.claim_all(functions_in(member._value_))
    return [
        (name, member._value_, *_raw(member, cls._member_type_)) for name, member in cls.__members__.items()
    ], claimed


def _raw(member: Any, kind: Any) -> tuple[type, tuple[Any, ...]]:
    for base in _RAW:
        if issubclass(kind, base):
            return base, base.__getnewargs__(member)
    if kind.__new__ is object.__new__ or isinstance(kind.__new__, types.FunctionType):
        return object, ()  # its attributes are the member's own
    return kind, kind.__reduce__(member)[1]


def attributes_of(cls: enum.EnumMeta, attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the metaclass keeps about the members: the skeleton has its own."""
    return {
        name: value
        for name, value in attributes.items()
        if name not in cls.__members__ and (not _is_sunder(name) or name == "_new_member_" or isinstance(value, _CODE))
    }


_CODE = (types.FunctionType, classmethod, staticmethod, property, functools.partial)


def _is_sunder(name: str) -> bool:
    return name[:1] == name[-1:] == "_" and name[:2] != "__"


def states_of(cls: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return each member's attributes: those in its dictionary and those in slots of its data type."""
    slots = [
        name
        for base in cls.__mro__
        for name, value in vars(base).items()
        if isinstance(value, types.MemberDescriptorType)
    ]
    return {
        name: (dict(vars(member)), {slot: getattr(member, slot) for slot in slots if hasattr(member, slot)})
        for name, member in cls.__members__.items()
    }


def extra_values(cls: Any) -> dict[Any, str]:
    """Return further values that lead to a member (``_add_value_alias_``, or a ``__new__`` that adds them)."""
    return {
        value: member._name_
        for value, member in cls._value2member_map_.items()
        if value is not member._value_ and cls.__members__.get(member._name_) is member
    }


def make(meta: Any, name: str, bases: tuple[type, ...], shape: dict[str, Any], members: list[Any]) -> type:
    keywords = {"boundary": shape["boundary"]} if "boundary" in shape else {}
    plan = iter(members)

    def new(cls: type, *_: Any) -> Any:
        _, value, base, arguments = next(plan)
        member = base.__new__(cls, *arguments)
        member._value_ = value
        return member

    body = enum.EnumMeta.__prepare__(name, bases)
    body.update({key: value for key, value in shape.items() if key != "boundary"})
    body["__new__"] = new
    body["__init__"] = lambda self, *_: None
    for number, member in enumerate(members):
        body[member[0]] = number
    cls: type = enum.EnumMeta.__new__(meta, name, bases, body, **keywords)
    for leftover in ("__init__", "__new_member__"):
        if leftover in vars(cls):
            type.__delattr__(cls, leftover)
    return cls


def complete(cls: Any, states: dict[str, tuple[dict[str, Any], dict[str, Any]]], values: dict[Any, str]) -> None:
    for name, (attributes, slots) in states.items():
        member = cls.__members__[name]
        member.__dict__.update(attributes)
        for slot, value in slots.items():
            object.__setattr__(member, slot, value)
    for value, name in values.items():
        cls._value2member_map_.setdefault(value, cls.__members__[name])
