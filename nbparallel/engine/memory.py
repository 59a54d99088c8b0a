"""The memory guard: how full the memory is, what each worker holds of it, and what is to follow from that.

Above one share of the machine's or container's memory the scheduler is told that it is short; above a higher one the
largest worker is ended, before the system ends one of its own choice, which may be the kernel. One `Guard` per engine
reads and decides; `manager` acts. It looks only while something runs: a short run ends before the first look.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from nbparallel.machine import MemoryUse, memory_use
from nbparallel.words import human_size

#: How often the memory is looked at while something runs, in seconds: at most, and at least.
LOOK_SECONDS = 0.25
_SHORTEST_LOOK_SECONDS = 0.02
# What a process can fill, in bytes a second: zeroing fresh pages, measured 1 to 2 GB/s. The next look comes before
# the rest could be full.
_FILL_RATE = 2e9
# A worker that is idle is let go when it holds more than this share of the limit, while memory is short.
_HEAVY_SHARE = 0.02
# Where the workers together hold less than this share of the limit, none is ended for what others fill it with.
_WORTH_SHARE = 0.05
# A shortage is told again only once the use has been so far below its threshold: it may hover there.
_TOLD_MARGIN = 0.05
# Figures of the machine that are older, in seconds, say nothing of a worker's end.
_STALE_SECONDS = 1.0


@dataclass(frozen=True)
class Thresholds:
    """Shares of the machine's or container's memory, `None` for never.

    Attributes:
        pause: above it no further tasks begin, but for one at a time.
        stop: above it the largest worker is ended.
    """

    pause: float | None = 0.85
    stop: float | None = 0.95


_thresholds = Thresholds()


def set_thresholds(thresholds: Thresholds) -> None:
    """Take over the notebook's settings; each engine's next look heeds them."""
    global _thresholds
    _thresholds = thresholds


@dataclass(frozen=True)
class LastKnown:
    """What is known of the memory when a worker has ended.

    Attributes:
        worker: what the worker held, in bytes: its peak where the system tells, or what the last look saw.
        use: how full the memory was.
        above: the share above which the worker was ended for it; `None` if that was not the reason.
    """

    worker: int | None
    use: MemoryUse
    above: float | None = None


@dataclass(frozen=True)
class Look:
    """What is to follow from one look.

    Attributes:
        short: whether memory is short.
        news: a line to tell, as it has become so; empty otherwise.
        heavy: the processes that hold much of it.
        victim: the process to end now, if any.
    """

    short: bool = False
    news: str = ""
    heavy: tuple[int, ...] = ()
    victim: int | None = None


class Guard:
    """What one engine knows of the memory of its workers, and of the machine or container."""

    def __init__(self) -> None:
        self._next: float | None = None
        self._looked = 0.0
        self._use: MemoryUse | None = None
        self._sizes: dict[int, int] = {}  # by process id
        self._stopped: dict[int, tuple[MemoryUse, float]] = {}  # by process id: why it was ended
        self._told = False

    @property
    def asleep(self) -> bool:
        """Whether there will be no look until it is woken."""
        return self._next is None

    def wake(self) -> None:
        """Something runs again: look, but not at once."""
        self._next = time.monotonic() + LOOK_SECONDS

    def seconds_left(self) -> float | None:
        """Return how long it is to the next look; `None` while asleep."""
        return None if self._next is None else max(0.0, self._next - time.monotonic())

    def look(self, pids: Iterable[int], *, active: bool) -> Look:
        """Read the memory, and return what is to follow.

        Args:
            pids: the live workers.
            active: whether anything runs; if not, nothing is read, and there is no further look until `wake`.
        """
        if not active:
            self._next, self._told = None, False  # whoever runs next is told anew
            return Look()
        thresholds = _thresholds
        lowest = min(thresholds.pause or 1.0, thresholds.stop or 1.0)
        alive = list(pids)
        self._sizes.update({pid: size for pid in alive if (size := resident(pid))})  # nothing: it is ending
        own: dict[int, int] = {}
        use = self._use = memory_use(lambda limit: self._held(alive, limit * lowest, own))
        self._looked = time.monotonic()
        room = (1.0 if thresholds.stop is None else thresholds.stop) * use.limit - use.used
        wait = min(LOOK_SECONDS, max(room / _FILL_RATE, _SHORTEST_LOOK_SECONDS))
        self._next = self._looked + wait
        if thresholds.pause is None or use.share < thresholds.pause - _TOLD_MARGIN:
            self._told = False
        if use.share <= lowest:
            return Look()
        own = own or {pid: private(pid) for pid in alive}
        short = thresholds.pause is not None and use.share > thresholds.pause
        heavy = tuple(pid for pid, size in own.items() if size > _HEAVY_SHARE * use.limit) if short else ()
        return Look(
            short, self._news(use, thresholds.pause) if short else "", heavy, self._victim(own, use, thresholds)
        )

    def _held(self, pids: list[int], enough: float, own: dict[int, int]) -> int:
        """Return what this process and its workers hold: closely where it matters, as that takes milliseconds.

        Args:
            pids: the workers.
            enough: up to so many bytes, more than there are may be counted.
            own: takes what each worker holds, where it is counted closely.
        """
        here = resident(os.getpid())
        loosely = here + sum(self._sizes.get(pid, 0) for pid in pids)  # pages that they share count several times
        if loosely <= enough:
            return loosely
        own.update({pid: private(pid) for pid in pids})
        return here + sum(own.values())

    def _news(self, use: MemoryUse, pause: float | None) -> str:
        if self._told or pause is None:
            return ""
        self._told = True
        return (
            f"nbparallel: memory is short: {in_use(use)}, more than {pause:.0%}. Until it is less, tasks begin one at "
            "a time (configure(memory_pause=...) says from when on).\n"
        )

    def _victim(self, own: dict[int, int], use: MemoryUse, thresholds: Thresholds) -> int | None:
        """Return the process to end: the largest, where they hold enough for that to help."""
        stop = thresholds.stop
        if stop is None or use.share <= stop or not own or any(pid in self._stopped for pid in own):
            return None  # one that is on its end already may be enough
        if sum(own.values()) < _WORTH_SHARE * use.limit:
            return None  # others fill the memory: ending small workers one by one would mend nothing
        victim = max(own, key=lambda pid: own[pid])
        self._stopped[victim] = (use, stop)
        self._sizes[victim] = own[victim]
        return victim

    def ended(self, pid: int, peak: int | None) -> None:
        """A worker has ended, which held `peak` bytes at most, as far as the system tells."""
        if peak is not None and pid not in self._stopped:
            self._sizes[pid] = max(peak, self._sizes.get(pid, 0))

    def last_known(self, pid: int) -> LastKnown:
        """Return what is known of the memory, as a worker has ended."""
        if pid in self._stopped:
            return LastKnown(self._sizes[pid], *self._stopped[pid])
        if self._use is None or time.monotonic() - self._looked > _STALE_SECONDS:
            self._use, self._looked = memory_use(lambda limit: resident(os.getpid())), time.monotonic()
        return LastKnown(self._sizes.get(pid), self._use)

    def gone(self, pid: int) -> None:
        """A worker has ended, and what it was at is dealt with."""
        self._sizes.pop(pid, None)
        self._stopped.pop(pid, None)


def in_use(use: MemoryUse) -> str:
    """Return how full the memory is, in words."""
    return f"{human_size(use.used)} of {human_size(use.limit)} ({use.reason}) were in use"


def resident(pid: int) -> int:
    """Return what a process has in memory, in bytes, shared pages included; 0 if it has ended."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def private(pid: int) -> int:
    """Return what would be free once a process had ended, in bytes; 0 if it has."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.AccessDenied:  # hardened systems show less even of one's own children
        return resident(pid)
    except psutil.Error:
        return 0
