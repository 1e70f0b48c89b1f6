"""House-keeping in the SQLite ledger: attempts of dead processes, sums in place of old rows, what is kept no longer.

Whatever is summed up leaves its old place in the same transaction, so that it is counted in one place only, however
often and wherever this is interrupted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from .sqlite_questions import OVER, SUMS

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MINUTES_KEPT, HOURS_KEPT = 2 * DAY, 90 * DAY
"""How long sums stay by the minute and by the hour; by the day they stay for ever."""
LEAST_KEPT = 2 * HOUR
"""How long single attempts are kept in any case: none under way may be dropped."""
SLICE = 5_000
"""Rows that are moved in one transaction."""
FORGOTTEN = HOUR
"""After which an attempt that is not over is taken for one whose process died, whosever it was."""
CRASHED = "crashed"
"""The meaning of an attempt whose process died."""

Step = Callable[[sqlite3.Connection], int]

_KEYS = "caller, role, key, fingerprint, provider, model"
_FIGURES = "attempts failed input cached output reasoning cost charged unpriced estimated".split()
_ADD = ", ".join(f"{name} = {name} + excluded.{name}" for name in _FIGURES)


def give_up(connection: sqlite3.Connection, before: int, instance: str | None = None) -> int:
    """Attempts (of *instance*, or all) that are not over though their process is dead: they count as they are held.
    How many there were. Should one end after all, its end takes the place of the estimate."""
    return connection.execute(
        "UPDATE attempts SET state = 'estimated', meaning = ?1 "
        "WHERE state = 'open' AND at < ?2 AND (?3 IS NULL OR instance = ?3)",
        (CRASHED, before, instance),
    ).rowcount


def steps(now: int, keep_days: float, responses_days: float) -> Iterator[Step]:
    """What is to be done at *now*, each again and again until it moves nothing. Times are Unix milliseconds."""
    oldest = now - max(int(keep_days * DAY), LEAST_KEPT)
    yield lambda connection: give_up(connection, now - FORGOTTEN)
    yield lambda connection: _sum_up(connection, now, oldest)
    yield lambda connection: _drop(connection, "calls", oldest)
    yield lambda connection: _coarsen(connection, MINUTE, HOUR, _floor(now - MINUTES_KEPT, HOUR))
    yield lambda connection: _coarsen(connection, HOUR, DAY, _floor(now - HOURS_KEPT, DAY))
    yield lambda connection: _drop(connection, "responses", now - int(responses_days * DAY))


def _sum_up(connection: sqlite3.Connection, now: int, oldest: int) -> int:
    """Put the oldest single attempts into sums."""
    chosen = f"rowid IN (SELECT rowid FROM attempts WHERE at < ? AND {OVER} ORDER BY at, rowid LIMIT ?)"
    connection.execute(
        f"""
        INSERT INTO usage_sums
        SELECT span, at - at % span, {_KEYS}, {SUMS} FROM (
            SELECT *, CASE WHEN at >= ? THEN {MINUTE} WHEN at >= ? THEN {HOUR} ELSE {DAY} END AS span
            FROM attempts WHERE {chosen}
        )
        GROUP BY 1, 2, {_KEYS}
        ON CONFLICT DO UPDATE SET {_ADD}
        """,
        (_floor(now - MINUTES_KEPT, HOUR), _floor(now - HOURS_KEPT, DAY), oldest, SLICE),
    )
    return connection.execute(f"DELETE FROM attempts WHERE {chosen}", (oldest, SLICE)).rowcount


def _coarsen(connection: sqlite3.Connection, fine: int, coarse: int, before: int) -> int:
    """Put sums of *fine* spans that began before *before* into those of *coarse* ones."""
    connection.execute(
        f"""
        INSERT INTO usage_sums
        SELECT {coarse}, at - at % {coarse}, {_KEYS}, {", ".join(f"sum({name})" for name in _FIGURES)}
        FROM usage_sums WHERE span = {fine} AND at < ?
        GROUP BY 2, {_KEYS}
        ON CONFLICT DO UPDATE SET {_ADD}
        """,
        (before,),
    )
    return connection.execute(f"DELETE FROM usage_sums WHERE span = {fine} AND at < ?", (before,)).rowcount


def _drop(connection: sqlite3.Connection, table: str, oldest: int) -> int:
    return connection.execute(
        f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE at < ? ORDER BY at LIMIT ?)",
        (oldest, SLICE),
    ).rowcount


def _floor(at: int, span: int) -> int:
    return at - at % span
