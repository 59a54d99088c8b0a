"""Why something can't travel, in the user's own names, and what to do about it.

A failed pickle only says "cannot pickle 'X' object". This module looks for the X: it follows globals, closures,
attributes and items from the function down to the first thing that fails by itself. Called when pickling has failed.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import modules, references

if TYPE_CHECKING:
    from nbparallel.errors import SerializationError

#: The deepest path that is searched; beyond it the message names the last object reached.
MAX_DEPTH = 12

_SHARED = (
    "make queues, locks and values with nbparallel.multiprocessing, and make them arguments of a process, a pool or a "
    "map; within a message or a manager's objects, use a Manager()'s"
)
#: By the standard module's class.
_STAYING = {
    "BaseProcess": "a process that was started stays with who started it: keep it out of what the target of another "
    "refers to, such as `self`",
    "BaseManager": "a manager stays in the process that made it: pass what it holds (`manager.dict()`), and keep the "
    "manager itself out of what the function refers to, such as `self`",
}
_MENDS = {
    "sqlite3": "open the connection inside the function, or pass the path of the database",
    "psycopg": "open the connection inside the function",
    "sqlalchemy": "create the engine or session inside the function",
    "socket": "open the socket inside the function",
    "_socket": "open the socket inside the function",
    "ssl": "open the connection inside the function",
    "_thread": "a lock only works inside one process: leave it out, or let one task do the guarded work",
    "threading": "threads, locks and events only work inside one process: make them inside the function",
    "_contextvars": "a context variable lives in one process: pass its value",
    "_io": "open the file inside the function, or pass its path",
    "tempfile": "open the file inside the function, or pass its path",
    "tqdm": "leave the bar out of the function: pmap shows one of its own",
    "ipywidgets": "widgets live in the notebook's process: return what is to be shown instead",
    "IPython": "get_ipython() and the shell live in the notebook's process: leave them out of the function",
    "ipykernel": "the kernel's own objects stay in the notebook's process: leave them out of the function",
    "zmq": "open the socket inside the function",
    "multiprocessing": _SHARED,
    "nbparallel": "pools, executors and runs live in the notebook's process: leave them out of the function",
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

    too_deep = isinstance(error, RecursionError)
    path, culprit = _find(obj, dumps, root, set(), 0, too_deep)
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = f"{path} can't be sent to a worker: it is a {name} ({short_repr(culprit)}).\n"
    if too_deep:
        message += "It is nested too deep.\nMend: send it flat, as a list of its parts."
        return SerializationError(message, path)
    message += f"{type(error).__name__}: {error}"
    mend = _mend(culprit) or _mend_of_own_method(kind)
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
    obj: Any, dumps: Callable[[Any], object], path: str, seen: set[int], depth: int, names_only: bool
) -> tuple[str, Any]:
    seen.add(id(obj))
    if depth < MAX_DEPTH and not _mend(obj):
        for step, child in _children(obj):
            attribute = step[0] in ".["
            if id(child) not in seen and not (names_only and attribute) and _fails(child, dumps):
                arrow = step if attribute else f" → {step}"
                return _find(child, dumps, path + arrow, seen, depth + 1, names_only)
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
        guessed = references.guessed_names(obj.__code__)
        found = references.referenced_globals(obj)
        yield from ((name, value) for name, value in found.items() if name not in guessed)
        yield from references.closure_values(obj).items()
        defaults = obj.__defaults__ or ()
        names = obj.__code__.co_varnames[: obj.__code__.co_argcount][-len(defaults) :] if defaults else ()
        named = [*zip(names, defaults, strict=True), *(obj.__kwdefaults__ or {}).items()]
        yield from ((f"default of {name}", value) for name, value in named)
        yield from ((f".{name}", value) for name, value in obj.__dict__.items())
    elif isinstance(obj, (staticmethod, classmethod)):
        yield from _children(obj.__func__)
    elif isinstance(obj, property):
        for part in (obj.fget, obj.fset, obj.fdel):
            yield from _children(part)
    elif isinstance(obj, functools._lru_cache_wrapper):
        yield from _children(obj.__wrapped__)
    elif isinstance(obj, types.MethodType):
        yield from ((".__self__", obj.__self__), (".__func__", obj.__func__))
    elif isinstance(obj, type):
        if not modules.travels_by_name(obj) and obj.__module__ != "builtins":
            yield from ((f".{name}", value) for name, value in vars(obj).items())
            yield from ((f".{base.__name__}", base) for base in obj.__bases__)
    elif isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{short_repr(key)}]", value
            yield f"key {short_repr(key)}", key
    elif isinstance(obj, (list, tuple, set, frozenset, collections.deque)):
        yield from ((f"[{number}]", item) for number, item in enumerate(obj))
    elif not isinstance(obj, types.ModuleType):
        if isinstance(obj, functools.partial):
            yield from ((".func", obj.func), (".args", obj.args), (".keywords", obj.keywords))
        elif isinstance(obj, BaseException):
            yield from ((".args", obj.args), (".__cause__", obj.__cause__), (".__context__", obj.__context__))
        yield from ((f".{name}", value) for name, value in _attributes(obj))
        yield "its class", type(obj)


def _attributes(obj: Any) -> Iterator[tuple[str, Any]]:
    # Not by getattr: a property or __getattr__ of the user's may do anything.
    try:
        yield from object.__getattribute__(obj, "__dict__").items()
    except AttributeError:
        pass
    for cls in type(obj).__mro__:
        for name, slot in vars(cls).items():
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    yield name, slot.__get__(obj)
                except AttributeError:
                    continue


def _mend(culprit: Any) -> str:
    kind = type(culprit)
    if kind.__name__ in _MENDS:
        return _MENDS[kind.__name__]
    if isinstance(culprit, types.MethodType):
        return _mend(culprit.__self__)
    for cls in kind.__mro__:
        if cls.__module__.partition(".")[0] == "multiprocessing" and cls.__name__ in _STAYING:
            return _STAYING[cls.__name__]
    if kind.__module__.startswith("nbparallel.multiprocessing"):
        return _SHARED
    for cls in kind.__mro__:
        mend = _MENDS.get(cls.__module__.partition(".")[0])
        if mend:
            return mend
    return ""


def _mend_of_own_method(kind: type) -> str:
    """Say so if a class of the notebook has its own way of being pickled, which is then what fails."""
    for cls in kind.__mro__:
        if not modules.is_importable(cls.__module__):
            for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__"):
                if name in vars(cls):
                    return f"this comes from {cls.__qualname__}.{name}, which says how to send it: change that method"
    return ""
