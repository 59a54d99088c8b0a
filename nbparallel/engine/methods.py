"""The start methods of this system, the default first. Read by all that start processes, and by what they start."""

from __future__ import annotations

import os

START_METHODS = ("forkserver", "spawn", "fork") if hasattr(os, "fork") else ("spawn",)
