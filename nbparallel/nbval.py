"""A plugin of pytest: nbval compares a notebook's outputs, but not what its maps showed of their progress.

That differs from run to run: a summary names a time, and a run just under half a second shows nothing at all. pytest
loads this module by itself (`pyproject.toml`), so it imports nothing; without nbval it does nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any


def pytest_collection_modifyitems(items: Sequence[Any]) -> None:
    """Have each cell that nbval found compared without its bars."""
    for item in items:
        if type(item).__name__ == "IPyNbCell":
            item.compare_outputs = functools.partial(_compare, item.compare_outputs)


def _compare(compare: Callable[..., bool], test: Any, reference: Any, *args: Any, **options: Any) -> bool:
    return compare(_without_bars(test), _without_bars(reference), *args, **options)


def _without_bars(outputs: Sequence[Any]) -> list[Any]:
    # Each output of a bar says so in its metadata (`bars.METADATA`), and so does a run that is shown (`recorded`).
    return [output for output in outputs if "nbparallel" not in output.get("metadata", ())]
