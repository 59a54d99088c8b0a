"""When and where tasks ran: what the meter reads, what the ledger makes of it, and what a run is told."""

from __future__ import annotations

import os
import time
from array import array
from itertools import pairwise

import engine_tasks as tasks
import pytest
from engine_work import engine_fixture, nursery_ends, run  # noqa: F401 - fixtures

from nbparallel.engine.times import LONG_NS, Ledger, Meter


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return os.getpid()


# ---- the meter ----


def test_long_tasks_are_timed_one_by_one():
    meter = Meter(alone=True)
    for begin in (0, 2 * LONG_NS, 3 * LONG_NS, 9 * LONG_NS):
        meter.stamp(begin)
    began, nanoseconds, *_, each = meter.read(3)  # the fourth has only begun
    assert (began, nanoseconds) == (0, 9 * LONG_NS)
    assert array("f", each).tolist() == pytest.approx([2 * LONG_NS / 1e9, LONG_NS / 1e9, 6 * LONG_NS / 1e9])


def test_of_tiny_tasks_only_the_mean_is_known():
    meter = Meter(alone=True)
    for begin in range(0, 101 * LONG_NS // 2, LONG_NS // 2):
        meter.stamp(begin)
    _, nanoseconds, *_, each = meter.read(100)
    assert (nanoseconds, each) == (50 * LONG_NS, b"")


def test_the_last_task_ends_when_the_meter_is_read():
    meter = Meter(alone=True)
    before = time.perf_counter_ns()
    meter.stamp(before)
    spin(0.001)
    clocks = time.process_time_ns(), time.thread_time_ns()
    while time.process_time_ns() == clocks[0] or time.thread_time_ns() == clocks[1]:
        pass  # until both have ticked, however coarse they are
    began, nanoseconds, cpu, own, _, each = meter.read(1)
    assert began == before
    assert 1_000_000 <= nanoseconds <= time.perf_counter_ns() - before
    assert own > 0
    assert cpu > 0
    assert each == b""  # it is alone: its length is that of the report


def test_a_meter_of_nothing_reads_nothing():
    assert Meter(alone=False).read(0)[1] == 0
    assert Meter(alone=True).read(3)[1] == 0  # tasks that were never begun


# ---- the ledger ----


def test_what_was_sent_is_counted_once():
    ledger = Ledger(3, 77)
    sent = time.perf_counter()
    ledger.sent(5, 1, sent, [b"12345", memoryview(b"678")])
    first = ledger.reported(5, (time.perf_counter_ns(), 0, 4, 2, 1, b""), time.perf_counter(), 9, last=False)
    second = ledger.reported(5, (time.perf_counter_ns(), 0, 0, 0, -1, b""), time.perf_counter(), 0, last=True)
    assert (first.worker, first.pid, first.sent, first.bytes_sent, first.bytes_returned) == (3, 77, sent, 8, 9)
    assert (first.cpu, first.own) == (4e-9, 2e-9)
    assert (second.sent, second.bytes_sent) == (sent, 0)
    assert ledger.cut_short(5, 0, 1) is None


@pytest.mark.parametrize("began", [0, 2**62])
def test_a_worker_whose_clock_is_another_has_just_ended(began):
    ledger = Ledger(0, 1)
    sent = time.perf_counter() - 2
    ledger.sent(5, 1, sent, [])
    times = ledger.reported(5, (began, 1_000_000_000, 0, 0, -1, b""), time.perf_counter(), 0, last=True)
    assert times.began + times.seconds == pytest.approx(times.arrived)
    ledger.sent(6, 1, sent, [])
    late = ledger.reported(6, (began, 10**13, 0, 0, -1, b""), time.perf_counter(), 0, last=True)
    assert late.began == sent  # at no time before it was sent


# ---- the engine ----


def test_a_run_is_told_where_and_when_each_task_ran(engine):
    before = time.perf_counter()
    work = run(engine, spin, [0.002] * 8, chunksize=4)
    pids = work.results()
    told = {}
    for first, count, times in work.times:
        assert before <= times.sent <= times.began
        assert times.began + times.seconds <= times.arrived <= time.perf_counter()
        assert times.seconds >= 0.002 * count
        assert times.bytes_sent + times.bytes_returned > 0
        each = array("f", times.each).tolist() or [times.seconds]
        assert len(each) == count
        assert min(each) >= 0.0019
        told.update(dict.fromkeys(range(first, first + count), times.pid))
    assert [told[index] for index in range(8)] == pids
    # A worker does one thing at a time.
    for worker in {times.worker for _, _, times in work.times}:
        mine = sorted((times.began, times.seconds) for _, _, times in work.times if times.worker == worker)
        assert all(began + seconds <= after for (began, seconds), (after, _) in pairwise(mine))


def test_what_travels_is_weighed(engine):
    work = run(engine, tasks.doubled, [b"x" * 100_000])
    ((_, _, times),) = work.times
    assert times.bytes_sent >= 100_000
    assert times.bytes_returned >= 200_000


def test_a_task_that_kills_its_worker_has_a_time_too(engine):
    work = run(engine, tasks.die, ["_exit"]).wait()
    assert list(work.failures) == [0]
    ((first, count, times),) = work.times
    assert (first, count, times.pid) == (0, 1, work.failures[0].pid)
    assert times.sent <= times.began <= times.arrived
