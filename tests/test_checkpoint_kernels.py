"""Checkpoints across kernels: Stop, a kernel that is killed, another notebook at the same time."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from kernels import METHODS, Kernel

SETUP = """
    import os, time
    from pathlib import Path
    import nbparallel
    from nbparallel import last_run, pmap

    nbparallel.configure(workers=2, start_method=METHOD, progress=False)
    folder = Path(os.getcwd())
    offset = 100

    def helper(x):
        return x + offset

    def slow(x):
        (folder / f"began {x} {os.getpid()}").touch()
        while x >= 4 and not (folder / "go on").exists():
            time.sleep(0.005)
        with open(folder / "computed", "a") as computed:
            computed.write(f"{x} ")
        return helper(x)
"""
CALL = "pmap(slow, range(10), checkpoint='./results.sqlite', chunksize=1)"
RESULT = str([x + 100 for x in range(10)])


@pytest.fixture(params=METHODS)
def notebook(request: pytest.FixtureRequest, tmp_path: Path) -> Notebook:
    return Notebook(request.param, tmp_path)


class Notebook:
    """Opens kernels in one folder, whose last outcomes it knows."""

    def __init__(self, method: str, folder: Path) -> None:
        self.folder = folder
        self._setup = SETUP.replace("METHOD", repr(method))

    def kernel(self) -> Kernel:
        kernel = Kernel({"PYTHONHASHSEED": "random"}, self.folder)
        kernel.run(self._setup)
        return kernel

    @property
    def computed(self) -> list[int]:
        return sorted(map(int, (self.folder / "computed").read_text().split()))

    def wait_for_the_first(self, kernel: Kernel) -> None:
        """Wait until tasks 0 to 3 have returned and two others have begun, and their results are kept."""
        assert kernel.receive(lambda: len(list(self.folder.glob("began *"))) == 6)
        assert self.computed == [0, 1, 2, 3]


def test_after_stop_and_a_restart_only_the_rest_is_computed(notebook: Notebook) -> None:
    with notebook.kernel() as kernel:
        cell = kernel.send(CALL)
        notebook.wait_for_the_first(kernel)
        kernel.interrupt()
        output = kernel.wait(cell, fails=True)
        assert output.error is not None
        assert output.error.name == "KeyboardInterrupt"
    (notebook.folder / "go on").touch()
    with notebook.kernel() as kernel:
        kernel.run("'another cell, so that numbers differ'")
        output = kernel.run(CALL)
        assert output.result == RESULT
        assert output.stdout == f"slow: 4 of 10 results are from the checkpoint {notebook.folder}/results.sqlite\n"
        assert notebook.computed == list(range(10))
        kernel.run("offset = 200")
        assert kernel.run(CALL).result == str([x + 200 for x in range(10)])  # changed: it starts afresh
        kernel.run("nbparallel.backends.shutdown()")


def committed(file: Path) -> int:
    """Return how many results a checkpoint holds for whoever opens it now."""
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT count(*) FROM kept WHERE function IS NOT NULL").fetchone()[0])
    except sqlite3.OperationalError:  # its tables are still being made
        return 0


def test_after_the_kernel_was_killed(notebook: Notebook) -> None:
    with notebook.kernel() as kernel:
        kernel.send(CALL)
        notebook.wait_for_the_first(kernel)
        assert kernel.receive(lambda: committed(notebook.folder / "results.sqlite") == 4)  # within a batch's time
        kernel.kill()
    (notebook.folder / "go on").touch()
    with notebook.kernel() as kernel:
        output = kernel.run(CALL)
        assert output.result == RESULT
        assert "4 of 10 results are from the checkpoint" in output.stdout
        assert notebook.computed == list(range(10))
        kernel.run("nbparallel.backends.shutdown()")


def test_two_notebooks_share_a_file(notebook: Notebook) -> None:
    with notebook.kernel() as one, notebook.kernel() as two:
        (notebook.folder / "go on").touch()
        many = (
            "pmap(slow, range({}, {}), checkpoint='./results.sqlite', chunksize=1) == [x + 100 for x in range({}, {})]"
        )
        cells = [(one, one.send(many.format(0, 60, 0, 60))), (two, two.send(many.format(40, 100, 40, 100)))]
        assert [kernel.wait(cell).result for kernel, cell in cells] == ["True", "True"]
        before = len(notebook.computed)
        assert 100 <= before <= 120
        for kernel in (one, two):
            output = kernel.run(many.format(0, 100, 0, 100))
            assert output.result == "True"
            assert "100 of 100 results" in output.stdout
            kernel.run("nbparallel.backends.shutdown()")
        assert len(notebook.computed) == before
