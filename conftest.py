"""What the notebooks need of pytest, when `--nbval` collects their cells; the tests have a conftest.py of their own."""

from __future__ import annotations

import pytest
from nbval.plugin import IPyNbCell

pytest_plugins = ["nbparallel.nbval"]  # where the package is installed, pytest knows it by itself

# A test waits for nothing long, but a cell computes: the longest takes some twenty seconds on an idle, slow core, and
# machines are busy. nbval's own limit (pyproject.toml) is the lower one: it stops the cell and shows its traceback.
CELL_SECONDS = 330


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each cell of a notebook a limit of its own."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.timeout(CELL_SECONDS))
