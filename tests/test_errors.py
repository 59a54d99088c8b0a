"""What a failed task shows: one traceback, of the user's own lines; in kernels, scripts, pytest and the debugger."""

from __future__ import annotations

import importlib.util
import linecache
import os
import re
import subprocess
import sys
import textwrap
import traceback
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import CELL_TIMEOUT, ENVIRONMENT, METHODS, Kernel, kernel
from nbclient import NotebookClient

import nbparallel
from nbparallel import Executor, Pool, TaskError, pmap, tracebacks
from nbparallel.runs.mends import mend_of
from nbparallel.serialize import describe, rebuild
from nbparallel.tracebacks import Origin, hidden, tidy

__all__ = ["kernel"]

# A frame's heading and its marked line, as IPython shows them: "Cell In[5], line 3, in f(x)", "----> 3     g(x)".
FRAME = re.compile(r"^(?:Cell In\[\d+\], line|File) ?(.*)\n(?:.*\n)*?-+> \d+ *(.*)$", re.MULTILINE)
#: The worker's half of what `outer` shows.
OUTER = [("8, in outer(x)", "return inner(x, [x], a=3)"), ("5, in inner(x, *rest, **options)", "return 1 / (x - 2)")]


def frames(shown: str) -> list[tuple[str, str]]:
    return [(where, line.strip()) for where, line in FRAME.findall(shown)]


@pytest.fixture
def failing(kernel: Kernel) -> Kernel:
    """Return the kernel with functions that fail."""
    if kernel.run("'outer' in globals()").result == "False":
        kernel.run("import contextlib, math, threading\n%load_ext nbparallel")
        kernel.run("""\
            lock = threading.Lock()

            def inner(x, *rest, **options):
                # the line below fails for 2
                return 1 / (x - 2)

            def outer(x):
                return inner(x, [x], a=3)

            def chained(x):
                try:
                    inner(2)
                except ZeroDivisionError as error:
                    raise LookupError("no inverse") from error

            def grouped(x):
                errors = []
                for function in (outer, chained):
                    try:
                        function(2)
                    except Exception as error:
                        errors.append(error)
                raise ExceptionGroup("two", errors)

            def locks(x):
                return lock

            def sleeps(x):
                (folder / f"sleeps {x}").touch()
                time.sleep(1000)

            def dry():
                yield 1
                raise LookupError("the source is dry")
        """)
    return kernel


# ---- in a kernel ----


@pytest.mark.parametrize(
    "cell",
    [
        "pmap(outer, range(4))",
        "pmap(outer, iter(range(4)))",
        "pmap(outer, range(4), seed=1, chunksize=1)",
        "pmap(outer, range(4), ordered=False)",
        "pmap(outer, range(4), backend='threads')",
        "pmap(outer, range(4), backend='serial')",
        "pmap(outer, range(4), backend='pathos')",
        "pmap_async(outer, range(4)).result()",
        "list(pmap_async(outer, [1, 2]))",
        "list(pmap_async(outer, [1, 2]).as_completed())",
        "await pmap_async(outer, range(4))",
        "async for x in pmap_async(outer, [1, 2]): pass",
        "pmap(outer, range(4), on_error='return')[2].rerun()",
        "%pmap outer(x) for x in range(4)",
        "with Pool(2) as pool: pool.map(outer, range(4))",
        "with Pool(2) as pool: pool.map_async(outer, range(4)).get()",
        "with Pool(2) as pool: pool.apply(outer, (2,))",
        "with Pool(2) as pool: pool.apply_async(outer, (2,)).get(60)",
        "with Pool(2) as pool: list(pool.imap(outer, [1, 2]))",
        "with Pool(2) as pool: list(pool.imap_unordered(outer, [1, 2]))",
        "with Executor(2) as executor: executor.submit(outer, 2).result()",
        "with Executor(2) as executor: list(executor.map(outer, [1, 2]))",
        "with Executor(2) as executor: list(executor.map(outer, [1, 2], chunksize=2))",
    ],
)
def test_the_cell_and_the_workers_lines_and_nothing_else(failing: Kernel, cell: str) -> None:
    output = failing.run(cell, fails=True)
    assert output.error.name == "ZeroDivisionError"
    assert output.error.value == "division by zero"
    called, *inside = frames(output.error.traceback)
    assert called == (
        "1",
        cell.replace("%pmap ", "get_ipython().run_line_magic('pmap', '") + "')" * cell.startswith("%"),
    )
    assert inside == OUTER
    assert output.error.traceback.count("Traceback (most recent call last)") == 1
    assert "hidden" not in output.error.traceback  # "[... skipping hidden 3 frame]"


def test_what_is_raised_again_begins_anew(failing: Kernel) -> None:
    failing.run("run = pmap_async(outer, [1, 2])")
    for _ in range(3):
        output = failing.run("run.result()", fails=True)
        assert frames(output.error.traceback) == [("1", "run.result()"), *OUTER]
    output = failing.run("run.resume()", fails=True)
    assert frames(output.error.traceback) == [("1", "run.resume()"), *OUTER]


def test_an_element_of_a_magic_shows_its_own_line(failing: Kernel) -> None:
    output = failing.run("%pmap 1 / x for x in (1, 0)", fails=True)
    assert frames(output.error.traceback)[1:] == [
        ("<%pmap 1 / x for x in (1, 0)>:1, in <pmap>(x)", "1 / x for x in (1, 0)")
    ]


def test_what_led_to_an_error_has_its_own_frames(failing: Kernel) -> None:
    output = failing.run("pmap(chained, [0])", fails=True)
    assert output.error.name == "LookupError"
    cause, direct, error = output.error.traceback.partition("The above exception was the direct cause")
    assert direct
    assert frames(cause) == [
        ("12, in chained(x)", "inner(2)"),
        ("5, in inner(x, *rest, **options)", "return 1 / (x - 2)"),
    ]
    assert frames(error) == [
        ("1", "pmap(chained, [0])"),
        ("14, in chained(x)", 'raise LookupError("no inverse") from error'),
    ]


def test_a_groups_members_have_their_own_frames(failing: Kernel) -> None:
    shown = failing.run("pmap(grouped, [0])").stderr  # IPython leaves groups to Python itself
    assert shown.count("return 1 / (x - 2)") == 2
    assert shown.count('raise ExceptionGroup("two", errors)') == 1
    assert shown.count('raise LookupError("no inverse") from error') == 1
    assert "nbparallel/" not in shown


@pytest.mark.parametrize(
    ("cell", "name", "says"),
    [
        ("pmap(locks, [1])", "SerializationError", "locks → lock can't be sent to a worker"),
        ("pmap(abs, [lock])", "SerializationError", "_thread.lock (<unlocked _thread.lock object>)"),
        ("pmap(lambda x: threading.Lock(), [1])", "SerializationError", "its result, a _thread.lock"),
        ("with Pool(2, abs, (lock,)) as pool: pass", "SerializationError", "initargs"),
        ("with Executor(2) as executor: executor.submit(abs, lock).result()", "SerializationError", "can't be sent"),
        ("pmap(math.sqrt, [-1])", "ValueError", "math domain error"),
        ("pmap(abs, 5)", "TypeError", "'int' object is not iterable"),
        ("pmap(abs, map(int, '1a'))", "ValueError", "invalid literal"),
        ("pmap(abs, [1], chunksize=0)", "ValueError", "chunksize must be at least 1"),
        ("pmap_async(5, [1])", "TypeError", "callable"),
        ("nbparallel.configure(workers=0)", "ValueError", "workers"),
        ("Pool(0)", "ValueError", "workers"),
        ("with Pool(2) as pool: pool.apply_async(abs, 5)", "TypeError", "'int' object is not iterable"),
        ("with Pool(2) as pool: pool.imap(abs, 5)", "TypeError", "'int' object is not iterable"),
        ("with Executor(2) as executor: executor.submit(time.sleep, 0.2).result(0.01)", "TimeoutError", ""),
        ("with Pool(2) as pool: pool.apply_async(sleeps, (1,)).get(0.01)", "TimeoutError", ""),
        ("with Pool(2) as pool: pool.imap(sleeps, [1]).next(0.01)", "TimeoutError", ""),
        ("pmap(sleeps, [1], timeout=0.05)", "TaskTimeout", "ran longer than its limit"),
        ("pmap(sleeps, [1], deadline=0.05)", "TimeoutError", "is not finished after 0.05 s"),
        ("run = pmap_async(sleeps, [1]); run.cancel(); run.result()", "CancelledError", "sleeps was cancelled"),
        ("pmap(os._exit, [3])", "WorkerCrashed", "ended with exit code 3"),
    ],
)
def test_what_no_line_of_the_user_raised_shows_the_cell_alone(failing: Kernel, cell: str, name: str, says: str) -> None:
    error = failing.run(cell, fails=True).error
    assert error.name == name
    assert says in error.value
    assert frames(error.traceback) == [("1", cell)]
    assert error.traceback.count("Traceback (most recent call last)") == 1


def test_what_the_user_has_called_of_a_library_is_shown(failing: Kernel) -> None:
    failing.run("import queue; empty = queue.Queue()")
    take = "get_nowait(self)", "return self.get(block=False)"
    for cell in (
        "pmap(abs, iter(empty.get_nowait, None))",
        "list(pmap_async(abs, iter(empty.get_nowait, None)))",
        "pmap(queue.Queue.get_nowait, [empty], backend='threads')",
        "pmap(queue.Queue.get_nowait, [empty], backend='threads', on_error='return')[0].rerun()",
    ):
        called, *inside = frames(failing.run(cell, fails=True).error.traceback)
        assert called == ("1", cell)
        shown = [(where.rpartition("Queue.")[2], line) for where, line in inside if "get_nowait(self)" in where]
        assert shown == [take]


def test_the_inputs_own_error_shows_the_inputs_line(failing: Kernel) -> None:
    for cell in ("pmap(abs, dry())", "with Pool(2) as pool: list(pool.imap(abs, dry()))"):
        error = failing.run(cell, fails=True).error
        assert frames(error.traceback) == [("1", cell), ("34, in dry()", 'raise LookupError("the source is dry")')]


@pytest.mark.parametrize(
    "call",
    [
        "pmap(sleeps, [1, 2])",
        "pmap(sleeps, [1, 2], progress=True)",
        "%pmap sleeps(x) for x in [1, 2]",
        "with Pool(2) as pool: pool.map(sleeps, [1, 2])",
        "with Pool(2) as pool: list(pool.imap(sleeps, [1, 2]))",
        "with Pool(2) as pool: pool.apply(sleeps, (1,))",
    ],
)
def test_stop_shows_the_cells_line_alone(failing: Kernel, call: str) -> None:
    started = [failing.folder / f"sleeps {x}" for x in (1, 2)]
    for file in started:
        file.unlink(missing_ok=True)
    cell = failing.send(call)
    assert failing.receive(lambda: started[0].exists(), CELL_TIMEOUT)
    failing.interrupt()
    error = failing.wait(cell, fails=True).error
    assert error.name == "KeyboardInterrupt", error.traceback
    assert len(frames(error.traceback)) == 1
    assert frames(error.traceback)[0][0] == "1"


def test_a_wait_that_is_cancelled_shows_the_cells_line_alone(failing: Kernel) -> None:
    failing.run("import asyncio")
    for wait in ("await pmap_async(sleeps, [5])", "await anext(aiter(pmap_async(sleeps, [5])))"):
        cell = f"async with asyncio.timeout(0.1): {wait}"
        cancelled, timed_out = failing.run(cell, fails=True).error.traceback.split("direct cause")
        assert frames(cancelled) == [("1", cell)]
        assert frames(timed_out)[0] == ("1", cell)
        assert "nbparallel/" not in timed_out
        failing.run("last_run().cancel()")


def test_a_warning_that_is_raised_shows_the_cells_line_alone(failing: Kernel) -> None:
    failing.run("import warnings; large = bytes(20_000_000)")
    cell = "with warnings.catch_warnings(action='error'): pmap(lambda x: len(large), [1])"
    error = failing.run(cell, fails=True).error
    assert error.name == "NBParallelWarning"
    assert frames(error.traceback) == [("1", cell)]


def test_hints(failing: Kernel) -> None:
    failing.run("pmap(abs, range(4), chunksize=1)")  # a fork that is made later has what is made now
    failing.run("""
        import types

        made = types.ModuleType("made")
        sys = __import__("sys")
        sys.modules["made"] = made
        math.half = lambda x: x / 2

        def imports_made(x):
            import made

        def patched(x):
            return math.half(x)

        def by_name(name):
            return helper(name)

        def helper(name):
            return eval(name)

        def needs_memory(x):
            raise MemoryError

        late = 5
    """)
    for call, name, hint in [
        ("pmap(imports_made, [1])", "ModuleNotFoundError", "The notebook made the module made itself"),
        ("pmap(patched, [1])", "AttributeError", "The notebook's math has half"),
        ("pmap(by_name, ['late'])", "NameError", "late is known in the notebook"),
        ("pmap(helper, ['late'])", "NameError", "Name the helper in the function"),
        ("pmap(needs_memory, [1])", "MemoryError", "Fewer workers"),
    ]:
        error = failing.run(call, fails=True).error
        assert error.name == name
        assert error.traceback.count(hint) == 1
    failing.run("del math.half, sys.modules['made']")


def test_a_task_that_asks_at_the_keyboard_waits_for_nobody(failing: Kernel) -> None:
    failing.run("""
        import getpass, io, sys

        def asks(x):
            return input("your name? ")

        def answers(x):
            sys.stdin, before = io.StringIO("line 1\\nline 2"), sys.stdin
            try:
                return input(), input(), before.read()
            finally:
                sys.stdin = before
    """)
    for backend in ("processes", "pathos"):
        output = failing.run(f"pmap(asks, [1], backend={backend!r})", fails=True)
        assert (output.error.name, output.stdout) == ("EOFError", "your name? ")
        assert output.error.traceback.count("A worker has no keyboard") == 1
        assert failing.run(f"pmap(lambda x: getpass.getpass(), [1], backend={backend!r})", fails=True).error.name in (
            "EOFError",
            "UnsupportedOperation",
        )
        assert failing.run(f"pmap(answers, [1], backend={backend!r})").result == "[('line 1', 'line 2', '')]"


def test_lines_of_code_that_a_worker_made_come_along(failing: Kernel) -> None:
    failing.run("""
        def generates(x):
            import linecache
            source = "def generated(x):\\n    return x / 0\\n"
            linecache.cache["<made>"] = (len(source), None, source.splitlines(True), "<made>")
            namespace = {}
            exec(compile(source, "<made>", "exec"), namespace)
            return namespace["generated"](x)
    """)
    error = failing.run("pmap(generates, [1])", fails=True).error
    assert frames(error.traceback)[-1] == ("<made>:2, in generated(x)", "return x / 0")


def test_the_debugger_walks_the_workers_frames(failing: Kernel) -> None:
    output = failing.run("""
        import io, pdb, sys
        try:
            pmap(outer, range(4))
        except ZeroDivisionError as error:
            kept = error
        said = io.StringIO()
        debugger = pdb.Pdb(stdin=io.StringIO("p x\\nup\\np x\\nup\\np inner.__name__\\nq\\n"), stdout=said)
        debugger.reset()
        debugger.interaction(None, kept.__traceback__)
        print(said.getvalue())
    """)
    assert re.findall(r"^ipdb> (['\d].*)$", output.stdout, re.MULTILINE) == ["2", "2", "'inner'"]
    assert "----> 8     return inner(x, [x], a=3)" in re.sub(r"\x1b\[[0-9;]*m", "", output.stdout)


@pytest.mark.slow
def test_nbval_finds_the_same(tmp_path: Path) -> None:
    cells = [
        "import threading\nfrom nbparallel import configure, pmap\nconfigure(workers=2, progress=False)\n"
        "lock = threading.Lock()\ndef inverse(x):\n    return 1 / x\n",
        "pmap(inverse, [1, 0])",
        "pmap(lambda x: lock, [1])",
        "pmap(inverse, [lock])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    for cell in notebook.cells[1:]:
        cell.metadata["tags"] = ["raises-exception"]
    NotebookClient(notebook, timeout=CELL_TIMEOUT, kernel_name="python3").execute()
    shown = ["".join(output["traceback"]) for cell in notebook.cells[1:] for output in cell.outputs]
    assert len(shown) == 3
    assert "nbparallel/" not in "".join(shown)
    file = tmp_path / "errors.ipynb"
    nbformat.write(notebook, file)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval",
        "--nbval-current-env",
        file.name,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 0, done.stdout


# ---- in a script ----


def test_a_scripts_stderr(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""\
            from nbparallel import configure, pmap

            configure(workers=1, progress=False)

            def inverse(x):
                return 1 / x

            pmap(inverse, [1, 0], chunksize=1)
        """)
    )
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
    lines = [line for line in done.stderr.splitlines() if not set(line) <= set(" ~^")]
    assert lines[:-1] == [
        "Traceback (most recent call last):",
        f'  File "{script}", line 8, in <module>',
        "    pmap(inverse, [1, 0], chunksize=1)",
        f'  File "{script}", line 6, in inverse',
        "    return 1 / x",
        "ZeroDivisionError: division by zero",
    ]
    assert re.fullmatch(r"nbparallel: in task 1 \(inverse\(0\)\); inverse: 1 ok, 1 failed in .*", lines[-1])
    assert "           ~~^~~\n" in done.stderr


@pytest.mark.skipif("fork" not in METHODS, reason="no fork")
@pytest.mark.parametrize("closes", ["", "exec 0<&-; "])
def test_the_standard_input_of_a_script_is_not_its_forks(tmp_path: Path, closes: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""\
            import os, sys
            from nbparallel import configure, pmap

            configure(workers=2, progress=False, start_method="fork")
            first = sys.stdin.readline() if sys.stdin else None

            def reads(x):
                return sys.stdin.read() + os.read(0, 9).decode() if first else x

            print(first, pmap(reads, [1, 2]), sys.stdin.read() if sys.stdin else None)
        """)
    )
    command = ["sh", "-c", f"{closes}exec '{sys.executable}' '{script}'"]
    done = subprocess.run(
        command, input="first\nlast\n", capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}, timeout=50
    )
    assert done.stdout == ("None [1, 2] None\n" if closes else "first\n ['', ''] last\n\n"), done.stderr


@pytest.mark.slow
def test_pytest_shows_the_workers_lines(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""\
            from nbparallel import pmap

            def inverse(x):
                return 1 / x  # there

            def test_it():
                pmap(inverse, [0], workers=1)
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 1
    assert ">       return 1 / x  # there" in done.stdout
    assert "test_it.py:4: ZeroDivisionError" in done.stdout
    assert "mapping.py" not in done.stdout


# ---- what is raised twice, inside a handler, by a frozen class ----


def inverse(x: float) -> float:
    return 1 / x


def names(error: BaseException) -> list[str]:
    return [entry.name for entry in traceback.extract_tb(error.__traceback__)][1:]


def test_what_led_to_an_error_stays_also_where_another_is_handled() -> None:
    def hides(x: int) -> None:
        try:
            inverse(0)
        except ZeroDivisionError:
            raise LookupError(x)  # noqa: B904 - its context is what is tested

    def handles() -> None:
        try:
            raise OSError("here")
        except OSError:
            pmap(hides, [1], workers=1)

    error = raised(handles)
    assert names(error) == ["handles", "hides"]
    context = error.__context__
    assert isinstance(context, ZeroDivisionError)
    assert [entry.name for entry in traceback.extract_tb(context.__traceback__)] == ["hides", "inverse"]


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def freezes(x: int) -> None:
    raise Frozen(x)


@pytest.mark.parametrize("backend", ["processes", "threads", "serial"])
def test_a_frozen_exception_is_noted_and_has_frames(backend: str) -> None:
    for _ in range(2):
        with pytest.raises(Frozen) as caught:
            pmap(freezes, [7], workers=1, backend=backend)
        assert caught.value.code == 7
        assert caught.value.__notes__[0].startswith("nbparallel: in task 0 (freezes(7))")
        assert names(caught.value) == ["freezes"]


class Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


class Falsy(Exception):
    def __len__(self) -> int:
        return 0


class Incomparable(Exception):
    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was compared")

    __hash__ = None  # type: ignore[assignment]


def raises_both(kind: type[Exception]) -> None:
    try:
        raise kind("cause")
    except kind as cause:
        raise kind("error") from cause


@pytest.mark.parametrize("kind", [Speechless, Falsy, Incomparable])
@pytest.mark.parametrize("backend", ["processes", "threads", "serial"])
def test_odd_exceptions_are_raised_as_others(kind: type[Exception], backend: str) -> None:
    error = raised(lambda: pmap(raises_both, [kind], workers=1, backend=backend))
    assert type(error) is kind
    assert names(error)[-1] == "raises_both"
    assert type(error.__cause__) is kind
    assert error.__notes__[0].startswith("nbparallel: in task 0 (raises_both(")


def test_a_task_error_holds_its_frames_and_text() -> None:
    (failed,) = pmap(inverse, [0], workers=1, on_error="return")
    assert isinstance(failed, TaskError)
    assert [entry.name for entry in traceback.extract_tb(failed.error.__traceback__)] == ["inverse"]
    assert failed.traceback.splitlines()[0] == "Traceback (most recent call last):"
    assert "return 1 / x" in failed.traceback
    assert "nbparallel/" not in failed.traceback
    with pytest.raises(ZeroDivisionError) as caught:
        failed.rerun()
    assert names(caught.value) == ["inverse"]


class Unsendable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("stays here")


def raises_unsendable(x: int) -> None:
    raise Unsendable(x)


def test_an_exception_that_stays_in_the_worker_leaves_its_frames() -> None:
    with pytest.raises(nbparallel.SerializationError, match="its exception, a Unsendable") as caught:
        pmap(raises_unsendable, [1], workers=1)
    assert names(caught.value) == ["raises_unsendable"]


def test_futures_are_asked_again() -> None:
    with Executor(1) as executor:
        future = executor.submit(inverse, 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError) as caught:
                future.result()
            assert names(caught.value) == ["inverse"]
        assert future.exception() is caught.value
    with Pool(1) as pool:
        result = pool.map_async(inverse, [0])
        for _ in range(3):
            with pytest.raises(ZeroDivisionError) as caught:
                result.get()
            assert names(caught.value) == ["inverse"]


# ---- frames that travelled ----


def raised(function: Any, *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def spread(a: int, /, b: int = 2, *rest: int, c: int = 3, **options: Any) -> Any:
    return [
        inverse(
            a - 1,
        )
        for _ in rest
    ]


def recurses(depth: int) -> Any:
    return recurses(depth - 1) if depth else inverse(0)


class Holder:
    @property
    def value(self) -> Any:
        return (lambda zero: sum(1 / zero for _ in "ab"))(0)


def test_a_rebuilt_traceback_reads_the_same() -> None:
    for error in [
        raised(spread, 1, 2, 3),
        raised(lambda: Holder().value),
        raised(recurses, 100),
        raised(lambda: exec("1 / 0\n")),
        raised(lambda: exec(compile("\n" * 70_000 + "x = (1 +\n" + " " * 300 + "None)", "<far>", "exec"))),
    ]:
        again = rebuild(describe(error.__traceback__))
        assert traceback.format_tb(again) == traceback.format_tb(error.__traceback__)
        entries = list(traceback.walk_tb(again))
        assert [line for _, line in entries] == [frame.f_lineno for frame, _ in entries]
        originals = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        for (frame, _), code in zip(entries, originals, strict=True):
            assert (frame.f_code.co_qualname, frame.f_code.co_firstlineno) == (code.co_qualname, code.co_firstlineno)
            assert frame.f_globals is globals()
            assert frame.f_back is None  # whoever rebuilds it is not kept alive
        assert rebuild(describe(again)) is not None
        assert traceback.format_tb(rebuild(describe(again))) == traceback.format_tb(again)


def test_a_frame_has_plain_arguments_and_says_where_others_are() -> None:
    (frame, _) = list(traceback.walk_tb(rebuild(describe(raised(spread, 1, 2, 3).__traceback__))))[1]
    assert {name: repr(value) for name, value in frame.f_locals.items()} == {
        "a": "1",
        "b": "2",
        "c": "3",
        "*rest": "<tuple in the worker>",
        "**options": "<dict in the worker>",
    }


def test_a_deep_recursion_travels_as_one_frame() -> None:
    error = raised(recurses, 900)
    described = describe(error.__traceback__)
    assert described is not None
    assert len(described[0]) < 40
    assert len(list(traceback.walk_tb(rebuild(described)))) == 903


def test_frames_can_be_cleared() -> None:
    error = raised(inverse, 0).with_traceback(rebuild(describe(raised(inverse, 0).__traceback__)))
    traceback.clear_frames(error.__traceback__)
    assert names(error) == ["inverse"]


def test_no_frames_are_none() -> None:
    assert describe(None) is None
    assert rebuild(None) is None


def test_code_without_columns() -> None:
    bare = inverse.__code__.replace(co_linetable=bytes([0x80 | 13 << 3 | 7, 2]) * 8)
    error = raised(types.FunctionType(bare, globals()), 0)
    again = rebuild(describe(error.__traceback__))
    assert traceback.format_tb(again) == traceback.format_tb(error.__traceback__)


# ---- whose frames are shown ----


def ours(source: str, **names: Any) -> Any:
    """Return a function `f` of a module that passes for one of this package."""
    namespace = {"__name__": "nbparallel.of_the_test", "hidden": hidden, **names}
    file = f"<ours {len(linecache.cache)}>"
    exec(compile(textwrap.dedent(source), file, "exec"), namespace)
    return namespace["f"]


def test_modules_that_call_what_is_the_users_are_there() -> None:
    assert [name for name in sorted(tracebacks._CALLERS) if importlib.util.find_spec(name) is None] == []


def test_the_frames_of_the_package_are_hidden_up_to_the_caller() -> None:
    deliberate = ours("""
        def f(call):
            with hidden:
                return g(call)
        def g(call):
            if call is None:
                raise ValueError("deliberate")
            return call()
    """)
    assert names(raised(deliberate, None)) == []
    assert names(raised(deliberate, lambda: inverse(0))) == ["<lambda>", "inverse"]
    assert names(raised(deliberate, lambda: deliberate(lambda: inverse(0)))) == ["<lambda>", "<lambda>", "inverse"]


def test_a_fault_of_the_package_keeps_its_frames() -> None:
    fault = ours("""
        def f():
            with hidden:
                return g()
        def g():
            return None.nothing
    """)
    assert names(raised(fault)) == ["f", "g"]


def test_an_interrupt_shows_no_library_that_the_package_called() -> None:
    parses = ours("""
        import json
        def f(text, hook=None):
            return json.loads(text, object_hook=hook)
    """)
    fault = raised(parses, "{")  # of the library: the package called it, and all can be seen
    tidy(fault)
    assert names(fault)[0] == "f"
    assert names(fault)[-1] == "raw_decode"
    interrupt = KeyboardInterrupt().with_traceback(fault.__traceback__)
    tidy(interrupt)
    assert names(interrupt) == []

    def hook(_: Any) -> None:
        raise KeyboardInterrupt

    interrupt = raised(parses, "{}", hook)
    tidy(interrupt)
    assert names(interrupt) == ["hook"]


def test_what_was_raised_and_caught_inside_is_not_told() -> None:
    explains = ours("""
        def f(call):
            with hidden:
                try:
                    call()
                except Exception as error:
                    raise ValueError("in words") from error
    """)
    error = raised(explains, ours("def f(): raise KeyError"))
    assert error.__cause__ is None
    assert error.__context__ is None
    error = raised(explains, lambda: inverse(0))
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert [entry.name for entry in traceback.extract_tb(error.__cause__.__traceback__)] == ["<lambda>", "inverse"]


def test_generators_hide_as_functions_do() -> None:
    yields = ours("""
        def f(calls):
            with hidden:
                for call in calls:
                    yield call()
    """)
    assert names(raised(lambda: list(yields([lambda: inverse(0)])))) == ["<lambda>", "<lambda>", "inverse"]
    generator = yields([lambda: 1, lambda: 2])
    assert next(generator) == 1
    generator.close()


def test_an_origin_forgets_who_asked_before() -> None:
    error = raised(inverse, 0)
    origin = Origin.of(error)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            origin.throw(error)
    assert [entry.name for entry in traceback.extract_tb(error.__traceback__)][-2:] == ["raised", "inverse"]
    assert len(list(traceback.walk_tb(error.__traceback__))) == 4


# ---- mends ----


def test_no_mend_is_made_up() -> None:
    for error in [
        ValueError(),
        NameError("name 'nothing' is not defined", name="nothing"),
        UnboundLocalError("x", name="math"),
        ModuleNotFoundError("No module named 'nothing'", name="nothing"),
        AttributeError("module 'math' has no attribute 'nothing'"),
        AttributeError("'int' object has no attribute 'pi'"),
        ImportError("cannot import name 'nothing' from 'math' (unknown location)"),
        EOFError("Ran out of input"),
    ]:
        assert mend_of(error, inverse) == ""


def test_mends() -> None:
    assert mend_of(NameError("name 'sys' is not defined", name="sys"), inverse).startswith("sys is known")
    assert "pi into the file" in mend_of(ImportError("cannot import name 'pi' from 'math' (x.py)"), inverse)
    assert "pi into the file" in mend_of(
        AttributeError("Can't get attribute 'pi' on <module 'math' from 'x'>"), inverse
    )
    found = mend_of(ModuleNotFoundError("No module named 'kernels'", name="kernels"), inverse)
    assert found.startswith("The notebook has imported kernels from ")
