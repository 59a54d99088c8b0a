"""The thread that pickles results and writes them, so that no run waits for a disk.

Made by `checkpoint`. What goes wrong here is noted for the user, and costs the run nothing: it has its results.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from nbparallel.checkpoints.store import LARGEST_BYTES, Store
from nbparallel.errors import CheckpointError
from nbparallel.serialize.keeping import dumps, dumps_definition
from nbparallel.serialize.stable import Digester

#: Results are written together that come within so many seconds,
BATCH_SECONDS = 0.2
#: or until they are so many bytes.
BATCH_BYTES = 16_000_000
#: How long the end of the process waits for what is not written yet, in seconds.
EXIT_SECONDS = 5.0


class Troubles:
    """What could not be kept or loaded: each kind is told once, by its first case."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def note(self, kind: str, index: int, error: BaseException) -> None:
        """Take note of a task's result.

        Args:
            kind: what happened to it, such as "can't be kept".
            index: the task's.
            error: why.
        """
        self._first.setdefault(kind, f"the result of task {index} {kind} ({type(error).__name__}: {error})")
        self._count[kind] = self._count.get(kind, 0) + 1

    def note_end(self, error: CheckpointError) -> None:
        """Take note that nothing can be written any more."""
        self._first.setdefault("", f"results are not kept any more: {error}")

    def told(self) -> list[str]:
        """Return one sentence for each kind."""
        others = {kind: count - 1 for kind, count in self._count.items() if count > 1}
        return [
            text + (f"; {others[kind]} more likewise" if kind in others else "") for kind, text in self._first.items()
        ]


class Writer:
    """Writes what it is given, in batches, until its end.

    Args:
        version: the function's.
        name: the function's.
        open_store: opens the file.
        troubles: where to note what goes wrong.
    """

    def __init__(self, version: bytes, name: str, open_store: Callable[[], Store], troubles: Troubles) -> None:
        self._version = version
        self._name = name
        self._open_store = open_store
        self._troubles = troubles
        self._queue: queue.SimpleQueue[tuple[int, bytes, Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = False
        self._digester = Digester()
        self._definitions: set[bytes] = set()  # those that are in the file

    def put(self, index: int, key: bytes, value: Any) -> None:
        """Have a result written; returns at once."""
        with self._lock:
            if self._ended:
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name=f"nbparallel-checkpoint-{self._name}", daemon=True
                )
                self._thread.start()
                _writers.add(self)
            self._queue.put((index, key, value))

    def end(self) -> None:
        """Let it end, once all that it was given is written."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._queue.put(None)

    def join(self, timeout: float | None = None) -> None:
        """Wait until all is written."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _work(self) -> None:
        store: Store | None = None
        try:
            last = False
            while not last:
                results, definitions, last = self._gather()
                if results:
                    store = store or self._open_store()
                    store.write(self._version, self._name, results, definitions.items())
                    self._definitions.update(definitions)
        except CheckpointError as error:
            self._troubles.note_end(error)
            with self._lock:
                self._ended = True
        finally:
            if store is not None:
                store.close()

    def _gather(self) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes], bool]:
        """Wait for results and pickle them.

        Returns:
            Keys and payloads, the definitions that they need, and whether these are the last.
        """
        results: list[tuple[bytes, bytes]] = []
        definitions: dict[bytes, bytes] = {}
        size = 0
        limit = None
        while size < BATCH_BYTES:
            try:
                given = self._queue.get(timeout=None if limit is None else max(0.0, limit - time.monotonic()))
            except queue.Empty:
                break
            if given is None:
                return results, definitions, True
            limit = limit or time.monotonic() + BATCH_SECONDS
            index, key, value = given
            try:
                payload, named = dumps(value, self._digester)
                new = {name: dumps_definition(each) for name, each in named.items() if name not in self._definitions}
                if max(map(len, (payload, *new.values()))) > LARGEST_BYTES:
                    raise ValueError(f"it is larger than {LARGEST_BYTES} bytes")
            except Exception as error:
                self._troubles.note("can't be kept", index, error)
                continue
            results.append((key, payload))
            definitions.update(new)
            size += len(payload)
        return results, definitions, False


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    for writer in list(_writers):
        writer.end()
        writer.join(EXIT_SECONDS)
