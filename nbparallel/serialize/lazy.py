"""dill, imported when the first code travels: that takes some 30 ms, and not every process needs it."""

from __future__ import annotations

import functools
from typing import Any

from nbparallel.interrupts import deferred, uncut


@functools.cache
def dill_module() -> Any:
    """Return ``dill._dill``."""
    with deferred, uncut:  # dill's own import would swallow an interrupt, and fail of it
        import dill._dill
    return dill._dill
