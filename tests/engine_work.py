"""What the tests of the engine share: a small `Work` in place of the front, engines, and plain scripts."""

from __future__ import annotations

import contextlib
import contextvars
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import engine_tasks as tasks
import psutil
import pytest

from nbparallel.engine import process
from nbparallel.engine.manager import Engine
from nbparallel.engine.times import Times
from nbparallel.engine.work import Failure, Payload, Said, next_number
from nbparallel.serialize import unit_of

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
        timeout: float | None = None,
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] = (),
    ) -> None:
        self.number = next_number()
        self.width = width
        self.chunksize = chunksize
        self.style = style
        self.stop_on_error = stop_on_error
        self.timeout = timeout
        self.retries = retries
        self.retry_on = retry_on
        self.items = items
        self.unit = unit_of(function)
        self.values: dict[int, Any] = {}
        self.failures: dict[int, Failure] = {}
        self.times: list[tuple[int, int, Times]] = []
        self.given_up: Failure | None = None
        self.output: dict[int, list[str]] = defaultdict(list)
        self.labels: set[int] = set()
        self.finished = threading.Event()

    def payload(self, start: int, stop: int) -> Payload:
        return Payload(self.unit, self.items[start:stop], contextvars.copy_context())

    def settle(self, first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
        for index, value in enumerate(values, first):
            assert index not in self.values, "settled twice"
            assert index not in self.failures, "settled twice"
            if index in failures:
                self.failures[index] = failures[index]
            else:
                self.values[index] = value

    def timed(self, first: int, count: int, times: Times) -> None:
        self.times.append((first, count, times))

    def give_up(self, why: Failure) -> None:
        self.given_up = why

    def hungry(self, count: int) -> None:
        raise AssertionError("it does not stream")

    def write(self, index: int, said: Said) -> None:
        self.labels.add(index)
        self.output[1 if said.kind == "stdout" else 2].append(said.text)

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


@pytest.fixture(name="engine")
def engine_fixture(start_method: str) -> Iterator[Engine]:
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
