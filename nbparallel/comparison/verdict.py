"""What a comparison means, in words: rules over its figures, without a clock.

The first sentence says what to use, with the measurement that says so; what else a reader must know follows. Called by
`result`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nbparallel.comparison.answers import Likeness
from nbparallel.comparison.rows import Row
from nbparallel.timeline.advice import TINY_SECONDS
from nbparallel.words import duration

#: A method that is less than this many times as fast as the loop is not worth a change.
GAIN = 1.15
#: Methods whose times differ by less than this factor count as equally fast: the simpler one is named.
NEAR = 1.1
#: Tasks that use a core for less than this part of their time wait: for files, servers, a clock.
WAITING = 0.5
#: Those that use one for less than this part wait for some of their time.
PARTLY_WAITING = 0.85
#: Both do so this often at least; those that only compute hardly ever.
PAUSES = 0.5
#: This process computes on more than one core from here on.
MANY_CORES = 1.2
#: Runs of one method that differ by more than this factor are worth a word, if they take so long, in seconds.
UNEVEN, UNEVEN_SECONDS = 2.0, 0.01
#: The loop's first run is worth a word if it took so many times as long as the others, and so many seconds more.
FIRST, FIRST_SECONDS = 3.0, 0.01


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        cores: how many this process may use.
        reason: which bound says so.
        locked: whether threads take turns at Python's lock.
    """

    cores: int
    reason: str
    locked: bool = True


@dataclass(frozen=True)
class Figures:
    """All that the rules look at.

    Attributes:
        tasks: how many.
        rows: one a method, the loop first.
        machine: where.
        busy: the part of its time for which the loop's thread used a core; `None` where that is not known.
        pauses: how often one of its tasks gave up the processor to wait for something; `None` likewise.
        seed: whether the tasks had one.
    """

    tasks: int
    rows: list[Row]
    machine: Machine
    busy: float | None = None
    pauses: float | None = None
    seed: bool = False

    @property
    def parallel(self) -> list[Row]:
        """The methods that got to their end, without the loop."""
        return [row for row in self.rows[1:] if row.error is None]

    @property
    def wrong(self) -> list[Row]:
        """Those of them that give other answers, though the loop gives the same each time."""
        agrees = self.serial.likeness is not Likeness.DIFFERENT
        return [row for row in self.parallel if agrees and row.likeness is Likeness.DIFFERENT]

    @property
    def serial(self) -> Row:
        """The loop."""
        return self.rows[0]

    @property
    def waits(self) -> bool:
        """Whether the tasks are known to wait for most of their time, and not only for a core."""
        return self.waits_partly and self.busy is not None and self.busy < WAITING

    @property
    def waits_partly(self) -> bool:
        """Whether they are known to wait for some of it at least."""
        busy, pauses = self.busy, self.pauses
        return busy is not None and busy < PARTLY_WAITING and (pauses is None or pauses >= PAUSES)

    @property
    def changes(self) -> bool:
        """Whether the loop's first run took much longer than the others."""
        first, seconds = self.serial.first, self.serial.seconds
        return first > FIRST * seconds and first - seconds > FIRST_SECONDS

    @property
    def takes_turns(self) -> bool:
        """Whether threads are known to have kept no more cores busy than the loop, for want of Python's lock."""
        found = [row.cores for row in self.parallel if row.method == "threads"]
        if not (found and found[0] and self.serial.cores and self.busy) or self.waits or not self.machine.locked:
            return False
        return found[0] / self.serial.cores < GAIN


def judge(figures: Figures) -> tuple[str, list[str]]:
    """Return what to use, and what else is to be known."""
    pick = _pick(figures)
    remarks = [*_answers(figures), *_failures(figures), *_first_runs(figures, pick), *_cores(figures)]
    return _advice(figures, pick), [*remarks, *_uneven(figures)]


def _pick(figures: Figures) -> Row | None:
    """Return the row of the method to use; `None` for the loop."""
    # Threads that took turns were faster by chance: other programs left them more of the cores.
    chance = {"threads"} if figures.takes_turns else set()
    able = [row for row in figures.parallel if row.method not in chance and row not in figures.wrong]
    best = min(able, key=lambda row: row.seconds, default=None)
    if best is None or best.speedup < GAIN:
        return None
    near = [row for row in able if row.seconds <= NEAR * best.seconds]
    order = ["threads", "processes"]  # in this order they are simpler than what remains
    return min(near, key=lambda row: order.index(row.method) if row.method in order else len(order))


def _advice(figures: Figures, pick: Row | None) -> str:
    machine, each = figures.machine, figures.serial.seconds / figures.tasks
    if len(figures.rows) == 1:
        return f"Only the serial loop was measured: {duration(each)} a task."
    if not figures.parallel:
        return "Nothing but the serial loop got to its end."
    told = pick is None or figures.busy is not None
    if machine.cores == 1 and not figures.waits_partly and told and each > TINY_SECONDS:
        return (
            f"One effective core here ({machine.reason}): no CPU-bound speed-up can appear. What differs between the "
            "methods is their overhead: stay serial."
        )
    if pick is None:
        best = max(figures.wrong, key=lambda row: row.speedup, default=None)
        if best is not None and best.speedup >= GAIN:
            return f"Stay serial: {best.method}, {best.speedup:.1f} × as fast, gave other answers. Mend that first."
        return _serial(figures, each)
    gain = f"{pick.method}, {pick.speedup:.1f} × on {_workers(pick)}"
    if figures.busy is None:
        return f"{gain[0].upper()}{gain[1:]}."
    if figures.waits:
        return f"I/O-bound, the tasks wait for {1 - figures.busy:.0%} of their time: {gain}."
    if figures.waits_partly:
        return f"The tasks wait for {1 - figures.busy:.0%} of their time and compute for the rest: {gain}."
    if pick.method == "threads":
        free = "and free of Python's lock" if machine.locked else "and this Python has no lock"
        return f"CPU-bound, {free}: {gain}; nothing has to travel."
    why = "; threads take turns at Python's lock" if figures.takes_turns else ""
    return f"CPU-bound: {gain}{why}."


def _serial(figures: Figures, each: float) -> str:
    """Say why nothing is faster than the loop."""
    if figures.tasks == 1:
        return "One task keeps one worker busy: stay serial, or cut the work into more tasks."
    if each < TINY_SECONDS:
        return f"Tasks of {duration(each)}: serial. Handing them out costs what it saves; put more work into each."
    if figures.serial.cores is not None and figures.serial.cores > MANY_CORES:
        return f"The tasks keep {figures.serial.cores:.1f} cores busy by themselves (BLAS, OpenMP): stay serial."
    workers = max(row.workers for row in figures.parallel)
    if workers == 1:
        return "One worker is no faster than the loop: stay serial, or compare with more workers."
    if figures.waits:
        return (
            f"I/O-bound, the tasks wait for {1 - (figures.busy or 0.0):.0%} of their time, but side by side they take "
            "as long: they wait for one another (a lock, one server), or for one that takes most of the time."
        )
    return (
        f"Nothing was {GAIN - 1:.0%} faster than the loop: stay serial. One long task, heavy inputs or results, or "
        "busy cores do that; `last_run().timeline()` of a pmap shows which."
    )


def _answers(figures: Figures) -> Iterator[str]:
    serial = figures.serial
    if serial.likeness is Likeness.DIFFERENT:
        drawn = "" if figures.seed else "random numbers without a seed (seed=1), "
        yield (
            f"Answers differ from run to run, serially too ({serial.told}): {drawn}the time, or something that the "
            "function changes, such as a global or its input."
        )
    if serial.likeness is Likeness.UNKNOWN:
        yield f"Not all answers could be compared: {serial.told}."
    for row in figures.parallel:
        if row.likeness is Likeness.UNKNOWN and serial.likeness is not Likeness.UNKNOWN:
            yield f"{row.method}: not all answers could be compared: {row.told}."
        elif row.likeness is Likeness.CLOSE:
            yield f"{row.method}: floats differ by less than a billionth ({row.told}): sums in another order."
        elif row in figures.wrong:
            yield f"{row.method}: answers differ ({row.told}): {_why_different(row, figures)}"


def _why_different(row: Row, figures: Figures) -> str:
    if row.method == "threads":
        told = "look at what the tasks share and change; threads need a lock there."
        return f"{told} A seed reaches threads by nbparallel.rng() only." if figures.seed else told
    return "look at what the tasks share and change: each process has its own copy of it."


def _failures(figures: Figures) -> Iterator[str]:
    for row in figures.rows:
        if row.error is not None:
            yield f"{row.method} failed: {row.trouble}"


def _first_runs(figures: Figures, pick: Row | None) -> Iterator[str]:
    serial = figures.serial
    if figures.changes:
        yield (
            f"Serially the first run took {duration(serial.first)}, the others {duration(serial.seconds)}: "
            "the function imports something at first, or remembers its results. Then the first runs tell more."
        )
    elif pick is not None and pick.first > serial.first:
        runs = 2 + int((pick.first - serial.first) / (serial.seconds - pick.seconds))
        what = "threads start" if pick.method == "threads" else "workers start, the function and its imports travel"
        yield (
            f"The first run on {pick.method} took {duration(pick.first)}: its {what}. It pays from run {runs} on, or "
            "with more work."
        )


def _cores(figures: Figures) -> Iterator[str]:
    cores = figures.machine.cores
    most = max((row.workers for row in figures.parallel), default=1)
    if most > cores and not figures.waits and figures.serial.seconds / figures.tasks > TINY_SECONDS:
        shared = "one core" if cores == 1 else f"{cores} cores"
        yield (
            f"Efficiency is the speed-up per worker: {most} workers on {shared} can't get above {cores / most:.0%} "
            "where tasks compute."
        )


def _uneven(figures: Figures) -> Iterator[str]:
    if figures.busy is not None and figures.busy < WAITING and not figures.waits:
        yield f"The loop had a core for {figures.busy:.0%} of its time: other programs use the cores too."
        return
    if figures.changes:
        return
    rows = [row for row in figures.rows if row.error is None and row.seconds > UNEVEN_SECONDS]
    uneven = [(max(row.times) / min(row.times), row) for row in rows]
    factor, row = max(uneven, key=lambda each: each[0], default=(1.0, None))
    if row is not None and factor > UNEVEN:
        yield f"The runs of {row.method} differ by a factor of {factor:.1f}: other programs may use the cores too."


def _workers(row: Row) -> str:
    return "1 worker" if row.workers == 1 else f"{row.workers} workers"
