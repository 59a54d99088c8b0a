"""What the in-process backends share: running the tasks of a chunk right here.

Called by `threads` and `serial`, and by the plain loop of `comparison`. Nested maps are seen here: a map that starts
inside a task runs serially.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nbparallel.engine import streams
from nbparallel.engine.times import Meter, Times, here
from nbparallel.engine.work import Failure, Payload, Work
from nbparallel.tracebacks import in_words, without_ours

#: Outcomes of a long chunk are handed over at this interval, in nanoseconds.
REPORT_NS = 50_000_000


class _Here(threading.local):
    inside = False


_here = _Here()

Report = Callable[[int, Sequence[Any], dict[int, Failure], Times], None]


def is_inside_task() -> bool:
    """Return whether this thread runs a task."""
    return _here.inside


@contextlib.contextmanager
def as_task() -> Iterator[None]:
    """Have what runs in here, in this thread, count as a task."""
    was_inside, _here.inside = _here.inside, True
    try:
        yield
    finally:
        _here.inside = was_inside


def run_chunk(
    work: Work,
    payload: Payload,
    first: int,
    report: Report,
    wanted: Callable[[], bool],
    scope: str,
    worker: int = 0,
) -> tuple[int, float]:
    """Run tasks one by one, handing over their outcomes now and then.

    Args:
        work: the run.
        payload: its function and inputs.
        first: the index of the first input.
        report: takes consecutive outcomes: first index, values, failures, times.
        wanted: whether the tasks that have not begun are still wanted.
        scope: whose random state a seed may set (see `streams.seeded`).
        worker: the number of the thread, among those of its backend.

    Returns:
        Of what was handed over last: the number of tasks, and the seconds that they took.
    """
    call = caller(payload.function, work.style)
    with_stream = None if work.seed is None else streams.seeded(call, work.seed, scope)
    values: list[Any] = []
    failures: dict[int, Failure] = {}
    index = first
    pid = os.getpid()
    meter = Meter(alone=False)
    due = time.perf_counter_ns() + REPORT_NS
    was_inside, _here.inside = _here.inside, True
    try:
        for item in payload.inputs:
            now = time.perf_counter_ns()
            if values and now > due:
                report(index - len(values), values, failures, here(meter.read(len(values)), worker, pid))
                values, failures, meter = [], {}, Meter(alone=False)
                now = time.perf_counter_ns()
                due = now + REPORT_NS
            if not wanted():
                break
            meter.stamp(now)
            try:
                value = call(item) if with_stream is None else with_stream(item, index)
            except (Exception, SystemExit, GeneratorExit) as error:  # only an interrupt is not the task's own
                failures[index] = failure_of(error)
                value = None
            values.append(value)
            index += 1
            if failures and work.stop_on_error and not work.retries:
                break
    finally:
        # An interrupt ends the chunk, but not what it has done.
        _here.inside = was_inside
        times = here(meter.read(len(values)), worker, pid)
        if values:
            report(index - len(values), values, failures, times)
    return len(values), times.seconds


def failure_of(error: BaseException) -> Failure:
    """Return a failure that holds the exception itself, as it never left this process."""
    BaseException.with_traceback(error, without_ours(error.__traceback__))  # past the class: it may be frozen
    message, text = in_words(error)
    return Failure(error, type(error).__qualname__, message, text)


def caller(function: Callable[..., Any], style: str) -> Callable[[Any], Any]:
    """Return a function of one input item (see `engine.worker`)."""
    if style == "one":
        return function
    if style == "star":
        return lambda item: function(*item)
    return lambda item: function(*item[0], **item[1])
