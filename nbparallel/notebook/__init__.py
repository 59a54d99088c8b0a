"""What only a notebook has: the magics, ``%config NBParallel``, and the running of whole notebooks.

`load` and `unload` are what ``%load_ext nbparallel`` and ``%unload_ext nbparallel`` call; `demo` is called by `cli`.
Everything here is a thin layer over the public functions of this package, and nothing outside of this folder and `cli`
imports it.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from traitlets import TraitError
from traitlets.config import Config

from nbparallel import config
from nbparallel.engine import process
from nbparallel.errors import NBParallelWarning
from nbparallel.notebook.comparing import ComparisonMagics
from nbparallel.notebook.completion import matcher
from nbparallel.notebook.files import FileMagics
from nbparallel.notebook.jobs import JobMagics
from nbparallel.notebook.maps import MapMagics
from nbparallel.notebook.settings import NBParallel
from nbparallel.notebook.workers import WorkerMagics

#: All magics; each class says by `words` what completes its lines.
FAMILY = (MapMagics, ComparisonMagics, JobMagics, FileMagics, WorkerMagics)

_configured: weakref.WeakSet[Any] = weakref.WeakSet()


def load(shell: Any) -> None:
    """Register the magics and ``%config NBParallel``, and get the workers' start ready in the background.

    Args:
        shell: the IPython shell; one that has them already gets them afresh, and once.
    """
    unload(shell)
    # All that `%config` has set stays in the shell's configuration: loaded again, that would undo what was set since.
    given = {"config": Config()} if shell in _configured else {}
    _configured.add(shell)
    try:
        settings = NBParallel(parent=shell, **given)
    except TraitError as error:  # what `%config` has refused stays in the shell's configuration all the same
        del shell.config[NBParallel.__name__]
        warnings.warn(f"{error}; the defaults stay as they were", NBParallelWarning, stacklevel=2)
        settings = NBParallel(parent=shell)
    shell.configurables.append(settings)
    words: dict[str, Iterable[str]] = {}
    for family in FAMILY:
        shell.register_magics(family(shell))
        words.update(family.words)
    shell.Completer.custom_matchers.append(matcher(words))
    start_method = config.settings().start_method
    threading.Thread(target=_prepare, args=(start_method,), name="nbparallel-prepare", daemon=True).start()


def unload(shell: Any) -> None:
    """Take back what `load` registered; warm workers stay until the kernel ends, for those who use `pmap`."""
    ours = {family.__name__: shell.magics_manager.registry.pop(family.__name__, None) for family in FAMILY}
    for table in shell.magics_manager.magics.values():
        for name in [name for name, function in table.items() if _belongs(function, ours)]:
            del table[name]
    # By name: a matcher of the package as it was before a reload is another object.
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if getattr(each, "__name__", "") != "complete_magic"]
    # A Magics object enters itself among the configurables.
    names = {*ours, NBParallel.__name__}
    shell.configurables[:] = [each for each in shell.configurables if type(each).__name__ not in names]


def _belongs(function: Any, ours: dict[str, Any]) -> bool:
    owner = getattr(function, "__self__", None)
    return owner is not None and any(owner is magics for magics in ours.values())


def _prepare(start_method: str) -> None:
    try:
        process.prepare(start_method)
    except OSError:
        # No process can be started at this moment. Nobody asked for one yet: the first map says so, if it's still so.
        return
