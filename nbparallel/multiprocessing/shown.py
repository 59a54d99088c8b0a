"""What one process says, shown in the cell that has started it. Called by `popen` and `keeper`."""

from __future__ import annotations

import contextvars
import itertools
import sys
from collections.abc import Callable
from typing import Any, cast

from nbparallel import config
from nbparallel.engine.work import Said, Work
from nbparallel.output import showing
from nbparallel.output.outbox import Outbox, Output
from nbparallel.progress.board import Board

_numbers = itertools.count()


class Shown:
    """The output of one process: a `Work` as far as `engine.connection` knows it."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        # One process has no place in an order, and nothing of what it says is kept.
        output: Output = "live" if config.settings().output in ("live", "ordered") else None
        self._outbox = Outbox(output, budgets=showing.budgets())
        self._board = Board.of_cell()
        self._number = next(_numbers)

    @property
    def as_work(self) -> Work:
        """This, for a connection, which asks no more of a run than `write`."""
        return cast(Work, self)

    def write(self, index: int, said: Said) -> None:
        """Take something that it says."""
        if said.kind == "bar":
            self._board.put(self._number, said.text)
        elif said.kind == "line of a bar":
            self._board.keep(said.text)
        elif said.kind == "traceback":
            self._outbox.put(index, Said("traceback", showing.name_cells(said.text)))
        else:
            self._outbox.put(index, said)

    @property
    def is_behind(self) -> bool:
        """Whether its bars have moved since they were last shown."""
        return self._board.is_behind

    def show(self) -> None:
        """Show what there is."""
        for said in self._outbox.take():
            self._do(showing.show, said)
        self._do(self._board.move)

    def end(self) -> None:
        """Show the rest."""
        self._outbox.end()
        self._board.settled(self._number)
        self.show()

    def _do(self, act: Callable[..., object], *args: Any) -> None:
        try:
            self._context.copy().run(act, *args)
        except Exception:  # a stream that the user has closed, or replaced: told, and in nobody's way
            sys.excepthook(*sys.exc_info())
