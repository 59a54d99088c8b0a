"""Why something can't travel, in the user's own names, and what to do about it.

A failed pickle only says "cannot pickle 'X' object". This module looks for the X: it follows globals, closures,
attributes and items from the function down to the first thing that fails by itself. Called when pickling has failed.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import modules, references

if TYPE_CHECKING:
    from nbparallel.errors import SerializationError

#: The deepest path that is searched; beyond it the message names the last object reached.
MAX_DEPTH = 12

_MENDS = {
    "sqlite3": "open the connection inside the function, or pass the path of the database",
    "psycopg": "open the connection inside the function",
    "sqlalchemy": "create the engine or session inside the function",
    "socket": "open the socket inside the function",
    "_socket": "open the socket inside the function",
    "ssl": "open the connection inside the function",
    "_thread": "a lock only works inside one process: leave it out, or let one task do the guarded work",
    "threading": "threads, locks and events only work inside one process: make them inside the function",
    "_io": "open the file inside the function, or pass its path",
    "tempfile": "open the file inside the function, or pass its path",
    "tqdm": "leave the bar out of the function: pmap shows one of its own",
    "ipywidgets": "widgets live in the notebook's process: return what is to be shown instead",
    "IPython": "get_ipython() and the shell live in the notebook's process: leave them out of the function",
    "ipykernel": "the kernel's own objects stay in the notebook's process: leave them out of the function",
    "zmq": "open the socket inside the function",
    "asyncio": "event loops and their tasks stay in their process: start the loop inside the function",
    "generator": "turn the generator into a list first, or make it inside the function",
    "frame": "tracebacks and frames stay in their process: pass their text",
    "traceback": "tracebacks and frames stay in their process: pass their text",
}


def explain(error: BaseException, obj: Any, dumps: Callable[[Any], object], root: str) -> SerializationError:
    """Return the error to raise instead of `error`, which came from pickling `obj`.

    Args:
        error: what the pickler raised.
        obj: what was being pickled.
        dumps: pickles one object the same way; only whether it raises counts.
        root: what the user calls `obj`: a function's name, or "argument 3".
    """
    # Not at the top: a worker imports this module at its start, and never explains.
    from nbparallel.errors import SerializationError, short_repr

    path, culprit = _find(obj, dumps, root, set(), 0)
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    mend = _mend(culprit)
    reason = f"{type(error).__name__}: {error}"
    message = f"{path} can't be sent to a worker: it is a {name} ({short_repr(culprit)}).\n{reason}"
    if mend:
        message += f"\nMend: {mend}."
    return SerializationError(message, path)


def name_of(obj: Any) -> str:
    """Return what the user would call a callable."""
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if isinstance(name, str):
        return name.rsplit("<locals>.", 1)[-1]
    inner = getattr(obj, "func", None)  # functools.partial
    return name_of(inner) if callable(inner) else type(obj).__qualname__


def _find(
    obj: Any, dumps: Callable[[Any], object], path: str, seen: set[int], depth: int
) -> tuple[str, Any]:
    seen.add(id(obj))
    if depth < MAX_DEPTH:
        for step, child in _children(obj):
            if id(child) not in seen and _fails(child, dumps):
                arrow = f" → {step}" if step[0] not in ".[" else step
                return _find(child, dumps, path + arrow, seen, depth + 1)
    return path, obj


def _fails(obj: Any, dumps: Callable[[Any], object]) -> bool:
    try:
        dumps(obj)
    except Exception:
        return True
    return False


def _children(obj: Any) -> Iterator[tuple[str, Any]]:
    from nbparallel.errors import short_repr

    if isinstance(obj, types.FunctionType):
        if modules.travels_by_name(obj):
            return
        yield from references.referenced_globals(obj).items()
        yield from references.closure_values(obj).items()
        for number, value in enumerate(obj.__defaults__ or ()):
            yield f"default {number}", value
        yield from ((f"default of {name}", value) for name, value in (obj.__kwdefaults__ or {}).items())
        yield from obj.__dict__.items()
    elif isinstance(obj, types.MethodType):
        yield from ((".__self__", obj.__self__), (".__func__", obj.__func__))
    elif isinstance(obj, type):
        if not modules.travels_by_name(obj) and obj.__module__ != "builtins":
            yield from ((f".{name}", value) for name, value in vars(obj).items())
    elif isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{short_repr(key)}]", value
            yield "key", key
    elif isinstance(obj, (list, tuple, set, frozenset)):
        yield from ((f"[{number}]", item) for number, item in enumerate(obj))
    elif isinstance(obj, (staticmethod, classmethod)):
        yield ".__func__", obj.__func__
    elif isinstance(obj, property):
        yield from ((f".{name}", getattr(obj, name)) for name in ("fget", "fset", "fdel"))
    elif not isinstance(obj, types.ModuleType):
        inner = getattr(obj, "func", None)
        if inner is not None:
            yield from ((".func", inner), (".args", getattr(obj, "args", None)))
        wrapped = getattr(obj, "__wrapped__", None)
        if wrapped is not None:
            yield ".__wrapped__", wrapped
        yield from ((f".{name}", value) for name, value in _attributes(obj).items())


def _attributes(obj: Any) -> dict[str, Any]:
    found = dict(getattr(obj, "__dict__", {}))
    for cls in type(obj).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if isinstance(name, str) and hasattr(obj, name):
                found.setdefault(name, getattr(obj, name))
    return found


def _mend(culprit: Any) -> str:
    kind = type(culprit)
    if kind.__name__ in _MENDS:
        return _MENDS[kind.__name__]
    if isinstance(culprit, types.MethodType):
        return _mend(culprit.__self__)
    for cls in kind.__mro__:
        mend = _MENDS.get(cls.__module__.partition(".")[0])
        if mend:
            return mend
    return ""
