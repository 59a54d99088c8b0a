"""The suite's own alarm: a test that leaves something behind fails, and one that tidies up passes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="seen through Linux's /proc and /dev/shm")


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs one inner test under this suite's conftest, in a process of its own."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the conftest needs none, and they take a second
    shared_memory = pytester.mkdir("shm")  # its own: the tests that run beside this one use the system's
    text = CONFTEST.read_text(encoding="utf-8").replace("PATIENCE = 3.0", "PATIENCE = 0.3")
    pytester.makeconftest(text.replace('Path("/dev/shm")', f"Path({str(shared_memory)!r})"))

    def run(body: str, *options: str) -> pytest.RunResult:
        lines = "\n    ".join(body.strip().splitlines())
        pytester.makepyfile(
            f"import os, pathlib, subprocess, sys, threading\nKEPT = []\ndef test_inner():\n    {lines}\n"
        )
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    return run


def test_nothing_left(run):
    run("pass").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        pytest.param(
            # It ends when the inner pytest does, as that holds the other end of its standard input.
            'KEPT.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))',
            "*process *: *input()*",
            id="process",
        ),
        pytest.param(
            "child = subprocess.Popen([sys.executable, '-c', 'pass'])\n"
            "os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)\n"
            "KEPT.append(child)",
            "*process * (ended, but nobody waited for it)*",
            id="zombie",
            marks=LINUX,
        ),
        pytest.param(
            # The child starts a grandchild and ends: nobody's descendant, but it carries the session's mark.
            'code = \'import subprocess, sys; subprocess.Popen([sys.executable, "-c", "input()"])\'\n'
            "reader, writer = os.pipe()\n"
            "KEPT.append(writer)\n"
            "subprocess.run([sys.executable, '-c', code], stdin=reader, check=True)",
            "*process *: *input()*",
            id="orphan",
            marks=LINUX,
        ),
        pytest.param(
            "threading.Thread(target=threading.Event().wait, name='sits', daemon=True).start()",
            "*thread sits (daemon)*",
            id="daemon thread",
        ),
        pytest.param(
            "gate = threading.Event()\n"
            "threading.Thread(target=gate.wait, name='sits').start()\n"
            "threading.Timer(2, gate.set).start()",
            "*thread sits (not a daemon)*",
            id="thread",
        ),
        pytest.param(
            "KEPT.append(os.open(os.devnull, os.O_RDONLY))",
            "*descriptor * -> /dev/null*",
            id="descriptor",
            marks=LINUX,
        ),
    ],
)
def test_a_leak_is_an_error(run, body, named):
    result = run(body)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*left behind:*", named])


def test_a_name_in_shared_memory_is_an_error(run, pytester):
    name = pytester.path / "shm" / "left"
    result = run(f"pathlib.Path({str(name)!r}).touch()")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*name {name}*"])


@pytest.mark.parametrize(
    "body",
    [
        "threading.Thread(target=threading.Event().wait, args=(0.1,), daemon=True).start()",
        "subprocess.run([sys.executable, '-c', ''], check=True)",
        "reader, writer = os.pipe()\nos.close(reader)\nos.close(writer)",
        "cycle = [open(os.devnull)]\ncycle.append(cycle)",
        "from multiprocessing import resource_tracker\nresource_tracker.ensure_running()",
        "import tqdm\nfor _ in tqdm.tqdm(range(3), mininterval=0): pass",
    ],
    ids=["ends soon", "waited for", "closed", "only a cycle holds it", "resource tracker", "tqdm's monitor"],
)
def test_what_ends_in_time_or_is_meant_to_last_is_no_leak(run, body):
    run(body, "-W", "ignore::ResourceWarning").assert_outcomes(passed=1)


def test_what_a_wider_fixture_keeps_is_its_own(run, pytester):
    body = """
import pytest, subprocess, sys

CODE = '''
import subprocess, sys
for _ in sys.stdin:
    subprocess.Popen([sys.executable, "-c", "input()"])
    print(flush=True)
'''

@pytest.fixture(scope="module")
def child():
    pipes = dict.fromkeys(["stdin", "stdout"], subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", CODE], **pipes) as child:
        yield child

def test_first(child):
    pass

def test_its_child_starts_one_of_its_own(child):
    child.stdin.write(b"\\n")
    child.stdin.flush()
    child.stdout.readline()
"""
    pytester.makepyfile(body)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_what_a_wider_fixture_leaves_is_an_error_at_the_end(run, pytester):
    pytester.makepyfile(
        """
import pytest, subprocess, sys

KEPT = []

@pytest.fixture(scope="module")
def child():
    KEPT.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_one(child):
    pass
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*process *: *input()*"])


def test_storm_says_how_often(run, pytester):
    pytester.makepyfile("def test_storm(storm): print(f'{storm} times')")
    pytester.runpytest_subprocess("-s", "--storm", "7").stdout.fnmatch_lines(["*7 times*"])
    pytester.runpytest_subprocess("-s").stdout.fnmatch_lines(["*1 times*"])
