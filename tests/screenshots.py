"""Takes README's pictures of a notebook: ``python tests/screenshots.py`` writes `bar.png`, `error.png` and
`timeline.png` into `docs`. The timeline tells of all that the machine does: take it on one that is at rest.
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from lab import Cell, Lab, open_lab

DOCS = Path(__file__).parent.parent / "docs"

SETUP = """
import time
import nbparallel
from nbparallel import last_run, pmap

settings = nbparallel.configure(workers=2)
"""

BAR = """
def simulate(step):
    if step % 60 == 20:
        raise ArithmeticError("no convergence")
    time.sleep(4 if step == 30 else 0.05)
    return step**0.5

results = pmap(simulate, range(100), chunksize=1, on_error="return")
"""

ERROR = """
def share(row):
    total = sum(row)
    return max(row) / total

pmap(share, [[1, 2, 4], [0, 0, 0], [5, 8]])
"""

TIMELINE = """
def simulate(step):
    return sum(x * x for x in range(4_000_000 if step == 40 else 350_000))

results = pmap(simulate, range(41))
last_run().timeline()
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
        lab.page.set_viewport_size({"width": 1100, "height": 900})
        lab.run(SETUP)
        cell = lab.start(BAR)
        cell.shows("at task 30")
        cell.shows("Cancel")
        take(lab, cell, "bar")
        cell.wait()
        cell = lab.start(ERROR)
        cell.wait()
        take(lab, cell, "error")
        cell = lab.start(TIMELINE)
        cell.wait()
        picture = cell.outputs.locator("img").get_attribute("src") or ""
        (DOCS / "timeline.png").write_bytes(base64.b64decode(picture.partition(",")[2]))


def take(lab: Lab, cell: Cell, name: str) -> None:
    lab.page.mouse.move(0, 0)
    cell.box.screenshot(path=DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
