"""What can't travel is found before anything runs, or fails its own task alone, and says so in words.

Cells in percent format; see `test_behaviour.py`.
"""

# %% setup
import contextlib
import io
import os
import threading

import nbparallel
from nbparallel import SerializationError, last_run, pmap

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)


def refused(fn, *iterables, **options):
    """Return the error with which a map is refused before anything of it runs."""
    before = last_run()
    try:
        pmap(fn, *iterables, **options)
    except SerializationError as error:
        run = last_run()
        assert run is before or run.completed == 0
        return error
    raise AssertionError("it was not refused")


# %% a function whose global can't travel: named by its path
config = {"db": threading.Lock()}


def train(x):
    return config["db"], x


error = refused(train, [1, 2])
assert error.path == "train → config['db']", error.path
assert "lock" in str(error)
assert "Mend: " in str(error)


# %% a helper's global
def helper(x):
    return train(x)


def outer(x):
    return helper(x)


assert refused(outer, [1]).path == "outer → helper → train → config['db']"


# %% a lock in a closure
def guarded():
    lock = threading.Lock()

    def add(x):
        with lock:
            return x + 1

    return add


error = refused(guarded(), [1])
assert error.path == "add → lock", error.path

# %% an object that has something open
import socket


class Client:
    def __init__(self):
        self.connection = socket.socket()

    def ask(self, x):
        return x


client = Client()
error = refused(client.ask, [1])
assert "connection" in error.path, error.path
assert "open the socket inside the function" in str(error)
error = refused(lambda x: client.ask(x), [1])
assert "client.connection" in error.path, error.path
client.connection.close()

# %% a generator among the globals
numbers = (n for n in range(3))
error = refused(lambda x: next(numbers) + x, [1])
assert "numbers" in error.path
assert "list" in str(error)


# %% an argument that can't travel fails its task alone
def kind(x):
    return type(x).__name__


found = pmap(kind, [1, threading.Lock(), "a"], on_error="return")
assert found[0] == "int"
assert found[2] == "str"
assert isinstance(found[1].error, SerializationError)
assert "task 1" in str(found[1].error)
try:
    pmap(kind, [threading.Lock()])
except SerializationError as error:
    assert "lock" in str(error)
else:
    raise AssertionError("a lock can't travel")


# %% a result that can't travel fails its task alone
def locks(x):
    return threading.Lock() if x == 1 else x


found = pmap(locks, range(4), on_error="return", chunksize=4)
assert found[0] == 0
assert found[2:] == [2, 3]
assert isinstance(found[1].error, SerializationError), found
assert "lock" in str(found[1].error)
assert "its result, a _thread.lock, can't be sent back to the notebook" in str(found[1])


# %% so does a result that can't be rebuilt here, whatever travelled with it; no task is run again
class Temp:
    def __init__(self, n):
        self.n = n

    def __setstate__(self, state):
        raise ValueError("no load here")


def makes_temp(x):
    if 480 <= x < 520:
        print("at", x)
    return Temp(x) if x == 500 else (x,)


with contextlib.redirect_stdout(io.StringIO()) as told:
    found = pmap(makes_temp, range(1000), on_error="return")
assert [x for x in found if isinstance(x, tuple)] == [(x,) for x in range(1000) if x != 500]
assert isinstance(found[500].error, SerializationError)
assert "task 500" in str(found[500])
assert "could not be rebuilt in the notebook: ValueError: no load here" in str(found[500])
assert sorted(told.getvalue().splitlines()) == [f"at {x}" for x in range(480, 520)]


# %% also where pickling an input, or rebuilding a result, exits


class ExitsThere:
    def __reduce__(self):
        raise SystemExit("no")


class ExitsHere:
    def __setstate__(self, state):
        raise SystemExit("no")


def makes(x):
    made = ExitsHere()
    made.x = x
    return made if x == 2 else x


found = pmap(abs, [-1, ExitsThere(), -3], on_error="return")
assert [found[0], found[2]] == [1, 3]
assert "SystemExit: no" in str(found[1])
found = pmap(makes, range(6), on_error="return")
assert [x for x in found if type(x) is int] == [0, 1, 3, 4, 5]
assert "SystemExit: no" in str(found[2])


# %% an exception that can't travel fails its task alone, with its words and its traceback
class Unsendable(Exception):
    def __init__(self):
        super().__init__("something is odd")
        self.lock = threading.Lock()


def raises_unsendable(x):
    if x == 1:
        raise Unsendable
    return x


found = pmap(raises_unsendable, range(3), on_error="return")
assert found[0] == 0
assert found[2] == 2
assert "Unsendable" in str(found[1].error)
assert "something is odd" in str(found[1].error)
assert "in raises_unsendable" in found[1].traceback


# %% one that can't travel and only led to another is shown in words
class Broken(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.connection = threading.Lock()


def raises_from(x):
    try:
        raise KeyError("the first")
    except KeyError as first:
        try:
            raise Broken("the connection is lost") from first
        except Broken:
            raise ValueError(f"bad row {x}")  # noqa: B904


def raises_group(x):
    raise ExceptionGroup("both", [ValueError(x), Broken("the connection is lost")])


try:
    pmap(raises_from, [7])
except ValueError as error:
    stand_in = error.__context__
    assert (type(stand_in).__name__, str(stand_in)) == ("Broken", "the connection is lost")
    assert any("lock" in note for note in stand_in.__notes__)
    assert stand_in.__traceback__.tb_frame.f_code.co_name == "raises_from"
    assert type(stand_in.__cause__) is KeyError
else:
    raise AssertionError("it was not raised")

try:
    pmap(raises_group, [7])
except* ValueError as group:
    assert group.exceptions[0].args == (7,)
except* Exception as group:
    assert [str(each) for each in group.exceptions] == ["the connection is lost"]


# %% a name that is computed at run time: advice in words
def by_name(x):
    return globals()["_".join(["helper", "two"])](x)


def helper_two(x):
    return x


try:
    pmap(by_name, [1])
except KeyError as error:
    assert any("globals()" in note and "Name the helper" in note for note in error.__notes__)
else:
    raise AssertionError("the worker can't know this name")


# %% a name that stands in the function is found through globals() too
def by_constant(x):
    return globals()["helper_two"](x)


assert pmap(by_constant, [1]) == [1]

# %% nothing of this broke the workers
assert pmap(helper_two, range(5)) == [0, 1, 2, 3, 4]
