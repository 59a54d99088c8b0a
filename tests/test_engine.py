"""What workers share with the notebook, and what they write, under each start method.

A small `Work` stands in for the front; the tasks are in `engine_tasks`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import engine_tasks as tasks
import pytest
from engine_work import (
    FakeWork,
    alive,
    an_engine,
    begin,
    engine_fixture,  # noqa: F401 - a fixture
    nursery_ends,  # noqa: F401 - a fixture
    run,
    run_script,
    until,
)

from nbparallel.machine import BLAS_VARIABLES, effective_cores

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, descriptors and /proc")


# ---- the main module ----


def test_a_script_without_a_guard_runs_once(start_method, tmp_path):
    effect = tmp_path / "effect"
    out = run_script(
        tmp_path,
        """
        import sys
        with open(sys.argv[2], "a") as file:
            file.write("once\\n")
        import nbparallel
        factor = 3
        def times(x):
            return x * factor
        nbparallel.configure(start_method=sys.argv[1])
        print(nbparallel.pmap(times, range(5), workers=2))
        """,
        start_method,
        str(effect),
    )
    assert out == "[0, 3, 6, 9, 12]\n"
    assert effect.read_text() == "once\n"


def test_a_workers_main_module_is_empty(engine):
    def main_names(_):
        return sorted(set(vars(sys.modules["__main__"])) - {"__annotations__"})

    if engine.start_method == "fork":
        pytest.skip("a fork has the modules that its parent has")
    (names,) = run(engine, main_names, [0]).results()
    assert [name for name in names if not name.startswith("__")] == []


# ---- what workers share with the notebook ----


def test_workers_mirror_the_notebooks_process(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("NBPARALLEL_TEST", "Füße")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (seen,) = run(engine, tasks.surroundings, [["NBPARALLEL_TEST", "HOME"]]).results()
    expected = tasks.surroundings(["NBPARALLEL_TEST", "HOME"])
    assert seen == {**expected, "pid": seen["pid"]}
    assert seen["pid"] != os.getpid()


def test_warm_workers_follow_changes(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("NBPARALLEL_GONE", "1")
    (before,) = run(engine, tasks.surroundings, [["NBPARALLEL_GONE", "NBPARALLEL_NEW"]]).results()
    assert before["variables"] == {"NBPARALLEL_GONE": "1", "NBPARALLEL_NEW": None}
    monkeypatch.delenv("NBPARALLEL_GONE")
    monkeypatch.setenv("NBPARALLEL_NEW", "2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, "/somewhere/else"])
    limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    try:
        sys.setrecursionlimit(12_345)
        sys.set_int_max_str_digits(9_876)
        (after,) = run(engine, tasks.surroundings, [["NBPARALLEL_GONE", "NBPARALLEL_NEW"]]).results()
    finally:
        sys.setrecursionlimit(limits[0])
        sys.set_int_max_str_digits(limits[1])
    assert after == {
        "pid": before["pid"],
        "variables": {"NBPARALLEL_GONE": None, "NBPARALLEL_NEW": "2"},
        "folder": str(tmp_path),
        "path": [*before["path"], "/somewhere/else"],
        "recursion_limit": 12_345,
        "max_str_digits": 9_876,
    }
    (again,) = run(engine, tasks.surroundings, [[]]).results()
    assert (again["recursion_limit"], again["max_str_digits"]) == limits


def test_a_folder_that_is_gone_is_no_obstacle(engine, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run(engine, tasks.square, [3]).results() == [9]


def test_numeric_libraries_share_the_cores(start_method):
    pytest.importorskip("numpy")
    before = {name: os.environ.get(name) for name in BLAS_VARIABLES}
    workers = max(2, effective_cores())
    with an_engine(start_method, workers) as engine:
        (pools,) = run(engine, tasks.blas, [0]).results()
    assert len(pools) > 1, "no numeric library was found"
    if start_method == "fork":  # its libraries were loaded, and sized, by this process
        pools = pools[:1]
    assert all(workers * threads <= max(workers, effective_cores()) for _, threads in pools), pools
    assert {name: os.environ.get(name) for name in BLAS_VARIABLES} == before


# ---- output ----


def test_all_that_a_task_writes_arrives_by_its_stream(engine):
    work = run(engine, tasks.write_everywhere, range(3))
    assert work.results() == [None] * 3
    wanted = ["print", "write", "subprocess", "printf", "buffer"]
    assert sorted(work.lines(1)) == sorted(f"{kind} {index}" for kind in wanted for index in range(3))
    wanted = ["print to stderr", "write to stderr", "subprocess to stderr"]
    assert sorted(work.lines(2)) == sorted(f"{kind} {index}" for kind in wanted for index in range(3))


def test_output_arrives_before_the_end(engine):
    seen = {}

    class Watching(FakeWork):
        def settle(self, first, values, failures, seconds):
            seen[first] = {stream: "".join(parts) for stream, parts in self.output.items()}
            super().settle(first, values, failures, seconds)

    work = Watching(tasks.write_everywhere, [7], width=1)
    engine.submit(work)
    engine.offer(work, 1, last=True)
    work.wait()
    assert "printf 7" in seen[0][1]
    assert "subprocess to stderr 7" in seen[0][2]


def test_what_was_printed_right_before_the_end_arrives(engine):
    work = run(engine, tasks.write_and_die, [4])
    assert work.failures[0].crashed
    assert sorted(work.lines(1)) == ["print 4", "printf 4", "write 4"]
    assert work.lines(2) == ["print to stderr 4"]


def test_a_last_line_without_its_end_arrives(engine):
    work = run(engine, tasks.write_without_a_newline, range(4), chunksize=2)
    assert sorted("".join(work.output[1])) == sorted("[0][1][2][3]")
    assert sorted("".join(work.output[2])) == sorted("<0><1><2><3>")
    assert work.results() == [None] * 4


def test_prints_arrive_live(engine, tmp_path):
    written, go_on = str(tmp_path / "written"), str(tmp_path / "go_on")
    work = begin(engine, tasks.write_and_say, [(written, go_on)])
    until(lambda: work.output[1], "the line is there while its task runs")
    assert not work.finished.is_set()
    Path(go_on).touch()
    assert work.results() == [None]
    assert work.labels == {0}


def test_much_output_arrives_whole_and_in_order(engine):
    work = run(engine, tasks.write_much, [20_000])
    assert work.lines(1) == [f"line {number}" for number in range(20_000)]


def test_a_signal_handler_may_print_amid_a_print(engine):
    work = run(engine, tasks.write_in_signal_handlers, [3000])
    (handled,) = work.results()
    text = "".join(work.output[1])
    assert text.count("body") >= 3000
    assert text.count("handler") == handled


def test_a_child_that_a_task_forks_may_print(engine):
    work = run(engine, tasks.fork_and_write, range(3))
    assert work.results() == [0, 1, 2]
    text = "".join(work.output[1])
    for index in range(3):
        assert text.count(f"from the child {index}\n") == 1
        assert text.count(f"from the task {index}\n") == 1
    assert text.count("its end") == 3


def test_a_child_that_leaves_its_task_ends_as_a_process_of_its_own(engine):
    ways = {"return": 0, "exit": 9, "exit in words": 1, "raise": 1}
    work = run(engine, tasks.fork_and_leave, [*ways, *ways], chunksize=4)
    assert work.results() == [*ways.values()] * 2
    assert work.lines(1) == ["the child returns"] * 2
    told = "".join(work.output[2])
    assert told.count("words of the child\n") == 2
    assert told.count("ValueError: of the child\n") == 2
    assert told.count("in fork_and_leave") == 2
    assert "nbparallel" not in told.replace("nbparallel/tests", "")
    with an_engine(engine.start_method, initializer=(tasks.fork_and_leave, ("exit",))) as another:
        assert run(another, tasks.square, [3]).results() == [9]


def test_a_program_that_writes_without_end_can_be_stopped(engine, tmp_path):
    path = tmp_path / "program"
    work = begin(engine, tasks.flood, [str(path)])
    until(path.exists, "it writes")
    program = int(path.read_text())
    engine.cancel(work, abort=True)
    work.wait()
    until(lambda: not alive(program), "nobody reads it any more, so it ends")
