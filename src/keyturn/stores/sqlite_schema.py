"""The schema of `state.sqlite`: numbered SQL files, applied in order, each whole or not at all, never backward."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from keyturn.errors import StoreError

FOLDER = Path(__file__).parent / "sql" / "sqlite"


def migrations() -> dict[int, Path]:
    """The numbered files, in order."""
    files = sorted(FOLDER.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return {int(file.name[:4]): file for file in files}


def newest_schema() -> int:
    """The schema that this program makes."""
    return max(migrations())


def schema_of(connection: sqlite3.Connection) -> int:
    """Which schema a file has; 0 for a new one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, path: Path, upto: int | None = None) -> list[int]:
    """Bring the file up to the newest schema (or *upto*); the numbers that were applied. Raises StoreError when the
    file was made by a newer program, or is no ledger at all."""
    steps = migrations()
    newest = max(steps)
    filled = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]  # first: another worker may migrate
    found = schema_of(connection)
    if found > newest:
        raise StoreError(
            f"{path}: made by a newer Keyturn (schema {found}, this one knows {newest}): use that version, "
            "or another --data"
        )
    if filled and not found:
        raise StoreError(f"{path}: is another program's database; move it away, or choose another --data")
    done = []
    for number, file in steps.items():
        if found < number <= (newest if upto is None else upto):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if schema_of(connection) >= number:  # another worker was faster
                    connection.execute("ROLLBACK")
                    continue
                for statement in statements(file.read_text(encoding="utf-8")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            done.append(number)
    return done


def statements(text: str) -> Iterator[str]:
    """The single statements of an SQL file."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
