"""Threads of this process: for tasks that wait (files, network) or release the GIL (NumPy), with nothing to pickle."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbparallel.backends import local
from nbparallel.engine import scheduler
from nbparallel.engine.work import Failure, Gate, Payload, Work


class ThreadsBackend:
    """A set of warm threads under the same scheduling rules as processes."""

    name = "threads"

    def __init__(self) -> None:
        self._lock = Gate()
        self._scheduler = scheduler.Scheduler()
        self._actions: deque[scheduler.Action] = deque()
        self._performing = False
        self._works: dict[int, Work] = {}
        self._skipped: set[int] = set()
        self._queues: dict[int, queue.SimpleQueue[Any]] = {}
        self._threads: list[threading.Thread] = []
        self._closing = False

    @property
    def usable(self) -> bool:
        return not self._closing

    def prepare(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def submit(self, work: Work) -> None:
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot schedule new tasks after shutdown")
            self._works[work.number] = work
            self._perform(self._scheduler.submit(work.number, work.width, work.chunksize, streams=work.streams))

    def offer(self, work: Work, count: int, *, last: bool) -> None:
        with self._lock:
            self._perform(self._scheduler.offer(work.number, count, last=last))

    def cancel(self, work: Work, *, abort: bool) -> None:
        # A thread can't be ended: what runs goes on, and the rest is left out.
        with self._lock:
            self._skipped.add(work.number)
            self._perform(self._scheduler.cancel(work.number, abort=False))

    def shutdown(self, *, abort: bool, wait: bool = True) -> None:
        with self._lock:
            self._closing = True
            if abort:
                for work in list(self._works.values()):
                    self.cancel(work, abort=True)
            threads = list(self._threads)
            for waiting in self._queues.values():
                waiting.put(None)
        for thread in threads:
            if wait and thread is not threading.current_thread():
                thread.join()

    def _perform(self, actions: Iterable[scheduler.Action]) -> None:
        self._actions.extend(actions)
        if self._performing:
            return
        self._performing = True
        try:
            while self._actions:
                self._act(self._actions.popleft())
        finally:
            self._performing = False

    def _act(self, action: scheduler.Action) -> None:
        match action:
            case scheduler.Send(number, chunk):
                work = self._works[chunk.run]
                payload = work.payload(chunk.start, chunk.stop)
                if payload is None:
                    self._perform(self._scheduler.withdrawn(number, chunk.number))
                else:
                    self._queues[number].put((work, chunk, payload))
            case scheduler.Start(count):
                for _ in range(count):
                    self._start()
            case scheduler.Hungry(run, count):
                self._works[run].hungry(count)
                self._lock.touch(self._works[run])
            case scheduler.Finish(run):
                self._skipped.discard(run)
                work = self._works.pop(run)
                work.finish()
                self._lock.touch(work)

    def _start(self) -> None:
        number = len(self._threads)
        self._queues[number] = queue.SimpleQueue()
        name = f"nbparallel-thread-{number}"
        thread = threading.Thread(target=self._work, args=(number,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        self._scheduler.started(number)
        self._perform(self._scheduler.ready(number))

    def _work(self, number: int) -> None:
        while True:
            given = self._queues[number].get()
            if given is None:
                return
            self._run(number, *given)
            del given  # the inputs must not outlive the chunk

    def _run(self, number: int, work: Work, chunk: scheduler.Chunk, payload: Payload) -> None:
        def report(first: int, values: Sequence[Any], failures: dict[int, Failure], seconds: float) -> None:
            with self._lock:
                work.settle(first, values, failures, seconds)
                self._lock.touch(work)

        def wanted() -> bool:
            return work.number not in self._skipped

        count, seconds = local.run_chunk(work, payload, chunk.start, report, wanted, "thread")
        with self._lock:
            self._perform(self._scheduler.done(number, chunk.number, count, seconds))


def configuration(workers: int, start_method: str) -> tuple[object, ...]:
    """Return nothing: one set of threads serves all."""
    return ()


def open_backend(workers: int, start_method: str) -> ThreadsBackend:
    return ThreadsBackend()
