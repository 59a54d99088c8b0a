"""What a cell defines reaches the workers as it is at the moment of the call.

Cells in percent format; `test_behaviour.py` says how they are run. A heading begins a behaviour, and a bare mark its
next cell.
"""

# %% setup
import os

import nbparallel
from nbparallel import pmap

nbparallel.configure(workers=2, start_method=os.environ["START_METHOD"], progress=False)


def warm_pids():
    from nbparallel import backends

    found = [backend for backend in backends.warm().values() if backend.name == "processes"]
    return {pid for backend in found for pid in backend.engine.pids}


# %% a function with its helper, import, global and class
import math

offset = 10


class Scaled:
    factor = 3

    def __init__(self, value):
        self.value = value * self.factor


def helped(x):
    return math.floor(x) + offset


def whole(x):
    return Scaled(helped(x)).value


assert pmap(whole, [1.5, 2.5]) == [33, 36]

# %% the workers are other processes
assert os.getpid() not in pmap(lambda _: os.getpid(), range(4))

# %% a lambda
assert pmap(lambda x: x + offset, [1, 2]) == [11, 12]


# %% a closure
def adder(amount):
    def add(x):
        return x + amount

    return add


assert pmap(adder(5), [1, 2]) == [6, 7]
assert [pmap(function, [0]) for function in [lambda x, n=n: x + n for n in range(3)]] == [[0], [1], [2]]


# %% methods, static, of the class, bound and inherited
class Base:
    def __init__(self, x):
        self.x = x

    def twice(self):
        return 2 * self.x


class Derived(Base):
    def __init__(self, x):
        super().__init__(x + 1)

    def twice(self):
        return super().twice() + 100

    @classmethod
    def named(cls, x):
        return f"{cls.__name__} {x}"

    @staticmethod
    def plain(x):
        return -x

    def plus(self, x):
        return self.x + x


assert pmap(lambda x: Derived(x).twice(), [1, 2]) == [104, 106]
assert pmap(Derived.twice, [Derived(1)]) == [104]
assert pmap(Derived.named, [1]) == ["Derived 1"]
assert pmap(Derived.plain, [1]) == [-1]
assert pmap(Derived(1).plus, [1, 2]) == [3, 4]

# %% a result's class is the cell's class
import dataclasses
import enum
import typing


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    colour: Colour


class Pair(typing.NamedTuple):
    first: int
    second: Point


def make(x):
    return Pair(x, Point(x, Colour.RED))


(pair,) = pmap(make, [4])
assert isinstance(pair, Pair)
assert isinstance(pair.second, Point)
assert pair.second == Point(4, Colour.RED)
assert pair.second.colour is Colour.RED

# %% an argument's class is the class that the function sees
assert pmap(lambda p: isinstance(p, Point) and p.colour is Colour.BLUE, [Point(1, Colour.BLUE)]) == [True]

# %% a callable object and a partial function
import functools


class Multiplier:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x


assert pmap(Multiplier(3), [1, 2]) == [3, 6]
assert pmap(functools.partial(pow, 2), [3, 4]) == [8, 16]
assert pmap(functools.partial(helped), [0.5]) == [10]


# %% mutual recursion and a decorator
def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return ("called", function(*args))

    return wrapper


@logged
def is_even(n):
    return n == 0 or is_odd(n - 1)


def is_odd(n):
    return n != 0 and is_even(n - 1)[1]


assert pmap(is_even, [10]) == [("called", True)]
assert is_even.__name__ == "is_even"


# %% redefined between two maps on the warm pool: the function
def current(x):
    return ("first", x)


assert pmap(current, [1, 2]) == [("first", 1), ("first", 2)]
pids = warm_pids()


# %%
def current(x):
    return ("second", x)


assert pmap(current, [1, 2]) == [("second", 1), ("second", 2)]
assert warm_pids() == pids


# %% redefined between two maps on the warm pool: a helper, a class, a global
class Answer:
    text = "old"


def helper():
    return "old"


level = "old"


def answers(_):
    return (Answer.text, helper(), level)


assert pmap(answers, [0]) == [("old", "old", "old")]
pids = warm_pids()


# %%
class Answer:
    text = "new"


assert pmap(answers, [0]) == [("new", "old", "old")]


def helper():
    return "new"


assert pmap(answers, [0]) == [("new", "new", "old")]
level = "new"
assert pmap(answers, [0]) == [("new", "new", "new")]
Answer.text = "patched"
assert pmap(answers, [0]) == [("patched", "new", "new")]
helper.__defaults__ = None
level = "old"
assert pmap(answers, [0]) == [("patched", "new", "old")]
assert warm_pids() == pids


# %% a helper that is defined after the function
def early(x):
    return late(x)


try:
    pmap(early, [1])
except NameError as error:
    assert "late" in str(error)
else:
    raise AssertionError("there is no such helper yet")


# %%
def late(x):
    return ("late", x)


assert pmap(early, [1]) == [("late", 1)]

# %% a global that is changed in place
import numpy

table = {"a": 1}
rows = [1]
grid = numpy.zeros(5000)


def reads(_):
    return table["a"], rows[-1], grid[-1]


assert pmap(reads, [0]) == [(1, 1, 0.0)]
pids = warm_pids()
table["a"] = 2
rows.append(7)
grid[-1] = 3.5
assert pmap(reads, [0]) == [(2, 7, 3.5)]
grid[-1] = 0.0
assert pmap(reads, [0]) == [(2, 7, 0.0)]
assert warm_pids() == pids

# %% what is not referenced costs nothing
import socket

from nbparallel.serialize import unit_of

unreferenced = numpy.ones(25_000_000)  # 200 MB
opened = socket.socket()


def light(x):
    return x + 1


assert pmap(light, [1]) == [2]
assert unit_of(light).nbytes < 2000
opened.close()
del unreferenced


# %% a function whose source a worker can show
def shown(_):
    import inspect

    return inspect.getsource(shown)


if "__file__" not in globals() and "get_ipython" in globals():
    assert pmap(shown, [0])[0].startswith("def shown(_):")

# %% threads and pathos run cell functions too
for backend in ("serial", "threads", "pathos"):
    assert pmap(whole, [1.5, 2.5], backend=backend) == [33, 36], backend
    assert pmap(make, [4], backend=backend) == [pair], backend
    assert pmap(current, [1], backend=backend) == [("second", 1)], backend


def current(x):
    return ("third", x)


for backend in ("serial", "threads", "pathos"):
    assert pmap(current, [1], backend=backend) == [("third", 1)], backend
