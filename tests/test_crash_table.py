"""The crash table: each way to die, at each moment, in each place, through each front, in real kernels.

By default each of the cells is tried under one start method, in turn; with ``--storm 2`` under all of them. What a
cell of the table promises is in `crash_cells`: the right error for the guilty task, all other results, a pool that is
warm and usable afterwards with the innocent workers in it, and nothing left behind.

The limit for what SIGSTOP has stopped is `pmap`'s ``timeout``, or that of the `Pool` or the `Executor`; without one a
stopped task lasts as long as a sleeping one, as nothing tells them apart. An exception while a large result is
written is none of the task's (its connection broke, or a signal's handler raised): half a message can't be taken
back, and its worker ends.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from kernels import METHODS, Kernel

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

DEATHS = ["exception", "unpicklable exception", "sys.exit", "_exit", "abort", "segfault", "SIGKILL", "SIGSTOP"]
MOMENTS = ["unpickling", "running", "pickling", "writing"]
POSITIONS = ["first", "middle", "last"]
FRONTS = ["pmap", "imap", "submit"]
CELLS = (Path(__file__).parent / "crash_cells.py").read_text()


def cases(method: str, storm: int) -> list[tuple[str, ...]]:
    """Return the cells of the table that are tried under a start method: by default each under one."""
    axes = [DEATHS, MOMENTS, POSITIONS, FRONTS]
    numbered = itertools.product(*map(enumerate, axes))
    return [
        tuple(name for _, name in cell)
        for cell in numbered
        if storm > 1 or sum(place for place, _ in cell) % len(METHODS) == METHODS.index(method)
    ]


def test_each_cell_of_the_table_is_tried():
    tried = [case for method in METHODS for case in cases(method, 1)]
    assert sorted(tried) == sorted(itertools.product(DEATHS, MOMENTS, POSITIONS, FRONTS))
    for method in METHODS:
        assert cases(method, 2) == list(itertools.product(DEATHS, MOMENTS, POSITIONS, FRONTS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_only_the_guilty_task_fails_and_the_pool_goes_on(method: str, tmp_path: Path, storm: int) -> None:
    with Kernel({"START_METHOD": method}, tmp_path) as kernel:
        kernel.run(CELLS)
        kernel.run(f"""
            from pathlib import Path
            nbparallel.configure(workers=2, start_method={method!r}, progress=False)
            folder = Path({str(tmp_path)!r})
        """)
        first = [("exception", "running", "first", front) for front in FRONTS]
        assert kernel.run(f"print(all_wrong({first!r}, folder))").stdout == "[]\n"
        kernel.run("before = footprint()")
        tried = kernel.run(f"print(*all_wrong({cases(method, storm)!r}, folder), sep='\\n')", timeout=800)
        assert tried.stdout == "\n"
        kernel.run("""
            import time
            limit = time.monotonic() + 10
            while any(more := [now > then for now, then in zip(footprint(), before)]) and time.monotonic() < limit:
                time.sleep(0.05)
            assert not any(more), (footprint(), before)
        """)
