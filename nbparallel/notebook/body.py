"""The body of a cell magic, made into a function that travels to workers like any other of a cell.

Called by `maps` and `jobs`. Its last expression becomes what the function returns, and its lines keep the numbers that
they have in the cell, so that tracebacks show the cell. Nothing of the body runs here.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError
from IPython.utils.text import DollarFormatter

from nbparallel.notebook import cells
from nbparallel.notebook.comprehension import short, usage_error


@dataclass(frozen=True)
class Body:
    """A body that was read.

    Attributes:
        magic: how its magic is called.
        cell: where it stands.
        statements: what it does.
    """

    magic: str
    cell: cells.Cell
    statements: list[ast.stmt]

    @property
    def names(self) -> frozenset[str]:
        """The names that it mentions."""
        nodes = (node for statement in self.statements for node in ast.walk(statement))
        return frozenset(node.id for node in nodes if isinstance(node, ast.Name))

    @property
    def first_line(self) -> str:
        """Its first statement's first line, cut to what fits beside a bar."""
        return short(self.cell.lines[self.statements[0].lineno - 1].strip())

    def function(self, user: dict[str, Any], parameters: Sequence[str] = ()) -> Callable[..., Any]:
        """Return the function.

        Args:
            user: the notebook's namespace, which becomes its globals.
            parameters: its parameters.

        Raises:
            UsageError: it says what no function may, such as ``from x import *``.
        """
        name = f"<{self.magic.lstrip('%')}>"
        tree = ast.parse("def f(): pass")
        made = tree.body[0]
        assert isinstance(made, ast.FunctionDef)
        made.name = name
        made.args.args = [ast.arg(each, lineno=1, col_offset=0) for each in parameters]
        made.body = [_returned(self.statements[-1]) if at is self.statements[-1] else at for at in self.statements]
        found: dict[str, Any] = {}
        try:
            code = compile(ast.fix_missing_locations(tree), self.cell.file, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise usage_error(error, self.cell.text, self.magic) from None
        exec(code, user, found)
        function = found[name]
        # As a cell's own code is called: its frames then show the whole cell, and not what looks like a definition.
        function.__code__ = function.__code__.replace(co_name="<module>", co_qualname="<module>")
        return function  # type: ignore[no-any-return]


def read(
    cell: cells.Cell,
    magic: str,
    transform: Callable[[str], str],
    *,
    has_shell: bool,
    in_loop: bool,
    on_threads: str = "-b threads",
) -> Body:
    """Read the body of a cell.

    Args:
        cell: where it stands.
        magic: how the magic is called, for errors.
        transform: makes Python of IPython's own syntax (``!ls``, ``%cd ..``).
        has_shell: whether it runs in a process that has IPython's shell. Elsewhere only ``!commands`` can work.
        in_loop: whether it is that of a loop, in which ``continue`` ends an item.
        on_threads: the option of the magic that has threads compute it, for errors.

    Raises:
        UsageError: it is empty, not Python, or has what can't work where it runs; the message shows the line.
    """
    statements = _parse(cell, magic, transform)
    if not statements:
        raise UsageError(f"{magic} needs a body: what to compute, in the lines below")
    checks = [] if has_shell else [_Commands(on_threads), _Globals(on_threads)]
    for each in [_Ends(in_loop=in_loop), *checks]:
        try:
            statements = [each.visit(statement) for statement in statements]
        except _Refused as refused:
            raise _error_at(refused.node, str(refused), cell, magic) from None
    return Body(magic, cell, statements)


def _parse(cell: cells.Cell, magic: str, transform: Callable[[str], str]) -> list[ast.stmt]:
    lines = cell.lines
    body = "".join(lines[cell.first :])
    # The body of a loop may be indented, as it was in the loop; a statement above that allows it moves no line.
    code = [line for line in lines[cell.first :] if line.strip() and not line.lstrip().startswith("#")]
    indented = bool(code) and code[0][0] in " \t"
    head = "\n" * (cell.first - 1) + ("if 1:\n" if indented else "\n")
    try:
        tree = ast.parse(head + body, cell.file)
    except SyntaxError as error:
        try:
            transformed = transform(body)
        except SyntaxError:  # IPython looks for tokens
            transformed = body
        if [line.strip() for line in transformed.splitlines()] == [line.strip() for line in body.strip().splitlines()]:
            raise usage_error(error, cell.text, magic) from None
        # It has taken the blank lines away that the body begins with.
        blank = sum(1 for _ in itertools.takewhile(lambda line: not line.strip(), lines[cell.first :]))
        try:
            tree = ast.parse("\n" * (cell.first + blank) + transformed, cell.file)
        except SyntaxError as second:
            raise usage_error(second, cell.text, magic) from None
        return tree.body
    except ValueError as error:  # a null character
        raise UsageError(f"{magic}: {error}") from None
    if not indented:
        return tree.body
    block, *rest = tree.body
    if rest:
        raise _error_at(rest[0], "this line is not indented as the first one is", cell, magic)
    assert isinstance(block, ast.If)
    return block.body


def _returned(statement: ast.stmt) -> ast.stmt:
    if not isinstance(statement, ast.Expr):
        return statement
    return ast.copy_location(ast.Return(statement.value), statement)


# ---- what a body may not do, and what becomes of what it does -----------------------------------------------------


class _Refused(Exception):
    def __init__(self, node: ast.AST, why: str) -> None:
        super().__init__(why)
        self.node = node


def _error_at(node: Any, message: str, cell: cells.Cell, magic: str) -> UsageError:
    error = SyntaxError(message)
    before = cell.lines[node.lineno - 1].encode()[: node.col_offset]  # a node counts in bytes
    error.lineno, error.offset = node.lineno, len(before.decode(errors="ignore")) + 1
    return usage_error(error, cell.text, magic)


class _OwnScope(ast.NodeTransformer):
    """Visits what belongs to the body's function itself, not to those that are defined in it."""

    def visit_inner(self, node: Any) -> Any:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_inner  # noqa: N815


class _Ends(_OwnScope):
    """How an item ends: ``continue`` becomes a return, and what would make the function another kind is refused."""

    def __init__(self, *, in_loop: bool) -> None:
        self._in_loop = in_loop
        self._depth = 0

    def visit_loop(self, node: Any) -> Any:
        self._depth += 1
        node.body = [self.visit(each) for each in node.body]
        self._depth -= 1
        node.orelse = [self.visit(each) for each in node.orelse]
        for part in ("target", "iter", "test"):
            if hasattr(node, part):
                setattr(node, part, self.visit(getattr(node, part)))
        return node

    visit_For = visit_While = visit_loop  # noqa: N815

    def visit_Continue(self, node: ast.Continue) -> ast.stmt:
        return ast.copy_location(ast.Return(None), node) if self._in_loop and not self._depth else node

    def visit_Break(self, node: ast.Break) -> ast.stmt:
        if self._in_loop and not self._depth:
            raise _Refused(node, "'break' can't end the loop: its items run at the same time, in any order")
        return node

    def visit_yields(self, node: Any) -> Any:
        raise _Refused(node, "'yield' outside a function: the last expression is the result, or what 'return' gives")

    visit_Yield = visit_YieldFrom = visit_yields  # noqa: N815

    def visit_awaits(self, node: Any) -> Any:
        raise _Refused(node, "no event loop runs there: put it into an async function, and call asyncio.run")

    visit_Await = visit_AsyncFor = visit_AsyncWith = visit_awaits  # noqa: N815


class _Globals(_OwnScope):
    """Refuses ``global`` where the notebook's variables are copies: what is assigned would be lost in silence."""

    def __init__(self, on_threads: str) -> None:
        self._on_threads = on_threads

    def visit_Global(self, node: ast.Global) -> ast.stmt:
        names = ", ".join(node.names)
        raise _Refused(
            node,
            f"'global {names}' would only change a worker's copy: let the last expression be the result, and go on "
            f"with it here ({self._on_threads} shares the variables)",
        )


class _Commands(ast.NodeTransformer):
    """Has ``!commands`` run without IPython's shell, and refuses all else that needs it."""

    def __init__(self, on_threads: str) -> None:
        self._on_threads = on_threads

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr=what),
                args=[ast.Constant(value=str(first)), *_],
            ):
                if what in ("system", "getoutput"):
                    return _command(first, "run" if what == "system" else "lines_of", node)
                shown = {"run_line_magic": f"%{first}", "run_cell_magic": f"%%{first}"}.get(what, f"!{first}")
                raise _Refused(node, f"{shown} needs IPython, which is not in worker processes ({self._on_threads})")
        return node


def _command(command: str, how: str, place: ast.expr) -> ast.expr:
    """Return the call that runs a command, whose expressions are code of the body: what they name travels with it."""
    source = f"__import__('nbparallel.commands', fromlist=['{how}']).{how}(0, lambda: 0)"
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    expanded = call.args[1]
    assert isinstance(expanded, ast.Lambda)
    call.args[0] = ast.Constant(command)
    try:
        expanded.body = _expanded(command)
    except (SyntaxError, ValueError):  # no expression between the braces: they are the shell's
        expanded.body = ast.Constant(command)
    for node in ast.walk(call):
        if "lineno" in node._attributes:
            ast.copy_location(node, place)
    return call


def _expanded(command: str) -> ast.expr:
    parts: list[ast.expr] = []
    for literal, field, spec, conversion in DollarFormatter().parse(command):
        if literal:
            parts.append(ast.Constant(literal))
        if field is not None:
            value = ast.parse(f"{field}:{spec}" if spec else field, mode="eval").body
            parts.append(ast.FormattedValue(value, ord(conversion) if conversion else -1, None))
    return ast.JoinedStr(parts)
