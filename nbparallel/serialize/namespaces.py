"""Where a function's globals are on the other side: a module that is imported there, or a dictionary made for it.

All functions of one namespace share one dictionary there, as they do here, and a module object that travels by value
has that very dictionary. Called by `pickler` and `functions`.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import modules
from nbparallel.serialize.functions import Reduction

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler

_OF_MODULE = frozenset({"__builtins__", "__loader__", "__spec__", "__cached__"})


class Namespace:
    """Stands for one module's globals in a pickle.

    Attributes:
        module: the name of the module to import, whose own globals are then used and nothing travels; or `None`.
    """

    def __init__(self, namespace: dict[str, Any], home: Home | None) -> None:
        self.names = {key: namespace[key] for key in ("__name__", "__package__") if isinstance(namespace.get(key), str)}
        self.home = home
        module = sys.modules.get(self.names.get("__name__", ""))
        found = isinstance(module, types.ModuleType) and vars(module) is namespace
        self.module = self.names["__name__"] if found and modules.is_importable(self.names["__name__"]) else None


class Home:
    """Stands for a module object that travels by value: on the other side it is that module, empty at first."""

    def __init__(self, module: types.ModuleType) -> None:
        self.name = module.__name__
        self.doc = module.__doc__


def owner_of(namespace: dict[str, Any]) -> types.ModuleType | None:
    """Return the module that has to travel by value and whose globals these are; `None` where there is no such."""
    name = namespace.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    return module if isinstance(module, types.ModuleType) and vars(module) is namespace else None


def reduce_namespace(pickler: Pickler, namespace: Namespace) -> Reduction:
    if namespace.module is not None:
        return (import_namespace, (namespace.module,))
    if namespace.home is not None:
        return (home_namespace, (namespace.home, namespace.names))
    return (make_namespace, (namespace.names,))


def reduce_home(pickler: Pickler, home: Home) -> Reduction:
    return (types.ModuleType, (home.name, home.doc))


def reduce_module(pickler: Pickler, module: types.ModuleType) -> Reduction:
    if module.__name__ == "__main__" or modules.is_importable(module.__name__):
        return (importlib.import_module, (module.__name__,))
    pickler.volatile = True  # its attributes may be set at any time
    contents = {name: value for name, value in vars(module).items() if name not in _OF_MODULE}
    return (make_module, (pickler.home(module),), contents, None, None, fill_module)


def import_namespace(module: str) -> dict[str, Any]:
    return vars(importlib.import_module(module))


def home_namespace(module: types.ModuleType, names: dict[str, str]) -> dict[str, Any]:
    vars(module).update(make_namespace(names))
    return vars(module)


def make_namespace(names: dict[str, str]) -> dict[str, Any]:
    return {"__builtins__": builtins, **names}


def make_module(home: types.ModuleType) -> types.ModuleType:
    return home


def fill_module(module: types.ModuleType, contents: dict[str, Any]) -> None:
    vars(module).update(contents)


REDUCERS: dict[type, Any] = {
    Namespace: reduce_namespace,
    Home: reduce_home,
    types.ModuleType: reduce_module,
}
