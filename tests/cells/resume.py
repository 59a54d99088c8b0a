"""Going on with a run that was ended or failed: what has a result is not run again.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import os
import tempfile
import time
from pathlib import Path

import nbparallel
from nbparallel import last_run, pmap, pmap_async

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)

folder = Path(tempfile.mkdtemp())
mended = folder / "mended"


def note(x):
    """Square x, and note that it was computed once more; 3 and 7 fail until they are mended."""
    with open(folder / "calls", "a") as calls:
        calls.write(f"{x}\n")
    if x in (3, 7) and not mended.exists():
        raise ValueError(x)
    return x * x


def calls():
    """Return how often each x was computed since the last look."""
    found = [int(line) for line in (folder / "calls").read_text().split()]
    (folder / "calls").unlink()
    return {x: found.count(x) for x in found}


expected = [x * x for x in range(12)]

# %% failed tasks are run again, the others not
for chunksize in (1, 5, "auto"):
    for given in (range(12), iter(range(12)), (x for x in range(12))):
        mended.unlink(missing_ok=True)
        results = pmap(note, given, chunksize=chunksize, on_error="return")
        assert [type(result) is int for result in results] == [x not in (3, 7) for x in range(12)]
        first = last_run()
        calls()
        mended.touch()
        assert first.resume() == expected
        assert calls() == {3: 1, 7: 1}
        assert last_run() is not first
        assert (last_run().completed, last_run().total, last_run().failures) == (12, 12, {})
        assert last_run().summary().startswith("12 ok (10 from before)")
        assert first.resume() == last_run().resume() == expected
        assert not (folder / "calls").exists()

# %% after an error that ended the map
for given in (range(12), iter(range(12))):
    mended.unlink(missing_ok=True)
    try:
        pmap(note, given, chunksize=1)
    except ValueError as error:
        assert error.args[0] in (3, 7)
    before = calls()
    known = {x for x, result in enumerate(last_run().results) if result == x * x}
    assert known
    mended.touch()
    assert last_run().resume() == expected
    assert set(calls()) == set(range(12)) - known

# %% it may fail again, and be resumed again, from the first run or the last
mended.unlink(missing_ok=True)
pmap(note, range(12), on_error="return", retries=1)
first = last_run()
assert calls()[3] == 2
assert [type(result) is int for result in first.resume()].count(False) == 2
assert calls() == {3: 2, 7: 2}  # the options are kept
mended.touch()
assert first.resume() == expected
assert calls() == {3: 1, 7: 1}


# %% after a deadline
def waits(x):
    while x >= 4 and not mended.exists():
        time.sleep(0.01)
    return x * x


mended.unlink()
try:
    pmap(waits, range(12), chunksize=1, deadline=1)
except TimeoutError as error:
    assert "4 ok, 8 not run" in str(error)
mended.touch()
assert last_run().resume() == expected

# %% a run in the background, once it is cancelled
try:
    mended.unlink()
    run = pmap_async(waits, range(12), chunksize=1)
    run.resume()
except RuntimeError as error:
    assert "still going on" in str(error)
else:
    raise AssertionError
run.cancel()
mended.touch()
assert run.resume() == expected

# %% where the rest can't be started, nothing is lost: neither the results nor the inputs
import threading

for given in (range(12), iter(range(12))):
    mended.unlink(missing_ok=True)
    pmap(note, given, on_error="return")
    calls()
    folder, kept = threading.Lock(), folder  # a global that can't travel
    try:
        last_run().resume()
    except nbparallel.SerializationError:
        folder = kept
    assert [x for x in last_run().results if type(x) is int] == [x * x for x in range(12) if x not in (3, 7)]
    assert last_run().completed == 10
    mended.touch()
    assert last_run().resume() == expected
    assert calls() == {3: 1, 7: 1}

# %% several arguments, a seed, the order of completion
import random


def draws(x, y):
    if y == 5 and not mended.exists():
        raise ValueError(y)
    return x, y, random.random()


whole = pmap(draws, range(8), range(8), seed=3)
mended.unlink()
pmap(draws, range(8), iter(range(8)), seed=3, on_error="return", ordered=False)
mended.touch()
assert sorted(last_run().resume()) == whole

# %% an input that ended by an error of its own


def cut():
    yield 1
    yield 2
    raise KeyError("cut")


try:
    pmap(note, cut())
except KeyError:
    assert last_run().results == [1, 4]
try:
    last_run().resume()
except RuntimeError as error:
    assert "the input gives no item after the KeyError" in str(error)
    assert isinstance(error.__cause__, KeyError)
else:
    raise AssertionError
assert last_run().results == [1, 4]


# %% an input that goes on after an error


class Sensor:
    """Gives 0 to 11; 5 only at the second attempt."""

    def __init__(self):
        self.next = 0
        self.failed = False

    def __iter__(self):
        return self

    def __next__(self):
        if self.next == 12:
            raise StopIteration
        if self.next == 5 and not self.failed:
            self.failed = True
            raise OSError("not ready")
        self.next += 1
        return self.next - 1


try:
    pmap(note, Sensor())
except OSError:
    assert last_run().results == expected[:5]
assert last_run().resume() == expected

# %% other backends
for backend in ("threads", "serial", "pathos"):
    mended.unlink()
    pmap(note, range(12), backend=backend, on_error="return")
    calls()
    mended.touch()
    assert last_run().resume() == expected
    assert calls() == {3: 1, 7: 1}

# %% the end
import shutil

shutil.rmtree(folder)
