"""The magics that map: ``%pmap``.

Registered by `load`. Each is a parser of its line over the public functions, so that whatever works in a cell works in
a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from IPython.core.magic import (
    Magics,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
    output_can_be_silenced,
)

from nbparallel import backends, config, mapping
from nbparallel.choice import check_chunksize
from nbparallel.notebook import comprehension
from nbparallel.notebook.options import Option, split_options, variable_name, whole_number
from nbparallel.tracebacks import hidden

_WORKERS = Option("workers", lambda text: config.check_workers(whole_number(text)))
_BACKEND = Option("backend", backends.check)
_OUT = Option("out", variable_name)
PMAP_OPTIONS = {
    "-j": _WORKERS,
    "--workers": _WORKERS,
    "-b": _BACKEND,
    "--backend": _BACKEND,
    "-o": _OUT,
    "--out": _OUT,
    "--chunksize": Option("chunksize", lambda text: check_chunksize(text if text == "auto" else whole_number(text))),
    "--output": Option("output", lambda text: config.check_output(None if text == "none" else text)),
    "--seed": Option("seed", lambda text: mapping.check_seed(whole_number(text))),
}


@magics_class
class MapMagics(Magics):
    """``%pmap``."""

    #: What completes a line, by magic.
    words: ClassVar[Mapping[str, Iterable[str]]] = {"pmap": PMAP_OPTIONS}

    @no_var_expand
    @needs_local_scope
    @output_can_be_silenced
    @line_magic
    def pmap(self, line: str, local_ns: dict[str, Any] | None = None) -> list[Any] | None:
        """Compute a comprehension in parallel, and return its list.

        %pmap [-j N] [-b NAME] [-o NAME] [--chunksize N] [--output HOW] [--seed N] EXPRESSION for NAME in ITERABLE ...

        The expression is computed by the workers, for each item. The iterables and the conditions are evaluated here,
        in the notebook. Several `for`s, `if`s and variables (`for a, b in pairs`) work as in any comprehension, and
        nothing in it is changed: no {} or $ is expanded.

        Options, in front of the expression:
          -j, --workers N    how many workers; by default see %pworkers
          -b, --backend NAME where it is computed: processes (the default), threads, serial
          -o, --out NAME     store the list in a variable instead of returning it
          --chunksize N      how many items travel together; by default measured
          --output HOW       what the tasks print is shown live, ordered, or none of it; collect only keeps it
          --seed N           item i draws its random numbers from stream i of this seed

        An expression that begins with a minus goes behind a `--` of its own.

        Examples:
          %pmap square(x) for x in range(10)
          roots = %pmap x ** 0.5 for x in numbers if x >= 0
          %pmap -j 4 -o table  f(a, b) for a in range(3) for b in range(4)
          %pmap --seed 1  throw_dice() for _ in range(100)

        The same without the magic: `pmap(square, range(10))`.
        """
        with hidden:
            options, text = split_options(line, PMAP_OPTIONS, "%pmap")
            read = comprehension.parse(text.rstrip("; "))  # IPython takes a semicolon at the end for silence
            out = options.pop("out", None)
            assert self.shell is not None
            user = self.shell.user_ns
            function = read.function(user, local_ns)
            found = mapping.pmap(function, *read.inputs(user, local_ns), label=read.label, **options)
            if out is None:
                return found
            user[out] = found
            return None
