"""The ledger in PostgreSQL: what the journals of many gateways are handed over to, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from keyturn.core import Clock, Secret
from keyturn.errors import StoreError

from .ledger import AttemptRow, CallRow, CallStory, ResponseRow, UsageQuery, UsageRow
from .lines import Names, in_full
from .postgres_errors import shown
from .postgres_house import faults, keep_house
from .postgres_link import LONG, PostgresLink, Session
from .postgres_schema import migrate, schema_of, statement

_NUL, _REPLACEMENT = b"\\u0000", b"\\ufffd"
"""What a client may have put into a name, and PostgreSQL keeps in no text."""


class PostgresSink:
    """The database at *url*, which many gateways share; also the kept answers. Of one event loop."""

    name: Literal["sqlite", "postgres"] = "postgres"

    def __init__(self, url: Secret, clock: Clock) -> None:
        self._clock = clock
        self._link = PostgresLink(url, clock)

    async def open(self) -> None:
        """Connect and migrate forward. Raises StoreError; StoreAway when it may be reached later."""
        self._link.open()
        await migrate(self._link)

    async def apply(self, lines: Sequence[bytes], instance: str, names: Names | None = None) -> None:
        """Take in journal lines in one transaction, each at most once.

        Raises StoreAway, or RowsRefused when there is a line among them that can never be taken.
        """
        full = in_full(lines, {} if names is None else names)
        if not full:
            return
        rows = (b"[" + b",".join(full) + b"]").replace(_NUL, _REPLACEMENT).decode("utf-8", "replace")

        async def work(session: Session) -> None:
            await session.execute(statement("apply_attempts"), rows, instance)
            await session.execute(statement("apply_calls"), rows, instance)

        await self._link.run(work)

    async def give_up(self, instance: str, before: int) -> int:
        """Attempts of *instance* that began before this and are not over: they count as they are held."""
        done = await self._link.run(lambda session: session.execute(statement("give_up"), instance, before))
        return int(done.rpartition(" ")[2])

    async def add_spent(self, month: str, spent: Mapping[str, int], source: str) -> None:
        """Take over what was spent before; the same *source* again changes nothing."""
        await self._link.run(
            lambda session: session.execute(
                statement("add_spent"), month, list(spent.keys()), list(spent.values()), source
            )
        )

    async def spent(self, month: str) -> Mapping[str, int]:
        """`caller/<name>` and `role/<name>` -> nano-dollars charged in *month*."""
        since, until = _span_of(month)
        rows = await self._link.run(lambda session: session.fetch(statement("spent"), since, until, month), LONG)
        return {row["scope"]: row["nano"] for row in rows}

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        """Sums of what is asked for."""
        asked = (query.by, query.since, query.until, query.most, query.name.replace("\0", ""))
        rows = await self._link.run(lambda session: session.fetch(statement("usage"), *asked), LONG)
        return [UsageRow(*row) for row in rows]

    async def story(self, call: str) -> CallStory | None:
        """One call by its id, None when it is not known."""

        async def work(session: Session) -> tuple[Any, Sequence[Any]]:
            return (
                await session.fetchrow(statement("story_call"), call),
                await session.fetch(statement("story_attempts"), call),
            )

        if "\0" in call:
            return None
        ended, attempts = await self._link.run(work)
        if ended is None and not attempts:
            return None
        return CallStory.of(_call_of(ended), tuple(AttemptRow(*row) for row in attempts))

    async def keep_house(self, now: int, keep_days: float, responses_days: float) -> int:
        """Sum up and drop what is older than *keep_days*, give up what nobody will end; how many rows went.

        One gateway at a time does it; another one meanwhile does nothing.
        """
        return await keep_house(self._link, now, keep_days, responses_days)

    async def check(self) -> Sequence[str]:
        """What is wrong with the database, one sentence each. Raises StoreError when it cannot be asked."""
        return await faults(self._link, self._clock)

    async def outline(self) -> str:
        """Its schema, and how many attempts are under way. Raises StoreError."""

        async def look(session: Session) -> str:
            under_way = await session.fetchval("SELECT count(*) FROM keyturn_attempts WHERE state = 'open'")
            return f"schema {await schema_of(session)}, {under_way} under way"

        return await self._link.run(look)

    async def backup(self, path: Path) -> None:
        """Refused: PostgreSQL has its own program for it, which the StoreError names."""
        raise StoreError(
            f"the ledger is in PostgreSQL at {shown(self._link.url)}: back it up with its own program, for example "
            f"pg_dump --format=custom --table='keyturn_*' --file={path} \"$DATABASE_URL\""
        )

    async def keep(self, row: ResponseRow) -> None:
        """Keep one answer, in place of one with the same id."""
        await self._link.run(lambda session: session.execute(statement("keep_response"), *row))

    async def find(self, caller: str, id: str) -> ResponseRow | None:
        """One answer, of *caller* only."""
        if "\0" in caller + id:
            return None
        row = await self._link.run(lambda session: session.fetchrow(statement("find_response"), caller, id))
        return None if row is None else ResponseRow(*row)

    async def forget(self, caller: str, id: str) -> bool:
        """Whether there was such an answer, which is gone now."""
        if "\0" in caller + id:
            return False
        done = await self._link.run(lambda session: session.execute(statement("forget_response"), caller, id))
        return done != "DELETE 0"

    async def close(self) -> None:
        """End the connections, after what is under way."""
        await self._link.close()

    def let_go(self) -> None:
        """End them where there is no loop to wait on."""
        self._link.let_go()


def _call_of(row: Any) -> CallRow | None:
    if row is None:
        return None
    *values, refusals, notes = row
    return CallRow("c", *values, _words(refusals), _words(notes))  # type: ignore[call-arg]


def _words(stored: str | None) -> Sequence[str]:
    return () if stored is None else msgspec.json.decode(stored, type=tuple[str, ...])


def _span_of(month: str) -> tuple[int, int]:
    """When `2026-11` begins and ends in UTC, Unix milliseconds."""
    year, number = int(month[:4]), int(month[5:])
    begins = datetime(year, number, 1, tzinfo=UTC)
    ends = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return int(begins.timestamp() * 1000), int(ends.timestamp() * 1000)
