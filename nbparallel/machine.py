"""What this process may use: cores, memory, shared memory, and the rule that set each figure.

Every default number of workers, and every cap on BLAS threads, comes from here: the engine, the backends,
`%pworkers` and `nbparallel info` call it. It may import nothing else of the package but `errors`, and nothing
heavy at import (each worker imports it at start-up): psutil waits until it's needed.

A container's limits live in control groups, a tree of directories: a process is in one of them, and each
ancestor's limit binds it too. `root` is the directory that stands for `/`, so that a test can build a tree.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from nbparallel.words import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "BLAS_VARIABLES",
    "MemoryUse",
    "Resources",
    "blas_environment",
    "blas_threads_per_worker",
    "effective_cores",
    "memory_use",
    "resources",
]

BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""The environment variables from which numeric libraries size their thread pools when they're loaded."""

# WaitForMultipleObjects takes at most 64 handles. CPython's ProcessPoolExecutor leaves some for itself and
# stops at 61 workers (`_MAX_WINDOWS_WORKERS`).
WINDOWS_CORES = 61


class _Bound(NamedTuple):
    """One limit: `amount` is cores or bytes, `reason` says in words where it was read."""

    amount: float
    reason: str


class MemoryUse(NamedTuple):
    """How full one limit on memory is: `used` of `limit` bytes; `reason` says in words what limits."""

    used: int
    limit: int
    reason: str

    @property
    def share(self) -> float:
        """Return the used part of the limit, 1 where nothing is left."""
        return self.used / self.limit


class _Group(NamedTuple):
    """One control group that binds this process: its cgroup version, its name there, its directory here."""

    version: int
    name: str
    directory: str

    def read(self, file: str) -> str:
        return _read(os.path.join(self.directory, file))


@dataclass(frozen=True, slots=True, repr=False)
class Resources:
    """What this process may use now. Sizes are in bytes.

    Attributes:
        cores: how many workers can compute at the same time; at least 1.
        reason: the bound that set `cores`, in words.
        host_cores: the machine's logical cores, whoever may use them.
        memory_total: the machine's memory.
        memory_limit: the most that this process and its relatives may hold, never more than `memory_total`.
        memory_available: what can still be taken without swapping or passing `memory_limit`.
        memory_reason: the bound that set `memory_limit`, in words.
        shared_memory_free: free bytes in `/dev/shm`, None where the system has none.
    """

    cores: int
    reason: str
    host_cores: int
    memory_total: int
    memory_limit: int
    memory_available: int
    memory_reason: str
    shared_memory_free: int | None

    def __repr__(self) -> str:
        free, limit = human_size(self.memory_available), human_size(self.memory_limit)
        shared = "no /dev/shm" if self.shared_memory_free is None else f"{human_size(self.shared_memory_free)} free"
        return (
            f"cores          {self.cores} of {self.host_cores} ({self.reason})\n"
            f"memory         {free} free of {limit} ({self.memory_reason})\n"
            f"shared memory  {shared}"
        )


def resources(*, root: str = "/", environ: Mapping[str, str] | None = None) -> Resources:
    """Read afresh how many cores and how much memory this process may use.

    The cores are the least of the affinity mask, the CPU quota of each control group above this process,
    `CPU_LIMIT` (JupyterHub and Binder set it) and, on Windows, 61. A limit that can't be read or understood
    is passed over: nothing here raises.

    Args:
        root: the directory that stands for `/`; tests give their own.
        environ: where `CPU_LIMIT` and `MEM_LIMIT` are looked up; `os.environ` by default.

    Returns:
        The figures, and in words which bound set them.

    Example:
        >>> resources()  # doctest: +SKIP
        cores          1 of 64 (cgroup v2 quota 1.0 in /kubepods/pod42)
        memory         1.6 GiB free of 2.0 GiB (cgroup v2 limit in /kubepods/pod42)
        shared memory  64 MiB free
    """
    environ = os.environ if environ is None else environ
    if root == "/":
        _own_quota.cache_clear()  # effective_cores() must not go on with a figure older than the one shown
    host = os.cpu_count() or 1
    cores = _core_bound(_affinity(), host, _quota(root), environ, sys.platform)
    total, memory, available = _memory(root, environ)
    return Resources(
        cores=int(cores.amount),
        reason=cores.reason,
        host_cores=host,
        memory_total=total,
        memory_limit=int(memory.amount),
        memory_available=available,
        memory_reason=memory.reason,
        shared_memory_free=_shared_memory_free(root),
    )


def effective_cores() -> int:
    """Return how many workers can compute at the same time: `resources().cores`, cheaply.

    The affinity mask and `CPU_LIMIT` are looked up at each call. The control groups are read once per process
    and again by each `resources()`: their quota changes only when somebody resizes the container.

    Returns:
        A number of cores, at least 1.
    """
    host = os.cpu_count() or 1
    return int(_core_bound(_affinity(), host, _own_quota(), os.environ, sys.platform).amount)


def blas_threads_per_worker(workers: int) -> int:
    """Return the threads that each of `workers` may give to BLAS: workers x threads stays within the cores.

    Raises:
        ValueError: if `workers` is less than 1.

    Example:
        On 8 cores, 3 workers get 2 threads each, and 16 workers get 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    return max(1, effective_cores() // workers)


def blas_environment(workers: int, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that hold each worker's numeric libraries to its share of the cores.

    A user's own smaller setting stays. `OMP_NUM_THREADS` also speaks for the variables that aren't set, as
    OpenBLAS, MKL, BLIS and numexpr fall back on it: an `OPENBLAS_NUM_THREADS` of ours must not outvote it.

    Args:
        workers: how many workers share the cores.
        environ: the settings that the user already has; `os.environ` by default.

    Returns:
        A value for each of `BLAS_VARIABLES`, to lay over a worker's environment. Nothing is changed here.

    Raises:
        ValueError: if `workers` is less than 1.

    Example:
        >>> blas_environment(10_000, {"OMP_NUM_THREADS": "4"})["MKL_NUM_THREADS"]
        '1'
    """
    environ = os.environ if environ is None else environ
    share = blas_threads_per_worker(workers)
    general = environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # "4,2" is one number a nesting level
    result = {}
    for name in BLAS_VARIABLES:
        own = environ.get(name) or general
        threads = _positive(own.partition(",")[0])
        result[name] = own.strip() if threads is not None and threads <= share else str(share)
    return result


# ---- cores


def _affinity() -> int:
    """Count the logical cores that the system lets this process run on."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1  # counts the mask; PYTHON_CPU_COUNT and -X cpu_count overrule it
    elif hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    else:  # macOS has no mask, and Python doesn't show the one of Windows
        return os.cpu_count() or 1


def _core_bound(affinity: int, host: int, quota: _Bound | None, environ: Mapping[str, str], platform: str) -> _Bound:
    """Return the tightest bound on cores, rounded up to a whole number; of equals, the first named wins."""
    bounds = [_Bound(host, "all cores of the machine")]
    if affinity != host:
        bounds.append(_Bound(affinity, f"affinity mask: {affinity} of {host} cores"))
    if quota is not None:
        bounds.append(quota)
    limit = _positive(environ.get("CPU_LIMIT", ""))
    if limit is not None:
        # JupyterHub's Spawner.get_env() writes str(float): "0.5", "2.0".
        bounds.append(_Bound(limit, f"CPU_LIMIT={environ['CPU_LIMIT'].strip()}"))
    if platform == "win32":
        bounds.append(_Bound(WINDOWS_CORES, f"Windows waits on {WINDOWS_CORES} workers at most"))
    # A quota of 1.5 rounds up to 2, as in the JVM (cgroupUtil_linux.cpp: ceilf(quota / period)) and loky:
    # a second worker uses the half core that one alone would leave idle.
    return min((_Bound(max(1, math.ceil(b.amount)), b.reason) for b in bounds), key=lambda b: b.amount)


@cache
def _own_quota() -> _Bound | None:
    """Remember this process's quota: finding it is some ten small reads, 0.1 ms, where the rest is 10 µs."""
    return _quota("/")


def _quota(root: str) -> _Bound | None:
    """Return the smallest CPU quota, in cores, of the control groups that this process is in."""
    bounds = []
    for group in _groups(root, "cpu"):
        if group.version == 2:  # "max 100000", or "150000 100000": microseconds of CPU in each period
            quota, _, period = group.read("cpu.max").partition(" ")
        else:  # -1 where there's no quota
            quota, period = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
        granted, window = _positive(quota), _positive(period)
        if granted and window:
            cores = granted / window
            bounds.append(_Bound(cores, f"cgroup v{group.version} quota {round(cores, 2)} in {group.name}"))
    return min(bounds, key=lambda bound: bound.amount, default=None)


# ---- memory


def memory_use(held: Callable[[int], int], *, root: str = "/", environ: Mapping[str, str] | None = None) -> MemoryUse:
    """Read how full the fullest limit on memory is: the machine's own size, a control group's, or `MEM_LIMIT`.

    Args:
        held: returns what is held of `MEM_LIMIT`, which is its argument: it is nowhere to be read.
        root: the directory that stands for `/`; tests give their own.
        environ: where `MEM_LIMIT` is looked up; `os.environ` by default.
    """
    uses = _memory_uses(root)
    limit = _memory_variable(os.environ if environ is None else environ)
    if limit is not None:
        uses.append(MemoryUse(held(int(limit.amount)), int(limit.amount), limit.reason))
    return max(uses, key=lambda use: use.share)


def _memory(root: str, environ: Mapping[str, str]) -> tuple[int, _Bound, int]:
    """Return the machine's memory, the tightest limit on it, and what is free under all of them, in bytes."""
    uses = _memory_uses(root)
    bounds = [_Bound(use.limit, use.reason) for use in uses]
    available = min(use.limit - use.used for use in uses)
    limit = _memory_variable(environ)
    if limit is not None:
        bounds.append(limit)
        available = min(available, int(limit.amount))
    return uses[0].limit, min(bounds, key=lambda bound: bound.amount), max(0, available)


def _memory_variable(environ: Mapping[str, str]) -> _Bound | None:
    limit = _positive(environ.get("MEM_LIMIT", ""))
    return None if limit is None else _Bound(limit, f"MEM_LIMIT={environ['MEM_LIMIT'].strip()}")


def _memory_uses(root: str) -> list[MemoryUse]:
    """Return how full the machine's memory is, and each control group's with a limit below that."""
    import psutil

    machine = psutil.virtual_memory()
    uses = [MemoryUse(machine.total - machine.available, machine.total, "all memory of the machine")]
    for group in _groups(root, "memory"):
        # v1 names no limit by a number near 2**63, which the machine's total undercuts.
        size, used, cached = (
            ("memory.max", "memory.current", "inactive_file")
            if group.version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        limit = _positive(group.read(size))
        if limit is not None and limit < machine.total:
            # Idle file pages count as used but go at the first need: kubelet's working set omits them too.
            statistics = dict(line.partition(" ")[::2] for line in group.read("memory.stat").splitlines())
            held = (_positive(group.read(used)) or 0) - (_positive(statistics.get(cached, "")) or 0)
            uses.append(MemoryUse(max(0, int(held)), int(limit), f"cgroup v{group.version} limit in {group.name}"))
    return uses


def _shared_memory_free(root: str) -> int | None:
    """Return the free bytes of the file system under `/dev/shm`; containers often give it 64 MB."""
    if not hasattr(os, "statvfs"):  # Windows
        return None
    try:
        status = os.statvfs(os.path.join(root, "dev/shm"))
    except OSError:  # macOS has no /dev/shm
        return None
    return int(status.f_bavail * status.f_frsize)


# ---- control groups


def _groups(root: str, controller: str) -> Iterator[_Group]:
    """Yield the groups that bind this process for `controller`, innermost first, in every mounted hierarchy.

    A v1 hierarchy belongs to named controllers; the one v2 hierarchy to all that v1 hasn't taken. A hybrid
    system mounts both, but only one of them holds the controller's files: reads in the other come back empty.
    """
    membership: dict[str, str] = {}  # "0::/path" is v2, under the empty name; "4:cpu,cpuacct:/path" is v1
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        membership.update(dict.fromkeys(controllers.split(","), path))
    for line in _read(os.path.join(root, "proc/self/mountinfo")).splitlines():
        where, what = (half.split() for half in line.partition(" - ")[::2])
        if len(where) < 5 or len(what) < 3:
            continue
        if what[0] == "cgroup2":
            version, own = 2, membership.get("")
        elif what[0] == "cgroup" and controller in what[2].split(","):
            version, own = 1, membership.get(controller)
        else:
            continue
        if own is None:
            continue
        # The mount shows the hierarchy from `top` down. Where our path isn't below it (a namespace, a mount
        # handed in from outside), the mount itself is the nearest that we can see.
        top, point = _unescaped(where[3]).rstrip("/"), _unescaped(where[4]).lstrip("/")
        below = own.removeprefix(top) if f"{own}/".startswith(f"{top}/") else ""
        parts = [part for part in below.split("/") if part]
        if ".." in parts:  # we were moved out of the namespace whose root this mount shows
            parts = []
        for depth in range(len(parts), -1, -1):
            name = "/".join([top, *parts[:depth]]) or "/"
            yield _Group(version, name, os.path.join(root, point, *parts[:depth]))


def _read(path: str) -> str:
    """Return a small file's stripped text, and nothing for one that can't be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except (OSError, ValueError):  # ValueError: a path with a null character
        return ""


def _unescaped(path: str) -> str:
    """Undo mountinfo's octal escapes of space, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _positive(text: str) -> float | None:
    """Return the number in `text` if it's finite and positive: "max", "-1", "" and nonsense are no limit."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
