"""`Comparison`: what `compare` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbparallel.comparison import pictures
from nbparallel.comparison.rows import Row
from nbparallel.comparison.verdict import Figures, Machine, judge

if TYPE_CHECKING:
    import pandas

    from nbparallel.timeline.figures import PlainFigure

#: On a cell's output that shows a comparison: it is full of times, and `nbval` does not compare it.
METADATA = {"nbparallel": "comparison"}


class Comparison:
    """What a comparison has measured: a cell shows it as a table with bars, ``print`` as text.

    Attributes:
        label: what was compared.
        tasks: how many tasks each run had.
        rows: one for each method, the serial loop first: ``method``, ``workers``, ``first`` and ``seconds`` (the first
            run and the median of those after it), ``times``, ``speedup``, ``efficiency``, ``answers``, ``error``.
        results: the answers of the first serial run.
        machine: how many cores there were, and why.
        verdict: what to use, in words, with the measurement that says so.
        remarks: what else is to be known: answers that differ, failures, first runs, cores.
    """

    def __init__(self, label: str, results: list[Any], figures: Figures) -> None:
        self.label = label
        self.tasks = figures.tasks
        self.rows: list[Row] = figures.rows
        self.results = results
        self.machine: Machine = figures.machine
        self.verdict, self.remarks = judge(figures)

    @property
    def headline(self) -> str:
        """What was measured, in a line."""
        tasks = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        runs = len(self.rows[0].times)
        again = "1 run" if runs == 1 else f"{runs} runs"
        cores = "1 core" if self.machine.cores == 1 else f"{self.machine.cores} cores"
        return f"{self.label}: {tasks} on {cores}, a first run and {again} after it"

    def __repr__(self) -> str:
        return pictures.text(self)

    def _repr_html_(self) -> str:
        return pictures.page(self)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, str]]:
        return {"text/html": self._repr_html_()}, METADATA

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the table, as its columns.

        Returns:
            ``method``, ``workers``, ``first`` and ``seconds`` (the first run, and the median of those after it),
            ``times`` (each of those), ``speedup``, ``efficiency``, ``answers``, and ``error``, the exception or `None`.
            The times of a method that failed are NaN.
        """
        names = ("method", "workers", "first", "seconds", "times", "speedup", "efficiency", "answers", "error")
        return {name: [getattr(row, name) for row in self.rows] for name in names}

    def to_frame(self) -> pandas.DataFrame:
        """Return the table of `to_dict` as a pandas data frame, with the method as its index.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                f"to_frame() needs pandas ({error}): pip install pandas. to_dict() has the same columns."
            ) from error
        return pandas.DataFrame(self.to_dict()).set_index("method")

    def plot(self) -> PlainFigure:
        """Draw the times and the speed-ups.

        Returns:
            A matplotlib figure: a cell shows it as a picture, and ``.savefig("comparison.png")`` writes it to a file.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from nbparallel.comparison import figures
        except ImportError as error:
            raise ImportError(
                f"plot() draws with matplotlib ({error}): pip install 'nbparallel[plot]'. Without it, display the "
                "comparison itself, or print it."
            ) from error
        return figures.draw(self)
