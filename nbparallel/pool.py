"""`Pool`: the shape of ``multiprocessing.Pool``, for functions of a notebook cell."""

from __future__ import annotations

import collections.abc
import multiprocessing
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from nbparallel import config, mapping
from nbparallel.choice import check_chunksize, check_function, check_seconds, open_backend
from nbparallel.engine.work import Backend
from nbparallel.runs.calls import Calls, TaskFuture
from nbparallel.runs.inputs import IteratorInput, iterate, make_input
from nbparallel.runs.run import Run
from nbparallel.runs.stream import Stream
from nbparallel.tracebacks import hidden


class AsyncResult:
    """What the asynchronous methods of a `Pool` return, as in the standard library."""

    def __init__(
        self,
        pool: Pool,
        future: Future[Any],
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[Any], Any] | None,
    ) -> None:
        self._pool = pool  # one that nobody else holds goes on until its results are there
        self._future = future
        self._callback = callback
        self._error_callback = error_callback
        future.add_done_callback(self._call_back)

    def get(self, timeout: float | None = None) -> Any:
        """Return the result when it arrives.

        Args:
            timeout: seconds to wait at most.

        Raises:
            multiprocessing.TimeoutError: it is not there in time.
            Exception: what the call raised.
        """
        with hidden:
            self.wait(timeout)
            if not self._future.done():
                raise multiprocessing.TimeoutError
            return self._future.result()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, or `timeout` seconds are over."""
        with hidden:
            try:
                self._future.exception(timeout)
            except TimeoutError:
                return

    def ready(self) -> bool:
        """Return whether the call has completed."""
        return self._future.done()

    def successful(self) -> bool:
        """Return whether the call completed without an exception.

        Raises:
            ValueError: it has not completed.
        """
        with hidden:
            if not self.ready():
                raise ValueError(f"{self!r} not ready")
            return self._future.exception() is None

    def _call_back(self, future: Future[Any]) -> None:
        error = future.exception()
        if error is None and self._callback is not None:
            self._callback(future.result())
        elif error is not None and self._error_callback is not None:
            self._error_callback(error)


class Pool:
    """A pool of worker processes with the methods of ``multiprocessing.Pool``.

    Args:
        processes: how many workers; by default one per effective core.
        initializer: called in each worker as it starts, with `initargs`.
        initargs: the initializer's arguments.
        maxtasksperchild: after so many tasks a worker is replaced by a fresh one.
        context: for the standard signature: a context of ``multiprocessing``, of which the start method is taken.
        start_method: how workers start; by default the context's, or the notebook's (see `configure`).
        timeout: seconds that one task may take, from its own start; then its worker is ended, and it alone fails,
            with `TaskTimeout`. By default tasks have no limit: the timeouts of `AsyncResult.get` and of the iterators'
            ``next`` end the waiting alone.

    Raises:
        ValueError: a number is below 1, the start method is unknown, or there is a `timeout` inside a task.
        TypeError: the initializer is not callable, or `timeout` is no number.
        SerializationError: the initializer or its arguments can't be sent to a worker.

    Example:
        >>> with Pool(2) as pool:
        ...     pool.map(abs, [-1, -2, -3])
        [1, 2, 3]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        start_method: str | None = None,
        timeout: float | None = None,
    ) -> None:
        with hidden:
            if start_method is None and context is not None:
                start_method = context.get_start_method()
            self._width = config.resolve_workers(processes)
            self._timeout = check_seconds(timeout, "timeout")
            self._backend = open_backend(
                self._width, initializer, tuple(iterate(initargs)), maxtasksperchild, start_method, self._timeout
            )
            self._calls = Calls(self._backend, self._width, self._timeout)
            self._state = "RUN"
            self._finalizer = weakref.finalize(self, _terminate, self._backend)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} state={self._state} pool_size={self._width}>"

    # ---- waiting for the result ----

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> Any:
        """Return ``func(*args, **kwds)``, computed in a worker."""
        with hidden:
            return self.apply_async(func, args, kwds).get()

    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return ``[func(x) for x in iterable]``, computed by the workers.

        Args:
            func: what to call.
            iterable: the inputs.
            chunksize: tasks that travel together; by default measured.

        Raises:
            ValueError: the pool is closed, or `chunksize` is below 1.
            Exception: what the failed task with the lowest index raised.
        """
        with hidden:
            return mapping.finish(self._run(func, iterable, chunksize, "one"))

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Return ``[func(*args) for args in iterable]``, computed by the workers."""
        with hidden:
            return mapping.finish(self._run(func, iterable, chunksize, "star"))

    # ---- lazily ----

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1) -> Iterator[Any]:
        """Return an iterator over the results in the order of the input.

        The input may be endless: it is read only as far ahead of the reader as keeps the workers busy.

        Args:
            func: what to call.
            iterable: the inputs.
            chunksize: tasks that travel together; `None` to measure.
        """
        with hidden:
            return IMapIterator(self, self._stream(func, iterable, chunksize))

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> Iterator[Any]:
        """Return an iterator over the results in the order in which they arrive."""
        with hidden:
            return IMapUnorderedIterator(self, self._stream(func, iterable, chunksize))

    # ---- at once ----

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[Any], Any] | None = None,
    ) -> AsyncResult:
        """Start ``func(*args, **kwds)`` in a worker and return at once.

        Args:
            func: what to call.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: called with the result, in a thread of this process.
            error_callback: called with the exception instead.
        """
        with hidden:
            self._check_running()
            check_function(func)
            future = self._calls.call(func, tuple(iterate(args)), dict(kwds or {}))
            return AsyncResult(self, future, callback, error_callback)

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[Any], Any] | None = None,
    ) -> AsyncResult:
        """Start `map` and return at once."""
        with hidden:
            return _in_background(self, self._run(func, iterable, chunksize, "one"), callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[Any], Any] | None = None,
    ) -> AsyncResult:
        """Start `starmap` and return at once."""
        with hidden:
            return _in_background(self, self._run(func, iterable, chunksize, "star"), callback, error_callback)

    # ---- its end ----

    def close(self) -> None:
        """Take no more tasks; the workers end when those that they have are done."""
        if self._state == "RUN":
            self._state = "CLOSE"
            self._calls.close()
            self._backend.shutdown(abort=False, wait=False)

    def terminate(self) -> None:
        """End the workers at once, whatever they are doing."""
        self._state = "TERMINATE"
        self._finalizer()

    def join(self) -> None:
        """Wait until the workers are gone.

        Raises:
            ValueError: neither `close` nor `terminate` was called.
        """
        with hidden:
            if self._state == "RUN":
                raise ValueError("Pool is still running")
            self._backend.shutdown(abort=False)

    def __enter__(self) -> Pool:
        with hidden:
            self._check_running()
            return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    def _check_running(self) -> None:
        if self._state != "RUN":
            raise ValueError("Pool not running")

    def _run(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None, style: str) -> Run:
        self._check_running()
        check_function(func)
        options = self._options(chunksize)
        return Run(func, make_input([iterable]), self._backend, self._width, style=style, **options)

    def _stream(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None) -> Stream:
        self._check_running()
        check_function(func)
        options = self._options(chunksize)
        stream = Stream(func, IteratorInput([iterate(iterable)]), self._backend, self._width, **options)
        stream.start(background=True)
        return stream

    def _options(self, chunksize: int | None) -> dict[str, Any]:
        return {
            "chunksize": check_chunksize(chunksize),
            "timeout": self._timeout,
            "output": config.settings().output,
        }


class IMapIterator(collections.abc.Iterator[Any]):
    """The results of `Pool.imap`, in the order of the input."""

    def __init__(self, pool: Pool, stream: Stream) -> None:
        self._pool = pool  # as in `AsyncResult`
        self._stream = stream
        self._index = 0
        # A reader that goes away lets its tasks go.
        weakref.finalize(self, stream.drop).atexit = False

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Args:
            timeout: seconds to wait at most.

        Raises:
            multiprocessing.TimeoutError: it is not there in time.
            StopIteration: there are no more.
            Exception: what its task raised; those after it can still be read.
        """
        with hidden:
            try:
                index = self._next_index(timeout)
            except TimeoutError:
                raise multiprocessing.TimeoutError from None
            if index is None:
                self._stream.raise_if_cut_short()
                raise StopIteration
            return self._stream.take(index)

    __next__ = next

    def _next_index(self, timeout: float | None) -> int | None:
        if not self._stream.await_result(self._index, timeout):
            return None
        self._index += 1
        return self._index - 1


class IMapUnorderedIterator(IMapIterator):
    """The results of `Pool.imap_unordered`, in the order in which they arrive."""

    def __init__(self, pool: Pool, stream: Stream) -> None:
        super().__init__(pool, stream)
        self._arrived: list[int] = []

    def _next_index(self, timeout: float | None) -> int | None:
        if not self._arrived:
            self._arrived = self._stream.await_arrivals(timeout)[::-1]
        return self._arrived.pop() if self._arrived else None


def _in_background(
    pool: Pool, run: Run, callback: Callable[[Any], Any] | None, error_callback: Callable[[Any], Any] | None
) -> AsyncResult:
    future = TaskFuture()

    def fulfil(done: Run) -> None:
        try:
            future.set_result(done.result())
        except BaseException as error:  # whatever it is, it belongs to whoever asks for the result
            future.set_exception(error)

    run.start(background=True)
    run.add_done_callback(fulfil)
    return AsyncResult(pool, future, callback, error_callback)


def _terminate(backend: Backend) -> None:
    backend.shutdown(abort=True, wait=False)
