"""`Executor`: a `concurrent.futures.Executor` whose functions may come from a notebook cell."""

from __future__ import annotations

import atexit
import concurrent.futures
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nbparallel import config
from nbparallel.choice import check_chunksize, check_function, check_seconds, open_backend
from nbparallel.engine.work import Backend
from nbparallel.runs.calls import Calls
from nbparallel.tracebacks import hidden


class Executor(concurrent.futures.Executor):
    """A pool of worker processes with the standard executor's interface; its futures are the standard ones.

    Args:
        max_workers: how many workers; by default one per effective core.
        initializer: called in each worker as it starts, with `initargs`.
        initargs: the initializer's arguments.
        max_tasks_per_worker: after so many calls a worker is replaced by a fresh one.
        start_method: how workers start; by default the notebook's (see `configure`).
        timeout: seconds that one call may take, from its own start; then its worker is ended, and its future raises
            `TaskTimeout`. By default calls have no limit: the timeouts of futures and of `map` end the waiting alone.

    Raises:
        ValueError: a number is below 1, the start method is unknown, or there is a `timeout` inside a task.
        TypeError: the initializer is not callable, or `timeout` is no number.
        SerializationError: the initializer or its arguments can't be sent to a worker.

    Example:
        >>> with Executor(2) as executor:
        ...     executor.submit(pow, 2, 10).result()
        1024
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_worker: int | None = None,
        start_method: str | None = None,
        timeout: float | None = None,
    ) -> None:
        with hidden:
            self._width = config.resolve_workers(max_workers)
            limit = check_seconds(timeout, "timeout")
            self._backend = open_backend(self._width, initializer, initargs, max_tasks_per_worker, start_method, limit)
            self._calls = Calls(self._backend, self._width, limit)
            self._closed = False
            _open.add(self)
            # An executor that is dropped without a shutdown still makes its calls, and then lets its workers go.
            weakref.finalize(self, _let_go, self._calls, self._backend).atexit = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Schedule ``fn(*args, **kwargs)`` and return its future.

        Raises:
            RuntimeError: the executor was shut down.
            TypeError: `fn` is not callable, or is a coroutine function.
            SerializationError: `fn` can't be sent to a worker.
        """
        with hidden:
            check_function(fn)
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return self._calls.call(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[Any]:
        """Return an iterator over ``map(fn, *iterables)``, whose calls are made at once.

        Args:
            fn: what to call.
            *iterables: the inputs; the shortest ends it.
            timeout: seconds from now after which waiting for a result raises `TimeoutError`.
            chunksize: inputs that travel together.
            **options: passed to the standard executor (``buffersize``, from Python 3.14 on).

        Raises:
            ValueError: `chunksize` is below 1.
        """
        with hidden:
            check_function(fn)
            size = check_chunksize(chunksize) or 1
            if size == 1:
                return _shown(super().map(fn, *iterables, timeout=timeout, **options))
            columns = list(zip(*iterables, strict=False))
            chunks = [columns[start : start + size] for start in range(0, len(columns), size)]
            batches = super().map(_Batch(fn), chunks, timeout=timeout, **options)
            return _shown(value for batch in batches for value in batch)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, frames: Any) -> bool | None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            return super().__exit__(kind, error, frames)
        # Stop: the standard executors would finish all calls first.
        self._closed = True
        self._backend.shutdown(abort=True)
        return None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and let the workers go after the last.

        Args:
            wait: return only when they are gone.
            cancel_futures: cancel the calls that have not begun.
        """
        with hidden:
            if not self._closed:
                self._closed = True
                if cancel_futures:
                    self._calls.cancel()
                self._calls.close()
            self._backend.shutdown(abort=False, wait=wait)


_open: weakref.WeakSet[Executor] = weakref.WeakSet()


@atexit.register
def _finish_calls() -> None:
    """Make the calls that are outstanding at the end of the program, as the standard executors do."""
    for executor in list(_open):
        executor.shutdown()


def _shown(results: Iterator[Any]) -> Iterator[Any]:
    """Yield results; what is raised has the frames of neither this package nor the standard executor."""
    with hidden:
        yield from results


def _let_go(calls: Calls, backend: Backend) -> None:
    calls.close()
    backend.shutdown(abort=False, wait=False)


class _Batch:
    """Calls a function with each of several tuples of arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, batch: list[tuple[Any, ...]]) -> list[Any]:
        return [self.function(*args) for args in batch]
