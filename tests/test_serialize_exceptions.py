"""Exceptions of a notebook's cells, raised in another process: type, arguments, attributes, causes, notes, groups."""

from __future__ import annotations

import pickle

import pytest
from roundtrip import Notebook, nb, worker

from nbparallel.errors import SerializationError, TaskError, TaskTimeout, WorkerCrashed
from nbparallel.serialize import dumps_result, loads

__all__ = ["nb", "worker"]


def test_constructors_of_every_shape(nb: Notebook) -> None:
    nb.cell("""
        made = []
        class Two(Exception):
            def __init__(self, a, b):
                made.append(self)
                super().__init__(f"{a} and {b}")
                self.a, self.b = a, b
        class Keyword(ValueError):
            def __init__(self, *, code): super().__init__(); self.code = code
        class Bang(Exception):
            def __init__(self, text): super().__init__(text + "!")
        class Silent(Exception):
            def __init__(self, a): self.a = a
        class Made(Exception):
            def __new__(cls, a, b):
                self = super().__new__(cls, a)
                self.b = b
                return self
            def __init__(self, a, b): pass
        class Slim(Exception):
            __slots__ = ("a",)
            def __init__(self, a): self.a = a
        class Reduced(Exception):
            def __init__(self, a, b): super().__init__(a); self.b = b
            def __reduce__(self): return Reduced, (self.args[0], self.b)
        class Shown(Exception):
            def __init__(self, a): self.a = a
            def __str__(self): return f"shown {self.a}"
        def f(name):
            raise {"two": lambda: Two(1, 2), "keyword": lambda: Keyword(code=3), "bang": lambda: Bang("oh"),
                   "silent": lambda: Silent(5), "made": lambda: Made(6, 7), "slim": lambda: Slim(8),
                   "reduced": lambda: Reduced(9, 10), "shown": lambda: Shown(11)}[name]()
    """)
    for name in ("two", "keyword", "bang", "silent", "made", "slim", "reduced", "shown"):
        with pytest.raises(Exception) as here:  # noqa: PT011 - what it is, is asserted below
            nb["f"](name)
        nb["made"].clear()
        with pytest.raises(Exception) as there:  # noqa: PT011
            nb.remote("f", name)
        assert type(there.value) is type(here.value)
        assert there.value.args == here.value.args
        assert str(there.value) == str(here.value)
        assert vars(there.value) == vars(here.value)
        assert nb["made"] == [], "the constructor ran again"
    with pytest.raises(nb["Slim"]) as slim:
        nb.remote("f", "slim")
    assert slim.value.a == 8


def test_dataclass_exception(nb: Notebook) -> None:
    nb.cell("""
        from dataclasses import dataclass
        @dataclass(frozen=True)
        class Bad(Exception):
            a: int
            b: str = "b"
        @dataclass
        class Mutable(Exception):
            a: int
        def f(x): raise Bad(x) from Mutable(2)
    """)
    with pytest.raises(nb["Bad"]) as caught:
        nb.remote("f", 3)
    assert (caught.value.a, caught.value.b) == (3, "b")
    assert caught.value.__cause__ == nb["Mutable(2)"]


def test_causes_contexts_and_notes(nb: Notebook) -> None:
    nb.cell("""
        class Low(Exception):
            def __init__(self, a, b): self.a, self.b = a, b
        def caused():
            try:
                raise Low(1, 2)
            except Low as low:
                error = ValueError("high")
                error.add_note("first note")
                raise error from low
        def context():
            try:
                1 / 0
            except ZeroDivisionError:
                raise KeyError("lost")
        def hidden():
            try:
                1 / 0
            except ZeroDivisionError:
                raise KeyError("lost") from None
        def loop():
            a, b = ValueError("a"), ValueError("b")
            a.other, b.other = b, a
            raise a from b
    """)
    with pytest.raises(ValueError, match="high") as caused:
        nb.remote("caused")
    cause = caused.value.__cause__
    assert type(cause) is nb["Low"]
    assert (cause.a, cause.b) == (1, 2)
    assert caused.value.__notes__ == ["first note"]
    assert caused.value.__suppress_context__ is True
    with pytest.raises(KeyError) as context:
        nb.remote("context")
    assert isinstance(context.value.__context__, ZeroDivisionError)
    assert context.value.__cause__ is None
    with pytest.raises(KeyError) as hidden:
        nb.remote("hidden")
    assert hidden.value.__suppress_context__ is True
    assert hidden.value.__cause__ is None
    with pytest.raises(ValueError, match="a") as loop:
        nb.remote("loop")
    assert loop.value.__cause__ is loop.value.other  # type: ignore[attr-defined]
    assert loop.value.other.other is loop.value  # type: ignore[attr-defined]


def test_groups(nb: Notebook) -> None:
    nb.cell("""
        class Coded(ExceptionGroup):
            def __new__(cls, message, errors, code):
                self = super().__new__(Coded, message, errors)
                self.code = code
                return self
            def derive(self, errors): return Coded(self.message, errors, self.code)
        class Bad(Exception): pass
        def f():
            inner = ExceptionGroup("inner", [KeyError("k"), Bad("b")])
            inner.add_note("inside")
            raise Coded("outer", [ValueError("v"), inner], 42)
        def g(): raise BaseExceptionGroup("base", [SystemExit(3), Bad()])
    """)
    with pytest.raises(nb["Coded"]) as caught:
        nb.remote("f")
    group = caught.value
    assert (group.message, group.code) == ("outer", 42)
    matched, rest = group.split(nb["Bad"])
    assert (matched.code, rest.code) == (42, 42)
    assert [type(error) for error in group.exceptions] == [ValueError, ExceptionGroup]
    assert group.exceptions[1].__notes__ == ["inside"]
    with pytest.raises(BaseExceptionGroup) as base:
        nb.remote("g")
    assert base.value.exceptions[0].code == 3


def test_attributes_that_c_keeps(nb: Notebook) -> None:
    nb.cell("""
        class Disk(OSError):
            def __init__(self, path, *, tries):
                super().__init__(28, "no space", path)
                self.tries = tries
        class Plain(OSError): pass
        class Decode(UnicodeDecodeError):
            def __init__(self, extra, *args): super().__init__(*args); self.extra = extra
        class Stop(StopIteration):
            def __init__(self, a, b): super().__init__(a + b)
        class Exit(SystemExit):
            def __init__(self, name): super().__init__(4); self.name = name
        class Import(ImportError):
            def __init__(self, name): super().__init__("no " + name, name=name, path="/somewhere")
        def f(name):
            raise {"disk": lambda: Disk("/tmp/x", tries=3), "plain": lambda: Plain(2, "gone", "/a"),
                   "decode": lambda: Decode("more", "utf-8", b"abc", 1, 2, "bad"), "stop": lambda: Stop(1, 2),
                   "exit": lambda: Exit("n"), "import": lambda: Import("mod"), "missing": lambda: open("/no/file"),
                   "key": lambda: {}["k"], "unicode": lambda: b"\\xff".decode(), "return": lambda: next(iter([])),
                   "name": lambda: undefined, "attribute": lambda: (1).nothing, "system": lambda: exit_with(5),
                   "syntax": lambda: compile("a b", "file.py", "exec"), "value": lambda: stop_with(6)}[name]()
        def exit_with(code): raise SystemExit(code)
        def stop_with(value): raise StopIteration(value)
    """)
    names = {
        "disk": ("errno", "strerror", "filename", "tries"),
        "plain": ("errno", "strerror", "filename"),
        "decode": ("encoding", "object", "start", "end", "reason", "extra"),
        "stop": ("value",),
        "exit": ("code", "name"),
        "import": ("name", "path", "msg"),
        "missing": ("errno", "filename"),
        "key": (),
        "unicode": ("encoding", "object", "start", "reason"),
        "return": ("value",),
        "name": (),
        "attribute": (),
        "system": ("code",),
        "syntax": ("lineno", "filename", "text", "msg"),
        "value": ("value",),
    }
    for name, attributes in names.items():
        with pytest.raises(BaseException) as here:  # noqa: PT011 - what it is, is asserted below
            nb["f"](name)
        with pytest.raises(BaseException) as there:  # noqa: PT011
            nb.remote("f", name)
        assert type(there.value) is type(here.value), name
        assert str(there.value) == str(here.value)
        for attribute in attributes:
            assert getattr(there.value, attribute) == getattr(here.value, attribute), (name, attribute)


def test_exception_class_made_in_the_worker(nb: Notebook) -> None:
    nb.cell("""
        def f(x):
            class Local(ValueError):
                def __init__(self, a, b): super().__init__(a); self.b = b
            raise Local(x, 2)
    """)
    with pytest.raises(ValueError, match="1") as caught:
        nb.remote("f", 1)
    assert type(caught.value).__name__ == "Local"
    assert caught.value.b == 2  # type: ignore[attr-defined]


def test_exceptions_as_data(nb: Notebook) -> None:
    nb.cell("""
        class Bad(Exception):
            def __init__(self, a, b): super().__init__(a); self.b = b
        def f(errors): return [(type(error) is Bad, error.args, error.b) for error in errors], errors
    """)
    shown, errors = nb.remote("f", [nb["Bad(1, 2)"]])
    assert shown == [(True, (1,), 2)]
    assert type(errors[0]) is nb["Bad"]


def test_own_errors_keep_their_fields() -> None:
    errors = [
        SerializationError("can't", "f → x"),
        TaskError("failed", index=3, input=(1,), error=ValueError("v"), traceback="tb"),
        WorkerCrashed("died", index=1, pid=5, exitcode=-9),
        TaskTimeout("late", index=2),
    ]
    for error in errors:
        for copy in (loads(dumps_result(error)), pickle.loads(pickle.dumps(error))):
            assert type(copy) is type(error)
            assert str(copy) == str(error)
            shown = {name: repr(value) for name, value in vars(error).items()}
            assert {name: repr(value) for name, value in vars(copy).items()} == shown
