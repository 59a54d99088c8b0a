"""A notebook and a worker for the tests of `nbparallel.serialize`, without the engine.

`Notebook` runs cells in a ``__main__`` that has no file, as a kernel does, and calls its functions in a child process
that stays warm. Used by the ``test_serialize_*`` files, which import the two fixtures at the end.
"""

from __future__ import annotations

import linecache
import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import pytest

from nbparallel.serialize import dumps_data, is_alive, loads, unit_of

_CHILD = """
import pickle, sys, types
source, sink = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr
sys.path[:] = pickle.load(source)
from nbparallel.serialize import call_initializer, dumps_result, forget, load_unit, loads, receive
sys.modules["__main__"] = types.ModuleType("__main__")
while True:
    try:
        frame = pickle.load(source)
    except EOFError:
        break
    sys.path[:] = frame["path"]
    forget(frame["gone"])
    for number, segments in frame["units"].items():
        receive(number, segments)
    try:
        if frame["first"]:
            outcome = (True, call_initializer(frame["function"], frame["arguments"]))
        else:
            outcome = (True, load_unit(frame["function"])(*loads(frame["arguments"])))
    except BaseException as error:
        outcome = (False, error)
    try:
        segments = dumps_result(outcome)
    except Exception as error:
        segments = dumps_result((False, RuntimeError(f"unpicklable result: {error!r}")))
    del outcome
    pickle.dump([bytearray(segment) for segment in segments], sink)
    sink.flush()
"""


class Worker:
    """A warm child process that calls what it is sent."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", "-c", _CHILD]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._sent: set[int] = set()
        self._put(sys.path)

    def _put(self, obj: Any) -> None:
        assert self._process.stdin is not None
        pickle.dump(obj, self._process.stdin)
        self._process.stdin.flush()

    def call(self, function: Any, *arguments: Any, first: bool = False) -> Any:
        """Return what `function` returns there, or raise what it raises; `first` makes it an initializer."""
        unit = unit_of(function)
        segments, units, _ = dumps_data(arguments)
        units[unit.number] = unit
        gone = [number for number in self._sent if not is_alive(number)]
        new = {
            number: [bytearray(segment) for segment in unit.segments]
            for number, unit in units.items()
            if number not in self._sent
        }
        self._sent.update(new)
        self._sent.difference_update(gone)
        self._put(
            {
                "first": first,
                "path": sys.path,
                "gone": gone,
                "units": new,
                "function": unit.number,
                "arguments": [bytearray(segment) for segment in segments],
            }
        )
        assert self._process.stdout is not None
        worked, outcome = loads(pickle.load(self._process.stdout))
        if not worked:
            raise outcome
        return outcome

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


class Notebook:
    """A ``__main__`` of its own, and its cells."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.module = types.ModuleType("__main__")
        self.names = vars(self.module)
        self._cells: list[str] = []

    def cell(self, source: str) -> None:
        file = f"<cell {len(self._cells) + 1}>"
        self._cells.append(file)
        source = textwrap.dedent(source)
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec", dont_inherit=True), self.names)

    def close(self) -> None:
        for file in self._cells:
            linecache.cache.pop(file, None)

    def __getitem__(self, expression: str) -> Any:
        return eval(expression, self.names)

    def remote(self, function: str, *arguments: Any) -> Any:
        """Call a function, given by an expression, in the worker."""
        return self.worker.call(self[function], *arguments)

    def both(self, function: str, *arguments: Any) -> Any:
        """Call a function in the worker and then here, and return the worker's result if the two are equal."""
        called = self[function]
        there = self.worker.call(called, *arguments)
        here = called(*arguments)
        assert there == here
        assert type(there) is type(here)
        return there


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def nb(worker: Worker) -> Iterator[Notebook]:
    notebook = Notebook(worker)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = notebook.module
    yield notebook
    sys.modules["__main__"] = main
    notebook.close()
