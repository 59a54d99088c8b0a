"""Interrupts that wait for the end of a section, come through where a user's code runs, and are never lost."""

# ruff: noqa: PT012 - what happens inside a section is what these tests are about
from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator

import pytest

from nbparallel.interrupts import deferred


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def handler_stays() -> Iterator[None]:
    """What an interrupt does outside of sections is as it was."""
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_waits_for_the_end_of_the_section() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred:
        with deferred:
            interrupt()
            interrupt()
            reached.append("the inner section's end")
        reached.append("the outer section's end")
    assert len(reached) == 2
    with deferred:
        reached.append("the next section")  # nothing is left over
    assert len(reached) == 3


def test_it_may_be_raised_earlier_and_only_once() -> None:
    with deferred:
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            deferred.check()
        deferred.check()
        interrupt()
        deferred.forget()
        deferred.check()


def test_it_comes_through_where_it_is_let() -> None:
    with deferred:
        with pytest.raises(KeyboardInterrupt), deferred.lifted():
            interrupt()
            pytest.fail("it was not raised at once")
        interrupt()
        with pytest.raises(KeyboardInterrupt), deferred.lifted():
            pytest.fail("what has waited was not raised first")
        with deferred.lifted():
            reached = []
            with pytest.raises(KeyboardInterrupt):
                with deferred:
                    interrupt()
                    reached.append("its end")
                pytest.fail("it was not raised at the section's end")
            assert reached == ["its end"]
            with pytest.raises(KeyboardInterrupt):
                interrupt()
    with pytest.raises(KeyboardInterrupt), deferred.lifted():  # outside of any section there is nothing to lift
        interrupt()


def test_it_rings_the_bell_that_is_waited_for() -> None:
    outer: queue.SimpleQueue[None] = queue.SimpleQueue()
    inner: queue.SimpleQueue[None] = queue.SimpleQueue()
    with pytest.raises(KeyboardInterrupt), deferred, deferred.ringing(outer):
        with deferred, deferred.ringing(inner):
            interrupt()
        assert (outer.qsize(), inner.qsize()) == (0, 1)
        interrupt()
        assert outer.qsize() == 1


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_handler_that_is_no_function_is_left_alone(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with deferred, deferred.lifted():
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_users_own_handler_is_called_once_for_all_that_came() -> None:
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append("called"))
    try:
        with deferred:
            interrupt()
            interrupt()
            assert calls == []
        assert calls == ["called"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_pass_through() -> None:
    def work() -> None:
        with deferred, deferred.lifted(), deferred.ringing(queue.SimpleQueue()):
            seen.append(signal.getsignal(signal.SIGINT))
            deferred.check()

    seen: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_begins_outside_of_sections() -> None:
    with deferred:
        interrupt()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                with deferred:
                    deferred.check()  # the parent's interrupt is not its own
                    interrupt()
                    code = 2
            except KeyboardInterrupt:
                code += 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        deferred.forget()
