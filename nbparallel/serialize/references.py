"""What a function refers to: the globals that travel with it, and nothing else.

The rule is dill's ``recurse=True``. The finding is not: ``dill.detect.globalvars`` swaps ``sys.stdout`` to read the
printed disassembly, which would steal the output of a notebook's other threads. Called by `functions` and `explain`.
"""

from __future__ import annotations

import ast
import dis
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from nbparallel.serialize import modules, weakly

_GLOBAL_OPS = frozenset(
    dis.opmap[name]
    for name in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
    if name in dis.opmap
)
# Functions through which any global can be reached by a name that only exists at run time.
DYNAMIC_LOOKUPS = frozenset({"globals", "eval", "exec", "vars"})

# By id: the code, the names, and how many of them are sure.
_cache: dict[int, tuple[weakref.ref[CodeType], tuple[str, ...], int]] = {}


def walk_code(code: CodeType) -> Iterator[CodeType]:
    """Yield `code` and the code objects nested in it (inner functions, comprehensions, class bodies)."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from walk_code(const)


def global_names(code: CodeType) -> tuple[str, ...]:
    """Return the names of the globals that `code` loads, in a fixed order.

    Where the code calls ``globals()`` and its like, string constants count as names too, so that
    ``globals()["helper"]`` finds its helper.
    """
    return _names(code)[0]


def guessed_names(code: CodeType) -> tuple[str, ...]:
    """Return those of the names that are only string constants, which may be no names at all."""
    names, sure = _names(code)
    return names[sure:]


def _names(code: CodeType) -> tuple[tuple[str, ...], int]:
    known = _cache.get(id(code))
    if known is None or known[0]() is not code:
        found: dict[str, None] = {}
        for part in walk_code(code):
            for instruction in dis.get_instructions(part):
                if instruction.opcode in _GLOBAL_OPS:
                    found[instruction.argval] = None
        sure = len(found)
        if not DYNAMIC_LOOKUPS.isdisjoint(found):
            for part in walk_code(code):
                for const in part.co_consts:
                    if isinstance(const, str) and const.isidentifier():
                        found[const] = None
        known = _cache[id(code)] = (weakly.reference(code, _cache, id(code)), tuple(found), sure)
    return known[1:]


def referenced_globals(function: FunctionType) -> dict[str, Any]:
    """Return the globals that `function` refers to and that exist now, by name."""
    namespace = function.__globals__
    return {
        name: namespace[name]
        for name in global_names(function.__code__)
        if name in namespace and name != "__builtins__"
    }


def imported_submodules(code: CodeType, values: Iterable[Any]) -> list[str]:
    """Return the submodules that `code` reaches by attribute (``import a.b.c`` then ``a.b.c.f()``).

    A worker that only imports ``a`` would not have ``a.b``.
    """
    attributes = {name for part in walk_code(code) for name in part.co_names}
    found: list[str] = []
    search = [value.__name__ for value in values if isinstance(value, ModuleType)]
    while search:
        parent = search.pop()
        inner = [name for name in (f"{parent}.{attribute}" for attribute in attributes) if name in sys.modules]
        search += inner
        found += [name for name in inner if modules.is_importable(name)]
    return sorted(found)


def names_in_hints(annotations: Mapping[str, Any]) -> list[str]:
    """Return the names in the annotations that are strings, for whoever asks for their types in a worker."""
    found: dict[str, None] = {}
    for hint in annotations.values():
        if isinstance(hint, str):
            try:
                tree = ast.parse(hint, mode="eval")
            except SyntaxError:
                continue
            found.update(dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))
    return list(found)


def hinted_globals(annotations: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the string annotations name: classes and modules only, for nothing else is a type's name."""
    values = {name: namespace[name] for name in names_in_hints(annotations) if name in namespace}
    return {name: value for name, value in values.items() if _is_hint(value)}


def _is_hint(value: Any) -> bool:
    return isinstance(value, (type, ModuleType)) or type(value).__module__ in ("typing", "types")


def closure_values(function: FunctionType) -> dict[str, Any]:
    """Return what the closure of `function` holds, by variable name; empty cells are left out."""
    values = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # the variable is not assigned yet
            continue
    return values
