"""The process between a notebook and its script: it starts the script, counts what becomes of it, and ends it all.

Run by path, by `followed`, of which it imports nothing. It ends every process that came of the script when the time is
over, when there are too many at once, when the notebook says so or is gone, and when the script itself has ended. On
Linux no process escapes: orphans, and those in a session of their own, become children of this one. Elsewhere
`psutil` finds them by their parents, while these live, and by their group.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

#: Seconds between two looks. Between them a runaway of two cores starts some dozen processes.
_LOOK_SECONDS = 0.01
# A count takes up to a tenth of a core, and at least so many a second are made.
_SHARE = 10
_AGAIN_SECONDS = 0.1
#: How long what a script leaves behind may take to end by itself: the standard module's helpers do, once it is gone.
GRACE_SECONDS = 1.0
#: After so many seconds of killing, what is left can't be killed: it hangs within the system.
_PATIENCE_SECONDS = 3.0
_TRACKER = ".resource_tracker import main"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


class Tree(Protocol):
    """The script's process and all that came of it.

    Attributes:
        code: the script's exit code, once it has ended.
    """

    code: int | None

    def alive(self) -> set[int]:
        """Return the ids of the processes that have not ended."""

    def count(self) -> int:
        """Return how many there are, as of a moment ago."""

    def is_over(self) -> bool:
        """Take note of those that have ended, and return whether all have."""

    def command(self, pid: int) -> str:
        """Return the command that one of them was started by; nothing if it has ended."""

    def stop_group(self) -> None:
        """Have all that are in the script's own group stand still at once: none can start another meanwhile."""

    def stop(self, pid: int) -> None:
        """Have one of them stand still."""

    def resume(self, pid: int) -> None:
        """Have one of them go on."""

    def kill(self, pid: int) -> None:
        """End one of them."""

    def tidy(self) -> None:
        """Take away what those that were killed could not."""


class LinuxTree:
    """By ``/proc``, as a subreaper: who loses its parent becomes a child of this process."""

    def __init__(self, command: list[str]) -> None:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.code: int | None = None
        self._script = _start(command, lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        self._count = 1
        self._counted = 0.0
        self._pause = 0.0
        self._newest = b""
        self._semaphores: set[int] = set()  # by inode: a mapping shows the name that it had at first

    def alive(self) -> set[int]:
        parents: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            except OSError:  # it has just ended
                continue
            try:
                state, parent = os.read(fd, 512).rpartition(b")")[2].split(None, 2)[:2]
            except (OSError, ValueError):
                continue
            finally:
                os.close(fd)
            parents.setdefault(int(parent), []).append(int(name) if state not in b"ZX" else -int(name))
        found: set[int] = set()
        waiting = [os.getpid()]
        while waiting:
            children = parents.get(abs(waiting.pop()), ())
            waiting += children
            found.update(pid for pid in children if pid > 0)
        return found

    def count(self) -> int:
        # The last word is the id that was last given to any process or thread here: mostly nothing is new.
        with open("/proc/loadavg", "rb") as file:
            newest = file.read().split()[-1]
        passed = time.monotonic() - self._counted
        if passed >= _AGAIN_SECONDS or (newest != self._newest and passed >= self._pause):
            begun = time.monotonic()
            self._count = len(self.alive())
            self._counted, self._newest = time.monotonic(), newest
            self._pause = min(_SHARE * (self._counted - begun), _AGAIN_SECONDS)
        return self._count

    def is_over(self) -> bool:
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._script.pid:
                    self.code = self._script.returncode = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:  # nobody is left: who has no other parent would be a child of this process
            return True
        return False

    def command(self, pid: int) -> str:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def stop_group(self) -> None:
        _stop_group(self._script.pid)

    def stop(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGSTOP)

    def resume(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGCONT)

    def kill(self, pid: int) -> None:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as file:
            self._semaphores.update(int(line.split()[4]) for line in file if b" /dev/shm/sem." in line)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)

    def tidy(self) -> None:
        # A process that was between making a semaphore and telling its tracker leaves a name that nobody else knows.
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir("/dev/shm"):
                if entry.name.startswith("sem.mp-") and entry.inode() in self._semaphores:
                    os.unlink(entry.path)


class OtherTree:
    """By `psutil`: who was once seen in the tree belongs to it."""

    def __init__(self, command: list[str]) -> None:
        import psutil

        self._psutil = psutil
        self.code: int | None = None
        self._script = _start(command, None)
        self._known = {self._script.pid: psutil.Process(self._script.pid)}
        self._count = 1
        self._counted = 0.0

    def alive(self) -> set[int]:
        parents = {process: process.info["ppid"] for process in self._psutil.process_iter(["ppid"])}
        grown = True
        while grown:
            grown = False
            for process, parent in parents.items():
                if process.pid not in self._known and (parent in self._known or self._is_of_group(process.pid)):
                    self._known[process.pid] = process
                    grown = True
        self._known = {pid: process for pid, process in self._known.items() if self._lives(process)}
        return set(self._known)

    def count(self) -> int:
        if time.monotonic() - self._counted >= _AGAIN_SECONDS:
            self._count = len(self.alive())
            self._counted = time.monotonic()
        return self._count

    def is_over(self) -> bool:
        self.code = self._script.poll()
        return self.code is not None and not self.alive()

    def command(self, pid: int) -> str:
        try:
            return " ".join(self._known[pid].cmdline())
        except self._psutil.Error:
            return ""

    def stop_group(self) -> None:
        _stop_group(self._script.pid)

    def stop(self, pid: int) -> None:
        if sys.platform != "win32":
            with contextlib.suppress(self._psutil.Error):
                self._known[pid].suspend()  # not if the id is another process's by now

    def resume(self, pid: int) -> None:
        if sys.platform != "win32":
            with contextlib.suppress(self._psutil.Error):
                self._known[pid].resume()

    def kill(self, pid: int) -> None:
        with contextlib.suppress(self._psutil.Error):
            self._known[pid].kill()

    def tidy(self) -> None:
        """Nothing: there is no list of such names."""

    def _is_of_group(self, pid: int) -> bool:
        if sys.platform == "win32":
            return False
        try:
            return os.getpgid(pid) == self._script.pid
        except OSError:
            return False

    def _lives(self, process: Any) -> bool:
        try:
            return bool(process.is_running() and process.status() != self._psutil.STATUS_ZOMBIE)
        except self._psutil.Error:
            return False


def _start(command: list[str], before: Callable[[], object] | None) -> subprocess.Popen[bytes]:
    if sys.platform == "win32":
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
    # A group of its own: what the script sends to its whole group is not for this process.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=before)


def _stop_group(leader: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGSTOP)


def watch(
    tree: Tree, timeout: float, max_processes: int, over: threading.Event, is_abandoned: Callable[[], bool]
) -> dict[str, Any]:
    """See a script to its end, one way or the other, and return what became of it.

    Args:
        tree: the script, which has just begun.
        timeout: seconds after which all is ended.
        max_processes: how many may be alive at once.
        over: set when all is to be ended.
        is_abandoned: tells whether the notebook is gone.
    """
    begun = time.monotonic()
    ended = most = left = 0
    why = ""
    grace: float | None = None
    while not tree.is_over():
        now = time.monotonic()
        most = max(most, tree.count())
        if tree.code is not None and grace is None:
            grace = now + GRACE_SECONDS
        if most > max_processes:
            why = "processes"
        elif now >= begun + timeout:
            why = "timeout"
        elif over.is_set() or is_abandoned():
            why = "stop"
        elif grace is not None and now >= grace:
            why = "left"
        else:
            over.wait(_LOOK_SECONDS)
            continue
        ended, left = _end(tree)
        break
    return {"code": tree.code, "why": why, "ended": ended, "left": left, "most": most}


def _end(tree: Tree) -> tuple[int, int]:
    """End all of a tree, and return how many that were, and how many could not be ended."""
    ended: set[int] = set()
    begun = time.monotonic()
    tree.stop_group()
    while not tree.is_over() and (passed := time.monotonic() - begun) < _PATIENCE_SECONDS:
        found = tree.alive()
        fresh = found - ended
        for pid in fresh:
            tree.stop(pid)
        ended |= fresh
        if fresh and passed < GRACE_SECONDS:
            continue  # first all stand still, or some would start others while the rest is killed
        # Those that take away the names of semaphores and shared memory which others leave end by themselves, when the
        # last of the others has.
        spared = {pid for pid in found if passed < GRACE_SECONDS and _TRACKER in tree.command(pid)}
        for pid in found - spared:
            tree.kill(pid)
        for pid in spared:
            tree.resume(pid)
        time.sleep(0.001)
    tree.tidy()
    left = set() if tree.is_over() else tree.alive()
    return len(ended - left), len(left)


def main(folder: str, parent: int) -> None:
    """Serve one script.

    Args:
        folder: where the order lies, and where the report goes.
        parent: the notebook's process id.
    """
    over = threading.Event()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: over.set())
    # Handled, not ignored: the script begins with the system's own way. This was started with interrupts held back.
    signal.signal(signal.SIGINT, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    with open(os.path.join(folder, "order"), "rb") as file:
        order = marshal.load(file)
    written = open(os.path.join(folder, "report"), "r+b")  # noqa: SIM115 - now, as the script may remove the folder
    tree: Tree = LinuxTree(order["command"]) if sys.platform == "linux" else OtherTree(order["command"])

    def wait_for_word() -> None:
        os.read(0, 1)  # nothing is ever written: the notebook closes it, or the end of its process
        over.set()

    threading.Thread(target=wait_for_word, daemon=True).start()

    # Others may hold the notebook's end of the pipe, too: processes that it forked.
    def is_orphan() -> bool:
        return sys.platform != "win32" and os.getppid() != parent

    report = watch(tree, order["timeout"], order["max_processes"], over, is_orphan)
    marshal.dump(report, written)
    written.flush()
    if is_orphan() or (sys.platform == "win32" and not _exists(parent)):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # the thread still reads


def _exists(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
