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


BACKWARDS = """
    def backwards(x):  # each task ends after the next one has begun to speak
        print(x, "begins")
        (folder / f"begun {x}").touch()
        while x < 5 and not (folder / f"begun {x + 1}").exists():
            time.sleep(0.001)
        print(x, "ends")
        return x
"""


def test_ordered_output_is_in_the_order_of_the_input_and_not_held_back(kernel: Kernel) -> None:
    kernel.run(BACKWARDS)
    kernel.run("for x in range(6): (folder / f'begun {x}').unlink(missing_ok=True)")
    output = kernel.run("pmap(backwards, range(6), output='ordered', chunksize=1)")
    assert output.stdout.splitlines() == [f"{x} {how}" for x in range(6) for how in ("begins", "ends")]
    assert kernel.run("last_run().output[3]").result == repr("3 begins\n3 ends\n")
    kernel.run("""
        def waits(x):
            print("waits", x)
            while x == 1 and not (folder / "stop waiting").exists():
                time.sleep(0.002)
    """)
    cell = kernel.send("pmap(waits, range(3), output='ordered', chunksize=1)")
    assert kernel.receive(lambda: kernel.shown_by(cell).stdout == "waits 0\nwaits 1\n")
    assert not kernel.shown_by(cell).idle
    (kernel.folder / "stop waiting").touch()
    assert kernel.wait(cell).stdout == "waits 0\nwaits 1\nwaits 2\n"
    (kernel.folder / "stop waiting").unlink()


def test_collected_output_is_only_kept_and_dropped_output_is_not(kernel: Kernel) -> None:
    kernel.run("""
        def chatters(x):
            if x % 2:
                print("out", x)
                print("err", x, file=sys.stderr)
            return x
        import sys
    """)
    output = kernel.run("pmap(chatters, range(4), output='collect')")
    assert (output.stdout, output.stderr) == ("", "")
    assert kernel.run("list(last_run().output)").result == repr(["", "out 1\nerr 1\n", "", "out 3\nerr 3\n"])
    output = kernel.run("pmap(chatters, range(4), output=None)")
    assert (output.stdout, output.stderr) == ("", "")
    assert kernel.run("list(last_run().output)").result == repr([""] * 4)


def test_the_notebook_says_what_becomes_of_output(kernel: Kernel) -> None:
    kernel.run("def speaks(x): print('spoken', x)")
    kernel.run("%load_ext nbparallel")
    kernel.run("%config NBParallel.output = 'collect'")
    assert kernel.run("pmap(speaks, [1]); Pool(1).map(speaks, [2]); Pool(1).apply(speaks, (3,))").stdout == ""
    assert kernel.run("last_run().output[0]").result == repr("spoken 2\n")
    assert kernel.run("pmap(speaks, [4], output='live')").stdout == "spoken 4\n"
    assert "spoken 5\n" in kernel.run("%pmap --output ordered speaks(x) for x in [5]").stdout
    kernel.run("%config NBParallel.output = None")
    assert kernel.run("Executor(1).submit(speaks, 6).result(), list(Pool(1).imap(speaks, [7]))").stdout == ""
    assert kernel.run("nbparallel.configure().output").result is None
    kernel.run("nbparallel.configure(output='live')")
    assert kernel.run("pmap(speaks, [8])").stdout == "spoken 8\n"
    kernel.run("%unload_ext nbparallel")


def test_output_that_can_not_be_had_is_refused(kernel: Kernel) -> None:
    output = kernel.run("pmap(abs, [1], output='loud')", fails=True)
    assert output.error
    assert output.error.value == "output must be 'live', 'ordered', 'collect' or None, not 'loud'"
    for backend, what in (("threads", "'ordered'"), ("threads", "None"), ("serial", "'collect'")):
        output = kernel.run(f"pmap(abs, [1], output={what}, backend={backend!r})", fails=True)
        assert output.error
        expected = f"output={what} needs processes: on the backend {backend!r} tasks print by themselves"
        assert output.error.value == expected
    assert kernel.run("pmap(print, [1, 2], output='ordered', backend='serial')").stdout == "1\n2\n"
    # Within a task, a map has no processes, and its output is the task's.
    assert kernel.run("pmap(lambda x: pmap(print, [x], output='collect'), [3, 4], output='ordered')").stdout == "3\n4\n"


def test_a_flood_is_folded_and_all_of_the_text_that_is_kept_is_there(kernel: Kernel) -> None:
    kernel.run("""
        def floods(x):
            print("before")
            for number in range(3000):
                print("x" * 999)
            print("after")
    """)
    output = kernel.run("pmap(floods, [0])")
    lines = output.stdout.splitlines()
    told = [line for line in lines if "folded here" in line]
    assert told
    left_out = sum(int(line.split()[0].strip("[").replace(",", "")) for line in told)
    assert lines[0] == "before"
    assert lines.count("x" * 999) + (lines.count("after")) + left_out == 3001
    kept = kernel.run("print(last_run().output[0][:8], last_run().output[0][-50:])").stdout
    assert kept.startswith("before")
    assert kept.endswith(f"[{3000 * 1000 + 13 - 100_000:,} characters more were not kept]\n\n")
    # Some seconds later there is room again: the next test's text must not be folded.
    kernel.run("nbparallel.showing._budgets = type(nbparallel.showing._budgets)()")


def test_a_resumed_run_has_the_output_of_the_first(kernel: Kernel) -> None:
    kernel.run("""
        def fails_once(x):
            print("try", x)
            if x == 1 and not (folder / "tried").exists():
                (folder / "tried").touch()
                raise ValueError(x)
            return x
    """)
    kernel.run("pmap(fails_once, range(3), chunksize=1, on_error='return')")
    output = kernel.run("last_run().resume()")
    assert output.result == "[0, 1, 2]"
    assert output.stdout == "try 1\n"
    assert kernel.run("list(last_run().output)").result == repr(["try 0\n", "try 1\n", "try 2\n"])
    kernel.run("(folder / 'tried').unlink()")
