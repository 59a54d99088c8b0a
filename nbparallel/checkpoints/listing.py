"""What ``nbparallel checkpoints`` prints and removes. Called by the command line only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from nbparallel.checkpoints.places import SUFFIX, folder, path_of
from nbparallel.checkpoints.store import remove, summaries
from nbparallel.errors import CheckpointError
from nbparallel.words import human_size

_HEAD = ("NAME", "FUNCTION", "RESULTS", "SIZE", "WRITTEN")
_NUMBERS = frozenset({2, 3})  # columns that are aligned to the right
_AGES = (("year", 31_556_952), ("month", 2_629_746), ("day", 86_400), ("hour", 3_600), ("minute", 60))


def named() -> list[str]:
    """Return the names of the checkpoints in this user's folder."""
    return sorted(path.stem for path in folder().glob(f"*{SUFFIX}"))


def table(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Describe checkpoints.

    Args:
        names: their names or paths.

    Returns:
        The lines of a table, a line for each function, and what is wrong with those that can't be read.
    """
    rows: list[Sequence[str]] = [_HEAD]
    problems = []
    for name in names:
        try:
            path = path_of(name)
            if not path.exists():
                raise CheckpointError(f"there is no checkpoint {path}")
            found = summaries(path)
        except (CheckpointError, ValueError) as error:
            problems.append(str(error))
            continue
        rows += [
            (name, each.function, f"{each.results:,}", human_size(each.bytes), age_of(time.time() - each.written))
            for each in found
        ] or [(name, "–", "0", human_size(0), "never")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number in _NUMBERS else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return (lines if len(rows) > 1 else []), problems


def remove_all(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Remove checkpoints by name or path; return those that are gone, and what is wrong with the others."""
    gone, problems = [], []
    for name in names:
        try:
            remove(path_of(name))
        except (CheckpointError, ValueError) as error:
            problems.append(str(error))
        else:
            gone.append(name)
    return gone, problems


def age_of(seconds: float) -> str:
    """Return how long ago something was, such as ``"3 hours ago"``."""
    for unit, length in _AGES:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
