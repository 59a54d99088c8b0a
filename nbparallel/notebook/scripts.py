"""A script of its own: source that runs in a fresh interpreter, shown live here, and of which nothing is left.

`run_script` is what ``%%pscript`` calls. It makes a private folder and has `followed` start a `supervisor`, which
starts the script by `runner` and ends all of it at a limit, at Stop, and when this process dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from nbparallel import interrupts
from nbparallel.notebook.followed import Script
from nbparallel.output import showing
from nbparallel.tracebacks import hidden

TIMEOUT = 60.0
#: How many processes a script may have at once, at least; where there are many cores, some for each.
PROCESSES = 32
_PROCESSES_PER_CORE = 4


class Finished(subprocess.CompletedProcess[str]):
    """A script that has ended: ``args``, ``returncode``, ``stdout``, ``stderr``, and why it was ended.

    Attributes:
        ended: in words, if it did not end by itself: ``"ended after 5 s (--timeout 5): 17 processes"``; else empty.
    """

    ended: str = ""


def run_script(
    source: str,
    args: Sequence[str] = (),
    *,
    start: str | None = None,
    timeout: float = TIMEOUT,
    max_processes: int | None = None,
    check: bool = False,
    name: str = "script.py",
) -> Finished:
    """Run source as a script of its own, show what it writes while it runs, and end all that came of it.

    It runs where this process works, and finds the same modules. It has no standard input. What it has started and
    left behind is ended a second after it.

    Args:
        source: the script.
        args: its arguments.
        start: the start method that `multiprocessing` has in it by default; `None`: the interpreter's own.
        timeout: seconds after which it is ended.
        max_processes: it is ended when there are more at once; by default 32, or four for each core if that is more.
        check: whether an exit code other than 0 raises.
        name: its file's name.

    Returns:
        What has become of it, with its first ten million characters of output.

    Raises:
        subprocess.CalledProcessError: it has failed or was ended, and `check` is true.
        ValueError: an argument makes no sense.
        TypeError: an argument is of a wrong type.
        RuntimeError: the process that watches it was killed; so was all that came of it.
    """
    with hidden:
        if not isinstance(source, str):
            raise TypeError(f"source must be text, not {source!r}")
        if isinstance(args, str) or not all(isinstance(each, str) for each in args):
            raise TypeError(f"args must be a list of texts, not {args!r}")
        if os.path.basename(name) != name or not name.endswith(".py"):
            raise ValueError(f"name must be a file's, such as script.py, not {name!r}")
        order = {
            "args": list(args),
            "start": check_start(start),
            "timeout": check_timeout(timeout),
            "max_processes": check_max_processes(max_processes),
        }
        with interrupts.deferred, _folder() as folder:
            script = Script(source, name, order, folder)
            try:
                with interrupts.deferred.lifted():
                    script.relay()
            except BaseException:
                _finished([name, *args], order, script.finish())
                interrupts.deferred.forget()
                raise
            finished = _finished([name, *args], order, script.finish())
        if check and finished.returncode:
            raise subprocess.CalledProcessError(finished.returncode, finished.args, finished.stdout, finished.stderr)
        return finished


def check_start(start: str | None) -> str | None:
    """Return a start method that this system has, or `None`.

    Raises:
        ValueError: it has none of that name.
    """
    known = multiprocessing.get_all_start_methods()
    if start is not None and start not in known:
        raise ValueError(f"unknown start method {start!r}; known here: {', '.join(sorted(known))}")
    return start


def check_timeout(timeout: float) -> float:
    """Return a number of seconds above 0.

    Raises:
        ValueError: it is not above 0.
        TypeError: it is no number.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0 s, not {timeout}")
    return float(timeout)


def check_max_processes(count: int | None) -> int:
    """Return how many processes there may be; the default for `None`.

    Raises:
        ValueError: it is below 1.
        TypeError: it is no whole number.
    """
    if count is None:
        return max(PROCESSES, _PROCESSES_PER_CORE * (os.cpu_count() or 1))
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"max_processes must be a whole number, not {count!r}")
    if count < 1:
        raise ValueError(f"max_processes must be at least 1, not {count}")
    return count


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    # Only this user may enter it (0700). Its real path: that is what the script's tracebacks show.
    folder = os.path.realpath(tempfile.mkdtemp(prefix="nbparallel-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finished(args: list[str], order: dict[str, Any], report: dict[str, Any]) -> Finished:
    """Return what a report says, and show its last line."""
    code = -signal.SIGTERM if report["code"] is None else report["code"]
    finished = Finished(args, code, report["stdout"], report["stderr"])
    count = _processes(report["ended"])
    match report["why"]:
        case "timeout":
            limit = f"{order['timeout']:g}"
            finished.ended = f"ended after {limit} s (--timeout {limit}): {count}"
        case "processes":
            most = f"{report['most']} at once (--max-processes {order['max_processes']})"
            finished.ended = f"ended for too many processes, {most}: {count}"
        case "stop":
            finished.ended = f"ended by Stop: {count}"
        case "left":
            own = _exit_in_words(code)
            finished.ended = f"{own}{'; ' if own else ''}ended what the script had left running: {count}"
    if report["left"]:
        finished.ended += f"; {_processes(report['left'])} could not be ended"
    if last := finished.ended or _exit_in_words(code):
        for shown in (sys.stdout, sys.stderr):
            if shown is not None:
                shown.flush()  # a kernel shows its two streams in turns, and this is to be the last line
        showing.write(sys.stderr, last + "\n")
    return finished


def _exit_in_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}" if code else ""
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
