"""What workers print is shown by the cell that called, once, in whole lines; and nothing else is shown.

In a real kernel: a message belongs to the cell that is its parent.
"""

from __future__ import annotations

import pytest
from kernels import Kernel, kernel

__all__ = ["kernel"]

TALKS = """
    import logging, sys, warnings

    logging.basicConfig(level=logging.INFO, force=True)

    def {name}(x):
        print("printed", x)
        print("on stderr", x, file=sys.stderr)
        print("begun", end=" ")
        print("and ended", x, end="")  # the line ends with the task
        return x
"""
CALLS = {
    "pmap": "pmap({name}, range(6), chunksize=2)",
    "pmap of a generator": "pmap({name}, iter(range(6)))",
    "pmap_async": "pmap_async({name}, range(6)).result()",
    "the run's iterator": "list(pmap_async({name}, range(6)))",
    "Pool.map": "Pool(2).map({name}, range(6))",
    "Pool.imap": "list(Pool(2).imap({name}, range(6)))",
    "Pool.apply": "p = Pool(1); [p.apply({name}, (x,)) for x in range(6)]",
    "Executor.map": "e = Executor(2); list(e.map({name}, range(6)))",
    "Executor.submit": "e = Executor(2); [f.result() for f in [e.submit({name}, x) for x in range(6)]]",
    "pathos": "pmap({name}, range(6), backend='pathos')",
}


def sorted_lines(text: str) -> list[str]:
    return sorted(text.splitlines())


@pytest.mark.parametrize("call", CALLS)
def test_prints_reach_the_calling_cell_once_in_whole_lines(kernel: Kernel, call: str) -> None:
    kernel.run(TALKS.format(name="talks"))
    output = kernel.run(CALLS[call].format(name="talks") + "; 0")
    # As in a cell, what follows a line that was not ended stands on the same line.
    assert [output.stdout.count(f"printed {x}\n") for x in range(6)] == [1] * 6
    assert [output.stdout.count(f"begun and ended {x}") for x in range(6)] == [1] * 6
    assert len(output.stdout) == 6 * len("printed 0\nbegun and ended 0")
    assert sorted_lines(output.stderr) == [f"on stderr {x}" for x in range(6)]
    kernel.run("del talks")


def test_warnings_and_logging_are_shown(kernel: Kernel) -> None:
    kernel.run("""
        import logging, warnings

        def careful(x):
            warnings.warn(f"be careful with {x}")
            logging.getLogger("tasks").warning("task %s is logged", x)
            return x
    """)
    output = kernel.run("pmap(careful, range(3))")
    assert output.result == "[0, 1, 2]"
    for x in range(3):
        assert output.stderr.count(f"UserWarning: be careful with {x}\n") == 1
        assert output.stderr.count(f"task {x} is logged\n") == 1
    assert output.stdout == ""


def test_output_of_a_background_run_belongs_to_the_cell_that_started_it(kernel: Kernel) -> None:
    kernel.run("""
        def announces(x):
            while not (folder / "go").exists():
                time.sleep(0.002)
            print("announced", x)
            return x
    """)
    started = kernel.send("background = pmap_async(announces, range(4))")
    kernel.wait(started)
    assert kernel.shown_by(started).stdout == ""
    other = kernel.run("(folder / 'go').touch(); print('mine')")
    last = kernel.run("background.result()")
    (lines,) = {tuple(sorted_lines(kernel.shown_by(started).stdout))}
    assert lines == tuple(f"announced {x}" for x in range(4))
    assert other.stdout == "mine\n"
    assert last.stdout == ""
    assert last.result == "[0, 1, 2, 3]"
    kernel.run("(folder / 'go').unlink()")


def test_output_of_a_callback_and_of_a_submitted_call_belong_to_their_cells(kernel: Kernel) -> None:
    kernel.run("executor = Executor(1)")
    kernel.run("""
        def speaks(x):
            while not (folder / "speak").exists():
                time.sleep(0.002)
            print("spoken", x)
    """)
    first = kernel.send("a = executor.submit(speaks, 1)")
    kernel.wait(first)
    second = kernel.send("b = executor.submit(speaks, 2)")
    kernel.wait(second)
    kernel.run("(folder / 'speak').touch(); executor.shutdown()")
    assert kernel.receive(lambda: kernel.shown_by(second).stdout)
    assert kernel.shown_by(first).stdout == "spoken 1\n"
    assert kernel.shown_by(second).stdout == "spoken 2\n"


def test_many_long_lines_arrive_whole(kernel: Kernel) -> None:
    kernel.run("""
        def long_lines(x):
            for number in range(200):
                print(f"{x}:{number}:" + "x" * 500)
    """)
    output = kernel.run("pmap(long_lines, range(4), chunksize=1)")
    lines = output.stdout.splitlines()
    expected = [f"{x}:{number}:" + "x" * 500 for x in range(4) for number in range(200)]
    assert sorted(lines) == sorted(expected)
    for x in range(4):  # and those of one task in its order
        assert [line for line in lines if line.startswith(f"{x}:")] == expected[200 * x : 200 * (x + 1)]


def test_what_c_code_and_subprocesses_write_is_shown(kernel: Kernel) -> None:
    kernel.run("""
        import subprocess

        def writes(x):
            os.write(1, f"descriptor {x}\\n".encode())
            subprocess.run(["echo", f"subprocess {x}"], check=True)
    """)
    output = kernel.run("pmap(writes, range(3))")
    assert sorted_lines(output.stdout) == sorted(f"{how} {x}" for how in ("descriptor", "subprocess") for x in range(3))


def test_a_quiet_run_shows_nothing(kernel: Kernel) -> None:
    output = kernel.run("x = pmap(abs, range(100)), pmap_async(abs, [1]).result(), Pool(1).map(abs, [1])")
    assert [message["msg_type"] for message in output.messages] == ["status", "execute_input", "status"]
