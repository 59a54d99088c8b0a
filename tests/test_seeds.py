"""The documents that the package was begun for: their code, pasted into a notebook, gives what they say it gives.

`tests/seeds` has the documents' blocks, as they are; three bodies that a document only ran are written after its
output. Here the imports are changed to the package's (and no other line), and numbers that are pure size or waiting
are made smaller (`SMALLER`). Each block that starts processes runs in a real kernel, by each start method. What needs
Ray or asyncio is not here, and the scripts that never end (code7, code9) are shown with ``%%pscript``.
"""

from __future__ import annotations

import ast
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kernels import METHODS, Kernel, Output

FOLDER = Path(__file__).parent / "seeds"
_MARK = re.compile(r"^# %% (.*)\n", re.MULTILINE)
_IMPORTS = (
    (re.compile(r"^import multiprocessing\b", re.MULTILINE), "from nbparallel import multiprocessing"),
    (re.compile(r"^from multiprocessing\b", re.MULTILINE), "from nbparallel.multiprocessing"),
)
#: What is made smaller: in which block, what, and to what.
SMALLER: dict[tuple[str, str], tuple[str, str]] = {
    ("000", "code2"): ("(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)", "(1, 2)"),  # Python 3.11 needs four seconds for the tenth
    ("000", "cell 19"): ("(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)", "(1,)"),
    ("000", "cell 20"): ("(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)", "(1,)"),
    ("000", "code4"): ("sleep(0.5)", "sleep(0.02)"),
    ("000", "code5"): ("sleep(0.5)", "sleep(0.002)"),
    ("001", "start, join"): ("(5, )", "(0.05, )"),
    ("001", "without a lock"): ("range(10):", "range(2):"),  # and as often as it takes to see a wrong balance
    ("001", "with a lock"): ("range(10):", "range(2):"),
    ("002", "steps"): ("10000000", "100000"),
    ("002", "square, in order"): ("0.01 *", "0.0005 *"),
    ("003", "functions"): ("range(10000000)", "range(100)"),
    ("004", "apply_async"): ("sleep(1)", "sleep(0.001)"),
    ("004", "Threading"): ("sleep(0.5)", "sleep(0.01)"),
    ("004", "producers and consumers"): ("sleep(1)", "sleep(0.02)"),
    ("004", "producers and consumers as classes"): ("sleep(1)", "sleep(0.02)"),
    ("004", "Event"): ("sleep(2)", "sleep(0.3)"),
}
#: code1's sum of 10,000,000 steps, and that of 100,000: what takes seconds is done once.
SUM, FEWER, SUM_OF_FEWER = 2499999833333358333330000000, 100_000, sum(i + i**2 + i**3 for i in range(100_000))

pytestmark = pytest.mark.slow


def read(seed: str) -> dict[str, str]:
    _, *parts = _MARK.split((FOLDER / f"{seed}.ipy").read_text(encoding="utf-8"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


SEEDS = {path.stem: read(path.stem) for path in sorted(FOLDER.glob("*.ipy"))}


def block(seed: str, title: str) -> str:
    """Return a block with the package's imports, and smaller."""
    code = SEEDS[seed][title]
    for pattern, ours in _IMPORTS:
        code = pattern.sub(ours, code)
    old, new = SMALLER.get((seed, title), ("", ""))
    assert old in code
    return code.replace(old, new) if old else code


class Notebook(Kernel):
    """A kernel that knows the blocks."""

    method = ""

    def paste(self, seed: str, *titles: str, fails: bool = False) -> Output:
        """Run blocks, and return what the last one shows."""
        for title in titles:
            output = self.run(block(seed, title), fails=fails)
        return output

    def value(self, expression: str) -> object:
        """Return what an expression is in the notebook."""
        return ast.literal_eval(self.run(expression).result or "None")

    def shows(self, output: Output, condition: Callable[[str], object]) -> str:
        """Wait for output that comes after the end of a cell, and return all of it."""
        assert self.receive(lambda: condition(output.stdout)), output.stdout
        return output.stdout


def open_notebook(folder: Path) -> Notebook:
    # The documents are of times when Python wrote numbers of any length: code2's have 236,125 digits.
    return Notebook({"PYTHONINTMAXSTRDIGITS": "0"}, folder)


@pytest.fixture(scope="module", params=METHODS)
def notebook(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook that starts processes by one of the methods; no process outlives it."""
    with open_notebook(tmp_path_factory.mktemp("notebook")) as notebook:
        notebook.method = request.param
        notebook.run(f"import nbparallel; nbparallel.configure(start_method={request.param!r})")
        yield notebook
        below = psutil.Process(notebook.pid).children(recursive=True)
    assert psutil.wait_procs(below, 5)[1] == []


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook for threads, of which some never end: it is killed."""
    with open_notebook(tmp_path_factory.mktemp("threads")) as notebook:
        notebook.run("import time")
        yield notebook
        notebook.kill()
        while notebook.manager.is_alive():
            time.sleep(0.01)


def lines(output: Output) -> list[str]:
    return [line for line in output.stdout.splitlines() if line]


# ---- 000 ----


def test_000_processes_and_a_queue(notebook: Notebook) -> None:
    code, result = block("000", "code1"), SUM
    if notebook.method != METHODS[0]:
        code, result = code.replace("10000000", str(FEWER)), SUM_OF_FEWER
    said = lines(notebook.run(code))
    assert Counter(said[:4]) == {"new process is start": 2, "new process is finished": 2}
    assert said[4:] == [f"{result} {result}", "主进程结束"]


def test_000_threads_and_a_queue(threads: Notebook) -> None:
    said = lines(threads.paste("000", "threads"))
    assert Counter(said[:4]) == {"new thread is start": 2, "new thread is finished": 2}
    assert said[4:6] == [f"{SUM} {SUM}", "主线程结束"]
    assert said[6].startswith("cost time: ")


@pytest.mark.parametrize("title", ["code2", "cell 19", "cell 20"])
def test_000_a_pool(notebook: Notebook, title: str) -> None:
    said = lines(notebook.paste("000", title))
    assert said[::2] == ["-- job(1)的结果是：", "-- job(1-10)的结果是："]  # noqa: RUF001 - a colon of the seed's script
    assert said[1::2] == ["236125", "[236125, 294538]" if title == "code2" else "[236125]"]


def test_000_a_closed_pool(notebook: Notebook) -> None:
    output = notebook.paste("000", "code3", fails=True)
    assert output.error is not None
    assert (output.error.name, output.error.value) == ("ValueError", "Pool not running")
    assert "---> 18" in output.error.traceback or "result = pool.apply_async(job, (1,))" in output.error.traceback


def test_000_shared_memory(notebook: Notebook) -> None:
    assert notebook.paste("000", "Value").result == "0.31299999356269836"
    notebook.paste("000", "Array")
    assert notebook.value("array[:]") == [1, 2, 3]


def test_000_without_a_lock(notebook: Notebook) -> None:
    head, *said = lines(notebook.paste("000", "code4"))
    assert head == "--- 演示多进程在争抢共享内存里的变量v"
    assert Counter(line.split(": ")[0] for line in said) == {"process 1": 10, "process 2": 10}
    seen = {line.split(": ")[0]: int(line.split(": ")[1]) for line in said}  # what each has seen last
    assert notebook.value("v.value") in seen.values()


def test_000_with_a_lock(notebook: Notebook) -> None:
    head, *said = lines(notebook.paste("000", "code5"))
    assert head == "--- 演示使用进程锁, 防止多进程争抢共享内存里的变量v"
    steps = {1: range(1, 11), 2: range(100, 1001, 100)}
    orders = [
        [f"process {a}: {number}" for number in steps[a]]
        + [f"process {b}: {steps[a][-1] + number}" for number in steps[b]]
        for a, b in ((1, 2), (2, 1))
    ]
    assert said in orders


def test_000_a_guard(notebook: Notebook) -> None:
    said = lines(notebook.paste("000", "code6"))
    assert said[:2] == [f"if语句之前, pid={notebook.pid}, name=__main__", f"进入if语句, pid={notebook.pid}"]
    assert said[-1] == f"程序结束, pid={notebook.pid}"
    check_five(said[2:-1], notebook)


def check_five(said: list[str], notebook: Notebook) -> None:
    """Five tasks, in any order, in at most three processes, which are not the notebook's."""
    found = [re.fullmatch(r"x=(\d), pid=(\d+)", line) for line in said]
    assert all(found), said
    assert sorted(match[1] for match in found if match) == ["1", "2", "3", "4", "5"]
    pids = {int(match[2]) for match in found if match}
    assert 1 <= len(pids) <= 3
    assert notebook.pid not in pids


def test_000_a_module(notebook: Notebook) -> None:
    (notebook.folder / "code8.py").write_text(block("000", "code8.py"), encoding="utf-8")
    said = lines(notebook.paste("000", "code8"))
    pid = notebook.pid
    assert said[:3] == [f"位置1, pid={pid}", "说明这句没有被分到子进程中", f"位置2, pid={pid}"]
    assert said[-1] == f"位置3, pid={pid}"
    check_five([line for line in said[3:-1] if not line.startswith("位置1")], notebook)  # workers import it, too


# ---- 001 ----


def test_001_start_and_join(notebook: Notebook) -> None:
    (said,) = lines(notebook.paste("001", "start, join"))
    assert re.fullmatch(r"多进程一共耗时0:00:\d+\.\d+秒", said)


def test_001_pid_and_is_alive(notebook: Notebook) -> None:
    said = notebook.paste("001", "pid, is_alive").stdout
    found = dict(re.findall(r"(ID of [a-z0-9 ]+): (\d+)", said))  # the cell's lines and the processes' may be one
    assert found["ID of main process"] == str(notebook.pid)
    for number in (1, 2):
        assert found[f"ID of process p{number}"] == found[f"ID of process running worker{number}"] != str(notebook.pid)
    assert len(found) == 5
    assert said.startswith("ID of main process")
    assert said.endswith("Both processes finished execution!\nProcess p1 is alive: False\nProcess p2 is alive: False\n")


def test_001_array_and_value(notebook: Notebook) -> None:
    assert lines(notebook.paste("001", "Array, Value")) == [
        "Result(in process p1): [1, 4, 9, 16]",
        "Sum of squares(in process p1): 30",
        "Result(in main program): [1, 4, 9, 16]",
        "Sum of squares(in main program): 30",
    ]


def test_001_a_manager(notebook: Notebook) -> None:
    records = [("Sam", 10), ("Adam", 9), ("Kevin", 9), ("Jeff", 8)]
    shown = "".join(f"Name: {name}\nScore: {score}\n\n" for name, score in records)
    assert notebook.paste("001", "Manager").stdout == f"New record added!\n\n{shown}"


def test_001_a_queue(notebook: Notebook) -> None:
    assert lines(notebook.paste("001", "Queue")) == ["Queue elements:", "1", "4", "9", "16", "Queue is now empty!"]


def test_001_a_pipe(notebook: Notebook) -> None:
    said = lines(notebook.paste("001", "Pipe"))
    sent = [line for line in said if line.startswith("Sent")]
    received = [line for line in said if line.startswith("Received")]
    assert sent == [f"Sent the message: {message}" for message in ("hello", "hey", "hru?", "END")]
    assert received == [f"Received the message: {message}" for message in ("hello", "hey", "hru?")]
    assert len(said) == 7


def balances(output: Output) -> list[int]:
    return [int(line.removeprefix("Final balance = ")) for line in lines(output)]


def test_001_a_race(notebook: Notebook) -> None:
    # With 10,000 steps one may be through before the other has started.
    code = block("001", "without a lock").replace("10000", "100000")
    assert any(set(balances(notebook.run(code))) != {100} for _ in range(12))


def test_001_no_race(notebook: Notebook) -> None:
    assert balances(notebook.paste("001", "with a lock")) == [100, 100]


def test_001_a_pool(notebook: Notebook) -> None:
    *said, result = lines(notebook.paste("001", "Pool"))
    found = [re.fullmatch(r"Worker process id for (\d): (\d+)", line) for line in said]
    assert all(found)
    assert sorted(match[1] for match in found if match) == ["1", "2", "3", "4", "5"]
    assert str(notebook.pid) not in {match[2] for match in found if match}
    assert result == "[1, 4, 9, 16, 25]"


# ---- 002 ----


def test_002_a_pool_under_a_bar(notebook: Notebook) -> None:
    notebook.paste("002", "imports", "list", "func, a pool before it")
    for title in ("imap", "map", "serial"):
        assert notebook.paste("002", title).displays  # a bar
    assert notebook.paste("002", "equal").result == "True"
    assert notebook.run("sim_lst1 == sim_lst3 == [[item**2, item**10] for item in org_list]").result == "True"
    said = notebook.paste("002", "power_n", "starmap").stdout
    assert said == f"{[x**2 for x in range(20)]}\n"


def test_002_pi(notebook: Notebook) -> None:
    notebook.paste("002", "steps", "calc_partial_pi", "inputs")
    for title in ("pi by starmap", "pi by apply_async"):
        notebook.paste("002", title)
        assert notebook.value("pi") == pytest.approx(math.pi, rel=1e-9)
        notebook.run("pi = None")


def test_002_processes_and_a_queue(notebook: Notebook) -> None:
    said = notebook.paste("002", "square, in no order").stdout
    assert sorted(ast.literal_eval(said)) == [x * x for x in range(2, 10)]
    assert notebook.paste("002", "square, in order").stdout == "[4, 16, 36, 64, 9, 25, 49, 81]\n"


def test_002_processes_with_bars(notebook: Notebook) -> None:
    notebook.paste("002", "imports", "list", "split")
    assert notebook.value("list(sub_list)") == [
        [0, [3, 4, 5, 6, 5, 4, 3, 2]],
        [1, [1, 3, 4, 4, 3, 2, 4]],
        [2, [6, 2, 1, 32, 4, 55, 3]],
        [3, [2, 1, 4, 6, 78, 8, 5]],
        [4, [6, 0, 9, 8, 6, 3, 5]],
        [5, [6, 7, 7, 8, 8, 4, 2]],
    ]
    for _ in range(5):
        output = notebook.paste("002", "func with three queues", "six processes")
        said = lines(output)
        for word in ("starting", "finishing"):
            assert sorted(line for line in said if line.endswith(word)) == [f"Job {i} {word}" for i in range(6)]
        assert "All task is done!" in said
        assert sorted(last_bars(output)) == ["7/7"] * 5 + ["8/8"]
        assert notebook.run("sorted(result) == sorted(i**2 for i in org_list)").result == "True"
        # Two that finish together may stand in another order in each of the three queues: that is the seed's own.
        if notebook.paste("002", "as computed here").result == "True":
            return
    pytest.fail("never in the order of the list")


def last_bars(output: Output) -> list[str]:
    """Return how far the bars are that a cell's processes have left."""
    shown = [message["content"]["data"] for message in output.messages if "display" in message["msg_type"]]
    return re.findall(r"\d+/\d+", shown[-1]["text/plain"])


# ---- 003 ----


def test_003_a_pool_under_bars(notebook: Notebook) -> None:
    output = notebook.run(block("003", "functions") + block("003", "main"))
    cores, used, cost, *shapes = lines(output)
    count = notebook.value("num_cores")
    assert (cores, used) == (f"本地计算机有 {count} 个 CPU 核心。", f"并行计算将使用 {count} 个 CPU 核心。")
    assert cost.startswith("并行计算耗时: ")
    assert shapes == ["Label shape: (10,)", "Feature shape: (10,)", "maybeother shape: (10,)"]
    assert output.stderr.count("10/10") >= 2  # a bar may be drawn twice at its end
    assert "2/2" in output.stderr
    label = sum(t * t for t in range(100))
    found = "[label.tolist(), feature.tolist(), maybeother.tolist()]"
    assert notebook.value(found) == [[label] * 10, [2] * 10, [7] * 10]
    notebook.paste("003", "the function changed", "main")
    assert notebook.value(found) == [[1] * 10, [2] * 10, [7] * 10]


# ---- 004 ----


def with_method(notebook: Notebook, title: str) -> str:
    """Return a block that sets the start method, with the notebook's: the seed has it from its system."""
    return block("004", title).replace("set_start_method('fork')", f"set_start_method({notebook.method!r})")


def test_004_three_ways(notebook: Notebook) -> None:
    code = with_method(notebook, "three ways").replace("sleep(1)", "sleep(0.01)").replace("500000", "500")
    first, *said = lines(notebook.run(code))
    assert first == f"__main__ {notebook.pid}"
    ways = [f"{kind} , {way}" for kind in ("io_costly", "cpu_costly") for way in ("普通任务", "多线程", "多进程")]
    assert len(said) == 6
    for line, way in zip(said, ways, strict=True):
        assert re.fullmatch(rf"{way} 0:00:\d+\.\d+", line)


def test_004_pools_and_processes(notebook: Notebook) -> None:
    notebook.run("import numpy as np, time")
    notebook.paste("004", "func1", "two pools")
    assert notebook.value("pool.map(func1, range(5))") == [0, 2, 4, 6, 8]
    assert notebook.value("list(pool.imap(func1, range(10)))") == list(range(0, 20, 2))
    assert notebook.value("sorted(pool.imap_unordered(func1, range(10)))") == list(range(0, 20, 2))
    assert int(notebook.paste("004", "cpu_count").result or 0) >= 1
    assert notebook.paste("004", "one process").stdout == f"{notebook.pid}\n"
    assert notebook.value("p.exitcode") == 0
    assert notebook.paste("004", "many processes").stdout == f"Parent process {notebook.pid}.\n"
    assert notebook.value("[each.get() for each in results]") == [0, 2, 4, 6, 8]
    notebook.paste("004", "apply_async")
    assert notebook.run("len(results), all(1 <= each <= 3 for each in results)").result == "(100, True)"


def lists_in(text: str) -> list[str]:
    """Return the lists that were printed: the cell's own print may share its line with that of a process."""
    return re.findall(r"\[.*?\]", text)


def test_004_each_process_has_a_list_of_its_own(notebook: Notebook) -> None:
    output = notebook.paste("004", "a list of processes")
    said = lists_in(notebook.shows(output, lambda text: text.count("]") == 6))
    assert sorted(said) == sorted(["[]", *(f"[{number}]" for number in range(5))])
    notebook.run("for t in ts: t.join()")
    assert notebook.value("lst") == []


def test_004_value_and_array(notebook: Notebook) -> None:
    for _ in range(5):
        output = notebook.run(with_method(notebook, "Value, Array"))
        shown = notebook.shows(output, lambda text: text.count("]") == 4)
        said = [ast.literal_eval(each) for each in lists_in(shown)]
        assert all(len(each) == 5 and set(each) <= {1.0, 2.0, 3.0} for each in said)
        notebook.run("for t in ts: t.join()")
        # Two that add one at once may add one only: there is no lock. That is the seed's own.
        if notebook.value("list(arr1)") == [1.0, 2.0, 2.0, 2.0, 1.0]:
            assert said.count([1.0, 2.0, 2.0, 2.0, 1.0]) >= 1
            return
    pytest.fail("it never adds up")


def test_004_a_manager(notebook: Notebook) -> None:
    notebook.paste("004", "Manager")
    output = notebook.run("""
        def my_func(d, l):
            d["there"] = l.pop()

        p = multiprocessing.Process(target=my_func, args=(d, l))
        p.start()
        p.join()
        print(d, l)
    """)
    assert output.stdout == "{'there': 9} [0, 1, 2, 3, 4, 5, 6, 7, 8]\n"


def test_004_threads(threads: Notebook) -> None:
    output = threads.paste("004", "Threading")
    said = threads.shows(output, lambda text: "1 1\n" in text and "end\n" in text).split()
    assert set("0123456789") <= set(said)
    assert "(my_fun)" in output.stdout
    output = threads.paste("004", "a subclass of Thread")
    threads.shows(output, lambda text: text == "我是线程\n")
    output = threads.paste("004", "Event")
    said = threads.shows(output, lambda text: text.count("\n") == 3).split()
    assert said == ["等人来买包子", "买包子", "卖掉包子"]
    output = threads.paste("004", "a list of threads")
    assert "[0, 1, 2, 3, 4]" in threads.shows(output, lambda text: text.count("]") == 6)
    assert threads.value("lst") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("title", ["producers and consumers", "producers and consumers as classes"])
def test_004_producers_and_consumers(threads: Notebook, title: str) -> None:
    """They never end: they are watched until each has done its work, and their notebook is killed."""
    output = threads.paste("004", title)
    threads.shows(output, lambda text: "生产了一个包子" in text and "消费了一个包子" in text)
