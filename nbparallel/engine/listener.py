"""What a worker says beside the outcomes of its tasks, as its parent hears it: output, and names for the tracker.

Called by those who read a worker's messages: `manager`, the drop-in module's `keeper`, the pathos backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbparallel.engine.relay import is_first
from nbparallel.engine.work import Said

#: Takes what was said, with the index of the task that said it.
Write = Callable[[int, Said], None]


class Listener:
    """Hears one worker. A line that it has flushed before the end is kept until it is ended, or the worker is."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, str, Write]] = {}

    def hear(self, header: tuple[Any, ...], segments: list[bytearray], write: Write) -> None:
        """Pass on what a message says, unless this process has been told before."""
        if header[0] == "name":
            from nbparallel.engine import resource_tracker  # few workers make names

            resource_tracker.tell(*header[1:])
            return
        _, _, index, kind, text, how = header
        if how == "process" and not is_first(text):
            return
        if kind in self._begun:
            task, begun, _ = self._begun[kind]
            if task == index:
                text = begun + text
                del self._begun[kind]
            else:
                self._pass_on(kind)
        if how == "begun":
            self._begun[kind] = index, text, write
        elif text or segments:
            write(index, Said(kind, text, segments, how == "run"))

    def end(self) -> None:
        """Pass on the lines that the worker has not ended."""
        for kind in list(self._begun):
            self._pass_on(kind)

    def _pass_on(self, kind: str) -> None:
        index, text, write = self._begun.pop(kind)
        write(index, Said(kind, text))
