"""Which modules a worker can import, so that what lives in them may travel by name instead of by value.

Also the stamps of the user's own modules: a module that was edited and reloaded here makes the workers that imported
it out of date. Called by the reducers, and by the engine's environment.
"""

from __future__ import annotations

import functools
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any

_importable: dict[str, tuple[ModuleType, bool]] = {}


def is_importable(name: str | None) -> bool:
    """Return whether a worker, given this process's ``sys.path``, finds the same module under `name`."""
    if name is None or name in ("__main__", "__mp_main__"):
        return False
    module = sys.modules.get(name)
    if not isinstance(module, ModuleType):
        return False
    known = _importable.get(name)
    if known is None or known[0] is not module:
        known = _importable[name] = (module, _can_find(name, module))
    return known[1]


def travels_by_name(obj: Any) -> bool:
    """Return whether `obj` (a class or a function) is what its module has under its qualified name."""
    name = getattr(obj, "__module__", None)
    if name is None or not is_importable(name):
        return False
    found: Any = sys.modules[name]
    try:
        for part in obj.__qualname__.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is obj


def _can_find(name: str, module: ModuleType) -> bool:
    if name in sys.builtin_module_names:
        return True
    parent, _, tail = name.rpartition(".")
    if parent and not is_importable(parent):
        return False
    if parent and getattr(sys.modules[parent], tail, None) is module and _name_in_spec(module) != name:
        return True  # its parent makes it when it is imported: os.path, collections.abc
    path = getattr(sys.modules[parent], "__path__", None) if parent else None
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        found = None if find_spec is None else find_spec(name, path)
        if found is not None:
            # The same name may lead elsewhere: a module loaded from a path that is not on sys.path.
            origin = getattr(getattr(module, "__spec__", None), "origin", None)
            return _name_in_spec(module) is not None and (
                found.origin is None or origin is None or found.origin == origin
            )
    return False


def _name_in_spec(module: ModuleType) -> str | None:
    return getattr(getattr(module, "__spec__", None), "name", None)


@functools.cache
def _installed_prefixes() -> tuple[str, ...]:
    import site  # neither at the top: only the parent asks
    import sysconfig

    paths = sysconfig.get_paths()
    roots = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    roots.add(site.getusersitepackages())
    roots.add(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return tuple(os.path.join(os.path.realpath(root), "") for root in roots)


_own_modules: dict[str, str] = {}
_scanned: tuple[int, str] = (0, "")
_stamps: dict[str, tuple[Any, tuple[int, int]]] = {}


def own_modules() -> dict[str, str]:
    """Return the user's own imported modules (name to file): those outside the installed libraries."""
    global _scanned
    now = (len(sys.modules), next(reversed(sys.modules)))  # one may be dropped and another imported
    if now != _scanned:
        _scanned = now
        _own_modules.clear()
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if (
                isinstance(file, str)
                and file.endswith(".py")
                and name not in ("__main__", "__mp_main__")
                and not os.path.realpath(file).startswith(_installed_prefixes())
            ):
                _own_modules[name] = file
    return _own_modules


def own_file(name: str) -> str | None:
    """Return the file of one of the user's own modules, imported here or not; `None` for any other module."""
    if name in sys.modules or name.partition(".")[0] in sys.stdlib_module_names:
        return own_modules().get(name)
    # Not by `importlib.util.find_spec`, which imports the packages on the way.
    find_spec = importlib.machinery.PathFinder.find_spec
    parts = name.split(".")
    path = None
    for depth in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    file = spec.origin if spec is not None else None
    if file is None or not file.endswith(".py") or os.path.realpath(file).startswith(_installed_prefixes()):
        return None
    return file


def stamps(follow_edits: bool) -> dict[str, tuple[int, int]]:
    """Return the version (mtime in ns, size in bytes) of each of the user's own modules as this process runs it.

    Args:
        follow_edits: whether an edit on disk takes effect here by itself (``%autoreload 2``); without it, a module's
            version changes only when it is reloaded here, which gives it a new ``__spec__``.
    """
    now: dict[str, tuple[int, int]] = {}
    for name, file in list(own_modules().items()):
        spec = getattr(sys.modules.get(name), "__spec__", None)
        known = _stamps.get(name)
        if known is None or follow_edits or known[0] is not spec:
            try:
                status = os.stat(file)
            except OSError:
                continue  # a module whose file is gone keeps running here, and can't be imported anew
            known = _stamps[name] = (spec, (status.st_mtime_ns, status.st_size))
        now[name] = known[1]
    return now
