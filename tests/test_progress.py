"""The bar of a map: it moves, it ends at all of all, and what stays of it is text that reads right when saved."""

from __future__ import annotations

import ast
import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import ENVIRONMENT, METHODS, Kernel, Output

from nbparallel.output.inner import InnerBars

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel whose tasks can wait for files; in it, `folder` is a `pathlib.Path` of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder=folder) as kernel:
        kernel.run(f"""
            import itertools, os, sys, time
            from pathlib import Path
            import nbparallel
            from nbparallel.progress import bars, watch
            from nbparallel import last_run, pmap

            nbparallel.configure(workers=2)
            folder = Path({str(folder)!r})

            def waits(x):
                while not (folder / f"go {{x}}").exists():
                    time.sleep(0.002)
                return x

            inverse = lambda x: 1 / x
        """)
        yield kernel
        kernel.run("nbparallel.backends.shutdown()")


@pytest.fixture
def kernel(notebook: Kernel) -> Iterator[Kernel]:
    """The kernel, with no file in its folder."""
    yield notebook
    for path in notebook.folder.iterdir():
        path.unlink()


def go(kernel: Kernel, *tasks: int) -> None:
    for task in tasks:
        (kernel.folder / f"go {task}").touch()


def bar_texts(output: Output) -> list[str]:
    """Return the texts that a cell's bars took on, in order, from widgets and from outputs."""
    texts = []
    for message in output.messages:
        data = message["content"].get("data", {})
        if "comm" in message["msg_type"]:
            texts.append(data.get("state", {}).get("value"))
        else:
            texts.append(data.get("text/plain"))
    lines = [html.unescape(re.sub("<.*?>", "", text)) for text in texts if isinstance(text, str)]
    return [line for text in lines for line in text.splitlines() if "[" in line]


def lanes(output: Output) -> list[list[str]]:
    """Return the lines below a cell's widget, without the numbers of processes, each time it moved."""
    found = []
    for message in output.messages:
        value = message["content"].get("data", {}).get("state", {}).get("value")
        if "comm" in message["msg_type"] and value:
            below = re.search("<div>([^<>]*(<br>[^<>]*)*)</div></div>$", value)
            assert below, value
            found.append([re.sub(r"pid \d+", "pid", line) for line in below[1].split("<br>")])
    return found


def kept(output: Output) -> list[str]:
    """Return what a saved notebook would hold of a cell's bars: the texts of its outputs, after all updates."""
    outputs: dict[object, dict[str, str]] = {}
    for number, message in enumerate(output.messages):
        content = message["content"]
        if content.get("metadata") == {"nbparallel": "progress"}:
            outputs[content["transient"].get("display_id", number)] = content["data"]
    assert all(set(data) == {"text/plain"} for data in outputs.values())
    return [data["text/plain"] for data in outputs.values()]


def without_time(summary: str) -> str:
    found = re.fullmatch(r"(.*) in [\d.]+ (µs|ms|s|min)", summary)
    assert found, summary
    return found[1]


@pytest.mark.parametrize("inputs", ["range(20)", "iter(range(20))"])
@pytest.mark.parametrize("chunksize", ["'auto'", "1", "7"])
def test_a_bar_ends_at_all_of_all_and_leaves_two_lines(kernel: Kernel, inputs: str, chunksize: str) -> None:
    output = kernel.run(f"x = pmap(abs, {inputs}, progress=True, label='twenty', chunksize={chunksize})")
    assert VIEW in output.displays[0]
    assert re.search(r"100% 20/20 \[00:0\d<00:00, +[\d.]+k?task/s\]", bar_texts(output)[-1])
    headline, summary = kept(output)
    assert headline == ("twenty: 20 tasks on 2 workers" if inputs == "range(20)" else "twenty: tasks on 2 workers")
    assert without_time(summary) == "20 ok"
    assert output.stdout == output.stderr == ""


def test_a_bar_moves_with_its_tasks(kernel: Kernel) -> None:
    cell = kernel.send("x = pmap(waits, range(4), chunksize=1, progress=True)")
    for done in range(4):
        assert kernel.receive(lambda: any(f" {done}/4 " in text for text in bar_texts(kernel.shown_by(cell))))  # noqa: B023
        go(kernel, done)
    assert " 4/4 " in bar_texts(kernel.wait(cell))[-1]


def test_each_worker_has_a_lane_and_many_have_one_together(kernel: Kernel) -> None:
    kernel.run("usual, bars.LONG_SECONDS = bars.LONG_SECONDS, 0")
    at = r"at task {} for [\d.]+ (µs|ms|s)"
    for limit, begun, later in (
        (
            8,
            [f"pid: 0 done, {at.format(x)}" for x in (0, 1)],
            [f"pid: 0 done, {at.format(0)}", f"pid: 1 done, {at.format(2)}"],
        ),
        (1, ["2 workers at work, " + at.format("[01]")], ["2 workers at work, " + at.format(0)]),
    ):
        kernel.run(f"bars.LANES = {limit}")
        cell = kernel.send("x = pmap(waits, range(3), chunksize=1, progress=True)")

        def shown(expected: list[str], cell: str = cell) -> bool:
            found = map(sorted, lanes(kernel.shown_by(cell)))
            return any(len(each) == len(expected) and all(map(re.fullmatch, expected, each)) for each in found)

        assert kernel.receive(lambda: shown(begun))  # noqa: B023
        go(kernel, 1)
        assert kernel.receive(lambda: shown(later))  # noqa: B023
        go(kernel, 0, 2)
        assert "pid" not in "".join(kept(kernel.wait(cell)))
        for x in range(3):
            (kernel.folder / f"go {x}").unlink()
    kernel.run("bars.LANES, bars.LONG_SECONDS = 8, usual")


def test_an_unknown_total_counts_up(kernel: Kernel) -> None:
    kernel.run("""
        def slowly():
            while not (folder / "enough").exists():
                time.sleep(0.005)
                yield -1
    """)
    cell = kernel.send("x = pmap(abs, slowly(), progress=True, chunksize=1)")
    # The bar moves also while the input is read without a pause.
    counting = re.compile(r"[1-9]\d* tasks \[00:\d\d, ")
    assert kernel.receive(lambda: any(counting.search(text) for text in bar_texts(kernel.shown_by(cell))))
    (kernel.folder / "enough").touch()
    headline, summary = kept(kernel.wait(cell))
    assert headline == "abs: tasks on 2 workers"
    assert without_time(summary) == kernel.run("print(last_run().total, 'ok')").stdout.strip()


def test_failures_are_counted(kernel: Kernel) -> None:
    output = kernel.run("x = pmap(inverse, [0, 1, 0], progress=True, on_error='return', label='three')")
    assert re.search(r"3/3 \[.*, 2 failed\]", bar_texts(output)[-1])
    headline, summary = kept(output)
    assert (headline, without_time(summary)) == ("three: 3 tasks on 2 workers", "1 ok, 2 failed")


def test_an_error_ends_the_bar_where_the_run_ended(kernel: Kernel) -> None:
    kernel.run("fails_first = lambda x: waits(1) if x else 1 / x")
    cell = kernel.send("pmap(fails_first, range(100), chunksize=1, progress=True)")
    assert kernel.receive(lambda: any("1 failed" in text for text in bar_texts(kernel.shown_by(cell))))
    go(kernel, 1)  # what runs meanwhile is settled, what has not begun is left out
    output = kernel.wait(cell, fails=True)
    completed, failed = map(int, kernel.run("print(last_run().completed, len(last_run().failures))").stdout.split())
    assert f" {completed}/100 [" in bar_texts(output)[-1]
    assert f"{failed} failed]" in bar_texts(output)[-1]
    assert without_time(kept(output)[1]) == f"{completed - failed} ok, {failed} failed, {100 - completed} not run"
    kinds = [message["msg_type"] for message in output.messages]
    assert kinds.index("error") > max(number for number, kind in enumerate(kinds) if kind == "display_data")


def test_an_interrupt_ends_the_bar_where_the_run_ended(kernel: Kernel) -> None:
    cell = kernel.send("x = pmap(waits, range(6), chunksize=1, progress=True)")
    go(kernel, 0)
    assert kernel.receive(lambda: any(" 1/6 " in text for text in bar_texts(kernel.shown_by(cell))))
    kernel.interrupt()
    output = kernel.wait(cell, fails=True)
    assert " 1/6 " in bar_texts(output)[-1]
    headline, summary = kept(output)
    assert (headline, without_time(summary)) == ("waits: 6 tasks on 2 workers", "1 ok, 5 not run")


def test_the_rate_is_of_what_was_computed_now(kernel: Kernel) -> None:
    kernel.run("""
        def later(x):
            if x == 50:
                time.sleep(0.3 / (folder / "go 0").exists())
    """)
    kernel.run("x = pmap(later, range(51), progress=True, on_error='return')")
    go(kernel, 0)
    output = kernel.run("x = last_run().resume()")
    found = re.search(r"51/51 .* ([\d.]+)(task/s|s/task)\]", bar_texts(output)[-1])
    assert found
    assert found[2] == "s/task" or float(found[1]) < 1 / 0.3
    assert without_time(kept(output)[1]) == "51 ok (50 from before)"


def test_what_can_not_travel_shows_no_bar(kernel: Kernel) -> None:
    output = kernel.run("pmap(lambda x: get_ipython(), [1], progress=True)", fails=True)
    assert output.displays == []
    assert bar_texts(output) == []


@pytest.mark.parametrize(("quiet", "lines"), [(1000, 0), (0, 2)])
def test_only_a_long_run_has_a_bar(kernel: Kernel, quiet: int, lines: int) -> None:
    kernel.run(f"usual, watch.QUIET_SECONDS = watch.QUIET_SECONDS, {quiet}")
    # With no quiet time the bar is there before the tasks can end; the other run ends long before its time.
    cell = kernel.send("x = pmap(waits, [1])")
    assert kernel.receive(lambda: len(kernel.shown_by(cell).displays) == bool(lines))
    go(kernel, 1)
    assert len(kept(kernel.wait(cell))) == lines
    assert kernel.run("x = pmap(waits, [1], progress=False)").displays == []
    kernel.run("watch.QUIET_SECONDS = usual; print(usual)")


def test_a_bar_moves_ten_times_a_second_at_most(kernel: Kernel) -> None:
    output = kernel.run("x = pmap(lambda x: time.sleep(0.0005), range(2000), chunksize=1, progress=True)")
    moves = len(bar_texts(output))
    seconds = float(kernel.run("print(last_run().seconds)").stdout)
    assert 3 <= moves <= 10 * seconds + 2  # its beginning and its end are no moves


def test_a_serial_run_has_a_bar_and_nested_runs_have_none(kernel: Kernel) -> None:
    kernel.run("usual, watch.QUIET_SECONDS = watch.QUIET_SECONDS, 0")
    kernel.run("nested = lambda x: sum(pmap(waits, [x, x], label='inner'))")
    for backend in ("serial", "threads"):
        cell = kernel.send(f"pmap(nested, range(3), chunksize=1, label='outer', backend={backend!r})")
        go(kernel, 0, 1, 2)
        output = kernel.wait(cell)
        assert output.result == "[0, 2, 4]"
        assert bar_texts(output)
        assert [text.split(":")[0] for text in kept(output)[:-1]] == ["outer"]
    kernel.run("watch.QUIET_SECONDS = usual")


def test_a_bar_leaves_no_widget(kernel: Kernel) -> None:
    kernel.run("pmap(abs, range(5), progress=True)")
    count = "import comm; print(len(comm.get_comm_manager().comms))"
    before = kernel.run(count).stdout
    kernel.run("pmap(abs, range(5), progress=True); pmap(abs, range(5), progress=True)")
    assert kernel.run(count).stdout == before


def test_without_widgets_the_bar_is_text(kernel: Kernel) -> None:
    kernel.run("widgets = sys.modules.get('ipywidgets'); sys.modules['ipywidgets'] = None")
    cell = kernel.send("x = pmap(waits, range(2), chunksize=1, progress=True)")
    for done in range(2):
        assert kernel.receive(lambda: any(f" {done}/2 " in text for text in bar_texts(kernel.shown_by(cell))))  # noqa: B023
        go(kernel, done)
    output = kernel.wait(cell)
    assert not any("comm" in message["msg_type"] for message in output.messages)
    assert [list(data) for data in output.displays] == [["text/plain"]] * 2
    assert bar_texts(output)[-1].startswith("100%|")
    headline, summary = kept(output)
    assert (headline, without_time(summary)) == ("waits: 2 tasks on 2 workers", "2 ok")
    kernel.run("sys.modules['ipywidgets'] = widgets")


# ---- bars within tasks ----


@pytest.fixture(scope="module")
def trains(notebook: Kernel) -> None:
    """In the kernel, `trains`: two bars of a task that move once, close, and the task goes on."""
    notebook.run("""
        import tqdm as all_of_tqdm
        from tqdm.auto import trange
        from tqdm.notebook import tqdm as widgets

        def waits_with(bars, name):
            while not (folder / name).exists():
                for bar in bars:
                    bar.refresh()
                time.sleep(0.002)

        def trains(x):
            with widgets(total=3, desc="train &more;", display=True) as outer:
                for _ in trange(2, desc="first", leave=True):
                    pass
                with all_of_tqdm.tqdm(total=2, unit="step", colour="red") as inner:
                    waits_with([outer, inner], "begun")
                    outer.update(2)
                    inner.update(1)
                    waits_with([outer, inner], "moved")
            waits(x)
            outer.refresh()
            left = trange(5, desc="left open")
            left.refresh()
            return left if x == 9 else x
    """)


def inner_bars(output: Output) -> list[list[str]]:
    """Return the lines of tasks' bars each time that a cell's bar moved, without what tqdm counts in them."""
    found = []
    for message in output.messages:
        data = message["content"].get("data", {})
        value = data.get("state", {}).get("value") if "comm" in message["msg_type"] else data.get("text/plain")
        if isinstance(value, str) and "[00:" in value:
            lines = [html.unescape(re.sub("<.*?>", "", line)) for line in re.split("<br>|</div>|\n", value)]
            found.append([re.sub(r"\|.*\|| \[\d.*", "", line) for line in lines if "[task" in line])
    return found


@pytest.mark.parametrize("method", ["usual", "fork"])
@pytest.mark.parametrize("widgets", [True, False])
@pytest.mark.usefixtures("trains")
def test_bars_within_tasks_stand_below_the_bar_until_they_are_closed(
    kernel: Kernel, method: str, widgets: bool
) -> None:
    if method == "fork":
        if method not in METHODS:
            pytest.skip("no fork")
        kernel.run("usual = nbparallel.config.settings().start_method; nbparallel.configure(start_method='fork')")
    if not widgets:
        kernel.run("ipywidgets = sys.modules.get('ipywidgets'); sys.modules['ipywidgets'] = None")
    cell = kernel.send("x = pmap(trains, range(2), chunksize=1, progress=True)")

    def newest() -> list[str]:
        return [[], *inner_bars(kernel.shown_by(cell))][-1]

    both = "train &more; [task {0}]:  {1}%{2}/3", "[task {0}]:  {3}%{4}/2"
    for name, counts in (("begun", ("  0", " 0", " 0", " 0")), ("moved", (" 67", " 2", " 50", " 1"))):
        expected = [line.format(x, *counts) for x in (0, 1) for line in both]
        assert kernel.receive(lambda: normal(newest()) == normal(expected)), newest()  # noqa: B023
        (kernel.folder / name).touch()
    assert kernel.receive(lambda: newest() == []), newest()
    go(kernel, 0, 1)
    output = kernel.wait(cell)
    assert inner_bars(output)[-1] == []
    assert len(kept(output)) == 2
    assert "[task" not in "".join(kept(output))
    assert output.stdout == output.stderr == ""
    if method == "fork":
        kernel.run("nbparallel.configure(start_method=usual)")
    if not widgets:
        kernel.run("sys.modules['ipywidgets'] = ipywidgets")


def normal(lines: list[str]) -> list[str]:
    return [re.sub(" +", " ", line) for line in lines]


def test_a_bar_that_is_left_open_ends_with_its_task(kernel: Kernel) -> None:
    kernel.run("""
        from tqdm import tqdm

        def leaves(x):
            bar = tqdm(total=7, desc="mine")
            waits(x)
            keeps.append(bar)
            assert x
        keeps = []
    """)
    cell = kernel.send("x = pmap(leaves, range(2), chunksize=1, progress=True, on_error='return')")

    def tasks() -> list[str]:
        return re.findall(r"mine \[task (\d)\]", "".join([[], *inner_bars(kernel.shown_by(cell))][-1]))

    assert kernel.receive(lambda: tasks() == ["0", "1"])
    go(kernel, 0)
    assert kernel.receive(lambda: tasks() == ["1"])
    go(kernel, 1)
    assert kernel.wait(cell).stderr == ""


def test_without_a_bar_those_of_tasks_are_silent_and_their_files_are_their_own(kernel: Kernel) -> None:
    output = kernel.run("""
        import io
        from tqdm import tqdm, trange

        def speaks(x):
            own = io.StringIO()
            for _ in tqdm(range(3), file=own, leave=False):
                pass
            for _ in trange(2):
                tqdm.write(f"written by {x}")
            for _ in tqdm(range(2), file=sys.stdout):
                pass
            return "0/3" in own.getvalue()

        with nbparallel.Executor(1) as executor:
            print(executor.submit(speaks, 1).result(), pmap(speaks, [2, 3], progress=False))
    """)
    told = sorted(output.stdout.splitlines())
    assert told[-6:] == [f"written by {x}" for x in (1, 1, 2, 2, 3, 3)]
    assert len(told) == 7
    assert output.stderr == ""
    assert output.displays == []


def test_a_task_sends_ten_lines_a_second_of_a_bar_and_few_of_short_ones(kernel: Kernel) -> None:
    kernel.run("""
        def counts(bars):
            from nbparallel.engine import relay
            from tqdm import tqdm

            sent, usual, began = [], relay.show_bar, time.monotonic()
            relay.show_bar = lambda *line: sent.append(line)
            try:
                for _ in range(bars):
                    with tqdm(total=3, mininterval=0) as bar:
                        while bars == 1 and time.monotonic() < began + 0.5:
                            bar.update(0)
                            bar.refresh()
            finally:
                relay.show_bar = usual
            return len(sent), time.monotonic() - began, sent[-1][2]
    """)
    for bars, rate, at_once in ((1, 10, 4), (500, 20, 20)):
        sent, seconds, last = ast.literal_eval(kernel.run(f"pmap(counts, [{bars}])[0]").result or "")
        assert 2 <= sent <= rate * seconds + at_once
        assert last == ""


def test_bars_of_threads_are_the_notebooks_own(kernel: Kernel) -> None:
    kernel.run("from tqdm import tqdm")
    output = kernel.run("x = pmap(lambda x: list(tqdm(range(x))), [3], backend='threads', progress=True)")
    assert "3/3" in output.stderr
    assert len(kept(output)) == 2


@pytest.mark.parametrize("outer", ["tqdm.std", "tqdm.notebook"])
def test_maps_within_a_loop_that_has_a_bar_leave_one_line(kernel: Kernel, outer: str) -> None:
    source = f"""
        from {outer} import tqdm
        for number in tqdm(range(3)):
            for again in tqdm(range(2), leave=False):
                x = pmap(abs, range(number + 1), progress=True, label=f"map {{number}}")
    """
    output = kernel.run(source)
    (line,) = kept(output)
    head, tail = line.split(": ", 2)[0], line.split(": ", 2)[2]
    assert (head, without_time(tail)) == ("map 2", "3 ok")
    # What is above the line is cleared, and painted again below.
    shown = [message["content"].get("text") for message in output.messages if message["msg_type"] == "stream"]
    first = next(n for n, message in enumerate(output.messages) if message["content"].get("metadata"))
    above = "".join(message["content"].get("text", "") for message in output.messages[:first])
    assert seen_in_a_terminal(above.replace("\x1b[A", ""))[-1].strip() == ""
    assert ("3/3" in "".join(map(str, shown))) == (outer == "tqdm.std")


def test_an_abandoned_bar_takes_no_map_to_its_own_cell(kernel: Kernel) -> None:
    first = kernel.run("from tqdm import tqdm; abandoned = tqdm(total=3); x = pmap(abs, [1], progress=True)")
    second = kernel.run("x = pmap(abs, [1], progress=True)")
    assert len(kept(first)) == len(kept(second)) == 1
    kernel.run("abandoned.close()")
    assert len(kept(kernel.run("x = pmap(abs, [1], progress=True)"))) == 2


def test_of_many_bars_the_first_tasks_are_shown() -> None:
    bars = InnerBars()
    for index, place in ((3, 0), (1, 1), (12, 0), (1, 0)):
        bars.put(index, f"{place}:{index}.{place}")
    assert bars.lines(4) == ["1.0", "1.1", "3.0", "12.0"]
    assert bars.lines(3) == ["1.0", "1.1", "3.0", "and 1 more bar of tasks"]
    assert bars.lines(2) == ["1.0", "1.1", "and 2 more bars of tasks"]
    bars.put(1, "0:")
    bars.settled(3, 10)
    assert bars.lines(4) == ["1.1"]


# ---- terminals ----


def test_a_script_has_a_bar_of_text_where_it_asks_for_one() -> None:
    source = "from nbparallel import pmap; pmap(abs, range(20), workers=2, label='twenty'{})"
    done = [
        subprocess.run(
            [sys.executable, "-c", source.format(asks)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        for asks in (", progress=True", "")
    ]
    last = done[0].stderr.splitlines()[-1]
    assert last.startswith("twenty: 100%")
    assert "20/20" in last
    assert done[0].stdout == done[1].stdout == done[1].stderr == ""


def seen_in_a_terminal(text: str) -> list[str]:
    """Return the lines that a terminal would show: a carriage return goes back, what follows overwrites."""
    lines = [""]
    for part in re.split("(\r|\n)", text):
        if part == "\n":
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        elif part:
            column = len(lines[-1]) if lines[-1] == "" else column
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_in_a_terminal_prints_stand_above_the_bar() -> None:
    source = """
import sys, time
from nbparallel import pmap

def speaks(x):
    time.sleep(0.02)
    print("said by", x, end="\\n" if x < 11 else "", file=sys.stderr if x % 3 else sys.stdout)

pmap(speaks, range(12), chunksize=1, workers=1, progress=True, label="twelve")
"""
    lines = [line for line in seen_in_a_terminal(run_in_a_terminal(source)) if line]
    assert sorted(lines[:-1]) == sorted(f"said by {x}" for x in range(12))
    assert lines[-1].startswith("twelve: 100%")
    assert "12/12" in lines[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_in_a_terminal_a_line_that_was_begun_stays_above_the_bar(tmp_path: Path) -> None:
    source = f"""
import time
from pathlib import Path
from nbparallel import pmap
from nbparallel.progress import bars

shown = Path({str(tmp_path)!r}) / "shown"
move = bars.TerminalBar.move

def move_and_note(bar):
    move(bar)
    shown.touch()

def speaks(x):
    while x and not shown.exists():
        time.sleep(0.002)
    print("begun by", x, end="")

bars.TerminalBar.move = move_and_note
pmap(speaks, range(2), chunksize=1, workers=1)
"""
    *above, bar = [line for line in seen_in_a_terminal(run_in_a_terminal(source)) if line]
    assert above == ["begun by 0", "begun by 1"]
    assert bar.startswith("speaks: 100%")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_in_a_terminal_maps_in_a_loop_have_one_line_and_tasks_one_below(tmp_path: Path) -> None:
    source = f"""
import time
from pathlib import Path
from tqdm import tqdm
from nbparallel.progress import bars
from nbparallel import pmap

folder = Path({str(tmp_path)!r})
show = bars.TerminalLines.show
number = 0

def show_and_note(bar, lines):
    show(bar, lines)
    if len(lines) == 2:
        (folder / str(number)).touch()

def trains(x, number):
    with tqdm(total=7, desc="train") as bar:
        while not (folder / str(number)).exists():
            time.sleep(0.002)

bars.TerminalLines.show = show_and_note
for number in tqdm(range(3), desc="loop"):
    pmap(trains, range(2), [number] * 2, workers=2, chunksize=1, progress=True, label="inner map")
"""
    screens = screens_of(run_in_a_terminal(source))
    names = {tuple(line.split(":")[0] for line in screen if line) for screen in screens}
    assert ("loop", "inner map", "train [task 0]", "train [task 1]") in names
    assert max(map(len, names)) == 4
    assert ("loop", "inner map") in names
    assert [re.sub(r"\|.*", "", line) for line in screens[-1] if line] == ["loop: 100%"]


def screens_of(text: str) -> list[list[str]]:
    """Return what a terminal would show after each movement of its cursor, where no line is as long as it is wide."""
    lines, row, column = [""], 0, 0
    screens = []
    for part in re.split("(\r|\n|\x1b\\[A)", text):
        if part == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif part == "\x1b[A":
            row -= 1
        elif part == "\r":
            column = 0
        else:
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
            column += len(part)
        screens.append([line.rstrip() for line in lines])
    return screens


def run_in_a_terminal(source: str) -> str:
    """Run a program in a terminal of 30 lines, and return what it wrote there."""
    parent, child = os.openpty()
    try:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
        with subprocess.Popen(
            [sys.executable, "-c", source], env={**ENVIRONMENT, "TERM": "xterm"}, stdout=child, stderr=child
        ) as script:
            os.close(child)
            shown = b""
            while chunk := _read(parent):
                shown += chunk
        assert script.returncode == 0
    finally:
        os.close(parent)
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other side is closed
        return b""
