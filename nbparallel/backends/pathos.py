"""Pools of pathos: each slot is a ``pathos.pools.ProcessPool`` of one process, and has one ``apipe`` outstanding.

A chunk travels as this package's own messages, so code is shipped once per worker and version, classes keep their
identity, and a redefinition is seen, as on the default backend. A pool of several processes couldn't tell which of
them died, would lose what it was doing, and would wait for it for ever; with one process each, a death is noticed and
blamed on its task. What pathos can't do:

* a kernel that is restarted while its pools stand takes some seconds for it: they replace each process that it ends;
* what tasks print arrives when their chunk ends, and what C code prints goes where the notebook's own C code prints;
* where Python can't fork safely (macOS, Windows), workers run the file of ``__main__`` again, as pathos' always do, so
  that a script needs its guard there; a chunk goes on to its end when another task failed, and a task that kills its
  worker is found by running its chunk's tasks again, one by one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from nbparallel.backends.shipping import Shipping
from nbparallel.backends.slots import SlotsBackend
from nbparallel.engine import environment, scheduler, streams, worker
from nbparallel.engine.connection import input_failure, load_failure, load_values
from nbparallel.engine.interrupts import held_back
from nbparallel.engine.page import BYTES, CHUNK, TASK, Page, skip_slot
from nbparallel.engine.relay import is_first
from nbparallel.engine.wire import Buffer
from nbparallel.engine.work import Payload, Work
from nbparallel.errors import BackendUnavailable
from nbparallel.machine import blas_environment, blas_threads_per_worker
from nbparallel.serialize import Unit, dumps_data, is_alive, start_afresh

#: How often, in seconds, a slot that waits looks whether its process lives: pathos has nothing to wait for instead.
LOOK_SECONDS = 0.1

_FORKS = sys.platform == "linux"
_ids = itertools.count()

Message = tuple[tuple[Any, ...], list[bytearray]]


class PathosBackend(Shipping, SlotsBackend):
    """A set of pathos' pools under the same scheduling rules as the package's own processes.

    Args:
        workers: among how many the cores are shared, for BLAS and OpenMP limits.
    """

    name = "pathos"

    def __init__(self, workers: int) -> None:
        Shipping.__init__(self)
        SlotsBackend.__init__(self)
        self._variables = blas_environment(workers, os.environ)
        self._threads_each = blas_threads_per_worker(workers)
        self._environment = environment.current()
        self._units: dict[int, dict[int, Unit]] = {}  # a run's units must outlive its chunks

    def submit(self, work: Work) -> None:
        """Begin a run in the notebook's present environment."""
        with self._lock:
            before, self._environment = self._environment, environment.current()
            if self._environment.outdates(before):
                self._perform(self._scheduler.recycle())
            self._units[work.number] = {}
            super().submit(work)

    def _act(self, action: scheduler.Action) -> None:
        match action:
            case scheduler.Abort(number):
                self._slots[number].process.kill()
            case scheduler.Skip(number, run):
                self._slots[number].page.words[skip_slot(run)] = run
            case _:
                super()._act(action)
        if isinstance(action, scheduler.Finish):
            self._units.pop(action.run, None)

    # ---- a slot ----

    def _open(self) -> _Slot:
        return _Slot(self._variables, self._threads_each)

    def _close(self, slot: _Slot) -> None:
        slot.close()

    def _run(self, number: int, slot: _Slot, work: Work, chunk: scheduler.Chunk, payload: Payload) -> bool:
        try:
            segments, units = dumps_data(payload.inputs)
        except Exception as error:
            self._refuse(number, work, chunk, payload, error)
            return True
        units[payload.function.number] = payload.function
        with self._lock:
            self._units[work.number].update(units)
            now = self._environment
        messages = [*slot.news(now, units), (_header(work, chunk, payload), _owned(segments))]
        replies = slot.ask(messages)
        with self._lock:
            for header, buffers in replies or ():
                self._on_reply(number, work, header, buffers)
            if replies is None:
                at = {"chunk": chunk.number, "running": slot.running(chunk)}
                code = slot.process.exitcode
                self._perform(self._scheduler.lost(number, **at, pid=slot.process.pid, exitcode=code))
            self._lock.touch(work)
        return replies is not None

    def _refuse(self, number: int, work: Work, chunk: scheduler.Chunk, payload: Payload, error: Exception) -> None:
        with self._lock:
            if chunk.stop - chunk.start > 1:  # only those tasks fail whose own input can't travel
                self._perform(self._scheduler.split(number, chunk.number))
                return
            failure = input_failure(error, payload.inputs[0], chunk.start)
            work.settle(chunk.start, [None], {chunk.start: failure}, 0.0)
            self._lock.touch(work)
            self._perform(self._scheduler.withdrawn(number, chunk.number))

    def _on_reply(self, number: int, work: Work, header: tuple[Any, ...], buffers: list[bytearray]) -> None:
        kind, *details = header
        if kind == "output" or (kind == "once" and is_first(details[-1])):
            _, index, stream, text = details
            work.write(index, stream, text)
        elif kind == "unloadable":
            self._perform(self._scheduler.split(number, details[0]))
        elif kind == "done":
            chunk, _, first, count, nanoseconds, described, last = details
            failures = {index: load_failure(failure) for index, failure in described}
            values, failures = load_values(buffers, first, count, failures)
            work.settle(first, values, failures, nanoseconds / 1e9)
            if last:
                self._perform(self._scheduler.done(number, chunk, count, nanoseconds / 1e9))
            else:
                self._perform(self._scheduler.progress(number, chunk, range(first, first + count)))


class _Slot:
    """One pathos pool of one process, and what that process was sent.

    Attributes:
        process: as pathos started it; if it dies, pathos starts another, which is of no use here.
        page: shared with it where it was forked.
    """

    def __init__(self, variables: dict[str, str], threads: int) -> None:
        from pathos.helpers import mp
        from pathos.pools import ProcessPool

        self.page = Page.create()
        self._sent_units: set[int] = set()
        self._environment: environment.Environment | None = None
        begin = (self.page if _FORKS else None, os.getpid(), variables, threads)
        options = {"context": mp.get_context("fork")} if _FORKS else {}
        with warnings.catch_warnings(), held_back():
            # From 3.12 on Python warns of a fork beside threads; whoever asks for pathos has chosen that.
            warnings.simplefilter("ignore", DeprecationWarning)
            name = f"nbparallel-{os.getpid()}-{next(_ids)}"
            self._pool = ProcessPool(nodes=1, id=name, initializer=_begin, initargs=begin, **options)
        (self.process,) = self._pool._serve()._pool

    def news(self, now: environment.Environment, units: dict[int, Unit]) -> list[Message]:
        """Return the messages about what has changed since the last chunk."""
        messages: list[Message] = []
        if now is not self._environment:
            self._environment = now
            messages.append((("environment", now.message()), []))
        gone = [number for number in self._sent_units if not is_alive(number)]
        if gone:
            messages.append((("forget", gone), []))
        new = units.keys() - self._sent_units
        messages += [(("unit", number), _owned(units[number].segments)) for number in new]
        self._sent_units = (self._sent_units | units.keys()).difference(gone)
        return messages

    def ask(self, messages: list[Message]) -> list[Message] | None:
        """Return the process's replies, `None` if it ended without them."""
        pending = self._pool.apipe(_handle, messages)
        while self.process.exitcode is None:
            pending.wait(LOOK_SECONDS)
            if pending.ready():
                return pending.get()  # type: ignore[no-any-return]
        return None

    def running(self, chunk: scheduler.Chunk) -> int | None:
        """Return the index of the task at which the process ended, where it is known."""
        words = self.page.words
        return words[TASK] - 1 if words[CHUNK] == chunk.number + 1 and words[TASK] else None

    def close(self) -> None:
        """Let the process go. Where it died, what is left of its pool may never end: nobody waits for that."""
        if self.process.exitcode is None:
            self._pool.close()
            self._pool.join()
            self._pool.clear()
        else:
            name = "nbparallel-pathos-remains"
            threading.Thread(target=self._end_remains, name=name, daemon=True).start()
        self.page.close()

    def _end_remains(self) -> None:
        # A process that died while it took its next task holds the lock of the pool's queue for ever.
        with contextlib.suppress(ValueError):
            self._pool._serve()._inqueue._rlock.release()
        self._pool.terminate()
        self._pool.join()
        self._pool.clear()


def _header(work: Work, chunk: scheduler.Chunk, payload: Payload) -> tuple[Any, ...]:
    count = chunk.stop - chunk.start
    header = ("chunk", chunk.number, chunk.run, payload.function.number, work.style, chunk.start, count)
    return (*header, work.stop_on_error, work.seed)


def _owned(segments: Sequence[Buffer]) -> list[bytearray]:
    # pathos can't pickle views of the notebook's memory; a worker's arrays must be writable.
    return [bytearray(segment) for segment in segments]


# ---- in the process -----------------------------------------------------------------------------------------------


class _Outbox:
    """What the process has to tell, until pathos takes it along with the result of its call."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, header: Any, segments: Sequence[Buffer] = ()) -> None:
        self.messages.append((header, _owned(segments)))


def _begin(page: Page | None, parent: int, variables: dict[str, str], threads: int) -> None:
    """Make a process of pathos a worker."""
    from threadpoolctl import threadpool_limits

    global _outbox, _worker
    start_afresh()
    streams.reseed()
    os.environ.update(variables)
    threadpool_limits(threads)  # libraries that came with the fork don't read variables again
    worker.die_with(parent)
    _outbox = _Outbox()
    _worker = worker.Worker(_outbox, [0] * (BYTES // 8) if page is None else page.words)


def _handle(messages: list[Message]) -> list[Message]:
    for header, segments in messages:
        _worker.handle(header, segments)
    replies, _outbox.messages = _outbox.messages, []
    return replies


_outbox: _Outbox
_worker: worker.Worker


# ---- backends -----------------------------------------------------------------------------------------------------


def configuration(workers: int, start_method: str) -> tuple[object, ...]:
    """Return what tells two sets of pools apart: their BLAS threads. How they start is pathos' choice."""
    return (blas_threads_per_worker(workers),)


def open_backend(workers: int, start_method: str) -> PathosBackend:
    """Return a set of pools, none started.

    Raises:
        BackendUnavailable: pathos is not installed.
    """
    try:
        import pathos.pools  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable("the backend 'pathos' needs pathos: pip install pathos") from error
    return PathosBackend(workers)
