"""When two answers are the same: `comparison.answers`, without a clock, a worker or a notebook."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbparallel.comparison.answers import Likeness, compare_answers

NAN = float("nan")
CLOSE_TO_ONE = 1 + 1e-12

Pair = namedtuple("Pair", "x y")


@dataclasses.dataclass
class Fit:
    slope: float
    points: Any = None
    took: float = dataclasses.field(default=0.0, compare=False)


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Own:
    """Its == looks at a part of it."""

    def __init__(self, key: int, rest: int) -> None:
        self.key, self.rest = key, rest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and self.key == other.key

    def __hash__(self) -> int:
        return self.key


class Vague:
    """Its == gives an array, as that of many libraries does."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)

    def __eq__(self, other: object) -> Any:
        return self.values == other.values  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]


class Broken:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def likeness(a: Any, b: Any) -> str:
    return compare_answers([a], [b]).likeness.word


def frame(**changes: Any) -> pd.DataFrame:
    columns: dict[str, Any] = {"a": [1.0, NAN], "b": ["x", None], "c": pd.to_datetime(["2024-01-01", None])}
    return pd.DataFrame({**columns, **changes})


SAME: list[Any] = [
    3,
    NAN,
    complex(NAN, 1),
    "text",
    None,
    b"bytes",
    Decimal("NaN"),
    range(3),
    Path("a"),
    Colour.RED,
    [1, NAN, "x"],
    (1, [NAN, {"a": NAN}]),
    Pair(1, NAN),
    {"a": [NAN], 2: {NAN}},
    {NAN: 1},
    {1, NAN},
    frozenset({(1, 2)}),
    deque([NAN]),
    defaultdict(list, a=[NAN]),
    OrderedDict(a=1),
    Fit(NAN, np.array([1.0, NAN])),
    Plain([NAN]),
    Slotted(NAN),
    Own(1, 2),
    Vague([1, 2]),
    object(),
    ValueError("x", NAN),
    np.float64(NAN),
    np.int8(3),
    np.array([1.0, NAN, np.inf]),
    np.array([1 + 2j, NAN]),
    np.array([], dtype=int),
    np.array(3.5),
    np.array(["a", "b"]),
    np.array([1, "a", NAN], dtype=object),
    np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
    np.array([(1, NAN)], dtype=[("i", int), ("x", float)]),
    np.ma.array([1.0, 2.0, NAN], mask=[False, True, False]),
    frame(),
    frame().set_index("b"),
    pd.Series([1.0, NAN], name="s"),
    pd.Series(["a", "b"], dtype="category"),
    pd.Series([1, None], dtype="Int64"),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["i", "j"]),
    pd.NaT,
    pd.Timestamp("2024-01-01"),
    [frame()],
]


@pytest.mark.parametrize("value", SAME, ids=lambda value: type(value).__name__)
def test_a_copy_is_equal(value: Any) -> None:
    copy = object() if type(value) is object else pickle.loads(pickle.dumps(value))
    assert compare_answers([copy], [value]) == (Likeness.EQUAL, "")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1.0, CLOSE_TO_ONE),
        (1 + 1j, CLOSE_TO_ONE + 1j),
        ([1, 1.0], [1, CLOSE_TO_ONE]),
        ({"a": 1.0}, {"a": CLOSE_TO_ONE}),
        ({1.0}, {CLOSE_TO_ONE}),
        (Fit(1.0), Fit(CLOSE_TO_ONE)),
        (Plain(1.0), Plain(CLOSE_TO_ONE)),
        (np.float64(1), np.float64(CLOSE_TO_ONE)),
        (np.array([1.0, 0.0, NAN]), np.array([CLOSE_TO_ONE, 1e-17, NAN])),
        (frame(), frame(a=[CLOSE_TO_ONE, NAN])),
        (pd.Series([1.0], [1.0]), pd.Series([1.0], [CLOSE_TO_ONE])),
    ],
)
def test_floats_that_hardly_differ_are_close(a: Any, b: Any) -> None:
    assert likeness(a, b) == "close"


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (1, 2, "item 0: 1 instead of 2"),
        (1, 1.0, "item 0: 1 (int) instead of 1.0 (float)"),
        (True, 1, "item 0: True (bool) instead of 1 (int)"),
        (1.0, NAN, "item 0: 1.0 instead of nan"),
        (0.0, 1e-17, "item 0: 0.0 instead of 1e-17"),
        ([1, [2, 3]], [1, [2, 4]], "item 0[1][1]: 3 instead of 4"),
        ([1], [1, 2], "item 0: of length 1 instead of 2"),
        ((1,), [1], "item 0: (1,) (tuple) instead of [1] (list)"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "item 0['a']['b']: 1 instead of 2"),
        ({"a": 1}, {"b": 1}, "item 0: ('a', 1) is only here"),
        ({"a": 1}, {"a": 1, "b": 2}, "item 0: ('b', 2) is missing"),
        ({1, 2}, {1, 3}, "item 0: 2 is only here"),
        (set(range(500)), set(range(500, 1000)), "item 0: 0 is only here"),
        (Pair(1, 2), Pair(1, 3), "item 0[1]: 2 instead of 3"),
        (Fit(1.0, [1]), Fit(1.0, [2]), "item 0.points[0]: 1 instead of 2"),
        (Plain(1), Plain("1"), "item 0.value: 1 (int) instead of '1' (str)"),
        (Slotted(1), Slotted(2), "item 0.value: 1 instead of 2"),
        (Own(1, 2), Own(2, 2), "item 0: <test_answers.Own object> instead of <test_answers.Own object>"),
        (Vague([1, 2]), Vague([1, 3]), "item 0: <test_answers.Vague object> instead of <test_answers.Vague object>"),
        (Colour.RED, Colour.BLUE, "item 0._value_: 1 instead of 2"),
        (ValueError(1), ValueError(2), "item 0[0][0]: 1 instead of 2"),
        (np.zeros(2), np.zeros(3), "item 0: of shape (2,) instead of (3,)"),
        (np.zeros(2), np.zeros(2, "f4"), "item 0: of float64 instead of float32"),
        (np.array([[1, 2]]), np.array([[1, 3]]), "item 0[0, 1]: 2 instead of 3"),
        (np.array([1.0, NAN]), np.array([1.0, 2.0]), "item 0[1]: nan instead of 2.0"),
        (np.array([0, 2**60]), np.array([1, 2**60]), "item 0[0]: 0 instead of 1"),
        (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object), "item 0[1]: 'a' instead of 'b'"),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0]), "item 0.mask[1]: True instead of False"),
        (frame(), frame(b=["x", "y"]), None),
        (frame(), frame().rename(columns={"a": "z"}), "item 0.columns[0]: 'a' instead of 'z'"),
        (frame(), frame(a=["1", "2"]), None),
        (pd.Series([1, 2]), pd.Series([1, 2], range(1, 3)), "item 0.index[0]: 0 instead of 1"),
        (pd.Series([1], name="a"), pd.Series([1], name="b"), "item 0.name[0]: 'a' instead of 'b'"),
        (pd.Series([1]), pd.Series([1.0]), "item 0: of int64 instead of float64"),
    ],
)
def test_what_differs_is_named_by_its_place(a: Any, b: Any, told: str | None) -> None:
    found = compare_answers([a], [b])
    assert found.likeness is Likeness.DIFFERENT
    if told is not None:
        assert found.told == told


def test_the_parts_that_a_class_leaves_out_do_not_count() -> None:
    assert likeness(Fit(1.0, took=1.0), Fit(1.0, took=2.0)) == "equal"
    assert likeness(Own(1, 2), Own(1, 3)) == "equal"


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (Broken(), Broken(), "item 0: comparing two Broken raised RuntimeError: no"),
        (lambda: 1, lambda: 2, "item 0: two function can't be compared"),
        ([1, iter([2])], [1, iter([2])], "item 0[1]: two list_iterator can't be compared"),
    ],
)
def test_what_can_not_be_compared_is_said(a: Any, b: Any, told: str) -> None:
    assert compare_answers([a], [b]) == (Likeness.UNKNOWN, told)


def test_the_worst_is_told() -> None:
    assert compare_answers([CLOSE_TO_ONE, Broken(), 1], [1.0, Broken(), 2]).told == "item 2: 1 instead of 2"
    assert compare_answers([1.0, CLOSE_TO_ONE], [1.0, 1.0]).told.startswith("item 1: 1.000000000001 instead")
    assert compare_answers([1], [1, 2]).told == "1 answers instead of 2"


def test_an_answer_may_contain_itself() -> None:
    def knot() -> list[Any]:
        found: list[Any] = [1]
        found.append(found)
        return found

    assert likeness(knot(), knot()) == "equal"


def test_deep_answers_end_no_comparison() -> None:
    def deep() -> list[Any]:
        found: list[Any] = []
        for _ in range(100_000):
            found = [found]
        return found

    assert likeness(deep(), deep()) == "unknown"


def test_it_loads_neither_numpy_nor_pandas() -> None:
    program = (
        "import sys\n"
        "from nbparallel.comparison.answers import compare_answers\n"
        "assert not compare_answers([1, [2.0]], [1, [2.0]]).likeness\n"
        "print({'numpy', 'pandas'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
