"""The options of a magic: read from the front of its line, while the rest stays as it was typed.

Called by the magics. argparse and IPython's own parser split the whole line at spaces and quotes, which breaks the
expression that follows.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError

_OPTION = re.compile(
    r"(?:(?P<long>--[A-Za-z][\w-]*)(?:\s*=\s*|\s+|$)|(?P<short>-[A-Za-z])\s*=?\s*)"
    r"(?:\"(?P<quoted>[^\"]*)\"|(?P<value>\S*))\s*"
)
_END = re.compile(r"--(?:\s+|$)")


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: what its value is called.
        read: makes the value of its text, and raises ValueError or TypeError, with a message, for a wrong one.
    """

    name: str
    read: Callable[[str], Any]


def split_options(line: str, known: Mapping[str, Option], magic: str) -> tuple[dict[str, Any], str]:
    """Return the options that a line begins with, by name, and the rest of it, untouched.

    Args:
        line: what follows the magic's name. A ``--`` of its own ends the options; a value with spaces stands in double
            quotes.
        known: by spelling, such as ``"-j"`` and ``"--workers"``.
        magic: how the magic is called, for errors.

    Raises:
        UsageError: an option is unknown, or has no value or a wrong one.
    """
    found: dict[str, Any] = {}
    rest = line.strip()
    while not _END.match(rest) and (match := _OPTION.match(rest)):
        spelling = match["long"] or match["short"]
        option = known.get(spelling)
        if option is None:
            raise UsageError(
                f"{magic}: unknown option {spelling}; known: {', '.join(known)}. "
                "An expression that begins with a minus goes behind --"
            )
        value = match["quoted"] or match["value"]
        if not value:
            raise UsageError(f"{magic}: {spelling} needs a value")
        try:
            found[option.name] = option.read(value)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{magic}: {spelling} {value}: {error}") from None
        rest = rest[match.end() :]
    return found, _END.sub("", rest, count=1) if _END.match(rest) else rest


def whole_number(text: str) -> int:
    """Return the number that a text is.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError("this must be a whole number") from None


def variable_name(text: str) -> str:
    """Return a text that can be a variable's name.

    Raises:
        ValueError: it can't.
    """
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("this must be the name of a variable")
    return text
