"""Abstract classes, generics, protocols and metaclasses of a notebook's cells."""

from __future__ import annotations

import sys

import pytest
from roundtrip import Notebook, nb, worker

__all__ = ["nb", "worker"]


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
                        typing.get_args(Ints.__orig_bases__[0]), isinstance(Dog(), Runs), isinstance(Cat(), Runs),
                        plain, Movie(title="a", year=1), Movie.__required_keys__, Movie.__total__, UserId(5),
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


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695 came with 3.12")
def test_generic_class_syntax(nb: Notebook) -> None:
    nb.cell("""
        class Box[T, *Ts, **P]:
            def __init__(self, item: T): self.item = item
            def get(self) -> T: return self.item
        def f(box): return box.get(), Box[int, str, [int]].__origin__ is Box, len(Box.__type_params__)
    """)
    assert nb.both("f", nb["Box(3)"]) == (3, True, 3)
