"""Identity across processes: one class here is one class there, however often its definition travels.

An object that is shipped by value (a class, a function, a type variable) gets an id that is unique among all
processes. The receiver keeps the first object that it built for an id, and an object that comes home is exchanged for
the original. Called by the reducers of this folder only.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from nbparallel.serialize import weakly

_by_id: dict[str, Callable[[], Any]] = {}
# Keyed by id(): a metaclass may define __eq__ or __hash__, so the object itself can't be a key.
_ids: dict[int, tuple[Callable[[], Any], str]] = {}
# Ids that were made by the other side, which can therefore resolve them.
_foreign: dict[str, Callable[[], Any]] = {}


def id_of(obj: Any) -> str:
    """Return the id under which `obj` travels, made at the first call."""
    known = _ids.get(id(obj))
    if known is not None and known[0]() is obj:
        return known[1]
    key = os.urandom(12).hex()
    _remember(obj, key)
    return key


def foreign_id_of(obj: Any) -> str | None:
    """Return the id of an object that came from the other process, `None` for any other."""
    known = _ids.get(id(obj))
    if known is not None and known[0]() is obj and known[1] in _foreign:
        return known[1]
    return None


def find(key: str) -> Any | None:
    """Return the object of an id, `None` where there is none (any more)."""
    ref = _by_id.get(key)
    return None if ref is None else ref()


def adopt(obj: Any, key: str) -> Any:
    """Record that `obj` was built here for the id `key`, and return it."""
    _remember(obj, key)
    _foreign[key] = _reference(obj, _foreign, key)
    return obj


def resolve(key: str) -> Any:
    """Return the original of an object that comes home.

    Raises:
        LookupError: it is gone: its definition was replaced and nothing refers to the old one.
    """
    obj = find(key)
    if obj is None:
        raise LookupError("a class or function that a result refers to no longer exists in this notebook")
    return obj


def inherit() -> None:
    """Mark all that is known as foreign: called in a forked worker, whose parent made it all."""
    for key, ref in _by_id.items():
        obj = ref()
        if obj is not None:
            _foreign[key] = _reference(obj, _foreign, key)


def _remember(obj: Any, key: str) -> None:
    _by_id[key] = _reference(obj, _by_id, key)
    _ids[id(obj)] = (_reference(obj, _ids, id(obj)), key)


def _reference(obj: Any, table: dict[Any, Any], key: Any) -> Callable[[], Any]:
    try:
        return weakly.reference(obj, table, key)
    except TypeError:
        return reference_to(obj)


def reference_to(obj: Any) -> Callable[[], Any]:
    """Return a weak reference; a strong one to what allows none, such as a type alias or a sentinel with slots."""
    try:
        return weakref.ref(obj)
    except TypeError:
        return lambda: obj
