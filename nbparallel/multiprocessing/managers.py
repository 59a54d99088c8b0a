"""Managers, as in `multiprocessing.managers`, whose server process starts from a cell and holds what cells define."""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import managers as standard
from multiprocessing.managers import (
    ArrayProxy,
    AutoProxy,
    BarrierProxy,
    BaseProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    MakeProxyType,
    Namespace,
    NamespaceProxy,
    PoolProxy,
    RemoteError,
    Server,
    Token,
    ValueProxy,
)
from multiprocessing.util import get_temp_dir
from typing import Any

from nbparallel.multiprocessing import context
from nbparallel.multiprocessing.connection import Listener
from nbparallel.multiprocessing.proxies import AcquirerProxy, ConditionProxy, QueueProxy, client
from nbparallel.pool import Pool

__all__ = [
    "AcquirerProxy",
    "ArrayProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseManager",
    "BaseProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "MakeProxyType",
    "Namespace",
    "NamespaceProxy",
    "PoolProxy",
    "QueueProxy",
    "RemoteError",
    "Server",
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
standard.listener_client[SERIALIZER] = (Listener, client)


class BaseManager(standard.BaseManager):
    """Holds objects in a server process, for proxies in others; `register` adds kinds of them."""

    _address: Any

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

    def start(self, initializer: Callable[..., Any] | None = None, initargs: Any = ()) -> None:
        """Start the server process.

        Args:
            initializer: what it calls first.
            initargs: the arguments of that.
        """
        if self._address is None and sys.platform != "win32":
            # In this process's own folder, which is removed with it: the server's may be killed before it could.
            self._address = os.path.join(get_temp_dir(), f"listener-{next(tempfile._get_candidate_names())}")
        super().start(initializer, initargs)


class SyncManager(BaseManager, standard.SyncManager):
    """Holds lists, dictionaries, queues, locks and the like."""


SyncManager.register("Pool", Pool, PoolProxy)
for _name in ("Queue", "JoinableQueue"):
    SyncManager.register(_name, queue.Queue, QueueProxy)
for _name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore"):
    SyncManager.register(_name, getattr(threading, _name), AcquirerProxy)
SyncManager.register("Condition", threading.Condition, ConditionProxy)


class SharedMemoryManager(BaseManager, standard.SharedMemoryManager):
    """Looks after blocks of shared memory."""
