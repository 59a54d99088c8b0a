"""Bars of tqdm within a task: instead of painting them, a worker sends their lines, and the parent's bar shows them.

Imported in a worker by `hooks`, when tqdm arrives. A bar that a task has given a file of its own is left alone.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from types import ModuleType
from typing import Any

from nbparallel.engine import relay

#: A bar is sent so often at most, in seconds: that is as often as it can be seen.
SECONDS = 0.1
#: So many times it may be sooner: a step is often an update and a postfix, and for long nothing follows.
SOONER = 2
#: So many bars a second are sent as they open; of more, those that last.
OPENED = 10
#: The width of a line.
COLUMNS = 80

_opened: deque[float] = deque(maxlen=OPENED)


class _Line:
    """What is sent of one bar.

    Args:
        place: which of its task's bars it is; the next one at the same place follows it there.
    """

    def __init__(self, place: int) -> None:
        self._run, self._task = relay.run, relay.task
        self._place = place
        self._sent = False
        self._due = time.monotonic()

    def move(self, bar: Any) -> None:
        now = time.monotonic()
        if self._sent:
            if now < self._due - SOONER * SECONDS:
                return
        elif now < self._due + SECONDS and not _may_open(now):
            return
        self._due = max(now, self._due) + SECONDS
        self._sent = True
        self._send(self._text(bar))

    def close(self) -> None:
        if self._sent:
            self._sent = False
            self._send("")

    def stay(self, bar: Any) -> None:
        """Send its last line, which stays, of a bar of a process: no bar of a map stands for it."""
        relay.say("line of a bar", f"{self._text(bar)}\n")

    def _text(self, bar: Any) -> str:
        label = f"{bar.desc.removesuffix(': ')} [{relay.name or f'task {self._task}'}]".lstrip()
        text = bar.format_meter(**{**bar.format_dict, "prefix": label, "ncols": COLUMNS, "colour": None})
        return "".join(each if each.isprintable() else " " for each in text)

    def _send(self, text: str) -> None:
        # A bar may outlive its task; the next run has one of the same number.
        if self._task >= 0 and self._run == relay.run:
            relay.show_bar(self._task, self._place, text)


def _may_open(now: float) -> bool:
    if len(_opened) == OPENED and now - _opened[0] < 1:
        return False
    _opened.append(now)
    return True


def take_up_tqdm(std: ModuleType) -> None:
    """Have bars that would be painted on this process's standard streams sent."""
    bars = std.tqdm
    for bar in list(bars._instances):  # the notebook's own, in a fork
        bar.disable = True
    bars._instances = weakref.WeakSet()
    # Its own is shared by processes, which could die holding it; and no thread looks after bars that stand still.
    bars.set_lock(threading.RLock())
    bars.monitor_interval = 0
    paint, clear, close = bars.display, bars.clear, bars.close

    def display(self: Any, msg: str | None = None, pos: int | None = None) -> Any:
        if not relay.is_ours(self.fp):
            return paint(self, msg, pos)
        if msg == "":  # to clear it
            return False
        if "_line" not in vars(self):
            self._line = _Line(abs(self.pos))
            # As there is no monitor, it looks at the time whenever it is moved.
            self.dynamic_miniters, self.miniters = False, min(self.miniters, 1)
        self._line.move(self)
        return True

    def clear_if_painted(self: Any, nolock: bool = False) -> None:
        if not relay.is_ours(getattr(self, "fp", None)):
            clear(self, nolock)

    def close_line(self: Any) -> None:
        line = vars(self).get("_line")
        if line is not None and not self.disable:
            stays = self.leave or (self.leave is None and self.pos == 0)
            self.leave = False  # a last line would be painted
            if stays and relay.name:
                line.stay(self)
        close(self)
        if line is not None:
            line.close()

    bars.display, bars.clear, bars.close = display, clear_if_painted, close_line


def take_up_notebook_tqdm(notebook: ModuleType) -> None:
    """Make those with widgets as all others: a worker has no page that could show its widgets."""
    bars = notebook.tqdm_notebook
    for name in ("status_printer", "display", "colour", "__iter__", "update", "close", "clear", "reset"):
        delattr(bars, name)

    def initialize(self: Any, *args: Any, display: bool = True, **options: Any) -> None:
        super(bars, self).__init__(*args, **options)

    bars.__init__ = initialize
