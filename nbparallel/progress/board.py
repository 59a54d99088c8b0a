"""The bars of tqdm that processes show: lines below each other, one output a cell. Called by `multiprocessing`.

A map's own bar shows those of its tasks; a process has none. As tqdm's do, they leave their last line, unless they are
told not to.
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
        self._kept: list[str] = []
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

    def keep(self, text: str) -> None:
        """Take the last line of a bar, which stays."""
        self._kept.append(text.rstrip())

    def settled(self, number: int) -> None:
        """Take note that a process has ended: so have its bars."""
        self._bars.settled(number, 1)

    @property
    def is_behind(self) -> bool:
        """Whether they have moved since they were last shown."""
        return self._is_shown and self._now() != self._lines

    def move(self) -> None:
        """Show them as they are, ten times a second at most; that none moves any more is shown at once."""
        lines, moving = self._now(), self._bars.lines(INNER)
        if not self.is_behind or (moving and time.monotonic() < self._due):
            return
        self._lines, self._due = lines, time.monotonic() + BEAT_SECONDS
        if not showing.in_notebook():
            self._move_in_terminal(moving)
            return
        data = {"text/plain": "\n".join(lines)}
        if self._output is None:
            self._output = display(data)
        else:
            self._output.update(data, raw=True, metadata=METADATA)

    def _now(self) -> list[str]:
        return [*self._kept, *self._bars.lines(INNER)]

    def _move_in_terminal(self, moving: list[str]) -> None:
        if sys.stderr is None:
            return
        if sys.stderr.isatty():  # elsewhere nothing goes down and up again
            self._output = self._output or TerminalLines()
            self._output.show([])
        for line in self._kept:
            showing.write(sys.stderr, f"{line}\n")
        self._kept.clear()
        if self._output is not None:
            self._output.show(moving)
        self._lines = self._now()


_boards: weakref.WeakValueDictionary[int, Board] = weakref.WeakValueDictionary()
