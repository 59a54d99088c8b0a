"""How a function is made ready for processes of its own: as a unit of code, with a word about what is heavy in it.

What the backends `processes` and `pathos` share.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from nbparallel.errors import NBParallelWarning, SerializationError
from nbparallel.serialize import Unit, attempt, explain, heavy_globals, name_of, unit_of
from nbparallel.tracebacks import stacklevel

#: A function that refers to more than this, in bytes, is remarked upon once.
LARGE_BYTES = 10_000_000


class Shipping:
    """Prepares functions, and remembers what it has remarked upon."""

    def __init__(self) -> None:
        self._remarked: set[tuple[str, str]] = set()

    def prepare(self, function: Callable[..., Any]) -> Unit:
        """Return the unit of a function in its present version.

        Raises:
            SerializationError: it can't travel.
        """
        try:
            unit = unit_of(function)
        except SerializationError:
            raise
        except Exception as error:
            raise explain(error, function, attempt, name_of(function)) from error
        if unit.nbytes > LARGE_BYTES:
            self._remark(function)
        return unit

    def _remark(self, function: Callable[..., Any]) -> None:
        for name, size in heavy_globals(function, LARGE_BYTES):
            if (name_of(function), name) not in self._remarked:
                self._remarked.add((name_of(function), name))
                warnings.warn(
                    f"{name_of(function)} refers to {name}, {size / 1e6:.0f} MB, which is copied to every worker "
                    "(once per change of it)",
                    NBParallelWarning,
                    stacklevel=stacklevel(),
                )
