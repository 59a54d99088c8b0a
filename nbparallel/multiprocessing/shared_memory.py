"""Blocks of shared memory by name: the standard module's own."""

from __future__ import annotations

from multiprocessing.shared_memory import *  # noqa: F403
