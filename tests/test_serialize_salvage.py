"""Of results that travelled together, only those are lost that can't be rebuilt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nbparallel.serialize import dumps_result, loads
from nbparallel.serialize.salvage import salvage


class Stubborn:
    """Can be pickled, and not rebuilt."""

    def __init__(self, part: object = None) -> None:
        self.part = part

    def __setstate__(self, state: object) -> None:
        raise ValueError("no load here")


class Unmakeable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


class Refusing(dict[str, int]):
    def __setitem__(self, key: str, value: int) -> None:
        raise KeyError("never")


class Full(list[int]):
    def append(self, value: int) -> None:
        raise OverflowError("full")

    extend = append  # type: ignore[assignment]


SETTINGS = {"a": [1, 2], "b": {3}}
INNER = [7, 8]
REFUSING = Refusing({"a": 1})
TAKEN = [Stubborn()]

#: Results, and which of them are lost.
TABLE: dict[str, tuple[list[Any], list[int]]] = {
    "one of many": ([Stubborn() if x == 500 else x for x in range(1000)], [500]),
    "where a list is written in pieces": (
        [Stubborn() if x in (0, 999, 1000, 2000) else (x, [x], {x: x}) for x in range(2001)],
        [0, 999, 1000, 2000],
    ),
    "a single one": ([Stubborn()], [0]),
    "a single one, deep inside": ([((1, 2, 3, 4), [1, [Stubborn(), {5}]], (1, 2, 3, 4))], [0]),
    "at any depth": (
        [(1, 2, 3, Stubborn(), 5), [1, [2, Stubborn()]], {1: {2: Stubborn()}}, (1, 2, 3, 4), {3, 4}, "x", [6]],
        [0, 1, 2],
    ),
    "what can't be made": ([0, Unmakeable(), [1, Unmakeable(), 2], (Unmakeable(),), {4}], [1, 2, 3]),
    "what can't be filled": ([0, REFUSING, Full([1]), [2, Full([1, 2, 3])], {"x": 3}], [1, 2, 3]),
    "several in one": ([[Stubborn(), Unmakeable()], [], [Unmakeable(), 1, Stubborn()], [()]], [0, 2]),
    "a part that a lost one brought": (
        [[Stubborn(INNER), SETTINGS], SETTINGS, {"k": SETTINGS["a"]}, INNER, [INNER]],
        [0],
    ),
    "a part that holds what is lost": ([0, TAKEN, [TAKEN], (TAKEN[0],), REFUSING, [REFUSING], 6], [1, 2, 3, 4, 5]),
    "arrays, which share a dtype": (
        [(np.array([1, Stubborn()], dtype=object), np.float64(2)), np.array([None, 2]), Stubborn(), np.float64(3)],
        [0, 2],
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_only_those_are_lost_that_can_not_be_rebuilt(case: str) -> None:
    results, lost = TABLE[case]
    segments = [bytes(segment) for segment in dumps_result(results)]
    with pytest.raises((ValueError, KeyError, OverflowError)):
        loads(segments)
    found, errors = salvage(segments)
    assert sorted(errors) == lost
    assert len(found) == len(results)
    for index, (value, result) in enumerate(zip(found, results, strict=True)):
        assert repr(value) == repr(None if index in lost else result)


def test_buffers_stay_with_their_own() -> None:
    array, other = np.arange(5000), np.ones((100, 50))
    found, errors = salvage([bytes(segment) for segment in dumps_result([(Stubborn(), array), array, other, [array]])])
    assert list(errors) == [0]
    assert isinstance(errors[0], ValueError)
    np.testing.assert_array_equal(found[1], array)
    np.testing.assert_array_equal(found[2], other)
    assert found[3][0] is found[1]


def test_a_stream_that_breaks_off_is_no_result() -> None:
    stream = bytes(dumps_result([1, Stubborn(), "three"])[0])
    with pytest.raises(Exception, match=r"truncated|end of data|exhausted"):
        salvage([stream[: len(stream) // 2]])
