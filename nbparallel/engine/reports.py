"""What a worker reports beside the text that it writes: log records, warnings, displays, figures and names.

Each goes to the notebook as what it is, with its text, if it has one, for those who only keep that. Imported in a
worker by `hooks`, when the first of them is possible.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

from nbparallel.engine import habits, relay
from nbparallel.serialize import dumps_result

# ---- logging ----


def take_up_logging(logging: ModuleType) -> None:
    """Have records that find no handler in this process handled by the notebook's.

    A handler that a task has made is its own. One that a fork has brought along is the notebook's, and so are files
    and sockets that it writes to.
    """

    class Reporter(logging.Handler):  # type: ignore[name-defined,misc]
        def emit(self, record: Any) -> None:
            try:
                report_record(record, logging)
            except Exception:  # such as arguments that don't fit the message: told as any handler tells it
                self.handleError(record)

    reporter = Reporter()
    call_handlers = logging.Logger.callHandlers

    def call_handlers_or_report(logger: Any, record: Any) -> None:
        each = logger
        while each is not None:
            # Libraries have a NullHandler, so as to say that they have no other.
            if any(not isinstance(handler, logging.NullHandler) for handler in each.handlers):
                call_handlers(logger, record)
                return
            each = each.parent if each.propagate else None
        reporter.handle(record)

    basic_config = logging.basicConfig

    @functools.wraps(basic_config)
    def configure(**options: Any) -> None:
        # `logging.info` and the like give a root without handlers one of their own. Here it has the notebook's.
        if sys._getframe(1).f_globals is not vars(logging):
            basic_config(**options)

    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # else a placeholder
            logger.handlers.clear()
    logging.Logger.callHandlers = call_handlers_or_report
    logging.basicConfig = configure  # type: ignore[attr-defined]
    habits.apply_levels(logging)


def report_record(record: Any, logging: ModuleType) -> None:
    """Send a record, with its message made and its exception formatted."""
    details = dict(record.__dict__)
    details["msg"] = message = record.getMessage()
    details["args"] = None
    if record.exc_info and not record.exc_text:
        details["exc_text"] = logging.Formatter().formatException(record.exc_info)
    details["exc_info"] = None
    try:
        segments = dumps_result(details)
    except Exception:  # something of the user's own, by `extra`
        segments = dumps_result({name: _sendable(value) for name, value in details.items()})
    text = f"{record.levelname}:{record.name}:{message}\n"
    relay.report("log", text + (f"{details['exc_text']}\n" if details["exc_text"] else ""), segments)


def _sendable(value: Any) -> Any:
    try:
        dumps_result(value)
    except Exception:
        return repr(value)
    return value


# ---- warnings ----


def report_warning(told: warnings.WarningMessage) -> None:
    """Send a warning that this process's filters, which are the notebook's, have let through."""
    text = warnings.formatwarning(str(told.message), told.category, told.filename, told.lineno, told.line)
    if told.file is not None:
        told.file.write(text)
        return
    place = (told.filename, told.lineno, told.line)
    try:
        segments = dumps_result((told.message, told.category, *place))
    except Exception:  # its own class can't travel: the nearest one of Python's can
        known = next(each for each in told.category.__mro__ if each.__module__ == "builtins")
        segments = dumps_result((f"{told.category.__name__}: {told.message}", known, *place))
    relay.report("warning", text, segments, once=_is_told_once(told))


def _is_told_once(told: warnings.WarningMessage) -> bool:
    """Return whether the filter that let it through does so only once; one that always does leaves no trace."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != told.filename:
        frame = frame.f_back
    if frame is None:
        return True
    registry = frame.f_globals.get("__warningregistry__", {})
    text = str(told.message)
    here = ((text, told.category, line) in registry for line in (told.lineno, 0))
    return any(here) or (text, told.category) in warnings.onceregistry  # type: ignore[attr-defined]


# ---- displays ----


#: A view of a widget: what it shows is in this process, and no page could ask for it.
_VIEW = "application/vnd.jupyter.widget-view+json"


class _Publisher:
    """As much of IPython's publisher as its functions and matplotlib's use."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        data = {kind: value for kind, value in data.items() if kind != _VIEW}
        text = data.get("text/plain", "")
        relay.finish_lines()
        relay.report(
            "display", f"{text}\n" if text else "", dumps_result((data, metadata or {}, transient or {}, update))
        )

    def clear_output(self, wait: bool = False) -> None:
        """Nothing: the cell's output is that of all tasks."""


_publisher = _Publisher()
_in_a_shell = threading.RLock()


def take_up_display(functions: ModuleType) -> None:
    """Have IPython's functions publish in the notebook."""
    # Not imported: the functions may be on their way into that very module.
    shells: Any = getattr(sys.modules.get("IPython.core.interactiveshell"), "InteractiveShell", None)
    if shells is not None and shells.initialized():  # the notebook's own, in a fork
        shells.instance().display_pub = _publisher
        return
    for name in ("display", "update_display", "publish_display_data", "clear_output"):
        setattr(functions, name, _as_in_a_shell(getattr(functions, name)))


def _as_in_a_shell(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that finds a shell while it runs; at other times there must be none, as many ask for one."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with _shell() if habits.display else contextlib.nullcontext():
            return function(*args, **options)

    return call


@contextlib.contextmanager
def _shell() -> Iterator[None]:
    from IPython.core.interactiveshell import InteractiveShell

    with _in_a_shell:
        before, InteractiveShell._instance = InteractiveShell._instance, _make_shell()
        try:
            yield
        finally:
            InteractiveShell._instance = before


@functools.cache
def _make_shell() -> Any:
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):
        def __init__(self) -> None:  # not the parent's, which takes over the whole process
            self.display_formatter = DisplayFormatter()
            self.display_pub = _publisher  # type: ignore[assignment]

    shell: Any = Shell()
    shell.display_formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _png)
    return shell


# ---- figures ----


def take_up_figures(pyplot: ModuleType) -> None:
    """Have figures that are open at the end of a task shown, and closed."""
    pyplot.close("all")  # those of the notebook, in a fork
    relay.at_end.append(functools.partial(_show_figures, pyplot))


def _show_figures(pyplot: ModuleType) -> None:
    if not habits.figures:
        return
    numbers = pyplot.get_fignums()
    try:
        for number in numbers:
            figure = pyplot.figure(number)
            if figure.axes or figure.lines:  # an empty one is not shown in a cell either
                _publisher.publish({"text/plain": repr(figure), "image/png": _png(figure)})
    except Exception:  # the task has its result; the cell would show this as well, and go on
        traceback.print_exc()
    finally:
        if numbers:
            pyplot.close("all")


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi="figure", bbox_inches="tight", facecolor=figure.get_facecolor())
    return data.getvalue()


# ---- names of shared memory ----


def take_up_names(resource_tracker: ModuleType) -> None:
    """Have the names that this process makes and removes kept by the notebook's resource tracker.

    One of this process's own would remove a name with it, though others use what it is the name of.
    """
    tracker = resource_tracker._resource_tracker
    send = resource_tracker.ResourceTracker._send

    def tell(command: str, name: str, kind: str) -> None:
        if not relay.tell(("name", command, name, kind)):
            send(tracker, command, name, kind)

    tracker._send = tell
