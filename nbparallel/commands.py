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
    _output(command, expanded)


def lines_of(command: str, expanded: Callable[[], str]) -> Any:
    """Return the lines that a command writes, errors included, as IPython's list of lines.

    Args:
        command: as for `run`.
        expanded: as for `run`.
    """
    from IPython.utils.text import SList  # a part of a second, which only those pay who ask for it

    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return SList(_output(command, expanded, **options).splitlines())


def _output(command: str, expanded: Callable[[], str], **options: Any) -> str:
    """Wait for a command's end and return what was captured; an interrupt ends it, with all that it has started."""
    with contextlib.suppress(Exception):
        command = expanded()
    shell = None if sys.platform == "win32" else os.environ.get("SHELL")
    # Not subprocess.Popen: its wait goes on for a quarter of a second after an interrupt, and the worker is ended then.
    process = psutil.Popen(command, shell=True, executable=shell, stdin=subprocess.DEVNULL, **options)
    try:
        text = "" if process.stdout is None else process.stdout.read()
        process.wait()
    except BaseException:
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return text
