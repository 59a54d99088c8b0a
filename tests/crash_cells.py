"""The cells of `test_crash_table`: functions and classes of a notebook that die in each way and at each moment.

Read as text and run in a kernel, never imported: what dies here must come from ``__main__``.
"""

# %% what dies, how, and when
import ctypes
import faulthandler
import gc
import os
import signal
import sys
import threading

import psutil

import nbparallel
from nbparallel import Executor, Pool, SerializationError, TaskError, TaskTimeout, WorkerCrashed, pmap

#: Tasks of a call; the guilty one is the first, one in the middle (of its chunk, too) or the last.
COUNT, CHUNK = 9, 3
POSITIONS = {"first": 0, "middle": 4, "last": 8}
#: Seconds that a stopped task may take, and after which a call has hung.
LIMIT, PATIENCE = 1.0, 60.0


class Boom(Exception):
    pass


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("with a lock")
        self.lock = threading.Lock()


def die(death, log):
    """Die, and say before by a file which worker does."""
    with open(log, "a") as file:
        print(os.getpid(), file=file)
    faulthandler.disable()
    if death == "exception":
        raise Boom("not this one")
    if death == "unpicklable exception":
        raise Unpicklable
    if death == "sys.exit":
        sys.exit(3)
    if death == "_exit":
        os._exit(4)
    if death == "abort":
        os.abort()
    if death == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}[death])


class DiesWhenLoaded:
    def __init__(self, death, log):
        self.how = death, log

    def __reduce__(self):
        return die, self.how


class DiesWhenPickled:
    def __init__(self, death, log):
        self.how = death, log

    def __reduce__(self):
        die(*self.how)


class HalfWay:
    """A worker's socket that takes half of one large message; whoever sends the rest dies."""

    def __init__(self, socket, death, log):
        self.socket = socket
        self.how = death, log
        self.is_half_sent = False

    def sendmsg(self, pieces):
        if self.is_half_sent:
            die(*self.how)
        self.is_half_sent = True
        data = b"".join(pieces)
        assert len(data) > 1_000_000
        self.socket.sendall(data[: len(data) // 2])
        return len(data) // 2

    send = sendmsg


class DiesWhenWritten:
    """A large result that swaps its worker's socket as it is pickled, which is just before it is sent."""

    def __init__(self, death, log):
        self.how = death, log

    def __reduce__(self):
        (channel,) = [each for each in gc.get_objects() if type(each).__name__ == "Channel"]
        writer = channel._writer
        writer._socket = HalfWay(writer._socket, *self.how)
        return bytes, (bytes(2_000_000),)


RESULTS = {"pickling": DiesWhenPickled, "writing": DiesWhenWritten}


def task(x, how):
    if how is None or type(how) is not tuple:
        return x * 10
    death, moment, log = how
    if moment == "running":
        die(death, log)
    return RESULTS[moment](death, log)


def one(item):
    return task(*item)


# %% the calls
def by_pmap(pool, items, limit):
    return pmap(one, items, chunksize=CHUNK, timeout=limit, deadline=PATIENCE, on_error="return", workers=2)


def by_imap(pool, items, limit):
    stream, found = pool.imap(one, items, chunksize=CHUNK), []
    for _ in items:
        try:
            found.append(stream.next(PATIENCE))
        except Exception as error:
            found.append(error)
    return found


def by_submit(executor, items, limit):
    futures = [executor.submit(task, *item) for item in items]
    return [future.exception(PATIENCE) or future.result() for future in futures]


FRONTS = {"pmap": by_pmap, "imap": by_imap, "submit": by_submit}


def workers_of(front, pool):
    if front != "pmap":
        return set(pool._backend.engine.pids)
    return {pid for backend in nbparallel.backends.warm().values() for pid in backend.engine.pids}


# %% what is to come of it
CODES = {
    "exception": 1,
    "unpicklable exception": 1,
    "sys.exit": 3,
    "_exit": 4,
    "abort": -signal.SIGABRT,
    "segfault": -signal.SIGSEGV,
    "SIGKILL": -signal.SIGKILL,
}


def is_survived(death, moment):
    """Return whether the worker goes on: an exception is the task's outcome, unless it cuts a message in two."""
    return death in ("exception", "unpicklable exception") and moment != "writing"


def wrong_outcome(death, moment, outcome, pids):
    """Return what is wrong with a guilty task's outcome, if anything."""
    if is_survived(death, moment):
        error = outcome.error if type(outcome) is TaskError else outcome
        if death == "exception" and moment != "pickling":
            return None if type(error) is Boom else "not its own type"
        if type(error) is not SerializationError:
            return "not its type"
        return None if ("Boom" if death == "exception" else "Unpicklable") in str(error) else "not named"
    if type(outcome) is not (TaskTimeout if death == "SIGSTOP" else WorkerCrashed):
        return "not its type"
    if death != "SIGSTOP":
        if outcome.exitcode != CODES[death]:
            return f"exit code {outcome.exitcode}"
        if outcome.pid not in pids:
            return f"pid {outcome.pid}, but {pids} died"
    return None


def wrong(front, pool, death, moment, position, log):
    """Return what one case did wrong, if anything."""
    guilty = POSITIONS[position]
    how = DiesWhenLoaded(death, log) if moment == "unpickling" else (death, moment, log)
    items = [(x, how if x == guilty else None) for x in range(COUNT)]
    limit = LIMIT if death == "SIGSTOP" else None
    before = workers_of(front, pool)
    found = FRONTS[front](pool, items, limit)
    with open(log) as file:
        pids = set(map(int, file.read().split()))
    os.remove(log)
    if [found[x] for x in range(COUNT) if x != guilty] != [x * 10 for x in range(COUNT) if x != guilty]:
        return f"others: {found}"
    if reason := wrong_outcome(death, moment, found[guilty], pids):
        return f"{reason}: {found[guilty]!r}"
    if isinstance(found[guilty], (TaskTimeout, WorkerCrashed)):
        if front != "submit" and found[guilty].index != guilty:  # an executor's calls are numbered on
            return f"the task is {found[guilty].index}"
        if found[guilty].input != (items[guilty] if front == "submit" else (items[guilty],)):
            return f"the input is {found[guilty].input}"
    again = FRONTS[front](pool, [(x, None) for x in range(COUNT)], limit)
    if again != [x * 10 for x in range(COUNT)]:
        return f"afterwards: {again}"
    after = workers_of(front, pool)
    survived = before if is_survived(death, moment) else before - pids
    if not survived <= after:
        return f"workers {before} have become {after}, though only {pids} died"
    return None


def all_wrong(cases, folder):
    """Run cases, those of each front in a thread of its own, and return what went wrong."""
    found = []

    def run(front, pool, limited):
        for number, (death, moment, position, where) in enumerate(cases):
            if where == front:
                log = str(folder / f"{front} {number}")
                try:
                    reason = wrong(front, limited if death == "SIGSTOP" else pool, death, moment, position, log)
                except BaseException as error:
                    reason = repr(error)
                if reason is not None:
                    found.append(((death, moment, position, where), reason))

    with Pool(2) as pool, Pool(2, timeout=LIMIT) as slow, Executor(2) as calls, Executor(2, timeout=LIMIT) as limited:
        by_front = [("pmap", None, None), ("imap", pool, slow), ("submit", calls, limited)]
        threads = [threading.Thread(target=run, args=arguments) for arguments in by_front]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


def footprint():
    """Return how many processes, threads and descriptors there are, once those that are ending have ended."""
    nbparallel.backends.shutdown()
    gc.collect()
    own = psutil.Process()
    return len(own.children(recursive=True)), threading.active_count(), own.num_fds()
