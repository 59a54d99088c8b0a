"""A few words of memory that the parent and one worker share: what the worker is doing, right now.

When a worker dies it can't say which task it ran; the page can. It has no name where descriptors can be passed (a
memfd, or an unlinked file); on Windows it is the system's own counted mapping under a random name. Called by `process`
(the parent's side) and `worker`.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

BYTES = 4096
#: Words of the page (signed 64-bit): the number of the chunk that the worker is at plus one (0: none), the index of
#: the running task plus one (0: none), and the time at which it started, or began to rebuild inputs or to send results
#: (`time.perf_counter_ns`, which is one clock for all processes of a machine; 0 while it loads the function and the
#: modules that this needs, which no task's time limit is to pay for).
CHUNK, TASK, STARTED = 0, 1, 2
#: Whether it runs the initializer.
INITIALIZING = 3
#: The parent writes: the run whose task it has interrupted. What that returns may be due to the interrupt (a call of C
#: that was cut short), and does not count.
INTERRUPTED = 4
#: From here on the parent writes: the runs of which the worker is to begin no further task, each in its `skip_slot`.
_SKIP = 256


def skip_slot(run: int) -> int:
    """Return the word that holds the number of a run (which is never 0) once its tasks are to be left out."""
    return _SKIP + run % (BYTES // 8 - _SKIP)


class Page:
    """The shared words, as a ``memoryview`` of 64-bit integers in `words`."""

    def __init__(self, mapping: mmap.mmap, handover: str, fd: int | None) -> None:
        self._mapping = mapping
        self.words = memoryview(mapping).cast("q")
        self.handover = handover
        self.fd = fd

    @classmethod
    def create(cls) -> Page:
        if sys.platform == "win32":
            name = f"nbparallel-{os.urandom(16).hex()}"
            page = cls(mmap.mmap(-1, BYTES, tagname=name), name, None)
        else:
            if hasattr(os, "memfd_create"):
                fd = os.memfd_create("nbparallel-page", os.MFD_CLOEXEC)
            else:
                fd, path = tempfile.mkstemp(prefix="nbparallel-page-")
                os.unlink(path)
            os.ftruncate(fd, BYTES)
            page = cls(mmap.mmap(fd, BYTES), str(fd), fd)
        return page

    @classmethod
    def attach(cls, handover: str) -> Page:
        if sys.platform == "win32":
            return cls(mmap.mmap(-1, BYTES, tagname=handover), handover, None)
        fd = int(handover)
        page = cls(mmap.mmap(fd, BYTES), handover, None)
        os.close(fd)
        return page

    def handed_over(self) -> None:
        """Close the descriptor that was passed on; the mapping stays."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def close(self) -> None:
        self.handed_over()
        self.words.release()
        self._mapping.close()
