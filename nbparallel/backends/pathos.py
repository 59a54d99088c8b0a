"""Processes of pathos: each slot is one of its ``multiprocess`` workers, which runs the engine's own loop.

Not its pools. A pathos pool loses what a process was doing when it dies, so whoever waits waits for ever; it puts
another in its place, which may find the pool's queue locked by the dead; and then the pool can't be ended either.
With a process and a connection for each slot, a death is noticed at once and blamed on its task. Code is shipped
once per worker and version, classes keep their identity, and a redefinition is seen, as on the default backend.
What pathos can't do:

* where it can't fork safely (macOS, Windows), its workers run the file of ``__main__`` again, as they always do, so
  that a script needs its guard there; a chunk goes on to its end when another task failed; and a task that kills
  its worker is found by running the tasks of its chunk once more, one by one;
* what C code prints goes where the notebook's own C code prints.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from nbparallel.backends.shipping import Shipping
from nbparallel.backends.slots import SlotsBackend
from nbparallel.engine import actions, environment, streams, worker
from nbparallel.engine.connection import input_failure
from nbparallel.engine.listener import Listener
from nbparallel.engine.outcomes import load
from nbparallel.engine.page import BYTES, CHUNK, STARTED, TASK, Page, skip_slot
from nbparallel.engine.times import Ledger
from nbparallel.engine.wire import Channel, Message
from nbparallel.engine.work import Payload, Work
from nbparallel.errors import BackendUnavailable
from nbparallel.interrupts import held_back
from nbparallel.machine import blas_environment, blas_threads_per_worker
from nbparallel.serialize import Unit, dumps_data, is_alive, start_afresh
from nbparallel.serialize.handover import Descriptors

#: How long a process may take to end once it was told to, in seconds.
EXIT_GRACE = 2.0

_FORKS = sys.platform == "linux"


class PathosBackend(Shipping, SlotsBackend):
    """A set of pathos' processes under the same scheduling rules as the package's own.

    Args:
        workers: among how many the cores are shared, for BLAS and OpenMP limits.
    """

    name = "pathos"
    ends_tasks = False
    outputs: tuple[str | None, ...] = ("live", "ordered", "collect", None)

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

    def _act(self, action: actions.Action) -> None:
        match action:
            case actions.Abort(number):
                self._scheduler.aborted(number)
                self._slots[number].process.kill()
            case actions.Skip(number, run):
                self._slots[number].page.words[skip_slot(run)] = run
            case _:
                super()._act(action)
        if isinstance(action, actions.Finish):
            self._units.pop(action.run, None)

    # ---- on a slot's thread ----

    def _open(self, number: int) -> _Slot:
        return _Slot(number, self._variables, self._threads_each)

    def _close(self, slot: _Slot) -> None:
        slot.close()

    def _run(self, number: int, slot: _Slot, work: Work, chunk: actions.Chunk, payload: Payload) -> bool:
        began = time.perf_counter()
        try:
            segments, units, descriptors = dumps_data(payload.inputs)
        except BaseException as error:
            self._refuse(number, work, chunk, payload, error)
            return True
        units[payload.function.number] = payload.function
        with self._lock:
            self._units[work.number].update(units)
            slot.put_news(self._environment, units)
        slot.ledger.sent(chunk.number, chunk.run, began, segments)
        slot.put((*_header(work, chunk, payload), len(descriptors)), segments, descriptors)
        for header, buffers in map(load, slot.replies()):
            with self._lock:
                self._lock.touch(work)
                if self._is_last(number, slot, work, header, buffers):
                    return True
        with self._lock:
            self._lock.touch(work)
            slot.listener.end()
            running, code = slot.running(chunk), slot.exitcode()
            cut = None if running is None else slot.ledger.cut_short(chunk.number, running, slot.page.words[STARTED])
            if cut is not None:
                work.timed(cut.index, 1, cut.times)
            self._perform(
                self._scheduler.lost(number, chunk=chunk.number, running=running, pid=slot.process.pid, exitcode=code)
            )
        return False

    def _refuse(self, number: int, work: Work, chunk: actions.Chunk, payload: Payload, error: BaseException) -> None:
        with self._lock:
            if chunk.stop - chunk.start > 1:  # only those tasks fail whose own input can't travel
                self._perform(self._scheduler.split(number, chunk.number))
                return
            failure = input_failure(error, payload.inputs[0], chunk.start)
            work.settle(chunk.start, [None], {chunk.start: failure}, 0.0)
            self._lock.touch(work)
            self._perform(self._scheduler.withdrawn(number, chunk.number))

    def _is_last(self, number: int, slot: _Slot, work: Work, header: tuple[Any, ...], buffers: list[bytearray]) -> bool:
        """Act on a reply; return whether its chunk is over."""
        kind, *details = header
        if kind == "unloadable":
            slot.ledger.dropped(details[0])
            self._perform(self._scheduler.split(number, details[0]))
            return True
        elif kind == "done":
            report = details[0]
            chunk, first, count = report.chunk, report.first, len(report.values)
            times = slot.ledger.reported(chunk, report.measured, report.arrived, report.weight, last=report.last)
            self._settle(work, first, report.values, report.failures, times)
            if report.last:
                self._perform(self._scheduler.done(number, chunk, count, times.seconds))
                return True
            self._perform(self._scheduler.progress(number, chunk, range(first, first + count)))
        else:
            slot.listener.hear(header, buffers, work.write)
        return False


class _Slot:
    """One process, its connection, and what it was sent.

    Attributes:
        process: as pathos started it.
        page: shared with it where it was forked.
        ledger: what it was sent, and when.
        listener: hears what it says.
    """

    # One at a time: a process must not inherit the other end of its sibling's connection, and so hide its death.
    _starting = threading.Lock()

    def __init__(self, number: int, variables: dict[str, str], threads: int) -> None:
        from pathos.helpers import mp

        context = mp.get_context("fork") if _FORKS else mp
        self.page = Page.create()
        self._sent_units: set[int] = set()
        self._environment: environment.Environment | None = None
        with self._starting, held_back(), warnings.catch_warnings():
            # From 3.12 on Python warns of a fork beside threads; whoever asks for pathos has chosen that.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._socket, theirs = socket.socketpair()
            with theirs:
                page = self.page if _FORKS else None
                details = (theirs, page, os.getpid(), variables, threads)
                self.process = context.Process(target=_serve, args=details, daemon=True)
                self.process.start()
        self._channel = Channel(self._socket)
        self.listener = Listener()
        self.ledger = Ledger(number, self.process.pid)
        if next(self.replies(), None) is None:
            self.close()
            raise OSError("it ended as it started")

    def put_news(self, now: environment.Environment, units: dict[int, Unit]) -> None:
        """Send what has changed since the last chunk."""
        if now is not self._environment:
            self._environment = now
            self.put(("environment", now.message()))
        gone = [number for number in self._sent_units if not is_alive(number)]
        if gone:
            self.put(("forget", gone))
        for number in units.keys() - self._sent_units:
            unit = units[number]
            self.put(("unit", number, len(unit.descriptors)), unit.segments, unit.descriptors)
        self._sent_units = (self._sent_units | units.keys()).difference(gone)

    def put(self, header: tuple[Any, ...], segments: Any = (), descriptors: Descriptors | None = None) -> None:
        """Send a message. A process that has died is noticed by its silence."""
        with contextlib.suppress(OSError):
            self._channel.send(header, segments, descriptors)

    def replies(self) -> Iterator[Message]:
        """Yield what the process says, until it has ended."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                yield self._channel.receive()

    def running(self, chunk: actions.Chunk) -> int | None:
        """Return the index of the task at which the process ended, where that is known."""
        words = self.page.words
        return words[TASK] - 1 if words[CHUNK] == chunk.number + 1 and words[TASK] else None

    def exitcode(self) -> int | None:
        """Return how the process ended; it has closed its connection, and so it must."""
        self.process.join(EXIT_GRACE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return self.process.exitcode  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let the process go."""
        self.put(("exit",))
        self.exitcode()
        self._socket.close()
        self.page.close()


def _header(work: Work, chunk: actions.Chunk, payload: Payload) -> tuple[Any, ...]:
    count = chunk.stop - chunk.start
    header = ("chunk", chunk.number, chunk.run, payload.function.number, work.style, chunk.start, count)
    return (*header, work.stop_on_error and not work.retries, work.seed)


def _serve(sock: socket.socket, page: Page | None, parent: int, variables: dict[str, str], threads: int) -> None:
    """Be a worker, in a process of pathos."""
    from threadpoolctl import threadpool_limits

    start_afresh()
    streams.reseed()
    os.environ.update(variables)
    threadpool_limits(threads)  # libraries that came with the fork don't read variables again
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        worker.serve(sock, [0] * (BYTES // 8) if page is None else page.words, parent)


def configuration(workers: int, start_method: str) -> tuple[object, ...]:
    """Return what tells two sets of processes apart: their BLAS threads. How they start is pathos' choice."""
    return (blas_threads_per_worker(workers),)


def open_backend(workers: int, start_method: str) -> PathosBackend:
    """Return a set of processes, none started.

    Raises:
        BackendUnavailable: pathos is not installed.
    """
    try:
        import pathos.helpers  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable("the backend 'pathos' needs pathos: pip install pathos") from error
    return PathosBackend(workers)
