"""`compare`: a function over inputs, serially and in parallel, side by side."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

from nbparallel import backends, config, machine
from nbparallel.backends import local
from nbparallel.choice import check_count, check_function
from nbparallel.comparison.answers import Finding, Likeness, compare_answers
from nbparallel.comparison.measuring import Job, Loop, Method, Outcome, Parallel
from nbparallel.comparison.quiet import ready_for_silence
from nbparallel.comparison.result import Comparison
from nbparallel.comparison.rows import Row
from nbparallel.comparison.status import Status
from nbparallel.comparison.verdict import Figures, Machine
from nbparallel.engine import worker
from nbparallel.mapping import check_seed
from nbparallel.runs.inputs import IteratorInput, SequenceInput, iterate, make_input
from nbparallel.serialize import name_of
from nbparallel.timeline.advice import LEAST_CPU_SECONDS
from nbparallel.tracebacks import hidden

METHODS = ("serial", "threads", "processes")
#: Without a number of repeats there are as many as this many seconds of the serial loop hold, within bounds.
REPEAT_SECONDS = 3.0
MOST_REPEATS = 7

_claims: list[object] = []


def compare(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    methods: str | Iterable[str] = METHODS,
    repeats: int | None = None,
    workers: int | None = None,
    seed: int | None = None,
    label: str | None = None,
) -> Comparison:
    """Compute ``[fn(x) for x in xs]`` by several methods, and say which is the fastest, and whether answers agree.

    Each method runs once with fresh workers of its own, which start for it: its first run has the start of the workers,
    the shipping of the function, and its imports. The runs after that find all warm; their median makes the speed-up.
    The methods take turns, so that what else the machine does meets all of them. The notebook's warm workers and
    `last_run` are left as they are.

    What tasks print, log and display is shown once, by the first serial run; only what C code and programs write is
    shown each time, where it is written in this process. A failure of one method stands in its row.

    Args:
        fn: what to call with one item of each iterable. It runs many times in this process, too.
        *iterables: the inputs, read once, so that each run has the same; the shortest ends them.
        methods: backends, as names or in one text with commas. The serial loop is always measured, first: it is what
            the others are compared with.
        repeats: runs of each method after its first; by default as many as three seconds of the serial loop hold, at
            least 1 and at most 7.
        workers: how many tasks run at once, at most; by default one per effective core (see `resources`).
        seed: as in `pmap`: without it, functions that draw random numbers give different answers.
        label: what it is called; by default the function's name.

    Returns:
        A `Comparison`: a cell shows it as a table with bars. Answers are ``"equal"`` if they are the same values, a NaN
        being equal to a NaN; ``"close"`` if floats differ by less than a billionth.

    Raises:
        TypeError: `fn` is not callable, is a coroutine function, or there is nothing to map over.
        ValueError: an argument is out of its range, a method is unknown, or there is no item.
        RuntimeError: it is called inside a task, or while another comparison runs.
        Exception: what `fn` raises in the serial loop, as itself.

    Example:
        >>> def square(x):
        ...     return x * x
        >>> [row.answers for row in compare(square, range(100)).rows]
        ['equal', 'equal', 'equal']
    """
    with hidden:
        check_function(fn)
        if not iterables:
            raise TypeError("compare() needs at least one iterable to map over")
        names = check_methods(methods)
        if repeats is not None:
            repeats = check_count(repeats, "repeats")
        width = config.resolve_workers(workers)
        seed = check_seed(seed)
        if worker.is_active() or local.is_inside_task():
            raise RuntimeError("compare() measures on all cores, and can't do so inside a task")
        inputs = _read(iterables)
        job = Job(fn, inputs, "one" if len(iterables) == 1 else "star", seed, label or name_of(fn))
        if not job.tasks:
            raise ValueError("there is nothing to compare: the inputs have no item")
        claim = object()
        try:  # not a lock: an interrupt just after it was taken would leave it so
            _claims.append(claim)
            if _claims[0] is not claim:
                raise RuntimeError("another comparison runs in this process: each would hold up the other")
            return _carry_out(job, names, width, repeats)
        finally:
            _claims.remove(claim)


class _Record:
    """One method, and what was measured of it so far.

    Args:
        method: the way to compute.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.times: list[float] = []
        self.cores = self.own = 0.0
        self.waits: int | None = 0
        self.finding = Finding(Likeness.EQUAL)
        self.error: Exception | None = None

    def take(self, outcome: Outcome, expected: list[Any]) -> None:
        """Take a run, and look at its answers."""
        self.times.append(outcome.seconds)
        # The most of all runs: a run that other programs have held up used less than it would have.
        self.cores, self.own = max(self.cores, outcome.cores), max(self.own, outcome.own)
        self.waits = None if self.waits is None or outcome.waits is None else self.waits + outcome.waits
        found = compare_answers(outcome.answers, expected)
        if found.likeness > self.finding.likeness:
            self.finding = found

    def row(self, serial: float) -> Row:
        """Return the row of the table; `serial` is the loop's median."""
        first, *times = self.times if self.error is None else [math.nan]
        cores = self.cores if sum(self.times) >= LEAST_CPU_SECONDS else None
        return Row(self.method.name, self.method.workers, first, tuple(times), serial, *self.finding, cores, self.error)


def _carry_out(job: Job, names: list[str], width: int, repeats: int | None) -> Comparison:
    loop = Loop(job)
    records = [_Record(loop), *(_Record(Parallel(name, job, width)) for name in names)]
    status = Status(job.label)
    done = False
    try:
        with ready_for_silence():
            status.begin(loop.name, None)
            outcome = loop.run()
            expected = outcome.answers
            records[0].take(outcome, expected)
            loop.speaks = False
            if repeats is None:
                repeats = max(1, min(MOST_REPEATS, int(REPEAT_SECONDS / max(outcome.seconds, 1e-9))))
            total = len(records) * (1 + repeats)
            for record in records[1:] + records * repeats:
                if record.error is None:
                    status.begin(record.method.name, total)
                    _run(record, expected)
        done = True
    finally:
        with contextlib.ExitStack() as stack:
            for record in records:
                # Whoever has pressed Stop does not wait for a thread's task, which can't be ended.
                stack.callback(record.method.close, wait=done)
        status.close(done=done)
    serial = records[0].row(math.nan).seconds
    first = records[0]
    busy = min(1.0, first.own) if sum(first.times) >= LEAST_CPU_SECONDS else None
    waits = None if first.waits is None else first.waits / (job.tasks * len(first.times))
    found = machine.resources()
    where = Machine(found.cores, found.reason, getattr(sys, "_is_gil_enabled", lambda: True)())
    rows = [record.row(serial) for record in records]
    return Comparison(job.label, expected, Figures(job.tasks, rows, where, busy, waits, job.seed is not None))


def _run(record: _Record, expected: list[Any]) -> None:
    """Run a method once more, and look at its answers."""
    try:
        outcome = record.method.run()
    except Exception as error:
        if isinstance(record.method, Loop):
            raise
        record.error = error
    else:
        record.take(outcome, expected)


def check_methods(methods: Any) -> list[str]:
    """Return the names of the methods beside the serial loop, each once."""
    if isinstance(methods, str):
        methods = [name.strip() for name in methods.split(",")]
    names = [backends.check(name) for name in iterate(methods)]
    return [name for name in dict.fromkeys(names) if name != Loop.name]


def _read(iterables: tuple[Iterable[Any], ...]) -> SequenceInput:
    """Read the inputs to their end."""
    inputs = make_input(iterables)
    if isinstance(inputs, IteratorInput):
        inputs.pull(sys.maxsize, 1, math.inf)
        return SequenceInput([inputs.items(0, inputs.pulled)])
    return inputs
