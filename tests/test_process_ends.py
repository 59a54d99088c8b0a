"""The end of processes of `nbparallel.multiprocessing`: with their kernel, however it ends, or with their script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kernels import CELL_TIMEOUT, METHODS, Kernel


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Make a folder whose name is short: the path of a socket may have a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="ends-", dir="/tmp" if os.name == "posix" else None) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "kill the kernel alone", "shutdown", "restart"])
@pytest.mark.parametrize("method", METHODS)
def test_no_process_and_no_name_outlives_the_kernel(method: str, end: str, tmp_path: Path, temporary: Path) -> None:
    with Kernel({"START_METHOD": method, "TMPDIR": str(temporary)}, tmp_path) as kernel:
        output = kernel.run(f"""
            import os, time
            from pathlib import Path
            from nbparallel import configure, multiprocessing
            from nbparallel.multiprocessing.shared_memory import SharedMemory
            configure(start_method={method!r}, workers=2)

            def live(folder, shared, lock, entries):
                with lock:
                    entries.append(os.getpid())
                (folder / f"lives {{os.getpid()}}").touch()
                child = multiprocessing.Process(target=outlive, args=(folder,))
                child.start()
                child.join()

            def outlive(folder):
                (folder / f"lives {{os.getpid()}}").touch()
                while True:
                    time.sleep(1)

            manager = multiprocessing.Manager()
            shared, lock, queue = multiprocessing.Array("i", 10), multiprocessing.Lock(), multiprocessing.Queue()
            entries = manager.list()
            processes = [multiprocessing.Process(target=live, args=(Path({str(tmp_path)!r}), shared, lock, entries))
                         for _ in range(2)]
            for each in processes: each.start()
            print(SharedMemory(create=True, size=1).name)
        """)
        name = Path("/dev/shm", output.stdout.strip())
        assert name.exists() or sys.platform != "linux"
        assert kernel.receive(lambda: len(list(tmp_path.glob("lives *"))) == 4)
        children = psutil.Process(kernel.pid).children(recursive=True)
        if end == "kill":
            kernel.kill()  # the whole group
        elif end == "kill the kernel alone":
            os.kill(kernel.pid, signal.SIGKILL)
        elif end == "restart":
            kernel.manager.restart_kernel()
        else:
            kernel.manager.shutdown_kernel()
        _, alive = psutil.wait_procs(children, timeout=CELL_TIMEOUT)
        assert not alive  # nor is the standard module's resource tracker, which has removed the name
        assert not name.exists()
        if end in ("restart", "shutdown"):  # the kernel came to its own end, though a child ignores a polite signal
            assert not list(temporary.glob("pymp-*"))


def test_a_script_waits_for_its_processes_and_ends_its_daemons(tmp_path: Path, start_method: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import time
from nbparallel import configure
from nbparallel.multiprocessing import Event, Process

configure(start_method={start_method!r})
event = Event()

def wait_for_it():
    event.wait()
    print("waited for", flush=True)

Process(target=wait_for_it).start()
Process(target=time.sleep, args=(1000,), daemon=True).start()
event.set()
print("end of the script\\n", end="")  # in one piece: `print` writes the end of a line apart
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=CELL_TIMEOUT)
    assert sorted(done.stdout.splitlines()) == ["end of the script", "waited for"]
    assert (done.stderr, done.returncode) == ("", 0)
