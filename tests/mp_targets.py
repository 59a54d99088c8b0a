"""What the processes of `test_multiprocessing_conformance.py` do: importable, so that the standard module can spawn it.

A target that asks its module who it is gets the module's name. Whatever waits here gives up by itself.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

LIMIT = 30.0  # seconds; a backstop


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


class Unpicklable:
    def __reduce__(self) -> str:
        raise TypeError("it stays at home")


# ---- processes ----


def describe_yourself(module_name: str, connection: Any, *, key: str) -> None:
    """Say who you are, then wait to be told to go."""
    module = importlib.import_module(module_name)
    me, parent = module.current_process(), module.parent_process()
    connection.send(
        {
            "key": key,
            "pid": os.getpid(),
            "ident": me.pid,
            "name": me.name,
            "daemon": me.daemon,
            "parent": (parent.pid, parent.name, parent.is_alive()),
            "children": module.active_children(),
        }
    )
    connection.recv()


def wait_for_ever(connection: Any = None) -> None:
    if connection is not None:
        connection.send(os.getpid())
    time.sleep(LIMIT)


def exit_with(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]


def exit_at_once(code: int) -> None:
    os._exit(code)


def kill_yourself(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def fail() -> None:
    raise ValueError("what went wrong")


def try_to_have_children(module_name: str, method: str, connection: Any) -> None:
    """Start a process; report what became of it."""
    context = importlib.import_module(module_name).get_context(method)
    here, there = context.Pipe()
    child = context.Process(target=wait_for_ever, args=(there,), daemon=True)
    try:
        child.start()
    except AssertionError as error:
        connection.send(str(error))
    else:
        connection.send(here.recv())


# ---- queues and pipes ----


def double_all(requests: Any, simple: Any, joinable: Any, answers: Any) -> None:
    """Double what comes through a queue, then what comes through each of the others."""
    while (item := requests.get(timeout=LIMIT)) is not None:
        answers.put(item * 2)
    while (item := simple.get()) is not None:
        answers.put(item * 2)
    for _ in range(3):
        answers.put(joinable.get(timeout=LIMIT) * 2)
        joinable.task_done()
    answers.put(b"x" * 1_000_000)  # more than a pipe holds: the process must not end before it is read


def echo(connection: Any) -> None:
    """Send back what comes, reversed, until None; then end without a word."""
    while (item := connection.recv()) is not None:
        connection.send(item[::-1])
    connection.send_bytes(connection.recv_bytes()[::-1])


# ---- shared memory ----


def change_all(value: Any, raw: Any, array: Any, numbers: Any, point: Any, points: Any) -> None:
    value.value += 1
    raw.value /= 2
    array[1:3] = [20, 30]
    numbers[0] = -1.5
    point.x, point.y = 7, 0.25
    for each in points:
        each.x += 1


def count_up(counter: Any, times: int) -> None:
    for _ in range(times):
        with counter.get_lock():
            counter.value += 1


def change_shared(module_name: str, name: str, listed: Any) -> None:
    shared_memory = importlib.import_module(f"{module_name}.shared_memory")
    memory = shared_memory.SharedMemory(name=name)
    memory.buf[:5] = b"child"
    memory.close()
    listed[0], listed[3] = listed[0] + 1, "there"
    listed.shm.close()


# ---- locks, conditions, events, barriers ----


def contend(connection: Any, lock: Any, rlock: Any, semaphore: Any, bounded: Any) -> None:
    """Try what the parent holds, then, told so, take what it has left and keep it."""
    connection.send([each.acquire(timeout=0.01) for each in (lock, rlock, semaphore, bounded)])
    connection.recv()
    taken = [each.acquire(timeout=LIMIT) for each in (lock, rlock, semaphore, bounded)]
    connection.send((taken, repr(lock).count("OTHER") == 0))
    connection.recv()
    rlock.release()
    with rlock, rlock:
        connection.send("twice")


def wait_on_condition(condition: Any, value: Any, connection: Any) -> None:
    with condition:
        connection.send("waiting")
        connection.send(condition.wait(LIMIT))
    with condition:
        connection.send("waiting")
        connection.send(condition.wait_for(lambda: value.value == 3, LIMIT))
        connection.send(value.value)


def meet(event: Any, barrier: Any, connection: Any) -> None:
    """Wait for an event, then at a barrier twice, of which the second is to be broken, then once more."""
    connection.send(event.wait(LIMIT))
    connection.send(barrier.wait(LIMIT))
    try:
        barrier.wait(LIMIT)
    except Exception as error:
        connection.send(type(error).__name__)
    connection.recv()
    connection.send(barrier.wait(LIMIT))


def add_one(value: Any) -> None:
    value.value += 1


# ---- managers ----


class Counter:
    """A class to be registered with a manager."""

    def __init__(self, start: int = 0) -> None:
        self._count = start

    def up(self, by: int = 1) -> int:
        if by < 0:
            raise ValueError("it goes up only")
        self._count += by
        return self._count

    def steps(self) -> Iterator[int]:
        yield from range(self._count)

    def _hidden(self) -> None:
        raise NotImplementedError


def use_managed(everything: dict[str, Any]) -> None:
    """Change everything that a manager made for the parent."""
    everything["list"].append("child")
    everything["list"][0]["inner"] = os.getpid()
    everything["dict"]["child"] = [1, 2]
    everything["dict"].update(more=3)
    everything["namespace"].x += 1
    everything["namespace"].made = "there"
    everything["value"].value += 1
    everything["array"][1] = 10
    everything["queue"].put(everything["queue"].get(timeout=LIMIT) * 2)
    with everything["lock"], everything["condition"]:
        everything["condition"].notify_all()
    everything["semaphore"].acquire()
    everything["barrier"].wait(LIMIT)
    everything["event"].set()


# ---- pools ----


def square(x: int) -> int:
    return x * x


def add(x: int, y: int = 0) -> int:
    return x + y


def inverse(x: float) -> float:
    return 1 / x


def own_pid(_: object = None) -> int:
    return os.getpid()


def stays_at_home(_: object) -> Unpicklable:
    return Unpicklable()


def waits_for(path: str) -> str:
    limit = time.monotonic() + LIMIT
    while not os.path.exists(path) and time.monotonic() < limit:
        time.sleep(0.002)
    return path


_given: tuple[Any, Any] | None = None


def take(lock: Any, value: Any) -> None:
    """Initialize a worker: keep the lock and the value that all workers share."""
    global _given
    _given = lock, value


def deposit(amount: int) -> int:
    assert _given is not None
    lock, value = _given
    for _ in range(amount):
        with lock:
            value.value += 1
    return os.getpid()
