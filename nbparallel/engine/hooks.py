"""Where a worker's logging, warnings, displays, bars and names are taken up, as the modules that make them arrive.

Called by `worker` as it starts, which costs it no import; what is then done is in `reports` and `inner`, imported when
the first such module is.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from nbparallel.engine import habits

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

#: Module to what takes it up: a module of this room and its function.
_HOOKS = {
    "logging": ("reports", "take_up_logging"),
    "IPython.core.display_functions": ("reports", "take_up_display"),
    "matplotlib.pyplot": ("reports", "take_up_figures"),
    "multiprocessing.resource_tracker": ("reports", "take_up_names"),
    "tqdm.std": ("inner", "take_up_tqdm"),
    "tqdm.notebook": ("inner", "take_up_notebook_tqdm"),
}


class _Finder:
    """Finds nothing by itself: it sees modules arrive."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _HOOKS:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                break
        else:
            return None
        loader: Any = spec.loader
        execute: Callable[[ModuleType], None] = loader.exec_module

        def execute_and_take_up(module: ModuleType) -> None:
            execute(module)
            _take_up(name, module)

        loader.exec_module = execute_and_take_up
        return spec


def install() -> None:
    """Take up what there is, and what arrives."""
    for name in _HOOKS:
        if name in sys.modules:  # in a fork of the notebook's process
            _take_up(name, sys.modules[name])
    sys.meta_path.insert(0, _Finder())
    _leave_the_keyboard()
    warnings.showwarning = warnings._showwarning_orig  # type: ignore[attr-defined]
    # Not `showwarning`, which belongs to the user; this is what stands beneath it, and what `catch_warnings` replaces.
    warnings._showwarnmsg_impl = _show_warning  # type: ignore[attr-defined]


def _leave_the_keyboard() -> None:
    """Have a fork ask nobody: a kernel's ways to ask would wait in it for an answer that only the kernel gets."""
    if isinstance(builtins.input, MethodType):
        builtins.input = _input
    getpass: Any = sys.modules.get("getpass")
    if getpass is not None and isinstance(getpass.getpass, MethodType):
        getpass.getpass = getpass.unix_getpass


def _input(prompt: object = "", /) -> str:
    """Read a line from standard input, as the built-in function does, which can't be had back."""
    sys.stdout.write(str(prompt))
    line = sys.stdin.readline()
    if not line:
        raise EOFError("EOF when reading a line")
    return line.removesuffix("\n")


def begin_run() -> None:
    """Let a warning that was shown in an earlier run be shown again, as IPython does at each cell."""
    global _warned
    if _warned:
        _warned = False
        habits.forget_warnings()


_warned = False


def _take_up(name: str, module: ModuleType) -> None:
    room, function = _HOOKS[name]
    getattr(importlib.import_module(f"nbparallel.engine.{room}"), function)(module)


def _show_warning(message: warnings.WarningMessage) -> None:
    global _warned
    _warned = True
    from nbparallel.engine import reports

    reports.report_warning(message)
