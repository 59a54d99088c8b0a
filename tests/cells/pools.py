"""Pool and Executor: the standard library's shapes, for functions of a cell.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import concurrent.futures
import itertools
import multiprocessing
import os
import threading
import time

import psutil

import nbparallel
from nbparallel import Executor, Pool

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)


def raised(call, *args, **kwargs):
    """Return what a call raises."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def square(x):
    return x * x


def add(x, y=0):
    return x + y


def inverse(x):
    return 1 / x


def slow(x):
    time.sleep(1000)


# %% Pool: everything that waits
with Pool(2) as pool:
    assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    assert pool.map(square, iter(range(5)), chunksize=2) == [0, 1, 4, 9, 16]
    assert pool.map(square, []) == []
    assert pool.starmap(add, [(1, 2), (3,)]) == [3, 3]
    assert pool.apply(add, (1,), {"y": 5}) == 6
    assert type(raised(pool.map, inverse, [1, 0])) is ZeroDivisionError
    assert type(raised(pool.apply, inverse, (0,))) is ZeroDivisionError


# %% Pool: its workers are known as such
def identity(_):
    process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    return process.name, process._identity, parent.name, parent.pid, parent.is_alive()


with Pool(2) as pool:
    for name, numbers, *parent in pool.map(identity, range(8), chunksize=1):
        assert name == f"PoolWorker-{numbers[0]}"
        assert numbers[0] >= 1
        assert parent == ["MainProcess", os.getpid(), True]

# %% Pool: everything that comes lazily
with Pool(2) as pool:
    assert list(pool.imap(square, range(20))) == [x * x for x in range(20)]
    assert list(pool.imap(square, range(20), chunksize=3)) == [x * x for x in range(20)]
    assert sorted(pool.imap_unordered(square, range(20), chunksize=3)) == [x * x for x in range(20)]
    assert list(pool.imap(square, [])) == []

# %% Pool.imap: an error stands at its place, and what comes after it can be read
with Pool(2) as pool:
    results = pool.imap(inverse, [1, 0, 2, 4])
    assert next(results) == 1.0
    assert type(raised(next, results)) is ZeroDivisionError
    assert next(results) == 0.5
    assert results.next(timeout=30) == 0.25
    assert type(raised(next, results)) is StopIteration
    unordered = pool.imap_unordered(inverse, [0, 1])
    found, failed = [], []
    for _ in range(2):
        try:
            found.append(next(unordered))
        except ZeroDivisionError as error:
            failed.append(error)
    assert found == [1.0]
    assert len(failed) == 1


# %% Pool.imap: next(timeout)
with Pool(1) as pool:
    results = pool.imap(slow, [1])
    assert type(raised(results.next, timeout=0.05)) is multiprocessing.TimeoutError
    assert type(raised(pool.apply_async(slow, (1,)).get, timeout=0.05)) is multiprocessing.TimeoutError


# %% Pool.imap: an input that ends in an error gives what came before it
def half():
    yield from range(3)
    raise LookupError("dry")


with Pool(2) as pool:
    results = pool.imap(square, half())
    assert [next(results), next(results), next(results)] == [0, 1, 4]
    assert type(raised(next, results)) is LookupError

# %% Pool.starmap: an input that can't be unpacked fails its task alone
with Pool(2) as pool:
    for inputs in ([1, 2], [(1, 2), 3], [None]):
        assert isinstance(raised(pool.starmap, add, inputs), TypeError), inputs
    assert pool.starmap(add, [(1, 2), [3, 4], "ab"]) == [3, 7, "ab"]

# %% Pool: proxies of a standard Manager, as globals and as arguments
with multiprocessing.Manager() as manager:
    shared = manager.dict()

    def put(number, target):
        shared[number] = number
        target.append(number)

    listed = manager.list()
    with Pool(2) as pool:
        pool.starmap(put, [(number, listed) for number in range(4)])
    assert dict(shared) == {number: number for number in range(4)}
    assert sorted(listed) == [0, 1, 2, 3]
del shared, listed, put

# %% Pool.imap: what a slow input has given is worked on, also when the pool is closed meanwhile
given = threading.Event()


def halting():
    yield from range(5)
    given.wait()
    yield 5


with Pool(2) as pool:
    results = pool.imap(square, halting())
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    pool.close()
    closing = threading.Thread(target=pool.join)
    closing.start()
    given.set()
    assert list(results) == [25]
    closing.join()

# %% Pool.imap: an endless input is read only as far ahead as it is needed
counted = itertools.count()
pulled = []


def endless():
    for number in counted:
        pulled.append(number)
        yield number


with Pool(2) as pool:
    results = pool.imap(square, endless())
    assert list(itertools.islice(results, 1000)) == [x * x for x in range(1000)]
    first = len(pulled)
    assert first < 1000 + 2 * 2 * 32
    assert list(itertools.islice(results, 1000)) == [x * x for x in range(1000, 2000)]
    assert len(pulled) < 2000 + 2 * 2 * 32
    assert list(itertools.islice(pool.imap_unordered(square, itertools.count()), 100))


# %% Pool.imap: an endless input streams in flat memory
def megabyte(_):
    return bytes(1_000_000)


with Pool(2) as pool:
    results = pool.imap(megabyte, itertools.count())
    sum(len(each) for each in itertools.islice(results, 150))
    before = psutil.Process().memory_info().rss
    assert sum(len(each) for each in itertools.islice(results, 500)) == 500_000_000
    assert psutil.Process().memory_info().rss - before < 200_000_000
del results


# %% Pool.imap: an endless input of slow tasks is read hardly ahead
def waits(x):
    time.sleep(0.01)
    return x


pulled.clear()
with Pool(2) as pool:
    results = pool.imap(waits, endless())
    list(itertools.islice(results, 10))
    assert len(pulled) <= 10 + 2 * 2 + 1
del results

# %% Pool: everything that returns at once
called, failed = [], []
with Pool(2) as pool:
    result = pool.apply_async(add, (1,), {"y": 2}, callback=called.append, error_callback=failed.append)
    assert result.get(30) == 3
    assert result.ready()
    assert result.successful()
    result = pool.apply_async(inverse, (0,), callback=called.append, error_callback=failed.append)
    result.wait(30)
    assert result.ready()
    assert not result.successful()
    assert type(raised(result.get)) is ZeroDivisionError
    assert pool.map_async(square, range(5), callback=called.append).get(30) == [0, 1, 4, 9, 16]
    assert pool.starmap_async(add, [(1, 2), (3, 4)], callback=called.append).get(30) == [3, 7]
    result = pool.map_async(inverse, [1, 0], callback=called.append, error_callback=failed.append)
    assert type(raised(result.get, 30)) is ZeroDivisionError
    pool.close()
    pool.join()
assert called == [3, [0, 1, 4, 9, 16], [3, 7]]
assert [type(error) for error in failed] == [ZeroDivisionError, ZeroDivisionError]

# %% Pool: not ready yet
with Pool(1) as pool:
    result = pool.apply_async(slow, (1,))
    assert not result.ready()
    assert type(raised(result.successful)) is ValueError

# %% Pool: close lets the tasks finish, then refuses others
pool = Pool(2)
pids = set(pool.map(lambda _: os.getpid(), range(10)))
result = pool.map_async(square, range(10))
results = pool.imap(square, range(10))
pool.close()
for call in (
    lambda: pool.apply(square, (1,)),
    lambda: pool.apply_async(square, (1,)),
    lambda: pool.map(square, [1]),
    lambda: pool.map_async(square, [1]),
    lambda: pool.starmap(add, [(1, 2)]),
    lambda: pool.starmap_async(add, [(1, 2)]),
    lambda: pool.imap(square, [1]),
    lambda: pool.imap_unordered(square, [1]),
    pool.__enter__,
):
    error = raised(call)
    assert type(error) is ValueError
    assert str(error) == "Pool not running"
pool.join()
assert result.get(30) == [x * x for x in range(10)]
assert list(results) == [x * x for x in range(10)]
assert not any(psutil.pid_exists(pid) for pid in pids)

# %% Pool: terminate ends what is under way
pool = Pool(2)
(pid,) = pool.map(lambda _: os.getpid(), [0])
result = pool.apply_async(slow, (1,))
mapped = pool.map_async(slow, range(5))
streamed = pool.imap(slow, itertools.count())
assert str(raised(pool.join)) == "Pool is still running"
pool.terminate()
pool.join()
assert not psutil.pid_exists(pid)
assert type(raised(result.get, 0)) is concurrent.futures.CancelledError
assert type(raised(mapped.get, 0)) is concurrent.futures.CancelledError
assert type(raised(next, streamed)) is concurrent.futures.CancelledError
assert str(pool).startswith("<Pool state=TERMINATE")
pool.terminate()

# %% Pool: the standard signature
with Pool(
    processes=1, initializer=None, initargs=(), maxtasksperchild=2, context=multiprocessing.get_context("spawn")
) as pool:
    pids = [pool.apply(os.getpid) for _ in range(4)]
assert pids[0] == pids[1]
assert pids[2] == pids[3]
assert pids[0] != pids[2]

# %% an initializer, with what it stores in globals
settings = None


def prepare(value, *, extra=0):
    global settings, made
    settings = value
    made = {"pid": os.getpid()}
    prepare.calls = 1


def uses(x):
    return settings + x, made["pid"] == os.getpid()


def uses_helper(x):
    return uses(x)


with Pool(2, initializer=prepare, initargs=(100,)) as pool:
    assert pool.map(uses, range(4)) == [(100 + x, True) for x in range(4)]
    assert pool.map(uses_helper, range(4)) == [(100 + x, True) for x in range(4)]
    assert pool.apply(lambda: settings) == 100
with Executor(1, initializer=prepare, initargs=(200,)) as executor:
    assert executor.submit(uses, 1).result(30) == (201, True)
assert settings is None
assert "made" not in globals()


# %% what an initializer stores is there for a function that is defined later, and for a redefined one
with Pool(1, initializer=prepare, initargs=(1,)) as pool:
    assert pool.apply(uses, (0,)) == (1, True)

    def uses(x):
        return "anew", settings

    assert pool.apply(uses, (0,)) == ("anew", 1)
    assert pool.apply(lambda: made["pid"]) == pool.apply(os.getpid)


# %% an initializer's arguments may be of a cell's class, and its object is shared by all tasks
class Store:
    def __init__(self):
        self.items = []


store = None


def take(value):
    global store
    store = value


def put(x):
    store.items.append(x)
    return len(store.items), type(store) is Store


def look():
    return list(store.items)


with Pool(1, take, (Store(),)) as pool:
    assert pool.map(put, [5, 6]) == [(1, True), (2, True)]
    assert pool.apply(look) == [5, 6]


# %% what an initializer changes in place: a global, a function's attribute, a class's
known = {}
scale = [1]


class Defaults:
    start = None


def counting(x):
    return counting.start + Defaults.start + known["start"] + scale[0] * x


def set_start(value):
    counting.start = Defaults.start = known["start"] = value
    return scale


with Pool(1, set_start, (10,)) as pool:
    assert pool.map(counting, [1, 2]) == [31, 32]
    scale[0] = 2  # the initializer only looked at it
    assert pool.map(counting, [1, 2]) == [32, 34]
assert known == {}
assert Defaults.start is None


# %% an initializer that fails
def broken():
    raise RuntimeError("no licence")


with Pool(1, broken) as pool:
    error = raised(pool.map, square, [1, 2])
    assert isinstance(error, concurrent.futures.process.BrokenProcessPool), error
    assert "no licence" in str(error)
with Executor(1, broken) as executor:
    error = raised(executor.submit(square, 1).result, 30)
    assert isinstance(error, concurrent.futures.process.BrokenProcessPool), error
    assert "no licence" in str(error)


def leaving():
    os._exit(5)


with Pool(1, leaving) as pool:
    error = raised(pool.map, square, [1, 2])
    assert isinstance(error, concurrent.futures.process.BrokenProcessPool), error
    assert "ended with exit code 5 while it ran the initializer leaving" in str(error)

# %% Executor: its futures are the standard ones
with Executor(2) as executor:
    assert isinstance(executor, concurrent.futures.Executor)
    future = executor.submit(add, 1, y=2)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(30) == 3
    failing = executor.submit(inverse, 0)
    assert type(failing.exception(30)) is ZeroDivisionError
    futures = [executor.submit(square, x) for x in range(10)]
    assert sorted(each.result() for each in concurrent.futures.as_completed(futures)) == [x * x for x in range(10)]
    done, waiting = concurrent.futures.wait(futures)
    assert len(done) == 10
    assert not waiting
    called = []
    future = executor.submit(square, 3)
    future.add_done_callback(lambda each: called.append(each.result()))
    assert future.result(30) == 9
assert called == [9]

# %% Executor: map
with Executor(2) as executor:
    assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert list(executor.map(add, range(5), [10, 20], chunksize=2)) == [10, 21]
    assert list(executor.map(square, [])) == []
    assert type(raised(list, executor.map(inverse, [1, 0]))) is ZeroDivisionError
    assert type(raised(executor.map, square, [1], chunksize=0)) is ValueError
    assert type(raised(list, executor.map(slow, [1], timeout=0.05))) is TimeoutError
    executor._backend.shutdown(abort=True)

# %% Executor: shutdown
executor = Executor(1)
first = executor.submit(time.sleep, 0.05)
waiting = [executor.submit(square, x) for x in range(5)]
executor.shutdown(wait=True, cancel_futures=True)
assert first.done()
assert all(each.done() for each in waiting)
assert waiting[-1].cancelled()
assert type(raised(executor.submit, square, 1)) is RuntimeError
executor.shutdown()
with Executor(2) as executor:
    pending = [executor.submit(square, x) for x in range(20)]
assert [each.result(0) for each in pending] == [x * x for x in range(20)]

# %% Executor: a future that is cancelled before it begins
with Executor(1) as executor:
    blocked = executor.submit(time.sleep, 0.2)
    others = [executor.submit(square, x) for x in range(3)]
    assert others[-1].cancel()
    assert others[0].result(30) == 0
assert others[-1].cancelled()

# %% Executor: what can't travel is refused at the call
lock = threading.Lock()
with Executor(1) as executor:
    assert type(raised(executor.submit, lambda: lock)) is nbparallel.SerializationError
    assert type(raised(executor.submit, 5)) is TypeError
    assert type(executor.submit(square, lock).exception(30)) is nbparallel.SerializationError
    assert executor.submit(square, 2).result(30) == 4

# %% Executor: fresh workers after some tasks
with Executor(1, max_tasks_per_worker=2) as executor:
    pids = [executor.submit(os.getpid).result(30) for _ in range(4)]
assert pids[0] == pids[1]
assert pids[2] == pids[3]
assert pids[0] != pids[2]

# %% Executor: redefinition is seen by its warm workers
with Executor(1) as executor:
    pid = executor.submit(os.getpid).result(30)

    def version():
        return 1

    assert executor.submit(version).result(30) == 1

    def version():
        return 2

    assert executor.submit(version).result(30) == 2
    assert executor.submit(os.getpid).result(30) == pid

# %% Executor: under asyncio
import asyncio


async def in_loop():
    loop = asyncio.get_running_loop()
    with Executor(2) as executor:
        return await asyncio.gather(*(loop.run_in_executor(executor, square, x) for x in range(5)))


with concurrent.futures.ThreadPoolExecutor(1) as thread:  # a notebook's own loop is running already
    assert thread.submit(asyncio.run, in_loop()).result(30) == [0, 1, 4, 9, 16]

# %% shared memory outlives the workers that have made it or looked at it
from multiprocessing import resource_tracker, shared_memory


def make(value):
    from multiprocessing import resource_tracker, shared_memory

    block = shared_memory.SharedMemory(create=True, size=10)
    block.buf[0] = value
    block.close()
    return block.name, resource_tracker._resource_tracker._fd


def look(name):
    from multiprocessing import resource_tracker, shared_memory

    block = shared_memory.SharedMemory(name)
    block.buf[1] = block.buf[0] + 1
    block.close()
    return resource_tracker._resource_tracker._fd


with Executor(1, max_tasks_per_worker=1) as executor:
    name, made_with = executor.submit(make, 7).result(30)
    looked_with = executor.submit(look, name).result(30)
block = shared_memory.SharedMemory(name)
assert list(block.buf[:2]) == [7, 8]
# A worker's own tracker would remove the name with the worker; a fork has its parent's.
assert {made_with, looked_with} <= {None, resource_tracker._resource_tracker._fd}
block.close()
block.unlink()
