"""``%%pscript``: real ``__main__``s, shown live, and nothing left of them, however they run away."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kernels import METHODS, Kernel

from nbparallel.notebook import supervisor
from nbparallel.notebook.files import PMODULE_OPTIONS, PSCRIPT_OPTIONS, FileMagics
from nbparallel.notebook.scripts import run_script

# The seed's code6; code7 and code9 are the same without the guard.
GUARDED = """
import multiprocessing, os

print("before the guard,", __name__)

def job(x):
    print(f"x={x}")
    return x

if __name__ == "__main__":
    pool = multiprocessing.Pool(3)
    print(sum(pool.map(job, (1, 2, 3, 4, 5))))
    pool.close()
    pool.join()
    print("over")
"""
UNGUARDED = GUARDED.replace('if __name__ == "__main__":', "if True:")

# A script that has a child by multiprocessing, an orphan, and one in a session of its own; all have written their pids.
FAMILY = """
import multiprocessing, os, subprocess, sys, time
from pathlib import Path

folder = Path({folder!r})

def wait(name):
    (folder / name).write_text(str(os.getpid()))
    time.sleep(1000)

if __name__ == "__main__":
    multiprocessing.Process(target=wait, args=("child",)).start()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            wait("orphan")
        os._exit(0)
    wait("script")
"""
MEMBERS = ("script", "child", "orphan")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with Kernel(folder=tmp_path_factory.mktemp("notebook")) as kernel:
        kernel.run("%load_ext nbparallel")
        yield kernel


def script(source: str, line: str = "") -> str:
    return f"%%pscript {line}\n{source.lstrip()}"


def last_line(text: str) -> str:
    return text.splitlines()[-1]


def pids(folder: Path) -> list[int]:
    return [int(text) for name in MEMBERS if (text := _read(folder / name))]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def happens(condition: Callable[[], object]) -> bool:
    """Wait until something is the case; return whether it is."""
    moment = threading.Event()
    return any(condition() or moment.wait(0.01) for _ in range(1000))


# ---- the seed's scripts ----


@pytest.mark.parametrize("method", METHODS)
def test_a_script_has_a_main_of_its_own(notebook: Kernel, method: str) -> None:
    lines = notebook.run(script(GUARDED, f"--start {method}")).stdout.splitlines()
    assert lines[0] == "before the guard, __main__"
    again = lines.count("before the guard, __mp_main__")
    # A forkserver imports it once, or each of its children does (gh-126631).
    assert again in {"fork": [0], "spawn": [3], "forkserver": [1, 2, 3]}[method]
    assert sorted(line for line in lines if line[:2] == "x=") == [f"x={x}" for x in range(1, 6)]
    assert lines[-1] == "over"
    assert "15" in lines
    assert len(lines) == 1 + again + 5 + 2


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_without_its_guard_it_runs_away_and_is_ended(notebook: Kernel, method: str) -> None:
    shown = notebook.run(script(UNGUARDED, f"--start {method} --timeout 1 --max-processes 20"))
    if method == "fork":
        assert shown.stdout.splitlines()[-1] == "over"
        assert shown.stderr == ""
    else:
        assert re.fullmatch(r"ended after 1 s \(--timeout 1\): \d+ processes", last_line(shown.stderr))
        assert "over" not in shown.stdout


@pytest.mark.parametrize("method", METHODS)
def test_the_start_method_is_a_default_that_the_script_may_set(notebook: Kernel, method: str) -> None:
    source = "import multiprocessing as m\nprint(m.get_start_method(allow_none=True))\nprint(m.get_start_method())"
    assert notebook.run(script(source, f"--start {method}")).stdout == f"None\n{method}\n"
    other = METHODS[METHODS.index(method) - 1]
    source = f"import multiprocessing as m\nm.set_start_method({other!r})\nprint(m.get_start_method())"
    assert notebook.run(script(source, f"--start {method}")).stdout == f"{other}\n"


# ---- as `!python` does ----


def test_it_finds_what_lies_beside_the_notebook(notebook: Kernel) -> None:
    (notebook.folder / "beside.py").write_text("def shout(x):\n    return x.upper()\n")
    source = """
        import os, sys
        from beside import shout
        print(shout(sys.argv[1]), sys.argv[2:], os.getcwd() == sys.path[0])
        print([name for name in sorted(vars()) if name[0] != "_"])
    """
    notebook.run("number = 7")
    shown = notebook.run(script("\n".join(line.strip() for line in source.splitlines()), "word 'a b' {number}")).stdout
    assert shown == "WORD ['a b', '7'] True\n['os', 'shout', 'sys']\n"


def test_it_shows_each_line_at_once(notebook: Kernel) -> None:
    go = notebook.folder / "go"
    source = f"""
import os, sys, time
print("first")
print("to stderr", file=sys.stderr)
while not os.path.exists({str(go)!r}):
    time.sleep(0.01)
print("second", end="")
"""
    cell = notebook.send(script(source))
    shown = notebook.shown_by(cell)
    assert notebook.receive(lambda: shown.stdout and shown.stderr)
    assert (shown.stdout, shown.stderr, shown.idle) == ("first\n", "to stderr\n", False)
    go.touch()
    assert notebook.wait(cell).stdout == "first\nsecond"


def plain(text: str) -> str:
    """Return a text without colours, which tracebacks have from Python 3.13 on."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_its_failure_is_told_and_does_not_raise(notebook: Kernel) -> None:
    shown = notebook.run("%%pscript -o done\nprint('ünï')\ndef fails():\n    return 1 / 0\nfails()")
    number = notebook.run("len(In) - 2").result
    trace = [f'  File "cell_{number}.py", line 5, in <module>', f'  File "cell_{number}.py", line 4, in fails']
    lines = plain(shown.stderr).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line for line in lines if line.startswith("  File")] == trace
    assert lines[-2:] == ["ZeroDivisionError: division by zero", "exit code 1"]
    kept = notebook.run("done.returncode, done.stdout, 'ZeroDivisionError' in done.stderr, done.ended").result
    assert kept == r"(1, 'ünï\n', True, '')"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import sys; sys.exit('a reason')", "a reason\nexit code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("input()", "EOFError: EOF when reading a line\nexit code 1"),
        ("this is no Python", "SyntaxError: invalid syntax\nexit code 1"),
        ("import os; os.write(1, b'written')", ""),
    ],
)
def test_its_end_in_words(notebook: Kernel, source: str, said: str) -> None:
    told = plain(notebook.run(script(source)).stderr)
    assert told.endswith(f"{said}\n") if said else told == ""


def test_it_may_remove_what_it_came_from(notebook: Kernel) -> None:
    source = "import os, shutil, sys\nshutil.rmtree(os.path.dirname(__file__))\nsys.exit('gone')"
    assert notebook.run(script(source)).stderr == "gone\nexit code 1\n"


def test_check_raises(notebook: Kernel) -> None:
    shown = notebook.run("%%pscript --check\nimport sys\nsys.exit(3)", fails=True)
    assert shown.error is not None
    assert shown.error.name == "CalledProcessError"
    assert "scripts.py" not in shown.error.traceback
    notebook.run("%%pscript --check\nprint(1)")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--start teleport", "--start teleport: unknown start method 'teleport'; known here: "),
        ("--timeout 0", "--timeout 0: this must be a number of seconds above 0"),
        ("--timeout soon", "--timeout soon: this must be a number of seconds above 0"),
        ("--timeout nan", "--timeout nan: this must be a number of seconds above 0"),
        ("--max-processes 0", "--max-processes 0: max_processes must be at least 1, not 0"),
        ("--check=yes", "--check takes no value"),
        ("-v", "unknown option -v; known: --start, "),
        ("'open", "No closing quotation: 'open"),
    ],
)
def test_a_wrong_line_is_refused(notebook: Kernel, line: str, said: str) -> None:
    shown = notebook.run(script("print('ran')", line))
    assert shown.stderr.startswith(f"UsageError: %%pscript: {said}")
    assert shown.stdout == ""


# ---- nothing is left ----


def test_too_many_processes_are_ended(notebook: Kernel) -> None:
    source = "import os, time\nfor _ in range(6): os.fork()\ntime.sleep(1000)"
    shown = notebook.run(script(source, "--max-processes 8 -o done"))
    told = r"ended for too many processes, (\d+) at once \(--max-processes 8\): (\d+) processes\n"
    match = re.fullmatch(told, shown.stderr)
    assert match is not None
    assert 8 < int(match[1]) <= int(match[2]) <= 64
    assert notebook.run("print(done.ended, done.returncode)").stdout == f"{shown.stderr.strip()} -9\n"


def test_who_hides_is_ended_too(notebook: Kernel, tmp_path: Path) -> None:
    cell = notebook.send(script(FAMILY.format(folder=str(tmp_path)), "--timeout 1 --start fork"))
    assert last_line(notebook.wait(cell).stderr) == "ended after 1 s (--timeout 1): 3 processes"
    found = pids(tmp_path)
    assert len(found) == 3
    assert not any(map(psutil.pid_exists, found))


def test_what_it_leaves_running_is_ended(notebook: Kernel) -> None:
    source = "import subprocess, sys\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\nprint('mine')"
    shown = notebook.run(script(source))
    assert shown.stdout == "mine\n"
    assert shown.stderr == "ended what the script had left running: 1 process\n"


def test_stop_ends_it(notebook: Kernel, tmp_path: Path) -> None:
    cell = notebook.send(script(FAMILY.format(folder=str(tmp_path)), "--start fork"))
    assert notebook.receive(lambda: len(pids(tmp_path)) == 3)
    notebook.interrupt()
    shown = notebook.wait(cell, fails=True)
    assert shown.error is not None
    assert shown.error.name == "KeyboardInterrupt"
    assert "scripts.py" not in shown.error.traceback
    assert shown.stderr == "ended by Stop: 3 processes\n"
    assert not any(map(psutil.pid_exists, pids(tmp_path)))
    assert notebook.run(script("print('again')")).stdout == "again\n"


def test_it_ends_with_the_process_that_watches_it(notebook: Kernel, tmp_path: Path) -> None:
    source = FAMILY.format(folder=str(tmp_path)).replace(
        'wait("script")',
        """
    import signal
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGKILL)
    wait("script")""",
    )
    shown = notebook.run(script(source, "--start fork"), fails=True)
    assert shown.error is not None
    assert shown.error.name == "RuntimeError"
    assert happens(lambda: not any(map(psutil.pid_exists, pids(tmp_path))))


@pytest.mark.slow
def test_it_ends_with_the_kernel(tmp_path: Path) -> None:
    with Kernel() as kernel:
        kernel.run("%load_ext nbparallel")
        # One that was forked holds all descriptors that the kernel had.
        kernel.run("import multiprocessing, time")
        kernel.run("multiprocessing.get_context('fork').Process(target=time.sleep, args=(6,)).start()")
        file = tmp_path / "file"
        told = f"Path({str(file)!r}).write_text(__file__)"
        source = FAMILY.format(folder=str(tmp_path)).replace("if __name__", f"{told}\nif __name__")
        kernel.send(script(source, "--start fork"))
        assert kernel.receive(lambda: len(pids(tmp_path)) == 3)
        kernel.kill()
        found = pids(tmp_path)
        place = Path(file.read_text()).parent
        assert happens(lambda: not any(map(psutil.pid_exists, found)) and not place.exists())


def test_a_flood_is_folded(notebook: Kernel) -> None:
    shown = notebook.run("%%pscript -o done\nfor i in range(60_000):\n    print(f'{i:>40}')")
    assert re.search(r"^\[[\d,]+ lines \([\d,]+ characters\) folded here", shown.stdout, re.MULTILINE)
    assert len(shown.stdout) < 2_000_000
    assert notebook.run("len(done.stdout), done.stdout[-6:]").result == str((60_000 * 41, "59999\n"))


@pytest.mark.parametrize(
    ("magic", "options"), [(FileMagics.pscript, PSCRIPT_OPTIONS), (FileMagics.pmodule, PMODULE_OPTIONS)]
)
def test_its_options_are_explained_and_completed(magic: Callable[..., None], options: dict[str, object]) -> None:
    assert all(f" {option} " in (magic.__doc__ or "").replace(",", " ") for option in options)
    assert list(FileMagics.words[magic.__name__]) == list(options)


# ---- the functions beneath ----


def test_run_script_is_the_same_without_a_notebook(capfd: pytest.CaptureFixture[str]) -> None:
    done = run_script(
        "import sys, json\nprint(json.dumps([sys.argv[1:], __name__]))\nassert 0, 'no'", ["a"], name="x.py"
    )
    shown = capfd.readouterr()
    assert json.loads(shown.out) == [["a"], "__main__"]
    assert shown.out == done.stdout
    assert (done.args, done.returncode) == (["x.py", "a"], 1)
    assert shown.err == done.stderr + "exit code 1\n"
    assert '  File "x.py", line 3, in <module>\n' in shown.err


def test_without_a_terminal_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def none() -> None:
        raise OSError("out of pty devices")

    monkeypatch.setattr(os, "openpty", none)
    source = GUARDED.replace("pool.close()", "pool.terminate()")  # which would lose what the workers have buffered
    shown = run_script(source, start=METHODS[0]).stdout
    assert all(f"x={x}" in shown for x in range(1, 6))
    assert capfd.readouterr().out == shown


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"args": "ab"}, TypeError),
        ({"args": [1]}, TypeError),
        ({"start": "x"}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"max_processes": 0}, ValueError),
        ({"max_processes": 1.5}, TypeError),
        ({"source": 1}, TypeError),
        ({"name": "a/b.py"}, ValueError),
    ],
)
def test_run_script_refuses_what_makes_no_sense(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_script(**{"source": "", **options})


def test_where_nobody_takes_over_orphans(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(FAMILY.format(folder=str(tmp_path)).replace("os.setsid()", ""))
    over = threading.Event()
    tree = supervisor.OtherTree([sys.executable, str(file)])
    assert happens(lambda: len(pids(tmp_path)) == 3)
    over.set()
    report = supervisor.watch(tree, 20, 20, over, lambda: False)
    assert (report["why"], report["ended"], report["most"]) == ("stop", 3, 3)
    assert happens(lambda: not any(map(psutil.pid_exists, pids(tmp_path))))
