"""Whether two answers are the same: values, not objects, since what a worker returns is always another object.

A NaN equals a NaN here; arrays of NumPy, objects of pandas, containers, dataclasses and objects without an ``==`` of
their own are compared by what is in them. Called by `compare`; it imports nothing that an answer has not brought.
"""

from __future__ import annotations

import cmath
import dataclasses
import enum
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from nbparallel.errors import short_repr

#: Floats that differ by less than this part of their size are close: the order of additions does as much.
CLOSE = 1e-9
#: Of so many elements of a set without an equal in the other, each is compared with each.
_UNPAIRED = 100
#: Their ``==`` says all, but for a NaN.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})


class Likeness(enum.IntEnum):
    """How alike two answers are, the worst last."""

    EQUAL = 0
    CLOSE = 1
    UNKNOWN = 2
    DIFFERENT = 3

    @property
    def word(self) -> str:
        """What a table says of it."""
        return ("equal", "close", "unknown", "differ")[self]


class Finding(NamedTuple):
    """How alike two answers are, and where they are least so.

    Attributes:
        likeness: of the least alike part.
        told: that part in words, such as ``"item 3['x']: 2 instead of 1"``; empty where all is equal.
    """

    likeness: Likeness
    told: str = ""


_EQUAL = Finding(Likeness.EQUAL)


def compare_answers(found: Sequence[Any], expected: Sequence[Any]) -> Finding:
    """Return how alike the answers of two maps are.

    Args:
        found: one map's, by item.
        expected: those that they are compared with.
    """
    if len(found) != len(expected):
        return Finding(Likeness.DIFFERENT, f"{len(found)} answers instead of {len(expected)}")
    try:
        return _Comparer().pairs(found, expected, "item ", "")
    except RecursionError:
        return Finding(Likeness.UNKNOWN, "the answers are nested too deeply to be compared")


class _Comparer:
    """Walks through two answers side by side."""

    def __init__(self) -> None:
        self._under_way: set[tuple[int, int]] = set()  # an object may contain itself

    def alike(self, a: Any, b: Any, where: str) -> Finding:
        if a is b:
            return _EQUAL
        if not _same_type(a, b):
            mine, other = (f"{short_repr(each)} ({_name(type(each))})" for each in (a, b))
            return _different(a, b, where, f"{mine} instead of {other}")
        if type(a) in (float, complex):
            return _numbers(a, b, where)
        if type(a) in _PLAIN:
            return _EQUAL if a == b else _different(a, b, where)
        mark = (id(a), id(b))
        if mark in self._under_way:
            return _EQUAL
        self._under_way.add(mark)
        try:
            return self._contents(a, b, where)
        except RecursionError:
            raise
        except Exception as error:  # the == of a user's class, say
            told = f"{where}: comparing two {type(a).__name__} raised {type(error).__name__}: {error}"
            return Finding(Likeness.UNKNOWN, told)
        finally:
            self._under_way.remove(mark)

    def _contents(self, a: Any, b: Any, where: str) -> Finding:
        numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
        if numpy is not None and isinstance(a, numpy.ndarray | numpy.generic):
            return self._arrays(numpy, a, b, where)
        if pandas is not None and isinstance(a, pandas.DataFrame | pandas.Series | pandas.Index):
            return self._pandas(pandas, a, b, where)
        if isinstance(a, list | tuple | deque):
            if len(a) != len(b):
                return _different(a, b, where, f"of length {len(a)} instead of {len(b)}")
            return self.pairs(a, b, f"{where}[", "]")
        if isinstance(a, Mapping):
            return self._mappings(a, b, where)
        if isinstance(a, Set):
            return self._unordered([each for each in a if each not in b], [each for each in b if each not in a], where)
        if dataclasses.is_dataclass(a) and not isinstance(a, type):
            names = [each.name for each in dataclasses.fields(a) if each.compare]
            return self._parts(((f".{name}", getattr(a, name), getattr(b, name)) for name in names), where)
        if isinstance(a, BaseException):
            return self.alike((a.args, vars(a)), (b.args, vars(b)), where)
        return self._objects(a, b, where)

    def pairs(self, a: Iterable[Any], b: Iterable[Any], before: str, after: str) -> Finding:
        """Compare two sequences of the same length."""
        if _quickly_same(list(a), list(b)):
            return _EQUAL
        pairs = zip(a, b, strict=True)
        return self._parts(((f"{before}{index}{after}", *pair) for index, pair in enumerate(pairs)), "")

    def _parts(self, parts: Iterable[tuple[str, Any, Any]], where: str) -> Finding:
        worst = _EQUAL
        for name, a, b in parts:
            found = self.alike(a, b, f"{where}{name}")
            if found.likeness > worst.likeness:
                worst = found
                if worst.likeness is Likeness.DIFFERENT:
                    break
        return worst

    def _mappings(self, a: Mapping[Any, Any], b: Mapping[Any, Any], where: str) -> Finding:
        if a.keys() != b.keys():  # a NaN among the keys is found by no look-up
            only_a, only_b = ([key for key in one if key not in other] for one, other in ((a, b), (b, a)))
            found = self._unordered([(key, a[key]) for key in only_a], [(key, b[key]) for key in only_b], where)
            if found.likeness > Likeness.CLOSE:
                return found
        shared = (key for key in b if key in a)
        return self._parts(((f"[{short_repr(key)}]", a[key], b[key]) for key in shared), where)

    def _unordered(self, a: list[Any], b: list[Any], where: str) -> Finding:
        """Compare what has no equal in the other of two collections: NaNs, or floats that are close."""
        if len(a) != len(b) or len(a) > _UNPAIRED:
            extra = f"{short_repr(a[0])} is only here" if a else f"{short_repr(b[0])} is missing"
            return Finding(Likeness.DIFFERENT, f"{where}: {extra}")
        worst = _EQUAL
        for each in a:
            best = min((self.alike(each, other, where) for other in b), key=lambda found: found.likeness)
            if best.likeness is Likeness.DIFFERENT:
                return Finding(Likeness.DIFFERENT, f"{where}: {short_repr(each)} is only here")
            worst = max(worst, best, key=lambda found: found.likeness)
        return worst

    def _objects(self, a: Any, b: Any, where: str) -> Finding:
        own = any("__eq__" in vars(each) for each in type(a).__mro__[:-1])
        if own:
            same = _truth(a == b)
            if same or (same is False and _differs_from_itself(a) and _differs_from_itself(b)):
                return _EQUAL
            if same is False:
                return _different(a, b, where)
        state = _state(a)
        if state is None:
            if not own and type(a) is object:
                return _EQUAL
            return Finding(Likeness.UNKNOWN, f"{where}: two {type(a).__name__} can't be compared")
        return self._parts(((f".{name}", state[name], value) for name, value in (_state(b) or {}).items()), where)

    # ---- NumPy and pandas ----

    def _arrays(self, numpy: Any, a: Any, b: Any, where: str) -> Finding:
        if a.dtype != b.dtype:
            return _different(a, b, where, f"of {a.dtype} instead of {b.dtype}")
        if a.shape != b.shape:
            return _different(a, b, where, f"of shape {a.shape} instead of {b.shape}")
        if isinstance(a, numpy.ma.MaskedArray):
            found = self._arrays(numpy, numpy.ma.getmaskarray(a), numpy.ma.getmaskarray(b), f"{where}.mask")
            return found if found.likeness else self._arrays(numpy, a.compressed(), b.compressed(), where)
        a, b = numpy.asarray(a), numpy.asarray(b)
        if a.dtype.names:
            return self._parts(((f"[{name!r}]", a[name], b[name]) for name in a.dtype.names), where)
        if a.dtype.hasobject:
            before = f"{where}[" if a.ndim == 1 else f"{where}.flat["
            return self.pairs(a.ravel().tolist(), b.ravel().tolist(), before, "]")
        same = (a == b) | ((a != a) & (b != b))
        if numpy.all(same):
            return _EQUAL
        place = tuple(int(index) for index in numpy.argwhere(~same)[0]) if a.ndim else ()
        at = f"{where}[{', '.join(map(str, place))}]" if place else where
        told = f"{at}: {_scalar(a[place])} instead of {_scalar(b[place])}"
        if a.dtype.kind in "fc":
            finite = numpy.abs(b[numpy.isfinite(b)])
            room = CLOSE * float(finite.max(initial=0.0))  # of the largest: next to it the smallest are noise
            if numpy.isclose(a, b, rtol=0.0, atol=room, equal_nan=True).all():
                return Finding(Likeness.CLOSE, told)
        return Finding(Likeness.DIFFERENT, told)

    def _pandas(self, pandas: Any, a: Any, b: Any, where: str) -> Finding:
        if a.shape != b.shape:
            return _different(a, b, where, f"of shape {a.shape} instead of {b.shape}")
        if isinstance(a, pandas.Index):
            return self._columns(a, b, where)
        labels = self._parts(((".index", a.index, b.index),), where)
        if labels.likeness > Likeness.CLOSE:
            return labels
        if isinstance(a, pandas.Series):
            return max(labels, self._columns(a, b, where), key=lambda found: found.likeness)
        named = self._parts(((".columns", a.columns, b.columns),), where)
        if named.likeness:
            return named
        columns = ((f"[{a.columns[at]!r}]", a.iloc[:, at], b.iloc[:, at]) for at in range(a.shape[1]))
        return max(labels, self._parts(columns, where), key=lambda found: found.likeness)

    def _columns(self, a: Any, b: Any, where: str) -> Finding:
        """Compare two Series or Index, without the index of a Series."""
        if a.dtype != b.dtype:
            return _different(a, b, where, f"of {a.dtype} instead of {b.dtype}")
        names = self.alike(list(getattr(a, "names", [a.name])), list(getattr(b, "names", [b.name])), f"{where}.name")
        return names if names.likeness else self.alike(a.to_numpy(), b.to_numpy(), where)


def _quickly_same(a: Any, b: Any) -> bool:
    """Return whether two answers of the usual types are equal; False where it takes a closer look to tell."""
    try:
        return _same(a, b)
    except RecursionError:
        return False


def _same(a: Any, b: Any) -> bool:
    kind = type(a)
    if kind is not type(b):
        return False
    if kind in _PLAIN:
        return bool(a == b or (a != a and b != b))
    if kind is list or kind is tuple:
        if len(a) != len(b):
            return False
        kinds = list(map(type, a))
        if _PLAIN.issuperset(kinds) and kinds == list(map(type, b)) and a == b:  # at the speed of C
            return True
        return all(map(_same, a, b))
    if kind is dict:
        return len(a) == len(b) and all(key in b and _same(value, b[key]) for key, value in a.items())
    return False


def _same_type(a: Any, b: Any) -> bool:
    """Return whether two objects are of one class, or of one that was rebuilt from the same definition."""
    mine, other = type(a), type(b)
    return mine is other or (mine.__module__, mine.__qualname__) == (other.__module__, other.__qualname__)


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _numbers(a: Any, b: Any, where: str) -> Finding:
    if a == b or (a != a and b != b):
        return _EQUAL
    close = cmath.isclose(a, b, rel_tol=CLOSE)
    return Finding(Likeness.CLOSE, f"{where}: {a!r} instead of {b!r}") if close else _different(a, b, where)


def _different(a: Any, b: Any, where: str, why: str = "") -> Finding:
    return Finding(Likeness.DIFFERENT, f"{where}: {why or f'{short_repr(a)} instead of {short_repr(b)}'}")


def _scalar(value: Any) -> str:
    return short_repr(value.item() if hasattr(value, "item") else value)


def _truth(told: Any) -> bool | None:
    """Return what an ``==`` says, `None` if it is no word on the whole; of arrays it is one of all elements."""
    try:
        return bool(told)
    except Exception:
        try:
            return bool(told.all())
        except Exception:
            return None


def _differs_from_itself(value: Any) -> bool:
    """Return whether an object is something like a NaN: ``pandas.NaT``, ``Decimal("NaN")``."""
    try:
        return bool(value != value)
    except Exception:  # an == that gives an array
        return False


def _state(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object, `None` if it has none to be seen."""
    slots = [name for each in type(value).__mro__ for name in _slots(each) if hasattr(value, name)]
    if not hasattr(value, "__dict__") and not slots:
        return None
    if isinstance(value, type) or (callable(value) and not getattr(value, "__dict__", None)):
        return None  # a function: its attributes say nothing of it
    return {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}


def _slots(kind: type) -> list[str]:
    names = kind.__dict__.get("__slots__", ())
    found = [names] if isinstance(names, str) else list(names)
    return [name for name in found if name not in ("__dict__", "__weakref__")]
