"""`Recorded`: an execution that keeps when and where its tasks ran, and can be looked at. `run.Run` is one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbparallel.engine.times import Times
from nbparallel.runs.execution import Execution
from nbparallel.timeline.records import Records, columns

if TYPE_CHECKING:
    import pandas

    from nbparallel.timeline.figures import PlainFigure
    from nbparallel.timeline.pictures import Portrait


#: On a cell's output that shows a run, so that programs know it: it is full of times, and `nbval` does not compare it.
METADATA = {"nbparallel": "run"}


@dataclass(frozen=True)
class AtWork:
    """What a worker does for a run.

    Attributes:
        pid: its process.
        done: how many tasks it has run.
        index: the task that it is at; `None` if it is at none.
        seconds: for how long.
    """

    pid: int
    done: int
    index: int | None
    seconds: float


class Recorded(Execution):
    """Tasks whose times are kept."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._records = Records()

    def timed(self, first: int, count: int, times: Times) -> None:
        """Take note of when and where tasks ran."""
        self._records.add(first, count, times, self._began)

    def __str__(self) -> str:
        """Return its timeline as text: the workers as lanes, what they add up to, and what would help."""
        from nbparallel.timeline import pictures

        return pictures.text(self._portrait())

    def _repr_html_(self) -> str:
        from nbparallel.timeline import pictures

        return pictures.page(self._portrait())

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, str]]:
        return {"text/html": self._repr_html_()}, METADATA

    def timeline(self) -> PlainFigure:
        """Draw when the workers computed, when they waited for inputs and results to travel, and when they were idle.

        Workers are lanes, in the order in which they took up work. Tasks that failed, or were ended with the run,
        are marked. What would help is written below. Where there are too many tasks to draw, each bar shows what
        share of its time was spent how.

        Returns:
            A matplotlib figure: a cell shows it as a picture, which stays in a saved notebook, and
            ``run.timeline().savefig("run.png")`` writes it to a file.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from nbparallel.timeline import figures
        except ImportError as error:
            raise ImportError(
                f"run.timeline() draws with matplotlib ({error}): pip install 'nbparallel[plot]'. Without it, display "
                "the run itself, or print(run)."
            ) from error
        return figures.draw(self._portrait())

    @property
    def advice(self) -> list[str]:
        """What was noticed of how it ran, each with what would make it faster; empty where all is well."""
        return self._portrait().advice

    def to_dict(self) -> dict[str, list[Any]]:
        """Return a table with one row a task, as its columns.

        Returns:
            ``index``; ``outcome``: ``"ok"``, ``"failed"``, ``"from before"`` (a checkpoint, or the run that was
            resumed), ``"ended"`` (with the run, while it ran), ``"not run"``, or ``"pending"``; ``worker``, from 1 in
            the order in which they took up work, and its ``pid``; ``start``, in seconds since the run began;
            ``seconds``; and ``error``, the name of the exception's class. What is not known is `None`: a result from
            before has no times, nor has a task that failed before it reached a worker. Of tasks under 20 µs that ran
            together only their mean is known. Of a task that was run again, its last time counts.
        """
        return columns(self._records, self._offered, self._outcome_in_a_word, dict(self.failures))

    def to_frame(self) -> pandas.DataFrame:
        """Return the table of `to_dict` as a pandas data frame, with the index as its index.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                f"run.to_frame() needs pandas ({error}): pip install pandas. run.to_dict() has the same columns."
            ) from error
        types: Any = {"worker": "Int64", "pid": "Int64", "start": float, "seconds": float}
        return pandas.DataFrame(self.to_dict()).set_index("index").astype(types)

    def at_work(self) -> list[AtWork]:
        """Return what each worker process has done of it and is at; nothing where the backend does not know."""
        tasks = self._backend.under_way(self)
        if tasks is None:
            return []
        done = dict(zip(self._records.pids, self._records.counts, strict=False))  # they grow meanwhile
        return [AtWork(pid, done.get(pid, 0), *tasks.get(pid, (None, 0.0))) for pid in {**done, **tasks}]

    def _portrait(self) -> Portrait:
        from nbparallel import machine
        from nbparallel.timeline import advice, lanes, pictures

        name = self._backend.name
        complete = self._finished and self._done_count == self._offered
        found = lanes.measure(
            self._records,
            self.seconds,
            1 if name == "serial" else self.width,
            list(self.failures),
            None if complete or not self._finished else lambda index: not self._has_outcome(index),
        )
        state = "" if self._finished and not self._cancelled else f"{'cancelled' if self._cancelled else 'running'}, "
        remarks = []
        if self._known_count:
            one = self._known_count == 1
            remarks.append(f"{self._known_count} {'result is' if one else 'results are'} from before, without a time.")
        if not found.lanes:
            remarks.append("No task ran." if self._finished else "No task has come back yet.")
        cores = machine.resources()
        locked = getattr(sys, "_is_gil_enabled", lambda: True)()
        setting = advice.Setting(name, cores.cores, cores.reason, self.chunksize, locked)
        return pictures.Portrait(
            self.label,
            f"{self.label}: {state}{self.summary()}",
            found,
            "" if name == "processes" else name,
            remarks,
            advice.advise(found, setting),
        )

    def _outcome_in_a_word(self, index: int) -> str:
        if index in self.failures:
            return "failed"
        if self._is_from_before(index):
            return "from before"
        if self._has_outcome(index):
            return "ok"
        return "not run" if self._finished else "pending"

    def _is_from_before(self, index: int) -> bool:
        """Return whether a task's result was known before this run."""
        raise AssertionError("each kind of execution knows for itself")
