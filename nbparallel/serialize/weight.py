"""How heavy the things are that a function refers to; called when a unit turned out to be large."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from nbparallel.serialize import references
from nbparallel.serialize.units import dumps_data


def heavy_globals(function: Callable[..., Any], limit: int) -> list[tuple[str, int]]:
    """Return the globals and closure variables over `limit` bytes that `function` or its helpers refer to.

    Returns:
        Their names and pickled sizes in bytes, the heaviest first; empty for what is no plain function.
    """
    found: dict[str, int] = {}
    for name, value in _reachable(function, set()):
        size = sum(memoryview(segment).nbytes for segment in dumps_data(value).segments)
        if size > limit:
            found[name] = size
    return sorted(found.items(), key=lambda item: -item[1])


def _reachable(function: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    for name, value in {
        **references.referenced_globals(function),
        **references.closure_values(function),
    }.items():
        if isinstance(value, types.FunctionType):
            yield from _reachable(value, seen)
        elif not isinstance(value, (type, types.ModuleType)):
            yield name, value
