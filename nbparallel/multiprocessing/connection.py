"""Pipes, listeners and clients, as in `multiprocessing.connection`, that carry what cells define."""

from __future__ import annotations

import sys
from multiprocessing import connection as standard
from multiprocessing.connection import (
    answer_challenge,
    deliver_challenge,
    wait,
)
from multiprocessing.reduction import ForkingPickler
from typing import Any

from nbparallel.multiprocessing.messages import dumps, loads
from nbparallel.tracebacks import hidden

__all__ = ["Client", "Listener", "Pipe", "answer_challenge", "deliver_challenge", "wait"]


class _Carrying:
    """A connection whose messages may be instances of classes, or functions, of a cell."""

    def send(self: Any, obj: Any) -> None:
        """Send an object.

        Raises:
            SerializationError: it can't travel; nothing was sent.
            OSError: the connection is closed, or only for reading.
        """
        with hidden:
            self._check_closed()
            self._check_writable()
            self._send_bytes(dumps(obj))

    def recv(self: Any) -> Any:
        """Return the next object.

        Raises:
            EOFError: nothing is left, and the other end was closed.
            OSError: the connection is closed, or only for writing.
        """
        with hidden:
            self._check_closed()
            self._check_readable()
            return loads(self._recv_bytes().getbuffer())


class Connection(_Carrying, standard.Connection):
    """One end of a pipe."""


_CARRYING: dict[type, type] = {standard.Connection: Connection}

if sys.platform == "win32":

    class PipeConnection(_Carrying, standard.PipeConnection):
        """One end of a named pipe."""

    _CARRYING[standard.PipeConnection] = PipeConnection


def adopt(connection: Any) -> Any:
    """Make a connection of the standard module carry what cells define, and return it."""
    connection.__class__ = _CARRYING.get(type(connection), type(connection))
    return connection


def _rebuild(rebuild: Any, arguments: tuple[Any, ...]) -> Any:
    return adopt(rebuild(*arguments))


def _reduce(connection: Any) -> Any:
    reduce = ForkingPickler._extra_reducers[type(connection).__mro__[2]]
    rebuild, arguments = reduce(connection)
    return (_rebuild, (rebuild, arguments))


for _kind in _CARRYING.values():
    ForkingPickler.register(_kind, _reduce)


def Pipe(duplex: bool = True) -> tuple[Any, Any]:  # noqa: N802 - the standard module's name
    """Return two connected ends.

    Args:
        duplex: whether both can send; else the first only receives and the second only sends.
    """
    first, second = standard.Pipe(duplex)
    return adopt(first), adopt(second)


class Listener(standard.Listener):
    """Waits for clients at an address."""

    def accept(self) -> Any:
        """Return the connection of the next client."""
        return adopt(super().accept())


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Any:  # noqa: N802
    """Return a connection to a listener."""
    return adopt(standard.Client(address, family, authkey))
