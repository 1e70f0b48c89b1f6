"""Second tries while upstreams fail: the budget of a provider, what it never holds back, and the throttle.

Each call asks for a model of its own, so that no rest of one keeps the next call away.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import Answer, World

FAILS: dict[str, Any] = {"error": "server_error", "status": 502}


def drained(world: World, left: int = 0) -> None:
    """Spend the budget of groq but for so much."""
    upstreams = world.gateway.adapting.steadiness._upstreams
    upstream = upstreams["provider", "groq", ""]
    upstream.budget = upstream.budget._replace(left=left)


def trail(world: World) -> Any:
    return list(world.gateway.recent.values())[-1]


def test_an_empty_budget_gives_the_error_of_the_first_try_and_says_so() -> None:
    async def story() -> None:
        async with World({"groq": 4}, faults=[Fault(**FAILS)]) as world:
            first = await world.chat("groq/m0")
            assert (first.status, len(trail(world).attempts)) == (502, 2)
            assert "x-keyturn-retry" not in first.headers
            drained(world, 13)
            second = await world.chat("groq/m1")
            assert (second.status, second.code) == (502, "bad_upstream")
            assert second.headers["x-keyturn-retry"] == "budget"
            assert len(trail(world).attempts) == 1
            assert any("too many second tries" in each for each in trail(world).refusals)
            assert world.gateway.adapting.steadiness.held_back == {"groq": 1}

    virtual.run(story)


def test_another_provider_is_asked_all_the_same() -> None:
    async def story() -> None:
        files = {"models.yaml": "aliases: { mine: [groq/m1, mistral/m] }\n"}
        async with World({"groq": 4, "mistral": 1}, files=files, faults=[Fault(provider="groq", **FAILS)]) as world:
            await world.chat("groq/m0")
            drained(world)
            answer = await world.chat("mine")
            assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "mistral")
            assert [each.provider for each in trail(world).attempts] == ["groq", "mistral"]

    virtual.run(story)


def test_the_one_good_key_of_eight_is_found_with_an_empty_budget() -> None:
    async def story() -> None:
        rules = [KeyRule(state="invalid_key")] * 7 + [KeyRule()]
        environ = {"ROTATION_MODE_GROQ": "sequential"}
        async with World({"groq": rules}, environ=environ, faults=[Fault(times=1, **FAILS)]) as world:
            assert (await world.chat("groq/m0")).status == 502
            world.gateway.reset("groq")
            drained(world)
            assert (await world.chat("groq/m1")).status == 200
            assert [each.meaning for each in trail(world).attempts] == [*["invalid_key"] * 7, "ok"]

    virtual.run(story)


def test_after_a_429_another_key_is_tried_with_an_empty_budget() -> None:
    async def story() -> None:
        faults = [Fault(times=2, **FAILS), Fault(status=429, times=3)]
        async with World({"groq": 6}, faults=faults) as world:
            await world.chat("groq/m0")
            drained(world)
            assert (await world.chat("groq/m1")).status == 200
            assert [each.meaning for each in trail(world).attempts] == [*["rate_limited"] * 3, "ok"]

    virtual.run(story)


def test_answers_at_the_first_try_fill_it_and_then_nothing_is_looked_at() -> None:
    async def story() -> None:
        async with World({"groq": 4}, faults=[Fault(times=2, **FAILS)]) as world:
            await world.chat("groq/m0")
            adapting = world.gateway.adapting
            (upstream,) = adapting.steadiness._upstreams.values()
            assert upstream.budget.left == 486, "the second try failed too"
            for number in range(14):
                assert (await world.chat(f"groq/m{number + 1}")).status == 200
            assert upstream.budget.left == 500
            await world.clock.sleep_until(world.clock.mono() + 121)
            assert "steadiness" in adapting.alert
            await world.chat("groq/m0")
            assert adapting.alert == set()

    virtual.run(story)


@pytest.mark.parametrize("stream", [False, True])
def test_few_second_tries_are_under_way_at_once(stream: bool) -> None:
    """Sixty calls fail at the same moment: as many are tried again as the budget bears, not all."""

    async def story() -> None:
        faults = [Fault(latency=1.0, **FAILS)]
        async with World({"groq": 4}, faults=faults, environ={"BREAKER_ENABLED": "false"}) as world:
            await asyncio.gather(*(world.chat(f"groq/m{each}", stream=stream) for each in range(60)))
            again = [each for each in world.seen() if each.started > virtual.START_MONO + 0.5]
            assert len(again) == 500 // 14

    virtual.run(story)


def test_a_client_that_leaves_gives_its_second_try_back() -> None:
    async def story() -> None:
        faults = [Fault(times=1, **FAILS), Fault(latency=60.0)]
        async with World({"groq": 4}, faults=faults) as world:
            task = asyncio.ensure_future(world.chat("groq/m0"))
            await world.clock.sleep_until(world.clock.mono() + 1)
            (upstream,) = world.gateway.adapting.steadiness._upstreams.values()
            assert upstream.budget == (500, 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert upstream.budget == (500, 0)

    virtual.run(story)


def test_it_can_be_switched_off() -> None:
    async def story() -> None:
        async with World({"groq": 4}, faults=[Fault(**FAILS)], environ={"RETRIES_BUDGET": "false"}) as world:
            await world.chat("groq/m0")
            drained(world)
            await world.chat("groq/m1")
            assert len(trail(world).attempts) == 2

    virtual.run(story)


async def paced(world: World, model: str, calls: int) -> list[Answer]:
    """Calls three seconds apart, too few for the breaker."""
    answers = []
    for number in range(calls):
        answers.append(await world.chat(model.format(number=number)))
        await world.clock.sleep_until(world.clock.mono() + 3)
    return answers


def test_a_provider_whose_answers_are_mostly_faults_is_left_alone_by_a_share_of_calls() -> None:
    async def story() -> None:
        faults = [Fault(skip=2, every=3, share=0.0, **FAILS), Fault(share=0.75, **FAILS)]
        async with World({"groq": 8}, faults=faults, environ={"BREAKER_ENABLED": "false"}, seed=4) as world:
            answers = await paced(world, "groq/m{number}", 120)
            spared = [
                each for each in answers if each.status == 502 and "is not sent" in each.json()["error"]["message"]
            ]
            assert len(spared) >= 5
            assert all(each.headers["retry-after"] == "5" for each in spared)
            assert all(each.headers["x-keyturn-attempts"] == "0" for each in spared)
            assert world.gateway.adapting.steadiness.spared["groq"] == len(spared)

    virtual.run(story)


def test_while_somebody_else_is_free_nobody_is_refused_for_it() -> None:
    async def story() -> None:
        names = ", ".join(f"n{each}: [groq/m{each}, mistral/m]" for each in range(120))
        faults = [Fault(provider="groq", share=0.75, **FAILS)]
        files = {"models.yaml": f"aliases: {{ {names} }}\n"}
        environ = {"BREAKER_ENABLED": "false"}
        async with World({"groq": 8, "mistral": 1}, files=files, faults=faults, environ=environ) as world:
            answers = await paced(world, "n{number}", 120)
            assert {each.status for each in answers} == {200}
            assert world.gateway.adapting.steadiness.spared["groq"] >= 5

    virtual.run(story)
