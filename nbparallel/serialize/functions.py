"""Functions, their code and their closures by value: empty shells first, contents after.

A function's reduction holds nothing but its code and empty cells, and its globals, defaults and cell contents are
filled in once the shell exists: mutual recursion, self-reference and shared closure variables then need no care.
Code objects and the shell itself are dill's. Called by `pickler`; the ``make_``/``fill_`` functions run in the worker.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import modules, references, tracker

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler

#: What a ``reducer_override`` returns: a reduction, or `NotImplemented` for the C pickler's own way.
Reduction = Any

_METADATA = ("__doc__", "__qualname__", "__module__", "__kwdefaults__", "__defaults__", "__type_params__")


class Namespace:
    """Stands for one module's globals in a pickle, so that all its functions share one dictionary in the worker."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.names = {
            key: namespace[key] for key in ("__name__", "__package__") if isinstance(namespace.get(key), str)
        }

    def __reduce__(self) -> Reduction:
        return (make_namespace, (self.names,))


def make_namespace(names: dict[str, str]) -> dict[str, Any]:
    return {"__builtins__": builtins, **names}


def make_function(
    code: types.CodeType, namespace: dict[str, Any], name: str, closure: Any, key: str
) -> types.FunctionType:
    # dill._dill is heavy (some 30 ms): only a process that really rebuilds a function pays for it.
    from dill._dill import _create_function

    function: types.FunctionType = _create_function(code, namespace, name, None, closure)
    return tracker.adopt(function, key)  # type: ignore[no-any-return]


def fill_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    for module in state["submodules"]:
        importlib.import_module(module)
    namespace = function.__globals__
    for name, value in state["globals"].items():
        if isinstance(value, Later):
            value.assign(functools.partial(namespace.__setitem__, name))
        else:
            namespace[name] = value
    for cell, value in state["cells"]:
        if isinstance(value, Later):
            value.assign(functools.partial(setattr, cell, "cell_contents"))
        else:
            cell.cell_contents = value
    for name, value in state["metadata"].items():
        setattr(function, name, value)
    function.__dict__.update(state["dict"])
    publish(function)


def publish(obj: Any) -> None:
    """Give a worker's ``__main__`` what a cell defines, for code that looks a name up there (``typing``, ``pickle``)."""
    if obj.__module__ == "__main__" and obj.__qualname__ == obj.__name__ and obj.__name__.isidentifier():
        setattr(sys.modules["__main__"], obj.__name__, obj)


def make_cell() -> types.CellType:
    return types.CellType()


def fill_cell(cell: types.CellType, state: tuple[Any]) -> None:
    cell.cell_contents = state[0]


class Later:
    """Holds the place of an object that is still being built when a function that refers to it is filled.

    It happens when an object's constructor arguments lead back to it: a recursive ``lru_cache`` function refers to
    its wrapper, which can't exist before the function does. The loader puts the object in place at the end.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.assignments: list[Any] = []
        _loading.waiting.append(self)

    def assign(self, assignment: Any) -> None:
        self.assignments.append(assignment)


class Place:
    """Writes a `Later` into a pickle."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Reduction:
        return (Later, (self.number,))


class _Loading(threading.local):
    def __init__(self) -> None:
        self.waiting: list[Later] = []


_loading = _Loading()


def settle(objects: list[Any]) -> None:
    """Put the real objects where `Later` stood, at the end of a load."""
    waiting, _loading.waiting = _loading.waiting, []
    for later in waiting:
        for assignment in later.assignments:
            assignment(objects[later.number])


def reduce_function(pickler: Pickler, function: types.FunctionType) -> Reduction:
    if modules.travels_by_name(function):
        return NotImplemented
    token = pickler.token(function)
    if token is not None:
        return token
    cells = function.__closure__ or ()
    pickler.shell_cells.update(id(cell) for cell in cells)
    namespace = pickler.namespace(function.__globals__)
    key = pickler.track(function)
    values = references.referenced_globals(function)
    pickler.record_function(function, values)
    state = {
        "globals": {name: pickler.unless_open(value) for name, value in values.items()},
        "cells": [(cell, pickler.unless_open(cell.cell_contents)) for cell in cells if not _is_empty(cell)],
        "metadata": {name: getattr(function, name) for name in _METADATA if hasattr(function, name)},
        "dict": function.__dict__,
        "submodules": references.imported_submodules(
            function.__code__, iter([*values.values(), *references.closure_values(function).values()])
        ),
    }
    state["metadata"]["__annotations__"] = _annotations(function)
    shell = (function.__code__, namespace, function.__name__, cells or None, key)
    return (make_function, shell, state, None, None, fill_function)


def _annotations(function: types.FunctionType) -> dict[str, Any]:
    try:
        return function.__annotations__
    except NameError:  # from 3.14 on they are evaluated when asked for, and may name what does not exist
        return {}


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


def reduce_lru_cache(pickler: Pickler, wrapper: Any) -> Reduction:
    if modules.travels_by_name(wrapper):
        return NotImplemented
    token = pickler.token(wrapper)
    if token is not None:
        return token
    parameters = wrapper.cache_parameters()
    extra = {name: value for name, value in vars(wrapper).items() if name != "__wrapped__"}
    key = pickler.track(wrapper)
    pickler.opens(wrapper)
    return (make_lru_cache, (wrapper.__wrapped__, parameters["maxsize"], parameters["typed"], extra, key))


def make_lru_cache(function: Any, maxsize: int | None, typed: bool, extra: dict[str, Any], key: str) -> Any:
    wrapper = functools.lru_cache(maxsize, typed)(function)
    wrapper.__dict__.update(extra)
    return tracker.adopt(wrapper, key)


def reduce_partial(pickler: Pickler, partial: functools.partial[Any]) -> Reduction:
    pickler.opens(partial)
    return NotImplemented


def reduce_cached_property(pickler: Pickler, prop: functools.cached_property[Any]) -> Reduction:
    # Its lock (before 3.12) can't travel, and guards nothing there.
    return (make_cached_property, (prop.func, prop.attrname))


def make_cached_property(function: Any, attrname: str | None) -> functools.cached_property[Any]:
    prop = functools.cached_property(function)
    if attrname is not None:
        prop.__set_name__(object, attrname)
    return prop


def reduce_weak_dictionary(pickler: Pickler, mapping: Any) -> Reduction:
    return (type(mapping), (dict(mapping),))


def reduce_weak_set(pickler: Pickler, members: Any) -> Reduction:
    return (type(members), (list(members),))


def reduce_module(pickler: Pickler, module: types.ModuleType) -> Reduction:
    if module.__name__ == "__main__" or modules.is_importable(module.__name__):
        return (importlib.import_module, (module.__name__,))
    contents = {name: value for name, value in vars(module).items() if name not in _OF_MODULE}
    return (types.ModuleType, (module.__name__, module.__doc__), contents, None, None, fill_module)


def fill_module(module: types.ModuleType, contents: dict[str, Any]) -> None:
    vars(module).update(contents)


_OF_MODULE = frozenset({"__builtins__", "__loader__", "__spec__", "__cached__"})

REDUCERS: dict[type, Any] = {
    types.FunctionType: reduce_function,
    types.CellType: reduce_cell,
    types.ModuleType: reduce_module,
    functools._lru_cache_wrapper: reduce_lru_cache,
    functools.partial: reduce_partial,
    functools.cached_property: reduce_cached_property,
    weakref.WeakKeyDictionary: reduce_weak_dictionary,
    weakref.WeakValueDictionary: reduce_weak_dictionary,
    weakref.WeakSet: reduce_weak_set,
}
