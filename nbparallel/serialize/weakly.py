"""Entries that leave their table with the object that they are about.

By calls of C alone: an interrupt that arrives as a function of Python begins is raised in it, and Python drops what a
weak reference's callback raises. So do `weakref`'s own dictionaries.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, TypeVar

T = TypeVar("T")


def reference(obj: T, table: dict[Any, Any], key: Any) -> weakref.ref[T]:
    """Return a weak reference at whose end `key` leaves `table`, if it is there.

    Raises:
        TypeError: the object allows no weak reference.
    """
    return weakref.ref(obj, functools.partial(table.pop, key))  # called with the reference: the default
