"""`compare` and ``%pcompare``: what is run, how often, what a failure does, and what a cell shows."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from IPython.core.error import UsageError
from kernels import Kernel

import nbparallel
from nbparallel import Comparison, SerializationError, backends, compare, config, last_run, pmap, pmap_async
from nbparallel.engine import relay
from nbparallel.notebook.comparing import PCOMPARE_OPTIONS
from nbparallel.notebook.options import split_options
from nbparallel.notebook.workers import warm_pids

MAIN = threading.main_thread().ident
PARENT = os.getpid()


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_settings", config.Settings(workers=2))


def square(x: float) -> float:
    return x * x


def _pid(_: int) -> int:
    return os.getpid()


def fails_in_threads(x: int) -> int:
    if os.getpid() == PARENT and threading.get_ident() != MAIN:
        raise ValueError(f"no {x}")
    return x


def draws(_: int) -> tuple[float, float]:
    return random.random(), float(np.random.rand())


# ---- what it runs -------------------------------------------------------------------------------------------------


def test_each_method_gives_its_row_and_the_answers_are_kept() -> None:
    found = compare(square, [1.0, float("nan"), 3.0], repeats=2)
    assert isinstance(found, Comparison)
    assert [row.method for row in found.rows] == ["serial", "threads", "processes"]
    assert [row.workers for row in found.rows] == [1, 2, 2]
    assert [row.answers for row in found.rows] == ["equal"] * 3
    assert all(len(row.times) == 2 and row.first > 0 for row in found.rows)
    assert found.rows[0].speedup == found.rows[0].efficiency == 1.0
    assert (found.label, found.tasks, found.results[::2]) == ("square", 3, [1.0, 9.0])


def test_the_inputs_are_read_once_and_the_shortest_ends_them() -> None:
    read: list[int] = []
    found = compare(pow, (read.append(x) or x for x in range(3)), itertools.count(1), methods="threads", repeats=2)
    assert read == [0, 1, 2]
    assert found.results == [0, 1, 8]
    assert [row.answers for row in found.rows] == ["equal", "equal"]
    assert compare(square, iter([2, 3]), methods=["serial"], repeats=1).results == [4, 9]
    assert compare(square, np.arange(3), methods=[], repeats=1).results == [0, 1, 4]


def test_the_loop_is_always_first_and_each_method_measured_once() -> None:
    found = compare(square, [1], methods="threads, serial,threads", repeats=1, label="two")
    assert [row.method for row in found.rows] == ["serial", "threads"]
    assert found.headline.startswith("two: 1 task on ")


def test_it_runs_one_first_run_and_so_many_after_it() -> None:
    calls: list[int] = []
    compare(calls.append, [1, 2], methods="threads", repeats=3)
    assert sorted(calls) == [1] * 8 + [2] * 8
    calls.clear()
    compare(calls.append, [1], methods=[])
    assert len(calls) == 1 + 7  # of what takes no time, as many as there may be


def test_the_workers_are_fresh_and_the_notebooks_own_are_left_alone() -> None:
    pmap(_pid, range(8), chunksize=1)
    warm, before = set(warm_pids()), last_run()
    found = compare(_pid, range(4), methods="threads,processes", repeats=1)
    assert set(found.results) == {os.getpid()}  # the loop's
    told = found.rows[2].told  # item 0: 123 instead of 99
    elsewhere = int(told.split()[2])
    assert elsewhere not in {*warm, os.getpid()}
    assert not psutil.pid_exists(elsewhere)
    assert last_run() is before
    assert warm <= set(warm_pids())


def test_with_a_seed_random_answers_agree() -> None:
    state = random.getstate()
    found = compare(draws, range(4), methods="processes", repeats=1, seed=3)
    assert [row.answers for row in found.rows] == ["equal", "equal"]
    assert found.results == pmap(draws, range(4), seed=3, backend="serial")
    assert random.getstate() == state  # the notebook's own draws go on
    found = compare(draws, range(4), methods="processes", repeats=1)
    assert [row.answers for row in found.rows] == ["differ", "differ"]
    assert "random numbers without a seed" in found.remarks[0]


def test_an_input_that_is_changed_in_place_is_noticed() -> None:
    def appends(seen: list[int]) -> int:
        seen.append(1)
        return len(seen)

    found = compare(appends, [[], []], methods="threads", repeats=1)
    assert "the function changes, such as a global or its input" in found.remarks[0]


def test_maps_in_the_loop_are_serial_as_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_said", set())
    nested = {"there": 0}

    def inner(x: int) -> int:
        nested["there"] += os.getpid() == PARENT
        return x

    with pytest.warns(nbparallel.NBParallelWarning, match="inside a task runs serially"):
        compare(lambda n: pmap(inner, range(n)), [2], methods=[], repeats=1)
    assert nested["there"] == 4


# ---- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "options", "error", "said"),
    [
        ((3, [1]), {}, TypeError, "must be callable"),
        ((square,), {}, TypeError, "at least one iterable"),
        ((square, 3), {}, TypeError, "'int' object is not iterable"),
        ((square, []), {}, ValueError, "no item"),
        ((square, [1]), {"methods": "gpu"}, ValueError, "unknown backend 'gpu'; known: processes"),
        ((square, [1]), {"methods": 3}, TypeError, "'int' object is not iterable"),
        ((square, [1]), {"methods": [3]}, TypeError, "backend must be one of the names"),
        ((square, [1]), {"repeats": 0}, ValueError, "repeats must be at least 1, not 0"),
        ((square, [1]), {"repeats": 1.5}, TypeError, "repeats must be a whole number"),
        ((square, [1]), {"workers": 0}, ValueError, "workers must be at least 1"),
        ((square, [1]), {"seed": -1}, ValueError, "seed must not be negative"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(
    args: Any, options: Any, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "open_fresh", None)
    with pytest.raises(error, match=said) as caught:
        compare(*args, **options)
    assert [each.path.name for each in caught.traceback] == ["test_compare.py"]


def test_what_a_library_raises_in_the_loop_shows_its_frames() -> None:
    with pytest.raises(queue.Empty) as caught:
        compare(queue.Queue.get_nowait, [queue.Queue()])
    assert [each.name for each in caught.traceback][1:] == ["get_nowait", "get"]


def test_an_error_of_the_loop_is_the_users_own() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        compare(lambda x: 1 / x, [1, 0])
    assert [each.name for each in caught.traceback] == [
        "test_an_error_of_the_loop_is_the_users_own",
        "<lambda>",
    ]


def test_a_call_that_can_not_be_made_is_the_users_too() -> None:
    with pytest.raises(TypeError, match="takes 0 positional arguments") as caught:
        compare(lambda: 1, [1])
    assert [each.path.name for each in caught.traceback] == ["test_compare.py"]


def test_a_method_that_fails_has_its_error_in_its_row() -> None:
    found = compare(fails_in_threads, range(4), repeats=1)
    assert [row.answers for row in found.rows] == ["equal", "failed", "equal"]
    assert isinstance(found.rows[1].error, ValueError)
    assert found.remarks[0].startswith("threads failed: ValueError: no ")


def test_what_can_not_travel_is_a_failure_of_processes_alone() -> None:
    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return x

    found = compare(locked, range(4), repeats=1)
    assert [row.answers for row in found.rows] == ["equal", "equal", "failed"]
    assert isinstance(found.rows[2].error, SerializationError)


def test_a_backend_that_is_not_installed_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pathos.helpers", None)
    found = compare(square, range(4), methods="pathos", repeats=1)
    assert (
        found.remarks[0] == "pathos failed: BackendUnavailable: the backend 'pathos' needs pathos: pip install pathos"
    )


def test_it_refuses_to_measure_inside_a_task() -> None:
    for backend in ("serial", "threads", "processes"):
        with pytest.raises(RuntimeError, match="can't do so inside a task"):
            pmap(_compares, [1], backend=backend)


def test_it_refuses_to_measure_beside_another_comparison() -> None:
    begun, over = threading.Event(), threading.Event()

    def task(_: int) -> None:
        begun.set()
        over.wait()

    thread = threading.Thread(target=compare, args=(task, [1]), kwargs={"methods": [], "repeats": 1})
    thread.start()
    begun.wait()
    with pytest.raises(RuntimeError, match="another comparison runs"):
        compare(square, [1])
    over.set()
    thread.join()
    assert compare(square, [2], methods=[], repeats=1).results == [4]


def _compares(x: int) -> Any:
    return compare(square, [x])


# ---- what is shown ------------------------------------------------------------------------------------------------


def test_what_tasks_say_is_shown_once(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    def says(x: int) -> None:
        print("out", x)
        sys.stderr.writelines([f"err {x}\n"])
        logging.getLogger("tests").warning("log %s", x)

    streams = sys.stdout, sys.stderr
    compare(says, range(2), repeats=2)
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr() == ("out 0\nout 1\n", "err 0\nerr 1\n")
    assert [record.getMessage() for record in caplog.records] == ["log 0", "log 1"]
    print("afterwards")
    logging.getLogger("tests").warning("afterwards")
    assert capsys.readouterr().out == "afterwards\n"
    assert len(caplog.records) == 3


@pytest.mark.parametrize(
    "front",
    [
        lambda task: compare(task, [1], methods="processes", repeats=1),
        lambda task: pmap(task, [1]),
        lambda task: pmap_async(task, [1]).result(),
    ],
)
def test_a_warning_of_the_package_points_at_the_users_line(front: Callable[[Any], Any]) -> None:
    large = np.ones(3_000_000)

    def uses_large(x: int) -> float:
        return x * float(large[0])

    with pytest.warns(nbparallel.NBParallelWarning, match="uses_large refers to large, 24 MB") as caught:
        front(uses_large)
    assert {warning.filename for warning in caught} == {__file__}


def test_others_go_on_printing(capsys: pytest.CaptureFixture[str]) -> None:
    asked, printed = threading.Event(), threading.Event()

    def other() -> None:
        asked.wait()
        print("other")
        printed.set()

    thread = threading.Thread(target=other)
    thread.start()
    calls = itertools.count()

    def task(_: int) -> None:
        if next(calls) == 1:  # of a silent run
            asked.set()
            printed.wait()
        print("task")

    compare(task, [1], methods=[], repeats=1)
    thread.join()
    assert capsys.readouterr().out == "task\nother\n"


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("-m threads,pathos -r 2 -j3 x", {"methods": ["threads", "pathos"], "repeats": 2, "workers": 3}),
        ("--methods=serial --repeats 1 --seed 4 -o r x", {"methods": [], "repeats": 1, "seed": 4, "out": "r"}),
    ],
)
def test_the_magics_options_are_those_of_compare(line: str, options: dict[str, Any]) -> None:
    assert split_options(line, PCOMPARE_OPTIONS, "%pcompare") == (options, "x")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-m threads,gpu x", "-m threads,gpu: unknown backend 'gpu'; known: "),
        ("-m threads, x", "-m threads,: unknown backend ''; known: "),
        ("-r 0 x", "-r 0: repeats must be at least 1, not 0"),
        ("-b threads x", "unknown option -b; known: -m, --methods, -r"),
    ],
)
def test_wrong_options_are_said_in_a_line(line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        split_options(line, PCOMPARE_OPTIONS, "%pcompare")
    assert str(caught.value).startswith(f"%pcompare: {said}")


# ---- in a kernel --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook() -> Iterator[Kernel]:
    with Kernel() as kernel:
        kernel.run("""
            %load_ext nbparallel
            import os, time
            from IPython.display import display
            import nbparallel
            from nbparallel import pmap, last_run
            from nbparallel.notebook.workers import warm_pids
            nbparallel.configure(workers=2, progress=False)

            def f(x, y=0):
                print("at", x)
                display(x)
                return x + y
        """)
        yield kernel
        kernel.run("nbparallel.backends.shutdown()")


@pytest.mark.slow
def test_the_magic_in_a_kernel(notebook: Kernel) -> None:
    shown = notebook.run("%pcompare -r 2 f(x, y) for x in range(3) for y in (0, 1) if x")
    assert shown.stdout == "at 1\nat 1\nat 2\nat 2\n"
    assert [data["text/plain"] for data in shown.displays] == ["1", "1", "2", "2"]
    assert shown.result is not None
    lines = shown.result.splitlines()
    assert lines[0].startswith("f(x, y): 4 tasks on ")
    assert [line.split()[0] for line in lines[1:5]] == ["method", "serial", "threads", "processes"]
    assert all(line.endswith("  equal") for line in lines[2:5])
    data, metadata = next(
        (message["content"]["data"], message["content"]["metadata"])
        for message in shown.messages
        if message["msg_type"] == "execute_result"
    )
    assert metadata == {"nbparallel": "comparison"}
    assert "<svg" in data["text/html"]
    assert notebook.run("print('heard')\ndisplay(3)").stdout == "heard\n"
    inside = "def go(n):\n    c = %pcompare -m threads x + n for x in range(n)\n    return c.results\ngo(3)"
    assert notebook.run(inside).result == "[3, 4, 5]"
    explained = notebook.run("from IPython import get_ipython\nget_ipython().object_inspect('%pcompare')['docstring']")
    assert explained.result is not None
    assert all(option in explained.result for option in PCOMPARE_OPTIONS)
    silent = notebook.run("%pcompare -m threads -o kept x for x in [9];")
    assert (silent.result, notebook.run("kept.results").result) == (None, "[9]")
    assert notebook.run("%pcompare").stderr.startswith("UsageError: %pcompare needs a comprehension, for example: ")
    failed = notebook.run("%pcompare 1 / x for x in (1, 0)", fails=True)
    assert failed.error is not None
    assert failed.error.name == "ZeroDivisionError"
    assert "----> 1 1 / x for x in (1, 0)\n" in failed.error.traceback
    assert "nbparallel/" not in failed.error.traceback


@pytest.mark.slow
def test_the_cell_magic_takes_a_body(notebook: Kernel) -> None:
    shown = notebook.run("""
        %%pcompare -r 1 -m threads,processes,pathos x, y in zip(range(3), "abc")
        if x == 1:
            continue
        print(x)
        twice = 2 * x
        twice, y
    """)
    assert shown.stdout == "0\n2\n"
    assert shown.result is not None
    assert shown.result.splitlines()[0].startswith("for x, y in zip(range(3), 'abc'): 3 tasks on ")
    assert [line.split()[-1] for line in shown.result.splitlines()[2:6]] == ["equal"] * 4
    assert notebook.run("_.results, 'twice' in globals()").result == "([(0, 'a'), None, (4, 'c')], False)"
    failed = notebook.run("%%pcompare x in (1, 0)\n1 / x", fails=True)
    assert failed.error is not None
    assert failed.error.traceback.count("----> 2 1 / x\n") == 1
    for cell, said in (
        ("%%pcompare\n1", "UsageError: %%pcompare needs what to loop over, for example: %%pcompare x in xs\n"),
        ("%%pcompare -b threads x in y\n1", "UsageError: %%pcompare: unknown option -b; known: -m, --methods, "),
        (
            "%%pcompare x in xs\n%pwd",
            "UsageError: %%pcompare: %pwd needs IPython, which is not in worker processes (-m threads)",
        ),
    ):
        assert notebook.run(cell).stderr.startswith(said)
    assert notebook.run("%%pcompare -m threads -r 1 -o kept x in [1]\n%pwd").result is None
    assert notebook.run("kept.rows[1].answers").result == "'equal'"


@pytest.mark.slow
def test_figures_left_open_are_shown_once(notebook: Kernel) -> None:
    pytest.importorskip("matplotlib")
    shown = notebook.run("""
        %matplotlib inline
        import matplotlib.pyplot as plt

        def draws(x):
            plt.figure()
            return x

        nbparallel.compare(draws, [1, 2], methods="threads", repeats=1).rows[1].answers
    """)
    assert shown.result == "'equal'"
    assert len(shown.displays) == 2


@pytest.mark.slow
def test_a_line_says_how_far_it_is(notebook: Kernel) -> None:
    shown = notebook.run("""
        nbparallel.configure(progress=True)
        %pcompare -m threads -r 1 -o kept x for x in range(3)
        nbparallel.configure(progress=False)
        None
    """)
    told = [
        message["content"]["data"]["text/plain"]
        for message in shown.messages
        if message["msg_type"] in ("display_data", "update_display_data")
    ]
    assert told[:-1] == [
        "x: serial, run 1",
        "x: threads, run 2 of 4",
        "x: serial, run 3 of 4",
        "x: threads, run 4 of 4",
    ]
    assert told[-1].startswith("x: 4 runs compared in ")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["serial", "threads", "processes", "pathos"])
def test_stop_ends_it_at_once_and_leaves_the_workers_fine(method: str, notebook: Kernel) -> None:
    notebook.run("""
        from pathlib import Path
        import tempfile
        folder = tempfile.mkdtemp()
        pmap(abs, range(8), chunksize=1)
        warm = set(warm_pids())
        before = last_run()

        def sleeps(method):
            in_loop = os.getpid() == home and threading.get_ident() == threading.main_thread().ident
            if in_loop == (method == "serial"):
                Path(folder, str(os.getpid())).touch()
                time.sleep(2 if method == "threads" else 1000)

        import threading
        home = os.getpid()
    """)
    folder = notebook.run("print(folder)").stdout.strip()
    cell = notebook.send(f"%pcompare -m {method} -r 1 sleeps(m) for m in [{method!r}] * 4")
    assert notebook.receive(lambda: os.listdir(folder))
    pids = [int(name) for name in os.listdir(folder)]
    notebook.interrupt()
    began = time.monotonic()
    output = notebook.wait(cell, fails=True)
    assert output.error is not None
    assert output.error.name == "KeyboardInterrupt"
    assert time.monotonic() - began < 5  # a backstop: a task's sleep is not waited for
    if method in ("processes", "pathos"):
        assert notebook.receive(lambda: not any(map(psutil.pid_exists, pids)), 10)
    assert notebook.run("last_run() is before").result == "True"
    assert notebook.run("pmap(abs, [-1, 2]), warm <= set(warm_pids())").result == "([1, 2], True)"
    assert notebook.run("print('heard')").stdout == "heard\n"
