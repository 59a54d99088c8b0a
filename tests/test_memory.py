"""The memory guard: what follows from how full the memory is, from figures that a test gives and in real kernels."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import engine_tasks as tasks
import pytest
from engine_work import (
    begin,
    engine_fixture,  # noqa: F401 - a fixture
    nursery_ends,  # noqa: F401 - a fixture
    run,
    until,
)
from kernels import Kernel, kernel

from nbparallel.engine import memory
from nbparallel.engine.memory import Guard, LastKnown, Look, Thresholds
from nbparallel.machine import MemoryUse

__all__ = ["kernel"]

MIB = 2**20


@dataclass
class Machine:
    """A machine of 1000 MiB whose use a test sets; sizes of processes are in MiB."""

    used: int = 100
    sizes: dict[int, int] = field(default_factory=dict)

    @property
    def use(self) -> MemoryUse:
        return MemoryUse(self.used * MIB, 1000 * MIB, "as the test says")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(memory, "memory_use", lambda held: found.use)
    monkeypatch.setattr(memory, "resident", lambda pid: found.sizes.get(pid, 10) * MIB)
    monkeypatch.setattr(memory, "private", lambda pid: found.sizes.get(pid, 10) * MIB)
    return found


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    yield
    memory.set_thresholds(Thresholds())


# ---- what is decided ----


def test_up_to_the_first_threshold_nothing_follows(machine):
    machine.used = 850
    assert Guard().look([1, 2], active=True) == Look()


def test_above_it_memory_is_short_and_that_is_told_once_an_episode(machine):
    guard = Guard()
    machine.used = 860
    look = guard.look([1, 2], active=True)
    assert (look.short, look.heavy, look.victim) == (True, (), None)
    assert look.news.startswith(
        "nbparallel: memory is short: 860 MiB of 1000 MiB (as the test says) were in use, more than 85%."
    )
    assert look.news.count("\n") == 1
    for used, short in [(900, True), (840, False), (870, True)]:  # it hovers: nothing new
        machine.used = used
        look = guard.look([1, 2], active=True)
        assert (look.short, look.news) == (short, "")
    machine.used = 700
    assert guard.look([1, 2], active=True) == Look()
    machine.used = 860
    assert guard.look([1, 2], active=True).news


def test_workers_that_hold_much_are_named(machine):
    machine.used, machine.sizes = 900, {1: 21, 2: 19, 3: 300}
    assert Guard().look([1, 2, 3], active=True).heavy == (1, 3)


def test_above_the_second_threshold_the_largest_is_to_end_and_no_other_until_it_has(machine):
    guard = Guard()
    machine.used, machine.sizes = 960, {1: 100, 2: 400, 3: 300}
    assert guard.look([1, 2, 3], active=True).victim == 2
    machine.used = 990
    assert guard.look([1, 2, 3], active=True).victim is None
    assert guard.last_known(2) == LastKnown(400 * MIB, machine.use._replace(used=960 * MIB), 0.95)
    guard.gone(2)
    assert guard.look([1, 3], active=True).victim == 3


def test_small_workers_are_not_ended_for_what_others_hold(machine):
    machine.used, machine.sizes = 990, {1: 20, 2: 29}
    assert Guard().look([1, 2], active=True).victim is None
    machine.sizes[2] = 31
    assert Guard().look([1, 2], active=True).victim == 2


@pytest.mark.parametrize(
    ("given", "short", "victim"),
    [
        (Thresholds(None, None), False, None),
        (Thresholds(None, 0.95), False, 1),
        (Thresholds(0.85, None), True, None),
        (Thresholds(0.98, 0.99), False, None),
        (Thresholds(0.5, 0.96), True, 1),
        (Thresholds(0.1, 0.15), True, 1),
    ],
)
def test_the_thresholds_are_settings(machine, given, short, victim):
    memory.set_thresholds(given)
    machine.used, machine.sizes = 970, {1: 60}
    look = Guard().look([1], active=True)
    assert (look.short, look.victim) == (short, victim)
    assert bool(look.news) == short


def test_the_less_is_left_the_sooner_it_looks_again(machine):
    guard = Guard()
    assert guard.asleep
    assert guard.seconds_left() is None
    guard.wake()
    assert not guard.asleep
    waits = []
    for used in (100, 700, 900, 1000):
        machine.used = used
        guard.look([1], active=True)
        assert guard._next is not None
        waits.append(guard._next - guard._looked)
    assert waits[0] == pytest.approx(memory.LOOK_SECONDS)
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == pytest.approx(0.02)
    machine.used = 900
    assert guard.look([1], active=False) == Look(), "whoever runs next is told, not nobody"
    assert guard.asleep
    assert guard.look([1], active=True).news


def test_the_last_known_is_the_peak_where_the_system_tells(machine):
    guard = Guard()
    assert guard.last_known(1) == LastKnown(None, machine.use)
    machine.sizes = {1: 200, 2: 200, 3: 200}
    guard.look([1, 2, 3], active=True)
    guard.ended(1, None)
    guard.ended(2, 300 * MIB)
    guard.ended(3, 100 * MIB)
    assert [guard.last_known(pid).worker for pid in (1, 2, 3)] == [200 * MIB, 300 * MIB, 200 * MIB]


def test_what_processes_hold_is_read():
    own = os.getpid()
    assert 0 < memory.private(own) < memory.resident(own)
    assert memory.private(2**22 + 1) == memory.resident(2**22 + 1) == 0  # above the largest pid of Linux


# ---- what the engine does ----


def test_a_killed_worker_leaves_its_memory_behind(engine, machine, tmp_path):
    work = begin(engine, tasks.sleep_long, [str(tmp_path / "begun")])
    until((tmp_path / "begun").exists, "it has begun")
    (pid,) = engine.pids
    machine.sizes[pid] = 5000  # more than its real peak, which some start methods tell
    until(lambda: engine._guard._sizes.get(pid) == 5000 * MIB, "it was looked at")
    os.kill(pid, signal.SIGKILL)
    work.wait()
    assert work.failures[0].memory == LastKnown(5000 * MIB, machine.use)


def test_the_peak_of_a_short_life_is_known(start_method, engine):
    work = run(engine, tasks.fill_and_die, [100 * MIB])
    held = work.failures[0].memory.worker
    if start_method == "spawn":  # see `nursery.peak_of`
        assert held is None or held > 0
    else:
        assert 100 * MIB < held < 10_000 * MIB


def test_the_largest_worker_is_ended_and_its_task_alone_fails(engine, machine, tmp_path):
    work = begin(engine, tasks.hold, [(str(tmp_path), name) for name in "abcd"])
    pids = until(lambda: read_pids(tmp_path, "a", "b"), "two have begun")
    machine.sizes[pids["b"]] = 500
    machine.used = 960
    until(lambda: 1 in work.failures, "it was ended")
    machine.used = 100
    for name in "acd":
        (tmp_path / f"{name} may end").touch()
    work.wait()
    assert work.values == {0: "a", 2: "c", 3: "d"}
    assert work.failures[1].memory == LastKnown(500 * MIB, machine.use._replace(used=960 * MIB), 0.95)
    assert pids["a"] in engine.pids


def test_an_idle_worker_is_let_go_before_any_task_is_ended(engine, machine, tmp_path):
    work = begin(engine, tasks.hold, [(str(tmp_path), name) for name in "ab"])
    pids = until(lambda: read_pids(tmp_path, "a", "b"), "two have begun")
    (tmp_path / "b may end").touch()
    until(lambda: 1 in work.values, "one is idle")
    machine.sizes = {pids["a"]: 100, pids["b"]: 500}
    machine.used = 900
    until(lambda: engine.pids == [pids["a"]], "the idle one is gone")
    (tmp_path / "a may end").touch()
    assert work.results() == ["a", "b"]


def test_an_idle_worker_may_be_the_largest(engine, machine, tmp_path):
    memory.set_thresholds(Thresholds(None, 0.95))
    work = begin(engine, tasks.hold, [(str(tmp_path), name) for name in "ab"])
    pids = until(lambda: read_pids(tmp_path, "a", "b"), "two have begun")
    (tmp_path / "b may end").touch()
    until(lambda: 1 in work.values, "one is idle")
    machine.sizes = {pids["a"]: 20, pids["b"]: 500}  # alone, a is too small to be ended
    machine.used = 960
    until(lambda: engine.pids == [pids["a"]], "the idle one is gone")
    machine.used = 100
    (tmp_path / "a may end").touch()
    assert work.results() == ["a", "b"]


def test_while_memory_is_short_tasks_begin_one_at_a_time(engine, machine, tmp_path):
    work = begin(engine, tasks.hold, [(str(tmp_path), name) for name in "abcd"])
    until(lambda: read_pids(tmp_path, "a", "b"), "two have begun")
    machine.used = 900  # by others: the workers are small
    until(lambda: engine._scheduler._short, "it was noticed")
    (tmp_path / "a may end").touch()
    until(lambda: 0 in work.values, "one has ended")
    assert not read_pids(tmp_path, "c")
    (tmp_path / "b may end").touch()
    until(lambda: read_pids(tmp_path, "c"), "one goes on though memory is short")
    assert not read_pids(tmp_path, "d")
    machine.used = 100
    until(lambda: read_pids(tmp_path, "d"), "memory is back")
    (tmp_path / "c may end").touch()
    (tmp_path / "d may end").touch()
    assert work.results() == ["a", "b", "c", "d"]
    (told,) = work.lines(2)
    assert "memory is short: 900 MiB of 1000 MiB" in told


def test_the_engine_looks_only_while_something_runs(engine, monkeypatch):
    assert run(engine, tasks.square, [3]).results() == [9]
    until(lambda: engine._guard.asleep, "it stopped looking")
    woken = []
    wake = engine._guard.wake
    monkeypatch.setattr(engine._guard, "wake", lambda: (woken.append(1), wake()))
    assert run(engine, tasks.square, [4]).results() == [16]
    assert woken


def read_pids(folder, *names):
    """Return the processes of tasks that have begun, once all of them have."""
    files = [folder / f"{name} has begun" for name in names]
    return (
        {name: int(file.read_text()) for name, file in zip(names, files, strict=True)}
        if all(file.exists() for file in files)
        else {}
    )


# ---- in a notebook ----


def test_a_task_that_fills_the_memory_is_ended_with_the_figures(kernel: Kernel) -> None:
    kernel.run("""
        from nbparallel.engine.memory import resident

        def fills(count):
            held = []
            for _ in range(count):
                held.append(bytearray(20 << 20))
            if count > 20:
                time.sleep(1000)
            return count

        limit = resident(os.getpid()) + (400 << 20)
        os.environ["MEM_LIMIT"] = str(limit)
        found = pmap(fills, [1, 0, 25, 2, 0], chunksize=1, on_error="return")
        del os.environ["MEM_LIMIT"]
        (error,) = [each for each in found if isinstance(each, Exception)]
    """)
    shown = "found[:2] + found[3:], found[2] is error, type(error).__name__, error.index, error.memory_limit == limit"
    assert kernel.run(shown).result == "([1, 0, 2, 0], True, 'WorkerCrashed', 2, True)"
    assert kernel.run("error.memory_used > 0.95 * limit and 0 < error.memory <= error.memory_used").result == "True"
    said = kernel.run("print(error)").stdout
    assert "task 2 (fills(25)): the worker with pid" in said
    assert "was ended to keep the memory from running out, while it ran this task. Its memory was" in said
    assert "more than 95% (configure(memory_stop=...)). Fewer workers, smaller inputs or smaller chunks" in said
    assert kernel.run("pmap(abs, [-1, -2, -3])").result == "[1, 2, 3]"


def test_a_cell_is_told_that_memory_is_short_and_settings_mend_it(kernel: Kernel) -> None:
    kernel.run("""
        def meets(x):
            (folder / f"met {x}").touch()
            while not all((folder / f"met {each}").exists() for each in range(2)):
                time.sleep(0.002)
            return x

        nbparallel.configure(memory_stop=False)
        pmap(abs, range(2))
        os.environ["MEM_LIMIT"] = str(int(resident(os.getpid()) / 0.9))
    """)
    cell = kernel.send("""
        engine = next(iter(nbparallel.backends.warm().values())).engine
        run = pmap_async(lambda path: [time.sleep(0.002) for _ in iter(path.exists, True)] and 1, [folder / "go on"])
        while not engine._scheduler._short:
            time.sleep(0.01)
        meeting = pmap_async(meets, range(2), chunksize=1)
        (folder / "go on").touch()
        run.wait()
        while not list(folder.glob("met *")):
            time.sleep(0.01)
        assert len(list(folder.glob("met *"))) == 1 and not meeting.done
        nbparallel.configure(memory_pause=False)
        found = meeting.result()
        del os.environ["MEM_LIMIT"]
        nbparallel.configure(memory_pause=0.85, memory_stop=0.95)
        found
    """)
    output = kernel.wait(cell)
    assert output.result == "[0, 1]"
    assert output.stderr.count("nbparallel: memory is short: ") == 1
    assert "(MEM_LIMIT=" in output.stderr


def test_a_killed_worker_says_what_its_memory_was(kernel: Kernel) -> None:
    kernel.run("""
        import signal

        def killed(x):
            held = bytearray(50 << 20)
            while not (folder / "looked at").exists():
                time.sleep(0.002)
            os.kill(os.getpid(), signal.SIGKILL)

        run = pmap_async(killed, [5], on_error="return")
        engine = next(iter(nbparallel.backends.warm().values())).engine
        while max(engine._guard._sizes.values(), default=0) < 50 << 20:
            time.sleep(0.01)
        (folder / "looked at").touch()
        (error,) = run.result()
    """)
    shown = "error.memory > 50 << 20, 0 < error.memory_used < error.memory_limit, error.pid > 0, error.exitcode"
    assert kernel.run(shown).result == "(True, True, True, -9)"
    said = kernel.run("print(error)").stdout
    assert "was killed by SIGKILL while it ran this task. Nothing in Python does that: most often the system" in said
    assert " MiB; " in said
    assert "were in use. Fewer workers, smaller inputs or smaller chunks need less." in said
