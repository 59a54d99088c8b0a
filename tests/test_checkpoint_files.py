"""Checkpoint files: whose they are, what damage does, several notebooks at once, sudden deaths, full disks."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest

import nbparallel
from nbparallel.checkpoints import Checkpoint, folder, path_of, places, store, summaries, writer
from nbparallel.checkpoints.store import FORMAT, Store
from nbparallel.errors import CheckpointError

COUNT = 40
VERSION = b"v" * 20


def double(x: int) -> int:
    return 2 * x


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user of each test folders of his own; in them, no key and no checkpoint."""
    home = tmp_path / "home"
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(home / "config"))
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: str(home / "data"))
    return home


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of `COUNT` results, at rest."""
    path = tmp_path / "kept.sqlite"
    keep(path, {index: 2 * index for index in range(COUNT)})
    assert sorted(tmp_path.glob("kept*")) == [path]
    return path


def keep(path: Path, results: dict[int, Any]) -> list[str]:
    checkpoint = Checkpoint(path, double)
    known = checkpoint.known(0, range(max(results) + 1))
    for index, result in results.items():
        assert index not in known
        checkpoint.keep(index, result)
    checkpoint.close()
    return checkpoint.troubles


def known(path: Path, count: int = COUNT, **options: Any) -> dict[int, Any]:
    checkpoint = Checkpoint(path, double, **options)
    try:
        return checkpoint.known(0, range(count))
    finally:
        checkpoint.close()


def contents(path: Path) -> dict[str, bytes]:
    """Return a file and its write-ahead log."""
    found = {}
    for ending in ("", "-wal"):
        part = Path(f"{path}{ending}")
        if part.exists() and part.stat().st_size:
            found[ending] = part.read_bytes()
    return found


def refused(path: Path, match: str, **options: Any) -> CheckpointError:
    """Require that a file is refused, by name, and that not a byte of it is changed."""
    before = contents(path) if path.is_file() else {}
    with pytest.raises(CheckpointError, match=match) as caught:
        known(path, **options)
    assert isinstance(caught.value, OSError)
    assert str(path) in str(caught.value)
    assert before == (contents(path) if path.is_file() else {})
    return caught.value


# ---- whose it is --------------------------------------------------------------------------------------------------


def test_names_are_in_the_users_folder_and_all_else_is_a_path(
    own_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder() == own_folders / "data" / "checkpoints"
    assert path_of("a name") == folder() / "a name.sqlite"
    assert path_of("a.db") == tmp_path / "a.db"
    assert path_of("runs/a") == tmp_path / "runs" / "a"
    assert path_of(Path("a")) == tmp_path / "a"
    assert path_of("~/a") == Path.home() / "a"
    for wrong in (None, 1, b"a", True):
        with pytest.raises(TypeError, match="a name or a path"):
            path_of(wrong)  # type: ignore[arg-type]
    for empty in ("", "  "):
        with pytest.raises(ValueError, match="needs a name"):
            path_of(empty)
    assert not own_folders.exists()


def test_what_it_makes_is_readable_by_its_user_alone(own_folders: Path) -> None:
    assert keep(Path(path_of("mine")), {0: 0}) == []
    found = [path for path in own_folders.rglob("*") if path.is_file()]
    assert sorted(path.name for path in found) == ["checkpoint.key", "mine.sqlite"]
    if sys.platform != "win32":
        assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
        assert {stat.S_IMODE(path.parent.stat().st_mode) for path in found} == {0o700}


def test_there_is_one_key_however_many_ask_for_it_first() -> None:
    keys: list[bytes] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        keys.append(places.user_key())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32


def test_a_file_from_elsewhere_is_refused_before_anything_in_it_is_loaded(file: Path, own_folders: Path) -> None:
    (own_folders / "config" / "checkpoint.key").unlink()
    refused(file, "was not made by you.*trust=True")
    assert known(file, trust=True) == {index: 2 * index for index in range(COUNT)}


def test_a_result_from_elsewhere_is_not_loaded(file: Path, tmp_path: Path) -> None:
    """Whoever puts a pickle into a file of mine has not got my key."""
    proof = tmp_path / "it was run"

    class Evil:
        def __reduce__(self) -> Any:
            return (proof.touch, ())

    payload = pickle.dumps(Evil())
    with sqlite3.connect(file) as connection:
        for (key,) in connection.execute("SELECT key FROM kept").fetchall():
            row = (payload, store._checksum(key, payload), key)
            connection.execute("UPDATE kept SET payload = ?, checksum = ? WHERE key = ?", row)
    connection.close()
    refused(file, "were not written by you.*trust=True")
    assert not proof.exists()
    assert known(file, 1, trust=True) == {0: None}
    assert proof.exists()


def test_a_trusted_file_can_be_gone_on_with(file: Path, own_folders: Path) -> None:
    (own_folders / "config" / "checkpoint.key").unlink()
    checkpoint = Checkpoint(file, double, trust=True)
    assert len(checkpoint.known(0, range(COUNT + 1))) == COUNT
    checkpoint.keep(COUNT, 2 * COUNT)
    checkpoint.close()
    assert checkpoint.troubles == []
    assert known(file, COUNT + 1, trust=True)[COUNT] == 2 * COUNT


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_damaged_key_is_said(file: Path, own_folders: Path, size: int) -> None:
    (own_folders / "config" / "checkpoint.key").write_bytes(b"k" * size)
    with pytest.raises(CheckpointError, match=r"checkpoint\.key.* is damaged"):
        known(file)


# ---- what is no checkpoint, or a damaged one -----------------------------------------------------------------------


def test_other_files_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    for text in (
        b"",
        b"a",
        b"x,y\n1,2\n" * 1000,
        random.Random(1).randbytes(10_000),
        b"SQLite format 3\0" + b"z" * 5000,
    ):
        other.write_bytes(text)
        refused(other, "no checkpoint")
    other.unlink()
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    refused(other, "no checkpoint of nbparallel; it was left untouched")
    refused(tmp_path, "is not a file")
    missing = tmp_path / "file" / "below"
    missing.parent.write_text("")
    refused(missing, "can't be made")


def test_another_format_is_refused(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    refused(file, rf"another version of nbparallel \(format {FORMAT + 1}, not {FORMAT}\)")


def test_a_read_only_file_is_refused(file: Path) -> None:
    file.chmod(0o400)
    refused(file, "is read-only")
    file.chmod(0o600)
    assert len(known(file)) == COUNT


def test_a_file_that_was_cut_off_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for size in (50, 100, 512, 4096, len(whole) // 2, len(whole) - 4096):
        file.write_bytes(whole[:size])
        refused(file, "damaged|can't be used|no checkpoint")


@pytest.mark.timeout(900)  # of a storm
@pytest.mark.parametrize("trust", [False, True])
def test_a_flipped_bit_gives_an_error_or_right_results(file: Path, trust: bool, storm: int) -> None:
    whole = file.read_bytes()
    chance = random.Random(3)
    outcomes = {"refused": 0, "right": 0}
    for _ in range(60 * storm):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        try:
            found = known(file, trust=trust)
        except CheckpointError:
            outcomes["refused"] += 1
        else:
            assert found.items() <= {index: 2 * index for index in range(COUNT)}.items()
            outcomes["right"] += 1
        assert file.read_bytes() == damaged
    assert min(outcomes.values()) > 0


def with_log(file: Path, tmp_path: Path) -> Path:
    """Return the copy of a file that somebody has just added five results to: they are in its write-ahead log."""
    copy = tmp_path / "copy.sqlite"
    opened = Store(file)
    try:
        assert keep(file, {COUNT + index: 2 * (COUNT + index) for index in range(5)}) == []
        for ending in ("", "-wal"):
            Path(f"{copy}{ending}").write_bytes(Path(f"{file}{ending}").read_bytes())
    finally:
        opened.close()
    return copy


def test_results_in_the_log_are_found(file: Path, tmp_path: Path) -> None:
    assert len(known(with_log(file, tmp_path), COUNT + 5)) == COUNT + 5


def test_a_log_with_a_damaged_head_is_refused(file: Path, tmp_path: Path) -> None:
    copy = with_log(file, tmp_path)
    log = Path(f"{copy}-wal")
    head = log.read_bytes()
    for place in (0, 7, 12, 20, 30):
        damaged = bytearray(head)
        damaged[place] ^= 0x10
        log.write_bytes(damaged)
        assert "-wal is damaged" in str(refused(copy, "last results"))
    log.unlink()
    assert len(known(copy, COUNT + 5)) == COUNT


def test_a_log_that_is_cut_off_gives_what_comes_before(file: Path, tmp_path: Path) -> None:
    copy = with_log(file, tmp_path)
    log = Path(f"{copy}-wal")
    whole = {ending: Path(f"{copy}{ending}").read_bytes() for ending in ("", "-wal")}
    for size in (0, 20, 40, len(whole["-wal"]) // 2, len(whole["-wal"]) - 1):
        copy.write_bytes(whole[""])
        log.write_bytes(whole["-wal"][:size])
        found = known(copy, COUNT + 5)
        assert found == {index: 2 * index for index in range(len(found))}
        assert len(found) in (COUNT, COUNT + 5)


def test_a_log_whose_file_is_gone_does_not_get_into_a_new_one(file: Path, tmp_path: Path) -> None:
    copy = with_log(file, tmp_path)
    copy.unlink()
    with pytest.raises(CheckpointError, match=r"copy\.sqlite-wal is there, but its checkpoint .* is not"):
        known(copy)
    assert not copy.exists()


def test_a_definition_that_is_missing_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("class C: pass\ndef f(x): return C()", scope)
    first = Checkpoint(path, scope["f"])
    first.known(0, [1])
    first.keep(0, scope["C"]())
    first.close()
    assert first.troubles == []
    second = Checkpoint(path, scope["f"])  # `__main__` has no C of this kind
    found = second.known(0, [1])
    second.close()
    assert type(found[0]).__name__ == "C"
    with sqlite3.connect(path) as connection:
        assert connection.execute("DELETE FROM kept WHERE function IS NULL").rowcount == 1
    connection.close()
    third = Checkpoint(path, scope["f"])
    with pytest.raises(CheckpointError, match="lacks a definition"):
        third.known(0, [1])
    third.close()


# ---- writing ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_pickled_is_told_once_and_all_else_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    lock = threading.Lock()
    (trouble,) = keep(path, {0: 0, 1: lock, 2: 4, 3: lock, 4: 8})
    assert trouble.startswith("the result of task 1 can't be kept (TypeError: cannot pickle")
    assert trouble.endswith("; 1 more likewise")
    assert known(path) == {0: 0, 2: 4, 4: 8}


def test_an_input_that_cannot_be_pickled_is_told_and_its_task_never_known(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "kept.sqlite", double)
    assert checkpoint.known(0, [threading.Lock(), 1]) == {}
    checkpoint.keep(0, "lock")
    checkpoint.keep(1, 2)
    checkpoint.close()
    (trouble,) = checkpoint.troubles
    assert "task 0 can't be kept, because the input of its task can't be pickled" in trouble
    assert known(tmp_path / "kept.sqlite", 2) == {1: 2}


def test_a_result_that_cannot_be_loaded_any_more_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.sqlite"
    (tmp_path / "mm_passing.py").write_text("class C: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("mm_passing")
    assert keep(path, {0: module.C(), 1: 2}) == []
    monkeypatch.delitem(sys.modules, "mm_passing")
    (tmp_path / "mm_passing.py").unlink()
    checkpoint = Checkpoint(path, double)
    assert checkpoint.known(0, range(2)) == {1: 2}
    checkpoint.keep(0, 0)
    checkpoint.close()
    (trouble,) = checkpoint.troubles
    assert trouble.startswith("the result of task 0 was kept, but can't be loaded any more (ModuleNotFoundError")
    assert known(path) == {0: 0, 1: 2}


def test_a_full_disk_is_told_once_and_what_was_written_before_stays(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(Store):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            self._connection.execute(f"PRAGMA max_page_count = {pages + 8}")

    monkeypatch.setattr("nbparallel.checkpoints.checkpoint.Store", Small)
    monkeypatch.setattr(writer, "BATCH_BYTES", 10_000)
    checkpoint = Checkpoint(file, double)
    checkpoint.known(0, range(COUNT + 50))
    for index in range(COUNT, COUNT + 50):
        checkpoint.keep(index, bytes(5000))
    checkpoint.close()
    assert checkpoint.troubles == [
        f"results are not kept any more: the checkpoint {file} can't be used: database or disk is full"
    ]
    found = known(file, COUNT + 50)
    assert COUNT < len(found) < COUNT + 50
    assert all(value == (2 * index if index < COUNT else bytes(5000)) for index, value in found.items())


def test_a_file_that_another_holds_for_good_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.05)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    (trouble,) = keep(file, {COUNT: 1})
    assert "results are not kept any more" in trouble
    assert "locked" in trouble
    holder.execute("ROLLBACK")
    holder.close()
    assert len(known(file, COUNT + 1)) == COUNT


def test_many_results_are_written_in_few_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = Store.write

    def counted(self: Store, version: bytes, name: str, results: Any, definitions: Any = ()) -> None:
        results = list(results)
        sizes.append(len(results))
        write(self, version, name, results, definitions)

    monkeypatch.setattr(Store, "write", counted)
    assert keep(tmp_path / "kept.sqlite", dict.fromkeys(range(2000), 1)) == []
    assert sum(sizes) == 2000
    assert len(sizes) < 200
    monkeypatch.setattr(writer, "BATCH_BYTES", 1)  # large ones are not gathered
    assert keep(tmp_path / "large.sqlite", dict.fromkeys(range(5), 1)) == []
    assert sizes[-5:] == [1] * 5


def test_results_come_from_any_thread(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "kept.sqlite", double)
    checkpoint.known(0, range(800))

    def give(first: int) -> None:
        for index in range(first, first + 100):
            checkpoint.keep(index, 2 * index)

    threads = [threading.Thread(target=give, args=(first,)) for first in range(0, 800, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checkpoint.close()
    assert known(tmp_path / "kept.sqlite", 800) == {index: 2 * index for index in range(800)}


def test_a_result_after_the_end_is_no_error(file: Path) -> None:
    checkpoint = Checkpoint(file, double)
    checkpoint.known(0, range(COUNT + 2))
    checkpoint.keep(COUNT, 1)
    checkpoint.close()
    checkpoint.keep(COUNT + 1, 1)
    checkpoint.close()
    assert len(known(file, COUNT + 2)) == COUNT + 1


def test_a_checkpoint_that_nobody_closed_ends_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    checkpoint = Checkpoint(path, double)
    checkpoint.known(0, [0])
    checkpoint.keep(0, 5)
    thread = checkpoint._writer._thread
    assert thread is not None
    del checkpoint
    thread.join(20)
    assert not thread.is_alive()
    assert known(path, 1) == {0: 5}


# ---- several processes --------------------------------------------------------------------------------------------

_PRELUDE = """
import sys
import platformdirs
home = sys.argv[1]
platformdirs.user_config_dir = lambda *_, **__: home + "/config"
platformdirs.user_data_dir = lambda *_, **__: home + "/data"
from pathlib import Path
from nbparallel.checkpoints import Checkpoint
from nbparallel.checkpoints.store import Store
path = Path(sys.argv[2])
"""

_SHARED = """
def double(x): return 2 * x
double.__module__ = "nowhere"
mine = int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(8):
    checkpoint = Checkpoint(path, double)
    inputs = range(turn * 60, turn * 60 + 60)
    known = checkpoint.known(0, inputs)
    assert all(value == 2 * inputs[index] for index, value in known.items()), known
    for index, x in enumerate(inputs):
        if x % 3 in (mine, 2) and index not in known:  # some by one of us, some by both
            checkpoint.keep(index, 2 * x)
    checkpoint.close()
    assert checkpoint.troubles == [], checkpoint.troubles
print("done")
"""

_COUNTING = """
store = Store(path)
for number in range(int(sys.argv[3]), 1_000_000):
    store.write(b"v" * 20, "f", [(b"%d" % number, b"%d " % number * 5000)])
    print(number, flush=True)
"""


@pytest.fixture
def start(own_folders: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program with this user's folders."""
    made: list[subprocess.Popen[str]] = []

    def popen(program: str, *arguments: Any) -> subprocess.Popen[str]:
        root = str(Path(nbparallel.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-W", "error", "-c", _PRELUDE + program, str(own_folders), *map(str, arguments)]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        made.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return made[-1]

    yield popen
    for process in made:
        process.kill()
        process.communicate()


def test_two_notebooks_write_one_file_and_read_it_meanwhile(tmp_path: Path, start: Any) -> None:
    path = tmp_path / "new.sqlite"
    processes = [start(_SHARED, path, mine) for mine in (0, 1)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        shown, errors = process.communicate(timeout=50)
        assert (process.returncode, shown) == (0, "done\n"), errors
    (found,) = summaries(path)
    assert found.results == 480
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert sorted(tmp_path.glob("new*")) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
@pytest.mark.timeout(900)  # of a storm
def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_committed(
    tmp_path: Path, start: Any, storm: int
) -> None:
    path = tmp_path / "new.sqlite"
    chance = random.Random(5)
    committed = -1
    for _ in range(4 * storm):
        process = start(_COUNTING, path, committed + 1)
        wanted = committed + chance.randrange(5, 60)
        for line in process.stdout:
            committed = int(line)
            if committed >= wanted:
                process.send_signal(signal.SIGKILL)
        process.communicate()
        assert committed >= wanted
        opened = Store(path)
        for number in range(committed + 1):
            assert opened.read(b"%d" % number) == b"%d " % number * 5000
        # One more may have been committed whose report was lost.
        later = opened.read(b"%d" % (committed + 1))
        assert later in (None, b"%d " % (committed + 1) * 5000)
        opened.close()


_CELLS = """
import types
sys.modules["__main__"] = main = types.ModuleType("__main__")
main.Checkpoint, main.path, main.first = Checkpoint, path, int(sys.argv[3])
for number, cell in enumerate(sys.stdin.read().split("# cell")):
    exec(compile(cell, f"<cell {main.first + number}>", "exec", dont_inherit=True), vars(main))
"""

_NOTEBOOK = """
words = {"alpha", "beta", "gamma"}
# cell
class Word:
    def __init__(self, text): self.text = text
def f(x): return Word(x) if x in words or x in {"delta", "epsilon"} else None
# cell
checkpoint = Checkpoint(path, f)
inputs = ["alpha", {"a", "b", "c"} - {"c"}, ("delta", 1.5), Word("x"), "alpha"]
known = checkpoint.known(0, inputs)
for index, x in enumerate(inputs):
    if index not in known:
        checkpoint.keep(index, [Word(x)])
checkpoint.close()
assert checkpoint.troubles == []
print(len(known), all(type(one) is Word for one, in known.values()))
"""


def test_another_kernel_goes_on_where_one_has_ended(tmp_path: Path, start: Any) -> None:
    shown = []
    for first, text in ((1, _NOTEBOOK), (5, _NOTEBOOK), (9, _NOTEBOOK.replace('"epsilon"', '"eta"'))):
        process = start(_CELLS, tmp_path / "kept.sqlite", first)
        out, errors = process.communicate(text, timeout=50)
        assert process.returncode == 0, errors
        shown.append(out)
    assert shown == ["0 True\n", "5 True\n", "0 True\n"]


def test_the_end_of_the_process_waits_for_what_is_not_written_yet(tmp_path: Path, start: Any) -> None:
    path = tmp_path / "new.sqlite"
    program = """
from nbparallel.checkpoints import writer
writer.BATCH_SECONDS = 0.5
checkpoint = Checkpoint(path, abs)
checkpoint.known(0, range(100))
for index in range(100):
    checkpoint.keep(index, index)
"""
    process = start(program, path)
    _, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (0, "")
    (found,) = summaries(path)
    assert (found.function, found.results) == ("abs", 100)
