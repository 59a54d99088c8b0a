"""Time limits, deadlines and retries: what is cut off, what is run again, and what goes on undisturbed.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import atexit
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

import nbparallel
from nbparallel import Executor, Pool, TaskError, TaskTimeout, WorkerCrashed, last_run, pmap, pmap_async

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)
HOME = tempfile.mkdtemp()
atexit.register(shutil.rmtree, HOME)


def raised(call, *args, **kwargs):
    """Return what a call raises."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def warm_pids():
    from nbparallel import backends

    found = [backend for backend in backends.warm().values() if backend.name == "processes"]
    return {pid for backend in found for pid in backend.engine.pids}


def negate(x):
    return -x


def sleeps_at_3(x):
    if x == 3:
        time.sleep(1000)
    return x


class Attempts:
    """Counts the attempts at each task, in files, as an attempt may end its worker."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=HOME))

    def counts(self):
        return {int(file.name): len(file.read_text()) for file in self.folder.iterdir()}


def begin(folder, x):
    """Note an attempt; return how many there were before."""
    with open(os.path.join(folder, str(x)), "a+") as file:
        before = file.tell()
        file.write("x")
    return before


# %% a task over its limit is a TimeoutError that names the task, its input and the limit
error = raised(pmap, sleeps_at_3, range(6), timeout=0.5)
assert type(error) is TaskTimeout
assert isinstance(error, TimeoutError)
assert isinstance(error, TaskError)
assert (error.index, error.input, error.error) == (3, (3,), None), error
assert "task 3 (sleeps_at_3(3)) ran longer than its limit of 0.5 s" in str(error)
assert pmap(negate, range(3)) == [0, -1, -2]

# %% only its task is lost: chunk-mates, before and after it, have their results
for chunksize in (1, 3, 6, "auto"):
    found = pmap(sleeps_at_3, range(6), timeout=0.5, on_error="return", chunksize=chunksize)
    assert type(found[3]) is TaskTimeout, chunksize
    assert found[:3] + found[4:] == [0, 1, 2, 4, 5], chunksize
    assert last_run().failures == {3: found[3]}

# %% only its task's worker is ended
pmap(negate, range(10), chunksize=1)
before = warm_pids()
assert len(before) == 2
found = pmap(lambda x: (time.sleep(1000 if x == 0 else 0), os.getpid())[1], range(4), timeout=0.5, on_error="return")
assert type(found[0]) is TaskTimeout
others = set(found[1:])
assert len(before & warm_pids()) == 1
assert before & warm_pids() <= others


# %% importing what the function needs is no task's time
def imports_slowly():
    folder = Attempts().folder
    (folder / "nbparallel_slow_module.py").write_text("import time\ntime.sleep(0.8)\ndef same(x): return x\n")
    return folder


sys.path.insert(0, str(imports_slowly()))
import nbparallel_slow_module

assert pmap(lambda x: nbparallel_slow_module.same(x), range(4), timeout=0.5) == [0, 1, 2, 3]
sys.path.pop(0)
del sys.modules["nbparallel_slow_module"]

# %% the time counts from a task's own start, not from its chunk's, nor while it is queued
assert pmap(lambda x: (time.sleep(0.2), x)[1], range(6), chunksize=6, timeout=0.9) == list(range(6))
assert pmap(lambda x: (time.sleep(0.2), x)[1], range(8), chunksize=1, timeout=0.75) == list(range(8))


# %% a limit with a generator as input
found = pmap(sleeps_at_3, iter(range(6)), timeout=0.5, on_error="return")
assert type(found.pop(3)) is TaskTimeout
assert found == [0, 1, 2, 4, 5]


# %% a task that was stopped by the system is over its limit too
def suspended(x):
    if x == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


if hasattr(signal, "SIGSTOP"):
    found = pmap(suspended, range(5), timeout=0.5, on_error="return")
    assert type(found.pop(2)) is TaskTimeout
    assert found == [0, 1, 3, 4]


# %% an argument that never ends to be unpickled, alone or with chunk-mates
class Endless:
    def __reduce__(self):
        return time.sleep, (1000,)


for chunksize in (1, 4):
    found = pmap(lambda x: 1, [0, Endless(), 2, 3], timeout=0.5, chunksize=chunksize, on_error="return")
    assert type(found.pop(1)) is TaskTimeout, chunksize
    assert found == [1, 1, 1], chunksize


# %% a result that never ends to be pickled
class EndlessResult:
    def __reduce__(self):
        time.sleep(1000)


found = pmap(lambda x: EndlessResult() if x == 1 else x, range(4), timeout=0.5, chunksize=1, on_error="return")
assert type(found.pop(1)) is TaskTimeout
assert found == [0, 2, 3]


# %% a task that ignores every interrupt is ended all the same
def stubborn(x):
    while x == 1:
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            pass
    return x


assert type(raised(pmap, stubborn, range(3), timeout=0.5)) is TaskTimeout
assert pmap(negate, range(3)) == [0, -1, -2]


# %% retries: after an exception, each task has so many
def raises_twice(folder, x):
    if begin(folder, x) < 2:
        raise ValueError(x)
    return x


for backend in ("processes", "threads", "serial"):
    for chunksize in (1, 4, "auto"):
        attempts = Attempts()
        options = dict(backend=backend, chunksize=chunksize, retries=2)
        assert pmap(raises_twice, [attempts.folder] * 7, range(7), **options) == list(range(7)), options
        assert attempts.counts() == dict.fromkeys(range(7), 3)
        assert last_run().failures == {}
        assert last_run().completed == 7

# %% retries: one too few
for backend in ("processes", "threads", "serial"):
    attempts = Attempts()
    error = raised(pmap, raises_twice, [attempts.folder] * 4, range(4), retries=1, backend=backend, workers=1)
    assert type(error) is ValueError
    assert error.args == (0,)
    assert attempts.counts()[0] == 2
    attempts = Attempts()
    found = pmap(raises_twice, [attempts.folder] * 4, range(4), retries=1, backend=backend, on_error="return")
    assert [type(each.error) for each in found] == [ValueError] * 4
    assert attempts.counts() == dict.fromkeys(range(4), 2)


# %% retry_on: which exceptions count
def raises_as_told(folder, x):
    if begin(folder, x) < 1:
        raise [KeyError, ValueError, OSError][x](x)
    return x


for backend in ("processes", "threads", "serial"):
    for retry_on, good in [
        (KeyError, [0]),
        (LookupError, [0]),
        ((KeyError, OSError), [0, 2]),
        (Exception, [0, 1, 2]),
        ((), []),
    ]:
        attempts = Attempts()
        options = dict(retries=1, retry_on=retry_on, on_error="return", backend=backend)
        found = pmap(raises_as_told, [attempts.folder] * 3, range(3), **options)
        assert [each for each in found if not isinstance(each, TaskError)] == good, options
        assert attempts.counts() == {x: 1 + (x in good) for x in range(3)}


# %% retries: after the death of the worker, whatever retry_on says
def exits_twice(folder, x):
    if x == 2 and begin(folder, x) < 2:
        os._exit(7)
    return x


for chunksize in (1, 5):
    attempts = Attempts()
    options = dict(retries=2, retry_on=(), chunksize=chunksize)
    assert pmap(exits_twice, [attempts.folder] * 5, range(5), **options) == list(range(5))
    assert attempts.counts() == {2: 3}

# %% a task that kills one worker more than it has retries is given up, the others finish
for chunksize in (1, 5):
    attempts = Attempts()
    options = dict(retries=1, chunksize=chunksize, on_error="return")
    found = pmap(exits_twice, [attempts.folder] * 5, range(5), **options)
    assert type(found[2]) is WorkerCrashed
    assert (found[2].index, found[2].exitcode) == (2, 7)
    assert found[:2] + found[3:] == [0, 1, 3, 4]
    assert attempts.counts() == {2: 2}


# %% retries: after a time limit
def sleeps_once(folder, x):
    if x == 1 and begin(folder, x) < 1:
        time.sleep(1000)
    return x


attempts = Attempts()
assert pmap(sleeps_once, [attempts.folder] * 4, range(4), retries=1, timeout=0.5) == [0, 1, 2, 3]
assert attempts.counts() == {1: 2}


# %% retries: each attempt has the same random numbers
def draws_and_fails(folder, x):
    number = nbparallel.rng().random()
    with open(os.path.join(folder, f"drawn {x}"), "a") as file:
        print(number, file=file)
    if begin(folder, x) < 1:
        raise ValueError(x)
    return number


folder = Attempts().folder
found = pmap(draws_and_fails, [folder] * 3, range(3), seed=3, retries=1)
for x, number in enumerate(found):
    assert pathlib.Path(folder, f"drawn {x}").read_text().split() == [str(number)] * 2

# %% a pool's limit, and an executor's, is each task's own (see also test_crash_table.py)
with Pool(2, timeout=0.5) as pool:
    assert type(raised(pool.map, sleeps_at_3, range(6))) is TaskTimeout
    assert pool.map(negate, range(3)) == [0, -1, -2]
    error = raised(pmap, lambda _: Pool(1, timeout=1), [0])
    assert type(error) is ValueError
    assert "a pool inside a task has none" in str(error)
assert type(raised(pmap, lambda _: Executor(1, timeout=1), [0])) is ValueError
for make in (Pool, Executor):
    assert type(raised(make, 2, timeout=0)) is ValueError
    assert type(raised(make, 2, timeout="1")) is TypeError

# %% a deadline: TimeoutError, and the finished results are kept
error = raised(pmap, sleeps_at_3, range(6), deadline=0.6, chunksize=1)
assert type(error) is TimeoutError
assert "sleeps_at_3 is not finished after 0.6 s" in str(error)
run = last_run()
assert run.done
assert run.cancelled
assert run.results[:3] == [0, 1, 2]
assert run.failures == {}
assert pmap(negate, range(3)) == [0, -1, -2]

# %% a deadline of a run in the background, and one that is kept
run = pmap_async(sleeps_at_3, range(6), deadline=0.6, chunksize=1)
assert type(raised(run.result)) is TimeoutError
assert run.results[:3] == [0, 1, 2]
assert pmap(negate, range(3), deadline=1000) == [0, -1, -2]
assert pmap(negate, [], deadline=1000) == []

# %% a deadline on threads: what has not begun is left out
import threading

release = threading.Event()
run = pmap_async(lambda x: release.wait(), range(1000), deadline=0.3, backend="threads", chunksize=1)
while not run.cancelled:
    time.sleep(0.01)
release.set()
assert type(raised(run.result)) is TimeoutError
assert run.completed < 1000

# %% arguments of a wrong type or value are refused at the call
before = last_run()
refused = [
    (ValueError, "timeout", dict(timeout=0)),
    (ValueError, "timeout", dict(timeout=-1)),
    (ValueError, "timeout", dict(timeout=float("nan"))),
    (ValueError, "timeout", dict(timeout=float("inf"))),
    (TypeError, "timeout", dict(timeout="1")),
    (TypeError, "timeout", dict(timeout=True)),
    (ValueError, "deadline", dict(deadline=0)),
    (ValueError, "deadline", dict(deadline=-0.5)),
    (ValueError, "deadline", dict(deadline=float("nan"))),
    (TypeError, "deadline", dict(deadline=[1])),
    (TypeError, "deadline", dict(deadline=False)),
    (ValueError, "retries", dict(retries=-1)),
    (TypeError, "retries", dict(retries=1.5)),
    (TypeError, "retries", dict(retries=True)),
    (TypeError, "retries", dict(retries=None)),
    (TypeError, "retries", dict(retries="2")),
    (TypeError, "retry_on", dict(retry_on="ValueError")),
    (TypeError, "retry_on", dict(retry_on=3)),
    (TypeError, "retry_on", dict(retry_on=int)),
    (TypeError, "retry_on", dict(retry_on=ValueError())),
    (TypeError, "retry_on", dict(retry_on=(ValueError, "x"))),
    (TypeError, "retry_on", dict(retry_on=None)),
    (ValueError, "'threads'", dict(timeout=1, backend="threads")),
    (ValueError, "'serial'", dict(timeout=1, backend="serial")),
]
for start in (pmap, pmap_async):
    for kind, words, options in refused:
        error = raised(start, negate, [1, 2], **options)
        assert type(error) is kind, (options, error)
        assert words in str(error), (options, error)
assert last_run() is before

# %% the note says which item, and how many others finished or failed
error = raised(pmap, lambda x: 10 // (x - 3), range(4), chunksize=1, workers=1)
assert type(error) is ZeroDivisionError
first = error.__notes__[0].splitlines()[0]
assert first.startswith("nbparallel: in task 3 (<lambda>(3)); <lambda>: 3 ok, 1 failed in "), first

# %% the note of a time limit
error = raised(pmap, sleeps_at_3, range(4), chunksize=1, workers=1, timeout=0.5)
assert type(error) is TaskTimeout
first = error.__notes__[0].splitlines()[0]
assert first.startswith("nbparallel: sleeps_at_3: 3 ok, 1 failed in "), first
