"""What one process says, shown in the cell that has started it. Called by `popen` and `keeper`."""

from __future__ import annotations

import contextvars
import sys
from typing import cast

from nbparallel import config
from nbparallel.engine.work import Said, Work
from nbparallel.output import showing
from nbparallel.output.outbox import Outbox, Output


class Shown:
    """The output of one process: a `Work` as far as `engine.connection` knows it.

    Args:
        name: of the process.
    """

    def __init__(self, name: str) -> None:
        self._context = contextvars.copy_context()
        # One process has no place in an order, and nothing of what it says is kept.
        output: Output = "live" if config.settings().output in ("live", "ordered") else None
        self._outbox = Outbox(output, budgets=showing.budgets())

    @property
    def as_work(self) -> Work:
        """This, for a connection, which asks no more of a run than `write`."""
        return cast(Work, self)

    def write(self, index: int, said: Said) -> None:
        """Take something that it says."""
        if said.kind != "bar":
            self._outbox.put(index, said)

    def show(self) -> None:
        """Show what there is."""
        for said in self._outbox.take():
            try:
                self._context.copy().run(showing.show, said)
            except Exception:  # a stream that the user has closed, or replaced: told, and in nobody's way
                sys.excepthook(*sys.exc_info())

    def end(self) -> None:
        """Show the rest."""
        self._outbox.end()
        self.show()
