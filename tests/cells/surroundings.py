"""A worker works where the notebook works: its folder, its variables, its path, its modules.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

import nbparallel
from nbparallel import pmap

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)


def warm_pids():
    from nbparallel import backends

    found = [backend for backend in backends.warm().values() if backend.name == "processes"]
    return {pid for backend in found for pid in backend.engine.pids}


# %% os.chdir
started_in = os.getcwd()
folder = tempfile.TemporaryDirectory()
assert set(pmap(lambda _: os.getcwd(), range(4))) == {started_in}
os.chdir(folder.name)
assert set(pmap(lambda _: os.getcwd(), range(4))) == {os.getcwd()}
os.chdir(started_in)
assert set(pmap(lambda _: os.getcwd(), range(4))) == {started_in}

# %% os.environ
os.environ["SEEN_BY_WORKERS"] = "yes"
assert set(pmap(lambda _: os.environ.get("SEEN_BY_WORKERS"), range(4))) == {"yes"}
del os.environ["SEEN_BY_WORKERS"]
assert set(pmap(lambda _: os.environ.get("SEEN_BY_WORKERS"), range(4))) == {None}

# %% sys.path, and a module that was written after the workers started
Path(folder.name, "fresh_module.py").write_text("def answer(x):\n    return ('first', x)\n")
sys.path.insert(0, folder.name)
importlib.invalidate_caches()
import fresh_module

assert pmap(fresh_module.answer, [1, 2]) == [("first", 1), ("first", 2)]
assert pmap(lambda x: fresh_module.answer(x), [1, 2]) == [("first", 1), ("first", 2)]


def imports_inside(x):
    import fresh_module

    return fresh_module.answer(x)


assert pmap(imports_inside, [1, 2]) == [("first", 1), ("first", 2)]

# %% a module that did not change: the workers stay
pids = warm_pids()
assert pmap(fresh_module.answer, [1, 2]) == [("first", 1), ("first", 2)]
assert warm_pids() == pids

# %% a module that was edited, but not reloaded here: neither here nor there
Path(folder.name, "fresh_module.py").write_text("def answer(x):\n    return ('the second', x)\n")
assert fresh_module.answer(1) == ("first", 1)
if "get_ipython" not in globals() or not get_ipython().magics_manager.registry.get("AutoreloadMagics"):
    assert pmap(imports_inside, [1]) == [("first", 1)]
    assert warm_pids() == pids

# %% importlib.reload
importlib.reload(fresh_module)
assert pmap(fresh_module.answer, [1, 2]) == [("the second", 1), ("the second", 2)]
assert pmap(imports_inside, [1, 2]) == [("the second", 1), ("the second", 2)]
until = time.monotonic() + 30
while not warm_pids().isdisjoint(pids):  # they were told to end
    assert time.monotonic() < until
    time.sleep(0.01)
sys.path.remove(folder.name)
folder.cleanup()

# %% the recursion limit
limit = sys.getrecursionlimit()
sys.setrecursionlimit(limit + 500)
assert pmap(lambda _: sys.getrecursionlimit(), [0]) == [limit + 500]
sys.setrecursionlimit(limit)
assert pmap(lambda _: sys.getrecursionlimit(), [0]) == [limit]
