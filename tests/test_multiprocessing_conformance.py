"""What programs rely on in `multiprocessing`: the standard module has it, and so has `nbparallel.multiprocessing`.

Processes, queues, pipes, start methods, whole scripts; what is shared, and pools, in `test_multiprocessing_sharing.py`.
Every test runs against both modules, by each start method; what the processes do is in `mp_targets.py`. What only a
notebook needs of the drop-in (targets of a cell, prints in the cell) is shown elsewhere.
"""

from __future__ import annotations

import array
import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mp_targets as targets
import pytest
from conformance import (
    DROP_IN,
    LIMIT,
    MARKS,
    SOON,
    STANDARD,
    helpers,
    is_gone,
    module,
    mp,
    no_child_stays,
    part,
    started,
    until,
)
from kernels import ENVIRONMENT, METHODS

__all__ = ["helpers", "module", "mp", "no_child_stays"]

pytestmark = MARKS


# ---- Process ----


def test_a_process_and_what_it_knows_of_itself(mp: Any, module: ModuleType) -> None:
    here, there = mp.Pipe()
    process = mp.Process(
        target=targets.describe_yourself,
        args=(module.__name__, there),
        kwargs={"key": "word"},
        name="worker",
        daemon=True,
    )
    assert (process.pid, process.ident, process.exitcode) == (None, None, None)
    assert not process.is_alive()
    assert "initial" in repr(process)
    with pytest.raises(ValueError, match="not started"):
        process.sentinel  # noqa: B018
    with pytest.raises(AssertionError, match="join"):
        process.join()
    with started(process), here, there:
        assert here.poll(LIMIT)
        seen = here.recv()
        assert seen == {
            "key": "word",
            "pid": process.pid,
            "ident": process.pid,
            "name": "worker",
            "daemon": True,
            "parent": (os.getpid(), mp.current_process().name, True),
            "children": [],
        }
        assert process.ident == process.pid != os.getpid()
        assert process.name == "worker"
        assert process.daemon
        assert process.is_alive()
        assert process.exitcode is None
        assert "worker" in repr(process)
        assert "started" in repr(process)
        assert module.active_children() == [process]
        assert process.join(SOON) is None
        assert process.is_alive()
        with pytest.raises(AssertionError, match="twice"):
            process.start()
        with pytest.raises(AssertionError, match="already started"):
            process.daemon = False
        with pytest.raises(ValueError, match="running"):
            process.close()
        here.send("go")
        process.join(LIMIT)
        assert process.exitcode == 0
        assert not process.is_alive()
        assert "stopped" in repr(process)
        assert "exitcode=0" in repr(process)
        assert mp.active_children() == []
        assert process.join(SOON) is None
        with pytest.raises(AssertionError, match="twice"):
            process.start()


def test_the_main_process(module: ModuleType) -> None:
    me = module.current_process()
    assert me.pid == os.getpid()
    assert me.name == "MainProcess"
    assert not me.daemon
    assert me.is_alive()
    assert module.parent_process() is None


def test_a_closed_process(mp: Any) -> None:
    process = mp.Process()  # without a target it does nothing
    process.start()
    process.join(LIMIT)
    assert process.exitcode == 0
    process.close()
    process.close()
    for use in (process.start, process.join, process.is_alive, process.terminate, process.kill):
        with pytest.raises(ValueError, match="closed"):
            use()
    for name in ("pid", "ident", "exitcode", "sentinel"):
        with pytest.raises(ValueError, match="closed"):
            getattr(process, name)
    assert "closed" in repr(process)


def test_names_and_what_a_process_is_not_given(mp: Any) -> None:
    first, second = mp.Process(), mp.Process()
    assert first.name != second.name
    assert first.name.rpartition("-")[2].isdigit()
    first.name = "renamed"
    assert first.name == "renamed"
    with pytest.raises(AssertionError):
        first.name = 3
    with pytest.raises(AssertionError):
        mp.Process(group="any")
    assert not first.daemon
    for process in (first, second):
        assert isinstance(process, mp.Process)


def test_exit_codes(mp: Any) -> None:
    ends = {
        mp.Process(target=targets.exit_with, args=(None,)): 0,
        mp.Process(target=targets.exit_with, args=(7,)): 7,
        mp.Process(target=targets.exit_with, args=("some words",)): 1,
        mp.Process(target=targets.exit_at_once, args=(9,)): 9,
        mp.Process(target=targets.fail): 1,
        mp.Process(target=targets.kill_yourself, args=(signal.SIGUSR1,)): -signal.SIGUSR1,
    }
    with started(*ends):
        for process, code in ends.items():
            process.join(LIMIT)
            assert process.exitcode == code


def test_terminate_kill_and_sentinels(mp: Any, module: ModuleType) -> None:
    here, there = mp.Pipe()
    first, second = (mp.Process(target=targets.wait_for_ever, args=(there,)) for _ in range(2))
    wait = part(module, "connection").wait
    with started(first, second), here, there:
        pids = set()
        for _ in range(2):
            assert here.poll(LIMIT)
            pids.add(here.recv())
        assert pids == {first.pid, second.pid}
        assert set(module.active_children()) == {first, second}
        sentinels = [first.sentinel, second.sentinel]
        assert wait(sentinels, SOON) == []
        first.terminate()
        assert wait(sentinels, LIMIT) == [first.sentinel]
        first.join(LIMIT)
        assert first.exitcode == -signal.SIGTERM
        second.kill()
        second.join(LIMIT)
        assert second.exitcode == -signal.SIGKILL
        until(lambda: set(wait(sentinels, SOON)) == set(sentinels))  # and they stay so
        first.terminate()  # of one that has ended: nothing
        second.kill()


def test_children_of_children(mp: Any, module: ModuleType) -> None:
    here, there = mp.Pipe()
    arguments = (module.__name__, mp.get_start_method(), there)
    free, daemon = (
        mp.Process(target=targets.try_to_have_children, args=arguments, daemon=daemonic) for daemonic in (False, True)
    )
    with here, there:
        with started(free):
            assert here.poll(LIMIT)
            grandchild = here.recv()
            assert isinstance(grandchild, int)
            free.join(LIMIT)
            assert free.exitcode == 0
            until(lambda: is_gone(grandchild))  # it was a daemon: it ends with its parent
        with started(daemon):
            assert here.poll(LIMIT)
            assert here.recv() == "daemonic processes are not allowed to have children"


# ---- queues ----


def test_a_queue_and_its_bounds(mp: Any) -> None:
    items = mp.Queue(2)
    assert items.empty()
    assert not items.full()
    for call in (lambda: items.get(timeout=SOON), items.get_nowait, lambda: items.get(False)):
        with pytest.raises(queue.Empty):
            call()
    items.put("first")
    items.put("second", timeout=LIMIT)
    assert items.full()
    until(lambda: not items.empty())  # what is put arrives a moment later
    for call in (lambda: items.put(3, timeout=SOON), lambda: items.put_nowait(3), lambda: items.put(3, False)):
        with pytest.raises(queue.Full):
            call()
    if sys.platform != "darwin":  # which can't count
        assert items.qsize() == 2
    assert [items.get(timeout=LIMIT), items.get(True, LIMIT)] == ["first", "second"]
    assert items.empty()
    with pytest.raises(AssertionError):
        items.join_thread()  # it isn't closed
    items.close()
    items.join_thread()
    for call in (lambda: items.put(1), items.get, lambda: items.get(timeout=SOON)):
        with pytest.raises(ValueError, match="closed"):
            call()
    items.close()


def test_a_queue_and_what_cannot_be_pickled(mp: Any, module: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    items = mp.Queue(1)
    if module is multiprocessing:
        items.put(targets.Unpicklable())
    else:  # it says so where the mistake is
        with pytest.raises(pickle.PicklingError, match="at home"):
            items.put(targets.Unpicklable())
    items.put("after", timeout=LIMIT)  # it has taken no place
    assert items.get(timeout=LIMIT) == "after"
    if module is multiprocessing:
        assert "it stays at home" in capfd.readouterr().err
    items.close()
    items.join_thread()


def test_a_queue_whose_items_nobody_fetches(mp: Any) -> None:
    items = mp.Queue()
    items.put(b"x" * 1_000_000)
    items.cancel_join_thread()
    items.close()
    with contextlib.suppress(EOFError, OSError):  # its thread waits for a reader
        while items._reader.recv_bytes():
            break
    until(lambda: items._thread is None or not items._thread.is_alive())


def test_three_queues_and_a_process(mp: Any) -> None:
    requests, answers, simple, joinable = mp.Queue(), mp.Queue(), mp.SimpleQueue(), mp.JoinableQueue()
    assert simple.empty()
    process = mp.Process(target=targets.double_all, args=(requests, simple, joinable, answers))
    with started(process):
        for item in (1, "a", [2.5], None):
            requests.put(item)
        assert [answers.get(timeout=LIMIT) for _ in range(3)] == [2, "aa", [2.5, 2.5]]
        for item in (b"b", None):
            simple.put(item)
        assert answers.get(timeout=LIMIT) == b"bb"
        for item in range(3):
            joinable.put(item)
        joinable.join()
        assert [answers.get(timeout=LIMIT) for _ in range(3)] == [0, 2, 4]
        process.join(0.05)
        assert process.is_alive()  # it holds what is not yet fetched
        assert len(answers.get(timeout=LIMIT)) == 1_000_000
        process.join(LIMIT)
        assert process.exitcode == 0
    with pytest.raises(ValueError, match="too many times"):
        joinable.task_done()
    joinable.join()  # nothing is left to wait for
    simple.close()
    with pytest.raises(OSError, match="closed"):
        simple.put(1)
    for each in (requests, answers, joinable):
        each.close()
        each.join_thread()


# ---- pipes ----


def test_a_pipe_in_one_process(mp: Any, module: ModuleType) -> None:
    wait = part(module, "connection").wait
    left, right = mp.Pipe()
    with left, right:
        assert left.readable
        assert left.writable
        assert not left.poll()
        assert not left.poll(SOON)
        assert wait([left, right], SOON) == []
        left.send({"any": ["thing"]})
        right.send(None)
        assert right.poll(LIMIT)
        assert set(wait([left, right], LIMIT)) == {left, right}
        assert right.recv() == {"any": ["thing"]}
        assert left.recv() is None
        left.send_bytes(b"0123456789", 2, 5)
        assert right.recv_bytes() == b"23456"
        left.send_bytes(array.array("i", [1, 2]))
        into = array.array("i", [0] * 4)
        assert right.recv_bytes_into(into, into.itemsize) == 2 * into.itemsize
        assert into.tolist() == [0, 1, 2, 0]
        left.send_bytes(b"too long")
        with pytest.raises(module.BufferTooShort) as info:
            right.recv_bytes_into(bytearray(3))
        assert info.value.args == (b"too long",)
        for offset, size in ((-1, 1), (0, -1), (3, 1), (0, 4)):
            with pytest.raises(ValueError, match=r"negative|short|size|offset|length"):
                left.send_bytes(b"abc", offset, size)
        with pytest.raises(ValueError, match="negative"):
            right.recv_bytes(-1)
        with pytest.raises((TypeError, pickle.PicklingError), match="at home"):
            left.send(targets.Unpicklable())
        left.send_bytes(b"after all that")
        assert right.recv_bytes(14) == b"after all that"
        assert isinstance(left.fileno(), int)
        left.close()
        assert left.closed
        with pytest.raises(OSError, match="closed"):
            left.send(1)
        with pytest.raises(OSError, match="closed"):
            left.poll()
        assert wait([right], LIMIT) == [right]  # an end is something to receive
        with pytest.raises(EOFError):
            right.recv()
        with pytest.raises(OSError):  # noqa: PT011 - broken pipe, or reset, as the system has it
            right.send(1)


def test_a_pipe_of_one_way(mp: Any) -> None:
    reader, writer = mp.Pipe(duplex=False)
    with reader, writer:
        assert (reader.readable, reader.writable) == (True, False)
        assert (writer.readable, writer.writable) == (False, True)
        with pytest.raises(OSError, match="read-only"):
            reader.send(1)
        with pytest.raises(OSError, match="write-only"):
            writer.recv()
        with pytest.raises(OSError, match="write-only"):
            writer.poll()
        writer.send_bytes(b"too long")
        with pytest.raises(OSError):  # noqa: PT011 - a message that is too long closes a reader
            reader.recv_bytes(3)
        assert reader.closed


def test_a_pipe_to_a_process(mp: Any, module: ModuleType) -> None:
    here, there = mp.Pipe()
    process = mp.Process(target=targets.echo, args=(there,))
    with started(process), here:
        there.close()
        for item in ("abc", list(range(5)), b"x" * 1_000_000 + b"y"):
            here.send(item)
            assert here.poll(LIMIT)
            assert here.recv() == item[::-1]
        here.send(None)
        here.send_bytes(b"last")
        assert here.poll(LIMIT)
        assert here.recv_bytes() == b"tsal"
        assert part(module, "connection").wait([here], LIMIT) == [here]
        with pytest.raises(EOFError):
            here.recv()
        process.join(LIMIT)
        assert process.exitcode == 0


# ---- start methods, contexts, errors ----


def test_contexts(mp: Any, module: ModuleType) -> None:
    method = mp.get_start_method()
    assert method in METHODS
    assert sorted(module.get_all_start_methods()) == sorted(METHODS)
    assert mp.get_context(method) is mp
    assert module.get_context(method) is mp
    assert module.get_context().get_start_method() == module.get_start_method()
    with pytest.raises(ValueError, match="nothing"):
        module.get_context("nothing")
    with pytest.raises(ValueError, match="concrete"):
        mp.set_start_method(method)
    assert mp.cpu_count() >= 1
    assert module.cpu_count() == mp.cpu_count()


def test_the_errors(mp: Any, module: ModuleType) -> None:
    for name in ("TimeoutError", "BufferTooShort", "AuthenticationError"):
        assert issubclass(getattr(module, name), module.ProcessError)
        assert getattr(mp, name) is getattr(module, name)
        # Code that names the standard module's error catches it, whichever module has raised it.
        assert issubclass(getattr(module, name), getattr(multiprocessing, name))


# ---- a whole script ----

SCRIPT = """
import os, sys, time
import {name} as mp
from {name}.managers import BaseManager
from {name} import Process
from mp_targets import Counter, LIMIT, fail, exit_with


class Squarer(Process):
    def __init__(self, x, results):
        super().__init__(name="squarer")
        self.x, self.results = x, results

    def run(self):
        self.results.put((self.x ** 2, self.name, mp.get_start_method(), type(self).__name__))


class Shop(BaseManager):
    pass


Shop.register("Counter", Counter)
Shop.register("only_up", Counter, exposed=("up",))


def late(running, event):
    running.set()
    event.wait(LIMIT)
    print("the last word")


def stays():
    time.sleep(LIMIT)
    print("never said")


def main():
    mp.freeze_support()
    mp.set_start_method({method!r})
    assert mp.get_start_method() == {method!r}
    others = [each for each in mp.get_all_start_methods() if each != {method!r}]
    other = others[0] if others else {method!r}
    try:
        mp.set_start_method(other)
    except RuntimeError as error:
        print(str(error)[:28])
    mp.set_start_method(other, force=True)
    assert mp.get_start_method() == other
    mp.set_start_method({method!r}, force=True)
    results = mp.Queue()
    squarer = Squarer(7, results)
    squarer.start()
    print(results.get(timeout=LIMIT))
    squarer.join(LIMIT)
    failing, leaving = Process(target=fail, name="failing"), Process(target=exit_with, args=("goodbye",))
    for each in (failing, leaving):
        each.start()
        each.join(LIMIT)
        print(each.exitcode)
    with Shop() as shop:
        counter = shop.Counter(10)
        print(counter.up(), counter.up(by=5))
        try:
            counter.up(-1)
        except ValueError as error:
            print(type(error).__name__, error)
        print(hasattr(counter, "_hidden"), hasattr(shop.only_up(), "steps"))
    Process(target=stays, daemon=True).start()
    printing = Process(target=print, args=("from a process",))
    printing.start()
    printing.join(LIMIT)
    running, event = mp.Event(), mp.Event()
    Process(target=late, args=(running, event)).start()
    running.wait(LIMIT)
    print("the end of main", flush=True)
    event.set()


{end}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "guard"), [(STANDARD, True), (DROP_IN, True), (DROP_IN, False)], ids=["standard", "drop-in", "no guard"]
)
@pytest.mark.parametrize("method", METHODS)
def test_a_script(name: str, guard: bool, method: str, tmp_path: Path) -> None:
    end = 'if __name__ == "__main__":\n    main()' if guard else "main()"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(name=name, method=method, end=end))
    path = os.pathsep.join([ENVIRONMENT["PYTHONPATH"], str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=45,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "context has already been set",
        f"(49, 'squarer', {method!r}, 'Squarer')",
        "1",
        "1",
        "11 16",
    ]
    assert lines[5:7] == ["ValueError it goes up only", "False False"]
    assert lines[7:] == ["from a process", "the end of main", "the last word"]
    assert "Process failing:" in done.stderr
    assert "Traceback (most recent call last):" in done.stderr
    assert ", in fail" in done.stderr
    assert "ValueError: what went wrong" in done.stderr
    assert "goodbye" in done.stderr
