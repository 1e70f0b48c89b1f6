"""The SQLite file: its schema from every earlier version, and what happens to it: locks, damage, a newer program."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from keyturn.errors import RowsRefused, StoreAway, StoreError
from keyturn.stores import Journal, JournaledLedger, Keeping, SqliteFile, SqliteSink, UsageQuery
from keyturn.stores.lines import line_of
from keyturn.stores.sqlite_file import connected
from keyturn.stores.sqlite_schema import migrate, migrations, newest_schema, schema_of
from tests.support import virtual
from tests.support.ledger_rows import DAY, NOON, began, ended, lines, over

T = TypeVar("T")
EVER = UsageQuery("model", 0, NOON + DAY)


def with_sink(path: Path, work: Callable[[SqliteSink], Awaitable[T]]) -> T:
    async def main() -> T:
        sink = SqliteSink(SqliteFile(path))
        try:
            await sink.open()
            return await work(sink)
        finally:
            await sink.close()

    return asyncio.run(main())


def made(path: Path, schema: int) -> sqlite3.Connection:
    """A file of an earlier schema."""
    path.touch()
    connection = connected(path)
    migrate(connection, path, schema)
    return connection


def test_the_schemas_are_numbered_without_a_gap() -> None:
    assert list(migrations()) == list(range(1, newest_schema() + 1))
    assert newest_schema() >= 4


@pytest.mark.parametrize("schema", range(1, newest_schema() + 1))
def test_from_every_earlier_schema_with_rows_in_it(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "state.sqlite"
    with made(path, schema) as old:
        old.execute(
            "INSERT INTO attempts VALUES ('a', 'c', 'here', 'final', ?, 'alice', 'r', 'chat', 'groq', 'llama', "
            "'groq-1:aa', 'aa00', 2, 0, 90, 40, 70, 'ok', 200, 1.0, 0.5, 0, 0, 0, 1, 7, '')",
            (NOON,),
        )
        old.execute(
            "INSERT INTO calls VALUES ('c', ?, 'alice', 'r', 200, '', 1.0, 0.0, 1, 0, NULL, '[\"n\"]')", (NOON,)
        )
        old.execute("INSERT INTO spent_before VALUES ('2026-11', 'role/chat', 'spend.json', 5)")
        assert schema_of(old) == schema
    old.close()

    async def work(sink: SqliteSink) -> None:
        assert await sink.spent("2026-11") == {"caller/alice": 70, "role/chat": 75}
        assert [row.attempts for row in await sink.usage(EVER)] == [1]
        story = await sink.story("c")
        assert story is not None
        assert (story.call and story.call.notes, len(story.attempts)) == (("n",), 1)
        await sink.keep_house(NOON + 100 * DAY, 90.0, 30.0)
        assert [row.attempts for row in await sink.usage(EVER)] == [1]
        assert list(await sink.check()) == []

    with_sink(path, work)


def test_a_migration_is_done_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = tmp_path / "steps"
    steps.mkdir()
    (steps / "0001_first.sql").write_text("CREATE TABLE one (a);\n")
    (steps / "0002_second.sql").write_text(
        "CREATE TABLE two (a);\nINSERT INTO two VALUES (1);\nCREATE TABLE two (a);\n"
    )
    monkeypatch.setattr("keyturn.stores.sqlite_schema.FOLDER", steps)
    path = tmp_path / "x.sqlite"
    path.touch()
    connection = connected(path)
    with pytest.raises(sqlite3.Error, match="two"):
        migrate(connection, path)
    assert schema_of(connection) == 1
    assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["one"]
    (steps / "0002_second.sql").write_text("-- a comment; with a semicolon\nCREATE TABLE two (a);\n")
    assert migrate(connection, path) == [2]
    connection.close()


def test_a_worker_that_migrates_meanwhile_is_not_taken_for_another_program(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.touch()
    slow, asked = connected(path), []

    def overtake(statement: str) -> None:
        asked.append(statement)
        if len(asked) == 2:
            made(path, newest_schema()).close()

    slow.set_trace_callback(overtake)
    assert migrate(slow, path) == []
    slow.close()


def test_a_file_of_a_newer_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    newer = made(path, newest_schema())
    newer.execute("PRAGMA user_version = 77")
    newer.close()
    before = path.read_bytes()

    async def never(sink: SqliteSink) -> None:
        raise AssertionError

    with pytest.raises(
        StoreError, match=r"made by a newer Keyturn \(schema 77, this one knows \d+\): use that version"
    ):
        with_sink(path, never)
    assert path.read_bytes()[100:] == before[100:]


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title)")
    other.commit()
    other.close()

    async def never(sink: SqliteSink) -> None:
        raise AssertionError

    with pytest.raises(StoreError, match="another program's database"):
        with_sink(path, never)


def test_the_file_is_private(tmp_path: Path) -> None:
    async def work(sink: SqliteSink) -> None:
        await sink.apply(lines(over(began("a"))), "here")
        modes = modes_in(tmp_path)
        assert set(modes.values()) == {0o600}
        assert "state.sqlite-wal" in modes

    with_sink(tmp_path / "state.sqlite", work)


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def filled(path: Path) -> None:
    async def work(sink: SqliteSink) -> None:
        await sink.apply([line for number in range(2000) for line in lines(over(began(str(number))))], "here")

    with_sink(path, work)


@pytest.mark.parametrize("damage", ["no database", "header", "pages"])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.sqlite"
    filled(path)
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content = bytearray(b"this was a ledger once. " * 500)
    elif damage == "header":
        content[:100] = bytes(100)
    else:
        content[4096 * 3 :: 4096] = bytes(len(content[4096 * 3 :: 4096]))
    path.write_bytes(content)

    async def never(sink: SqliteSink) -> None:
        raise AssertionError

    with pytest.raises(StoreError) as refused:
        with_sink(path, never)
    assert not isinstance(refused.value, StoreAway)
    for word in (str(path), "damaged", "keyturn stores check", "move it away"):
        assert word in str(refused.value)
    assert path.read_bytes() == bytes(content)


def test_the_log_of_a_killed_process_with_a_torn_end_is_recovered(tmp_path: Path) -> None:
    """What was committed before the torn page is there; the journal still has the rest."""
    live, dead = tmp_path / "live", tmp_path / "dead"
    live.mkdir()

    async def work(sink: SqliteSink) -> None:
        await sink.apply(lines(over(began("a"))), "here")
        await sink.apply(lines(over(began("b"))), "here")
        shutil.copytree(live, dead)

    with_sink(live / "state.sqlite", work)
    log = dead / "state.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[-2000:] = b"\xa5" * 2000
    log.write_bytes(content)

    async def look(sink: SqliteSink) -> None:
        assert [row.attempts for row in await sink.usage(EVER)] == [1]
        assert list(await sink.check()) == []
        await sink.apply(lines(over(began("a")), over(began("b"))), "here")
        assert [row.attempts for row in await sink.usage(EVER)] == [2]

    with_sink(dead / "state.sqlite", look)


def test_while_another_program_holds_the_lock_rows_wait_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyturn.stores.sqlite_file.BUSY", 0.0)

    async def main() -> None:
        clock = virtual.VirtualClock()
        sink = SqliteSink(SqliteFile(tmp_path / "state.sqlite"))
        kept = JournaledLedger(Journal(tmp_path / "journal", most=1 << 20), sink, clock, Keeping())
        await kept.open()
        other = connected(tmp_path / "state.sqlite")
        other.execute("BEGIN IMMEDIATE")
        assert kept.intend(line_of(began("a", charged=5)), paying=True) is None
        kept.finish(line_of(over(began("a"), charged=3)))
        await clock.sleep_until(clock.mono() + 5)
        assert "another program holds a lock" in kept.standing().trouble
        assert kept.standing().waiting_bytes > 0
        assert await kept.spent("2026-11") == {}
        assert kept.intend(line_of(began("b", charged=5)), paying=True) is None
        other.execute("ROLLBACK")
        other.close()
        await clock.sleep_until(clock.mono() + 11)
        assert kept.standing().reachable
        assert await kept.spent("2026-11") == {"caller/default": 8}
        await kept.close()

    virtual.run(main)


def test_a_long_question_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    async def work(sink: SqliteSink) -> None:
        running, told = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def report() -> int:
            loop.call_soon_threadsafe(running.set)
            return 1

        def slow(connection: sqlite3.Connection) -> int:
            connection.create_function("report", 0, report)
            endless = "WITH RECURSIVE n (i) AS (SELECT report() UNION ALL SELECT i + 1 FROM n) SELECT count(i) FROM n"
            return int(connection.execute(endless).fetchone()[0])

        asking = asyncio.ensure_future(sink.file.read(slow))
        asking.add_done_callback(lambda _: told.set())
        await running.wait()
        await sink.apply(lines(over(began("a"))), "here")
        assert not told.is_set()
        await sink.close()
        with pytest.raises(StoreError, match="interrupted"):
            await asking

    with_sink(tmp_path / "state.sqlite", work)


def test_a_cancelled_question_leaves_the_file_usable(tmp_path: Path) -> None:
    async def work(sink: SqliteSink) -> None:
        for _ in range(20):
            waiting = asyncio.ensure_future(sink.apply(lines(over(began("a"))), "here"))
            await asyncio.sleep(0)
            waiting.cancel()
        await sink.apply(lines(over(began("b"))), "here")
        assert [row.attempts for row in await sink.usage(EVER)] in ([1], [2])
        await sink.apply(lines(over(began("a"))), "here")
        assert [row.attempts for row in await sink.usage(EVER)] == [2]

    with_sink(tmp_path / "state.sqlite", work)


def test_what_runs_is_one_transaction(tmp_path: Path) -> None:
    async def work(sink: SqliteSink) -> None:
        def half(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO spent_before VALUES ('2026-11', 'role/a', 's', 1)")
            raise ValueError("in the middle")

        with pytest.raises(ValueError, match="middle"):
            await sink.file.run(half)
        assert await sink.spent("2026-11") == {}

    with_sink(tmp_path / "state.sqlite", work)


def test_who_only_reads_cannot_write(tmp_path: Path) -> None:
    async def work(sink: SqliteSink) -> None:
        with pytest.raises(StoreError):
            await sink.file.read(lambda connection: connection.execute("DELETE FROM attempts"))

    with_sink(tmp_path / "state.sqlite", work)


def test_two_users_of_one_file(tmp_path: Path) -> None:
    async def main() -> None:
        file = SqliteFile(tmp_path / "state.sqlite")
        sink = SqliteSink(file)
        await sink.open()
        await file.open()
        await sink.close()
        await sink.close()
        assert await file.run(lambda connection: connection.execute("SELECT 7").fetchone()) == (7,)
        await file.close()
        with pytest.raises(StoreAway):
            await file.run(lambda connection: None)

    asyncio.run(main())


@pytest.mark.parametrize("many", [1, 9])
@pytest.mark.parametrize("wrong", [b'["route"]', b"{}", b'"route","one more"'])
def test_what_no_column_takes_is_no_row_wherever_it_stands(tmp_path: Path, wrong: bytes, many: int) -> None:
    async def work(sink: SqliteSink) -> None:
        bad = [line.replace(b'"route"', wrong) for line in lines(*(over(began(f"bad-{n}")) for n in range(many)))]
        with pytest.raises(RowsRefused):
            await sink.apply([*lines(over(began("good"))), *bad], "here")
        assert list(await sink.usage(EVER)) == []

    with_sink(tmp_path / "state.sqlite", work)


def test_workers_write_into_one_file(tmp_path: Path) -> None:
    async def main() -> None:
        sinks = [SqliteSink(SqliteFile(tmp_path / "state.sqlite")) for _ in range(3)]
        await asyncio.gather(*(sink.open() for sink in sinks))
        for number in range(5):
            rows = [over(began(f"{number}-{index}")) for index in range(3)]
            await asyncio.gather(
                *(sink.apply(lines(row), f"w{n}") for n, (sink, row) in enumerate(zip(sinks, rows, strict=True)))
            )
        assert [row.attempts for row in await sinks[0].usage(EVER)] == [15]
        for sink in sinks:
            await sink.close()

    asyncio.run(main())


def test_a_backup_is_whole_private_and_never_in_the_place_of_another(tmp_path: Path) -> None:
    async def work(sink: SqliteSink) -> None:
        await sink.apply(lines(over(began("a")), ended("call-a")), "here")
        copy = tmp_path / "copy.sqlite"
        await sink.backup(copy)
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        with pytest.raises(StoreError, match="exists"):
            await sink.backup(copy)
        with pytest.raises(StoreError, match="No such file"):
            await sink.backup(tmp_path / "nowhere" / "copy.sqlite")
        assert [name for name in modes_in(tmp_path) if "copy" in name] == ["copy.sqlite"]
        await sink.apply(lines(over(began("b"))), "here")

    with_sink(tmp_path / "state.sqlite", work)

    async def look(sink: SqliteSink) -> None:
        assert [row.attempts for row in await sink.usage(EVER)] == [1]

    with_sink(tmp_path / "copy.sqlite", look)
