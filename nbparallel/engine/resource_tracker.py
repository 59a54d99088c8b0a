"""The standard module's resource tracker: one for the notebook and all its workers and processes, kept by the notebook.

It removes the names of shared memory that nobody has removed, once all who know it have ended. Each process of the
standard module is given its parent's at birth. Here a worker tells its parent (`reports`) what it would tell a tracker
of its own, with which a block would go that others still use: names last as long as the notebook, whoever made them.

It is in a process group of its own. Jupyter ends all of a kernel's group: at a shutdown politely, which the tracker
ignores, and that takes two seconds and then costs the kernel its orderly end; or by one kill, which leaves the names.
Called by those who hear a worker (`tell`), and by the drop-in module as it is imported (`keep_apart`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker, spawn
from typing import Any

_tracker: Any = resource_tracker._resource_tracker


def tell(command: str, name: str, kind: str) -> None:
    """Tell the tracker what a worker has said: a command of the tracker's, a name, and what it is the name of."""
    keep_apart()
    _tracker._send(command, name, kind)


def keep_apart() -> None:
    """Have the tracker, if this process comes to need one, start in a group of its own."""
    if not hasattr(os, "posix_spawn") or not hasattr(resource_tracker, "getfd"):
        return
    lock = threading.Lock()
    # Each of them starts it, by itself or by another one, as versions of Python differ.
    for name in ("ensure_running", "getfd", "_send"):
        if name not in vars(_tracker):  # not in a worker, whose `_send` tells its parent
            setattr(_tracker, name, _after_start(getattr(_tracker, name), lock))
    for name in ("ensure_running", "getfd"):
        setattr(resource_tracker, name, getattr(_tracker, name))


def _after_start(method: Callable[..., Any], lock: threading.Lock) -> Callable[..., Any]:
    def start_and_call(*args: Any) -> Any:
        with lock:
            if _tracker._fd is None:
                _start()
        return method(*args)

    return start_and_call


def _start() -> None:
    read, write = os.pipe()
    try:
        os.set_inheritable(read, True)
        executable = os.fsdecode(spawn.get_executable() or sys.executable)
        code = f"from multiprocessing.resource_tracker import main;main({read})"
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        # As in the standard module, the two signals are held back until it ignores them.
        _tracker._pid = os.posix_spawn(
            executable,
            [executable, *flags, "-c", code],
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
