"""Objects that are neither code nor plain data, and that the C pickler can't write or would write wrongly.

Bound methods, enum members, objects that name themselves in ``__reduce__``, weak containers, the standard streams.
Called by `pickler`; the ``make_`` functions run on the other side.
"""

from __future__ import annotations

import enum
import io
import os
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import modules, tracker
from nbparallel.serialize.functions import Reduction

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler


def reduce_method(pickler: Pickler, method: types.MethodType) -> Reduction:
    # By name only where the name leads back: not for a private method (its name is mangled), a lambda, an alias.
    try:
        found = getattr(method.__self__, method.__name__)
    except Exception:  # also what a property of that name raises
        found = None
    if type(found) is types.MethodType and found.__func__ is method.__func__:
        return NotImplemented
    return (types.MethodType, (method.__func__, method.__self__))


def reduce_member(pickler: Pickler, member: Any) -> Reduction:
    """Reduce an enum member by its name: its value may not equal its own copy (a function, an object, NaN)."""
    cls: Any = type(member)
    name = getattr(member, "_name_", None)
    standard: tuple[Any, ...] = (enum.Enum.__reduce_ex__, enum.Flag.__reduce_ex__)
    if cls.__reduce_ex__ not in standard or cls.__members__.get(name) is not member:
        return NotImplemented
    return (make_member, (cls, name))


def make_member(cls: Any, name: str) -> Any:
    return cls.__members__[name]


def reduce_by_own_method(pickler: Pickler, obj: Any) -> Reduction:
    """Ask the object's own ``__reduce__``; one that answers with a name (a sentinel's way) travels by identity."""
    reduction = obj.__reduce_ex__(5)
    if not isinstance(reduction, str) or modules.is_importable(getattr(obj, "__module__", None)):
        return reduction
    key = tracker.foreign_id_of(obj) if pickler.to_parent else None
    if key is not None:
        return (tracker.resolve, (key,))
    pickler.volatile = True
    return (make_named, (type(obj), pickler.track(obj)), _plain_state(obj))


def _plain_state(obj: Any) -> Any:
    slots = {
        name: getattr(obj, name)
        for cls in type(obj).__mro__
        for name, value in vars(cls).items()
        if isinstance(value, types.MemberDescriptorType) and hasattr(obj, name)
    }
    return (getattr(obj, "__dict__", None), slots)


def make_named(cls: type, key: str) -> Any:
    known = tracker.find(key)
    return tracker.adopt(object.__new__(cls), key) if known is None else known


def reduce_past_getattr(pickler: Pickler, obj: Any) -> Reduction:
    """Reduce an object whose class has ``__getattr__``, which an unpickler would ask for ``__setstate__``.

    It asks while the object is still empty, and a proxy then looks for its own target without end.
    """
    reduction = obj.__reduce_ex__(5)
    has_state = isinstance(reduction, tuple) and len(reduction) == 5 and reduction[2] is not None
    return (*reduction, set_state) if has_state else reduction


def set_state(obj: Any, state: Any) -> None:
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        object.__getattribute__(obj, "__dict__").update(attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(obj, name, value)


def reduce_thread_local(pickler: Pickler, local: Any) -> Reduction:
    # A worker is another thread, too: it starts with none of the attributes.
    return (threading.local, ())


def reduce_stream(pickler: Pickler, stream: Any) -> Reduction:
    for name in ("stdout", "stderr", "stdin"):
        if stream is getattr(sys, name, None):
            return (getattr, (sys, name))
    return NotImplemented


def reduce_environ(pickler: Pickler, environ: Any) -> Reduction:
    return (getattr, (os, "environ")) if environ is os.environ else NotImplemented


def reduce_weak_dictionary(pickler: Pickler, mapping: Any) -> Reduction:
    return (type(mapping), (dict(mapping),))


def reduce_weak_set(pickler: Pickler, members: Any) -> Reduction:
    return (type(members), (list(members),))


def reduce_view(pickler: Pickler, view: Any) -> Reduction:
    return (make_view, (dict(view.mapping), type(view).__name__.removeprefix("dict_")))


def make_view(mapping: dict[Any, Any], kind: str) -> Any:
    return getattr(mapping, kind)()


REDUCERS: dict[type, Any] = {
    types.MethodType: reduce_method,
    threading.local: reduce_thread_local,
    weakref.WeakKeyDictionary: reduce_weak_dictionary,
    weakref.WeakValueDictionary: reduce_weak_dictionary,
    weakref.WeakSet: reduce_weak_set,
    type(os.environ): reduce_environ,
    **dict.fromkeys((type({}.keys()), type({}.values()), type({}.items())), reduce_view),
}

#: Types whose subclasses are reduced as they are.
FAMILIES: dict[type, Any] = {enum.Enum: reduce_member, io.TextIOBase: reduce_stream}
