"""The standard `multiprocessing` and the drop-in, by each start method: the fixtures of the conformance tests.

Used by `test_multiprocessing_conformance.py` and `test_multiprocessing_sharing.py`. Both modules keep helpers for the
process once they have needed them (a fork server, a tracker of names): they are started before the first test and
stopped after the last, and what any test leaves below them is its fault.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import mp_targets as targets
import psutil
import pytest
from kernels import METHODS

STANDARD, DROP_IN = "multiprocessing", "nbparallel.multiprocessing"
LIMIT = targets.LIMIT
SOON = 0.01  # seconds, for waits that are to fail

MARKS = [
    pytest.mark.timeout(50),  # `SimpleQueue.get`, `JoinableQueue.join` and others have no limit of their own
    # Python 3.12 and later say so of a fork below threads: pytest and its plugins have some.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def part(module: ModuleType, name: str) -> ModuleType:
    """Return a submodule, such as ``connection``, of one of the two."""
    return importlib.import_module(f"{module.__name__}.{name}")


def fork_server() -> Any:
    """Return what starts processes for the standard module; `None` where it has not been needed."""
    loaded = sys.modules.get("multiprocessing.forkserver")
    return loaded._forkserver if loaded else None


@pytest.fixture(scope="module")
def helpers() -> Iterator[None]:
    """Start what the modules keep for the process once they have needed it, and stop it after the last test.

    These are the server that forks, the tracker of named semaphores, and one piece of memory for values and arrays.
    """
    for name in (STANDARD, DROP_IN):
        module = importlib.import_module(name)
        module.RawArray("b", 2_000_000)  # given back at once, but the mapping stays, and serves all tests
        if "forkserver" in METHODS:
            process = module.get_context("forkserver").Process()
            process.start()
            process.join(LIMIT)
            process.close()
    yield
    if server := fork_server():
        server._stop()


@pytest.fixture(scope="module", params=[STANDARD, DROP_IN])
def module(request: pytest.FixtureRequest, helpers: None) -> ModuleType:
    return importlib.import_module(request.param)


@pytest.fixture(scope="module", params=METHODS)
def mp(request: pytest.FixtureRequest, module: ModuleType) -> Any:
    """The module's context of one start method."""
    return module.get_context(request.param)


@pytest.fixture(autouse=True)
def no_child_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process below a fork server: `leaves_nothing_behind` would take it for the server's."""
    yield
    server = fork_server()
    limit = time.monotonic() + 3
    while left := psutil.Process(server._forkserver_pid).children() if server else []:
        if time.monotonic() > limit:
            for child in left:
                child.kill()
            pytest.fail(f"left behind: {left}")
        time.sleep(0.005)
    if "module" in request.fixturenames:
        assert request.getfixturevalue("module").active_children() == []


@contextlib.contextmanager
def started(*processes: Any) -> Iterator[None]:
    """Start processes; whatever happens, none is left."""
    try:
        for process in processes:
            process.start()
        yield
        for process in processes:
            process.join(LIMIT)
    finally:
        for process in processes:
            if process.pid is not None and process.is_alive():
                process.kill()
                process.join(LIMIT)
        for process in processes:
            if process.pid is not None:
                process.close()


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
