"""What a bar costs: ``python benchmarks/progress.py [--repeats N]``.

100,000 tasks on two workers, in a real kernel, with a bar and without in turns; a row for each length of task. Printed
are the medians, the median of the ratios, the ratio of the processor time of the kernel and its workers, and how often
a bar moved in a second. On a machine with other work the times show more noise than the bar's cost; the processor time
shows less.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from jupyter_client.manager import start_new_kernel

STEPS = (0, 100, 300)  # of a loop in each task

CELL = """
import time
import psutil
from nbparallel import configure, pmap

configure(workers=2)

def task(x):
    y = 0
    for i in range({steps}):
        y += i * x
    return y

for shown in (False, True):
    pmap(task, range(100_000), progress=shown)
"""

MEASURE = """
def used():
    workers = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in workers)

began, before = time.perf_counter(), used()
pmap(task, range(100_000), progress={shown})
print(time.perf_counter() - began, used() - before)
"""


def main(repeats: int) -> None:
    manager, client = start_new_kernel()
    try:
        for steps in STEPS:
            run(client, CELL.format(steps=steps))
            pairs = [(measure(client, False), measure(client, True)) for _ in range(repeats)]
            without, with_bar = (statistics.median(each[side][0] for each in pairs) for side in (0, 1))
            ratio = statistics.median(shown[0] / hidden[0] for hidden, shown in pairs)
            cpu = sum(shown[1] for _, shown in pairs) / sum(hidden[1] for hidden, _ in pairs)
            rate = max(shown[2] / shown[0] for _, shown in pairs)
            times = f"{without:7.3f} s without, {with_bar:7.3f} s with a bar"
            print(f"{times}: {ratio:5.3f}; processor {cpu:5.3f}; {rate:4.1f} moves a second", flush=True)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def measure(client: Any, shown: bool) -> tuple[float, float, int]:
    """Return how long a map took, the processor time that it used, both in seconds, and how often its bar moved."""
    messages = run(client, MEASURE.format(shown=shown))
    text = "".join(message["content"]["text"] for message in messages if message["msg_type"] == "stream")
    moves = sum("value" in message["content"]["data"].get("state", {}) for message in messages if is_update(message))
    seconds, used = map(float, text.split())
    return seconds, used, moves


def is_update(message: dict[str, Any]) -> bool:
    return message["msg_type"] == "comm_msg" and message["content"]["data"].get("method") == "update"


def run(client: Any, code: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    reply = client.execute_interactive(code, output_hook=messages.append)
    if reply["content"]["status"] != "ok":
        raise SystemExit("\n".join(reply["content"]["traceback"]))
    return messages


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    main(parser.parse_args().repeats)
