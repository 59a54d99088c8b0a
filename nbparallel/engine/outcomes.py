"""What workers report, made into objects again before anybody acts on it.

Loading is users' code (a `__setstate__`, a class' module), which may take long: Stop must not wait for it. So those who
hear a worker, `manager` and the backend `pathos`, call this without holding their lock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbparallel.engine.times import Measured
from nbparallel.engine.wire import Message
from nbparallel.engine.work import Failure
from nbparallel.errors import SerializationError
from nbparallel.serialize import loads, rebuild, salvage


@dataclass(slots=True)
class Report:
    """The outcomes of consecutive tasks of a chunk.

    Attributes:
        chunk: its number.
        run: that of its run.
        first: the index of the first of these tasks.
        values: their results; a failed one's is meaningless.
        failures: by index.
        measured: when and how long they ran.
        arrived: when it was here (`time.perf_counter`).
        weight: what the results weighed, pickled, in bytes.
        last: whether it ends its chunk.
    """

    chunk: int
    run: int
    first: int
    values: Sequence[Any]
    failures: dict[int, Failure]
    measured: Measured
    arrived: float
    weight: int
    last: bool


def load(message: Message) -> Message:
    """Return a worker's message with what it pickled rebuilt: a `Report`, or the failure of its initializer."""
    (kind, *details), segments = message
    if kind == "done":
        arrived = time.perf_counter()
        chunk, run, first, count, measured, described, last = details
        failures = {index: _load_failure(failure) for index, failure in described}
        values, failures = _load_values(segments, first, count, failures)
        weight = sum(map(len, segments))
        return (kind, Report(chunk, run, first, values, failures, measured, arrived, weight, last)), []
    if kind == "initializer failed":
        return (kind, _load_failure(details[0])), []
    return message


def _load_values(
    segments: list[bytearray], first: int, count: int, failures: dict[int, Failure]
) -> tuple[Sequence[Any], dict[int, Failure]]:
    """Rebuild the results of a report; those tasks fail whose own result raises (a `__setstate__`, say)."""
    try:
        return loads(segments), failures
    except BaseException as error:
        values: Sequence[Any] = [None] * count
        lost = dict.fromkeys(range(count), error)
    with contextlib.suppress(Exception):  # a stream that can't be read at all: no task of its has a result
        values, lost = salvage(segments)
    for offset, why in lost.items():
        told = f"a result could not be rebuilt in the notebook: {type(why).__name__}: {why}"
        failure = Failure(SerializationError(told), "SerializationError", told)
        failures.setdefault(first + offset, failure)
    return values, failures


def _load_failure(details: dict[str, Any]) -> Failure:
    """Rebuild a failure that a worker described."""
    error: BaseException | None = None
    unpicklable = details.get("unpicklable", "")
    if "pickle" in details and not unpicklable:
        try:
            error = loads(details["pickle"])
        except BaseException as broken:
            unpicklable = f"its exception, a {details['type']} (which fails to rebuild: {broken}),"
    return Failure(
        error,
        details["type"],
        details["message"],
        details["traceback"],
        unpicklable,
        frames=rebuild(details.get("frames")),
    )
