"""A whole notebook, executed in a kernel of its own and shown in the terminal while it happens.

Called by `cli`. The kernel is this very interpreter's, whatever kernels are registered. A notebook says by itself
which answers are right: one code cell's metadata holds them under ``answers``, and that cell prints the computed ones
as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nbformat
from jinja2 import DictLoader
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

#: Seconds after which a cell is given up. The longest one of the quickstart takes some twenty on a slow core.
CELL_SECONDS = 600
#: How many lines of a cell's code are shown, blank ones aside.
CODE_LINES = 16

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# The page is read from a disk: it may not ask the network for scripts. What they draw (formulas, widgets) stays text.
_PAGE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""


@dataclass(frozen=True)
class Played:
    """What became of a notebook.

    Attributes:
        files: what was saved: the executed notebook and the page.
        problems: what went wrong, in words; empty if every cell ran and every answer is right.
        answers: how many answers were found right.
    """

    files: list[Path]
    problems: list[str]
    answers: int


def play(source: Path, folder: Path) -> Played:
    """Execute a notebook, show it on standard output as it happens, and save it with its outputs.

    Args:
        source: the notebook, which stays as it is.
        folder: an existing one, where the results are saved; the kernel works in it.

    Raises:
        KeyboardInterrupt: it was interrupted; kernel and workers are gone.
    """
    notebook = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryFile() as log:
        problems = _execute(notebook, folder, log)
    answers = 0
    if not problems:
        answers, problems = check_answers(notebook)
    return Played(_save(notebook, folder / source.name), problems, answers)


def _execute(notebook: NotebookNode, folder: Path, log: IO[bytes]) -> list[str]:
    """Execute a notebook in place; return what went wrong, in words.

    Args:
        notebook: gets its outputs.
        folder: the kernel works in it.
        log: what the kernel's own process says, which is shown if it dies: as it ends, it may complain for no reason.
    """
    try:
        # ZeroMQ's sockets need a loop that can watch them; the default one of Windows can't.
        with (
            tempfile.TemporaryDirectory(prefix="nbparallel-") as sockets,
            asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        ):
            runner.run(_Player(notebook, folder, sockets, log).async_execute())
    except CellExecutionError as error:
        return [f"a cell raised {error.ename}: {error.evalue}"]
    except (CellTimeoutError, DeadKernelError, RuntimeError) as error:
        log.seek(0)
        sys.stderr.write(log.read().decode(errors="replace"))
        return [str(error).strip().partition("\n")[0]]
    return []


def check_answers(notebook: NotebookNode) -> tuple[int, list[str]]:
    """Compare the answers that an executed notebook printed with those that it records.

    Returns:
        How many are right, and what is wrong, in words.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "answers" in cell.metadata]
    if not cells:
        return 0, ["the notebook records no answers to check"]
    right, problems = 0, []
    for cell in cells:
        printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        try:
            computed = dict(json.loads(printed))
        except (ValueError, TypeError):
            return right, [f"the answers could not be read: {printed!r}"]
        for name, expected in cell.metadata["answers"].items():
            if name not in computed:
                problems.append(f"wrong answer: {name} is missing")
            elif computed[name] != expected:
                problems.append(f"wrong answer: {name} is {computed[name]!r}, but should be {expected!r}")
            else:
                right += 1
    return right, problems


class _Player(NotebookClient):
    """Executes a notebook and prints each step.

    Args:
        notebook: gets its outputs.
        folder: the kernel works in it.
        sockets: a private folder.
        log: where the kernel's process writes what it has to say itself.
    """

    def __init__(self, notebook: NotebookNode, folder: Path, sockets: str, log: IO[bytes]) -> None:
        self._log = log
        manager = AsyncKernelManager(
            kernel_spec_manager=_ThisInterpreter(),
            connection_file=str(Path(sockets, "kernel.json")),
            # Sockets in that folder, where the system has them: nothing listens on a port.
            transport="tcp" if sys.platform == "win32" else "ipc",
        )
        resources = {"metadata": {"path": str(folder)}}
        super().__init__(
            notebook,
            km=manager,
            resources=resources,
            timeout=CELL_SECONDS,
            record_timing=False,
            store_widget_state=False,  # bars have given way to text when the notebook is saved
        )

    @contextlib.asynccontextmanager
    async def async_setup_kernel(self, **kwargs: Any) -> AsyncIterator[None]:
        # nbclient's own would take over Ctrl-C, and wait for a cell whose kernel it has stopped. Left alone, asyncio
        # cancels the execution, and the kernel is stopped on the way out; the workers go with it.
        try:
            await self.async_start_new_kernel(**kwargs, stderr=self._log)
            await self.async_start_new_kernel_client()
            yield
        except DeadKernelError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise
            # It was cancelled: nbclient knows of no other reason than its own. Asked politely, the kernel would first
            # complain, over several lines, that it can't answer.
            self.shutdown_kernel = "immediate"
            raise asyncio.CancelledError from None
        finally:
            if self.km is not None:  # the client's start stops it when it fails
                await self._async_cleanup_kernel()

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, *args: Any, **kwargs: Any) -> NotebookNode:
        if cell.cell_type == "markdown":
            for heading in re.findall(r"^#+ +(.*)", cell.source, re.MULTILINE):
                _show(f"\n{heading}\n{'-' * len(heading)}\n")
        elif cell.cell_type == "code" and cell.source.strip():
            _show("\n".join(_numbered(cell.source, self.code_cells_executed + 1)) + "\n")
        return await super().async_execute_cell(cell, cell_index, *args, **kwargs)

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        content = msg["content"]
        match msg["msg_type"]:
            case "stream":
                _show(content["text"])
            case "display_data":
                _show(f"{content['data'].get('text/plain', '')}\n")
            case "execute_result":
                _show(f"Out[{content['execution_count']}]: {content['data'].get('text/plain', '')}\n")
            case "error":
                _show("\n".join(content["traceback"]) + "\n")
        return super().process_message(msg, cell, cell_index)


class _ThisInterpreter(KernelSpecManager):
    """Knows one kernel: a registered one of the same name may be another interpreter's, and none may be registered."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def _numbered(source: str, count: int) -> Iterator[str]:
    lines = [line for line in source.splitlines() if line.strip()]
    prompt = f"In [{count}]: "
    more = " " * (len(prompt) - 5) + "...: "
    for number, line in enumerate(lines[:CODE_LINES]):
        yield (more if number else prompt) + line
    if len(lines) > CODE_LINES:
        yield f"{more}(and {len(lines) - CODE_LINES} more)"


def _show(text: str) -> None:
    sys.stdout.write(text if sys.stdout.isatty() else _COLOURS.sub("", text))
    sys.stdout.flush()


def _save(notebook: NotebookNode, path: Path) -> list[Path]:
    path.write_text(f"{nbformat.writes(notebook)}\n", encoding="utf-8")  # type: ignore[no-untyped-call]
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        extra_loaders=[DictLoader({"page.html.j2": _PAGE})], template_file="page.html.j2", embed_images=True
    )
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})
    page = path.with_suffix(".html")
    page.write_text(body, encoding="utf-8")
    return [path, page]
