"""Exceptions that survive the journey: two-argument constructors, causes, notes, groups.

`BaseException` rebuilds itself by calling its class with ``args``, which fails for a class whose ``__init__`` takes
something else, and drops the cause. Called by `pickler`; the ``make_``/``fill_`` functions run on the other side.
"""

from __future__ import annotations

from typing import Any

from nbparallel.serialize.functions import Reduction


def reduce_exception(error: BaseException) -> Reduction:
    """Return a reduction that is known to rebuild `error`, tried here with its own constructor first."""
    reduction = error.__reduce_ex__(4)
    if not isinstance(reduction, tuple):
        return NotImplemented
    build, args, *rest = reduction
    own_state = rest[0] if rest else None
    state = {
        "state": own_state,
        "cause": error.__cause__,
        "context": None if error.__suppress_context__ else error.__context__,
        "suppress": error.__suppress_context__,
    }
    if not _rebuilds(build, args, error):
        bare_args = (type(error), error.args)
        return (make_bare, bare_args, {**state, "state": vars(error)}, None, None, fill_exception)
    return (build, args, state, None, None, fill_exception)


def _rebuilds(build: Any, args: Any, error: BaseException) -> bool:
    try:
        copy = build(*args)
    except Exception:
        return False
    return type(copy) is type(error) and len(copy.args) == len(error.args)


def make_bare(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    # Without __init__: BaseException.__new__ keeps the arguments.
    return cls.__new__(cls, *args)


def fill_exception(error: BaseException, state: dict[str, Any]) -> None:
    own_state = state["state"]
    if own_state is not None:
        setstate = getattr(error, "__setstate__", None)
        if setstate is not None:
            setstate(own_state)
        else:
            error.__dict__.update(own_state)
    error.__cause__ = state["cause"]
    error.__context__ = state["context"]
    error.__suppress_context__ = state["suppress"]
