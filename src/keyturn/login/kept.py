"""Tokens in the data folder: a private file for each account, and a lock, so that one process at a time renews it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

from keyturn.config import write_private
from keyturn.core import Clock, Secret
from keyturn.providers import Granted, sendable, writable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_EVERY = 0.1
"""Seconds between two looks whether a lock is free."""
LOCK_TRIES = 300


class Kept(NamedTuple):
    """The latest tokens of one account. *obtained* and *expires* in Unix seconds.

    *seed* tells which refresh token of the configuration they go back to: another one there means another start.
    """

    access: Secret
    refresh: Secret
    obtained: float
    expires: float
    seed: str = ""


class TokenFolder:
    """The files in *path*; made when the first one is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> Path:
        """Where the tokens of the account *name* are."""
        return self.path / f"{name}.json"

    def read(self, name: str) -> Kept | None:
        """What is kept of *name*; None when nothing is, or it cannot be read."""
        try:
            found = json.loads(self.file(name).read_bytes())
            access, refresh, seed = found["access_token"], found["refresh_token"], found.get("seed", "")
            obtained, expires = float(found["obtained_at"]), float(found["expires_at"])
            fine = sendable(access) and (refresh == "" or writable(refresh)) and isinstance(seed, str)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return None
        if not fine or not math.isfinite(obtained) or not math.isfinite(expires):
            return None
        return Kept(Secret(access), Secret(refresh), obtained, expires, seed)

    def write(self, name: str, kept: Kept) -> None:
        """Keeps *kept*, whole or not at all, mode 0600. Raises OSError."""
        self._create()
        members = {
            "access_token": kept.access.reveal(),
            "refresh_token": kept.refresh.reveal(),
            "obtained_at": kept.obtained,
            "expires_at": kept.expires,
            "seed": kept.seed,
        }
        write_private(self.file(name), json.dumps(members, indent=2).encode() + b"\n")

    def remove(self, name: str) -> None:
        """Forgets the tokens of *name*."""
        self.file(name).unlink(missing_ok=True)

    def lock(self, name: str) -> int | None:
        """The lock of *name*, to be given back with `unlock`; None while another process, or another pool, has it.

        Raises OSError.
        """
        self._create()
        descriptor = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock_exclusively(descriptor)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def unlock(self, lock: int) -> None:
        """Gives a lock back. Its file stays: removing it would let two in."""
        with contextlib.suppress(OSError):
            os.close(lock)

    def _create(self) -> None:
        for folder in (self.path.parent, self.path):  # the data folder may not be there either, and is as private
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


async def keep(folder: TokenFolder, clock: Clock, name: str, granted: Granted) -> None:
    """Keeps the tokens of a new login; waits while somebody renews those of an earlier one. Raises OSError."""
    lock = await _patiently(folder, clock, name)
    now = clock.wall()
    try:
        folder.write(name, Kept(granted.token, granted.refresh or Secret(""), now, now + granted.lifetime))
    finally:
        if lock is not None:
            folder.unlock(lock)


async def forget(folder: TokenFolder, clock: Clock, name: str) -> None:
    """Forgets the tokens of a login that was removed. Waits for who renews them just now: he would write them anew.

    Raises OSError.
    """
    lock = await _patiently(folder, clock, name)
    try:
        folder.remove(name)
    finally:
        if lock is not None:
            folder.unlock(lock)


async def _patiently(folder: TokenFolder, clock: Clock, name: str) -> int | None:
    """The lock of *name*; None when somebody holds it for too long."""
    for _ in range(LOCK_TRIES):
        lock = folder.lock(name)
        if lock is not None:
            return lock
        await clock.sleep_until(clock.mono() + LOCK_EVERY)
    return None


def _lock_exclusively(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
