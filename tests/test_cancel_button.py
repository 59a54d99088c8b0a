"""The Cancel button beside a bar, in a kernel whose page is a plain client: silent, late, or with a subshell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipykernel.kernelbase
import pytest
from kernels import Kernel, Output


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel whose tasks wait for a file `go`; in it, `folder` is a `pathlib.Path` of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder=folder) as kernel:
        kernel.run(f"""
            import time
            from pathlib import Path
            import nbparallel
            from nbparallel import last_run, pmap, pmap_async
            from nbparallel.progress import panels

            nbparallel.configure(workers=2)
            panels.ASK_SECONDS = 0.01
            folder = Path({str(folder)!r})

            def waits(x):
                while x and not (folder / "go").exists():
                    time.sleep(0.002)
                return x
        """)
        yield kernel
        kernel.run("nbparallel.backends.shutdown()")


@pytest.fixture
def kernel(notebook: Kernel) -> Iterator[Kernel]:
    """The kernel, without the file and without buttons of before."""
    notebook.run("panels._left.clear(); panels._in_time.clear()")
    yield notebook
    (notebook.folder / "go").unlink(missing_ok=True)


def opened(output: Output) -> dict[str, str]:
    """Return the comms that a cell has opened, by the name of their models."""
    return {
        message["content"]["data"]["state"]["_model_name"]: message["content"]["comm_id"]
        for message in output.messages
        if message["msg_type"] == "comm_open" and "style" in message["content"]["data"]["state"]
    }


def updates(output: Output, name: str) -> list[Any]:
    """Return the values that a widget's property took on after it was made."""
    states = [message["content"]["data"]["state"] for message in output.messages if message["msg_type"] == "comm_msg"]
    return [state[name] for state in states if name in state]


def is_shown(output: Output) -> bool:
    return updates(output, "display") == [None]


def has_asked_again(output: Output) -> bool:
    return len([children for children in updates(output, "children") if len(children) == 2]) > 1


def say(kernel: Kernel, comm: str, data: dict[str, Any], subshell: str | None = None) -> None:
    """Send what a page would."""
    message = kernel.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
    if subshell is not None:
        message["header"]["subshell_id"] = subshell
    kernel.client.shell_channel.send(message)


def views(count: int) -> dict[str, Any]:
    return {"method": "update", "state": {"_view_count": count}, "buffer_paths": []}


CLICK = {"method": "custom", "content": {"event": "click"}}


def texts(output: Output) -> list[str]:
    """Return what a cell shows in the end."""
    found: dict[object, str] = {}
    for number, message in enumerate(output.messages):
        if message["msg_type"] in ("display_data", "update_display_data"):
            content = message["content"]
            found[content.get("transient", {}).get("display_id", number)] = content["data"]["text/plain"]
    return list(found.values())


def test_a_page_that_does_not_answer_has_no_button(kernel: Kernel) -> None:
    cell = kernel.send("x = pmap(waits, range(3), chunksize=1, progress=True, label='silent')")
    assert kernel.receive(lambda: has_asked_again(kernel.shown_by(cell)))
    (kernel.folder / "go").touch()
    output = kernel.wait(cell)
    assert "ButtonModel" in opened(output)
    assert not is_shown(output)
    headline, summary = texts(output)
    assert headline == "silent: 3 tasks on 2 workers"
    assert summary.startswith("3 ok in ")
    assert output.stdout == output.stderr == ""


def test_pages_that_never_answer_are_asked_no_more(kernel: Kernel) -> None:
    kernel.run("usual, panels.ASK_SECONDS = panels.ASK_SECONDS, 0")
    output = kernel.run("for _ in range(panels.MOST_LEFT): x = pmap(abs, range(3), progress=True)")
    assert "ButtonModel" in opened(output)
    output = kernel.run("x = pmap(abs, range(3), progress=True)")
    assert "ButtonModel" not in opened(output)
    assert "HTMLModel" in opened(output)
    assert kernel.run("panels.ASK_SECONDS = usual; len(panels._left) == panels.MOST_LEFT").result == "True"


def test_an_answer_that_comes_after_the_cell_shows_and_says_nothing(kernel: Kernel) -> None:
    cell = kernel.send("x = pmap(waits, range(3), chunksize=1, progress=True)")
    assert kernel.receive(lambda: "ButtonModel" in opened(kernel.shown_by(cell)))
    button = opened(kernel.shown_by(cell))["ButtonModel"]
    say(kernel, button, views(1))
    say(kernel, button, views(0))
    assert kernel.receive(lambda: has_asked_again(kernel.shown_by(cell)))
    (kernel.folder / "go").touch()
    output = kernel.wait(cell)
    assert not is_shown(output)
    output = kernel.run("panels.ASK_SECONDS = 0; x = pmap(abs, range(3), progress=True); panels.ASK_SECONDS = 0.01")
    closed = [message["content"]["comm_id"] for message in output.messages if message["msg_type"] == "comm_close"]
    assert button in closed
    assert output.stdout == output.stderr == ""


def test_a_page_with_a_subshell_has_a_button_that_cancels(kernel: Kernel) -> None:
    request = kernel.client.session.msg("create_subshell_request", {})
    if not hasattr(ipykernel.kernelbase.Kernel, "create_subshell_request"):
        pytest.skip("this ipykernel has no subshells")
    kernel.client.control_channel.send(request)
    reply = kernel.client.get_control_msg(timeout=20)
    subshell = reply["content"]["subshell_id"]
    kernel.run("""
        events = []
        get_ipython().events.register("post_execute", lambda: events.append(last_run().done))
    """)
    cell = kernel.send("events.clear(); pmap(waits, range(6), chunksize=1, progress=True, label='six')")
    assert kernel.receive(lambda: " 1/6 " in "".join(updates(kernel.shown_by(cell), "value")))
    assert kernel.receive(lambda: "ButtonModel" in opened(kernel.shown_by(cell)))
    assert not is_shown(kernel.shown_by(cell))
    say(kernel, opened(kernel.shown_by(cell))["ButtonModel"], views(1), subshell)
    assert kernel.receive(lambda: is_shown(kernel.shown_by(cell)))
    button = opened(kernel.shown_by(cell))["ButtonModel"]
    say(kernel, button, CLICK, subshell)
    output = kernel.wait(cell, fails=True)
    assert output.error.name == "CancelledError"
    assert output.error.value.startswith("six was cancelled: 1 ok, 5 not run in ")
    assert output.stdout == output.stderr == ""
    assert kernel.run("events").result == "[True]"  # for those who wait for a cell's end, only this cell has ended
    (kernel.folder / "go").touch()
    assert kernel.run("last_run().results[0], last_run().cancelled").result == "(0, True)"
    assert kernel.run("last_run().resume()").result == "[0, 1, 2, 3, 4, 5]"


def test_a_run_in_the_background_is_cancelled_between_cells(kernel: Kernel) -> None:
    cell = kernel.send("run = pmap_async(waits, range(6), chunksize=1, label='six')\nrun")
    output = kernel.wait(cell)
    assert is_shown(output)
    assert kernel.receive(lambda: " 1/6 " in "".join(updates(output, "value")))
    say(kernel, opened(output)["ButtonModel"], CLICK)
    assert kernel.receive(lambda: texts(output)[0].startswith("<Run six: cancelled, 1 ok, 5 not run in "))
    assert kernel.run("run.cancelled").result == "True"
    shown = [message["content"] for message in output.messages if message["msg_type"] == "update_display_data"]
    assert "six: cancelled, 1 ok, 5 not run" in shown[-1]["data"]["text/html"]
    assert shown[-1]["metadata"] == {"nbparallel": "run"}
    assert len(texts(output)) == 1
    assert output.stdout == output.stderr == ""


def test_without_widgets_a_run_in_the_background_is_text_that_ends_as_a_picture(kernel: Kernel) -> None:
    kernel.run("import sys; widgets = sys.modules.get('ipywidgets'); sys.modules['ipywidgets'] = None")
    cell = kernel.send("run = pmap_async(waits, range(6), chunksize=1, label='six')\nrun")
    output = kernel.wait(cell)
    (kernel.folder / "go").touch()
    assert kernel.receive(lambda: texts(output)[0].startswith("<Run six: done, 6 ok in "))
    assert opened(output) == {}
    kernel.run("sys.modules['ipywidgets'] = widgets")
