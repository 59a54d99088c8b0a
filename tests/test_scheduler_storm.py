"""Random events against a model of runs and workers: the scheduling table loses and doubles no task."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from nbparallel.engine.scheduler import (
    Abort,
    Action,
    Chunk,
    Crashed,
    Finish,
    GiveUp,
    Hungry,
    Scheduler,
    Send,
    Skip,
    Start,
    Stop,
)


@dataclass
class ModelRun:
    """What the front knows of a run."""

    width: int
    streams: bool
    refused: frozenset[int]  # tasks whose input can't be sent
    offered: int = 0
    closed: bool = False
    hungry: bool = False
    cancelled: bool = False
    finished: bool = False
    given_up: bool = False
    settled: set[int] = field(default_factory=set)


@dataclass
class ModelWorker:
    """What a worker process knows of itself."""

    ready: bool = False
    dying: bool = False
    chunks: deque[Chunk] = field(default_factory=deque)
    next: int = 0  # the task of its first chunk that it reports next
    skipped: set[int] = field(default_factory=set)
    taken: int = 0


class Events(RuleBasedStateMachine):
    """Runs and workers that do whatever they might, in any order; actions are performed as `manager` does."""

    @initialize(max_tasks=st.sampled_from([None, None, 1, 3, 20]))
    def begin(self, max_tasks):
        self.max_tasks = max_tasks
        self.scheduler = Scheduler(max_tasks)
        self.runs: dict[int, ModelRun] = {}
        self.workers: dict[int, ModelWorker] = {}
        self.stopped: set[int] = set()  # told to go while they were still starting
        self.to_start = 0
        self.next_worker = 0
        self.queue: deque[Action] = deque()

    # ---- performing actions ----

    def perform(self, actions):
        self.queue.extend(actions)
        while self.queue:
            self.act(self.queue.popleft())

    def act(self, action):
        match action:
            case Start(count):
                assert count > 0
                self.to_start += count
            case Send(number, chunk):
                self.send(number, chunk)
            case Stop(number):
                worker = self.workers.pop(number)
                assert not worker.chunks
                if not worker.ready:
                    self.stopped.add(number)
            case Abort(number):
                worker = self.workers[number]
                assert self.runs[worker.chunks[0].run].cancelled, "it is at a task that is wanted"
                worker.dying = True
            case Skip(number, run):
                assert any(chunk.run == run for chunk in self.workers[number].chunks)
                self.workers[number].skipped.add(run)
            case Crashed(run, index, _, _):
                self.settle(run, index)
            case Finish(run):
                self.finish(run)
            case Hungry(run, count):
                known = self.runs[run]
                assert count > 0
                assert known.streams
                assert not known.hungry
                assert not known.closed
                known.hungry = True
            case GiveUp(run):
                assert not self.runs[run].finished
                self.runs[run].given_up = self.runs[run].cancelled = True

    def send(self, number, chunk):
        worker, run = self.workers[number], self.runs[chunk.run]
        assert worker.ready
        assert not worker.dying
        assert not run.finished
        assert 0 <= chunk.start < chunk.stop <= run.offered
        wanted = set(range(chunk.start, chunk.stop))
        assert wanted.isdisjoint(run.settled), "run twice"
        for other in self.workers.values():
            for held in other.chunks:
                assert held.run != chunk.run or wanted.isdisjoint(range(held.start, held.stop)), "under way twice"
        if not wanted.isdisjoint(run.refused):
            if len(wanted) > 1:
                self.queue.extend(self.scheduler.split(number, chunk.number))
            else:
                self.settle(chunk.run, chunk.start)
                self.queue.extend(self.scheduler.withdrawn(number, chunk.number))
            return
        worker.chunks.append(chunk)
        if len(worker.chunks) == 1:
            worker.next = chunk.start
        worker.taken += len(wanted)
        assert self.max_tasks is None or worker.taken <= self.max_tasks
        serving = [w for w in self.workers.values() if any(held.run == chunk.run for held in w.chunks)]
        assert len(serving) <= run.width

    def settle(self, number, index):
        run = self.runs[number]
        assert not run.finished
        assert 0 <= index < run.offered
        assert index not in run.settled, "settled twice"
        run.settled.add(index)

    def finish(self, number):
        run = self.runs[number]
        assert not run.finished
        run.finished = True
        assert all(held.run != number for worker in self.workers.values() for held in worker.chunks)
        if not run.cancelled:
            assert run.closed
            assert run.settled == set(range(run.offered)), "tasks were lost"

    # ---- events from the front ----

    def open_runs(self):
        return [number for number, run in self.runs.items() if not run.finished]

    @precondition(lambda self: len(self.open_runs()) < 4)
    @rule(
        width=st.integers(1, 4),
        chunksize=st.sampled_from([None, None, 1, 3, 10]),
        streams=st.booleans(),
        count=st.integers(0, 60),
        refused=st.frozensets(st.integers(0, 59), max_size=2),
    )
    def submit(self, width, chunksize, streams, count, refused):
        number = len(self.runs) + 1
        self.runs[number] = run = ModelRun(width, streams, refused)
        self.perform(self.scheduler.submit(number, width, chunksize, streams=streams))
        if not streams:
            run.offered, run.closed = count, True
            self.perform(self.scheduler.offer(number, count, last=True))

    @precondition(lambda self: any(run.hungry and not run.finished for run in self.runs.values()))
    @rule(data=st.data(), count=st.integers(1, 30), last=st.booleans())
    def offer(self, data, count, last):
        number = data.draw(st.sampled_from([n for n in self.open_runs() if self.runs[n].hungry]))
        self.give(number, count, last)

    def give(self, number, count, last):
        run = self.runs[number]
        run.hungry = False
        run.closed = run.closed or last
        if not run.cancelled:
            run.offered += count
        self.perform(self.scheduler.offer(number, count, last=last))

    @precondition(lambda self: self.open_runs())
    @rule(data=st.data(), abort=st.booleans())
    def cancel(self, data, abort):
        number = data.draw(st.sampled_from(self.open_runs()))
        self.runs[number].cancelled = self.runs[number].closed = True
        self.perform(self.scheduler.cancel(number, abort=abort))

    @rule(count=st.integers(1, 4))
    def grow(self, count):
        self.perform(self.scheduler.grow(count))

    @rule()
    def recycle(self):
        self.perform(self.scheduler.recycle())

    # ---- events from workers ----

    @precondition(lambda self: self.to_start)
    @rule()
    def start(self):
        self.to_start -= 1
        self.workers[self.next_worker] = ModelWorker()
        self.scheduler.started(self.next_worker)
        self.next_worker += 1

    @precondition(lambda self: self.to_start)
    @rule()
    def fail_to_start(self):
        self.to_start -= 1
        self.perform(self.scheduler.start_failed())

    def starting(self):
        return [number for number, worker in self.workers.items() if not worker.ready] + sorted(self.stopped)

    @precondition(lambda self: self.starting())
    @rule(data=st.data())
    def become_ready(self, data):
        self.make_ready(data.draw(st.sampled_from(self.starting())))

    def make_ready(self, number):
        if number in self.stopped:
            self.stopped.remove(number)
        else:
            self.workers[number].ready = True
        self.perform(self.scheduler.ready(number))

    def busy(self):
        return [number for number, worker in self.workers.items() if worker.chunks]

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), count=st.integers(1, 5))
    def progress(self, data, count):
        number = data.draw(st.sampled_from(self.busy()))
        worker = self.workers[number]
        chunk = worker.chunks[0]
        stop = min(chunk.stop, worker.next + count)
        for index in range(worker.next, stop):
            self.settle(chunk.run, index)
        indices = range(worker.next, stop)
        worker.next = stop
        self.perform(self.scheduler.progress(number, chunk.number, indices))

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), each=st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.1, 10.0]), left_out=st.integers(0, 60))
    def done(self, data, each, left_out):
        self.complete(data.draw(st.sampled_from(self.busy())), each, left_out)

    def complete(self, number, each, left_out=0):
        worker = self.workers[number]
        chunk = worker.chunks.popleft()
        stop = chunk.stop
        if self.runs[chunk.run].cancelled:  # told to leave them out, or at the first failure of the run
            stop = max(worker.next, stop - left_out)
        for index in range(worker.next, stop):
            self.settle(chunk.run, index)
        count = stop - worker.next
        if worker.chunks:
            worker.next = worker.chunks[0].start
        self.perform(self.scheduler.done(number, chunk.number, count, count * each))

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def refuse_to_load(self, data):
        """A worker can't rebuild the inputs of a chunk."""
        untouched = [n for n in self.busy() if self.workers[n].next == self.workers[n].chunks[0].start]
        if untouched:
            number = data.draw(st.sampled_from(untouched))
            worker = self.workers[number]
            chunk = worker.chunks.popleft()
            if worker.chunks:
                worker.next = worker.chunks[0].start
            worker.taken -= chunk.stop - chunk.start
            self.perform(self.scheduler.split(number, chunk.number))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), moment=st.sampled_from(["nothing", "loading", "running", "between"]), skip=st.integers(0, 5))
    def die(self, data, moment, skip):
        number = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers.pop(number)
        at = running = None
        if worker.chunks and moment != "nothing":
            chunk = worker.chunks[0]
            at = chunk.number
            if moment == "running" and worker.next < chunk.stop:
                running = min(worker.next + skip, chunk.stop - 1)  # what came before it was not reported yet
            elif moment == "between":
                at, running = chunk.number - 1, chunk.start
        self.perform(self.scheduler.lost(number, chunk=at, running=running, pid=number, exitcode=1))

    # ---- at the end, all that can go on does ----

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        for _ in range(10_000):
            hungry = [number for number in self.open_runs() if self.runs[number].hungry]
            dying = [number for number, worker in self.workers.items() if worker.dying]
            if hungry:
                self.give(hungry[0], 3, True)
            elif dying:
                self.workers.pop(dying[0])
                self.perform(self.scheduler.lost(dying[0]))
            elif self.to_start:
                self.start()
            elif self.starting():
                self.make_ready(self.starting()[0])
            elif self.busy():
                self.complete(self.busy()[0], 1e-3)
            else:
                break
        assert self.open_runs() == [], "a run never ends"
        assert self.scheduler.idle
        assert set(self.scheduler.workers) == set(self.workers)
        for run in self.runs.values():
            assert run.cancelled or run.settled == set(range(run.offered))


def test_no_order_of_events_loses_or_doubles_a_task(storm):
    run_state_machine_as_test(
        Events,
        settings=settings(
            max_examples=150 * storm,
            stateful_step_count=60,
            deadline=None,
            derandomize=storm == 1,
            database=None,
        ),
    )
