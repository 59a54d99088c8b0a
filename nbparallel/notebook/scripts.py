"""A script of its own: source that runs in a fresh interpreter, shown live here, and of which nothing is left.

`run_script` is what ``%%pscript`` calls. It writes the source to a private folder and starts a `supervisor`, which
starts the script by `runner` and ends all of it at a limit, at Stop, and when this process dies.
"""

from __future__ import annotations

import codecs
import contextlib
import marshal
import multiprocessing
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from nbparallel import interrupts
from nbparallel.engine import pipes
from nbparallel.engine.work import Said
from nbparallel.output import showing
from nbparallel.output.outbox import Outbox
from nbparallel.tracebacks import hidden

TIMEOUT = 60.0
#: How many processes a script may have at once, at least; where there are many cores, some for each.
PROCESSES = 32
_PROCESSES_PER_CORE = 4
#: What is kept of what a script writes, in characters, of each stream.
KEPT_CHARACTERS = 10_000_000
#: What all that comes of a script inherits; its value is the folder.
MARK = "NBPARALLEL_SCRIPT"
#: How long the supervisor may take to end everything, in seconds: only what hangs within the system takes so long.
_PATIENCE_SECONDS = 5.0
# From its supervisor; see there.
_CAN_ESCAPE = sys.platform != "linux"
_HERE = os.path.dirname(os.path.abspath(__file__))


class Finished(subprocess.CompletedProcess[str]):
    """A script that has ended: ``args``, ``returncode``, ``stdout``, ``stderr``, and why it was ended.

    Attributes:
        ended: in words, if it did not end by itself: ``"ended after 5 s (--timeout 5): 17 processes"``; else empty.
    """

    ended: str = ""


def run_script(
    source: str,
    args: Sequence[str] = (),
    *,
    start: str | None = None,
    timeout: float = TIMEOUT,
    max_processes: int | None = None,
    check: bool = False,
    name: str = "script.py",
) -> Finished:
    """Run source as a script of its own, show what it writes while it runs, and end all that came of it.

    It runs where this process works, and finds the same modules. It has no standard input. What it has started and
    left behind is ended a second after it.

    Args:
        source: the script.
        args: its arguments.
        start: the start method that `multiprocessing` has in it by default; `None`: the interpreter's own.
        timeout: seconds after which it is ended.
        max_processes: it is ended when there are more at once; by default 32, or four for each core if that is more.
        check: whether an exit code other than 0 raises.
        name: its file's name.

    Returns:
        What has become of it, with its first ten million characters of output.

    Raises:
        subprocess.CalledProcessError: it has failed or was ended, and `check` is true.
        ValueError: an argument makes no sense.
        TypeError: an argument is of a wrong type.
        RuntimeError: the process that watches it was killed; so was all that came of it.
    """
    with hidden:
        if not isinstance(source, str):
            raise TypeError(f"source must be text, not {source!r}")
        if isinstance(args, str) or not all(isinstance(each, str) for each in args):
            raise TypeError(f"args must be a list of texts, not {args!r}")
        order = {
            "args": list(args),
            "start": check_start(start),
            "timeout": check_timeout(timeout),
            "max_processes": check_max_processes(max_processes),
        }
        with interrupts.deferred, _folder() as folder:
            script = _Script(source, name, order, folder)
            try:
                with interrupts.deferred.lifted():
                    script.relay()
            finally:
                finished = script.finish()
                interrupts.deferred.forget()
        if check and finished.returncode:
            raise subprocess.CalledProcessError(finished.returncode, finished.args, finished.stdout, finished.stderr)
        return finished


def check_start(start: str | None) -> str | None:
    """Return a start method that this system has, or `None`.

    Raises:
        ValueError: it has none of that name.
    """
    known = multiprocessing.get_all_start_methods()
    if start is not None and start not in known:
        raise ValueError(f"unknown start method {start!r}; known here: {', '.join(sorted(known))}")
    return start


def check_timeout(timeout: float) -> float:
    """Return a number of seconds above 0.

    Raises:
        ValueError: it is not above 0.
        TypeError: it is no number.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0 s, not {timeout}")
    return float(timeout)


def check_max_processes(count: int | None) -> int:
    """Return how many processes there may be; the default for `None`.

    Raises:
        ValueError: it is below 1.
        TypeError: it is no whole number.
    """
    if count is None:
        return max(PROCESSES, _PROCESSES_PER_CORE * (os.cpu_count() or 1))
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"max_processes must be a whole number, not {count!r}")
    if count < 1:
        raise ValueError(f"max_processes must be at least 1, not {count}")
    return count


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    # Only this user may enter it (0700). Its real path: that is what the script's tracebacks show.
    folder = os.path.realpath(tempfile.mkdtemp(prefix="nbparallel-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Stream:
    """One of the script's two streams, on its way to the cell."""

    def __init__(self, kind: str, output: pipes.Output, folder: str | None = None) -> None:
        self.kind = kind
        self.output = output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._hide = "" if folder is None else folder + os.sep  # from tracebacks: the folder is gone when they are read
        self._held = ""
        self._texts: list[str] = []
        self._room = KEPT_CHARACTERS
        self._cut = 0

    def text_of(self, data: bytes) -> str:
        """Return what can be shown now; of no data, what was held back."""
        text = self._held + self._decoder.decode(data, final=not data)
        self._held = ""
        if self._hide:
            text = text.replace(self._hide, "")
            begun = range(min(len(self._hide) - 1, len(text)), 0, -1) if data else ()
            length = next((each for each in begun if text.endswith(self._hide[:each])), 0)
            text, self._held = text[: len(text) - length], text[len(text) - length :]
        self._keep(text)
        return text

    def _keep(self, text: str) -> None:
        kept = text[: self._room]
        self._room -= len(kept)
        self._cut += len(text) - len(kept)
        if kept:
            self._texts.append(kept)

    @property
    def kept(self) -> str:
        told = f"\n[{self._cut:,} characters more were not kept]\n" if self._cut else ""
        return "".join(self._texts) + told


class _Script:
    """One script that runs; all is called by the thread that has started it."""

    def __init__(self, source: str, name: str, order: dict[str, Any], folder: str) -> None:
        self._order = order
        self._folder = folder
        self._arguments = [name, *order["args"]]
        self._outbox = Outbox("live", None, showing.budgets())
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(source)
        here = os.getcwd()
        entries: list[object] = [*sys.path]  # the import system ignores what is no text
        order["folder"] = folder
        order["script"] = path
        order["path"] = [here, *(each for each in entries if isinstance(each, str) and each not in ("", here))]
        order["command"] = [sys.executable, os.path.join(_HERE, "runner.py"), os.path.join(folder, "order")]
        with open(os.path.join(folder, "order"), "wb") as written:
            marshal.dump(order, written)
        environment = {**os.environ, MARK: folder, "PYTHONIOENCODING": "utf-8"}
        with contextlib.ExitStack() as given, contextlib.ExitStack() as ours:
            out, theirs_out, is_terminal = _open_output()
            ours.callback(out.close)
            given.callback(os.close, theirs_out)
            err, theirs_err = pipes.open_pipe()
            ours.callback(err.close)
            given.callback(os.close, theirs_err)
            # To a terminal, each line is written as a whole when it ends. To anything else it would be when the process
            # ends, and never if that is killed; or else in pieces, between those of others.
            environment.pop("PYTHONUNBUFFERED", None)
            if not is_terminal:
                environment["PYTHONUNBUFFERED"] = "1"
            self._written = ours.enter_context(open(os.path.join(folder, "report"), "w+b"))
            with interrupts.held_back():
                self._supervisor = _start_supervisor(folder, theirs_out, theirs_err, environment)
            self._held = ours.pop_all()
        self._streams = [_Stream("stdout", out), _Stream("stderr", err, folder)]

    def relay(self) -> None:
        """Show what the script writes, until its supervisor has ended."""
        with selectors.DefaultSelector() as selector:
            for stream in self._streams:
                selector.register(stream.output.fileno(), selectors.EVENT_READ, stream)
            while self._supervisor.poll() is None:
                if not selector.get_map():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._supervisor.wait(interrupts.WAIT_SECONDS)
                    continue
                for key, _ in selector.select(interrupts.WAIT_SECONDS):
                    if not self._pass(key.data):
                        selector.unregister(key.fd)

    def finish(self) -> Finished:
        """End what still runs, show what is left to show and what has happened, and return it."""
        with self._held:
            self._supervisor.stdin.close()  # type: ignore[union-attr]  # this is how it is told
            limit = time.monotonic() + _PATIENCE_SECONDS
            while self._supervisor.poll() is None and time.monotonic() < limit:
                for stream in self._streams:
                    self._pass(stream)  # all is to be shown, and it may be more than a pipe holds
                time.sleep(0.002)
            report = self._report()
            if report is None:
                self._supervisor.kill()
                self._supervisor.wait()
            swept = _sweep(self._folder) if report is None or _CAN_ESCAPE else 0
            for stream in self._streams:
                stream.output.settle()
                while self._pass(stream, nothing=False):
                    pass
                self._say(stream, b"")
        self._outbox.end()
        self._show()
        if report is None:
            raise RuntimeError(
                f"the process that watched over {self._arguments[0]} has ended before it "
                f"(exit code {self._supervisor.returncode}); so has the script"
            )
        finished = self._finished(report, swept)
        if last := finished.ended or _exit_in_words(finished.returncode):
            for shown in (sys.stdout, sys.stderr):
                if shown is not None:
                    shown.flush()  # a kernel shows its two streams in turns, and this is to be the last line
            showing.write(sys.stderr, last + "\n")
        return finished

    def _pass(self, stream: _Stream, *, nothing: bool = True) -> bool:
        """Show what a stream has; return whether it goes on, or `nothing` if there is nothing at the moment."""
        try:
            data = stream.output.read()
        except BlockingIOError:
            return nothing
        if data:
            self._say(stream, data)
        return bool(data)

    def _say(self, stream: _Stream, data: bytes) -> None:
        if text := stream.text_of(data):
            self._outbox.put(0, Said(stream.kind, text))
            self._show()

    def _show(self) -> None:
        for said in self._outbox.take():
            showing.show(said)

    def _report(self) -> dict[str, Any] | None:
        try:
            return marshal.load(self._written)  # type: ignore[no-any-return]
        except EOFError:
            return None

    def _finished(self, report: dict[str, Any], swept: int) -> Finished:
        code = -signal.SIGTERM if report["code"] is None else report["code"]
        out, err = (stream.kept for stream in self._streams)
        finished = Finished(self._arguments, code, out, err)
        count = _processes(report["ended"] + swept)
        match report["why"] or ("left" if swept else ""):
            case "timeout":
                limit = f"{self._order['timeout']:g}"
                finished.ended = f"ended after {limit} s (--timeout {limit}): {count}"
            case "processes":
                most = f"{report['most']} at once (--max-processes {self._order['max_processes']})"
                finished.ended = f"ended for too many processes, {most}: {count}"
            case "stop":
                finished.ended = f"ended by Stop: {count}"
            case "left":
                own = _exit_in_words(code)
                finished.ended = f"{own}{'; ' if own else ''}ended what the script had left running: {count}"
        if report["left"]:
            finished.ended += f"; {_processes(report['left'])} could not be ended"
        return finished


class _Terminal(pipes.Pipe):
    """The notebook's end of a terminal."""

    def read(self) -> bytes:
        try:
            return super().read()
        except BlockingIOError:
            raise
        except OSError:  # EIO: the script's end is closed
            return b""


def _open_output() -> tuple[pipes.Output, int, bool]:
    """Return the ends for the script's standard output, and whether that is a terminal, as behind ``!python``.

    To a terminal processes write each line as it is printed, as one piece.
    """
    if sys.platform == "win32":
        return *pipes.open_pipe(), False
    import termios

    try:
        ours, theirs = os.openpty()
    except OSError:  # a container may have none
        return *pipes.open_pipe(), False
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST  # a newline stays one character
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    termios.tcsetwinsize(theirs, (24, 80))
    return _Terminal(ours), theirs, True


def _start_supervisor(folder: str, out: int, err: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # In a group of its own: Jupyter sends Stop to the kernel's whole group. -P: no file beside the notebook, whatever
    # its name, is imported there.
    command = [sys.executable, "-P", os.path.join(_HERE, "supervisor.py"), folder, str(os.getpid())]
    given: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": out, "stderr": err, "env": environment}
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen(command, **given, creationflags=flags)
    return subprocess.Popen(command, **given, start_new_session=True)


def _sweep(folder: str) -> int:
    """End whatever carries a script's mark, and return how many that were."""
    ended: set[psutil.Process] = set()
    while found := [each for each in psutil.process_iter() if each not in ended and _is_marked(each, folder)]:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        ended.update(found)
    return len(ended)


def _is_marked(process: psutil.Process, folder: str) -> bool:
    try:
        return process.environ().get(MARK) == folder and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # it has ended, or belongs to somebody else
        return False


def _exit_in_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}" if code else ""
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
