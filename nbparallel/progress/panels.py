"""The widgets of a bar: what `bars` writes, and beside it a button that cancels the run. They need ipywidgets.

While a cell computes, its kernel hears nothing from the page but what a front end sends to a subshell (JupyterLab 4.4
and ipykernel 7 do, others may). So the page is asked: the button is there, but hidden, and the page tells how many
views of it there are. If that is heard while the cell computes, so will be a click. It is asked again, each time with
another button: before a page has a subshell its words go to the cell's own queue, and with ipywidgets a model says
nothing more until its last words were handled.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from nbparallel.output.showing import current_shell
from nbparallel.progress.parents import parents
from nbparallel.runs.run import Run

#: So many buttons whose page has not said that they are gone are kept. Then there are no more, unless a page has once
#: answered in time: a program that executes notebooks never does.
MOST_LEFT = 8
#: After so many seconds the page is asked, then after twice as many again, and so on.
ASK_SECONDS = 0.25

_VIEW = "application/vnd.jupyter.widget-view+json"

_left: list[CancelButton] = []
_lock = threading.Lock()
_in_time = threading.Event()


class CancelButton:
    """A button for one run, hidden until the page has answered.

    Args:
        run: what a click cancels.

    Attributes:
        widget: to be put on show.
    """

    def __init__(self, run: Run) -> None:
        import ipywidgets

        self._parents = parents()

        self._run = run
        self._views: int | None = None
        self._is_shown = False
        self.widget = ipywidgets.Button(
            description="Cancel",
            tooltip="End the tasks; results that are there are kept",
            layout={"display": "none", "width": "auto", "flex": "0 0 auto"},
            _view_count=0,  # the page counts, and tells
        )
        # Not as ipywidgets does: a message to a widget ends and begins a cell, for whoever listens to that, and
        # matplotlib then shows and forgets the figures that the running cell has not finished.
        self.widget.comm.handle_msg = self._hear
        # ipykernel 7.4 has a page's messages handled where the widget was made: here, where nothing is handled now.
        self.widget.comm._reply_subshell_for = lambda _, subshell: subshell

    @property
    def answered(self) -> bool:
        """Whether a click would be heard."""
        return self._views is not None

    def show(self) -> None:
        """Show it: from now on it can be clicked."""
        if not self._is_shown:
            self._is_shown = True
            self.widget.layout.display = None

    def leave(self) -> None:
        """Leave it when it is no longer on show; its messages may still be on their way, so it is closed later."""
        with _lock:
            _left.append(self)

    def is_gone(self) -> bool:
        """Return whether the page will say nothing of it any more."""
        return self._views == 0

    def close(self) -> None:
        """Take it from the page."""
        for model in (self.widget, self.widget.style, self.widget.layout):
            model.close()

    def _hear(self, message: dict[str, Any]) -> None:
        self._parents.put_back()
        data = message["content"]["data"]
        if data["method"] == "request_state":
            self.widget.send_state()
        elif data["method"] == "update":
            if not self._run.done:
                _in_time.set()
            self._views = data["state"].get("_view_count", self._views)
        elif data["method"] == "custom" and data["content"].get("event") == "click":
            self._run.cancel()


class Panel:
    """Text as HTML, with a button beside it where a click would be heard.

    Args:
        run: what the button cancels.
        text: the first.
        waits: whether a cell waits for the run, so that the page must be asked. Else clicks are heard between cells.
    """

    def __init__(self, run: Run, text: str, *, waits: bool) -> None:
        import ipywidgets

        self._text = ipywidgets.HTML(text, layout={"flex": "1 1 auto"})
        self._waits = waits
        self._run = run
        self._buttons: list[CancelButton] = []
        self._box = ipywidgets.HBox([self._text])
        self._ask_seconds = ASK_SECONDS
        self._ask_time = time.monotonic() + ASK_SECONDS
        if not waits:
            self._add_button()
            self.move(text)

    @property
    def view(self) -> dict[str, Any]:
        """What an output holds, by its MIME type, to show it."""
        return {_VIEW: self._box._repr_mimebundle_()[_VIEW]}

    def move(self, text: str) -> None:
        """Show another text."""
        self._text.value = text
        if any(button.answered for button in self._buttons) or (self._buttons and not self._waits):
            self._buttons[-1].show()
        elif self._waits and time.monotonic() >= self._ask_time:
            self._add_button()

    def _add_button(self) -> None:
        self._ask_seconds *= 2
        self._ask_time = time.monotonic() + self._ask_seconds
        button = _make_button(self._run, waits=self._waits)
        if button is not None:
            self._buttons.append(button)
            self._box.children = [self._text, button.widget]

    def settle(self, text: str) -> None:
        """Stay, as a text alone that is the last."""
        self._text.value = text
        self._box.children = [self._text]
        for button in self._buttons:
            button.leave()

    def close(self) -> None:
        """Take it from the page; the output that has shown it shows something else by now."""
        for model in (self._box, self._box.layout, self._text, self._text.style, self._text.layout):
            model.close()
        for button in self._buttons:
            button.leave()


def is_captured() -> bool:
    """Return whether what is displayed now goes to an `ipywidgets.Output`, which heeds no update of a display."""
    import ipywidgets
    from ipywidgets.widgets import widget

    kernel = getattr(current_shell(), "kernel", None)
    if kernel is None:
        return False
    message = kernel.get_parent().get("header", {}).get("msg_id")
    known = getattr(widget, "_instances", None) or getattr(widget.Widget, "widgets", {})  # before version 8
    outputs = [each for each in list(known.values()) if isinstance(each, ipywidgets.Output)]
    return any(each.msg_id == message for each in outputs)


def _make_button(run: Run, *, waits: bool) -> CancelButton | None:
    """Return a button; `None` where a cell waits and pages don't answer."""
    with _lock:
        closing = [button for button in _left if button.is_gone()]
        _left[:] = [button for button in _left if not button.is_gone()]
        full = len(_left) >= MOST_LEFT
        refused = full and waits and not _in_time.is_set()
        if full and not refused:
            closing.append(_left.pop(0))
    for button in closing:
        button.close()
    return None if refused else CancelButton(run)
