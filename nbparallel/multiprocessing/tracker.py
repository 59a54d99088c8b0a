"""The standard module's resource tracker, which a family of processes shares: started when one of them needs it.

It removes the names of shared memory that nobody has removed, once all who know it have ended. Each child of the
standard module is given it at birth. Here a child asks its parent for it, over its connection: few need it, and a
kernel that has one takes two seconds longer to shut down. Called by `child` (`share`) and `keeper` (`descriptor`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import Any

from nbparallel.engine.wire import Channel
from nbparallel.serialize.handover import Descriptors


def descriptor() -> Descriptors:
    """Return the tracker's descriptor, to be sent; it is started if there is none."""
    found = Descriptors()
    found.numbers.append(os.dup(resource_tracker.getfd() or -1))
    return found


def share(channel: Channel) -> None:
    """Have this process ask its parent for the tracker when it first needs it.

    Args:
        channel: the connection, on which nothing else arrives.
    """
    tracker: Any = resource_tracker._resource_tracker
    lock = threading.Lock()

    def fetching(method: Callable[..., Any]) -> Callable[..., Any]:
        def fetch_and_call(*args: Any) -> Any:
            with lock:
                if tracker._fd is None:
                    channel.send(("tracker",))
                    (_, count), _ = channel.receive()
                    (tracker._fd,) = channel.take(count)
            return method(*args)

        return fetch_and_call

    # Each of them starts it, by itself or by another one, as versions of Python differ.
    for name in ("ensure_running", "getfd", "_send"):
        setattr(tracker, name, fetching(getattr(tracker, name)))
    resource_tracker.ensure_running, resource_tracker.getfd = tracker.ensure_running, tracker.getfd
