"""What only a notebook has: a running event loop, autoreload, the shell; in real kernels."""

from __future__ import annotations

import os

import pytest
from kernels import METHODS, Kernel, kernel

__all__ = ["kernel"]


# ---- the running event loop ----


def test_awaiting_a_run_leaves_the_loop_to_others(kernel: Kernel) -> None:
    kernel.run("""
        import asyncio

        def waits(x):
            while not (folder / "opened").exists():
                time.sleep(0.002)
            return x

        async def opens():
            (folder / "opened").touch()
    """)
    output = kernel.run("(await asyncio.gather(pmap_async(waits, range(4)), opens()))[0]")
    assert output.result == "[0, 1, 2, 3]"
    assert kernel.run("await pmap_async(abs, iter([-1, -2]))").result == "[1, 2]"
    assert kernel.run("await pmap_async(abs, [])").result == "[]"


def test_results_come_one_by_one_to_async_for(kernel: Kernel) -> None:
    kernel.run("""
        def follows(x):
            while x and not (folder / f"seen {x - 1}").exists():
                time.sleep(0.002)
            return x
    """)
    output = kernel.run("""
        seen = []
        async for x in pmap_async(follows, range(6), chunksize=1):
            seen.append(x)
            (folder / f"seen {x}").touch()
        seen
    """)
    assert output.result == "[0, 1, 2, 3, 4, 5]"


def test_the_loop_goes_on_while_a_generator_is_read_and_results_are_large_and_kept(kernel: Kernel) -> None:
    kernel.run("""
        import asyncio
        beats = 0

        async def heart():
            global beats
            while True:
                beats += 1
                await asyncio.sleep(0.001)

        def moment():
            seen = beats
            while beats < seen + 3:  # for ever, if the loop stood still
                time.sleep(0.001)

        def reads():
            for x in range(4):
                moment()
                yield x

        def large(x):
            return bytes(20_000_000)

        heartbeat = asyncio.create_task(heart())
    """)
    assert kernel.run("await pmap_async(abs, reads(), chunksize=1)").result == "[0, 1, 2, 3]"
    assert kernel.run("[x async for x in pmap_async(abs, reads(), chunksize=1)]").result == "[0, 1, 2, 3]"
    assert kernel.run("seen = beats; len(await pmap_async(large, range(6))), beats > seen").result == "(6, True)"
    # Results that are all there leave the loop its turns, too.
    kernel.run("run = pmap_async(large, range(6)); run.wait()")
    output = kernel.run("""
        seen, count = beats, 0
        async for x in run:
            count += 1
            time.sleep(0.02)
        count, beats > seen
    """)
    assert output.result == "(6, True)"
    output = kernel.run("""
        ready = False

        def later():
            while not ready:
                time.sleep(0.001)
            yield -1

        run = pmap_async(abs, later(), checkpoint=folder / "kept")
        close = run._checkpoint.close

        def closes():
            moment()
            close()

        run._checkpoint.close = closes
        ready = True
        await run
    """)
    assert output.result == "[1]"
    kernel.run("heartbeat.cancel()")


def test_errors_and_cancellations_reach_whoever_awaits(kernel: Kernel) -> None:
    kernel.run("""
        import asyncio

        def inverse(x):
            return 1 / x

        def sleeps(x):
            time.sleep(1000)
    """)
    assert kernel.run("await pmap_async(inverse, [1, 0])", fails=True).error.name == "ZeroDivisionError"
    assert kernel.run("[x async for x in pmap_async(inverse, [0])]", fails=True).error.name == "ZeroDivisionError"
    assert kernel.run("await asyncio.wait_for(pmap_async(sleeps, [1]), 0.05)", fails=True).error.name == "TimeoutError"
    kernel.run("last_run().cancel()")
    assert kernel.run("await last_run()", fails=True).error.name == "CancelledError"


def test_an_executor_serves_the_running_loop(kernel: Kernel) -> None:
    output = kernel.run("""
        import asyncio

        with Executor(2) as executor:
            loop = asyncio.get_running_loop()
            found = await asyncio.gather(*(loop.run_in_executor(executor, abs, -x) for x in range(4)))
        found
    """)
    assert output.result == "[0, 1, 2, 3]"


# ---- modules beside the notebook ----


def write_module(kernel: Kernel, name: str, text: str, mtime: int) -> None:
    path = kernel.folder / f"{name}.py"
    path.write_text(f"def answer(x):\n    return ({text!r}, x)\n")
    os.utime(path, (mtime, mtime))  # an edit within the clock's resolution is no edit to anybody


def test_an_edited_module_under_autoreload(kernel: Kernel) -> None:
    write_module(kernel, "beside", "first", 1_000_000_000)
    kernel.run("%load_ext autoreload\n%autoreload 2")
    kernel.run("""
        import beside
        from beside import answer

        def uses(x):
            return beside.answer(x)

        def imports(x):
            import beside
            return beside.answer(x)
    """)
    ask = "pmap(answer, [1]), pmap(beside.answer, [1]), pmap(uses, [1]), pmap(imports, [1])"
    assert kernel.run(ask).result == str(tuple([("first", 1)] for _ in range(4)))
    write_module(kernel, "beside", "second", 1_000_000_001)
    assert kernel.run(ask).result == str(tuple([("second", 1)] for _ in range(4)))
    pids = (
        "sorted({pid for b in nbparallel.backends.warm().values() if b.name == 'processes' for pid in b.engine.pids})"
    )
    before = kernel.run(pids).result
    assert kernel.run(ask).result == str(tuple([("second", 1)] for _ in range(4)))
    assert kernel.run(pids).result == before
    kernel.run("%autoreload 0")


def test_a_module_that_no_worker_can_import(kernel: Kernel) -> None:
    output = kernel.run("""
        import sys, types

        made = types.ModuleType("made_in_a_cell")
        exec("def shout(x):\\n    return volume(x) + '!'\\ndef volume(x):\\n    return str(x).upper()", vars(made))
        sys.modules["made_in_a_cell"] = made
        pmap(made.shout, ["a", "b"]), pmap(lambda x: made.shout(x), ["c"])
    """)
    assert output.result == "(['A!', 'B!'], ['C!'])"


# ---- the shell ----


def test_the_shell_stays_in_the_notebook(kernel: Kernel) -> None:
    output = kernel.run(
        """
        def runs_magic(x):
            return get_ipython().run_line_magic("time", "x")

        pmap(runs_magic, [1])
    """,
        fails=True,
    )
    assert output.error.name == "SerializationError"
    assert "get_ipython" in output.error.value
    assert "leave them out of the function" in output.error.value


def test_a_cell_shows_a_run_and_its_figure(kernel: Kernel) -> None:
    shown = kernel.run("""
        def task(x):
            return x
        run = pmap_async(task, range(100))
        run.result()
        run
    """)
    (data,) = [message["content"]["data"] for message in shown.messages if message["msg_type"] == "execute_result"]
    assert data["text/plain"].startswith("<Run task: done, 100 ok in")
    assert "<svg" in data["text/html"]
    (metadata,) = [each["content"]["metadata"] for each in shown.messages if each["msg_type"] == "execute_result"]
    assert metadata == {"nbparallel": "run"}  # nbval leaves it alone
    shown = kernel.run("import sys; run.timeline()")
    (data,) = [message["content"]["data"] for message in shown.messages if message["msg_type"] == "execute_result"]
    assert data["text/plain"] == "<timeline of task>"
    assert data["image/png"]
    assert kernel.run("'matplotlib.pyplot' in sys.modules").result == "False"


def test_a_run_completes_to_what_users_call(kernel: Kernel) -> None:
    kernel.run("run = pmap_async(abs, range(3))\nrun.result()")
    reply = kernel.client.complete("run.", 4, reply=True, timeout=40)
    offered = {match.removeprefix("run.").removeprefix(".") for match in reply["content"]["matches"]}
    assert {"result", "results", "failures", "cancel", "resume", "summary", "timeline", "to_dict", "label"} <= offered
    inside = {"settle", "payload", "hungry", "deliver", "drive", "timed", "write", "listeners", "number", "start"}
    assert not inside & offered
    assert not any(name.startswith("_") for name in offered)


def test_what_a_failed_task_shows(kernel: Kernel) -> None:
    output = kernel.run(
        """
        class Broken(Exception):
            pass

        def breaks(x):
            if x == 2:
                raise Broken("in two")  # here it breaks
            return x

        pmap(breaks, range(4))
    """,
        fails=True,
    )
    assert output.error.name == "Broken"
    assert "task 2 (breaks(2))" in output.error.traceback
    assert '> 6         raise Broken("in two")  # here it breaks' in output.error.traceback


def test_the_failed_call_can_be_made_again_under_the_debugger(kernel: Kernel) -> None:
    kernel.run("""
        def halves(x):
            half = 1 / x
            return half
    """)
    kernel.run("failed = pmap(halves, [1, 0], on_error='return')[1]")
    output = kernel.run("failed.rerun()", fails=True)
    assert output.error.name == "ZeroDivisionError"
    assert "half = 1 / x" in output.error.traceback


@pytest.mark.parametrize("method", METHODS)
def test_names_of_the_shell_do_no_harm(method: str) -> None:
    with Kernel({"START_METHOD": method}) as kernel:
        kernel.run(f"import nbparallel; nbparallel.configure(workers=2, start_method={method!r}, progress=False)")
        kernel.run("def last(x):\n    return _ + x")
        kernel.run("40 + 1")
        assert kernel.run("nbparallel.pmap(last, [1])").result == "[42]"
        assert (
            kernel.run("nbparallel.pmap(lambda x: (In[1][:6], len(Out) > 0, x), [1])").result == "[('import', True, 1)]"
        )


def test_what_is_garbage_in_the_notebook_ends_there_alone(kernel: Kernel) -> None:
    output = kernel.run("""
        import gc

        class Ends:
            def __init__(self):
                self.itself = self

            def __del__(self):
                (folder / f"ended in {os.getpid()}").touch()

        def collects(x):
            import gc
            return gc.collect() >= 0

        nbparallel.backends.shutdown()
        gc.disable()
        garbage = Ends()
        del garbage
        print(pmap(collects, [1, 2], chunksize=1))  # a fork has it as well
        gc.enable()
        gc.collect()
        print([path.name for path in folder.glob("ended in *")] == [f"ended in {os.getpid()}"])
    """)
    assert output.stdout == "[True, True]\nTrue\n"
