"""Where tasks go: the registry of backends, each one small file, imported when it is first used.

Called by the front. A backend implements `engine.work.Backend`; those below are kept warm, one set of workers per
configuration, until `shutdown` or the end of the process.
"""

from __future__ import annotations

import atexit
import importlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbparallel.engine.work import Backend

#: Name to module; each has a function ``open_backend(workers, start_method)``, which returns a warm `Backend`.
_MODULES = {
    "processes": "nbparallel.backends.processes",
    "threads": "nbparallel.backends.threads",
    "serial": "nbparallel.backends.serial",
    "pathos": "nbparallel.backends.pathos",
}

_lock = threading.Lock()
_warm: dict[tuple[object, ...], Backend] = {}


def names() -> list[str]:
    """Return the names of all backends, the default first."""
    return list(_MODULES)


def check(name: str) -> str:
    """Return `name` if it is a backend.

    Raises:
        ValueError: it is none; the message lists those there are.
        TypeError: it is no string.
    """
    if not isinstance(name, str):
        raise TypeError(f"backend must be one of the names {', '.join(_MODULES)}, not {name!r}")
    if name not in _MODULES:
        raise ValueError(f"unknown backend {name!r}; known: {', '.join(_MODULES)}")
    return name


def get(name: str, workers: int, start_method: str) -> Backend:
    """Return the warm backend for a configuration, started if need be.

    Raises:
        ValueError: there is no such backend.
        BackendUnavailable: it needs a package that is not installed.
    """
    module = importlib.import_module(_MODULES[check(name)])
    key = (os.getpid(), name, *module.configuration(workers, start_method))
    with _lock:
        backend = _warm.get(key)
        if backend is None or not backend.usable:
            backend = _warm[key] = module.open_backend(workers, start_method)
        return backend


def open_fresh(name: str, workers: int, start_method: str) -> Backend:
    """Return a backend of the caller's own, which starts its workers when they are first needed.

    Raises:
        BackendUnavailable: it needs a package that is not installed.
    """
    backend: Backend = importlib.import_module(_MODULES[check(name)]).open_backend(workers, start_method)
    return backend


def warm() -> dict[tuple[object, ...], Backend]:
    """Return the backends that are kept, by configuration (process id, name, and what else tells them apart)."""
    return {key: backend for key, backend in _warm.items() if key[0] == os.getpid() and backend.usable}


def shutdown(*, abort: bool = True) -> None:
    """Let all warm workers go, and what started them; the next map starts new ones. Those of pools and jobs stay.

    Args:
        abort: end what is under way, instead of waiting for it.
    """
    with _lock:
        mine = [backend for key, backend in _warm.items() if key[0] == os.getpid()]
        _warm.clear()
    for backend in mine:
        backend.shutdown(abort=abort)
    from nbparallel.engine import process

    process.close_nursery(spare_workers=True)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(shutdown)
