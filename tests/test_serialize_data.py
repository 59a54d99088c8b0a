"""Data on its way to another process and back: the standard library's types, NumPy, pandas, anything nested."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roundtrip import Notebook, Worker, nb, worker

__all__ = ["nb", "worker"]


class TestStandardLibrary:
    def test_as_globals_arguments_and_results(self, nb: Notebook) -> None:
        nb.cell("""
            import collections, datetime, decimal, fractions, ipaddress, logging, pathlib, random, re, types, uuid
            import array, io, itertools, operator, queue, string, zoneinfo
            table = [
                re.compile("a(b)", re.I), decimal.Decimal("1.5"), fractions.Fraction(1, 3),
                datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "X")),
                pathlib.PurePosixPath("/a/b"), ipaddress.ip_network("10.0.0.0/8"), uuid.UUID(int=5),
                collections.OrderedDict(b=1, a=2), collections.Counter("aab"), collections.deque([1, 2], 5),
                collections.ChainMap({"a": 1}, {"b": 2}), types.SimpleNamespace(x=1), slice(1, 2, 3), range(5),
                types.MappingProxyType({"a": 1}), frozenset([1]), {1, 2}, bytearray(b"abc"), 1j, ..., NotImplemented,
                array.array("d", [1.5]), int, type(None), type(...), types.FunctionType, types.GeneratorType,
                list[int], int | None, operator.attrgetter("a.b"), logging.getLogger("a.b"), logging.getLogger(),
                {"a": 1}.keys() | set(), string.Template("$a").template, zoneinfo.ZoneInfo("UTC"), print, len,
                types.SimpleNamespace, collections.abc.Mapping, dict.fromkeys, str.upper,
            ]
            def f(given): return table, given, given == table
        """)
        there, given_back, equal = nb.remote("f", nb["table"])
        skip = nb["operator.attrgetter"]  # it has no equality
        for name, copy in (("global", there), ("argument", given_back)):
            for here, item in zip(nb["table"], copy, strict=True):
                assert type(item) is type(here), name
                assert item == here or isinstance(here, skip), name
        assert equal is False or equal is True

    def test_containers_that_hold_code(self, nb: Notebook) -> None:
        nb.cell("""
            import collections, random, types
            class Key:
                def __init__(self, k): self.k = k
                def __hash__(self): return hash(self.k)
                def __eq__(self, other): return isinstance(other, Key) and self.k == other.k
            counts = collections.defaultdict(lambda: base)
            base = 10
            actions = {"up": lambda x: x + base, "down": (lambda x: x - base,)}
            keyed = {Key(1): "one", Key(2): [Key(1)]}
            space = types.SimpleNamespace(run=lambda x: keyed[Key(x)])
            proxy = types.MappingProxyType({"key": Key(3)})
            dice = random.Random(5)
            views = {"a": Key(1)}.keys(), {"a": Key(1)}.values(), {"a": 1}.items()
            def f(x):
                state = dice.getstate()
                rolled = dice.random()
                dice.setstate(state)
                counts.pop("missing", None)
                return (counts["missing"], actions["up"](x), actions["down"][0](x), space.run(1), keyed[Key(2)],
                        proxy["key"], rolled, list(views[0]), list(views[1]), list(views[2]))
            def g(keyed, counts): return keyed[Key(2)], counts["x"], {Key(5)}
        """)
        nb.both("f", 1)
        nb.both("g", nb["keyed"], nb["counts"])
        assert nb.remote("lambda: actions['up']") is nb["actions['up']"]

    def test_weak_containers(self, nb: Notebook) -> None:
        nb.cell("""
            import weakref
            class Node: pass
            node = Node()
            extra = weakref.WeakKeyDictionary({node: "extra"})
            named = weakref.WeakValueDictionary(first=node)
            alive = weakref.WeakSet([node])
            ref = weakref.ref(node)
            def f(): return extra[node], named["first"] is node, node in alive, ref() is node
        """)
        assert nb.both("f") == ("extra", True, True, True)

    def test_streams_environment_and_shared_singletons(self, nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
        nb.cell("""
            import sys, os
            from os import environ
            def f(file=sys.stderr): return file is sys.stderr
            out = sys.stdout
            def g(): return out is sys.stdout, environ is os.environ
        """)
        assert nb.remote("f") is True
        assert nb.remote("g") == (True, True)

    def test_identity_of_arguments(self, nb: Notebook) -> None:
        nb.cell("""
            def f(a, b, rows): return a is b, rows[0] is a, rows
        """)
        row = [1]
        assert nb.both("f", row, row, [row, row])[:2] == (True, True)
        result = nb.remote("lambda x: [x, x]", [1])
        assert result[0] is result[1]

    def test_recursive_data(self, nb: Notebook) -> None:
        nb.cell("""
            loop = [1]
            loop.append(loop)
            table = {"rows": loop}
            table["self"] = table
            def f(x): return loop[1] is loop, table["self"] is table, x[1] is x
        """)
        assert nb.both("f", nb["loop"]) == (True, True, True)


class TestNumPy:
    @pytest.fixture(autouse=True)
    def _numpy(self) -> None:
        pytest.importorskip("numpy")

    @pytest.mark.parametrize("size", [3, 100_000])
    def test_layouts(self, nb: Notebook, size: int) -> None:
        nb.cell("""
            import numpy as np
            def describe(a):
                return a.tolist(), a.dtype, a.shape, a.flags.writeable, a.ndim > 1 and a.flags.f_contiguous
            def f(items): return [describe(item) for item in items]
            def g(items):
                for item in items:
                    if item.size: item.flat[0] = 9
                return items
        """)
        nb.names["n"] = size
        arrays = nb[
            "[np.arange(n), np.arange(2 * n)[::2], np.asfortranarray(np.ones((n, 2))), np.ones((0, 3)),"
            " np.arange(n).astype('>i4'), np.zeros(n, dtype=[('a', 'i4'), ('b', 'S3')]), np.array(5.0),"
            " np.arange(n).astype('M8[D]'), np.arange(n)[::-1], np.array(['a', 'bc'] * n)]"
        ]
        for here, there in zip(nb["f"](arrays), nb.remote("f", arrays), strict=True):
            assert there == here
        back = nb.remote("g", [array for array in arrays if array.dtype.kind in "if"])
        assert all(array.flags.writeable for array in back)

    def test_read_only_stays_read_only(self, nb: Notebook) -> None:
        nb.cell("""
            import numpy as np
            small, large = np.arange(4), np.arange(100_000)
            fixed = np.arange(100_000)
            fixed.flags.writeable = False
            def f(a): return small.flags.writeable, large.flags.writeable, a.flags.writeable
            def g():
                large[0] += 1
                return int(large[0])
        """)
        assert nb.remote("f", nb["fixed"]) == (True, True, False)
        assert nb.remote("g") == 1

    def test_objects_and_subclasses_of_the_notebook(self, nb: Notebook) -> None:
        nb.cell("""
            import numpy as np
            class Point:
                def __init__(self, x): self.x = x
                def __add__(self, other): return Point(self.x + other.x)
                def __eq__(self, other): return self.x == other.x
            class Marked(np.ndarray):
                def __new__(cls, values, label):
                    obj = np.asarray(values).view(cls)
                    obj.label = label
                    return obj
                def __array_finalize__(self, obj): self.label = getattr(obj, "label", None)
                def __reduce__(self):
                    build, args, state = super().__reduce__()
                    return build, args, (*state, self.label)
                def __setstate__(self, state):
                    super().__setstate__(state[:-1])
                    self.label = state[-1]
            points = np.array([Point(1), Point(2)], dtype=object)
            marked = Marked(np.arange(3.0), "m")
            structured = np.array([(1, Point(3))], dtype=[("n", int), ("p", object)])
            upper = np.vectorize(lambda x: x + base)
            base = 3
            def f(points, marked):
                return (points.sum(), type(points[0]) is Point, type(marked) is Marked, marked.label,
                        marked.tolist(), structured["p"][0].x, upper(np.arange(2)).tolist())
            def g(marked): return points, marked * 2
            generator = np.random.default_rng(5)
            def h(): return float(generator.random()), np.add, np.float32, np.dtype("f4")
        """)
        nb.both("f", nb["points"], nb["marked"])
        points, marked = nb.remote("g", nb["marked"])
        assert type(points[0]) is nb["Point"]
        assert (type(marked), marked.label, marked.tolist()) == (nb["Marked"], "m", [0.0, 2.0, 4.0])
        assert nb.both("h")[1] is nb["np.add"]


class TestPandas:
    def test_frames_of_the_notebook(self, nb: Notebook) -> None:
        pytest.importorskip("pandas")
        nb.cell("""
            import pandas as pd
            class Point:
                def __init__(self, x): self.x = x
                def __eq__(self, other): return self.x == other.x
            class Series(pd.Series):
                @property
                def _constructor(self): return Series
                @property
                def _constructor_expanddim(self): return Frame
                def double(self): return self * 2
            class Frame(pd.DataFrame):
                _metadata = ["owner"]
                @property
                def _constructor(self): return Frame
                @property
                def _constructor_sliced(self): return Series
                def total(self): return int(self["a"].sum())
            frame = Frame({"a": [1, 2], "b": ["x", "y"], "p": [Point(1), Point(2)]})
            frame.owner = "me"
            def f(frame):
                picked = frame[frame.a > 1]
                return (type(frame) is Frame, frame.owner, type(picked) is Frame, frame.total(),
                        type(frame.a) is Series, frame.a.double().tolist(), frame.p[0].x, type(frame.p[1]) is Point)
            def g(frame): return frame.assign(c=1), frame.groupby("b").a.sum()
            plain = pd.DataFrame({"t": pd.date_range("2024", periods=3, tz="UTC"), "c": pd.Categorical(list("aba"))})
            def h(): return plain.set_index("t"), pd.NA, pd.NaT
        """)
        nb.both("f", nb["frame"])
        result, grouped = nb.remote("g", nb["frame"])
        assert type(result) is nb["Frame"]
        assert result.owner == "me"
        assert grouped.tolist() == [1, 2]
        plain, missing, _ = nb.remote("h")
        assert plain.equals(nb["plain.set_index('t')"])
        assert missing is nb["pd.NA"]


_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)


def _nested(point: type[Any], color: type[Any]) -> st.SearchStrategy[Any]:
    leaves = _leaves | st.builds(point, st.integers()) | st.sampled_from(list(color)) | st.just(point)
    keys = st.text(max_size=5) | st.integers() | st.builds(point, st.integers())
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner, inner)
            | st.dictionaries(keys, inner, max_size=4)
            | st.builds(point, inner)
            | st.sets(keys, max_size=3)
        ),
        max_leaves=20,
    )


def test_anything_nested_comes_back_equal(worker: Worker) -> None:
    notebook = Notebook(worker)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = notebook.module
    try:
        notebook.cell("""
            import dataclasses, enum
            @dataclasses.dataclass(unsafe_hash=True)
            class Point:
                x: object
            class Color(enum.Enum):
                RED = 1
                BLUE = 2
            def f(x): return x, [x, x]
        """)

        @settings(max_examples=60, deadline=None, database=None)
        @given(_nested(notebook["Point"], notebook["Color"]))
        def comes_back(value: Any) -> None:
            there, (first, second) = notebook.remote("f", value)
            assert there == value
            assert first is second or not isinstance(value, (list, dict, set))

        comes_back()
    finally:
        sys.modules["__main__"] = main
        notebook.close()
