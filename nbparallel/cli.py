"""The command ``nbparallel``: ``demo``, ``info`` and ``checkpoints``.

Called by its users, from a shell. It only reads arguments and prints: what a command does is in the rooms above, and
what is heavy is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nbparallel import __version__

#: The exit code of a program that ended by Ctrl-C: 128 + SIGINT, as shells have it.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: by default those of this process.

    Returns:
        The exit code: 0 if all went well.

    Raises:
        SystemExit: for ``--help``, ``--version`` and wrong arguments, as argparse has it.
    """
    parser = argparse.ArgumentParser(
        prog="nbparallel", description="Functions written in notebook cells, on every core."
    )
    parser.add_argument("--version", action="version", version=f"nbparallel {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "run the quickstart notebook in a Jupyter kernel and check its answers"
    with_demo = commands.add_parser("demo", help=about, description=f"{about.capitalize()}.")
    with_demo.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("nbparallel-demo"),
        help="where to save the executed notebook and its page (default: ./nbparallel-demo)",
    )
    about = "show the cores and the memory that can be used here, and why"
    commands.add_parser("info", help=about, description=f"{about.capitalize()}.")
    about = "list or remove the results that `pmap(..., checkpoint=)` has kept"
    of_checkpoints = commands.add_parser("checkpoints", help=about, description=f"{about.capitalize()}.")
    actions = of_checkpoints.add_subparsers(dest="action", metavar="ACTION")
    about = "list checkpoints (the default): all that have names, or those that are given"
    with_list = actions.add_parser("list", help=about, description=f"{about.capitalize()}.")
    with_list.add_argument("names", metavar="NAME", nargs="*", help="a checkpoint's name or path")
    about = "remove checkpoints"
    with_remove = actions.add_parser("remove", help=about, description=f"{about.capitalize()}.")
    with_remove.add_argument("names", metavar="NAME", nargs="*", help="a checkpoint's name or path")
    with_remove.add_argument("--all", action="store_true", help="remove all that have names")
    given = parser.parse_args(arguments)
    # A console that lacks a character shows a question mark for it: no output may end the program.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if given.command == "info":
        return info()
    if given.command == "checkpoints":
        if given.action != "remove":
            return list_checkpoints(getattr(given, "names", []))
        if given.all == bool(given.names):
            with_remove.error("give the names of checkpoints, or --all")
        return remove_checkpoints(given.names)
    try:
        given.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        with_demo.error(f"argument --output: {error}")
    if not os.access(given.output, os.W_OK):
        with_demo.error(f"argument --output: no permission to write in {given.output}")
    return demo(find_notebooks() / "quickstart.ipynb", given.output)


def info() -> int:
    """Print what this process may use."""
    from nbparallel.machine import resources

    print(resources())
    return 0


def list_checkpoints(names: Sequence[str]) -> int:
    """Print what checkpoints hold.

    Args:
        names: names or paths; all that have names, if there are none.

    Returns:
        0 if each could be read, else 1.
    """
    from nbparallel.checkpoints import folder
    from nbparallel.checkpoints.listing import named, table

    lines, problems = table(names or named())
    if not lines and not problems:
        lines = [f"There are no checkpoints in {folder()}."]
    return _tell(lines, problems)


def remove_checkpoints(names: Sequence[str]) -> int:
    """Remove checkpoints.

    Args:
        names: names or paths; all that have names, if there are none.

    Returns:
        0 if all are gone, else 1.
    """
    from nbparallel.checkpoints.listing import named, remove_all

    gone, problems = remove_all(names or named())
    return _tell([f"removed {name}" for name in gone], problems)


def _tell(lines: Sequence[str], problems: Sequence[str]) -> int:
    for line in lines:
        print(line)
    for problem in problems:
        print(f"nbparallel: {problem}", file=sys.stderr)
    return 1 if problems else 0


def demo(notebook: Path, folder: Path) -> int:
    """Run a notebook in a kernel of this interpreter, show it as it happens, and check its answers.

    Args:
        notebook: one that records its answers (see `notebook.demo`).
        folder: an existing one, where the executed notebook and its page are saved.

    Returns:
        0 if each cell ran and each answer is right; 1 if not; 130 after Ctrl-C.
    """
    from nbparallel.machine import effective_cores
    from nbparallel.notebook.demo import play

    version = ".".join(map(str, sys.version_info[:3]))
    print(f"nbparallel {__version__}: {notebook.name} in a kernel of Python {version}, on {effective_cores()} cores")
    try:
        played = play(notebook, folder.resolve())
    except KeyboardInterrupt:
        print("\ninterrupted: the kernel and its workers are stopped", file=sys.stderr)
        return INTERRUPTED
    saved, page = played.files
    print(f"\nnotebook  {saved}\npage      {page.as_uri()}\n")
    for problem in played.problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    if not played.problems:
        print(f"Every cell ran, and all {played.answers} answers are right.")
    return 1 if played.problems else 0


def find_notebooks() -> Path:
    """Return the folder of the packaged notebooks: inside an installed package, else beside it, in the checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_notebooks"
    return inside if inside.is_dir() else package.parent / "notebooks"
