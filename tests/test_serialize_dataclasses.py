"""Classes that a decorator or a factory makes: dataclasses, attrs, named tuples."""

from __future__ import annotations

import pytest
from roundtrip import Notebook, nb, worker

__all__ = ["nb", "worker"]


class TestDataclasses:
    @pytest.mark.parametrize("options", ["", "slots=True", "frozen=True", "slots=True, frozen=True", "order=True"])
    def test_options(self, nb: Notebook, options: str) -> None:
        nb.cell(f"""
            import dataclasses
            from dataclasses import dataclass, field, KW_ONLY, InitVar
            from typing import ClassVar
            @dataclass({options})
            class Point:
                x: int
                y: int = 3
                tags: list = field(default_factory=list, compare=True, metadata={{"unit": "m"}})
                start: InitVar[int] = 0
                count: ClassVar[int] = 12
                _: KW_ONLY
                label: str = "none"
                def __post_init__(self, start): object.__setattr__(self, "y", self.y + start)
                def norm(self): return self.x ** 2 + self.y ** 2
            @dataclass({options})
            class Deep(Point):
                z: int = 0
                def norm(self): return super(Deep, self).norm() + self.z ** 2  # CPython's slots=True breaks super()
            def f(p):
                @dataclass({options})
                class Inside(Point):
                    w: int = 9
                names = [field.name for field in dataclasses.fields(Inside)]
                moved = dataclasses.replace(p, x=7, start=1)
                unit = dataclasses.fields(p)[2].metadata["unit"]
                return (moved, names, p.norm(), dataclasses.asdict(p), unit, Inside(1).w, Point.count, p == Point(1),
                        p.__match_args__, dataclasses.is_dataclass(p), Deep(1, z=2), repr(Inside(2)), Inside(1).norm())
            def frozen(p):
                try:
                    p.x = 2
                    return "set"
                except dataclasses.FrozenInstanceError:
                    return "frozen"
        """)
        nb.both("f", nb["Point(1)"])
        nb.both("f", nb["Deep(1, z=5)"])
        nb.both("frozen", nb["Point(1)"])
        assert isinstance(nb.both("lambda p: p", nb["Deep(1, tags=[1], label='a')"]), nb["Point"])

    def test_keys_of_a_table_that_a_method_reads(self, nb: Notebook) -> None:
        nb.cell("""
            from dataclasses import dataclass
            @dataclass(frozen=True)
            class Key:
                name: str
                def price(self): return prices[self]
            @dataclass(frozen=True, slots=True)
            class Slim:
                name: str
                def price(self): return slim[self], self in seen
            prices = {Key("a"): 1, Key("b"): 2}
            slim = {Slim("a"): 1, Slim("b"): 2}
            seen = {Slim("a")}
            Key.first = {Key("z"): Key("y")}
            def f(key): return key.price(), prices[type(key)("b")] if type(key) is Key else 0
            def g(): return Key.first[Key("z")]
        """)
        assert nb.both("f", nb["Key('a')"]) == (1, 2)
        assert nb.both("f", nb["Slim('a')"]) == ((1, True), 0)
        assert nb.both("Key.price", nb["Key('b')"]) == 2
        assert nb.both("g") == nb["Key('y')"]

    def test_inheritance_made_inside_the_worker_comes_back(self, nb: Notebook) -> None:
        nb.cell("""
            from dataclasses import dataclass
            @dataclass
            class Base:
                x: int
                def double(self): return self.x * 2
            def f(x):
                @dataclass
                class Sub(Base):
                    y: int = 5
                    def both(self): return super().double() + self.y
                return Sub(x)
        """)
        result = nb.remote("f", 3)
        assert isinstance(result, nb["Base"])
        assert result.both() == 11
        assert type(nb.remote("lambda x: x", result)) is type(result)

    def test_attrs(self, nb: Notebook) -> None:
        pytest.importorskip("attr")
        nb.cell("""
            import attr, attrs
            @attrs.define
            class A:
                x: int
                y: list = attrs.field(factory=list)
                def up(self): return __class__ is A, self.x + 1
            @attrs.frozen
            class B(A):
                z: int = attrs.field(default=1, validator=attrs.validators.instance_of(int))
            def f(a):
                try:
                    B(1, z="no")
                except TypeError as error:
                    text = str(error)[:9]
                return attrs.evolve(a, x=9), a.up(), attrs.asdict(a), text, B(2)
        """)
        nb.both("f", nb["A(1)"])
        nb.both("f", nb["B(1)"])


class TestNamedTuples:
    def test_typing_and_collections(self, nb: Notebook) -> None:
        nb.cell("""
            import typing, collections
            class Point(typing.NamedTuple):
                "A point."
                x: int
                y: str = "z"
                def up(self): return self._replace(x=self.x + 1)
            Pair = collections.namedtuple("Pair", "a b", defaults=[5])
            class Sub(collections.namedtuple("Sub", "a b")):
                __slots__ = ()
                def total(self): return self.a + self.b
            T = typing.TypeVar("T")
            class Box(typing.NamedTuple, typing.Generic[T]):
                item: T
            def f(p, pair, sub):
                assert type(p) is Point and type(pair) is Pair and type(sub) is Sub
                return (p.up(), pair._asdict(), sub.total(), Point._field_defaults, Pair(1), p.x, Point.__doc__,
                        Sub(3, 4), Box(3), Box[int].__origin__ is Box, Point._make([1, "b"]))
        """)
        result = nb.both("f", nb["Point(1)"], nb["Pair(1, 2)"], nb["Sub(1, 2)"])
        assert type(result[0]) is nb["Point"]
        assert type(result[7]) is nb["Sub"]
