"""Numbers and arrays in shared memory, as in `multiprocessing.sharedctypes`, whose locks any process can be given."""

from __future__ import annotations

from multiprocessing import sharedctypes as standard
from multiprocessing.sharedctypes import (
    RawArray,
    RawValue,
    Synchronized,
    SynchronizedArray,
    SynchronizedBase,
    SynchronizedString,
    copy,
)
from typing import Any

from nbparallel.multiprocessing.synchronize import SHARING

__all__ = [
    "Array",
    "RawArray",
    "RawValue",
    "Synchronized",
    "SynchronizedArray",
    "SynchronizedBase",
    "SynchronizedString",
    "Value",
    "copy",
    "synchronized",
]


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:  # noqa: N802
    """Return a number, or a structure, in shared memory; with a lock, unless that is `False`."""
    return standard.Value(typecode_or_type, *args, lock=lock, ctx=SHARING)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:  # noqa: N802
    """Return an array in shared memory; with a lock, unless that is `False`."""
    return standard.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=SHARING)


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Return a wrapper of an object in shared memory that has a lock."""
    return standard.synchronized(obj, lock, SHARING)
