"""What users meet, in each place where they meet it: the cells of `tests/cells`, as they are.

Each file is run in a real kernel (whose ``__main__`` has no file), cell by cell, under each start method; and in one
whose ``__main__`` has a file that must never be run again, as a plain script without a guard, and from standard input.
In these three places the files take turns with the methods, so that each meets all; with ``--storm 2`` each runs under
all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kernels import ENVIRONMENT, METHODS, Kernel

FILES = sorted((Path(__file__).parent / "cells").glob("*.py"))
# What a cell shows, a line each, stands in comments: "# stdout: …", "# stderr: …".
SHOWN = re.compile(r"^# (stdout|stderr): (.*\n)", re.MULTILINE)
MARK = re.compile(r"^# %%(.*)\n", re.MULTILINE)


@dataclass(frozen=True)
class Behaviour:
    """A heading of a file of cells, and the cells below it.

    Attributes:
        setup: the file's first cell, which all its behaviours need.
    """

    file: Path
    title: str
    setup: str
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file.stem}: {self.title}"


def read(file: Path) -> list[Behaviour]:
    _, head, setup, *parts = MARK.split(file.read_text())
    assert head == " setup"
    found: list[Behaviour] = []
    for title, source in zip(parts[::2], parts[1::2], strict=True):
        if title.strip():
            found.append(Behaviour(file, title.strip(), setup, (source,)))
        else:
            found[-1] = replace(found[-1], cells=(*found[-1].cells, source))
    return found


NUMBERED = pytest.mark.parametrize("number", range(len(FILES)), ids=lambda number: FILES[number].stem)
BEHAVIOURS = [behaviour for file in FILES for behaviour in read(file)]


@pytest.fixture(scope="module", params=METHODS)
def notebook(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kernel, set[Path]]]:
    """Start a kernel that all behaviours share, and a note of the files whose setup it has run."""
    with Kernel({"START_METHOD": request.param}, tmp_path_factory.mktemp("notebook")) as kernel:
        yield kernel, set()


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_in_a_kernel(notebook: tuple[Kernel, set[Path]], behaviour: Behaviour) -> None:
    kernel, set_up = notebook
    if behaviour.file not in set_up:
        set_up.add(behaviour.file)
        kernel.run(behaviour.setup)
    run_cells(kernel, behaviour)


@NUMBERED
def test_in_a_kernel_where_main_has_a_file(number: int, storm: int, tmp_path: Path) -> None:
    for method in in_turn(number, 0, storm):
        with Kernel({"START_METHOD": method}, tmp_path) as kernel:
            script, witness = tmp_path / "interactive.py", tmp_path / "was_run"
            script.write_text(f"open({str(witness)!r}, 'w').close()\nraise SystemExit('it was run')\n")
            kernel.run(f"__file__ = {str(script)!r}")
            behaviours = read(FILES[number])
            kernel.run(behaviours[0].setup)
            for behaviour in behaviours:
                run_cells(kernel, behaviour)
            assert not witness.exists(), "a worker ran the file of __main__"


def run_cells(kernel: Kernel, behaviour: Behaviour) -> None:
    for cell in behaviour.cells:
        output = kernel.run(cell)
        assert lines(output.stdout, output.stderr) == shown_by(cell)


def in_turn(number: int, place: int, storm: int) -> list[str]:
    """Return the methods under which a file is run in one of these places: by default one, in each place another."""
    return METHODS if storm > 1 else [METHODS[(number + place) % len(METHODS)]]


@NUMBERED
def test_as_a_script_without_a_guard(number: int, storm: int) -> None:
    for method in in_turn(number, 1, storm):
        run_script([str(FILES[number])], method, shown=shown_by(FILES[number].read_text()))


@NUMBERED
def test_from_standard_input(number: int, storm: int) -> None:
    source = FILES[number].read_text()
    for method in in_turn(number, 2, storm):
        run_script(["-"], method, source, shown=shown_by(source))


def run_script(
    command: list[str], start_method: str, source: str | None = None, *, shown: tuple[list[str], list[str]]
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        input=source,
        text=True,
        capture_output=True,
        timeout=50,
        env={**os.environ, **ENVIRONMENT, "START_METHOD": start_method},
    )
    assert lines(done.stdout, done.stderr) == shown
    assert done.returncode == 0


def lines(stdout: str, stderr: str) -> tuple[list[str], list[str]]:
    """Return the lines in an order of their own: tasks run at the same time."""
    return sorted(stdout.splitlines(keepends=True)), sorted(stderr.splitlines(keepends=True))


def shown_by(source: str) -> tuple[list[str], list[str]]:
    found = SHOWN.findall(source)
    return lines(*("".join(text for stream, text in found if stream == name) for name in ("stdout", "stderr")))
