"""Stop, pressed while the workers do all kinds of things: a real signal to a real kernel's process group.

A task that lets itself be interrupted leaves its worker warm, any other's worker is replaced; nobody goes on computing,
nothing finished is lost, and the next map is right.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kernels import Kernel, Output

METHODS = multiprocessing.get_all_start_methods()
LIMIT = 15.0  # seconds after which what ought to take one is given up, on a busy machine

# Tasks 0 and 1 return; the others note that they have begun, and do what they are named after.
SETUP = """
    import ctypes, hashlib, json, os, time
    from pathlib import Path

    import nbparallel
    from nbparallel import backends, last_run, pmap

    nbparallel.configure(workers=2, start_method=METHOD, progress=False)
    folder = Path(FOLDER)
    libc = ctypes.CDLL(None)
    libc.usleep.argtypes = [ctypes.c_uint]
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
        libc.usleep(1_000_000_000)

    def sleeps_in_c_with_the_gil(x):
        begun(x)
        ctypes.PyDLL(None).usleep(1_000_000_000)

    def hashes(x):
        begun(x)
        hashlib.pbkdf2_hmac("sha512", much, b"", 1 << 30)

    def reads_in_c(x):
        read, write = os.pipe()
        begun(x)
        while True:  # EINTR, as a library that retries
            libc.read(read, ctypes.create_string_buffer(1), 1)

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


@pytest.fixture(scope="module", params=METHODS)
def notebook(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder=str(folder)) as kernel:
        kernel.run(SETUP.replace("METHOD", repr(request.param)).replace("FOLDER", repr(str(folder))))
        kernel.folder = folder  # type: ignore[attr-defined]
        yield kernel
        kernel.run("backends.shutdown()")


def folder_of(kernel: Kernel) -> Path:
    folder: Path = kernel.folder  # type: ignore[attr-defined]
    return folder


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
    """Send a cell, press Stop when so many of its tasks have begun, and return what it has shown at its end."""
    for left in folder_of(kernel).glob("begun *"):
        left.unlink()
    cell = kernel.send(call)
    assert kernel.receive(lambda: len(list(folder_of(kernel).glob("begun *"))) >= begun)
    for _ in range(times):
        kernel.interrupt()
    output = kernel.wait(cell, LIMIT, fails=True)
    assert output.error is not None
    assert output.error.name == "KeyboardInterrupt"
    return output


def cpu_seconds(pid: int) -> float:
    """Return what a process has used, 0 once it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def nobody_computes(kernel: Kernel) -> None:
    """Wait until no process below the kernel uses the CPU any more."""
    before: dict[int, float] = {}

    def quiet() -> bool:
        nonlocal before
        now = {child.pid: cpu_seconds(child.pid) for child in psutil.Process(kernel.pid).children(recursive=True)}
        same = now == before and bool(now)
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
        ("sleeps_in_c", False),
        ("sleeps_in_c_with_the_gil", False),
        ("hashes", False),
        ("reads_in_c", False),
    ],
)
def test_stop_ends_whatever_the_workers_do(notebook: Kernel, task: str, stays: bool) -> None:
    next_map_is_right(notebook)
    before = value(notebook, "json.dumps(pids())")
    assert len(before) == 2
    output = press_stop(notebook, f"pmap(stopped, [{task}] * 8, range(8), chunksize=1)")
    assert output.stderr == ""
    assert task == "prints" or output.stdout == ""
    until(lambda: value(notebook, "json.dumps(last_run().done)"), "the run is over")
    results, completed, _, cancelled, failures, after = value(notebook, "status()")
    assert results == [0, -1]
    assert (completed, cancelled, failures) == (2, True, 0)
    assert set(after) == (set(before) if stays else set(after) - set(before))
    nobody_computes(notebook)
    next_map_is_right(notebook)
    assert output.stderr == ""


def test_finished_results_inside_a_chunk_are_kept(notebook: Kernel) -> None:
    next_map_is_right(notebook)
    press_stop(notebook, "pmap(stopped, [sleeps] * 8, range(8), chunksize=8)", begun=1)
    until(lambda: value(notebook, "json.dumps(last_run().done)"), "the run is over")
    assert value(notebook, "status()")[:2] == [[0, -1], 2]
    next_map_is_right(notebook)


def test_one_worker_reacts_and_the_other_does_not(notebook: Kernel) -> None:
    next_map_is_right(notebook)
    before = value(notebook, "json.dumps(pids())")
    press_stop(notebook, "pmap(lambda x: (catches if x else sleeps)(x), range(2), chunksize=1)")
    until(lambda: value(notebook, "json.dumps(last_run().done)"), "the run is over")
    assert len(set(value(notebook, "json.dumps(pids())")) & set(before)) == 1
    next_map_is_right(notebook)


@pytest.mark.parametrize("task", ["sleeps", "catches"])
def test_stop_pressed_twice_is_harmless(notebook: Kernel, task: str) -> None:
    for times in (2, 5):
        output = press_stop(notebook, f"pmap(stopped, [{task}] * 8, range(8), chunksize=1)", times=times)
        assert output.stderr == ""
        # A signal that came after the cell's end may still be on its way to the next: an empty one takes it.
        notebook.wait(notebook.send("try:\n    time.sleep(0.2)\nexcept KeyboardInterrupt:\n    pass"), LIMIT)
        until(lambda: value(notebook, "json.dumps(last_run().done)"), "the run is over")
        assert value(notebook, "status()")[:2] == [[0, -1], 2]
        next_map_is_right(notebook)


def test_another_run_goes_on(notebook: Kernel) -> None:
    notebook.run("""
        def waits(x):
            while not (folder / "go on").exists():
                time.sleep(0.01)
            return x

        other = nbparallel.pmap_async(waits, range(4), chunksize=1, workers=1)
    """)
    press_stop(notebook, "pmap(sleeps, range(2), chunksize=1, workers=1)", begun=1)
    (folder_of(notebook) / "go on").touch()
    assert notebook.run("other.result()").result == "[0, 1, 2, 3]"
    (folder_of(notebook) / "go on").unlink()


def test_a_storm_of_stops_at_random_moments(notebook: Kernel, storm: int) -> None:
    seed = 3
    print(f"seed {seed}")
    chance = random.Random(seed)
    notebook.run("""
        def works(kind, x):
            if kind == "tiny":
                return x * x
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
        assert notebook.receive(lambda: notebook.shown_by(cell).idle, LIMIT), f"{number}: {kind}"  # noqa: B023
        output = notebook.shown_by(cell)
        assert output.error is None or output.error.name == "KeyboardInterrupt", output.error
        assert output.stderr == "", output.stderr
        # A signal that came before or after the cell may hit the next: an empty one takes it.
        notebook.wait(notebook.send("try:\n    time.sleep(0.1)\nexcept KeyboardInterrupt:\n    pass"), LIMIT)
        until(lambda: value(notebook, "json.dumps(last_run().done)"), "the run is over")
        wrong = "[x for x, r in enumerate(last_run().results) if r is not nbparallel.run.PENDING and r != x * x]"
        assert notebook.run(wrong).result == "[]"
        assert notebook.run("last_run().failures").result == "{}"
        next_map_is_right(notebook)
    nobody_computes(notebook)
    until(lambda: len(value(notebook, "json.dumps(pids())")) == 2, "two workers")
