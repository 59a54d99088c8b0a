"""The scheduling table, event by event: `nbparallel.engine.scheduler` has no thread, clock or I/O to wait for.

`test_scheduler_storm` drives it with random events.
"""

from __future__ import annotations

import itertools
from collections import deque

import pytest

from nbparallel.engine.scheduler import (
    CHUNK_SECONDS,
    GROWTH,
    PREFETCH_CHUNKS,
    STARTS_BEFORE_GIVING_UP,
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

RUN, OTHER = 1, 2


def with_workers(count: int, *, max_tasks: int | None = None) -> Scheduler:
    """Return a table that knows `count` ready workers, 0 to count - 1, and no run."""
    scheduler = Scheduler(max_tasks)
    assert scheduler.grow(count) == [Start(count)]
    for worker in range(count):
        scheduler.started(worker)
    for worker in range(count):
        assert scheduler.ready(worker) == []
    return scheduler


def submitted(
    scheduler: Scheduler, count: int, *, run: int = RUN, width: int = 1, chunksize: int | None = 1
) -> list[Action]:
    """Submit a run of `count` tasks, all there."""
    return scheduler.submit(run, width, chunksize) + scheduler.offer(run, count, last=True)


def sends(actions: list[Action]) -> list[Send]:
    return [action for action in actions if isinstance(action, Send)]


def tasks(actions: list[Action]) -> list[int]:
    """Return the indices that were sent."""
    return [index for sent in sends(actions) for index in range(sent.chunk.start, sent.chunk.stop)]


def others(actions: list[Action]) -> list[Action]:
    return [action for action in actions if not isinstance(action, Send)]


def only_send(actions: list[Action]) -> Chunk:
    (sent,) = sends(actions)
    return sent.chunk


# ---- starting workers ----


def test_a_run_without_tasks_starts_nothing_and_finishes():
    scheduler = Scheduler()
    assert scheduler.submit(RUN, 4, None) == []
    assert scheduler.offer(RUN, 0, last=True) == [Finish(RUN)]
    assert scheduler.idle


@pytest.mark.parametrize(
    ("width", "tasks", "chunksize", "wanted"),
    [(4, 100, 1, 4), (4, 2, 1, 2), (4, 10, 5, 2), (4, 11, 5, 3), (1, 100, 1, 1), (8, 3, None, 3)],
)
def test_as_many_workers_are_started_as_have_a_chunk_to_run(width, tasks, chunksize, wanted):
    assert submitted(Scheduler(), tasks, width=width, chunksize=chunksize) == [Start(wanted)]


def test_workers_under_way_are_not_started_twice():
    scheduler = Scheduler()
    scheduler.submit(RUN, 4, 1)
    assert scheduler.offer(RUN, 1, last=False) == [Start(1)]
    assert scheduler.offer(RUN, 1, last=False) == [Start(1)]
    scheduler.started(0)
    assert scheduler.offer(RUN, 1, last=False) == [Start(1)]
    assert scheduler.offer(RUN, 5, last=True) == [Start(1)]


def test_a_worker_gets_tasks_once_it_is_ready():
    scheduler = Scheduler()
    submitted(scheduler, 2)
    scheduler.started(7)
    assert scheduler.running_chunk(7) is None
    assert scheduler.ready(7) == [Send(7, Chunk(0, RUN, 0, 1))]
    assert scheduler.running_chunk(7) == Chunk(0, RUN, 0, 1)


def test_growing_counts_the_workers_that_are_there_or_on_their_way():
    scheduler = Scheduler()
    assert scheduler.grow(3) == [Start(3)]
    assert scheduler.grow(3) == []
    scheduler.started(0)
    assert scheduler.grow(4) == [Start(1)]
    assert submitted(scheduler, 10, width=4) == []


def test_a_single_start_that_fails_ends_the_run():
    scheduler = Scheduler()
    submitted(scheduler, 3)
    assert scheduler.start_failed() == [GiveUp(RUN), Finish(RUN)]
    assert scheduler.idle


def test_a_start_that_fails_does_no_harm_beside_another():
    scheduler = Scheduler()
    submitted(scheduler, 3, width=2)
    assert scheduler.start_failed() == []
    scheduler.started(0)
    actions = scheduler.ready(0)
    assert tasks(actions) == [0]
    assert others(actions) == [Start(1)]  # it is tried again as long as there is use for it


# ---- width and prefetching ----


def test_a_run_is_never_on_more_workers_than_its_width():
    scheduler = with_workers(4)
    assert [sent.worker for sent in sends(submitted(scheduler, 100, width=2))] == [0, 1]


def test_long_tasks_are_not_sent_ahead():
    scheduler = with_workers(2)
    submitted(scheduler, 100, width=2)
    assert len(sends(scheduler.done(0, 0, 1, 1.0))) == 1
    assert len(sends(scheduler.done(1, 1, 1, 1.0))) == 1


def test_tiny_tasks_are_sent_ahead_once_their_length_is_known():
    scheduler = with_workers(1)
    assert tasks(submitted(scheduler, 1000)) == [0]  # nothing is known yet
    actions = scheduler.done(0, 0, 1, 1e-6)
    assert tasks(actions) == list(range(1, 1 + PREFETCH_CHUNKS))
    assert tasks(scheduler.done(0, 1, 1, 1e-6)) == [1 + PREFETCH_CHUNKS]


def test_what_is_sent_ahead_lasts_only_so_long():
    scheduler = with_workers(1)
    submitted(scheduler, 1000)
    assert len(sends(scheduler.done(0, 0, 1, 0.0015))) == 2  # 1.5 ms are below the limit of 2 ms, 3 ms are not


def test_at_the_tail_nothing_is_sent_ahead():
    scheduler = with_workers(2)
    submitted(scheduler, 9, width=2)
    actions = scheduler.done(0, 0, 1, 1e-6)
    assert {sent.worker for sent in sends(actions)} == {0}
    assert len(sends(actions)) == 1  # 7 wait, and in two workers' hands they end sooner than in one's queue


def test_idle_workers_are_served_before_queues_are_filled():
    scheduler = with_workers(2)
    scheduler.submit(RUN, 2, 1)
    assert tasks(scheduler.offer(RUN, 1, last=False)) == [0]
    scheduler.done(0, 0, 1, 1e-6)
    actions = scheduler.offer(RUN, 100, last=True)
    assert [sent.worker for sent in sends(actions)[:2]] == [0, 1]


# ---- sizes of chunks ----


def simulate(durations: list[float], width: int) -> list[tuple[int, float]]:
    """Run tasks of given lengths on ideal workers; return each chunk's size and duration, as sent."""
    scheduler = with_workers(width)
    chunks: list[tuple[int, float]] = []
    queues: dict[int, deque[Chunk]] = {worker: deque() for worker in range(width)}
    ends: dict[int, float] = {}
    now, finished = 0.0, False

    def length(chunk: Chunk) -> float:
        return sum(durations[chunk.start : chunk.stop])

    def perform(actions: list[Action]) -> None:
        nonlocal finished
        for action in actions:
            if isinstance(action, Send):
                chunks.append((action.chunk.stop - action.chunk.start, length(action.chunk)))
                queues[action.worker].append(action.chunk)
                if len(queues[action.worker]) == 1:
                    ends[action.worker] = now + length(action.chunk)
            finished = finished or action == Finish(RUN)

    perform(submitted(scheduler, len(durations), width=width, chunksize=None))
    while ends:
        worker = min(ends, key=lambda each: ends[each])
        now = ends.pop(worker)
        chunk = queues[worker].popleft()
        if queues[worker]:
            ends[worker] = now + length(queues[worker][0])
        perform(scheduler.done(worker, chunk.number, chunk.stop - chunk.start, length(chunk)))
    assert finished
    assert sum(size for size, _ in chunks) == len(durations)
    return chunks


def test_automatic_chunks_begin_with_one_task_and_grow_by_steps():
    sizes = [size for size, _ in simulate([1e-6] * 100_000, 4)]
    assert sizes[:4] == [1, 1, 1, 1]
    assert all(later <= GROWTH * max(sizes[:position]) for position, later in enumerate(sizes) if position)


def test_automatic_chunks_of_tiny_tasks_are_few():
    assert len(simulate([1e-6] * 100_000, 4)) < 100


def test_automatic_chunks_last_about_as_long_as_they_should():
    assert max(length for _, length in simulate([0.0001] * 100_000, 4)) <= 1.001 * CHUNK_SECONDS


def test_the_tail_is_cut_small():
    chunks = simulate([0.0001] * 10_000, 4)
    assert max(size for size, _ in chunks) > 100
    assert [size for size, _ in chunks[-4:]] == sorted((size for size, _ in chunks[-4:]), reverse=True)
    assert chunks[-1][0] <= 2


def test_long_tasks_travel_alone():
    chunks = simulate([0.3, 1.5, 0.2, 0.9] * 4, 4)
    assert [size for size, _ in chunks] == [1] * 16


def test_tasks_that_get_longer_are_cut_smaller():
    sizes = [size for size, _ in simulate([1e-6] * 5_000 + [0.01] * 5_000, 2)]
    assert max(sizes) > 500
    assert max(sizes[-1000:]) <= 2


def test_the_size_that_was_asked_for_is_kept():
    scheduler = with_workers(1)
    assert tasks(submitted(scheduler, 10, chunksize=4)) == [0, 1, 2, 3]
    assert tasks(scheduler.done(0, 0, 4, 1e-9)) == [4, 5, 6, 7]
    assert tasks(scheduler.done(0, 1, 4, 1e-9)) == [8, 9]
    assert scheduler.done(0, 2, 2, 1e-9) == [Finish(RUN)]


# ---- two runs ----


def test_two_runs_take_turns():
    scheduler = with_workers(1)
    submitted(scheduler, 4, run=RUN)
    submitted(scheduler, 4, run=OTHER)
    order = [RUN]
    number = 0
    while sent := sends(scheduler.done(0, number, 1, 1.0)):
        order.append(sent[0].chunk.run)
        number = sent[0].chunk.number
    assert order == [RUN, *[RUN, OTHER] * 3, OTHER]


def test_a_narrow_run_leaves_the_other_workers_to_the_next():
    scheduler = with_workers(3)
    assert [sent.worker for sent in sends(submitted(scheduler, 50, run=RUN, width=1))] == [0]
    assert [sent.worker for sent in sends(submitted(scheduler, 50, run=OTHER, width=3))] == [1, 2]


def test_each_run_finishes_by_itself():
    scheduler = with_workers(2)
    submitted(scheduler, 1, run=RUN)
    submitted(scheduler, 1, run=OTHER)
    assert scheduler.done(1, 1, 1, 1.0) == [Finish(OTHER)]
    assert not scheduler.idle
    assert scheduler.done(0, 0, 1, 1.0) == [Finish(RUN)]
    assert scheduler.idle


# ---- streaming ----


def test_a_stream_is_asked_once_until_it_answers():
    scheduler = Scheduler()
    assert scheduler.submit(RUN, 2, 1, streams=True) == [Hungry(RUN, 8)]
    assert scheduler.grow(2) == [Start(2)]
    scheduler.started(0)
    assert scheduler.ready(0) == []
    actions = scheduler.offer(RUN, 2, last=False)
    assert tasks(actions) == [0]
    assert others(actions) == [Hungry(RUN, 7)]
    assert scheduler.done(0, 0, 1, 1.0) == [Send(0, Chunk(1, RUN, 1, 2))]  # asked already


def test_a_stream_with_enough_in_hand_is_not_asked():
    scheduler = with_workers(1)
    scheduler.submit(RUN, 1, 1, streams=True)
    assert others(scheduler.offer(RUN, 10, last=False)) == []
    asked = [others(scheduler.done(0, number, 1, 1.0)) for number in range(9)]
    first = next(position for position, actions in enumerate(asked) if actions)
    assert asked[first] == [Hungry(RUN, 3)]
    assert asked[first + 1 :] == [[]] * (8 - first)


def test_a_stream_asks_for_more_at_a_time_when_its_tasks_are_tiny():
    scheduler = with_workers(1)
    (hungry,) = scheduler.submit(RUN, 1, None, streams=True)
    counts, number = [hungry.count], 0
    scheduler_actions = scheduler.offer(RUN, hungry.count, last=False)
    for _ in range(20):
        counts += [action.count for action in scheduler_actions if isinstance(action, Hungry)]
        offered = [scheduler.offer(RUN, a.count, last=False) for a in scheduler_actions if isinstance(a, Hungry)]
        number = scheduler.running_chunk(0).number
        chunk = scheduler.running_chunk(0)
        size = chunk.stop - chunk.start
        scheduler_actions = [*itertools.chain(*offered), *scheduler.done(0, number, size, size * 1e-6)]
        scheduler_actions = [a for a in scheduler_actions if isinstance(a, Hungry)]
    assert max(counts) > 1000
    assert max(counts) <= 4 * CHUNK_SECONDS / 1e-6  # bounded all the same: memory stays flat


def test_a_stream_that_has_ended_is_not_asked_again():
    scheduler = with_workers(1)
    scheduler.submit(RUN, 1, 1, streams=True)
    assert others(scheduler.offer(RUN, 1, last=True)) == []
    assert scheduler.done(0, 0, 1, 1.0) == [Finish(RUN)]


def test_a_stream_that_ends_late_finishes_then():
    scheduler = with_workers(1)
    scheduler.submit(RUN, 1, 1, streams=True)
    scheduler.offer(RUN, 1, last=False)
    assert others(scheduler.done(0, 0, 1, 1.0)) == []
    assert scheduler.offer(RUN, 0, last=True) == [Finish(RUN)]


# ---- workers that are replaced ----


def test_a_worker_is_replaced_after_its_last_task():
    scheduler = with_workers(1, max_tasks=2)
    assert tasks(submitted(scheduler, 3, chunksize=5)) == [0, 1]
    actions = scheduler.done(0, 0, 2, 1.0)
    assert Stop(0) in actions
    assert sends(actions) == []
    assert scheduler.workers == []


def test_a_replacement_is_started_while_the_last_tasks_run():
    scheduler = with_workers(1, max_tasks=1)
    assert submitted(scheduler, 2) == [Send(0, Chunk(0, RUN, 0, 1)), Start(1)]
    scheduler.started(1)
    assert scheduler.ready(1) == []  # the width is taken
    assert scheduler.done(0, 0, 1, 1.0) == [Stop(0), Send(1, Chunk(1, RUN, 1, 2))]
    assert scheduler.done(1, 1, 1, 1.0) == [Stop(1), Finish(RUN)]


def test_a_chunk_that_was_not_sent_does_not_count_for_its_worker():
    scheduler = with_workers(1, max_tasks=1)
    scheduler.submit(RUN, 1, 1)
    (send,) = scheduler.offer(RUN, 1, last=False)
    assert scheduler.withdrawn(0, send.chunk.number) == []
    assert tasks(scheduler.offer(RUN, 1, last=True)) == [1]


def test_recycled_workers_go_when_they_are_idle():
    scheduler = with_workers(2)
    submitted(scheduler, 3)
    actions = scheduler.recycle()
    assert actions == [Stop(1), Start(1)]
    scheduler.started(2)
    assert scheduler.ready(2) == []
    assert scheduler.done(0, 0, 1, 1.0) == [Stop(0), Send(2, Chunk(1, RUN, 1, 2))]


def test_a_worker_that_is_recycled_while_it_starts_may_still_become_ready():
    scheduler = Scheduler()
    scheduler.grow(1)
    scheduler.started(0)
    assert scheduler.recycle() == [Stop(0)]
    assert scheduler.ready(0) == []
    assert scheduler.workers == []


# ---- cancelling ----


def test_a_cancelled_run_finishes_after_what_is_under_way():
    scheduler = with_workers(2)
    submitted(scheduler, 10, width=2)
    assert scheduler.cancel(RUN, abort=False) == [Skip(0, RUN), Skip(1, RUN)]
    assert scheduler.done(0, 0, 1, 1.0) == []
    assert scheduler.done(1, 1, 0, 0.0) == [Finish(RUN)]


def test_a_cancelled_run_that_is_nowhere_finishes_at_once():
    scheduler = Scheduler()
    submitted(scheduler, 10)
    assert scheduler.cancel(RUN, abort=True) == [Finish(RUN)]
    assert scheduler.cancel(RUN, abort=True) == []
    assert scheduler.offer(RUN, 5, last=True) == []


def test_aborting_has_the_workers_of_a_run_stop_and_those_that_do_stay():
    scheduler = with_workers(2)
    submitted(scheduler, 10, width=2, chunksize=3)
    asked = [Skip(0, RUN), Abort(0, RUN, 0), Skip(1, RUN), Abort(1, RUN, 1)]
    assert scheduler.cancel(RUN, abort=True) == asked
    assert scheduler.done(0, 0, 1, 1.0) == []
    assert scheduler.done(1, 1, 0, 0.0) == [Finish(RUN)]
    assert [sent.worker for sent in sends(submitted(scheduler, 2, run=OTHER, width=2))] == [0, 1]


def test_nobody_is_to_blame_for_the_end_of_a_worker_that_did_not_stop():
    scheduler = with_workers(2)
    submitted(scheduler, 10, width=2)
    scheduler.cancel(RUN, abort=True)
    scheduler.aborted(0)
    assert scheduler.lost(0, chunk=0, running=0) == []
    assert scheduler.done(1, 1, 1, 1.0) == [Finish(RUN)]


def test_a_task_of_an_aborted_run_that_kills_its_worker_is_told():
    scheduler = with_workers(1)
    scheduler.submit(RUN, 1, 1, retries=3)
    scheduler.offer(RUN, 10, last=True)
    scheduler.cancel(RUN, abort=True)
    assert scheduler.lost(0, chunk=0, running=0) == [Crashed(RUN, 0, 0, None), Finish(RUN)]


def test_aborting_after_dropping_has_the_workers_stop_too():
    scheduler = with_workers(1)
    submitted(scheduler, 10)
    assert scheduler.cancel(RUN, abort=False) == [Skip(0, RUN)]
    assert scheduler.cancel(RUN, abort=True) == [Skip(0, RUN), Abort(0, RUN, 0)]


def test_a_worker_that_is_at_another_run_is_not_asked_to_stop():
    scheduler = at_one_run_with_chunks_of_another(OTHER, RUN)
    assert others(scheduler.cancel(RUN, abort=True)) == [Skip(0, RUN)]
    at = scheduler.running_chunk(0)
    assert Abort(0, OTHER, at.number) in scheduler.cancel(OTHER, abort=True)


def test_a_worker_that_comes_to_an_aborted_run_is_asked_to_stop_then():
    scheduler = at_one_run_with_chunks_of_another(OTHER, RUN)
    scheduler.cancel(RUN, abort=True)
    asked = []
    while (at := scheduler.running_chunk(0)).run == OTHER:
        assert asked == []
        asked = [action for action in scheduler.done(0, at.number, 1, 1e-6) if isinstance(action, Abort)]
    assert asked == [Abort(0, RUN, at.number)]


def test_a_worker_that_is_about_to_be_ended_gets_nothing_more():
    scheduler = with_workers(1)
    submitted(scheduler, 3, run=RUN)
    submitted(scheduler, 2, run=OTHER)
    assert scheduler.cancel(RUN, abort=True) == [Skip(0, RUN), Abort(0, RUN, 0)]
    scheduler.aborted(0)
    # Its last report crossed the signal: it has nothing in hand, so that it is let go, and a new one takes over.
    assert scheduler.done(0, 0, 1, 1e-6) == [Stop(0), Start(1), Finish(RUN)]


def test_a_task_that_an_ended_worker_had_gone_on_to_is_run_again():
    scheduler = at_one_run_with_chunks_of_another(RUN, OTHER)
    scheduler.cancel(RUN, abort=True)
    scheduler.aborted(0)
    while (at := scheduler.running_chunk(0)).run == RUN:
        assert sends(scheduler.done(0, at.number, 1, 1e-6)) == []
    actions = scheduler.lost(0, chunk=at.number, running=at.start)
    assert not [action for action in actions if isinstance(action, Crashed)]
    scheduler.started(1)
    assert tasks(scheduler.ready(1))[0] == at.start


def at_one_run_with_chunks_of_another(one: int, another: int) -> Scheduler:
    """Return a table whose only worker is at `one`, with a chunk of `another` in its queue."""
    scheduler = with_workers(1)
    actions = submitted(scheduler, 1000, run=one) + submitted(scheduler, 1000, run=another)
    in_hand = deque(sent.chunk for sent in sends(actions))
    while in_hand[0].run != one or another not in {chunk.run for chunk in in_hand}:
        actions = scheduler.done(0, in_hand.popleft().number, 1, 1e-6)
        in_hand += [sent.chunk for sent in sends(actions)]
    return scheduler


def test_late_reports_of_a_cancelled_run_do_no_harm():
    scheduler = with_workers(1)
    submitted(scheduler, 8, chunksize=4)
    assert scheduler.progress(0, 0, range(2)) == []
    assert scheduler.cancel(RUN, abort=False) == [Skip(0, RUN)]
    assert scheduler.progress(0, 0, range(2, 3)) == []
    assert scheduler.done(0, 0, 1, 1.0) == [Finish(RUN)]
    assert tasks(submitted(scheduler, 1, run=OTHER)) == [0]


# ---- workers that die ----


def test_an_idle_worker_that_dies_is_missed_by_nobody():
    scheduler = with_workers(2)
    assert scheduler.lost(0) == []
    assert tasks(submitted(scheduler, 2, width=2)) == [0]


@pytest.mark.parametrize("running", [0, 2, 4])
def test_the_task_that_ran_is_lost_and_its_chunk_mates_are_run_again(running):
    scheduler = with_workers(1)
    submitted(scheduler, 5, chunksize=5)
    actions = scheduler.lost(0, chunk=0, running=running, pid=123, exitcode=-9)
    assert actions == [Crashed(RUN, running, 123, -9), Start(1)]
    scheduler.started(1)
    again = tasks(scheduler.ready(1))
    while chunk := scheduler.running_chunk(1):
        again += tasks(scheduler.done(1, chunk.number, chunk.stop - chunk.start, 1.0))
    assert again == [index for index in range(5) if index != running]
    assert scheduler.idle


def test_what_was_reported_is_not_run_again():
    scheduler = with_workers(1)
    submitted(scheduler, 5, chunksize=5)
    scheduler.progress(0, 0, range(3))
    assert others(scheduler.lost(0, chunk=0, running=3)) == [Crashed(RUN, 3, 0, None), Start(1)]
    scheduler.started(1)
    assert tasks(scheduler.ready(1)) == [4]


def test_chunks_in_the_queue_of_a_dead_worker_go_to_another_in_order():
    scheduler = with_workers(1)
    submitted(scheduler, 1000)
    ahead = tasks(scheduler.done(0, 0, 1, 1e-6))
    scheduler.lost(0, chunk=1, running=1)
    scheduler.started(1)
    assert tasks(scheduler.ready(1)) == [*ahead[1:], ahead[-1] + 1]


def test_a_death_between_two_chunks_blames_neither():
    scheduler = with_workers(1)
    submitted(scheduler, 1000)
    scheduler.done(0, 0, 1, 1e-6)
    actions = scheduler.lost(0, chunk=0, running=0)  # its last report came, and it had not begun the next
    assert actions == [Start(1)]


def test_a_death_while_inputs_are_rebuilt_is_tracked_down_to_the_task():
    scheduler = with_workers(1)
    submitted(scheduler, 3, chunksize=3)
    assert scheduler.lost(0, chunk=0, running=None) == [Start(1)]
    scheduler.started(1)
    assert tasks(scheduler.ready(1)) == [0]
    assert tasks(scheduler.done(1, 1, 1, 1.0)) == [1]
    assert scheduler.lost(1, chunk=2, running=None) == [Crashed(RUN, 1, 0, None), Start(1)]
    scheduler.started(2)
    assert tasks(scheduler.ready(2)) == [2]
    assert scheduler.done(2, 3, 1, 1.0) == [Finish(RUN)]


def test_a_death_without_anything_begun_runs_the_chunk_again():
    scheduler = with_workers(1)
    submitted(scheduler, 3, chunksize=3)
    assert scheduler.lost(0) == [Start(1)]
    scheduler.started(1)
    assert tasks(scheduler.ready(1)) == [0, 1, 2]


def test_the_last_task_lost_finishes_the_run():
    scheduler = with_workers(1)
    submitted(scheduler, 1)
    assert scheduler.lost(0, chunk=0, running=0) == [Crashed(RUN, 0, 0, None), Finish(RUN)]


# ---- tasks that are run again, and tasks that need not be ----


def with_retries(retries: int, *, count: int = 3, chunksize: int = 1) -> Scheduler:
    """Return a table whose only worker is at the first chunk of a run of `count` tasks."""
    scheduler = with_workers(1)
    scheduler.submit(RUN, 1, chunksize, retries=retries)
    scheduler.offer(RUN, count, last=True)
    return scheduler


def test_a_failed_task_is_run_again_before_those_that_wait():
    scheduler = with_retries(1)
    assert scheduler.retry(RUN, 0)
    assert tasks(scheduler.done(0, 0, 1, 1.0)) == [0]
    assert not scheduler.retry(RUN, 0)
    assert tasks(scheduler.done(0, 1, 1, 1.0)) == [1]


def test_each_task_has_its_own_retries():
    scheduler = with_retries(2, chunksize=3)
    assert [scheduler.retry(RUN, index) for index in (0, 1, 0, 1, 0, 1, 2)] == [True] * 4 + [False] * 2 + [True]


def test_without_retries_or_once_the_run_is_cancelled_nothing_is_run_again():
    assert not with_retries(0).retry(RUN, 0)
    scheduler = with_retries(1)
    scheduler.cancel(RUN, abort=False)
    assert not scheduler.retry(RUN, 0)
    assert scheduler.done(0, 0, 1, 1.0) == [Finish(RUN)]


def test_a_run_is_not_over_while_a_task_is_to_be_run_again():
    scheduler = with_retries(1, count=1)
    assert scheduler.retry(RUN, 0)
    assert scheduler.done(0, 0, 1, 1.0) == [Send(0, Chunk(1, RUN, 0, 1))]
    assert scheduler.done(0, 1, 1, 1.0) == [Finish(RUN)]


def test_an_idle_worker_takes_a_failed_task_while_its_chunk_goes_on():
    scheduler = with_workers(2)
    scheduler.submit(RUN, 2, 5, retries=1)
    scheduler.offer(RUN, 5, last=True)
    assert scheduler.retry(RUN, 1)
    assert scheduler.progress(0, 0, range(3)) == [Send(1, Chunk(1, RUN, 1, 2))]
    scheduler.aborted(0)
    assert others(scheduler.lost(0, chunk=0, running=3)) == [Start(1)]
    assert tasks(scheduler.done(1, 1, 1, 1.0)) == [3, 4]  # and not task 1, which its chunk had reported


def test_a_task_that_kills_one_worker_more_than_it_has_retries_is_given_up():
    scheduler = with_retries(2, chunksize=3)
    assert scheduler.lost(0, chunk=0, running=0) == [Start(1)]
    scheduler.started(1)
    assert tasks(scheduler.ready(1)) == [1, 2]  # the others go first
    assert tasks(scheduler.done(1, 1, 2, 1.0)) == [0]
    assert scheduler.lost(1, chunk=2, running=0) == [Start(1)]
    scheduler.started(2)
    assert tasks(scheduler.ready(2)) == [0]
    assert scheduler.lost(2, chunk=3, running=0) == [Crashed(RUN, 0, 0, None), Finish(RUN)]


def test_tasks_whose_outcome_is_known_are_passed_over():
    scheduler = with_workers(1)
    scheduler.submit(RUN, 1, 10)
    assert tasks(scheduler.offer(RUN, 2, last=False, known=3)) == [3, 4]
    assert scheduler.offer(RUN, 0, last=False, known=4) == []
    assert scheduler.offer(RUN, 2, last=True, known=1) == []
    assert tasks(scheduler.done(0, 0, 2, 1.0)) == [10, 11]


def test_a_run_of_which_all_is_known_finishes_at_once():
    scheduler = Scheduler()
    scheduler.submit(RUN, 4, None)
    assert scheduler.offer(RUN, 0, last=True, known=7) == [Finish(RUN)]


# ---- workers that never get anywhere ----


def start_and_lose(scheduler: Scheduler, worker: int, *, after_ready: bool) -> list[Action]:
    scheduler.started(worker)
    if after_ready:
        scheduler.ready(worker)
    return scheduler.lost(worker)


@pytest.mark.parametrize("after_ready", [False, True])
def test_after_some_false_starts_the_engine_gives_up(after_ready):
    scheduler = Scheduler()
    submitted(scheduler, 5)
    for worker in range(STARTS_BEFORE_GIVING_UP - 1):
        assert start_and_lose(scheduler, worker, after_ready=after_ready) == [Start(1)]
    assert start_and_lose(scheduler, 9, after_ready=after_ready) == [GiveUp(RUN), Finish(RUN)]
    assert scheduler.idle


def test_false_starts_come_to_an_end_when_several_workers_start_at_once():
    scheduler = Scheduler()
    waiting = submitted(scheduler, 5, width=4)
    alive, number, lost = deque(), 0, 0
    while not scheduler.idle:
        for _ in range(sum(action.count for action in waiting if isinstance(action, Start))):
            scheduler.started(number)
            alive.append(number)
            number += 1
        waiting = scheduler.lost(alive.popleft())
        lost += 1
        assert lost < 20
    assert [action for action in waiting if isinstance(action, GiveUp)] == [GiveUp(RUN)]


def test_a_finished_task_clears_the_false_starts():
    scheduler = Scheduler()
    submitted(scheduler, 100)
    for worker in range(0, 20, 2):
        assert start_and_lose(scheduler, worker, after_ready=True) == [Start(1)]
        scheduler.started(worker + 1)
        chunk = only_send(scheduler.ready(worker + 1))
        scheduler.done(worker + 1, chunk.number, 1, 1.0)
        chunk = scheduler.running_chunk(worker + 1)
        assert scheduler.lost(worker + 1, chunk=chunk.number, running=chunk.start)[-1] == Start(1)


def test_a_crash_is_not_a_false_start():
    scheduler = Scheduler()
    submitted(scheduler, 10)
    for worker in range(9):
        scheduler.started(worker)
        chunk = only_send(scheduler.ready(worker))
        assert scheduler.lost(worker, chunk=chunk.number, running=chunk.start)[-1] == Start(1)


def test_after_giving_up_the_next_run_is_tried_again():
    scheduler = Scheduler()
    submitted(scheduler, 1)
    for worker in range(STARTS_BEFORE_GIVING_UP):
        start_and_lose(scheduler, worker, after_ready=True)
    assert scheduler.idle
    assert submitted(scheduler, 1, run=OTHER) == [Start(1)]


# ---- chunks that can't be sent ----


def test_a_chunk_that_can_not_be_sent_is_sent_one_by_one():
    scheduler = with_workers(1)
    submitted(scheduler, 6, chunksize=3)
    assert tasks(scheduler.split(0, 0)) == [0]
    assert tasks(scheduler.done(0, 1, 1, 1.0)) == [1]
    assert tasks(scheduler.withdrawn(0, 2)) == [2]
    assert tasks(scheduler.done(0, 3, 1, 1.0)) == [3, 4, 5]
    assert scheduler.done(0, 4, 3, 1.0) == [Finish(RUN)]


def test_a_chunk_of_a_cancelled_run_is_not_split():
    scheduler = with_workers(1)
    submitted(scheduler, 3, chunksize=3)
    scheduler.cancel(RUN, abort=False)
    assert scheduler.split(0, 0) == [Finish(RUN)]


def test_the_last_chunk_withdrawn_finishes_the_run():
    scheduler = with_workers(1)
    submitted(scheduler, 1)
    assert scheduler.withdrawn(0, 0) == [Finish(RUN)]


# ---- while memory is short ----


def test_while_memory_is_short_one_chunk_is_under_way_at_a_time():
    scheduler = with_workers(3)
    assert scheduler.memory(short=True) == []
    assert tasks(submitted(scheduler, 6, width=3)) == [0]
    assert scheduler.progress(0, 0, []) == []
    assert tasks(scheduler.done(0, 0, 1, 1e-6)) == [1], "and none is sent ahead"
    assert tasks(scheduler.memory(short=False)) == [2, 3]
    assert tasks(scheduler.done(0, 1, 1, 1.0)) == [4]


def test_what_is_under_way_when_memory_becomes_short_goes_on():
    scheduler = with_workers(2)
    assert tasks(submitted(scheduler, 4, width=2)) == [0, 1]
    assert scheduler.memory(short=True) == []
    assert scheduler.done(0, 0, 1, 1.0) == []
    assert tasks(scheduler.done(1, 1, 1, 1.0)) == [2]


def test_while_memory_is_short_no_worker_is_started_beside_another():
    scheduler = Scheduler()
    assert submitted(scheduler, 5, width=3) == [Start(3)]
    scheduler.memory(short=True)
    assert scheduler.start_failed() == []
    assert scheduler.start_failed() == []
    scheduler.started(0)
    assert tasks(scheduler.ready(0)) == [0]
    assert others(scheduler.lost(0, chunk=0, running=0, pid=7)) == [Crashed(RUN, 0, 7, None), Start(1)]
    scheduler.started(1)
    assert scheduler.memory(short=False) == [Start(2)]


def test_memory_is_back_though_nothing_waits():
    scheduler = with_workers(2)
    scheduler.memory(short=True)
    assert scheduler.memory(short=False) == []
    assert tasks(submitted(scheduler, 2, width=2)) == [0, 1]


def test_idle_workers_that_hold_much_go_while_memory_is_short_and_busy_ones_stay():
    scheduler = with_workers(3)
    assert tasks(submitted(scheduler, 1)) == [0]
    assert scheduler.memory(short=True, heavy=[0, 1, 99]) == [Stop(1)]
    assert scheduler.workers == [0, 2]


def test_the_last_worker_may_go_for_its_memory_and_is_replaced():
    scheduler = with_workers(1)
    scheduler.memory(short=True, heavy=[0])
    assert scheduler.workers == []
    assert submitted(scheduler, 3, width=2) == [Start(1)]
