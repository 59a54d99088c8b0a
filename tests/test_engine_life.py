"""The life of workers under each start method: warm, replaced, interrupted, orphaned; and what other systems have."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import engine_tasks as tasks
import psutil
import pytest
from engine_work import (
    ENVIRONMENT,
    LIMIT,
    alive,
    an_engine,
    begin,
    engine_fixture,  # noqa: F401 - a fixture
    nursery_ends,  # noqa: F401 - a fixture
    pids_of,
    run,
    run_script,
    script,
    until,
)
from test_wire import loopback_pair

from nbparallel import multiprocessing
from nbparallel.engine import pipes, process
from nbparallel.engine.methods import START_METHODS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, descriptors and /proc")


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
    until(lambda: engine._guard.asleep, "it has looked at the memory for the last time")
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


def test_nobody_waits_for_a_result_that_is_slow_to_rebuild(engine, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()
    monkeypatch.setattr(tasks, "GATE", (begun, may_end))
    work = begin(engine, tasks.slow_result, range(4))
    assert begun.wait(LIMIT)
    # In a thread, so that one that waits would fail the test and not hang it.
    stop = threading.Thread(target=engine.cancel, args=(work,), kwargs={"abort": True})
    stop.start()
    stop.join(LIMIT / 2)
    waits = stop.is_alive()
    other = None if waits else begin(engine, tasks.square, range(4))
    may_end.set()
    stop.join()
    assert not waits
    assert work.wait().values[0] == "rebuilt"
    assert other.results() == [0, 1, 4, 9]


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
def test_workers_end_with_a_notebook_that_is_killed(start_method, tmp_path, leaves_nothing_behind):
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
    leaves_nothing_behind.require("name")


def test_a_nursery_that_is_killed_is_replaced():
    if "forkserver" not in START_METHODS:
        pytest.skip("the system has no nursery")
    with an_engine("forkserver") as engine:
        (before,) = run(engine, tasks.pid, [0], width=1).results()
        os.kill(process._nursery.pid, signal.SIGKILL)
        until(lambda: not engine.pids, "its workers end with it, and the engine notices")
        (after,) = run(engine, tasks.pid, [0], width=1).results()
        assert after != before


def test_a_nursery_that_is_killed_while_workers_are_busy_costs_their_tasks_only(tmp_path):
    if "forkserver" not in START_METHODS:
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
    if "fork" not in START_METHODS:
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


def test_output_arrives_where_pipes_can_not_be_waited_for(start_method, monkeypatch):
    # Windows: a thread moves what a worker writes to a socket.
    monkeypatch.setattr(pipes, "WAITABLE", False)
    with an_engine(start_method) as engine:
        work = run(engine, tasks.write_and_die, [4])
        assert work.failures[0].crashed
        assert sorted(work.lines(1)) == ["print 4", "printf 4", "write 4"]
        work = run(engine, tasks.square, [3])
        assert work.results() == [9]


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


@pytest.mark.skipif("forkserver" not in START_METHODS, reason="this system has none")
def test_a_nursery_has_imported_what_processes_need() -> None:
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=abs, args=(-1,))
    child.start()
    child.join()
    with context.Pool(1) as pool:  # forked from the same nursery, and in no need of it
        assert pool.apply(eval, ("'nbparallel.multiprocessing.child' in __import__('sys').modules",))
