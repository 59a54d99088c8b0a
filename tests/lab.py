"""JupyterLab in a headless Chromium: one server, one page, one notebook, with real typing and real clicks.

Used by the tests that show what a person sees. `Lab.run` types a cell and executes it; `Cell` is what the page shows of
it. Playwright drives the Chromium that the system has: no browser is downloaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kernels import ENVIRONMENT
from playwright.sync_api import ConsoleMessage, Locator, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")

#: Seconds after which the page, or a cell, is given up. Playwright's own limits are in milliseconds.
PATIENCE = 40.0
TOKEN = "of-the-tests"
NOTEBOOK = "notebook.ipynb"
_FLAGS = (
    "--no-sandbox",  # tests may run as root, which has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_SERVER = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port=0",  # any that is free
    f"--IdentityProvider.token={TOKEN}",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
)
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # All cells are in the page, also those out of sight: a test finds them by their number.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


class Cell:
    """A cell of the page, by its number."""

    def __init__(self, page: Page, number: int) -> None:
        self.box: Locator = page.locator(".jp-Notebook-cell").nth(number)
        self.outputs: Locator = self.box.locator(".jp-OutputArea-output")
        self.prompt: Locator = self.box.locator(".jp-InputPrompt")

    @property
    def text(self) -> str:
        """What its outputs show."""
        return "\n".join(self.outputs.all_inner_texts()).replace("\u2007", " ")  # tqdm's spaces, as wide as a digit

    @property
    def is_running(self) -> bool:
        return self.prompt.inner_text() == "[*]:"

    def shows(self, text: str) -> None:
        """Wait until an output contains `text`."""
        expect(self.outputs.filter(has_text=text).first).to_be_visible()

    def wait(self, seconds: float = PATIENCE) -> str:
        """Wait until it has run; return what its outputs show."""
        expect(self.prompt).not_to_have_text("[*]:", timeout=1000 * seconds)
        return self.text


class Lab:
    """A server, its page and the page's notebook.

    Args:
        page: the one page of the browser.
        url: the server's.
        folder: the notebook's own, where its kernel runs.

    Attributes:
        errors: what the browser's console reported.
    """

    def __init__(self, page: Page, url: str, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.errors: list[str] = []
        self._url = url
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def open(self, name: str = NOTEBOOK) -> None:
        """Open a notebook of the folder and wait for its kernel."""
        self.page.goto(f"{self._url}lab/tree/{name}?token={TOKEN}&reset")
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=1000 * PATIENCE)

    def start(self, code: str) -> Cell:
        """Type a new cell at the end and execute it; return at once."""
        count = self.page.locator(".jp-Notebook-cell").count()
        cell = Cell(self.page, count - 1)
        cell.box.locator(".cm-content").click()
        self.page.keyboard.insert_text(textwrap.dedent(code).strip())
        self.page.keyboard.press("Shift+Enter")  # also opens the next, empty cell
        expect(self.page.locator(".jp-Notebook-cell")).to_have_count(count + 1)
        expect(cell.prompt).not_to_have_text("[ ]:")
        return cell

    def run(self, code: str) -> str:
        """Execute a new cell that raises nothing, and return what its outputs show at the end."""
        cell = self.start(code)
        text = cell.wait()
        assert cell.box.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0, text
        return text

    def save(self) -> dict[str, Any]:
        """Click the toolbar's button that saves, and return the saved notebook."""
        path = self.folder / NOTEBOOK
        before = path.stat().st_mtime_ns
        self.page.locator('[data-command="docmanager:save"]').click()
        limit = time.monotonic() + PATIENCE
        while path.stat().st_mtime_ns == before and time.monotonic() < limit:
            self.page.wait_for_timeout(20)
        expect(self.page.locator(".jp-mod-dirty")).to_have_count(0)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def read_without_kernel(self, notebook: dict[str, Any]) -> None:
        """Open a saved notebook for reading: no kernel is started for it."""
        # Of a language that no kernel here knows, so that the page asks.
        notebook["metadata"] = {"kernelspec": {"name": "absent", "display_name": "Absent", "language": "absent"}}
        (self.folder / "read.ipynb").write_text(json.dumps(notebook))
        self.page.goto(f"{self._url}lab/tree/read.ipynb?token={TOKEN}&reset")
        self.page.get_by_role("dialog").get_by_role("button", name="No Kernel").click()
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text("No Kernel")

    def press_stop(self) -> None:
        """Click the toolbar's button that interrupts the kernel."""
        self.page.locator('[data-command="notebook:interrupt-kernel"]').click()


@contextlib.contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """Start a server and a browser with an empty notebook; at the end, end them and all that they started.

    Args:
        folder: an empty one, for all that they write.
    """
    files = folder / "files"
    files.mkdir()
    _write_notebook(files / NOTEBOOK)
    with _server(folder, files) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            folder / "profile", executable_path=CHROMIUM, headless=True, args=_FLAGS
        )
        with contextlib.closing(browser):
            lab = Lab(browser.pages[0], url, files)
            lab.page.set_default_timeout(1000 * PATIENCE)
            expect.set_options(1000 * PATIENCE)
            lab.open()
            yield lab


def _write_notebook(path: Path) -> None:
    cell = {"cell_type": "code", "id": "first", "source": "", "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))


@contextlib.contextmanager
def _server(folder: Path, files: Path) -> Iterator[str]:
    """Run a server over `files`; yield its address."""
    for name, values in _SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    runtime = folder / "runtime"
    variables = {
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        **ENVIRONMENT,
    }
    command = [sys.executable, "-m", "jupyterlab", *_SERVER, f"--ServerApp.root_dir={files}"]
    log = folder / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, env=os.environ | variables, stdout=stream, stderr=stream, cwd=files)
    try:
        yield _address(server, runtime, log)
    finally:
        below = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it ends its kernels, and they their workers
            server.wait(10)
        for process in psutil.wait_procs(below, timeout=2)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(below, timeout=2)
        server.kill()
        server.wait()


def _address(server: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError):  # written in this moment
                return str(json.loads(path.read_text())["url"])
        time.sleep(0.02)
    raise AssertionError(f"no JupyterLab here:\n{log.read_text()}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A notebook in a browser that the tests of a module share; in it, `folder` is a `pathlib.Path` of its own."""
    with open_lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.run("""
            import time
            from pathlib import Path
            import nbparallel
            from nbparallel import last_run, pmap
            nbparallel.configure(workers=2)
            folder = Path.cwd()
        """)
        yield lab
