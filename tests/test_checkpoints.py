"""Checkpoints: what a run finds again, and what it adds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roundtrip import Notebook, nb, worker

from nbparallel.checkpoints import Checkpoint, summaries
from nbparallel.errors import SerializationError

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
    lock = __import__("threading").Lock()
    with pytest.raises(SerializationError, match="lock"):
        Checkpoint(file, lambda x: lock)
    assert not file.exists()


def test_results_of_a_cells_class_are_of_the_notebooks_own_class(nb: Notebook, file: Path) -> None:
    cell = (
        "class C:\n    def __init__(self, x): self.x = x\n    def twice(self): return 2 * self.x\ndef f(x): return C(x)"
    )
    nb.cell(cell)
    first = Checkpoint(file, nb["f"])
    assert first.known(0, [1]) == {}
    first.keep(0, nb["C(1)"])
    first.close()
    assert first.troubles == []
    nb.cell("# run again\n" + cell)
    second = Checkpoint(file, nb["f"])
    found = second.known(0, [1])
    second.close()
    assert type(found[0]) is nb["C"]
    assert found[0].twice() == 2
