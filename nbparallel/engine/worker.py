"""A worker: one process that receives chunks, runs them and sends back what they returned, raised and printed.

It never imports or runs the user's ``__main__``: its own is an empty module, and code arrives by value. It ignores
interrupts (the parent decides) and ends when the parent does. Entered from `process` and `nursery`; it may not import
the parent's half of the engine.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import multiprocessing.process
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from nbparallel import interrupts
from nbparallel.engine import environment, hooks, relay, streams
from nbparallel.engine.page import CHUNK, INITIALIZING, INTERRUPTED, STARTED, TASK, Page, skip_slot
from nbparallel.engine.times import Meter
from nbparallel.engine.wire import Buffer, Channel
from nbparallel.serialize import (
    call_initializer,
    describe,
    dumps_error,
    dumps_result,
    forget,
    load_unit,
    loads,
    receive,
    start_afresh,
)
from nbparallel.tracebacks import in_words

#: Finished results of a long chunk are sent at this interval, so that bars move and a crash loses little.
FLUSH_NS = 50_000_000

#: Up to so many tasks each is waited for until what it wrote to the descriptors is read; more are tiny.
SMALL_CHUNK = 256

_active = False


def is_active() -> bool:
    """Return whether this process is a worker: a map that starts here is a nested one."""
    return _active


def main(connection: str, page: str, parent: int) -> None:
    """Serve a parent until it goes, in a process started for that.

    Args:
        connection: ``"fd:N"`` for an inherited socket, ``"stdin"`` for one that is handed over there (Windows).
        page: what `Page.attach` needs.
        parent: the process whose end is also this one's.
    """
    if connection == "stdin":
        sock = socket.fromshare(sys.stdin.buffer.read())  # type: ignore[attr-defined,unused-ignore]
    else:
        sock = socket.socket(fileno=int(connection.removeprefix("fd:")))
    sys.modules["__main__"] = types.ModuleType("__main__")
    _live(sock, Page.attach(page), parent)


def main_forked(descriptor: int, page: Page, parent: int) -> None:
    """Serve a parent in a fork of it."""
    start_afresh()
    streams.reseed()
    # Forked by a thread of the notebook's that ends with it: what this one's tasks start is not to.
    main = threading.current_thread()
    main.name, main._daemonic = "MainThread", False  # type: ignore[attr-defined]
    atexit._clear()  # those of the notebook's process are not this one's to run
    _live(socket.socket(fileno=descriptor), page, parent)


def _live(sock: socket.socket, page: Page, parent: int) -> NoReturn:
    """Run a worker's life, to the end of its process."""
    code = 1
    relay.watch_descriptors()
    try:
        serve(sock, page.words, parent)
        code = 0
    except SystemExit as error:
        code = _exit_code(error)
    except (EOFError, ConnectionError):
        # The parent is gone: there is nobody to tell, and exit handlers of the user's modules may wait for it.
        os._exit(1)
    except BaseException:
        traceback.print_exc()
    # Not by way of the interpreter's end, which waits for threads that a task left behind.
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        relay.finish_task()
    os._exit(code)


def _exit_code(error: SystemExit) -> int:
    """Return how a process ends by an exit; one in words is printed, as the interpreter does."""
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def serve(sock: socket.socket, words: list[int] | memoryview[int], parent: int) -> None:
    """Be a worker until the parent says that it is enough.

    Args:
        sock: the connection to the parent.
        words: of the page; a list where there is none.
        parent: the process whose end is also this one's.

    Raises:
        EOFError: the parent is gone.
        SystemExit: a task or an initializer ended this process.
    """
    sock.setblocking(True)
    _die_with(parent, sock)
    _unbuffer_c_output()
    channel = Channel(sock)
    if hasattr(os, "register_at_fork"):  # a child that kept the connection would hide this worker's death
        os.register_at_fork(after_in_child=channel.close)
    worker = _Worker(channel, words)
    channel.send(("ready", os.getpid()))
    while worker.handle(*channel.receive()):
        pass


_IONBF = 2  # stdio.h of glibc, musl, macOS and the BSDs


def _unbuffer_c_output() -> None:
    # C's own buffer, behind printf, would be lost at a crash, and otherwise come after the task that filled it.
    if sys.platform != "win32":
        import ctypes

        libc = ctypes.CDLL(None)
        name = "__stdoutp" if sys.platform == "darwin" else "stdout"
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, name), None, _IONBF, 0)


class _Worker:
    def __init__(self, channel: Channel, words: list[int] | memoryview[int]) -> None:
        global _active
        _active = True
        interrupts.ignore()
        self._stoppable = 0  # the run whose task may be interrupted now
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, self._on_stop)
        relay.install(channel)
        hooks.install()
        self._channel = channel
        self._has_name = False
        self._words = words
        self._pid: int | None = os.getpid()
        if hasattr(os, "register_at_fork"):  # after the relay's, which clears what is done at the end of a task
            os.register_at_fork(after_in_child=lambda: relay.at_end.append(self._end_if_forked))

    def _end_if_forked(self) -> None:
        """End a child that a task has forked where it leaves the task: it is no worker."""
        if self._pid in (None, os.getpid()):
            return
        error, code = sys.exc_info()[1], 0
        if isinstance(error, SystemExit):
            code = _exit_code(error)
        elif error is not None:
            sys.stderr.write(in_words(error)[1])
            code = 1
        os._exit(code & 0xFF)

    def handle(self, header: tuple[Any, ...], segments: list[bytearray]) -> bool:
        """Act on one message; return False when it was the last."""
        kind, *details = header
        if kind == "chunk":
            chunk = _Chunk(*details)
            self._run(chunk, segments, self._channel.take(chunk.descriptors))
        elif kind == "unit":
            receive(details[0], segments, self._channel.take(details[1]))
        elif kind == "forget":
            forget(details[0])
        elif kind == "environment":
            environment.apply(details[0])
            if details[1:]:
                self._take_name(*details[1:])
        elif kind == "initializer":
            self._initialize(details[0], segments, self._channel.take(details[1]))
        elif kind == "live":
            self._live_otherwise(details[0], segments, self._channel.take(details[1]))
        return bool(kind != "exit")

    def _on_stop(self, *_: object) -> None:
        """Interrupt the task, as Stop would in the cell, if the parent still means it."""
        if interrupts.uncut.postpones(self._on_stop):
            return
        run, self._stoppable = self._stoppable, 0
        if run and self._words[skip_slot(run)] == run:
            raise KeyboardInterrupt
        self._stoppable = run

    def _take_name(self, number: int, notebook: int) -> None:
        """Be known to `multiprocessing` as a worker of a pool, and the notebook's process as its parent."""
        if self._has_name:
            return
        self._has_name = True
        known: Any = multiprocessing.process
        process = known.current_process()
        process._identity, process.name = (number + 1,), f"PoolWorker-{number + 1}"
        # Ready when that ends; the connection is, where there is no better one.
        sentinel = os.pidfd_open(notebook) if hasattr(os, "pidfd_open") else self._channel.fileno()
        known._parent_process = known._ParentProcess("MainProcess", notebook, sentinel)

    def _live_otherwise(self, module: str, segments: list[bytearray], descriptors: list[int]) -> None:
        """Be what another module says, which ends the process by an exit; it is no worker any more."""
        global _active
        _active = False
        self._pid = None
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        importlib.import_module(module).live(self._channel, segments, descriptors)

    def _initialize(self, number: int, segments: list[bytearray], descriptors: list[int]) -> None:
        self._words[INITIALIZING] = 1
        try:
            call_initializer(number, segments, descriptors)
        except SystemExit:
            self._end_if_forked()
            raise
        except Exception as error:
            self._end_if_forked()
            self._words[INITIALIZING] = 0
            # As in concurrent.futures: a worker whose initializer fails can't be used, and no other would fare better.
            self._channel.send(("initializer failed", _describe(error)))
            sys.exit(1)
        relay.finish_task()
        self._words[INITIALIZING] = 0

    def _run(self, chunk: _Chunk, segments: list[bytearray], descriptors: list[int]) -> None:
        words = self._words
        words[STARTED] = 0
        words[CHUNK] = chunk.chunk + 1
        if chunk.run != relay.run:
            hooks.begin_run()
        relay.run, relay.task = chunk.run, -1
        try:
            function = load_unit(chunk.function)
        except Exception as error:  # a module that is missing
            for descriptor in descriptors:
                os.close(descriptor)
            self._report_unloadable(chunk, error)
            return
        words[STARTED] = time.perf_counter_ns()
        try:
            inputs = loads(segments, descriptors)
        except Exception as error:
            if chunk.count > 1:  # only those tasks fail whose own input can't be rebuilt
                self._channel.send(("unloadable", chunk.chunk))
                words[CHUNK] = 0
            else:
                self._report_unloadable(chunk, error)
            return
        call = _caller(function, chunk.style)
        if chunk.seed is None:
            streams.unseed()
        else:
            call = streams.seeded(call, chunk.seed)
        if chunk.count <= SMALL_CHUNK:
            call = relay.awaited(call)
        clock = time.perf_counter_ns
        skip = skip_slot(chunk.run)
        due = clock() + FLUSH_NS
        meter = Meter(alone=True)
        stamp = meter.stamp
        values: list[Any] = []
        failures: list[tuple[int, Any]] = []
        first = index = chunk.first
        for item in inputs:
            now = clock()
            if now > due and values:
                self._report(chunk, first, values, failures, meter, last=False)
                values, failures = [], []
                first, now = index, clock()
                due = now + FLUSH_NS
                meter = Meter(alone=True)
                stamp = meter.stamp
            if words[skip] == chunk.run:
                break
            words[STARTED] = now
            stamp(now)
            words[TASK] = index + 1
            relay.task = index
            self._stoppable = chunk.run
            try:
                value = call(item) if chunk.seed is None else call(item, index)
                self._stoppable = 0
            except SystemExit:
                self._end_if_forked()
                # sys.exit() in a task ends its worker, as it would end any process; what is done is not lost.
                self._report(chunk, first, values, failures, meter, last=False)
                words[TASK] = index + 1
                raise
            except BaseException as error:  # whatever a task raises is its outcome
                self._stoppable = 0
                relay.finish_task()
                failures.append((index, _describe(KeyboardInterrupt() if words[INTERRUPTED] == chunk.run else error)))
                values.append(None)
                if chunk.stop_on_error:
                    index += 1
                    break
            else:
                if relay.unfinished or relay.at_end:
                    relay.finish_task()
                if words[INTERRUPTED] == chunk.run:
                    failures.append((index, _describe(KeyboardInterrupt())))
                    value = None
                values.append(value)
            index += 1
        self._report(chunk, first, values, failures, meter, last=True)

    def _report_unloadable(self, chunk: _Chunk, error: Exception) -> None:
        failures = [(chunk.first + offset, _describe(error)) for offset in range(chunk.count)]
        self._report(chunk, chunk.first, [None] * chunk.count, failures, Meter(alone=True), last=True)

    def _report(
        self, chunk: _Chunk, first: int, values: list[Any], failures: list[Any], meter: Meter, *, last: bool
    ) -> None:
        """Send outcomes of the tasks from `first` on: their values, with `None` where one failed."""
        count = len(values)
        measured = meter.read(count)
        self._words[STARTED] = time.perf_counter_ns()
        self._words[TASK] = 0  # should the worker die from here on, no single task is known to be guilty
        try:
            segments = dumps_result(values)
        except Exception:
            segments = _dump_each(values, first, failures)
        self._channel.send(("done", chunk.chunk, chunk.run, first, count, measured, failures, last), segments)
        if last:
            self._words[CHUNK] = 0


class _Chunk:
    """The header of a chunk, by name."""

    __slots__ = ("chunk", "count", "descriptors", "first", "function", "run", "seed", "stop_on_error", "style")

    def __init__(
        self,
        chunk: int,
        run: int,
        function: int,
        style: str,
        first: int,
        count: int,
        stop_on_error: bool,
        seed: int | None,
        descriptors: int = 0,
    ) -> None:
        self.chunk = chunk
        self.run = run
        self.function = function
        self.style = style
        self.first = first
        self.count = count
        self.stop_on_error = stop_on_error
        self.seed = seed
        self.descriptors = descriptors


def _caller(function: Callable[..., Any], style: str) -> Callable[..., Any]:
    """Return a function of one input item.

    Args:
        function: the user's.
        style: ``"one"`` (the item is the argument), ``"star"`` (a tuple of arguments), ``"call"`` (args and kwargs).
    """
    if style == "one":
        return function
    if style == "star":
        return lambda item: function(*item)
    return lambda item: function(*item[0], **item[1])


def _dump_each(values: list[Any], first: int, failures: list[Any]) -> list[Buffer]:
    """Pickle results of which at least one can't be: that one's task fails, alone."""
    kept = []
    for offset, value in enumerate(values):
        try:
            dumps_result(value)
        except Exception as error:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            unpicklable = {"unpicklable": f"its result, a {kind},", "frames": describe(error.__traceback__)}
            failures.append((first + offset, {**_describe(error), **unpicklable}))
            value = None
        kept.append(value)
    return dumps_result(kept)


def _describe(error: BaseException) -> dict[str, Any]:
    """Return what the parent needs to know of a failure, as plain data; the exception itself as its own pickle."""
    message, text = in_words(error)
    described: dict[str, Any] = {"type": type(error).__qualname__, "message": message, "traceback": text}
    try:
        described["pickle"] = [bytes(segment) for segment in dumps_error(error)]
    except Exception as broken:
        described["unpicklable"] = f"its exception, a {type(error).__qualname__} ({broken}),"
        described["frames"] = describe(error.__traceback__)
    return described


# ---- ending with the parent ---------------------------------------------------------------------------------------

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with(parent: int, sock: socket.socket) -> None:
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0:
            if os.getppid() != parent:  # it died before the request
                os._exit(1)
            return
    threading.Thread(target=_watch, args=(parent, sock), name="nbparallel-watch", daemon=True).start()


def _watch(parent: int, sock: socket.socket) -> None:
    """End this process when its parent does, whatever a task is doing, where the system has no signal for it."""
    if sys.platform == "darwin":
        ended = select.kevent(parent, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        if os.getppid() == parent:
            select.kqueue().control([ended], 1)
    elif sys.platform == "win32":
        import psutil

        psutil.Process(parent).wait()
    else:
        poll = select.poll()
        poll.register(sock, 0)  # only a hang-up, which needs no asking, wakes it
        poll.poll()
    os._exit(1)
