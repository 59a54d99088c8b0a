"""`Checkpoint`: what one run knows of a checkpoint file, and what it adds to it.

A task is known by its function's version, its argument, and which of the equal arguments it is; with a seed, by its
place in the input, which decides on its random numbers. Made by whoever starts a run; `keep` is called by a backend's
thread, under its lock, and only hands the result to a thread that pickles and writes.
"""

from __future__ import annotations

import functools
import os
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from nbparallel.checkpoints.places import path_of
from nbparallel.checkpoints.store import Store
from nbparallel.checkpoints.writer import Troubles, Writer
from nbparallel.errors import CheckpointError
from nbparallel.serialize import explain, name_of
from nbparallel.serialize.keeping import Shelf
from nbparallel.serialize.stable import DIGEST_BYTES, Digester, digest


class Checkpoint:
    """The results of one function in a checkpoint file.

    Args:
        name: a name, for a file in this user's data folder, or a path.
        function: the user's, in its present version.
        style: how a task's input holds the arguments, as for `Execution`.
        seed: of the tasks' random streams.
        trust: whether to load results that somebody else has signed.

    Attributes:
        path: of the file.
        asked: for how many tasks it was asked what is known.

    Raises:
        CheckpointError: the file is no checkpoint, damaged, somebody else's, or can't be written.
        SerializationError: the function can't be pickled.
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        function: Callable[..., Any],
        *,
        style: str = "one",
        seed: int | None = None,
        trust: bool = False,
    ) -> None:
        self.path = path_of(name)
        self.asked = 0
        self._function = function
        self._manner = (style, seed)
        self._seeded = seed is not None
        self._counts: Counter[bytes] = Counter()
        self._tasks: dict[int, bytes] = {}  # what is known of those that have no result
        self._open_store = functools.partial(Store, self.path, trust=trust)
        self.reopen()

    def reopen(self) -> None:
        """Open it again, once it was closed, for a run that goes on with the same tasks.

        The function may be another by now: what it returns from here on is kept as that one's.

        Raises:
            CheckpointError: as at first.
            SerializationError: as at first.
        """
        self._digester = Digester()
        try:
            # Another Python may have other bytecode, which it must not load.
            version = self._digester.digest((sys.implementation.cache_tag, *self._manner, self._function))
        except Exception as error:
            raise explain(error, self._function, digest, name_of(self._function)) from error
        self._version = version
        self._troubles = Troubles()
        self._store = self._open_store()
        self._shelf = Shelf(functools.partial(_definition, self._store), self._digester)
        self._writer = Writer(version, name_of(self._function), self._open_store, self._troubles)
        self._end = weakref.finalize(self, _abandon, self._writer, self._store)
        self._end.atexit = False

    def known(self, first: int, items: Iterable[Any]) -> dict[int, Any]:
        """Return the results that are in the file already.

        Called for each task once, in the order of the input, before it starts.

        Args:
            first: the index of the first task.
            items: the inputs of consecutive tasks.

        Returns:
            Results by index.

        Raises:
            CheckpointError: the file is damaged, or somebody else has written in it.
        """
        found = {}
        for index, item in enumerate(items, first):
            self.asked = index + 1
            try:
                argument = self._digester.digest(item)
            except Exception as error:
                self._troubles.note("can't be kept, because the input of its task can't be pickled", index, error)
                continue
            place = index if self._seeded else self._counts[argument]
            self._counts[argument] += 1
            task = argument + b"%d" % place
            payload = self._store.read(self._key(task))
            if payload is not None:
                try:
                    found[index] = self._shelf.loads(payload)
                    continue
                except CheckpointError:
                    raise
                except Exception as error:
                    self._troubles.note("was kept, but can't be loaded any more", index, error)
            self._tasks[index] = task
        return found

    def keep(self, index: int, value: Any) -> None:
        """Have a task's result written; returns at once."""
        task = self._tasks.pop(index, None)
        if task is not None:
            self._writer.put(index, self._key(task), value)

    @property
    def troubles(self) -> list[str]:
        """What could not be kept or loaded so far: a sentence for each kind, for the user to see once."""
        return self._troubles.told()

    def close(self, timeout: float | None = None) -> None:
        """Write what is still to be written, and close the file.

        Args:
            timeout: seconds to wait at most; what is left is written nevertheless.
        """
        self._end()
        self._writer.join(timeout)

    def _key(self, task: bytes) -> bytes:
        return blake2b(self._version + task, digest_size=DIGEST_BYTES).digest()


def _definition(store: Store, key: bytes) -> bytes:
    payload = store.read(key)
    if payload is None:
        raise CheckpointError(f"the checkpoint {store.path} is damaged: it lacks a definition that results need")
    return payload


def _abandon(writer: Writer, store: Store) -> None:
    """End what belonged to a checkpoint that nobody closed."""
    writer.end()
    store.close()
