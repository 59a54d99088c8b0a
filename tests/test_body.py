"""``%%pfor`` and ``%%pbackground`` in a shell: how their loops and bodies are read, and what they refuse."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from test_magics import bare_shell, shell, value_of

import nbparallel
from nbparallel import jobs, mapping
from nbparallel.notebook import body
from nbparallel.notebook.cells import Cell
from nbparallel.notebook.comprehension import parse_loops
from nbparallel.notebook.jobs import PBACKGROUND_OPTIONS
from nbparallel.notebook.maps import PMAP_OPTIONS

__all__ = ["bare_shell", "shell"]

USER: dict[str, Any] = {"__name__": "__main__", "xs": [3, 1, 2], "total": 10, "f": lambda x: 10 * x}


def read(source: str, *, has_shell: bool = False, in_loop: bool = True) -> body.Body:
    cell = Cell("<cell>", ["%%pfor x in xs\n", *source.splitlines(keepends=True)], 1)
    return body.read(cell, "%%pfor", TransformerManager().transform_cell, has_shell=has_shell, in_loop=in_loop)


def result_of(source: str, x: Any = 2) -> Any:
    user = dict(USER)
    try:
        return read(source).function(user, ("x",))(x)
    finally:
        user.pop("__builtins__")
        assert user == USER  # nothing gets out


# ---- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x", 2),
        ("x;", 2),
        ("y = f(x)\ny + 1", 21),
        ("y = f(x)", None),
        ("x + total  # a comment\n\n# another\n", 12),
        ("\n\n# first a comment\nx", 2),
        ('"""A text."""', "A text."),
        ('"""A text."""\nx', 2),
        ("(x,\n  x)", (2, 2)),
        ("a, *b = range(4)\nb", [1, 2, 3]),
        ("if x > 1:\n    x", None),
        ("if x > 1:\n    return 'early'\nx", "early"),
        ("if x > 1:\n    continue\nx", None),
        ("for i in range(3):\n    if i:\n        continue\n    x += 1\nx", 3),
        ("for i in range(3):\n    pass\nelse:\n    continue\nx", None),
        ("while True:\n    break\nx", 2),
        ("with open(__import__('os').devnull):\n    continue", None),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    x = 'mended'\nx", "mended"),
        ("import math\nmath.floor(2.5)", 2),
        ("def inner(n):\n    return 1 if n < 2 else n * inner(n - 1)\ninner(5)", 120),
        ("n = 0\ndef up():\n    nonlocal n\n    n += x\n    return n\nup(), up(), n", (2, 4, 4)),
        ("def numbers():\n    yield x\n    yield x\nlist(numbers())", [2, 2]),
        ("async def later():\n    return x\nimport asyncio\nasyncio.run(later())", 2),
        ("class A:\n    n = x\n    def m(self):\n        return [self.n * i for i in range(x)]\nA().m()", [0, 2]),
        ("class A:\n    m = 1\nclass B(A):\n    def g(self):\n        return super().m\nB().g()", 1),
        ("[i * x for i in range(3) if (last := i)]\nlast", 2),
        ("{k: x for k in 'ab'}", {"a": 2, "b": 2}),
        ("(lambda y=x: x + y)()", 4),
        ("match x:\n    case 2:\n        'two'\n    case _:\n        'other'", None),
        ("    y = x\n    y + 1", 3),  # as in the loop that it was
        ("# from here on:\n  if x:\n    x = 'in'\n  x", "in"),
        ("  '''a\nb'''", "a\nb"),
        ("\ty = x\n\ty", 2),
        ("global_ = x\nglobal_", 2),
        ("x\n1 if x else 2\n", 1),
        ("é = 'ü'\né", "ü"),
    ],
)
def test_the_last_expression_is_the_result(source: str, expected: Any) -> None:
    assert result_of(source) == expected


@pytest.mark.parametrize(
    ("source", "line", "caret", "said"),
    [
        ("x = (", 2, 4, "'(' was never closed"),
        ("y = 1\n1/,2", 3, 2, "invalid syntax"),
        ("def g():\n    x\n  x", 4, None, "unindent does not match any outer indentation level"),
        ("    x\ny", 3, 0, "this line is not indented as the first one is"),
        ("x\n    y", 3, None, "unexpected indent"),
        ("yield x", 2, 0, "'yield' outside a function: "),
        ("y = yield from x", 2, 4, "'yield' outside a function: "),
        ("if x:\n    await x", 3, 4, "no event loop runs there: "),
        ("async for y in x:\n    y", 2, 0, "no event loop runs there: "),
        ("async with x:\n    y", 2, 0, "no event loop runs there: "),
        ("x\nif x:\n    break", 4, 4, "'break' can't end the loop: "),
        ("for i in x:\n    pass\nelse:\n    break", 5, 4, "'break' can't end the loop: "),
        ("global total\ntotal += x", 2, 0, "'global total' would only change a worker's copy: "),
        ("y = 'é'; global a, b", 2, 9, "'global a, b' would only change a worker's copy: "),
        ("nonlocal total\nx", 2, 0, "no binding for nonlocal 'total' found"),
        ("x\nfrom math import *", 3, None, "import * only allowed at module level"),
        ("x\n%time x", 3, 0, "%time needs IPython, which is not in worker processes"),
        ("\n  \ny = !ls\nz = %time x", 5, 4, "%time needs IPython"),
        ("%%bash\nls", 2, 0, "%%bash needs IPython"),
        ("total?", 2, 0, "%pinfo needs IPython"),
        ("!ls\nx = (", 3, None, "'(' was never closed"),
    ],
)
def test_what_a_body_cannot_do_is_said_with_its_line(source: str, line: int, caret: int | None, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(source).function(dict(USER), ("x",))
    first, shown, pointer = str(caught.value).split("\n")
    assert first.startswith(f"%%pfor: {said}")
    assert first.endswith(f" (line {line} of the cell)")
    assert shown == f"    {source.splitlines()[line - 2]}"
    assert caret is None or pointer == f"    {' ' * caret}^"


@pytest.mark.parametrize("source", ["", "\n\n", "# only a comment\n"])
def test_a_body_must_have_something_in_it(source: str) -> None:
    with pytest.raises(UsageError, match="needs a body: what to compute"):
        read(source)


def test_a_null_character_is_no_python() -> None:
    with pytest.raises(UsageError, match=r"^%%pfor: .*null"):
        read("x = '\0'")


def test_a_process_with_a_shell_has_its_magics_and_the_variables() -> None:
    source = "global total\n%time x\n!ls"
    names = read(source, has_shell=True).names
    assert "get_ipython" in names
    with pytest.raises(UsageError):
        read(source)


def test_outside_of_a_loop_there_is_nothing_to_continue() -> None:
    with pytest.raises(UsageError, match="'continue' not properly in loop"):
        read("continue", in_loop=False).function({})


def test_the_lines_are_those_of_the_cell() -> None:
    function = read("y = [x,\n  1 / x]\ny").function(dict(USER), ("x",))
    assert function.__name__ == "<pfor>"
    assert function.__module__ == "__main__"
    with pytest.raises(ZeroDivisionError) as caught:
        function(0)
    [*_, last] = traceback.extract_tb(caught.value.__traceback__)
    assert (last.filename, last.lineno, last.colno, last.name) == ("<cell>", 3, 2, "<module>")


def test_its_label_is_its_first_line() -> None:
    assert read("\n# about\n  y = f(x)  # here\n  y").first_line == "y = f(x)  # here"
    assert len(read("y = " + "x + " * 20 + "x").first_line) == 40


# ---- commands -----------------------------------------------------------------------------------------------------


def worker_says(source: str, x: Any = 2) -> str:
    """Run a body in an interpreter of its own, which has no shell, and return what it prints."""
    function = ast.unparse(ast.Module(read(source).statements, []))
    done = subprocess.run(
        [sys.executable, "-c", f"x, total = {x!r}, 10\n{function}"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(nbparallel.__file__).parents[1]), "HOME": "home", "PATH": "/bin:/usr/bin"},
    )
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="these are commands of a POSIX shell")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("print('before')\n!echo $x {x + total} '{x}'", "before\n2 12 2\n"),
        ("!echo {x!r:} {'a' * x}", "2 aa\n"),
        ("!echo $$HOME", "home\n"),
        ("!echo $x ${HOME}", "home\n"),  # so nothing is filled in
        ("!echo x | awk '{print $1}'", "x\n"),
        ("!exit 3\nprint('on')", "on\n"),
        ("lines = !echo {x}; echo b >&2\nprint(lines, lines.s)", "['2', 'b'] 2 b\n"),
        ("def g(n):\n    y = n + x\n    !echo {n} {y}\ng(5)", "5 7\n"),
    ],
)
def test_a_command_is_run_as_ipython_runs_it(source: str, said: str) -> None:
    assert worker_says(source) == said


# ---- loops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "names", "rows", "label"),
    [
        ("x in xs", ("x",), [3, 1, 2], "for x in xs"),
        ("for x in xs:", ("x",), [3, 1, 2], "for x in xs"),
        ("a, b in [(1, 2), (3, 1)] if a > b", ("a", "b"), [(3, 1)], "for a, b in [(1, 2), (3, 1)] if a > b"),
        ("i, (a, *rest) in enumerate(['abc'])", ("i", "a", "rest"), [(0, "a", ["b", "c"])], None),
        ("x in xs for y in range(x) if x < 3", ("x", "y"), [(1, 0), (2, 0), (2, 1)], None),
        ("for x in xs if (y := f(x)) > 15 if (z := 1)", ("x", "y"), [(3, 30), (2, 20)], None),
        ("format in (1, 2)  # a comment", ("format",), [1, 2], "for format in (1, 2)"),
        ("_ in range(2)", ("_",), [0, 1], "for _ in range(2)"),
    ],
)
def test_loops_are_those_of_a_comprehension(source: str, names: Any, rows: Any, label: str | None) -> None:
    loops = parse_loops(source, {"x", "y", "a", "b"})
    assert loops.names == names
    found = loops.inputs(dict(USER))
    assert list(found[0] if len(names) == 1 else zip(*found, strict=True)) == rows
    assert label is None or loops.label == label


# The parser's own words, which differ from one Python to the next.
NO_IN = "invalid syntax" if sys.version_info < (3, 13) else "'in' expected after for-loop variables"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "%%pfor needs what to loop over, for example: %%pfor x in xs"),
        (":", "%%pfor needs what to loop over, for example: %%pfor x in xs"),
        ("x", f"%%pfor: {NO_IN}\n    x\n     ^"),
        ("x in", "%%pfor: invalid syntax\n    x in\n        ^"),
        ("x in (1, 2", "%%pfor: '(' was never closed\n    x in (1, 2\n         ^"),
        ("x in xs)", "%%pfor: unmatched ')'\n    x in xs)\n           ^"),
        ("x in xs), (0", "%%pfor takes loops as in a comprehension, for example: %%pfor x in xs if x > 0"),
        ("() in [()]", "%%pfor needs a loop variable"),
        ("x.y in xs", "%%pfor: a loop variable must be a name, not x.y"),
        ("async for x in xs", "%%pfor can't run an asynchronous comprehension: the event loop is the notebook's alone"),
    ],
)
def test_what_are_no_loops_is_said(source: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_loops(source, ())
    assert str(caught.value) == said


# ---- in a shell ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_jobs() -> Iterator[None]:
    yield
    assert jobs.known() == []


def test_pfor_returns_the_list_or_stores_it(shell: InteractiveShell) -> None:
    assert value_of(shell, "%%pfor -b serial x in xs\ny = f(x)\ny + 1") == [32, 12, 22]
    assert "y" not in shell.user_ns
    assert value_of(shell, "%%pfor -b serial -o kept x in xs if x > 1\nx") is None
    assert shell.user_ns["kept"] == [3, 2]
    assert value_of(shell, "%%pfor -b serial x in xs\nx;") is None
    assert value_of(shell, "%%pfor -b serial x in xs\nf'{x}$x {{}}'") == ["3$x {}", "1$x {}", "2$x {}"]


def test_on_threads_and_serially_the_shell_and_the_variables_are_shared(
    shell: InteractiveShell, capfd: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["total"] = 0
    cell = "global total\ntotal += x\n!echo {x}\nhere = %pwd\nhere;"
    assert value_of(shell, f"%%pfor -b serial -o here x in xs\n{cell}") is None
    assert shell.user_ns["here"] == [os.getcwd()] * 3
    assert shell.user_ns["total"] == 6
    assert capfd.readouterr().out.split() == ["3", "1", "2"]


def test_the_options_of_pfor_reach_pmap(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(mapping, "pmap", lambda *args, **options: given.append((args, options)))
    shell.run_cell_magic("pfor", "-j 3 -b threads --chunksize 2 --seed 5 x in xs", "x")
    [((_, items), options)] = given
    assert items is shell.user_ns["xs"]
    assert options == {"workers": 3, "backend": "threads", "chunksize": 2, "seed": 5, "label": "for x in xs"}


def test_a_body_of_another_magic_and_one_that_a_program_runs(shell: InteractiveShell) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        value_of(shell, "\n\n%%time\n%%pfor -b serial x in xs\n1\n1 / (x - 1)")
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.lineno, last.line) == (4, "1 / (x - 1)")
    with pytest.raises(ZeroDivisionError) as caught:
        shell.run_cell_magic("pfor", "-b serial x in xs", "1 / (x - 1)\n")
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno, last.line) == ("<%%pfor -b serial x in xs>", 2, "1 / (x - 1)")


def test_a_variable_that_is_added_up_is_explained(shell: InteractiveShell) -> None:
    shell.user_ns["total"] = 0
    with pytest.raises(UnboundLocalError) as caught:
        value_of(shell, "%%pfor -b serial x in xs\ntotal += x")
    assert caught.value.__notes__[0].startswith("The notebook has a total too, but code that assigns total has its own")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%pbackground -b serial\n1", "-b serial: a job runs on 'processes' or 'threads', not on 'serial'"),
        ("%%pbackground train\n1", "%%pbackground takes only options on its first line, not train"),
        ("%%pbackground -j 2\n1", "unknown option -j"),
        ("%%pbackground --label ''\n'''", "unterminated triple-quoted string literal"),
        ('%%pbackground --label ""\n1', "--label needs a value"),
        ("%%pbackground\nglobal x", "'global x' would only change a worker's copy"),
        ("%pjobs list", "%pjobs takes fetch, cancel or forget and the number of a job, or nothing"),
        ("%pjobs fetch 0", "%pjobs: there is no job 0; there are: none"),
        ("%pjobs cancel done", "%pjobs: there is no job done; there are: none"),
    ],
)
def test_wrong_lines_of_jobs_are_said(cell: str, said: str, shell: InteractiveShell) -> None:
    with pytest.raises(UsageError) as caught:
        value_of(shell, cell)
    assert said in str(caught.value)


def test_a_label_may_have_spaces(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    assert value_of(shell, '%%pbackground -b threads -o job --label "a  long name"\n\nx = 1\nx + 1') is None
    job = shell.user_ns.pop("job")
    assert (job.label, job.result(), job.state) == ("a  long name", 2, "done")
    assert "x" not in shell.user_ns
    shell.run_line_magic("pjobs", "")
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["job", "state", "time", "label", "result"]
    assert row.startswith(f"{job.number:<3}  done   ")
    assert row.endswith("  a  long name  2")
    shell.run_line_magic("pjobs", "forget done")
    shell.run_line_magic("pjobs", "")
    assert capsys.readouterr().out == f"job {job.number} forgotten\nno jobs: %%pbackground starts one\n"


@pytest.mark.parametrize(("name", "options"), [("pfor", PMAP_OPTIONS), ("pbackground", PBACKGROUND_OPTIONS)])
def test_the_cell_magics_explain_themselves(name: str, options: Any, shell: InteractiveShell) -> None:
    found = shell.object_inspect(f"%%{name}")
    assert found["docstring"].count(f"%%{name}") >= 2
    assert all(option in found["docstring"] for option in options)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%%pfor --ch", ["--chunksize"]),
        ("%%pbackground -", list(PBACKGROUND_OPTIONS)),
        ("%pjobs f", ["fetch", "forget"]),
        ("r = %pjobs cancel a", ["all"]),
    ],
)
def test_their_lines_are_completed(line: str, expected: list[str], shell: InteractiveShell) -> None:
    shell.Completer.use_jedi = False
    with provisionalcompleter():
        found = [each.text for each in shell.Completer.completions(line, len(line)) if each.type == "option"]
    assert sorted(found) == sorted(expected)
