"""Where the body of a cell magic stands: in which file of the running cell, and from which line on.

Called by `maps` and `jobs`, for `body`. IPython compiles not the cell but a call of the magic, and that is also what
tracebacks would show: here the cell's own lines are put in its place.
"""

from __future__ import annotations

import ast
import linecache
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        file: the name that its code has in tracebacks.
        lines: all its lines.
        first: how many stand above the body.
    """

    file: str
    lines: list[str]
    first: int

    @property
    def text(self) -> str:
        """Its source."""
        return "".join(self.lines)


def running(shell: Any, magic: str, line: str, body: str) -> Cell:
    """Return the cell that a cell magic stands in.

    Args:
        shell: IPython's, which runs it.
        magic: its name, with the percent signs.
        line: what follows the name.
        body: the lines below.
    """
    file = _file(shell)
    lines = [] if file is None else _as_typed(linecache.getlines(file))
    first = len(lines) - len(body.splitlines())
    if file is None or first < 1 or "".join(lines[first:]).rstrip() != body.rstrip():
        # It is run by a program, or changed by another magic around it.
        lines = f"{magic} {line}\n{body}".splitlines(keepends=True)
        file, first = f"<{magic} {line}>", 1
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
    return Cell(file, lines, first)


def _file(shell: Any) -> str | None:
    """Return the file of the innermost code of a cell that runs."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if shell.compile.format_code_name(frame.f_code.co_filename) is not None:
            return frame.f_code.co_filename
        frame = frame.f_back
    return None


def _as_typed(lines: list[str]) -> list[str]:
    """Return a cell's lines where they are those of the call that IPython has made of it."""
    try:
        [statement] = ast.parse("".join(lines)).body
    except (SyntaxError, ValueError):  # it was put in place before
        return lines
    match statement:
        case ast.Expr(ast.Call(func=ast.Attribute(attr="run_cell_magic"), args=[*args])):
            name, line, body = (ast.literal_eval(arg) for arg in args)
            return [f"%%{name} {line}".rstrip() + "\n", *body.splitlines(keepends=True)]
    return lines
