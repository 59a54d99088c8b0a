"""The rules of the engine as a pure table: events in, actions out.

No thread, no clock, no I/O: every method is an event, and returns the actions that it calls for. `manager` performs
them. A task is always in exactly one place: waiting in its run's ranges, in a chunk on a worker, or settled.

    events                          actions
    ------                          -------
    submit, offer, close_input  ─▶  Start(count)            start workers
    ready                           Send(worker, chunk)     hand a chunk to a worker
    progress, done                  Stop(worker)            let an idle worker go (its tasks are used up)
    lost                        ─▶  Crashed(run, index, …)  a worker died while it ran this task
    cancel, recycle, memory         Abort(worker)           end a worker whose work is no longer wanted
                                    Skip(worker, run)       leave out what it has not begun of this run
                                    Finish(run)             nothing of the run is waiting or under way
                                    Hungry(run, count)      it could use so many more items
                                    GiveUp(run)             no worker lives long enough to run it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from nbparallel.engine.actions import (
    Abort,
    Action,
    Chunk,
    Crashed,
    Finish,
    GiveUp,
    Hungry,
    Send,
    Skip,
    Start,
    Stop,
)

#: An automatic chunk lasts about this long, in seconds: long against the ~0.1 ms that a chunk costs, short against
#: what an eye notices in a bar.
CHUNK_SECONDS = 0.02
#: Chunks are not cut below this, in seconds, even at the tail: sending one costs about as much.
SMALLEST_CHUNK_SECONDS = 0.0002
#: A chunk is at most this share of what is left, per worker (guided self-scheduling; Polychronopoulos and Kuck, 1987,
#: use 1; a half evens out tasks whose lengths vary).
SHARE_OF_REST = 0.5
#: A chunk is at most so many times the last one: a mean taken from one task says little.
GROWTH = 32
#: A worker is sent a further chunk before it finishes one when what it has lasts less than this, in seconds.
PREFETCH_SECONDS = 0.002
#: and when it has fewer than so many.
PREFETCH_CHUNKS = 16
#: A worker that dies before it ran anything is replaced; after so many in a row the engine gives up.
STARTS_BEFORE_GIVING_UP = 3


@dataclass
class _Run:
    number: int
    width: int
    chunksize: int | None
    ranges: deque[tuple[int, int]] = field(default_factory=deque)
    offered: int = 0
    streams: bool = False
    retries: int = 0
    attempts: dict[int, int] = field(default_factory=dict)
    closed: bool = False
    stopped: bool = False
    aborted: bool = False
    asked: bool = False
    last_size: int = 0
    mean: float | None = None
    serving: dict[int, int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return sum(stop - start for start, stop in self.ranges)


@dataclass
class _Worker:
    number: int
    ready: bool = False
    chunks: deque[Chunk] = field(default_factory=deque)
    settled: set[int] = field(default_factory=set)  # tasks of its first chunk whose outcome is known
    tasks_left: int | None = None
    recycled: bool = False
    aborted: bool = False
    ran: bool = False

    @property
    def leaving(self) -> bool:
        return self.recycled or self.aborted or self.tasks_left == 0


class Scheduler:
    """Which worker gets which tasks, and when."""

    def __init__(self, max_tasks_per_worker: int | None = None) -> None:
        self._runs: dict[int, _Run] = {}
        self._order: deque[int] = deque()
        self._workers: dict[int, _Worker] = {}
        self._max_tasks = max_tasks_per_worker
        self._next_chunk = 0
        self._starting = 0
        self._false_starts = 0
        self._short = False  # of memory

    # ---- events from the front ----

    def submit(
        self, run: int, width: int, chunksize: int | None, *, streams: bool = False, retries: int = 0
    ) -> list[Action]:
        """A run begins.

        Args:
            run: its number.
            width: on how many workers at once it may run.
            chunksize: tasks per chunk, `None` to measure.
            streams: whether its input is pulled as needed, so that it is to be told when it is (`Hungry`).
            retries: how often a task that failed is run again.
        """
        self._runs[run] = _Run(run, width, chunksize, streams=streams, retries=retries)
        self._order.append(run)
        return self._assign()

    def offer(self, run: int, count: int, *, last: bool, known: int = 0) -> list[Action]:
        """`count` more tasks of a run can be dispatched; with `last`, there will be no others.

        Args:
            run: which.
            count: how many.
            last: whether they are the last.
            known: how many tasks before them need not be, as their outcome is known.
        """
        state = self._runs.get(run)
        if state is None or state.stopped:
            return []
        state.asked = False
        state.offered += known
        if count:
            adjoins = state.ranges and state.ranges[-1][1] == state.offered  # they may share a chunk
            start = state.ranges.pop()[0] if adjoins else state.offered
            state.offered += count
            state.ranges.append((start, state.offered))
        state.closed = state.closed or last
        return self._assign() + self._finish_if_over(state)

    def retry(self, run: int, index: int) -> bool:
        """A task failed; return whether it is run again. It is dispatched with the next event."""
        known = self._runs[run]
        if known.stopped or known.attempts.get(index, 0) >= known.retries:
            return False
        known.attempts[index] = known.attempts.get(index, 0) + 1
        known.ranges.appendleft((index, index + 1))
        return True

    def cancel(self, run: int, *, abort: bool) -> list[Action]:
        """No further task of a run is wanted; with `abort`, nor are those under way."""
        known = self._runs.get(run)
        if known is None:
            return []
        known.ranges.clear()
        known.closed = known.stopped = True
        known.aborted = known.aborted or abort
        actions: list[Action] = []
        for number in list(known.serving):
            actions.append(Skip(number, run))
            if abort and self._workers[number].chunks[0].run == run:
                actions += self._abort_first(self._workers[number])
        return actions + self._finish_if_over(known)

    def _abort_first(self, worker: _Worker) -> list[Action]:
        """Have a worker stop if it is at a run that was aborted."""
        if not worker.chunks or not self._runs[worker.chunks[0].run].aborted:
            return []
        return [Abort(worker.number, worker.chunks[0].run, worker.chunks[0].number)]

    # ---- events from the workers ----

    def aborted(self, worker: int) -> None:
        """A worker is about to be ended, because it did not stop: whatever it is at, nobody is to blame."""
        self._workers[worker].aborted = True

    def started(self, worker: int) -> None:
        """A process was started for an action `Start`."""
        self._starting = max(0, self._starting - 1)
        self._workers[worker] = _Worker(worker, tasks_left=self._max_tasks)

    def start_failed(self) -> list[Action]:
        """A process could not be started; with no other worker left, the runs can't go on."""
        self._starting = max(0, self._starting - 1)
        return [] if self._workers or self._starting else self._give_up()

    def withdrawn(self, worker: int, chunk: int) -> list[Action]:
        """A chunk was not sent after all: its tasks are settled without it (a cancelled future)."""
        run, _ = self._take_back(worker, chunk)
        return self._assign() + self._finish_if_over(run)

    def split(self, worker: int, chunk: int) -> list[Action]:
        """A chunk can't be sent as it is: its tasks are to be sent one by one."""
        run, gone = self._take_back(worker, chunk)
        if not run.stopped:
            run.ranges.extendleft((index, index + 1) for index in reversed(range(gone.start, gone.stop)))
        return self._abort_first(self._workers[worker]) + self._assign() + self._finish_if_over(run)

    def _take_back(self, worker: int, chunk: int) -> tuple[_Run, Chunk]:
        known = self._workers[worker]
        gone = next(item for item in known.chunks if item.number == chunk)
        known.chunks.remove(gone)
        if known.tasks_left is not None:
            known.tasks_left += gone.stop - gone.start
        run = self._runs[gone.run]
        self._leave(run, worker)
        return run, gone

    def ready(self, worker: int) -> list[Action]:
        """A worker can take chunks."""
        known = self._workers.get(worker)
        if known is None:  # it was let go while it started
            return []
        known.ready = True
        return self._assign()

    def progress(self, worker: int, chunk: int, indices: Iterable[int]) -> list[Action]:
        """Outcomes of some tasks of a chunk came in; the chunk goes on."""
        known = self._workers[worker]
        if known.chunks and known.chunks[0].number == chunk:
            known.settled.update(indices)
            known.ran = True
            self._false_starts = 0
        return self._assign()

    def done(self, worker: int, chunk: int, count: int, seconds: float) -> list[Action]:
        """A worker finished its first chunk: `count` tasks took `seconds` in its last report."""
        known = self._workers[worker]
        assert known.chunks[0].number == chunk, "chunks end in the order in which they were sent"
        finished = known.chunks.popleft()
        known.settled.clear()
        known.ran = True
        self._false_starts = 0
        run = self._runs[finished.run]
        self._leave(run, worker)
        if count:
            each = seconds / count
            run.mean = each if run.mean is None else 0.5 * (run.mean + each)
        # It may have been at this chunk, of an aborted run, before its report on the last came in.
        return self._abort_first(known) + self._assign() + self._finish_if_over(run)

    def lost(
        self,
        worker: int,
        *,
        chunk: int | None = None,
        running: int | None = None,
        pid: int = 0,
        exitcode: int | None = None,
    ) -> list[Action]:
        """A worker died.

        Args:
            worker: which.
            chunk: the number of the chunk that it was at, if any.
            running: the index of the task that it was running; none while it rebuilt inputs or sent results.
            pid: its process, passed on.
            exitcode: how it ended, passed on.
        """
        known = self._workers.pop(worker)
        actions: list[Action] = []
        touched = []
        for position, held in reversed(list(enumerate(known.chunks))):
            run = self._runs[held.run]
            self._leave(run, worker)
            touched.append(run)
            left = [i for i in range(held.start, held.stop) if position or i not in known.settled]
            back = _ranges(left)
            # A worker that the table ended may have been at another run's task by then: nobody is to blame.
            if position == 0 and held.number == chunk and not known.aborted:
                guilty = running if running is not None or len(left) != 1 else left[0]
                if guilty in left:
                    back = _ranges([i for i in left if i != guilty])
                    if not self.retry(run.number, guilty):
                        actions.append(Crashed(held.run, guilty, pid, exitcode))
                elif running is None:  # which input or result it was shows once each travels alone
                    back = [(i, i + 1) for i in left]
            if not run.stopped:
                run.ranges.extendleft(reversed(back))
        if not known.ran and chunk is None and not known.leaving:
            self._false_starts += 1
        if self._false_starts >= STARTS_BEFORE_GIVING_UP and not self._workers:
            return actions + self._give_up()
        actions += self._assign()
        for run in {id(run): run for run in touched}.values():
            actions += self._finish_if_over(run)
        return actions

    def grow(self, count: int) -> list[Action]:
        """Workers are wanted ahead of their work, until there are `count`."""
        missing = count - len(self._workers) - self._starting
        if missing <= 0:
            return []
        self._starting += missing
        return [Start(missing)]

    def recycle(self) -> list[Action]:
        """Let all workers go once they are idle: what they imported is out of date."""
        for known in self._workers.values():
            known.recycled = True
        return self._assign()

    def memory(self, *, short: bool, heavy: Iterable[int] = ()) -> list[Action]:
        """Memory is short, or no longer: while it is, one chunk is under way at a time.

        Args:
            short: which.
            heavy: workers that hold much of it: those that are idle go.
        """
        if not short and not self._short:
            return []
        self._short = short
        for known in map(self._workers.get, heavy):
            if known is not None and not known.chunks:
                known.recycled = True
        return self._assign()

    # ---- what is known ----

    @property
    def workers(self) -> list[int]:
        return list(self._workers)

    @property
    def idle(self) -> bool:
        return not self._runs

    def running_chunk(self, worker: int) -> Chunk | None:
        chunks = self._workers[worker].chunks
        return chunks[0] if chunks else None

    # ---- the rules ----

    def _assign(self) -> list[Action]:
        actions: list[Action] = []
        for known in [known for known in self._workers.values() if known.leaving and not known.chunks]:
            del self._workers[known.number]
            actions.append(Stop(known.number))
        if not any(run.ranges for run in self._runs.values()):
            return actions + self._feed()
        # Idle workers first; then those that would soon be.
        while True:
            free = [known for known in self._workers.values() if self._has_room(known)]
            sent = None
            for known in sorted(free, key=lambda worker: len(worker.chunks)):
                sent = self._next_for(known)
                if sent is not None:
                    break
            if sent is None:
                break
            actions.append(sent)
        return actions + self._start_workers() + self._feed()

    def _has_room(self, worker: _Worker) -> bool:
        if not worker.ready or worker.leaving:
            return False
        if self._short and any(known.chunks for known in self._workers.values()):
            return False
        if not worker.chunks:
            return True
        if len(worker.chunks) >= PREFETCH_CHUNKS:
            return False
        expected = 0.0
        for chunk in worker.chunks:
            mean = self._runs[chunk.run].mean
            if mean is None:
                return False
            expected += mean * (chunk.stop - chunk.start)
        return expected < PREFETCH_SECONDS

    def _next_for(self, worker: _Worker) -> Send | None:
        for _ in range(len(self._order)):
            run = self._runs[self._order[0]]
            self._order.rotate(-1)
            if not run.ranges:
                continue
            if worker.number not in run.serving and len(run.serving) >= run.width:
                continue
            size = self._size(run)
            if worker.chunks and run.waiting < 4 * size * min(run.width, len(self._workers)):
                continue  # at the tail a chunk in hand is worth more than one in a queue
            return self._send(worker, run, size)
        return None

    def _send(self, worker: _Worker, run: _Run, size: int) -> Send:
        if worker.tasks_left is not None:
            size = min(size, worker.tasks_left)
        start, stop = run.ranges.popleft()
        if stop - start > size:
            run.ranges.appendleft((start + size, stop))
            stop = start + size
        if worker.tasks_left is not None:
            worker.tasks_left -= stop - start
        chunk = Chunk(self._next_chunk, run.number, start, stop)
        self._next_chunk += 1
        worker.chunks.append(chunk)
        run.serving[worker.number] = run.serving.get(worker.number, 0) + 1
        run.last_size = stop - start
        return Send(worker.number, chunk)

    def _size(self, run: _Run) -> int:
        if run.chunksize is not None:
            return run.chunksize
        if run.mean is None:
            return 1
        mean = max(run.mean, 1e-9)
        fair = int(run.waiting * SHARE_OF_REST / run.width)
        size = min(int(CHUNK_SECONDS / mean), max(fair, int(SMALLEST_CHUNK_SECONDS / mean)))
        return max(1, min(size, GROWTH * run.last_size))

    def _start_workers(self) -> list[Action]:
        if self._false_starts >= STARTS_BEFORE_GIVING_UP and self._workers:
            return []  # those that are left show whether any can run; a replacement each time would go on for ever
        if self._short and (self._workers or self._starting):
            return []
        # A run needs as many workers as it has tasks to put in their hands, up to its width.
        wanted = 0
        for run in self._runs.values():
            if not run.stopped:
                chunks = -(-run.waiting // (run.chunksize or 1))
                staying = sum(not self._workers[number].leaving for number in run.serving)
                wanted += min(run.width, staying + chunks)
        staying = sum(not known.leaving for known in self._workers.values())
        widest = max((run.width for run in self._runs.values()), default=0)
        missing = min(wanted, 1 if self._short else widest) - staying - self._starting
        if missing <= 0:
            return []
        self._starting += missing
        return [Start(missing)]

    def _give_up(self) -> list[Action]:
        self._false_starts = 0
        actions: list[Action] = []
        for run in list(self._runs.values()):
            actions += [GiveUp(run.number), *self.cancel(run.number, abort=False)]
        return actions

    def _feed(self) -> list[Action]:
        """Ask for items of the runs that could soon run out."""
        actions: list[Action] = []
        for run in self._runs.values():
            if run.closed or run.asked or not run.streams:
                continue
            size = self._size(run) if run.chunksize is not None or run.mean is None else self._size_by_time(run)
            target = 2 * size * run.width
            if run.waiting < target:
                run.asked = True
                actions.append(Hungry(run.number, max(1, 2 * target - run.waiting)))
        return actions

    def _size_by_time(self, run: _Run) -> int:
        mean = max(run.mean or 0.0, 1e-9)
        return max(1, min(int(CHUNK_SECONDS / mean), GROWTH * max(run.last_size, 1)))

    def _leave(self, run: _Run, worker: int) -> None:
        run.serving[worker] -= 1
        if not run.serving[worker]:
            del run.serving[worker]

    def _finish_if_over(self, run: _Run) -> list[Action]:
        if run.closed and not run.ranges and not run.serving and run.number in self._runs:
            del self._runs[run.number]
            self._order.remove(run.number)
            return [Finish(run.number)]
        return []


def _ranges(indices: list[int]) -> list[tuple[int, int]]:
    """Return sorted indices as half-open ranges."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found
