"""What the scheduler asks of whoever performs it: plain values, without a method. See `scheduler` for when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Chunk:
    """Tasks `start` to `stop` of a run, on their way to a worker."""

    number: int
    run: int
    start: int
    stop: int


@dataclass(slots=True)
class Start:
    """Start so many workers."""

    count: int


@dataclass(slots=True)
class Send:
    """Hand a chunk to a worker."""

    worker: int
    chunk: Chunk


@dataclass(slots=True)
class Stop:
    """Let an idle worker go."""

    worker: int


@dataclass(slots=True)
class Abort:
    """Have a worker stop what it does for a run; end it if it does not."""

    worker: int
    run: int
    chunk: int


@dataclass(slots=True)
class Skip:
    """Have a worker leave out what it has not begun of a run."""

    worker: int
    run: int


@dataclass(slots=True)
class Crashed:
    """Note that a worker died while it ran this task."""

    run: int
    index: int
    pid: int
    exitcode: int | None


@dataclass(slots=True)
class Finish:
    """Note that nothing of a run is waiting or under way."""

    run: int


@dataclass(slots=True)
class Hungry:
    """Ask for so many more items of a run."""

    run: int
    count: int


@dataclass(slots=True)
class GiveUp:
    """Note that no worker lives long enough to run it."""

    run: int


Action = Start | Send | Stop | Abort | Skip | Crashed | Finish | Hungry | GiveUp
