"""Digests: the same in every kernel for the same thing, different for whatever could give another result."""

from __future__ import annotations

import collections
import copy
import datetime
import decimal
import fractions
import importlib
import inspect
import itertools
import json
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import textwrap
import threading
import typing
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roundtrip import Notebook, nb, worker

import nbparallel
from nbparallel.serialize.stable import Digester, digest

__all__ = ["nb", "worker"]

# ---- in another kernel --------------------------------------------------------------------------------------------

#: Definitions of a notebook. Names that begin with `v_` are digested.
CELLS = """
import abc, collections, dataclasses, datetime, enum, functools, random, re, typing
import numpy as np, pandas as pd
LIMIT = {"low": {1, "x", 2.5}, "high": np.arange(6.0).reshape(2, 3)}
def helper(x, *, words=frozenset({"alpha", "beta", "gamma"})): return x in {"a", "b", "c"} or x in words
def v_simple(x): return helper(x), LIMIT["low"]
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
v_mutual = even
@dataclasses.dataclass(order=True)
class Point:
    x: int
    tags: set = dataclasses.field(default_factory=set)
    def norm(self): return helper(self.x)
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: "Point | None"
class Base(abc.ABC):
    registry = {}
    def __init_subclass__(cls, **kw): Base.registry[cls.__name__] = cls
    @abc.abstractmethod
    def run(self): ...
class Sub(Base):
    @functools.cached_property
    def size(self): return len(LIMIT)
    @property
    def area(self): return self.size
    @classmethod
    def make(cls): return cls()
    def run(self): return super().__class__
class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"
    def other(self): return Colour.RED
class Row(typing.NamedTuple):
    a: int
    b: str = "x"
T = typing.TypeVar("T", bound=Point)
class Box(typing.Generic[T]):
    def __init__(self, item: T): self.item = item
def outer(k):
    class Local:
        def get(self): return k
    def inner(x): return Local().get() + x
    return inner
v_closure, v_other_closure = outer(1), outer(2)
v_point, v_frozen, v_sub, v_row = Point(1, {"u", "v", "w"}), Frozen(Point(2)), Sub(), Row(1)
v_red, v_blue, v_box = Colour.RED, Colour.BLUE, Box(Point(3))
v_classes = [Point, Frozen, Base, Sub, Colour, Row, Box]
v_methods = [v_point.norm, Sub.make, Base.run, Point.__init__, str.upper, len, np.mean]
v_partial = functools.partial(helper, words=("z",))
@functools.lru_cache(maxsize=5)
def v_cached(x): return helper(x)
v_lambda = lambda x, y=Colour.BLUE: (x, y, Point(x))
def v_generator(xs):
    for x in xs: yield Point(x)
async def v_async(x): return await x
v_sets = [{"a", "b", ("c", "d")}, frozenset({frozenset({"p", "q"}), frozenset({"r"})}), {Frozen(None), Colour.RED}]
class Node:
    def __init__(self, name): self.name, self.near = name, set()
nodes = [Node(name) for name in "abcde"]
for one, two in zip(nodes, nodes[1:] + nodes[:1]): one.near.add(two); two.near.add(one)
v_graph = nodes[0]
v_loop = [1]; v_loop.append(v_loop)
v_frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2020-01-01", None])})
v_frame["d"] = pd.Categorical(["u", "v"])
v_series = v_frame["b"]
v_random, v_generator_of_numpy = random.Random(1), np.random.default_rng(1)
v_misc = [re.compile("a|b"), datetime.datetime(2020, 1, 1), collections.Counter("abca"), np.float32(1)]
v_dtype = np.dtype("M8[s]")
v_texts = ["ab", "a" + "".join(["b"])]
"""

_PROGRAM = """
import json, linecache, sys, types
sys.modules["__main__"] = main = types.ModuleType("__main__")
given = json.load(sys.stdin)
for number, source in enumerate(given["cells"]):
    exec(compile(source, f"<cell {given['first'] + number}>", "exec", dont_inherit=True), vars(main))
from nbparallel.serialize.stable import digest
print(json.dumps({name: digest(value).hex() for name, value in vars(main).items() if name.startswith("v_")}))
"""


def digests_elsewhere(cells: list[str], first: int, hash_seed: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(Path(nbparallel.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM],
        input=json.dumps({"cells": cells, "first": first}),
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_kernel_gives_the_same_digests() -> None:
    """Other hash seeds, cell numbers and lines, comments, a cell that was run twice: each definition has one digest."""
    one = digests_elsewhere([CELLS], 1, 1)
    commented = CELLS.replace("def helper", "# moved down\n\ndef helper").replace("return k", "return k  # it is")
    assert digests_elsewhere(["1 + 1", commented, commented], 7, 2) == one
    alike = [names for names in itertools.combinations(one, 2) if one[names[0]] == one[names[1]]]
    assert alike == []


# ---- code ---------------------------------------------------------------------------------------------------------


def test_a_change_of_anything_that_a_function_refers_to_is_seen(nb: Notebook) -> None:
    nb.cell(CELLS)
    nb.cell("def f(x, k=1): return v_simple(x), Sub, v_closure, v_red, k")
    seen = {digest(nb["f"])}
    for change in (
        "def f(x, k=2): return v_simple(x), Sub, v_closure, v_red, k",
        "def f(x, k=1): return v_simple(x), Sub, v_closure, v_red, -k",
        "LIMIT['low'].add(7)",
        "LIMIT['high'][0, 0] = -0.0",
        "def helper(x, *, words=frozenset({'alpha', 'beta', 'delta'})): return x in {'a', 'b', 'c'} or x in words",
        "def helper(x, *, words=frozenset({'alpha', 'beta', 'delta'})): return x in {'a', 'b', 'd'} or x in words",
        "Base.registry['more'] = 1",
        "Base.run.__doc__ = 'Run.'",
        "Sub.extra = 1.0",
        "Sub.extra = 1",
        "Sub.make = staticmethod(lambda: 3)",
        "v_closure = outer(3)",
        "v_red = Colour.BLUE",
        "import math as helper",
        "import cmath as helper",
    ):
        nb.cell(change)
        seen.add(digest(nb["f"]))
    assert len(seen) == 16


def test_what_does_not_matter_to_code_is_not_seen(nb: Notebook) -> None:
    nb.cell(CELLS)
    nb.cell("def f(x): return v_simple(x), Point, Sub, v_cached, Bare\nclass Bare: pass")
    before = digest(nb["f"])
    nb.cell("unrelated = 1\ndef other(): pass")
    nb["v_cached"](1)
    pickle.dumps(random.Random())
    nb["Point(1)"].__reduce_ex__(5)  # this and the next leave something in the class
    assert inspect.get_annotations(nb["Bare"]) == {}
    typing.get_type_hints(nb["Point"])
    nb.remote("f", 1)
    assert "__slotnames__" in vars(nb["Point"])
    nb.cell(CELLS)
    nb.cell(
        "\n\n# a comment\nclass Bare: pass\n# and another\ndef f(x): return v_simple(x), Point, Sub, v_cached, Bare"
    )
    assert digest(nb["f"]) == before


def test_a_class_inside_a_function_may_be_moved(nb: Notebook) -> None:
    source = (
        "def f(x):\n    {}class A:\n        n = 300\n        def m(self): self.a = self.b = self.c = x\n    return A"
    )
    nb.cell(source.format(""))
    before = digest(nb["f"])
    nb.cell("\n" * 400 + source.format("# more\n\n    "))
    assert digest(nb["f"]) == before
    nb.cell(source.format("").replace("300", "301"))
    assert digest(nb["f"]) != before


def test_a_digester_takes_code_as_it_was_when_it_was_first_met(nb: Notebook) -> None:
    nb.cell("class C: k = 1")
    digester = Digester()
    before = digester.digest(nb["C()"])
    nb.cell("C.k = 2")
    assert digester.digest(nb["C()"]) == before
    assert digest(nb["C()"]) != before


def test_a_compiled_function_is_what_it_was_compiled_from(nb: Notebook) -> None:
    numba = pytest.importorskip("numba")
    del numba
    source = """
        import numba
        @numba.njit
        def fast(x): return x + {}
        def f(x): return fast(x)
    """
    nb.cell(source.format(1))
    before = digest(nb["f"])
    assert nb["f(2)"] == 3  # it is compiled for integers now
    assert digest(nb["f"]) == before
    nb.cell(source.format(1))
    assert digest(nb["f"]) == before
    nb.cell(source.format(2))
    assert digest(nb["f"]) != before


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write modules of the user's own, which can be imported and are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def write(**sources: str) -> None:
        for name, source in sources.items():
            path = tmp_path / (name.replace("_in_", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


class TestOwnModules:
    def test_each_way_to_refer_to_one(self, nb: Notebook, own: Any) -> None:
        """A changed file is seen through a module, its functions, classes and instances, and imports inside."""
        own(mm_own="class C: pass\ndef g(x): return x\ndef make():\n    return lambda: 1\n")
        nb.cell("""
            import mm_own
            from mm_own import C, g
            def by_module(x): return mm_own.g(x)
            def by_function(x): return g(x)
            def by_class(x): return C
            def by_import(x):
                import mm_own
                return mm_own.g(x)
            def by_import_from(x):
                from mm_own import g
                return g(x)
            def by_none(x): return x
            by_lambda, by_instance, by_partial = mm_own.make(), C(), __import__("functools").partial(g, 1)
        """)
        names = [name for name in nb.names if name.startswith("by_") and name != "by_none"]
        before = {name: digest(nb[name]) for name in ("by_none", *names)}
        own(mm_own="# a comment\nclass C: pass\ndef g(x): return x\ndef make():\n    return lambda: 1\n")
        importlib.reload(sys.modules["mm_own"])
        nb.cell("from mm_own import C, g\nby_lambda, by_instance = mm_own.make(), C()")
        nb.cell("by_partial = __import__('functools').partial(g, 1)")
        assert {name: digest(nb[name]) for name in ("by_none", *names)} == before
        own(mm_own="class C: pass\ndef g(x): return x\ndef make():\n    return lambda: 1\nK = 1\n")
        importlib.reload(sys.modules["mm_own"])
        assert [name for name in names if digest(nb[name]) == before[name]] == []
        assert digest(nb["by_none"]) == before["by_none"]

    def test_what_it_imports_counts_too_whether_it_is_loaded_or_not(self, nb: Notebook, own: Any) -> None:
        own(mm_top="from mm_pack import inner\nimport math\n", mm_low="K = 1\n", mm_pack_in___init__="")
        own(mm_pack_in_inner="from . import deep\n", mm_pack_in_deep="def late():\n    import mm_low\n")
        nb.cell("def f(x):\n    import mm_top\n    return mm_top")
        before = digest(nb["f"])
        nb["f(1)"]
        assert digest(nb["f"]) == before
        own(mm_low="K = 2\n")
        after = digest(nb["f"])
        assert after != before
        own(mm_pack_in___init__="K = 3\n")
        assert digest(nb["f"]) not in (before, after)

    def test_a_module_that_was_edited_and_not_reloaded_is_neither_the_old_nor_the_new_one(
        self, nb: Notebook, own: Any
    ) -> None:
        own(mm_stale="TABLE = {'k': 1}\ndef g(x): return TABLE\n")
        nb.cell("import mm_stale\ndef f(x): return mm_stale.g(x)")
        old = digest(nb["f"])
        own(mm_stale="TABLE = {'k': 22}\ndef g(x): return TABLE\n")
        between = digest(nb["f"])
        importlib.reload(sys.modules["mm_stale"])
        new = digest(nb["f"])
        assert len({old, between, new}) == 3

    def test_an_edit_before_anybody_asked_is_seen_in_the_functions(self, nb: Notebook, own: Any) -> None:
        own(mm_early="class C:\n    def g(self): return 1\n")
        nb.cell("import mm_early\ndef f(x): return mm_early.C")
        own(mm_early="class C:\n    def g(self): return 22\n")
        between = digest(nb["f"])
        importlib.reload(sys.modules["mm_early"])
        assert digest(nb["f"]) != between

    def test_a_file_that_is_gone_or_broken_is_a_version_too(self, nb: Notebook, own: Any, tmp_path: Path) -> None:
        own(mm_gone="def g(x): return x\n")
        nb.cell("import mm_gone\ndef f(x): return mm_gone.g(x)")
        seen = {digest(nb["f"])}
        own(mm_gone="def g(x: return x\n")
        seen.add(digest(nb["f"]))
        (tmp_path / "mm_gone.py").unlink()
        seen.add(digest(nb["f"]))
        assert len(seen) == 3


# ---- data ---------------------------------------------------------------------------------------------------------


class Plain:
    """Compared by identity, as most classes are."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Number(int):
    pass


class Text(str):
    pass


class Pair(typing.NamedTuple):
    x: int
    y: int


def twins() -> list[Any]:
    """Make things, each time anew, no two of which are the same."""
    array = np.arange(12.0).reshape(3, 4)
    shared = [1]
    plain = Plain(a=1)
    loop: list[Any] = []
    loop.append(loop)
    long_loop: list[Any] = [[]]
    long_loop[0].append(long_loop)
    return [
        *(0, 1, -1, 1.0, True, False, None, 1 + 0j, ..., 2**70, 10**400, 0.0, -0.0, float("nan"), float("inf")),
        *("", "a", "1", "None", "é", "\ud800", b"", b"a", "a" * 70_000, b"a" * 70_000, bytearray(b"a" * 70_000)),
        *(bytearray(b"a"), bytearray(), Number(1), Text("a"), np.float64(1), np.int64(1), np.bool_(True), np.str_("a")),
        *((), [], {}, set(), frozenset(), (1,), [1], {1}, frozenset({1}), {1: 1}, (1, 2), Pair(1, 2), [1, 2], [2, 1]),
        *(
            ((1, 2), 3),
            (1, (2, 3)),
            (1, 2, 3),
            [[1], 2],
            [[1, 2]],
            [(1, 2)],
            [1.0, 2],
            [True, 2],
            ["a", b"a"],
            [b"a", "a"],
        ),
        *({1: "a", 2: "b"}, {2: "b", 1: "a"}, {"a": 1, "b": 2}, {"a": "b", 1: 2}, {(1, 2): [3]}, {(1, 2): (3,)}),
        *(collections.OrderedDict(a=1), collections.Counter(a=1), collections.defaultdict(int, a=1), {"a": 1}),
        *({1, 2}, {1.0, 2}, {"a", "b"}, {"a", b"b"}, {(1, 2), (3, 4)}, {frozenset({1}), 2}, {frozenset({1, 2})}),
        *(range(3), range(4), slice(3), datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1)),
        *(
            decimal.Decimal("1"),
            decimal.Decimal("1.0"),
            fractions.Fraction(1),
            pathlib.PurePosixPath("a"),
            uuid.UUID(int=1),
        ),
        *(
            re.compile("a"),
            re.compile("a", re.I),
            re.compile(b"a"),
            int,
            float,
            len,
            print,
            Plain,
            os,
            os.path,
            np,
            np.sum,
        ),
        *(
            array,
            array.T,
            array.reshape(4, 3),
            array.astype("f4"),
            array.astype(">f8"),
            -array,
            array[:, ::2],
            array.ravel(),
        ),
        *(np.array(1.0), np.array([]), np.array([], "f4"), np.zeros((0, 3)), np.array(["a"]), np.array(["a"], object)),
        *(
            np.array([1], "M8[s]"),
            np.array([1], "m8[s]"),
            np.array([(1, 2.0)], [("a", int), ("b", float)]),
            np.array([None]),
        ),
        *(
            np.array(["a", "b"], object),
            np.array([["a", "b"]], object),
            np.ma.array([1, 2], mask=[0, 1]),
            array.tobytes(),
        ),
        *(
            pd.Series([1, 2]),
            pd.Series([1, 2], name="a"),
            pd.Series([1, 2], index=[1, 2]),
            pd.Index([1, 2]),
            pd.Series(["a"]),
        ),
        *(pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"b": [1, 2]}), pd.DataFrame({"a": [1.0, 2]}), pd.DataFrame()),
        *(pd.DataFrame({"a": [1, 2]}, index=[1, 2]), pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.Timestamp("2020")),
        *(pd.DataFrame({"a": pd.Categorical(["u"])}), pd.DataFrame({"a": pd.Categorical(["u"], ["u", "v"])})),
        *(pd.DataFrame({"a": pd.to_datetime(["2020"]).tz_localize(zone)}) for zone in (None, "UTC", "Europe/Rome")),
        *(
            [shared, shared],
            [shared, [1]],
            [plain, plain],
            [plain, Plain(a=1)],
            [plain, {plain}],
            [plain, {Plain(a=1)}],
        ),
        *(plain, Plain(a=2), Plain(b=1), Plain(a=1, b=1), Plain(a=plain), loop, [loop], long_loop, Plain(a=loop)),
        *(
            {plain},
            {plain, Plain(a=2)},
            {plain, Plain(a=1)},
            {Plain(a={1})},
            {Plain(a={2})},
            [{1}, {1}],
            {"a": {plain}},
        ),
        *(random.Random(1), random.Random(2), np.random.default_rng(1), np.random.default_rng(2)),
    ]


def test_equal_twins_have_one_digest_and_no_two_others_do() -> None:
    ones, others = twins(), twins()
    digests = [digest(thing) for thing in ones]
    for thing, twin, known in zip(ones, others, digests, strict=True):
        assert digest(twin) == known, repr(thing)[:80]
    groups = collections.defaultdict(list)
    for thing, known in zip(ones, digests, strict=True):
        groups[known].append(repr(thing)[:80])
    assert [alike for alike in groups.values() if len(alike) > 1] == []


def test_what_is_a_value_counts_as_one_wherever_it_occurs() -> None:
    day, pair, text = datetime.date(2020, 1, 1), (1, (2, "x")), "".join(["a", "b"])
    kind = np.dtype("f8")
    for thing in (day, pair, text, decimal.Decimal("1.5"), np.float64(3), b"bytes", frozenset({(1, 2)}), kind):
        twin = pickle.loads(pickle.dumps(thing)) if thing is not kind else np.dtype("f8", copy=True)
        assert digest([thing, thing]) == digest([thing, twin]), repr(thing)


def test_arrays_count_by_what_is_in_them() -> None:
    wide = np.arange(40_000.0).reshape(200, 200)
    assert digest(wide[::2, 1:3]) == digest(wide[::2, 1:3].copy())
    frozen = wide.copy()
    frozen.flags.writeable = False
    assert digest(frozen) == digest(wide)
    assert digest(wide) == digest(pickle.loads(pickle.dumps(wide)))
    assert digest(wide[:, :1]) == digest(wide[:, :1].copy())


def test_frames_count_by_what_is_in_them() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    frame["b"] = [3.0, 4.0]  # two blocks
    together = pd.DataFrame(np.array([[1.0, 3.0], [2.0, 4.0]]), columns=["a", "b"])
    assert digest(frame) == digest(together) == digest(frame.copy()) == digest(pickle.loads(pickle.dumps(frame)))
    before = digest(frame)
    assert frame.to_numpy().sum() == 10
    assert frame.loc[0, "a"] == 1
    assert digest(frame) == before
    assert digest(frame["a"]) == digest(pd.Series([1.0, 2.0], name="a"))
    frame.attrs["unit"] = "m"
    assert digest(frame) != before


def test_sharing_that_doubles_at_each_level_takes_no_time() -> None:
    pairs: Any = (1.5, "x")
    lists: Any = [1]
    members: Any = frozenset({1})
    for _ in range(50):
        pairs, lists, members = (pairs, pairs), [lists, lists], frozenset({members, (members, 1)})
    assert len({digest(pairs), digest(lists), digest(members)}) == 3


def test_a_net_of_objects_in_sets_has_a_digest() -> None:
    def net(names: str) -> list[Plain]:
        nodes = [Plain(name=name, near=set()) for name in names]
        for one, two in itertools.combinations(nodes, 2):
            one.near.add(two)
            two.near.add(one)
        return nodes

    assert digest(net("abcdefghij")) == digest(net("abcdefghij"))
    assert digest(net("abcdefghij")) != digest(net("abcdefghik"))


def test_what_cannot_be_pickled_has_no_digest() -> None:
    with open(os.devnull) as stream:
        for thing in (stream, (x for x in [1]), [sys._getframe()], {"lock": threading.Lock()}):
            with pytest.raises(TypeError):
                digest(thing)


_atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.dates()
)
_things = st.recursive(
    _atoms,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.frozensets(_atoms, max_size=3)
    ),
    max_leaves=8,
)


def strict(thing: Any) -> Any:
    """Return what equals only its equal: with types and signs."""
    if isinstance(thing, list | tuple):
        return (type(thing), [strict(each) for each in thing])
    if isinstance(thing, dict):
        return (dict, [(strict(key), strict(value)) for key, value in thing.items()])
    if isinstance(thing, frozenset):
        return (frozenset, sorted(map(repr, thing)))
    return (type(thing), repr(thing))


@settings(max_examples=300, deadline=None)
@given(_things, _things)
def test_equal_digests_mean_equal_things(one: Any, two: Any) -> None:
    assert (digest(one) == digest(two)) == (strict(one) == strict(two))
    assert digest(copy.deepcopy(one)) == digest(one)
