"""The ledger in a real PostgreSQL: its tables, its errors in words, many gateways at once, and what becomes of time."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyturn.core import Secret
from keyturn.dispatch import SystemClock
from keyturn.errors import RowsRefused, StoreAway, StoreError
from keyturn.stores import (
    AttemptRow,
    CallRow,
    Journal,
    JournaledLedger,
    Keeping,
    PostgresSink,
    ResponseRow,
    UsageQuery,
    postgres_link,
)
from keyturn.stores.lines import line_of
from keyturn.stores.postgres_errors import said
from keyturn.stores.postgres_link import MOST_WAITING, PostgresLink, Session
from keyturn.stores.postgres_schema import INDEXES, migrate, migrations, schema_of
from tests.support.postgres_server import PostgresServer

DAY, HOUR = 86_400_000, 3_600_000
NOW = 1_795_860_000_000
"""2026-11-28T10:00:00Z."""
EVER = (0, 2 * NOW)


def attempt(number: int, kind: Any = "f", **changes: Any) -> AttemptRow:
    row = AttemptRow(
        kind, f"a{number:05}", f"c{number:05}", NOW + number, "default", "chat", "", "groq", "m", "groq-1:abc", "abc",
        1, False, 10, 5, 100,
    )  # fmt: skip
    if kind == "f":
        row = msgspec.structs.replace(row, meaning="ok", status=200, ms=12.5, exact=True, cost=80, charged=80)
    return msgspec.structs.replace(row, **changes)


def lines(*rows: AttemptRow | CallRow) -> list[bytes]:
    return [msgspec.json.encode(row) + b"\n" for row in rows]


def with_sink(url: str, work: Callable[[PostgresSink], Awaitable[Any]]) -> Any:
    """What *work* returns of an open sink, which is closed after."""

    async def main() -> Any:
        sink = PostgresSink(Secret(url), SystemClock())
        try:
            await sink.open()
            return await work(sink)
        finally:
            await sink.close()

    return asyncio.run(main())


async def all_of(sink: PostgresSink) -> Any:
    """The sums of everything."""
    rows = await sink.usage(UsageQuery("caller", *EVER))
    return rows[0] if rows else None


# --- tables ----------------------------------------------------------------------------------------------------------


def test_eight_gateways_that_start_at_once_make_the_tables_once(postgres: PostgresServer) -> None:
    url = postgres.new_database()

    async def main() -> list[int]:
        links = [PostgresLink(Secret(url), SystemClock()) for _ in range(8)]
        done = await asyncio.gather(*(migrate(link) for link in links))
        await asyncio.gather(*(link.close() for link in links))
        return sorted(number for made in done for number in made)

    assert asyncio.run(main()) == sorted(migrations())


@pytest.mark.parametrize("schema", sorted(migrations())[:-1])
def test_every_earlier_schema_is_brought_forward_with_what_is_in_it(postgres: PostgresServer, schema: int) -> None:
    url = postgres.new_database()

    async def before() -> None:
        link = PostgresLink(Secret(url), SystemClock())
        await migrate(link, upto=schema)
        assert await link.run(schema_of) == schema
        await link.close()

    asyncio.run(before())
    columns = ", ".join(AttemptRow.__struct_fields__[1:])
    postgres.sql(
        f"INSERT INTO keyturn_attempts (instance, state, {columns}) VALUES ('one', 'final', 'a', 'c', {NOW}, 'ann', "
        "'chat', 'dev', 'groq', 'm', 'groq-1:a', 'a', 1, false, 10, 5, 70, 'ok', 200, 1.5, null, 0, 0, 0, true, 70, "
        "''); "
        "INSERT INTO keyturn_spent_before VALUES ('2026-11', 'role/dev', 'spend.json', 30)",
        url.rpartition("/")[2],
    )

    async def after(sink: PostgresSink) -> None:
        story = await sink.story("c")
        assert story is not None
        assert story.attempts[0].charged == 70
        assert await sink.spent("2026-11") == {"caller/ann": 70, "role/dev": 100}
        await sink.keep(ResponseRow("r", "ann", 1, "", b"[]", b"{}"))
        assert await sink.keep_house(NOW + 5 * DAY, 1, 30) == 2
        assert await sink.spent("2026-11") == {"caller/ann": 70, "role/dev": 100}
        assert not await sink.check()

    with_sink(url, after)


def test_tables_of_a_newer_program_are_refused_and_left_alone(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with_sink(url, lambda sink: sink.open())
    postgres.sql("INSERT INTO keyturn_schema (version) VALUES (99)", url.rpartition("/")[2])
    with pytest.raises(StoreError, match=r"newer Keyturn \(schema 99, this one knows \d+\): use that version"):
        with_sink(url, all_of)


def test_a_user_without_the_right_to_make_tables_may_use_those_that_are_there(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    postgres.sql("CREATE ROLE writer LOGIN", name)
    poor = postgres.url(name, user="writer")
    with pytest.raises(StoreError, match="GRANT CREATE, USAGE ON SCHEMA public") as caught:
        with_sink(poor, all_of)
    assert not isinstance(caught.value, StoreAway)
    with_sink(url, lambda sink: sink.open())
    postgres.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer", name)
    with_sink(poor, lambda sink: sink.apply(lines(attempt(1)), "one"))
    assert with_sink(url, all_of).attempts == 1


def test_what_is_wrong_with_a_database_is_said(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    assert with_sink(url, lambda sink: sink.check()) == []
    listed = postgres.sql("SELECT indexname FROM pg_indexes WHERE tablename LIKE 'keyturn%'", name).split()
    assert set(INDEXES) <= set(listed)
    postgres.sql("DROP INDEX keyturn_attempts_open", name)
    with_sink(url, lambda sink: sink.apply(lines(attempt(1, "i", at=NOW - 400 * DAY)), "dead"))
    monkeypatch.setattr(SystemClock, "wall", lambda self: NOW / 1000)
    clock, index, lost = with_sink(url, lambda sink: sink.check())
    assert "NTP" in clock
    assert "keyturn_attempts_open" in index
    assert "1 attempts are open" in lost


# --- errors in words -------------------------------------------------------------------------------------------------

HUSH = "h%40sh%20word"
"""`h@sh word`, as an address has it."""


def _told(url: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        with_sink(url, all_of)
    for secret in (HUSH, "h@sh word"):
        assert secret not in f"{caught.value} {caught.value.__cause__}"
    return caught.value


@pytest.mark.parametrize(
    ("url", "words", "passing"),
    [
        ("postgresql://postgres:{hush}@127.0.0.1:{port}/nowhere", "does not exist; make it with `createdb`", False),
        ("postgresql://nobody:{hush}@127.0.0.1:{port}/postgres", "not let this user in", False),
        ("postgresql://guest:{hush}@127.0.0.1:{port}/locked", "its password is not accepted", False),
        ("postgresql://postgres:{hush}@127.0.0.1:1/postgres", "nothing listens there", True),
        ("postgresql://postgres:{hush}@nowhere.invalid/postgres", "host is not found", True),
        ("postgresql:///postgres?host=/nowhere&password={hush}", "there is no such socket", True),
        ("postgresql://postgres:{hush}@127.0.0.1:{port}/postgres?sslmode=require", "does not offer TLS", False),
        ("postgresql://postgres:{hush}@127.0.0.1:{port}/postgres?nonsense=1", "does not know", False),
        ("postgresql://postgres:{hush}@127.0.0.1:{port}/postgres?sslmode=nonsense", "is not understood", False),
        ("postgresql://crowd:{hush}@127.0.0.1:{port}/postgres", "too many connections are open", True),
        ("postgresql://reader:{hush}@127.0.0.1:{port}/postgres", "read-only standby; name the primary", True),
    ],
)
def test_an_error_says_what_to_do_and_never_the_password(
    postgres: PostgresServer, url: str, words: str, passing: bool
) -> None:
    if not postgres.sql("SELECT 1 FROM pg_roles WHERE rolname = 'crowd'"):
        postgres.sql("CREATE DATABASE locked STRATEGY file_copy")
        postgres.sql("CREATE ROLE guest LOGIN PASSWORD 'right'; CREATE ROLE crowd LOGIN CONNECTION LIMIT 0")
        postgres.sql("CREATE ROLE reader LOGIN SUPERUSER; ALTER ROLE reader SET default_transaction_read_only = on")
    error = _told(url.format(hush=HUSH, port=postgres.port))
    assert words in error.message
    assert isinstance(error, StoreAway) is passing


@pytest.mark.parametrize(
    ("name", "words", "kind"),
    [
        ("DiskFullError", "the server's disk is full; make room there", StoreAway),
        ("CannotConnectNowError", "the server is starting or stopping", StoreAway),
        ("AdminShutdownError", "the server is being stopped", StoreAway),
        ("ReadOnlySQLTransactionError", "name the primary", StoreAway),
        ("ConnectionDoesNotExistError", "in the server's words", StoreAway),
        ("NumericValueOutOfRangeError", "it cannot take this", RowsRefused),
        ("NotNullViolationError", "it cannot take this", RowsRefused),
        ("UndefinedColumnError", "`keyturn stores check` says more", StoreError),
        ("TargetServerAttributeNotMatched", "none of the hosts is what", StoreAway),
    ],
)
def test_what_a_server_says_is_told_with_what_to_do(name: str, words: str, kind: type[StoreError]) -> None:
    import asyncpg

    url = Secret(f"postgresql://u:{HUSH}@one:5432,two:5432/keyturn?sslpassword=quiet")
    error = said(url, getattr(asyncpg, name)(f"in the server's words: h@sh word, quiet, {url.reveal()}\nand more"))
    assert type(error) is kind
    assert error.message.startswith("PostgreSQL at one:5432,two:5432/keyturn: ")
    assert words in error.message
    assert not [word for word in ("h@sh word", HUSH, "quiet", "\n") if word in error.message]


def test_the_extra_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    assert _told(f"postgresql://u:{HUSH}@h/d").message.endswith('pip install "keyturn[postgres]"')


def test_a_backup_is_left_to_the_program_that_does_it_well(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database().replace("postgres@", f"postgres:{HUSH}@")
    with pytest.raises(StoreError, match=r"pg_dump .*\$DATABASE_URL") as caught:
        with_sink(url, lambda sink: sink.backup(tmp_path / "copy"))
    assert HUSH not in caught.value.message
    assert not list(tmp_path.iterdir())


def test_what_is_no_text_is_not_asked_for(postgres: PostgresServer) -> None:
    with pytest.raises(StoreError, match="it cannot take this"):
        with_sink(postgres.new_database(), lambda sink: sink.story("\ud800"))


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_socket_is_as_good_as_a_port(postgres: PostgresServer) -> None:
    url = postgres.new_database(socket=True)
    with_sink(url, lambda sink: sink.apply(lines(attempt(1)), "one"))
    assert with_sink(url, all_of).attempts == 1


def test_the_tables_may_be_in_a_schema_of_their_own(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.sql("CREATE SCHEMA one; CREATE SCHEMA two", url.rpartition("/")[2])
    for schema in ("one", "two"):
        with_sink(f"{url}?search_path={schema}", lambda sink: sink.apply(lines(attempt(1)), "one"))
        assert with_sink(f"{url}?search_path={schema}", all_of).attempts == 1
        assert with_sink(f"{url}?search_path={schema}", lambda sink: sink.check()) == []
    with pytest.raises(StoreError, match="no schema to put tables into"):
        with_sink(f"{url}?search_path=none", all_of)


def test_the_same_lines_in_any_order_from_many_at_once_count_once(postgres: PostgresServer) -> None:
    rows = lines(*(attempt(number, kind) for number in range(200) for kind in ("i", "f")))
    calls = lines(*(CallRow("c", f"c{n:05}", NOW, "default", "chat", 200, "", 1, 0, 1, False) for n in range(200)))
    url = postgres.new_database()

    async def main() -> Any:
        sinks = [PostgresSink(Secret(url), SystemClock()) for _ in range(4)]
        await asyncio.gather(*(sink.open() for sink in sinks))

        async def write(sink: PostgresSink, draw: random.Random) -> None:
            mixed = rows + calls
            draw.shuffle(mixed)
            for start in range(0, len(mixed), 50):
                await sink.apply(mixed[start : start + 50], "one")

        await asyncio.gather(*(write(sink, random.Random(seed)) for seed, sink in enumerate(sinks)))
        try:
            story = await sinks[0].story("c00007")
            return await all_of(sinks[0]), story
        finally:
            await asyncio.gather(*(sink.close() for sink in sinks))

    total, story = asyncio.run(main())
    assert (total.attempts, total.input, total.cost, total.failed) == (200, 2000, 200 * 80, 0)
    assert story.call.status == 200
    assert [row.kind for row in story.attempts] == ["f"]
    assert postgres.sql("SELECT count(*) FROM keyturn_calls", url.rpartition("/")[2]) == "200"


def test_what_no_text_can_hold_is_replaced_and_a_line_that_is_no_row_is_refused(postgres: PostgresServer) -> None:
    async def work(sink: PostgresSink) -> None:
        await sink.apply(lines(attempt(1, model="a\0b", detail="\\u0000")), "one")
        with pytest.raises(RowsRefused):
            await sink.apply([b'["f","x"\n', *lines(attempt(2))], "one")
        with pytest.raises(RowsRefused):
            await sink.apply([b'["f","x"]\n', *lines(attempt(2))], "one")
        await sink.apply([b'["z",1]\n', b"7\n", b'{"a":1}\n', *lines(attempt(3))], "one")
        assert [row.name for row in await sink.usage(UsageQuery("model", *EVER))] == ["groq/a\ufffdb", "groq/m"]
        assert await sink.story("a\0b") is None

    with_sink(postgres.new_database(), work)


def test_only_what_its_own_instance_left_open_is_given_up_but_nobody_waits_longer_than_an_hour(
    postgres: PostgresServer,
) -> None:
    async def work(sink: PostgresSink) -> None:
        await sink.apply(lines(attempt(1, "i"), attempt(2, "i")), "one")
        await sink.apply(lines(attempt(3, "i"), attempt(4, "i")), "two")
        assert await sink.give_up("one", NOW + 2) == 1
        assert await sink.give_up("one", NOW + 2) == 0
        assert (await all_of(sink)).attempts == 1
        await sink.keep_house(NOW + HOUR + 4, 90, 30)
        total = await all_of(sink)
        assert (total.attempts, total.failed, total.estimated) == (3, 3, 3)
        await sink.apply(lines(attempt(1), attempt(4)), "one")  # they were alive after all: the truth wins
        total = await all_of(sink)
        assert (total.attempts, total.failed, total.estimated) == (4, 2, 2)
        assert await sink.spent("2026-11") == {"caller/default": 2 * 80 + 2 * 100}

    with_sink(postgres.new_database(), work)


def test_house_is_kept_by_one_at_a_time_and_nothing_is_counted_twice(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    rows = [attempt(number, at=NOW - number * HOUR, caller=f"n{number % 3}") for number in range(24 * 5)]
    calls = [CallRow("c", row.call, row.at, row.caller, "chat", 200, "", 1.0, 0.0, 1, False) for row in rows]

    async def main() -> None:
        sinks = [PostgresSink(Secret(url), SystemClock()) for _ in range(3)]
        await sinks[0].open()
        await sinks[0].apply(lines(*rows, *calls), "one")
        by_caller, by_day = UsageQuery("caller", *EVER), UsageQuery("day", *EVER)
        before = [await sinks[0].usage(by_caller), await sinks[0].usage(by_day), await sinks[0].spent("2026-11")]
        gone = await asyncio.gather(*(sink.keep_house(NOW, 1, 30) for sink in sinks))
        assert sum(gone) == 2 * (24 * 4 - 1)
        await sinks[1].keep_house(NOW + DAY, 1, 30)
        await sinks[1].keep_house(NOW + 100 * DAY, 1, 30)
        await sinks[2].apply(lines(*rows, *calls), "one")  # out of an old journal
        assert [
            await sinks[0].usage(by_caller),
            await sinks[0].usage(by_day),
            await sinks[0].spent("2026-11"),
        ] == before
        assert await sinks[0].story(rows[0].call) is None
        await asyncio.gather(*(sink.close() for sink in sinks))

    asyncio.run(main())
    spans = postgres.sql("SELECT DISTINCT span FROM keyturn_usage_sums", url.rpartition("/")[2])
    assert spans == str(DAY)


def test_a_clock_that_is_ahead_drops_rows_early_but_keeps_none_out(postgres: PostgresServer) -> None:
    async def work(sink: PostgresSink) -> None:
        await sink.apply(lines(attempt(1)), "one")
        assert await sink.keep_house(NOW + 400 * DAY, 90, 30) == 1
        await sink.apply(lines(attempt(1), attempt(2)), "one")
        assert (await all_of(sink)).attempts == 2
        assert await sink.story("c00002") is not None

    with_sink(postgres.new_database(), work)


def test_answers_are_kept_for_their_caller_only_and_not_for_ever(postgres: PostgresServer) -> None:
    row = ResponseRow("resp_1", "ann", NOW, "resp_0", b'["\xc3\xa9"]', b'{"a":"\\u0000"}')

    async def work(sink: PostgresSink) -> None:
        await sink.keep(row._replace(response=b"{}"))
        await sink.keep(row)
        assert await sink.find("ann", "resp_1") == row
        assert await sink.find("bob", "resp_1") is None
        assert not await sink.forget("bob", "resp_1")
        assert await sink.forget("ann", "resp_1")
        assert not await sink.forget("ann", "resp_1")
        await sink.keep(row)
        await sink.keep_house(NOW + 29 * DAY, 90, 30)
        assert await sink.find("ann", "resp_1") == row
        await sink.keep_house(NOW + 31 * DAY, 90, 30)
        assert await sink.find("ann", "resp_1") is None

    with_sink(postgres.new_database(), work)


def test_what_was_spent_before_is_taken_over_once(postgres: PostgresServer) -> None:
    async def work(sink: PostgresSink) -> None:
        for _ in range(2):
            await sink.add_spent("2026-11", {"caller/ann": 5, "role/dev": 7}, "spend.json")
        await sink.add_spent("2026-11", {"caller/ann": 1}, "another")
        assert await sink.spent("2026-11") == {"caller/ann": 6, "role/dev": 7}
        assert await sink.spent("2026-12") == {}

    with_sink(postgres.new_database(), work)


# --- connections -----------------------------------------------------------------------------------------------------


def with_link(url: str, work: Callable[[PostgresLink], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        link = PostgresLink(Secret(url), SystemClock())
        try:
            await work(link)
        finally:
            await link.close()
            await link.close()

    asyncio.run(main())


async def one(session: Session) -> int:
    return int(await session.fetchval("SELECT 1"))


def test_a_waiter_that_leaves_never_leaves_a_connection_in_the_middle(postgres: PostgresServer) -> None:
    async def work(link: PostgresLink) -> None:
        await link.run(lambda session: session.execute("CREATE TABLE t (n int)"))

        async def insert(session: Session, number: int) -> None:
            await session.execute("INSERT INTO t VALUES ($1)", number)
            await session.execute("INSERT INTO t VALUES ($1)", number)

        for turns in range(12):
            waiter = asyncio.create_task(link.run(lambda session, number=turns: insert(session, number)))  # type: ignore[misc]
            for _ in range(turns):
                await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert await link.run(one) == 1
        await link.close()

    url = postgres.new_database()
    with_link(url, work)
    counts = postgres.sql("SELECT DISTINCT count(*) FROM t GROUP BY n", url.rpartition("/")[2])
    assert counts in ("", "2")


def test_a_lost_connection_is_replaced_before_anybody_hears_of_it(postgres: PostgresServer) -> None:
    async def work(link: PostgresLink) -> None:
        for _ in range(3):
            pid = await link.run(lambda session: session.fetchval("SELECT pg_backend_pid()"))
            await asyncio.to_thread(postgres.sql, f"SELECT pg_terminate_backend({pid}, 5000)")
        assert await link.run(one) == 1

    with_link(postgres.new_database(), work)


def test_transactions_that_clash_are_tried_again(postgres: PostgresServer) -> None:
    async def work(link: PostgresLink) -> None:
        await link.run(
            lambda session: session.execute("CREATE TABLE t (n int, v int); INSERT INTO t VALUES (1, 0), (2, 0)")
        )
        both = asyncio.Barrier(2)
        met: set[int] = set()

        async def step(session: Session, first: int) -> None:
            await session.execute("SET LOCAL deadlock_timeout = 10")
            await session.execute("UPDATE t SET v = v + 1 WHERE n = $1", first)
            if first not in met:
                met.add(first)
                await both.wait()
            await session.execute("UPDATE t SET v = v + 1 WHERE n = $1", 3 - first)

        await asyncio.gather(*(link.run(lambda session, n=n: step(session, n)) for n in (1, 2)))  # type: ignore[misc]
        assert await link.run(lambda session: session.fetchval("SELECT sum(v) FROM t")) == 4

    with_link(postgres.new_database(), work)


def test_too_much_at_a_time_is_refused_and_nothing_is_asked_of_a_closed_link(postgres: PostgresServer) -> None:
    async def work(link: PostgresLink) -> None:
        asked = await asyncio.gather(*(link.run(one) for _ in range(MOST_WAITING + 5)), return_exceptions=True)
        assert asked.count(1) == MOST_WAITING
        assert all("too much is asked" in str(each) for each in asked if each != 1)
        await link.close()
        with pytest.raises(StoreAway, match="is closed"):
            await link.run(one)
        link.open()
        assert await link.run(one) == 1
        for turns in range(8):
            under_way = asyncio.create_task(link.run(lambda session: session.execute("SELECT pg_sleep(60)")))
            for _ in range(turns):
                await asyncio.sleep(0)
            link.let_go()
            with pytest.raises(StoreAway, match="is closed"):
                await under_way
            link.open()
        link.let_go()
        with pytest.raises(StoreAway, match="is closed"):
            await link.run(one)

    with_link(postgres.new_database(), work)


@pytest.mark.realtime
def test_a_transaction_has_its_time_and_no_more(postgres: PostgresServer) -> None:
    async def work(link: PostgresLink) -> None:
        assert await link.run(one) == 1  # to connect takes time as well
        with pytest.raises(StoreAway, match="it took too long: a lock"):  # the server gives up
            await link.run(lambda session: session.execute("SELECT pg_sleep(60)"), 0.4)

        async def deaf(session: Session) -> None:
            await session.execute("SET LOCAL statement_timeout = 0")
            await session.execute("SELECT pg_sleep(60)")

        with pytest.raises(StoreAway, match=r"did not answer within 0\.2 s"):  # it does not, so we do
            await link.run(deaf, 0.2)
        assert await link.run(one) == 1
        everyone = asyncio.gather(*(link.run(deaf, 0.3) for _ in range(6)), return_exceptions=True)
        assert all("within 0.3 s" in str(each) for each in await everyone)  # also those that got no connection
        assert await link.run(one) == 1

    with_link(postgres.new_database(), work)


@pytest.mark.realtime
def test_a_host_that_swallows_everything_does_not_hide_the_next(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_link, "BOUND", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = postgres.new_database().replace("@", f":{HUSH}@127.0.0.1:{deaf.getsockname()[1]},")

        async def work(link: PostgresLink) -> None:
            with pytest.raises(StoreAway, match="does not answer in time"):
                await link.run(one)
            monkeypatch.setattr(postgres_link, "BOUND", 20.0)
            assert await link.run(one) == 1

        with_link(url, work)


@pytest.mark.parametrize(
    ("url", "turned"),
    [
        ("postgresql://u:p%2C1@one:1,two:2/k?x=a,b", "postgresql://u:p%2C1@two:2,one:1/k?x=a,b"),
        ("postgresql:///k?host=one,/two&port=1,2&user=u", "postgresql:///k?host=/two,one&port=2,1&user=u"),
        ("postgresql:///k?host=one%2Ctwo&port=5432", "postgresql:///k?host=two,one&port=5432"),
        ("postgresql://one/k", "postgresql://one/k"),
        ("postgresql://one", "postgresql://one"),
    ],
)
def test_the_next_host_is_the_first_wherever_the_hosts_are_named(url: str, turned: str) -> None:
    assert postgres_link._turned(url, 1) == turned
    assert postgres_link._turned(url, 2) == url.replace("%2Ct", ",t")


# --- behind the journal ----------------------------------------------------------------------------------------------


def journaled(folder: Path, url: str, *, budgeted: bool = False) -> JournaledLedger:
    clock = SystemClock()
    journal = Journal(folder / "journal", most=1 << 30)
    return JournaledLedger(journal, PostgresSink(Secret(url), clock), clock, Keeping(budgeted=budgeted))


def record(ledger: JournaledLedger, number: int) -> None:
    """A whole call, of which nobody waits for anything."""
    assert ledger.intend(line_of(attempt(number, "i")), paying=True) is None
    ledger.finish(line_of(attempt(number)))
    ledger.ended(CallRow("c", f"c{number:05}", NOW, "default", "chat", 200, "", 1.0, 0.0, 1, False))


def recorded(postgres: PostgresServer, url: str) -> str:
    return postgres.sql(
        "SELECT count(*), count(*) FILTER (WHERE state = 'final'), (SELECT count(*) FROM keyturn_calls) "
        "FROM keyturn_attempts",
        url.rpartition("/")[2],
    )


def test_a_gateway_starts_without_its_database_unless_there_are_budgets(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.new_database()
    away = f"postgresql://postgres:{HUSH}@127.0.0.1:1/postgres"

    async def main() -> None:
        strict = journaled(tmp_path, away, budgeted=True)
        with pytest.raises(StoreAway, match="nothing listens there"):
            await strict.open()
        ledger = journaled(tmp_path, away)
        await ledger.open()
        record(ledger, 1)
        with pytest.raises(StoreAway, match="nothing listens there"):
            await ledger.flush()
        standing = ledger.standing()
        assert (standing.store, standing.writable, standing.reachable, standing.lost) == ("postgres", True, False, 0)
        assert standing.waiting_bytes > 0
        assert HUSH not in standing.trouble
        assert await ledger.spent("2026-11") == {}
        await ledger.close()
        again = journaled(tmp_path, url)
        await again.open()
        assert again.standing().waiting_bytes == 0
        assert (await again.spent("2026-11")) == {"caller/default": 80}
        await again.close()

    asyncio.run(main())
    assert recorded(postgres, url) == "1|1|1"


def test_a_wrong_password_ends_the_start(postgres: PostgresServer, tmp_path: Path) -> None:
    async def main() -> None:
        ledger = journaled(tmp_path, f"postgresql://nobody:{HUSH}@127.0.0.1:{postgres.port}/postgres")
        with pytest.raises(StoreError, match="does not let this user in") as caught:
            await ledger.open()
        assert not isinstance(caught.value, StoreAway)

    asyncio.run(main())


@pytest.mark.realtime
def test_a_server_that_is_killed_under_load_gets_every_row_once(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()

    async def main() -> int:
        ledger = journaled(tmp_path, url)
        await ledger.open()
        done = asyncio.Event()

        async def calls() -> int:
            number = 0
            while not done.is_set():
                for number in range(number, number + 20):  # noqa: B020 - goes on where it was
                    record(ledger, number)
                number += 1
                await asyncio.sleep(0.01)
            return number

        calling = asyncio.create_task(calls())
        await ledger.flush()
        await asyncio.to_thread(postgres.kill)
        with pytest.raises(StoreAway):
            await ledger.flush()
        standing = ledger.standing()
        assert (standing.writable, standing.reachable) == (True, False)
        assert standing.waiting_bytes > 0
        await asyncio.to_thread(postgres.start)
        for _ in range(100):
            if ledger.standing().reachable:
                break
            try:
                await ledger.flush()
            except StoreAway:
                await asyncio.sleep(0.05)  # it is in recovery
        done.set()
        made = await calling
        await ledger.flush()
        assert ledger.standing()[1:5] == (True, True, 0, 0)
        await ledger.close()
        return made

    try:
        made = asyncio.run(main())
    except BaseException:
        postgres.start()
        raise
    assert recorded(postgres, url) == f"{made}|{made}|{made}"


def test_a_lock_in_the_database_holds_up_no_call(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()

    async def main() -> None:
        ledger, link = journaled(tmp_path, url), PostgresLink(Secret(url), SystemClock())
        await ledger.open()
        locked, over = asyncio.Event(), asyncio.Event()

        async def lock(session: Session) -> None:
            await session.execute("LOCK TABLE keyturn_attempts IN ACCESS EXCLUSIVE MODE")
            locked.set()
            await over.wait()

        locking = asyncio.create_task(link.run(lock, 30.0))
        await locked.wait()
        record(ledger, 0)
        flushed = asyncio.create_task(ledger.flush())
        while not await link.run(lambda session: session.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")):
            pass  # until the writer stands before the lock
        for number in range(1, 500):
            record(ledger, number)
        await asyncio.sleep(0)
        assert not flushed.done()
        assert ledger.standing().waiting_bytes > 500 * 100
        over.set()
        await asyncio.gather(locking, flushed)
        await ledger.flush()
        assert ledger.standing().waiting_bytes == 0
        await ledger.close()
        await link.close()

    asyncio.run(main())
    assert recorded(postgres, url) == "500|500|500"


def test_rows_are_taken_in_and_the_ledger_ends_while_house_is_kept(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    kept = asyncio.Event()

    async def endless(self: PostgresSink, now: int, keep_days: float, responses_days: float) -> int:
        kept.set()
        await self._link.run(lambda session: session.execute("SELECT pg_sleep(40)"), 60.0)
        return 0

    async def main() -> None:
        monkeypatch.setattr(PostgresSink, "keep_house", endless)
        monkeypatch.setattr("keyturn.stores.journaled.HOUSE_FIRST", 0.0)
        ledger = journaled(tmp_path, url)
        await ledger.open()
        record(ledger, 1)
        await ledger.flush()
        await kept.wait()
        record(ledger, 2)
        await ledger.flush()
        assert (await ledger.spent("2026-11")) == {"caller/default": 160}
        monkeypatch.setattr("keyturn.stores.postgres_link.LAST_WORD", 0.0)
        await ledger.close()

    asyncio.run(main())
