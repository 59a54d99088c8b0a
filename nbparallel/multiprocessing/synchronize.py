"""Locks and the like by their classes: the standard module's own."""

from __future__ import annotations

from multiprocessing.synchronize import *  # noqa: F403
