"""Pools, as in `multiprocessing.pool`: of processes, by this package, and of threads, by the standard module."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool

from nbparallel.pool import AsyncResult, IMapIterator, IMapUnorderedIterator, Pool

#: The names that the standard module has for what its methods return.
ApplyResult = MapResult = AsyncResult

__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult", "Pool", "ThreadPool"]
