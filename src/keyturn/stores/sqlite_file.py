"""One SQLite file, `state.sqlite`: its writer's thread, its reader's thread, and what its errors mean.

Everything that writes goes through one connection in one thread, in the order in which it was asked; long questions
have a connection and a thread of their own, so that they never hold up the writer. Who asks waits for one answer
before the next, so little queues up. A cancelled waiter leaves nothing behind: what has begun is a whole transaction.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from keyturn.errors import StoreAway, StoreError

from .one_thread import OneThread
from .sqlite_schema import migrate

T = TypeVar("T")
BUSY = 2.0
"""Seconds that a statement waits for another program's lock."""
CHECKED_AT_START = 64 * 1024 * 1024
"""Bytes up to which a file is checked when it is opened: a larger one takes seconds."""
PAGE = 8192
"""Bytes of a page: what is written together costs a quarter less than with SQLite's own 4096."""
PRIVATE = 0o600
PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")
"""Beginnings of the codes of what may be over in a while."""


class SqliteFile:
    """The file at *path*, which only the owner of its folder may open. *durable*: on the disk at each commit."""

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path = path
        self._durable = durable
        self._users = 0
        self._writer: OneThread | None = None
        self._reader: OneThread | None = None
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Connect and migrate forward. Who has opened it closes it. Raises StoreError: damaged, of a newer program, or
        not a ledger; StoreAway when it cannot be opened just now. Then it is to be closed as well."""
        self._users += 1
        if self._writer is None:
            self._writer = OneThread("keyturn ledger")
        await self._in(self._writer, self._connect)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What *work* returns, done in the writer's thread as one transaction: all of it or nothing. Raises StoreError,
        StoreAway when the file cannot be written just now."""
        if self._writer is None:
            raise StoreAway(f"{self.path}: is not open")
        return await self._in(self._writer, self._transact, work)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What *work*, which only reads, returns: in another thread, of one moment of the file. Raises StoreError."""
        if self._writer is None:
            raise StoreAway(f"{self.path}: is not open")
        if self._reader is None:
            self._reader = OneThread("keyturn ledger reader")
        return await self._in(self._reader, self._look, work)

    async def close(self) -> None:
        """One user less; after the last one both connections are closed, after what was asked before."""
        self._users -= 1
        if self._users > 0:
            return
        for thread, end in self._parting():
            if thread is not None:
                try:
                    await asyncio.get_running_loop().run_in_executor(thread, end)
                except BaseException:
                    thread.shutdown(wait=False)
                    raise
                thread.shutdown()

    def let_go(self) -> None:
        """End for all users, without a loop: the threads close the connections when they have done what was asked."""
        self._users = 0
        for thread, end in self._parting():
            if thread is not None:
                thread.submit(end)
                thread.shutdown(wait=False)

    def _parting(self) -> tuple[tuple[OneThread | None, Callable[[], None]], ...]:
        """The threads, each with what it is to do last. A question that still runs is broken off."""
        if self._reading is not None:
            with suppress(sqlite3.Error):
                self._reading.interrupt()
        writer, reader, self._writer, self._reader = self._writer, self._reader, None, None
        return (reader, self._end_reading), (writer, self._end_writing)

    async def _in(self, thread: OneThread, work: Callable[..., T], *given: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work, *given)
        except sqlite3.Error as error:
            raise said(self.path, error) from error

    def _connect(self) -> None:
        if self._writing is not None:
            return
        connection = None
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, PRIVATE))
            connection = connected(self.path)
            connection.execute(f"PRAGMA page_size = {PAGE}")  # of a new file: an old one stays as it is
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            _look_over(connection, self.path)
            migrate(connection, self.path)
        except OSError as error:
            raise StoreAway(f"{self.path}: {error.strerror}; make it writable, or choose another --data") from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._writing = connection

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._connect()
        assert self._writing is not None
        return transacted(self._writing, work)

    def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._reading is None:
            if self._writing is None:  # whatever keeps the writer out would be waited for once more
                raise StoreAway(f"{self.path}: cannot be opened so far; it is tried again")
            self._reading = connected(self.path, reading=True)
        self._reading.execute("BEGIN")
        try:
            return work(self._reading)
        finally:
            if self._reading.in_transaction:
                self._reading.execute("ROLLBACK")

    def _end_writing(self) -> None:
        connection, self._writing = self._writing, None
        if connection is not None:
            connection.close()

    def _end_reading(self) -> None:
        connection, self._reading = self._reading, None
        if connection is not None:
            connection.close()


def connected(path: Path, *, reading: bool = False) -> sqlite3.Connection:
    """A connection to *path*, which must exist, for use in any one thread at a time. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if reading else 'rw'}",
        timeout=BUSY,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    try:
        if reading:
            connection.execute("PRAGMA query_only = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def transacted(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """What *work* returns, as one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def troubles(connection: sqlite3.Connection, most: int = 10) -> Sequence[str]:
    """What SQLite finds damaged, at most so many sentences; empty for a sound file."""
    found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({most})")]
    return [] if found == ["ok"] else found


def said(path: Path, error: sqlite3.Error) -> StoreError:
    """What went wrong with *path*, and what to do about it."""
    code = str(getattr(error, "sqlite_errorname", ""))
    if code.startswith(PASSING):
        return StoreAway(f"{path}: {_PASSING_WORDS.get(code.split('_')[1], str(error))}")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return damaged(path, str(error))
    return StoreError(f"{path}: {error}{StoreError.SAYS_MORE}")


def damaged(path: Path, how: str) -> StoreError:
    """*path* cannot be trusted any more."""
    return StoreError(
        f"{path}: the ledger is damaged ({how}). Put a backup in its place, or move it away together with its -wal and "
        f"-shm: the gateway then starts with an empty one{StoreError.SAYS_MORE}"
    )


_PASSING_WORDS = {
    "BUSY": "another program holds a lock on the ledger; end it (a database browser, a backup?)",
    "LOCKED": "another program holds a lock on the ledger; end it (a database browser, a backup?)",
    "FULL": "the disk is full; make room",
    "IOERR": "the disk refuses to read or write; see the system's log, and whether the disk is full",
    "READONLY": "the ledger cannot be written; make it and its folder writable",
    "CANTOPEN": "the ledger cannot be opened; make it and its folder readable and writable",
}


def _look_over(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a damaged file before anything is built upon it."""
    if path.stat().st_size <= CHECKED_AT_START:
        found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise damaged(path, found[0])
