"""The ledger's database in SQLite: takes in journal lines, answers what is asked of it, keeps house.

A whole batch is handed over as one JSON text, and each table takes its part with one statement: nothing is bound row by
row, so that the interpreter is free for the loop while SQLite works.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from keyturn.errors import RowsRefused, StoreError

from . import sqlite_house as house
from . import sqlite_questions as questions
from .ledger import CallStory, ResponseRow, UsageQuery, UsageRow
from .sqlite_file import SqliteFile, troubles

_ATTEMPT = (
    "id call at caller route role provider model key fingerprint tier resend input output charged meaning status ms "
    "first_token_ms cached written reasoning exact cost detail"
).split()
"""The members of AttemptRow after its kind, in the order of its JSON; each is a column of the same name."""
_MAY_LACK = {"status", "ms", "first_token_ms", "cost"}
"""Those of AttemptRow that may be none."""
_TEXTS = set("call caller route role provider model key fingerprint meaning detail code".split())
_CALL = "at caller route status code ms waited_ms attempts stream".split()
"""The same of CallRow after its id, up to its lists."""


def _values(names: list[str], may_lack: set[str]) -> str:
    """The SQL of the members *names* of a line, which come after its id. One that is missing is empty, or 0."""
    found = {name: f"json_extract(line, '$[{place}]')" for place, name in enumerate(names, 2)}
    return ", ".join(
        member if name in may_lack else f"coalesce({member}, {repr('') if name in _TEXTS else 0})"
        for name, member in found.items()
    )


ATTEMPTS = f"""
INSERT INTO attempts (instance, state, {", ".join(_ATTEMPT)})
SELECT ?2, CASE json_extract(line, '$[0]') WHEN 'f' THEN 'final' ELSE 'open' END, json_extract(line, '$[1]'),
    {_values(_ATTEMPT[1:], _MAY_LACK)}
FROM (SELECT value AS line FROM json_each(?1) LIMIT -1)
WHERE true
ON CONFLICT (id) DO UPDATE SET state = excluded.state,
    {", ".join(f"{name} = excluded.{name}" for name in _ATTEMPT[1:])}
WHERE excluded.state = 'final' AND attempts.state <> 'final'
"""

"""The inner LIMIT keeps SQLite from making the text of a line anew for each of its members."""

CALLS = f"""
INSERT INTO calls (id, {", ".join(_CALL)}, refusals, notes)
SELECT json_extract(line, '$[1]'), {_values(_CALL, set())},
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

    async def apply(self, lines: Sequence[bytes], instance: str) -> None:
        """Raises RowsRefused when a line is not JSON, or holds what no column takes."""
        await self.file.run(lambda connection: _apply(connection, lines, instance))

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


def _apply(connection: sqlite3.Connection, lines: Sequence[bytes], instance: str) -> None:
    calls: list[bytes] = []
    attempts: dict[bytes, bytes] = {}
    for line in lines:
        if line.startswith(b'["c"'):
            calls.append(line)
        else:  # of an attempt that is over its intent says nothing any more
            id = line[5 : line.find(b",", 5)]
            if id not in attempts or (line.startswith(b'["f"') and attempts[id].startswith(b'["i"')):
                attempts[id] = line
    try:
        if attempts:
            connection.execute(ATTEMPTS, (_array(attempts.values()), instance))
        if calls:
            connection.execute(CALLS, (_array(calls),))
    except UnicodeDecodeError as error:
        raise RowsRefused(f"a line of the journal is not text ({error.reason})") from error
    except (sqlite3.IntegrityError, sqlite3.DataError) as error:
        raise RowsRefused(f"a line of the journal is no row ({error})") from error
    except sqlite3.OperationalError as error:
        if "JSON" in str(error):
            raise RowsRefused(f"a line of the journal is no JSON ({error})") from error
        raise


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
