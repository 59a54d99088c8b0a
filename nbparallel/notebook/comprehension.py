"""A comprehension, read with Python's own parser and taken apart into a function and its inputs.

Called by `maps`. ``f(x, n) for x in xs if x > 0`` becomes a function of ``x``, which travels to workers like any
function of a cell, and the list of the inputs that pass: the loops and conditions are evaluated here. Loops can also
stand alone, where the function is the body of a cell (see `body`).
"""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError

_EXAMPLE = "for example: f(x) for x in xs"
# Of these Python says more where no brackets of ours are around.
_OF_BRACKETS = re.compile("never closed|unmatched|does not match|unterminated")


@dataclass(frozen=True)
class Loops:
    """The loops of a comprehension that was read.

    Attributes:
        file: the name that their code has in tracebacks.
        loops: the ``for`` parts, with their conditions.
        names: the variables that a task gets from them, in order.
    """

    file: str
    loops: list[ast.comprehension]
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        """Their source, cut to what fits beside a bar."""
        return short(" ".join(map(_source_of, self.loops)))

    def inputs(self, user: dict[str, Any], local: Mapping[str, Any] | None = None) -> list[Iterable[Any]]:
        """Return one iterable per name; evaluates the loops.

        Args:
            user: the notebook's namespace.
            local: the variables of the function that the magic stands in.
        """
        namespace = _merged(user, local)
        first = self.loops[0]
        if len(self.loops) == 1 and not first.ifs and isinstance(first.target, ast.Name):
            return [self._evaluate(first.iter, namespace)]  # as it is: a generator is pulled only as needed
        values: list[ast.expr] = [ast.Name(name, ast.Load()) for name in self.names]
        row = values[0] if len(values) == 1 else ast.Tuple(values, ast.Load())
        rows = self._evaluate(ast.ListComp(row, self.loops), namespace)
        if len(values) == 1:
            return [rows]
        return list(zip(*rows, strict=True)) if rows else [()] * len(values)

    def _evaluate(self, node: ast.expr, namespace: dict[str, Any]) -> Any:
        expression = ast.fix_missing_locations(ast.Expression(node))
        return eval(compile(expression, self.file, "eval", dont_inherit=True), namespace)


@dataclass(frozen=True)
class Comprehension(Loops):
    """A comprehension that was read.

    Attributes:
        element: the expression to compute.
    """

    element: ast.expr

    @property
    def label(self) -> str:
        """The element's source, cut to what fits beside a bar."""
        return short(ast.unparse(self.element))

    def function(self, user: dict[str, Any], local: Mapping[str, Any] | None = None) -> Callable[..., Any]:
        """Return a function of `names` that computes the element.

        Args:
            user: the notebook's namespace, which becomes the function's globals.
            local: the variables of the function that the magic stands in; it closes over those that it uses.
        """
        call = self.element
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id not in self.names:
            given = [arg.id if isinstance(arg, ast.Name) else None for arg in call.args]
            if not call.keywords and given == list(self.names):  # f(x) for x in xs: f itself, by its own name
                return self._evaluate(call.func, _merged(user, local))  # type: ignore[no-any-return]
        used = _names(self.element)
        outer = [] if local is None or local is user else [name for name in used if name in local]
        inner = ast.Lambda(_parameters(self.names), self.element)
        made = self._evaluate(ast.Lambda(_parameters(outer), inner), user)(*(local[name] for name in outer))  # type: ignore[index]
        made.__code__ = made.__code__.replace(co_name="<pmap>", co_qualname="<pmap>")
        made.__name__ = made.__qualname__ = "<pmap>"
        return made  # type: ignore[no-any-return]


def parse(text: str, magic: str = "%pmap") -> Comprehension:
    """Read a comprehension, with or without its brackets.

    Args:
        text: the source.
        magic: how the magic is called, for errors.

    Raises:
        UsageError: it is empty, not Python, not a comprehension, or one whose result is no list.
    """
    if not text.strip():
        raise UsageError(f"{magic} needs a comprehension, {_EXAMPLE}")
    file = f"<{magic} {text}>"
    found = _parse(text, "", file, magic)
    if not isinstance(found, ast.GeneratorExp | ast.ListComp):
        if isinstance(found, ast.SetComp | ast.DictComp):
            raise UsageError(f"{magic} returns a list: leave the braces out and make a set or a dict of it")
        raise UsageError(f"{magic} takes a comprehension, {_EXAMPLE}")
    names = _variables(found, _names(found.elt), magic)
    _show_in_tracebacks(file, text)
    return Comprehension(file, found.generators, names, found.elt)


def parse_loops(text: str, used: Container[str], magic: str = "%%pfor") -> Loops:
    """Read the loops of a comprehension, whose first ``for`` may be missing, and may have the colon of a statement.

    Args:
        text: the source, such as ``a, b in pairs if a > b``.
        used: the names that the body mentions.
        magic: how the magic is called, for errors.

    Raises:
        UsageError: they are missing, or not what follows the element of a comprehension.
    """
    text = text.rstrip().removesuffix(":").rstrip()
    if not text:
        raise UsageError(f"{magic} needs what to loop over, for example: {magic} x in xs")
    file = f"<{magic} {text}>"
    found = _parse(text, "0" if re.match(r"(async\s+)?for\b", text) else "0 for", file, magic)
    if not isinstance(found, ast.GeneratorExp):
        raise UsageError(f"{magic} takes loops as in a comprehension, for example: {magic} x in xs if x > 0")
    names = _variables(found, used, magic)
    _show_in_tracebacks(file, text)
    return Loops(file, found.generators, names)


def _parse(text: str, head: str, file: str, magic: str) -> ast.expr:
    # On lines of their own, the brackets leave all columns as they are.
    source = f"({head}\n{text}\n)"
    try:
        tree = ast.parse(source, file, "eval")
        compile(tree, file, "eval", dont_inherit=True)  # finds what the grammar alone allows, such as a yield
    except SyntaxError as error:
        error.lineno = (error.lineno or 2) - 1
        raise usage_error(_clearest(error, text), text, magic) from None
    except ValueError as error:  # a null character
        raise UsageError(f"{magic}: {error}") from None
    return ast.increment_lineno(tree, -1).body


def _clearest(error: SyntaxError, text: str) -> SyntaxError:
    """Return the error in the user's own text: with our brackets around it, a bracket too few is reported as ours."""
    try:
        ast.parse(text, mode="eval")
    except SyntaxError as own:
        if _OF_BRACKETS.search(own.msg):
            return own
    return error


def usage_error(error: SyntaxError, text: str, magic: str) -> UsageError:
    """Return what a magic raises for an error in its text; it shows the line, and points at the place.

    Args:
        error: its line counts from the text's first.
        text: the source.
        magic: how the magic is called.
    """
    lines = text.splitlines()
    number = min(max(error.lineno or 1, 1), len(lines))
    line = lines[number - 1]
    column = min(max((error.offset or 1) - 1, 0), len(line)) if number == error.lineno else len(line)
    where = f" (line {number} of the cell)" if len(lines) > 1 else ""
    return UsageError(f"{magic}: {error.msg}{where}\n    {line}\n    {' ' * column}^")


def _show_in_tracebacks(file: str, text: str) -> None:
    # Here and in workers: serialize sends what linecache has of a file that isn't one.
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)


def _variables(found: ast.GeneratorExp | ast.ListComp, used: Container[str], magic: str) -> tuple[str, ...]:
    """Return the variables that what is computed gets from the loops.

    Args:
        found: the comprehension.
        used: the names that it mentions.
        magic: how the magic is called, for errors.
    """
    loops = found.generators
    if any(loop.is_async for loop in loops) or any(isinstance(node, ast.Await) for node in ast.walk(found)):
        raise UsageError(f"{magic} can't run an asynchronous comprehension: the event loop is the notebook's alone")
    names = list(dict.fromkeys(name for loop in loops for name in _targets(loop.target, magic)))
    if not names:
        raise UsageError(f"{magic} needs a loop variable")
    # `if (y := g(x))` binds y beside the loop's own variables, and the element may use it.
    conditions = [node for loop in loops for node in loop.ifs]
    bound = dict.fromkeys(
        node.target.id for each in conditions for node in ast.walk(each) if isinstance(node, ast.NamedExpr)
    )
    return (*names, *(name for name in bound if name in used and name not in names))


def short(source: str) -> str:
    """Return a source cut to what fits beside a bar."""
    return source if len(source) <= 40 else f"{source[:39]}…"


def _source_of(loop: ast.comprehension) -> str:
    target = ast.unparse(loop.target)
    if isinstance(loop.target, ast.Tuple) and len(loop.target.elts) > 1:
        target = target[1:-1]
    return " if ".join([f"for {target} in {ast.unparse(loop.iter)}", *map(ast.unparse, loop.ifs)])


def _targets(target: ast.expr, magic: str) -> Iterable[str]:
    match target:
        case ast.Name():
            yield target.id
        case ast.Tuple() | ast.List():
            for each in target.elts:
                yield from _targets(each, magic)
        case ast.Starred():
            yield from _targets(target.value, magic)
        case _:
            raise UsageError(f"{magic}: a loop variable must be a name, not {ast.unparse(target)}")


def _names(tree: ast.AST) -> dict[str, None]:
    """Return the names that an expression mentions, each once, in order."""
    return dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _parameters(names: Sequence[str]) -> ast.arguments:
    args = [ast.arg(name) for name in names]
    return ast.arguments(posonlyargs=[], args=args, kwonlyargs=[], kw_defaults=[], defaults=[])


def _merged(user: dict[str, Any], local: Mapping[str, Any] | None) -> dict[str, Any]:
    # One dictionary: the scopes inside an evaluated expression see globals only.
    return user if local is None or local is user else {**user, **local}
