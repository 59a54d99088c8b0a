"""The shape of the package: imports go one way, public names have one home, importing stays cheap."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import nbparallel

PACKAGE = Path(nbparallel.__file__).parent

#: Rooms and modules in the order in which they may import: each only what stands before it, or its own room.
ORDER = [
    "tracebacks",
    "errors",
    "interrupts",
    "words",
    "commands",
    "machine",
    "serialize",
    "checkpoints",
    "engine",
    "output",
    "backends",
    "config",
    "choice",
    "timeline",
    "runs",
    "nbval",
    "progress",
    "mapping",
    "jobs",
    "pool",
    "executor",
    "multiprocessing",
    "comparison",
    "notebook",
    "cli",
]

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module else []
        else:
            continue
        rooms.update(name.split(".")[1] for name in names if name.startswith("nbparallel."))
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_before_it(path: Path) -> None:
    own = ORDER.index(room_of(path))
    later = {room for room in imported_rooms(path) - {"__version__"} if ORDER.index(room) > own}
    assert not later


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_and_stays_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= 500


@pytest.mark.parametrize("name", nbparallel.__all__)
def test_each_public_name_is_documented_and_has_one_home(name: str) -> None:
    assert nbparallel.__all__.count(name) == 1
    value = getattr(nbparallel, name)
    if name == "__version__":
        return
    assert value.__doc__
    home = importlib.import_module(value.__module__)
    assert getattr(home, name) is value
    assert name in dir(nbparallel)


def test_type_checkers_see_the_same_names_as_users() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    declared = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nbparallel.")
        for alias in node.names
        if alias.asname
    }
    assert declared == set(nbparallel.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        nbparallel.nothing_of_the_kind  # noqa: B018


def test_importing_the_package_starts_nothing_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, threading, nbparallel\n"
        "from nbparallel import pmap\n"
        "heavy = {'numpy', 'pandas', 'IPython', 'tqdm', 'ipywidgets', 'dill', 'psutil', 'pathos', 'sqlite3'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] 1"


def test_a_worker_loads_only_its_half() -> None:
    program = (
        "import sys, nbparallel.engine.worker\n"
        "print(sorted(name for name in sys.modules if name.startswith('nbparallel.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    allowed = ("nbparallel.engine", "nbparallel.serialize", "nbparallel.machine", "nbparallel.interrupts")
    allowed += ("nbparallel.tracebacks", "nbparallel.words")
    assert [name for name in loaded if not name.startswith(allowed)] == []
    assert "nbparallel.engine.manager" not in loaded


def test_the_drop_in_has_all_that_the_standard_module_offers() -> None:
    import multiprocessing

    # Rooms of the standard module, and a choice of pickler that is made here.
    own = {"context", "process", "reduction", "reducer"}
    assert set(multiprocessing.__all__) - own - set(dir(nbparallel.multiprocessing)) == set()
    for name in ("managers", "pool", "queues", "connection", "dummy", "shared_memory", "sharedctypes", "synchronize"):
        ours, standard = getattr(nbparallel.multiprocessing, name), importlib.import_module(f"multiprocessing.{name}")
        offered = set(getattr(standard, "__all__", ()))
        assert {each for each in offered if not hasattr(ours, each)} == set(), name
