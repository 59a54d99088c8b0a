"""Finished results that outlive their kernel: `Checkpoint` for one run, the files for ``nbparallel checkpoints``.

`places` says where files and the signing key are, `store` is one open file, `checkpoint` decides what is the same task,
`writer` writes in a thread of its own, `listing` is the command line's. A run asks for what is known before its tasks
start, and hands over each result.
"""

from nbparallel.checkpoints.checkpoint import Checkpoint
from nbparallel.checkpoints.places import folder, path_of
from nbparallel.checkpoints.store import Summary, remove, summaries

__all__ = ["Checkpoint", "Summary", "folder", "path_of", "remove", "summaries"]
