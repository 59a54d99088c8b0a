"""The engine's inside with real workers, under each start method: what they share with the notebook, what they write,
how they die, and that nothing waits for ever.

A small `Work` stands in for the front; the tasks are in `engine_tasks`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import engine_tasks as tasks
import psutil
import pytest
from test_wire import loopback_pair

from nbparallel.engine import process
from nbparallel.engine.manager import Engine
from nbparallel.engine.work import Failure, Payload, next_number
from nbparallel.machine import BLAS_VARIABLES, effective_cores
from nbparallel.serialize import unit_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, descriptors and /proc")

LIMIT = 30.0  # seconds until a test is given up that would wait for ever
# Scripts find the package that is tested, installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(process.__file__).parents[2])}


class FakeWork:
    """A run that keeps what it is told."""

    streams = False
    seed = None

    def __init__(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        width: int = 2,
        chunksize: int | None = 1,
        style: str = "one",
        stop_on_error: bool = False,
    ) -> None:
        self.number = next_number()
        self.width = width
        self.chunksize = chunksize
        self.style = style
        self.stop_on_error = stop_on_error
        self.items = items
        self.unit = unit_of(function)
        self.values: dict[int, Any] = {}
        self.failures: dict[int, Failure] = {}
        self.given_up: Failure | None = None
        self.output: dict[int, list[str]] = defaultdict(list)
        self.labels: set[int] = set()
        self.finished = threading.Event()

    def payload(self, start: int, stop: int) -> Payload:
        return Payload(self.unit, self.items[start:stop])

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        for index, value in enumerate(values, first):
            assert index not in self.values, "settled twice"
            assert index not in self.failures, "settled twice"
            if index in failures:
                self.failures[index] = failures[index]
            else:
                self.values[index] = value

    def give_up(self, why: Failure) -> None:
        self.given_up = why

    def hungry(self, count: int) -> None:
        raise AssertionError("it does not stream")

    def write(self, index: int, stream: int, text: str) -> None:
        self.labels.add(index)
        self.output[stream].append(text)

    def finish(self) -> None:
        assert not self.finished.is_set(), "finished twice"
        self.finished.set()

    def deliver(self) -> None:
        """Nobody waits by it."""

    # ---- for tests ----

    def wait(self) -> FakeWork:
        assert self.finished.wait(LIMIT), f"not finished: {self.values} {self.failures}"
        return self

    def results(self) -> list[Any]:
        """Return all results; each task must have one."""
        self.wait()
        assert self.failures == {}
        assert self.given_up is None
        return [self.values[index] for index in range(len(self.items))]

    def lines(self, stream: int) -> list[str]:
        return "".join(self.output[stream]).splitlines()


def begin(engine: Engine, function: Callable[..., Any], items: Sequence[Any], **options: Any) -> FakeWork:
    work = FakeWork(function, items, **options)
    engine.submit(work)
    engine.offer(work, len(items), last=True)
    return work


def run(engine: Engine, function: Callable[..., Any], items: Sequence[Any], **options: Any) -> FakeWork:
    return begin(engine, function, items, **options).wait()


@contextlib.contextmanager
def an_engine(start_method: str, workers: int = 2, **options: Any) -> Iterator[Engine]:
    engine = Engine(start_method, workers, **options)
    try:
        yield engine
    finally:
        engine.shutdown(abort=True)


@pytest.fixture
def engine(start_method: str) -> Iterator[Engine]:
    with an_engine(start_method) as started:
        yield started


@pytest.fixture(autouse=True)
def nursery_ends() -> Iterator[None]:
    yield
    process.close_nursery()


def until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Return what `condition` returns, once that is true."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.005)
    return value


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids_of(engine: Engine, count: int, folder: Path) -> set[int]:
    """Return the pids of `count` workers that are there at the same time."""
    folder.mkdir()
    return set(run(engine, tasks.meet, [(str(folder), count)] * count, width=count).results())


def script(tmp_path: Path, source: str) -> list[str]:
    path = tmp_path / "a_script.py"
    path.write_text(textwrap.dedent(source))
    return [sys.executable, str(path)]


def run_script(tmp_path: Path, source: str, *args: str) -> str:
    """Run a plain script, without a guard, to its end; return what it printed."""
    done = subprocess.run(
        [*script(tmp_path, source), *args],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# ---- the main module ----


def test_a_script_without_a_guard_runs_once(start_method, tmp_path):
    effect = tmp_path / "effect"
    out = run_script(
        tmp_path,
        """
        import sys
        with open(sys.argv[2], "a") as file:
            file.write("once\\n")
        import nbparallel
        factor = 3
        def times(x):
            return x * factor
        nbparallel.configure(start_method=sys.argv[1])
        print(nbparallel.pmap(times, range(5), workers=2))
        """,
        start_method,
        str(effect),
    )
    assert out == "[0, 3, 6, 9, 12]\n"
    assert effect.read_text() == "once\n"


def test_a_workers_main_module_is_empty(engine):
    def main_names(_):
        return sorted(set(vars(sys.modules["__main__"])) - {"__annotations__"})

    if engine.start_method == "fork":
        pytest.skip("a fork has the modules that its parent has")
    (names,) = run(engine, main_names, [0]).results()
    assert [name for name in names if not name.startswith("__")] == []


# ---- what workers share with the notebook ----


def test_workers_mirror_the_notebooks_process(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("NBPARALLEL_TEST", "Füße")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (seen,) = run(engine, tasks.surroundings, [["NBPARALLEL_TEST", "HOME"]]).results()
    expected = tasks.surroundings(["NBPARALLEL_TEST", "HOME"])
    assert seen == {**expected, "pid": seen["pid"]}
    assert seen["pid"] != os.getpid()


def test_warm_workers_follow_changes(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("NBPARALLEL_GONE", "1")
    (before,) = run(engine, tasks.surroundings, [["NBPARALLEL_GONE", "NBPARALLEL_NEW"]]).results()
    assert before["variables"] == {"NBPARALLEL_GONE": "1", "NBPARALLEL_NEW": None}
    monkeypatch.delenv("NBPARALLEL_GONE")
    monkeypatch.setenv("NBPARALLEL_NEW", "2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, "/somewhere/else"])
    limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    try:
        sys.setrecursionlimit(12_345)
        sys.set_int_max_str_digits(9_876)
        (after,) = run(engine, tasks.surroundings, [["NBPARALLEL_GONE", "NBPARALLEL_NEW"]]).results()
    finally:
        sys.setrecursionlimit(limits[0])
        sys.set_int_max_str_digits(limits[1])
    assert after == {
        "pid": before["pid"],
        "variables": {"NBPARALLEL_GONE": None, "NBPARALLEL_NEW": "2"},
        "folder": str(tmp_path),
        "path": [*before["path"], "/somewhere/else"],
        "recursion_limit": 12_345,
        "max_str_digits": 9_876,
    }
    (again,) = run(engine, tasks.surroundings, [[]]).results()
    assert (again["recursion_limit"], again["max_str_digits"]) == limits


def test_a_folder_that_is_gone_is_no_obstacle(engine, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run(engine, tasks.square, [3]).results() == [9]


def test_numeric_libraries_share_the_cores(start_method):
    pytest.importorskip("numpy")
    before = {name: os.environ.get(name) for name in BLAS_VARIABLES}
    workers = max(2, effective_cores())
    with an_engine(start_method, workers) as engine:
        (pools,) = run(engine, tasks.blas, [0]).results()
    assert len(pools) > 1, "no numeric library was found"
    if start_method == "fork":  # its libraries were loaded, and sized, by this process
        pools = pools[:1]
    assert all(workers * threads <= max(workers, effective_cores()) for _, threads in pools), pools
    assert {name: os.environ.get(name) for name in BLAS_VARIABLES} == before


# ---- output ----


def test_all_that_a_task_writes_arrives_by_its_stream(engine):
    work = run(engine, tasks.write_everywhere, range(3))
    assert work.results() == [None] * 3
    wanted = ["print", "write", "subprocess", "printf", "buffer"]
    assert sorted(work.lines(1)) == sorted(f"{kind} {index}" for kind in wanted for index in range(3))
    wanted = ["print to stderr", "write to stderr", "subprocess to stderr"]
    assert sorted(work.lines(2)) == sorted(f"{kind} {index}" for kind in wanted for index in range(3))


def test_output_arrives_before_the_end(engine):
    seen = {}

    class Watching(FakeWork):
        def settle(self, first, values, failures, seconds):
            seen[first] = {stream: "".join(parts) for stream, parts in self.output.items()}
            super().settle(first, values, failures, seconds)

    work = Watching(tasks.write_everywhere, [7], width=1)
    engine.submit(work)
    engine.offer(work, 1, last=True)
    work.wait()
    assert "printf 7" in seen[0][1]
    assert "subprocess to stderr 7" in seen[0][2]


def test_what_was_printed_right_before_the_end_arrives(engine):
    work = run(engine, tasks.write_and_die, [4])
    assert work.failures[0].crashed
    assert sorted(work.lines(1)) == ["print 4", "printf 4", "write 4"]
    assert work.lines(2) == ["print to stderr 4"]


def test_a_last_line_without_its_end_arrives(engine):
    work = run(engine, tasks.write_without_a_newline, range(4), chunksize=2)
    assert sorted("".join(work.output[1])) == sorted("[0][1][2][3]")
    assert sorted("".join(work.output[2])) == sorted("<0><1><2><3>")
    assert work.results() == [None] * 4


def test_prints_arrive_live(engine, tmp_path):
    written, go_on = str(tmp_path / "written"), str(tmp_path / "go_on")
    work = begin(engine, tasks.write_and_say, [(written, go_on)])
    until(lambda: work.output[1], "the line is there while its task runs")
    assert not work.finished.is_set()
    Path(go_on).touch()
    assert work.results() == [None]
    assert work.labels == {0}


def test_much_output_arrives_whole_and_in_order(engine):
    work = run(engine, tasks.write_much, [20_000])
    assert work.lines(1) == [f"line {number}" for number in range(20_000)]


def test_a_signal_handler_may_print_amid_a_print(engine):
    work = run(engine, tasks.write_in_signal_handlers, [3000])
    (handled,) = work.results()
    text = "".join(work.output[1])
    assert text.count("body") >= 3000
    assert text.count("handler") == handled


def test_a_child_that_a_task_forks_may_print(engine):
    work = run(engine, tasks.fork_and_write, range(3))
    assert work.results() == [0, 1, 2]
    text = "".join(work.output[1])
    for index in range(3):
        assert text.count(f"from the child {index}\n") == 1
        assert text.count(f"from the task {index}\n") == 1
    assert text.count("its end") == 3


def test_a_program_that_writes_without_end_can_be_stopped(engine, tmp_path):
    path = tmp_path / "program"
    work = begin(engine, tasks.flood, [str(path)])
    until(path.exists, "it writes")
    program = int(path.read_text())
    engine.cancel(work, abort=True)
    work.wait()
    until(lambda: not alive(program), "nobody reads it any more, so it ends")


# ---- dying ----

#: What each way leaves as the exit code (negative for a signal).
DEATHS = {
    "_exit": 3,
    "kill": -signal.SIGKILL,
    "abort": -signal.SIGABRT,
    "segfault": -signal.SIGSEGV,
    "sys.exit": 4,
    "sys.exit in words": 1,
    "close everything": None,
}


@pytest.mark.parametrize("how", DEATHS)
def test_only_the_guilty_task_fails(engine, how):
    items = ["a", "b", how, "d", "e", "f", "g", "h"]
    work = run(engine, tasks.die, items, chunksize=4)
    assert work.values == {index: item for index, item in enumerate(items) if item != how}
    assert list(work.failures) == [2]
    failure = work.failures[2]
    assert failure.crashed
    assert failure.pid not in (None, os.getpid())
    if DEATHS[how] is not None:
        assert failure.exitcode == DEATHS[how]


def test_the_words_of_an_exit_arrive(engine):
    work = run(engine, tasks.die, ["sys.exit in words"])
    assert work.lines(2) == ["a last word"]


def test_every_task_may_die(engine):
    work = run(engine, tasks.die, ["_exit"] * 6, chunksize=3)
    assert sorted(work.failures) == list(range(6))
    assert work.given_up is None
    assert run(engine, tasks.square, range(4)).results() == [0, 1, 4, 9]


def test_a_death_while_an_input_is_rebuilt_fails_that_task_alone(engine):
    items = [0, 1, tasks.DiesWhenLoaded(), 3]
    work = run(engine, tasks.echo, items, chunksize=4)
    assert work.values == {0: 0, 1: 1, 3: 3}
    assert work.failures[2].exitcode == 8


def test_an_input_that_can_not_be_rebuilt_fails_its_task_alone(engine):
    items = [0, 1, tasks.RaisesWhenLoaded(), 3]
    work = run(engine, tasks.echo, items, chunksize=4)
    assert work.values == {0: 0, 1: 1, 3: 3}
    assert work.failures[2].type == "ValueError"
    assert not work.failures[2].crashed


def test_a_death_while_a_result_is_pickled_fails_that_task_alone(engine):
    work = run(engine, tasks.dies_when_pickled, range(4), chunksize=4)
    assert work.values == {0: 0, 1: 1, 3: 3}
    assert work.failures[2].exitcode == 9


def test_a_dead_worker_is_noticed_behind_its_child(engine, tmp_path):
    go_on = tmp_path / "go_on"
    work = begin(engine, tasks.fork_and_die, [str(go_on)])
    work.wait()  # though a process is left that inherited all of the worker's descriptors
    assert work.failures[0].exitcode == 6
    go_on.touch()


def test_a_task_may_close_the_standard_descriptors(engine):
    work = run(engine, tasks.close_output, [0])
    assert work.results() == ["done"]
    assert work.lines(1) == ["still here"]
    assert run(engine, tasks.square, [5]).results() == [25]


def test_a_thread_that_a_task_leaves_does_not_keep_its_worker(start_method, tmp_path):
    with an_engine(start_method) as engine:
        assert run(engine, tasks.leave_a_thread, [str(tmp_path / "never")]).results() == ["done"]
        (worker,) = engine.pids
        engine.shutdown(abort=False)
        assert not alive(worker)


def test_killed_while_idle_the_next_work_has_new_workers(engine, tmp_path):
    before = pids_of(engine, 2, tmp_path / "before")
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    assert before.isdisjoint(pids_of(engine, 2, tmp_path / "after"))


# ---- workers that never get anywhere ----


def test_an_initializer_prepares_each_worker(start_method):
    with an_engine(start_method, initializer=(tasks.prepare, (1, "two"))) as engine:
        work = run(engine, tasks.what_was_prepared, range(4))
        assert work.results() == [[1, "two"]] * 4
        assert set(work.lines(1)) == {"preparing 1 two"}


def test_what_an_initializer_prints_ahead_of_any_work_is_kept_for_it(start_method):
    with an_engine(start_method, initializer=(tasks.prepare, ("early",))) as engine:
        engine.grow(1)
        until(lambda: [each for each in engine._workers.values() if each._early], "its line is there")
        assert run(engine, tasks.square, [1]).lines(1) == ["preparing early"]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_initializer_that_raises_ends_the_run_with_its_reason(start_method, workers):
    with an_engine(start_method, initializer=(tasks.fail, ())) as engine:
        work = run(engine, tasks.square, range(8), width=workers)
        assert work.values == {}
        assert isinstance(work.given_up.error, ValueError)
        assert "the initializer failed: ValueError: not today" in work.given_up.message
        assert "before it fails" in work.lines(1)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_initializer_that_exits_ends_the_run(start_method, workers):
    with an_engine(start_method, initializer=(tasks.exit_at_once, ())) as engine:
        work = run(engine, tasks.square, range(8), width=workers)
        assert work.values == {}
        assert work.given_up.crashed
        assert "before it exits" in work.lines(2)


def test_a_worker_that_can_not_be_started_ends_the_run_and_leaves_nothing(start_method, monkeypatch):
    with an_engine(start_method) as engine:
        assert run(engine, tasks.square, [2]).results() == [4]
        os.kill(engine.pids[0], signal.SIGKILL)
        until(lambda: not engine.pids, "its end is noticed")
        before = len(os.listdir("/proc/self/fd"))

        def refuse() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(process, "make_pair", refuse)
        work = run(engine, tasks.square, range(3))
        assert "Too many open files" in work.given_up.message
        assert len(os.listdir("/proc/self/fd")) == before
        monkeypatch.undo()
        assert run(engine, tasks.square, [3]).results() == [9]


def test_a_defect_leaves_nobody_waiting(start_method, monkeypatch):
    class Broken(FakeWork):
        def settle(self, first, values, failures, seconds):
            raise ZeroDivisionError("a defect")

    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: told.set())
    with an_engine(start_method) as engine:
        broken = Broken(tasks.square, [1])
        engine.submit(broken)
        engine.offer(broken, 1, last=True)
        broken.wait()
        assert "a defect" in broken.given_up.message
        assert told.wait(LIMIT)
        engine._thread.join(LIMIT)
        assert not engine.usable


def test_a_callback_that_fails_is_told_and_in_nobodys_way(engine, monkeypatch):
    class Failing(FakeWork):
        def deliver(self):
            raise ZeroDivisionError("a callback's")

    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, frames: seen.append(kind))
    failing = Failing(tasks.square, [2])
    engine.submit(failing)
    engine.offer(failing, 1, last=True)
    assert failing.results() == [4]
    assert run(engine, tasks.square, [3]).results() == [9]
    assert set(seen) == {ZeroDivisionError}


# ---- the life of workers ----


def test_workers_are_warm(engine):
    (first,) = run(engine, tasks.pid, [0], width=1).results()
    assert set(run(engine, tasks.pid, range(5), width=1).results()) == {first}


def test_workers_are_replaced_after_their_tasks(start_method):
    with an_engine(start_method, max_tasks_per_worker=2) as engine:
        pids = run(engine, tasks.pid, range(6), width=1, chunksize=5).results()
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]
    assert len(set(pids)) == 3


def test_forks_draw_different_numbers(engine, tmp_path):
    pids_of(engine, 2, tmp_path / "two")
    drawn = run(engine, tasks.draw, range(40)).results()
    assert len(set(drawn)) == 40


def test_an_idle_engine_rests(engine, tmp_path):
    workers = [psutil.Process(pid) for pid in pids_of(engine, 2, tmp_path / "two")]
    turned = threading.Event()
    select = engine._selector.select
    engine._selector.select = lambda timeout=None: (turned.set(), select(timeout))[1]
    engine._wake()
    assert turned.wait(LIMIT)
    until(lambda: all(each.status() == psutil.STATUS_SLEEPING for each in workers), "they wait")
    turned.clear()
    before = [each.num_ctx_switches() for each in workers]
    assert not turned.wait(0.3), "the manager's thread turns without anything to do"
    assert [each.num_ctx_switches() for each in workers] == before


def test_descriptors_do_not_pile_up(start_method):
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    counts = []
    for _ in range(15 if start_method == "spawn" else 50):
        with an_engine(start_method) as engine:
            assert run(engine, tasks.square, [2, 3]).results() == [4, 9]
        counts.append(count())
    assert counts[-1] == counts[0]
    assert max(counts) == min(counts)


def test_a_shutdown_without_abort_finishes_the_work(start_method, tmp_path):
    with an_engine(start_method) as engine:
        go_on = tmp_path / "go_on"
        work = begin(engine, tasks.pid_after, [str(go_on)] * 3)
        engine.shutdown(abort=False, wait=False)
        assert not engine.usable
        with pytest.raises(RuntimeError, match="after shutdown"):
            begin(engine, tasks.square, [1])
        go_on.touch()
        assert len(work.results()) == 3
        engine.shutdown(abort=False)
        assert engine.pids == []


def test_a_cancelled_run_ends_its_workers_and_leaves_those_of_others(start_method, tmp_path):
    with an_engine(start_method) as engine:
        begun, go_on = tmp_path / "begun", tmp_path / "go_on"
        long = begin(engine, tasks.sleep_long, [str(begun)], width=1)
        other = begin(engine, tasks.pid_after, [str(go_on)], width=1)
        until(begun.exists, "the long task has begun")
        engine.cancel(long, abort=True)
        long.wait()
        go_on.touch()
        assert len(other.results()) == 1
        assert run(engine, tasks.square, range(3)).results() == [0, 1, 4]


def test_many_small_runs_in_several_threads(engine):
    def work_through(_: int) -> list[list[int]]:
        return [run(engine, tasks.square, range(turn)).results() for turn in range(30)]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(work_through, range(4)))
    assert found == [[[x * x for x in range(turn)] for turn in range(30)]] * 4


def test_large_payloads_both_ways_do_not_block_each_other(engine):
    # Tiny tasks, so that chunks are sent ahead while results are on their way: 200 MB there, 400 MB back.
    items = [bytes([number]) * 5_000_000 for number in range(40)]
    work = run(engine, tasks.doubled, items)
    assert work.results() == [2 * item for item in items]


# ---- the end of the notebook, of the nursery, of a fork ----


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm")
def test_workers_end_with_a_notebook_that_is_killed(start_method, tmp_path):
    names = set(os.listdir("/dev/shm"))
    source = """
        import sys, time
        import nbparallel
        def busy(path):
            import os
            open(path + "." + str(os.getpid()), "w").close()
            while True:
                pass
        nbparallel.configure(start_method=sys.argv[1])
        nbparallel.pmap(busy, [sys.argv[2]] * 2, workers=2)
        """
    folder = tmp_path / "pids"
    folder.mkdir()
    command = [*script(tmp_path, source), start_method, str(folder / "worker")]
    with subprocess.Popen(command, env=ENVIRONMENT) as notebook:
        until(lambda: len(list(folder.iterdir())) == 2, "both workers are busy")
        workers = [int(path.suffix[1:]) for path in folder.iterdir()]
        below = {child.pid for child in psutil.Process(notebook.pid).children(recursive=True)}
        assert below >= set(workers)
        notebook.kill()
    until(lambda: not any(map(alive, below)), "all its processes are gone", limit=2.0)
    assert set(os.listdir("/dev/shm")) <= names


def test_a_nursery_that_is_killed_is_replaced():
    if "forkserver" not in process.START_METHODS:
        pytest.skip("the system has no nursery")
    with an_engine("forkserver") as engine:
        (before,) = run(engine, tasks.pid, [0], width=1).results()
        os.kill(process._nursery.pid, signal.SIGKILL)
        until(lambda: not engine.pids, "its workers end with it, and the engine notices")
        (after,) = run(engine, tasks.pid, [0], width=1).results()
        assert after != before


def test_a_nursery_that_is_killed_while_workers_are_busy_costs_their_tasks_only(tmp_path):
    if "forkserver" not in process.START_METHODS:
        pytest.skip("the system has no nursery")
    with an_engine("forkserver") as engine:
        begun = tmp_path / "begun"
        work = begin(engine, tasks.sleep_long, [str(begun)], width=1)
        until(begun.exists, "the task has begun")
        os.kill(process._nursery.pid, signal.SIGKILL)
        work.wait()
        assert work.failures[0].exitcode == -signal.SIGKILL
        assert run(engine, tasks.square, [3]).results() == [9]


def test_an_interrupt_of_the_process_group_spares_the_workers(start_method, tmp_path):
    source = """
        import os, signal, sys
        import nbparallel
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        def pid(x):
            return os.getpid()
        nbparallel.configure(start_method=sys.argv[1], workers=1)
        before = nbparallel.pmap(pid, [1])
        os.killpg(0, signal.SIGINT)
        assert nbparallel.pmap(pid, [1]) == before
        assert seen == [1]
        print("the same")
        """
    done = subprocess.run(
        [*script(tmp_path, source), start_method],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        start_new_session=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("the same\n", "")


def test_interrupts_while_workers_start_spare_them(start_method, tmp_path):
    source = """
        import os, signal, sys, threading
        import nbparallel
        signal.signal(signal.SIGINT, lambda *_: None)
        over = threading.Event()
        def interrupt():
            while not over.wait(0.002):
                os.killpg(0, signal.SIGINT)
        nbparallel.configure(start_method=sys.argv[1], workers=2)
        thread = threading.Thread(target=interrupt)
        thread.start()
        print(nbparallel.pmap(abs, range(-10, 0)))
        over.set()
        thread.join()
        """
    done = subprocess.run(
        [*script(tmp_path, source), start_method],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        start_new_session=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]\n", "")


def test_a_fork_of_the_notebook_has_workers_of_its_own(start_method, tmp_path):
    out = run_script(
        tmp_path,
        """
        import os, sys, warnings
        import nbparallel
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: this is the question here
        def pid(x):
            return os.getpid()
        nbparallel.configure(start_method=sys.argv[1], workers=1)
        pool = nbparallel.Pool(1)
        before = nbparallel.pmap(pid, [1]), pool.map(pid, [1])
        child = os.fork()
        if child == 0:
            own = nbparallel.pmap(pid, [1])
            assert own != before[0], own
            pool.terminate()  # not its own: without effect
            print("from the child", flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (nbparallel.pmap(pid, [1]), pool.map(pid, [1])) == before
        pool.terminate()
        print("the same")
        """,
        start_method,
    )
    assert out == "from the child\nthe same\n"


def test_a_fork_of_the_notebook_does_not_keep_workers_alive(start_method, tmp_path):
    source = """
        import os, sys, time, warnings
        import nbparallel
        warnings.simplefilter("ignore", DeprecationWarning)
        def pid(x):
            return os.getpid()
        nbparallel.configure(start_method=sys.argv[1], workers=1)
        (worker,) = nbparallel.pmap(pid, [1])
        child = os.fork()
        if child == 0:
            while not os.path.exists(sys.argv[2]):
                time.sleep(0.01)
            os._exit(0)
        print(worker, child, flush=True)
        time.sleep(600)
        """
    go_on = tmp_path / "go_on"
    command = [*script(tmp_path, source), start_method, str(go_on)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as notebook:
        worker, child = map(int, notebook.stdout.readline().split())
        notebook.kill()
    try:
        until(lambda: not alive(worker), "it ends with its notebook", limit=2.0)
        assert alive(child)
    finally:
        go_on.touch()
        until(lambda: not alive(child), "it was told to")


def test_a_fork_waits_for_imports(tmp_path, monkeypatch):
    if "fork" not in process.START_METHODS:
        pytest.skip("the system has no fork")
    (tmp_path / "slow_to_import.py").write_text(
        "import os, time\n"
        f"open({str(tmp_path / 'begun')!r}, 'w').close()\n"
        f"while not os.path.exists({str(tmp_path / 'go_on')!r}):\n"
        "    time.sleep(0.001)\n"
        "answer = 42\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(process, "_IMPORT_SECONDS", LIMIT)
    importing = threading.Thread(target=importlib.import_module, args=("slow_to_import",))
    with an_engine("fork") as engine:
        importing.start()
        until((tmp_path / "begun").exists, "the import has begun")
        work = begin(engine, tasks.import_answer, ["slow_to_import"])
        until(lambda: engine._to_start == 0, "a worker is about to be forked")
        (tmp_path / "go_on").touch()
        assert work.results() == [42]
        importing.join()
    del sys.modules["slow_to_import"]


# ---- what other systems have ----


def test_the_loopback_carries_all_that_a_unix_pair_does(start_method, monkeypatch):
    monkeypatch.setattr(process, "make_pair", loopback_pair)
    with an_engine(start_method) as engine:
        work = run(engine, tasks.die, ["a", "_exit", "c"], chunksize=3)
        assert work.values == {0: "a", 2: "c"}
        assert work.failures[1].exitcode == 3
        items = [bytes([number]) * 3_000_000 for number in range(20)]
        assert run(engine, tasks.doubled, items).results() == [2 * item for item in items]
        assert {each.process.socket.family for each in engine._workers.values()} == {socket.AF_INET}


def test_workers_are_noticed_where_their_end_can_not_be_waited_for(start_method, monkeypatch):
    # macOS has no descriptors of processes: the end of the stream tells, and now and then a look.
    made = process.WorkerProcess.__init__

    def without_sentinel(self, *args):
        made(self, *args)
        self.sentinel = None

    monkeypatch.setattr(process.WorkerProcess, "__init__", without_sentinel)
    with an_engine(start_method) as engine:
        work = run(engine, tasks.die, ["a", "kill", "c"], chunksize=3)
        assert work.values == {0: "a", 2: "c"}
        assert work.failures[1].exitcode == -signal.SIGKILL


def test_the_watch_ends_a_worker_with_its_parent(tmp_path):
    # Linux ends workers by a signal of its own, where the others have this thread.
    watching = """
        import os, socket, sys, threading
        from nbparallel.engine import worker
        sock = socket.socket(fileno=int(sys.argv[1]))
        threading.Thread(target=worker._watch, args=(os.getppid(), sock), daemon=True).start()
        print("watching", flush=True)
        while True:
            pass
        """
    ours, theirs = socket.socketpair()
    with (
        theirs,
        subprocess.Popen(
            [*script(tmp_path, watching), str(theirs.fileno())],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[theirs.fileno()],
        ) as worker,
    ):
        theirs.close()
        assert worker.stdout.readline() == "watching\n"
        ours.send(b"a message does not end it")
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.1)
        ours.close()
        assert worker.wait(LIMIT) == 1


def test_descriptors_above_1023_are_as_good_as_others(start_method, tmp_path):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1500:
        pytest.skip("the system grants too few descriptors")
    out = run_script(
        tmp_path,
        """
        import os, resource, sys
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        held = [os.dup(0) for _ in range(1100)]
        import nbparallel
        def die(x):
            if x == 1:
                os._exit(3)
            return x
        nbparallel.configure(start_method=sys.argv[1], workers=2)
        print([getattr(x, "exitcode", x) for x in nbparallel.pmap(die, range(3), on_error="return")])
        """,
        start_method,
    )
    assert out == "[0, 3, 2]\n"
