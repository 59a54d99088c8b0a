"""One method's row of a comparison's table. Made by `compare`; `verdict` judges rows, `pictures` draws them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from nbparallel.comparison.answers import Likeness

#: An error's message is cut to so many characters in a table.
_TROUBLE = 200


@dataclass(frozen=True)
class Row:
    """What was measured of one method.

    Times are in seconds. Of a method that failed they are NaN.

    Attributes:
        method: ``"serial"`` or a backend's name.
        workers: how many tasks ran at once.
        first: the first run, with the start of workers, the shipping of the function and its imports.
        times: the runs after it, which found all that warm.
        serial: the median of the serial loop's, as the speed-up's measure.
        likeness: how alike the answers were to those of the first serial run, in the worst of the runs.
        told: where they were not equal, in words.
        cores: how many cores this process kept busy meanwhile; `None` where that is not known.
        error: what the method failed with; `None` if it did not.
    """

    method: str
    workers: int
    first: float
    times: tuple[float, ...]
    serial: float
    likeness: Likeness = Likeness.EQUAL
    told: str = ""
    cores: float | None = None
    error: Exception | None = None

    @property
    def seconds(self) -> float:
        """The median of `times`."""
        return statistics.median(self.times) if self.times else float("nan")

    @property
    def speedup(self) -> float:
        """How many times as fast as the serial loop it was, by the medians."""
        return self.serial / self.seconds if self.seconds else float("nan")

    @property
    def efficiency(self) -> float:
        """The speed-up per worker."""
        return self.speedup / self.workers

    @property
    def answers(self) -> str:
        """``"equal"``, ``"close"``, ``"unknown"``, ``"differ"``, or ``"failed"``."""
        return self.likeness.word if self.error is None else "failed"

    @property
    def trouble(self) -> str:
        """The error in one line; empty without one."""
        if self.error is None:
            return ""
        text = " ".join(f"{type(self.error).__name__}: {self.error}".split())
        return text if len(text) <= _TROUBLE else f"{text[:_TROUBLE]}…"
