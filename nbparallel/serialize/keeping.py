"""Pickles of results that outlive their kernel: data apart, the definitions that it needs apart, each once.

A pickled result names the notebook's classes and functions by their digests. When it is loaded, the notebook's own of
the same name is taken if it has the same digest, so that ``isinstance`` holds; else the kept definition is built.
Called by `checkpoints`, which keeps both and loads only what this user has signed.
"""

from __future__ import annotations

import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from nbparallel.serialize.functions import Reduction
from nbparallel.serialize.pickler import Pickler
from nbparallel.serialize.stable import Digester


class _ResultPickler(Pickler):
    def __init__(self, digester: Digester) -> None:
        super().__init__(None)
        self._digester = digester
        self.definitions: dict[bytes, Any] = {}

    def claim_all(self, found: Any) -> list[types.FunctionType]:
        return []  # each is kept apart

    def token(self, obj: Any) -> Reduction | None:
        key = self._digester.of_code(obj)
        self.definitions[key] = obj
        return (recall, (key, obj.__module__, obj.__qualname__))


def dumps(obj: Any, digester: Digester) -> tuple[bytes, dict[bytes, Any]]:
    """Pickle a result.

    Returns:
        The pickle, buffers included, and the definitions that it names, by digest.

    Raises:
        Exception: it can't be pickled.
    """
    pickler = _ResultPickler(digester)
    pickler.write(obj)
    return pickler.file.getvalue(), pickler.definitions


def dumps_definition(obj: Any) -> bytes:
    """Pickle a class or function with all that it refers to.

    Raises:
        Exception: something in it can't be pickled.
    """
    pickler = Pickler(None)
    pickler.write(obj)
    return pickler.file.getvalue()


class Shelf:
    """Where pickled results find their definitions again.

    Args:
        read: returns the pickle of a definition by its digest.
        digester: knows the notebook's own.
    """

    def __init__(self, read: Callable[[bytes], bytes], digester: Digester) -> None:
        self._read = read
        self._digester = digester
        self._found: dict[bytes, Any] = {}

    def loads(self, payload: bytes) -> Any:
        """Rebuild a result.

        Raises:
            Exception: it can't be rebuilt: a module is gone, say.
        """
        before, _open.shelf = _open.shelf, self
        try:
            return pickle.loads(payload)
        finally:
            _open.shelf = before

    def find(self, key: bytes, module: str, name: str) -> Any:
        """Return the notebook's definition of that name, if it is the same, else the kept one."""
        if key not in self._found:
            current = self._current(key, module, name)
            self._found[key] = pickle.loads(self._read(key)) if current is None else current
        return self._found[key]

    def _current(self, key: bytes, module: str, name: str) -> Any:
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        try:
            return found if found is not None and self._digester.of_code(found) == key else None
        except Exception:  # another thing of that name, which can't be pickled
            return None


class _Open(threading.local):
    shelf: Shelf | None = None


_open = _Open()


def recall(key: bytes, module: str, name: str) -> Any:
    """Return a definition, on behalf of a result that is being loaded."""
    assert _open.shelf is not None
    return _open.shelf.find(key, module, name)
