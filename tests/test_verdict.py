"""What a comparison's figures mean: the rules of `comparison.verdict`, and how the figures are shown. No clock."""

from __future__ import annotations

import math
import re
import sys
from typing import Any
from xml.etree import ElementTree

import pytest

from nbparallel.comparison.answers import Likeness
from nbparallel.comparison.result import METADATA, Comparison
from nbparallel.comparison.rows import Row
from nbparallel.comparison.verdict import Figures, Machine, judge

TWO = Machine(2, "all cores of the machine")
ONE = Machine(1, "cgroup v2 quota 1.0 in /pod")
FREE = Machine(2, "all cores of the machine", locked=False)


def row(method: str, seconds: float, serial: float, workers: int = 2, **more: Any) -> Row:
    workers = 1 if method == "serial" else workers
    first, times = more.pop("first", seconds), more.pop("times", (seconds,) * 3)
    return Row(method, workers, first, times, serial, **more)


def figures(
    serial: float = 1.0,
    threads: float | None = 1.0,
    processes: float | None = 0.55,
    *,
    tasks: int = 10,
    machine: Machine = TWO,
    workers: int = 2,
    busy: float | None = 1.0,
    pauses: float | None = 0.0,
    cores: tuple[float, float] = (1.0, 1.0),
    seed: bool = False,
    more: dict[str, dict[str, Any]] | None = None,
) -> Figures:
    more = more or {}
    rows = [row("serial", serial, serial, cores=cores[0], **more.get("serial", {}))]
    if threads is not None:
        rows.append(row("threads", threads, serial, workers, cores=cores[1], **more.get("threads", {})))
    if processes is not None:
        rows.append(row("processes", processes, serial, workers, **more.get("processes", {})))
    return Figures(tasks, rows, machine, busy, pauses, seed)


FAILED: dict[str, Any] = {"first": math.nan, "times": (), "error": ValueError("no\nsuch thing")}

VERDICTS: list[tuple[str, Figures, str]] = [
    (
        "computing in Python",
        figures(),
        "CPU-bound: processes, 1.8 × on 2 workers; threads take turns at Python's lock.",
    ),
    (
        "threads that were faster by chance",
        figures(threads=0.7, processes=0.8),
        "CPU-bound: processes, 1.2 × on 2 workers; threads take turns at Python's lock.",
    ),
    (
        "computing outside of the lock",
        figures(threads=0.55, processes=0.53, cores=(1.0, 1.9)),
        "CPU-bound, and free of Python's lock: threads, 1.8 × on 2 workers; nothing has to travel.",
    ),
    (
        "a Python without a lock",
        figures(threads=0.55, machine=FREE, cores=(1.0, 1.9)),
        "CPU-bound, and this Python has no lock: threads, 1.8 × on 2 workers; nothing has to travel.",
    ),
    (
        "waiting",
        figures(threads=0.127, processes=0.13, workers=8, busy=0.03, pauses=1.0),
        "I/O-bound, the tasks wait for 97% of their time: threads, 7.9 × on 8 workers.",
    ),
    (
        "waiting, with a lot to compute",
        figures(threads=0.3, processes=0.13, workers=8, busy=0.4, pauses=1.0, cores=(0.4, 1.0)),
        "I/O-bound, the tasks wait for 60% of their time: processes, 7.7 × on 8 workers.",
    ),
    (
        "waiting on one core",
        figures(threads=0.13, workers=8, busy=0.03, pauses=1.0, machine=ONE),
        "I/O-bound, the tasks wait for 97% of their time: threads, 7.7 × on 8 workers.",
    ),
    (
        "waiting for one another",
        figures(threads=1.0, processes=1.0, busy=0.03, pauses=1.0),
        "I/O-bound, the tasks wait for 97% of their time, but side by side they take as long: they wait for one another"
        " (a lock, one server), or for one that takes most of the time.",
    ),
    (
        "held up by other programs, not waiting",
        figures(busy=0.4, pauses=0.01),
        "CPU-bound: processes, 1.8 × on 2 workers; threads take turns at Python's lock.",
    ),
    (
        "waiting, where the system counts no pauses",
        figures(threads=0.5, busy=0.1, pauses=None),
        "I/O-bound, the tasks wait for 90% of their time: threads, 2.0 × on 2 workers.",
    ),
    (
        "tiny tasks",
        figures(2e-3, 4e-3, 2e-2, tasks=1000, busy=None),
        "Tasks of 2 µs: serial. Handing them out costs what it saves; put more work into each.",
    ),
    (
        "very tiny tasks",
        figures(7e-5, 4e-3, 2e-2, tasks=1000, busy=None),
        "Tasks of 70 ns: serial. Handing them out costs what it saves; put more work into each.",
    ),
    (
        "one core",
        figures(processes=0.8, machine=ONE, workers=1),
        "One effective core here (cgroup v2 quota 1.0 in /pod): no CPU-bound speed-up can appear. What differs between "
        "the methods is their overhead: stay serial.",
    ),
    (
        "one core, and tasks that wait in part",
        figures(threads=0.65, machine=ONE, busy=0.6, pauses=2.0, cores=(0.6, 0.95)),
        "The tasks wait for 40% of their time and compute for the rest: processes, 1.8 × on 2 workers.",
    ),
    (
        "one core, too short to tell why",
        figures(threads=0.25, machine=ONE, busy=None, workers=4),
        "Threads, 4.0 × on 4 workers.",
    ),
    (
        "a fast method that is wrong",
        figures(threads=0.5, cores=(1.0, 1.9), more={"threads": {"likeness": Likeness.DIFFERENT}}),
        "CPU-bound: processes, 1.8 × on 2 workers.",
    ),
    (
        "only wrong ones are fast",
        figures(threads=0.5, processes=1.1, cores=(1.0, 1.9), more={"threads": {"likeness": Likeness.DIFFERENT}}),
        "Stay serial: threads, 2.0 × as fast, gave other answers. Mend that first.",
    ),
    (
        "all differ, as the loop does from itself",
        figures(more={key: {"likeness": Likeness.DIFFERENT} for key in ("serial", "threads", "processes")}),
        "CPU-bound: processes, 1.8 × on 2 workers; threads take turns at Python's lock.",
    ),
    ("one task", figures(processes=1.0, tasks=1), "One task keeps one worker busy: stay serial, or cut the work into "),
    ("one worker", figures(processes=1.0, workers=1), "One worker is no faster than the loop: stay serial, or compare"),
    (
        "tasks with threads of their own",
        figures(processes=1.0, cores=(1.9, 1.9)),
        "The tasks keep 1.9 cores busy by themselves (BLAS, OpenMP): stay serial.",
    ),
    ("no gain", figures(processes=0.9), "Nothing was 15% faster than the loop: stay serial. One long task, heavy"),
    ("too short to tell why", figures(busy=None), "Processes, 1.8 × on 2 workers."),
    ("only the loop", figures(threads=None, processes=None), "Only the serial loop was measured: 100 ms a task."),
    (
        "all failed",
        figures(threads=math.nan, processes=math.nan, more={"threads": FAILED, "processes": FAILED}),
        "Nothing but the serial loop got to its end.",
    ),
]


@pytest.mark.parametrize(("given", "said"), [each[1:] for each in VERDICTS], ids=[each[0] for each in VERDICTS])
def test_the_verdict_says_what_to_use_and_why(given: Figures, said: str) -> None:
    verdict, _ = judge(given)
    assert verdict.startswith(said)


REMARKS: list[tuple[str, Figures, list[str]]] = [
    ("nothing", figures(), []),
    (
        "a failure, in one line",
        figures(processes=math.nan, more={"processes": FAILED}),
        ["processes failed: ValueError: no such thing"],
    ),
    (
        "threads that disagree",
        figures(more={"threads": {"likeness": Likeness.DIFFERENT, "told": "item 3: 5 instead of 4"}}),
        [
            "threads: answers differ (item 3: 5 instead of 4): look at what the tasks share and change; threads need a "
            "lock there."
        ],
    ),
    (
        "threads that disagree with a seed",
        figures(seed=True, more={"threads": {"likeness": Likeness.DIFFERENT, "told": "item 3"}}),
        [
            "threads: answers differ (item 3): look at what the tasks share and change; threads need a lock there. A "
            "seed reaches threads by nbparallel.rng() only."
        ],
    ),
    (
        "processes that disagree",
        figures(more={"processes": {"likeness": Likeness.DIFFERENT, "told": "item 3"}}),
        [
            "processes: answers differ (item 3): look at what the tasks share and change: each process has its own copy"
            " of it."
        ],
    ),
    (
        "all disagree with themselves",
        figures(
            more={
                name: {"likeness": Likeness.DIFFERENT, "told": "item 0"} for name in ("serial", "threads", "processes")
            }
        ),
        [
            "Answers differ from run to run, serially too (item 0): random numbers without a seed (seed=1), the time, "
            "or something that the function changes, such as a global or its input."
        ],
    ),
    (
        "close and not known",
        figures(
            more={
                "threads": {"likeness": Likeness.CLOSE, "told": "item 0"},
                "processes": {"likeness": Likeness.UNKNOWN, "told": "item 1: two X can't be compared"},
            }
        ),
        [
            "threads: floats differ by less than a billionth (item 0): sums in another order.",
            "processes: not all answers could be compared: item 1: two X can't be compared.",
        ],
    ),
    (
        "a start that costs more than it saves at first",
        figures(0.1, 0.1, 0.05, more={"processes": {"first": 0.26}}),
        [
            "The first run on processes took 260 ms: its workers start, the function and its imports travel. It pays "
            "from run 5 on, or with more work."
        ],
    ),
    (
        "a function that remembers",
        figures(more={"serial": {"first": 30.0}}),
        [
            "Serially the first run took 30.0 s, the others 1.0 s: the function imports something at first, or "
            "remembers its results. Then the first runs tell more."
        ],
    ),
    (
        "more workers than cores",
        figures(workers=8),
        ["Efficiency is the speed-up per worker: 8 workers on 2 cores can't get above 25% where tasks compute."],
    ),
    ("more workers than cores that wait", figures(threads=0.13, workers=8, busy=0.1, pauses=1.0), []),
    (
        "two workers on one core",
        figures(machine=ONE),
        ["Efficiency is the speed-up per worker: 2 workers on one core can't get above 50% where tasks compute."],
    ),
    (
        "other programs",
        figures(busy=0.4, pauses=0.0),
        ["The loop had a core for 40% of its time: other programs use the cores too."],
    ),
    (
        "uneven runs",
        figures(more={"processes": {"times": (0.5, 0.55, 1.6)}}),
        ["The runs of processes differ by a factor of 3.2: other programs may use the cores too."],
    ),
]


@pytest.mark.parametrize(("given", "said"), [each[1:] for each in REMARKS], ids=[each[0] for each in REMARKS])
def test_what_else_is_to_be_known_is_remarked(given: Figures, said: list[str]) -> None:
    _, remarks = judge(given)
    assert remarks == said


def test_the_run_from_which_it_pays_is_the_first_that_ends_sooner() -> None:
    for first in (0.11, 0.15, 0.2, 0.26, 1.0):
        given = figures(0.1, 0.1, 0.05, more={"processes": {"first": first}})
        told = re.search(r"from run (\d+) on", judge(given)[1][0])
        assert told
        runs = int(told[1])
        assert first + (runs - 1) * 0.05 < runs * 0.1 + 1e-9
        assert first + (runs - 2) * 0.05 >= (runs - 1) * 0.1 - 1e-9


# ---- how it is shown ----------------------------------------------------------------------------------------------


@pytest.fixture
def shown() -> Comparison:
    more: dict[str, Any] = {"processes": {**FAILED, "error": ValueError("<b>no</b>")}, "serial": {"first": 1.25}}
    return Comparison("f(x) < 3", [1, 2], figures(1.2, 0.6, math.nan, cores=(1.0, 1.9), more=more))


def test_as_text_its_columns_are_aligned(shown: Comparison) -> None:
    assert repr(shown) == str(shown)
    assert str(shown).splitlines() == [
        "f(x) < 3: 10 tasks on 2 cores, a first run and 3 runs after it",
        "method     workers  first run  median  speed-up  efficiency  answers",
        "serial           1     1.25 s  1.20 s    1.00 ×        100%  equal",
        "threads          2     600 ms  600 ms    2.00 ×        100%  equal",
        "processes        2          –       –         –           –  failed",
        "CPU-bound, and free of Python's lock: threads, 2.0 × on 2 workers; nothing has to travel.",
        "- processes failed: ValueError: <b>no</b>",
    ]


def test_as_a_page_it_needs_nothing_else(shown: Comparison) -> None:
    data, metadata = shown._repr_mimebundle_()
    assert metadata == METADATA
    page = ElementTree.fromstring(data["text/html"])  # well-formed, and its text is escaped
    words = " ".join("".join(page.itertext()).split())
    for line in (shown.headline, shown.verdict, *shown.remarks):
        assert line in words
    table = [[cell.text for cell in line] for line in page.iter("tr")]
    assert table[0] == ["method", "workers", "first run", "median", "speed-up", "efficiency", "answers"]
    assert table[2] == ["threads", "2", "600 ms", "600 ms", "2.00 ×", "100%", "equal"]
    assert not re.search(r"<script|<img|<link|\bid=|\bclass=|href", data["text/html"])
    svg = "{http://www.w3.org/2000/svg}"
    assert [float(bar.attrib["width"]) for bar in page.iter(f"{svg}rect")] == pytest.approx([549.1, 274.6], abs=0.2)


def test_as_a_table_it_has_a_row_a_method(shown: Comparison) -> None:
    table = shown.to_dict()
    assert table["method"] == ["serial", "threads", "processes"]
    assert table["speedup"][:2] == [1.0, 2.0]
    assert math.isnan(table["seconds"][2])
    assert table["answers"] == ["equal", "equal", "failed"]
    frame = shown.to_frame()
    assert frame.loc["threads", "efficiency"] == 1.0
    assert isinstance(frame.loc["processes", "error"], ValueError)


@pytest.fixture(scope="module")
def fonts() -> None:
    """Have matplotlib open its fonts, which it keeps open, before a test looks at what is left behind."""
    pytest.importorskip("matplotlib")
    Comparison("f", [1], figures()).plot()._repr_png_()


@pytest.mark.usefixtures("fonts")
def test_as_a_figure_it_is_a_picture(shown: Comparison) -> None:
    figure = shown.plot()
    assert repr(figure) == "<comparison of f(x) < 3>"
    assert figure._repr_png_().startswith(b"\x89PNG")
    times, gains = figure.axes
    assert [label.get_text() for label in times.get_yticklabels()] == ["serial", "threads"]
    assert [text.get_text() for text in gains.texts] == [" 1.00 ×", " 2.00 ×"]


def test_what_needs_a_package_says_so(shown: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.ticker", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "nbparallel.comparison.figures", raising=False)
    monkeypatch.delattr("nbparallel.comparison.figures", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'nbparallel\[plot\]'"):
        shown.plot()
    with pytest.raises(ImportError, match=r"pip install pandas\. to_dict\(\)"):
        shown.to_frame()
