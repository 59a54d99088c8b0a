"""`pmap` and `pmap_async`: a function over inputs, on every core."""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from nbparallel import config
from nbparallel.choice import check_chunksize, check_function, check_seconds, find_backend
from nbparallel.interrupts import deferred
from nbparallel.output.outbox import Output
from nbparallel.progress.watch import Watch, follow
from nbparallel.runs.inputs import make_input
from nbparallel.runs.run import Run
from nbparallel.tracebacks import hidden

if TYPE_CHECKING:
    from nbparallel.checkpoints import Checkpoint

#: How long an interrupted map waits for its workers to be gone, in seconds.
STOP_SECONDS = 0.7

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]

_last: Run | None = None


def pmap(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    workers: int | None = None,
    backend: str | None = None,
    chunksize: int | Literal["auto"] = "auto",
    ordered: bool = True,
    progress: config.Progress | None = None,
    output: Output | Literal["auto"] = "auto",
    timeout: float | None = None,
    deadline: float | None = None,
    retries: int = 0,
    retry_on: ExceptionTypes = Exception,
    on_error: Literal["raise", "return"] = "raise",
    seed: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    trust: bool = False,
    label: str | None = None,
) -> list[Any]:
    """Return ``[fn(x) for x in xs]``, computed on every core.

    `fn` may be defined in a notebook cell, with its helpers, classes, globals and imports: they travel with it. An
    interrupt stops the workers at once; what was finished is in `last_run`.

    Args:
        fn: what to call with one item of each iterable.
        *iterables: the inputs. As in ``map``, the shortest ends the map. A generator is pulled in the calling thread,
            only as far ahead as keeps the workers busy.
        workers: how many tasks run at once, at most; by default one per effective core (see `resources`).
        backend: where tasks go: ``"processes"`` (the default), ``"threads"``, ``"serial"``, ``"pathos"``.
        chunksize: tasks that travel together; ``"auto"`` measures how long they take.
        ordered: whether the results are in the order of the input; else in the order of completion.
        progress: whether to show a bar: True, False, or ``"auto"``: in a notebook or terminal, after half a second.
        output: what becomes of what tasks print, log, warn of and display: ``"live"`` shows it in this cell as it
            comes; ``"ordered"`` in the order of the input, each task's as soon as all before it are finished;
            ``"collect"`` only keeps its text in the run's `output`; None drops it. By default the notebook's (see
            `configure`): live. What is shown is kept too. On threads, and serially, tasks print by themselves, as they
            come, and nothing of it is kept.
        timeout: seconds that one task may take, from its own start; then its worker is ended, and it alone fails.
        deadline: seconds that the whole map may take; then it ends as if interrupted.
        retries: how often a task is run again that failed, or whose worker died or ran out of time.
        retry_on: the exceptions after which it is; by default any. Deaths and time limits always count.
        on_error: ``"raise"`` raises the first failed task's own exception, once the running tasks have settled;
            ``"return"`` puts a `TaskError` in each failed task's place.
        seed: makes random numbers the same for any number of workers and any chunk size: task i draws from stream i
            of `seed`, through ``random``, ``numpy.random`` and `rng`. On threads, which share the former two, through
            `rng` only.
        checkpoint: keeps each finished result in a file: a name in this user's data folder, or a path. The same map,
            also in another kernel, then only computes what is missing. A function that was changed starts afresh.
        trust: whether to take results from a checkpoint that somebody else has written: they are pickles, and loading
            one runs the code in it.
        label: what the bar and the summary call it; by default the function's name.

    Returns:
        One result per item.

    Raises:
        TypeError: `fn` is not callable, is a coroutine function, or there is nothing to map over.
        ValueError: an argument is out of its range, or the backend is unknown.
        SerializationError: the function, or an input, can't be sent to a worker; the message names what.
        WorkerCrashed: a worker died.
        TaskTimeout: a task took longer than `timeout`.
        TimeoutError: the map took longer than `deadline`; what was finished is in `last_run`.
        CancelledError: somebody cancelled it, by the button beside its bar; what was finished is in `last_run`.
        CheckpointError: the checkpoint is damaged, no checkpoint, or somebody else's; it is left untouched.
        Exception: what `fn` raises, as itself.

    Example:
        >>> def square(x):
        ...     return x * x
        >>> pmap(square, range(5))
        [0, 1, 4, 9, 16]
    """
    with hidden:
        shown = config.settings().progress if progress is None else config.check_progress(progress)
        ends = functools.partial(finish, ordered=ordered, shown=shown)
        run = _make_run(
            fn,
            iterables,
            ends,
            _limits(timeout, deadline, retries, retry_on),
            workers=workers,
            backend=backend,
            chunksize=chunksize,
            on_error=on_error,
            seed=seed,
            checkpoint=checkpoint,
            trust=trust,
            label=label,
            output=output,
        )
        return ends(run)


def pmap_async(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    workers: int | None = None,
    backend: str | None = None,
    chunksize: int | Literal["auto"] = "auto",
    output: Output | Literal["auto"] = "auto",
    timeout: float | None = None,
    deadline: float | None = None,
    retries: int = 0,
    retry_on: ExceptionTypes = Exception,
    on_error: Literal["raise", "return"] = "raise",
    seed: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    trust: bool = False,
    label: str | None = None,
) -> Run:
    """Start a map and return at once.

    It goes on until it is finished or cancelled: an interrupt of a wait for its result ends the waiting, not the map.
    A cell whose last line is the run shows a bar and a button that cancels it, and in the end its picture.

    Args:
        fn: what to call with one item of each iterable.
        *iterables: the inputs; a generator is pulled by a thread of its own.
        workers: as in `pmap`.
        backend: as in `pmap`.
        chunksize: as in `pmap`.
        output: as in `pmap`; it is shown by the cell that has started the map.
        timeout: as in `pmap`.
        deadline: as in `pmap`.
        retries: as in `pmap`.
        retry_on: as in `pmap`.
        on_error: as in `pmap`.
        seed: as in `pmap`.
        checkpoint: as in `pmap`.
        trust: as in `pmap`.
        label: as in `pmap`.

    Returns:
        The `Run`: wait for its ``result()``, ``await`` it, iterate over it, or ``cancel()`` it.

    Raises:
        TypeError: as in `pmap`.
        ValueError: as in `pmap`.
        SerializationError: the function can't be sent to a worker.

    Example:
        >>> run = pmap_async(abs, [-1, -2])
        >>> run.result()
        [1, 2]
    """
    global _last
    with hidden:
        ends = functools.partial(finish, shown=config.settings().progress)
        run = _make_run(
            fn,
            iterables,
            ends,
            _limits(timeout, deadline, retries, retry_on),
            workers=workers,
            backend=backend,
            chunksize=chunksize,
            on_error=on_error,
            seed=seed,
            checkpoint=checkpoint,
            trust=trust,
            label=label,
            output=output,
        )
        run.follow = follow
        with deferred:
            try:
                run.start(background=True)
            except BaseException:  # an interrupt, say: nobody would have the run to cancel it
                run.cancel()
                raise
            _last = run
        return run


def last_run() -> Run | None:
    """Return the `Run` of the last map, also after an interrupt or an error; `None` before the first.

    Example:
        >>> pmap(abs, [-3])
        [3]
        >>> last_run().results
        [3]
    """
    return _last


def finish(run: Run, *, ordered: bool = True, shown: config.Progress = False) -> list[Any]:
    """Carry out a run, and have `last_run` return it from now on."""
    global _last
    _last = run
    return carry_out(run, ordered=ordered, shown=shown)


def carry_out(run: Run, *, ordered: bool = True, shown: config.Progress = False) -> list[Any]:
    """Start a run, wait for its end with a bar, and return its results; an interrupt cancels it."""
    # However often Stop is pressed: it is heeded where `drive` looks, and once.
    with deferred, Watch(run, shown) as watch:
        try:
            run.start(background=False)
            watch.wait()
            run.wait_until_kept()
        except BaseException:
            # An interrupt, or an error on the way: nothing may go on unseen.
            if run.cancel():
                limit = time.monotonic() + STOP_SECONDS
                with contextlib.suppress(TimeoutError):  # a thread's task can't be ended, and may take long
                    run.drive(lambda: run.done, STOP_SECONDS, interruptible=False)
                    run.wait_until_kept(max(0.0, limit - time.monotonic()))
            deferred.forget()
            raise
    return run.result() if ordered else list(run.as_completed())


def _make_run(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    ends: Callable[[Run], list[Any]],
    limits: dict[str, Any],
    *,
    workers: int | None,
    backend: str | None,
    chunksize: int | Literal["auto"],
    on_error: str,
    seed: int | None,
    checkpoint: str | os.PathLike[str] | None,
    trust: bool,
    label: str | None,
    output: Output | Literal["auto"],
) -> Run:
    check_function(fn)
    if not iterables:
        raise TypeError("pmap() needs at least one iterable to map over")
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}")
    if trust and checkpoint is None:
        raise ValueError("trust is for a checkpoint: say checkpoint= too")
    width = config.resolve_workers(workers)
    inputs = make_input(iterables)
    find = functools.partial(find_backend, backend, width, inputs.total)
    chosen = find()
    if limits["timeout"] is not None and not chosen.ends_tasks and inputs.total != 0:
        raise ValueError(f"timeout needs workers that can be ended: not those of the backend {chosen.name!r}")
    what = config.resolve_output(output)
    # One that was chosen instead, inside a task, writes as the task does.
    if output != "auto" and what not in chosen.outputs and chosen.name == (backend or config.settings().backend):
        raise ValueError(f"output={output!r} needs processes: on the backend {chosen.name!r} tasks print by themselves")
    style = "one" if len(iterables) == 1 else "star"
    seed = check_seed(seed)
    return Run(
        fn,
        inputs,
        chosen,
        width,
        reopen=find,
        finish=ends,
        checkpoint=None if checkpoint is None else _open(checkpoint, fn, style=style, seed=seed, trust=trust),
        style=style,
        chunksize=check_chunksize(chunksize),
        stop_on_error=on_error == "raise",
        seed=seed,
        label=label,
        output=what,
        **limits,
    )


def _open(checkpoint: str | os.PathLike[str], fn: Callable[..., Any], **options: Any) -> Checkpoint:
    from nbparallel.checkpoints import Checkpoint  # some 50 ms, with SQLite and hashes

    return Checkpoint(checkpoint, fn, **options)


def _limits(timeout: Any, deadline: Any, retries: Any, retry_on: Any) -> dict[str, Any]:
    """Return what limits a run, checked."""
    types = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in types):
        raise TypeError(f"retry_on must be an exception class or a tuple of them, not {retry_on!r}")
    if isinstance(retries, bool) or not hasattr(type(retries), "__index__"):
        raise TypeError(f"retries must be a whole number, not {retries!r}")
    if retries < 0:
        raise ValueError(f"retries must not be negative, but is {retries}")
    return {
        "timeout": check_seconds(timeout, "timeout"),
        "deadline": check_seconds(deadline, "deadline"),
        "retries": operator.index(retries),
        "retry_on": types,
    }


def check_seed(seed: Any) -> int | None:
    """Return a seed, or raise what a wrong one deserves."""
    if seed is None:
        return None
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed must be a whole number, not {seed!r}") from None
    if number < 0:
        raise ValueError(f"seed must not be negative, but is {number}")
    return number
