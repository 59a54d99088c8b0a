"""What functions were when they were pickled, to be compared by identity: is a unit still current?

Called by `units`, for each map call, so it may take no more than a microsecond or two.
"""

from __future__ import annotations

import copyreg
import types
import weakref
from typing import Any

from nbparallel.serialize import modules, references
from nbparallel.serialize.pickler import registered_with_dill

_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None), range, type(...)})


class Snapshot:
    """What functions and their names were when they were pickled, to be compared by identity.

    It only exists for units all of whose parts are immutable, functions or modules.
    """

    __slots__ = ("_functions", "_held", "_named", "_reducers", "_savers")

    def __init__(self) -> None:
        # A function, its parts, its globals' names and their values: by id, because they may lead back to it.
        self._functions: list[tuple[weakref.ref[types.FunctionType], tuple[int, ...], Any, tuple[int, ...]]] = []
        self._held: list[Any] = []  # so that no id is used again; functions have an entry of their own
        self._named: list[Any] = []
        self._reducers = dict(copyreg.dispatch_table)
        self._savers = registered_with_dill()

    def add(self, function: types.FunctionType, names: tuple[str, ...]) -> None:
        parts = parts_of(function)
        values = [function.__globals__.get(name, _ABSENT) for name in names]
        self._held += [value for value in (*parts, *values) if type(value) is not types.FunctionType]
        self._held += [value for value in (*parts, *values) if modules.travels_by_name(value)]
        entry = (weakref.ref(function), tuple(map(id, parts)), names, tuple(map(id, values)))
        self._functions.append(entry)

    def add_named(self, obj: Any) -> None:
        """Take note that a function or a class was only named: its module may be imported again."""
        if obj.__module__ in modules.own_modules():
            self._named.append(obj)

    def holds(self) -> bool:
        if self._savers is not registered_with_dill() or self._reducers != copyreg.dispatch_table:
            return False
        if not all(map(modules.travels_by_name, self._named)):
            return False
        for ref, parts, names, values in self._functions:
            function = ref()
            if function is None or tuple(map(id, parts_of(function))) != parts:
                return False
            get = function.__globals__.get
            if tuple([id(get(name, _ABSENT)) for name in names]) != values:
                return False
        return True


_ABSENT = object()


def parts_of(function: types.FunctionType) -> tuple[Any, ...]:
    keywords = function.__kwdefaults__
    parts = (function.__code__, function.__defaults__, keywords, function.__doc__)
    if keywords:
        parts += tuple(keywords.values())
    if function.__closure__:
        parts += tuple(references.closure_values(function).values())
    return parts


def is_frozen(value: Any) -> bool:
    """Return whether `value` can't change, or is a function, which has an entry of its own in the snapshot."""
    cls = type(value)
    if cls in _ATOMS or cls is types.FunctionType:
        return True
    if cls is types.BuiltinFunctionType:  # also a bound method: `rows.append`
        return value.__self__ is None or isinstance(value.__self__, (types.ModuleType, type))
    if cls is types.ModuleType:
        return modules.is_importable(value.__name__) or value.__name__ == "__main__"
    if cls is tuple or cls is frozenset:
        return all(type(item) is not types.FunctionType and is_frozen(item) for item in value)
    return isinstance(value, type) and (value.__module__ == "builtins" or modules.travels_by_name(value))
