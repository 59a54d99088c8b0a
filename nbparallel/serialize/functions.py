"""Functions, their code and their closures by value: empty shells first, contents after.

A function's reduction holds nothing but its code and empty cells; its globals, defaults and cell contents are filled
in once the shell exists, so mutual recursion, self-reference and shared closure variables need no care. What wraps
functions (a class, ``lru_cache``, ``partial``) *claims* them: it is built of the shells, and their contents come after
it, because they may lead back to it. A function that travels in two units (as an argument and as a helper, say) is two
objects there, alike in all but identity; a class is one. Code objects and the shell itself are dill's. Called by
`pickler`; the ``make_``/``fill_`` functions run on the other side.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import initial, modules, references, tracker
from nbparallel.serialize.lazy import dill_module

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler

#: What a ``reducer_override`` returns: a reduction, or `NotImplemented` for the C pickler's own way.
Reduction = Any

_METADATA = ("__doc__", "__qualname__", "__module__", "__kwdefaults__", "__defaults__", "__type_params__")


class Step:
    """A call that the other side makes when its load gets here, on objects that exist but are not complete yet."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments


def reduce_step(pickler: Pickler, step: Step) -> Reduction:
    return (step.function, step.arguments)


# ---- functions ----------------------------------------------------------------------------------------------------


def reduce_function(pickler: Pickler, function: types.FunctionType) -> Reduction:
    if modules.travels_by_name(function):
        return NotImplemented
    token = pickler.token(function)
    if token is not None:
        return token
    cells = function.__closure__ or ()
    pickler.shell_cells.update(id(cell) for cell in cells)
    namespace = pickler.namespace(function.__globals__)
    shell = (function.__code__, namespace, function.__name__, cells or None, pickler.track(function))
    if not pickler.claim(function):  # its claimant fills it
        return (make_function, shell)
    return (make_function, shell, _state(pickler, function), None, None, fill_function)


def fillings(pickler: Pickler, functions: list[types.FunctionType]) -> list[Step]:
    """Return the steps that fill claimed functions; dunder methods first, which a load itself may call."""
    functions.sort(key=lambda function: not function.__name__.startswith("__"))
    return [Step(fill_function, function, _state(pickler, function)) for function in functions]


def functions_in(obj: Any) -> Iterator[types.FunctionType]:
    """Yield the functions without which `obj` can't be made: what a wrapper wraps, what a descriptor calls."""
    if isinstance(obj, types.FunctionType):
        yield obj
    elif isinstance(obj, (classmethod, staticmethod, types.MethodType)):
        yield from functions_in(obj.__func__)
    elif isinstance(obj, property):
        for part in (obj.fget, obj.fset, obj.fdel):
            yield from functions_in(part)
    elif isinstance(obj, (functools.partial, functools.cached_property)):
        yield from functions_in(obj.func)
    elif isinstance(obj, functools._lru_cache_wrapper):
        yield from functions_in(obj.__wrapped__)


def _state(pickler: Pickler, function: types.FunctionType) -> dict[str, Any]:
    shared = pickler.namespace(function.__globals__).module is not None
    values = {} if shared else references.referenced_globals(function)
    for name in references.guessed_names(function.__code__):
        if name in values and not pickler.can_write(values[name]):  # it was only a word
            del values[name]
    cells = [(cell, cell.cell_contents) for cell in function.__closure__ or () if not _is_empty(cell)]
    pickler.record_function(function, values)
    annotations = annotations_of(function)
    metadata = {name: getattr(function, name) for name in _METADATA if hasattr(function, name)}
    submodules = references.imported_submodules(function.__code__, [*values.values(), *(value for _, value in cells)])
    if not shared:
        values = {**references.hinted_globals(annotations, function.__globals__), **values}
    return {
        "globals": values,
        "cells": cells,
        "metadata": {**metadata, "__annotations__": annotations},
        "dict": function.__dict__,
        "submodules": submodules,
    }


def annotations_of(obj: Any) -> dict[str, Any]:
    """Return the annotations of a function, or those that a class has already: asking a class for them adds some."""
    try:
        found = vars(obj).get("__annotations__") if isinstance(obj, type) else obj.__annotations__
    except Exception:  # from 3.14 on they are evaluated when asked for, and may name what does not exist
        return {}
    return found if isinstance(found, dict) else {}


def make_function(
    code: types.CodeType, namespace: dict[str, Any], name: str, closure: Any, key: str
) -> types.FunctionType:
    function: types.FunctionType = dill_module()._create_function(code, namespace, name, None, closure)
    return tracker.adopt(function, key)  # type: ignore[no-any-return]


def fill_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    for module in state["submodules"]:
        importlib.import_module(module)
    function.__globals__.update(state["globals"])
    for cell, value in state["cells"]:
        cell.cell_contents = value
    for name, value in state["metadata"].items():
        setattr(function, name, value)
    function.__dict__.update(state["dict"])
    initial.filled(function)
    publish(function)


class _Publishing(threading.local):
    # Both only while a worker loads a unit: a result must never overwrite a variable of the notebook.
    active = False
    done: tuple[Any, ...] = ()


publishing = _Publishing()


def publish(obj: Any) -> None:
    """Give a worker's ``__main__`` what a cell defines, for code that looks a name up there (`typing`, `pickle`)."""
    if publishing.active and getattr(obj, "__module__", None) == "__main__":
        name = getattr(obj, "__name__", "")
        if name == getattr(obj, "__qualname__", None) and name.isidentifier():
            setattr(sys.modules["__main__"], name, obj)
            publishing.done += (obj,)


# ---- closure cells ------------------------------------------------------------------------------------------------


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading an empty cell raises
    except ValueError:
        return True
    return False


def reduce_cell(pickler: Pickler, cell: types.CellType) -> Reduction:
    # As a part of a function the cell travels empty: the function's state holds the contents.
    if id(cell) in pickler.shell_cells or _is_empty(cell):
        return (make_cell, ())
    return (make_cell, (), (cell.cell_contents,), None, None, fill_cell)


def make_cell() -> types.CellType:
    return types.CellType()


def fill_cell(cell: types.CellType, state: tuple[Any]) -> None:
    cell.cell_contents = state[0]


# ---- what wraps functions -----------------------------------------------------------------------------------------


def reduce_lru_cache(pickler: Pickler, wrapper: Any) -> Reduction:
    if modules.travels_by_name(wrapper):
        return NotImplemented
    token = pickler.token(wrapper)
    if token is not None:
        return token
    parameters = wrapper.cache_parameters()
    extra = {name: value for name, value in vars(wrapper).items() if name != "__wrapped__"}
    claimed = pickler.claim_all(functions_in(wrapper))
    shell = (wrapper.__wrapped__, parameters["maxsize"], parameters["typed"], pickler.track(wrapper))
    return (make_lru_cache, shell, (fillings(pickler, claimed), extra), None, None, fill_lru_cache)


def make_lru_cache(function: Any, maxsize: int | None, typed: bool, key: str) -> Any:
    return tracker.adopt(functools.lru_cache(maxsize, typed)(function), key)


def fill_lru_cache(wrapper: Any, state: tuple[Any, dict[str, Any]]) -> None:
    wrapper.__dict__.update(state[1])
    publish(wrapper)


def reduce_partial(pickler: Pickler, partial: functools.partial[Any]) -> Reduction:
    claimed = pickler.claim_all(functions_in(partial))
    if not claimed:
        return NotImplemented
    state = (fillings(pickler, claimed), (partial.func, partial.args, partial.keywords, vars(partial) or None))
    return (make_partial, (type(partial), partial.func), state, None, None, fill_partial)


def make_partial(cls: type[functools.partial[Any]], function: Any) -> functools.partial[Any]:
    return functools.partial.__new__(cls, function)


def fill_partial(partial: Any, state: tuple[Any, Any]) -> None:
    partial.__setstate__(state[1])


def reduce_cached_property(pickler: Pickler, prop: functools.cached_property[Any]) -> Reduction:
    # Its lock (before 3.12) can't travel, and guards nothing there.
    state = {name: value for name, value in vars(prop).items() if name != "lock"}
    return (make_cached_property, (type(prop),), state)


def make_cached_property(cls: type[functools.cached_property[Any]]) -> functools.cached_property[Any]:
    prop: Any = cls.__new__(cls)
    if sys.version_info < (3, 12):
        prop.lock = threading.RLock()
    return prop  # type: ignore[no-any-return]


REDUCERS: dict[type, Any] = {
    Step: reduce_step,
    types.FunctionType: reduce_function,
    types.CellType: reduce_cell,
    functools._lru_cache_wrapper: reduce_lru_cache,
    functools.partial: reduce_partial,
    functools.cached_property: reduce_cached_property,
}

#: Types whose subclasses are reduced as they are.
FAMILIES: dict[type, Any] = {
    functools.cached_property: reduce_cached_property,
}
