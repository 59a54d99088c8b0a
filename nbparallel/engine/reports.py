"""What a worker reports beside the text that it writes: log records, warnings, displays, figures and names.

Each goes to the notebook as what it is, with its text, if it has one, for those who only keep that. Imported in a
worker by `hooks`, when the first of them is possible.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
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
    """Have records handled by the notebook's handlers too.

    A handler that a task or a module has made in this process has its records as well, and the notebook's of the same
    class at the same logger does not have them once more. One that a fork has brought along is the notebook's, and so
    are files and sockets that it writes to.
    """
    call_handlers = logging.Logger.callHandlers
    teller = logging.Handler()

    def call_handlers_and_report(logger: Any, record: Any) -> None:
        own: dict[str, list[Any]] = {}
        each = logger
        while each is not None:
            # Libraries have a NullHandler, so as to say that they have no other.
            if found := [handler for handler in each.handlers if not isinstance(handler, logging.NullHandler)]:
                own[each.name] = [handler for handler in found if record.levelno >= handler.level]
            each = each.parent if each.propagate else None
        if own:
            call_handlers(logger, record)
        # As with the standard module, a process that has handlers sees to its records itself.
        if own and (relay.name or any(map(_sends_on, itertools.chain(*own.values())))):
            return
        try:
            report_record(record, logging, own)
        except Exception:  # such as arguments that don't fit the message: told as any handler tells it, as its own have
            if not own:
                teller.handleError(record)

    basic_config = logging.basicConfig

    @functools.wraps(basic_config)
    def configure(**options: Any) -> None:
        # `logging.info` and the like give a root without handlers one of their own. Here it has the notebook's.
        if sys._getframe(1).f_globals is not vars(logging):
            basic_config(**options)

    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # else a placeholder
            _inherited.extend(logger.handlers)
            logger.handlers.clear()
    logging.Logger.callHandlers = call_handlers_and_report
    logging.basicConfig = configure  # type: ignore[attr-defined]
    habits.apply_levels(logging)


# The notebook's handlers in a fork of it: an open file that nobody holds any more would be warned of.
_inherited: list[Any] = []


def report_record(record: Any, logging: ModuleType, own: dict[str, list[Any]]) -> None:
    """Send a record, with its message made and its exception formatted; `own` has the handlers that had it here."""
    details = dict(record.__dict__)
    details["msg"] = message = record.getMessage()
    details["args"] = None
    if record.exc_info and not record.exc_text:
        details["exc_text"] = logging.Formatter().formatException(record.exc_info)
    details["exc_info"] = None
    handled = {name: [kind_of(handler) for handler in handlers] for name, handlers in own.items()}
    try:
        segments = dumps_result((details, handled))
    except Exception:  # something of the user's own, by `extra`
        segments = dumps_result(({name: _sendable(value) for name, value in details.items()}, handled))
    text = f"{record.levelname}:{record.name}:{message}\n"
    if details["exc_text"]:
        text += f"{details['exc_text']}\n"
    if any(relay.is_ours(getattr(handler, "stream", None)) for handler in itertools.chain(*own.values())):
        text = ""  # it is written already
    relay.report("log", text, segments)


def kind_of(handler: Any) -> str:
    """Return the name of a handler's class, which is the same in the notebook and its workers."""
    return f"{type(handler).__module__}.{type(handler).__qualname__}"


def _sends_on(handler: Any) -> bool:
    """Return whether a handler brings records to where they are handled: the notebook, as a rule."""
    known = sys.modules.get("logging.handlers")
    return known is not None and isinstance(handler, (known.QueueHandler, known.SocketHandler))


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
