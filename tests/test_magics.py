"""``%pmap``, ``%pworkers``, ``%config NBParallel``: how their lines are read, what they do in a shell and a kernel."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from kernels import Kernel
from traitlets import TraitError
from traitlets.config import Config

import nbparallel
from nbparallel import backends, config, mapping
from nbparallel.engine import process
from nbparallel.engine.methods import START_METHODS
from nbparallel.errors import NBParallelWarning
from nbparallel.notebook import FAMILY, load, unload
from nbparallel.notebook.comprehension import parse
from nbparallel.notebook.maps import PMAP_OPTIONS
from nbparallel.notebook.options import split_options


def inverse(x: float) -> float:
    return 1 / x


NAMES: dict[str, Any] = {
    "f": lambda x, y=1: 10 * x + y,
    "xs": [3, 1, 2],
    "pairs": [(1, 2), (3, 4)],
    "text": "ab",
    "math": __import__("math"),
    "inverse": inverse,
}


@pytest.fixture
def user() -> dict[str, Any]:
    return {"__name__": "__main__", **NAMES}


# ---- comprehensions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "f(x) for x in xs",
        "f(x, 2) for x in xs",
        "f(x=x) for x in xs",
        "x ** 2 for x in range(4) if x % 2",
        "x for x in xs if x > 1 if x < 3",
        "f(a, b) for a, b in pairs",
        "(a, rest) for a, *rest in [(1, 2, 3), (4,)]",
        "a + b for (a, (b, c)) in [(1, (2, 3))]",
        "x * y for x in xs for y in range(x)",
        "(x, c) for x in xs if x > 1 for c in text if c != 'b'",
        "x for x in xs for x in range(x)",
        "1 for _ in range(3)",
        "y + x for x in xs if (y := f(x)) > 15",
        "(z := x + 1) * z for x in xs",
        "[i * x for i in range(x)] for x in xs",
        "{k: x for k in text} for x in xs",
        "(lambda y: x + y)(1) for x in xs",
        "f'{x:>3}|{{}}|$x' for x in xs",
        "x if x else -1 for x in (0, 1)",
        "math.sqrt(x) for x in xs",
        "x for x in []",
        "a + b for a, b in []",
        "[x for x in xs]",
        "(x for x in xs)",
        "x for x in xs  # a comment",
    ],
)
def test_a_comprehension_gives_what_python_gives(source: str, user: dict[str, Any]) -> None:
    bare = source.partition("#")[0].strip()
    expected = eval(bare if bare[0] + bare[-1] == "[]" else f"list({bare})", dict(user))
    read = parse(source)
    assert list(map(read.function(user), *read.inputs(user))) == expected
    assert nbparallel.pmap(read.function(user), *read.inputs(user), backend="serial") == expected


def test_a_plain_call_is_the_function_itself(user: dict[str, Any]) -> None:
    assert parse("f(x) for x in xs").function(user) is user["f"]
    assert parse("f(a, b) for a, b in pairs").function(user) is user["f"]
    for other in ("f(b, a) for a, b in pairs", "f(x, 1) for x in xs", "x(x) for x in [f]", "f(*x) for x in pairs"):
        assert parse(other).function(user).__name__ == "<pmap>", other


def test_the_function_belongs_to_the_notebook(user: dict[str, Any]) -> None:
    made = parse("f(x) + offset for x in xs").function(user)
    assert made.__module__ == "__main__"
    assert made.__globals__ is user
    user["offset"] = 100
    assert made(1) == 111


def test_it_closes_over_the_variables_around_it(user: dict[str, Any]) -> None:
    local = {"n": 2, "ys": [1, 2, 3], "unused": object(), "f": lambda x: -x}
    read = parse("f(x) * n for x in ys if x < n + 1")
    made = read.function(user, local)
    assert list(map(made, *read.inputs(user, local))) == [-2, -4]
    assert sorted(made.__code__.co_freevars) == ["f", "n"]
    assert "ys" not in user


def test_a_single_loop_hands_its_iterable_over_as_it_is(user: dict[str, Any]) -> None:
    user["endless"] = iter(int, 1)
    assert parse("x for x in endless").inputs(user) == [user["endless"]]
    assert parse("x for x in xs").inputs(user)[0] is user["xs"]


def test_a_failing_element_shows_its_source(user: dict[str, Any]) -> None:
    made = parse("1 / (x - 1) for x in xs").function(user)
    with pytest.raises(ZeroDivisionError) as caught:
        made(1)
    shown = "".join(traceback.format_exception(caught.value))
    assert 'File "<%pmap 1 / (x - 1) for x in xs>", line 1, in <pmap>\n    1 / (x - 1) for x in xs\n' in shown


@pytest.mark.parametrize(
    ("source", "label"),
    [("f(x,2) for x in xs", "f(x, 2)"), (f"{'x + ' * 30}x for x in xs", f"{'x + ' * 9}x +…")],
)
def test_its_label_is_its_element(source: str, label: str) -> None:
    assert parse(source).label == label
    assert len(label) <= 40


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "%pmap needs a comprehension, for example: f(x) for x in xs"),
        ("   ", "%pmap needs a comprehension, for example: f(x) for x in xs"),
        ("f(3)", "%pmap takes a comprehension, for example: f(x) for x in xs"),
        ("f(x for x in xs)", "%pmap takes a comprehension, for example: f(x) for x in xs"),
        ("{x for x in xs}", "%pmap returns a list: leave the braces out and make a set or a dict of it"),
        ("{x: 1 for x in xs}", "%pmap returns a list: leave the braces out and make a set or a dict of it"),
        (
            "x async for x in xs",
            "%pmap can't run an asynchronous comprehension: the event loop is the notebook's alone",
        ),
        (
            "await f(x) for x in xs",
            "%pmap can't run an asynchronous comprehension: the event loop is the notebook's alone",
        ),
        ("x for xs[0] in xs", "%pmap: a loop variable must be a name, not xs[0]"),
        ("x for x.y in xs", "%pmap: a loop variable must be a name, not x.y"),
    ],
)
def test_what_is_no_comprehension_is_said_in_a_line(source: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(source)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("source", "caret", "said"),
    [
        ("f(x for x in xs", 1, "'(' was never closed"),
        ("f(x)) for x in xs", 4, "unmatched ')'"),
        ("f(x] for x in xs", 3, "closing parenthesis ']' does not match opening parenthesis '('"),
        ("x for x in", 10, "invalid syntax"),
        ("x for in xs", 6, "invalid syntax"),
        ("'x for x in xs", 0, "unterminated string literal (detected at line 1)"),
        ("(yield x) for x in xs", 1, "'yield' inside generator expression"),
        ("x for x in (y := xs)", 12, "assignment expression cannot be used in a comprehension iterable expression"),
    ],
)
def test_a_syntax_error_points_at_its_place(source: str, caret: int, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(source)
    lines = str(caught.value).splitlines()
    assert lines == [f"%pmap: {said}", f"    {source}", f"    {' ' * caret}^"]


# ---- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "options", "rest"),
    [
        ("f(x) for x in xs", {}, "f(x) for x in xs"),
        ("-j 4 f(x) for x in xs", {"workers": 4}, "f(x) for x in xs"),
        ("-j4 -o r  'a  b' for x in xs", {"workers": 4, "out": "r"}, "'a  b' for x in xs"),
        ("--workers=3 --backend threads x", {"workers": 3, "backend": "threads"}, "x"),
        ("--seed 1 --chunksize auto x -j 4", {"seed": 1, "chunksize": None}, "x -j 4"),
        ("--chunksize 7 -b serial x", {"chunksize": 7, "backend": "serial"}, "x"),
        ("-j 1 -j 2 x", {"workers": 2}, "x"),
        ("-- -x for x in xs", {}, "-x for x in xs"),
        ("-j 2 -- -x for x in xs", {"workers": 2}, "-x for x in xs"),
        ("-1 * x for x in xs", {}, "-1 * x for x in xs"),
        ("-(x) for x in xs", {}, "-(x) for x in xs"),
        ("", {}, ""),
    ],
)
def test_options_are_read_in_front_of_the_expression(line: str, options: dict[str, Any], rest: str) -> None:
    assert split_options(line, PMAP_OPTIONS, "%pmap") == (options, rest)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-q 3 x", "unknown option -q; known: -j, --workers, "),
        ("--fast x", "unknown option --fast; known: "),
        ("-f(x) for x in xs", "An expression that begins with a minus goes behind --"),
        ("-j", "-j needs a value"),
        ("-j four x", "-j four: this must be a whole number"),
        ("-j 0 x", "-j 0: workers must be at least 1, not 0"),
        ("-b gpu x", "-b gpu: unknown backend 'gpu'; known: processes, "),
        ("-o 2r x", "-o 2r: this must be the name of a variable"),
        ("-o for x", "-o for: this must be the name of a variable"),
        ("--chunksize 0 x", "--chunksize 0: chunksize must be at least 1, not 0"),
        ("--seed -1 x", "--seed -1: seed must not be negative"),
    ],
)
def test_wrong_options_are_said_in_a_line(line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        split_options(line, PMAP_OPTIONS, "%pmap")
    assert str(caught.value).startswith("%pmap: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- in a shell ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bare_shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell without a history, whose ``__main__`` is not the tests' own, with the notebook's first settings."""
    monkeypatch.setattr(config, "_settings", config.Settings())
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    shell = InteractiveShell(config=Config(HistoryManager=Config(enabled=False)))
    shell.user_ns.update(NAMES)
    yield shell
    unload(shell)
    _await_preparation()


@pytest.fixture
def shell(bare_shell: InteractiveShell) -> InteractiveShell:
    bare_shell.extension_manager.load_extension("nbparallel")
    return bare_shell


def _await_preparation() -> None:
    for thread in threading.enumerate():
        if thread.name == "nbparallel-prepare":
            thread.join(10)


def inventory(shell: InteractiveShell) -> dict[str, list[str]]:
    """Return what an extension can add to a shell."""
    return {
        "line": sorted(shell.magics_manager.magics["line"]),
        "cell": sorted(shell.magics_manager.magics["cell"]),
        "registry": sorted(shell.magics_manager.registry),
        "configurables": sorted(type(each).__name__ for each in shell.configurables),
        "matchers": [matcher.__name__ for matcher in shell.Completer.custom_matchers],
    }


def value_of(shell: InteractiveShell, cell: str) -> Any:
    done = shell.run_cell(cell)
    done.raise_error()
    return done.result


def test_loading_twice_leaves_one_of_everything_and_unloading_none(bare_shell: InteractiveShell) -> None:
    bare_shell.run_line_magic("config", "")  # IPython 9 makes its own magics when they are first looked at
    before = inventory(bare_shell)
    manager = bare_shell.extension_manager
    assert manager.load_extension("nbparallel") is None
    loaded = inventory(bare_shell)
    for kind in ("line", "cell"):
        assert loaded[kind] == sorted([*before[kind], *(name for each in FAMILY for name in each.magics[kind])])
    ours = ["NBParallel", *(each.__name__ for each in FAMILY)]
    assert loaded["configurables"] == sorted([*before["configurables"], *ours])
    manager.reload_extension("nbparallel")
    load(bare_shell)
    assert inventory(bare_shell) == loaded
    assert bare_shell.run_line_magic("pmap", "-b serial f(x) for x in xs") == [31, 11, 21]
    manager.unload_extension("nbparallel")
    assert inventory(bare_shell) == before
    manager.load_extension("nbparallel")
    assert inventory(bare_shell) == loaded


def test_loading_survives_a_value_that_is_refused(bare_shell: InteractiveShell) -> None:
    bare_shell.config.NBParallel.workers = 0
    with pytest.warns(NBParallelWarning, match="at least 1"):
        load(bare_shell)
    assert bare_shell.run_line_magic("pmap", "-b serial f(x) for x in xs") == [31, 11, 21]


def test_loading_again_leaves_what_was_set(bare_shell: InteractiveShell) -> None:
    manager = bare_shell.extension_manager
    manager.load_extension("nbparallel")
    bare_shell.run_line_magic("config", "NBParallel.workers=3")
    bare_shell.run_line_magic("config", "NBParallel.backend='nope'")
    config.configure(workers=2)
    manager.reload_extension("nbparallel")
    assert config.settings().workers == 2
    bare_shell.run_line_magic("config", "NBParallel.workers=4")
    assert config.settings().workers == 4


def test_loading_gets_the_workers_start_ready(bare_shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(process, "prepare", asked.append)
    load(bare_shell)
    _await_preparation()
    assert asked == [config.settings().start_method]


def test_loading_survives_a_system_that_can_start_nothing(
    bare_shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(process, "prepare", fail)
    load(bare_shell)
    _await_preparation()  # an exception in a thread is a warning, and a warning an error
    assert bare_shell.run_line_magic("pmap", "-b serial x for x in xs") == [3, 1, 2]


def test_pmap_is_an_expression(shell: InteractiveShell) -> None:
    assert value_of(shell, "r = %pmap -b serial f(x) for x in xs\nr") == [31, 11, 21]
    assert value_of(shell, "%pmap -b serial f'{x}$x' for x in xs") == ["3$x", "1$x", "2$x"]


def test_pmap_works_inside_a_function(shell: InteractiveShell) -> None:
    cell = (
        "def go(n):\n    ys = range(n)\n    r = %pmap -b serial f(x, n) for x in ys if x < n - 1\n    return r\ngo(3)"
    )
    assert value_of(shell, cell) == [3, 13]


def test_out_stores_the_list_instead(shell: InteractiveShell) -> None:
    assert value_of(shell, "%pmap -b serial -o kept x for x in xs") is None
    assert shell.user_ns["kept"] == [3, 1, 2]


def test_a_semicolon_silences(shell: InteractiveShell) -> None:
    assert value_of(shell, "%pmap -b serial -o kept ';' for x in xs ;") is None
    assert shell.user_ns["kept"] == [";"] * 3
    assert shell.run_line_magic("pmap", "-b serial x for x in xs;") is None


def test_the_options_reach_pmap(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(mapping, "pmap", lambda *args, **options: given.append((args, options)))
    shell.run_line_magic("pmap", "-j 3 -b threads --chunksize 2 --seed 5 f(x) for x in xs")
    options = {"workers": 3, "backend": "threads", "chunksize": 2, "seed": 5, "label": "f(x)"}
    assert given == [((NAMES["f"], NAMES["xs"]), options)]


def test_a_tasks_own_error_is_raised_as_itself(shell: InteractiveShell) -> None:
    with pytest.raises(ZeroDivisionError):
        shell.run_line_magic("pmap", "-b serial inverse(x) for x in (1, 0)")
    assert mapping.last_run().results[0] == 1  # type: ignore[union-attr]


def test_a_usage_error_is_shown_in_a_line(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(shell.run_cell("%pmap").error_in_exec, UsageError)
    assert capsys.readouterr().err == "UsageError: %pmap needs a comprehension, for example: f(x) for x in xs\n"


@pytest.mark.parametrize("name", ["pmap", "pworkers"])
def test_a_magic_explains_itself(name: str, shell: InteractiveShell) -> None:
    found = shell.object_inspect(f"%{name}")
    assert found["docstring"].count(f"%{name}") >= 3
    if name == "pmap":
        assert all(option in found["docstring"] for option in PMAP_OPTIONS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%pmap -", list(PMAP_OPTIONS)),
        ("r = %pmap --se", ["--seed"]),
        ("%pmap -j 2 --ba", ["--backend"]),
        ("%pworkers re", ["restart"]),
        ("%pmap f(-", []),
        ("x = a - -", []),
    ],
)
def test_options_are_completed(line: str, expected: list[str], shell: InteractiveShell) -> None:
    shell.Completer.use_jedi = False
    with provisionalcompleter():
        found = [each.text for each in shell.Completer.completions(line, len(line)) if each.type == "option"]
    assert sorted(found) == sorted(expected)


def test_pworkers_shows_what_there_is(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("pworkers", "")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == repr(nbparallel.resources()).splitlines()[0]
    assert lines[3:] == [
        f"workers        {nbparallel.resources().cores} (auto: one per effective core)",
        f"start method   {START_METHODS[0]}",
        "warm           none yet: the first map starts them",
    ]


def test_pworkers_sets_the_number(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("pworkers", "4")
    assert config.settings().workers == 4
    shell.run_line_magic("pworkers", " auto ")
    assert config.settings().workers is None
    assert capsys.readouterr().out == f"workers  4\nworkers  {nbparallel.resources().cores}\n"


@pytest.mark.parametrize("word", ["0", "-1", "many", "1.5", "4 5"])
def test_pworkers_refuses_what_is_no_number(word: str, shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match=f"%pworkers takes a number, auto or restart, not {word}: "):
        shell.run_line_magic("pworkers", word)
    assert config.settings().workers is None


def test_pworkers_names_the_warm_workers_and_stops_them(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = set(nbparallel.pmap(pid_of, range(8), workers=2, chunksize=1))
    capsys.readouterr()
    shell.run_line_magic("pworkers", "")
    warm = capsys.readouterr().out.splitlines()[-1]
    assert warm.startswith("warm           2: pid ")
    assert all(f"pid {pid} (" in warm for pid in pids)
    assert warm.count(" MiB)") == 2
    shell.run_line_magic("pworkers", "restart")
    assert capsys.readouterr().out == "2 stopped; the next map starts fresh workers\n"
    assert backends.warm() == {}
    assert not pids & set(nbparallel.pmap(pid_of, range(8), workers=2, chunksize=1))


def pid_of(_: int) -> int:
    import os

    return os.getpid()


# ---- %config NBParallel -------------------------------------------------------------------------------------------


def settings_of(shell: InteractiveShell) -> Any:
    return next(each for each in shell.configurables if type(each).__name__ == "NBParallel")


def test_config_and_configure_are_the_same(shell: InteractiveShell) -> None:
    shell.run_line_magic("config", "NBParallel.workers = 3")
    shell.run_line_magic("config", "NBParallel.backend = 'threads'")
    assert (config.settings().workers, config.settings().backend) == (3, "threads")
    nbparallel.configure(workers=5, progress=False, start_method="spawn")
    shown = [shell.run_line_magic("config", f"NBParallel.{name}") for name in ("workers", "progress", "start_method")]
    assert shown == [5, False, "spawn"]
    # Setting one thing leaves what configure() has changed in the meantime.
    shell.run_line_magic("config", "NBParallel.progress = True")
    assert config.settings() == config.Settings(workers=5, backend="threads", start_method="spawn", progress=True)
    shell.run_line_magic("config", "NBParallel.workers = 'auto'")
    assert config.settings().workers is None


def test_config_lists_the_settings(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    nbparallel.configure(workers=7)
    shell.run_line_magic("config", "NBParallel")
    shown = capsys.readouterr().out
    for name in ("workers", "backend", "start_method", "progress", "output", "memory_pause", "memory_stop"):
        assert f"NBParallel.{name}=" in shown
    assert "Current: 7" in shown


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("workers", 0, "NBParallel.workers: workers must be at least 1, not 0"),
        ("workers", "four", "NBParallel.workers: workers must be a whole number of at least 1, not 'four'"),
        ("backend", "gpu", "NBParallel.backend: unknown backend 'gpu'; known: processes"),
        ("backend", None, "NBParallel.backend can't be None"),
        ("start_method", "teleport", "NBParallel.start_method: unknown start method 'teleport'"),
        ("progress", "yes", "NBParallel.progress: progress must be True, False or 'auto', not 'yes'"),
        ("memory_pause", 85, "NBParallel.memory_pause: memory_pause must be a share of the memory, above 0"),
        ("memory_stop", 0.5, "NBParallel.memory_stop: memory_pause (0.85) must not be above memory_stop (0.5)"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: Any, said: str, shell: InteractiveShell) -> None:
    with pytest.raises(TraitError) as caught:
        setattr(settings_of(shell), name, value)
    assert str(caught.value).startswith(said)
    assert config.settings() == config.Settings()


def test_a_setting_is_observed(shell: InteractiveShell) -> None:
    seen: list[Any] = []
    settings = settings_of(shell)
    settings.observe(lambda change: seen.append((change.name, change.old, change.new)))
    settings.workers = 2
    settings.workers = 2
    settings.workers = None
    assert seen == [("workers", None, 2), ("workers", 2, None)]


def test_a_profile_sets_the_defaults(bare_shell: InteractiveShell) -> None:
    bare_shell.config.NBParallel.workers = 6
    load(bare_shell)
    assert config.settings().workers == 6


# ---- in a kernel --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_in_a_kernel() -> None:
    with Kernel() as kernel:
        kernel.run("%load_ext nbparallel")
        kernel.run("%reload_ext nbparallel")
        kernel.run("import os\nfactor = 2\ndef times(x):\n    print('at', x)\n    return factor * x")
        first = kernel.run("%pmap -j 1 times(x) + y for x in range(3) for y in (0, 100) if x")
        assert first.result == "[2, 102, 4, 104]"
        assert first.stdout == "at 1\nat 1\nat 2\nat 2\n"
        # A warm worker sees what has changed.
        kernel.run("factor = 5\ndef times(x):\n    return factor * x")
        assert kernel.run("r = %pmap -j 1 times(x) for x in range(3)\nr").result == "[0, 5, 10]"
        inside = "def go(n):\n    r = %pmap -j 1 times(x) + n for x in range(n)\n    return r\ngo(3)"
        assert kernel.run(inside).result == "[3, 8, 13]"
        assert (
            kernel.run("pids = %pmap -j 2 --chunksize 1 os.getpid() for _ in range(4)\nos.getpid() in pids").result
            == "False"
        )
        failed = kernel.run("%pmap 1 / x for x in (1, 0)", fails=True)
        assert failed.error is not None
        assert failed.error.name == "ZeroDivisionError"
        assert "----> 1 1 / x for x in (1, 0)\n" in failed.error.traceback
        silent = kernel.run("%pmap -j 1 -o kept times(x) for x in [9];")
        assert silent.result is None
        assert kernel.run("kept").result == "[45]"
        wrong = kernel.run("%pmap times(x) for x in")
        assert wrong.stderr.splitlines() == [
            "UsageError: %pmap: invalid syntax",
            "    times(x) for x in",
            "                     ^",
        ]
        assert "warm           none yet" not in kernel.run("%pworkers").stdout
        stopped = kernel.run("%pworkers restart").stdout
        assert stopped.endswith("stopped; the next map starts fresh workers\n")
        assert kernel.run("%pmap -j 1 times(x) for x in [1]").result == "[5]"
        kernel.run("%config NBParallel.workers = 3")
        assert kernel.run("import nbparallel\nnbparallel.configure().workers").result == "3"
        kernel.run("nbparallel.configure(workers=1)")
        assert kernel.run("%config NBParallel.workers").result == "1"
