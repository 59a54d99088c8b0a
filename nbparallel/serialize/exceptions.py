"""Exceptions that survive the journey: two-argument constructors, causes, notes, groups; on the way back, frames.

`BaseException` rebuilds itself by calling its class with ``args``, which fails for a class whose ``__init__`` takes
something else, changes the message of one whose ``__init__`` makes it, and drops the cause. Here neither ``__init__``
nor ``__new__`` of a Python class is called. Called by `pickler`; the ``make_``/``fill_`` functions run on the other
side.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import frames
from nbparallel.serialize.functions import Reduction
from nbparallel.tracebacks import in_words

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler


def reduce_exception(pickler: Pickler, error: BaseException) -> Reduction:
    """Return a reduction that calls no constructor, unless the class has a ``__reduce__`` of its own."""
    cls = type(error)
    build: Callable[..., BaseException]
    args: tuple[Any, ...]
    if id(error) in pickler.stand_ins:
        build, args, own_state = make_stand_in, pickler.stand_ins[id(error)], None
    elif isinstance(cls.__reduce__, types.FunctionType) or isinstance(cls.__reduce_ex__, types.FunctionType):
        reduction = error.__reduce_ex__(5)
        if not isinstance(reduction, tuple):
            return reduction
        build, args, own_state = (*reduction, None)[:3]
    else:
        base = builtin_base(cls)
        _, base_args, *rest = base.__reduce__(error)
        if isinstance(error, BaseExceptionGroup):  # args are those of the class's own constructor
            base_args = (error.message, [ValueError()] if pickler.alone else list(error.exceptions))
        build, args = make_exception, (cls, base, base_args, error.args)
        own_state = {**_slots(error), **(rest[0] if rest and rest[0] else {})}
        if isinstance(error, NameError) and error.name is not None:  # for "Did you mean"
            own_state["name"] = error.name
    state = {
        "state": own_state,
        "cause": None if pickler.alone else error.__cause__,
        "context": None if pickler.alone or error.__suppress_context__ else error.__context__,
        "suppress": error.__suppress_context__,
    }
    if pickler.to_parent and error.__traceback__ is not None:
        state["frames"] = frames.describe(error.__traceback__)
    return (build, args, state, None, None, fill_exception)


def led_to(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception came of, directly or not: causes, contexts and members of groups."""
    found, seen = [error], {id(error)}
    while found:
        each = found.pop()
        members = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        for link in (each.__cause__, None if each.__suppress_context__ else each.__context__, *members):
            if link is not None and id(link) not in seen:
                seen.add(id(link))
                found.append(link)
                yield link


def words_of(error: BaseException, why: Exception) -> tuple[str, str, str, str]:
    """Return what `make_stand_in` needs, for an exception that can't travel."""
    return type(error).__qualname__, type(error).__module__, in_words(error)[0], str(why)


def make_stand_in(name: str, module: str, message: str, why: str) -> Exception:
    """Return an exception that looks like one that stayed in its process."""
    error: Exception = type(name, (Exception,), {"__module__": module})(message)
    error.add_note(f"It is shown in words, as it can't leave its process: {why}")
    return error


def builtin_base(cls: type[BaseException]) -> Any:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def _slots(error: BaseException) -> dict[str, Any]:
    return {
        name: getattr(error, name)
        for cls in type(error).__mro__
        if cls.__module__ != "builtins"
        for name, value in vars(cls).items()
        if isinstance(value, types.MemberDescriptorType) and hasattr(error, name)
    }


def make_exception(
    cls: type[BaseException], base: Any, base_args: tuple[Any, ...], args: tuple[Any, ...]
) -> BaseException:
    error: BaseException = base.__new__(cls, *base_args)
    # Some built-in classes set their attributes here (the errno, the code of an exit) and want their own arguments.
    with contextlib.suppress(TypeError):
        base.__init__(error, *base_args)
    object.__setattr__(error, "args", args)  # past the __setattr__ of a frozen dataclass
    return error


def fill_exception(error: BaseException, state: dict[str, Any]) -> None:
    own_state = state["state"]
    if own_state is not None:
        if isinstance(type(error).__setstate__, types.FunctionType):
            error.__setstate__(own_state)
        else:
            parts = own_state if isinstance(own_state, tuple) else (own_state,)
            for name, value in ((name, part[name]) for part in parts if part for name in part):
                try:
                    object.__setattr__(error, name, value)
                except AttributeError:  # a property of the same name
                    error.__dict__[name] = value
    object.__setattr__(error, "__cause__", state["cause"])
    object.__setattr__(error, "__context__", state["context"])
    object.__setattr__(error, "__suppress_context__", state["suppress"])
    BaseException.with_traceback(error, frames.rebuild(state.get("frames")))
