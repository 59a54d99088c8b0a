"""A module that is written in a cell: an importable file beside the notebook, and imported here.

`write_module` is what ``%%pmodule`` calls. Workers see a new version by the engine's stamps (`serialize.modules`):
importing a module again here makes those that have imported it before out of date.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import keyword
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from nbparallel.tracebacks import hidden

#: The file's first line. Where the cell has its magic, so both have the same lines at the same numbers.
_HEAD = "# Written by %%pmodule: edit the cell, not this file ({digest})\n"
_HEAD_PATTERN = re.compile(r"# Written by %%pmodule: .*\((?P<digest>[0-9a-f]{12})\)\n")


def write_module(source: str, path: str | os.PathLike[str], *, force: bool = False) -> ModuleType:
    """Write source to a module's file and import it, again if it was imported before.

    A first line is put in front that tells where the file comes from. The import system is asked under which name it
    finds the file: ``lib/tools.py`` is ``tools`` if ``lib`` is in `sys.path`, else ``lib.tools``.

    Args:
        source: the module's.
        path: the file, seen from the working folder; ``.py`` may be left out.
        force: whether a file is replaced that was not written by this function, or was edited since.

    Returns:
        The module: the same object as before, with nothing in it but what the new version puts there.

    Raises:
        SyntaxError: the source is no Python; nothing was written.
        FileExistsError: there is such a file, and it is not this function's; nothing was written.
        ValueError: the file would not be what its name imports; nothing was written.
        FileNotFoundError: there is no such folder.
        Exception: what the module itself raises when it is imported.
    """
    with hidden:
        return import_again(save(source, path, force=force))


def save(source: str, path: str | os.PathLike[str], *, force: bool = False) -> str:
    """Do the first half of `write_module`, and return the name under which the file is imported."""
    file = _file_of(path)
    name = _name_of(file)
    _require_own_name(name, file)
    try:
        # Not under the file's name: the error would show the line of the version that is there.
        compile(f"\n{source}", f"<%%pmodule {file.name}>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise error.with_traceback(None) from None
    _write(file, source, force)
    return name


def import_again(name: str) -> ModuleType:
    """Do the second half of `write_module`: import a module, anew if it was imported before."""
    importlib.invalidate_caches()
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.cached is not None:
            with contextlib.suppress(OSError):  # of a file that was there once, in the same second
                os.unlink(spec.cached)
        return importlib.import_module(name)
    namespace = vars(module)
    before = dict(namespace)
    for each, value in before.items():  # what the new version has no more, workers have not either
        if not (each.startswith("__") and each.endswith("__")) and sys.modules.get(f"{name}.{each}") is not value:
            del namespace[each]
    try:
        return importlib.reload(module)
    except BaseException:
        namespace.clear()
        namespace.update(before)  # the version that worked stays
        raise


def _file_of(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if not text.strip():
        raise ValueError("a module needs a name, for example tools.py")
    file = Path(os.path.abspath(text if text.endswith(".py") else f"{text}.py"))
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent}")
    return file


def _name_of(file: Path) -> str:
    """Return the shortest name under which the import system could find a file."""
    for entry in sorted(_path_entries(), key=lambda entry: len(entry.parts), reverse=True):
        if not file.is_relative_to(entry):
            continue
        parts = file.relative_to(entry).with_suffix("").parts
        parts = parts[:-1] if file.stem == "__init__" and parts[1:] else parts
        for part in parts:
            _require_identifier(part, file)
        return ".".join(parts)
    raise ValueError(
        f"no folder of sys.path leads to {file}, so nothing could import it: write it beside the notebook, or call "
        f"sys.path.insert(0, {str(file.parent)!r}) first"
    )


def _path_entries() -> set[Path]:
    entries: list[object] = [*sys.path]  # the import system ignores what is no text
    return {Path(os.path.abspath(entry)) for entry in entries if isinstance(entry, str)}


def _require_identifier(part: str, file: Path) -> None:
    if not part.isidentifier() or keyword.iskeyword(part):
        raise ValueError(f"{part!r} can't be imported by an import statement: {file} needs another name")


def _require_own_name(name: str, file: Path) -> None:
    """Make sure that the name leads to the file, and to nothing that is there already."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names or top in ("__main__", "nbparallel"):
        raise ValueError(f"{top} is the name of a module of Python's own or of this package: choose another")
    loaded = sys.modules.get(name)
    # A folder without an __init__.py, which is written now, is a package all the same.
    is_its_folder = file.stem == "__init__" and any(
        _is_at(each, file.parent) for each in getattr(loaded, "__path__", ())
    )
    if loaded is not None and not is_its_folder and not _is_at(getattr(loaded, "__file__", None), file):
        where = getattr(loaded, "__file__", None) or "no file"
        raise ValueError(f"{name} is imported already, from {where}: choose another name")
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec = None if find_spec is None else find_spec(top, None)
        if spec is None or (spec.origin is None and not rest):  # a folder without __init__.py gives way to a module
            continue
        folders = [Path(os.path.abspath(each)) for each in spec.submodule_search_locations or ()]
        if _is_at(spec.origin, file) or any(folder in file.parents for folder in folders if rest):
            return
        raise ValueError(f"{top} would be imported from {spec.origin or folders[0]}: choose another name")


def _is_at(found: Any, file: Path) -> bool:
    return isinstance(found, str) and os.path.realpath(found) == os.path.realpath(file)


def _write(file: Path, source: str, force: bool) -> None:
    file = Path(os.path.realpath(file))  # of a link, what it leads to
    before = file.read_bytes() if file.exists() else None
    text = (_HEAD.format(digest=_digest(source)) + source).encode()
    if before == text:
        return
    if before is not None and not force:
        _require_ours(before, file)
    draft = file.with_name(f".{file.name}.{os.getpid()}")  # a worker that imports it meanwhile reads the old or the new
    earlier = None if before is None else file.stat()
    try:
        draft.write_bytes(text)
        if earlier is not None:
            draft.chmod(earlier.st_mode)
            # Compiled code counts as the file's if second and size are the same: the versions must differ.
            now = draft.stat()
            later = max(now.st_mtime_ns, (earlier.st_mtime_ns // 10**9 + 1) * 10**9)
            os.utime(draft, ns=(now.st_atime_ns, later))
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _require_ours(before: bytes, file: Path) -> None:
    head, newline, rest = before.decode(errors="replace").partition("\n")
    match = _HEAD_PATTERN.fullmatch(head + newline)
    if match is None:
        raise FileExistsError(f"{file} was not written by %%pmodule; --force replaces it")
    if match["digest"] != _digest(rest):
        raise FileExistsError(f"{file} was edited since %%pmodule wrote it; --force replaces it")


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]
