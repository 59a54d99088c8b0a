"""Decorated functions of a notebook's cells: what wraps them, and recursion through it."""

from __future__ import annotations

import sys

import pytest
from roundtrip import Notebook, nb, worker

__all__ = ["nb", "worker"]


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
