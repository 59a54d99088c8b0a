"""Checkpoints: what a run finds again, and what it adds."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from roundtrip import Notebook, nb, worker

from nbparallel import pmap
from nbparallel.checkpoints import Checkpoint, summaries
from nbparallel.errors import CheckpointError, SerializationError

__all__ = ["nb", "worker"]


def square(x: Any) -> Any:
    return x * x


@dataclasses.dataclass
class Square:
    side: float


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept.sqlite"


@pytest.fixture
def opened(file: Path) -> Iterator[Callable[..., Checkpoint]]:
    """Open the file for a function; all are closed at the end."""
    made = []

    def open_for(function: Any = square, **options: Any) -> Checkpoint:
        made.append(Checkpoint(file, function, **options))
        return made[-1]

    yield open_for
    for checkpoint in made:
        checkpoint.close()


def fill(checkpoint: Checkpoint, inputs: Any, results: Any) -> None:
    """Keep results, of which none is there yet."""
    assert checkpoint.known(0, inputs) == {}
    for index, result in enumerate(results):
        checkpoint.keep(index, result)
    checkpoint.close()
    assert checkpoint.troubles == []


def test_what_was_kept_is_known_by_its_argument(opened: Callable[..., Checkpoint], file: Path) -> None:
    fill(opened(), [1, 2, 3], [1, 4, 9])
    assert opened().known(0, [0, 3, 1]) == {1: 9, 2: 1}
    assert opened().known(0, [1.0, True, "1"]) == {}
    (found,) = summaries(file)
    assert (found.function, found.results) == ("square", 3)
    assert abs(time.time() - found.written) < 3600


def test_only_what_is_missing_is_added_and_the_rest_stays(opened: Callable[..., Checkpoint]) -> None:
    fill(opened(), [1, 2], [1, 4])
    second = opened()
    assert second.known(0, [1, 2, 3, 4]) == {0: 1, 1: 4}
    second.keep(3, 16)  # another is not finished
    second.close()
    assert opened().known(0, [1, 2, 3, 4]) == {0: 1, 1: 4, 3: 16}


def test_equal_arguments_are_tasks_of_their_own(opened: Callable[..., Checkpoint]) -> None:
    first = opened()
    assert first.known(0, ["a", "b", "a", "a"]) == {}
    first.keep(0, 0.1)
    first.keep(2, 0.3)
    first.close()
    second = opened()
    assert second.known(0, ["a"]) == {0: 0.1}
    assert second.known(1, ["a", "b"]) == {1: 0.3}  # item by item, as a generator gives them
    assert second.known(3, ["a"]) == {}


def test_the_function_the_seed_and_the_way_of_calling_it_count(opened: Callable[..., Checkpoint]) -> None:
    fill(opened(), [(1, 2)], ["no seed"])
    fill(opened(seed=0), [(1, 2)], ["seed 0"])
    fill(opened(seed=1), [(1, 2)], ["seed 1"])
    fill(opened(style="star"), [(1, 2)], ["star"])
    fill(opened(print), [(1, 2)], ["print"])
    assert opened().known(0, [(1, 2)]) == {0: "no seed"}
    assert opened(seed=0).known(0, [(1, 2)]) == {0: "seed 0"}
    assert opened(style="star").known(0, [(1, 2)]) == {0: "star"}


def test_with_a_seed_the_place_counts_which_decides_on_the_random_numbers(
    opened: Callable[..., Checkpoint],
) -> None:
    fill(opened(seed=1), ["a", "b"], [0.1, 0.2])
    assert opened(seed=1).known(0, ["a", "b", "c"]) == {0: 0.1, 1: 0.2}
    assert opened(seed=1).known(0, ["b", "a"]) == {}


def test_results_of_all_kinds_come_back(opened: Callable[..., Checkpoint]) -> None:
    results = [None, np.arange(100_000.0), {"a": [1, {2}]}, Square(2.5), ValueError("text"), len, b"x" * 70_000]
    fill(opened(), range(len(results)), results)
    found = opened().known(0, range(len(results)))
    assert len(found) == len(results)
    assert found[0] is None
    assert np.array_equal(found[1], results[1])
    assert found[1].flags.writeable
    assert [found[2], found[3], found[5], found[6]] == [results[2], results[3], len, results[6]]
    assert repr(found[4]) == "ValueError('text')"


def test_a_function_that_cannot_be_pickled_is_refused_before_a_file_is_made(file: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="lock"):
        Checkpoint(file, lambda x: lock)
    assert not file.exists()


def test_a_run_that_goes_on_keeps_what_it_returns_as_the_functions_that_it_is_now(nb: Notebook, file: Path) -> None:
    old, new = "def helper(x): return x\ndef f(x): return helper(x)", "def helper(x): return -x"
    nb.cell(old)
    f = nb["f"]
    checkpoint = Checkpoint(file, f)
    assert checkpoint.known(0, [1, 2]) == {}
    checkpoint.keep(0, 1)
    checkpoint.close()
    nb.cell(new)
    checkpoint.reopen()
    assert checkpoint.asked == 2
    checkpoint.keep(1, -2)
    checkpoint.close()
    second = Checkpoint(file, f)
    assert second.known(0, [1, 2]) == {1: -2}
    second.close()
    nb.cell(old)
    third = Checkpoint(file, nb["f"])
    assert third.known(0, [1, 2]) == {0: 1}
    third.close()


def kept_and_known(nb: Notebook, file: Path, function: str, result: str, after: str = "") -> Any:
    """Keep one result, run a cell, and return what is known of it then."""
    first = Checkpoint(file, nb[function])
    assert first.known(0, [1]) == {}
    first.keep(0, nb[result])
    first.close()
    assert first.troubles == []
    nb.cell(after)
    second = Checkpoint(file, nb[function])
    found = second.known(0, [1])
    second.close()
    assert second.troubles == []
    return found.get(0)


def test_definitions_of_the_same_text_are_the_notebooks_own(nb: Notebook, file: Path) -> None:
    cells = """
        import collections, dataclasses, enum, functools, typing
        class Colour(enum.Enum): RED = 1
        @dataclasses.dataclass
        class Point:
            x: int
            colour: Colour = Colour.RED
            near: "list[Point]" = dataclasses.field(default_factory=list)
        class Base:
            def who(self): return Base
        class Sub(Base):
            def who(self): return super().who()
        Row = collections.namedtuple("Row", "a b")
        def helper(x): return x + 1
        def make(k):
            class Local: pass
            def inner(x): return helper(x) + k
            return [Local(), inner]
        def f(x): return Point, Sub, Row, helper, make
        result = [Point(1, near=[Point(2)]), Colour.RED, Sub(), Row(1, 2), Row, helper, *make(5)]
    """
    nb.cell(cells)
    old = nb["result"]
    point, red, sub, row, cls, helper, local, inner = kept_and_known(
        nb, file, "f", "result", "# again\n" + dedent(cells)
    )
    new = nb["result"]
    assert [type(each) for each in (point, sub, row)] == [type(new[0]), type(new[2]), type(new[3])]
    assert type(point) is not type(old[0])
    assert point == new[0]
    assert red is nb["Colour"].RED is point.colour
    assert sub.who() is nb["Base"]
    assert (row, cls, helper) == ((1, 2), nb["Row"], nb["helper"])
    # What has no name in the notebook is built, and works.
    assert type(local).__name__ == "Local"
    assert inner(1) == 7


def test_a_definition_that_is_another_now_leaves_its_results_usable(nb: Notebook, file: Path) -> None:
    nb.cell("""
        class C:
            def __init__(self, x): self.x = x
            def twice(self): return 2 * self.x
        def f(x): return namespace[x]
        namespace = {1: 1}
    """)
    found = kept_and_known(nb, file, "f", "C(4)", "class C:\n    def twice(self): return 'changed'")
    assert type(found) is not nb["C"]
    assert type(found).__name__ == "C"
    assert found.twice() == 8


def test_a_changed_function_knows_nothing_and_its_old_text_all_again(nb: Notebook, file: Path) -> None:
    old, new = "def helper(x): return x\ndef f(x): return helper(x)", "def helper(x): return -x"
    nb.cell(old)
    assert kept_and_known(nb, file, "f", "'old'", new) is None
    assert kept_and_known(nb, file, "f", "'new'") == "new"
    nb.cell(old)
    checkpoint = Checkpoint(file, nb["f"])
    assert checkpoint.known(0, [1]) == {0: "old"}
    checkpoint.close()


def test_wrong_arguments_are_refused_at_the_call(file: Path) -> None:
    with pytest.raises(ValueError, match="say checkpoint= too"):
        pmap(square, [1], trust=True)
    with pytest.raises(TypeError, match="a name or a path, not 5"):
        pmap(square, [1], checkpoint=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a name"):
        pmap(square, [1], checkpoint="")
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        pmap(square, [1], checkpoint=file)
    assert file.read_text() == "mine"
