"""The command: what it prints, what it answers, and what `demo` makes of a notebook."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import platformdirs
import psutil
import pytest

import nbparallel
from nbparallel import cli
from nbparallel.checkpoints import Checkpoint, path_of
from nbparallel.checkpoints.listing import age_of, named

ROOT = Path(nbparallel.__file__).parents[1]
PATIENCE = 10.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from nbparallel.cli import main; sys.exit(main())", *arguments]


def demo(notebook: Path, folder: Path) -> list[str]:
    code = "import sys, pathlib; from nbparallel.cli import demo; sys.exit(demo(*map(pathlib.Path, sys.argv[1:])))"
    return [sys.executable, "-c", code, str(notebook), str(folder)]


def options(**more: Any) -> dict[str, Any]:
    """Return what each subprocess gets: this very package, for its kernel too, and text."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"env": {**os.environ, "PYTHONPATH": path}, "text": True, "encoding": "utf-8", **more}


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, **options(capture_output=True, timeout=50))


@pytest.fixture
def notebook(tmp_path: Path) -> Any:
    """Write a notebook of some cells; the last, if given, prints its answers."""

    def write(*cells: str, answers: dict[str, Any] | None = None, text: str = "# A title") -> Path:
        made = [nbformat.v4.new_markdown_cell(text), *map(nbformat.v4.new_code_cell, cells)]
        if answers is not None:
            made[-1].metadata["answers"] = answers
        path = tmp_path / "tiny.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


def test_version_is_the_packages() -> None:
    done = run(command("--version"))
    assert (done.returncode, done.stdout) == (0, f"nbparallel {nbparallel.__version__}\n")


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["-h"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name in ("demo", "info", "checkpoints"):
        assert name in shown


def test_info_prints_the_resources(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out.splitlines()
    # The figures of memory change from moment to moment; the cores and the words don't.
    assert shown[0] == repr(nbparallel.resources()).splitlines()[0]
    assert [line.split("  ")[0] for line in shown] == ["cores", "memory", "shared memory"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["info", "more"], "unrecognized arguments: more"),
        (["demo", "--output"], "argument --output: expected one argument"),
        (["checkpoints", "dance"], "invalid choice: 'dance'"),
        (["checkpoints", "remove"], "give the names of checkpoints, or --all"),
        (["checkpoints", "remove", "a", "--all"], "give the names of checkpoints, or --all"),
    ],
)
def test_wrong_arguments_are_said_in_a_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("nbparallel")
    assert said in last


class TestCheckpoints:
    @pytest.fixture(autouse=True)
    def own_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(tmp_path / "config"))
        monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: str(tmp_path / "data"))

    @staticmethod
    def keep(name: str | Path, function: Any, results: list[Any]) -> Path:
        checkpoint = Checkpoint(name, function)
        checkpoint.known(0, results)
        for index, result in enumerate(results):
            checkpoint.keep(index, result)
        checkpoint.close()
        assert checkpoint.troubles == []
        return checkpoint.path

    def test_none_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["checkpoints"]) == 0
        assert capsys.readouterr().out == f"There are no checkpoints in {tmp_path / 'data' / 'checkpoints'}.\n"
        assert cli.main(["checkpoints", "remove", "--all"]) == 0
        assert list(tmp_path.iterdir()) == []

    def test_they_are_listed_by_name_and_function(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.keep("survey", abs, list(range(1200)))
        self.keep("survey", len, ["a" * 3_000_000])
        self.keep("empty one", abs, [])
        path = self.keep(tmp_path / "elsewhere.sqlite", abs, [1])
        assert cli.main(["checkpoints"]) == 0
        lines = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == ["NAME", "FUNCTION", "RESULTS", "SIZE", "WRITTEN"]
        assert lines[1:3] == [
            ["empty one", "–", "0", "0 KiB", "never"],
            ["survey", "abs", "1,200", lines[2][3], "just now"],
        ]
        assert re.fullmatch(r"\d+ KiB", lines[2][3])
        assert lines[3:] == [["survey", "len", "1", "3 MiB", "just now"]]
        assert cli.main(["checkpoints", "list", str(path), "empty one"]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in shown[1:]] == [str(path), "empty"]

    def test_those_that_are_removed_are_gone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.keep(tmp_path / "elsewhere.sqlite", abs, [1])
        for name in "abc":
            self.keep(name, abs, [1])
        assert cli.main(["checkpoints", "remove", "b", str(path)]) == 0
        assert capsys.readouterr().out == f"removed b\nremoved {path}\n"
        assert named() == ["a", "c"]
        assert not path.exists()
        path_of("c").write_text("damaged")
        assert cli.main(["checkpoints", "remove", "--all"]) == 0
        assert list(path_of("c").parent.iterdir()) == []

    def test_what_goes_wrong_is_said_in_words_and_the_rest_done(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.keep("good", abs, [1])
        self.keep("bad", abs, [1]).write_bytes(b"garbage" * 1000)
        mine = tmp_path / "thesis.db"
        mine.write_bytes(b"important" * 1000)
        assert cli.main(["checkpoints"]) == 1
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == 2
        assert shown.err.startswith(f"nbparallel: {path_of('bad')} is damaged, or no checkpoint: ")
        for action in ("list", "remove"):
            assert cli.main(["checkpoints", action, "none", str(mine), " ", str(tmp_path)]) == 1
            shown = capsys.readouterr()
            assert shown.out == ""
            assert [line.partition("nbparallel: ")[0] for line in shown.err.splitlines()] == [""] * 4
            assert f"there is no checkpoint {path_of('none')}" in shown.err
            assert f"{mine} is damaged, or no checkpoint" in shown.err
            assert f"{tmp_path} is not a file" in shown.err
        assert mine.read_bytes() == b"important" * 1000
        assert cli.main(["checkpoints", "remove", "none", "good"]) == 1
        assert capsys.readouterr().out == "removed good\n"

    def test_one_that_is_in_use_is_not_removed(self, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.keep("used", abs, [1])
        checkpoint = Checkpoint("used", abs)
        checkpoint.known(0, [1])
        assert cli.main(["checkpoints", "remove", "used"]) == 1
        assert capsys.readouterr().err == f"nbparallel: the checkpoint {path} is in use, and was not removed\n"
        assert checkpoint.known(1, [2]) == {}
        checkpoint.keep(1, 2)
        checkpoint.close()
        assert checkpoint.troubles == []
        assert cli.main(["checkpoints", "remove", "used"]) == 0
        assert not path.exists()

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0, "just now"), (59, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (90_000, "1 day ago")],
    )
    def test_ages_are_in_words(self, seconds: float, said: str) -> None:
        assert age_of(seconds) == said


def test_an_output_folder_that_is_a_file_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    monkeypatch.setattr(cli, "demo", lambda *_: pytest.fail("the demo was started"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--output", str(taken)])
    assert stop.value.code == 2
    assert "argument --output" in capsys.readouterr().err
    assert taken.read_text() == "mine"


def test_demo_runs_the_quickstart_into_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(cli, "demo", lambda *given: asked.append(given) or 0)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "--output", "a/b"]) == 0
    quickstart = ROOT / "notebooks" / "quickstart.ipynb"
    assert asked == [(quickstart, Path("nbparallel-demo")), (quickstart, Path("a/b"))]
    assert quickstart.is_file()
    assert Path("a/b").is_dir()


def test_an_installed_package_has_its_notebooks_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "nbparallel"
    monkeypatch.setattr(cli, "__file__", str(package / "cli.py"))
    assert cli.find_notebooks() == tmp_path / "notebooks"
    (package / "_notebooks").mkdir(parents=True)
    assert cli.find_notebooks() == package / "_notebooks"


@pytest.mark.slow
def test_a_good_notebook_is_shown_saved_and_answered_by_0(notebook: Any, folder: Path) -> None:
    source = notebook(
        "import json\nfrom nbparallel import pmap\n\n\ndef double(x):\n    print('at', x)\n    return 2 * x",
        "found = pmap(double, [1, 2], workers=1)\nfound",
        "from IPython.display import HTML\nHTML('<b>bold</b>')",
        "print(json.dumps({'found': found, 'big': str(10**30)}))",
        answers={"found": [2, 4], "big": "1" + "0" * 30},
        text="## Doubling\n\nText that is not shown.",
    )
    before = source.read_bytes()
    done = run(demo(source, folder))
    assert done.returncode == 0, done.stderr
    assert source.read_bytes() == before

    shown = done.stdout
    assert "\nDoubling\n--------\nIn [1]: import json\n" in shown
    assert "In [2]: found = pmap(double, [1, 2], workers=1)\n   ...: found\nat 1\nat 2\nOut[2]: [2, 4]\n" in shown
    assert "not shown" not in shown
    assert shown.endswith("Every cell ran, and all 2 answers are right.\n")

    saved, page = folder / "tiny.ipynb", folder / "tiny.html"
    assert f"notebook  {saved}\npage      {page.as_uri()}\n" in shown
    cells = nbformat.read(saved, as_version=4).cells
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3, 4]
    assert cells[2].outputs[-1].data["text/plain"] == "[2, 4]"
    text = page.read_text(encoding="utf-8")
    assert "<b>bold</b>" in text
    # What the page loads is in the page.
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=|@import|url\(\s*['\"]?https?:", text)


@pytest.mark.slow
def test_a_failing_cell_ends_it_and_is_said(notebook: Any, folder: Path) -> None:
    source = notebook("print('before')", "1 / 0", "print('never')", answers={})
    done = run(demo(source, folder))
    assert done.returncode == 1
    assert "before" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    assert "never" not in done.stdout
    assert done.stderr == "FAILED: a cell raised ZeroDivisionError: division by zero\n"
    outputs = [cell.outputs for cell in nbformat.read(folder / "tiny.ipynb", as_version=4).cells[1:]]
    assert [len(each) for each in outputs] == [1, 1, 0]
    assert outputs[1][0].ename == "ZeroDivisionError"


@pytest.mark.slow
def test_a_kernel_that_dies_is_said(notebook: Any, folder: Path) -> None:
    done = run(demo(notebook("import os\nos._exit(3)", answers={}), folder))
    assert done.returncode == 1
    assert done.stderr.endswith("FAILED: Kernel died\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ('{"pi": 3.2, "e": 2.7}', "wrong answer: pi is 3.2, but should be 3.1"),
        ('{"e": 2.7}', "wrong answer: pi is missing"),
        ("3.1", "the answers could not be read: '3.1\\n'"),
    ],
)
def test_a_wrong_answer_is_said_in_words(printed: str, said: str, notebook: Any, folder: Path) -> None:
    done = run(demo(notebook(f"print({printed!r})", answers={"pi": 3.1, "e": 2.7}), folder))
    assert done.returncode == 1
    assert done.stderr == f"FAILED: {said}\n"
    assert "answers are right" not in done.stdout


@pytest.mark.slow
def test_a_notebook_without_answers_does_not_pass(notebook: Any, folder: Path) -> None:
    done = run(demo(notebook("1 + 1"), folder))
    assert done.returncode == 1
    assert done.stderr == "FAILED: the notebook records no answers to check\n"


@pytest.mark.slow
def test_output_appears_while_the_cell_still_runs(notebook: Any, folder: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waits = (
        "import os, time\nprint('waiting')\nlimit = time.monotonic() + 40\n"
        f"while not os.path.exists({str(gate)!r}):\n    assert time.monotonic() < limit\n    time.sleep(0.01)\n"
        "print('done')"
    )
    source = notebook(waits, "print('{}')", answers={})
    with subprocess.Popen(demo(source, folder), **options(stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "waiting\n":
                gate.touch()  # the cell can't end before this
                break
        rest = process.stdout.read()
    assert process.returncode == 0
    assert rest.startswith("done\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_ends_the_kernel_and_its_workers(notebook: Any, folder: Path) -> None:
    works = (
        "import os, time\nfrom nbparallel import pmap, pmap_async\nfrom nbparallel.notebook.workers import warm_pids\n"
        "pmap(abs, [1, 2], workers=2)\nrun = pmap_async(time.sleep, [60, 60], workers=2)\n"
        "print('pids', os.getpid(), *warm_pids())\nrun.result()"
    )
    pids: list[int] = []
    wanted = options(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(demo(notebook(works, answers={}), folder), **wanted) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("pids "):
                pids = [int(pid) for pid in line.split()[1:]]
                break
        found = [psutil.Process(pid) for pid in pids]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=50)
    assert process.returncode == cli.INTERRUPTED, errors
    assert errors.endswith("interrupted: the kernel and its workers are stopped\n")
    assert "Traceback" not in errors
    assert len(found) >= 2
    _, alive = psutil.wait_procs(found, timeout=PATIENCE)
    assert alive == []


def test_the_quickstart_records_its_answers() -> None:
    """The recorded answers are those of the seeds, and those that its stored run printed."""
    cells = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4).cells
    answered = cells[-1]
    answers = answered.metadata["answers"]
    assert json.loads(answered.outputs[0].text) == answers
    assert answers["two jobs"] == ["2499999833333358333330000000"] * 2
    assert answers["digits"] == [236125, 294538, 337000, 370393, 397922, 421345, 441729, 459774, 475963, 490642]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
