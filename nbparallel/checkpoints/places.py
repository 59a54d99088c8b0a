"""Where checkpoints are, and the key that signs them: in this user's folders, readable by this user alone.

Called by `store` and by the command line. Nothing is made before it's needed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from nbparallel.errors import CheckpointError

#: The ending of the files of checkpoints that are given by name.
SUFFIX = ".sqlite"
_KEY_BYTES = 32


def folder() -> Path:
    """Return the folder of checkpoints that are given by name; it may not exist yet."""
    return Path(platformdirs.user_data_dir("nbparallel", appauthor=False)) / "checkpoints"


def path_of(name: str | os.PathLike[str]) -> Path:
    """Return the file of a checkpoint: a text without slash and dot is a name in `folder`, all else is a path.

    Raises:
        TypeError: it is neither a text nor a path.
        ValueError: it is empty.
    """
    text: object = os.fspath(name) if hasattr(name, "__fspath__") else name
    if not isinstance(text, str):
        raise TypeError(f"a checkpoint is a name or a path, not {name!r}")
    if not text.strip():
        raise ValueError("a checkpoint needs a name")
    is_name = isinstance(name, str) and not {"/", os.sep, "."} & set(text)
    return folder() / f"{text}{SUFFIX}" if is_name else Path(text).expanduser().absolute()


def user_key() -> bytes:
    """Return this user's signing key: random bytes, made at the first call.

    Raises:
        CheckpointError: the key's file can't be read or made, or is not what it should be.
    """
    file = Path(platformdirs.user_config_dir("nbparallel", appauthor=False)) / "checkpoint.key"
    try:
        if not file.exists():
            with put_in_place(file) as draft:
                os.close(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600))
                draft.write_bytes(os.urandom(_KEY_BYTES))
        key = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"the key {file}, which signs checkpoints, can't be used: {error}") from error
    if len(key) != _KEY_BYTES:
        raise CheckpointError(
            f"the key {file}, which signs checkpoints, is damaged. Without it, a new one is made, and older "
            "checkpoints need trust=True"
        )
    return key


@contextlib.contextmanager
def put_in_place(file: Path) -> Iterator[Path]:
    """Have a file made elsewhere; then it appears in its place, whole, unless another process was quicker."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".nbparallel-", dir=file.parent) as drafts:
        draft = Path(drafts) / file.name
        yield draft
        try:
            os.link(draft, file)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not file.exists():
                draft.rename(file)
