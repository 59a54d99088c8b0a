"""The magics that map: ``%pmap`` and ``%%pfor``.

Registered by `load`. Each is a parser of its line over the public functions, so that whatever works in a cell works in
a script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from IPython.core.magic import (
    Magics,
    cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
    output_can_be_silenced,
)

from nbparallel import backends, config, mapping
from nbparallel.choice import check_chunksize
from nbparallel.notebook import body, cells, comprehension
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
    """``%pmap`` and ``%%pfor``."""

    #: What completes a line, by magic.
    words: ClassVar[Mapping[str, Iterable[str]]] = {"pmap": PMAP_OPTIONS, "pfor": PMAP_OPTIONS}

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
            assert self.shell is not None
            user = self.shell.user_ns
            function = read.function(user, local_ns)
            return self._map(function, read.inputs(user, local_ns), read.label, options)

    @no_var_expand
    @output_can_be_silenced
    @cell_magic
    def pfor(self, line: str, cell: str) -> list[Any] | None:
        """Compute the cell once for each item, in parallel, and return the list of the results.

        %%pfor [-j N] [-b NAME] [-o NAME] [--chunksize N] [--output HOW] [--seed N] NAME in ITERABLE ...
        body

        The body is computed by the workers. Its last expression is the item's result; `return x` ends an item early,
        and so does `continue`, whose result is None. The loops are those of a comprehension (several `for`s, `if`s and
        variables work), and they are evaluated here, in the notebook.

        The body is that of a function: it reads the notebook's variables, and what it assigns is the item's own and
        does not get into the notebook. So nothing is added up in there: it returns its part, and the results are added
        up afterwards. `!commands` work, with {x} and $x; other magics only on threads.

        Options, in front of the loops:
          -j, --workers N    how many workers; by default see %pworkers
          -b, --backend NAME where it is computed: processes (the default), threads, serial
          -o, --out NAME     store the list in a variable instead of returning it
          --chunksize N      how many items travel together; by default measured
          --output HOW       what the items print is shown live, ordered, or none of it; collect only keeps it
          --seed N           item i draws its random numbers from stream i of this seed

        Examples:
          %%pfor x in range(10)
          y = slow(x)
          y ** 2

          %%pfor -j 4 -o rows  name, path in files.items() if path.exists()
          table = load(path)
          if table.empty:
              continue
          name, table.mean()

        The same without the magic: the body as a function, and `pmap(function, iterable)`.
        """
        with hidden:
            options, text = split_options(line, PMAP_OPTIONS, "%%pfor")
            assert self.shell is not None
            user = self.shell.user_ns
            read = body.read(
                cells.running(self.shell, "%%pfor", line, cell),
                "%%pfor",
                self.shell.transform_cell,
                has_shell=(options.get("backend") or config.settings().backend) in ("threads", "serial"),
                in_loop=True,
            )
            loops = comprehension.parse_loops(text, read.names)
            function = read.function(user, loops.names)
            return self._map(function, loops.inputs(user), loops.label, options)

    def _map(
        self, function: Callable[..., Any], inputs: list[Iterable[Any]], label: str, options: dict[str, Any]
    ) -> list[Any] | None:
        assert self.shell is not None
        out = options.pop("out", None)
        found = mapping.pmap(function, *inputs, label=label, **options)
        if out is None:
            return found
        self.shell.user_ns[out] = found
        return None
