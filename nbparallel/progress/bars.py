"""The forms of a bar: a widget in a notebook, a text where widgets are missing, tqdm's line in a terminal.

Made by `watch`, which says when a bar moves and when it ends. A bar reads its run and changes nothing there, but for
who writes the output of tasks. It is driven by one thread.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import sys
import weakref
from typing import Any, Protocol

from nbparallel.engine.work import Said
from nbparallel.output import showing
from nbparallel.progress.panels import Panel, is_captured
from nbparallel.runs import recorded
from nbparallel.runs.recorded import AtWork
from nbparallel.runs.run import Run
from nbparallel.words import duration

#: On each output of a bar, so that programs know it from the cell's own: `nbval` does not compare it.
METADATA = {"nbparallel": "progress"}

_COUNTS = "{percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
_COUNTS_UP = "{n_fmt} tasks [{elapsed}, {rate_fmt}{postfix}]"
_TEXT_WIDTH = 80
#: What each worker does is shown for so many; of more, only how many are at work.
LANES = 8
#: So many bars of tasks are shown.
INNER = 8
#: A task that takes longer, in seconds, is named.
LONG_SECONDS = 1.0
# As JupyterLab shows text, so that nothing moves when the text takes the bar's place.
_STYLE = (
    "font: var(--jp-code-font-size, 13px)/var(--jp-code-line-height, 1.3) var(--jp-code-font-family, monospace);"
    " padding-left: var(--jp-code-padding, 5px); white-space: pre-wrap"
)


class Bar(Protocol):
    """A bar on show."""

    def move(self) -> None:
        """Show how far the run is."""

    def close(self) -> None:
        """Show how far it came, and leave what stays."""


def open_bar(run: Run, headline: str, loop: Any = None) -> Bar | None:
    """Return a bar in the form that suits the front end; `None` where there is no place for one.

    Args:
        run: started.
        headline: its line that never changes.
        loop: the user's own bar around this map (see `find_loop`).
    """
    if showing.in_notebook():
        return NotebookBar(run, headline, loop)
    return TerminalBar(run) if sys.stderr is not None else None


def find_loop() -> Any:
    """Return the first of tqdm's bars that are open in this process and shown; `None` if there is none."""
    tqdm = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    found = [each for each in list(getattr(tqdm, "_instances", ())) if not getattr(each, "disable", True)]
    shown = [each for each in found if each.fp in (sys.stdout, sys.stderr)]  # not in a file of its own
    return min(shown, key=lambda each: abs(getattr(each, "pos", 0)), default=None)


def headline(run: Run) -> str:
    """Return a run's line that never changes, such as ``"square: 100 tasks on 4 workers"``."""
    tasks = "tasks" if run.total is None else _count(run.total, "task")
    return f"{run.label}: {tasks} on {_count(run.width, 'worker')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class NotebookBar(Bar):
    """One output with a headline and a bar, replaced by the headline at the end; then one with the summary.

    A saved notebook holds text only, and needs no widget's state to be read. Within a loop that has a bar of its own,
    all maps of a cell have one output, and one line stays, which is that of the last.

    Args:
        run: started.
        headline: its line that never changes; it stands also for the widget where that can't be shown.
        loop: the bar of the loop, of tqdm.
        waits: whether a cell waits for the run.
    """

    def __init__(self, run: Run, headline: str, loop: Any = None, *, waits: bool = True) -> None:
        self._run = run
        self._headline = headline
        self._panel = _make_panel(run, self._html(), waits=waits)
        self._is_captured = self._panel is not None and is_captured()
        self._loop = loop = None if self._is_captured else loop
        view = {} if self._panel is None else self._panel.view
        data = {**view, **self._stays()}
        self._output = display(data) if loop is None else _display_in(loop, data)

    def move(self) -> None:
        if self._panel is not None:
            self._panel.move(self._html())
        else:
            lines = [self._headline, _meter(self._run, ncols=_TEXT_WIDTH), *self._below()]
            self._output.update({"text/plain": "\n".join(lines)}, raw=True, metadata=METADATA)

    def close(self) -> None:
        self.move()
        summary = self._run.summary()
        stays = self._stays() if self._loop is None else {"text/plain": f"{self._headline}: {summary}"}
        self._leave(stays, METADATA)
        if self._loop is None:
            display({"text/plain": summary})

    def _leave(self, stays: dict[str, str], metadata: dict[str, str]) -> None:
        """Have this stay in the bar's place."""
        if self._panel is not None and self._is_captured:
            text = f'<div style="{_STYLE}">{html.escape(stays["text/plain"])}</div>'
            self._panel.settle(stays.get("text/html", text))
            return
        self._output.update(stays, raw=True, metadata=metadata)
        if self._panel is not None:
            self._panel.close()

    def _stays(self) -> dict[str, str]:
        return {"text/plain": self._headline}

    def _below(self) -> list[str]:
        return [*_lanes(self._run), *self._run.inner.lines(INNER)]

    def _html(self) -> str:
        run = self._run
        how_far = "" if run.total is None else f' value="{run.completed}" max="{run.total or 1}"'
        colour = "var(--jp-error-color1, #d32f2f)" if run.failures else "var(--jp-brand-color1, #1976d2)"
        counts = _meter(run, bar_format=_COUNTS_UP if run.total is None else _COUNTS)
        below = "<br>".join(map(html.escape, self._below()))
        return (
            f'<div style="{_STYLE}"><div>{html.escape(self._headline)}</div>'
            f'<progress{how_far} style="width: 20%; accent-color: {colour}"></progress>'
            f"<span> {html.escape(counts)}</span><div>{below}</div></div>"
        )


class LiveBar(NotebookBar):
    """The bar of a run that no cell waits for, and its picture in the end: all in one output.

    Args:
        run: started, in a notebook.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run, headline(run), waits=False)

    def close(self) -> None:
        self.move()
        self.show_end()

    def show_end(self) -> None:
        """Show the picture in the bar's place."""
        self._leave(self._stays(), recorded.METADATA)

    def _stays(self) -> dict[str, str]:
        return {"text/plain": repr(self._run), "text/html": self._run._repr_html_()}


class TerminalBar(Bar):
    """tqdm's bar, and those of tasks below it; what tasks print stands above it.

    Args:
        run: started.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._inner = TerminalLines()
        if run.is_within_line and sys.stderr.isatty():  # the bar would be painted over it
            sys.stderr.write("\n")
        # Without smoothing its rate is that of the whole run, not only of what was seen. The delay spares a first line
        # that says 0. Below the bar of a loop it does not stay.
        self._bar = _line_of_tqdm()(
            total=run.total, desc=run.label, unit="task", smoothing=0, delay=1e-9, dynamic_ncols=True, leave=None
        )
        self._bar.start_t -= run.seconds
        run.show = self._show_above
        self.move()

    def move(self) -> None:
        self._read()
        self._bar.refresh()
        if sys.stderr.isatty():  # elsewhere nothing goes down and up again
            self._inner.show(self._run.inner.lines(INNER))

    def close(self) -> None:
        self._inner.show([])
        self._read()
        self._bar.close()
        self._run.show = showing.show

    def _read(self) -> None:
        self._bar.total = self._run.total
        self._bar.n, self._bar.initial = self._run.completed, self._run.completed_before
        self._bar.set_postfix_str(_postfix(self._run), refresh=False)

    def _show_above(self, said: Said) -> None:
        if said.kind in ("stdout", "stderr") and not said.text.endswith("\n"):
            said = dataclasses.replace(said, text=f"{said.text}\n")
        with self._bar.external_write_mode(sys.stdout if said.kind == "stdout" else sys.stderr):
            showing.show(said)


class TerminalLines:
    """Lines below whatever bar of tqdm there is."""

    def __init__(self) -> None:
        self._bars: list[Any] = []

    def show(self, lines: list[str]) -> None:
        """Show these, and no more those from before."""
        while len(self._bars) > len(lines):
            self._bars.pop().close()
        while len(self._bars) < len(lines):
            self._bars.append(_line_of_tqdm()(bar_format="{desc}", leave=False, delay=1e-9, dynamic_ncols=True))
        for bar, line in zip(self._bars, lines, strict=True):
            bar.set_description_str(line)


@functools.cache
def _line_of_tqdm() -> Any:
    from tqdm import tqdm

    class Line(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread that looks after it: it moves ten times a second

    return Line


def display(data: dict[str, Any]) -> Any:
    """Show one more output, and return its handle."""
    from IPython.display import DisplayHandle

    handle: Any = DisplayHandle  # untyped, as all of it
    handle = handle()
    handle.display(data, raw=True, metadata=METADATA)
    return handle


#: By the bar of a loop: in which cell its maps are shown, and by which output.
_outputs: weakref.WeakKeyDictionary[Any, tuple[int, Any]] = weakref.WeakKeyDictionary()


def _display_in(loop: Any, data: dict[str, Any]) -> Any:
    """Show in the one output that all maps of a loop share, and return its handle."""
    cell = showing.cell()
    if loop in _outputs and _outputs[loop][0] == cell:
        output = _outputs[loop][1]
        output.update(data, raw=True, metadata=METADATA)
        return output
    # Bars of text stand below it from now on; above, they would stand still.
    with loop.external_write_mode(file=sys.stderr):
        output = display(data)
    _outputs[loop] = cell, output
    return output


def _make_panel(run: Run, text: str, *, waits: bool) -> Panel | None:
    try:
        return Panel(run, text, waits=waits)
    except ImportError:
        return None


def _meter(run: Run, **form: Any) -> str:
    from tqdm import tqdm

    total: Any = run.total  # None if unknown, which tqdm's types don't say
    return tqdm.format_meter(
        run.completed,
        total,
        run.seconds,
        initial=run.completed_before,
        unit="task",
        postfix=_postfix(run),
        **form,
    )


def _lanes(run: Run) -> list[str]:
    """Return a line for each worker process; where there are too many, one for all."""
    workers = run.at_work()
    if len(workers) <= LANES:
        return [f"pid {each.pid}: {each.done} done{_long_task(each)}" for each in workers]
    busy = [each for each in workers if each.index is not None]
    longest = max(busy, key=lambda each: each.seconds, default=None)
    return [f"{len(busy)} workers at work{_long_task(longest) if longest else ''}"]


def _long_task(worker: AtWork) -> str:
    if worker.index is None or worker.seconds < LONG_SECONDS:
        return ""
    return f", at task {worker.index} for {duration(worker.seconds)}"


def _postfix(run: Run) -> str:
    return f"{len(run.failures)} failed" if run.failures else ""
