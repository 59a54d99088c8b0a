"""What tasks have said and nobody has seen yet: in which order it is shown, what is kept of it, and what is too much.

Backends put in, under their lock; the thread that waits for a run takes out, and `showing` shows it. Used by
`execution` and `calls`; nothing here writes anywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from nbparallel.engine.relay import OWN
from nbparallel.engine.work import Said

Output = Literal["live", "ordered", "collect"] | None

#: What is kept of one task's text, and of all of a run's, in characters.
TASK_CHARACTERS = 100_000
RUN_CHARACTERS = 10_000_000
#: What may wait for its turn, in characters.
WAITING_CHARACTERS = 10_000_000


class Kept(Sequence[str]):
    """What each task of a run has written, logged and displayed, as text; by its index, as the results are.

    Of one task's text the first 100,000 characters are kept, of all tasks' the first ten million. What was cut is said
    at the end of the text.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._texts: dict[int, list[str]] = {}
        self._room: dict[int, int] = {}
        self._cut: dict[int, int] = {}
        self._left = RUN_CHARACTERS

    def add(self, index: int, text: str) -> None:
        """Keep more of a task's text."""
        room = min(self._room.get(index, TASK_CHARACTERS), self._left)
        kept = text[:room]
        self._room[index] = room - len(kept)
        self._left -= len(kept)
        if kept:
            self._texts.setdefault(index, []).append(kept)
        if len(kept) < len(text):
            self._room[index] = 0
            self._cut[index] = self._cut.get(index, 0) + len(text) - len(kept)

    def inherit(self, other: Kept, indices: Iterable[int]) -> None:
        """Keep what another run has kept of tasks that are not run again."""
        for index in indices:
            if index in other._texts:
                self.add(index, "".join(other._texts[index]))
            if index in other._cut:
                self._room[index], self._cut[index] = 0, self._cut.get(index, 0) + other._cut[index]

    @property
    def outside(self) -> str:
        """What was written outside of the tasks: by an initializer, say, or as a worker ended."""
        return self._text(-1)

    def __len__(self) -> int:
        return self._count()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = range(len(self))[index]
        return self._text(found) if isinstance(found, int) else [self._text(each) for each in found]

    def __repr__(self) -> str:
        return f"<output of {len(self)} tasks, of which {len(self._texts.keys() - {-1})} have written>"

    def _text(self, index: int) -> str:
        text = "".join(self._texts.get(index, ()))
        cut = self._cut.get(index)
        if cut is None:
            return text
        newline = "" if text.endswith("\n") or not text else "\n"
        return f"{text}{newline}[{cut:,} characters more were not kept]\n"


class Budget:
    """How much may be shown: so much at once, and then so much a second.

    Args:
        at_once: in whatever is counted.
        per_second: what is granted again.
        clock: seconds.
    """

    def __init__(self, at_once: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = self._left = at_once
        self._per_second = per_second
        self._clock = clock
        self._seen = clock()

    def grant(self, wanted: int, *, refused: bool = False) -> int:
        """Return how much of what is wanted may be shown now.

        Args:
            wanted: how much that is.
            refused: whether who asks did not get all the last time: then none until a quarter is back, as a flood is
                better folded once than in each second line. Others' little text goes on meanwhile.
        """
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._seen) * self._per_second)
        self._seen = now
        if refused and self._left < self._most / 4:
            return 0
        granted = min(wanted, int(self._left))
        self._left -= granted
        return granted

    def give_back(self, count: int) -> None:
        """Take back what was granted and not shown."""
        self._left += count


class Budgets:
    """What a notebook can show, all runs together.

    Jupyter's server drops what is above 1,000 messages or a megabyte of text a second, each measured over 3 s
    (``iopub_msg_rate_limit``, ``iopub_data_rate_limit``, ``rate_limit_window`` of jupyter_server). These stay below
    half of that, as the cell's own output counts too.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.characters = Budget(1_000_000, 200_000, clock)
        self.displays = Budget(500, 200, clock)


@dataclass
class _Folded:
    """What was left out since anything was last shown."""

    lines: int = 0
    characters: int = 0
    displays: int = 0

    def add(self, said: Said) -> None:
        if said.kind == "display":
            self.displays += 1
        else:
            self.lines += said.text.count("\n") + (not said.text.endswith("\n"))
            self.characters += len(said.text)

    def merge(self, other: _Folded) -> None:
        self.lines += other.lines
        self.characters += other.characters
        self.displays += other.displays

    def __str__(self) -> str:
        parts = []
        if self.lines:
            parts.append(f"{_count(self.lines, 'line')} ({_count(self.characters, 'character')})")
        if self.displays:
            parts.append(_count(self.displays, "display"))
        return " and ".join(parts)


class Outbox:
    """What is to be shown of one run, or of an executor's calls.

    Args:
        output: ``"live"``: as it comes; ``"ordered"``: in the order of the input, each task's as soon as all before it
            are finished; ``"collect"``: only kept; `None`: dropped.
        kept: where it is kept.
        budgets: what may be shown; `None`: anything.
    """

    def __init__(self, output: Output, kept: Kept | None = None, budgets: Budgets | None = None) -> None:
        self._output: Output = output
        self._kept = kept
        self._budgets = budgets
        self._ready: deque[Said] = deque()
        self._turn = 0  # the first task that is not finished
        self._finished: set[int] = set()  # later ones that are
        self._waiting: dict[int, list[Said]] = {}
        self._folded_waiting: dict[int, _Folded] = {}
        self._room = WAITING_CHARACTERS
        self._folded = _Folded()
        self._refused: set[Budget] = set()  # those that did not grant all that was last wanted of them
        self._told: set[str] = set()
        self._begun: Said | None = None  # the last that was shown, if it has not ended its line

    @property
    def is_within_line(self) -> bool:
        """Whether what was let out last has not ended its line."""
        return self._begun is not None

    def put(self, index: int, said: Said) -> None:
        """Take what a task said; called under the backend's lock."""
        if index == OWN:
            self._ready.append(said)
            return
        if self._output is None or (said.once and said.text in self._told):
            return
        if said.once:
            self._told.add(said.text)
        if self._kept is not None:
            self._kept.add(index, said.text)
        if self._output == "live" or (self._output == "ordered" and index <= self._turn):
            self._pass(said)
        elif self._output == "ordered":
            self._keep_waiting(index, said)

    def settled(self, first: int, count: int) -> None:
        """Take note that tasks are finished; called under the backend's lock."""
        if self._output != "ordered":
            return
        self._finished.update(range(first, first + count))
        while self._turn in self._finished:
            self._finished.remove(self._turn)
            self._turn += 1
            self._release(self._turn)

    def end(self) -> None:
        """Take note that no task is under way any more: nothing waits for its turn, and what was folded is said."""
        for index in sorted(self._waiting.keys() | self._folded_waiting.keys()):
            self._release(index)
        if self._output == "ordered":
            self._output = "live"
        self._tell_folded()

    def take(self) -> Iterator[Said]:
        """Yield what is to be shown now, lines in one piece as far as possible. Any thread may call this."""
        while self._ready:
            found = []
            with contextlib.suppress(IndexError):  # another thread was quicker
                found.append(self._ready.popleft())
                while self._ready and _is_more_text(found[-1], self._ready[0]):
                    found.append(self._ready.popleft())
            if len(found) == 1:
                yield found[0]
            elif found:
                yield dataclasses.replace(found[0], text="".join(said.text for said in found))

    # ---- the order of the input ----

    def _keep_waiting(self, index: int, said: Said) -> None:
        size = len(said.text) + sum(map(len, said.details))
        # Records and warnings are for handlers, which may write to a file.
        if said.kind in ("stdout", "stderr", "display") and size > self._room:
            self._folded_waiting.setdefault(index, _Folded()).add(said)
        else:
            self._room -= size
            self._waiting.setdefault(index, []).append(said)

    def _release(self, index: int) -> None:
        for said in self._waiting.pop(index, ()):
            self._room += len(said.text) + sum(map(len, said.details))
            self._pass(said)
        if index in self._folded_waiting:
            self._folded.merge(self._folded_waiting.pop(index))

    # ---- floods ----

    def _pass(self, said: Said) -> None:
        """Let something be shown, or fold it if there is too much."""
        if self._budgets is None or said.kind in ("log", "warning", "traceback"):
            self._show(said)
        elif said.kind == "display":
            if self._grant(self._budgets.displays, 1):
                self._show(said)
            else:
                self._folded.add(said)
        else:
            granted = self._grant(self._budgets.characters, len(said.text))
            if granted < len(said.text):
                end = said.text.rfind("\n", 0, granted) + 1
                self._budgets.characters.give_back(granted - end)
                shown, said = said.text[:end], dataclasses.replace(said, text=said.text[end:])
                if shown:
                    self._show(dataclasses.replace(said, text=shown))
                self._folded.add(said)
            else:
                self._show(said)

    def _grant(self, budget: Budget, wanted: int) -> int:
        granted = budget.grant(wanted, refused=budget in self._refused)
        if granted < wanted:
            self._refused.add(budget)
        else:
            self._refused.discard(budget)
        return granted

    def _show(self, said: Said) -> None:
        self._tell_folded()
        self._ready.append(said)
        self._begun = said if said.kind in ("stdout", "stderr") and not said.text.endswith("\n") else None

    def _tell_folded(self) -> None:
        if self._folded != _Folded():
            where = "" if self._kept is None else "; the run's `output` keeps the text"
            newline = "" if self._begun is None else "\n"
            told = f"{newline}[{self._folded} folded here: more than a notebook can show{where}]\n"
            self._ready.append(Said("stdout", told))
            self._folded, self._begun = _Folded(), None


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _is_more_text(first: Said, second: Said) -> bool:
    """Return whether two texts can be shown as one; a bar begins a new line after one that was not ended."""
    if first.kind not in ("stdout", "stderr") or not first.text.endswith("\n"):
        return False
    return first.kind == second.kind and first.context is second.context
