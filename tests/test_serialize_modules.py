"""Modules that a notebook's functions refer to: by name where a worker can import them, else by value."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import pytest
from roundtrip import Notebook, nb, worker

from nbparallel.serialize import modules, unit_of

__all__ = ["nb", "worker"]


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

    def test_what_a_module_had_before_it_was_reloaded_goes_by_value(
        self, nb: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        file = tmp_path / "reloaded.py"
        file.write_text("def f(x): return 'old', x\nclass C:\n    def m(self): return 'old'\n")
        try:
            nb.cell("""
                import reloaded
                from reloaded import C, f
                def g(x): return f(x), C().m()
            """)
            before = unit_of(nb["f"]), unit_of(nb["g"])
            assert (unit_of(nb["f"]), unit_of(nb["g"])) == before
            file.write_text("def f(x): return 'newer', x\nclass C:\n    def m(self): return 'newer'\n")
            importlib.reload(nb["reloaded"])
            unit_of(nb["reloaded"].f)  # the new one's pickle is what the old one's was
            assert (nb.both("f", 1), nb.both("g", 1)) == (("old", 1), (("old", 1), "old"))
            assert unit_of(nb["f"]) is not before[0]
            assert unit_of(nb["g"]) is not before[1]
        finally:
            sys.modules.pop("reloaded", None)

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

    def test_an_own_module_that_takes_anothers_place_is_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in ("mm_first", "mm_second"):
            (tmp_path / f"{name}.py").touch()
        importlib.import_module("mm_first")
        assert "mm_first" in modules.own_modules()
        del sys.modules["mm_first"]
        importlib.import_module("mm_second")
        try:
            assert "mm_second" in modules.own_modules()
        finally:
            del sys.modules["mm_second"]
