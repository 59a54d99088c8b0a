"""What the arguments of a map change: order, chunks, seeds, errors, labels, workers; and maps inside tasks.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import os
import random
import warnings

import numpy

import nbparallel
from nbparallel import Executor, Pool, last_run, pmap, pmap_async

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)


def square(x):
    return x * x


# %% any chunk size, any number of workers
expected = [x * x for x in range(50)]
for workers in (1, 2, 3):
    for chunksize in ("auto", 1, 7, 1000):
        assert pmap(square, range(50), workers=workers, chunksize=chunksize) == expected

# %% ordered=False gives every result once
assert sorted(pmap(square, range(50), ordered=False)) == expected


# %% results as they come
import tempfile
from pathlib import Path


def wait_for(path):
    """Return once the file is there."""
    import time

    while path is not None and not path.exists():
        time.sleep(0.002)
    return path


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "seen")
    results = pmap_async(wait_for, [path, None], chunksize=1).as_completed()
    assert next(results) is None
    path.touch()
    assert list(results) == [path]

# %% two maps of one task each go on at once


def meets(mine, other):
    mine.touch()
    return wait_for(other)


with tempfile.TemporaryDirectory() as folder:
    one, two = Path(folder, "one"), Path(folder, "two")
    runs = [pmap_async(meets, [one], [two]), pmap_async(meets, [two], [one])]
    assert [run.result(30) for run in runs] == [[two], [one]]

# %% the kinds of iterables
assert pmap(square, {3: "a"}) == [9]
assert pmap(square, {3}) == [9]
assert pmap(str.upper, "ab") == ["A", "B"]
assert pmap(square, numpy.arange(3)) == [0, 1, 4]
assert pmap(lambda row: row.sum(), numpy.ones((2, 3))) == [3.0, 3.0]
assert pmap(square, (x for x in (1, 2))) == [1, 4]
assert pmap(pow, [2, 3], [4, 2]) == [16, 9]


# %% a seed gives the same numbers for any workers, chunks and backend
def draw(_):
    return (
        random.random(),
        float(numpy.random.random()),
        float(nbparallel.rng().random()),
        float(nbparallel.rng().random()),
    )


reference = pmap(draw, range(10), seed=5)
assert len({value for row in reference for value in row}) == 40
for options in (
    {"workers": 1},
    {"workers": 2},
    {"chunksize": 1},
    {"chunksize": 3},
    {"backend": "serial"},
    {"backend": "pathos"},
):
    assert pmap(draw, range(10), seed=5, **options) == reference, options
assert pmap(draw, iter(range(10)), seed=5) == reference
assert pmap(draw, range(10), seed=6) != reference
generators_only = [row[2:] for row in reference]
assert [row[2:] for row in pmap(draw, range(10), seed=5, backend="threads")] == generators_only

# %% a seed leaves the notebook's own random numbers alone
random.seed(1)
numpy.random.seed(1)
mine = random.random(), numpy.random.random()
for backend in set(nbparallel.backends.names()) - {"threads"}:  # whose tasks share its generators
    random.seed(1)
    numpy.random.seed(1)
    pmap(draw, range(3), seed=5, backend=backend)
    assert (random.random(), numpy.random.random()) == mine, backend

# %% without a seed no two workers draw the same

numpy.random.seed(3)


def draw_in_each(x):
    import time
    from pathlib import Path

    folder, number = x
    Path(folder, str(number)).touch()
    while len(list(Path(folder).iterdir())) < 2:
        time.sleep(0.002)
    return os.getpid(), random.random(), float(numpy.random.random())


with tempfile.TemporaryDirectory() as folder, Pool(2) as pool:
    (pid, one, other), (pid2, one2, other2) = pool.map(draw_in_each, [(folder, 0), (folder, 1)], chunksize=1)
assert pid != pid2
assert one != one2
assert other != other2

# %% a seed ends with its map: the next one without draws anew, in each worker


def draws_a_while(x):
    import time

    time.sleep(0.02)  # so that both workers take part
    return random.random(), float(numpy.random.random())


seen = set()
for _ in range(3):
    seeded = pmap(draws_a_while, range(4), seed=1, chunksize=1)
    free = pmap(draws_a_while, range(8), chunksize=1)
    assert len({*seen, *seeded, *free}) == len(seen) + 12
    assert seeded == pmap(draws_a_while, range(4), seed=1, workers=1)
    seen.update(free)

# %% a failed task of a map with a seed draws the same when it is run again here


def unlucky(x):
    raise ValueError(random.random(), float(nbparallel.rng().random()))


failed = pmap(unlucky, range(3), seed=5, on_error="return")[2]
before = random.getstate()
try:
    failed.rerun()
except ValueError as error:
    assert error.args == failed.error.args
else:
    raise AssertionError
assert random.getstate() == before

# %% items that were read are run, also while the input waits for the next
import tempfile
import time
from pathlib import Path


def touches(path):
    path.touch()
    return path


def waits_for_the_last(folder):
    last = None
    for number in range(3):
        while last is not None and not last.exists():
            time.sleep(0.002)
        last = Path(folder, str(number))
        yield last


with tempfile.TemporaryDirectory() as folder:
    assert len(pmap(touches, waits_for_the_last(folder), deadline=30)) == 3

# %% a deadline may be as far away as you like
assert pmap(square, range(3), deadline=1e10) == [0, 1, 4]

# %% a label
assert pmap(square, [1], label="squares") == [1]
assert last_run().label == "squares"
assert "squares" in repr(last_run())
assert pmap(square, [1]) == [1]
assert last_run().label == "square"

# %% a run under way
run = pmap_async(square, range(100))
assert run.result() == [x * x for x in range(100)]
assert run.done
assert run.total == run.completed == 100
assert list(run) == run.results
assert sorted(run.as_completed()) == sorted(run.results)
assert run.summary().startswith("100 ok in ")
assert last_run() is run


# %% a run that is cancelled keeps what it has
def wait_for_ever(x):
    import time

    if x == 1:
        time.sleep(1000)
    return x


from concurrent.futures import CancelledError

run = pmap_async(wait_for_ever, range(4), chunksize=1)
results = iter(run)
assert next(results) == 0
assert run.cancel()
try:
    run.result()
except CancelledError:
    assert run.cancelled
else:
    raise AssertionError("it was cancelled")
assert run.results[0] == 0
assert pmap(square, [3]) == [9]


# %% a map, a pool or an executor inside a task runs serially there, and says so once
def outer(x):
    inner = pmap(lambda y: (os.getpid(), x + y), range(3))
    assert {pid for pid, _ in inner} == {os.getpid()}
    return [value for _, value in inner]


assert pmap(outer, range(3)) == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
# stderr: NBParallelWarning: a map or pool inside a task runs serially there: the cores are taken by the outer one
assert pmap(outer, range(30)) == [[x, x + 1, x + 2] for x in range(30)]


# %%
def with_pool(x):
    with Pool(2) as pool:
        return pool.map(square, [x, x + 1]), pool.apply(square, (x,)), list(pool.imap(square, [x]))


def with_executor(x):
    with Executor(2) as executor:
        future = executor.submit(square, x)
        return future.result(), list(executor.map(square, [x, x + 1]))


assert pmap(with_pool, [1, 2]) == [([1, 4], 1, [1]), ([4, 9], 4, [4])]
assert pmap(with_executor, [1, 2]) == [(1, [1, 4]), (4, [4, 9])]
with warnings.catch_warnings(record=True) as remarks:
    warnings.simplefilter("always")
    for backend in ("threads", "serial"):
        assert pmap(with_pool, [1], backend=backend) == [([1, 4], 1, [1])]
        assert pmap(with_executor, [1], backend=backend) == [(1, [1, 4])]
assert [each.category for each in remarks] == [nbparallel.NBParallelWarning]
