"""The snapshot of live state in `state.sqlite`: what outlives a gateway that keeps its counters in memory.

Only what changed is written, in one transaction with the moment that it shows, so that a reader finds the state of one
moment whenever the writer was killed. No row holds a secret: keys are named by their fingerprints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from keyturn.core import SHARED, Instant, KeptCycle, KeptFaults, KeptLimit, KeptMark, KeptUse, Limit

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")
STATE_FILE = "state.sqlite"
AT_ONCE = 1000
"""Rows that are encoded together."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
Kind = Literal["mark", "use", "limit", "faults", "cycle"]
Name = tuple[Kind, str]


class Head(msgspec.Struct, gc=False):
    """When a snapshot was taken, and of what."""

    wall: float
    mono: float
    boot: str
    clean: bool
    """It was written at the end of the process: nothing happened after it."""
    caps: dict[str, str] = {}
    """Provider -> a digest of its custom caps."""

    @property
    def instant(self) -> Instant:
        return Instant(self.wall, self.mono, self.boot)


class Kept(NamedTuple):
    """A snapshot as it was read."""

    head: Head
    marks: Sequence[KeptMark]
    uses: Sequence[KeptUse]
    limits: Sequence[KeptLimit]
    faults: Sequence[KeptFaults]
    cycles: Sequence[KeptCycle]
    unread: int = 0
    """Rows that could not be read, and are left out."""


class Changes(NamedTuple):
    """What differs from the snapshot that is there."""

    puts: Sequence[tuple[Kind, str, object]] = ()
    gone: Sequence[Name] = ()
    whole: bool = False
    """Nothing else is to stay."""


class File(Protocol):
    """The database file, as far as it is needed here. All of it raises StoreError."""

    async def open(self) -> None: ...
    async def run(self, work: Callable[[Connection], T]) -> T: ...
    async def read(self, work: Callable[[Connection], T]) -> T: ...
    async def close(self) -> None: ...
    def let_go(self) -> None: ...


class Snapshots:
    """Reads and writes the snapshot in *file*, which others may use too. All of it raises StoreError, and may then be
    tried again."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._open = False

    async def load(self) -> Kept | None:
        """The snapshot that an earlier process left; None when there is none."""
        if self._open:  # tried again: reading alone would not make the file what it has to be
            return _kept(await self._file.run(_rows))
        self._open = True
        await self._file.open()
        return _kept(await self._file.read(_rows))

    async def write(self, head: Head, changes: Changes) -> None:
        """Make *changes*, and have the snapshot show the moment of *head*. Rows are encoded in the file's thread."""
        await self._file.run(lambda connection: _write(connection, head, changes))

    async def close(self) -> None:
        if self._open:
            self._open = False
            await self._file.close()

    def let_go(self) -> None:
        """As `close`, without a loop."""
        self._open = False
        self._file.let_go()


def look_at_snapshot(folder: Path) -> Kept | None:
    """The snapshot in *folder*, for who is not its owner; None when there is none. Raises StoreError."""
    return _beside(folder, _rows, None, reading=True, found=_kept)


def forget_marks(folder: Path, fingerprints: Iterable[str], groups: Iterable[str], providers: Iterable[str]) -> None:
    """Remove what stands against these keys and quota groups, and against the deployments of whole *providers*, from
    the snapshot in *folder*, whose lock the caller holds. Raises StoreError."""
    owners, shared, whole = set(fingerprints), set(groups), set(providers)

    def forget(connection: Connection) -> None:
        for name, value in connection.execute("SELECT name, value FROM live_state WHERE kind = 'mark'").fetchall():
            try:
                scope = _DECODERS["mark"].decode(value).scope
            except msgspec.DecodeError:
                continue  # nobody takes it over
            per_group, per_deployment = scope[0].startswith("group"), scope[0] in SHARED
            if scope[1] in whole if per_deployment else scope[2] in (shared if per_group else owners):
                connection.execute("DELETE FROM live_state WHERE kind = 'mark' AND name = ?", (name,))

    _beside(folder, forget, None, reading=False, found=lambda nothing: nothing)


def forget_limits(folder: Path, limits: Iterable[Limit]) -> None:
    """Remove what was reported or learned of *limits* (their source says which) from the snapshot in *folder*, whose
    lock the caller holds. Raises StoreError."""
    gone = {(each.scope, each.metric, each.window.seconds, each.source) for each in limits}

    def forget(connection: Connection) -> None:
        for name, value in connection.execute("SELECT name, value FROM live_state WHERE kind = 'limit'").fetchall():
            try:
                kept: list[KeptLimit] = _DECODERS["limit"].decode(value)
            except msgspec.DecodeError:
                continue  # nobody takes it over
            stay = [each for each in kept if (each.scope, each.metric, each.seconds, each.source) not in gone]
            if not stay:
                connection.execute("DELETE FROM live_state WHERE kind = 'limit' AND name = ?", (name,))
            elif len(stay) < len(kept):
                text = msgspec.json.encode(stay).decode()
                connection.execute("UPDATE live_state SET value = ? WHERE kind = 'limit' AND name = ?", (text, name))

    _beside(folder, forget, None, reading=False, found=lambda nothing: nothing)


def boot_name() -> str:
    """Names the run of the operating system that this process belongs to; empty where it has no name."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def _beside(
    folder: Path, work: Callable[[Connection], Any], otherwise: T, *, reading: bool, found: Callable[[Any], T]
) -> T:
    """What comes of *work* in a connection of its own; *otherwise* where there is no snapshot yet."""
    path = folder / STATE_FILE
    if not path.exists():
        return otherwise
    import sqlite3

    from .sqlite_file import connected, said, transacted

    try:
        connection = connected(path, reading=reading)
        try:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'live_state'").fetchone()
            if known is None:
                return otherwise
            return found(work(connection) if reading else transacted(connection, work))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise said(path, error) from error


_PUT = """INSERT INTO live_state (kind, name, value)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)
WHERE true ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value"""
_DROP = """DELETE FROM live_state WHERE (kind, name) IN
(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""


def _write(connection: Connection, head: Head, changes: Changes) -> None:
    """Few statements, for each waits for the interpreter, which a busy event loop makes slow; but not one for very many
    rows, for while they are encoded the loop waits."""
    if changes.whole:
        connection.execute("DELETE FROM live_state")
    elif changes.gone:
        for start in range(0, len(changes.gone), AT_ONCE):
            connection.execute(_DROP, (_encode(changes.gone[start : start + AT_ONCE]),))
    rows = [*changes.puts, ("head", "", head)]
    for start in range(0, len(rows), AT_ONCE):
        connection.execute(_PUT, (_encode(rows[start : start + AT_ONCE]),))


def _encode(rows: Sequence[object]) -> str:
    return msgspec.json.encode(rows).decode()


def _rows(connection: Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT kind, value FROM live_state").fetchall()


_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "head": msgspec.json.Decoder(Head),
    "mark": msgspec.json.Decoder(KeptMark),
    "use": msgspec.json.Decoder(KeptUse),
    "limit": msgspec.json.Decoder(list[KeptLimit]),
    "faults": msgspec.json.Decoder(KeptFaults),
    "cycle": msgspec.json.Decoder(KeptCycle),
}


def _kept(rows: Iterable[tuple[str, str]]) -> Kept | None:
    found: dict[str, list[Any]] = {kind: [] for kind in _DECODERS}
    unread = 0
    for kind, value in rows:
        decoder = _DECODERS.get(kind)
        try:
            if decoder is not None:
                found[kind].append(decoder.decode(value))
        except msgspec.DecodeError:
            unread += 1
    if not found["head"]:
        return None
    limits = [each for limits in found["limit"] for each in limits]
    return Kept(found["head"][0], found["mark"], found["use"], limits, found["faults"], found["cycle"], unread)


__all__ = [
    "STATE_FILE",
    "Changes",
    "Head",
    "Kept",
    "Kind",
    "Name",
    "Snapshots",
    "boot_name",
    "forget_limits",
    "forget_marks",
    "look_at_snapshot",
]
