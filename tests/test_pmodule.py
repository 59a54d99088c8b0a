"""``%%pmodule``: a module written in a cell, imported here, by warm workers and by the standard module's children."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, kernel

from nbparallel.notebook import modules
from nbparallel.notebook.modules import write_module

__all__ = ["kernel"]

PIDS = "sorted({pid for b in nbparallel.backends.warm().values() if b.name == 'processes' for pid in b.engine.pids})"


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    kernel.run("%load_ext nbparallel")
    return kernel


def module(text: str, line: str = "tools.py") -> str:
    return f"%%pmodule {line}\n{text}"


# ---- in a kernel, by each start method ----


def test_a_module_of_a_cell_is_edited_and_run_again(notebook: Kernel) -> None:
    ask = "pmap(tools.f, range(3)), pmap(f, range(3)), pmap(lambda x: tools.f(x), [1]), pmap(imports, [1])"
    notebook.run("def imports(x):\n    import tools\n    return tools.f(x)")
    notebook.run(module("def f(x):\n    return x + 1\ndef gone():\n    pass"))
    notebook.run("from tools import f")
    assert notebook.run(ask).result == "([1, 2, 3], [1, 2, 3], [2], [2])"
    before = notebook.run(PIDS).result
    for number in range(2, 6):  # of the same size, and within the second
        notebook.run(module(f"def f(x):\n    return x + {number}\n"))
        new = f"[{number}, {number + 1}, {number + 2}]"
        # What was taken out of it stays as it was, and travels by value.
        assert notebook.run(ask).result == f"({new}, [1, 2, 3], [{number + 1}], [{number + 1}])"
    assert notebook.run("hasattr(tools, 'gone')").result == "False"
    now = notebook.run(PIDS).result
    assert now != before
    # Run again as it is: it is imported again here, and the workers stay.
    notebook.run("tools.f = None")
    notebook.run(module("def f(x):\n    return x + 5\n"))
    assert notebook.run(ask).result == "([5, 6, 7], [1, 2, 3], [6], [6])"
    assert notebook.run(PIDS).result == now


@pytest.mark.slow
def test_the_seeds_module_fix(notebook: Kernel) -> None:
    notebook.run(
        module(
            """
import multiprocessing, os
from nbparallel import Pool
print("imported in", os.getpid())

def job(x):
    return x * x

def run():
    pool = multiprocessing.get_context(os.environ["START_METHOD"]).Pool(2)
    results = pool.map(job, (1, 2, 3, 4, 5))
    pool.close()
    pool.join()
    return results

def run_here():
    with Pool(2) as pool:
        return pool.map(job, (1, 2, 3, 4, 5))
""",
            "code8",
        )
    )
    assert notebook.run("code8.run()").result == "[1, 4, 9, 16, 25]"
    assert notebook.run("code8.run_here()").result == "[1, 4, 9, 16, 25]"
    shown = notebook.run("%%pscript\nimport code8\nprint('mine')\nif __name__ == '__main__':\n    print(code8.run())")
    assert "mine\n" in shown.stdout
    assert shown.stdout.endswith("[1, 4, 9, 16, 25]\n")


def test_a_package_and_a_folder_of_the_path(notebook: Kernel) -> None:
    (notebook.folder / "lib").mkdir(exist_ok=True)
    notebook.run(module("def g(x):\n    return -x", "lib/deep.py"))
    assert notebook.run("deep.__name__, pmap(deep.g, [1])").result == "('lib.deep', [-1])"
    notebook.run("import sys; sys.path.insert(0, str(folder / 'lib'))")
    notebook.run(module("def g(x):\n    return 2 * x", "lib/flat"))
    assert notebook.run("flat.__name__, pmap(flat.g, [1])").result == "('flat', [2])"
    notebook.run("sys.path.remove(str(folder / 'lib'))")


def test_a_package_itself(notebook: Kernel) -> None:
    (notebook.folder / "parts").mkdir(exist_ok=True)
    notebook.run(module("rate = 1", "parts/__init__.py"))
    notebook.run(module("from . import rate\ndef g(x):\n    return rate * x", "parts/sub.py"))
    notebook.run(module("rate = 2\nmore = 3", "parts/__init__.py"))
    notebook.run(module("from . import rate\ndef g(x):\n    return rate * x", "parts/sub.py"))
    assert notebook.run("parts.more, parts.sub is sub, sub.g(7), pmap(sub.g, [7])").result == "(3, True, 14, [14])"


def test_a_folder_becomes_a_package(notebook: Kernel) -> None:
    (notebook.folder / "late").mkdir(exist_ok=True)
    notebook.run(module("def g(x):\n    return -x", "late/first.py"))
    notebook.run(module("rate = 1", "late/__init__.py"))
    notebook.run(module("from . import rate\ndef g(x):\n    return rate * x", "late/first.py"))
    assert notebook.run("late.rate, pmap(first.g, [7])").result == "(1, [7])"


def test_a_module_that_fails(notebook: Kernel) -> None:
    notebook.run(module("def f(x):\n    return x", "fails.py"))
    shown = notebook.run(module("def f(x)\n    return x", "fails.py"))
    assert shown.stderr.splitlines() == [
        "UsageError: %%pmodule: line 2: expected ':'",
        "    def f(x)",
        "            ^",
    ]
    assert "def f(x):\n" in (notebook.folder / "fails.py").read_text()
    shown = notebook.run(module("def f(x):\n    return 1 / x\n\nf(0)", "fails.py"), fails=True)
    assert shown.error is not None
    assert shown.error.name == "ZeroDivisionError"
    assert "----> 5 f(0)" in shown.error.traceback
    assert "nbparallel" not in shown.error.traceback
    assert notebook.run("fails.f(7)").result == "7"  # the version that worked is still there
    notebook.run(module("def f(x):\n    return 2 * x", "fails.py"))
    assert notebook.run("fails.f(7), pmap(fails.f, [7])").result == "(14, [14])"


def test_what_is_not_its_own_is_refused(notebook: Kernel) -> None:
    theirs = notebook.folder / "theirs.py"
    theirs.write_text("x = 'theirs'\n")
    shown = notebook.run(module("x = 'mine'", "theirs.py"))
    assert shown.stderr == f"UsageError: %%pmodule: {theirs} was not written by %%pmodule; --force replaces it\n"
    assert theirs.read_text() == "x = 'theirs'\n"
    notebook.run(module("x = 'mine'", "--force theirs.py"))
    assert notebook.run("theirs.x").result == "'mine'"
    theirs.write_text(theirs.read_text().replace("mine", "edited"))
    shown = notebook.run(module("x = 'mine'", "theirs.py"))
    assert shown.stderr == f"UsageError: %%pmodule: {theirs} was edited since %%pmodule wrote it; --force replaces it\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("random.py", "random is the name of a module of Python's own or of this package: choose another"),
        ("IPython", "IPython is imported already, from "),
        ("pandas.py", "pandas would be imported from "),
        ("a-b.py", "'a-b' can't be imported by an import statement: "),
        ("class.py", "'class' can't be imported by an import statement: "),
        ("my-lib/x.py", "'my-lib' can't be imported by an import statement: "),
        ("nowhere/x.py", "there is no folder "),
        ("../outside.py", "no folder of sys.path leads to "),
        ("", "needs the name of a file, for example: %%pmodule tools.py"),
        ("--fast x.py", "unknown option --fast; known: --force"),
    ],
)
def test_names_that_can_not_be(notebook: Kernel, line: str, said: str) -> None:
    (notebook.folder / "my-lib").mkdir(exist_ok=True)
    before = sorted(notebook.folder.iterdir())
    shown = notebook.run(module("x = 1", line))
    assert shown.stderr.removeprefix("UsageError: %%pmodule").lstrip(": ").startswith(said)
    assert sorted(notebook.folder.iterdir()) == before


# ---- the function beneath ----


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    loaded = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - loaded:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_lines_have_the_numbers_of_the_cell(beside: Path) -> None:
    made = write_module("def f():\n    pass\n", "numbered")
    assert made.f.__code__.co_firstlineno == 2
    text = (beside / "numbered.py").read_text()
    assert text.splitlines()[0].startswith("# Written by %%pmodule: edit the cell, not this file (")
    assert text.splitlines()[1:] == ["def f():", "    pass"]


def test_the_module_stays_one_object_and_its_file_untouched(beside: Path) -> None:
    first = write_module("import sys\nx = [1]", "same.py")
    status = (beside / "same.py").stat()
    old = first.x
    assert write_module("import sys\nx = [1]", "same.py") is first
    assert first.x is not old
    assert (beside / "same.py").stat().st_mtime_ns == status.st_mtime_ns
    os.chmod(beside / "same.py", 0o640)
    assert write_module("y = 2", "same.py") is first
    assert not hasattr(first, "x")
    after = (beside / "same.py").stat()
    assert after.st_mtime_ns // 10**9 > status.st_mtime_ns // 10**9
    assert after.st_mode & 0o777 == 0o640
    assert sorted(path.name for path in beside.glob("*.py")) == ["same.py"]


def test_compiled_code_of_a_file_that_was_there_once_is_not_taken(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write_module("x = 1", "stale.py")
    status = (beside / "stale.py").stat()
    (beside / "stale.py").unlink()
    del sys.modules["stale"]
    name = modules.save("x = 2", "stale.py")
    os.utime(beside / "stale.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert modules.import_again(name).x == 2
    del sys.modules["stale"]
    assert importlib.import_module("stale").x == 2


def test_a_link_stays_one(beside: Path) -> None:
    (beside / "shelf").mkdir()
    target = beside / "shelf" / "real.py"
    target.touch()
    (beside / "linked.py").symlink_to(target)
    assert write_module("x = 3", "linked.py", force=True).x == 3
    assert (beside / "linked.py").is_symlink()
    assert "x = 3" in target.read_text()


@pytest.mark.parametrize(
    ("source", "path", "error"),
    [
        ("x = ", "tools.py", SyntaxError),
        ("x = '\0'", "tools.py", (SyntaxError, ValueError)),
        ("x", "", ValueError),
        ("x", "os.py", ValueError),
        ("x", "no/tools.py", FileNotFoundError),
    ],
)
def test_write_module_refuses_before_it_writes(source: str, path: str, error: type[Exception], beside: Path) -> None:
    with pytest.raises(error) as caught:
        write_module(source, path)
    assert list(beside.iterdir()) == []
    assert all("notebook/modules.py" not in str(entry.path) for entry in caught.traceback)
