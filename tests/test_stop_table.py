"""Stop, pressed while the workers do all kinds of things: a real signal to a real kernel's process group.

A task that lets itself be interrupted leaves its worker warm, any other's worker is replaced; nobody goes on computing,
nothing finished is lost, and the next map is right.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from kernels import Kernel, Output, kernel

__all__ = ["kernel"]

LIMIT = 15.0  # seconds after which what ought to take one is given up, on a busy machine

# Tasks 0 and 1 return; the others note that they have begun, and do what they are named after.
SETUP = """
    import ctypes, hashlib, json
    from nbparallel import backends

    much = bytes(1 << 20)

    def pids():
        return sorted(p for b in backends.warm().values() if b.name == "processes" for p in b.engine.pids)

    def begun(x):
        (folder / f"begun {x}").touch()

    def loops(x):
        begun(x)
        while True:
            pass

    def sleeps(x):
        begun(x)
        time.sleep(1000)

    def reads(x):
        read, write = os.pipe()
        begun(x)
        try:
            os.read(read, 1)
        finally:
            os.close(read), os.close(write)

    def prints(x):
        begun(x)
        while True:
            print("x" * 50, x)

    def catches(x):
        begun(x)
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass

    def sleeps_in_c(x):
        begun(x)
        ctypes.CDLL(None).usleep(1_000_000_000)

    def sleeps_in_c_with_the_gil(x):
        begun(x)
        ctypes.PyDLL(None).usleep(1_000_000_000)

    def hashes(x):
        begun(x)
        hashlib.pbkdf2_hmac("sha512", much, b"", 1 << 30)

    def reads_in_c(x):
        read, write = os.pipe()
        begun(x)
        ctypes.CDLL(None).read(read, ctypes.create_string_buffer(1), 1)

    def stopped(function, x):
        return -x if x < 2 else function(x)

    def square(x):
        return x * x

    def status():
        run = last_run()
        return json.dumps([run.results[:2], run.completed, run.done, run.cancelled, len(run.failures), pids()])

    assert pmap(square, range(20), chunksize=1) == [x * x for x in range(20)]
    assert len(pids()) == 2
"""


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    """The kernel with two warm workers and the tasks defined."""
    if kernel.run("'stopped' in globals()").result == "False":
        kernel.run(SETUP)
    next_map_is_right(kernel)
    return kernel


def value(kernel: Kernel, expression: str) -> Any:
    """Return what JSON text an expression of the kernel gives."""
    result = kernel.run(expression).result
    assert result is not None
    return json.loads(eval(result))


def until(condition: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit, f"not within {LIMIT} s: {what}"
        time.sleep(0.01)


def press_stop(kernel: Kernel, call: str, *, begun: int = 2, times: int = 1) -> Output:
    """Send a cell, press Stop when so many of its tasks have begun, and return what it has shown once it is over."""
    for left in kernel.folder.glob("begun *"):
        left.unlink()
    cell = kernel.send(call)
    assert kernel.receive(lambda: len(list(kernel.folder.glob("begun *"))) >= begun)
    for _ in range(times):
        kernel.interrupt()
    output = kernel.shown_by(cell)
    assert kernel.receive(lambda: output.idle, LIMIT)
    if times == 1 or output.error is not None:
        assert output.error is not None
        assert output.error.name == "KeyboardInterrupt"
        assert output.stderr == ""
    else:  # the second came while IPython showed the first one's traceback: it then says just this
        assert output.stderr.strip() == "KeyboardInterrupt"
    take_late_interrupt(kernel)
    until(lambda: value(kernel, "json.dumps(last_run().done)"), "the run is over")
    return output


def take_late_interrupt(kernel: Kernel) -> None:
    """Run a cell for a signal that is still on its way after the end of the cell it was meant for."""
    kernel.wait(kernel.send("try:\n    time.sleep(0.1)\nexcept KeyboardInterrupt:\n    pass"), LIMIT)


def cpu_seconds(pid: int) -> float:
    """Return what a process has used, 0 once it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def nobody_computes(kernel: Kernel) -> None:
    """Wait until no process below the kernel uses the CPU any more."""
    before: dict[int, float] | None = None

    def quiet() -> bool:
        nonlocal before
        now = {child.pid: cpu_seconds(child.pid) for child in psutil.Process(kernel.pid).children(recursive=True)}
        same = now == before
        before = now
        time.sleep(0.3)  # a busy process' clock moves on meanwhile
        return same

    until(quiet, f"the workers are at rest: {before}")


def next_map_is_right(kernel: Kernel) -> None:
    assert kernel.run("pmap(square, range(50), chunksize=1) == [x * x for x in range(50)]").result == "True"


@pytest.mark.parametrize(
    ("task", "stays"),
    [
        ("loops", True),
        ("sleeps", True),
        ("reads", True),
        ("prints", True),
        ("catches", False),
        ("sleeps_in_c", True),
        ("sleeps_in_c_with_the_gil", True),
        ("hashes", False),
        ("reads_in_c", True),
    ],
)
def test_stop_ends_whatever_the_workers_do(notebook: Kernel, task: str, stays: bool) -> None:
    if task == "loops" and sys.version_info >= (3, 13):
        # It heeds no signal in a loop, in a process that was forked by a thread: that worker is replaced.
        stays = notebook.run("nbparallel.config.settings().start_method").result != "'fork'"
    before = value(notebook, "json.dumps(pids())")
    assert len(before) == 2
    output = press_stop(notebook, f"pmap(stopped, [{task}] * 8, range(8), chunksize=1)")
    assert task == "prints" or output.stdout == ""
    results, completed, _, cancelled, failures, after = value(notebook, "status()")
    assert results == [0, -1]
    assert (completed, cancelled, failures) == (2, True, 0)
    assert set(after) == (set(before) if stays else set(after) - set(before))
    nobody_computes(notebook)
    next_map_is_right(notebook)
    assert output.stderr == ""  # nor did a worker say anything later


def test_finished_results_inside_a_chunk_are_kept(notebook: Kernel) -> None:
    press_stop(notebook, "pmap(stopped, [sleeps] * 8, range(8), chunksize=8)", begun=1)
    assert value(notebook, "status()")[:2] == [[0, -1], 2]
    next_map_is_right(notebook)


def test_one_worker_reacts_and_the_other_does_not(notebook: Kernel) -> None:
    before = value(notebook, "json.dumps(pids())")
    press_stop(notebook, "pmap(lambda x: (catches if x else sleeps)(x), range(2), chunksize=1)")
    assert len(set(value(notebook, "json.dumps(pids())")) & set(before)) == 1
    next_map_is_right(notebook)


@pytest.mark.parametrize("task", ["sleeps", "catches"])
def test_stop_pressed_again_is_harmless(notebook: Kernel, task: str) -> None:
    for times in (2, 5):
        press_stop(notebook, f"pmap(stopped, [{task}] * 8, range(8), chunksize=1)", times=times)
        assert value(notebook, "status()")[:2] == [[0, -1], 2]
        next_map_is_right(notebook)


def test_a_result_that_is_slow_to_rebuild_is_not_waited_for(notebook: Kernel) -> None:
    notebook.run("""
        def rebuild():
            begun("here")
            while not (folder / "rebuilt").exists():
                time.sleep(0.01)
            return "rebuilt"

        class Slow:
            def __reduce__(self):
                return rebuild, ()

        def slow(x):
            return sleeps(x) if x else Slow()
    """)
    cell = notebook.send("pmap(slow, range(4))")
    assert notebook.receive((notebook.folder / "begun here").exists)
    notebook.interrupt()
    output = notebook.shown_by(cell)
    assert notebook.receive(lambda: output.idle, LIMIT)
    assert output.error is not None
    assert output.error.name == "KeyboardInterrupt"
    take_late_interrupt(notebook)
    (notebook.folder / "rebuilt").touch()
    until(lambda: value(notebook, "json.dumps(last_run().done)"), "the run is over")
    assert value(notebook, "json.dumps([last_run().results[0], last_run().completed])") == ["rebuilt", 1]
    (notebook.folder / "rebuilt").unlink()
    next_map_is_right(notebook)


def test_another_run_goes_on(notebook: Kernel) -> None:
    notebook.run("""
        def waits(x):
            while not (folder / "go on").exists():
                time.sleep(0.01)
            return x

        other = nbparallel.pmap_async(waits, [0])
    """)
    press_stop(notebook, "pmap(sleeps, [0])", begun=1)
    (notebook.folder / "go on").touch()
    assert notebook.run("other.result()").result == "[0]"
    (notebook.folder / "go on").unlink()


def test_a_storm_of_stops_at_random_moments(notebook: Kernel, storm: int) -> None:
    """Thirty presses over the start methods, a hundred and more with ``--storm 4``."""
    chance = random.Random(3)
    notebook.run("""
        def works(kind, x):
            if kind == "prints":
                print("line", x)
            if kind == "sleeps":
                time.sleep(0.002)
            if kind == "computes":
                sum(range(20_000))
            return x * x
    """)
    for number in range(10 * storm):
        kind = chance.choice(["tiny", "prints", "sleeps", "computes"])
        chunksize = chance.choice(["1", "7", "'auto'"])
        count = 300_000 if kind == "tiny" else 5_000
        cell = notebook.send(f"pmap(works, ['{kind}'] * {count}, range({count}), chunksize={chunksize}); 'done'")
        time.sleep(chance.uniform(0, 0.6))
        notebook.interrupt()
        output = notebook.shown_by(cell)
        assert notebook.receive(lambda: output.idle, LIMIT), f"{number}: {kind}"  # noqa: B023
        assert output.error is None or output.error.name == "KeyboardInterrupt", output.error
        assert output.stderr == "", output.stderr
        take_late_interrupt(notebook)
        until(lambda: value(notebook, "json.dumps(last_run().done)"), "the run is over")
        wrong = "[x for x, r in enumerate(last_run().results) if r is not nbparallel.runs.run.PENDING and r != x * x]"
        assert notebook.run(wrong).result == "[]"
        assert notebook.run("last_run().failures").result == "{}"
        next_map_is_right(notebook)
    nobody_computes(notebook)
    assert len(value(notebook, "json.dumps(pids())")) == 2
