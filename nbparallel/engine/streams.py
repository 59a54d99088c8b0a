"""Random streams per task: task i draws from stream i, whatever the workers, the chunks and the order.

Stream i of a seed is NumPy's ``SeedSequence(seed, spawn_key=(i,))`` (O'Neill's seed sequence, as NumPy documents for
parallel streams); it seeds `rng` and NumPy's legacy global state. ``random`` is seeded with a text of seed and index,
so that its draws are the same where NumPy is absent. Called by `worker` and by the in-process backends.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy


class _Current(threading.local):
    stream: tuple[int, int] | None = None
    generator: Any = None


_current = _Current()
# The states that this worker had before the first task with a seed, while there are such tasks.
_own: tuple[Any, Any] | None = None


def rng() -> numpy.random.Generator:
    """Return the random generator of the task that runs.

    In a map with ``seed=``, task i always gets the same stream, for any number of workers and any chunk size. Outside
    of one, or without a seed, it is a fresh generator, seeded by the operating system.

    Returns:
        A `numpy.random.Generator`; the same one for each call within a task.

    Raises:
        ImportError: NumPy is not installed.

    Example:
        >>> def throw(n):
        ...     return int(nbparallel.rng().integers(1, 7, n).sum())
        >>> pmap(throw, [10, 10], seed=1) == pmap(throw, [10, 10], seed=1, workers=1)
        True
    """
    import numpy

    if _current.generator is None or _current.stream is None:
        sequence = None
        if _current.stream is not None:
            seed, index = _current.stream
            sequence = numpy.random.SeedSequence(seed, spawn_key=(index,))
        generator = numpy.random.default_rng(sequence)
        if _current.stream is None:
            return generator
        _current.generator = generator
    return _current.generator  # type: ignore[no-any-return]


def seeded(call: Callable[[Any], Any], seed: int, scope: str = "process") -> Callable[[Any, int], Any]:
    """Return a function of an item and its index that seeds the index's stream, then calls.

    Args:
        call: a function of one item.
        seed: the run's.
        scope: ``"process"`` sets the global generators of this worker, until `unseed`; ``"borrowed"`` sets them and
            puts back what was there, as the notebook's draws go on afterwards; ``"thread"`` leaves them alone, as
            threads share them: only `rng` is seeded.
    """
    global _own
    with contextlib.suppress(ImportError):  # a task that imports it must find its global state seeded
        import numpy  # noqa: F401

    if scope == "process" and _own is None:
        _own = _states()

    def with_stream(item: Any, index: int) -> Any:
        saved = _states() if scope == "borrowed" else None
        _current.stream, _current.generator = (seed, index), None
        if scope != "thread":
            _seed_globals(seed, index)
        try:
            return call(item)
        finally:
            _current.stream = _current.generator = None
            if saved is not None:
                _restore(saved)

    return with_stream


def unseed() -> None:
    """Go on with a worker's own random states, after tasks that had a seed."""
    global _own
    if _own is not None:
        own, _own = _own, None
        _restore(own)


def _seed_globals(seed: int, index: int) -> None:
    random.seed(f"nbparallel {seed} {index}")  # of a text, `random` takes the SHA-512
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(numpy.random.SeedSequence(seed, spawn_key=(index,)).generate_state(8))


def _states() -> tuple[Any, Any]:
    numpy = sys.modules.get("numpy")
    return random.getstate(), None if numpy is None else numpy.random.get_state()


def _restore(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    numpy = sys.modules.get("numpy")
    if numpy is not None and states[1] is not None:
        numpy.random.set_state(states[1])
    elif numpy is not None:  # imported since
        numpy.random.seed()


def reseed() -> None:
    """Give a forked worker random states of its own; ``random`` does so by itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
