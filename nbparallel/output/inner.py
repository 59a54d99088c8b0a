"""The bars that the tasks of a run show, as lines.

Filled by `execution`, shown by `bars`; nothing here writes anywhere.
"""

from __future__ import annotations


class InnerBars:
    """The lines of bars that are open now; all but `lines` is called under the backend's lock."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, int], str] = {}

    def put(self, index: int, text: str) -> None:
        """Take how a task's bar looks now (see `engine.relay.show_bar`)."""
        place, _, line = text.partition(":")
        if line:
            self._lines[index, int(place)] = line
        else:
            self._lines.pop((index, int(place)), None)

    def settled(self, first: int, count: int) -> None:
        """Take note that tasks are finished: so are their bars."""
        for key in [key for key in self._lines if first <= key[0] < first + count]:
            del self._lines[key]

    def lines(self, most: int) -> list[str]:
        """Return the lines, in the order of tasks; of more than `most`, how many more there are."""
        lines = [line for _, line in sorted(self._lines.copy().items())]
        left = len(lines) - most
        return lines if left <= 0 else [*lines[:most], f"and {left} more {'bar' if left == 1 else 'bars'} of tasks"]
