"""The journal: rows on their way to a database, one JSON line each, in files that are only appended to.

A line is in the kernel's hands before anything else goes on, so that it outlives the process from then on. The space of
a file is set aside at once and mapped into memory, where the system can do that: then writing a line costs no system
call. Where it cannot, or the disk has no such space, each line is written with one. Nothing is flushed to the disk,
unless asked (`sync`). A write that breaks off, or a power failure, leaves a torn line, which is skipped in reading;
what comes after it begins on a line of its own. A mapped file ends in zero bytes until it is closed, which are no part
of it; what many of its lines share is told before the first of them, and again in a large file. A file is removed
when all of its lines are in the database; until then they may be handed over again after a crash, which changes nothing
there.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from .lines import Names, Shared, sifted

SEGMENT = 512 * 1024
"""Bytes after which a new file is begun, and so about what is handed over again after a crash at most."""
CHUNK = 512 * 1024
"""Bytes that are read at a time."""
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600

TOLD_AGAIN = 64 * 1024
"""Bytes after which what lines share is told once more: a page that a power failure takes must not take it from all."""
_POPULATE_WRITE = 23 if sys.platform == "linux" else None
"""To madvise(2), from Linux 5.14 on: have all pages there, ready to be written to. Python names it from 3.13 on."""
_BINARY = getattr(os, "O_BINARY", 0)
"""On Windows: a newline is one byte."""


Alone = Callable[[], AbstractContextManager[bool]]


def _for_certain() -> AbstractContextManager[bool]:
    return contextlib.nullcontext(True)


class Full(OSError):
    """So much waits for the database that nothing is added."""


class Segment:
    """One file of the journal."""

    __slots__ = ("applied", "names", "path", "read", "sifted", "size", "synced")

    def __init__(self, path: Path, size: int, *, sifted: bool) -> None:
        self.path = path
        self.size = size
        """Bytes that were written."""
        self.read = 0
        """Bytes that were handed out."""
        self.applied = 0
        """Bytes whose lines are in the database."""
        self.sifted = sifted
        """It may hold torn lines, so that each is looked at."""
        self.synced = 0
        """Bytes that are safe on the disk."""
        self.names: Names = {}
        """What its lines share, so far as they were looked at."""


_NOWHERE = Segment(Path(), 0, sifted=False)


class Batch(NamedTuple):
    """Lines to hand over, each with its newline if it has one, and where they end in the journal."""

    lines: list[bytes]
    segment: Segment
    end: int


class Journal:
    """The files in *folder*, which one process at a time may use. At most *most* bytes wait in it."""

    __slots__ = tuple(
        "_cut _file _map _mapped _number _page_at _segment _segments _tail "
        "alone folder gone most page taken torn write".split()
    )

    def __init__(
        self, folder: Path, *, most: int, segment: int = SEGMENT, alone: Alone = _for_certain, mapped: bool = True
    ) -> None:
        """*mapped*: False writes each line with a system call in any case."""
        self.folder = folder
        self.most = most
        self.alone = alone
        """Says whether no other process uses it, and keeps all others out meanwhile."""
        self.torn = 0
        """Lines that were skipped because they are not whole: nobody was told that they are on record."""
        self.gone = 0
        """Files that somebody removed before they were read."""
        self.taken = 0
        """Bytes that went into the database, since it was opened."""
        self._segment = segment
        self._segments: deque[Segment] = deque()
        self._tail = _NOWHERE
        """The newest segment that was begun here."""
        self._file: int | None = None
        """The newest segment, open for appending."""
        self._mapped = mapped and hasattr(os, "posix_fallocate")
        self._map: mmap.mmap | None = None
        """The newest segment in memory; None where it is written to with system calls."""
        self.write: Callable[[bytes | bytearray], object] = _no_room
        """Writes whole lines as `append` does, if that needs nothing of the system and nobody is to be first; else it
        raises ValueError. How much it wrote is only looked up when somebody asks."""
        self.page: object = None
        """Stands for the part of a file that `write` writes into."""
        self._page_at = 0
        """Where that begins."""
        self._number = 0
        self._cut = False
        """The last write broke off in the middle of a line."""

    def open(self) -> None:
        """Find what an earlier process left behind. Raises OSError."""
        self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._segments.clear()
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.stem.isdigit():
                found = Segment(path, written_in(path), sifted=True)
                self._segments.append(found)
                self._number = max(self._number, int(path.stem))

    @property
    def waiting(self) -> int:
        """Bytes that are not in the database yet."""
        return sum(each.size - each.applied for each in self._measured())

    @property
    def unread(self) -> bool:
        """Whether there is anything to hand out."""
        return any(each.read < each.size for each in self._measured())

    def tell(self, shared: Shared) -> None:
        """Write out *shared* in the newest file: lines that are written there by `write` may have its number from now
        on. Raises ValueError as `write` does."""
        self.write(shared.told())
        shared.told_in = self.page

    def hold(self) -> None:
        """Have `write` refuse all lines until `append` has written some: those that wait come first."""
        self.write = _no_room

    def append(self, lines: bytes) -> None:
        """Write whole *lines*, each with its newline. Raises OSError when the first could not be written, and `Broken`
        when only some were: their end is told."""
        if self._fit(lines):
            return
        waiting = self.waiting
        if waiting >= self.most:
            raise Full(errno.ENOSPC, f"{waiting:,} bytes wait, LEDGER_MOST_SPOOLED is {self.most:,}")
        if self._map is not None:
            self._end()
        if self._file is None:
            self._begin(min(self._segment, self.most - waiting), len(lines))
            if self._fit(lines):
                return
        assert self._file is not None
        segment = self._tail
        data = b"\n" + lines if self._cut else lines
        written = os.write(self._file, data)
        segment.size += written
        if written == len(data):
            self._cut = False
            if segment.size >= self._segment:
                self._end()
            return
        segment.sifted = True
        self._cut = not data[:written].endswith(b"\n")
        whole = data.rfind(b"\n", 0, written) + 1 - (len(data) - len(lines))
        raise Broken(max(0, whole))

    def take(self, most: int) -> Batch | None:
        """The next lines, at most so many; None when all were handed out. Raises OSError."""
        if self._measured() and self._tail.size >= self._page_at + TOLD_AGAIN:
            self.page, self._page_at = object(), self._tail.size
        for segment in self._measured():
            if segment.read < segment.size:
                try:
                    return self._next(segment, most)
                except FileNotFoundError:
                    return self._gone(segment)
        return None

    def applied(self, batch: Batch) -> None:
        """The lines of *batch* are in the database. A file all of whose lines are is removed."""
        segment = batch.segment
        self.taken += batch.end - segment.applied
        segment.applied = batch.end
        self._sweep()

    def again(self, batch: Batch) -> None:
        """The lines of *batch* were not taken: they are handed out once more."""
        batch.segment.read = batch.segment.applied

    def rotate(self) -> None:
        """Let the newest file be followed by another, so that it can be removed."""
        self._end()
        self._sweep()

    def unsynced(self) -> list[tuple[Segment, int]]:
        """The files with what is not safe on the disk yet, and up to where they were written."""
        return [(each, each.size) for each in self._measured() if each.synced < each.size]

    def close(self) -> None:
        """Let go of the files; again changes nothing."""
        self.rotate()

    def _fit(self, lines: bytes) -> bool:
        """Write *lines* into the newest file as it is in memory, if it has the space."""
        if self._map is None:
            return False
        try:
            self._map.write(lines)
        except ValueError:
            return False
        self.write = self._map.write
        return True

    def _measured(self) -> deque[Segment]:
        """The files, with what was written into the newest by now."""
        if self._map is not None:
            self._tail.size = self._map.tell()
        return self._segments

    def _begin(self, room: int, size: int) -> None:
        """A new file, of *room* bytes if it can be had in memory, whose first lines are of *size* bytes."""
        self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)  # somebody may have removed it
        self._number += 1
        path = self.folder / f"{self._number:012d}.jsonl"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, PRIVATE_FILE)
        self._cut = False
        self._tail, self.page, self._page_at = Segment(path, 0, sifted=False), object(), 0
        self._segments.append(self._tail)
        if self._mapped and size <= room:
            self._map_in(self._file, room)

    def _map_in(self, file: int, room: int) -> None:
        """Set the space of *file* aside and have it in memory; it stays as it is where that cannot be done."""
        try:
            # All of it is given out now: a page that the disk has no room for later would end the process.
            os.posix_fallocate(file, 0, room)
            self._map = mmap.mmap(file, room)
            if _POPULATE_WRITE is not None:
                with contextlib.suppress(OSError):
                    # One by one, when they are first written to, pages cost several times as much.
                    self._map.madvise(_POPULATE_WRITE)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, 0)

    def _end(self) -> None:
        self._measured()
        file, self._file = self._file, None
        if self._map is not None:
            self._map.close()
            self._map, self.write = None, _no_room
            if file is not None:
                with contextlib.suppress(OSError):  # the zero bytes at its end are left out in reading
                    os.ftruncate(file, self._tail.size)
        if file is not None:
            os.close(file)

    def _sweep(self) -> None:
        """Remove the files that are done with, but the one that is written to."""
        self._measured()
        while self._segments and self._segments[0].applied >= self._segments[0].size:
            if self._file is not None and len(self._segments) == 1:
                return
            with contextlib.suppress(OSError):  # found again at the next start, and then handed over in vain
                self._segments[0].path.unlink()
            self._segments.popleft()

    def _gone(self, segment: Segment) -> Batch:
        """Somebody removed the file, and with it what had not been handed over."""
        if segment is self._tail:
            self._end()
        self.gone += 1
        segment.read = segment.size
        return Batch([], segment, segment.size)

    def _next(self, segment: Segment, most: int) -> Batch:
        with segment.path.open("rb", buffering=0) as file:
            file.seek(segment.read)
            data = file.read(min(CHUNK, segment.size - segment.read))
            while b"\n" not in data and segment.read + len(data) < segment.size:
                more = file.read(min(CHUNK, segment.size - segment.read - len(data)))
                if not more:
                    break
                data += more
        ended = segment is not self._tail or self._file is None
        end = data.rfind(b"\n") + 1
        if not end or (ended and segment.read + len(data) >= segment.size):
            end = len(data)
        lines = io.BytesIO(data[:end]).readlines()  # `split` looks at each byte by itself
        end -= sum(map(len, lines[most:]))
        whole = [line for line in lines[:most] if line != b"\n"]
        if segment.sifted:
            found = sifted(whole, segment.names)
            self.torn += len(whole) - len(found)
            whole = found
        if end:
            segment.read += end
        else:  # the file is shorter than it was: what is missing cannot be handed over
            segment.read = segment.size
        return Batch(whole, segment, segment.read)


def _no_room(lines: bytes | bytearray) -> None:
    raise ValueError("no file is in memory")


class Broken(OSError):
    """A write broke off: *written* bytes, whole lines, are in the journal."""

    def __init__(self, written: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.written = written


def written_in(path: Path) -> int:
    """Bytes that were written to a file of a journal, without the zero bytes that follow them. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            begin = max(0, size - CHUNK)
            file.seek(begin)
            written = file.read(size - begin).rstrip(b"\0")
            if written:
                return begin + len(written)
            size = begin
    return 0


def sync(path: Path) -> None:
    """Return when all that was written to *path* is safe on the disk. Raises OSError; one that is gone is safe."""
    with contextlib.suppress(FileNotFoundError):
        for place, flags in ((path, os.O_RDWR), (path.parent, os.O_RDONLY))[: 1 if sys.platform == "win32" else 2]:
            descriptor = os.open(place, flags)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
