"""One checkpoint file: an SQLite database of pickles, each with a checksum and signed with this user's key.

Loading a pickle runs what it says. So nothing is handed out that was not signed with the user's own key, unless the
user has said that the file is trusted; and nothing is handed out, or opened for writing, that is damaged. SQLite's
write-ahead log lets any number of notebooks read and write at once, and a killed one leaves what it had committed.
Called by `checkpoint` and by the command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbparallel.checkpoints import places
from nbparallel.errors import CheckpointError

#: Marks a database as one of these: "nbpc", in SQLite's ``application_id``.
APPLICATION_ID = 0x6E627063
#: Of the tables below, in SQLite's ``user_version``.
FORMAT = 1
#: How long a statement waits for another notebook's, in seconds.
BUSY_SECONDS = 30.0
#: SQLite's own limit is a billion bytes for a row (sqlite.org/limits.html).
LARGEST_BYTES = 999_000_000

_SCHEMA = """
CREATE TABLE file (id BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE functions (
    id INTEGER PRIMARY KEY,
    version BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    written REAL NOT NULL           -- when its last result was, in seconds of the epoch
);
CREATE TABLE kept (
    key BLOB NOT NULL PRIMARY KEY,  -- of a result: its task's; of a definition: its digest
    function INTEGER,               -- whose result it is; null for a definition, which results share
    payload BLOB NOT NULL,
    checksum BLOB NOT NULL,         -- of key and payload
    signature BLOB NOT NULL         -- of the checksum
);
CREATE INDEX by_function ON kept (function);
"""

# The first bytes of a write-ahead log, by the byte order of its checksums (sqlite.org/fileformat2.html, 4.1).
_LOG_MAGIC = {0x377F0682: "little", 0x377F0683: "big"}


@dataclass(frozen=True)
class Summary:
    """What a file holds of one function.

    Attributes:
        function: its name.
        results: their number, of all versions of the function.
        bytes: their size.
        written: when the last one was, in seconds of the epoch.
    """

    function: str
    results: int
    bytes: int
    written: float


class Store:
    """An open checkpoint file. Used by one thread at a time.

    Args:
        path: made if it isn't there.
        trust: whether to hand out what others have signed.

    Raises:
        CheckpointError: it is no checkpoint, damaged, somebody else's, or can't be written; it was left untouched.
    """

    def __init__(self, path: Path, *, trust: bool = False) -> None:
        self.path = path
        self._trust = trust
        self._key = places.user_key()
        self._make_if_missing()
        _check(path)
        with _connected(path, "ro") as connection, _explained(path):
            rows = connection.execute("SELECT id, signature FROM file").fetchall()
        if not trust and not any(self._has_signed(signature, b"file", number) for number, signature in rows):
            raise CheckpointError(
                f"the checkpoint {path} was not made by you, or with a key that you no longer have. Reading it runs "
                "code that it contains: say trust=True if you know where it comes from. It was left untouched"
            )
        self._connection = _connect(path, "rw")
        try:
            with _explained(path):
                self._connection.execute("PRAGMA synchronous = NORMAL")  # safe with a write-ahead log
        except BaseException:
            self._connection.close()
            raise

    def _make_if_missing(self) -> None:
        log = Path(f"{self.path}-wal")
        try:
            if self.path.exists():
                return
            # Another notebook may have made the file and begun to write in it since.
            if log.exists() and not self.path.exists():
                raise CheckpointError(f"{log} is there, but its checkpoint {self.path} is not: move both, or remove it")
            with places.put_in_place(self.path) as draft:
                os.close(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600))
                with _connected(draft, "rw") as connection:
                    connection.execute("PRAGMA journal_mode = wal")
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
                    connection.executescript(_SCHEMA)
                    number = os.urandom(16)
                    connection.execute("INSERT INTO file VALUES (?, ?)", (number, self._sign(b"file", number)))
        except CheckpointError:
            raise
        except (OSError, sqlite3.Error) as error:
            raise CheckpointError(f"the checkpoint {self.path} can't be made: {error}") from error

    def read(self, key: bytes) -> bytes | None:
        """Return a payload, `None` if there is none.

        Raises:
            CheckpointError: it is damaged, or was signed by somebody else.
        """
        query = "SELECT payload, checksum, signature FROM kept WHERE key = ?"
        with _explained(self.path):
            row = self._connection.execute(query, (key,)).fetchone()
        if row is None:
            return None
        payload, checksum, signature = row
        if not isinstance(payload, bytes) or checksum != _checksum(key, payload):
            raise CheckpointError(f"the checkpoint {self.path} is damaged: a result is not what was written")
        if not self._trust and not self._has_signed(signature, b"kept", checksum):
            raise CheckpointError(
                f"the checkpoint {self.path} holds results that were not written by you. Reading them runs code that "
                "they contain: say trust=True if you know where they come from"
            )
        return payload

    def write(
        self,
        version: bytes,
        name: str,
        results: Iterable[tuple[bytes, bytes]],
        definitions: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Keep results of a function, and the definitions that they need: all, or if that fails none.

        Args:
            version: the function's.
            name: the function's.
            results: keys and payloads.
            definitions: keys and payloads.

        Raises:
            CheckpointError: the disk is full, say.
        """
        execute = self._connection.execute
        with _explained(self.path):
            execute("BEGIN IMMEDIATE")
            try:
                execute(
                    "INSERT INTO functions (version, name, written) VALUES (?, ?, ?) "
                    "ON CONFLICT (version) DO UPDATE SET written = excluded.written",
                    (version, name, time.time()),
                )
                (function,) = execute("SELECT id FROM functions WHERE version = ?", (version,)).fetchone()
                for owner, pairs in ((function, results), (None, definitions)):
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)",
                        ((key, owner, payload, *self._seal(key, payload)) for key, payload in pairs),
                    )
                execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close it; the last notebook to do so merges the write-ahead log into the file."""
        self._connection.close()

    def _seal(self, key: bytes, payload: bytes) -> tuple[bytes, bytes]:
        checksum = _checksum(key, payload)
        return checksum, self._sign(b"kept", checksum)

    def _sign(self, purpose: bytes, what: bytes) -> bytes:
        return hmac.digest(self._key, purpose + what, "sha256")

    def _has_signed(self, signature: object, purpose: bytes, what: object) -> bool:
        # In a damaged row they may be anything.
        if not isinstance(signature, bytes) or not isinstance(what, bytes):
            return False
        return hmac.compare_digest(signature, self._sign(purpose, what))


def summaries(path: Path) -> list[Summary]:
    """Return what a file holds, by function; whoever has signed it.

    Raises:
        CheckpointError: it is no checkpoint, or damaged.
    """
    _check(path, writable=False)
    query = (
        "SELECT name, count(key), total(length(payload)), max(written) FROM functions "
        "LEFT JOIN kept ON kept.function = functions.id GROUP BY name ORDER BY name"
    )
    with _connected(path, "rw" if os.access(path, os.W_OK) else "ro") as connection, _explained(path):
        return [Summary(name, count, int(size), at) for name, count, size, at in connection.execute(query)]


def remove(path: Path) -> None:
    """Remove a checkpoint: also a damaged one, if it is in the folder of those that have names.

    Raises:
        CheckpointError: it is not there, is no checkpoint, or is in use.
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        _check(path)
        with _connected(path, "rw", seconds=0.0) as connection, _explained(path):
            connection.execute("PRAGMA journal_mode = delete")  # refused as long as another has it open
    except CheckpointError as error:
        if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise CheckpointError(f"the checkpoint {path} is in use, and was not removed") from error
        if path.parent != places.folder():
            raise
    try:
        for ending in ("-wal", "-shm", ""):
            Path(f"{path}{ending}").unlink(missing_ok=not path.is_dir())
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} can't be removed: {error}") from error


def _check(path: Path, *, writable: bool = True) -> None:
    """Look at a file without changing anything.

    Raises:
        CheckpointError: it is no checkpoint of this version, or can't be written and should be `writable`.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise CheckpointError(f"{path} is not a file, and no checkpoint")
        # The mode is asked too: to an administrator all files are writable.
        if writable and not (mode & 0o222 and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise CheckpointError(f"the checkpoint {path} is read-only")
        _check_log(Path(f"{path}-wal"))
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} can't be read: {error}") from error
    # By SQLite, not by reading the first bytes: a `close` of ours would drop the locks of all of this process's
    # connections to that file (sqlite.org/howtocorrupt.html, 2.2).
    with _connected(path, "ro") as connection, _explained(path):
        (identity,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if identity != APPLICATION_ID:
        raise CheckpointError(f"{path} is no checkpoint of nbparallel; it was left untouched")
    if version != FORMAT:
        raise CheckpointError(
            f"the checkpoint {path} was written by another version of nbparallel (format {version}, not {FORMAT}); "
            "it was left untouched"
        )


def _check_log(log: Path) -> None:
    # SQLite drops a log whose head it can't read, with all that is in it. What was cut off at its end is no damage.
    for _ in range(3):  # another process may just be writing it
        try:
            with open(log, "rb") as stream:
                head = stream.read(32)
        except FileNotFoundError:
            return
        words = [int.from_bytes(head[start : start + 4], "big") for start in range(0, len(head), 4)]
        order = _LOG_MAGIC.get(words[0]) if words else None
        if len(head) < 32 or not any(head) or (order and _log_checksum(head[:24], order) == words[6:]):
            return
        time.sleep(0.01)
    raise CheckpointError(
        f"{log} is damaged: it holds the last results of {log.name.removesuffix('-wal')}, which without it is as it "
        "was before them. Both were left untouched"
    )


def _log_checksum(head: bytes, order: str) -> list[int]:
    first = second = 0
    for start in range(0, len(head), 8):
        one, two = (int.from_bytes(head[at : at + 4], order) for at in (start, start + 4))  # type: ignore[arg-type]
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return [first, second]


def _checksum(key: bytes, payload: bytes) -> bytes:
    checksum = hashlib.blake2b(key, digest_size=20)
    checksum.update(payload)
    return checksum.digest()


def _connect(path: Path, mode: str, seconds: float | None = None) -> sqlite3.Connection:
    patience = BUSY_SECONDS if seconds is None else seconds
    with _explained(path):
        return sqlite3.connect(
            f"{path.as_uri()}?mode={mode}", uri=True, timeout=patience, isolation_level=None, check_same_thread=False
        )


@contextlib.contextmanager
def _connected(path: Path, mode: str, seconds: float | None = None) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(_connect(path, mode, seconds)) as connection:
        yield connection


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CheckpointError(f"the checkpoint {path} can't be used: {error}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:  # also of SQLite's own message, which quotes what it has read
        raise CheckpointError(f"{path} is damaged, or no checkpoint: {error}. It was left untouched") from error
