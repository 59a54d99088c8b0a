"""Starting and watching one worker process, by each start method.

`spawn` starts a new interpreter; `forkserver` asks the nursery, a small interpreter that has the worker's imports
ready, to fork; `fork` forks this process. All three give the worker the same things by inheritance alone: a socket,
a page, and its standard output and error. None runs or imports the user's ``__main__``. Called by `manager`, on its
thread: on Linux a worker dies with the *thread* that started it.
"""

from __future__ import annotations

import _imp
import contextlib
import gc
import importlib
import multiprocessing.spawn
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Protocol

from nbparallel import interrupts
from nbparallel.engine import nursery, pipes
from nbparallel.engine.page import Page

_ENTRY = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from nbparallel.engine.worker import main; main(sys.argv[2], sys.argv[3], int(sys.argv[4]))"
)
_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class _Exit(Protocol):
    """How one start method tells that a process has ended."""

    pid: int
    sentinel: int | None
    peak: int | None

    def poll(self) -> int | None: ...
    def close(self) -> None: ...


class WorkerProcess:
    """The parent's end of one worker.

    Attributes:
        pid: its process id.
        socket: the connection, non-blocking.
        page: the shared words.
        outputs: the read ends of its descriptors 1 and 2, non-blocking.
        sentinel: a descriptor that becomes readable when it ends, `None` where the system has none.
    """

    def __init__(self, start_method: str, environment: dict[str, str]) -> None:
        """Start a worker.

        Args:
            start_method: one of `methods.START_METHODS`.
            environment: variables to set for it (thread limits), beside this process's own.
        """
        start = {"spawn": _spawn, "forkserver": _ask_nursery, "fork": _fork}[start_method]
        with contextlib.ExitStack() as given, contextlib.ExitStack() as ours:
            self.page = Page.create()
            ours.callback(self.page.close)
            self.socket, theirs = make_pair()
            ours.callback(self.socket.close)
            given.callback(theirs.close)
            reads, writes = [], []
            for _ in range(2):
                read, write = pipes.open_pipe()
                reads.append(read)
                writes.append(write)
                ours.callback(read.close)
                given.callback(os.close, write)
            self.outputs = (reads[0], reads[1])
            _parent_ends.add(self)
            ours.callback(_parent_ends.discard, self)
            self._exit = start(theirs, self.page, (writes[0], writes[1]), environment)
            self._held = ours.pop_all()
        self.page.handed_over()
        self.socket.setblocking(False)
        self.pid = self._exit.pid
        self.sentinel = self._exit.sentinel
        self._code: int | None = None

    def exitcode(self, timeout: float = 0.0) -> int | None:
        """Return the exit code (negative for a signal) once the process has ended, `None` while it runs.

        Args:
            timeout: seconds to wait for its end.
        """
        limit = time.monotonic() + timeout
        while self._code is None:
            self._code = self._exit.poll()
            left = limit - time.monotonic()
            if self._code is not None or left <= 0:
                break
            if self.sentinel is not None:
                ended = select.poll()  # select() knows no descriptors above 1023
                ended.register(self.sentinel, select.POLLIN)
                ended.poll(left * 1000)
            else:
                time.sleep(min(left, 0.005))
        return self._code

    @property
    def peak(self) -> int | None:
        """The most memory that it held, in bytes, once it has ended and where the system tells."""
        return self._exit.peak

    @property
    def handle(self) -> int:
        """Windows' handle of the process."""
        return int(self._exit._process._handle)  # type: ignore[attr-defined]

    def kill(self) -> None:
        if self.exitcode() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    def close(self) -> None:
        """Close this side. The process should have ended, or ends when it notices."""
        self._held.close()
        self._exit.close()

    def close_copies(self) -> None:
        """Close the descriptors alone, in a forked child that has copies of them."""
        self.socket.close()
        for output in self.outputs:
            output.close()


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets; on Windows, where there is nothing else, by way of the loopback."""
    pair = socket.socketpair()
    for end in pair:
        if end.family == socket.AF_INET:  # or a short message waits for the acknowledgement of the one before
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return pair


#: What any forked child must close, or it would keep workers' connections open beyond the parent's death.
_parent_ends: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


def _command() -> list[str]:
    # The same flags as multiprocessing gives its children; -P keeps files beside the notebook from shadowing imports
    # until the worker has taken over this process's own sys.path.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    executable = os.fsdecode(multiprocessing.spawn.get_executable() or sys.executable)
    return [executable, *flags, "-P", "-c"]


# ---- spawn --------------------------------------------------------------------------------------------------------


class _Spawned:
    peak: int | None = None  # see `nursery.peak_of`

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.sentinel = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None

    def poll(self) -> int | None:
        return self._process.poll()

    def close(self) -> None:
        if self.sentinel is not None:
            os.close(self.sentinel)
        if self._process.poll() is None:
            threading.Thread(target=self._process.wait, name="nbparallel-reaper", daemon=True).start()


def _spawn(theirs: socket.socket, page: Page, outputs: tuple[int, int], environment: dict[str, str]) -> _Exit:
    if sys.platform == "win32":
        return _spawn_with_handles(theirs, page, outputs, environment)
    assert page.fd is not None
    with interrupts.held_back():
        process = subprocess.Popen(
            [*_command(), _ENTRY, _PACKAGE_ROOT, f"fd:{theirs.fileno()}", str(page.fd), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=outputs[0],
            stderr=outputs[1],
            env={**os.environ, **environment},
            pass_fds=(theirs.fileno(), page.fd),
        )
    return _Spawned(process)


def _spawn_with_handles(
    theirs: socket.socket, page: Page, outputs: tuple[int, int], environment: dict[str, str]
) -> _Exit:
    # Windows has no descriptor passing: the socket goes as a duplicate made for the child's pid, over its stdin.
    process = subprocess.Popen(
        [*_command(), _ENTRY, _PACKAGE_ROOT, "stdin", page.handover, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=outputs[0],
        stderr=outputs[1],
        env={**os.environ, **environment},
    )
    stdin: IO[bytes] = process.stdin  # type: ignore[assignment]
    with stdin:
        stdin.write(share(theirs, process.pid))
    return _Spawned(process)


def share(sock: socket.socket, pid: int) -> bytes:
    share_with: Callable[[int], bytes] = sock.share  # type: ignore[attr-defined,unused-ignore]
    return share_with(pid)


# ---- forkserver ---------------------------------------------------------------------------------------------------

_nursery: nursery.Nursery | None = None
_retired: weakref.WeakSet[nursery.Nursery] = weakref.WeakSet()
_nursery_lock = threading.Lock()


def prepare(start_method: str, modules: Iterable[str] = ()) -> None:
    """Start the nursery ahead of the first map; nothing for the other methods. May run in any thread.

    Args:
        start_method: one of `START_METHODS`.
        modules: what the workers need that it forks from now on; they are imported once, in the nursery.
    """
    global _nursery
    if start_method != "forkserver":
        return
    with _nursery_lock:
        if _nursery is None or not _nursery.is_alive():
            if _nursery is not None:
                _nursery.close()
            _nursery = nursery.Nursery([*_command(), nursery.ENTRY, _PACKAGE_ROOT])
        with contextlib.suppress(OSError):  # it has just died: `_ask_nursery` starts another
            _nursery.import_modules(modules)


def close_nursery(*, spare_workers: bool = False) -> None:
    """Stop the nursery.

    Args:
        spare_workers: let those that it still has (a pool's, a job's) end in their own time, and it with the last of
            them; else they end now.
    """
    global _nursery
    with _nursery_lock:
        if _nursery is not None:
            if spare_workers and _parent_ends:
                _nursery.retire()
                _retired.add(_nursery)
            else:
                _nursery.close()
            _nursery = None


def _ask_nursery(theirs: socket.socket, page: Page, outputs: tuple[int, int], environment: dict[str, str]) -> _Exit:
    assert page.fd is not None
    descriptors = [theirs.fileno(), page.fd, *outputs]
    for attempt in (1, 2):
        prepare("forkserver")
        assert _nursery is not None
        try:
            with _nursery_lock:
                return _nursery.fork(descriptors, environment)
        except (OSError, EOFError):  # it died between the check and the request
            close_nursery()
            if attempt == 2:
                raise
    raise AssertionError("not reached")


# ---- fork ---------------------------------------------------------------------------------------------------------


class _Forked:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.sentinel = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        self.peak: int | None = None
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:  # the user's own code waited for every child
                self._code = 0
            else:
                if pid:
                    self._code, self.peak = os.waitstatus_to_exitcode(status), nursery.peak_of(usage)
        return self._code

    def close(self) -> None:
        if self.sentinel is not None:
            os.close(self.sentinel)
        if self.poll() is None:
            threading.Thread(target=os.waitpid, args=(self.pid, 0), name="nbparallel-reaper", daemon=True).start()


@contextlib.contextmanager
def _no_import_under_way() -> Iterator[None]:
    """Wait until no other thread imports anything, and let none begin.

    A module that is being imported when another thread forks stays locked for ever in the child. The lock that guards
    the locks of modules keeps them from changing; a module whose import lasts (it may wait for a map) is not waited
    for beyond a second.
    """
    limit = time.monotonic() + _IMPORT_SECONDS
    _imp.acquire_lock()
    try:
        while any(lock() is not None for lock in list(_module_locks.values())) and time.monotonic() < limit:
            _imp.release_lock()
            time.sleep(0.001)
            _imp.acquire_lock()
        yield
    finally:
        _imp.release_lock()


_IMPORT_SECONDS = 1.0
_module_locks: dict[str, Callable[[], object]] = getattr(importlib._bootstrap, "_module_locks", {})


def _fork(theirs: socket.socket, page: Page, outputs: tuple[int, int], environment: dict[str, str]) -> _Exit:
    from nbparallel.engine import worker  # noqa: F401 - a fork finds it imported: quicker, and safer there

    parent = os.getpid()
    with warnings.catch_warnings():
        # From 3.12 on Python warns of a fork beside threads; whoever asks for fork has chosen that.
        warnings.simplefilter("ignore", DeprecationWarning)
        with interrupts.held_back(), _no_import_under_way():
            pid = os.fork()
            if pid == 0:
                interrupts.ignore()
    if pid:
        return _Forked(pid)
    try:
        _in_forked_child(theirs, page, outputs, environment, parent)
    finally:
        os._exit(1)


def _in_forked_child(
    theirs: socket.socket, page: Page, outputs: tuple[int, int], environment: dict[str, str], parent: int
) -> None:
    gc.freeze()  # what is garbage of the parent's ends there, once: a finaliser may remove a file
    from nbparallel.engine import worker

    os.environ.update(environment)
    for fd, target in zip(outputs, (1, 2), strict=True):
        os.dup2(fd, target)
        os.close(fd)
    null = os.open(os.devnull, os.O_RDONLY)
    if 0 not in (null, theirs.fileno(), page.fd):  # one of these, where the parent has no standard input
        os.dup2(null, 0)
    # What the old one has read ahead is the parent's.
    sys.stdin = sys.__stdin__ = open(null, closefd=False)  # type: ignore[misc] # noqa: SIM115 - it lives on
    worker.main_forked(theirs.detach(), page, parent)


def forget_after_fork() -> None:
    """Drop what belongs to the parent, in a child that `_fork` or the user's own code forked."""
    global _nursery, _nursery_lock
    _nursery_lock = threading.Lock()
    for each in [*_retired, *([] if _nursery is None else [_nursery])]:
        each.abandon()
    _nursery = None
    _retired.clear()
    for end in list(_parent_ends):
        end.close_copies()
    _parent_ends.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_after_fork)
