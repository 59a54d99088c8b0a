"""Random events against a model of runs and workers: the scheduling table loses and doubles no task."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

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
    retries: int = 0
    tries: Counter[int] = field(default_factory=Counter)  # how often a task was to be run again
    offered: int = 0
    closed: bool = False
    hungry: bool = False
    cancelled: bool = False
    aborted: bool = False
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
    asked: set[int] = field(default_factory=set)  # the chunks that it is to stop
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
        self.short = False
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
            case Abort(number, run, chunk):
                worker = self.workers[number]
                assert self.runs[run].aborted, "it is at a task that is wanted"
                assert run in worker.skipped, "it would go on with the next task"
                assert (worker.chunks[0].run, worker.chunks[0].number) == (run, chunk)
                worker.asked.add(chunk)
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
        assert not (self.short and self.busy()), "memory is short, and something is under way"
        assert 0 <= chunk.start < chunk.stop <= run.offered
        wanted = set(range(chunk.start, chunk.stop))
        assert wanted.isdisjoint(run.settled), "run twice"
        for other in self.workers.values():
            for position, held in enumerate(other.chunks):
                ahead = range(held.start if position else other.next, held.stop)
                assert held.run != chunk.run or wanted.isdisjoint(ahead), "under way twice"
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

    def is_run_again(self, number, index):
        run = self.runs[number]
        if run.cancelled or run.tries[index] == run.retries:
            return False
        run.tries[index] += 1
        return True

    def report(self, chunk, indices, failing=frozenset()):
        """Settle outcomes of a chunk, but for those failures that are run again."""
        for index in indices:
            if index - chunk.start in failing:
                again = self.is_run_again(chunk.run, index)
                assert self.scheduler.retry(chunk.run, index) == again
                if again:
                    continue
            self.settle(chunk.run, index)

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
        known=st.sampled_from([0, 0, 1, 20]),
        refused=st.frozensets(st.integers(0, 59), max_size=2),
        retries=st.sampled_from([0, 0, 1, 3]),
    )
    def submit(self, width, chunksize, streams, count, known, refused, retries):
        number = len(self.runs) + 1
        self.runs[number] = ModelRun(width, streams, refused, retries)
        self.perform(self.scheduler.submit(number, width, chunksize, streams=streams, retries=retries))
        if not streams:
            self.give(number, count, True, known)

    @precondition(lambda self: any(run.hungry and not run.finished for run in self.runs.values()))
    @rule(data=st.data(), count=st.integers(0, 30), known=st.sampled_from([0, 0, 2]), last=st.booleans())
    def offer(self, data, count, known, last):
        number = data.draw(st.sampled_from([n for n in self.open_runs() if self.runs[n].hungry]))
        self.give(number, count, last, known)

    def give(self, number, count, last, known=0):
        run = self.runs[number]
        run.hungry = False
        run.closed = run.closed or last
        if not run.cancelled:
            before, run.offered = run.offered, run.offered + known + count
            for index in range(before, before + known):
                self.settle(number, index)
        self.perform(self.scheduler.offer(number, count, last=last, known=known))

    @precondition(lambda self: self.open_runs())
    @rule(data=st.data(), abort=st.booleans())
    def cancel(self, data, abort):
        number = data.draw(st.sampled_from(self.open_runs()))
        run = self.runs[number]
        run.cancelled = run.closed = True
        run.aborted = run.aborted or abort
        self.perform(self.scheduler.cancel(number, abort=abort))

    @rule(count=st.integers(1, 4))
    def grow(self, count):
        self.perform(self.scheduler.grow(count))

    @rule()
    def recycle(self):
        self.perform(self.scheduler.recycle())

    @rule(short=st.booleans(), heavy=st.frozensets(st.integers(0, 9), max_size=3))
    def look_at_memory(self, short, heavy):
        self.short = short
        self.perform(self.scheduler.memory(short=short, heavy=heavy))

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
    @rule(data=st.data(), count=st.integers(1, 5), failing=st.frozensets(st.integers(0, 9), max_size=2))
    def progress(self, data, count, failing):
        number = data.draw(st.sampled_from(self.busy()))
        worker = self.workers[number]
        chunk = worker.chunks[0]
        stop = min(chunk.stop, worker.next + count)
        indices = range(worker.next, stop)
        self.report(chunk, indices, failing)
        worker.next = stop
        self.perform(self.scheduler.progress(number, chunk.number, indices))

    @precondition(lambda self: self.busy())
    @rule(
        data=st.data(),
        each=st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.1, 10.0]),
        left_out=st.integers(0, 60),
        failing=st.frozensets(st.integers(0, 9), max_size=2),
    )
    def done(self, data, each, left_out, failing):
        self.complete(data.draw(st.sampled_from(self.busy())), each, left_out, failing)

    def complete(self, number, each, left_out=0, failing=frozenset()):
        worker = self.workers[number]
        chunk = worker.chunks.popleft()
        stop = chunk.stop
        if self.runs[chunk.run].cancelled:  # told to leave them out, or at the first failure of the run
            stop = max(worker.next, stop - left_out)
        self.report(chunk, range(worker.next, stop), failing)
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
        self.lose(data.draw(st.sampled_from(sorted(self.workers))), moment, skip)

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def end(self, data):
        """A worker is ended: it did not stop, or it has gone on since it was over its limit."""
        number = data.draw(st.sampled_from(self.busy()))
        self.workers[number].dying = True
        self.scheduler.aborted(number)

    @invariant()
    def whoever_is_at_an_aborted_run_was_asked_to_stop(self):
        for worker in self.workers.values() if hasattr(self, "workers") else ():
            if worker.chunks and self.runs[worker.chunks[0].run].aborted:
                assert worker.chunks[0].number in worker.asked

    def lose(self, number, moment, skip=0):
        worker = self.workers.pop(number)
        at = running = None
        blamed = set()
        if worker.chunks and moment != "nothing":
            chunk = worker.chunks[0]
            at = chunk.number
            if moment == "running" and worker.next < chunk.stop:
                running = min(worker.next + skip, chunk.stop - 1)  # what came before it was not reported yet
            elif moment == "between":
                at, running = chunk.number - 1, chunk.start
            left = range(worker.next, chunk.stop)
            guilty = left[0] if running is None and len(left) == 1 else running
            if at == chunk.number and not worker.dying and guilty in left and not self.is_run_again(chunk.run, guilty):
                blamed.add((chunk.run, guilty))
        actions = self.scheduler.lost(number, chunk=at, running=running, pid=number, exitcode=1)
        assert {(action.run, action.index) for action in actions if isinstance(action, Crashed)} == blamed
        self.perform(actions)

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
                self.lose(dying[0], "running")
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
