"""What a worker must share with the notebook to behave as if the function had run in the cell.

The working folder, ``sys.path``, the environment variables, the interpreter's limits and what `habits` adds are
compared at each run and sent when they have changed. Called by `manager` (`current`) and `worker` (`apply`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from typing import Any

from nbparallel.engine import habits
from nbparallel.machine import BLAS_VARIABLES
from nbparallel.serialize import stamps


@dataclass(frozen=True)
class Environment:
    """One state of the notebook's process, as far as workers copy it.

    Attributes:
        modules: versions of the user's own modules; workers can't take these over, they are replaced instead.
    """

    folder: str | None
    path: tuple[Any, ...]  # an entry may be of any type: what is no text is ignored, as by the import system
    variables: dict[Any, Any]
    recursion_limit: int
    max_str_digits: int
    habits: habits.Habits
    modules: dict[str, tuple[int, int]]

    def outdates(self, before: Environment) -> bool:
        """Return whether a module that workers may have imported before is another version now."""
        return any(self.modules.get(name, version) != version for name, version in before.modules.items())

    def message(self) -> dict[str, Any]:
        """Return what a worker needs, as plain data."""
        return {
            "folder": self.folder,
            "path": ["" + entry for entry in self.path if isinstance(entry, str)],
            "variables": {key: value for key, value in os.environ.items() if key not in BLAS_VARIABLES},
            "authkey": bytes(multiprocessing.current_process().authkey),
            "recursion_limit": self.recursion_limit,
            "max_str_digits": self.max_str_digits,
            "habits": self.habits.message(),
        }


def current() -> Environment:
    """Return the present state; cheap enough for each submitted call (a few µs)."""
    try:
        folder = os.getcwd()
    except OSError:  # it was deleted: workers stay where they are
        folder = None
    # os.environ decodes every value at each look; the mapping beneath it compares at C speed.
    variables = dict(os.environ._data)  # type: ignore[attr-defined]
    return Environment(
        folder,
        tuple(sys.path),
        variables,
        sys.getrecursionlimit(),
        sys.get_int_max_str_digits(),
        habits.current(),
        dict(stamps(_edits_take_effect())),
    )


def apply(message: dict[str, Any]) -> None:
    """Take over the notebook's state, in a worker. Thread limits stay the worker's own."""
    if message["folder"] is not None:
        try:
            os.chdir(message["folder"])
        except OSError as error:
            print(f"nbparallel: a worker can't enter {message['folder']!r}: {error}", file=sys.stderr)
    if sys.path != list(message["path"]):
        sys.path[:] = message["path"]
        sys.path_importer_cache.clear()
    variables = message["variables"]
    for name in [name for name in os.environ if name not in variables and name not in BLAS_VARIABLES]:
        del os.environ[name]
    os.environ.update(variables)
    # What the standard module's children inherit: proxies of a Manager show it to its server.
    multiprocessing.current_process().authkey = message["authkey"]
    sys.setrecursionlimit(message["recursion_limit"])
    sys.set_int_max_str_digits(message["max_str_digits"])
    habits.apply(message["habits"])


def _edits_take_effect() -> bool:
    """Return whether IPython's autoreload is on, so that an edited module counts as changed here."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    if shell is None:
        return False
    magics = shell.magics_manager.registry.get("AutoreloadMagics")
    return bool(magics is not None and magics._reloader.enabled)
