"""A script that runs: its order is written, its supervisor started, and what it writes is shown until all is over.

Called by `scripts`; `supervisor` and `runner` are the other ends.
"""

from __future__ import annotations

import codecs
import contextlib
import marshal
import os
import selectors
import subprocess
import sys
import time
from typing import Any

import psutil

from nbparallel import interrupts
from nbparallel.engine import pipes
from nbparallel.engine.work import Said
from nbparallel.output import showing
from nbparallel.output.outbox import Outbox

#: What is kept of what a script writes, in characters, of each stream.
KEPT_CHARACTERS = 10_000_000
#: What all that comes of a script inherits; its value is the folder.
MARK = "NBPARALLEL_SCRIPT"
#: How long the supervisor may take to end everything, in seconds: only what hangs within the system takes so long.
_PATIENCE_SECONDS = 5.0
# From its supervisor; see there.
_CAN_ESCAPE = sys.platform != "linux"
_HERE = os.path.dirname(os.path.abspath(__file__))


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


class Script:
    """One script that runs; all is called by the thread that has started it."""

    def __init__(self, source: str, name: str, order: dict[str, Any], folder: str) -> None:
        self._order = order
        self._folder = folder
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
        # Not kqueue, which has had its troubles with terminals.
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
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

    def finish(self) -> dict[str, Any]:
        """End what still runs, show what is left to show, and return the supervisor's report and what was written.

        Raises:
            RuntimeError: there is no report.
        """
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
                f"the process that watched over {os.path.basename(self._order['script'])} has ended before it "
                f"(exit code {self._supervisor.returncode}); so has the script"
            )
        report["ended"] += swept
        report["why"] = report["why"] or ("left" if swept else "")
        report["stdout"], report["stderr"] = (stream.kept for stream in self._streams)
        return report

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
