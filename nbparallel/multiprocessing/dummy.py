"""Threads in the shape of processes: the standard module's own, which needs nothing more in a cell."""

from __future__ import annotations

from multiprocessing.dummy import *  # noqa: F403
from multiprocessing.dummy import Array, Namespace, Value, dict, list, shutdown  # noqa: F401 - not in its `__all__`
