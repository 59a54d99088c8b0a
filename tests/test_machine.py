"""Effective cores and memory, read from control-group trees that each test builds for itself."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# By its full name: the package's attribute of this name is the function.
module = importlib.import_module("nbparallel.machine")

V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "33 24 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "34 24 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
GIB = 2**30


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a fake `/` and returns its path."""

    def build(cgroup: str, mounts: list[str], files: dict[str, str]) -> str:
        proc = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": "\n".join([*mounts, ""])}
        for name, text in (proc | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return str(tmp_path)

    return build


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the machine has 8 cores and that the mask allows them all."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(module, "_affinity", lambda: 8)


def cores(root: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    found = module.resources(root=root, environ=environ or {})
    return found.cores, found.reason


@pytest.mark.usefixtures("eight_cores")
class TestQuota:
    """The CPU quota of control groups."""

    def test_v2(self, tree):
        root = tree("0::/box\n", [V2], {"box/cpu.max": "300000 100000\n"})
        assert cores(root) == (3, "cgroup v2 quota 3.0 in /box")

    def test_v2_seen_from_inside_its_namespace(self, tree):
        assert cores(tree("0::/\n", [V2], {"cpu.max": "100000 100000\n"})) == (1, "cgroup v2 quota 1.0 in /")

    @pytest.mark.parametrize(
        ("inner", "outer", "expected"),
        [
            ("max 100000", "200000 100000", (2, "cgroup v2 quota 2.0 in /pods")),
            ("400000 100000", "200000 100000", (2, "cgroup v2 quota 2.0 in /pods")),
            ("200000 100000", "400000 100000", (2, "cgroup v2 quota 2.0 in /pods/pod1")),
        ],
    )
    def test_v2_an_ancestor_binds_too(self, tree, inner, outer, expected):
        files = {"pods/pod1/app/cpu.max": "max 100000", "pods/pod1/cpu.max": inner, "pods/cpu.max": outer}
        assert cores(tree("0::/pods/pod1/app\n", [V2], files)) == expected

    def test_v1(self, tree):
        files = {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        }
        root = tree("5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/other\n", [V1_CPU, V1_MEMORY], files)
        assert cores(root) == (3, "cgroup v1 quota 2.5 in /box")

    def test_v1_mounted_from_its_own_group_down(self, tree):
        mount = "33 24 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu"
        files = {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}
        assert cores(tree("4:cpu:/docker/abc\n", [mount], files)) == (2, "cgroup v1 quota 2.0 in /docker/abc")

    def test_v1_nested_below_the_mounted_group(self, tree):
        mount = "33 24 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu"
        files = {
            "cpu/job/cpu.cfs_quota_us": "100000",
            "cpu/job/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "200000",
            "cpu/cpu.cfs_period_us": "100000",
        }
        root = tree("4:cpu:/docker/abc/job\n", [mount], files)
        assert cores(root) == (1, "cgroup v1 quota 1.0 in /docker/abc/job")

    def test_a_group_whose_name_only_begins_alike_is_not_below_the_mount(self, tree):
        mount = "33 24 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu"
        files = {"cpu/def/cpu.cfs_quota_us": "100000", "cpu/def/cpu.cfs_period_us": "100000"}
        assert cores(tree("4:cpu:/docker/abcdef\n", [mount], files))[0] == 8

    def test_hybrid_v1_holds_the_cpu(self, tree):
        v2 = "41 24 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
        files = {
            "cpu,cpuacct/cpu.cfs_quota_us": "100000",
            "cpu,cpuacct/cpu.cfs_period_us": "50000",
            "unified/cgroup.procs": "1\n",
        }
        root = tree("4:cpu,cpuacct:/\n0::/\n", [V1_CPU, v2], files)
        assert cores(root) == (2, "cgroup v1 quota 2.0 in /")

    def test_a_process_outside_its_namespace_reads_the_mount_itself(self, tree):
        root = tree("0::/../../elsewhere\n", [V2], {"cpu.max": "200000 100000"})
        assert cores(root) == (2, "cgroup v2 quota 2.0 in /")

    def test_a_mount_point_with_a_space(self, tree):
        mount = V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/two\040words")
        root = tree("0::/\n", [mount], {"two words/cpu.max": "200000 100000"})
        assert cores(root)[0] == 2

    @pytest.mark.skipif(sys.platform == "win32", reason="a file's name has no colon there")
    def test_a_name_with_a_colon(self, tree):
        assert cores(tree("0::/a:b\n", [V2], {"a:b/cpu.max": "200000 100000"}))[1].endswith("in /a:b")

    @pytest.mark.parametrize(
        ("quota", "expected"), [("50000", 1), ("1000", 1), ("100000", 1), ("100001", 2), ("150000", 2)]
    )
    def test_a_part_of_a_core_counts_as_one(self, tree, quota, expected):
        assert cores(tree("0::/\n", [V2], {"cpu.max": f"{quota} 100000"}))[0] == expected

    @pytest.mark.parametrize(
        "text",
        ["", "max", "max 100000", "150000", "150000 0", "0 100000", "-1 100000", "a b", "nan nan", "\0"],
    )
    def test_no_quota_or_nonsense_is_no_bound(self, tree, text):
        assert cores(tree("0::/\n", [V2], {"cpu.max": text})) == (8, "all cores of the machine")

    @pytest.mark.parametrize("mounts", [["", "-", " - ", "a b c - cgroup2", "1 2 3 4 - cgroup2 x rw"], []])
    @pytest.mark.parametrize("cgroup", ["", "\n", "0", "0::", ":::", "x:cpu", "0::/"])
    def test_malformed_tables_are_no_bound(self, tree, cgroup, mounts):
        assert cores(tree(cgroup, mounts, {"cpu.max": "100000 100000"}))[0] == 8

    def test_a_group_no_path_can_name_is_no_bound(self, tree):
        assert cores(tree("0::/\0\n", [V2], {}))[0] == 8

    def test_a_quota_file_that_cannot_be_read_is_no_bound(self, tree):
        root = tree("0::/\n", [V2], {"cpu.max/child": "a directory stands in its place"})
        assert cores(root)[0] == 8

    @given(cgroup=st.text(), mount=st.text(), quota=st.text())
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_content_raises(self, tree, cgroup, mount, quota):
        def utf8(text: str) -> str:
            return text.encode(errors="replace").decode()

        root = tree(utf8(cgroup), [utf8(mount), V2], {"cpu.max": utf8(quota), "memory.max": utf8(quota)})
        assert module.resources(root=root, environ={"CPU_LIMIT": quota, "MEM_LIMIT": quota}).cores >= 1


@pytest.mark.usefixtures("eight_cores")
class TestOtherBounds:
    """The machine, the mask, CPU_LIMIT, Windows."""

    @pytest.mark.parametrize(
        ("limit", "expected"), [("2", 2), ("2.0", 2), ("0.5", 1), ("1.5", 2), (" 3 ", 3), ("8", 8), ("9", 8)]
    )
    def test_cpu_limit(self, tmp_path, limit, expected):
        number, reason = cores(str(tmp_path), {"CPU_LIMIT": limit})
        assert number == expected
        assert reason == (f"CPU_LIMIT={limit.strip()}" if expected < 8 else "all cores of the machine")

    @pytest.mark.parametrize("limit", ["", "0", "-1", "many", "inf", "nan", "1,5", "1e999"])
    def test_a_cpu_limit_that_says_nothing(self, tmp_path, limit):
        assert cores(str(tmp_path), {"CPU_LIMIT": limit}) == (8, "all cores of the machine")

    def test_the_mask(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_affinity", lambda: 3)
        assert cores(str(tmp_path)) == (3, "affinity mask: 3 of 8 cores")

    def test_the_least_wins(self, tree, monkeypatch):
        monkeypatch.setattr(module, "_affinity", lambda: 4)
        root = tree("0::/\n", [V2], {"cpu.max": "300000 100000"})
        assert cores(root, {"CPU_LIMIT": "5"})[0] == 3
        assert cores(root, {"CPU_LIMIT": "2"})[0] == 2

    def test_windows_waits_on_61_at_most(self):
        bound = module._core_bound(128, 128, None, {}, "win32")
        assert (bound.amount, bound.reason) == (61, "Windows waits on 61 workers at most")
        assert module._core_bound(128, 128, None, {}, "linux").amount == 128
        assert module._core_bound(4, 4, None, {}, "win32").amount == 4


class TestMemory:
    """The limit, and what is free under it."""

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        """Pretend that the machine has 16 GiB, of which 10 are available."""
        memory = psutil.virtual_memory()._replace(total=16 * GIB, available=10 * GIB)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    def test_no_limit(self, tree):
        found = module.resources(root=tree("0::/\n", [V2], {"memory.max": "max\n"}), environ={})
        assert (found.memory_total, found.memory_limit, found.memory_available) == (
            16 * GIB,
            16 * GIB,
            10 * GIB,
        )
        assert found.memory_reason == "all memory of the machine"

    def test_v2_leaves_out_idle_file_pages(self, tree):
        files = {
            "memory.max": str(4 * GIB),
            "memory.current": str(3 * GIB),
            "memory.stat": f"anon 5\ninactive_file {1 * GIB}\n",
        }
        found = module.resources(root=tree("0::/\n", [V2], files), environ={})
        assert (found.memory_limit, found.memory_available) == (4 * GIB, 2 * GIB)
        assert found.memory_reason == "cgroup v2 limit in /"

    def test_v2_the_tightest_level_wins(self, tree):
        files = {"a/b/memory.max": "max", "a/memory.max": str(2 * GIB), "memory.max": str(8 * GIB)}
        found = module.resources(root=tree("0::/a/b\n", [V2], files), environ={})
        assert (found.memory_limit, found.memory_reason) == (2 * GIB, "cgroup v2 limit in /a")

    def test_v1(self, tree):
        files = {
            "memory/box/memory.limit_in_bytes": str(3 * GIB),
            "memory/box/memory.usage_in_bytes": str(1 * GIB),
            "memory/box/memory.stat": "total_inactive_file 0\n",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        }
        found = module.resources(root=tree("5:memory:/box\n", [V1_MEMORY], files), environ={})
        assert (found.memory_limit, found.memory_available) == (3 * GIB, 2 * GIB)
        assert found.memory_reason == "cgroup v1 limit in /box"

    def test_mem_limit(self, tmp_path):
        found = module.resources(root=str(tmp_path), environ={"MEM_LIMIT": str(GIB)})
        assert (found.memory_limit, found.memory_available) == (GIB, GIB)
        assert found.memory_reason == f"MEM_LIMIT={GIB}"

    @pytest.mark.parametrize("limit", ["", "lots", "0", "-1", str(17 * GIB)])
    def test_a_mem_limit_that_says_nothing(self, tmp_path, limit):
        assert module.resources(root=str(tmp_path), environ={"MEM_LIMIT": limit}).memory_limit == 16 * GIB

    def test_used_up_is_zero_not_negative(self, tree):
        files = {"memory.max": str(GIB), "memory.current": str(2 * GIB)}
        assert module.resources(root=tree("0::/\n", [V2], files), environ={}).memory_available == 0

    def test_how_full_it_is_by_the_fullest_limit(self, tree):
        use = module.memory_use(lambda limit: 0, root=tree("0::/\n", [], {}), environ={})
        assert use == (6 * GIB, 16 * GIB, "all memory of the machine")
        assert use.share == 6 / 16
        files = {
            "a/memory.max": str(4 * GIB),
            "a/memory.current": str(3 * GIB),
            "a/memory.stat": f"inactive_file {GIB}\n",
            "memory.max": str(8 * GIB),
            "memory.current": str(5 * GIB),
        }
        root = tree("0::/a\n", [V2], files)
        assert module.memory_use(lambda limit: 0, root=root, environ={}) == (5 * GIB, 8 * GIB, "cgroup v2 limit in /")
        asked = []
        use = module.memory_use(lambda limit: asked.append(limit) or 9, root=root, environ={"MEM_LIMIT": "10"})
        assert (use, asked) == ((9, 10, "MEM_LIMIT=10"), [10])

    def test_shared_memory(self, tmp_path):
        assert module.resources(root=str(tmp_path), environ={}).shared_memory_free is None
        if hasattr(os, "statvfs"):
            (tmp_path / "dev" / "shm").mkdir(parents=True)
            free = module.resources(root=str(tmp_path), environ={}).shared_memory_free
            assert free is not None
            assert free > 0


class TestThisProcess:
    """The real machine, whatever it is."""

    def test_figures_are_sensible(self):
        found = module.resources()
        assert 1 <= found.cores <= found.host_cores
        assert 0 < found.memory_available <= found.memory_limit <= found.memory_total
        assert found.reason
        assert found.memory_reason

    def test_it_reads_as_a_table(self):
        found = module.resources()
        lines = repr(found).splitlines()
        assert [line[:15].rstrip() for line in lines] == ["cores", "memory", "shared memory"]
        assert lines[0].endswith(f"({found.reason})")

    def test_effective_cores_agrees(self, monkeypatch):
        monkeypatch.delenv("CPU_LIMIT", raising=False)
        assert module.effective_cores() == module.resources().cores
        monkeypatch.setenv("CPU_LIMIT", "0.5")
        assert module.effective_cores() == 1
        monkeypatch.delenv("CPU_LIMIT")
        assert module.effective_cores() == module.resources().cores

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system shows no affinity mask")
    def test_effective_cores_follows_the_mask(self):
        mask = os.sched_getaffinity(0)
        if len(mask) == 1:
            pytest.skip("one core: no smaller mask")
        try:
            os.sched_setaffinity(0, {min(mask)})
            assert module.effective_cores() == 1
            assert module.resources().reason.startswith("affinity mask: 1 of")
        finally:
            os.sched_setaffinity(0, mask)

    @pytest.mark.usefixtures("eight_cores")
    def test_the_quota_is_read_once_and_again_by_resources(self, monkeypatch):
        monkeypatch.setattr(module, "_quota", lambda root: None)
        module.resources()
        assert module.effective_cores() == 8
        monkeypatch.setattr(module, "_quota", lambda root: module._Bound(0.5, "resized"))
        assert module.effective_cores() == 8
        assert module.resources().reason == "resized"
        assert module.effective_cores() == 1
        monkeypatch.undo()
        module.resources()

    def test_import_is_light(self):
        code = """
import sys, importlib.util
spec = importlib.util.spec_from_file_location("alone", sys.argv[1])
sys.modules["alone"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.effective_cores(), module.blas_environment(2)
print([name for name in ("psutil", "numpy", "asyncio", "subprocess") if name in sys.modules])
"""
        command = [sys.executable, "-I", "-c", code, module.__file__]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"

    def test_examples(self):
        failed, tried = doctest.testmod(module)
        assert (failed, tried > 0) == (0, True)


class TestBlas:
    """Threads for each worker."""

    @pytest.fixture(autouse=True)
    def cores(self, monkeypatch):
        monkeypatch.setattr(module, "effective_cores", lambda: 8)

    @pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (5, 1), (8, 1), (100, 1)])
    def test_workers_times_threads_stay_within_the_cores(self, workers, threads):
        assert module.blas_threads_per_worker(workers) == threads
        assert module.blas_environment(workers, {}) == dict.fromkeys(module.BLAS_VARIABLES, str(threads))

    @pytest.mark.parametrize("workers", [0, -1])
    def test_no_workers(self, workers):
        with pytest.raises(ValueError, match=f"at least 1, not {workers}"):
            module.blas_environment(workers, {})

    @pytest.mark.parametrize(
        ("own", "expected"),
        [("1", "1"), ("4", "4"), ("6", "4"), ("", "4"), ("0", "4"), ("-2", "4"), ("x", "4")],
    )
    def test_a_smaller_setting_of_the_user_stays(self, own, expected):
        assert module.blas_environment(2, {"MKL_NUM_THREADS": own})["MKL_NUM_THREADS"] == expected
        assert module.blas_environment(2, {"MKL_NUM_THREADS": own})["BLIS_NUM_THREADS"] == "4"

    def test_omp_speaks_for_those_that_are_not_set(self):
        found = module.blas_environment(2, {"OMP_NUM_THREADS": "2,1", "MKL_NUM_THREADS": "3"})
        assert found["OMP_NUM_THREADS"] == "2,1"
        assert found["MKL_NUM_THREADS"] == "3"
        assert found["OPENBLAS_NUM_THREADS"] == "2"

    def test_the_environment_given_is_left_alone(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "64")
        environ = dict(os.environ)
        assert module.blas_environment(2)["OMP_NUM_THREADS"] == "4"
        assert os.environ == environ
