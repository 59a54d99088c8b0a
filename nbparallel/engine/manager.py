"""The engine of local processes: performs the scheduler's actions and turns messages into its events.

One thread does all waiting and receiving; a caller's thread that submits sends its own chunk where the socket takes it
at once, which saves a hop. Everything that touches the scheduler holds `_lock`; results are rebuilt without it. Called
by the `processes` backend.

    cell ─ submit ─▶ Scheduler ─ Send ─▶ Connection ──socket──▶ worker ─▶ fn
      ▲                  ▲                                        │
      └─ Work.settle ◀── manager thread ◀── Connection ──socket───┘      (descriptors 1 and 2: two pipes)
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbparallel import interrupts
from nbparallel.engine import actions, environment, scheduler
from nbparallel.engine.connection import Connection, Initializer, input_failure
from nbparallel.engine.limits import LOOK_SECONDS, Limits
from nbparallel.engine.memory import Guard
from nbparallel.engine.outcomes import Report, load
from nbparallel.engine.process import WorkerProcess, prepare
from nbparallel.engine.relay import OWN
from nbparallel.engine.times import Times
from nbparallel.engine.waker import Waker
from nbparallel.engine.wire import Message
from nbparallel.engine.work import Failure, Gate, Said, Work, settle
from nbparallel.machine import blas_environment
from nbparallel.serialize import Unit, dumps_data

#: How long a worker may take to end, in seconds: after it was told to, or after its connection ended.
EXIT_GRACE = 2.0
# For so long, in seconds, messages are gathered, to be acted on together.
_PIECE_SECONDS = 0.005


class Engine:
    """A set of warm worker processes of one kind.

    Args:
        start_method: how workers are started.
        threads_for: the number of workers among which the cores are shared, for BLAS and OpenMP limits.
        max_tasks_per_worker: after so many tasks a worker is replaced; `None`: never.
        initializer: a function and its arguments, called once in each worker.

    Raises:
        SerializationError: the initializer can't travel.
    """

    def __init__(
        self,
        start_method: str,
        threads_for: int,
        max_tasks_per_worker: int | None = None,
        initializer: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ) -> None:
        prepare(start_method)  # it starts while this process pickles the first function
        self.start_method = start_method
        self._made_in = os.getpid()
        self._variables = blas_environment(threads_for, os.environ)
        self._initializer = None if initializer is None else Initializer(*initializer)
        self._lock = Gate()
        self._scheduler = scheduler.Scheduler(max_tasks_per_worker)
        self._actions: deque[actions.Action] = deque()
        self._performing = False
        self._works: dict[int, Work] = {}
        self._units: dict[int, dict[int, Unit]] = {}  # a run's units must outlive its chunks
        self._workers: dict[int, Connection] = {}
        self._next_worker = 0
        self._to_start = 0
        self._unsent: set[Connection] = set()
        self._restless = False  # whether some worker must be looked at from time to time
        self._limits = Limits()
        self._guard = Guard()
        self._closing = False
        self._no_start: Failure | None = None
        self._environment = environment.current()
        self._selector = selectors.DefaultSelector()
        self._waker = Waker(self._selector)
        self._wake = self._waker.wake
        self._thread = threading.Thread(target=self._main, name="nbparallel-manager", daemon=True)
        self._thread.start()

    # ---- called by the front, on any thread ----

    def submit(self, work: Work) -> None:
        with self._lock:
            if not self.usable:
                raise RuntimeError("cannot schedule new tasks after shutdown")
            self._refresh()
            self._works[work.number] = work
            self._units[work.number] = {}
            self._limits.limit(work.number, work.timeout)
            begun = self._scheduler.submit(
                work.number, work.width, work.chunksize, streams=work.streams, retries=work.retries
            )
            self._perform(begun)

    def offer(self, work: Work, count: int, *, last: bool, known: int = 0) -> None:
        with self._lock:
            if work.style == "call":  # an executor's call: the notebook may have changed since the last
                self._refresh()
            self._perform(self._scheduler.offer(work.number, count, last=last, known=known))

    def cancel(self, work: Work, *, abort: bool) -> None:
        with self._lock:
            self._perform(self._scheduler.cancel(work.number, abort=abort))

    def grow(self, count: int) -> None:
        """Start workers ahead of their work until there are `count`."""
        with self._lock:
            self._perform(self._scheduler.grow(count))

    def under_way(self, work: Work) -> dict[int, tuple[int, float]]:
        """Return the task of a run that each worker is at, by its pid, and for how many seconds."""
        with self._lock:
            at = [(worker, self._chunk_of(worker)) for worker in self._workers.values()]
            return {w.process.pid: task for w, chunk in at if (task := w.task(work.number, chunk)) is not None}

    def shutdown(self, *, abort: bool, wait: bool = True) -> None:
        """End the workers and the thread.

        Args:
            abort: at once, instead of after their work.
            wait: return when they are gone; on the manager's own thread (in a future's callback) it can't.
        """
        if self._made_in != os.getpid():  # a fork of the notebook's process: the workers are not its own
            return
        with self._lock:
            self._closing = True
            if abort:
                # Not by interrupts first: what they would raise in a task is no outcome of it.
                for worker in self._workers.values():
                    if worker.number in self._scheduler.workers:
                        self._scheduler.aborted(worker.number)
                    worker.process.kill()
                for work in list(self._works.values()):
                    self._perform(self._scheduler.cancel(work.number, abort=False))
            self._wake()
        if wait and threading.current_thread() is not self._thread:
            interrupts.join(self._thread)

    @property
    def pids(self) -> list[int]:
        """The process ids of the live workers."""
        with self._lock:
            return [worker.process.pid for worker in self._workers.values()]

    @property
    def usable(self) -> bool:
        return not self._closing and self._thread.is_alive()

    # ---- performing actions; the lock is held ----

    def _perform(self, wanted: Iterable[actions.Action]) -> None:
        # An action may bring others (a chunk that can't be sent): they queue, so that the stack does not grow.
        self._actions.extend(wanted)
        if self._performing:
            return
        self._performing = True
        try:
            while self._actions:
                self._act(self._actions.popleft())
        finally:
            self._performing = False

    def _act(self, action: actions.Action) -> None:
        match action:
            case actions.Send(number, chunk):
                self._send(self._workers[number], chunk)
            case actions.Start(count):
                self._to_start += count
                self._wake()
            case actions.Stop(number):
                self._stop(self._workers[number])
            case actions.Abort(number, run):
                self._workers[number].interrupt(run)
                self._limits.told_to_stop(action)
                self._wake()
            case actions.Skip(number, run):
                self._workers[number].skip(run)
            case actions.Hungry(run, count):
                self._works[run].hungry(count)
                self._lock.touch(self._works[run])
            case actions.Crashed(run, index, pid, code):
                verdict = self._limits.verdict(pid)
                limit = None if verdict is None else verdict.limit
                failure = Failure(None, "WorkerCrashed", "", pid=pid, exitcode=code, crashed=True, limit=limit)
                failure.memory = self._guard.last_known(pid)
                self._settle(self._works[run], index, [None], {index: failure})
            case actions.GiveUp(run):
                why = self._no_start or Failure(None, "WorkerCrashed", "its workers end before they run anything")
                why.crashed = True
                self._works[run].give_up(why)
                self._lock.touch(self._works[run])
            case actions.Finish(run):
                self._units.pop(run, None)
                self._limits.forget(run)
                work = self._works.pop(run)
                work.finish()
                self._lock.touch(work)
                if self._closing:  # on another thread, perhaps: the manager may end now
                    self._wake()

    def _send(self, worker: Connection, chunk: actions.Chunk) -> None:
        work = self._works[chunk.run]
        payload = work.payload(chunk.start, chunk.stop)
        if payload is None:
            self._perform(self._scheduler.withdrawn(worker.number, chunk.number))
            return
        began = time.perf_counter()
        try:
            data = dumps_data(payload.inputs)
        except BaseException as error:  # a __reduce__ that exits, say: no interrupt comes here
            if chunk.stop - chunk.start > 1:  # only those tasks fail whose own input can't travel
                self._perform(self._scheduler.split(worker.number, chunk.number))
                return
            failure = input_failure(error, payload.inputs[0], chunk.start)
            self._settle(work, chunk.start, [None], {chunk.start: failure})
            self._perform(self._scheduler.withdrawn(worker.number, chunk.number))
            return
        data.units[payload.function.number] = payload.function
        self._units[chunk.run].update(data.units)
        worker.put_environment(self._environment)
        worker.put_units(data.units)
        worker.put_chunk(work, chunk, payload.function, data, began)
        self._flush(worker)
        if self._guard.asleep:
            self._guard.wake()
            self._wake()
        elif work.timeout is not None:
            self._wake()  # its time may be the next to look at

    def _settle(
        self, work: Work, first: int, values: Sequence[Any], failures: dict[int, Failure], times: Times | None = None
    ) -> None:
        settle(work, self._scheduler.retry, first, values, failures, times)
        self._lock.touch(work)

    def _flush(self, worker: Connection) -> None:
        worker.flush()
        if worker.has_unsent != worker.writing:
            self._unsent.add(worker)
            self._wake()  # only the manager's thread changes what the selector waits for

    def _stop(self, worker: Connection) -> None:
        if worker.stop_by is None:
            worker.stop_by = time.monotonic() + EXIT_GRACE
            self._restless = True
            worker.put_exit()
            self._flush(worker)

    def _refresh(self) -> None:
        """Take over changes of the notebook's environment."""
        now = environment.current()
        if now == self._environment:
            return
        before, self._environment = self._environment, now
        if now.outdates(before):
            self._perform(self._scheduler.recycle())

    # ---- the thread ----

    def _main(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # a defect: it must not leave anybody waiting for ever
            self._abandon(error)
            raise
        finally:
            self._selector.close()
            self._waker.close()

    def _abandon(self, error: BaseException) -> None:
        """Fail all that is under way."""
        why = Failure(error, type(error).__qualname__, f"the engine failed: {error}")
        with self._lock:
            self._closing = True
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.exitcode(EXIT_GRACE)
                worker.process.close()
            self._workers.clear()
            for work in self._works.values():
                # It may be this very work in which the defect lies: it must end all the same, and the others too.
                with contextlib.suppress(Exception):
                    work.give_up(why)
                work.finish()
                self._lock.touch(work)
            self._works.clear()

    def _serve(self) -> None:
        wait: float | None = None
        while True:
            for key, mask in self._selector.select(wait):
                key.data(mask)
            with self._lock:
                self._start_workers()
                if self._unsent:
                    self._watch_for_room()
                ended = self._look_after_workers() if self._restless else []
                wait = self._end_those_over_their_limits()
                left = self._look_at_memory()
                wait = left if wait is None else min(wait, wait if left is None else left)
                if self._closing and self._scheduler.idle:
                    for worker in self._workers.values():
                        self._stop(worker)
                    if not self._workers:
                        break
            for worker in ended:
                self._lost(worker)
                wait = 0.0

    def _watch_for_room(self) -> None:
        """Wait for room in the sockets of those workers to which something is left to send, and only theirs."""
        for worker in self._unsent:
            if worker.number in self._workers:
                worker.watch_for_room(self._selector)
        self._unsent.clear()

    def _look_after_workers(self) -> list[Connection]:
        """Look at the workers that are to end; return those that have, of which the selector can't tell."""
        for worker in self._workers.values():
            if worker.stop_by is not None and time.monotonic() > worker.stop_by:
                worker.process.kill()
        watched = [worker for worker in self._workers.values() if worker.process.sentinel is None]
        self._restless = bool(watched) or any(worker.stop_by is not None for worker in self._workers.values())
        return [worker for worker in watched if worker.process.exitcode() is not None]

    def _end_those_over_their_limits(self) -> float | None:
        """End workers that are to be; return how long to wait at most until the next look, in seconds."""
        wait = self._limits.end_those_over((worker, self._chunk_of(worker)) for worker in self._workers.values())
        if self._restless:
            wait = LOOK_SECONDS if wait is None else min(wait, LOOK_SECONDS)
        return wait

    def _look_at_memory(self) -> float | None:
        """Hold tasks back while memory is short, and end the largest worker when it is nearly used up.

        Returns:
            How long to wait at most until the next look, in seconds.
        """
        left = self._guard.seconds_left()
        if left is None or left > 0:
            return left
        workers = {worker.process.pid: worker for worker in self._workers.values()}
        active = any(self._chunk_of(worker) is not None for worker in workers.values())
        look = self._guard.look(workers, active=active)
        if look.news:
            for work in self._works.values():
                work.write(OWN, Said("stderr", look.news))
                self._lock.touch(work)
        heavy = [workers[pid].number for pid in look.heavy]
        self._perform(self._scheduler.memory(short=look.short, heavy=heavy))
        if look.victim is not None:
            workers[look.victim].process.kill()
        return self._guard.seconds_left()

    def _chunk_of(self, worker: Connection) -> actions.Chunk | None:
        return self._scheduler.running_chunk(worker.number) if worker.number in self._scheduler.workers else None

    def _start_workers(self) -> None:
        while self._to_start > 0:
            self._to_start -= 1
            if self._closing and self._scheduler.idle:
                self._perform(self._scheduler.start_failed())
                continue
            try:
                process = WorkerProcess(self.start_method, self._variables)
            except Exception as error:  # whatever it is, it must not end this thread
                self._no_start = Failure(error, "WorkerCrashed", f"a worker could not be started: {error}")
                self._perform(self._scheduler.start_failed())
                continue
            self._connect(process)

    def _connect(self, process: WorkerProcess) -> None:
        number = self._next_worker
        self._next_worker += 1
        worker = self._workers[number] = Connection(number, process)
        worker.watch(self._selector, self._on_socket, self._on_output, self._on_exit)
        self._restless = self._restless or process.sentinel is None
        self._scheduler.started(number)
        worker.put_environment(self._environment)
        if self._initializer is not None:
            worker.put_initializer(self._initializer)
        self._flush(worker)

    def _on_socket(self, worker: Connection, mask: int) -> None:
        if worker.number not in self._workers:  # it was lost by an earlier event of the same round
            return
        if mask & selectors.EVENT_WRITE:
            with self._lock:
                self._flush(worker)
        if mask & selectors.EVENT_READ:
            messages, alive = worker.receive()
            self._hear(worker, messages)
            if not alive:
                self._lost(worker)

    def _on_exit(self, worker: Connection, _: int) -> None:
        if worker.number in self._workers:
            self._lost(worker)

    def _on_output(self, worker: Connection, position: int, _: int) -> None:
        self._on_socket(worker, selectors.EVENT_READ)  # what was said before
        with self._lock:
            if worker.work is not None:
                self._lock.touch(worker.work)
            if worker.number in self._workers and not worker.relay_output(position):
                self._selector.unregister(worker.process.outputs[position])

    def _hear(self, worker: Connection, messages: Iterable[Message]) -> None:
        """Act on what a worker says, with the lock in pieces: what is rebuilt without it may take long."""
        loaded: list[Message] = []
        due = time.monotonic() + _PIECE_SECONDS
        for message in messages:
            loaded.append(load(message))
            if time.monotonic() > due:
                self._act_on(worker, loaded)
                loaded, due = [], time.monotonic() + _PIECE_SECONDS
        self._act_on(worker, loaded)

    def _act_on(self, worker: Connection, messages: list[Message]) -> None:
        with self._lock:
            for header, segments in messages:
                self._on_message(worker, header, segments)

    def _on_message(self, worker: Connection, header: tuple[Any, ...], segments: list[bytearray]) -> None:
        kind, *details = header
        if kind == "ready":
            self._perform(self._scheduler.ready(worker.number))
        elif kind == "done":
            self._on_report(worker, details[0])
        elif kind == "unloadable":
            worker.ledger.dropped(details[0])
            self._perform(self._scheduler.split(worker.number, details[0]))
        elif kind == "initializer failed":
            self._no_start = details[0]
            self._no_start.message = f"the initializer failed: {self._no_start.type}: {self._no_start.message}"
        else:
            work = self._works.get(details[0], worker.work)
            worker.listener.hear(header, segments, functools.partial(worker.say, work))
            if work is not None:
                self._lock.touch(work)

    def _on_report(self, worker: Connection, report: Report) -> None:
        chunk, first, count = report.chunk, report.first, len(report.values)
        times = worker.ledger.reported(chunk, report.measured, report.arrived, report.weight, last=report.last)
        worker.relay_outputs()  # what the tasks wrote comes before what they returned
        self._settle(self._works[report.run], first, report.values, report.failures, times)
        if report.last:
            self._limits.reacted(worker.number, chunk)
            self._perform(self._scheduler.done(worker.number, chunk, count, times.seconds))
        else:
            self._perform(self._scheduler.progress(worker.number, chunk, range(first, first + count)))

    def _lost(self, worker: Connection) -> None:
        """Act on the end of a worker, wanted or not."""
        self._hear(worker, worker.receive_rest())
        with self._lock:
            self._bury(worker)

    def _bury(self, worker: Connection) -> None:
        process = worker.process
        code = worker.end(EXIT_GRACE)
        if worker.work is None and self._works:  # an initializer's last words
            worker.adopt(next(iter(self._works.values())))
        at = {"chunk": worker.chunk, "running": worker.running}
        self._no_start = worker.ended_by_initializer(code) or self._no_start
        cut = worker.cut_short()
        if cut is not None and cut.run in self._works:
            self._works[cut.run].timed(cut.index, 1, cut.times)
        del self._workers[worker.number]
        worker.close(self._selector)
        self._guard.ended(process.pid, process.peak)
        verdict = self._limits.verdict(process.pid)
        if worker.number in self._scheduler.workers:  # otherwise it was told to go
            # Ended for not reacting to an interrupt, or too late for the task that was over its limit.
            if verdict is not None and (verdict.limit is None or verdict.running != at["running"]):
                self._scheduler.aborted(worker.number)
            self._perform(self._scheduler.lost(worker.number, **at, pid=process.pid, exitcode=code))
        self._limits.gone(worker)
        self._guard.gone(process.pid)
