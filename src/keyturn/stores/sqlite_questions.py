"""What is asked of the SQLite ledger: sums of usage, what was spent in a month, the story of one call, its health."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from .ledger import AttemptRow, By, CallRow, CallStory, UsageQuery, UsageRow
from .sqlite_file import troubles
from .sqlite_schema import newest_schema, schema_of

DAY = 86_400_000
OVER = "state <> 'open'"
SUMS = """
    count(*) AS attempts,
    sum(meaning <> 'ok') AS failed,
    sum(input) AS input, sum(cached) AS cached, sum(output) AS output, sum(reasoning) AS reasoning,
    coalesce(sum(cost), 0) AS cost,
    sum(charged) AS charged,
    sum(cost IS NULL AND input + output > 0) AS unpriced,
    sum(NOT exact AND input + output > 0) AS estimated
"""
"""Over rows of `attempts`, in the order of the columns of `usage_sums`."""
NAMES: Mapping[By, str] = {
    "key": "key",
    "caller": "caller",
    "model": "provider || '/' || model",
    "day": "strftime('%Y-%m-%d', at / 1000, 'unixepoch')",
}
COLUMNS = "attempts failed input cached output reasoning cost unpriced estimated".split()
_ATTEMPT = ", ".join(AttemptRow.__struct_fields__[1:])


def usage(connection: sqlite3.Connection, query: UsageQuery) -> list[UsageRow]:
    """Single attempts where there still are any; where only sums are left, those that begin in the time asked for."""
    if query.by == "call":
        return _by_call(connection, query)
    name = NAMES[query.by]
    sums = ", ".join(f"sum({column})" for column in COLUMNS)
    found = connection.execute(
        f"""
        SELECT name, {sums} FROM (
            SELECT {name} AS name, {SUMS} FROM attempts
            WHERE at >= :since AND at < :until AND {OVER} GROUP BY 1
            UNION ALL
            SELECT {name} AS name, {", ".join(f"sum({column})" for column in COLUMNS[:7])}, sum(charged),
                sum(unpriced), sum(estimated) FROM usage_sums
            WHERE at >= :since AND at < :until GROUP BY 1
        )
        WHERE :name = '' OR name = :name
        GROUP BY name ORDER BY sum(input) + sum(output) DESC, name LIMIT :most
        """,
        {"since": query.since, "until": query.until, "name": query.name, "most": query.most},
    )
    return [UsageRow(*row) for row in found]


def _by_call(connection: sqlite3.Connection, query: UsageQuery) -> list[UsageRow]:
    found = connection.execute(
        f"""
        SELECT name, {", ".join(COLUMNS)} FROM (
            SELECT call AS name, max(at) AS latest, {SUMS} FROM attempts
            WHERE at >= :since AND at < :until AND {OVER} AND (:name = '' OR call = :name) GROUP BY call
            UNION ALL
            SELECT id, at, {", ".join("0" * (len(COLUMNS) + 1))} FROM calls
            WHERE at >= :since AND at < :until AND attempts = 0 AND (:name = '' OR id = :name)
        )
        ORDER BY latest DESC, name DESC LIMIT :most
        """,
        {"since": query.since, "until": query.until, "name": query.name, "most": query.most},
    )
    return [UsageRow(*row) for row in found]


def spent(connection: sqlite3.Connection, month: str) -> dict[str, int]:
    """`caller/<name>` and `role/<name>` -> nano-dollars charged in *month*."""
    since, until = bounds_of(month)
    found: dict[str, int] = {}
    for table in ("attempts", "usage_sums"):
        for column in ("caller", "role"):
            rows = connection.execute(
                f"SELECT {column}, sum(charged) FROM {table} WHERE at >= ? AND at < ? AND {column} <> '' GROUP BY 1",
                (since, until),
            )
            for name, nano in rows:
                scope = f"{column}/{name}"
                found[scope] = found.get(scope, 0) + nano
    rows = connection.execute("SELECT scope, sum(nano) FROM spent_before WHERE month = ? GROUP BY 1", (month,))
    for scope, nano in rows:
        found[scope] = found.get(scope, 0) + nano
    return {scope: nano for scope, nano in found.items() if nano}


def bounds_of(month: str) -> tuple[int, int]:
    """The first moment of *month* (`2026-11`, UTC) and that of the next, Unix milliseconds."""
    year, number = int(month[:4]), int(month[5:7])
    after = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return int(datetime(year, number, 1, tzinfo=UTC).timestamp()) * 1000, int(after.timestamp()) * 1000


def story(connection: sqlite3.Connection, call: str) -> CallStory | None:
    """One call with its attempts in the order in which they began."""
    found = connection.execute(
        "SELECT id, at, caller, route, status, code, ms, waited_ms, attempts, stream, refusals, notes FROM calls "
        "WHERE id = ?",
        (call,),
    ).fetchone()
    rows = connection.execute(
        f"SELECT state, {_ATTEMPT} FROM attempts WHERE call = ? ORDER BY at, resend, rowid", (call,)
    ).fetchall()
    if found is None and not rows:
        return None
    return CallStory.of(_call(found) if found is not None else None, tuple(_attempt(*row) for row in rows))


def _call(row: Sequence[object]) -> CallRow:
    refusals, notes = row[-2:]
    found = CallRow("c", *row[:-2], _list(refusals), _list(notes))  # type: ignore[arg-type, call-arg]
    found.stream = bool(found.stream)
    return found


def _list(text: object) -> tuple[str, ...]:
    return tuple(json.loads(str(text))) if text else ()


def _attempt(state: str, *fields: object) -> AttemptRow:
    row = AttemptRow("i" if state == "open" else "f", *fields)  # type: ignore[arg-type]
    row.resend, row.exact = bool(row.resend), bool(row.exact)
    return row


def check(connection: sqlite3.Connection, path: Path) -> list[str]:
    """What is wrong with the database, one sentence each."""
    found = [f"{path} is damaged: {each}" for each in troubles(connection)]
    schema, newest = schema_of(connection), newest_schema()
    if schema != newest:
        found.append(f"{path} has schema {schema}, this program knows {newest}: run `keyturn stores migrate`")
    return found


def outline(connection: sqlite3.Connection) -> str:
    """Its schema, and how many attempts are under way."""
    under_way = connection.execute("SELECT count(*) FROM attempts WHERE state = 'open'").fetchone()[0]
    return f"schema {schema_of(connection)}, {under_way} under way"
