"""`Process`, as in `multiprocessing`, whose target may be a function of a cell, and its life in the child.

The standard class does all but the start and the end of the process, which are `popen`'s.
"""

from __future__ import annotations

import signal
import sys
from multiprocessing import util
from multiprocessing.process import (
    AuthenticationString,
    BaseProcess,
    active_children,
    current_process,
    parent_process,
)
from typing import Any, NoReturn

from nbparallel.engine import relay
from nbparallel.interrupts import deferred
from nbparallel.multiprocessing import context
from nbparallel.tracebacks import hidden, in_words

__all__ = [
    "AuthenticationString",
    "BaseProcess",
    "ForkProcess",
    "ForkServerProcess",
    "Process",
    "SpawnProcess",
    "active_children",
    "current_process",
    "parent_process",
    "run",
]


class Process(BaseProcess):
    """A process of its own for one function.

    Its prints appear in the cell that has started it; an error is shown there, and its `exitcode` is then 1. It ends
    with the notebook, whatever it does.

    Args:
        group: `None`.
        target: the function.
        name: by default ``Process-1`` and so on.
        args: its positional arguments.
        kwargs: its keyword arguments.
        daemon: whether it is ended with the process that has started it, instead of waited for.

    Example:
        >>> p = Process(target=print, args=("hello",))
        >>> p.start()
        hello
        >>> p.join()
        >>> p.exitcode
        0
    """

    _start_method: str | None = None

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - the standard class's name
        from nbparallel.multiprocessing.popen import Popen  # few children start others

        return Popen(process, process._start_method or context.default.current_method)

    def start(self) -> None:
        """Start it.

        Raises:
            SerializationError: the target or an argument can't travel; nothing was started.
            AssertionError: it was started before, or this process is a daemon.
        """
        # Whoever presses Stop meanwhile must find it started, with an owner, or not at all.
        with hidden, deferred:
            super().start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, and what it has printed is shown.

        Args:
            timeout: seconds to wait at most.
        """
        with hidden:
            super().join(timeout)


class ForkProcess(Process):
    """One that is forked from this process."""

    _start_method = "fork"


class SpawnProcess(Process):
    """One that starts as a new interpreter."""

    _start_method = "spawn"


class ForkServerProcess(Process):
    """One that is forked from a small process that is kept for that."""

    _start_method = "forkserver"


def run(process: Process, method: str, parent_sentinel: int) -> int:
    """Run a process that was started, in the child; return its exit code.

    Args:
        process: what was started.
        method: how.
        parent_sentinel: becomes ready when the parent ends.
    """
    target = process.run
    # Python 3.13 heeds no signal in a loop of its own where a thread has forked: there Stop ends it outright.
    deaf = method == "fork" and sys.version_info >= (3, 13)
    during = signal.SIG_DFL if deaf else signal.default_int_handler

    def show_error() -> None:
        signal.signal(signal.SIGINT, during)
        try:
            target()
        except (Exception, KeyboardInterrupt) as error:
            # Whoever pressed Stop sees it in the cell: each child would say it once more.
            if not isinstance(error, KeyboardInterrupt):
                relay.say("traceback", f"Process {process.name}:\n{in_words(error)[1].rstrip()}\n")
            raise SystemExit(1) from None
        finally:
            if signal.getsignal(signal.SIGINT) is during:
                signal.signal(signal.SIGINT, _end)

    relay.run = relay.task = 0  # bars are those of a task; it has but one
    relay.name = process.name
    process.run = show_error  # type: ignore[method-assign]
    signal.signal(signal.SIGINT, signal.SIG_DFL if deaf else _end)
    code = int(process._bootstrap(parent_sentinel))
    util._exit_function()  # from 3.13 on it is left to `atexit`, from which a fork has taken the notebook's
    return code


def _end(*_: object) -> NoReturn:
    """End it at Stop where its target does not run: there is nothing of the user's to show."""
    told = sys.unraisablehook

    def tell_others(unraisable: Any) -> None:
        if unraisable.exc_type is not SystemExit:
            told(unraisable)

    sys.unraisablehook = tell_others  # from 3.13 on the wait for its threads tells there what cuts it short
    raise SystemExit(1)
