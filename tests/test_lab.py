"""What a person sees in JupyterLab: the bar, the prints, Stop. By real typing and clicks in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from lab import Cell, Lab, lab, needs_browser
from playwright.sync_api import expect

__all__ = ["lab"]

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(autouse=True)
def the_console_is_silent(lab: Lab) -> Iterator[None]:
    """Fail a test during which the browser's console reported an error."""
    lab.errors.clear()
    yield
    assert lab.errors == []


def test_a_bar_moves_and_ends_at_all_of_all(lab: Lab) -> None:
    cell = lab.start("""
        def waits(x):
            while not (folder / f"go {x}").exists():
                time.sleep(0.002)

        x = pmap(waits, range(4), chunksize=1, progress=True, label="four")
    """)
    for done in range(4):
        cell.shows(f"{done}/4")
        assert cell.is_running
        (lab.folder / f"go {done}").touch()
    # The bar makes room for text, which a saved notebook shows too.
    headline, summary = cell.wait().splitlines()
    assert headline == "four: 4 tasks on 2 workers"
    assert summary.startswith("4 ok in ")


def test_a_print_appears_under_its_cell_while_it_runs(lab: Lab) -> None:
    cell = lab.start("""
        def speaks(x):
            print("spoken by", x)
            while not (folder / "spoken").exists():
                time.sleep(0.002)
            return x

        pmap(speaks, range(2), chunksize=1)
    """)
    cell.shows("spoken by 0")
    cell.shows("spoken by 1")
    assert cell.is_running
    (lab.folder / "spoken").touch()
    assert "[0, 1]" in cell.wait()
    assert cell.text.count("spoken by") == 2


def test_the_stop_button_ends_a_map_and_the_next_one_works(lab: Lab) -> None:
    cell = lab.start("""
        def sleeps(x):
            if x == 0:
                return "finished"
            (folder / f"begun {x}").touch()
            time.sleep(1000)

        pmap(sleeps, range(6), chunksize=1)
    """)
    cell.shows("1/6")
    lab.press_stop()
    assert "KeyboardInterrupt" in cell.wait(seconds=20)
    assert "('finished', True)" in lab.run("last_run().results[0], last_run().cancelled")
    assert "[1, 2, 3]" in lab.run("pmap(abs, [-1, -2, -3])")


def test_a_saved_notebook_reads_right_without_a_kernel(lab: Lab) -> None:
    number = lab.page.locator(".jp-Notebook-cell").count() - 1
    shown = [
        lab.start(source).wait()
        for source in (
            "pmap(abs, range(7), progress=True, label='seven')",
            """
            def inverse(x):
                return 1 / x

            pmap(inverse, [1, 0], chunksize=1, progress=True, label="two")
            """,
            "last_run().timeline()",
            "last_run()",
        )
    ]
    lab.read_without_kernel(lab.save())
    bar, error, timeline, run = (Cell(lab.page, number + offset) for offset in range(4))
    run.shows("two: 1 ok, 1 failed in ")
    assert [cell.text for cell in (bar, error, timeline, run)] == shown
    headline, summary, _ = bar.text.splitlines()
    assert headline == "seven: 7 tasks on 2 workers"
    assert summary.startswith("7 ok in ")
    lines = error.text.splitlines()
    assert lines[0] == "two: 2 tasks on 2 workers"
    assert lines[1].startswith("1 ok, 1 failed in ")
    assert [line for line in lines if line.startswith("--") and ">" in line] == [
        '----> 4 pmap(inverse, [1, 0], chunksize=1, progress=True, label="two")',
        "----> 2     return 1 / x",
    ]
    assert lines[-2] == "ZeroDivisionError: division by zero"
    assert lines[-1].startswith("nbparallel: in task 1 (inverse(0)); two: 1 ok, 1 failed in ")
    assert error.text.count("Traceback (most recent call last)") == 1
    picture = timeline.outputs.locator("img")
    expect(picture).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 500
    assert "compute" in run.text
    assert "failed 1 task" in run.text
    page = lab.page.locator(".jp-Notebook").inner_text()
    assert "model not found" not in page
    assert "widget" not in page
    lab.open()


def test_bars_of_tasks_stand_below_and_a_loop_leaves_one_line(lab: Lab) -> None:
    cell = lab.start("""
        from tqdm.auto import tqdm

        def trains(number):
            with tqdm(total=5, desc="train") as bar:
                while not (folder / f"trained {number}").exists():
                    time.sleep(0.002)

        for number in tqdm(range(2), desc="loop"):
            pmap(trains, [number], progress=True, label=f"map {number}")
    """)
    for number in range(2):
        cell.shows(f"map {number}: 1 task on 2 workers")
        cell.shows("train [task 0]:   0%")
        (lab.folder / f"trained {number}").touch()
    shown = cell.wait()
    assert "2/2" in shown
    assert "map 1: 1 task on 2 workers: 1 ok in " in shown
    assert "map 0" not in shown
    assert "train" not in shown


def test_what_threads_print_stays_with_its_cell_though_the_page_is_heard(lab: Lab) -> None:
    cell = lab.start("""
        import threading

        def prints_for(seconds):
            begun = time.monotonic()
            while time.monotonic() < begun + seconds:
                print("by a thread", flush=True)
                time.sleep(0.1)
            print("the thread's last word")

        def waits(x):
            while not (folder / f"threads {x}").exists():
                time.sleep(0.002)
            print("by task", x)

        def maps():
            pmap(waits, range(4), chunksize=1, progress=True, workers=1)

        threads = [threading.Thread(target=maps), threading.Thread(target=prints_for, args=(3,))]
        for each in threads: each.start()
        for each in threads: each.join()
    """)
    for task in range(3):
        (lab.folder / f"threads {task}").touch()
        cell.shows(f"by task {task}")
    expect(cell.outputs.get_by_role("button", name="Cancel")).to_be_visible()  # the page was heard
    (lab.folder / "threads 3").touch()
    text = cell.wait()
    assert "by task 3" in text
    assert "the thread's last word" in text
    assert "4 ok in" in text


def test_the_cancel_button_ends_a_map_and_keeps_its_results(lab: Lab) -> None:
    lab.run("(folder / 'slow').touch()")
    cell = lab.start("""
        def sleeps(x):
            if x and (folder / "slow").exists():
                time.sleep(1000)
            return x

        pmap(sleeps, range(6), chunksize=1, progress=True, label="six")
    """)
    cell.shows("1/6")
    cell.box.get_by_role("button", name="Cancel").click()
    assert "CancelledError: six was cancelled: 1 ok, 5 not run" in cell.wait(seconds=20)
    assert "(0, True)" in lab.run("last_run().results[0], last_run().cancelled")
    (lab.folder / "slow").unlink()
    assert "[0, 1, 2, 3, 4, 5]" in lab.run("last_run().resume()")
    expect(lab.page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_run_in_the_background_shows_a_bar_with_a_cancel_button(lab: Lab) -> None:
    lab.run("(folder / 'slow').touch()")
    cell = lab.start("""
        def sleeps(x):
            if x and (folder / "slow").exists():
                time.sleep(1000)
            return x

        background = nbparallel.pmap_async(sleeps, range(6), chunksize=1, label="background")
        background
    """)
    cell.wait()
    cell.shows("1/6")
    cell.box.get_by_role("button", name="Cancel").click()
    cell.shows("background: cancelled, 1 ok, 5 not run")
    expect(cell.box.get_by_role("button", name="Cancel")).to_have_count(0)
    assert "(True, [0])" in lab.run("background.cancelled, background.results[:1]")
    (lab.folder / "slow").unlink()
    cell = lab.start("background.resume(); background = nbparallel.pmap_async(sleeps, range(6)); background")
    cell.wait()
    cell.shows("sleeps: 6 ok")
    expect(lab.page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_in_an_output_widget_the_bar_makes_room_for_its_two_lines(lab: Lab) -> None:
    cell = lab.start("""
        import ipywidgets
        from nbparallel import pmap_async

        def waits(x):
            while not (folder / f"captured {x}").exists():
                time.sleep(0.002)

        output = ipywidgets.Output()
        display(output)
        with output:
            pmap(waits, range(2), chunksize=1, progress=True, label="two")
            display(pmap_async(abs, range(4), label="four"))
        last_run().result()
    """)
    cell.shows("0/2")
    for task in range(2):
        (lab.folder / f"captured {task}").touch()
    cell.shows("two: 2 tasks on 2 workers")
    cell.shows("2 ok in ")
    cell.shows("four: 4 ok")
    assert "2/2" not in cell.wait()
