"""What mends a failed task, where its exception has a known cause in how workers work.

Called by `failures`, which notes it on the exception. Only looks at the exception, the function and the modules here.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from typing import Any

from nbparallel.serialize import DYNAMIC_LOOKUPS, global_names, name_of

LESS_MEMORY = "Fewer workers, smaller inputs or smaller chunks need less."

# As CPython words them. Attributes of an exception that would tell do not travel, or lead to what can't.
_NO_ATTRIBUTE = re.compile(
    r"module '([\w.]+)' has no attribute '(\w+)'|Can't get attribute '(\w+)' on <module '([\w.]+)'"
)
_NO_INPUT = "EOF when reading a line"
_NOT_SET = re.compile(r"local variable '(\w+)'")
_NO_NAME = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


def mend_of(error: BaseException, function: Callable[..., Any]) -> str:
    """Return what to do about a task's exception, empty where nothing is known of it.

    Args:
        error: as it came from the worker.
        function: the user's.
    """
    match error:
        case NameError() | KeyError() if _looks_up_names(function):
            return (
                f"{name_of(function)} looks names up at run time (globals(), eval, exec): a worker only has the "
                "globals that the function names directly. Name the helper in the function, or pass it as an argument."
            )
        case UnboundLocalError() if (found := _NOT_SET.search(str(error))) and _knows(function, found[1]):
            name = found[1]
            return (
                f"The notebook has a {name} too, but code that assigns {name} has its own, which is not set yet. "
                f"Workers can't change the notebook's: let each task return its part, and change {name} here."
            )
        case NameError(name=str(name)) if not isinstance(error, UnboundLocalError) and _knows(function, name):
            return (
                f"{name} is known in the notebook, but no code that was sent to the worker names it. Name it in "
                f"{name_of(function)}, or pass it as an argument."
            )
        case ModuleNotFoundError(name=str(name)) if name in sys.modules:
            return _missing(name)
        case EOFError() if str(error) == _NO_INPUT:
            return (
                "A worker has no keyboard: ask before the map and pass the answer, or run it here, with "
                "backend='serial'."
            )
        case MemoryError():
            return f"Each worker needs memory of its own. {LESS_MEMORY}"
        case AttributeError() | ImportError():
            return _other_version(str(error))
    return ""


def _looks_up_names(function: Callable[..., Any]) -> bool:
    code = _plain(function).__code__ if isinstance(_plain(function), types.FunctionType) else None
    return code is not None and not DYNAMIC_LOOKUPS.isdisjoint(global_names(code))


def _knows(function: Callable[..., Any], name: str) -> bool:
    return name in getattr(_plain(function), "__globals__", ())


def _plain(function: Callable[..., Any]) -> Any:
    return getattr(function, "__func__", function)


def _missing(name: str) -> str:
    file = getattr(sys.modules[name], "__file__", None)
    if file is None:
        return f"The notebook made the module {name} itself: a worker can't import it. Write it to a file on sys.path."
    return (
        f"The notebook has imported {name} from {file}, but a worker finds it on no folder of sys.path now. Put its "
        "folder back, or import it again."
    )


def _other_version(message: str) -> str:
    """Return what to do where a module has a name here that it has not in the worker."""
    if found := _NO_ATTRIBUTE.search(message):
        module, name = (found[1], found[2]) if found[1] else (found[4], found[3])
    elif found := _NO_NAME.search(message):
        name, module = found[1], found[2]
    else:
        return ""
    if not hasattr(sys.modules.get(module), name):
        return ""
    return (
        f"The notebook's {module} has {name}: it was put there, or the file was changed, after the import, and a "
        f"worker imports {module} as its file is. Put {name} into the file, or pass it as an argument."
    )
