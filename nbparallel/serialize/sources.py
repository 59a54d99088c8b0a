"""Versions of the user's own modules: what their files say, and those of the modules that they import.

Code that a worker imports travels by name, so its version can't be seen in what travels. Called by `stable`, which
digests the code.
"""

from __future__ import annotations

import dis
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nbparallel.serialize import functions, modules, references


class Sources:
    """The versions of modules at one moment: each file is read once.

    Args:
        digest: of code without its place, or of parts of a version.
    """

    def __init__(self, digest: Callable[[Any], bytes]) -> None:
        self._digest = digest
        self._as_run = modules.stamps(follow_edits=False)
        self._read: dict[str, tuple[bytes, list[str]] | None] = {}
        self._versions: dict[str, bytes | None] = {}

    def version(self, name: str) -> bytes | None:
        """Return the version of a module and of all own modules that it imports; `None` if it is not the user's."""
        if name not in self._versions:
            parts = self._reachable(name)
            self._versions[name] = self._digest(sorted(parts.items())) if parts else None
        return self._versions[name]

    def _reachable(self, name: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        seen: set[str] = set()
        search = [name]
        while search:
            name = search.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in self._read:
                file = modules.own_file(name)
                self._read[name] = None if file is None else self._read_file(name, file)
            read = self._read[name]
            if read is not None:
                found[name] = read[0]
                search += read[1]
            if "." in name:  # importing it runs its package
                search.append(name.rpartition(".")[0])
        return found

    def _read_file(self, name: str, file: str) -> tuple[bytes, list[str]]:
        """Return the version of one file and the names of all modules that it imports."""
        parts: list[Any] = []
        imported: list[str] = []
        written: set[bytes] = set()
        try:
            source = Path(file).read_bytes()
            status = os.stat(file)
            code = compile(source, file, "exec", dont_inherit=True)
        except OSError:
            parts.append("gone")
        except (SyntaxError, ValueError):
            parts.append(source)
        else:
            parts.append(self._digest(code))
            written = {self._digest(part) for part in references.walk_code(code)}
            package = name if os.path.basename(file) == "__init__.py" else name.rpartition(".")[0]
            imported = list(imports(code, package))
            # Edited and not imported again: old workers run what was there, new ones what is there now.
            as_run = self._as_run.get(name)
            if as_run is not None and as_run != (status.st_mtime_ns, status.st_size):
                parts.append(as_run)
        # Also not imported again, but edited before anybody asked: it is not what runs here.
        parts += sorted({self._digest(code) for code in _codes_of(sys.modules.get(name), file)} - written)
        return self._digest(parts), imported


def imports(code: types.CodeType, package: str) -> Iterator[str]:
    """Yield the names of all modules that `code` may import, wherever in it the statement is.

    Args:
        code: of a function or a module.
        package: what relative imports are relative to.
    """
    for part in references.walk_code(code):
        instructions = list(dis.get_instructions(part))
        for number, instruction in enumerate(instructions):
            if instruction.opname == "IMPORT_NAME":
                level, names = (before.argval for before in instructions[number - 2 : number])
                try:
                    name = importlib.util.resolve_name("." * level + instruction.argval, package)
                except ImportError:  # beyond the top
                    continue
                yield name
                yield from (f"{name}.{inner}" for inner in names or () if inner != "*")


def _codes_of(module: types.ModuleType | None, file: str) -> Iterator[types.CodeType]:
    """Yield the code of the functions and methods that a module has, of those that its file defines."""
    for value in list(vars(module).values()) if module is not None else ():
        inner = list(vars(value).values()) if isinstance(value, type) else [value]
        for function in (found for each in inner for found in functions.functions_in(each)):
            if function.__code__.co_filename == file:
                yield function.__code__
