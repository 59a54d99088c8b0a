"""Showing in this process what a task said in another: on the notebook's streams, in the calling cell.

Called by `execution` and `calls`, in the context of the cell that called, with what an `outbox.Outbox` lets out.
"""

from __future__ import annotations

import sys
from typing import TextIO

from nbparallel.outbox import Budgets, Said

_budgets = Budgets()


def in_notebook() -> bool:
    """Return whether a kernel's front end shows what this process displays."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def budgets() -> Budgets | None:
    """Return what this notebook can show; `None` where there is no notebook: a terminal or a file takes anything."""
    return _budgets if in_notebook() else None


def show(said: Said) -> None:
    """Show it."""
    write(sys.stdout if said.kind == "stdout" else sys.stderr, said.text)


def write(target: TextIO | None, text: str) -> None:
    """Write text and have it shown."""
    if target is None:  # pythonw has no streams
        return
    target.write(text)
    # A kernel's own stream shows what it has five times a second; each flush would be a message.
    if not hasattr(target, "flush_interval"):
        target.flush()
