"""The files of `keyturn watch`: how they stand, what they are called, where they go."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST_NAME = 100
"""Bytes of a task's name that are taken over into another; most file systems end at 255."""


def state_of(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def shortened(name: str) -> str:
    """As much of *name* as fits into another name."""
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_NAME else raw[:LONGEST_NAME].decode("utf-8", "ignore")


def write_answer(place: Path, text: str) -> None:
    """Writes *text*, whole or not at all, for its owner alone."""
    from keyturn.config import write_private

    place.parent.mkdir(parents=True, exist_ok=True)
    write_private(place, text.encode())


def put_aside(path: Path, where: str) -> None:
    """Out of the inbox, under a name that is free there."""
    folder = path.parent / where
    folder.mkdir(exist_ok=True)
    target, count = folder / path.name, 1
    while target.exists():
        count += 1
        target = folder / f"{path.stem}-{count}{path.suffix}"
    path.rename(target)
