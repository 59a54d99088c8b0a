"""``%pcompare`` and ``%%pcompare``: parsers of a line and of a cell over `nbparallel.compare`; registered by `load`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
    output_can_be_silenced,
)

from nbparallel.choice import check_count
from nbparallel.comparison import compare
from nbparallel.comparison.result import Comparison
from nbparallel.notebook import body, cells, comprehension
from nbparallel.notebook.maps import PMAP_OPTIONS
from nbparallel.notebook.options import Option, split_options, whole_number
from nbparallel.tracebacks import hidden

_METHODS = Option("methods", compare.check_methods)
_REPEATS = Option("repeats", lambda text: check_count(whole_number(text), "repeats"))
PCOMPARE_OPTIONS = {
    "-m": _METHODS,
    "--methods": _METHODS,
    "-r": _REPEATS,
    "--repeats": _REPEATS,
    **{name: PMAP_OPTIONS[name] for name in ("-j", "--workers", "-o", "--out", "--seed")},
}


@magics_class
class ComparisonMagics(Magics):
    """``%pcompare`` and ``%%pcompare``."""

    #: What completes a line, by magic.
    words: ClassVar[Mapping[str, Iterable[str]]] = {"pcompare": PCOMPARE_OPTIONS}

    @no_var_expand
    @needs_local_scope
    @output_can_be_silenced
    @line_cell_magic
    def pcompare(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Comparison | None:
        """Compute the same serially and in parallel, and show which is faster and whether the answers agree.

        %pcompare [-m NAMES] [-r N] [-j N] [-o NAME] [--seed N] EXPRESSION for NAME in ITERABLE ...

        %%pcompare [-m NAMES] [-r N] [-j N] [-o NAME] [--seed N] NAME in ITERABLE ...
        body

        The line takes what `%pmap` takes, the cell what `%%pfor` takes. It is computed many times: by the serial loop,
        by threads and by worker processes, each once with fresh workers (the first run) and then again (the median).
        What it prints is shown once.

        Options, in front of the expression or the loops:
          -m, --methods NAMES  backends, with commas and no spaces: threads,processes,pathos; the serial loop is always
                               measured, since it is what the others are compared with
          -r, --repeats N      runs of each after its first; by default as many as 3 s of the loop hold, 1 to 7
          -j, --workers N      how many workers; by default see %pworkers
          -o, --out NAME       store the comparison in a variable instead of showing it
          --seed N             item i draws its random numbers from stream i of this seed

        Examples:
          %pcompare simulate(x) for x in range(100)
          %pcompare -m threads -j 8 fetch(url) for url in urls
          found = %pcompare --seed 1 throw_dice() for _ in range(50)

          %%pcompare -r 3 x in range(10)
          y = slow(x)
          y ** 2

        The same without the magic: `compare(simulate, range(100))`. Its `.rows`, `.verdict`, `.to_frame()` and
        `.plot()` have the figures, `.results` the answers.
        """
        with hidden:
            magic = "%pcompare" if cell is None else "%%pcompare"
            options, text = split_options(line, PCOMPARE_OPTIONS, magic)
            out = options.pop("out", None)
            assert self.shell is not None
            user = self.shell.user_ns
            if cell is None:
                read = comprehension.parse(text.rstrip("; "), magic)
                function, inputs, label = read.function(user, local_ns), read.inputs(user, local_ns), read.label
            else:
                lines = cells.running(self.shell, magic, line, cell)
                has_shell = {"serial", "threads"}.issuperset(options.get("methods", compare.METHODS))
                transform = self.shell.transform_cell
                made = body.read(lines, magic, transform, has_shell=has_shell, in_loop=True, on_threads="-m threads")
                loops = comprehension.parse_loops(text, made.names, magic)
                function, inputs, label = made.function(user, loops.names), loops.inputs(user), loops.label
            found = compare.compare(function, *inputs, label=label, **options)
            if out is None:
                return found
            user[out] = found
            return None
