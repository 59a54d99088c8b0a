"""What an initializer stores in a worker is there for every function that is called later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from roundtrip import Notebook, Worker, nb

__all__ = ["nb"]


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker for each test: what is stored stays."""
    worker = Worker()
    yield worker
    worker.close()


def test_assigned_filled_and_attached(nb: Notebook) -> None:
    nb.cell("""
        import threading
        settings = None
        rate = 2
        models, rows = {}, [1]
        class Model:
            cache = None
            def __init__(self, x): self.x = x
        def counted(x): return counted.start + x
        def prepare(value, model):
            global settings, made
            settings, made = value * rate, threading.Lock()
            models["a"] = model
            models["lock"] = made
            counted.start = 10
            Model.cache = {"of": value}
        def f(x): return settings + x, models["a"].x, models["lock"] is made, Model.cache, rows, rate
        def g(x): return f(x)[0], counted(x), type(models["a"]) is Model
        def h(): return models["a"]
    """)
    nb.worker.call(nb["prepare"], 50, nb["Model(7)"], first=True)
    assert nb.remote("f", 1) == (101, 7, True, {"of": 50}, [1], 2)
    assert nb.remote("g", 1) == (101, 11, True)
    assert nb.remote("counted", 2) == 12
    assert type(nb.remote("h")) is nb["Model"]
    assert nb["settings"] is None
    assert nb["models"] == {}
    # What it only read is still the notebook's, and so are definitions.
    nb.cell("""
        rate = 3
        rows.append(2)
        def f(x): return "anew", settings, rate, rows
        later = lambda: made is models["lock"]
    """)
    assert nb.remote("f", 1) == ("anew", 100, 3, [1, 2])
    assert nb.remote("later") is True


def test_one_that_raises(nb: Notebook) -> None:
    nb.cell("""
        limit = 1
        def prepare():
            global limit
            limit = 2
            raise RuntimeError("no licence")
        def f(): return limit
    """)
    with pytest.raises(RuntimeError, match="no licence"):
        nb.worker.call(nb["prepare"], first=True)
    assert nb.remote("f") == 1
