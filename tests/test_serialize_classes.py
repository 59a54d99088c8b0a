"""Classes of a notebook's cells, and their instances, in another process and back: one class per definition."""

from __future__ import annotations

import sys
from typing import Any

import pytest
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


class TestEnums:
    def test_members_are_themselves_on_both_sides(self, nb: Notebook) -> None:
        nb.cell("""
            import enum
            class Color(enum.Enum):
                "Three names, two colours."
                RED = 1
                BLUE = enum.auto()
                CRIMSON = 1
                def lower(self): return helper(self.name)
                @classmethod
                def first(cls): return next(iter(cls))
                @property
                def pretty(self): return f"<{self.name}>"
                @classmethod
                def _missing_(cls, value): return cls.BLUE
            def helper(text): return text.lower()
            Color.RED.note = "attribute of a member"
            def f(c):
                assert c is Color.RED and Color.CRIMSON is Color.RED and Color(2) is Color.BLUE
                return (c.lower(), Color.first(), c.pretty, list(Color), list(Color.__members__), Color["BLUE"],
                        Color("unknown"), c.note, Color.__doc__, len(Color), repr(c), isinstance(c, enum.Enum))
        """)
        result = nb.both("f", nb["Color.RED"])
        assert result[1] is nb["Color.RED"]
        assert result[5] is nb["Color.BLUE"]

    def test_flags(self, nb: Notebook) -> None:
        nb.cell("""
            import enum
            class Perm(enum.Flag):
                R = 4
                W = 2
                X = 1
                RW = R | W
            class Strict(enum.IntFlag, boundary=enum.STRICT):
                A = 1
                B = 2
            def f(p):
                try:
                    Strict(8)
                    wrong = None
                except ValueError:
                    wrong = "refused"
                return (p | Perm.W, Perm.R in p, ~p, list(p), p is Perm.RW, Strict.A | Strict.B, wrong, Perm(3),
                        Perm.RW & Perm.W is Perm.W, list(Perm), Perm.__members__.keys() >= {"RW"})
        """)
        result = nb.both("f", nb["Perm.R | Perm.W"])
        assert result[0] is nb["Perm.RW"]
        nb.both("f", nb["Perm.R | Perm.X"])

    def test_data_types(self, nb: Notebook) -> None:
        nb.cell("""
            import datetime, decimal, enum
            class Number(enum.IntEnum):
                ONE = 1
                TWO = 2
            class Word(enum.StrEnum):
                A = enum.auto()
                B = "bee"
            class Day(datetime.date, enum.Enum):
                NEW_YEAR = (2024, 1, 1)
            class Price(decimal.Decimal, enum.Enum):
                LOW = "1.50"
            class Pair(tuple, enum.Enum):
                P = (1, 2)
            class Tag(str, enum.Enum):
                X = "x"
                def __str__(self): return f"tag {self.value}"
            def f(n, w):
                return (n + 1, n is Number.ONE, w.upper(), w is Word.B, f"{w}", Day.NEW_YEAR.year,
                        Price.LOW * 2, Pair.P[1], str(Tag.X), Tag.X == "x", f"{Number.TWO}", Day.NEW_YEAR)
        """)
        nb.both("f", nb["Number.ONE"], nb["Word.B"])

    def test_own_new_and_init(self, nb: Notebook) -> None:
        nb.cell("""
            import enum
            calls = []
            class Planet(enum.Enum):
                EARTH = (5.9, 6.3)
                MARS = (0.6, 3.3)
                def __init__(self, mass, radius):
                    calls.append(self.name if hasattr(self, "_name_") else "?")
                    self.mass, self.radius = mass, radius
                @property
                def ratio(self): return self.mass / self.radius
            class Coordinate(bytes, enum.Enum):
                def __new__(cls, value, label, unit):
                    obj = bytes.__new__(cls, [value])
                    obj._value_ = value
                    obj.label, obj.unit = label, unit
                    return obj
                PX = (0, "P.X", "km")
                VY = (1, "V.Y", "km/s")
            class Multi(enum.Enum):
                def __new__(cls, value, *others):
                    obj = object.__new__(cls)
                    obj._value_ = value
                    for other in others:
                        cls._value2member_map_[other] = obj
                    return obj
                ONE = 1, "one", "eins"
                TWO = 2, "two"
            made = len(calls)
            def f(p, c):
                return (p.ratio, p is Planet.EARTH, c.label, bytes(c), c.value, Coordinate(1) is Coordinate.VY,
                        Multi("eins"), Multi(2), len(calls), [m.mass for m in Planet], Planet((0.6, 3.3)))
        """)
        nb.both("f", nb["Planet.EARTH"], nb["Coordinate.VY"])

    def test_dataclass_as_data_type(self, nb: Notebook) -> None:
        nb.cell("""
            import enum
            from dataclasses import dataclass, field
            @dataclass
            class Creature:
                size: str
                legs: int = field(default=4, repr=False)
            class Beast(Creature, enum.Enum):
                BEETLE = "small", 6
                DOG = ("medium",)
            def f(b): return b.size, b.legs, b is Beast.BEETLE, Beast.DOG.legs
        """)
        assert nb.both("f", nb["Beast.BEETLE"]) == ("small", 6, True, 4)

    def test_values_that_equal_only_themselves(self, nb: Notebook) -> None:
        nb.cell("""
            import enum, functools, operator
            class Marker: pass
            class Op(enum.Enum):
                ADD = enum.member(functools.partial(lambda a, b: (a + b, Op.SUB.name)))
                SUB = (operator.sub,)
                MARK = Marker()
                NAN = float("nan")
                ROWS = [1, 2]
                def __call__(self, *args): return self.value(*args)
            def f(op):
                assert op in list(Op)
                return op is Op.ADD, op is Op.MARK, op is Op.NAN, op is Op.ROWS, Op([1, 2]) is Op.ROWS, Op.ADD(1, 2)
        """)
        for name in ("ADD", "MARK", "NAN", "ROWS"):
            nb.both("f", nb[f"Op.{name}"])
        assert nb.remote("lambda: list(Op)") == nb["list(Op)"]

    def test_nested_functional_and_with_a_metaclass(self, nb: Notebook) -> None:
        nb.cell("""
            import enum
            class Meta(enum.EnumMeta):
                made = 0
                def __new__(cls, *args, **kwargs):
                    cls.made += 1
                    return super().__new__(cls, *args, **kwargs)
                def __contains__(cls, item): return "yes"
                def titles(cls): return [member.name.title() for member in cls]
            class Base(enum.Enum, metaclass=Meta):
                def shout(self): return self.name.upper()
            class Small(Base):
                a = 1
            class Other(Base):
                b = 1
            class Job:
                class State(enum.Enum):
                    NEW = "new"
                    DONE = "done"
                def __init__(self): self.state = Job.State.NEW
            Animal = enum.Enum("Animal", "CAT DOG")
            def f(job, animal, small):
                return (job.state is Job.State.NEW, animal is Animal.CAT, small.shout(), Small.titles(), Meta.made,
                        Other.b.shout(), isinstance(small, Base), Job.State.__qualname__)
        """)
        nb.both("f", nb["Job()"], nb["Animal.CAT"], nb["Small.a"])
        assert nb.remote("lambda: Job.State.DONE") is nb["Job.State.DONE"]


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


class TestAbstractAndTyping:
    def test_abstract_classes(self, nb: Notebook) -> None:
        nb.cell("""
            import abc, collections.abc, numbers
            class Shape(abc.ABC):
                @abc.abstractmethod
                def area(self): ...
                @property
                @abc.abstractmethod
                def name(self): ...
            class Square(Shape):
                def area(self): return 4
                name = "square"
            class Half(Shape):
                def area(self): return 2
            @Shape.register
            class Foreign: pass
            class Rows(collections.abc.Sequence):
                def __len__(self): return 2
                def __getitem__(self, i): return [5, 6][i]
            class Loose:
                def __len__(self): return 1
                def __getitem__(self, i): return "loose"
            collections.abc.Sequence.register(Loose)
            numbers.Integral.register(Foreign)
            class Hooked(abc.ABC):
                @classmethod
                def __subclasshook__(cls, other): return hasattr(other, "area") or NotImplemented
            def f(foreign):
                refused = []
                for cls in (Shape, Half):
                    try:
                        cls()
                    except TypeError:
                        refused.append(cls.__name__)
                return (refused, Square().area(), isinstance(foreign, Shape), issubclass(Foreign, Shape),
                        isinstance(3, Shape), 6 in Rows(), list(reversed(Rows())), sorted(Shape.__abstractmethods__),
                        isinstance(Loose(), collections.abc.Sequence), isinstance(foreign, numbers.Number),
                        isinstance(Square(), Hooked), isinstance(foreign, Hooked))
        """)
        nb.both("f", nb["Foreign()"])

    def test_generic_protocol_typed_dict(self, nb: Notebook) -> None:
        nb.cell("""
            import typing
            from typing import Generic, ParamSpec, Protocol, TypedDict, TypeVar, runtime_checkable
            T = TypeVar("T", bound="Base")
            K = TypeVar("K", int, str)
            P = ParamSpec("P")
            UserId = typing.NewType("UserId", int)
            class Base: pass
            class Stack(Generic[T]):
                def __init__(self): self.items = []
                def push(self, item: T) -> None: self.items.append(item)
            class Ints(Stack[int]): pass
            class Keyed(Generic[K, T]):
                kind: K
            @runtime_checkable
            class Runs(Protocol):
                speed: int
                def run(self) -> int: ...
            class Dog:
                speed = 3
                def run(self): return 1
            class Cat: pass
            class Plain(Protocol):
                def run(self) -> int: ...
            class Movie(TypedDict, total=False):
                title: str
                year: typing.Required[int]
            Alias = dict[str, list[Base | None]]
            def f():
                s = Stack[int]()
                s.push(3)
                plain = None
                try:
                    isinstance(Dog(), Plain)
                except TypeError:
                    plain = "not checkable"
                return (s.items, Stack.__parameters__ == (T,), Stack.push.__annotations__["item"] is T,
                        typing.get_args(Ints.__orig_bases__[0]), isinstance(Dog(), Runs), isinstance(Cat(), Runs), plain,
                        Movie(title="a", year=1), Movie.__required_keys__, Movie.__total__, UserId(5),
                        K.__constraints__, Keyed[int, Base].__args__[1] is Base, UserId.__supertype__,
                        typing.get_type_hints(Stack.push), Alias.__args__[0], typing.get_type_hints(Movie))
            def names(t, p, user_id, alias): return t is T, p is P, user_id is UserId, T, P, UserId, alias, Stack[int]
        """)
        nb.both("f")
        arguments = [nb[name] for name in ("T", "P", "UserId", "Alias")]
        t, p, user_id, *rest = nb.remote("names", *arguments)
        assert rest[:3] == [nb["T"], nb["P"], nb["UserId"]]
        assert rest[3:] == [nb["Alias"], nb["Stack[int]"]]
        # What is an argument is told apart from the function's own only if it is a class.
        assert (t, p, user_id) == (True, True, True)


class TestMetaclasses:
    def test_keywords_call_and_attributes(self, nb: Notebook) -> None:
        nb.cell("""
            class Meta(type):
                made = []
                def __new__(cls, name, bases, body, *, tag="none", **more):
                    cls.made.append(name)
                    return super().__new__(cls, name, bases, {**body, "tag": tag})
                def __init__(cls, name, bases, body, **more): super().__init__(name, bases, body)
                def __len__(cls): return 7
                @property
                def label(cls): return f"<{cls.__name__}>"
            class A(metaclass=Meta, tag="a", other=1): pass
            class B(A, tag="b"): pass
            class Single(type):
                instances = {}
                def __call__(cls, *args):
                    if cls not in cls.instances:
                        cls.instances[cls] = super().__call__(*args)
                    return cls.instances[cls]
            class Config(metaclass=Single):
                def __init__(self, x=1): self.x = x
            config = Config(5)
            def f():
                class C(B, tag="c"): pass
                names = list(Meta.made)
                Meta.made.remove("C")
                return A.tag, B.tag, C.tag, len(A), A.label, names, Config().x, Config(9) is config
        """)
        nb.both("f")

    def test_equality_and_hash_of_the_metaclass(self, nb: Notebook) -> None:
        nb.cell("""
            class Alike(type):
                def __eq__(cls, other): return True
                def __hash__(cls): return 1
            class A(metaclass=Alike): kind = "a"
            class B(A): kind = "b"
            class C(metaclass=Alike): kind = "c"
            class Unhashable(type):
                def __eq__(cls, other): return isinstance(other, Unhashable)
            class D(metaclass=Unhashable): kind = "d"
            def f(items): return [type(item).kind for item in items], A.kind, B.kind, C.kind, D().kind, D.kind
            def g(): return [A, B, C]
            def h(): return D()
        """)
        nb.both("f", [nb["A()"], nb["B()"], nb["C()"], nb["D()"]])
        assert all(there is here for there, here in zip(nb.remote("g"), nb["[A, B, C]"], strict=True))
        assert type(nb.remote("h")) is nb["D"]

    def test_init_subclass_and_set_name_are_not_run_again(self, nb: Notebook) -> None:
        nb.cell("""
            class Plugin:
                registry = {}
                def __init_subclass__(cls, *, key, **more):
                    super().__init_subclass__(**more)
                    Plugin.registry[key] = cls
                def __class_getitem__(cls, item): return f"{cls.__name__}[{item}]"
            class Field:
                seen = []
                def __set_name__(self, owner, name):
                    self.name = name
                    self.seen.append(name)
                def __get__(self, obj, cls=None): return self if obj is None else obj.__dict__.get(self.name, 0)
                def __set__(self, obj, value): obj.__dict__[self.name] = value + 1
            class Csv(Plugin, key="csv"):
                width = Field()
                height = Field()
            class Json(Csv, key="json"): pass
            def f(c):
                c.width = 5
                class Late(Plugin, key="late"):
                    depth = Field()
                found = (sorted(Plugin.registry), Plugin.registry["csv"] is Csv, c.width, c.height, Csv["x"],
                         list(Field.seen), Late().depth)
                del Plugin.registry["late"]
                Field.seen.remove("depth")
                return found
        """)
        nb.both("f", nb["Csv()"])
        assert nb.remote("lambda: Plugin.registry['json']") is nb["Json"]


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


class TestOwnWaysOfPickling:
    def test_reduce_and_state_methods(self, nb: Notebook) -> None:
        nb.cell("""
            import copyreg, threading
            def rebuild(cls, x): return cls(x, "rebuilt")
            class Reduced:
                def __init__(self, x, how="made"): self.x, self.how, self.lock = x, how, threading.Lock()
                def __reduce__(self): return rebuild, (type(self), self.x)
            class ReducedEx(Reduced):
                def __reduce_ex__(self, protocol): return rebuild, (type(self), self.x + protocol)
            class Stateful:
                def __init__(self, x): self.x, self.lock = x, threading.Lock()
                def __getstate__(self): return {"x": self.x}
                def __setstate__(self, state): self.__init__(state["x"] + 1)
            class Newargs(tuple):
                def __new__(cls, a, *, b): return super().__new__(cls, (a, b))
                def __getnewargs_ex__(self): return (self[0],), {"b": self[1]}
            class Registered:
                def __init__(self, x): self.x, self.lock = x, threading.Lock()
            def reduce_registered(obj): return Registered, (obj.x + 100,)
            copyreg.pickle(Registered, reduce_registered)
            class WithList(list):
                def __init__(self, items=(), name=""): super().__init__(items); self.name = name
            class WithDict(dict):
                def __missing__(self, key): return f"no {key}"
            def f(items):
                return [(type(i).__name__, i.x, getattr(i, "how", "")) for i in items]
            def g(): return [Reduced(1), ReducedEx(2), Stateful(3), Registered(4)]
            def containers(t, l, d):
                l.append(3)
                return t, type(t) is Newargs, l, l.name, d["zz"], type(d) is WithDict
        """)
        items = nb["[Reduced(1), ReducedEx(2), Stateful(3), Registered(4)]"]
        there = [
            ("Reduced", 1, "rebuilt"),
            ("ReducedEx", 7, "rebuilt"),
            ("Stateful", 4, ""),
            ("Registered", 104, ""),
        ]
        try:
            assert nb.remote("f", items) == there
            back = nb.remote("g")
            assert nb["f"](back) == there
            assert [type(item) for item in back] == [type(item) for item in items]
            nb.both("containers", nb["Newargs(1, b=2)"], nb["WithList([1], 'n')"], nb["WithDict(a=1)"])
        finally:
            nb.cell("del copyreg.dispatch_table[Registered]")

    def test_sentinels_that_name_themselves(self, nb: Notebook) -> None:
        nb.cell("""
            class _Missing:
                def __init__(self): self.text = "missing"
                def __reduce__(self): return "MISSING"
                def __repr__(self): return "MISSING"
            class _Slim:
                __slots__ = ()
                def __reduce__(self): return "SLIM"
            MISSING = _Missing()
            SLIM = _Slim()
            def f(x=MISSING): return x is MISSING, x.text if x is MISSING else "", MISSING
            def g(): return SLIM
        """)
        assert nb.both("f") == (True, "missing", nb["MISSING"])
        assert nb.both("f", nb["MISSING"])[0] is True
        assert nb.remote("g") is nb["SLIM"]

    def test_dill_register(self, nb: Notebook) -> None:
        nb.cell("""
            import dill, threading
            class Guarded:
                def __init__(self, x): self.x, self.lock = x, threading.Lock()
            def make(x): return Guarded(x * 10)
            @dill.register(Guarded)
            def save_guarded(pickler, obj):
                pickler.save_reduce(make, (obj.x,), obj=obj)
            def f(g): return g.x, type(g) is Guarded
        """)
        try:
            assert nb.remote("f", nb["Guarded(2)"]) == (20, True)
            assert nb.remote("lambda: Guarded(3)").x == 30
        finally:
            nb.cell("del dill.Pickler.dispatch[Guarded]")


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
            def g(): return Int(7).half(), Formatter().format("{}", 1), Dice(1).random(), Vec(1, 2).y, bytes(Vec(1, 0)), Local()
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


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695 came with 3.12")
def test_generic_class_syntax(nb: Notebook) -> None:
    nb.cell("""
        class Box[T, *Ts, **P]:
            def __init__(self, item: T): self.item = item
            def get(self) -> T: return self.item
        def f(box): return box.get(), Box[int, str, [int]].__origin__ is Box, len(Box.__type_params__)
    """)
    assert nb.both("f", nb["Box(3)"]) == (3, True, 3)


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
