"""What is asked of a ledger for `keyturn usage` and `keyturn trace`, and how long an answer is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from keyturn.dispatch import Gateway, call_named, moment, recorded, told_of, usage_told
from keyturn.dispatch.usage import MOST_CALLS, MOST_SEARCHED
from keyturn.errors import BadRequest, StoreError
from keyturn.stores import AttemptRow, CallRow, CallStory, UsageQuery, UsageRow
from tests.support import virtual

HOUR = 3_600_000
NOW = 1_795_000_000_000


class Calls:
    """A ledger of calls without attempts: id -> when."""

    def __init__(self, calls: dict[str, int]) -> None:
        self.calls = calls
        self.asked: list[UsageQuery] = []

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        self.asked.append(query)
        found = [name for name, at in self.calls.items() if query.since <= at < query.until]
        found = sorted(found, key=lambda name: -self.calls[name])[: query.most]
        return [UsageRow(name, 0, 0, 0, 0, 0, 0, 0, 0, 0) for name in found if query.name in ("", name)]

    async def story(self, call: str) -> CallStory | None:
        if call not in self.calls:
            return None
        return CallStory(CallRow("c", call, self.calls[call], "ci", "fast", 200, "", 1.0, 0.0, 0, False), ())


def named(at: int, number: int = 0) -> str:
    """An id made at *at*."""
    text = f"{at:012x}7000{number:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def ask(work: Any) -> Any:
    async def main() -> Any:
        return await work

    return virtual.run(main)


def test_the_latest_calls_of_a_long_time_are_looked_for_from_its_end() -> None:
    calls = Calls({named(NOW - minute * 60_000): NOW - minute * 60_000 for minute in range(300)})
    query = UsageQuery("call", 0, NOW + 1, 20)
    rows = ask(usage_told(calls, query))
    assert [row["name"] for row in rows] == [named(NOW - minute * 60_000) for minute in range(20)]
    assert [each.since for each in calls.asked] == [NOW + 1 - HOUR]
    calls.asked.clear()
    assert len(ask(usage_told(calls, query._replace(most=250)))) == 250
    assert [each.since for each in calls.asked] == [NOW + 1 - HOUR, NOW + 1 - 24 * HOUR]
    calls.asked.clear()
    assert len(ask(usage_told(calls, query._replace(most=5000)))) == 300
    assert [(each.since, each.most) for each in calls.asked][-1] == (0, MOST_CALLS)


def test_a_call_is_found_by_its_beginning_among_very_many() -> None:
    calls = Calls({named(NOW + number, number): NOW + number for number in range(3 * MOST_SEARCHED)})
    wanted = named(NOW + 7, 7)
    found = ask(told_of(calls, wanted[:13], NOW))
    assert found["story"]["call"] == wanted


def test_a_call_that_waited_long_for_a_key_is_found_by_its_beginning() -> None:
    wanted = named(NOW, 7)
    calls = Calls({wanted: NOW + HOUR // 2, named(NOW + 5 * HOUR): NOW + 5 * HOUR})
    assert ask(told_of(calls, wanted[:10], NOW))["story"]["call"] == wanted
    calls.calls[named(NOW, 8)] = NOW
    assert ask(told_of(calls, wanted[:10], NOW))["alike"], "also when the other one did not wait"


def test_an_attempt_without_a_call_is_a_story_too() -> None:
    class Under(Calls):
        async def story(self, call: str) -> CallStory | None:
            row = AttemptRow(
                "i", "a", call, NOW, "ci", "fast", "", "groq", "m", "groq-1:abcdef", "f", 1, False, 5, 6, 7
            )
            return CallStory(None, (row,))

    story = ask(told_of(Under({}), named(NOW), NOW))["story"]
    assert (story["call"], story["status"], story["attempts"][0]["meaning"]) == (named(NOW), None, "unfinished")


@pytest.mark.parametrize("text", ["", "0199", "x" * 33, "01-9-9-a"])
def test_what_is_too_short_or_too_long_is_no_id(text: str) -> None:
    with pytest.raises(BadRequest):
        call_named(text)


def test_what_was_recorded_is_waited_for_but_not_for_ever() -> None:
    async def main() -> None:
        clock = virtual.VirtualClock()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def gateway(flush: Any) -> Gateway:
            return cast(Gateway, SimpleNamespace(clock=clock, ledger=SimpleNamespace(flush=flush)))

        async def never() -> None:
            await done

        async def at_once() -> None:
            return None

        async def away() -> None:
            raise StoreError("the database is away")

        started = clock.mono()
        assert not await recorded(gateway(never))
        assert clock.mono() - started == pytest.approx(3.0)
        assert await recorded(gateway(at_once))
        assert not await recorded(gateway(away))

    virtual.run(main)


def test_who_gives_up_the_wait_is_cancelled_and_nothing_else() -> None:
    async def main() -> None:
        clock = virtual.VirtualClock()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def flush() -> None:
            await asyncio.shield(waiting)

        gateway = cast(Gateway, SimpleNamespace(clock=clock, ledger=SimpleNamespace(flush=flush)))
        task = asyncio.create_task(recorded(gateway))
        await clock.sleep_until(clock.mono() + 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waiting.set_result(None)

    virtual.run(main)


def test_moments() -> None:
    assert moment(NOW) == "2026-11-18T11:06:40.000Z"
    assert moment(2**62) == str(2**62)
