"""House-keeping of the ledger in PostgreSQL, by one gateway at a time, and what may be wrong with the database."""

from __future__ import annotations

from collections.abc import Sequence

from keyturn.core import Clock

from .postgres_link import LONG, PostgresLink, Session
from .postgres_schema import INDEXES, OLDEST_SERVER, migrations, schema_of, statement

HOUR, DAY = 3_600_000, 86_400_000
MINUTES_KEPT, HOURS_KEPT = 2 * DAY, 90 * DAY
"""Milliseconds after which sums of minutes become sums of hours, and these sums of days."""
GONE = HOUR
"""Milliseconds after which nobody will end an attempt any more, whoever began it."""
LEAST_KEPT = 2 * HOUR
"""Milliseconds that single attempts are kept in any case: none under way may be dropped."""
SLICE = 20_000
"""Rows of each table that one transaction drops, or about so many."""
MOST_SLICES = 1000
"""Transactions of one round at most: what is left then waits for the next."""
MOST_SKEW = 2.0
"""Seconds that the clocks of this machine and of the server may differ."""
_KEEPING_HOUSE = 20_813_002
"""Names the advisory lock of whoever keeps house."""
_ALONE = f"SELECT pg_try_advisory_xact_lock({_KEEPING_HOUSE}, hashtext(coalesce(current_schema(), '')))"


async def keep_house(link: PostgresLink, now: int, keep_days: float, responses_days: float) -> int:
    """One round; how many rows went. Nothing, while another gateway does it. Raises StoreError."""
    keep_from = now - max(int(keep_days * DAY), LEAST_KEPT)
    into_hours, into_days = _floor(now - MINUTES_KEPT, HOUR), _floor(now - HOURS_KEPT, DAY)

    async def first(session: Session) -> int | None:
        if not await session.fetchval(_ALONE):
            return None
        await session.execute(statement("give_up"), None, now - GONE)
        old = now - int(responses_days * DAY)
        done = await session.execute("DELETE FROM keyturn_responses WHERE at < $1", old)
        await session.fetchval(statement("fold_sums"), into_hours, into_days)
        return int(done.rpartition(" ")[2])

    async def slice_off(session: Session) -> int | None:
        if not await session.fetchval(_ALONE):
            return None
        found = await session.fetchrow(statement("slice"), keep_from, SLICE)
        if found is None:
            return None
        oldest, until = found
        dropped, latest = await session.fetchrow(statement("fold_attempts"), oldest, until, into_hours, into_days)
        if latest is not None:  # not *until*: a clock that is ahead must not keep later rows out
            await session.execute("UPDATE keyturn_kept_from SET at = greatest(at, $1)", latest + 1)
        done = await session.execute("DELETE FROM keyturn_calls WHERE at >= $1 AND at < $2", oldest, until)
        return int(dropped) + int(done.rpartition(" ")[2])

    gone = await link.run(first, LONG)
    if gone is None:
        return 0
    for _ in range(MOST_SLICES):
        more = await link.run(slice_off, LONG)
        if more is None:
            break
        gone += more
    return gone


async def faults(link: PostgresLink, clock: Clock) -> Sequence[str]:
    """What is wrong, one sentence each."""

    async def look(session: Session) -> list[str]:
        found = []
        before = clock.wall()
        theirs = float(await session.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
        skew = theirs - (before + clock.wall()) / 2
        if abs(skew) > MOST_SKEW:
            found.append(
                f"the server's clock is {skew:+.1f} s off this machine's: set both by NTP, for rows have times"
            )
        number = int(await session.fetchval("SELECT current_setting('server_version_num')"))
        if number < OLDEST_SERVER:
            found.append(f"PostgreSQL {number // 10_000} is too old: 13 is the first that is known to do")
        if await session.fetchval("SELECT pg_is_in_recovery()"):
            found.append("this is a read-only standby: nothing can be recorded; name the primary in DATABASE_URL")
        schema, newest = await schema_of(session), max(migrations())
        if schema != newest:
            found.append(f"the tables have schema {schema}, this program knows {newest}: run `keyturn stores migrate`")
            return found
        rows = await session.fetch(
            "SELECT index.relname FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid "
            "WHERE indisvalid AND index.relnamespace = "
            "(SELECT relnamespace FROM pg_class WHERE oid = to_regclass('keyturn_schema'))"
        )
        have = {row[0] for row in rows}
        found += [f"the index {name} is missing or invalid: see REINDEX" for name in INDEXES if name not in have]
        lost = await session.fetchval(
            "SELECT count(*) FROM keyturn_attempts WHERE state = 'open' AND at < $1", int(clock.wall() * 1000) - GONE
        )
        if lost:
            found.append(
                f"{lost} attempts are open for over an hour: the next house-keeping counts them as they are held"
            )
        return found

    return await link.run(look, LONG)


def _floor(at: int, span: int) -> int:
    return at - at % span
