"""Numbers and arrays in shared memory: the standard module's own, which any process can be given."""

from __future__ import annotations

from multiprocessing.sharedctypes import *  # noqa: F403
