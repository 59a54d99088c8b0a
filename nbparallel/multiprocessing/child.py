"""The life of a process that `keeper` has started: its message becomes a `Process` object, which is run to its end.

Entered from `engine.worker`, whose output relay and environment it keeps.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from nbparallel.engine import relay
from nbparallel.engine.wire import Channel
from nbparallel.multiprocessing import context
from nbparallel.serialize import loads
from nbparallel.tracebacks import in_words


def live(channel: Channel, segments: list[bytearray], descriptors: list[int]) -> NoReturn:
    """Be the process that was sent, or that this one was forked with; it ends by an exit."""
    from nbparallel.multiprocessing.process import run

    if segments:
        method, process = _load(segments, descriptors)
    else:
        from nbparallel.multiprocessing import keeper  # it has it imported; others would wait for that

        method, process = "fork", keeper.take_heir()
    context.default.inherit(method)
    channel.send(("begun",))
    sys.exit(run(process, method, _parent_sentinel(channel)))


def _load(segments: list[bytearray], descriptors: list[int]) -> Any:
    try:
        return loads(segments, descriptors)
    except Exception as error:  # a module that is missing here, say
        relay.say("traceback", f"A process could not be made of what it was sent:\n{in_words(error)[1].rstrip()}\n")
        sys.exit(1)


def _parent_sentinel(channel: Channel) -> int:
    """Return what becomes ready when the parent ends."""
    if sys.platform == "win32":
        import _winapi

        synchronize = 0x00100000  # winnt.h: SYNCHRONIZE
        return int(_winapi.OpenProcess(synchronize, False, os.getppid()))
    return os.dup(channel.fileno())
