"""What a worker must know of the notebook's ways of logging, warning and displaying, to report as the notebook would.

Part of the `environment` that workers copy: `current` is called in the notebook's process, `apply` in a worker. Neither
imports what its process has not imported yet.
"""

from __future__ import annotations

import builtins
import os
import re
import sys
import warnings
from types import ModuleType
from typing import Any, NamedTuple

_SEEN = "nbparallel"


class Habits(NamedTuple):
    """One state of them.

    Attributes:
        levels: of those loggers that have one of their own, by name.
        disabled: the level up to which logging is disabled as a whole.
        filters: of warnings.
        display: whether there is an IPython that shows what is displayed.
        figures: whether it shows the figures that are open at a cell's end.
    """

    levels: dict[str, int]
    disabled: int
    filters: tuple[Any, ...]
    display: bool
    figures: bool

    def message(self) -> tuple[Any, ...]:
        """Return it as plain data."""
        filters = [_plain_filter(*each) for each in self.filters]
        return self.levels, self.disabled, filters, self.display, self.figures


_levels: tuple[dict[str, int], int] = ({}, 0)


def current() -> Habits:
    """Return the present state; cheap enough for each submitted call."""
    levels, disabled = _current_levels()
    # As a context of its own, where Python is told to keep one (3.14, -X context_aware_warnings).
    filters = warnings._get_filters() if hasattr(warnings, "_get_filters") else warnings.filters
    ipython = sys.modules.get("IPython")
    display = getattr(ipython, "get_ipython", lambda: None)() is not None
    return Habits(levels, disabled, tuple(filters), display, display and _shows_figures())


def _current_levels() -> tuple[dict[str, int], int]:
    global _levels
    logging = sys.modules.get("logging")
    if logging is None or not hasattr(logging, "root"):  # another thread is importing it
        return _levels
    # Whoever sets a level, or disables logging, empties the loggers' caches: as long as this mark is there, nothing has
    # changed. There may be hundreds of loggers.
    marks = getattr(logging.root, "_cache", {})
    if _SEEN not in marks:
        marks[_SEEN] = True
        known = {"root": logging.root, **logging.root.manager.loggerDict}
        found = {name: int(getattr(logger, "level", 0)) for name, logger in known.items()}
        _levels = {name: level for name, level in found.items() if level}, logging.root.manager.disable
    return _levels


def _shows_figures() -> bool:
    matplotlib: Any = sys.modules.get("matplotlib")
    if hasattr(matplotlib, "rcParams"):
        # Not by get_backend(), which would choose one, and import it.
        backend = dict.__getitem__(matplotlib.rcParams, "backend")
    else:
        backend = os.environ.get("MPLBACKEND")
    return isinstance(backend, str) and "inline" in backend


def _plain_filter(action: str, message: Any, category: Any, module: Any, line: int) -> tuple[Any, ...]:
    return (
        "" + action,
        _plain_pattern(message),
        (category.__module__, category.__qualname__),
        _plain_pattern(module),
        line,
    )


def _plain_pattern(pattern: Any) -> Any:
    return (pattern.pattern, int(pattern.flags)) if isinstance(pattern, re.Pattern) else pattern


# ---- in a worker ----

#: Whether the notebook shows what is displayed, and open figures.
display = False
figures = False
_filters: Any = None


def apply(message: tuple[Any, ...]) -> None:
    """Take over the notebook's habits."""
    global _levels, _filters, display, figures
    levels, disabled, filters, display, figures = message
    before, _levels = _levels, (levels, disabled)
    logging = sys.modules.get("logging")
    if logging is not None and before != _levels:
        apply_levels(logging, before[0])
    if filters != _filters:
        _filters = filters
        warnings.filters[:] = [_filter(*each) for each in filters]  # type: ignore[index]
        forget_warnings()
    if display and not hasattr(builtins, "display"):
        builtins.display = _display  # type: ignore[attr-defined]


def apply_levels(logging: ModuleType, before: dict[str, int] | None = None) -> None:
    """Set the levels of loggers, as `logging` arrives or as they have changed."""
    levels, disabled = _levels
    for name in (before or {}).keys() - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.disable(disabled)


def forget_warnings() -> None:
    """Let warnings that were shown once be shown again; for changed filters, and for a new run."""
    with warnings.catch_warnings():  # which declares all registries outdated
        pass


def _filter(action: str, message: Any, category: tuple[str, str], module: Any, line: int) -> tuple[Any, ...]:
    return action, _pattern(message), _category(category), _pattern(module), line


def _pattern(plain: Any) -> Any:
    return re.compile(*plain) if isinstance(plain, tuple) else plain


def _category(name: tuple[str, str]) -> type:
    if name[0] == "builtins":
        return getattr(builtins, name[1])  # type: ignore[no-any-return]
    return _ByName(name[1], (Warning,), {"named": name})


class _ByName(type):
    """A class of warnings whose module need not be imported: it is compared by name."""

    named: tuple[str, str]

    def __subclasscheck__(cls, other: type) -> bool:
        return any((each.__module__, each.__qualname__) == cls.named for each in other.__mro__)


def _display(*args: Any, **options: Any) -> Any:
    from IPython.display import display

    return display(*args, **options)  # type: ignore[no-untyped-call]
