"""Replaces files whole, with a timestamped backup: a reader, or a crash, sees the old file or the new one.

Whatever is interrupted, and wherever: the file is complete, old or new, and what it was before is in its backup by
the time it changes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keyturn.errors import ConfigError

if sys.platform != "win32":
    import fcntl

PRIVATE = 0o600
MOST_BACKUPS = 1000
"""In one second."""


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keeps other commands of ours from changing files of *folder* meanwhile, as far as its file system has locks."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):  # the work is done by now, whatever becomes of the lock
            os.close(descriptor)


def rewrite(file: Path, before: bytes | None, after: bytes, stamp: str, *, mode: int = PRIVATE) -> Path | None:
    """Puts *after* in the place of *before*, what *file* held when *after* was made of it; None when it did not exist.

    *stamp* (`20261121_091500`) names the backup, which is returned. The mode is kept; *mode* is that of a new file.
    Raises ConfigError, saying what became of the file.
    """
    try:
        if _content(file) != before:
            raise ConfigError([f"{file}: was changed by somebody else meanwhile; nothing was done, run this again"])
        backup = None if before is None else back_up(file, before, stamp)
        write_whole(file, after, None if before is not None else mode)
    except OSError as error:
        raise ConfigError([f"{file}: {reason(error)}; {_what_became(file, before)}"]) from error
    return backup


def back_up(file: Path, content: bytes, stamp: str) -> Path:
    """A private copy of *content* beside *file*, safe on the disk, under a name that was free."""
    for attempt in range(MOST_BACKUPS):
        backup = file.with_name(f"{file.name}.bak.{stamp}" + (f".{attempt}" if attempt else ""))
        if create_whole(backup, content):
            return backup
    raise FileExistsError(17, "too many backups of this second")


def write_whole(path: Path, content: bytes, mode: int | None = PRIVATE) -> None:
    """Replaces *path* by *content*, or makes it. *mode* None keeps the mode and the owner of the file that is there."""
    temporary = _write_aside(path, content, path.stat() if mode is None else mode)
    try:
        os.replace(temporary, path)
    except BaseException:
        _discard(temporary)
        raise
    _sync(path.parent)


def create_whole(path: Path, content: bytes, mode: int = PRIVATE) -> bool:
    """Makes *path* with *content*; False, and nothing is touched, when anything of that name is there."""
    if os.path.lexists(path):
        return False
    temporary = _write_aside(path, content, mode)
    try:
        _link(temporary, path)
    except FileExistsError:
        return False
    finally:
        _discard(temporary)
    _sync(path.parent)
    return True


def reason(error: OSError) -> str:
    """What the system says went wrong."""
    return error.strerror or str(error) or type(error).__name__


def _write_aside(path: Path, content: bytes, like: os.stat_result | int) -> str:
    """A temporary file beside *path*, complete and flushed to the disk. What a crash leaves of it is hidden and, beside
    an env file, ignored by git as `.env.*` is."""
    prefix = path.name if path.name.startswith(".") else f".{path.name}"
    descriptor, temporary = tempfile.mkstemp(prefix=f"{prefix}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if isinstance(like, int):
                os.chmod(temporary, like)
            else:
                _give(temporary, like)
            os.fsync(file.fileno())
    except BaseException:
        _discard(temporary)
        raise
    return temporary


def _give(temporary: str, present: os.stat_result) -> None:
    """The owner and mode of the file that is replaced; a `sudo` must not take a file away from its owner."""
    if sys.platform != "win32" and (os.geteuid(), os.getegid()) != (present.st_uid, present.st_gid):
        with contextlib.suppress(PermissionError):
            os.chown(temporary, present.st_uid, present.st_gid)
    os.chmod(temporary, present.st_mode & 0o777)


def _link(temporary: str, path: Path) -> None:
    """Gives *temporary* its name, if the name is free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: free a moment ago must do
        if os.path.lexists(path):
            raise FileExistsError(17, "exists") from None
        os.replace(temporary, path)


def _discard(temporary: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)


def _sync(folder: Path) -> None:
    """Makes the names in *folder* as safe as the contents are."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if os.path.lexists(file) else None


def _what_became(file: Path, before: bytes | None) -> str:
    try:
        unchanged = _content(file) == before
    except OSError:
        return "look whether it is as it was"
    return "nothing was changed" if unchanged else "it holds the new text, but the disk may not have kept it yet"


def remove_source(source: Path, content: bytes) -> str | None:
    """Removes a file whose *content* has been merged. Returns why it was left, None when it is gone."""
    try:
        if not source.is_file():
            return "it is no regular file"
        if source.read_bytes() != content:
            return "it was changed meanwhile"
        source.unlink()
    except OSError as error:
        return reason(error)
    return None
