"""Units of code: what counts as a change, what travels and what does not, and when a unit is forgotten."""

from __future__ import annotations

import gc
import socket
import sys
import types

import pytest
from roundtrip import Notebook, nb, worker

from nbparallel.serialize import dumps_data, is_alive, unit_of

__all__ = ["nb", "worker"]


def number(nb: Notebook, expression: str) -> int:
    return unit_of(nb[expression]).number


class TestRedefinition:
    def test_function_helper_class_global_and_method(self, nb: Notebook) -> None:
        nb.cell("""
            rate = 2
            def helper(x): return x * rate
            class Scale:
                k = 1
                def up(self, x): return helper(x) + self.k
            def f(x): return Scale().up(x)
        """)
        assert nb.both("f", 3) == 7
        nb.cell("rate = 3")
        assert nb.both("f", 3) == 10
        nb.cell("def helper(x): return -x")
        assert nb.both("f", 3) == -2
        nb.cell("Scale.up = lambda self, x: 'new method'")
        assert nb.both("f", 3) == "new method"
        nb.cell("class Scale:\n    def up(self, x): return 'new class'")
        assert nb.both("f", 3) == "new class"
        nb.cell("def f(x): return 'new function'")
        assert nb.both("f", 3) == "new function"

    @pytest.mark.parametrize(
        ("start", "change"),
        [
            ("data = [1, 2]", "data.append(3)"),
            ("data = {'a': 1}", "data['a'] = 2"),
            ("data = ([1],)", "data[0].append(2)"),
            ("import numpy as np; data = np.zeros(50_000)", "data[7] = 1"),
            ("import numpy as np; data = np.zeros(5)", "data[3] = 1"),
            ("import types; data = types.SimpleNamespace(x=1)", "data.x = 2"),
            ("import collections; data = collections.Counter()", "data['k'] += 1"),
            ("class data: x = 1", "data.x = 2"),
            ("data = lambda: data.x\ndata.x = 1", "data.x = 2"),
            ("rows = [1]; data = rows.append", "rows.append(2)"),
            ("import functools; rows = [1]; data = functools.partial(len, rows)", "rows.append(2)"),
            ("def data(x=[1]): return x", "data.__defaults__[0].append(2)"),
            ("def data(*, x=1): return x", "data.__kwdefaults__['x'] = 2"),
            ("def data(): return 1", "data.__code__ = (lambda: 2).__code__"),
        ],
    )
    def test_change_in_place(self, nb: Notebook, start: str, change: str) -> None:
        pytest.importorskip("numpy")
        nb.cell(start)
        nb.cell("def f(): return data")
        before = number(nb, "f")
        assert number(nb, "f") == before
        nb.cell(change)
        assert number(nb, "f") > before
        assert number(nb, "f") == number(nb, "f")

    def test_change_of_the_callable_itself(self, nb: Notebook) -> None:
        nb.cell("""
            import functools, operator, fractions
            class Model:
                k = 1
                def predict(self, x): return self.k * x
            model = Model()
            rows = [1]
            part = functools.partial(operator.concat, rows)
            def make():
                total = [0]
                def f(): return total[0]
                def add():
                    total[0] += 1
                return f, add
            f, add = make()
            def plain():
                n = 0
                def read(): return n
                def more():
                    nonlocal n
                    n += 1
                return read, more
            read, more = plain()
            bound = rows.count
        """)
        for expression, change in (
            ("model.predict", "model.k = 5"),
            ("model.predict", "Model.predict = lambda self, x: 9"),
            ("part", "rows.append(2)"),
            ("bound", "rows.append(2)"),
            ("f", "add()"),
            ("read", "more()"),
            ("Model", "Model.more = 1"),
        ):
            unit = unit_of(nb[expression])
            assert number(nb, expression) == unit.number, expression
            nb.cell(change)
            assert number(nb, expression) > unit.number, expression

    def test_nothing_changed(self, nb: Notebook) -> None:
        nb.cell("""
            import math, collections.abc
            table = {"a": [1, 2]}
            names = {"x", "y", "z"}
            scale = 3
            class Point:
                registry = []
                def __init__(self, x): self.x = x
                def up(self): return math.sqrt(self.x) * scale
            class Named(Point, collections.abc.Hashable):
                def __hash__(self): return 1
            def helper(x): return x + scale
            def plain(x): return helper(x) + math.pi
            def volatile(x): return table, Point(x), names, Named
            point = Point(4)
        """)
        for expression in ("plain", "volatile", "Point", "Named", "point.up", "helper"):
            unit = unit_of(nb[expression])
            for _ in range(3):
                assert unit_of(nb[expression]).number == unit.number, expression
            assert unit_of(nb[expression]) is unit, expression
        _, units, _ = dumps_data([nb["point"], nb["helper"]])
        assert set(units) == {number(nb, "Point"), number(nb, "helper")}

    def test_name_that_is_defined_later(self, nb: Notebook) -> None:
        nb.cell("def f(): return later()")
        before = number(nb, "f")
        with pytest.raises(NameError, match="later"):
            nb.remote("f")
        nb.cell("def later(): return 5")
        assert number(nb, "f") > before
        assert nb.both("f") == 5

    def test_name_that_is_deleted(self, nb: Notebook) -> None:
        nb.cell("k = 1\ndef f(): return k")
        assert nb.both("f") == 1
        nb.cell("del k")
        with pytest.raises(NameError, match="k"):
            nb.remote("f")

    def test_closure_variable_that_is_assigned_later(self, nb: Notebook) -> None:
        nb.cell("""
            def make():
                def f(): return value
                yield f
                value = 3
                yield f
            steps = make()
            f = next(steps)
        """)
        before = number(nb, "f")
        nb.cell("next(steps)")
        assert number(nb, "f") > before
        assert nb.both("f") == 3

    def test_reducer_that_is_registered_later(self, nb: Notebook) -> None:
        nb.cell("""
            import copyreg, threading
            class Guarded:
                def __init__(self, x): self.x, self.lock = x, threading.Lock()
            def rebuild(x): return Guarded(x)
            def f(x): return Guarded(x)
            def plain(x): return x
        """)
        before = number(nb, "plain")
        with pytest.raises(RuntimeError, match="lock"):
            nb.remote("f", 1)
        try:
            nb.cell("copyreg.pickle(Guarded, lambda obj: (rebuild, (obj.x,)))")
            assert nb.remote("f", 4).x == 4
            assert number(nb, "plain") > before
        finally:
            nb.cell("del copyreg.dispatch_table[Guarded]")

    def test_module_without_a_file(self, nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.ModuleType("changing")
        exec("k = 1\ndef read(): return k", vars(module))
        monkeypatch.setitem(sys.modules, "changing", module)
        nb.cell("import changing\ndef f(): return changing.k, changing.read()")
        assert nb.both("f") == (1, 1)
        module.k = 2  # type: ignore[attr-defined]
        assert nb.both("f") == (2, 2)


class TestWhatTravels:
    def test_unreferenced_globals_do_not(self, nb: Notebook) -> None:
        with socket.socket() as open_socket:
            nb.names["huge"] = bytes(50_000_000)
            nb.names["open_socket"] = open_socket
            nb.cell("""
                small = 3
                def helper(x): return x + small
                class Point:
                    def up(self): return helper(1)
                def f(x): return helper(x), Point().up()
                def local(huge): return huge, [open_socket for open_socket in range(3)]
                def attribute(x): return x.huge
            """)
            assert unit_of(nb["f"]).nbytes < 10_000
            assert unit_of(nb["local"]).nbytes < 2_000
            assert unit_of(nb["attribute"]).nbytes < 2_000
            assert nb.both("f", 1) == (4, 4)

    def test_large_capture_is_in_the_unit_and_not_in_the_data(self, nb: Notebook) -> None:
        pytest.importorskip("numpy")
        nb.cell("""
            import numpy as np
            table = np.arange(200_000)
            def f(i): return int(table[i])
            def g(fn, i): return fn(i)
        """)
        unit = unit_of(nb["f"])
        assert unit.nbytes > 1_000_000
        assert len(unit.segments) == 2
        segments, units, _ = dumps_data((nb["f"], 5))
        assert sum(len(segment) for segment in segments) < 500
        assert units == {unit.number: unit}
        assert nb.both("g", nb["f"], 5) == 5

    def test_data_shares_memory_until_it_is_sent(self, nb: Notebook) -> None:
        numpy = pytest.importorskip("numpy")
        array = numpy.zeros(100_000)
        segments, _, _ = dumps_data(array)
        array[3] = 7
        assert numpy.frombuffer(segments[1])[3] == 7
        nb.names["array"] = array
        nb.cell("def f(): return array[3]")
        unit = unit_of(nb["f"])
        array[3] = 8
        assert numpy.frombuffer(unit.segments[1])[3] == 7


class TestLife:
    def test_unit_ends_with_its_function(self, nb: Notebook) -> None:
        nb.cell("""
            def f(n): return 0 if n == 0 else f(n - 1)
            class Node:
                def up(self): return Node
            def closure():
                def inner(n): return inner
                return inner
            inner = closure()
            import functools
            @functools.lru_cache
            def cached(n): return cached(n - 1) if n else 0
            part = functools.partial(f, 1)
        """)
        for name in ("inner", "part", "cached", "f", "Node"):
            last = number(nb, name)
            assert is_alive(last), name
            del nb.names[name]
            gc.collect()
            assert not is_alive(last), name

    def test_worker_keeps_nothing_of_a_unit_that_ended(self, nb: Notebook) -> None:
        nb.cell("""
            import gc, sys
            class Large: pass
            large = Large()
            def helper(): return large
            def user(): return helper()
            def left():
                main = sys.modules["__main__"]
                gc.collect()
                there = sum(type(known).__name__ == "Large" for known in gc.get_objects())
                return [name for name in ("Large", "helper", "user", "left") if hasattr(main, name)], there
        """)
        nb.worker.call(nb["user"])
        assert nb.worker.call(nb["left"]) == (["Large", "helper", "user", "left"], 1)
        for name in ("user", "helper", "large", "Large"):
            del nb.names[name]
        gc.collect()
        assert nb.worker.call(nb["left"]) == (["left"], 0)

    def test_unit_ends_when_it_is_replaced(self, nb: Notebook) -> None:
        nb.cell("rows = [1]\ndef f(): return rows")
        first = number(nb, "f")
        nb.cell("rows.append(2)")
        second = number(nb, "f")
        assert (is_alive(first), is_alive(second)) == (False, True)
        nb.cell("def f(): return rows")
        gc.collect()
        assert not is_alive(second)

    def test_unit_in_use_keeps_what_a_result_may_name(self, nb: Notebook) -> None:
        nb.cell("""
            class Point: pass
            def helper(): return Point()
            def f(): return helper(), helper
        """)
        unit = unit_of(nb["f"])
        old = nb["Point"], nb["helper"]
        nb.worker.call(nb["f"])
        nb.cell("""
            class Point: pass
            def helper(): return Point()
        """)
        gc.collect()
        kept = [held for held in unit._keep if held is old[0] or held is old[1]]
        assert len(kept) == 2

    def test_bound_method_keeps_its_unit(self, nb: Notebook) -> None:
        nb.cell("""
            class Model:
                def __init__(self): self.table = [0] * 1000
                def predict(self, x): return x
            model = Model()
        """)
        first = number(nb, "model.predict")
        gc.collect()
        assert is_alive(first)
        assert number(nb, "model.predict") == first
        nb.cell("del model")
        gc.collect()
        assert not is_alive(first)

    def test_callable_without_weak_references(self, nb: Notebook) -> None:
        nb.cell("rows = [3, 3]")
        assert nb.both("rows.count", 3) == 2
        assert nb.both("'-'.join", ["a", "b"]) == "a-b"
