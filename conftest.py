"""What all runs of pytest need: two processes, and time for the cells of notebooks; see also `tests/conftest.py`."""

from __future__ import annotations

import pytest
from nbval.plugin import IPyNbCell

pytest_plugins = ["nbparallel.nbval"]  # where the package is installed, pytest knows it by itself

# A test waits for nothing long, but a cell computes: the longest takes some twenty seconds on an idle, slow core, and
# machines are busy. nbval's own limit (pyproject.toml) is the lower one: it stops the cell and shows its traceback.
CELL_SECONDS = 330

# Half of a test is waiting, for kernels and workers to start or to end: two at a time take little more than one.
PROCESSES = 2


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run all there is in several processes; files that were named, in this one, with its debugger and its `-s`."""
    return PROCESSES if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each cell of a notebook a limit of its own."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.timeout(CELL_SECONDS))
