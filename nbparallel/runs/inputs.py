"""What a map iterates over: slices of sequences, or items pulled as they are needed.

Made by `mapping` and `pool`; `execution` decides which thread pulls.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nbparallel.interrupts import deferred


class SequenceInput:
    """Inputs that are all there: each chunk is a slice.

    Args:
        columns: one sequence per argument; the shortest ends it, as in ``map``.
    """

    streams = False

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self._columns = columns
        self.total: int | None = min(len(column) for column in columns)

    def items(self, start: int, stop: int) -> Sequence[Any]:
        """Return inputs `start` to `stop`."""
        if len(self._columns) == 1:
            return self._columns[0][start:stop]
        return list(zip(*(column[start:stop] for column in self._columns), strict=False))

    def release(self, start: int, stop: int) -> None:
        """Nothing to release: the user's own sequences hold the items."""

    def take_back(self, index: int, item: Any) -> None:
        """Nothing to take back: none was released."""


class IteratorInput:
    """Inputs that are pulled one by one, and kept only until their outcome is known."""

    streams = True
    total: int | None = None

    def __init__(self, iterators: Sequence[Iterator[Any]]) -> None:
        self._pull = iterators[0] if len(iterators) == 1 else zip(*iterators, strict=False)
        self._items: dict[int, Any] = {}
        self._count = 0
        self._broken: BaseException | None = None
        self._lock = threading.Lock()

    def pull(self, count: int, step: int, seconds: float) -> tuple[int, bool]:
        """Take up to `count` items from the user's iterator.

        Args:
            count: no more than so many.
            step: what is taken in one go, even if it takes long.
            seconds: after so long, no further step is begun: the next item may take its time.

        Returns:
            How many there were, and whether the iterator is exhausted.

        Raises:
            BaseException: what the iterator raises; the items before it are kept.
            RuntimeError: it gives nothing after what it raised before, as a generator does: its other items are lost.
        """
        # An iterator serves one thread at a time; the user's own code is interrupted at once.
        with self._lock, deferred.lifted():
            began = time.perf_counter()
            for pulled in range(count):
                if pulled and pulled % step == 0 and time.perf_counter() - began >= seconds:
                    return pulled, False
                try:
                    self._items[self._count] = next(self._pull)
                except StopIteration:
                    if self._broken is not None:
                        told = f"the input gives no item after the {type(self._broken).__name__} in its own code"
                        raise RuntimeError(told) from self._broken
                    return pulled, True
                except BaseException as error:
                    self._broken = error
                    raise
                self._broken = None
                self._count += 1
            return count, False

    @property
    def pulled(self) -> int:
        """How many items were taken from the user's iterator."""
        return self._count

    def items(self, start: int, stop: int) -> Sequence[Any]:
        """Return inputs `start` to `stop`, which were pulled and not released."""
        return [self._items[index] for index in range(start, stop)]

    def release(self, start: int, stop: int) -> None:
        """Forget inputs whose outcome is known."""
        for index in range(start, stop):
            self._items.pop(index, None)

    def take_back(self, index: int, item: Any) -> None:
        """Keep an input again that was released: its task failed, and is to be run anew."""
        self._items[index] = item


Input = SequenceInput | IteratorInput


def make_input(iterables: Sequence[Iterable[Any]]) -> Input:
    """Return the inputs of a map over `iterables`.

    Lists are copied (not their items), so that one that is changed while a map runs in the background does not change
    the map; other collections, such as sets, mappings and pandas objects, give the items of their iteration.

    Raises:
        TypeError: one is not iterable.
    """
    columns = []
    for iterable in iterables:
        if isinstance(iterable, Iterator) or not hasattr(iterable, "__len__"):
            return IteratorInput([iterate(each) for each in iterables])
        columns.append(_column(iterable))
    return SequenceInput(columns)


def iterate(iterable: Any) -> Iterator[Any]:
    """Return an iterator, or raise TypeError for what can't have one."""
    if not hasattr(type(iterable), "__iter__") and not hasattr(type(iterable), "__getitem__"):
        raise TypeError(f"'{type(iterable).__name__}' object is not iterable")
    return iter(iterable)


def _column(iterable: Any) -> Sequence[Any]:
    if type(iterable) in (tuple, range, str, bytes):
        return iterable  # type: ignore[no-any-return]
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(iterable) is numpy.ndarray and iterable.ndim > 0:
        return iterable  # type: ignore[no-any-return]
    return list(iterable)
