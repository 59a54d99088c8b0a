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
    "serial": "pmap({name}, range(6), backend='serial')",
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
    kernel.run("nbparallel.output.showing._budgets = type(nbparallel.output.showing._budgets)()")


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


def test_records_go_through_the_notebooks_handlers_at_its_levels(kernel: Kernel) -> None:
    kernel.run("""
        import logging

        logging.basicConfig(level="WARNING", format="%(message)s", force=True)
        log = logging.getLogger("lab.tasks")
        quiet = logging.getLogger("lab.quiet")
        logging.getLogger("library").addHandler(logging.NullHandler())
        to_file = logging.FileHandler(folder / "records.txt", mode="w")
        to_file.setFormatter(logging.Formatter("%(levelname)s %(name)s %(funcName)s %(message)s %(size)s"))
        log.addHandler(to_file)
        log.setLevel("INFO")
        quiet.setLevel("ERROR")

        def logs(x):
            logging.warning("by the module %s", x)
            log.debug("too low %s", x)
            log.info("measured %s", x, extra={"size": Size(x)})
            quiet.warning("too low for this one")
            logging.getLogger("library").warning("of a library %s", x)
            try:
                1 / 0
            except ZeroDivisionError:
                log.exception("with its exception", extra={"size": lambda: x})
            return log.isEnabledFor(logging.DEBUG), log.isEnabledFor(logging.INFO), quiet.isEnabledFor(logging.WARNING)

        class Size:
            def __init__(self, size): self.size = size
            def __str__(self): return f"of size {self.size}"
    """)
    output = kernel.run("pmap(logs, range(2), output='ordered')")
    assert output.result == repr([(False, True, False)] * 2)
    assert output.stdout == ""
    lines = [line for line in output.stderr.splitlines() if line.startswith(("measured", "of a", "by"))]
    assert lines == [f"{line} {x}" for x in range(2) for line in ("by the module", "measured", "of a library")]
    kernel.run("to_file.close(); log.removeHandler(to_file)")
    records = (kernel.folder / "records.txt").read_text()
    for x in range(2):
        assert records.count(f"INFO lab.tasks logs measured {x} of size {x}\n") == 1
    assert records.count("ERROR lab.tasks logs with its exception <function") == 2
    assert records.count("ZeroDivisionError: division by zero\n") == 2
    assert "too low" not in records
    kept = kernel.run("print(last_run().output[1])").stdout
    assert "INFO:lab.tasks:measured 1\nWARNING:library:of a library 1\nERROR:lab.tasks:with its exception\n" in kept
    # A change of the notebook's is seen by warm workers.
    kernel.run("log.setLevel('CRITICAL'); logging.disable(logging.CRITICAL)")
    output = kernel.run("pmap(logs, range(2))")
    assert (output.stderr, output.result) == ("", repr([(False, False, False)] * 2))
    kernel.run("log.setLevel('NOTSET'); logging.disable(logging.NOTSET)")
    assert kernel.run("pmap(logs, range(2)); 0").stderr.count("with its exception\n") == 2


def test_handlers_that_a_task_makes_are_its_own(kernel: Kernel) -> None:
    kernel.run("""
        def configures(x):
            import logging
            own = logging.getLogger(f"own {x}")
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("as the task likes it: %(message)s"))
            own.handlers = [handler]
            own.error("x is %d", x)
            logging.getLogger("no handler").error("for %d: %s", "not a number", x)
    """)
    output = kernel.run("pmap(configures, range(2), output='ordered')")
    lines = output.stderr.splitlines()
    assert [line for line in lines if line.startswith("as")] == [f"as the task likes it: x is {x}" for x in range(2)]
    assert lines.count("--- Logging error ---") == 2  # as in the cell, and the task goes on


def test_a_workers_own_handlers_do_not_keep_records_from_the_notebooks(kernel: Kernel) -> None:
    kernel.run("""
        import logging

        class Collect(logging.Handler):
            found = []
            def emit(self, record): self.found.append((record.name, record.getMessage()))

        logging.basicConfig(level="WARNING", format="here: %(message)s", force=True)
        collect = Collect()
        logging.getLogger().addHandler(collect)

        def has_its_own(x):
            import logging, sys
            own = logging.getLogger("has its own")
            if not own.handlers:
                handler = logging.StreamHandler(sys.stdout)
                handler.setFormatter(logging.Formatter("there: %(message)s"))
                own.addHandler(handler)
            own.error("x is %d", x)

        def configures(x):
            import logging
            logging.basicConfig(force=True, format="as configured: %(message)s")

        def warns(x):
            import logging
            logging.warning("x is %d", x)
    """)
    output = kernel.run("pmap(has_its_own, range(2), output='ordered')")
    assert output.stdout.splitlines() == ["there: x is 0", "there: x is 1"]
    assert output.stderr.splitlines() == ["here: x is 0", "here: x is 1"]
    assert kernel.run("list(last_run().output)").result == repr(["there: x is 0\n", "there: x is 1\n"])
    assert kernel.run("collect.found").result == repr([("has its own", f"x is {x}") for x in range(2)])
    # A handler of the same kind at the same logger has the record once: in the worker.
    output = kernel.run("pmap(configures, range(4)); pmap(warns, range(2), output='ordered'); collect.found[2:]")
    assert output.result == repr([("root", f"x is {x}") for x in range(2)])
    assert sorted(output.stderr.splitlines()) in (
        [f"{place}: x is {x}" for place, x in found]
        for found in (
            (("as configured", 0), ("as configured", 1)),
            (("as configured", 0), ("here", 1)),
            (("as configured", 1), ("here", 0)),
        )
    )
    kernel.run("logging.getLogger().removeHandler(collect); nbparallel.backends.shutdown()")


def test_a_handler_of_the_notebook_that_raises_stops_nothing(kernel: Kernel) -> None:
    kernel.run("""
        import logging

        class Raises(logging.Handler):
            def emit(self, record): raise RuntimeError("this handler is broken")

        raises = Raises()
        logging.getLogger("broken").addHandler(raises)

        def logs(x):
            import logging
            logging.getLogger("broken").error("x is %d", x)
            return x
    """)
    output = kernel.run("pmap(logs, range(3))")
    assert output.result == "[0, 1, 2]"
    assert output.stderr.count("RuntimeError: this handler is broken") == 3
    kernel.run("logging.getLogger('broken').removeHandler(raises)")


def test_a_line_that_was_flushed_is_kept_whole_and_survives_its_worker(kernel: Kernel) -> None:
    kernel.run("""
        import os

        def dies(x):
            print("step", x, end="...", flush=True)
            os._exit(3)

        def goes_on(x):
            for step in range(3):
                print(x, step, end=" ", flush=True)
            print("end")

        def dots(x):
            print(".", end="", flush=True)
    """)
    kernel.run("pmap(dies, range(2), on_error='return', output='collect'); 0")
    assert kernel.run("list(last_run().output)").result == repr(["step 0...", "step 1..."])
    output = kernel.run("pmap(goes_on, range(20), chunksize=1)")
    assert sorted(output.stdout.splitlines()) == sorted(f"{x} 0 {x} 1 {x} 2 end" for x in range(20))
    assert kernel.run("pmap(dots, range(5)); print()").stdout == ".....\n"


def test_a_stream_needs_no_more_than_write(kernel: Kernel) -> None:
    output = kernel.run("""
        import contextlib

        class Bare:
            text = ""
            def write(self, text): self.text += text

        def says(x):
            print("x is", x)

        with contextlib.redirect_stdout(Bare()) as bare:
            pmap(says, range(2), output="ordered")
        bare.text
    """)
    assert output.result == repr("x is 0\nx is 1\n")


def test_warnings_are_shown_once_with_the_cells_line_by_the_notebooks_filters(kernel: Kernel) -> None:
    kernel.run("""
        import warnings

        class Doubt(UserWarning):
            pass

        def doubts(x):
            warnings.warn("be careful", Doubt)  # this line
            warnings.warn("old", DeprecationWarning)
            warnings.warn(f"x is {x}")
            return x
    """)
    shown = kernel.run("pmap(doubts, range(4), chunksize=1, output='ordered')").stderr
    assert shown.count("Doubt: be careful\n") == 1
    assert shown.count('\n  warnings.warn("be careful", Doubt)  # this line\n') == 1
    assert shown.count("DeprecationWarning: old\n") == 1  # of __main__, as a cell is
    for x in range(4):
        assert shown.count(f"UserWarning: x is {x}\n") == 1
    assert "ipykernel_" in shown
    # Each run tells anew, as each cell does.
    assert kernel.run("pmap(doubts, range(4), chunksize=1); 0").stderr.count("Doubt: be careful\n") == 1
    always = "with warnings.catch_warnings(): warnings.simplefilter('always'); pmap(doubts, range(4), chunksize=1)"
    assert kernel.run(always).stderr.count("Doubt: be careful\n") == 4
    never = "with warnings.catch_warnings(): warnings.simplefilter('ignore'); pmap(doubts, range(4))"
    assert kernel.run(never).stderr == ""
    # A filter for a class of the cell, and one that raises.
    output = kernel.run("""
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("ignore", "x is [12]")
            warnings.simplefilter("error", DeprecationWarning)
            warnings.simplefilter("ignore", Doubt)
            failed = pmap(doubts, range(3), on_error="return")
        [type(each.error).__name__ for each in failed], caught
    """)
    assert output.result == repr((["DeprecationWarning"] * 3, []))
    output = kernel.run("""
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("ignore", "x is [12]")
            done = pmap(doubts, range(3), chunksize=1)
        done, sorted(str(each.message) for each in caught), any(isinstance(each.message, Doubt) for each in caught)
    """)
    assert output.result == repr(([0, 1, 2], ["be careful", "old", "x is 0"], True))
    assert output.stderr == ""


def test_displays_are_published_by_the_calling_cell(kernel: Kernel) -> None:
    kernel.run("""
        from IPython.display import HTML, display as imported

        def displays(x):
            print("before", end="")
            display(HTML(f"<b>{x}</b>"), metadata={"x": x})
            imported({"text/plain": f"raw {x}"}, raw=True)
            handle = display(f"first {x}", display_id=True)
            handle.update(f"then {x}")
            return x
    """)
    output = kernel.run("pmap(displays, range(2), output='ordered')")
    assert output.result == "[0, 1]"
    shown = [(m["msg_type"], m["content"]) for m in output.messages]
    kinds = ["stream", "display_data", "display_data", "display_data", "update_display_data"] * 2
    assert [kind for kind, _ in shown if kind in kinds] == kinds
    assert output.stdout == "beforebefore"
    for x in range(2):
        html, raw, first = output.displays[3 * x : 3 * x + 3]
        assert html["text/html"] == f"<b>{x}</b>"
        assert raw == {"text/plain": f"raw {x}"}
        assert first["text/plain"] == repr(f"first {x}")
    (then, _) = (content for kind, content in shown if kind == "update_display_data")
    assert then["data"]["text/plain"] == repr("then 0")
    first = next(content for _, content in shown if content.get("transient", {}).get("display_id"))
    assert then["transient"] == first["transient"]
    assert shown[3][1]["metadata"] == {"x": 0}
    kept = kernel.run("print(last_run().output[1])").stdout
    assert kept == "before<IPython.core.display.HTML object>\nraw 1\n'first 1'\n'then 1'\n\n"
    started = kernel.send("run = pmap_async(displays, [5])")
    kernel.wait(started)
    assert kernel.run("run.result()").displays == []
    assert kernel.receive(lambda: len(kernel.shown_by(started).displays) == 3)


def test_a_widget_of_a_task_is_shown_as_text(kernel: Kernel) -> None:
    kernel.run("""
        def shows(x):
            import ipywidgets
            display(ipywidgets.IntSlider(x))
    """)
    output = kernel.run("x = pmap(shows, [3])")
    assert output.displays == [{"text/plain": "IntSlider(value=3)"}]  # its model stays in the worker, no page finds it
    assert output.stderr == ""


def test_open_figures_are_shown_at_the_end_of_their_task(kernel: Kernel) -> None:
    kernel.run("""
        import matplotlib.pyplot as plt

        plt.figure(); plt.plot([0, 1])  # the notebook's own is not shown by the workers
        def draws(x):
            for _ in range(x):
                plt.figure()
                plt.plot([0, x])
            plt.figure()  # an empty one
            return plt.get_fignums() == list(range(1, x + 2))
    """)
    output = kernel.run("pmap(draws, range(3), output='ordered')")
    assert output.result == "[True, True, True]"
    assert [sorted(data) for data in output.displays] == [["image/png", "text/plain"]] * 3
    assert output.displays[0]["text/plain"] == "<Figure size 640x480 with 1 Axes>"
    kernel.run("""
        def shows(x):
            plt.plot([0, x])
            plt.show()
            print("shown")
            return plt.get_fignums()
    """)
    output = kernel.run("pmap(shows, [1])")
    assert output.result == "[[]]"
    kinds = [m["msg_type"] for m in output.messages if m["msg_type"] in ("display_data", "stream")]
    assert kinds == ["display_data", "stream"]
    assert "image/png" in output.displays[0]
    output = kernel.run("plt.switch_backend('agg'); pmap(draws, range(3))")
    assert output.displays == []
    # With that they stay open, as in the notebook.
    kernel.run("nbparallel.backends.shutdown()")
    kernel.run("%matplotlib inline")
    assert len(kernel.run("pmap(draws, [1])").displays) == 1


def test_workers_import_nothing_for_what_is_not_used(kernel: Kernel) -> None:
    output = kernel.run("""
        import nbparallel.backends
        nbparallel.backends.shutdown()

        def loaded(x):
            import sys
            return sorted({"logging", "IPython", "matplotlib", "nbparallel.engine.reports"} & set(sys.modules))

        pmap(loaded, [0])
    """)
    assert output.result == "[['logging', 'nbparallel.engine.reports']]" or "'fork'" in str(
        kernel.run("nbparallel.configure().start_method").result
    )


def test_what_a_task_prints_and_what_its_programs_write_is_in_order_and_its_own(kernel: Kernel) -> None:
    kernel.run("""
        import subprocess

        def mixes(x):
            for part in "ab":
                print(x, part, "printed")
                os.write(1, f"{x} {part} written\\n".encode())
                subprocess.run(["echo", f"{x} {part} by echo"], check=True)
            os.write(1, f"{x} at last".encode())  # without a newline
            return x
    """)
    for options in ("chunksize=1", "chunksize=4"):
        kernel.run(f"pmap(mixes, range(8), output='collect', {options})")
        kept = kernel.run("print('|'.join(last_run().output))").stdout
        expected = [
            "".join(f"{x} {part} {how}\n" for part in "ab" for how in ("printed", "written", "by echo"))
            + f"{x} at last"
            for x in range(8)
        ]
        assert kept == "|".join(expected) + "\n"
        assert kernel.run("last_run().output.outside").result == "''"


def test_what_threads_print_in_the_background_belongs_to_the_cell_that_started_them(kernel: Kernel) -> None:
    kernel.run("""
        def announces(x):
            while not (folder / "go").exists():
                time.sleep(0.002)
            print("announced")
            display(x)
            return x
    """)
    started = kernel.send("background = pmap_async(announces, range(2), backend='threads')")
    kernel.wait(started)
    last = kernel.run("(folder / 'go').touch(); background.result()")
    assert kernel.receive(lambda: len(kernel.shown_by(started).displays) == 2)
    assert kernel.shown_by(started).stdout.count("announced") == 2
    assert (last.stdout, last.displays, last.result) == ("", [], "[0, 1]")
    kernel.run("(folder / 'go').unlink()")
