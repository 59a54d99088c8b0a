"""What a user reads when something can't travel: the path in their own names, its type, and the mend."""

from __future__ import annotations

import sys
import threading
import types
from typing import Any

import pytest
from roundtrip import Notebook, nb, worker

from nbparallel.errors import SerializationError
from nbparallel.serialize import attempt, dumps_data, explain, name_of, unit_of

__all__ = ["nb", "worker"]


def explained(nb: Notebook, expression: str) -> SerializationError:
    obj = nb[expression]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is what explain() is about
        unit_of(obj)
    return explain(caught.value, obj, attempt, name_of(obj))


@pytest.fixture
def closed() -> Any:
    """Close what a notebook opened."""
    opened: list[Any] = []
    yield opened
    for item in opened:
        item.close()


def test_connection_in_a_dictionary_in_a_global(nb: Notebook, closed: list[Any]) -> None:
    nb.cell("""
        import sqlite3
        config = {"name": "x", "db": {"main": sqlite3.connect(":memory:")}}
        def helper(q): return config["db"]["main"].execute(q)
        def train(q): return helper(q)
    """)
    closed.append(nb["config['db']['main']"])
    error = explained(nb, "train")
    assert error.path == "train → helper → config['db']['main']"
    assert "sqlite3.Connection" in str(error)
    assert "inside the function" in str(error)


def test_lock_as_an_attribute(nb: Notebook) -> None:
    nb.cell("""
        import threading
        class Box:
            def __init__(self): self.items, self._guard = [], threading.Lock()
        class Slim:
            __slots__ = ("guard",)
        box, slim = Box(), Slim()
        slim.guard = threading.RLock()
        def f(x): return box.items
        def g(x): return slim
        def h(x, box=box): return box
        def k(x, *, box=box): return box
    """)
    error = explained(nb, "f")
    assert error.path == "f → box._guard"
    assert "lock" in str(error)
    assert "one process" in str(error)
    assert explained(nb, "g").path == "g → slim.guard"
    assert explained(nb, "h").path == "h → default of box._guard"
    assert explained(nb, "k").path == "k → default of box._guard"


def test_open_file_in_a_closure(nb: Notebook, tmp_path: Any, closed: list[Any]) -> None:
    nb.names["path"] = str(tmp_path / "log.txt")
    nb.cell("""
        def make():
            log = open(path, "w")
            def write(x): return log.write(x)
            return write, log
        write, handle = make()
    """)
    closed.append(nb["handle"])
    error = explained(nb, "write")
    assert error.path == "write → log"
    assert "open the file inside the function" in str(error)


def test_generator_as_argument(nb: Notebook) -> None:
    nb.cell("numbers = (x for x in range(3))")
    with pytest.raises(TypeError) as caught:
        dumps_data([1, nb["numbers"]])
    error = explain(caught.value, [1, nb["numbers"]], attempt, "argument 2")
    assert error.path == "argument 2[1]"
    assert "generator" in str(error)
    assert "list" in str(error)


def test_socket_in_a_list(nb: Notebook, closed: list[Any]) -> None:
    nb.cell("""
        import socket
        links = [("name", socket.socket())]
        def f(): return links
    """)
    closed.append(nb["links[0][1]"])
    error = explained(nb, "f")
    assert error.path == "f → links[0][1]"
    assert "open the socket inside the function" in str(error)


def test_shell_of_ipython(nb: Notebook) -> None:
    module = types.ModuleType("IPython.core.fakeshell")
    exec(
        "import threading\n"
        "class Shell:\n"
        "    def __init__(self): self.history = threading.Lock()\n"
        "    def get_ipython(self): return self\n",
        vars(module),
    )
    nb.names["get_ipython"] = module.Shell().get_ipython  # type: ignore[attr-defined]
    nb.cell("def f(x): return get_ipython().user_ns")
    error = explained(nb, "f")
    assert error.path == "f → get_ipython"
    assert "leave them out of the function" in str(error)


def test_progress_bar(nb: Notebook, closed: list[Any]) -> None:
    nb.cell("""
        import io
        from tqdm import tqdm
        bar = tqdm(total=3, file=io.StringIO())
        def f(x): bar.update(1)
    """)
    closed.append(nb["bar"])
    error = explained(nb, "f")
    assert error.path == "f → bar"
    assert "leave the bar out" in str(error)


def test_methods_that_raise(nb: Notebook) -> None:
    nb.cell("""
        class Refuses:
            def __reduce__(self): raise ValueError("never pickle me")
        class Broken:
            def __getstate__(self): raise KeyError("state")
        class Odd:
            def __init__(self): self.inner = Broken()
            @property
            def trouble(self): raise RuntimeError("a property that raises")
            def __getattr__(self, name): raise LookupError(name)
            def __repr__(self): raise OSError("no repr")
        items = {"a": [Refuses()]}
        odd = Odd()
        def f(): return items
        def g(): return odd
    """)
    error = explained(nb, "f")
    assert error.path == "f → items['a'][0]"
    assert "never pickle me" in str(error)
    assert "__reduce__" in str(error)
    error = explained(nb, "g")
    assert error.path == "g → odd.inner"
    assert "__getstate__" in str(error)


def test_nested_too_deeply(nb: Notebook) -> None:
    nb.cell("""
        chain = []
        for _ in range(100_000):
            chain = [chain]
        class Node:
            def __init__(self, next): self.next = next
        node = None
        for _ in range(20_000):
            node = Node(node)
        def f(): return chain
        def g(): return {"head": node}
    """)
    for name, path in (("f", "f → chain"), ("g", "g → node")):
        error = explained(nb, name)
        assert error.path == path
        assert "too deep" in str(error)
        assert len(str(error)) < 600
    nb.cell("""
        # Deep garbage is freed by recursion: take it apart first.
        while chain:
            chain = chain.pop()
        while node:
            node = node.next
    """)


def test_the_many_places_to_look(nb: Notebook) -> None:
    nb.cell("""
        import collections, functools, threading
        lock = threading.Lock()
        class Base:
            shared = {"lock": lock}
        class Sub(Base):
            def go(self): return self.shared
            @staticmethod
            def still(): return lock
            @property
            def prop(self): return lock
        def in_class(): return Sub
        def plain(x, y): return x
        part = functools.partial(plain, y=lock)
        @functools.lru_cache
        def cached(): return lock
        def wrap(fn):
            @functools.wraps(fn)
            def wrapper(): return fn()
            return wrapper
        @wrap
        def wrapped(): return lock
        class Method:
            def __init__(self): self.lock = lock
            def go(self): return 1
        method = Method()
        keys = {("a", 1): collections.deque([1, lock])}
        def in_keys(): return keys
        def attributed(): return 1
        attributed.lock = lock
        class Meta(type): pass
        class Late(metaclass=Meta): pass
        def in_set(): return {1} | marks
        class Mark:
            def __init__(self): self.lock = lock
        marks = frozenset([Mark()])
        error = ValueError("v", lock)
        def in_error(): raise error
    """)
    paths = {
        "in_class": "in_class → Sub.still → lock",
        "part": "plain.keywords['y']",
        "cached": "cached → lock",
        "wrapped": "wrapped → fn → lock",
        "method.go": "Method.go.__self__.lock",
        "in_keys": "in_keys → keys[('a', 1)][1]",
        "attributed": "attributed.lock",
        "in_error": "in_error → error.args[1]",
    }
    for expression, path in paths.items():
        error = explained(nb, expression)
        assert error.path == path, expression
        assert "lock" in str(error)
    assert explained(nb, "in_set").path.startswith("in_set → marks")
    assert isinstance(nb["lock"], type(threading.Lock()))


def test_names() -> None:
    import functools

    assert name_of(len) == "len"
    assert name_of(functools.partial(functools.partial(sorted, key=len), [1])) == "sorted"
    assert name_of((lambda: lambda x: x)()) == "<lambda>"
    assert name_of(types.SimpleNamespace()) == "SimpleNamespace"


def test_attempt_keeps_nothing(nb: Notebook) -> None:
    from nbparallel.serialize import units

    nb.cell("def f(): return 1")
    before = len(units._by_object)
    attempt(nb["f"])
    assert len(units._by_object) == before


@pytest.mark.skipif(sys.platform == "win32", reason="a process's handle is another type there")
def test_error_is_a_pickling_error(nb: Notebook) -> None:
    import pickle

    nb.cell("import threading\ndef f(): return threading.Thread, lock\nlock = threading.Lock()")
    error = explained(nb, "f")
    assert isinstance(error, pickle.PicklingError)
    assert str(error).count("\n") <= 2
