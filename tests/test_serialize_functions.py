"""Functions of a notebook's cells, called in another process: what they refer to, wrap and close over."""

from __future__ import annotations

import importlib.util
import sys
import types

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


class TestWrappers:
    def test_functools_wraps(self, nb: Notebook) -> None:
        nb.cell("""
            import functools
            def twice(fn):
                @functools.wraps(fn)
                def wrapper(*args, **kwargs): return fn(*args, **kwargs) * 2
                return wrapper
            @twice
            @twice
            def f(x):
                "Doubles, twice."
                return x
            def names(x): return f(x), f.__name__, f.__doc__, f.__wrapped__.__wrapped__(x)
        """)
        assert nb.both("f", 3) == 12
        assert nb.both("names", 3) == (12, "f", "Doubles, twice.", 3)
        assert nb.remote("lambda: f") is nb["f"]

    def test_decorator_that_counts_on_the_function(self, nb: Notebook) -> None:
        nb.cell("""
            def counted(fn):
                def wrapper(x):
                    wrapper.calls += 1
                    return fn(x), wrapper.calls
                wrapper.calls = 10
                return wrapper
            @counted
            def f(x): return x
        """)
        assert nb.both("f", 1) == (1, 11)

    def test_decorator_class(self, nb: Notebook) -> None:
        nb.cell("""
            class Logged:
                def __init__(self, fn): self.fn, self.seen = fn, []
                def __call__(self, x):
                    self.seen.append(x)
                    return self.fn(x), self.seen
            @Logged
            def f(x): return 0 if x == 0 else f(x - 1)[0] + 1
        """)
        assert nb.both("f", 3) == (3, [3, 2, 1, 0])

    def test_recursive_lru_cache(self, nb: Notebook) -> None:
        nb.cell("""
            from functools import lru_cache
            @lru_cache(maxsize=50)
            def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
            def info(n):
                fib.cache_clear()
                return fib(n), fib.cache_info().misses, fib.cache_parameters()
        """)
        assert nb.both("fib", 40) == 102334155
        assert nb.both("info", 30)[2] == {"maxsize": 50, "typed": False}
        assert nb.remote("lambda: fib") is nb["fib"]

    def test_lru_cache_that_is_reached_through_a_container_too(self, nb: Notebook) -> None:
        nb.cell("""
            from functools import cache
            registry = {}
            @cache
            def f(n): return 1 if n == 0 else registry["f"](n - 1) + 1
            registry["f"] = f
            def same(n): return registry["f"] is f, f(n)
        """)
        assert nb.both("same", 5) == (True, 6)
        assert nb.remote("lambda: [f, registry['f']]") == [nb["f"], nb["f"]]

    def test_lru_cache_over_a_wrapped_partial(self, nb: Notebook) -> None:
        nb.cell("""
            from functools import lru_cache, partial, wraps
            def plain(a, b): return 0 if b == 0 else a + cached(b - 1)
            cached = lru_cache(None)(partial(plain, 2))
        """)
        assert nb.both("lambda n: cached(n)", 6) == 12
        assert nb.both("cached", 6) == 12

    def test_partial(self, nb: Notebook) -> None:
        nb.cell("""
            from functools import partial
            def power(base, exponent, *, offset=0): return base ** exponent + offset
            square = partial(power, exponent=2, offset=1)
        """)
        assert nb.both("square", 5) == 26
        assert nb.both("partial(square, offset=2)", 5) == 27

    def test_recursion_through_a_partial(self, nb: Notebook) -> None:
        nb.cell("""
            from functools import partial
            def step(size, n): return 0 if n <= 0 else size + down(n - size)
            down = partial(step, 3)
            table = [down]
            def through_table(n): return table[0] is down and down(n)
            class Traced(partial): pass
            traced = Traced(step, 2)
            traced.note = through_table
        """)
        assert nb.both("down", 10) == 12
        assert nb.both("through_table", 10) == 12
        assert nb.both("traced", 10) == 11
        assert nb.both("lambda: (type(traced).__name__, traced.note(3))") == ("Traced", 3)

    def test_partialmethod_and_singledispatchmethod(self, nb: Notebook) -> None:
        nb.cell("""
            from functools import partialmethod, singledispatchmethod
            class Box:
                def add(self, a, b): return a + b
                add_one = partialmethod(add, 1)
                @singledispatchmethod
                def show(self, x): return "any"
                @show.register
                def _(self, x: int): return f"int {self.add_one(x)}"
                @show.register(str)
                def _(self, x): return "str"
            def f(x): return Box().show(x)
        """)
        assert [nb.both("f", x) for x in (1, "a", 1.5)] == ["int 2", "str", "any"]

    def test_singledispatch(self, nb: Notebook) -> None:
        nb.cell("""
            from functools import singledispatch
            class Point: pass
            @singledispatch
            def show(x): return "any"
            @show.register
            def _(x: int): return "int"
            @show.register(Point)
            def show_point(x): return "point"
            @show.register(list)
            def _(x): return [show(item) for item in x]
        """)
        assert nb.both("show", [1, "a", nb["Point()"]]) == ["int", "any", "point"]

    def test_contextmanager(self, nb: Notebook) -> None:
        nb.cell("""
            from contextlib import contextmanager, ExitStack
            log = []
            @contextmanager
            def logged(name):
                log.append(f"in {name}")
                try:
                    yield name
                finally:
                    log.append(f"out {name}")
            def f():
                log.clear()
                with logged("a"), ExitStack() as stack:
                    stack.enter_context(logged("b"))
                return log
        """)
        assert nb.both("f") == ["in a", "in b", "out b", "out a"]

    def test_decorator_of_an_importable_module_keeps_that_modules_globals(
        self, nb: Notebook, tmp_path: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nb.cell("import threading")
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "guards.py").write_text(  # type: ignore[operator]
            "import functools, threading\n"
            "_lock = threading.Lock()\n"
            "def guarded(fn):\n"
            "    @functools.wraps(fn)\n"
            "    def wrapper(*args):\n"
            "        with _lock:\n"
            "            return fn(*args)\n"
            "    return wrapper\n"
        )
        try:
            nb.cell("""
                import guards
                @guards.guarded
                def f(x): return x + 1
            """)
            assert nb.both("f", 1) == 2
            assert nb.remote("lambda: f.__globals__ is vars(guards)") is True
        finally:
            sys.modules.pop("guards", None)


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
    def test_globals_with_a_constant(self, nb: Notebook) -> None:
        nb.cell("""
            def helper(x): return x + 1
            def f(x): return globals()["helper"](x)
        """)
        assert nb.both("f", 1) == 2

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


class TestModules:
    def test_submodules_that_are_reached_by_attribute(self, nb: Notebook) -> None:
        nb.cell("""
            import os.path
            import xml.dom.minidom
            import concurrent.futures
            import collections.abc
            def f(x):
                text = xml.dom.minidom.parseString("<a><b/></a>").documentElement.tagName
                return text, os.path.join("a", "b"), isinstance(x, collections.abc.Sized)
            def g(): return concurrent.futures.thread.__name__
        """)
        assert nb.both("f", []) == ("a", nb["os.path.join"]("a", "b"), True)
        nb.cell("import concurrent.futures.thread")
        assert nb.both("g") == "concurrent.futures.thread"

    def test_module_of_the_user_goes_by_reference(
        self, nb: Notebook, tmp_path: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "nearby.py").write_text(  # type: ignore[operator]
            "rate = 2\nclass Thing:\n    pass\ndef scale(x): return x * rate\nhidden = lambda x: x + rate\n"
        )
        try:
            nb.cell("""
                import nearby
                from nearby import Thing, hidden, scale
                def f(x): return scale(x), hidden(x), nearby.scale is scale, isinstance(Thing(), nearby.Thing)
                def g(): return nearby, Thing, scale
            """)
            assert nb.both("f", 3) == (6, 5, True, True)
            assert nb.remote("g") == (nb["nearby"], nb["Thing"], nb["scale"])
            assert nb.both("scale", 4) == 8
        finally:
            sys.modules.pop("nearby", None)

    def test_module_without_a_file_goes_by_value(self, nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.ModuleType("made_here")
        exec(
            "count = 0\n"
            "class Thing:\n    def rate(self): return rate\n"
            "rate = 5\n"
            "def bump(x):\n    global count\n    count += x\n    return count\n"
            "def read(): return count\n",
            vars(module),
        )
        monkeypatch.setitem(sys.modules, "made_here", module)
        nb.cell("""
            import made_here
            from made_here import Thing, bump, read
            def f(x):
                made_here.count = 0
                bump(x)
                return made_here.count, read(), made_here.bump is bump, Thing().rate(), made_here.Thing is Thing
        """)
        assert nb.both("f", 3) == (3, 3, True, 5, True)
        assert isinstance(nb.remote("Thing"), module.Thing)
        module.rate = 6  # type: ignore[attr-defined]
        assert nb.both("f", 3) == (3, 3, True, 6, True)

    def test_module_from_a_path_that_is_not_on_sys_path(
        self, nb: Notebook, tmp_path: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "elsewhere.py"  # type: ignore[operator]
        file.write_text("base = 10\ndef shift(x): return x + base\nclass Odd(ValueError): pass\n")
        spec = importlib.util.spec_from_file_location("elsewhere", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "elsewhere", module)
        spec.loader.exec_module(module)
        nb.names["elsewhere"] = module
        nb.cell("""
            def f(x): return elsewhere.shift(x)
            def g(x): raise elsewhere.Odd(x)
        """)
        assert nb.both("f", 1) == 11
        assert nb.both("elsewhere.shift", 1) == 11
        with pytest.raises(module.Odd, match="7"):
            nb.remote("g", 7)

    def test_module_that_is_in_no_table(self, nb: Notebook) -> None:
        module = types.ModuleType("loose")
        exec("k = 3\ndef up(x): return x + k", vars(module))
        nb.names["loose"] = module
        nb.cell("def f(x):\n    loose.k = 4\n    return loose.up(x)")
        assert nb.both("f", 1) == 5

    def test_the_notebook_itself(self, nb: Notebook) -> None:
        nb.cell("""
            import __main__
            def helper(): return 4
            def f(): return helper() + __main__.helper()
        """)
        assert nb.both("f") == 8


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
