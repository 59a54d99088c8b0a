"""Classes of a notebook's cells, and their instances, in another process and back: one class per definition."""

from __future__ import annotations

from typing import Any

from roundtrip import Notebook, nb, worker

__all__ = ["nb", "worker"]


def test_one_class_on_both_sides(nb: Notebook) -> None:
    nb.cell("""
        class Point:
            def __init__(self, x): self.x = x
        def f(p, cls):
            assert isinstance(p, Point) and cls is Point
            return Point(p.x + 1), Point, [Point]
    """)
    point, cls, inside = nb.remote("f", nb["Point(1)"], nb["Point"])
    assert type(point) is nb["Point"]
    assert point.x == 2
    assert cls is nb["Point"]
    assert inside == [nb["Point"]]


def test_methods_of_every_kind(nb: Notebook) -> None:
    nb.cell("""
        import functools
        class Base:
            def __init__(self, x): self.x = x
            def name(self): return "base"
            @property
            def size(self):
                "How large."
                return self.x
            @size.setter
            def size(self, value): self.x = value
            @size.deleter
            def size(self): del self.x
        class Sub(Base):
            def __init__(self, x):
                super().__init__(x)
                self.calls = 0
            def name(self): return "sub of " + super().name()
            def old(self): return "old " + super(Sub, self).name()
            @classmethod
            def make(cls, x): return cls(x)
            @staticmethod
            def kind(): return Sub
            @functools.cached_property
            def expensive(self):
                self.calls += 1
                return self.x * 2
            @functools.lru_cache
            def cached(self, y): return y + 1
        def f(x):
            s = Sub.make(x)
            s.size = s.size + 1
            found = [s.name(), s.old(), s.kind() is Sub, s.expensive, s.expensive, s.calls, s.cached(4),
                     Sub.size.__doc__, Sub.expensive.attrname, [c.__name__ for c in Sub.__mro__]]
            del s.size
            return found, hasattr(s, "x")
    """)
    nb.both("f", 3)
    assert nb.remote("lambda: (Sub.kind, Sub.make(1).expensive)")[1] == 2


def test_property_classes_of_the_notebook(nb: Notebook) -> None:
    nb.cell("""
        import functools
        class twice(property):
            def __get__(self, obj, cls=None): return self if obj is None else 2 * super().__get__(obj, cls)
        class named(functools.cached_property):
            def __set_name__(self, owner, name):
                super().__set_name__(owner, name)
                self.label = f"{owner.__name__}.{name}"
        class classproperty:
            def __init__(self, fget): self.fget = fget
            def __get__(self, obj, cls): return self.fget(cls)
        class C:
            @twice
            def a(self): return 4
            @named
            def b(self): return 5
            @classproperty
            def c(cls): return cls.__name__
        def f(): return C().a, C().b, C.b.label, C.c
    """)
    assert nb.both("f") == (8, 5, "C.b", "C")


def test_cooperative_super_in_a_diamond(nb: Notebook) -> None:
    nb.cell("""
        class A:
            def go(self): return ["A"]
        class B(A):
            def go(self): return ["B", *super().go()]
        class C(A):
            def go(self): return ["C", *super().go()]
        class D(B, C):
            def go(self): return ["D", *super().go(), __class__.__name__]
        def f(d): return d.go(), D.mro() == [D, B, C, A, object]
    """)
    assert nb.both("f", nb["D()"]) == (["D", "B", "C", "A", "D"], True)


class TestSlots:
    def test_private_names_dictionary_and_inheritance(self, nb: Notebook) -> None:
        nb.cell("""
            class Slim:
                __slots__ = ("a", "__hidden")
                def __init__(self): self.a, self.__hidden = 1, 2
                def hidden(self): return self.__hidden
            class Wide(Slim):
                __slots__ = ("b", "__dict__", "__weakref__")
            class Free(Slim): pass
            class One:
                __slots__ = "only"
            class Documented:
                __slots__ = {"x": "the x"}
            def f(slim, wide):
                wide.more = 4
                closed = not hasattr(slim, "__dict__")
                try:
                    slim.zzz = 1
                except AttributeError:
                    closed = closed and True
                one = One()
                one.only = 3
                Free().anything = 1
                return slim.a, slim.hidden(), wide.b, wide.more, wide.hidden(), closed, one.only, Slim.__slots__
            wide = Wide()
            wide.b = 3
            def g(slim):
                slim.a = 10
                return slim
        """)
        nb.both("f", nb["Slim()"], nb["wide"])
        result = nb.remote("g", nb["Slim()"])
        assert (type(result), result.a, result.hidden()) == (nb["Slim"], 10, 2)


class TestShapes:
    def test_nested_self_referring_and_changed_later(self, nb: Notebook) -> None:
        nb.cell("""
            class Tree:
                class Leaf:
                    def up(self): return Tree
                empty = None
                def __init__(self, *kids): self.kids = kids
                def size(self): return 1 + sum(kid.size() for kid in self.kids)
                def copy(self) -> "Tree": return type(self)(*self.kids)
            Tree.empty = Tree()
            Tree.root = Tree
            Tree.table = {"tree": Tree, "leaf": Tree.Leaf()}
            Tree.double = lambda self: self.size() * 2
            def f(t):
                return (t.size(), Tree.root is Tree, Tree.Leaf().up() is Tree, Tree.empty.size(), t.double(),
                        isinstance(Tree.table["leaf"], Tree.Leaf), Tree.Leaf.__qualname__, t.copy().size())
        """)
        nb.both("f", nb["Tree(Tree(), Tree(Tree()))"])
        assert type(nb.remote("lambda: Tree.Leaf()")) is nb["Tree.Leaf"]

    def test_instances_that_refer_to_each_other(self, nb: Notebook) -> None:
        nb.cell("""
            class Node:
                def __init__(self, name): self.name, self.links = name, []
            a, b = Node("a"), Node("b")
            a.links, b.links = [a, b], [a]
            shared = [1]
            def f(a, b, first, second):
                return a.links[0] is a, a.links[1] is b, first is second, first
            def g():
                pair = [1]
                return pair, pair, a, a.links
        """)
        assert nb.both("f", nb["a"], nb["b"], nb["shared"], nb["shared"]) == (True, True, True, [1])
        first, second, node, links = nb.remote("g")
        assert first is second
        assert node.links is links
        assert links[0] is node

    def test_class_made_in_the_worker_comes_back_and_returns(self, nb: Notebook) -> None:
        nb.cell("""
            def make(k):
                class Local:
                    n = k
                    def value(self): return self.n + k
                    def __eq__(self, other): return type(other) is Local
                return Local, Local()
            def use(cls, instance): return type(instance) is cls, instance.value(), cls().value()
        """)
        cls, instance = nb.remote("make", 3)
        assert type(instance) is cls
        assert instance.value() == 6
        assert nb.both("use", cls, instance) == (True, 6, 6)
        again = nb.remote("lambda cls, instance: (cls, instance)", cls, instance)
        assert again[0] is cls

    def test_attribute_that_is_deleted_or_changed_on_a_warm_worker(self, nb: Notebook) -> None:
        nb.cell("""
            class Base:
                def name(self): return "base"
            class Sub(Base):
                limit = 3
                def name(self): return "sub"
            def f(s): return s.name(), getattr(s, "limit", None)
            sub = Sub()
        """)
        assert nb.both("f", nb["sub"]) == ("sub", 3)
        nb.cell("del Sub.name\ndel Sub.limit")
        assert nb.both("f", nb["sub"]) == ("base", None)
        nb.cell("Base.name = lambda self: 'new'\nSub.limit = 9")
        assert nb.both("f", nb["sub"]) == ("new", 9)

    def test_subclasses_of_builtins(self, nb: Notebook) -> None:
        nb.cell("""
            import collections, ctypes, datetime, decimal, io, pathlib, random, string, threading
            class Int(int):
                def half(self): return self // 2
            class Text(str): pass
            class Counts(collections.Counter): pass
            class Default(collections.defaultdict): pass
            class Deck(collections.deque): pass
            class Users(collections.UserDict): pass
            class Day(datetime.date): pass
            class Formatter(string.Formatter): pass
            class Dice(random.Random): pass
            class Local(threading.local): pass
            class Vec(ctypes.Structure):
                _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_int)]
            def f(*items): return [(type(i).__name__, i) for i in items], [type(i) in known for i in items]
            known = {Int, Text, Counts, Default, Deck, Users, Day}
            def g():
                made = Int(7).half(), Formatter().format("{}", 1), Dice(1).random(), Vec(1, 2).y, bytes(Vec(1, 0))
                return *made, Local()
        """)
        nb.both(
            "f",
            *(
                nb[item]
                for item in (
                    "Int(3)",
                    "Text('a')",
                    "Counts('aab')",
                    "Default(list, a=[1])",
                    "Deck([1], 3)",
                    "Users(a=1)",
                    "Day(2024, 1, 2)",
                )
            ),
        )
        assert nb.both("lambda: g()[:5]") == (*nb["g()"][:3], 2, nb["bytes(Vec(1, 0))"])


def test_isinstance_both_ways_after_redefinition(nb: Notebook) -> None:
    source = """
        class Point:
            version = {version}
            def __init__(self, x): self.x = x
        def f(p): return isinstance(p, Point), Point.version, Point(p.x)
    """
    nb.cell(source.format(version=1))
    old = nb["Point(1)"]
    assert nb.remote("f", old)[:2] == (True, 1)
    nb.cell(source.format(version=2))
    there: tuple[bool, int, Any] = nb.remote("f", old)
    assert there[:2] == (False, 2)
    assert type(there[2]) is nb["Point"]
    assert nb.remote("f", nb["Point(1)"])[:2] == (True, 2)
