"""Results that are kept in a file: the same map again computes only what is missing.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import contextlib
import io
import os
import tempfile
from pathlib import Path

import nbparallel
from nbparallel import CheckpointError, last_run, pmap, pmap_async

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)

folder = Path(tempfile.mkdtemp())
said = io.StringIO()


def note(x):
    """Square x, and note that it was computed."""
    with open(folder / "calls", "a") as calls:
        calls.write(f"{x}\n")
    if x == 5 and not (folder / "mended").exists():
        raise ValueError(x)
    return x * x


def calls():
    """Return what was computed since the last look."""
    if not (folder / "calls").exists():
        return []
    found = sorted(int(line) for line in (folder / "calls").read_text().split())
    (folder / "calls").unlink()
    return found


def fresh(name):
    """Return a file for a cell's results, with everything as it was at the beginning."""
    (folder / "mended").unlink(missing_ok=True)
    calls()
    return folder / f"{name}.sqlite"


expected = [x * x for x in range(8)]

# %% only what is missing is computed, and that is said
file = fresh("missing")
told = io.StringIO()
with contextlib.redirect_stdout(told):
    assert pmap(note, range(4), checkpoint=file) == expected[:4]
    assert calls() == [0, 1, 2, 3]
    assert told.getvalue() == ""
    assert type(pmap(note, range(8), checkpoint=file, on_error="return")[5]).__name__ == "TaskError"
    assert calls() == [4, 5, 6, 7]
    (folder / "mended").touch()
    assert pmap(note, range(8), checkpoint=str(file)) == expected
    assert calls() == [5]
    assert pmap(note, reversed(range(8)), checkpoint=file) == expected[::-1]
    assert calls() == []
assert told.getvalue().splitlines() == [
    f"note: {known} of 8 results are from the checkpoint {file}" for known in (4, 7, 8)
]
assert last_run().summary().startswith("8 ok (8 from before)")

# %% a generator's items, a run in the background, the order of completion, other backends
file = fresh("ways")
(folder / "mended").touch()
with contextlib.redirect_stdout(said):
    assert pmap(note, (x for x in range(3)), checkpoint=file) == expected[:3]
    assert pmap_async(note, (x for x in range(5)), checkpoint=file).result() == expected[:5]
    assert calls() == [0, 1, 2, 3, 4]
    assert sorted(pmap(note, range(6), checkpoint=file, ordered=False)) == expected[:6]
    assert calls() == [5]
    for number, backend in enumerate(("serial", "threads", "pathos"), 6):
        assert pmap(note, range(number + 1), checkpoint=file, backend=backend) == [x * x for x in range(number + 1)]
        assert calls() == [number]

# %% what ends a map ends no result
file = fresh("ended")
with contextlib.redirect_stdout(said):
    for _ in range(2):
        try:
            pmap(note, range(8), checkpoint=file, chunksize=1)
        except ValueError:
            assert 5 in calls()
    (folder / "mended").touch()
    known = last_run().completed - 1
    assert pmap(note, range(8), checkpoint=file) == expected
    assert len(calls()) == 8 - known
    assert last_run().resume() == expected
    assert calls() == []

# %% a resumed run keeps its results too
file = fresh("resumed")
with contextlib.redirect_stdout(said):
    results = pmap(note, (x for x in range(8)), checkpoint=file, on_error="return")
    (folder / "mended").touch()
    calls()
    assert last_run().resume() == expected
    assert calls() == [5]
    assert pmap(note, range(8), checkpoint=file) == expected
    assert calls() == []

# %% a changed function starts afresh, also by what it uses
file = fresh("changed")
factor = 2


def helper(x):
    return factor * x


def uses(x):
    with open(folder / "calls", "a") as calls:
        calls.write(f"{x}\n")
    return helper(x)


with contextlib.redirect_stdout(said):
    assert pmap(uses, range(3), checkpoint=file) == [0, 2, 4]

    def helper(x):
        # Moved, and with a comment, it is the same.
        return factor * x

    assert pmap(uses, range(3), checkpoint=file) == [0, 2, 4]
    assert calls() == [0, 1, 2]
    factor = 3
    assert pmap(uses, range(3), checkpoint=file) == [0, 3, 6]
    assert calls() == [0, 1, 2]

    def helper(x):
        return factor * x + 1

    assert pmap(uses, range(3), checkpoint=file) == [1, 4, 7]
    assert calls() == [0, 1, 2]
    factor = 2

    def helper(x):
        return factor * x

    assert pmap(uses, range(3), checkpoint=file) == [0, 2, 4]
    assert calls() == []

# %% classes of the notebook, as arguments and as results
import dataclasses


@dataclasses.dataclass
class Point:
    """A result."""

    x: int
    parts: set


def make(point):
    with open(folder / "calls", "a") as calls:
        calls.write(f"{point.x}\n")
    return Point(point.x + 1, point.parts | {"b"})


with contextlib.redirect_stdout(said):
    file = fresh("classes")
    given = [Point(x, {"a"}) for x in range(3)]
    first = pmap(make, given, checkpoint=file)
    assert first == [Point(x + 1, {"a", "b"}) for x in range(3)]
    again = pmap(make, [Point(x, {"a"}) for x in range(3)], checkpoint=file)
    assert again == first
    assert type(again[0]) is Point
    assert calls() == [0, 1, 2]

# %% equal arguments are tasks of their own; a seed belongs to the task
import random


def draw(x):
    return random.random()


with contextlib.redirect_stdout(said):
    file = fresh("draws")
    first = pmap(draw, [0, 0, 0], checkpoint=file)
    assert len(set(first)) == 3
    assert pmap(draw, [0, 0, 0], checkpoint=file) == first
    seeded = pmap(draw, [0, 0, 0], checkpoint=file, seed=1)
    assert seeded == pmap(draw, [0, 0, 0], checkpoint=file, seed=1) == pmap(draw, [0, 0, 0], seed=1)
    assert seeded != pmap(draw, [0, 0, 0], checkpoint=file, seed=2)

# %% a result that can't be kept costs nothing but a warning
file = fresh("unkept")
told = io.StringIO()
counted = io.StringIO()


def opens(x):
    return x if x else Unkept()


class Unkept:
    """Travels once, from the worker, and not again."""

    def __init__(self, fresh=True):
        self.fresh = fresh

    def __reduce__(self):
        if not self.fresh:
            raise TypeError("only once")
        return (Unkept, (False,))


with contextlib.redirect_stderr(told), contextlib.redirect_stdout(counted):
    results = pmap(opens, range(3), checkpoint=file)
    assert type(results[0]) is Unkept
    assert results[1:] == [1, 2]
    assert "NBParallelWarning: opens: the result of task 0 can't be kept (TypeError: only once)" in told.getvalue()
    assert pmap(opens, range(3), checkpoint=file)[1:] == [1, 2]
    assert "2 of 3 results" in counted.getvalue()

# %% a file that is none, and a foreign one
other = folder / "other.sqlite"
other.write_bytes(b"not a database, but long enough to be taken for one, perhaps" * 30)
before = other.read_bytes()
for make_run in (pmap, pmap_async):
    try:
        make_run(note, range(3), checkpoint=other)
    except CheckpointError as error:
        assert str(other) in str(error)
    else:
        raise AssertionError
assert other.read_bytes() == before
assert calls() == []

# %% bad arguments
for wrong, kind in ((3, TypeError), ("", ValueError)):
    try:
        pmap(note, range(3), checkpoint=wrong)
    except kind as error:
        assert "checkpoint" in str(error)
    else:
        raise AssertionError

# %% the end
import shutil

shutil.rmtree(folder)
