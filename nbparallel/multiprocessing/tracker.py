"""The standard module's resource tracker, which a family of processes shares: started when one of them needs it.

It removes the names of shared memory that nobody has removed, once all who know it have ended. Each child of the
standard module is given it at birth. Here a child asks its parent for it, over its connection, as few need it.

It is in a process group of its own. Jupyter ends all of a kernel's group: at a shutdown politely, which the tracker
ignores, and that takes two seconds and then costs the kernel its orderly end; or by one kill, which leaves the names.
Called by the package as it is imported (`keep_apart`), `child` (`share`) and `keeper` (`descriptor`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker, spawn
from multiprocessing.util import _args_from_interpreter_flags
from typing import Any

from nbparallel.engine.wire import Channel
from nbparallel.serialize.handover import Descriptors

_tracker: Any = resource_tracker._resource_tracker


def descriptor() -> Descriptors:
    """Return the tracker's descriptor, to be sent; it is started if there is none."""
    found = Descriptors()
    found.numbers.append(os.dup(resource_tracker.getfd() or -1))
    return found


def share(channel: Channel) -> None:
    """Have this process ask its parent for the tracker when it first needs it; a fork may have inherited it.

    Args:
        channel: the connection, on which nothing else arrives.
    """

    def ask() -> None:
        channel.send(("tracker",))
        (_, count), _ = channel.receive()
        (_tracker._fd,) = channel.take(count)

    _provide(ask)


def keep_apart() -> None:
    """Have the tracker, if this process comes to need one, start in a group of its own."""
    if hasattr(os, "posix_spawn") and hasattr(resource_tracker, "getfd"):
        _provide(_start)


def _provide(get: Callable[[], None]) -> None:
    """Have the tracker's descriptor got by a function, in place of an earlier one, when it is first needed."""
    lock = threading.Lock()

    def providing(method: Callable[..., Any]) -> Callable[..., Any]:
        def get_and_call(*args: Any) -> Any:
            with lock:
                if _tracker._fd is None:
                    get()
            return method(*args)

        return get_and_call

    # Each of them starts it, by itself or by another one, as versions of Python differ.
    for name in ("ensure_running", "getfd", "_send"):
        method = getattr(resource_tracker.ResourceTracker, name)
        setattr(_tracker, name, providing(method.__get__(_tracker)))
    for name in ("ensure_running", "getfd"):
        setattr(resource_tracker, name, getattr(_tracker, name))


def _start() -> None:
    read, write = os.pipe()
    try:
        os.set_inheritable(read, True)
        executable = os.fsdecode(spawn.get_executable() or sys.executable)
        code = f"from multiprocessing.resource_tracker import main;main({read})"
        # As in the standard module, the two signals are held back until it ignores them.
        _tracker._pid = os.posix_spawn(
            executable,
            [executable, *_args_from_interpreter_flags(), "-c", code],
            os.environ,
            setpgroup=0,
            setsigmask=[signal.SIGINT, signal.SIGTERM],
        )
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
    _tracker._fd = write
