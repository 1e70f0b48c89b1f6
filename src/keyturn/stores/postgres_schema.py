"""The ledger's tables in PostgreSQL: numbered SQL files, applied in order, each whole or not at all, never backward."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from keyturn.errors import StoreError

from .postgres_errors import shown
from .postgres_link import LONG, PostgresLink, Session

FOLDER = Path(__file__).parent / "sql" / "postgres"
OLDEST_SERVER = 130_000
INDEXES = (
    "keyturn_attempts_pkey",
    "keyturn_attempts_at",
    "keyturn_attempts_call",
    "keyturn_attempts_open",
    "keyturn_calls_pkey",
    "keyturn_calls_at",
    "keyturn_usage_sums_at",
    "keyturn_usage_sums_pkey",
    "keyturn_responses_at",
    "keyturn_responses_pkey",
)
_MIGRATING = 20_813_001
"""Names the advisory lock of whoever changes tables."""


@cache
def statement(name: str) -> str:
    """The SQL of the file *name* among the statements."""
    return (FOLDER / "statements" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def migrations() -> dict[int, Path]:
    """The numbered files, in order."""
    return {int(file.name[:4]): file for file in sorted(FOLDER.glob("[0-9][0-9][0-9][0-9]_*.sql"))}


async def schema_of(session: Session) -> int:
    """Which schema the database has; 0 for none yet."""
    # Not by to_regclass, which may remember from before the lock was waited for that there is no such table.
    there = "SELECT count(*) FROM pg_class WHERE relname = 'keyturn_schema' AND pg_table_is_visible(oid)"
    if not await session.fetchval(there):
        return 0
    return int(await session.fetchval("SELECT coalesce(max(version), 0) FROM keyturn_schema"))


async def migrate(link: PostgresLink, upto: int | None = None) -> list[int]:
    """Bring the tables up to the newest schema (or *upto*); the numbers that were applied here.

    Any number of gateways may do so at a time. Raises StoreError when they were made by a newer program.
    """
    found = await link.run(schema_of)
    newest = max(migrations())
    if found > newest:
        raise StoreError(
            f"PostgreSQL at {shown(link.url)}: made by a newer Keyturn (schema {found}, this one knows {newest}): "
            "use that version, or another database"
        )
    wanted = newest if upto is None else upto
    return [
        number
        for number, file in migrations().items()
        if found < number <= wanted and await link.run(_Step(number, file.read_text(encoding="utf-8")), LONG)
    ]


class _Step:
    """One migration: True when this process made it, False when another one had."""

    def __init__(self, number: int, sql: str) -> None:
        self._number = number
        self._sql = sql

    async def __call__(self, session: Session) -> bool:
        await session.execute(f"SELECT pg_advisory_xact_lock({_MIGRATING}, hashtext(coalesce(current_schema(), '')))")
        if await schema_of(session) >= self._number:
            return False
        if self._number == min(migrations()):
            await session.execute(
                "CREATE TABLE keyturn_schema (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
            )
        await session.execute(self._sql)
        await session.execute("INSERT INTO keyturn_schema (version) VALUES ($1)", self._number)
        return True
