"""Stop, and the kernel's end: a real signal to a real kernel's process group.

An interrupted map keeps what is finished, ends its workers, and leaves the next map a working notebook.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
from kernels import METHODS, Kernel, kernel

__all__ = ["kernel"]

# Task 0 returns, the others say that they have begun and sleep, and that they have ended, if they can. Once there is a
# file "awake", they return too.
SLEEPS = """
    def sleeps(x):
        if x == 0:
            (folder / "calls of 0").open("a").write("called ")
            return "finished"
        if (folder / "awake").exists():
            return x
        (folder / f"begun {os.getpid()} {x}").touch()
        try:
            time.sleep(1000)
        finally:
            (folder / f"ended {os.getpid()} {x}").touch()

    for left in folder.iterdir():
        left.unlink()
"""


def interrupt(kernel: Kernel, call: str, begun: int = 2) -> list[str]:
    """Send a cell, press Stop once `begun` of its tasks sleep, and return which they are."""
    kernel.run(SLEEPS)
    return press_stop(kernel, call, begun)


def press_stop(kernel: Kernel, call: str, begun: int) -> list[str]:
    cell = kernel.send(call)
    assert kernel.receive(lambda: len(tasks(kernel, "begun")) >= begun)
    found = tasks(kernel, "begun")
    kernel.interrupt()
    output = kernel.wait(cell, fails=True)
    assert output.error is not None
    assert output.error.name == "KeyboardInterrupt"
    return found


def tasks(kernel: Kernel, state: str) -> list[str]:
    """Return the processes and numbers of the tasks that have begun, or ended."""
    return sorted(file.name.removeprefix(f"{state} ") for file in kernel.folder.glob(f"{state} *"))


def are_over(kernel: Kernel, begun: list[str]) -> bool:
    """Wait until each of the tasks has ended, or its process is gone."""

    def over() -> bool:
        ended = tasks(kernel, "ended")
        return all(task in ended or not psutil.pid_exists(int(task.split()[0])) for task in begun)

    return kernel.receive(over, timeout=10)


@pytest.mark.parametrize("options", ["", ", progress=True", ", ordered=False"])
def test_an_interrupted_map_keeps_what_is_finished(kernel: Kernel, options: str) -> None:
    begun = interrupt(kernel, f"pmap(sleeps, range(6), chunksize=1{options})")
    assert are_over(kernel, begun)
    assert (
        kernel.run("last_run().results[0], last_run().completed, last_run().cancelled").result
        == "('finished', 1, True)"
    )
    assert kernel.run("pmap(abs, [-1, -2, -3])").result == "[1, 2, 3]"


@pytest.mark.parametrize("inputs", ["range(6)", "(x for x in range(6))"])
def test_an_interrupted_map_is_resumed(kernel: Kernel, inputs: str) -> None:
    interrupt(kernel, f"pmap(sleeps, {inputs}, chunksize=1)")
    for left in kernel.folder.glob("begun *"):
        left.unlink()
    press_stop(kernel, "last_run().resume()", begun=2)
    (kernel.folder / "awake").touch()
    assert kernel.run("last_run().resume()").result == "['finished', 1, 2, 3, 4, 5]"
    assert kernel.run("(folder / 'calls of 0').read_text()").result == "'called '"


def test_an_interrupted_map_over_a_generator(kernel: Kernel) -> None:
    begun = interrupt(kernel, "pmap(sleeps, iter(range(6)), chunksize=1)")
    assert are_over(kernel, begun)
    assert kernel.run("last_run().results[0]").result == "'finished'"
    assert kernel.run("pmap(abs, iter([-1, -2]))").result == "[1, 2]"


def test_waiting_can_be_interrupted_while_the_run_goes_on(kernel: Kernel) -> None:
    begun = interrupt(kernel, "run = pmap_async(sleeps, range(3), chunksize=1); run.result()")
    assert kernel.run("run.done, run.cancel(), run.wait(), run.done").result == "(False, True, None, True)"
    assert are_over(kernel, begun)


def test_a_pool_is_usable_after_an_interrupt(kernel: Kernel) -> None:
    kernel.run("pool = Pool(2)")
    begun = interrupt(kernel, "pool.map(sleeps, range(4), chunksize=1)")
    assert are_over(kernel, begun)
    assert kernel.run("pool.map(abs, [-1, -2])").result == "[1, 2]"
    interrupt(kernel, "pool.apply(sleeps, (1,))", begun=1)
    kernel.run("pool.terminate(); pool.join()")


def test_an_executor_is_usable_after_an_interrupt(kernel: Kernel) -> None:
    kernel.run("executor = Executor(2)")
    interrupt(kernel, "executor.submit(sleeps, 1).result()", begun=1)
    assert kernel.run("executor.submit(abs, -1).result()").result == "1"
    kernel.run("executor._backend.shutdown(abort=True); executor.shutdown()")


def test_an_executor_in_a_with_statement_ends_with_its_cell(kernel: Kernel) -> None:
    begun = interrupt(
        kernel,
        """
        with Executor(2) as executor:
            futures = [executor.submit(sleeps, x) for x in range(1, 5)]
            [future.result() for future in futures]
        """,
    )
    assert are_over(kernel, begun)
    assert kernel.run("all(future.done() for future in futures)").result == "True"
    assert tasks(kernel, "begun") == begun  # those that waited were not begun


@pytest.mark.parametrize("backend", ["pathos", "serial"])
def test_other_backends_are_interrupted_too(kernel: Kernel, backend: str) -> None:
    interrupt(kernel, f"pmap(sleeps, range(6), chunksize=1, backend={backend!r})", begun=1)
    assert kernel.run("last_run().results[0]").result == "'finished'"
    assert kernel.run(f"pmap(abs, [-1, -2, -3], backend={backend!r})").result == "[1, 2, 3]"


def test_threads_let_the_cell_go_though_a_thread_can_not_be_ended(kernel: Kernel) -> None:
    kernel.run("""
        import threading

        release = threading.Event()

        def waits(x):
            if x:
                (folder / f"begun {os.getpid()} {x}").touch()
                release.wait()
            return x

        for left in folder.glob("begun *"):
            left.unlink()
    """)
    cell = kernel.send("pmap(waits, range(6), chunksize=1, backend='threads')")
    assert kernel.receive(lambda: len(list(kernel.folder.glob("begun *"))) >= 2)
    kernel.interrupt()
    output = kernel.wait(cell, fails=True)
    assert output.error is not None
    assert output.error.name == "KeyboardInterrupt"
    kernel.run("release.set()")
    assert kernel.run("pmap(abs, [-1, -2, -3], backend='threads')").result == "[1, 2, 3]"


def test_an_idle_notebook_is_not_disturbed_by_an_interrupt(kernel: Kernel) -> None:
    kernel.run("before = pmap(lambda _: os.getpid(), [0], workers=1)")
    cell = kernel.send("(folder / 'sleeping').touch(); time.sleep(1000)")
    assert kernel.receive((kernel.folder / "sleeping").exists)
    kernel.interrupt()
    kernel.wait(cell, fails=True)
    assert kernel.run("pmap(lambda _: os.getpid(), [0], workers=1) == before").result == "True"
    kernel.run("(folder / 'sleeping').unlink()")


@pytest.mark.parametrize("end", ["kill", "shutdown", "restart"])
@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_that_ends_in_the_middle_of_a_map_leaves_nothing(
    method: str, end: str, tmp_path: Path, leaves_nothing_behind: Any
) -> None:
    begun, temporary = tmp_path / "begun", tmp_path / "temporary"
    begun.mkdir()
    temporary.mkdir()
    with Kernel({"START_METHOD": method, "TMPDIR": str(temporary)}) as kernel:
        kernel.run(f"""
            import os, time, nbparallel
            from pathlib import Path
            nbparallel.configure(workers=2, start_method={method!r})
            begun = Path({str(begun)!r})
            def sleeps(x):
                (begun / str(os.getpid())).touch()
                time.sleep(1000)
            nbparallel.pmap(abs, [1, 2], backend="pathos")
            nbparallel.pmap_async(sleeps, range(2), chunksize=1, backend="pathos")
        """)
        kernel.send("nbparallel.pmap(sleeps, range(2), chunksize=1)")
        assert kernel.receive(lambda: len(list(begun.iterdir())) == 4)
        below = psutil.Process(kernel.pid).children(recursive=True)
        assert len(below) >= 4
        if end == "kill":
            kernel.kill()
        else:
            kernel.manager.shutdown_wait_time = 1.0  # the kernel is busy, and has to be killed in the end
            kernel.manager.shutdown_kernel(restart=end == "restart")
        _, alive = psutil.wait_procs(below, timeout=10)
        assert not alive
        assert list(temporary.iterdir()) == []
        leaves_nothing_behind.require("name")
