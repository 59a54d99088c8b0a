"""What only a notebook has: the magics, ``%config NBParallel``, and the running of whole notebooks.

`load` and `unload` are what ``%load_ext nbparallel`` and ``%unload_ext nbparallel`` call; `demo` is called by `cli`.
Everything here is a thin layer over the public functions of this package, and nothing outside of this folder and `cli`
imports it.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

from traitlets import TraitError

from nbparallel import config
from nbparallel.engine import process
from nbparallel.errors import NBParallelWarning
from nbparallel.notebook.magics import ParallelMagics
from nbparallel.notebook.settings import NBParallel


def load(shell: Any) -> None:
    """Register the magics and ``%config NBParallel``, and get the workers' start ready in the background.

    Args:
        shell: the IPython shell; one that has them already gets them afresh, and once.
    """
    unload(shell)
    try:
        settings = NBParallel(parent=shell)
    except TraitError as error:  # what `%config` has refused stays in the shell's configuration all the same
        del shell.config[NBParallel.__name__]
        warnings.warn(f"{error}; the defaults stay as they were", NBParallelWarning, stacklevel=2)
        settings = NBParallel(parent=shell)
    shell.configurables.append(settings)
    magics = ParallelMagics(shell)
    shell.register_magics(magics)
    shell.Completer.custom_matchers.append(magics.complete_options)
    start_method = config.settings().start_method
    threading.Thread(target=_prepare, args=(start_method,), name="nbparallel-prepare", daemon=True).start()


def unload(shell: Any) -> None:
    """Take back what `load` registered; warm workers stay until the kernel ends, for those who use `pmap`."""
    magics = shell.magics_manager.registry.pop(ParallelMagics.__name__, None)
    for table in shell.magics_manager.magics.values():
        for name in [name for name, function in table.items() if _belongs(function, magics)]:
            del table[name]
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if not _belongs(matcher, magics)]
    # A Magics object enters itself among the configurables.
    ours = (ParallelMagics.__name__, NBParallel.__name__)
    shell.configurables[:] = [each for each in shell.configurables if type(each).__name__ not in ours]


def _belongs(function: Any, magics: Any) -> bool:
    return magics is not None and getattr(function, "__self__", None) is magics


def _prepare(start_method: str) -> None:
    try:
        process.prepare(start_method)
    except OSError:
        # No process can be started at this moment. Nobody asked for one yet: the first map says so, if it's still so.
        return
