"""nbparallel.multiprocessing: the standard module's own code, for what cells define.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import ctypes
import enum
import os
import queue
import socket
import time
from dataclasses import dataclass

import nbparallel
from nbparallel import Pool, multiprocessing, pmap
from nbparallel.multiprocessing import Process, Queue

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)

GREETING = "hello"


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int
    colour: Colour = Colour.RED

    def moved(self):
        return Point(self.x + 1)


def raised(call, *args, **kwargs):
    """Return what a call raises."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def finished(*processes):
    """Start processes, wait for them, and return how they ended."""
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    return [process.exitcode for process in processes]


# %% a process runs a cell's function, with its globals; what it prints is shown before join() returns
def greet(name, *, times=1):
    print(" ".join([GREETING] * times), name)


assert finished(Process(target=greet, args=("you",), kwargs={"times": 2})) == [0]
# stdout: hello hello you

# %% lambdas, closures, methods and subclasses are targets too
results = Queue()


def adder(n):
    return lambda: results.put(n + 1)


class Squarer(Process):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def run(self):
        results.put(self.number**2)


assert finished(Process(target=adder(1)), Squarer(5), Process(target=lambda: results.put(Point(3).moved()))) == [0] * 3
found = [results.get(timeout=30) for _ in range(3)]
assert sorted(each for each in found if type(each) is int) == [2, 25]
assert [each for each in found if type(each) is Point] == [Point(4)]

# %% there is one class per definition, whichever way its instances go
sent, returned = Queue(), Queue()


def check_and_move(sent, returned):
    point = sent.get(timeout=30)
    returned.put((type(point) is Point, point.colour is Colour.RED, point.moved()))


process = Process(target=check_and_move, args=(sent, returned))
process.start()
sent.put(Point(1))
assert returned.get(timeout=30) == (True, True, Point(2))
process.join(30)


# %% a class that a child has defined itself is known here once it has come
def define(conn):
    class Local:
        number = 7

    conn.send(Local)
    conn.send(Local())


ours, theirs = multiprocessing.Pipe()
assert finished(Process(target=define, args=(theirs,))) == [0]
local = ours.recv()
assert (local.number, type(ours.recv()) is local) == (7, True)

# %% a definition that has changed is the one that runs
seen = Queue()


def version():
    seen.put(1)


assert finished(Process(target=version)) == [0]


# %%
def version():
    seen.put(2)


assert finished(Process(target=version)) == [0]
assert [seen.get(timeout=30), seen.get(timeout=30)] == [1, 2]


# %% locks, values and arrays are arguments and globals
number = multiprocessing.Value("i", 0)
numbers = multiprocessing.Array("d", 3)
lock = multiprocessing.Lock()


def count(numbers, steps):
    for _ in range(steps):
        with lock:
            number.value += 1
            numbers[1] += 0.5


assert finished(*[Process(target=count, args=(numbers, 500)) for _ in range(2)]) == [0, 0]
assert (number.value, numbers[:]) == (1000, [0.0, 500.0, 0.0])


# %% shared structures of a class of the cell
class Pair(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int), ("b", ctypes.c_double)]


pair = multiprocessing.Value(Pair, 1, 2.5)


def swap(pair):
    pair.a, pair.b = int(pair.b), float(pair.a)


assert finished(Process(target=swap, args=(pair,))) == [0]
assert (pair.a, pair.b) == (2, 1.0)

# %% tasks of pmap and of pools have them too: as arguments, as globals, as initargs
total = multiprocessing.Value("i", 0)
inbox = multiprocessing.Queue()


def add(x):
    with total.get_lock():
        total.value += x


def put(x, inbox):
    inbox.put(Point(x))


def set_up(given):
    global kept
    kept = given


def add_to_kept(x):
    with kept.get_lock():
        kept.value += x


pmap(add, range(10))
pmap(add, range(10), backend="pathos")
assert total.value == 90
pmap(put, range(3), [inbox] * 3)
assert sorted(inbox.get(timeout=30).x for _ in range(3)) == [0, 1, 2]
with Pool(2, set_up, (total,)) as pool:
    pool.map(add_to_kept, range(10))
assert total.value == 135
total = multiprocessing.Value("i", 0)  # another one of the same kind is another
pmap(add, range(10))
assert total.value == 45


# %% a manager holds instances of the cell's classes
with multiprocessing.Manager() as manager:
    points, table = manager.list([Point(0)]), manager.dict()

    def fill(points, table):
        points.append(points[0].moved())
        table["red"] = Colour.RED

    assert finished(Process(target=fill, args=(points, table))) == [0]
    assert list(points) == [Point(0), Point(1)]
    assert table["red"] is Colour.RED


# %% a class of the cell in a manager of the cell's own
class Counter:
    def __init__(self):
        self.count = 0

    def up(self):
        self.count += 1
        return self.count


class Counters(multiprocessing.managers.BaseManager):
    pass


Counters.register("Counter", Counter)
with Counters() as manager:
    counter = manager.Counter()
    assert finished(Process(target=counter.up), Process(target=counter.up)) == [0, 0]
    assert counter.up() == 3


# %% sockets and the ends of pipes are arguments of a process
def answer(sock, conn):
    sock.sendall(b"from there")
    sock.close()
    conn.send("also")


ours, theirs = socket.socketpair()
receives, sends = multiprocessing.Pipe(duplex=False)
with ours, theirs:
    assert finished(Process(target=answer, args=(theirs, sends))) == [0]
    assert (ours.recv(100), receives.recv()) == (b"from there", "also")

# %% an exit code is what the process says; a signal is negative
assert finished(Process(target=lambda: os._exit(3))) == [3]


def leave(code):
    raise SystemExit(code)


assert finished(Process(target=leave, args=(5,)), Process(target=leave, args=(None,))) == [5, 0]
process = Process(target=time.sleep, args=(1000,), daemon=True)
process.start()
assert process.is_alive()
assert process in multiprocessing.active_children()
process.kill()
process.join(30)
assert process.exitcode < 0 or os.name == "nt"
assert (process.is_alive(), multiprocessing.active_children()) == (False, [])
process.close()
assert "closed" in str(raised(process.join))


# %% what can't travel is named before anything starts; under fork it need not travel
with open(os.devnull) as file:
    process = Process(target=print, args=(1, [file]))
    if os.environ["START_METHOD"] == "fork":
        assert process._popen is None
    else:
        assert "args'][1][0] can't be sent" in str(raised(process.start))
        assert multiprocessing.active_children() == []
    full = multiprocessing.Queue(1)
    assert "can't be sent" in str(raised(full.put, file))
    full.put(1)
    assert type(raised(full.put, 2, False)) is queue.Full
    assert full.get(timeout=30) == 1


# %% a process or a manager that is part of what is sent is named, with what mends it
class Keeps:
    def __init__(self, kept):
        self.kept = kept

    def work(self):
        pass


process = Process(target=abs, args=(1,))
assert finished(process) == [0]
manager = multiprocessing.Manager()
for kept, mend in ((process, "a process that was started"), (manager, "pass what it holds")):
    another = Process(target=Keeps(kept).work)
    if os.environ["START_METHOD"] == "fork":
        assert finished(another) == [0]
    else:
        assert mend in str(raised(another.start))
manager.shutdown()


# %% a process waits for its threads, as a script does
def leaves_a_thread(conn):
    def answer():
        time.sleep(0.1)
        conn.send((threading.main_thread().name, threading.current_thread().daemon))

    import threading

    threading.Thread(target=answer).start()


ours, theirs = multiprocessing.Pipe()
assert finished(Process(target=leaves_a_thread, args=(theirs,))) == [0]
assert ours.poll()
assert ours.recv() == ("MainThread", False)

# %% names of the standard module are found where it has them
import concurrent.futures
import multiprocessing as standard

import nbparallel.multiprocessing.reduction
import nbparallel.multiprocessing.util

import nbparallel.multiprocessing.managers
import nbparallel.multiprocessing.pool
import nbparallel.multiprocessing.process
import nbparallel.multiprocessing.sharedctypes
import nbparallel.multiprocessing.synchronize

for name in standard.__all__:
    if name != "SUBDEBUG" and hasattr(standard, name):
        assert hasattr(multiprocessing, name), name
assert multiprocessing.context.TimeoutError is standard.TimeoutError
assert multiprocessing.process.current_process() is standard.current_process()
assert multiprocessing.util is standard.util
with Pool(1) as pool:
    assert isinstance(pool.map_async(abs, [-1]), multiprocessing.pool.MapResult)

# %% sharedctypes makes what any process can be given
value = multiprocessing.sharedctypes.Value("i", 1)
array = multiprocessing.sharedctypes.Array("i", [1, 2])
wrapped = multiprocessing.sharedctypes.synchronized(multiprocessing.sharedctypes.RawValue("i", 1))
assert isinstance(array, multiprocessing.sharedctypes.SynchronizedArray)


def add_one(*shared):
    for each in shared:
        with each.get_lock():
            if hasattr(each, "value"):
                each.value += 1
            else:
                each[0] += 1


assert finished(Process(target=add_one, args=(value, array, wrapped))) == [0]
with Pool(1, initializer=add_one, initargs=(value, array, wrapped)) as pool:
    pool.apply(add_one, (value,))
assert (value.value, array[:], wrapped.value) == (4, [3, 2], 3)

# %% an executor of the standard library refuses what it could not read
for given in (multiprocessing, multiprocessing.get_context()):
    assert "nbparallel.Executor" in str(raised(concurrent.futures.ProcessPoolExecutor, 1, mp_context=given))


# %% a process may start others; a daemon may not
def start_another(conn):
    child = Process(target=conn.send, args=(multiprocessing.current_process().name,))
    child.start()
    child.join(30)


def try_to_start_another(conn):
    conn.send(str(raised(Process(target=print).start)))


ours, theirs = multiprocessing.Pipe()
assert finished(Process(target=start_another, args=(theirs,), name="outer")) == [0]
assert ours.recv() == "outer"
assert finished(Process(target=try_to_start_another, args=(theirs,), daemon=True)) == [0]
assert ours.recv() == "daemonic processes are not allowed to have children"


# %% a process may use pools and maps of its own
def use_a_pool(conn):
    with multiprocessing.Pool(2) as pool:
        conn.send(pool.map(Point, range(2)))
    conn.send(pmap(lambda x: Point(x).moved(), range(2)))


assert finished(Process(target=use_a_pool, args=(theirs,))) == [0]
assert (ours.recv(), ours.recv()) == ([Point(0), Point(1)], [Point(1), Point(2)])


# %% shared memory that a child has made outlives the child
def make(conn):
    from multiprocessing.shared_memory import SharedMemory

    block = SharedMemory(create=True, size=10)
    block.buf[0] = 7
    block.close()
    conn.send((block.name, resource_tracker._resource_tracker._pid))


from multiprocessing import resource_tracker

ours, theirs = multiprocessing.Pipe()
assert finished(Process(target=make, args=(theirs,)), Process(target=make, args=(theirs,))) == [0, 0]
for _ in range(2):
    name, helper = ours.recv()
    assert helper in (None, resource_tracker._resource_tracker._pid)  # one of its own would remove the name with it
    block = multiprocessing.shared_memory.SharedMemory(name)
    assert block.buf[0] == 7
    block.close()
    block.unlink()

# %% start methods and cores
assert multiprocessing.get_start_method() == os.environ["START_METHOD"]
multiprocessing.set_start_method(os.environ["START_METHOD"])
multiprocessing.set_start_method(os.environ["START_METHOD"])  # a cell is run again
assert type(raised(multiprocessing.get_context, "nonsense")) is ValueError
assert multiprocessing.cpu_count() == nbparallel.resources().cores
for method in multiprocessing.get_all_start_methods():
    found = multiprocessing.get_context(method).Queue()
    assert finished(multiprocessing.get_context(method).Process(target=found.put, args=(method,))) == [0]
    assert found.get(timeout=30) == method
