"""What a person sees in JupyterLab: the bar, the prints, Stop. By real typing and clicks in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Lab, lab, needs_browser

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
    assert "4/4" in cell.wait()
    assert "four: 100%" in cell.text


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
