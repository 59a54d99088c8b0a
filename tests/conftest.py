"""What every test gets: proof that it left nothing behind, start methods to run under, no user's settings.

The proof (`leaves_nothing_behind`) guards against what users suffer from: workers that outlive a notebook,
threads and descriptors that pile up in a kernel, names left in /dev/shm. It looks at the whole test, its
fixtures' teardown included. What a fixture of a wider scope starts belongs to that fixture.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from jupyter_core.utils import ensure_event_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["pytester"]  # test_leaks.py runs tests inside a test

MARK = "NBPARALLEL_TEST_SESSION"  # inherited by all that a test starts: an orphan is still known by it
PATIENCE = 3.0  # seconds for what ends by itself, a moment after the call that asked for it
DESCRIPTORS = Path("/proc/self/fd")
SHARED_MEMORY = Path("/dev/shm")
# Nothing tells who made a name that no process holds any more.
BESIDE = " (by this test, or one that ran beside it)" if "PYTEST_XDIST_WORKER" in os.environ else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storm",
        type=int,
        default=1,
        metavar="N",
        help="repeats the slow storms N times; without it the storms run once in their short form",
    )


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of several processes of pytest-xdist: the others' children aren't its own
        os.environ[MARK] = uuid.uuid4().hex
    os.environ.setdefault(MARK, uuid.uuid4().hex)
    # A thousand processes start, and each would compile the package. As a user's do, they shall find it compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A shell's background jobs ignore interrupts, and so would all kernels and scripts that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Kernels read start-up files and write histories, checkpoints are kept: not among those of whoever runs the tests.
    home = Path(tempfile.mkdtemp(prefix="nbparallel-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    folders = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    for name in (*folders, "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        os.environ[name] = str(home / name.lower())


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def start_method(request: pytest.FixtureRequest) -> str:
    """Each way in which this system can start a worker."""
    return request.param


@pytest.fixture
def storm(request: pytest.FixtureRequest) -> int:
    """How often a storm repeats; 1 is its short form."""
    return max(1, request.config.getoption("--storm"))


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[Footprint]:
    """Fail a test that leaves a process, a thread, a descriptor or a name in /dev/shm; it may ask before its end."""
    before = Footprint.now()
    yield before
    _stop_what_stays_on_purpose()
    before.require()


@pytest.fixture(scope="session", autouse=True)
def jupyter_event_loop() -> None:
    """Open the event loop that jupyter_client keeps for its blocking calls, one a thread, for good."""
    ensure_event_loop()


@pytest.fixture(scope="session", autouse=True)
def session_leaves_nothing_behind() -> Iterator[None]:
    """Fail the session whose wider fixtures left a process or a name in /dev/shm.

    Threads and descriptors aren't compared here: libraries open some once and keep them for the process.
    """
    before = Footprint.now()
    yield
    _stop_what_stays_on_purpose()
    before.require("process", "name")


def _stop_what_stays_on_purpose() -> None:
    """Stop the workers that are kept warm between calls and tqdm's monitor thread, let go of the place of new locks."""
    if warm := sys.modules.get("nbparallel.backends"):
        warm.shutdown()
    if locks := sys.modules.get("nbparallel.multiprocessing.synchronize"):
        locks._forget()
    if tqdm := sys.modules.get("tqdm"):
        monitor, tqdm.tqdm.monitor = tqdm.tqdm.monitor, None
        if monitor is not None:
            monitor.exit()


@dataclass
class Footprint:
    """What this test run occupied at one moment."""

    processes: set[psutil.Process]
    pids: set[int]
    threads: set[threading.Thread]
    descriptors: dict[int, str]
    names: set[str]

    @classmethod
    def now(cls) -> Footprint:
        return cls(
            set(psutil.Process().children(recursive=True)),
            set(psutil.pids()),
            set(threading.enumerate()),
            _descriptors(),
            _names(),
        )

    def require(self, *kinds: str) -> None:
        """Wait until nothing is left that wasn't there; past the patience, name it and fail."""
        deadline = time.monotonic() + PATIENCE
        while found := [leak for leak in self.leaks() if not kinds or leak[0] in kinds]:
            if time.monotonic() > deadline:
                self.kill_processes()  # reported once: no later test shall meet them
                pytest.fail("left behind:\n" + "\n".join(f"  {kind} {text}" for kind, text in found), pytrace=False)
            gc.collect()  # what only a reference cycle holds is not left behind
            time.sleep(0.02)

    def leaks(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the description of each thing that wasn't there before."""
        for process in self.new_processes():
            yield "process", _describe(process)
        for thread in set(threading.enumerate()) - self.threads:
            yield "thread", f"{thread.name} ({'daemon' if thread.daemon else 'not a daemon'})"
        kept = {tracker._fd for tracker in _resource_trackers()}
        for number, target in _descriptors().items():
            if number not in self.descriptors and number not in kept:
                yield "descriptor", f"{number} -> {target}"
        for name in _names() - self.names:
            if not self._is_held_by_others(name):
                yield "name", f"{SHARED_MEMORY / name}{BESIDE}"

    def new_processes(self) -> list[psutil.Process]:
        """Return descendants, and orphans that carry the mark, but not those below an older child of ours."""
        found = set(psutil.Process().children(recursive=True)) - self.processes
        known = {process.pid for process in found}
        for pid in set(psutil.pids()) - self.pids - known:
            try:
                process = psutil.Process(pid)
                if process.environ().get(MARK) == os.environ[MARK] and process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process)
            except psutil.Error:
                continue  # gone, or not ours to look at
        kept = {tracker._pid for tracker in _resource_trackers()}
        return [p for p in found if p.pid not in kept and self.processes.isdisjoint(_ancestors(p))]

    def _is_held_by_others(self, name: str) -> bool:
        """Tell whether a name is mapped by a process that isn't ours, or by an older child of ours: a kernel, say."""
        others = set(psutil.pids()) - {os.getpid(), *(child.pid for child in self.new_processes())}
        try:
            inode = str((SHARED_MEMORY / name).stat().st_ino)
        except FileNotFoundError:  # it has gone just now
            return True
        return any(inode in _shared_memory_of(pid) for pid in others)

    def kill_processes(self) -> None:
        for process in self.new_processes():
            try:
                process.kill()
                process.wait(PATIENCE)
            except psutil.Error:
                continue


def _ancestors(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.Error:
        return []


def _describe(process: psutil.Process) -> str:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return f"{process.pid} (ended, but nobody waited for it)"
        return f"{process.pid}: {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"{process.pid}"


def _resource_trackers() -> Iterator[object]:
    """Yield what the standard library and multiprocess start at the first need and keep for the process."""
    for package in ("multiprocessing", "multiprocess"):
        if module := sys.modules.get(f"{package}.resource_tracker"):
            yield module._resource_tracker


def _descriptors() -> dict[int, str]:
    found = {}
    for link in DESCRIPTORS.glob("*") if DESCRIPTORS.is_dir() else ():
        try:
            found[int(link.name)] = os.readlink(link)
        except OSError:
            continue  # the one that listed the folder
    return found


def _names() -> set[str]:
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()


def _shared_memory_of(pid: int) -> set[str]:
    """Return the inodes in /dev/shm that a process has mapped: C's semaphores are made under another name."""
    try:
        mapped = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    except OSError:  # gone, or not ours to look at
        return set()
    return {fields[4] for fields in mapped if len(fields) == 6 and fields[5].startswith(f"{SHARED_MEMORY}/")}
