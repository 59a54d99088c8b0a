"""How far a comparison is: one line, which a notebook keeps as a line of text. Called by `compare`.

The runs have no bars of their own: there are dozens. The line moves as a run begins; while a first one takes long, in
which this thread may be the one that computes, another thread shows it.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from typing import Any

from nbparallel import config, interrupts
from nbparallel.output import showing
from nbparallel.progress import bars
from nbparallel.progress.watch import QUIET_SECONDS, somebody_looks
from nbparallel.words import duration


class Status:
    """Says which run begins, where somebody looks and from half a second on.

    Args:
        label: what is compared.
    """

    def __init__(self, label: str) -> None:
        shown = config.settings().progress
        self._label = label
        self._is_shown = shown is True or (shown == "auto" and somebody_looks())
        self._began = time.perf_counter()
        self._due = 0.0 if shown is True else QUIET_SECONDS
        self._timer: threading.Timer | None = None
        self._runs = 0
        self._output: Any = None
        self._width = 0  # of the terminal's line

    def begin(self, method: str, total: int | None) -> None:
        """Say that a run begins, which is one of `total`, where that is known."""
        self._runs += 1
        self._stop_timer()
        if not self._is_shown:
            return
        which = f"run {self._runs}" + ("" if total is None else f" of {total}")
        text = f"{self._label}: {method}, {which}"
        left = self._due - (time.perf_counter() - self._began)
        if left <= 0:
            self._show(text)
        else:  # in this cell, whatever the thread
            self._timer = threading.Timer(left, contextvars.copy_context().run, (self._show, text))
            self._timer.name, self._timer.daemon = "nbparallel-status", True
            self._timer.start()

    def close(self, *, done: bool) -> None:
        """Leave a line that needs no kernel to be read, or in a terminal none."""
        self._stop_timer()
        if self._output is not None:
            took = duration(time.perf_counter() - self._began)
            text = f"{self._label}: {self._runs} runs compared in {took}" if done else f"{self._label}: stopped"
            self._output.update({"text/plain": text}, raw=True, metadata=bars.METADATA)
        elif self._width:
            self._write("")

    def _stop_timer(self) -> None:
        """Have the timer's thread show nothing from here on."""
        if self._timer is not None:
            self._timer.cancel()
            interrupts.join(self._timer)
            self._timer = None

    def _show(self, text: str) -> None:
        with interrupts.deferred:  # a message to the page must not be half sent
            if not showing.in_notebook():
                self._write(text)
            elif self._output is None:
                self._output = bars.display({"text/plain": text})
            else:
                self._output.update({"text/plain": text}, raw=True, metadata=bars.METADATA)

    def _write(self, text: str) -> None:
        if sys.stderr is not None:
            showing.write(sys.stderr, f"\r{text.ljust(self._width)}" + ("" if text else "\r"))
            self._width = len(text)
