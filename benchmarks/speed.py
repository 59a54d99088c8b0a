"""Speed against the peers, in one run: ``python benchmarks/speed.py [--repeats N] [measure ...]``.

Each figure is taken in a fresh interpreter whose ``__main__`` has no file, as in a notebook, with two workers; the
peers take turns, and the median over the repeats is printed with its ratio to this package's. Absolute figures drift
from machine to machine and from minute to minute: only the ratios mean something. A peer that is not installed, or
fails under its usual idiom, shows as ``-``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterable

PRELUDE = """
import time, sys
clock = time.perf_counter

def identity(x):
    return x

def job(_):
    res = 0
    for i in range(10000000):
        res += i+i**2+i**3
    return res
"""

#: What a peer imports, how it makes `map_(function, inputs)`, and how `submit(function, input)`, for which
#: ``.result()`` waits.
PEERS = {
    "nbparallel": (
        "from nbparallel import Executor, pmap",
        "map_ = lambda f, xs: pmap(f, xs, workers=2, progress=False)",
        "submit = Executor(2).submit",
    ),
    "loky": (
        "import loky",
        "map_ = lambda f, xs: list(loky.get_reusable_executor(2).map(f, xs, chunksize=-(-len(xs) // 8)))",
        "submit = loky.get_reusable_executor(2).submit",
    ),
    "joblib": (
        "from joblib import Parallel, delayed",
        "map_ = lambda f, xs: Parallel(2)(delayed(f)(x) for x in xs)",
        "",
    ),
    "standard Pool, fork": (
        "import multiprocessing, types",
        "map_ = multiprocessing.get_context('fork').Pool(2).map",
        "pool = multiprocessing.get_context('fork').Pool(2)\n"
        "submit = lambda f, x: types.SimpleNamespace(result=pool.apply_async(f, (x,)).get)",
    ),
    "standard futures, fork": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor",
        "pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork'))\n"
        "map_ = lambda f, xs: list(pool.map(f, xs, chunksize=-(-len(xs) // 8)))",
        "submit = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')).submit",
    ),
}

#: Measure to (what it tells, its unit, the script after the peer's own lines; ``began`` is before its pool is made).
MEASURES = {
    "first": (
        "start to first result in a fresh process",
        "ms",
        "map_(identity, [1, 2])\nvalue = (clock() - began) * 1e3",
    ),
    "task": (
        "one warm task: submit and wait",
        "µs",
        "[submit(identity, i).result() for i in range(200)]\n"
        "began = clock()\n"
        "[submit(identity, i).result() for i in range(1000)]\n"
        "value = (clock() - began) * 1e3",
    ),
    "tiny": (
        "100,000 tiny tasks in one map, warm",
        "ms",
        "xs = list(range(100000))\nmap_(identity, xs)\n"
        "began = clock()\nmap_(identity, xs)\nvalue = (clock() - began) * 1e3",
    ),
    "jobs": (
        "two jobs of ten million steps: times faster than serial",
        "×",
        "map_(identity, [1, 2])\n"
        "began = clock()\nserial = [job(0), job(1)]\nmiddle = clock()\nparallel = map_(job, [0, 1])\nend = clock()\n"
        "assert serial == parallel == [2499999833333358333330000000] * 2\n"
        "value = (middle - began) / (end - middle)",
    ),
}


def measure(peer: str, name: str) -> float | None:
    """Return one figure, taken in an interpreter of its own; `None` if the peer can't do it."""
    imports, mapper, submitter = PEERS[peer]
    script = MEASURES[name][2]
    maker = submitter if "submit(" in script else mapper
    lines = [PRELUDE, imports, "began = clock()", maker, script, "print('value', value, flush=True)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=600, check=False
    )
    values = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("value ")]
    return float(values[0]) if values else None


def compare(names: Iterable[str], repeats: int) -> None:
    """Print a table per measure."""
    for name in names:
        what, unit, _ = MEASURES[name]
        taken: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for _ in range(repeats):
            for peer, values in taken.items():
                value = measure(peer, name)
                if value is not None:
                    values.append(value)
        own = statistics.median(taken["nbparallel"])
        print(f"\n{what} [{unit}; median of {repeats}]")
        for peer, values in taken.items():
            if not values:
                print(f"  {peer:24} {'-':>10}")
                continue
            median = statistics.median(values)
            print(
                f"  {peer:24} {median:10.2f}   {median / own:6.2f} × nbparallel   ({min(values):.2f}–{max(values):.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="nbparallel against its peers, in one run.")
    parser.add_argument("measures", nargs="*", default=list(MEASURES), metavar="measure", help=", ".join(MEASURES))
    parser.add_argument("--repeats", type=int, default=5, help="how often each figure is taken (default 5)")
    options = parser.parse_args()
    unknown = set(options.measures) - set(MEASURES)
    if unknown:
        parser.error(f"unknown measure {', '.join(sorted(unknown))}; known: {', '.join(MEASURES)}")
    compare(options.measures, options.repeats)


if __name__ == "__main__":
    main()
