"""The ledger's database in SQLite: takes in journal lines, answers what is asked of it, keeps house.

Attempts are handed over many in a statement, those that share what does not differ with that bound once. Row by row
the interpreter would be asked for after each of them, and a busy loop gives it back late.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Literal

from keyturn.errors import RowsRefused, StoreError

from . import sqlite_house as house
from . import sqlite_questions as questions
from .ledger import CallStory, ResponseRow, UsageQuery, UsageRow
from .lines import OWN, SHARED, Names, shared_values, told_apart
from .sqlite_file import SqliteFile, troubles

_CALL = "at caller route status code ms waited_ms attempts stream".split()
"""The members of CallRow after its id, up to its lists, in the order of its JSON; each is a column of the same name."""
_TEXTS = {"caller", "route", "code"}
_SHARED = tuple("state" if name == "kind" else name for name in SHARED)
_FIXED = {"id", "instance"}
FEW = 4
"""Attempts that share so much or less are not worth a statement of their own."""
MOST_VALUES = 4_000
"""That are bound to a statement: more make it no faster. Some builds of SQLite take only 999."""


@cache
def _attempts(rows: int, each: tuple[str, ...], same: tuple[str, ...], none: tuple[str, ...], *, known: bool) -> str:
    """The statement that takes in attempts, bound to: what is the *same* in all of them, and what *each* has; what
    *none* has is null. *known*: some are there, and may have their end to come; else whatever cannot be taken in is
    passed over."""
    members = [*same, *each, *none]
    places = [f"?{number}" for number in range(1, len(same) + 1)] + [f"column{n}" for n in range(1, len(each) + 1)]
    places += ["NULL"] * len(none)
    row = f"({', '.join('?' * len(each))})"
    ended = f"""
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in members if name not in _FIXED)}
WHERE excluded.state = 'final' AND attempts.state <> 'final'"""
    return f"""
INSERT {"" if known else "OR IGNORE"} INTO attempts ({", ".join(members)})
SELECT {", ".join(places)} FROM (VALUES {", ".join([row] * rows)})
WHERE true
{ended if known else ""}"""


_CALLS = ", ".join(
    f"coalesce(json_extract(line, '$[{place}]'), {repr('') if name in _TEXTS else 0})"
    for place, name in enumerate(_CALL, 2)
)
CALLS = f"""
INSERT INTO calls (id, {", ".join(_CALL)}, refusals, notes)
SELECT json_extract(line, '$[1]'), {_CALLS},
    nullif(json_extract(line, '$[11]'), '[]'), nullif(json_extract(line, '$[12]'), '[]')
FROM (SELECT value AS line FROM json_each(?1) LIMIT -1)
WHERE true
ON CONFLICT (id) DO NOTHING
"""


class SqliteSink:
    """The ledger in *file*; also keeps answers of the Responses API. Errors are StoreError, of a file that cannot be
    used just now StoreAway."""

    name: Literal["sqlite", "postgres"] = "sqlite"

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        self._open = False

    async def open(self) -> None:
        if not self._open:
            self._open = True
            await self.file.open()
        else:
            await self.file.run(lambda connection: None)

    async def apply(self, lines: Sequence[bytes], instance: str, names: Names | None = None) -> None:
        """Raises RowsRefused when a line is not JSON, or holds what no column takes."""
        known = {} if names is None else names
        await self.file.run(lambda connection: _apply(connection, lines, instance, known))

    async def give_up(self, instance: str, before: int) -> int:
        return await self.file.run(lambda connection: house.give_up(connection, before, instance))

    async def add_spent(self, month: str, spent: Mapping[str, int], source: str) -> None:
        rows = [(month, scope, source, nano) for scope, nano in spent.items()]
        await self.file.run(
            lambda connection: connection.executemany("INSERT OR IGNORE INTO spent_before VALUES (?, ?, ?, ?)", rows)
        )

    async def spent(self, month: str) -> Mapping[str, int]:
        return await self.file.read(lambda connection: questions.spent(connection, month))

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        return await self.file.read(lambda connection: questions.usage(connection, query))

    async def story(self, call: str) -> CallStory | None:
        return await self.file.read(lambda connection: questions.story(connection, call))

    async def keep_house(self, now: int, keep_days: float, responses_days: float) -> int:
        """In small transactions, so that the journal never waits for long."""
        gone = 0
        for step in house.steps(now, keep_days, responses_days):
            while moved := await self.file.run(step):
                gone += moved
        return gone

    async def check(self) -> Sequence[str]:
        return await self.file.read(lambda connection: questions.check(connection, self.file.path))

    async def outline(self) -> str:
        return await self.file.read(questions.outline)

    async def backup(self, path: Path) -> None:
        """Write a copy to *path*, private, whole or not at all, while calls go on. Raises StoreError, also when *path*
        exists."""
        await self.file.read(lambda connection: _back_up(connection, path))

    async def close(self) -> None:
        if self._open:
            self._open = False
            await self.file.close()

    async def keep(self, row: ResponseRow) -> None:
        await self.file.run(lambda connection: connection.execute(_KEEP, row))

    async def find(self, caller: str, id: str) -> ResponseRow | None:
        """Only *caller*'s own."""

        def look(connection: sqlite3.Connection) -> ResponseRow | None:
            found = connection.execute(
                "SELECT id, caller, at, previous, input, response FROM responses WHERE caller = ? AND id = ?",
                (caller, id),
            ).fetchone()
            return None if found is None else ResponseRow(*found)

        return await self.file.read(look)

    async def forget(self, caller: str, id: str) -> bool:
        statement = "DELETE FROM responses WHERE caller = ? AND id = ?"
        return await self.file.run(lambda connection: connection.execute(statement, (caller, id)).rowcount > 0)


_KEEP = "INSERT OR REPLACE INTO responses (id, caller, at, previous, input, response) VALUES (?, ?, ?, ?, ?, ?)"


def _apply(connection: sqlite3.Connection, lines: Sequence[bytes], instance: str, names: Names) -> None:
    together, calls = told_apart(lines, names)
    # Calls that take longer than the time between two visits began in an earlier one.
    known = len(lines) - len(calls) < 1.5 * sum(map(len, together.values()))
    alone: list[tuple[object, ...]] = []
    try:
        for shared, owns in together.items():
            values = shared_values(shared, names)
            if len(owns) > FEW:
                ends = values[0] == "final"
                _insert(connection, owns, OWN, (instance, *values), ("instance", *_SHARED), known=known and ends)
            else:
                alone += [(*own, *values) for own in owns]
        _insert(connection, alone, (*OWN, *_SHARED), (instance,), ("instance",), known=known)
        if calls:
            connection.execute(CALLS, (_array(calls),))
    except UnicodeDecodeError as error:
        raise RowsRefused(f"a line of the journal is not text ({error.reason})") from error
    except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError) as error:
        raise RowsRefused(f"a line of the journal is no row ({error})") from error
    except sqlite3.OperationalError as error:
        if "JSON" in str(error):
            raise RowsRefused(f"a line of the journal is no JSON ({error})") from error
        raise


def _insert(
    connection: sqlite3.Connection,
    rows: Sequence[tuple[object, ...]],
    each: tuple[str, ...],
    values: tuple[object, ...],
    same: tuple[str, ...],
    *,
    known: bool,
) -> None:
    """Take in *rows*, of the columns *each*, and *values*, of the columns *same* in all of them. As many at a time as
    may be, or a power of two: each number has a statement of its own, which SQLite keeps. What none of them has is not
    bound: the driver looks long for what a None might become. *known*: many are there, and have their end to come."""
    most = (min(MOST_VALUES, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)) - len(same)) // len(each)
    done = 0
    while left := len(rows) - done:
        number = min(most, 1 << (left.bit_length() - 1))
        part = rows[done : done + number]
        done += number
        none = [place for place, value in enumerate(part[0]) if value is None]
        none = [place for place in none if all(row[place] is None for row in part)]
        kept = [place for place in range(len(each)) if place not in none]
        bound = chain.from_iterable(map(itemgetter(*kept), part) if none else part)
        names, empty = tuple(each[place] for place in kept), tuple(each[place] for place in none)
        given = [*values, *bound]
        # To pass over what is known costs a quarter less than to see whether its end is to be added.
        if known or connection.execute(_attempts(number, names, same, empty, known=False), given).rowcount < number:
            connection.execute(_attempts(number, names, same, empty, known=True), given)


def _array(lines: Iterable[bytes]) -> str:
    return f"[{b','.join(lines).decode()}]"


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    fresh = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            raise StoreError(f"{path} exists: name another file")
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        target = sqlite3.connect(fresh, isolation_level=None)
        try:
            connection.backup(target)
            target.execute("PRAGMA journal_mode = DELETE").fetchone()
            found = troubles(target, 1)
        finally:
            target.close()
        if found:
            raise StoreError(f"the copy is damaged ({found[0]}); see `keyturn stores check`")
        os.link(fresh, path)
    except FileExistsError as error:
        raise StoreError(f"{path} exists: name another file") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
