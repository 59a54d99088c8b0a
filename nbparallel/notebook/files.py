"""The magics that make a file of a cell: ``%%pmodule`` and ``%%pscript``. Registered by `load`.

Each is a parser of its line over a function, so that whatever works in a cell works in a script.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import ClassVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, no_var_expand

from nbparallel.notebook import modules, scripts
from nbparallel.notebook.options import Option, split_options, variable_name, whole_number
from nbparallel.tracebacks import hidden


def _seconds(text: str) -> float:
    try:
        return scripts.check_timeout(float(text))
    except ValueError:
        raise ValueError("this must be a number of seconds above 0") from None


PMODULE_OPTIONS = {"--force": Option("force", None)}
PSCRIPT_OPTIONS = {
    "--start": Option("start", scripts.check_start),
    "--timeout": Option("timeout", _seconds),
    "--max-processes": Option("max_processes", lambda text: scripts.check_max_processes(whole_number(text))),
    "--check": Option("check", None),
    "-o": Option("out", variable_name),
    "--out": Option("out", variable_name),
}


@magics_class
class FileMagics(Magics):
    """``%%pmodule`` and ``%%pscript``."""

    words: ClassVar[Mapping[str, Iterable[str]]] = {"pmodule": PMODULE_OPTIONS, "pscript": PSCRIPT_OPTIONS}

    @no_var_expand
    @cell_magic
    def pmodule(self, line: str, cell: str) -> None:
        """Write the cell to a module beside the notebook, and import it here and in the workers.

        %%pmodule [--force] NAME.py

        The module is an ordinary one: this notebook, the standard multiprocessing and other programs can import it.
        Its name is bound here. Run the cell again, edited or not, and the module is imported again; warm workers have
        the new version at the next map. What was taken out of it before (from tools import f) stays what it was: maps
        here still take it, the standard module's pools refuse it until it is taken out again.

        Options:
          --force    replace a file that %%pmodule has not written, or that was edited since

        Examples:
          %%pmodule tools.py
          def square(x):
              return x * x

          %%pmodule lib/tools.py      imported as lib.tools, or as tools if lib is in sys.path

        The same without the magic: `nbparallel.notebook.modules.write_module(source, "tools.py")`.
        """
        with hidden:
            options, path = split_options(line, PMODULE_OPTIONS, "%%pmodule")
            path = _unquoted(path.strip())
            if not path:
                raise UsageError("%%pmodule needs the name of a file, for example: %%pmodule tools.py")
            if not cell.strip():
                raise UsageError("%%pmodule needs a cell: the module's source")
            try:
                name = modules.save(cell, path, **options)
            except SyntaxError as error:
                raise UsageError(f"%%pmodule: {_place(error)}") from None
            except (ValueError, OSError) as error:
                raise UsageError(f"%%pmodule: {error}") from None
            assert self.shell is not None
            module = modules.import_again(name)
            self.shell.user_ns[name.rpartition(".")[2]] = module

    @cell_magic
    def pscript(self, line: str, cell: str) -> None:
        """Run the cell as a script of its own, in a fresh Python, and end all that came of it.

        %%pscript [--start METHOD] [--timeout SECONDS] [--max-processes N] [--check] [-o NAME] [ARGUMENT ...]

        The script has a `__main__` of its own: under spawn and forkserver its children import it again as
        `__mp_main__`, so it needs its guard. What it prints is shown while it runs. It works in the notebook's folder
        and finds the same modules, and has no input. Stop ends it, with every process that came of it; so do the
        limits, and the kernel's end. What it leaves running is ended a second after it.

        Options, in front of the script's arguments:
          --start METHOD       fork, spawn or forkserver; by default what this Python does by itself
          --timeout SECONDS    how long it may run; by default 60
          --max-processes N    how many processes it may have at once; by default 32, or 4 for each core if that is more
          --check              an exit code other than 0 raises CalledProcessError
          -o, --out NAME       store what has become of it: returncode, stdout, stderr

        An argument that begins with a minus goes behind a `--` of its own. Variables are put in: {n} or $n.

        Examples:
          %%pscript --start spawn
          import multiprocessing
          print(__name__)
          if __name__ == "__main__":
              with multiprocessing.Pool(2) as pool:
                  print(pool.map(abs, [-1, -2]))

          %%pscript --timeout 5 --max-processes 8 -o result

        The same without the magic: `nbparallel.notebook.scripts.run_script(source)`.
        """
        with hidden:
            options, rest = split_options(line, PSCRIPT_OPTIONS, "%%pscript")
            if not cell.strip():
                raise UsageError("%%pscript needs a cell: the script")
            try:
                args = shlex.split(rest, posix=sys.platform != "win32")
            except ValueError as error:
                raise UsageError(f"%%pscript: {error}: {rest}") from None
            out = options.pop("out", None)
            assert self.shell is not None
            # The first line is the magic's: tracebacks show the numbers of the cell's own lines.
            # `execution_count` may be one ahead already: IPython 9 raises it before the cell runs.
            number = len(self.shell.history_manager.input_hist_parsed) - 1  # type: ignore[union-attr]
            finished = scripts.run_script(f"\n{cell}", args, name=f"cell_{number}.py", **options)
            if out is not None:
                self.shell.user_ns[out] = finished
            return None


def _place(error: SyntaxError) -> str:
    line = (error.text or "").rstrip()
    caret = " " * (max(error.offset or 1, 1) - 1)
    return f"line {error.lineno}: {error.msg}\n    {line}\n    {caret}^"


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
