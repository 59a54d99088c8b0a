"""What a saved notebook shows: nothing in it needs a kernel or a widget, and another run of it shows the same."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import nbconvert
import nbformat
import pytest
from kernels import ENVIRONMENT
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

CELLS = [
    """
    import time
    import nbparallel
    from nbparallel import pmap

    def inverse(x):
        time.sleep(0.05)
        return round(1 / x, 3)

    settings = nbparallel.configure(workers=2)
    """,
    # This one's bar appears by itself, unless the run is just too short for it; the other's at once.
    "pmap(inverse, range(1, 21), chunksize=1, label='twenty')[:2]",
    "x = pmap(inverse, range(4), chunksize=1, label='four', progress=True, on_error='return')",
    "nbparallel.last_run()",
    "nbparallel.last_run().timeline()",
    "run = nbparallel.pmap_async(inverse, range(1, 7), chunksize=1, label='six')\nrun",
    "run.result()[:2]",
]
SECONDS = re.compile(r" in [\d.]+ (ms|s)")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that nbclient has executed and saved."""
    path = tmp_path_factory.mktemp("saved") / "bars.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(dedent(cell).strip()) for cell in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        NotebookClient(notebook, kernel_name="python3", timeout=50).execute(cwd=str(path.parent))
    nbformat.write(notebook, path)
    return path


def test_its_outputs_are_text(saved: Path) -> None:
    cells = nbformat.read(saved, as_version=4).cells
    shown = [[output.data for output in cell.outputs] for cell in cells[:3]]
    assert {kind for outputs in shown for data in outputs for kind in data} == {"text/plain"}
    texts = [[SECONDS.sub("", data["text/plain"]) for data in outputs] for outputs in shown]
    assert texts == [
        [],
        ["twenty: 20 tasks on 2 workers", "20 ok", "[1.0, 0.5]"],
        ["four: 4 tasks on 2 workers", "3 ok, 1 failed"],
    ]


def test_a_run_and_its_timeline_are_in_it(saved: Path) -> None:
    run, figure = (cell.outputs[0].data for cell in nbformat.read(saved, as_version=4).cells[3:5])
    assert sorted(run) == ["text/html", "text/plain"]
    assert "four: 3 ok, 1 failed" in run["text/html"]
    assert sorted(figure) == ["image/png", "text/plain"]
    page, _ = nbconvert.HTMLExporter().from_filename(str(saved))
    assert "worker 2</div>" in page
    assert f"data:image/png;base64,{figure['image/png'][:40]}" in page


def test_a_run_in_the_background_shows_its_end_in_the_cell_that_has_displayed_it(saved: Path) -> None:
    displayed, waited = nbformat.read(saved, as_version=4).cells[5:]
    (output,) = displayed.outputs
    assert sorted(output.data) == ["text/html", "text/plain"]
    assert SECONDS.sub("", output.data["text/plain"]) == "<Run six: done, 6 ok>"
    assert "six: 6 ok in" in output.data["text/html"]
    assert [output.data["text/plain"] for output in waited.outputs] == ["[1.0, 0.5]"]


def test_it_reads_right_as_a_page_and_as_markdown(saved: Path) -> None:
    page, _ = nbconvert.HTMLExporter().from_filename(str(saved))
    visible = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)
    text, _ = nbconvert.MarkdownExporter().from_filename(str(saved))
    for shown in (visible, text):
        lines = [SECONDS.sub("", line.strip()) for line in shown.splitlines()]
        for line in ("twenty: 20 tasks on 2 workers", "20 ok", "four: 4 tasks on 2 workers", "3 ok, 1 failed"):
            assert lines.count(line) == 1
        assert "%|" not in shown
    assert 'data-mime-type="application/vnd.jupyter.widget-view+json"' not in page


def test_it_is_the_same_when_nbval_runs_it_again(saved: Path) -> None:
    (saved.parent / "pytest.ini").write_text("[pytest]\n")
    options = ["--nbval", "--nbval-current-env", "-p", "nbparallel.nbval", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(saved)],
        env={**os.environ, **ENVIRONMENT},
        cwd=saved.parent,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert "7 passed" in done.stdout, done.stdout


@pytest.mark.skipif(importlib.util.find_spec("papermill") is None, reason="needs papermill")
def test_papermill_saves_what_workers_print_and_write_in_the_calling_cell(tmp_path: Path) -> None:
    setup = """
        import os, subprocess
        import nbparallel
        from nbparallel import pmap, pmap_async

        settings = nbparallel.configure(workers=2, progress=False)

        def talks(x):
            print("printed", x)
            os.write(1, f"written {x}\\n".encode())
            subprocess.run(["echo", f"by a program {x}"], check=True)
            os.write(2, f"on stderr {x}\\n".encode())
            return x
    """
    sources = [setup, "pmap(talks, range(first))", "print('between')", "pmap_async(talks, range(4, 6)).result()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(dedent(each).strip()) for each in sources])
    notebook.cells.insert(0, nbformat.v4.new_code_cell("first = 1", metadata={"tags": ["parameters"]}))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "before.ipynb")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-p", "first", "3"]
    done = subprocess.run(
        [*command, "before.ipynb", "after.ipynb"],
        env={**os.environ, **ENVIRONMENT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr

    def shown(cell: nbformat.NotebookNode, stream: str) -> list[str]:
        return sorted("".join(each.text for each in cell.outputs if each.get("name") == stream).splitlines())

    _, _, _, called, between, waited = nbformat.read(tmp_path / "after.ipynb", as_version=4).cells
    for cell, tasks in ((called, range(3)), (waited, range(4, 6))):
        assert shown(cell, "stdout") == sorted(
            f"{how} {x}" for how in ("printed", "written", "by a program") for x in tasks
        )
        assert shown(cell, "stderr") == [f"on stderr {x}" for x in tasks]
        assert cell.outputs[-1].data["text/plain"] == repr(list(tasks))
    assert shown(between, "stdout") == ["between"]
    assert len(between.outputs) == 1
