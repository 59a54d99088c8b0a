"""The bars of tqdm that processes show: lines below each other, one output a cell. Called by `multiprocessing`.

A map's own bar shows those of its tasks; a process has none. They are there while they move, and leave nothing.
"""

from __future__ import annotations

import sys
import time
import weakref
from typing import Any

from nbparallel import config
from nbparallel.output import showing
from nbparallel.output.inner import InnerBars
from nbparallel.progress.bars import INNER, METADATA, TerminalLines, display

#: Seconds between two moves.
BEAT_SECONDS = 0.1


class Board:
    """The lines of the bars that a cell's processes show now; all but `of_cell` is called on one thread."""

    def __init__(self) -> None:
        self._bars = InnerBars()
        self._is_shown = config.settings().progress is not False
        self._output: Any = None
        self._lines: list[str] = []
        self._due = 0.0

    @classmethod
    def of_cell(cls) -> Board:
        """Return that of the cell that runs; outside of a notebook there is but one."""
        cell = showing.cell() if showing.in_notebook() else 0
        found = _boards.get(cell)
        if found is None:
            found = _boards[cell] = cls()
        return found

    def put(self, number: int, text: str) -> None:
        """Take how a bar of a process looks now (see `engine.relay.show_bar`)."""
        self._bars.put(number, text)

    def settled(self, number: int) -> None:
        """Take note that a process has ended: so have its bars."""
        self._bars.settled(number, 1)

    @property
    def is_behind(self) -> bool:
        """Whether they have moved since they were last shown."""
        return self._is_shown and self._bars.lines(INNER) != self._lines

    def move(self) -> None:
        """Show them as they are, ten times a second at most; that none is left is shown at once."""
        lines = self._bars.lines(INNER)
        if not self.is_behind or (lines and time.monotonic() < self._due):
            return
        self._lines, self._due = lines, time.monotonic() + BEAT_SECONDS
        if not showing.in_notebook():
            if sys.stderr is not None and sys.stderr.isatty():  # elsewhere nothing goes down and up again
                self._output = self._output or TerminalLines()
                self._output.show(lines)
            return
        data = {"text/plain": "\n".join(lines)}
        if self._output is None:
            self._output = display(data)
        else:
            self._output.update(data, raw=True, metadata=METADATA)


_boards: weakref.WeakValueDictionary[int, Board] = weakref.WeakValueDictionary()
