"""Showing in this process what a task said in another: by the notebook's streams, logging, warnings and displays.

Called by `execution` and `calls`, in the context of the cell that called, with what an `outbox.Outbox` lets out.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from nbparallel.engine.reports import kind_of
from nbparallel.engine.work import Said
from nbparallel.output.outbox import Budgets
from nbparallel.serialize import loads

_budgets = Budgets()


def current_shell() -> Any:
    """Return the IPython shell of this process; `None` if there is none."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def in_notebook() -> bool:
    """Return whether a kernel's front end shows what this process displays."""
    shell = current_shell()
    return shell is not None and "IPKernelApp" in shell.config


def cell() -> int:
    """Return the number of the notebook's cell that runs."""
    return int(current_shell().execution_count)


def name_cells(traceback: str) -> str:
    """Return a traceback in which the files of cells have the names that the notebook gives them."""
    compiler = getattr(current_shell(), "compile", None)
    cells = getattr(compiler, "_filename_map", {})  # of ipykernel: by file, the number of the cell

    def name(found: re.Match[str]) -> str:
        known = cells.get(found["file"])
        return found[0] if known is None else f"Cell In[{known}], line {found['line']}"

    return re.sub(r'File "(?P<file>[^"\n]+)", line (?P<line>\d+)', name, traceback)


def budgets() -> Budgets | None:
    """Return what this notebook can show; `None` where there is no notebook: a terminal or a file takes anything."""
    return _budgets if in_notebook() else None


def show(said: Said) -> None:
    """Show it as what it is; as text, if it can't be rebuilt here."""
    if said.details:
        try:
            details = loads(said.details)
        except Exception:  # a class whose __setstate__ raises here, say
            write(sys.stderr, said.text)
        else:
            _SHOW[said.kind](said.text, details)
    else:
        write(sys.stdout if said.kind == "stdout" else sys.stderr, said.text)


def write(target: TextIO | None, text: str) -> None:
    """Write text and have it shown."""
    if target is None:  # pythonw has no streams
        return
    target.write(text)
    if not _shows_by_itself(target) and hasattr(target, "flush"):  # `print` asks for no more than `write`
        target.flush()


def _shows_by_itself(target: Any) -> bool:
    """Return whether it is a kernel's: it shows what it has five times a second, and each flush is a message."""
    return hasattr(target, "flush_interval")


def _log(text: str, details: tuple[dict[str, Any], dict[str, list[str]]]) -> None:
    """Have the notebook's logger and handlers treat a record as their own."""
    import logging

    fields, handled = details  # by logger, what kinds of handlers have had it in the worker
    record = logging.makeLogRecord(fields)
    if record.levelname == f"Level {record.levelno}":  # the notebook may have a name for it
        record.levelname = logging.getLevelName(record.levelno)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        with _unflushed(sys.stdout), _unflushed(sys.stderr):
            try:
                _handle(logger, record, handled)
            except Exception:  # a handler's own fault, which is told as most handlers tell it, and stops nothing
                logging.Handler().handleError(record)


def _handle(logger: Any, record: Any, handled: dict[str, list[str]]) -> None:
    """Do as `logging.Logger.handle` does, but for handlers whose like have had the record in the worker."""
    if not handled:
        logger.handle(record)
        return
    if logger.disabled or not logger.filter(record):
        return
    each = logger
    while each is not None:
        for handler in each.handlers:
            if record.levelno >= handler.level and kind_of(handler) not in handled.get(each.name, ()):
                handler.handle(record)
        each = each.parent if each.propagate else None


@contextlib.contextmanager
def _unflushed(stream: Any) -> Iterator[None]:
    """Leave it to a kernel's stream when it shows: handlers flush after each record."""
    if _shows_by_itself(stream):
        stream.flush = lambda: None
    try:
        yield
    finally:
        if _shows_by_itself(stream):
            vars(stream).pop("flush", None)  # another thread may have been quicker


def _warn(text: str, details: tuple[Any, ...]) -> None:
    message, category, filename, lineno, line = details
    warnings.showwarning(message, category, filename, lineno, line=line)


def _display(text: str, details: tuple[Any, ...]) -> None:
    data, metadata, transient, update = details
    shell = current_shell()
    if shell is None:
        write(sys.stdout, text)
    else:
        shell.display_pub.publish(data=data, metadata=metadata, transient=transient, update=update)


_SHOW: dict[str, Callable[[str, Any], None]] = {"log": _log, "warning": _warn, "display": _display}
