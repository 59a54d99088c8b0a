"""Managers, as in `multiprocessing.managers`, whose server process starts from a cell and holds what cells define."""

from __future__ import annotations

from multiprocessing import managers as standard
from multiprocessing.managers import (
    AcquirerProxy,
    AutoProxy,
    BarrierProxy,
    BaseProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    ListProxy,
    MakeProxyType,
    Namespace,
    NamespaceProxy,
    PoolProxy,
    RemoteError,
    Token,
    ValueProxy,
)
from typing import Any

from nbparallel.multiprocessing import context
from nbparallel.multiprocessing.connection import Client, Listener
from nbparallel.pool import Pool

__all__ = [
    "AcquirerProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseManager",
    "BaseProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "ListProxy",
    "MakeProxyType",
    "Namespace",
    "NamespaceProxy",
    "PoolProxy",
    "RemoteError",
    "SharedMemoryManager",
    "SyncManager",
    "Token",
    "ValueProxy",
]


class _Serializer(str):
    """The name under which a proxy finds the connections below: a process that loads one knows of them then."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_serializer, ())


def _serializer() -> _Serializer:
    return SERIALIZER


SERIALIZER = _Serializer("nbparallel")
standard.listener_client[SERIALIZER] = (Listener, Client)


class BaseManager(standard.BaseManager):
    """Holds objects in a server process, for proxies in others; `register` adds kinds of them."""

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = SERIALIZER,
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        super().__init__(address, authkey, serializer, ctx or context.default, shutdown_timeout=shutdown_timeout)


class SyncManager(BaseManager, standard.SyncManager):
    """Holds lists, dictionaries, queues, locks and the like."""


SyncManager.register("Pool", Pool, PoolProxy)


class SharedMemoryManager(BaseManager, standard.SharedMemoryManager):
    """Looks after blocks of shared memory."""
