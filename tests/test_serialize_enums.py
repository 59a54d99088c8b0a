"""Enums of a notebook's cells: every member is itself, on both sides, whatever it is made of."""

from __future__ import annotations

from roundtrip import Notebook, nb, worker

__all__ = ["nb", "worker"]


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
