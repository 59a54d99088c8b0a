"""How workers die, under each start method: the guilty task fails, all others go on, and nothing waits for ever."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading

import engine_tasks as tasks
import pytest
from engine_work import (
    LIMIT,
    FakeWork,
    alive,
    an_engine,
    begin,
    engine_fixture,  # noqa: F401 - a fixture
    nursery_ends,  # noqa: F401 - a fixture
    pids_of,
    run,
    until,
)

from nbparallel.engine import process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, descriptors and /proc")


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
@pytest.mark.parametrize(("how", "end"), [("exit", "ended with exit code 11"), ("kill", "was killed by SIGKILL")])
def test_an_initializer_that_exits_ends_the_run(start_method, workers, how, end):
    with an_engine(start_method, initializer=(tasks.exit_at_once, (how,))) as engine:
        work = run(engine, tasks.square, range(8), width=workers)
        assert work.values == {}
        assert work.given_up.crashed
        told = rf"the worker with pid \d+ {end} while it ran the initializer exit_at_once"
        assert re.fullmatch(told, work.given_up.message)
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
