"""Processes and queues of `nbparallel.multiprocessing`, as ratios to the standard module's, in one run.

    python benchmarks/processes.py [--repeats N]

Each row is measured in turn, ours and theirs; the figure is the median of the ratios. The functions are those of a
script, which the standard module can import.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import nbparallel

ITEMS = 20_000
BLOCK = bytes(10_000_000)
BLOCKS = 10


def nothing() -> None:
    pass


def fill(queue: Any, items: list[Any]) -> None:
    for item in items:
        queue.put(item)


def start_and_join(context: Any) -> None:
    process = context.Process(target=nothing)
    process.start()
    process.join()


def four_at_once(context: Any) -> None:
    processes = [context.Process(target=nothing) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def through_a_queue(context: Any, items: list[Any]) -> None:
    queue = context.Queue()
    process = context.Process(target=fill, args=(queue, items))
    process.start()
    for _ in items:
        queue.get()
    process.join()


def small_items(context: Any) -> None:
    through_a_queue(context, list(range(ITEMS)))


def large_items(context: Any) -> None:
    through_a_queue(context, [BLOCK] * BLOCKS)


def seconds(work: Callable[[Any], None], context: Any) -> float:
    began = time.perf_counter()
    work(context)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    rows = {
        "start and join a process": start_and_join,
        "start and join four at once": four_at_once,
        f"{ITEMS:,} numbers through a queue": small_items,
        f"{BLOCKS} blocks of {len(BLOCK) / 1e6:.0f} MB through a queue": large_items,
    }
    print(f"{'':40}{'method':>12}{'ours':>10}{'standard':>10}{'ratio':>8}")
    for method in multiprocessing.get_all_start_methods():
        ours, standard = nbparallel.multiprocessing.get_context(method), multiprocessing.get_context(method)
        for title, work in rows.items():
            (
                seconds(work, ours),
                seconds(work, standard),
            )  # the servers that fork, and the trackers, are there from now on
            pairs = [(seconds(work, ours), seconds(work, standard)) for _ in range(repeats)]
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            print(f"{title:40}{method:>12}{mine * 1e3:>7.0f} ms{theirs * 1e3:>7.0f} ms{ratio:>8.2f}")


if __name__ == "__main__":
    main()
