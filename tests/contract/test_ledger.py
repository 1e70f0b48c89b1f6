"""What every database of the ledger does alike. A backend is a function that opens an empty one, migrated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.core import Secret
from keyturn.dispatch import SystemClock
from keyturn.errors import RowsRefused
from keyturn.stores import (
    AttemptRow,
    By,
    CallStory,
    PostgresSink,
    ResponseRow,
    Responses,
    Sink,
    SqliteFile,
    SqliteSink,
    UsageQuery,
    UsageRow,
)
from tests.support.ledger_rows import DAY, HOUR, MINUTE, NOON, began, ended, lines, numbered, over, shared_by, summed
from tests.support.postgres_server import PostgresServer


class Database(Sink, Responses, Protocol):
    """Both that a database is asked for."""


Opened = Callable[[], AbstractAsyncContextManager[Database]]
COUNT = iter(range(1_000_000))


@asynccontextmanager
async def sqlite(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    folder: Path = request.getfixturevalue("tmp_path")
    sink = SqliteSink(SqliteFile(folder / f"{next(COUNT)}.sqlite"))
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


@pytest.fixture(scope="module")
def migrated(postgres: PostgresServer) -> str:
    """The address of a database with tables, which each test empties."""

    async def main() -> None:
        sink = PostgresSink(Secret(url), SystemClock())
        await sink.open()
        await sink.close()

    url = postgres.new_database()
    asyncio.run(main())
    return url


@asynccontextmanager
async def postgresql(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    server: PostgresServer = request.getfixturevalue("postgres")
    url: str = request.getfixturevalue("migrated")
    tables = "keyturn_attempts, keyturn_calls, keyturn_spent_before, keyturn_usage_sums, keyturn_responses"
    server.sql(f"TRUNCATE {tables}; UPDATE keyturn_kept_from SET at = 0", url.rpartition("/")[2])
    sink = PostgresSink(Secret(url), SystemClock())
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Database]]] = {
    "sqlite": sqlite,
    "postgresql": postgresql,
}


@pytest.fixture(params=BACKENDS)
def opened(request: pytest.FixtureRequest) -> Opened:
    if request.param == "postgresql":
        request.getfixturevalue("migrated")
    return lambda: BACKENDS[request.param](request)


EVER = UsageQuery("model", 0, NOON + 400 * DAY)


def run(opened: Opened, work: Callable[[Database], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened() as sink:
            await work(sink)

    asyncio.run(main())


def test_an_attempt_counts_when_it_is_over_and_once(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            first = began("a", charged=500)
            await sink.apply(lines(first), "here")
            assert list(await sink.usage(EVER)) == []
            for _ in range(2):
                await sink.apply(lines(over(first, charged=70)), "here")
                assert list(await sink.usage(EVER)) == [UsageRow("groq/llama", 1, 0, 90, 5, 40, 3, 7, 0, 0)]
            await sink.apply(lines(first), "here")
            await sink.apply(lines(over(first, input=1), first), "here")
            assert list(await sink.usage(EVER)) == [UsageRow("groq/llama", 1, 0, 90, 5, 40, 3, 7, 0, 0)]
            assert await sink.spent("2026-11") == {"caller/default": 70}

    asyncio.run(main())


def test_any_order_within_a_batch(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            row = began("a")
            await sink.apply(lines(over(row), ended("call-a"), row, over(row), ended("call-a")), "here")
            assert list(await sink.usage(EVER)) == summed([over(row)], EVER)

    asyncio.run(main())


def test_who_is_asked_for_what(opened: Opened) -> None:
    rows = [
        over(began("a", caller="alice", model="m1", call="c1")),
        over(began("b", caller="alice", model="m2", call="c1", at=NOON + 1), meaning="rate_limited", input=0, output=0),
        over(
            began("c", caller="bob", model="m1", key="groq-2:aaaaaa", at=NOON - DAY, call="c2"), cost=None, exact=False
        ),
        over(began("d", caller="bob", model="m1", at=NOON + 2, call="c3"), cost=None, input=900),
    ]

    async def main() -> None:
        async with opened() as sink:
            await sink.apply(lines(*rows), "here")
            for by in ("key", "caller", "model", "day"):
                for query in (
                    UsageQuery(by, 0, NOON + DAY),
                    UsageQuery(by, NOON, NOON + 1),
                    UsageQuery(by, NOON, NOON + DAY, most=1),
                    UsageQuery(by, NOON + DAY, NOON + 2 * DAY),
                ):
                    assert list(await sink.usage(query)) == summed(rows, query), query
            only = UsageQuery("caller", 0, NOON + DAY, name="bob")
            assert [row.name for row in await sink.usage(only)] == ["bob"]
            assert [row.name for row in await sink.usage(UsageQuery("call", 0, NOON + DAY))] == ["c3", "c1", "c2"]
            assert [row.name for row in await sink.usage(UsageQuery("call", 0, NOON + DAY, most=1))] == ["c3"]

    asyncio.run(main())


def test_what_is_held_is_spent_until_it_is_known(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            row = began("a", charged=500, role="chat", caller="alice")
            await sink.apply(lines(row), "here")
            assert await sink.spent("2026-11") == {"caller/alice": 500, "role/chat": 500}
            await sink.apply(lines(over(row, charged=20)), "here")
            assert await sink.spent("2026-11") == {"caller/alice": 20, "role/chat": 20}

    asyncio.run(main())


def test_an_attempt_of_a_dead_process_costs_what_was_held_for_it(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            row = began("a", charged=494_000)
            row.cost = 494_000
            await sink.apply(lines(row), "here")
            await sink.give_up("here", NOON + 5)
            assert list(await sink.usage(EVER)) == [UsageRow("groq/llama", 1, 1, 100, 0, 50, 0, 494_000, 0, 1)]
            story = await sink.story("call-a")
            assert story is not None
            assert (story.attempts[0].meaning, story.attempts[0].cost) == ("crashed", 494_000)

    asyncio.run(main())


def test_attempts_of_a_dead_process_count_as_they_were_held(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            mine, late, theirs = began("a", charged=500), began("b", at=NOON + 10), began("c")
            await sink.apply(lines(mine, late), "here")
            await sink.apply(lines(theirs), "there")
            assert await sink.give_up("here", NOON + 5) == 1
            assert await sink.give_up("here", NOON + 5) == 0
            assert list(await sink.usage(EVER)) == [UsageRow("groq/llama", 1, 1, 100, 0, 50, 0, 0, 1, 1)]
            assert (await sink.spent("2026-11"))["caller/default"] == 500
            story = await sink.story("call-a")
            assert story is not None
            assert (story.attempts[0].kind, story.attempts[0].exact) == ("f", False)
            await sink.apply(lines(mine), "here")
            assert list(await sink.usage(EVER)) == [UsageRow("groq/llama", 1, 1, 100, 0, 50, 0, 0, 1, 1)]
            await sink.apply(lines(over(mine, charged=3)), "here")
            assert list(await sink.usage(EVER)) == summed([over(mine)], EVER)

    asyncio.run(main())


def test_spent_ends_with_the_month(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            end = NOON + 2 * DAY + 12 * HOUR  # 2026-12-01, midnight
            rows = [over(began(str(at), at=at), charged=1) for at in (end - 1, end, end + 31 * DAY - 1, end + 31 * DAY)]
            await sink.apply(lines(*rows), "here")
            assert await sink.spent("2026-11") == {"caller/default": 1}
            assert await sink.spent("2026-12") == {"caller/default": 2}
            assert await sink.spent("2027-01") == {"caller/default": 1}
            assert await sink.spent("2027-02") == {}

    asyncio.run(main())


def test_what_was_spent_before_is_taken_over_once(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            for _ in range(2):
                await sink.add_spent("2026-11", {"caller/default": 5, "role/chat": 6}, "spend.json")
            await sink.apply(lines(over(began("a"), charged=1)), "here")
            assert await sink.spent("2026-11") == {"caller/default": 6, "role/chat": 6}
            assert await sink.spent("2026-12") == {}

    asyncio.run(main())


def test_the_story_of_a_call(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            first, second = over(began("a", call="c"), meaning="rate_limited"), began("b", call="c", at=NOON + 1)
            call = ended("c", status=503, refusals=["groq: “voll” \\"], notes=["a", "b"])
            assert await sink.story("c") is None
            await sink.apply(lines(second, first), "here")
            assert await sink.story("c") == CallStory(None, (first, second))
            await sink.apply(lines(call), "here")
            found = await sink.story("c")
            assert found is not None
            assert found.call is not None
            assert (list(found.call.refusals), list(found.call.notes)) == (list(call.refusals), list(call.notes))
            found.call.refusals, found.call.notes = call.refusals, call.notes
            assert found == CallStory(call, (first, second))

    asyncio.run(main())


def test_attempts_that_stand_flat_in_a_journal_are_taken_in_like_others(opened: Opened) -> None:
    """A journal that an earlier version left behind has them, and the end of one may stand in both ways."""
    rows = [began("a"), over(began("a")), over(began("b"), cost=None), began("c")]

    async def main() -> None:
        async with opened() as sink:
            await sink.apply([*map(msgspec.json.encode, rows), *lines(over(began("c")))], "here")
            for id in "abc":
                found = await sink.story(f"call-{id}")
                assert found is not None
                assert found.attempts == (over(began(id), cost=None if id == "b" else 7),)

    asyncio.run(main())


def test_attempts_are_taken_in_together_and_alone(opened: Opened) -> None:
    """Whatever they share with how many others, each row is what it was."""
    details = ["", 'it said: ],[ and "no"', "ü\u2028"]
    rows = [
        over(began(f"{caller}{number}", caller=caller, at=NOON + number), meaning=meaning, input=number)
        for caller, most in (("many", 200), ("two", 2), *((f"one-{place}", 1) for place in range(60)))
        for number in range(most)
        for meaning in (("ok",) if number % 7 else ("rate_limited",))
    ]
    for number, row in enumerate(rows):
        row.detail = details[number % 3 if row.meaning != "ok" else 0]

    async def main() -> None:
        async with opened() as sink:
            await sink.apply(lines(*rows), "here")
            for row in rows:
                found = await sink.story(row.call)
                assert found is not None
                assert found.attempts == (row,)

    asyncio.run(main())


@pytest.mark.parametrize("many", [3, 40])
def test_attempts_that_share_by_number_are_those_that_say_all(opened: Opened, many: int) -> None:
    """What they share was told in an earlier batch of the same file, in this one, or in the line itself."""
    rows = [over(began(f"{number}", key="groq-1:9f3a1c" if number % 2 else "groq-2:0f0f0f")) for number in range(many)]
    first, second = (shared_by(row) for row in rows[:2])

    async def work(sink: Database) -> None:
        names: dict[bytes, bytes] = {}
        await sink.apply([first.told(), numbered(rows[0], first)], "here", names)
        given = [numbered(row, second if place % 2 else first) for place, row in enumerate(rows[1:-1], 1)]
        await sink.apply([second.told(), *given, *lines(rows[-1])], "here", names)
        assert list(await sink.usage(EVER)) == summed(rows, EVER)
        with pytest.raises(RowsRefused):
            await sink.apply([numbered(over(began("other")), first)], "here", {})
        await sink.apply([first.told()], "here", {})
        assert list(await sink.usage(EVER)) == summed(rows, EVER)

    run(opened, work)


def test_calls_with_long_names_alike_are_all_kept_and_each_as_it_was_told_first(opened: Opened) -> None:
    names = [f"{'c' * 60}-{number}" for number in range(3)]

    async def work(sink: Database) -> None:
        await sink.apply(lines(*(ended(name) for name in names), ended(names[0], status=503)), "here")
        for name in names:
            found = await sink.story(name)
            assert found is not None
            assert found.call is not None
            assert found.call.status == 200

    run(opened, work)


@pytest.mark.parametrize("many", [2, 60])
def test_ends_of_attempts_that_are_under_way_find_them_among_others_that_are_new(opened: Opened, many: int) -> None:
    rows = [began(f"{number}", charged=10) for number in range(many)]
    ends = [over(row, charged=2) for row in rows]

    async def work(sink: Database) -> None:
        await sink.apply(lines(*rows[::3]), "here")
        await sink.apply(lines(*ends), "here")
        await sink.apply(lines(*rows, *ends), "here")
        assert list(await sink.usage(EVER)) == summed(ends, EVER)
        assert await sink.spent("2026-11") == {"caller/default": 2 * many}

    run(opened, work)


@pytest.mark.parametrize("kept_first", [False, True])
def test_what_nobody_knows_of_an_attempt_stays_unknown(opened: Opened, kept_first: bool) -> None:
    """In rows that all lack it and among others that have it, also where what was expected had been on record."""
    begun = [msgspec.structs.replace(began(f"{number}", at=NOON + number), cost=number) for number in range(300)]
    rows = []
    for number, row in enumerate(begun):
        known = ((None, None, 5.0), (7, None, None), (None, 3.5, None), (7 if number % 2 else None, 3.5, 4.0))
        cost, first, ms = known[number // 75]
        rows.append(msgspec.structs.replace(over(row), cost=cost, first_token_ms=first, ms=ms))

    async def main() -> None:
        async with opened() as sink:
            if kept_first:
                await sink.apply(lines(*begun), "here")
            await sink.apply(lines(*begun, *rows), "here")
            for row in rows:
                found = await sink.story(row.call)
                assert found is not None
                assert found.attempts == (row,)

    asyncio.run(main())


def test_a_line_that_is_no_row_is_refused_and_nothing_of_its_batch_kept(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            good = over(began("a"))
            line = lines(over(began("b")))[0]
            wrong = [line.replace(b",90,", some) for some in (b",", b',"",', b",9000000000000000000000,")]
            for bad in (b'["f","torn', b"\xff\xfe", *wrong):
                with pytest.raises(RowsRefused):
                    await sink.apply([*lines(good), bad], "here")
                assert list(await sink.usage(EVER)) == []
            await sink.apply(lines(good), "here")
            assert len(await sink.usage(EVER)) == 1

    asyncio.run(main())


def test_old_rows_become_sums_and_nothing_is_counted_twice(opened: Opened) -> None:
    ages = (0, HOUR, 5 * HOUR, 30 * HOUR, 3 * DAY, 40 * DAY, 89 * DAY, 95 * DAY, 200 * DAY)
    rows = [
        over(began(f"{age}-{n}", at=NOON - age - n * MINUTE, call=f"c{age}"), charged=n)
        for age in ages
        for n in range(3)
    ]

    async def main() -> None:
        async with opened() as sink:
            await sink.apply(lines(*rows, *(ended(f"c{age}", at=NOON - age) for age in ages)), "here")
            months = {month: await sink.spent(month) for month in ("2026-05", "2026-08", "2026-10", "2026-11")}
            assert any(months.values())
            now = NOON
            for keep_days in (90.0, 35.0, 1.0, 1.0, 0.0):
                await sink.keep_house(now, keep_days, 30.0)
                for by in ("key", "caller", "model", "day"):
                    query = UsageQuery(by, 0, NOON + DAY)
                    assert list(await sink.usage(query)) == summed(rows, query), (keep_days, by)
                assert {month: await sink.spent(month) for month in months} == months
            assert await sink.story(f"c{200 * DAY}") is None
            now += 100 * DAY
            await sink.keep_house(now, 90.0, 30.0)
            query = UsageQuery("day", 0, NOON + DAY)
            assert list(await sink.usage(query)) == summed(rows, query)

    asyncio.run(main())


def test_what_is_under_way_is_not_dropped(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            row = began("a", charged=9)
            await sink.apply(lines(row), "here")
            await sink.keep_house(NOON + HOUR // 2, 0.0, 30.0)
            assert await sink.spent("2026-11") == {"caller/default": 9}
            await sink.keep_house(NOON + 2 * HOUR, 90.0, 30.0)
            assert [each.estimated for each in await sink.usage(EVER)] == [1]

    asyncio.run(main())


def test_what_may_still_be_under_way_is_not_dropped_however_little_is_to_be_kept(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            row = began("a", charged=9)
            await sink.apply(lines(over(row, charged=3), ended(row.call)), "here")
            assert await sink.keep_house(NOON + HOUR, 0.0, 30.0) == 0
            assert await sink.story(row.call) is not None
            assert await sink.keep_house(NOON + 3 * HOUR, 0.0, 30.0) == 2
            assert await sink.spent("2026-11") == {"caller/default": 3}

    asyncio.run(main())


def test_an_attempt_that_was_sent_again_is_told_as_it_was_in_the_end_and_after_the_one_in_vain(opened: Opened) -> None:
    """The request went out anew under the id of its intent; the one in vain has an id that was made later."""
    intent = began("a", call="c")
    vain = over(began("b", call="c"), meaning="server_error")

    async def main() -> None:
        async with opened() as sink:
            for number, later in enumerate((0, 5)):
                first, lost = (
                    msgspec.structs.replace(row, id=f"{row.id}{number}", call=f"c{number}") for row in (intent, vain)
                )
                await sink.apply(lines(first), "here")
                again = msgspec.structs.replace(over(first), at=NOON + later, resend=True)
                await sink.apply(lines(lost, again), "here")
                story = await sink.story(f"c{number}")
                assert story is not None
                assert [each.id for each in story.attempts] == [lost.id, again.id]
                assert story.attempts[1] == again

    asyncio.run(main())


def test_kept_answers(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            row = ResponseRow("resp_1", "alice", NOON, "", b"[]", b'{"id":"resp_1"}')
            await sink.keep(row)
            assert await sink.find("alice", "resp_1") == row
            assert await sink.find("bob", "resp_1") is None
            assert not await sink.forget("bob", "resp_1")
            assert await sink.forget("alice", "resp_1")
            assert await sink.find("alice", "resp_1") is None
            await sink.keep(row)
            await sink.keep(row._replace(id="resp_2", at=NOON + 20 * DAY))
            await sink.keep_house(NOON + 31 * DAY, 90.0, 30.0)
            assert await sink.find("alice", "resp_1") is None
            assert await sink.find("alice", "resp_2") is not None

    asyncio.run(main())


def test_a_sound_database_has_nothing_wrong_with_it(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as sink:
            assert list(await sink.check()) == []

    asyncio.run(main())


NAMES = st.sampled_from(["a", "b", "ü\u2028'\"\\"])
ATTEMPTS = st.builds(
    lambda back, caller, role, model, key, meaning, tokens, cost, exact: over(
        began("", at=NOON - back, caller=caller, role=role, model=model, key=f"groq-1:{key}"),
        meaning=meaning, input=tokens, output=tokens // 2, cost=cost, exact=exact, charged=cost or 1,
    ),
    st.integers(0, 130 * DAY), NAMES, st.sampled_from(["", "chat"]), NAMES, NAMES,
    st.sampled_from(["ok", "overloaded"]),
    st.integers(0, 10_000), st.none() | st.integers(0, 2**52), st.booleans(),
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ATTEMPTS, max_size=12),
    houses=st.lists(st.tuples(st.integers(0, 90 * DAY), st.floats(0, 100)), max_size=3),
)
def test_sums_equal_the_rows_whenever_house_was_kept(
    opened: Opened, rows: list[AttemptRow], houses: list[tuple[int, float]]
) -> None:
    for number, row in enumerate(rows):
        row.id, row.call = f"{number}", f"call-{number}"

    async def main() -> None:
        async with opened() as sink:
            await sink.apply(lines(*rows), "here")
            for later, keep_days in [(0, 1e6), *houses]:
                await sink.keep_house(NOON + later, keep_days, 30.0)
                bys: tuple[By, ...] = ("key", "caller", "model", "day")
                for by in bys:
                    query = UsageQuery(by, 0, NOON + 1)
                    assert list(await sink.usage(query)) == summed(rows, query)

    asyncio.run(main())
