"""Shell commands in a worker: what ``!command`` and ``lines = !command`` in the body of a cell become.

Called by code that `notebook.body` makes: a worker has no IPython shell. It may not import anything of a notebook.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil


def run(command: str, expanded: Callable[[], str]) -> None:
    """Run a command by the user's shell; what it writes appears where a task's output does.

    Args:
        command: as it was typed.
        expanded: returns it with its ``{expressions}`` and ``$names`` filled in. If it raises, the command is run as it
            was typed, which is IPython's rule: a brace or a dollar may be the shell's own.
    """
    sys.stdout.flush()
    _finish(_start(command, expanded))


def lines_of(command: str, expanded: Callable[[], str]) -> Any:
    """Return the lines that a command writes, errors included, as IPython's list of lines.

    Args:
        command: as for `run`.
        expanded: as for `run`.
    """
    from IPython.utils.text import SList  # a part of a second, which only those pay who ask for it

    text = _finish(_start(command, expanded, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return SList(text.splitlines())


def _start(command: str, expanded: Callable[[], str], **options: Any) -> subprocess.Popen[str]:
    with contextlib.suppress(Exception):
        command = expanded()
    shell = None if sys.platform == "win32" else os.environ.get("SHELL")
    return subprocess.Popen(command, shell=True, executable=shell, stdin=subprocess.DEVNULL, **options)


def _finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command's end and return what was captured; an interrupt ends it, with all that it has started."""
    try:
        return process.communicate()[0] or ""
    except BaseException:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(process.pid)
            for each in [*found.children(recursive=True), found]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        process.wait()
        raise
