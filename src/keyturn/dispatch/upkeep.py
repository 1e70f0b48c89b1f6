"""Keeping house in the stores: what `keyturn stores` does beside a running gateway, and without one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from keyturn.config import Config, DataFolder, WorkerFolder
from keyturn.core import Clock, Secret
from keyturn.errors import DataFolderInUse, StoreError
from keyturn.stores import LiveStanding, Sink, Standing, look_at_shared

from .carried import take_spend
from .storing import JOURNAL_FOLDER, STATE_FILE, ledger_of, state_file_of

LOW_SPACE, NO_SPACE = 1024 * 1024 * 1024, 64 * 1024 * 1024
"""Bytes free on the disk of the data folder: below the first a warning, below the second a fault."""


class Finding(NamedTuple):
    """One thing that was looked at. `fail`: calls or records suffer; `warn`: worth a look."""

    check: str
    state: Literal["ok", "warn", "fail"]
    detail: str


class Leftover(NamedTuple):
    """What lies in the journal: its bytes, and for how many seconds its oldest file has not been written."""

    size: int
    age: float


@asynccontextmanager
async def ledger_apart(
    config: Config, clock: Clock, *, whole: bool = False, make: bool = False, untouched: bool = False
) -> AsyncIterator[Sink | None]:
    """The database of the ledger, for who is not the gateway. None: there is none yet.

    When no process owns the data folder and a journal is left in it, that is taken in first, unless it is to stay
    *untouched*. *whole*: as at the start of a gateway in any case, but that none is made unless *make* says so. Raises
    StoreError, and with *whole* DataFolderInUse.
    """
    config = replace(config, ledger=replace(config.ledger, enabled=True))
    folder = DataFolder(config.data)
    left = not untouched and leftover(config.data, clock.wall()).size > 0
    if config.ledger.database_url is None and not make and not left and not (config.data / STATE_FILE).exists():
        yield None
        return
    owned = False
    if whole or left:
        try:
            folder.lock()
            owned = True
        except DataFolderInUse:
            if whole:
                raise
    try:
        if owned:
            await _take_in(config, folder, clock)
        sink = ledger_of(config, folder, clock).sink
        assert sink is not None, "it is enabled, and the folder is given"
        try:
            await sink.open()
            yield sink
        finally:
            await sink.close()
    finally:
        if owned:
            folder.release()


async def _take_in(config: Config, folder: DataFolder, clock: Clock) -> None:
    """What the gateway, or each of its workers, left in a journal of *folder*, which this process owns."""
    left = [part for part in folder.parts() if part.path == folder.path or leftover_in(part.path, clock.wall()).size]
    await take_in(config, folder, left, clock)


def left_by_others(folder: DataFolder, workers: int, wall: float) -> list[DataFolder]:
    """The parts of *folder* that hold rows and that a gateway of so many *workers* does not use: another number of them
    was there before."""
    several = [WorkerFolder(folder.path, number).path for number in range(1, workers + 1)]
    used = several if workers > 1 else [folder.path]
    return [part for part in folder.parts() if part.path not in used and leftover_in(part.path, wall).size]


async def take_in(config: Config, folder: DataFolder, left: Iterable[DataFolder], clock: Clock) -> None:
    """Have the ledger of *folder*, which this process owns, take in what lies in *left*; but not what another process
    is still writing. Raises StoreError when the database is away: then it stays where it is."""
    for part in left:
        if part.path != folder.path:
            try:
                part.lock()
            except DataFolderInUse:
                continue
        ledger = ledger_of(config, part, clock, state_file_of(config, folder))
        try:
            await ledger.open()
        finally:
            await ledger.close()
            if part.path != folder.path:
                part.release()


def leftover(data: Path, wall: float) -> Leftover:
    """What the journals of the data folder and of its workers hold at *wall*, Unix seconds."""
    found = [leftover_in(part.path, wall) for part in DataFolder(data).parts()]
    return Leftover(sum(each.size for each in found), max(each.age for each in found))


def leftover_in(data: Path, wall: float) -> Leftover:
    """What one journal holds."""
    from keyturn.stores import written_in

    size, oldest = 0, wall
    try:
        for file in (data / JOURNAL_FOLDER).iterdir():
            written = written_in(file)
            if written:
                size += written
                oldest = min(oldest, file.stat().st_mtime)
    except OSError:
        pass  # no journal, or a file that was taken in meanwhile
    return Leftover(size, max(wall - oldest, 0.0))


def _unusable(error: StoreError) -> Finding:
    return Finding("database", "fail", error.message.removesuffix(error.SAYS_MORE))


async def database_findings(config: Config, sink: Sink) -> list[Finding]:
    """What is right and wrong with the database of the ledger."""
    try:
        said = await sink.check()
        outline = await sink.outline()
    except StoreError as error:
        return [_unusable(error)]
    if said:
        return [Finding("database", "fail", each) for each in said]
    return [Finding("database", "ok", f"{place_of(config)}: {outline}; nothing is wrong with it")]


def standing_findings(standing: Standing) -> Iterator[Finding]:
    """How the ledger of a running gateway does."""
    trouble = standing.trouble or "it cannot be written"
    if not standing.writable:
        yield Finding("ledger", "fail", f"calls go on unrecorded, those with a budget are refused: {trouble}")
    elif not standing.reachable:
        said = f"the database is away, {in_bytes(standing.waiting_bytes)} wait in the data folder: {trouble}"
        yield Finding("ledger", "fail", said)
    elif standing.lost:
        yield Finding("ledger", "warn", f"{standing.lost} rows could not be recorded since the start")
    else:
        yield Finding("ledger", "ok", "every call is recorded")


def live_findings(live: LiveStanding) -> Iterator[Finding]:
    """How the live state of a running gateway does."""
    if live.store == "memory":
        yield Finding("live state", "ok", "in the memory of the gateway")
    elif not live.reachable:
        yield Finding("live state", "fail", f"Redis is away, each limit follows REDIS_WITHOUT: {live.trouble}")
    else:
        state: Literal["ok", "warn"] = "warn" if live.trouble else "ok"
        said = f"in Redis, shared by {live.replicas} gateway{'s' * (live.replicas != 1)}"
        yield Finding("live state", state, said + (f"; {live.trouble}" if live.trouble else ""))


def disk_findings(config: Config, left: Leftover, waiting: int | None = None) -> Iterator[Finding]:
    """The journal and the space on the disk; *waiting*: bytes that a running gateway has still to hand over."""
    if not left.size or waiting == 0:
        yield Finding("journal", "ok", "nothing waits in it")
    elif waiting is not None:
        yield Finding("journal", "ok", f"{in_bytes(waiting)} wait for the database")
    else:
        said = (
            f"{in_bytes(left.size)} of a run that ended {_ago(left.age)}, taken in at the next start or by "
            "`keyturn stores migrate`"
        )
        yield Finding("journal", "warn", said)
    there = next(each for each in (config.data, *config.data.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    state: Literal["ok", "warn", "fail"] = "fail" if free < NO_SPACE else "warn" if free < LOW_SPACE else "ok"
    yield Finding("disk", state, f"{in_bytes(free)} free for {config.data}")


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def place_of(config: Config) -> str:
    """Where the ledger is, without its password."""
    return "PostgreSQL" if config.ledger.database_url is not None else str(config.data / STATE_FILE)


def in_bytes(size: int) -> str:
    """`812 bytes`, `3.4 MB`."""
    if size < 10_000:
        return f"{size} bytes"
    figure, unit = size / 1000.0, "kB"
    for larger in ("MB", "GB", "TB"):
        if figure >= 1000:
            figure, unit = figure / 1000, larger
    return f"{figure:.1f} {unit}"


async def findings_apart(config: Config, clock: Clock) -> list[Finding]:
    """What `keyturn stores check` finds while no gateway runs; nothing is changed by looking."""
    found: list[Finding] = []
    if not config.ledger.enabled:
        found.append(Finding("ledger", "warn", "nothing is recorded: LEDGER_ENABLED is false"))
    elif (earlier := _earlier_schema(config)) is not None:
        found.append(earlier)
    else:
        try:
            async with ledger_apart(config, clock, untouched=True) as sink:
                if sink is None:
                    found.append(Finding("database", "ok", f"{place_of(config)}: made at the first start"))
                else:
                    found += await database_findings(config, sink)
        except StoreError as error:
            found.append(_unusable(error))
    found += disk_findings(config, leftover(config.data, clock.wall()))
    if config.redis is not None:
        found += await _shared_state(config.redis.url, clock)
    return found


def _earlier_schema(config: Config) -> Finding | None:
    """What is to be said of a file that opening would migrate."""
    from keyturn.stores import newest_schema

    path = config.data / STATE_FILE
    schema, newest = _schema_in(path), newest_schema()
    if config.ledger.database_url is not None or not 0 < schema < newest:
        return None
    said = f"{path}: schema {schema}, brought to {newest} at the next start or by `keyturn stores migrate`"
    return Finding("database", "warn", said)


async def _shared_state(url: Secret, clock: Clock) -> list[Finding]:
    """Whether Redis may be used, as at the start of a gateway."""
    try:
        shown, worth = await look_at_shared(url, clock)
    except StoreError as error:
        return [Finding("live state", "fail", error.message)]
    if not worth:
        return [Finding("live state", "ok", f"{shown} may be used")]
    return [Finding("live state", "warn", f"{shown}: {each}") for each in worth]


async def migrated_apart(config: Config, clock: Clock) -> list[str]:
    """Do what a gateway does at its start, while none runs; what was done. Raises StoreError, DataFolderInUse."""
    left = leftover(config.data, clock.wall()).size
    schema = _schema_in(config.data / STATE_FILE)
    done: list[str] = []
    make = DataFolder(config.data).spend_before() is not None
    async with ledger_apart(config, clock, whole=True, make=make) as sink:
        if sink is None:
            return [f"there is no ledger yet in {config.data}, and nothing to put into one"]
        stands = f"{place_of(config)}: {await sink.outline()}"
        if await take_spend(DataFolder(config.data), sink):
            done.append("spend.json was taken over, and is called spend.json.migrated now")
    if left:
        done.append(f"{in_bytes(left)} of the journal of the last run were taken in")
    if schema and (now := _schema_in(config.data / STATE_FILE)) != schema:
        done.append(f"the schema was brought from {schema} to {now}")
    return [stands, *(done or ["there was nothing to do"])]


def _schema_in(path: Path) -> int:
    """Which schema a SQLite file that nobody uses has, by its head; 0 when there is none."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return 0
    return int.from_bytes(head[60:64], "big") if head.startswith(b"SQLite format 3\0") else 0
