"""Classes that say themselves how they are pickled."""

from __future__ import annotations

import importlib.machinery
import sys
import types

import pytest
from roundtrip import Notebook, nb, worker

from nbparallel.serialize.pickler import registered_with_dill

__all__ = ["nb", "worker"]


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

    def test_dill_half_way_through_its_import_by_another_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        half = types.ModuleType("dill._dill")
        half.__spec__ = importlib.machinery.ModuleSpec("dill._dill", None)
        half.__spec__._initializing = True
        before = registered_with_dill()
        monkeypatch.setitem(sys.modules, "dill._dill", half)
        assert registered_with_dill() is before

    def test_reduce_with_items(self, nb: Notebook) -> None:
        nb.cell("""
            class Bag:
                def __init__(self): self.items, self.table = [], {}
                def append(self, item): self.items.append(item)
                def extend(self, items): self.items.extend(items)
                def __setitem__(self, key, value): self.table[key] = value
                def __reduce__(self): return Bag, (), None, iter(self.items), iter(self.table.items())
                def __eq__(self, other): return vars(self) == vars(other)
            bag = Bag()
            bag.append(1)
            bag["k"] = 2
            def f(given): return given, bag
        """)
        assert nb.both("f", nb["bag"]) == (nb["bag"], nb["bag"])

    def test_proxies_with_getattr(self, nb: Notebook) -> None:
        nb.cell("""
            class Proxy:
                def __init__(self, target): self._target = target
                def __getattr__(self, name): return getattr(self._target, name)
            class Slim:
                __slots__ = ("_target",)
                def __init__(self, target): self._target = target
                def __getattr__(self, name): return getattr(self._target, name)
            class Record(dict):
                def __getattr__(self, name): return self[name]
            proxy = Proxy([1, 1])
            record = Record(a=1)
            def f(given): return proxy.count(1), given.count(2)
            def g(record): return record.a, type(record) is Record
        """)
        assert nb.both("f", nb["Slim([2])"]) == (2, 1)
        assert nb.both("proxy.count", 1) == 2

    def test_thread_local_starts_empty(self, nb: Notebook) -> None:
        nb.cell("""
            import threading
            kept = threading.local()
            kept.session = threading.Lock()
            def f(): return hasattr(kept, "session")
        """)
        assert nb.remote("f") is False
