"""Slots: threads that execute chunks under the engine's scheduling rules, each one chunk at a time.

What the backends `threads` and `pathos` share; they say what a slot is and how it executes a chunk. Everything that
touches the scheduler holds `_lock`.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbparallel import interrupts
from nbparallel.engine import actions, scheduler
from nbparallel.engine.times import Times
from nbparallel.engine.work import Failure, Gate, Payload, Work, settle


class SlotsBackend(ABC):
    """A set of warm slots."""

    name: str

    def __init__(self) -> None:
        self._lock = Gate()
        self._scheduler = scheduler.Scheduler()
        self._works: dict[int, Work] = {}
        self._skipped: set[int] = set()
        self._slots: dict[int, Any] = {}
        self._actions: deque[actions.Action] = deque()
        self._performing = False
        self._queues: dict[int, queue.SimpleQueue[Any]] = {}
        self._threads: list[threading.Thread] = []
        self._no_start: Failure | None = None
        self._closing = False

    # ---- what tells the kinds of slots apart; called on a slot's thread, without the lock ----

    @abstractmethod
    def _open(self, number: int) -> Any:
        """Return a new slot."""

    @abstractmethod
    def _run(self, number: int, slot: Any, work: Work, chunk: actions.Chunk, payload: Payload) -> bool:
        """Execute a chunk and tell the scheduler; return False if the slot is lost."""

    @abstractmethod
    def _close(self, slot: Any) -> None:
        """Let a slot go."""

    # ---- engine.work.Backend ----

    @property
    def usable(self) -> bool:
        """Whether works can be submitted."""
        return not self._closing

    def prepare(self, function: Callable[..., Any]) -> Any:
        """Return `function` in the form in which it is shipped."""
        return function

    def submit(self, work: Work) -> None:
        """Begin a run."""
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot schedule new tasks after shutdown")
            self._works[work.number] = work
            begun = self._scheduler.submit(
                work.number, work.width, work.chunksize, streams=work.streams, retries=work.retries
            )
            self._perform(begun)

    def offer(self, work: Work, count: int, *, last: bool, known: int = 0) -> None:
        """Make more tasks available."""
        with self._lock:
            self._perform(self._scheduler.offer(work.number, count, last=last, known=known))

    def cancel(self, work: Work, *, abort: bool) -> None:
        """Drop what has not begun; with `abort`, end what has, where a slot can be ended."""
        with self._lock:
            if work.number in self._works:
                self._skipped.add(work.number)
            self._perform(self._scheduler.cancel(work.number, abort=abort))

    def under_way(self, work: Work) -> None:
        """Return nothing: a slot tells when it has done a chunk."""
        return None

    def shutdown(self, *, abort: bool, wait: bool = True) -> None:
        """Let the slots go."""
        with self._lock:
            self._closing = True
            if abort:
                for work in list(self._works.values()):
                    self.cancel(work, abort=True)
            self._perform([])
        for thread in list(self._threads):
            if wait and thread is not threading.current_thread():
                interrupts.join(thread)

    def _settle(
        self, work: Work, first: int, values: Sequence[Any], failures: dict[int, Failure], times: Times
    ) -> None:
        settle(work, self._scheduler.retry, first, values, failures, times)
        self._lock.touch(work)

    # ---- performing actions; the lock is held ----

    def _perform(self, wanted: Iterable[actions.Action]) -> None:
        self._actions.extend(wanted)
        if self._performing:
            return
        self._performing = True
        try:
            while self._actions:
                self._act(self._actions.popleft())
        finally:
            self._performing = False
        if self._closing and self._scheduler.idle:
            for waiting in self._queues.values():
                waiting.put(None)

    def _act(self, action: actions.Action) -> None:
        match action:
            case actions.Send(number, chunk):
                payload = self._works[chunk.run].payload(chunk.start, chunk.stop)
                if payload is None:
                    self._perform(self._scheduler.withdrawn(number, chunk.number))
                else:
                    self._queues[number].put((self._works[chunk.run], chunk, payload))
            case actions.Start(count):
                for _ in range(count):
                    self._start()
            case actions.Stop(number):
                self._queues[number].put(None)
            case actions.Hungry(run, count):
                self._works[run].hungry(count)
                self._lock.touch(self._works[run])
            case actions.Crashed(run, index, pid, code):
                failure = Failure(None, "WorkerCrashed", "", pid=pid, exitcode=code, crashed=True)
                self._works[run].settle(index, [None], {index: failure}, 0.0)
                self._lock.touch(self._works[run])
            case actions.GiveUp(run):
                why = self._no_start or Failure(None, "WorkerCrashed", "its workers end before they run anything")
                why.crashed = True
                self._works[run].give_up(why)
                self._lock.touch(self._works[run])
            case actions.Finish(run):
                self._skipped.discard(run)
                work = self._works.pop(run)
                work.finish()
                self._lock.touch(work)

    def _start(self) -> None:
        number = len(self._threads)
        self._queues[number] = queue.SimpleQueue()
        name = f"nbparallel-{self.name}-{number}"
        thread = threading.Thread(target=self._live, args=(number, self._queues[number]), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    # ---- a slot's thread ----

    def _live(self, number: int, chunks: queue.SimpleQueue[Any]) -> None:
        try:
            slot = self._open(number)
        except Exception as error:
            with self._lock:
                del self._queues[number]
                self._no_start = Failure(error, "WorkerCrashed", f"a worker could not be started: {error}")
                self._perform(self._scheduler.start_failed())
            return
        with self._lock:
            self._slots[number] = slot
            self._scheduler.started(number)
            self._perform(self._scheduler.ready(number))
        while (given := chunks.get()) is not None and self._run(number, slot, *given):
            del given  # the inputs must not outlive their chunk
        with self._lock:
            del self._queues[number], self._slots[number]
        self._close(slot)
