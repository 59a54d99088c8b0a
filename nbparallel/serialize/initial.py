"""What an initializer leaves behind in its worker, for the functions that come after it.

Each unit of code has globals of its own in a worker, so that no run sees another's. An initializer exists to be seen:
what it stores in globals, in the attributes of functions and classes, or inside the objects that they hold, is the
worker's own from then on, and goes before what later units bring. Called by `worker` (through `units`), and by those
that fill functions and classes.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nbparallel.serialize import tracker

#: What was stored: by the name of a module for its globals, by an id of the tracker for attributes.
_stored: dict[str, dict[str, Any]] = {}
_watched: list[types.FunctionType | type] | None = None

# Compared by identity: what they hold is looked at for itself.
_CODE = (types.FunctionType, types.ModuleType, type)
_ABSENT = object()


def call(load: Callable[[], Callable[[], Any]], dumps: Callable[[Any], Sequence[Any]]) -> None:
    """Load an initializer, call it, and keep what it has stored.

    Args:
        load: returns the initializer, with its arguments bound.
        dumps: pickles a value, to see whether it was changed in place.
    """
    global _watched
    _watched = []
    try:
        initializer = load()
        places = list(_places(_watched))
    finally:
        _watched = None
    before = [{name: (value, _digest(value, dumps)) for name, value in place.items()} for _, place in places]
    initializer()
    for (key, place), known in zip(places, before, strict=True):
        for name, value in place.items():
            old, digest = known.get(name, (_ABSENT, b""))
            if old is not value or digest != _digest(value, dumps):
                _stored.setdefault(key, {})[name] = value


def filled(obj: types.FunctionType | type) -> None:
    """Take note that a function or a class was filled, and give it what the initializer has stored."""
    if _watched is not None:
        _watched.append(obj)
    elif _stored:
        if isinstance(obj, types.FunctionType):
            obj.__globals__.update(_stored.get(obj.__globals__.get("__name__", ""), {}))
        write = type.__setattr__ if isinstance(obj, type) else setattr
        for name, value in _stored.get(tracker.id_of(obj), {}).items():
            write(obj, name, value)


def forget() -> None:
    """Drop what another process's initializer has stored: called in a forked worker."""
    _stored.clear()


def _places(found: list[types.FunctionType | type]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    seen: set[int] = set()
    for obj in found:
        yield tracker.id_of(obj), vars(obj)
        if isinstance(obj, types.FunctionType) and id(obj.__globals__) not in seen:
            seen.add(id(obj.__globals__))
            yield obj.__globals__.get("__name__", ""), obj.__globals__


def _digest(value: Any, dumps: Callable[[Any], Sequence[Any]]) -> bytes:
    if isinstance(value, _CODE):
        return b""
    try:
        segments = dumps(value)
    except Exception:  # a connection, say: known by its identity
        return b""
    import hashlib  # not at the top: few workers have an initializer, and all must start fast

    digest = hashlib.blake2b()
    for segment in segments:
        digest.update(segment)
    return digest.digest()
