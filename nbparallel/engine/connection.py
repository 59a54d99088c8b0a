"""The parent's end of one worker: what it was sent, what it sends, and what it writes to its descriptors.

Called by `manager` only, which holds its lock; it receives without, on the one thread that does.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from nbparallel.engine import wire
from nbparallel.engine.actions import Chunk
from nbparallel.engine.environment import Environment
from nbparallel.engine.listener import Listener
from nbparallel.engine.page import CHUNK, INITIALIZING, INTERRUPTED, STARTED, TASK, skip_slot
from nbparallel.engine.process import WorkerProcess
from nbparallel.engine.times import CutShort, Ledger
from nbparallel.engine.work import Failure, Said, Work, how_it_ended
from nbparallel.errors import SerializationError
from nbparallel.serialize import Data, Unit, attempt, dumps_data, explain, is_alive, name_of, unit_of

# A line that is longer is handed on in pieces.
_LINE_CHARACTERS = 65536


class Connection:
    """One worker, its messages and its output.

    Attributes:
        number: its name in the scheduler.
        process: the process.
        work: the run of the chunk that it was last sent.
        writing: whether the manager waits for room in the socket.
        listener: hears what it says.
        ledger: what it was sent, and when.
        stop_by: when it will be killed if it has not ended (`time.monotonic`), once it was told to.
    """

    def __init__(self, number: int, process: WorkerProcess) -> None:
        self.number = number
        self.process = process
        self.work: Work | None = None
        self._early: list[Said] = []  # output from before the first run: the initializer's
        self.writing = False
        self.listener = Listener()
        self.ledger = Ledger(number, process.pid)
        self.stop_by: float | None = None
        self._reader = wire.Reader(process.socket)
        self._writer = wire.Writer(process.socket)
        self._sent_units: set[int] = set()
        self._environment: Environment | None = None
        self._initializer = ""
        self._written = select.poll() if hasattr(select, "poll") else None
        for output in process.outputs:
            if self._written is not None:
                self._written.register(output, select.POLLIN)
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in process.outputs]
        self._lines = ["" for _ in process.outputs]  # begun, and not ended yet
        self._writers = [-1 for _ in process.outputs]  # the tasks that have begun them

    # ---- what the manager waits for ----

    def watch(
        self,
        selector: selectors.BaseSelector,
        on_socket: Callable[[Connection, int], None],
        on_output: Callable[[Connection, int, int], None],
        on_exit: Callable[[Connection, int], None],
    ) -> None:
        """Have a selector wait for all that can come of the worker, and hand on to whom it concerns then."""
        self._on_socket = functools.partial(on_socket, self)
        selector.register(self.process.socket, selectors.EVENT_READ, self._on_socket)
        for position, output in enumerate(self.process.outputs):
            selector.register(output, selectors.EVENT_READ, functools.partial(on_output, self, position))
        if self.process.sentinel is not None:
            selector.register(self.process.sentinel, selectors.EVENT_READ, functools.partial(on_exit, self))

    def watch_for_room(self, selector: selectors.BaseSelector) -> None:
        """Have it wait for room in the socket while something is left to send, and only then."""
        if self.has_unsent != self.writing:
            self.writing = self.has_unsent
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.writing else 0)
            selector.modify(self.process.socket, mask, self._on_socket)

    def end(self, grace: float) -> int | None:
        """Wait so many seconds for the end of the process; return how it ended. Its last output is handed on."""
        code = self.process.exitcode(grace)
        if code is None:  # its connection is closed but it lives: nothing it does can reach us any more
            self.process.kill()
            code = self.process.exitcode(grace)
        for output in self.process.outputs:
            output.settle()
        self.listener.end()
        self.relay_outputs()
        return code

    def close(self, selector: selectors.BaseSelector) -> None:
        """Let go of an ended worker."""
        for watched in (self.process.socket, *self.process.outputs, self.process.sentinel):
            with contextlib.suppress(KeyError):  # an output that it had closed
                if watched is not None:
                    selector.unregister(watched)
        self.process.close()

    # ---- to the worker ----

    @property
    def has_unsent(self) -> bool:
        return self._writer.waiting

    def put_environment(self, environment: Environment) -> None:
        if self._environment is not environment:
            self._environment = environment
            self._writer.put(wire.encode(("environment", environment.message(), self.number, os.getpid())))

    def put_units(self, units: dict[int, Unit]) -> None:
        gone = [number for number in self._sent_units if not is_alive(number)]
        if gone:
            self._sent_units.difference_update(gone)
            self._writer.put(wire.encode(("forget", gone)))
        for number, unit in units.items():
            if number not in self._sent_units:
                self._sent_units.add(number)
                self._writer.put(wire.encode(("unit", number, len(unit.descriptors)), unit.segments), unit.descriptors)

    def put_chunk(self, work: Work, chunk: Chunk, function: Unit, data: Data, began: float) -> None:
        self.adopt(work)
        self.ledger.sent(chunk.number, chunk.run, began, data.segments)
        count = chunk.stop - chunk.start
        header = ("chunk", chunk.number, chunk.run, function.number, work.style, chunk.start, count)
        # A task that is run again is no reason to leave the others out.
        stop_on_error = work.stop_on_error and not work.retries
        pieces = wire.encode((*header, stop_on_error, work.seed, len(data.descriptors)), data.segments)
        self._writer.put(pieces, data.descriptors)

    def put_initializer(self, initializer: Initializer) -> None:
        self._initializer = initializer.name
        self.put_units(initializer.data.units)
        data = initializer.data
        header = ("initializer", initializer.function, len(data.descriptors))
        self._writer.put(wire.encode(header, data.segments), data.descriptors)

    def put_life(self, module: str, data: Data) -> None:
        """Have the worker be something else from now on, by what a module's `live` does."""
        self.put_units(data.units)
        self._writer.put(wire.encode(("live", module, len(data.descriptors)), data.segments), data.descriptors)

    def put_exit(self) -> None:
        self._writer.put(wire.encode(("exit",)))

    def skip(self, run: int) -> None:
        """Have the worker leave out what it has not begun of a run."""
        self.process.page.words[skip_slot(run)] = run

    def interrupt(self, run: int) -> None:
        """Raise KeyboardInterrupt in its task, if that is of this run, which it is to skip; it may not come through."""
        self.process.page.words[INTERRUPTED] = run
        if hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGUSR1)

    def flush(self) -> None:
        """Send what the socket takes. A worker that died is noticed elsewhere, by its end of stream."""
        with contextlib.suppress(ConnectionError):
            self._writer.flush()

    # ---- from the worker ----

    @property
    def chunk(self) -> int | None:
        """The number of the chunk that it is at."""
        number = self.process.page.words[CHUNK] - 1
        return number if number >= 0 else None

    @property
    def running(self) -> int | None:
        """The index of the task that it runs."""
        index = self.process.page.words[TASK] - 1
        return index if index >= 0 else None

    @property
    def seconds_running(self) -> float:
        """How long it has been at its task, at rebuilding inputs or at sending results."""
        started = self.process.page.words[STARTED]
        return (time.perf_counter_ns() - started) / 1e9 if started else 0.0

    def task(self, run: int, chunk: Chunk | None) -> tuple[int, float] | None:
        """Return the task that it runs, and for how many seconds, if that is of a run and of this chunk."""
        index = self.running
        if index is None or chunk is None or chunk.run != run or self.chunk != chunk.number:
            return None
        return index, self.seconds_running

    def ended_by_initializer(self, code: int | None) -> Failure | None:
        """Return what is said where the worker's end, with this exit code, came while it ran the initializer."""
        if not self.process.page.words[INITIALIZING]:
            return None
        told = f"the worker {how_it_ended(self.process.pid, code)} while it ran the initializer {self._initializer}"
        return Failure(None, "WorkerCrashed", told)

    def cut_short(self) -> CutShort | None:
        """Return the task at which it has ended."""
        chunk, index = self.chunk, self.running
        if chunk is None or index is None:
            return None
        return self.ledger.cut_short(chunk, index, self.process.page.words[STARTED])

    def receive(self) -> tuple[list[wire.Message], bool]:
        """Read once; return the messages that are complete and whether the stream goes on."""
        try:
            alive = self._reader.read()
        except BlockingIOError:
            return [], True
        except OSError:
            alive = False
        return list(self._reader.messages()), alive

    def receive_rest(self) -> Iterator[wire.Message]:
        """Yield what an ended worker had sent."""
        with contextlib.suppress(OSError):
            while self._reader.read():
                yield from self._reader.messages()

    def write(self, work: Work | None, index: int, said: Said) -> None:
        """Hand output to a run; while there is none, keep it for the first."""
        if work is None:
            self._early.append(said)
        else:
            work.write(index, said)

    def say(self, work: Work | None, index: int, said: Said) -> None:
        """Hand on what the worker says itself, after what it wrote before."""
        if any(self._lines) and said.kind != "bar":
            self._hand_on_rest()
        self.write(work, index, said)

    def adopt(self, work: Work) -> None:
        """Let a run have what is written without one."""
        self.work = work
        if self._early:
            early, self._early = self._early, []
            for said in early:
                work.write(-1, said)

    def relay_output(self, position: int) -> bool:
        """Hand on the lines that were written to descriptor 1 or 2 itself (C code, subprocesses, crash reports).

        Returns:
            False once the worker has closed it.
        """
        # Before reading: the task that has written waits to be read (`relay.await_reader`), and is this one still.
        running = self.running
        return self._read(position, -1 if running is None else running)

    def relay_outputs(self, index: int | None = None) -> None:
        """Hand on all that was written to the descriptors, as tasks or the worker end.

        Args:
            index: the last of those tasks; by default that which still runs.
        """
        if index is None:
            index = -1 if self.running is None else self.running
        # One look at both, as mostly there is nothing.
        if self._written is None or self._written.poll(0):
            for position in range(len(self.process.outputs)):
                # Twice empties a pipe; a program that never stops writing must not keep the manager here.
                for _ in range(2):
                    self._read(position, index)
        if any(self._lines):
            self._hand_on_rest()

    def _read(self, position: int, index: int) -> bool:
        try:
            data = self.process.outputs[position].read()
        except BlockingIOError:
            return True
        if self._lines[position] and self._writers[position] != index:
            self._hand_on(position, rest=True)
        if not self._lines[position]:
            self._writers[position] = index
        self._lines[position] += self._decoders[position].decode(data, final=not data)
        self._hand_on(position, rest=not data)
        return bool(data)

    def _hand_on_rest(self) -> None:
        for position in range(len(self.process.outputs)):
            self._hand_on(position, rest=True)

    def _hand_on(self, position: int, *, rest: bool) -> None:
        text = self._lines[position]
        end = len(text) if rest or len(text) > _LINE_CHARACTERS else text.rfind("\n") + 1
        if end:
            self._lines[position] = text[end:]
            self.write(self.work, self._writers[position], Said(("stdout", "stderr")[position], text[:end]))


class Initializer:
    """A function and its arguments, pickled once for all workers.

    Raises:
        SerializationError: they can't travel.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            unit = unit_of(function)
        except Exception as error:
            raise explain(error, function, attempt, name_of(function)) from error
        try:
            data = dumps_data(args)
        except Exception as error:
            raise explain(error, args, dumps_data, "initargs") from error
        data.units[unit.number] = unit
        self.function = unit.number
        self.name = name_of(function)
        self.data = data._replace(segments=[bytes(segment) for segment in data.segments])


def input_failure(error: BaseException, item: Any, index: int) -> Failure:
    """Return the failure of a task whose input can't travel."""
    if not isinstance(error, SerializationError):
        error = explain(error, item, dumps_data, f"the input of task {index}")
    return Failure(error, type(error).__qualname__, str(error))
