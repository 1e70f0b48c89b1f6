"""Slow calls that are sent a second time: who answers, what is charged, and what is left when somebody goes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

USUAL, SLOW = 1.0, 30.0
WATCHED = {"HEDGING_ROUTES": "groq/*,mine"}
both = pytest.mark.parametrize("stream", [False, True])


def world(*faults: Fault, keys: int = 3, environ: Mapping[str, str] = WATCHED, **more: Any) -> World:
    return World({"groq": keys}, latency=USUAL, environ=environ, faults=faults, **more)


async def warm(place: World, calls: int = 60, **members: Any) -> None:
    """Calls of the usual length: enough that one may be sent twice."""
    await asyncio.gather(*(place.chat("groq/m", **members) for _ in range(calls)))


def slow_once(calls: int = 60) -> Fault:
    return Fault(skip=calls, times=1, latency=SLOW)


def trail(place: World) -> Any:
    return list(place.gateway.recent.values())[-1]


@both
def test_the_second_one_answers_and_the_first_is_let_go(stream: bool) -> None:
    async def story() -> None:
        async with world(slow_once()) as place:
            await warm(place, stream=stream)
            began = place.clock.mono()
            answer = await place.chat("groq/m", stream=stream)
            assert answer.status == 200
            assert place.clock.mono() - began == pytest.approx(1.25 + USUAL)
            assert answer.headers["x-keyturn-attempts"] == "2"
            first, second = trail(place).attempts
            assert (first.meaning, second.meaning) == ("cancelled", "ok")
            assert answer.headers["x-keyturn-key"] == second.key != first.key
            assert first.usage.input > 0, "what was observed stays charged"
            assert "also sent to" in trail(place).notes[0]
            await virtual.idle()
            (cut,) = place.seen(result="cancelled")
            assert cut.ended == place.clock.mono(), "its connection is closed at once"
            assert place.gateway.adapting.watched is not None
            assert place.gateway.adapting.watched.results == {"won": 1}

    virtual.run(story)


@both
def test_the_first_one_may_still_be_first(stream: bool) -> None:
    async def story() -> None:
        async with world(Fault(skip=60, times=1, latency=1.5), Fault(skip=60, latency=SLOW)) as place:
            await warm(place, stream=stream)
            answer = await place.chat("groq/m", stream=stream)
            assert answer.status == 200
            assert [each.meaning for each in trail(place).attempts] == ["cancelled", "ok"]
            assert answer.headers["x-keyturn-key"] == trail(place).attempts[1].key
            assert trail(place).attempts[1].started < trail(place).attempts[0].started
            assert place.gateway.adapting.watched is not None
            assert place.gateway.adapting.watched.results == {"lost": 1}

    virtual.run(story)


def test_two_of_a_hundred_at_most() -> None:
    async def story() -> None:
        async with world(Fault(skip=40, every=25, latency=SLOW)) as place:
            for _ in range(40):
                await asyncio.gather(*(place.chat("groq/m") for _ in range(10)))
            assert 6 <= len(place.seen()) - 400 <= 8

    virtual.run(story)


@both
def test_a_client_that_leaves_closes_both(stream: bool) -> None:
    async def story() -> None:
        async with world(Fault(skip=60, latency=SLOW)) as place:
            await warm(place, stream=stream)
            task = asyncio.ensure_future(place.chat("groq/m", stream=stream))
            await place.clock.sleep_until(place.clock.mono() + 5)
            assert len(place.seen(result="open")) == 2
            left = place.clock.mono()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await virtual.idle()
            assert [each.ended for each in place.seen(result="cancelled")] == [left, left]
            assert trail(place).status == 499
            assert place.held() == 0
            assert not place.gateway.generation.hedging._tasks  # type: ignore[union-attr]

    virtual.run(story)


@both
def test_when_both_fail_it_is_not_tried_again(stream: bool) -> None:
    async def story() -> None:
        async with world(Fault(skip=60, latency=5.0, error="server_error"), keys=6) as place:
            await warm(place, stream=stream)
            answer = await place.chat("groq/m", stream=stream)
            assert (answer.status, answer.code) == (502, "bad_upstream")
            assert len(place.seen()) == 62
            assert {each.meaning for each in trail(place).attempts} == {"server_error"}

    virtual.run(story)


def test_when_the_first_fails_the_second_answers() -> None:
    async def story() -> None:
        faults = [Fault(skip=60, times=1, latency=1.5, error="server_error"), Fault(skip=60, times=1, latency=3.0)]
        async with world(*faults) as place:
            await warm(place)
            assert (await place.chat("groq/m")).status == 200
            assert [each.meaning for each in trail(place).attempts] == ["server_error", "ok"]

    virtual.run(story)


def test_what_fails_before_it_is_slow_is_tried_again_as_ever() -> None:
    async def story() -> None:
        async with world(Fault(skip=60, times=1, latency=0.1, error="server_error")) as place:
            await warm(place)
            assert (await place.chat("groq/m")).status == 200
            assert [each.meaning for each in trail(place).attempts] == ["server_error", "ok"]

    virtual.run(story)


def test_a_clients_mistake_is_handed_back_as_it_came() -> None:
    async def story() -> None:
        async with world(Fault(skip=60, latency=3.0, error="bad_request")) as place:
            await warm(place)
            assert (await place.chat("groq/m")).status == 400

    virtual.run(story)


@pytest.mark.parametrize(
    ("keys", "environ"),
    [
        (3, {}),
        (3, {"HEDGING_ROUTES": "other"}),
        (1, WATCHED),
        (2, WATCHED | {"QUOTA_GROUP_GROQ": "1,2"}),
        (2, WATCHED | {"LIMITS_GROQ": "rpm=100"}),
    ],
    ids=["off", "another route", "one key", "one quota group", "used to more than half"],
)
def test_who_is_not_asked_a_second_time(keys: int, environ: dict[str, str]) -> None:
    async def story() -> None:
        async with world(slow_once(120), keys=keys, environ=environ) as place:
            await warm(place, 120)
            assert (await place.chat("groq/m")).status == 200
            assert len(place.seen()) == 121

    virtual.run(story)


def test_nor_what_would_be_done_twice() -> None:
    async def story() -> None:
        async with world(slow_once()) as place:
            await warm(place)
            assert (await place.chat("groq/m", store=True)).status == 200
            assert len(place.seen()) == 61

    virtual.run(story)


def test_only_equals_stand_in_for_one_another() -> None:
    """The next step of a chain is another model: it waits for a failure."""

    async def story() -> None:
        files = {"models.yaml": "aliases: { mine: [groq/m, mistral/m] }\n"}
        place = World({"groq": 1, "mistral": 1}, latency=USUAL, environ=WATCHED, files=files, faults=[slow_once()])
        async with place:
            await asyncio.gather(*(place.chat("mine") for _ in range(60)))
            assert (await place.chat("mine")).headers["x-keyturn-provider"] == "groq"
            assert len(place.seen()) == 61

    virtual.run(story)


@pytest.mark.parametrize("seconds", [1.2, 5.0], ids=["one", "both"])
def test_who_still_waits_when_the_gateway_closes_is_told_so(seconds: float) -> None:
    async def story() -> None:
        async with world(Fault(skip=60, latency=SLOW)) as place:
            await warm(place)
            task = asyncio.ensure_future(place.chat("groq/m"))
            await place.clock.sleep_until(place.clock.mono() + seconds)
            await place.gateway.close()
            answer = await task
            assert (answer.status, answer.code) == (503, "draining")
            assert (trail(place).status, trail(place).code) == (503, "draining")

    virtual.run(story)


def test_its_state_outlives_a_reload() -> None:
    async def story() -> None:
        async with world(slow_once()) as place:
            await warm(place)
            place.gateway.adopt(place.config())
            assert (await place.chat("groq/m")).headers["x-keyturn-attempts"] == "2"

    virtual.run(story)
