"""Processes of `nbparallel.multiprocessing` in a real kernel: what they show, and how they end."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kernels import CELL_TIMEOUT, Kernel, kernel

from nbparallel import multiprocessing

__all__ = ["kernel"]


@pytest.fixture(scope="module", autouse=True)
def module(kernel: Kernel) -> None:
    kernel.run("from nbparallel import multiprocessing\nfrom nbparallel.multiprocessing import Process")


def test_what_a_process_prints_appears_while_it_runs(kernel: Kernel) -> None:
    cell = kernel.send("""
        def talk(folder):
            print("first")
            while not (folder / "heard").exists():
                time.sleep(0.01)
            print("last, without an end", end="")

        process = Process(target=talk, args=(folder,))
        process.start()
        process.join()
        print(" | joined")
    """)
    assert kernel.receive(lambda: kernel.shown_by(cell).stdout == "first\n")
    (kernel.folder / "heard").touch()
    assert kernel.wait(cell).stdout == "first\nlast, without an end | joined\n"


def test_what_c_code_and_programs_write_and_what_is_logged_and_displayed_appears(kernel: Kernel) -> None:
    output = kernel.run("""
        def say():
            import logging, subprocess, sys, warnings
            from IPython.display import HTML, display
            os.write(1, b"descriptor\\n")
            subprocess.run([sys.executable, "-c", "print('program')"], check=True)
            print("error", file=sys.stderr)
            logging.getLogger("work").warning("logged")
            display(HTML("<b>shown</b>"))

        process = Process(target=say)
        process.start(); process.join()
    """)
    assert output.stdout == "descriptor\nprogram\n"
    assert output.stderr.splitlines() == ["error", "logged"]
    assert [each.get("text/html") for each in output.displays] == ["<b>shown</b>"]


def test_an_error_is_shown_with_the_lines_of_the_cell_and_nobody_elses(kernel: Kernel) -> None:
    output = kernel.run("""
        def helper(x):
            return 1 / x

        def fail(x):
            helper(x)

        process = Process(target=fail, args=(0,), name="worst")
        process.start(); process.join()
        process.exitcode
    """)
    assert output.result == "1"
    told = re.sub(r"\[\d+\]", "[N]", output.stderr)
    assert told.startswith("Process worst:\nTraceback (most recent call last):\n  Cell In[N], line 5, in fail\n")
    assert "  Cell In[N], line 2, in helper\n    return 1 / x\n" in told
    assert told.endswith("ZeroDivisionError: division by zero\n")
    assert "nbparallel" not in told
    assert "multiprocessing" not in told


def test_output_goes_to_the_cell_that_has_started_it(kernel: Kernel) -> None:
    started = kernel.send("""
        def wait_and_talk(folder):
            while not (folder / "go on").exists():
                time.sleep(0.01)
            print("from then")

        background = Process(target=wait_and_talk, args=(folder,))
        background.start()
    """)
    assert kernel.wait(started).stdout == ""
    later = kernel.run("(folder / 'go on').touch(); background.join()")
    assert kernel.receive(lambda: kernel.shown_by(started).stdout == "from then\n")
    assert later.stdout == ""


def test_bars_of_processes_stand_below_each_other_and_leave_their_last_lines(kernel: Kernel) -> None:
    kernel.run("nbparallel.configure(progress='auto')")
    cell = kernel.send("""
        def train(steps, folder):
            from tqdm.notebook import tqdm
            for step in tqdm(range(steps), desc="train", mininterval=0):
                while step == 2 and not (folder / "trained").exists():
                    time.sleep(0.01)
            for step in tqdm(range(3), leave=False):
                pass

        trainers = [Process(target=train, args=(4, folder), name=f"trainer {n}") for n in range(2)]
        for each in trainers: each.start()
        for each in trainers: each.join()
    """)

    def newest() -> list[str]:
        messages = kernel.shown_by(cell).messages
        shown = [m["content"]["data"]["text/plain"] for m in messages if m["msg_type"].endswith("display_data")]
        return shown[-1].splitlines() if shown else []

    def lines() -> list[str]:
        return [line.split("%")[0] for line in newest()]

    assert kernel.receive(lambda: lines() == [f"train [trainer {n}]:  50" for n in range(2)]), newest()
    (kernel.folder / "trained").touch()
    output = kernel.wait(cell)
    assert kernel.receive(lambda: sorted(lines()) == [f"train [trainer {n}]: 100" for n in range(2)]), newest()
    assert len(output.displays) == 1
    assert output.stderr == ""
    kernel.run("nbparallel.configure(progress=False)")


def test_stop_ends_those_that_run_and_the_next_works(kernel: Kernel) -> None:
    cell = kernel.send("""
        def burn(folder):
            (folder / f"burns {os.getpid()}").touch()
            while True:
                pass

        burning = [Process(target=burn, args=(folder,)) for _ in range(2)]
        for each in burning: each.start()
        for each in burning: each.join()
    """)
    assert kernel.receive(lambda: len(list(kernel.folder.glob("burns *"))) == 2)
    kernel.interrupt()
    output = kernel.wait(cell, fails=True)
    assert output.error is not None
    assert output.error.name == "KeyboardInterrupt"
    assert gone(kernel.folder.glob("burns *"))
    assert output.stderr == ""
    output = kernel.run("""
        import sys
        # Where Python heeds no signal, it is the signal's own end.
        deaf = nbparallel.configure().start_method == "fork" and sys.version_info >= (3, 13)
        print([each.exitcode for each in burning] == [-2 if deaf else 1] * 2)
        after = Process(target=print, args=("works",))
        after.start(); after.join()
    """)
    assert output.stdout == "True\nworks\n"


def test_stop_is_not_told_by_a_process_that_waits_at_its_end(kernel: Kernel) -> None:
    cell = kernel.send("""
        def puts(queue, folder):
            queue.put("x" * 10_000_000)
            (folder / "put").touch()

        def leaves_a_thread(folder):
            import threading
            threading.Thread(target=time.sleep, args=(1000,)).start()
            (folder / "left").touch()

        queue = multiprocessing.Queue()
        waiting = [Process(target=puts, args=(queue, folder)), Process(target=leaves_a_thread, args=(folder,))]
        for each in waiting: each.start()
        for each in waiting: each.join()
    """)
    assert kernel.receive(lambda: (kernel.folder / "put").exists() and (kernel.folder / "left").exists())
    kernel.interrupt()
    output = kernel.wait(cell, fails=True)
    assert output.error is not None
    assert output.error.name == "KeyboardInterrupt"
    kernel.run("for each in waiting: each.join(30)")
    assert kernel.run("any(each.is_alive() for each in waiting)").result == "False"
    assert output.stderr == ""


@pytest.mark.slow
def test_stop_leaves_a_managers_objects_in_order(kernel: Kernel) -> None:
    kernel.run("""
        from nbparallel.multiprocessing.managers import SyncManager

        class Slow:
            def think(self, seconds):
                time.sleep(seconds)
                return "the answer to an earlier question"

            def answer(self):
                return "answer"

            def serves_others(self):
                import threading
                names = [each.name for each in threading.enumerate()]
                return any("|" in name and not name.startswith("MainProcess|") for name in names)

        class Managers(SyncManager):
            pass

        Managers.register("Slow", Slow)
        manager = Managers()
        manager.start()
        queue, full, lock, condition = manager.Queue(), manager.Queue(1), manager.Lock(), manager.Condition()
        slow, event = manager.Slow(), manager.Event()
        lock.acquire(); full.put(1)

        def take(folder):
            (folder / f"takes {os.getpid()}").touch()
            queue.get()

        def wait():
            with condition: condition.wait()

        def join():
            takers = [Process(target=take, args=(folder,)) for _ in range(2)]
            for each in takers: each.start()
            while len(list(folder.glob("takes *"))) < 2: time.sleep(0.01)
            for each in takers: each.join()
    """)
    waits = ["queue.get()", "full.put(2)", "lock.acquire()", "wait()", "event.wait()", "slow.think(1000)", "join()"]
    for number, waiting in enumerate(waits):
        cell = kernel.send(f"(folder / 'wait {number}').touch(); {waiting}")
        assert kernel.receive((kernel.folder / f"wait {number}").exists)
        if waiting == "join()":
            assert kernel.receive(lambda: len(list(kernel.folder.glob("takes *"))) == 2)
        kernel.interrupt()
        output = kernel.wait(cell, fails=True)
        assert output.error is not None
        assert output.error.name == "KeyboardInterrupt", waiting
    assert gone(kernel.folder.glob("takes *"))
    output = kernel.run("""
        # As where Stop comes after the question was sent, and before its answer is waited for.
        slow._tls.connection.send((slow._id, "think", (0,), {}))
        print(slow.answer(), event.is_set(), full.get(), full.empty())
        lock.release()
        print(lock.acquire(timeout=20), condition.acquire(timeout=20))
        # What a process that was ended has asked for goes on for half a second, and would take what is put.
        while slow.serves_others(): time.sleep(0.01)
        for number in range(3): queue.put(number)
        print([queue.get(timeout=20) for _ in range(3)])
        manager.shutdown()
    """)
    assert output.stdout == "answer False 1 True\nTrue True\n[0, 1, 2]\n"


def test_it_can_be_told_to_end_whatever_it_does(kernel: Kernel) -> None:
    output = kernel.run("""
        ended = [Process(target=time.sleep, args=(1000,)) for _ in range(2)]
        for each in ended: each.start()
        ended[0].terminate()
        ended[1].kill()
        for each in ended: each.join()
        print([each.exitcode for each in ended])
    """)
    assert output.stdout == "[-15, -9]\n"


def test_a_child_that_has_ended_leaves_no_descriptor(kernel: Kernel) -> None:
    output = kernel.run("""
        import gc, threading

        def footprint():
            multiprocessing.synchronize._forget()  # the memory that the next locks would be made in
            for thread in threading.enumerate():
                if thread.name == "nbparallel-processes": thread.join()  # it goes after the last process
            gc.collect()
            return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

        def once():
            values, queue = multiprocessing.Array("i", 3), multiprocessing.SimpleQueue()
            process = Process(target=queue.put, args=(1,))
            process.start(); process.join()
            assert queue.get() == 1
            process.close()

        once()
        before = footprint()
        for _ in range(3): once()
        print(footprint() - before)
    """)
    assert output.stdout == "0\n"


def gone(witnesses: Iterator[Path]) -> bool:
    """Return whether the processes that left these files are gone, within the patience of a backstop."""
    found = [psutil.Process(pid) for path in witnesses if psutil.pid_exists(pid := int(path.name.split()[1]))]
    return not psutil.wait_procs(found, timeout=CELL_TIMEOUT)[1]


@pytest.mark.skipif(sys.platform == "win32", reason="a queue waits otherwise there")
@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_an_interrupt_of_a_queue_leaves_its_lock_free_and_its_messages_whole(kind: str) -> None:
    queue = getattr(multiprocessing, kind)()
    lock = queue._rlock

    class Interrupting:
        """In the very moment in which the lock was taken."""

        release = lock.release

        def acquire(self, *args: float) -> bool:
            taken = bool(lock.acquire(*args))
            signal.raise_signal(signal.SIGINT)
            return taken

    queue._rlock = Interrupting()
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            queue.get()
    queue._rlock = lock
    queue.put("kept")
    assert queue.get() == "kept"
    queue.close()
    if kind != "SimpleQueue":
        queue.join_thread()
