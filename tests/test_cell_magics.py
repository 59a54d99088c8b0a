"""``%%pfor`` and ``%%pbackground`` in real kernels: warm workers, the cell's lines in tracebacks, Stop, output."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from kernels import CELL_TIMEOUT, Kernel, Output, kernel

__all__ = ["kernel"]

LOAD = "%load_ext nbparallel"


def run(kernel: Kernel, cell: str, *, fails: bool = False) -> Output:
    return kernel.run(textwrap.dedent(cell).strip(), fails=fails)


# ---- %%pfor ----


def test_the_same_cell_sees_what_was_redefined(kernel: Kernel) -> None:
    kernel.run(LOAD)
    cell = """
        %%pfor -j 2 --chunksize 1 a, b in pairs if b
        import os
        made = helper(a) + offset
        print("at", a)
        made, os.getpid() == notebook
    """
    kernel.run("notebook, offset, pairs = os.getpid(), 1, [(1, 1), (2, 0), (3, 1)]\ndef helper(x):\n    return 10 * x")
    first = run(kernel, cell)
    assert first.result == "[(11, False), (31, False)]"
    assert sorted(first.stdout.splitlines()) == ["at 1", "at 3"]
    kernel.run("offset = 2\ndef helper(x):\n    return 100 * x")
    assert run(kernel, cell).result == "[(102, False), (302, False)]"
    assert kernel.run("'made' in dir(), '<pfor>' in globals()").result == "(False, False)"
    kernel.run("pairs = [(5, 1)]")
    assert run(kernel, cell.replace("-j 2", "-j 2 -o kept")).result is None
    assert kernel.run("kept").result == "[(502, False)]"


def test_a_failing_item_shows_the_lines_of_the_cell(kernel: Kernel) -> None:
    kernel.run(LOAD)
    cell = """
        %%pfor x in (1, 0)

        def inner(y):
            return (1 +
                    1 / y)

        inner(x)
    """
    for _ in range(2):  # the second time, the file of the cell is known already
        failed = run(kernel, cell, fails=True)
        number = kernel.run("len(In) - 2").result
        assert failed.error is not None
        assert failed.error.name == "ZeroDivisionError"
        shown = failed.error.traceback
        assert f"Cell In[{number}], line 1\n----> 1 %%pfor x in (1, 0)\n" in shown
        assert f"Cell In[{number}], line 7\n" in shown
        assert "----> 7 inner(x)\n" in shown
        assert f"Cell In[{number}], line 5, in <pfor>.<locals>.inner(y)\n" in shown
        assert "----> 5             1 / y)\n" in shown
        assert "nbparallel: in task 1 (<pfor>(0)); for x in (1, 0): " in shown


def test_an_item_that_adds_to_a_variable_of_the_notebook_is_told_so(kernel: Kernel) -> None:
    kernel.run(f"{LOAD}\ntotal = 0")
    failed = kernel.run("%%pfor x in range(3)\ntotal += x", fails=True)
    assert failed.error is not None
    assert "The notebook has a total too, but code that assigns total has its own" in failed.error.traceback
    refused = kernel.run("%%pfor x in range(3)\nglobal total\ntotal += x")
    assert refused.stderr.startswith("UsageError: %%pfor: 'global total' would only change a worker's copy")


def test_a_warning_names_the_cell_and_not_the_magic(kernel: Kernel) -> None:
    kernel.run(f"{LOAD}\nheavy = bytearray(11_000_000)")
    warned = kernel.run("%%pfor x in range(2)\nlen(heavy) + x")
    [where, line] = warned.stderr.splitlines()
    assert "NBParallelWarning: <pfor> refers to heavy, 11 MB" in where
    assert f"/ipykernel_{kernel.pid}/" in where
    assert line == "  %%pfor x in range(2)"
    assert f"/ipykernel_{kernel.pid}/" in kernel.run("pmap(lambda x: len(heavy), range(2))").stderr


@pytest.mark.skipif(sys.platform == "win32", reason="these are commands of a POSIX shell")
def test_stop_ends_the_items_and_the_commands_that_they_run(kernel: Kernel) -> None:
    kernel.run(f"{LOAD}\n[each.unlink() for each in folder.iterdir()];")
    cell = kernel.send("%%pfor -j 2 x in range(4)\n!sleep 1000 & echo on > {folder}/{x}; wait")
    files = [kernel.folder / "0", kernel.folder / "1"]
    assert kernel.receive(lambda: all(file.exists() and file.read_text() for file in files))
    found = psutil.Process(kernel.pid).children(recursive=True)
    commands = [each for each in found if each.name() == "sleep"]
    assert len(commands) == 2
    kernel.interrupt()
    stopped = kernel.wait(cell, fails=True)
    assert stopped.error is not None
    assert stopped.error.name == "KeyboardInterrupt"
    assert psutil.wait_procs(commands, timeout=10)[1] == []
    again = kernel.run("%%pfor -j 2 x in range(3)\nlines = !echo {x} $x\nlines[0]")
    assert again.result == "['0 0', '1 1', '2 2']"


# ---- jobs ----

WAITS = """
    def waits(name):
        (folder / f"{name} begun {os.getpid()}").touch()
        while not (folder / f"{name} goes on").exists():
            time.sleep(0.002)
        return name

    for left in folder.iterdir():
        left.unlink()
"""


def pid_of(kernel: Kernel, name: str) -> int:
    """Wait until a job waits, and return its process."""
    assert kernel.receive(lambda: list(kernel.folder.glob(f"{name} begun *")))
    return int(next(kernel.folder.glob(f"{name} begun *")).name.split()[-1])


def is_gone(kernel: Kernel, pid: int) -> bool:
    return kernel.receive(lambda: not psutil.pid_exists(pid), timeout=10)


def test_jobs_run_beside_each_other_and_beside_maps(kernel: Kernel) -> None:
    kernel.run(LOAD)
    kernel.run(WAITS)
    names = ["a", "b", "c"]
    for name in names:  # more than there are workers for maps
        assert kernel.run(f"%%pbackground -o {name}\nwaits({name!r})").result is None
    pids = [pid_of(kernel, name) for name in names]
    assert len({*pids, kernel.pid}) == 4
    assert kernel.run("%%pfor -j 1 x in range(3)\nx").result == "[0, 1, 2]"
    assert kernel.run("a.done, a.state, repr(a.result)[:6]").result == "(False, 'running', '<bound')"
    listed = kernel.run("%pjobs").stdout.splitlines()
    assert [line.split()[1] for line in listed] == ["state", "running", "running", "running"]
    (kernel.folder / "b goes on").touch()
    assert kernel.run("b.result(), b.state, b.done, await b").result == "('b', 'done', True, 'b')"
    assert kernel.run("r = %pjobs fetch {b.number}\nr").result == "'b'"
    assert kernel.run("%pjobs cancel all").stdout.endswith("cancelled\n")
    assert kernel.run("a.result()", fails=True).error.name == "CancelledError"  # type: ignore[union-attr]
    assert all(is_gone(kernel, pid) for pid in pids)
    assert kernel.run("a.state, b.state, c.state").result == "('cancelled', 'done', 'cancelled')"
    assert kernel.run("%pjobs forget done\n%pjobs").stdout.endswith("no jobs: %%pbackground starts one\n")


def test_fresh_workers_for_maps_leave_the_jobs_alone(kernel: Kernel) -> None:
    kernel.run(LOAD)
    kernel.run(WAITS)
    kernel.run("%%pbackground -o job\nwaits('a')")
    pid_of(kernel, "a")
    kernel.run("%pworkers restart")
    assert kernel.run("%%pfor x in range(2)\nx").result == "[0, 1]"
    kernel.run("%pworkers restart")
    assert kernel.run("job.state").result == "'running'"
    (kernel.folder / "a goes on").touch()
    assert kernel.run("job.result()").result == "'a'"


def test_stop_ends_the_waiting_and_no_job(kernel: Kernel) -> None:
    kernel.run(LOAD)
    kernel.run(WAITS)
    kernel.run("%%pbackground -o job\nwaits('a')")
    pid_of(kernel, "a")
    cell = kernel.send("(folder / 'waiting').touch()\njob.result()")
    assert kernel.receive((kernel.folder / "waiting").exists)
    kernel.interrupt()
    stopped = kernel.wait(cell, fails=True)
    assert stopped.error is not None
    assert stopped.error.name == "KeyboardInterrupt"
    assert kernel.run("job.state").result == "'running'"
    (kernel.folder / "a goes on").touch()
    assert kernel.run("job.result()").result == "'a'"
    assert kernel.run("job.result(timeout=1)").result == "'a'"


def test_a_jobs_output_and_its_error_belong_to_its_cell(kernel: Kernel) -> None:
    kernel.run(LOAD)
    kernel.run(WAITS)
    cell = kernel.send("%%pbackground -o job\nprint('before')\nwaits('a')\nprint('after')\n\n1 / 0")
    kernel.wait(cell)
    pid_of(kernel, "a")
    other = kernel.send("print('other')")
    kernel.wait(other)
    (kernel.folder / "a goes on").touch()
    failed = kernel.run("job.result()", fails=True)
    assert kernel.receive(lambda: "after" in kernel.shown_by(cell).stdout)
    assert kernel.shown_by(cell).stdout == "before\nafter\n"
    assert kernel.shown_by(other).stdout == "other\n"
    assert kernel.run("job.output").result == "'before\\nafter\\n'"
    assert failed.error is not None
    assert "line 6\n" in failed.error.traceback
    assert "----> 6 1 / 0\n" in failed.error.traceback
    assert kernel.run("print(job)").stdout.endswith(": ZeroDivisionError: division by zero>\n")
    killed = kernel.run("%%pbackground -o job\nimport signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert killed.result is None
    assert kernel.run("job.result()", fails=True).error.name == "WorkerCrashed"  # type: ignore[union-attr]


def test_a_job_that_a_cell_shows_says_what_came_of_it(kernel: Kernel) -> None:
    kernel.run(LOAD)
    kernel.run(WAITS)
    cell = kernel.send("%%pbackground --label 'one'\nwaits('a')".replace("'one'", '"one & <all>"'))
    kernel.wait(cell)
    [shown] = kernel.shown_by(cell).displays
    assert shown["text/plain"].endswith("(one & <all>): running for " + shown["text/plain"].partition("for ")[2])
    pid_of(kernel, "a")
    (kernel.folder / "a goes on").touch()

    def updates() -> list[str]:
        messages = kernel.shown_by(cell).messages
        found = [each["content"]["data"] for each in messages if each["msg_type"] == "update_display_data"]
        return [data["text/html"] for data in found if "text/html" in data]

    assert kernel.receive(lambda: any("done in" in each for each in updates()))
    assert updates()[-1].startswith("<pre>&lt;Job ")
    assert "(one &amp; &lt;all&gt;): done in " in updates()[-1]
    assert updates()[-1].endswith(": &#x27;a&#x27;&gt;</pre>")


def test_a_job_on_a_thread_shares_the_variables(kernel: Kernel) -> None:
    kernel.run(f"{LOAD}\nthings = []")
    kernel.run(
        "%%pbackground -b threads -o job\nthings.append(os.getpid())\nimport threading\nthreading.current_thread()"
    )
    assert kernel.run("thread = job.result()\nthings == [os.getpid()]").result == "True"
    assert kernel.run("thread.join(10)\nthread.is_alive()").result == "False"


def test_what_cannot_travel_starts_no_job(kernel: Kernel) -> None:
    kernel.run(f"{LOAD}\nimport threading\nlock = threading.Lock()")
    failed = kernel.run("%%pbackground\nlock.acquire()", fails=True)
    assert failed.error is not None
    assert failed.error.name == "SerializationError"
    assert "<pbackground> → lock" in failed.error.value
    assert kernel.run("%pjobs forget done\n%pjobs").stdout.endswith("no jobs: %%pbackground starts one\n")


@pytest.mark.slow
def test_no_job_outlives_its_kernel(tmp_path: Path) -> None:
    def start() -> psutil.Process:
        kernel.run(f"{LOAD}\nimport os, time\nfrom pathlib import Path\nfolder = Path()")
        kernel.run(WAITS)
        kernel.run("%%pbackground\nwaits('a');")
        kernel.run("%%pbackground -b threads\nwaits('b');")
        pid_of(kernel, "b")
        return psutil.Process(pid_of(kernel, "a"))

    with Kernel(folder=tmp_path) as kernel:
        restarted = start()
        kernel.manager.restart_kernel()
        kernel.client.wait_for_ready(timeout=CELL_TIMEOUT)
        assert psutil.wait_procs([restarted], timeout=10)[1] == []
        killed = start()
        kernel.kill()
        assert psutil.wait_procs([killed], timeout=10)[1] == []
