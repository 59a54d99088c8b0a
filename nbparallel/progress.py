"""Waiting for a run with a bar: tqdm's, in whatever form suits the front end."""

from __future__ import annotations

import sys
from typing import Any

from nbparallel.config import Progress
from nbparallel.run import Run

#: A run that ends sooner shows no bar, in seconds.
QUIET_SECONDS = 0.5
#: Seconds between two moves of a bar.
BEAT_SECONDS = 0.1


def wait(run: Run, shown: Progress) -> None:
    """Wait until `run` is finished; show a bar if `shown` says so.

    Args:
        run: started.
        shown: True at once, ``"auto"`` after half a second where somebody looks, False never.
    """
    if shown is False or (shown == "auto" and not _somebody_looks()):
        run.wait()
        return
    if shown == "auto" and run.drive(lambda: run.done, beat=QUIET_SECONDS):
        return
    with _bar(run) as bar:
        try:
            while not run.drive(lambda: run.done, beat=BEAT_SECONDS):
                _move(bar, run)
        finally:
            _move(bar, run)


def _bar(run: Run) -> Any:
    from tqdm.auto import tqdm

    bar = tqdm(total=run.total, desc=run.label, unit="task", mininterval=0)
    bar.start_t -= run.seconds  # its rate is that of the whole run, not only of what was seen
    return bar


def _move(bar: Any, run: Run) -> None:
    if bar.total != run.total:
        bar.total = run.total
    if run.failures:
        bar.set_postfix_str(f"{len(run.failures)} failed", refresh=False)
    if run.completed > bar.n:
        bar.update(run.completed - bar.n)
    bar.refresh()


def _somebody_looks() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and type(shell).__name__ == "ZMQInteractiveShell":
        return True
    return sys.stderr is not None and sys.stderr.isatty()
