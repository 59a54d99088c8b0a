"""When a run's bar appears, when it moves and when it ends; `bars` paints it. Called by `mapping`.

It moves in the thread that waits: whoever interrupts the cell finds no other thread that still displays. Only a run
that is displayed while nobody waits for it has a thread that moves its bar.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable

from nbparallel.backends import local
from nbparallel.config import Progress
from nbparallel.interrupts import deferred
from nbparallel.output import showing
from nbparallel.progress import bars
from nbparallel.runs.run import Run

#: A run that ends sooner shows no bar, in seconds.
QUIET_SECONDS = 0.5
#: Seconds between two moves of a bar: with the last one no more than ten in any second.
BEAT_SECONDS = 0.125


class Watch:
    """Shows how far a run is: a context manager around its start, its end and, if need be, its cancellation.

    Args:
        run: not started.
        shown: True at once, ``"auto"`` after half a second where somebody looks, False never.
    """

    def __init__(self, run: Run, shown: Progress) -> None:
        self._run = run
        self._at_once = shown is True
        self._is_shown = shown is True or (shown == "auto" and somebody_looks())
        self._headline = bars.headline(run)  # not later: an input's length may be known by then, or not
        self._loop = bars.find_loop() if self._is_shown else None  # not later: tasks in threads have bars as well
        self._bar: bars.Bar | None = None
        self._due = 0.0 if shown is True else QUIET_SECONDS  # in the run's own time
        self._thread = threading.get_ident()

    def __enter__(self) -> Watch:
        self._run.listeners.append(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._run.listeners.remove(self._hear)
        if self._bar is not None:
            self._bar.close()

    def wait(self) -> None:
        """Wait until the run is finished."""
        if not self._is_shown:
            self._run.wait()
            return
        if self._at_once:
            self._beat()
        while not self._run.drive(lambda: self._run.done, beat=max(0.0, self._due - self._run.seconds)):
            self._beat()

    def _hear(self) -> None:
        # Of the serial backend, which computes in this thread before it can wait.
        if not self._is_shown or self._run.done or threading.get_ident() != self._thread:
            return
        if self._run.seconds >= self._due:
            self._beat()

    def _beat(self) -> None:
        # An interrupt in the midst would leave the widgets' packages half imported, or a message to the page half sent.
        with deferred:
            if self._bar is None:
                self._bar = bars.open_bar(self._run, self._headline, self._loop)
            else:
                self._bar.move()
        self._due = self._run.seconds + BEAT_SECONDS


def follow(run: Run) -> Callable[[], None] | None:
    """Display a run that is under way, in this cell, with a bar that moves after the cell has ended.

    Returns:
        What shows its end, for another cell that waits for it; `None` where there is no page to display it on.
    """
    if not showing.in_notebook():
        return None
    bar, ended = bars.LiveBar(run), threading.Event()
    run.add_done_callback(lambda _: ended.set())

    def move() -> None:
        while not ended.wait(BEAT_SECONDS):
            bar.move()
        bar.close()

    # What it displays belongs to this cell.
    threading.Thread(
        target=contextvars.copy_context().run, args=(move,), name=f"nbparallel-bar-{run.label}", daemon=True
    ).start()
    return bar.show_end


def somebody_looks() -> bool:
    """Return whether a bar that is not asked for has a reader."""
    if local.is_inside_task():  # a nested map: the outer one has the bar
        return False
    return showing.in_notebook() or (sys.stderr is not None and sys.stderr.isatty())
