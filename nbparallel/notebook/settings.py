"""``%config NBParallel``: the notebook's defaults as traits. The values themselves are in `config`, and only there.

Made by `load`, one per shell. A trait reads and writes `nbparallel.configure`, so that neither can be out of date.
"""

from __future__ import annotations

from typing import Any

from traitlets import TraitError, TraitType
from traitlets.config import Configurable

from nbparallel import config
from nbparallel.config import configure


class Setting(TraitType[Any, Any]):
    """One default of this notebook."""

    def get(self, obj: Any, cls: Any = None) -> Any:
        """Return the value in force."""
        return getattr(config.settings(), str(self.name))

    def set(self, obj: Any, value: Any) -> None:
        """Set the value for the whole notebook.

        Raises:
            TraitError: it is not one of those possible.
        """
        before = self.get(obj)
        if value is None and self.name not in (
            "workers",
            "output",
        ):  # configure() would leave it as it is, without a word
            raise TraitError(f"NBParallel.{self.name} can't be None")
        none = {"workers": "auto", "output": False}  # by this name in configure(), where None leaves it as it is
        changes: dict[str, Any] = {str(self.name): none[str(self.name)] if value is None else value}
        try:
            configure(**changes)
        except (ValueError, TypeError) as error:
            raise TraitError(f"NBParallel.{self.name}: {error}") from None
        if self.get(obj) != before:
            obj._notify_trait(self.name, before, self.get(obj))


class NBParallel(Configurable):
    """The defaults of this notebook; `nbparallel.configure` is the same."""

    workers = Setting(help="How many workers a map uses; None or 'auto' for one per effective core.").tag(config=True)
    backend = Setting(
        default_value=config.Settings.backend,
        help="Where tasks go: 'processes', 'threads', 'serial', ...",
    ).tag(config=True)
    start_method = Setting(
        default_value=config.Settings.start_method,
        help="How worker processes start: 'forkserver', 'spawn' or 'fork', where the system has it.",
    ).tag(config=True)
    progress = Setting(
        default_value=config.Settings.progress,
        help="Whether maps show a bar: True, False, or 'auto' for those over half a second.",
    ).tag(config=True)
    output = Setting(
        default_value=config.Settings.output,
        help="What becomes of the output of tasks: 'live', 'ordered', 'collect', or None for dropped.",
    ).tag(config=True)
    memory_pause = Setting(
        default_value=config.Settings.memory_pause,
        help="The share of the memory above which tasks begin one at a time; False for never.",
    ).tag(config=True)
    memory_stop = Setting(
        default_value=config.Settings.memory_stop,
        help="The share of the memory above which the largest worker is ended; False for never.",
    ).tag(config=True)
