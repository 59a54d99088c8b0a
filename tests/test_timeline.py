"""A run as something to look at: what is kept of its times, what they add up to, the advice, text, HTML and figure."""

from __future__ import annotations

import re
import sys
import threading
import time
import xml.etree.ElementTree as ET
from array import array
from dataclasses import replace

import pytest

from nbparallel import backends, last_run, pmap, pmap_async
from nbparallel.engine.times import Times
from nbparallel.errors import TaskError
from nbparallel.timeline.advice import Setting, advise
from nbparallel.timeline.lanes import COLUMNS, EXACT, MARKS, Timeline, measure
from nbparallel.timeline.pictures import LANES, Portrait, page, text
from nbparallel.timeline.records import Records, columns

ORIGIN = 1000.0


def times(worker, began, seconds, *, lead=0.0, back=0.0, own=None, cpu=None, waits=0, sent=0, returned=0, each=()):
    """Return the times of a report; `began` and all others are relative."""
    own = seconds if own is None else own
    begin = ORIGIN + began
    return Times(
        worker,
        100 + worker,
        begin - lead,
        begin,
        seconds,
        begin + seconds + back,
        own if cpu is None else cpu,
        own,
        waits,
        sent,
        returned,
        array("f", each).tobytes(),
    )


def records_of(*reports):
    """Return records of reports: (first, count, worker, began, seconds, options)."""
    kept = Records()
    for first, count, worker, began, seconds, options in reports:
        kept.add(first, count, times(worker, began, seconds, **options), ORIGIN)
    return kept


def even(tasks=20, workers=2, seconds=0.05, **options):
    """Return records of equal tasks, dealt out in turn."""
    return records_of(
        *((index, 1, index % workers, index // workers * seconds, seconds, options) for index in range(tasks))
    )


HERE = Setting("processes", 2, "all cores of the machine")


# ---- records ----


def test_a_report_is_kept_as_it_was():
    kept = records_of((4, 2, 7, 0.5, 0.3, {"lead": 0.2, "back": 0.1, "sent": 5, "returned": 6, "each": [0.1, 0.2]}))
    (record,) = kept
    assert (record.lane, record.first, record.count, record.sent, record.returned) == (1, 4, 2, 5, 6)
    assert (record.began, record.seconds, record.lead, record.back) == pytest.approx((0.5, 0.3, 0.2, 0.1))
    assert [told for task in record.tasks() for told in task] == pytest.approx([4, 0.5, 0.1, 5, 0.6, 0.2])
    assert kept.pids == [107]


def test_tasks_of_which_only_all_together_are_known_are_as_if_equal():
    (record,) = records_of((0, 4, 0, 1.0, 0.8, {}))
    assert [seconds for _, _, seconds in record.tasks()] == pytest.approx([0.2] * 4)
    assert [began for _, began, _ in record.tasks()] == pytest.approx([1.0, 1.2, 1.4, 1.6])


def test_tiny_tasks_reported_one_by_one_are_one_row():
    kept = records_of(*((index, 1, 0, index * 2e-5, 1e-5, {}) for index in range(1000)))
    (record,) = kept
    assert (record.first, record.count) == (0, 1000)
    assert record.seconds == pytest.approx(999 * 2e-5 + 1e-5)
    assert record.own == pytest.approx(1000 * 1e-5, rel=1e-3)


@pytest.mark.parametrize(
    "second",
    [
        (1, 1, 0, 0.01, 1e-5, {}),  # a pause
        (1, 1, 1, 2e-5, 1e-5, {}),  # another worker
        (5, 1, 0, 2e-5, 1e-5, {}),  # another task
        (1, 1, 0, 2e-5, 1e-3, {}),  # long
        (1, 1, 0, 2e-5, 1e-5, {"lead": 1e-5}),  # sent
    ],
)
def test_other_reports_are_rows_of_their_own(second):
    assert len(records_of((0, 1, 0, 0.0, 1e-5, {}), second)) == 2


def test_a_million_reports_are_kept_in_little_memory():
    kept = Records()
    one = times(0, 0.0, 1.0)
    for index in range(1000):
        kept.add(index, 1, one, ORIGIN)
    assert sys.getsizeof(kept._rows) < 1000 * 90
    assert not kept._each


def test_records_can_be_read_while_more_come():
    kept = even(100)
    one = times(0, 0.0, 1.0)
    adding = threading.Thread(target=lambda: [kept.add(0, 1, one, ORIGIN) for _ in range(5000)])
    iterator = iter(kept)
    assert next(iterator).count == 1
    adding.start()
    while adding.is_alive():
        assert sum(1 for _ in kept) >= 100
    adding.join()
    assert sum(1 for _ in iterator) == 99  # what was there when it began
    assert len(kept) == 5100


def test_the_table_has_one_row_a_task():
    kept = records_of((0, 2, 3, 0.0, 0.2, {}), (3, 1, 5, 0.1, 0.5, {}), (1, 1, 5, 0.6, 0.3, {}))
    said = {0: "ok", 1: "failed", 2: "from before", 3: "not run", 4: "not run"}
    failed = TaskError("told", error=ValueError("x"))
    table = columns(kept, 5, said.__getitem__, {1: failed})
    assert table["index"] == [0, 1, 2, 3, 4]
    assert table["outcome"] == ["ok", "failed", "from before", "ended", "not run"]
    assert table["worker"] == [1, 2, None, 2, None]
    assert table["pid"] == [103, 105, None, 105, None]
    assert table["start"] == [0.0, pytest.approx(0.6), None, pytest.approx(0.1), None]  # of task 1 the last time
    assert table["seconds"] == [pytest.approx(0.1), pytest.approx(0.3), None, pytest.approx(0.5), None]
    assert table["error"] == [None, "ValueError", None, None, None]


# ---- what they add up to ----


def test_computing_sending_and_idling_fill_the_workers_time():
    kept = records_of(
        (0, 1, 0, 0.2, 0.3, {"lead": 0.1, "back": 0.1}),
        (1, 1, 0, 0.7, 0.2, {"lead": 0.5}),  # sent while the first ran: it waited from when the results were back
        (2, 1, 1, 0.4, 0.4, {"lead": 0.05}),
    )
    found = measure(kept, 1.0, 2)
    assert [lane.compute for lane in found.lanes] == pytest.approx([0.5, 0.4])
    assert [lane.send for lane in found.lanes] == pytest.approx([0.1 + 0.2, 0.05])
    assert found.idle == pytest.approx(2.0 - 0.9 - 0.35)
    assert found.efficiency == pytest.approx(0.45)
    assert found.tail() == pytest.approx(0.1)
    assert (found.first, found.lead, found.tasks) == (pytest.approx(0.2), pytest.approx(0.1), 3)
    spans = [(round(start, 3), round(stop, 3), kind) for start, stop, kind in found.lanes[0].spans]
    assert spans == [
        (0.1, 0.2, "send"),
        (0.2, 0.5, "compute"),
        (0.5, 0.6, "send"),
        (0.6, 0.7, "send"),
        (0.7, 0.9, "compute"),
    ]


def test_many_reports_become_columns_with_the_same_sums():
    count = EXACT + 10
    kept = records_of(*((index, 1, 0, index * 0.01, 0.006, {"lead": 0.002}) for index in range(count)))
    found = measure(kept, count * 0.01, 1)
    (lane,) = found.lanes
    assert (lane.spans, len(lane.columns)) == ([], COLUMNS)
    assert lane.compute == pytest.approx(count * 0.006, rel=1e-4)
    step = found.seconds / COLUMNS
    assert sum(compute for compute, _ in lane.columns) * step == pytest.approx(lane.compute)
    assert sum(send for _, send in lane.columns) * step == pytest.approx(lane.send)
    assert all(0 <= compute + send <= 1 + 1e-6 for compute, send in lane.columns)


def test_tasks_without_a_result_are_marked():
    kept = records_of((0, 3, 0, 0.0, 0.6, {"each": [0.1, 0.2, 0.3]}), (3, 2, 0, 0.6, 0.4, {}))
    found = measure(kept, 1.0, 1, failed=[1], ended=lambda index: index == 4)
    marks = [(mark.index, round(mark.start, 3), round(mark.stop, 3), mark.failed) for mark in found.marks]
    assert marks == [(1, 0.1, 0.3, True), (4, 0.8, 1.0, False)]
    assert (found.failed, found.ended) == (1, 1)
    many = measure(even(500), 13.0, 2, failed=range(500))
    assert (len(many.marks), many.failed) == (MARKS, 500)


def test_nothing_adds_up_to_nothing():
    found = measure(Records(), 0.0, 4)
    assert (found.compute, found.idle, found.efficiency, found.tail(), found.lanes) == (0, 0, 0, 0, [])
    assert advise(found, HERE) == []


# ---- advice ----


def advice_on(kept, seconds, width=2, setting=HERE):
    return advise(measure(kept, seconds, width), setting)


def test_a_good_run_needs_no_advice():
    assert advice_on(even(), 0.5) == []


@pytest.mark.parametrize(
    ("kept", "seconds", "width", "setting", "words"),
    [
        (even(lead=0.0), 0.5, 2, replace(HERE, cores=1, reason="CPU_LIMIT"), r"may use one core \(CPU_LIMIT\)"),
        (
            records_of(*((i * 1000, 1000, i % 2, i * 0.01, 0.002, {"lead": 0.008}) for i in range(10))),
            0.1,
            2,
            HERE,
            r"Tasks of 2 µs are tiny: all of them are 20 ms of work.* stay serial",
        ),
        (
            records_of(*((i, 1, i % 2, i * 1e-4, 2e-6, {"lead": 9e-5}) for i in range(200))),
            0.02,
            2,
            replace(HERE, chunksize=1),
            "They travelled 1 at a time: leave chunksize to 'auto'",
        ),
        (
            records_of(*((i, 1, i % 2, i * 0.1, 0.05, {"lead": 0.1, "sent": 20_000_000}) for i in range(8))),
            0.9,
            2,
            HERE,
            r"153 MiB of inputs were copied to the workers, 19 MiB a task; they waited .* ms",
        ),
        (
            records_of(*((i, 1, i % 2, i * 0.1, 0.05, {"back": 0.1, "returned": 20_000_000}) for i in range(8))),
            0.9,
            2,
            HERE,
            r"153 MiB of results were copied back, 19 MiB a task",
        ),
        (
            even(workers=4, own=0.025),
            0.25,
            4,
            HERE,
            r"4 workers shared 2 cores \(all cores of the machine\): each had one for 50% of its time",
        ),
        (even(own=0.02), 0.5, 2, HERE, "had a core for 40% of its time: other programs"),
        (even(own=0.005, waits=2), 0.5, 2, HERE, "used a core for 10% of their time and waited"),
        (even(cpu=0.1), 0.5, 2, HERE, r"Each task kept 2.0 threads busy .* 2 workers × 2.0 on 2 cores"),
        (
            even(own=0.025, waits=-1),
            0.5,
            2,
            replace(HERE, backend="threads"),
            r"The threads used 1.0 cores together.*backend='processes'",
        ),
        (even(3, 3), 0.05, 8, replace(HERE, cores=8), "3 tasks keep at most 3 of 8 workers busy"),
        (even(1, 1), 0.05, 2, HERE, "One task keeps one of 2 workers busy"),
        (
            records_of(*((i, 1, 0, i * 0.05, 0.05, {}) for i in range(4)), (4, 1, 1, 0.0, 0.6, {})),
            0.6,
            2,
            HERE,
            r"Task 4 took 600 ms, the others 50 ms on average, and the other worker waited 400 ms for it at the end",
        ),
        (
            records_of((0, 4, 0, 0.0, 0.2, {}), (4, 8, 1, 0.0, 0.4, {}), (12, 4, 2, 0.0, 0.2, {})),
            0.4,
            3,
            replace(HERE, cores=3),
            "The last chunk held 8 tasks, and the others waited for it at the end, 400 ms in all. A smaller chunksize",
        ),
        (even(4, 2, 0.1), 0.2, 2, HERE, None),
        (
            records_of((0, 1, 0, 0.4, 0.1, {}), (1, 1, 1, 0.4, 0.1, {})),
            0.5,
            2,
            HERE,
            "400 ms of 500 ms passed before the workers were ready: the next map finds them warm",
        ),
    ],
)
def test_advice_says_what_was_measured(kept, seconds, width, setting, words):
    found = advice_on(kept, seconds, width, setting)
    if words is None:
        assert found == []
    else:
        assert len(found) == 1, found
        assert re.search(words, found[0]), found


def test_free_threads_are_not_told_of_a_lock_and_serial_runs_of_nothing():
    kept = even(own=0.025, waits=-1)
    assert advice_on(kept, 0.5, setting=replace(HERE, backend="threads", locked=False)) == []
    assert advice_on(even(cpu=0.1), 0.5, setting=replace(HERE, backend="serial")) == []


# ---- text and HTML ----


def portrait_of(kept, seconds, width=2, headline="f: 20 ok in 500 ms", **options):
    return Portrait("f", headline, measure(kept, seconds, width, **options), "", ["A remark."], ["Some <advice>."])


def test_text_shows_lanes_shares_and_advice():
    kept = records_of((0, 1, 0, 0.5, 0.5, {"lead": 0.25}), (1, 1, 1, 0.0, 1.0, {}))
    lines = text(portrait_of(kept, 1.0, failed=[1])).splitlines()
    assert lines == [
        "f: 20 ok in 500 ms",
        "1.5 s of work on 2 workers, efficiency 75%",
        "worker 1   " + "·" * 12 + "▒" * 12 + "█" * 24 + "  1 task",
        "worker 2   " + "█" * 47 + "×  1 task",
        "█ compute 1.5 s (75%)   ▒ send 250 ms (12%)   · idle 250 ms (12%)   × failed 1 task",
        "A remark.",
        "- Some <advice>.",
    ]


@pytest.mark.parametrize("tasks", [20, 2000])
def test_html_is_small_well_formed_and_self_contained(tasks):
    portrait = portrait_of(even(tasks, 16), tasks / 16 * 0.05, 16, "<b>&amp; f", failed=range(50))
    shown = page(portrait)
    assert shown == page(portrait)
    drawings = list(ET.fromstring(shown).iter("{http://www.w3.org/2000/svg}svg"))
    assert len(drawings) == LANES
    assert (
        "".join(text for drawing in drawings for text in drawing.itertext()) == ""
    )  # would stay where they are dropped
    assert len(shown) < 60_000
    assert shown.count("worker ") == LANES
    assert "and 8 more workers, which computed" in shown
    assert not re.search(r"<script|<style|<link|\bid=|\bon\w+=|url\(|(?<!xmlns=\")https?://", shown)
    assert "&lt;b&gt;&amp;amp; f" in shown
    assert "Some &lt;advice&gt;." in shown
    for words in ("compute ", "send ", "idle ", "failed 50 tasks", "A remark."):
        assert words in shown  # beside each colour, and where the drawing is dropped
    assert "currentColor" in shown  # text takes the page's own


# ---- runs ----


@pytest.mark.parametrize("backend", backends.names())
def test_a_run_on_each_backend_tells_its_tasks(backend):
    def task(x):
        if x == 5:
            raise ValueError(x)
        return sum(range(20_000))

    before = pmap(task, range(12), workers=2, backend=backend, on_error="return", chunksize=3)
    run = last_run()
    table = run.to_dict()
    assert [type(value) for value in before] == [TaskError if index == 5 else int for index in range(12)]
    assert table["index"] == list(range(12))
    assert table["outcome"] == ["failed" if index == 5 else "ok" for index in range(12)]
    assert table["error"] == ["ValueError" if index == 5 else None for index in range(12)]
    assert set(table["worker"]) <= {1, 2}
    lengths = zip(table["start"], table["seconds"], strict=True)
    assert all(0 <= start <= start + seconds <= run.seconds for start, seconds in lengths)
    assert min(table["seconds"]) > 0
    frame = run.to_frame()
    assert frame.shape == (12, 6)
    assert (str(frame.worker.dtype), str(frame.seconds.dtype)) == ("Int64", "float64")
    assert frame.seconds.sum() == pytest.approx(sum(table["seconds"]))
    shown = str(run)
    assert shown.splitlines()[0] == f"{run.label}: {run.summary()}"
    assert "failed 1 task" in shown
    assert ("(" + backend + ")" in shown) == (backend != "processes")
    assert run.summary() in run._repr_html_()
    assert "\n" not in repr(run)


def test_a_run_that_goes_on_was_cancelled_and_was_resumed():
    gate = threading.Event()
    seen = threading.Event()

    def task(x):
        if x == 2:
            seen.set()
            gate.wait()
        return x

    run = pmap_async(task, range(6), workers=1, backend="threads", chunksize=1)
    try:
        assert seen.wait(30)
        assert run.to_dict()["outcome"] == ["ok", "ok", *["pending"] * 4]
        assert "running, 2 ok, 4 to go" in str(run)
        assert run._repr_html_()
        run.cancel()
        assert "cancelled" in str(run)
    finally:
        gate.set()
    assert run.resume() == list(range(6))
    again = last_run()
    known = [index for index, told in enumerate(again.to_dict()["outcome"]) if told == "from before"]
    assert known[:2] == [0, 1]
    assert f"{len(known)} results are from before, without a time." in str(again)
    assert [again.to_dict()["seconds"][index] for index in known] == [None] * len(known)


def test_tasks_that_were_ended_with_their_run_are_shown(tmp_path):
    began = tmp_path / "began"

    def task(x):
        import time

        began.touch()
        time.sleep(1000)

    run = pmap_async(task, range(3), workers=1)
    while not began.exists():
        assert not run.done
        time.sleep(0.005)
    run.cancel()
    run.wait(30)
    assert run.to_dict()["outcome"] == ["ended", "not run", "not run"]
    assert "× ended 1 task with the run" in str(run)
    assert "task 0 was ended after" in run._repr_html_()


def test_a_worker_that_died_leaves_the_time_of_its_task():
    def task(x):
        import os

        if x == 1:
            os._exit(7)

    pmap(task, range(3), workers=1, chunksize=1, on_error="return")
    table = last_run().to_dict()
    assert (table["outcome"][1], table["error"][1]) == ("failed", "WorkerCrashed")
    assert table["seconds"][1] > 0
    assert table["pid"][1] == table["pid"][0] != table["pid"][2]


def test_runs_of_nothing_can_be_looked_at():
    pmap(abs, [], workers=2)
    run = last_run()
    assert str(run).endswith("No task ran.")
    assert "No task ran." in run._repr_html_()
    assert run.to_dict()["index"] == []
    assert run.to_frame().shape == (0, 6)
    assert run.advice == []


# ---- the figure ----


@pytest.fixture(scope="module")
def figures():
    """Have matplotlib open its fonts, which it keeps open, before a test looks at what is left behind."""
    figures = pytest.importorskip("nbparallel.timeline.figures")
    figures.draw(portrait_of(even(2), 1.0, failed=[1]))._repr_png_()
    return figures


def test_the_figure_has_lanes_units_a_legend_and_advice(figures, tmp_path):
    kept = records_of((0, 1, 0, 0.5, 0.5, {"lead": 0.25}), (1, 1, 1, 0.0, 1.0, {}))
    figure = figures.draw(portrait_of(kept, 1.0, failed=[1]))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["worker 1", "worker 2"]
    assert axes.get_xlabel() == "time since the run began [s]"
    (legend,) = figure.legends
    told = [entry.get_text() for entry in legend.get_texts()]
    assert [words.split()[0] for words in told] == ["compute", "send", "idle", "failed"]
    assert [words.get_text() for words in figure.texts] == ["• Some <advice>.", "• A remark."]
    assert repr(figure) == "<timeline of f>"
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "run.svg")
    folded = figures.draw(portrait_of(even(2000, 16), 6.25, 16))
    assert folded._repr_png_().startswith(b"\x89PNG")
    assert figures.draw(portrait_of(Records(), 0.0)).axes[0].get_yticklabels() == []


def test_what_is_missing_is_named_with_its_install_line(monkeypatch):
    pmap(abs, [-1], workers=1, backend="serial")
    run = last_run()
    for name in ("matplotlib", "matplotlib.figure", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "nbparallel.timeline.figures", raising=False)
    monkeypatch.delattr("nbparallel.timeline.figures", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'nbparallel\[plot\]'"):
        run.timeline()
    with pytest.raises(ImportError, match=r"pip install pandas\. run\.to_dict\(\)"):
        run.to_frame()


def test_a_timeline_is_plain_numbers():
    found = Timeline(2.0, 3)
    assert (found.idle, found.share(1.5), found.efficiency) == (6.0, 0.25, 0.0)
