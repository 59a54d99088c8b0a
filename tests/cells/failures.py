"""What raises, what is refused, and what is kept.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import os
import pickle
import signal
import sys
import threading
import traceback

import nbparallel
from nbparallel import Executor, Pool, TaskError, last_run, pmap, pmap_async

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)


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


# What comes from standard input has no lines to show.
has_source = os.path.exists(globals().get("__file__", "")) or "get_ipython" in globals()


# %% the cell's own exception, with the worker's line, and the task noted
class Unhappy(Exception):
    pass


def picky(x):
    if x == 3:
        raise Unhappy(f"not {x}")  # the line that fails
    return x


error = raised(pmap, picky, range(6))
assert type(error) is Unhappy
assert error.args == ("not 3",)
(note,) = error.__notes__
assert note.startswith("nbparallel: in task 3 (picky(3)); picky: ")
assert "\n" not in note
here, there = traceback.extract_tb(error.__traceback__)[-2:]
assert (here.name, there.name) == ("raised", "picky")
if has_source:
    assert there.line == 'raise Unhappy(f"not {x}")  # the line that fails'


# %% an exception with two arguments
class TwoArguments(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def raises_two(x):
    raise TwoArguments(x, "why")


error = raised(pmap, raises_two, [7])
assert type(error) is TwoArguments
assert (error.code, error.reason, str(error)) == (7, "why", "7: why")


# %% an exception with a cause, and a group
def chained(_):
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("no such thing") from error


def grouped(_):
    raise ExceptionGroup("several", [ValueError(1), Unhappy(2)])


error = raised(pmap, chained, [0])
assert type(error) is ValueError
assert type(error.__cause__) is KeyError
error = raised(pmap, grouped, [0])
assert [type(each) for each in error.exceptions] == [ValueError, Unhappy]

# %% the failed task with the lowest index is raised, the finished results are kept
error = raised(pmap, picky, [0, 1, 2, 3, 4], chunksize=1, workers=1)
run = last_run()
assert run.results[:3] == [0, 1, 2]
assert type(run.failures[3]) is TaskError
assert run.failures[3].input == (3,)
assert type(run.failures[3].error) is Unhappy

# %% the failed call can be made again, here
assert type(raised(run.failures[3].rerun)) is Unhappy

# %% on_error="return"
found = pmap(picky, range(6), on_error="return")
assert found[:3] == [0, 1, 2]
assert found[4:] == [4, 5]
assert type(found[3]) is TaskError
assert found[3].index == 3
assert last_run().failures == {3: found[3]}
assert last_run().summary().startswith("5 ok, 1 failed in ")


# %% a task that exits
def leaves(x):
    if x == 1:
        raise SystemExit(3)
    return x


error = raised(pmap, leaves, range(3))
assert isinstance(error, nbparallel.WorkerCrashed)
assert error.index == 1
assert error.exitcode == 3
assert pmap(negate, [1, 2]) == [-1, -2]


# %% arguments of a wrong type or value are refused at the call, and nothing is lost
async def coroutine(x):
    return x


kept = pmap(negate, [1, 2])
before = last_run()
pids = warm_pids()
refused = [
    (ValueError, "workers", dict(workers=0)),
    (ValueError, "workers", dict(workers=-1)),
    (TypeError, "workers", dict(workers=2.5)),
    (TypeError, "workers", dict(workers=True)),
    (TypeError, "workers", dict(workers="two")),
    (ValueError, "chunksize", dict(chunksize=0)),
    (ValueError, "chunksize", dict(chunksize=-3)),
    (TypeError, "chunksize", dict(chunksize="big")),
    (TypeError, "chunksize", dict(chunksize=1.5)),
    (TypeError, "chunksize", dict(chunksize=True)),
    (ValueError, "known: processes, threads, serial, pathos", dict(backend="proceses")),
    (TypeError, "backend", dict(backend=3)),
    (ValueError, "on_error", dict(on_error="bogus")),
    (ValueError, "seed", dict(seed=-1)),
    (TypeError, "seed", dict(seed="one")),
    (TypeError, "seed", dict(seed=1.5)),
]
for start in (pmap, pmap_async):
    for kind, words, options in refused:
        error = raised(start, negate, [1, 2], **options)
        assert type(error) is kind, (options, error)
        assert words in str(error), (options, error)
    for kind, words, arguments in [
        (TypeError, "callable", ([1, 2],)),
        (TypeError, "callable", (3, [1])),
        (TypeError, "callable", (None, [1])),
        (TypeError, "iterable", (negate,)),
        (TypeError, "iterable", (negate, 5)),
        (TypeError, "iterable", (negate, [1], 5)),
        (TypeError, "coroutine function", (coroutine, [1])),
    ]:
        error = raised(start, *arguments)
        assert type(error) is kind, (arguments, error)
        assert words in str(error), (arguments, error)
assert type(raised(pmap, negate, [1], progress="bogus")) is ValueError
assert "asyncio.gather" in str(raised(pmap, coroutine, [1]))
assert last_run() is before
assert before.results == kept
assert warm_pids() == pids

# %% configure() refuses what can't be, and changes nothing then
settings = nbparallel.configure()
for kind, options in [
    (ValueError, dict(workers=0)),
    (ValueError, dict(workers=-2)),
    (TypeError, dict(workers=2.5)),
    (TypeError, dict(workers=True)),
    (ValueError, dict(backend="proceses")),
    (ValueError, dict(start_method="spoon")),
    (ValueError, dict(progress="sometimes")),
    (ValueError, dict(workers=1, start_method="spoon")),
    (ValueError, dict(memory_pause=0)),
    (ValueError, dict(memory_pause=85)),
    (ValueError, dict(memory_stop=-0.1)),
    (ValueError, dict(memory_stop=float("nan"))),
    (TypeError, dict(memory_stop="95 %")),
    (TypeError, dict(memory_pause=True)),
    (ValueError, dict(memory_pause=0.96)),
    (ValueError, dict(memory_stop=0.8)),
    (ValueError, dict(workers=1, memory_pause=0.9, memory_stop=0.8)),
]:
    assert type(raised(nbparallel.configure, **options)) is kind, options
    assert nbparallel.configure() == settings, options

# %% thresholds of the memory guard: each may be off
changed = nbparallel.configure(memory_pause=0.96, memory_stop=False)
assert (changed.memory_pause, changed.memory_stop) == (0.96, False)
changed = nbparallel.configure(memory_pause=False, memory_stop=1)
assert (changed.memory_pause, changed.memory_stop) == (False, 1.0)
assert nbparallel.configure(memory_pause=0.85, memory_stop=0.95) == settings

# %% Pool and Executor refuse what can't be, and start nothing
threads = set(threading.enumerate())
for kind, make in [
    (ValueError, lambda: Pool(0)),
    (ValueError, lambda: Pool(-1)),
    (TypeError, lambda: Pool(2.5)),
    (TypeError, lambda: Pool(1, initializer=5)),
    (ValueError, lambda: Pool(1, maxtasksperchild=0)),
    (TypeError, lambda: Pool(1, maxtasksperchild=1.5)),
    (ValueError, lambda: Pool(1, start_method="spoon")),
    (ValueError, lambda: Executor(0)),
    (ValueError, lambda: Executor(-1)),
    (TypeError, lambda: Executor(2.5)),
    (TypeError, lambda: Executor(1, initializer=5)),
    (ValueError, lambda: Executor(1, max_tasks_per_worker=0)),
    (ValueError, lambda: Executor(1, start_method="spoon")),
    (nbparallel.SerializationError, lambda: Pool(1, initializer=negate, initargs=(threading.Lock(),))),
    (nbparallel.SerializationError, lambda: Executor(1, initializer=negate, initargs=(threading.Lock(),))),
]:
    error = raised(make)
    assert type(error) is kind, error
assert set(threading.enumerate()) <= threads

# %% a pool whose initializer can't travel
held = threading.Lock()
error = raised(Pool, 1, lambda: held)
assert type(error) is nbparallel.SerializationError
assert error.path == "<lambda> → held", error.path

# %% an empty iterable starts no worker
import psutil

nbparallel.backends.shutdown()
children = set(psutil.Process().children(recursive=True))
assert pmap(negate, []) == []
assert pmap(negate, [1], []) == []
assert pmap_async(negate, {}).result() == []
assert set(psutil.Process().children(recursive=True)) <= children
assert pmap(negate, iter(())) == []
assert pmap_async(negate, iter(())).result() == []
assert not warm_pids()


# %% iterables of unequal length end with the shortest
def add(x, y):
    return x + y


assert pmap(add, [1, 2, 3], [10, 20]) == [11, 22]
assert pmap(add, iter([1, 2, 3]), [10, 20]) == [11, 22]
assert pmap(add, {1: "a", 2: "b"}, (10, 20, 30)) == [11, 22]

# %% a generator is pulled in the calling thread, and not far ahead
pulled_by = set()
pulled = []
seen_at_first_result = []


def source(count):
    for number in range(count):
        pulled_by.add(threading.current_thread())
        pulled.append(number)
        yield number


assert pmap(negate, source(3000), chunksize=1) == [-number for number in range(3000)]
assert pulled_by == {threading.current_thread()}


# %% a generator that raises half-way: its own error, and the finished results are kept
def half():
    yield from range(5)
    raise LookupError("the source is dry")


error = raised(pmap, negate, half())
assert type(error) is LookupError
assert str(error) == "the source is dry"
assert last_run().results == [0, -1, -2, -3, -4]
assert last_run().completed == 5


# %% a task that may not have so much memory: an ordinary MemoryError
def limited(x):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, before[1]))
    try:
        return len(bytearray(x << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


if sys.platform == "linux":
    found = pmap(limited, [0, 16, 0], on_error="return", chunksize=3)
    pids = warm_pids()
    assert type(found[1]) is TaskError
    assert type(found[1].error) is MemoryError
    assert found[::2] == [0, 0]
    assert warm_pids() == pids


# %% recursion without an end: an ordinary RecursionError
def recurses(x):
    return recurses(x) if x else x


found = pmap(recurses, [0, 1, 0], on_error="return")
assert type(found[1].error) is RecursionError
assert found[::2] == [0, 0]


# %% recursion without an end in C: the stack overflows, and only that task's worker dies
def overflows(depth):
    import faulthandler

    faulthandler.disable()
    nested = None
    for _ in range(depth):
        nested = (nested,)
    return type(hash(nested)).__name__


if os.name == "posix":
    found = pmap(overflows, [1, 3_000_000, 2], on_error="return", chunksize=3)
    assert type(found[1]) is nbparallel.WorkerCrashed
    assert found[1].exitcode == -signal.SIGSEGV
    assert "was killed by SIGSEGV while it ran this task" in str(found[1])
    assert found[::2] == ["int", "int"]
    assert pmap(negate, [1, 2]) == [-1, -2]


# %% what is known of a killed worker
def killed(x):
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


if os.name == "posix":
    error = raised(pmap, killed, range(3))
    assert (error.index, error.input, error.exitcode) == (1, (1,), -9)
    assert "task 1 (killed(1)): the worker with pid " in str(error)
    assert f" {error.pid} was killed by SIGKILL while it ran this task." in str(error)
    assert "Fewer workers, smaller inputs or smaller chunks need less." in str(error)
    assert 0 < error.memory_used <= error.memory_limit
    again = pickle.loads(pickle.dumps(error))
    for name in ("pid", "exitcode", "memory", "memory_used", "memory_limit"):
        assert getattr(again, name) == getattr(error, name), name
