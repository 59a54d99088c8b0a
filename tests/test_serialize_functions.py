"""Functions of a notebook's cells, called in another process: what they refer to, wrap and close over."""

from __future__ import annotations

import sys

import pytest
from roundtrip import Notebook, nb, worker

__all__ = ["nb", "worker"]


def test_mutual_recursion(nb: Notebook) -> None:
    nb.cell("""
        def even(n): return True if n == 0 else odd(n - 1)
        def odd(n): return False if n == 0 else even(n - 1)
    """)
    assert nb.both("even", 10) is True
    assert nb.both("odd", 10) is False


def test_lambda_with_a_helper_with_a_helper(nb: Notebook) -> None:
    nb.cell("""
        offset = 7
        def inner(x): return x + offset
        def outer(x): return inner(x) * 2
    """)
    assert nb.both("lambda x: outer(x)", 1) == 16


def test_function_that_names_itself(nb: Notebook) -> None:
    nb.cell("""
        def f(n):
            return f if n == 0 else f.__name__
    """)
    assert nb.remote("f", 0) is nb["f"]
    assert nb.both("f", 1) == "f"


@pytest.mark.parametrize(
    "body",
    [
        "[factor * x for x in xs]",
        "[y for x in xs for y in (lambda z: [z * factor])(x)]",
        "sum(factor * x for x in xs)",
        "{x: [factor for _ in range(x)] for x in xs}",
        "list(map(lambda x: (lambda: x * factor)(), xs))",
    ],
)
def test_globals_in_nested_scopes(nb: Notebook, body: str) -> None:
    nb.cell(f"factor = 3\ndef f(xs): return {body}")
    nb.both("f", [1, 2, 3])


def test_global_used_by_a_class_in_a_function(nb: Notebook) -> None:
    nb.cell("""
        base = 5
        def f(x):
            class Local:
                start = base
                def total(self): return self.start + base + x
            return Local().total()
    """)
    assert nb.both("f", 1) == 11


class TestCallables:
    def test_bound_class_and_static_methods(self, nb: Notebook) -> None:
        nb.cell("""
            class Scale:
                unit = "m"
                def __init__(self, k): self.k = k
                def apply(self, x): return self.k * x
                @classmethod
                def named(cls, x): return f"{cls.__name__} {x} {cls.unit}"
                @staticmethod
                def double(x): return 2 * x
                def __call__(self, x): return self.apply(x) + 1
            class Sub(Scale):
                unit = "km"
            scale = Scale(3)
        """)
        assert nb.both("scale.apply", 2) == 6
        assert nb.both("Scale.named", 2) == "Scale 2 m"
        assert nb.both("Sub.named", 2) == "Sub 2 km"
        assert nb.both("scale.double", 2) == 4
        assert nb.both("scale", 2) == 7
        assert nb.both("Scale.apply", nb["scale"], 2) == 6

    def test_methods_that_their_name_does_not_find(self, nb: Notebook) -> None:
        nb.cell("""
            import types
            class Job:
                n = 4
                def __secret(self, x): return self.n + x
                def secret(self): return self.__secret
                short = lambda self, x: self.n * x
                alias = secret
                @property
                def broken(self): raise RuntimeError("not ready")
            job = Job()
            extra = types.MethodType(lambda self, x: (self.n, x), job)
            def broken(self): return "fine"
            lost = types.MethodType(broken, job)
        """)
        assert nb.both("job.secret()", 1) == 5
        assert nb.both("job.short", 2) == 8
        assert nb.both("extra", 3) == (4, 3)
        assert nb.both("lost") == "fine"

    def test_class_as_the_callable(self, nb: Notebook) -> None:
        nb.cell("""
            class Pair:
                def __init__(self, a, b=2): self.a, self.b = a, b
                def __eq__(self, other): return vars(self) == vars(other)
        """)
        assert isinstance(nb.both("Pair", 1), nb["Pair"])

    @pytest.mark.parametrize(
        ("function", "argument"),
        [
            ("len", [1, 2]),
            ("str.upper", "a"),
            ("'-'.join", ["a", "b"]),
            ("dict.fromkeys", [1]),
            ("operator.attrgetter('real')", 3),
            ("operator.itemgetter(1, 0)", [1, 2]),
            ("operator.methodcaller('split', ',')", "a,b"),
            ("int.__add__", None),
            ("(3).__add__", 4),
            ("math.sqrt", 4.0),
            ("table.get", 1),
            ("os.path.basename", "/a/b"),
        ],
    )
    def test_builtin(self, nb: Notebook, function: str, argument: object) -> None:
        nb.cell("import math, operator, os.path\ntable = {1: 'one'}")
        if argument is None:
            assert nb.both(function, 1, 2) == 3
        else:
            nb.both(function, argument)
            nb.cell(f"kept = {function}")
            nb.both("lambda x: kept(x)", argument)


class TestClosures:
    def test_loop_variables(self, nb: Notebook) -> None:
        nb.cell("""
            late = [lambda: i for i in range(3)]
            early = [lambda i=i: i for i in range(3)]
            def both(): return [f() for f in late], [f() for f in early]
        """)
        assert nb.both("both") == ([2, 2, 2], [0, 1, 2])

    def test_two_closures_share_a_variable(self, nb: Notebook) -> None:
        nb.cell("""
            def counter():
                n = 0
                def add():
                    nonlocal n
                    n += 1
                    return n
                def read(): return n
                return add, read
            add, read = counter()
            def f():
                before = read()
                return add() - before, add() - before, read() - before
        """)
        assert nb.both("f") == (1, 2, 2)

    def test_recursion_inside_a_closure(self, nb: Notebook) -> None:
        nb.cell("""
            def make():
                def up(n): return 0 if n == 0 else down(n - 1) + 1
                def down(n): return 0 if n == 0 else up(n - 1) + 1
                return up
            up = make()
        """)
        assert nb.both("up", 7) == 7

    def test_variable_that_is_not_assigned_yet(self, nb: Notebook) -> None:
        nb.cell("""
            def make():
                def f(x): return x if x < 5 else later(x)
                yield f
                later = lambda x: -x
                yield f
            steps = make()
            f = next(steps)
        """)
        assert nb.both("f", 1) == 1
        with pytest.raises(NameError, match="later"):
            nb.remote("f", 7)
        nb.cell("next(steps)")
        assert nb.both("f", 7) == -7

    def test_local_class_in_a_closure(self, nb: Notebook) -> None:
        nb.cell("""
            def make(k):
                class Local:
                    def __init__(self, x): self.x = x
                    def value(self): return self.x * k
                return lambda x: Local(x).value()
            f = make(3)
        """)
        assert nb.both("f", 2) == 6

    def test_cell_objects_and_globals_of_two_notebook_functions_are_one(self, nb: Notebook) -> None:
        nb.cell("""
            total = 0
            def add(x):
                global total
                total += x
            def f(x):
                global total
                total = 0
                add(x); add(x)
                return total
        """)
        assert nb.both("f", 4) == 8


class TestKindsOfFunctions:
    def test_generators(self, nb: Notebook) -> None:
        nb.cell("""
            def squares(n):
                for i in range(n):
                    yield i * i
            def deep(n):
                yield from squares(n)
                return "end"
            def f(n):
                results = list(deep(n))
                try:
                    next(deep(0))
                except StopIteration as stop:
                    results.append(stop.value)
                return results
        """)
        assert nb.both("f", 3) == [0, 1, 4, "end"]

    def test_coroutines_are_consumed_inside(self, nb: Notebook) -> None:
        nb.cell("""
            import asyncio
            async def double(x):
                await asyncio.sleep(0)
                return 2 * x
            async def numbers(n):
                for i in range(n):
                    yield await double(i)
            async def main(n):
                return [x async for x in numbers(n)], await asyncio.gather(double(1), double(2))
            def f(n): return asyncio.run(main(n))
        """)
        assert nb.both("f", 3) == ([0, 2, 4], [2, 4])

    def test_defaults(self, nb: Notebook) -> None:
        nb.cell("""
            def helper(x): return x + 1
            def f(x, rows=[], *, key=helper, table={"a": 1}, **more):
                rows.append(key(x))
                return rows, table, more
        """)
        # The list is the definition's own, here and there: one call each.
        assert nb.both("f", 1) == ([2], {"a": 1}, {})
        assert nb["f.__kwdefaults__"]["key"] is nb["helper"]

    def test_annotations(self, nb: Notebook) -> None:
        nb.cell("""
            import typing
            class Point: pass
            def by_object(p: Point, n: "int" = 1) -> list[Point]: return typing.get_type_hints(by_object)
            def by_name(p: "Point", q: "Point | None" = None) -> "typing.Sequence[Point]":
                return typing.get_type_hints(by_name)
            def plain(p: Point) -> None: return plain.__annotations__
        """)
        nb.both("by_object", None)
        nb.both("by_name", None)
        nb.both("plain", None)

    def test_annotations_from_the_future(self, nb: Notebook) -> None:
        nb.cell("""
            from __future__ import annotations
            import dataclasses, typing
            class Other: pass
            @dataclasses.dataclass
            class Point:
                x: int
                other: Other | None = None
                next: typing.Optional[Point] = None
                many: typing.ClassVar[list[int]] = []
            def f(p: Point, q: Missing = None) -> Other: return typing.get_type_hints(Point)
            def g(p: Point) -> Other: return typing.get_type_hints(g), dataclasses.replace(p, x=9)
        """)
        point = nb["Point(1)"]
        nb.both("f", point)
        nb.both("g", point)

    def test_source_and_traceback(self, nb: Notebook) -> None:
        nb.cell("""
            import inspect, traceback
            def f(x):
                try:
                    return 1 / x  # the line
                except ZeroDivisionError:
                    return inspect.getsource(f), traceback.format_exc()
        """)
        source, trace = nb.remote("f", 0)
        assert "# the line" in source
        assert "# the line" in trace

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695 came with 3.12")
    def test_type_parameters(self, nb: Notebook) -> None:
        nb.cell("""
            def first[T](xs: list[T]) -> T: return xs[0]
            type Pair[T] = tuple[T, T]
            type Number = int | float
            type Tree = list[Tree] | int
            class Stack[T: Number]:
                def __init__(self): self.items: list[T] = []
                def push(self, x: T) -> None: self.items.append(x)
            class Node[T: "Node"]:
                def children(self) -> list[T]: return []
            def f(xs):
                stack = Stack[int]()
                stack.push(first(xs))
                same = first.__type_params__[0] is first.__annotations__["return"]
                inside = Stack.push.__annotations__["x"] is Stack.__type_params__[0]
                return (stack.items, same, inside, Number.__value__, Tree.__value__.__args__[0].__args__[0] is Tree,
                        Pair[int].__args__, Node.__name__, repr(Stack.__type_params__))
            def alias(): return Number, Tree, Pair
        """)
        nb.both("f", [3])
        assert nb.remote("alias") == (nb["Number"], nb["Tree"], nb["Pair"])


class TestNamesFoundAtRunTime:
    def test_code_that_exec_made_where_there_is_no_name(self, nb: Notebook) -> None:
        nb.cell("""
            space = {}
            exec("class C:\\n    def up(self): return 1\\ndef g(): return C().up()", space)
            g, C = space["g"], space["C"]
            def f(c): return c.up(), g(), type(c) is C, type({}.keys()), {"a": 1}.keys()
        """)
        assert nb.both("f", nb["C()"])[:3] == (1, 1, True)
        assert nb.both("g") == 1

    def test_long_chain_of_functions(self, nb: Notebook) -> None:
        nb.cell("def f0(): return 0\n" + "\n".join(f"def f{i}(): return f{i - 1}() + 1" for i in range(1, 120)))
        assert nb.both("f119") == 119

    def test_globals_with_a_constant(self, nb: Notebook) -> None:
        nb.cell("""
            def helper(x): return x + 1
            def f(x): return globals()["helper"](x)
        """)
        assert nb.both("f", 1) == 2

    def test_constant_that_is_only_a_word(self, nb: Notebook) -> None:
        nb.cell("""
            import threading
            lock = threading.Lock()
            def f(): return "lock" in globals()
        """)
        assert nb.remote("f") is False

    def test_builtins_and_dunder_name(self, nb: Notebook) -> None:
        nb.cell("""
            def f(): return __name__, len([1]), __builtins__ is not None
        """)
        assert nb.both("f") == ("__main__", 1, True)

    def test_a_builtin_that_the_notebook_redefines(self, nb: Notebook) -> None:
        nb.cell("""
            def len(x): return "mine"
            def f(): return len([1])
        """)
        assert nb.both("f") == "mine"

    def test_results_do_not_overwrite_the_notebook(self, nb: Notebook) -> None:
        nb.cell("""
            import collections
            Row = "a variable of the notebook"
            def f():
                Row = collections.namedtuple("Row", "a b")
                return Row(1, 2)
            def make():
                return type("Row", (), {"x": 1}), (lambda: 1)
        """)
        assert tuple(nb.remote("f")) == (1, 2)
        assert nb.remote("make")[0].x == 1
        assert nb["Row"] == "a variable of the notebook"


def test_numba(nb: Notebook) -> None:
    pytest.importorskip("numba")
    nb.cell("""
        import numba, numpy as np
        k = 3
        @numba.njit
        def helper(x): return x * k
        @numba.njit
        def total(n):
            s = 0
            for i in range(n):
                s += helper(i)
            return s
        @numba.vectorize(["float64(float64)"])
        def up(x): return x + 1.0
        def f(n): return int(total(n)), up(np.arange(3.0)).tolist()
    """)
    assert nb.both("f", 10) == (135, [1.0, 2.0, 3.0])
    assert nb.both("total", 10) == 135
