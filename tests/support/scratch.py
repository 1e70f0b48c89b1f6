"""Where tests write: in memory where there is room for it, since many of them wait for a disk and for nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ENOUGH = 2**31
"""Bytes; all tests together write some hundred megabytes."""


def scratch(*, programs: bool) -> Path:
    """A folder for files that nobody needs afterwards. *programs*: some of them are run."""
    fits = os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH
    if fits and not (programs and os.statvfs(MEMORY).f_flag & os.ST_NOEXEC):
        return MEMORY
    return Path(tempfile.gettempdir())
