"""The magics of jobs: ``%%pbackground`` starts one, ``%pjobs`` lists them and does what is to be done with one.

Registered by `load`. They are parsers of their lines over `nbparallel.background` and `Job`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand, output_can_be_silenced

from nbparallel import jobs
from nbparallel.jobs import Job, background
from nbparallel.notebook import body, cells
from nbparallel.notebook.comprehension import short
from nbparallel.notebook.options import Option, split_options, variable_name
from nbparallel.tracebacks import hidden
from nbparallel.words import duration

_BACKEND = Option("backend", jobs.check_backend)
_OUT = Option("out", variable_name)
_LABEL = Option("label", str)
PBACKGROUND_OPTIONS = {"-b": _BACKEND, "--backend": _BACKEND, "-o": _OUT, "--out": _OUT, "--label": _LABEL}

#: Magics may be registered anew; what they have started stays.
_kept: dict[int, Job] = {}


@magics_class
class JobMagics(Magics):
    """``%%pbackground`` and ``%pjobs``."""

    words: ClassVar[Mapping[str, Iterable[str]]] = {
        "pbackground": PBACKGROUND_OPTIONS,
        "pjobs": ("all", "cancel", "done", "fetch", "forget"),
    }

    @no_var_expand
    @output_can_be_silenced
    @cell_magic
    def pbackground(self, line: str, cell: str) -> Job | None:
        """Run the cell in the background, and return at once.

        %%pbackground [-o NAME] [-b NAME] [--label TEXT]
        body

        It runs in a worker process of its own, with the notebook's variables as they are now. Its last expression is
        the job's result; `return x` ends it early. The body is that of a function: what it assigns stays there and
        does not get into the notebook, so let the last expression be what you need of it. What it prints appears
        below this cell. Stop ends other cells, not the job; a restart of the kernel does.

        Options:
          -o, --out NAME     store the job in a variable instead of returning it, which shows a Cancel button
          -b, --backend NAME where it runs: processes (the default), or threads: a thread of the notebook's process,
                             which can't be ended
          --label TEXT       what %pjobs calls it ("in quotes", if it has spaces); by default its first line

        Examples:
          %%pbackground -o job
          model = train(data)
          model, score(model)

          job.result()         waits for what the last expression was, or raises what went wrong
          await job            the same, without blocking the notebook
          job.done, job.state, job.output, job.cancel()

        The same without the magic: the body as a function, and `nbparallel.background(function)`.
        """
        with hidden:
            options, rest = split_options(line, PBACKGROUND_OPTIONS, "%%pbackground")
            if rest:
                raise UsageError(f"%%pbackground takes only options on its first line, not {rest}")
            assert self.shell is not None
            out = options.pop("out", None)
            read = body.read(
                cells.running(self.shell, "%%pbackground", line, cell),
                "%%pbackground",
                self.shell.transform_cell,
                has_shell=options.get("backend") == "threads",
                in_loop=False,
            )
            options.setdefault("label", read.first_line)
            job = background(read.function(self.shell.user_ns), **options)
            _kept[job.number] = job
            if out is None:
                return job
            self.shell.user_ns[out] = job
            return None

    @line_magic
    def pjobs(self, line: str) -> Any:
        """List the jobs in the background, or do something with one.

        %pjobs               number, state, time and label of each, and its result or its error
        %pjobs fetch 2       wait for job 2 and return its result, or raise its error
        %pjobs cancel 2      end job 2; `cancel all` ends all that run
        %pjobs forget 2      drop job 2 and its result from the list; `forget done` drops all that have ended

        Examples:
          model = %pjobs fetch 2
          %pjobs cancel all

        What `%%pbackground` has started is kept with its result until it is forgotten, or the kernel ends.
        `%%pbackground` and `nbparallel.background` start jobs.
        """
        with hidden:
            match line.split():
                case []:
                    print(overview())
                case ["fetch", number]:
                    return _find(number).result()
                case ["cancel", which]:
                    ended = [job for job in _these(which, "all", done=False) if job.cancel()]
                    print(_count(ended, "cancelled"))
                case ["forget", which]:
                    chosen = _these(which, "done", done=True)
                    if running := [job.number for job in chosen if not job.done]:
                        raise UsageError(f"%pjobs: job {running[0]} is running: cancel it first")
                    for job in chosen:
                        _kept.pop(job.number, None)
                        jobs.forget(job)
                    print(_count(chosen, "forgotten"))
                case _:
                    raise UsageError("%pjobs takes fetch, cancel or forget and the number of a job, or nothing")
            return None


def overview() -> str:
    """Return the jobs as lines of text."""
    found = jobs.known()
    if not found:
        return "no jobs: %%pbackground starts one"
    rows = [
        ("job", "state", "time", "label", "result"),
        *((str(job.number), job.state, duration(job.seconds), short(job.label), short(job.outcome())) for job in found),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _find(number: str) -> Job:
    found = {str(job.number): job for job in jobs.known()}
    if number not in found:
        raise UsageError(f"%pjobs: there is no job {number}; there are: {', '.join(found) or 'none'}")
    return found[number]


def _these(which: str, word: str, *, done: bool) -> list[Job]:
    """Return one job, by its number, or by the word all that have ended or have not."""
    return [job for job in jobs.known() if job.done == done] if which == word else [_find(which)]


def _count(found: list[Job], what: str) -> str:
    return f"{', '.join(f'job {job.number}' for job in found) or 'no job'} {what}"
