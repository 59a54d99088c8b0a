"""The cell to which the output of threads belongs, kept while pages' messages are handled.

A kernel marks what it shows with the request that caused it, its parent. What a thread shows that was started by the
user's own code has that of the request which was handled last. While a cell computes that is the cell, until a page's
message to a widget is handled in a subshell: ipykernel would give the rest of the threads' output to that message,
where nobody sees it. Used by `panels`; where a kernel keeps no such thing, nothing is done.
"""

from __future__ import annotations

import contextvars
import functools
import sys
from collections.abc import Iterator
from typing import Any

from nbparallel.output.showing import current_shell

#: An object of the kernel, its attribute that holds a parent, and that parent.
_Kept = tuple[Any, str, Any]


class Parents:
    """What the kernel has as the parent of threads' output since the last cell began."""

    def __init__(self) -> None:
        self._seen: list[_Kept] = []
        shell = current_shell()
        if shell is not None:
            self.see()
            shell.events.register("pre_run_cell", self.see)

    def see(self, _: object = None) -> None:
        """Take note of a cell that begins."""
        found = list(_kept())
        if all(map(_is_cells, found)):
            self._seen = found

    def put_back(self) -> None:
        """Have it be the parent again, if that is a message by now."""
        for owner, name, value in self._seen:
            if not _is_cells((owner, name, getattr(owner, name))):
                setattr(owner, name, value)


@functools.cache
def parents() -> Parents:
    """Return the one of this process."""
    return Parents()


def _kept() -> Iterator[_Kept]:
    """Yield what the kernel keeps for threads that have no parent of their own."""
    shell = current_shell()
    owners: list[Any] = [shell, getattr(shell, "displayhook", None), getattr(shell, "display_pub", None)]
    for owner in (*owners, sys.stdout, sys.stderr):
        if hasattr(owner, "_parent_header_global"):
            yield owner, "_parent_header_global", owner._parent_header_global
    kernel: Any = getattr(shell, "kernel", None)
    if hasattr(kernel, "_shell_context") and hasattr(kernel, "_shell_parent"):
        yield kernel, "_shell_context", kernel._shell_context


def _is_cells(kept: _Kept) -> bool:
    owner, _, value = kept
    if isinstance(value, contextvars.Context):
        value = value.get(owner._shell_parent, {})
    header = value.get("header", value)  # a stream keeps the header alone
    return bool(header.get("msg_type") == "execute_request")
