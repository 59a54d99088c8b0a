"""The nursery: a small interpreter that has a worker's imports ready, and forks workers on request.

It is this package's fork server. The standard library's can't serve here: it listens on a name, it starts a resource
tracker, and its children run ``__main__``. This one talks over an inherited socket pair, passes descriptors, has one
thread (so its forks are safe), reaps its children, and ends with its parent. `Nursery` is the parent's side, `main`
the process's own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterable
from typing import Any

from nbparallel import interrupts

ENTRY = "import sys; sys.path.append(sys.argv[1]); from nbparallel.engine.nursery import main; main(int(sys.argv[2]))"

# A request: one length, then the environment as a literal; with it come the descriptors of socket, page, standard
# output, standard error and exit report. The answer is a pid; the exit report a code and the
# most memory held, in bytes.
_LENGTH = struct.Struct("=I")
_NUMBER = struct.Struct("=q")
_REPORT = struct.Struct("=qq")
# Of `ru_maxrss`: getrusage(2) counts in KiB, macOS in bytes.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_DESCRIPTORS = 5
#: Instead of a request's length: there will be no more, and the process ends with the last of its workers.
_RETIRE = 0xFFFFFFFF
#: Instead of a request's length: the length and the name of a module follow, which is imported.
_IMPORT = 0xFFFFFFFE


class Nursery:
    """The parent's side: one process for all engines of this kernel."""

    def __init__(self, command: list[str]) -> None:
        import subprocess  # not at the top: the nursery itself must start fast, and starts nothing

        self._control, theirs = socket.socketpair()
        with theirs, interrupts.held_back():
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._imported: set[str] = set()
        # ipykernel ends all children before itself, and waits for those that it finds, dead ones included: somebody
        # must take note of the end at once, or each shutdown and restart of the kernel lasts seconds.
        threading.Thread(target=self._reap, name="nbparallel-nursery-reaper", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, descriptors: list[int], environment: dict[str, str]) -> Child:
        """Have a worker forked that gets `descriptors`; the caller keeps its own copies.

        Raises:
            OSError: the nursery is gone.
        """
        report, theirs = os.pipe()
        try:
            body = repr(environment).encode()
            request = _LENGTH.pack(len(body)) + body
            sent = socket.send_fds(self._control, [request], [*descriptors, theirs])
            self._control.sendall(request[sent:])
            (pid,) = _NUMBER.unpack(_receive_exactly(self._control, _NUMBER.size))
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(theirs)
        return Child(pid, report)

    def import_modules(self, names: Iterable[str]) -> None:
        """Have the workers that are forked from now on find modules imported.

        Raises:
            OSError: the nursery is gone.
        """
        for name in names:
            if name not in self._imported:
                self._imported.add(name)
                self._control.sendall(_LENGTH.pack(_IMPORT) + _LENGTH.pack(len(name)) + name.encode())

    def close(self) -> None:
        """End the process and its workers, and wait for it: at once, as it never runs a task."""
        self._control.close()
        self._process.wait()

    def retire(self) -> None:
        """Let the process end with the last of its workers, which are others' to end."""
        with contextlib.suppress(OSError):  # it has ended
            self._control.sendall(_LENGTH.pack(_RETIRE))

    def _reap(self) -> None:
        self._process.wait()
        self._control.close()

    def abandon(self) -> None:
        """Close this copy of the connection, in a forked child, without touching the process."""
        self._control.close()
        self._process.returncode = 0  # it is not this process's child: no warning, no wait


class Child:
    """A worker's exit, as reported by the nursery. `sentinel` becomes readable when it ends; `peak` is its memory's."""

    def __init__(self, pid: int, report: int) -> None:
        self.pid = pid
        self.sentinel: int | None = report
        os.set_blocking(report, False)
        self.peak: int | None = None
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and self.sentinel is not None:
            try:
                data = os.read(self.sentinel, _REPORT.size)
            except BlockingIOError:
                return None
            # No report: the nursery was killed, and its workers with it.
            self._code, self.peak = _REPORT.unpack(data) if len(data) == _REPORT.size else (-signal.SIGKILL, None)
        return self._code

    def close(self) -> None:
        if self.sentinel is not None:
            os.close(self.sentinel)
            self.sentinel = None


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError("the connection was closed")
        data += piece
    return data


# ---- the process's own side ---------------------------------------------------------------------------------------


def main(control_fd: int) -> None:
    """Serve requests until the parent closes the connection or dies."""
    import ast

    from nbparallel.engine import worker
    from nbparallel.serialize.lazy import dill_module

    dill_module()
    control = socket.socket(fileno=control_fd)
    interrupts.ignore()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    reports: dict[int, int] = {}
    retired = False
    waiting = select.poll()  # select() knows no descriptors above 1023
    waiting.register(control_fd, select.POLLIN)
    waiting.register(wake_read, select.POLLIN)
    while reports or not retired:
        readable = {fd for fd, _ in waiting.poll()}
        if wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(reports)
        if control_fd not in readable:
            continue
        try:
            head, descriptors, _, _ = socket.recv_fds(control, _LENGTH.size, _DESCRIPTORS)
            if not head:
                break
            head += _receive_exactly(control, _LENGTH.size - len(head)) if len(head) < _LENGTH.size else b""
            (length,) = _LENGTH.unpack(head)
            if length == _RETIRE:
                retired = True
                continue
            if length == _IMPORT:
                (length,) = _LENGTH.unpack(_receive_exactly(control, _LENGTH.size))
                importlib.import_module(_receive_exactly(control, length).decode())
                continue
            environment = ast.literal_eval(_receive_exactly(control, length).decode())
        except (OSError, EOFError):
            break
        *given, report = descriptors
        pid = os.fork()
        if pid == 0:
            try:
                _become_worker(worker, control, (wake_read, wake_write, report, *reports.values()), given, environment)
            finally:
                os._exit(1)
        for fd in given:
            os.close(fd)
        reports[pid] = report
        try:
            control.sendall(_NUMBER.pack(pid))
        except OSError:
            break
    for pid in reports:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    control.close()
    sys.exit(0)


def _reap(reports: dict[int, int]) -> None:
    while reports:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        report = reports.pop(pid, None)
        if report is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody is interested any more
                os.write(report, _REPORT.pack(os.waitstatus_to_exitcode(status), peak_of(usage)))
            os.close(report)


def peak_of(usage: Any) -> int:
    """Return the most memory that an ended process held, in bytes, shared pages included.

    Not for one that was started by vfork and exec: the kernel counts its parent's memory too.
    """
    return int(usage.ru_maxrss) * _MAXRSS_BYTES


def _become_worker(
    worker: Any,
    control: socket.socket,
    foreign: tuple[int, ...],
    given: list[int],
    environment: dict[str, str],
) -> None:
    parent = os.getppid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    for fd in foreign:
        os.close(fd)
    os.environ.update(environment)
    sock, page, out, err = given
    for fd, target in ((out, 1), (err, 2)):
        os.dup2(fd, target)
        os.close(fd)
    worker.main(f"fd:{sock}", str(page), parent)
