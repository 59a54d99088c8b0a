"""What runs a script of a notebook in its fresh interpreter, as if the script had been started by its own name.

Run by path, by `supervisor`, and part of no other process. What it imports before the path is the script's can't be a
file beside the notebook, whatever name that has.
"""

from __future__ import annotations

import marshal
import sys
from typing import Any


def run(order: dict[str, Any]) -> None:
    """Become the script: its ``__main__``, its path, its arguments, its start method.

    Args:
        order: as `followed` has written it.
    """
    path = order["script"]
    _prepare_multiprocessing(order["start"], order["folder"])
    sys.argv = [path, *order["args"]]
    sys.path[:] = order["path"]
    main = _fresh_main(path)
    with open(path, "rb") as file:
        source = file.read()
    try:
        exec(compile(source, path, "exec", dont_inherit=True), vars(main))
    except SystemExit:
        raise
    except BaseException as error:
        # The frame of this function is not the script's.
        trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
        BaseException.with_traceback(error, trace)  # past the class: it may be frozen
        sys.excepthook(type(error), error, trace)
        sys.exit(1)


def _prepare_multiprocessing(method: str | None, folder: str) -> None:
    from multiprocessing import context, process

    # Its sockets lie in a folder of its own, which stays when the script is killed; here it is removed.
    process.current_process()._config["tempdir"] = folder  # type: ignore[attr-defined]
    if method is not None:  # a script that sets one itself is still the first to do so
        found: Any = context
        found._default_context._default_context = found._concrete_contexts[method]


def _fresh_main(path: str) -> Any:
    """Put an empty ``__main__`` in the place of this one, with what Python gives to a file that it runs."""
    main: Any = type(sys)("__main__")
    main.__file__ = path
    main.__loader__ = type(__loader__)("__main__", path)  # type: ignore[name-defined]
    main.__builtins__ = __builtins__
    main.__cached__ = None
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    return main


_kept: list[Any] = []  # a module that nobody holds would be emptied under the running function

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # this file's folder: its neighbours are modules of a package, and no others
    with open(sys.argv[1], "rb") as _file:
        _order = marshal.load(_file)
    run(_order)
