"""The tasks of `test_engine`: in a module that a worker imports in no time, unlike the tests' own."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def square(x: int) -> int:
    return x * x


def echo(x: Any) -> Any:
    return x


def doubled(data: bytes) -> bytes:
    return data + data


def pid(_: Any = None) -> int:
    return os.getpid()


def pid_after(path: str) -> int:
    """Return the worker's pid once a file is there."""
    wait_for(path)
    return os.getpid()


def import_answer(module: str) -> Any:
    return importlib.import_module(module).answer


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)


def meet(item: tuple[str, int]) -> int:
    """Return the worker's pid once so many workers have come here."""
    folder, count = item
    Path(folder, str(os.getpid())).touch()
    while len(os.listdir(folder)) < count:
        time.sleep(0.005)
    return os.getpid()


def surroundings(names: list[str]) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "variables": {name: os.environ.get(name) for name in names},
        "folder": os.getcwd(),
        "path": list(sys.path),
        "recursion_limit": sys.getrecursionlimit(),
        "max_str_digits": sys.get_int_max_str_digits(),
    }


def blas(_: Any) -> list[tuple[str | None, int]]:
    """Return the threads that the environment and each numeric library have."""
    import numpy
    import threadpoolctl

    numpy.ones((100, 100)) @ numpy.ones((100, 100))
    pools = [(pool["internal_api"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()]
    return [("OMP_NUM_THREADS", int(os.environ["OMP_NUM_THREADS"])), *pools]


# ---- writing ----


def write_everywhere(index: int) -> None:
    print(f"print {index}")
    print(f"print to stderr {index}", file=sys.stderr)
    os.write(1, f"write {index}\n".encode())
    os.write(2, f"write to stderr {index}\n".encode())
    subprocess.run(["echo", f"subprocess {index}"], check=True)
    subprocess.run(f"echo subprocess to stderr {index} >&2", shell=True, check=True)
    ctypes.CDLL(None).printf(b"printf %d\n", ctypes.c_int(index))
    sys.stdout.buffer.write(f"buffer {index}\n".encode())


def write_and_die(index: int) -> None:
    print(f"print {index}")
    os.write(1, f"write {index}\n".encode())
    ctypes.CDLL(None).printf(b"printf %d\n", ctypes.c_int(index))
    print(f"print to stderr {index}", file=sys.stderr)
    os._exit(5)


def write_without_a_newline(index: int) -> None:
    print(f"[{index}]", end="")
    os.write(2, f"<{index}>".encode())


def write_much(count: int) -> None:
    for number in range(count):
        print("line", number)


def write_and_say(item: tuple[str, str]) -> None:
    """Write, say so by a file, and wait for another."""
    written, go_on = item
    print("written")
    Path(written).touch()
    wait_for(go_on)


def write_in_signal_handlers(count: int) -> int:
    """Print lines while a handler cuts in that prints as well."""
    handled = 0

    def handler(number: int, frame: Any) -> None:
        nonlocal handled
        print("handler", handled)
        handled += 1

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 5e-4, 5e-4)
    try:
        number = 0
        while number < count or handled < 20:
            print("body", number)
            number += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return handled


def fork_and_write(index: int) -> int:
    child = os.fork()
    if child == 0:
        print(f"from the child {index}")
        print("its end", end="")
        os._exit(0)
    os.waitpid(child, 0)
    print(f"from the task {index}")
    return index


def fork_and_leave(how: str) -> int:
    """Return the exit code of a child that leaves the task in some way."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how == "raise":
        raise ValueError("of the child")
    if how == "exit":
        sys.exit(9)
    if how == "exit in words":
        sys.exit("words of the child")
    print("the child returns", flush=True)
    return 0


def flood(path: str) -> None:
    """Have a program write without end, and say which by a file."""
    program = subprocess.Popen(["yes"])
    Path(path + ".new").write_text(str(program.pid))
    os.rename(path + ".new", path)
    program.wait()


# ---- dying ----


def die(how: str | None) -> str | None:
    faulthandler.disable()  # a fork has pytest's, which would report here
    if how == "_exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "abort":
        os.abort()
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "sys.exit":
        sys.exit(4)
    elif how == "sys.exit in words":
        sys.exit("a last word")
    elif how == "close everything":
        os.closerange(0, 256)
    return how


def die_once(path: str) -> int:
    """Die, but not the second time."""
    if not os.path.exists(path):
        Path(path).touch()
        os._exit(1)
    return 1


def fork_and_die(path: str) -> None:
    """Leave a child that holds all that this worker held, and die."""
    child = os.fork()
    if child == 0:
        wait_for(path)
        os._exit(0)
    os._exit(6)


class Slow:
    """Takes long to be rebuilt, in the process that set `GATE`."""

    def __reduce__(self) -> Any:
        return pass_gate, ()


#: Where results are rebuilt: whether one has begun, and whether it may end.
GATE: tuple[threading.Event, threading.Event] | None = None


def pass_gate() -> str:
    assert GATE is not None
    begun, may_end = GATE
    begun.set()
    assert may_end.wait(30)
    return "rebuilt"


def slow_result(x: int) -> Any:
    return Slow() if x == 0 else wait_long()


def wait_long() -> None:
    time.sleep(1000)


class DiesWhenLoaded:
    def __reduce__(self) -> Any:
        return (os._exit, (8,))


class DiesWhenPickled:
    def __reduce__(self) -> Any:
        os._exit(9)


class RaisesWhenLoaded:
    def __reduce__(self) -> Any:
        return (int, ("not a number",))


def dies_when_pickled(index: int) -> Any:
    return DiesWhenPickled() if index == 2 else index


def close_output(_: Any) -> str:
    os.close(1)
    os.close(2)
    print("still here")
    return "done"


def leave_a_thread(path: str) -> str:
    threading.Thread(target=wait_for, args=(path,)).start()
    return "done"


def sleep_long(path: str) -> None:
    """Say that it has begun, and go on for long."""
    Path(path).touch()
    time.sleep(600)


# ---- initializers ----

prepared: list[Any] = []


def prepare(*args: Any) -> None:
    print("preparing", *args)
    prepared.extend(args)


def what_was_prepared(_: Any) -> list[Any]:
    return prepared


def fail() -> None:
    print("before it fails")
    raise ValueError("not today")


def exit_at_once(how: str) -> None:
    os.write(2, b"before it exits\n")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(11)


def draw(_: Any) -> float:
    return random.random()


# ---- memory ----


def fill_and_die(count: int) -> None:
    held = bytearray(count)
    os.kill(os.getpid(), signal.SIGKILL)
    del held


def hold(item: tuple[str, str]) -> str:
    """Say by a file that it has begun, with the worker's pid, and wait for another."""
    folder, name = item
    path = Path(folder, f"{name} has begun")
    path.with_suffix(".new").write_text(str(os.getpid()))
    os.rename(path.with_suffix(".new"), path)
    wait_for(os.path.join(folder, f"{name} may end"))
    return name
