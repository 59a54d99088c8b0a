"""What programs rely on in `multiprocessing` when processes share: memory, locks, managers, pools.

The other half of `test_multiprocessing_conformance.py`: against the standard module and the drop-in, by each method.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import queue
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import mp_targets as targets
import pytest
from conformance import (
    LIMIT,
    MARKS,
    SOON,
    helpers,
    is_gone,
    module,
    mp,
    no_child_stays,
    part,
    started,
    until,
)

__all__ = ["helpers", "module", "mp", "no_child_stays"]

pytestmark = MARKS


# ---- values and arrays ----


def test_values_and_arrays_in_one_process(mp: Any) -> None:
    examples = {"i": -3, "d": 2.5, "f": 0.5, "b": -1, "H": 65535, "q": 2**40, "c": b"z", "u": "ü"}
    for code, value in examples.items():
        assert mp.Value(code, value).value == value
        assert mp.RawValue(code, value).value == value
    assert mp.Value("i").value == 0
    assert mp.Value(ctypes.c_double, 1.5).value == 1.5
    assert mp.Value("f", 0.313).value == 0.31299999356269836  # a float of C
    value = mp.Value("i", 5)
    assert value.get_obj().value == 5
    with value.get_lock(), value, value:  # the lock may be taken again by who has it
        value.value += 1
    assert value.value == 6
    assert "6" in repr(value)
    lock = mp.Lock()
    assert mp.Value("i", lock=lock).get_lock() is lock
    assert mp.Array("i", 1, lock=lock).get_lock() is lock
    for bare in (mp.Value("i", lock=False), mp.Array("i", 1, lock=False), mp.RawValue("i"), mp.RawArray("i", 1)):
        assert not hasattr(bare, "get_lock")
    for wrong in (lambda: mp.Value("i", lock="any"), lambda: mp.Array("i", 1, lock="any")):
        with pytest.raises(AttributeError, match="acquire"):
            wrong()

    zeros, given, raw = mp.Array("i", 5), mp.Array("d", [1, 2.5, 3]), mp.RawArray("i", range(4))
    assert list(zeros) == [0] * 5
    assert given[:] == [1.0, 2.5, 3.0]
    assert given[1] == 2.5
    assert given[-1] == 3.0
    assert (len(zeros), len(given), len(raw)) == (5, 3, 4)
    zeros[1:3] = [7, 8]
    zeros[4] = 9
    assert zeros[1:] == [7, 8, 0, 9]
    assert zeros[::2] == [0, 8, 9]
    raw[0] = 10
    assert raw[:2] == [10, 1]
    assert list(zeros.get_obj()) == list(zeros)
    with zeros.get_lock():
        assert sum(zeros) == 24
    for use in (lambda: zeros[5], lambda: raw[4]):
        with pytest.raises(IndexError):
            use()
    with pytest.raises(TypeError):
        zeros[0] = "text"
    text = mp.Array("c", b"hello")
    assert text.value == b"hello"
    text.value = b"hi"
    assert text.raw == b"hi\0lo"

    point, points = mp.Value(targets.Point, 3, 0.5), mp.Array(targets.Point, [(1, 2.0), (3, 4.0)])
    assert (point.x, point.y) == (3, 0.5)
    assert [(each.x, each.y) for each in points] == [(1, 2.0), (3, 4.0)]
    point.x = 4
    assert point.get_obj().x == 4


def test_values_and_arrays_are_shared(mp: Any) -> None:
    numpy = pytest.importorskip("numpy")
    value, raw = mp.Value("i", 1), mp.RawValue("d", 5)
    numbers = mp.Array("d", 3)
    changed, bare = mp.Array("i", [1, 2, 3, 4]), numpy.frombuffer(numbers.get_obj())
    point, points = mp.Value(targets.Point, 1, 2), mp.RawArray(targets.Point, [(1, 2), (3, 4)])
    process = mp.Process(target=targets.change_all, args=(value, raw, changed, numbers, point, points))
    with started(process):
        process.join(LIMIT)
        assert process.exitcode == 0
    assert value.value == 2
    assert raw.value == 2.5
    assert changed[:] == [1, 20, 30, 4]
    assert bare.tolist() == [-1.5, 0, 0]
    assert (point.x, point.y) == (7, 0.25)
    assert [each.x for each in points] == [2, 4]
    counter = mp.Value("i", 0)
    with started(*(mp.Process(target=targets.count_up, args=(counter, 1000)) for _ in range(2))):
        pass
    assert counter.value == 2000


# ---- locks, conditions, events, barriers ----


def test_locks_in_one_process(mp: Any) -> None:
    lock, rlock, semaphore, bounded = mp.Lock(), mp.RLock(), mp.Semaphore(2), mp.BoundedSemaphore(2)
    assert lock.acquire()
    assert not lock.acquire(False)
    assert not lock.acquire(timeout=SOON)
    assert lock.release() is None
    with pytest.raises(ValueError, match="released too many times"):
        lock.release()
    with lock:
        assert not lock.acquire(block=False)
        assert mp.current_process().name in repr(lock)
    assert "None" in repr(lock)
    with rlock, rlock:
        assert rlock.acquire(block=True, timeout=LIMIT)
        rlock.release()
        found = []
        thread = threading.Thread(target=lambda: found.append(rlock.acquire(False)))
        thread.start()
        thread.join(LIMIT)
        assert found == [False]
    with pytest.raises(AssertionError, match="not owned"):
        rlock.release()
    for each in (semaphore, bounded):
        assert [each.acquire(), each.acquire(timeout=LIMIT), each.acquire(False)] == [True, True, False]
        each.release()
        assert each.acquire(False)
        each.release()
        each.release()
        if sys.platform != "darwin":  # which can't count
            assert each.get_value() == 2
    semaphore.release()
    assert [semaphore.acquire(False) for _ in range(4)] == [True, True, True, False]
    with pytest.raises(ValueError, match="released too many times"):
        bounded.release()


def test_locks_hold_off_another_process(mp: Any) -> None:
    lock, rlock, semaphore, bounded = everything = mp.Lock(), mp.RLock(), mp.Semaphore(1), mp.BoundedSemaphore(1)
    here, there = mp.Pipe()
    for each in everything:
        each.acquire()
    process = mp.Process(target=targets.contend, args=(there, *everything))
    with started(process), here, there:
        assert here.poll(LIMIT)
        assert here.recv() == [False] * 4
        for each in everything:
            each.release()
        here.send("take them")
        assert here.poll(LIMIT)
        assert here.recv()[0] == [True] * 4
        assert [each.acquire(timeout=SOON) for each in everything] == [False] * 4
        for each in (lock, semaphore, bounded):
            each.release()  # whoever has it may be another
            assert each.acquire(timeout=LIMIT)
        with pytest.raises(AssertionError, match="not owned"):
            rlock.release()
        here.send("give it back")
        assert here.poll(LIMIT)
        assert here.recv() == "twice"


def test_a_condition_in_one_process(mp: Any) -> None:
    condition = mp.Condition()
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(AssertionError):
            call()
    with condition:
        assert condition.wait(SOON) is False
        assert condition.wait_for(lambda: "reached", SOON) == "reached"
        assert not condition.wait_for(lambda: False, SOON)
        condition.notify()  # nobody waits
        condition.notify_all()
    lock = mp.Lock()
    condition = mp.Condition(lock)
    assert condition.acquire()
    assert not lock.acquire(False)
    condition.release()


def test_a_condition_wakes_processes(mp: Any, module: ModuleType) -> None:
    condition, value = mp.Condition(), mp.Value("i", 0)
    pipes = [mp.Pipe() for _ in range(2)]
    processes = [mp.Process(target=targets.wait_on_condition, args=(condition, value, there)) for _, there in pipes]
    first, second = (here for here, _ in pipes)
    wait = part(module, "connection").wait

    with started(*processes), contextlib.ExitStack() as closing:
        for here, there in pipes:
            closing.enter_context(here)
            closing.enter_context(there)

        def answers() -> list[Any]:
            found = []
            for here in (first, second):
                assert here.poll(LIMIT)
                found.append(here.recv())
            return found

        assert answers() == ["waiting"] * 2
        with condition:  # free only when both wait
            condition.notify()
        (woken,) = wait([first, second], LIMIT)
        assert woken.recv() is True
        assert woken.poll(LIMIT)
        assert woken.recv() == "waiting"  # for the second thing already
        other = second if woken is first else first
        with condition:
            assert not other.poll()
            condition.notify_all()
        assert other.poll(LIMIT)
        assert other.recv() is True
        assert other.poll(LIMIT)
        assert other.recv() == "waiting"
        for number in (1, 2):
            with condition:
                value.value = number
                condition.notify_all()
                assert not first.poll()
                assert not second.poll()
        with condition:
            value.value = 3
            condition.notify_all()
        assert answers() == [True, True]
        assert answers() == [3, 3]


def test_events_and_barriers_between_processes(mp: Any) -> None:
    event, times = mp.Event(), mp.Value("i", 0)
    barrier = mp.Barrier(3, functools.partial(targets.add_one, times))
    pipes = [mp.Pipe() for _ in range(2)]
    processes = [mp.Process(target=targets.meet, args=(event, barrier, there)) for _, there in pipes]

    def answers() -> list[Any]:
        found = []
        for here, _ in pipes:
            assert here.poll(LIMIT)
            found.append(here.recv())
        return found

    with started(*processes), contextlib.ExitStack() as closing:
        for here, there in pipes:
            closing.enter_context(here)
            closing.enter_context(there)
        assert not event.is_set()
        assert event.wait(SOON) is False
        event.set()
        assert event.wait(LIMIT) is True
        assert answers() == [True, True]
        assert sorted([barrier.wait(LIMIT), *answers()]) == [0, 1, 2]
        assert times.value == 1
        until(lambda: barrier.n_waiting == 2)
        assert (barrier.parties, barrier.broken) == (3, False)
        barrier.abort()
        assert answers() == ["BrokenBarrierError"] * 2
        assert barrier.broken
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(LIMIT)
        barrier.reset()
        assert not barrier.broken
        for here, _ in pipes:
            here.send("once more")
        assert sorted([barrier.wait(LIMIT), *answers()]) == [0, 1, 2]
        assert times.value == 2
    event.clear()
    assert not event.is_set()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(SOON)  # the others don't come
    assert barrier.broken
    alone = mp.Barrier(1, timeout=LIMIT)
    assert alone.wait() == 0


# ---- managers ----


def test_what_a_manager_holds(mp: Any) -> None:
    with mp.Manager() as manager:
        listed = manager.list([3, 1, 2])
        assert str(listed) == "[3, 1, 2]"
        assert repr(listed).startswith("<ListProxy object, typeid 'list'")
        listed.sort()
        listed.append(4)
        listed.extend([5, 6])
        listed.insert(0, 0)
        assert listed[:] == list(range(7))
        assert (listed[-1], len(listed), 3 in listed, 9 in listed) == (6, 7, True, False)
        assert (listed.pop(), listed.pop(0), listed.index(4), listed.count(2)) == (6, 0, 3, 1)
        listed.reverse()
        listed.remove(5)
        del listed[0]
        listed[0] *= 10
        listed += [7]
        assert list(listed) == [30, 2, 1, 7]
        assert listed + [8] == [30, 2, 1, 7, 8]  # noqa: RUF005 - its own sum
        assert listed * 2 == [30, 2, 1, 7] * 2
        with pytest.raises(IndexError, match="out of range"):
            listed[99]
        with pytest.raises(ValueError, match="not in list"):
            listed.remove(99)
        with pytest.raises(AttributeError):
            listed.nothing_of_the_kind  # noqa: B018

        words = manager.dict({"one": 1}, two=2)
        words["three"] = 3
        assert str(words) == "{'one': 1, 'two': 2, 'three': 3}"
        assert (len(words), words.get("four"), words.get("four", 4), "one" in words) == (3, None, 4, True)
        assert sorted(words.keys()) == ["one", "three", "two"]
        assert sorted(words.values()) == [1, 2, 3]
        assert dict(words.items()) == words.copy() == dict(words) == {"one": 1, "two": 2, "three": 3}
        assert sorted(words) == ["one", "three", "two"]
        assert (words.setdefault("one", 9), words.pop("two"), words.pop("two", None)) == (1, 2, None)
        del words["three"]
        with pytest.raises(KeyError, match="three"):
            words["three"]
        words.clear()
        assert not dict(words)

        names = manager.Namespace(x=1)
        names.y = [2]
        assert (names.x, names.y) == (1, [2])
        assert "x=1" in str(names)
        del names.x
        with pytest.raises(AttributeError):
            names.x  # noqa: B018

        value, numbers = manager.Value("i", 5), manager.Array("d", [1, 2, 3])
        value.value += 1
        value.set(value.get() + 1)
        assert value.value == 7
        numbers[0] = 0.5
        assert (numbers[0], len(numbers), list(numbers)) == (0.5, 3, [0.5, 2.0, 3.0])

        # What is inside another stays where it is, and is changed in place.
        outer = manager.dict(inner=manager.list([manager.dict(deep=1)]))
        outer["inner"][0]["deep"] += 1
        outer["inner"].append("more")
        assert outer["inner"][0]["deep"] == 2
        assert len(outer["inner"]) == 2
        outer["plain"] = [1]
        outer["plain"].append(2)  # a copy
        assert outer["plain"] == [1]


def test_what_a_manager_synchronizes(mp: Any) -> None:
    with mp.Manager() as manager:
        for items in (manager.Queue(1), manager.JoinableQueue(1)):
            items.put("one")
            assert (items.qsize(), items.full(), items.empty()) == (1, True, False)
            with pytest.raises(queue.Full):
                items.put("two", timeout=SOON)
            assert items.get(timeout=LIMIT) == "one"
            with pytest.raises(queue.Empty):
                items.get_nowait()
            items.task_done()
            items.join()
        for lock in (manager.Lock(), manager.Semaphore(1), manager.BoundedSemaphore(1)):
            with lock:
                assert not lock.acquire(False)
            assert lock.acquire(True, LIMIT)
            lock.release()
        rlock = manager.RLock()
        with rlock, rlock:
            assert rlock.acquire()
            rlock.release()
        with pytest.raises((ValueError, RuntimeError)):
            manager.BoundedSemaphore(1).release()
        condition, event, barrier = manager.Condition(), manager.Event(), manager.Barrier(1)
        with condition:
            assert condition.wait(SOON) is False
            assert condition.wait_for(lambda: True, SOON)
            condition.notify()
            condition.notify_all()
        assert not event.wait(SOON)
        event.set()
        assert event.wait(LIMIT)
        assert event.is_set()
        event.clear()
        assert not event.is_set()
        assert (barrier.wait(LIMIT), barrier.parties, barrier.n_waiting, barrier.broken) == (0, 1, 0, False)
        barrier.abort()
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(LIMIT)
        with manager.Pool(1) as pool:
            assert pool.map(targets.square, range(3)) == [0, 1, 4]
            assert pool.apply_async(targets.add, (1,), {"y": 2}).get(LIMIT) == 3


def test_a_manager_between_processes_and_its_end(mp: Any) -> None:
    manager = mp.Manager()
    everything = {
        "list": manager.list([manager.dict()]),
        "dict": manager.dict(),
        "namespace": manager.Namespace(x=1),
        "value": manager.Value("d", 0.5),
        "array": manager.Array("i", [1, 2]),
        "queue": manager.Queue(),
        "lock": manager.Lock(),
        "semaphore": manager.Semaphore(1),
        "event": manager.Event(),
        "condition": manager.Condition(),
        "barrier": manager.Barrier(2),
    }
    try:
        everything["queue"].put(21)
        process = mp.Process(target=targets.use_managed, args=(everything,))
        with everything["condition"], started(process):
            assert everything["condition"].wait(LIMIT)
            everything["barrier"].wait(LIMIT)
            assert everything["event"].wait(LIMIT)
            assert everything["list"][1:] == ["child"]
            assert everything["list"][0]["inner"] == process.pid
            assert dict(everything["dict"]) == {"child": [1, 2], "more": 3}
            assert (everything["namespace"].x, everything["namespace"].made) == (2, "there")
            assert everything["value"].value == 1.5
            assert list(everything["array"]) == [1, 10]
            assert everything["queue"].get(timeout=LIMIT) == 42
            assert not everything["semaphore"].acquire(False)
            process.join(LIMIT)
            assert process.exitcode == 0
        (server,) = mp.active_children()
    finally:
        manager.shutdown()
    assert not server.is_alive()
    manager.shutdown()  # once is enough, twice does no harm
    with pytest.raises((OSError, EOFError)):
        len(everything["list"])
    with pytest.raises(AssertionError, match="not yet started"):
        manager.list()


# ---- shared memory by name ----


def test_shared_memory_between_processes(mp: Any, module: ModuleType) -> None:
    shared_memory = part(module, "shared_memory")
    memory = shared_memory.SharedMemory(create=True, size=64)
    listed = shared_memory.ShareableList([1, 2.5, None, "here!", b"bytes", True])
    try:
        assert memory.size >= 64
        assert bytes(memory.buf[:64]) == bytes(64)
        process = mp.Process(target=targets.change_shared, args=(module.__name__, memory.name, listed))
        with started(process):
            process.join(LIMIT)
            assert process.exitcode == 0
        assert bytes(memory.buf[:6]) == b"child\0"
        assert list(listed) == [2, 2.5, None, "there", b"bytes", True]
        assert (len(listed), listed.index(2.5), listed.count(None)) == (6, 1, 1)
        with pytest.raises(ValueError, match="exceeds"):
            listed[3] = "far more than there was place for"
        with pytest.raises(IndexError):
            listed[6]
        again = shared_memory.ShareableList(name=listed.shm.name)
        again[0] = 50
        assert listed[0] == 50
        again.shm.close()
        with pytest.raises(FileExistsError):
            shared_memory.SharedMemory(memory.name, create=True, size=8)
    finally:
        for each in (memory, listed.shm):
            each.close()
            each.unlink()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name=memory.name)
    with pytest.raises(ValueError, match="positive"):
        shared_memory.SharedMemory(create=True, size=-1)


# ---- pools ----


def test_all_that_a_pool_does(mp: Any, module: ModuleType, tmp_path: Path) -> None:
    called: list[Any] = []
    with mp.Pool(2) as pool:
        assert pool.map(targets.square, range(10)) == [x * x for x in range(10)]
        assert pool.map(targets.square, iter(range(10)), 3) == [x * x for x in range(10)]
        assert pool.map(targets.square, []) == []
        assert pool.starmap(targets.add, [(1, 2), (3,)], chunksize=1) == [3, 3]
        assert list(pool.imap(targets.square, range(10))) == [x * x for x in range(10)]
        assert list(pool.imap(targets.square, iter(range(10)), chunksize=4)) == [x * x for x in range(10)]
        assert sorted(pool.imap_unordered(targets.square, range(10), 2)) == [x * x for x in range(10)]
        assert pool.apply(targets.add, (1,), {"y": 2}) == 3
        for call in (
            lambda: pool.map(targets.inverse, [1, 0, 2]),
            lambda: pool.apply(targets.inverse, (0,)),
            lambda: pool.apply_async(targets.inverse, (0,)).get(LIMIT),
            lambda: pool.starmap_async(targets.inverse, [(0,)]).get(LIMIT),
        ):
            with pytest.raises(ZeroDivisionError, match="division by zero"):
                call()
        results = pool.imap(targets.inverse, [1, 0, 2])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert results.next(LIMIT) == 0.5
        with pytest.raises(StopIteration):
            next(results)

        gate = tmp_path / "gate"
        waiting = pool.apply_async(targets.waits_for, (str(gate),), callback=called.append)
        assert not waiting.ready()
        assert waiting.wait(SOON) is None
        with pytest.raises(module.TimeoutError):
            waiting.get(SOON)
        with pytest.raises(ValueError, match="not ready"):
            waiting.successful()
        late = pool.imap(targets.waits_for, [str(gate)])
        with pytest.raises(module.TimeoutError):
            late.next(SOON)
        gate.touch()
        assert waiting.get(LIMIT) == str(gate)
        assert waiting.ready()
        assert waiting.successful()
        assert late.next(LIMIT) == str(gate)
        until(lambda: called)
        assert called.pop() == str(gate)

        failed = pool.apply_async(targets.inverse, (0,), callback=called.append, error_callback=called.append)
        failed.wait(LIMIT)
        assert failed.ready()
        assert not failed.successful()
        until(lambda: called)
        assert type(called.pop()) is ZeroDivisionError
        pool.map_async(targets.square, range(3), callback=called.append).wait(LIMIT)
        until(lambda: called)
        assert called.pop() == [0, 1, 4]
        pool.map_async(targets.inverse, [1, 0], error_callback=called.append).wait(LIMIT)
        until(lambda: called)
        assert type(called.pop()) is ZeroDivisionError
        assert pool.starmap_async(targets.add, [(1, 2), (3, 4)]).get(LIMIT) == [3, 7]
        with pytest.raises(Exception, match="at home"):  # its type tells that it is about pickling, in words of its own
            pool.apply(targets.stays_at_home, (1,))
        assert pool.apply(targets.square, (3,)) == 9

        last = pool.map_async(targets.square, range(4))
        with pytest.raises(ValueError, match="still running"):
            pool.join()
        pool.close()
        for call in (
            lambda: pool.map(targets.square, [1]),
            lambda: pool.apply_async(targets.square, (1,)),
            lambda: pool.imap(targets.square, [1]),
        ):
            with pytest.raises(ValueError, match="Pool not running"):
                call()
        assert last.get(LIMIT) == [0, 1, 4, 9]  # what was begun is finished
        pool.join()


def test_a_pool_gives_each_worker_its_tools_and_its_end(mp: Any) -> None:
    lock, value = mp.Lock(), mp.Value("i", 0, lock=False)
    with mp.Pool(2, initializer=targets.take, initargs=(lock, value)) as pool:
        assert os.getpid() not in pool.map(targets.deposit, [500] * 4, chunksize=1)
        assert value.value == 2000
    with mp.Pool(processes=1, maxtasksperchild=2) as pool:
        pids = pool.map(targets.own_pid, range(4), chunksize=1)
        assert pids[0] == pids[1] != pids[2] == pids[3]


def test_the_end_of_a_pool_is_the_end_of_its_tasks(mp: Any, tmp_path: Path) -> None:
    with mp.Pool(1) as pool:
        pid = pool.apply(targets.own_pid)
        unfinished = pool.apply_async(targets.waits_for, (str(tmp_path / "never"),))
        assert not unfinished.ready()
    until(lambda: is_gone(pid))
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(targets.square, [1])
    pool.terminate()
    pool.join()


def test_pools_that_cannot_be(mp: Any) -> None:
    for wrong in ({"processes": 0}, {"processes": -1}, {"processes": 1, "maxtasksperchild": 0}):
        with pytest.raises(ValueError, match=r"at least 1|positive"):
            mp.Pool(**wrong)
    with pytest.raises(TypeError, match="callable"):
        mp.Pool(1, initializer="any")


# ---- threads in the shape of processes ----


def test_dummy(module: ModuleType) -> None:
    dummy = part(module, "dummy")
    seen: list[Any] = []
    items = dummy.Queue()

    def tell(x: int, *, y: int) -> None:
        items.put((x, y, os.getpid(), dummy.current_process()))

    process = dummy.Process(target=tell, args=(1,), kwargs={"y": 2})
    assert process.exitcode is None
    process.start()
    process.join(LIMIT)
    assert not process.is_alive()
    assert process.exitcode == 0
    assert items.get(timeout=LIMIT) == (1, 2, os.getpid(), process)
    assert dummy.active_children() == []
    value, numbers = dummy.Value("i", 3), dummy.Array("i", [1, 2])
    with dummy.Lock(), dummy.RLock():
        value.value += 1
        numbers[0] = 5
    assert (value.value, list(numbers)) == (4, [5, 2])
    left, right = dummy.Pipe()
    left.send(seen)
    assert right.poll(LIMIT)
    assert right.recv() is seen
    manager = dummy.Manager()
    assert (manager.list([1]), manager.dict(a=1)) == ([1], {"a": 1})
    for name in ("Event", "Condition", "Semaphore", "BoundedSemaphore", "JoinableQueue", "Namespace"):
        assert getattr(dummy, name)() is not None
    assert dummy.Barrier(1).wait() == 0
    for make in (dummy.Pool, part(module, "pool").ThreadPool):
        with make(2) as pool:
            assert pool.map(lambda x: (x, os.getpid()), range(3)) == [(x, os.getpid()) for x in range(3)]
            assert sorted(pool.imap_unordered(lambda x: -x, range(3))) == [-2, -1, 0]
            assert pool.apply_async(seen.append, ("here",)).get(LIMIT) is None
            assert seen.pop() == "here"
            with pytest.raises(ZeroDivisionError):
                pool.apply(targets.inverse, (0,))
            pool.close()
            pool.join()
