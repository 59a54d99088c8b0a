"""Pools, as in `multiprocessing.pool`: of processes, by this package, and of threads, by the standard module."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool

from nbparallel.pool import AsyncResult, IMapIterator, IMapUnorderedIterator, Pool

__all__ = ["AsyncResult", "IMapIterator", "IMapUnorderedIterator", "Pool", "ThreadPool"]
