"""A real Jupyter kernel of this interpreter, driven cell by cell.

Used by the tests that show what a user of a notebook sees. `Kernel.run` executes a cell and returns what the front
end would show for it: only messages whose parent is that very cell count as its own.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

import nbparallel

#: Kernels and scripts find the package that is tested, installed or not.
ENVIRONMENT = {"PYTHONPATH": str(Path(nbparallel.__file__).parents[1])}
METHODS = multiprocessing.get_all_start_methods()
#: Seconds after which a cell is given up.
CELL_TIMEOUT = 40.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class _ThisInterpreter(KernelSpecManager):
    """Knows one kernel, which need not be registered: ipykernel under the interpreter of the tests."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


@dataclass
class CellError:
    """An error as a cell shows it, without colours."""

    name: str
    value: str
    traceback: str


class CellFailed(AssertionError):
    """A cell raised, and the test did not expect it."""


@dataclass
class Output:
    """What a cell has shown so far; output that arrives after its end is added to it.

    Attributes:
        messages: the messages that belong to the cell, as they came.
        idle: whether the cell has ended.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    idle: bool = False

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def result(self) -> str | None:
        """The text of the cell's last expression."""
        found = self._contents("execute_result")
        return found[-1]["data"]["text/plain"] if found else None

    @property
    def error(self) -> CellError | None:
        for content in self._contents("error"):
            traceback = _COLOURS.sub("", "\n".join(content["traceback"]))
            return CellError(content["ename"], content["evalue"], traceback)
        return None

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The data of what the cell displayed, by MIME type."""
        return [content["data"] for content in self._contents("display_data")]

    def _text(self, name: str) -> str:
        return "".join(content["text"] for content in self._contents("stream") if content["name"] == name)

    def _contents(self, kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["msg_type"] == kind]


class Kernel:
    """One kernel and its client; a context manager that leaves no process behind.

    Args:
        environment: variables for the kernel, beside those of the tests.
        folder: the kernel's working folder, as the notebook's.
    """

    def __init__(self, environment: dict[str, str] | None = None, folder: Path | None = None) -> None:
        self._sockets = tempfile.TemporaryDirectory(prefix="kernel-")
        self.manager = KernelManager(kernel_name="tests", kernel_spec_manager=_ThisInterpreter())
        if sys.platform != "win32":  # nothing listens on a port
            self.manager.transport = "ipc"
            self.manager.ip = os.path.join(self._sockets.name, "socket")
        self.folder = Path.cwd() if folder is None else folder
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        variables = {**os.environ, **ENVIRONMENT, "PYTHONFAULTHANDLER": "1", **(environment or {})}
        self.manager.start_kernel(env=variables, cwd=str(self.folder), stderr=self._log)
        self._outputs: dict[str, Output] = defaultdict(Output)
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=CELL_TIMEOUT)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)  # type: ignore[union-attr]

    def send(self, code: str) -> str:
        """Send a cell and return its id at once."""
        return self.client.execute(textwrap.dedent(code), store_history=True)

    def run(self, code: str, timeout: float = CELL_TIMEOUT, *, fails: bool = False) -> Output:
        """Execute a cell and wait for its end.

        Args:
            code: its source.
            timeout: seconds to wait at most.
            fails: whether an error is expected; without it, one raises here.

        Raises:
            CellFailed: the cell raised though it should not, or the other way round.
            TimeoutError: it did not end in time; it was interrupted.
        """
        return self.wait(self.send(code), timeout, fails=fails)

    def wait(self, cell: str, timeout: float = CELL_TIMEOUT, *, fails: bool = False) -> Output:
        """Wait for the end of a cell that was sent; as `run`."""
        output = self._outputs[cell]
        if not self.receive(lambda: output.idle, timeout):
            self.interrupt()
            self.receive(lambda: output.idle, timeout)
            shown = output.error.traceback if output.error else ""
            raise TimeoutError(f"the cell was not finished in {timeout} s\n{output.stdout}{output.stderr}{shown}")
        if (output.error is not None) != fails:
            shown = "no error" if output.error is None else output.error.traceback
            raise CellFailed(f"{shown}\n{output.stdout}{output.stderr}")
        return output

    def shown_by(self, cell: str) -> Output:
        """Return what a cell has shown so far."""
        return self._outputs[cell]

    def receive(self, until: Callable[[], object], timeout: float = CELL_TIMEOUT) -> bool:
        """Take messages until something is the case; return whether it is."""
        limit = time.monotonic() + timeout
        while not until():
            left = limit - time.monotonic()
            if left <= 0:
                return False
            try:
                self._take(self.client.get_iopub_msg(timeout=min(left, 0.2)))
            except Empty:
                if not self.manager.is_alive():
                    raise CellFailed(f"the kernel has died: {self._last_words()}") from None
        return True

    def _take(self, message: dict[str, Any]) -> None:
        output = self._outputs[message["parent_header"].get("msg_id", "")]
        output.messages.append(message)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            output.idle = True

    def _last_words(self) -> str:
        code = self.manager.provisioner.process.poll()  # type: ignore[union-attr]
        self._log.seek(0)
        return f"exit code {code}\n{self._log.read().decode(errors='replace')}"

    def interrupt(self) -> None:
        """Press Stop: a signal to the kernel's whole process group."""
        self.manager.interrupt_kernel()

    def kill(self) -> None:
        """Kill the kernel's process outright, and nothing else."""
        self.manager.signal_kernel(9)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=not self.manager.is_alive())
        self.manager.context.destroy()
        self._sockets.cleanup()
        self._log.close()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="module", params=METHODS)
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel that starts its workers by one of the methods; the tests of a module share it.

    In it, `folder` is a `pathlib.Path` of its own.
    """
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel({"START_METHOD": request.param}, folder) as kernel:
        kernel.run(f"""
            import os, time
            from pathlib import Path
            import nbparallel
            from nbparallel import Executor, Pool, last_run, pmap, pmap_async

            nbparallel.configure(workers=2, start_method={request.param!r}, progress=False)
            folder = Path({str(folder)!r})
        """)
        yield kernel
        kernel.run("nbparallel.backends.shutdown()")
