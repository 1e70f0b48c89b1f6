"""How much memory this process has, and how much it may have: from the kernel's own files."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60
"""From here on a limit of cgroups v1 says that there is none."""
_PROC = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")


class Resident:
    """Reads the resident memory of this process; where the system has no `/proc`, it knows nothing."""

    def __init__(self, path: Path = _PROC / "statm") -> None:
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        self._file: int | None = None
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            pass

    def read(self) -> int:
        """Bytes; 0 when nobody says. Takes microseconds: the kernel answers from memory."""
        if self._file is None:
            return 0
        try:
            return int(os.pread(self._file, 128, 0).split()[1]) * self._page
        except (OSError, ValueError, IndexError):
            return 0

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def give_back() -> None:
    """Collects garbage and hands what is free back to the system, where the C library can: it would keep it for later,
    and the process would look as large as it ever was. Takes some ten milliseconds."""
    gc.collect()
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError, TypeError):  # not glibc
        pass


def memory_limit(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Bytes that this process may have: the least of its control groups' limits, else its own of address space; 0: no
    limit."""
    least = min(_group_limits(proc, groups), default=0)
    return least or _own_limit()


def _group_limits(proc: Path, groups: Path) -> Iterator[int]:
    """The limits of the process's control group and of those around it, version 2 or 1.

    In a container the group's own folder is the root of what is mounted, whatever path the kernel tells.
    """
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        root, name = (groups, "memory.max") if not kinds else (groups / "memory", "memory.limit_in_bytes")
        place = root / path.strip("/")
        for folder in (place, *place.parents):
            if not folder.is_relative_to(root):
                break
            limit = _number(folder / name)
            if 0 < limit < UNLIMITED:
                yield limit


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or `max`
        return 0


def _own_limit() -> int:
    try:
        import resource
    except ImportError:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return 0 if soft == resource.RLIM_INFINITY else soft
