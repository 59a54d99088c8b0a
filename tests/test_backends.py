"""The contract of a backend, one suite for all: wherever tasks go, a map means the same.

What only some backends can do is asked of those; the others say in their docstring that they can't.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import traceback
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbparallel
from nbparallel import (
    BackendUnavailable,
    NBParallelWarning,
    SerializationError,
    TaskError,
    WorkerCrashed,
    backends,
    last_run,
    pmap,
    pmap_async,
)

#: Those whose tasks run in processes of their own: what a task does to its process, it does to that one.
ISOLATED = ["processes", "pathos"]


@pytest.fixture(params=backends.names())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[name for name in backends.names() if name != "serial"])
def concurrent(request: pytest.FixtureRequest) -> str:
    """One whose runs go on behind the caller's back."""
    return str(request.param)


@pytest.fixture(params=ISOLATED)
def isolated(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Odd(Exception):
    def __init__(self, value: int, why: str) -> None:
        super().__init__(f"{value} {why}")
        self.value = value


def square(x: int) -> int:
    return x * x


def subtract(x: int, y: int) -> int:
    return x - y


def even(x: int) -> int:
    if x % 2:
        raise Odd(x, "is odd")
    return x


def notes(task: tuple[Path, int]) -> int:
    folder, x = task
    (folder / str(x)).touch()
    return even(x)


def speaks(x: int) -> None:
    sys.stdout.write(f"out {x}\n")  # print() writes a line in pieces, and threads may mix those
    sys.stderr.write(f"err {x}\n")


def draws(_: int) -> tuple[float, float]:
    return nbparallel.rng().random(), nbparallel.rng().random()


def draws_globally(_: int) -> tuple[float, float]:
    return random.random(), np.random.random()


def nested(x: int) -> list[int]:
    return pmap(square, range(x), workers=2, progress=False)


def type_name(x: object) -> str:
    return type(x).__name__


def makes_lock(x: int) -> Any:
    return threading.Lock() if x == 1 else x


class Stubborn:
    """Can be pickled, and not rebuilt."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("no load here")


def makes_stubborn(x: int) -> Any:
    made = Stubborn()
    made.__dict__["x"] = x
    return made if x == 13 else (x,)


def scale(array: Any) -> Any:
    array *= 2
    return array


def waits_for(path: Path) -> str:
    while not path.exists():
        threading.Event().wait(0.002)
    return path.name


def dies(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def leaves(x: int) -> int:
    if x == 3:
        sys.exit(7)
    return x


# ---- results ----


@pytest.mark.parametrize("chunksize", ["auto", 1, 7, 100])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_as_the_built_in_map(backend: str, workers: int, chunksize: Any) -> None:
    options = {"backend": backend, "workers": workers, "chunksize": chunksize}
    expected = [x * x for x in range(40)]
    assert pmap(square, range(40), **options) == expected
    assert pmap(square, iter(range(40)), **options) == expected
    assert sorted(pmap(square, range(40), ordered=False, **options)) == expected
    assert pmap(subtract, range(9), iter(range(5)), **options) == [0] * 5
    assert pmap(square, [], **options) == pmap(square, iter(()), **options) == []
    assert pmap_async(square, iter(range(40)), **options).result() == expected


def test_a_run_is_read_in_every_way(backend: str) -> None:
    run = pmap_async(square, range(20), backend=backend, workers=2)
    expected = [x * x for x in range(20)]
    assert list(run) == run.result() == run.results == expected
    assert sorted(run.as_completed()) == expected

    async def reads() -> tuple[list[int], list[int]]:
        again = pmap_async(square, range(20), backend=backend, workers=2)
        return await again, [each async for each in again]

    assert asyncio.run(reads()) == (expected, expected)


def test_arrays_there_and_back(backend: str) -> None:
    arrays = [np.full(50_000, float(x)) for x in range(3)]
    found = pmap(scale, [array.copy() for array in arrays], backend=backend, workers=2)
    for array, result in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(result, 2 * array)


def test_many_runs_at_once(backend: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        futures = [
            threads.submit(pmap, square, range(start, start + 30), backend=backend, workers=2, progress=False)
            for start in range(12)
        ]
        found = [future.result() for future in futures]
    assert found == [[x * x for x in range(start, start + 30)] for start in range(12)]


# ---- errors ----


@pytest.mark.parametrize("chunksize", ["auto", 1, 5])
def test_a_task_raises_its_own_exception(backend: str, chunksize: Any) -> None:
    with pytest.raises(Odd) as caught:
        pmap(even, [0, 2, 3, 4], backend=backend, workers=1, chunksize=chunksize)
    assert caught.value.value == 3
    (note,) = caught.value.__notes__
    assert note.startswith("nbparallel: in task 2 (even(3))")
    here, there = traceback.extract_tb(caught.value.__traceback__)
    assert here.name == "test_a_task_raises_its_own_exception"
    assert (there.name, there.line) == ("even", 'raise Odd(x, "is odd")')
    run = last_run()
    assert run is not None
    assert run.results[:2] == [0, 2]
    assert run.failures[2].input == (3,)


def test_the_first_failure_ends_its_chunk(backend: str, tmp_path: Path) -> None:
    tasks = [(tmp_path, x) for x in (0, 2, 3, 4, 6)]
    with pytest.raises(Odd):
        pmap(notes, tasks, backend=backend, workers=1, chunksize=5)
    assert {file.name for file in tmp_path.iterdir()} == {"0", "2", "3"}


def test_failures_are_returned(backend: str) -> None:
    found = pmap(even, range(5), backend=backend, workers=2, on_error="return")
    assert [found[0], found[2], found[4]] == [0, 2, 4]
    for index in (1, 3):
        assert type(found[index]) is TaskError
        assert type(found[index].error) is Odd
        assert "in even" in found[index].traceback
        with pytest.raises(Odd):
            found[index].rerun()


def test_the_input_raises(backend: str) -> None:
    def broken() -> Any:
        yield from range(3)
        raise LookupError("dry")

    with pytest.raises(LookupError, match="dry"):
        pmap(square, broken(), backend=backend, workers=2)
    run = last_run()
    assert run is not None
    assert run.results == [0, 1, 4]


def test_what_can_not_travel(backend: str) -> None:
    inputs = [1, threading.Lock(), "a"]
    found = pmap(type_name, inputs, backend=backend, workers=2, on_error="return")
    assert [found[0], found[2]] == ["int", "str"]
    results = pmap(makes_lock, range(3), backend=backend, workers=2, on_error="return", chunksize=3)
    assert [results[0], results[2]] == [0, 2]
    if backend in ISOLATED:
        assert isinstance(found[1].error, SerializationError)
        assert "the input of task 1" in str(found[1].error)
        assert isinstance(results[1].error, SerializationError)
    else:  # nothing has to
        assert found[1] == "lock"
        assert type(results[1]) is type(inputs[1])


# ---- what tasks see and do ----


def test_prints_come_once(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    pmap(speaks, range(10), backend=backend, workers=2, progress=False)
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == sorted(f"out {x}" for x in range(10))
    assert sorted(err.splitlines()) == sorted(f"err {x}" for x in range(10))


def test_a_seed_means_the_same_everywhere(backend: str) -> None:
    reference = [tuple(np.random.default_rng(np.random.SeedSequence(3, spawn_key=(i,))).random(2)) for i in range(8)]
    for workers, chunksize in ((1, "auto"), (2, 1), (2, 3)):
        options: dict[str, Any] = {"workers": workers, "chunksize": chunksize}
        assert pmap(draws, range(8), seed=3, backend=backend, **options) == reference
    assert pmap(draws, range(8), seed=4, backend=backend) != reference
    assert pmap(draws, range(2), backend=backend) != reference[:2]


def test_a_seed_sets_the_global_generators_where_tasks_have_their_own(backend: str) -> None:
    if backend == "threads":  # they share the notebook's
        before = random.getstate(), np.random.get_state()[1].tolist()
        pmap(draws, range(8), seed=3, backend=backend)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    else:
        reference = pmap(draws_globally, range(8), seed=3, backend="serial")
        assert len({number for row in reference for number in row}) == 16
        assert pmap(draws_globally, range(8), seed=3, backend=backend, chunksize=3) == reference


def test_a_nested_map_runs_there(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nbparallel.engine.relay._said", set())
        with contextlib.nullcontext() if backend in ISOLATED else pytest.warns(NBParallelWarning):
            found = pmap(nested, range(4), backend=backend, workers=2, progress=False)
    assert found == [[], [0], [0, 1], [0, 1, 4]]
    if backend in ISOLATED:
        assert capfd.readouterr().err.count("NBParallelWarning") == 1


def test_the_environment_is_the_notebooks(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(pmap(os.getenv, ["SEEN_BY_TASKS"] * 4, backend=backend, workers=2)) == {None}
    monkeypatch.setenv("SEEN_BY_TASKS", "yes")
    monkeypatch.chdir(tmp_path)
    assert set(pmap(os.getenv, ["SEEN_BY_TASKS"] * 4, backend=backend, workers=2)) == {"yes"}
    assert set(pmap(os.path.abspath, ["here"] * 4, backend=backend, workers=2)) == {os.path.abspath("here")}


# ---- ends ----


def test_a_cancelled_run_keeps_what_is_finished(concurrent: str, tmp_path: Path) -> None:
    open_, shut = tmp_path / "open", tmp_path / "shut"
    open_.touch()
    run = pmap_async(waits_for, [open_, shut, shut, shut], backend=concurrent, workers=2, chunksize=1)
    assert next(iter(run)) == "open"
    assert run.cancel()
    if concurrent == "threads":  # what runs can't be ended, and is waited for
        shut.touch()
    with pytest.raises(CancelledError):
        run.result(timeout=30)
    assert run.results[0] == "open"
    assert pmap(square, range(5), backend=concurrent, workers=2) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("abort", [True, False])
def test_after_a_shutdown_there_are_new_workers(backend: str, abort: bool) -> None:
    assert pmap(square, range(3), backend=backend, workers=2) == [0, 1, 4]
    before = backends.get(backend, 2, nbparallel.configure().start_method)
    backends.shutdown(abort=abort)
    assert pmap(square, range(3), backend=backend, workers=2) == [0, 1, 4]
    assert backends.get(backend, 2, nbparallel.configure().start_method) is not before


def test_a_shutdown_that_waits_lets_tasks_finish(backend: str) -> None:
    run = pmap_async(square, range(50), backend=backend, workers=2, chunksize=1)
    backends.shutdown(abort=False)
    assert run.result(timeout=30) == [x * x for x in range(50)]


def test_a_shutdown_at_once_cancels(isolated: str, tmp_path: Path) -> None:
    run = pmap_async(waits_for, [tmp_path / "never"] * 4, backend=isolated, workers=2, chunksize=1)
    backends.shutdown(abort=True)
    assert run.done
    with pytest.raises(CancelledError):
        run.result()


@pytest.mark.parametrize(("task", "code"), [(dies, -signal.SIGKILL), (leaves, 7)])
@pytest.mark.parametrize("chunksize", ["auto", 1, 8])
def test_a_task_that_ends_its_worker_fails_alone(isolated: str, task: Any, code: int, chunksize: Any) -> None:
    options: dict[str, Any] = {"backend": isolated, "workers": 2, "chunksize": chunksize}
    found = pmap(task, range(8), on_error="return", **options)
    assert [x for x in found if isinstance(x, int)] == [0, 1, 2, 4, 5, 6, 7]
    assert type(found[3]) is WorkerCrashed
    assert found[3].exitcode == code
    assert found[3].pid != os.getpid()
    with pytest.raises(WorkerCrashed, match=r"task 3 \(\w+\(3\)\)"):
        pmap(task, range(8), **options)
    assert pmap(square, range(5), **options) == [0, 1, 4, 9, 16]


def test_a_result_that_can_not_be_rebuilt_fails_alone(isolated: str) -> None:
    found = pmap(makes_stubborn, range(40), on_error="return", backend=isolated, workers=2, chunksize=10)
    assert [x for x in found if isinstance(x, tuple)] == [(x,) for x in range(40) if x != 13]
    assert isinstance(found[13].error, SerializationError)
    assert "no load here" in str(found[13])


# ---- which there are ----


def test_the_known_backends() -> None:
    assert backends.names() == ["processes", "threads", "serial", "pathos"]


def test_a_backend_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    backends.shutdown()
    monkeypatch.setitem(sys.modules, "pathos.helpers", None)
    with pytest.raises(BackendUnavailable, match="pip install pathos"):
        pmap(square, [1], backend="pathos")
    with pytest.raises(ImportError):
        pmap_async(square, [1], backend="pathos")
