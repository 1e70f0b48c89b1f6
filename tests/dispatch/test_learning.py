"""Limits that nobody states, learned by a whole gateway in virtual time; the simulator's limiters are the judges."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder, Pin
from keyturn.core import Deployment, Limit, Window
from keyturn.dispatch import Choice, choice_of, clear_limits, limit_rows, pin_again, pins_but, read_pin
from keyturn.errors import BadRequest
from keyturn.simulator import Fault, KeyRule
from keyturn.simulator.limiters import Kind
from tests.support import virtual
from tests.support.world import World

MODEL = "deepseek/m"
"""A provider that states no limits."""
MINUTE = Window("rolling", 60.0)


def capacities(world: World, metric: str = "requests") -> list[int]:
    pool = world.gateway.pools.of(Deployment("deepseek", "m"))
    scopes = [entry.limit_scopes[0] for entry in pool.entries]
    return [
        limit.capacity
        for scope in scopes
        for limit in world.gateway.live.limits(scope)
        if (limit.metric, limit.window.seconds) == (metric, 60.0)
    ]


async def traffic(world: World, per_minute: float, minutes: float, *, seed: int = 1) -> int:
    """Calls that come by chance; how many were served."""
    draw, clock, tasks = random.Random(seed), world.clock, []
    until = clock.mono() + 60.0 * minutes
    while clock.mono() < until:
        await clock.sleep_until(clock.mono() + draw.expovariate(per_minute / 60.0))
        tasks.append(asyncio.create_task(world.chat(MODEL, timeout=5.0)))
    answers = await asyncio.gather(*tasks)
    return sum(answer.status == 200 for answer in answers)


def test_several_keys_with_unknown_limits_cost_few_429s_after_the_first_hour() -> None:
    async def main() -> None:
        kinds: tuple[Kind, ...] = ("rolling", "fixed", "bucket")
        rules = [KeyRule(rpm=8, limiter=kind) for kind in kinds]
        async with World({"deepseek": rules}) as world:
            await traffic(world, 22.0, 60)
            before = len(world.seen(status=429))
            served = await traffic(world, 22.0, 30, seed=2)
            assert served >= 560
            assert len(world.seen(status=429)) - before <= 5.0 * served / 1000.0
            learned = capacities(world)
            assert learned
            assert all(6 <= each <= 16 for each in learned), learned

    virtual.run(main)


def test_a_declared_number_is_a_ceiling_and_a_key_that_has_half_of_it_is_found() -> None:
    async def main() -> None:
        world = World({"deepseek": [KeyRule(rpm=10), KeyRule(rpm=20)]}, environ={"LIMITS_DEEPSEEK": "rpm=20"})
        async with world:
            await traffic(world, 40.0, 20)
            half, whole = capacities(world)
            assert 8 <= half <= 11
            assert whole == 20
            assert len(world.seen(status=429)) <= 4

    virtual.run(main)


@pytest.mark.parametrize("learning", [True, False])
def test_a_refusal_that_names_its_limit_is_believed_at_once(learning: bool) -> None:
    async def main() -> None:
        environ = {"LIMITS_GROQ": "rpm=20", "LEARNING_ENABLED": str(learning).lower()}
        async with World({"groq": [KeyRule(rpm=10)]}, environ=environ) as world:
            for _ in range(16):
                await world.chat("groq/m", timeout=1.0)
                await world.clock.sleep_until(world.clock.mono() + 1.0)
            scope = world.gateway.pools.of(Deployment("groq", "m")).entries[0].limit_scopes[0]
            book = world.gateway.live.meters.book
            found = [(limit.capacity, limit.source) for limit in book.of(scope) if limit.metric == "requests"]
            assert found == ([(10, "reported")] if learning else [(20, "declared")])
            rows = [row for row in limit_rows(world.gateway) if row["holds"] and row["metric"] == "requests"]
            assert [row["source"] for row in rows] == [found[0][1]]
            assert bool(rows[0]["date"]) is learning
            if learning:
                refused = len(world.seen(status=429))
                assert refused == 1
                for _ in range(60):
                    await world.chat("groq/m", timeout=1.0)
                    await world.clock.sleep_until(world.clock.mono() + 3.0)
                assert len(world.seen(status=429)) == refused

    virtual.run(main)


@pytest.mark.parametrize(("others", "most", "late"), [(1, 20, 120.0), (0, 160, 360.0)])
def test_a_spent_quota_of_which_the_provider_says_nothing_is_asked_for_ever_more_rarely_and_found_full_again(
    others: int, most: int, late: float
) -> None:
    """A call a minute from noon until after midnight. Alone it may as well be a provider in trouble: then a key is
    never left alone for longer than five minutes."""

    async def main() -> None:
        keys = [KeyRule(rpd=20, day="fixed"), *(KeyRule() for _ in range(others))]
        async with World({"mistral": keys}) as world:
            clock, began = world.clock, world.clock.mono()
            while clock.mono() < began + 12.25 * 3600.0:
                await world.chat("mistral/m", timeout=2.0)
                await clock.sleep_until(clock.mono() + 60.0)
            first = next(iter(world.rules["mistral"]))
            refused = world.seen(status=429)
            assert {each.key for each in refused} == {first}
            assert 8 <= len(refused) <= most
            served = [each.started - began - 12 * 3600.0 for each in world.seen(status=200, key=first)]
            assert 0.0 <= min(each for each in served if each > 0) <= late

    virtual.run(main)


def test_tokens_are_learned_where_the_answer_speaks_of_tokens() -> None:
    async def main() -> None:
        async with World({"openrouter": [KeyRule(tpm=600)]}) as world:
            text = "word " * 80
            for _ in range(40):
                await world.chat("openrouter/m", text=text, timeout=1.0)
                await world.clock.sleep_until(world.clock.mono() + 10.0)
            refused = world.seen(status=429)
            assert refused
            scope = world.gateway.pools.of(Deployment("openrouter", "m")).entries[0].limit_scopes[0]
            known = world.gateway.live.limits(scope)
            assert all(limit.source == "learned" or limit.source == "reported" for limit in known)

    virtual.run(main)


def test_429s_that_are_about_something_else_teach_nothing() -> None:
    """No credit, an overload, and where learning is switched off."""

    async def main(environ: dict[str, str], case: str) -> None:
        async with World(
            {"deepseek": 1}, environ=environ, faults=[Fault(provider="deepseek", times=40, error=case)]
        ) as world:
            for _ in range(12):
                await world.chat(MODEL, timeout=1.0)
                await world.clock.sleep_until(world.clock.mono() + 30.0)
            assert capacities(world) == []
            assert world.gateway.live.meters.book.every_learned() == []

    for environ, case in (
        ({}, "insufficient_credit"),
        ({}, "overloaded"),
        ({"LEARNING_ENABLED": "false"}, "rate_limited"),
    ):
        virtual.run(lambda environ=environ, case=case: main(environ, case))  # type: ignore[misc]


def test_what_was_learned_survives_a_restart_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    async def first() -> None:
        async with World({"deepseek": [KeyRule(rpm=10)]}, folder=DataFolder(folder)) as world:
            await traffic(world, 20.0, 8)
            (kept["capacity"],) = capacities(world)
            kept["rows"] = [row for row in limit_rows(world.gateway) if row["source"] == "learned"]

    async def second() -> None:
        async with World({"deepseek": [KeyRule(rpm=10)]}, folder=DataFolder(folder)) as world:
            world.gateway.pools.of(Deployment("deepseek", "m"))
            assert capacities(world) == [kept["capacity"]]
            (row,) = [row for row in limit_rows(world.gateway) if row["source"] == "learned"]
            assert row["evidence"] == kept["rows"][0]["evidence"] != []
            assert row["date"] == kept["rows"][0]["date"]
            before = len(world.seen(status=429))
            await traffic(world, 20.0, 10)
            assert len(world.seen(status=429)) - before <= 3
            assert 8 <= capacities(world)[0] <= 11

    async def switched_off() -> None:
        world = World({"deepseek": [KeyRule(rpm=10)]}, folder=DataFolder(folder), environ={"LEARNING_ENABLED": "false"})
        async with world:
            world.gateway.pools.of(Deployment("deepseek", "m"))
            assert capacities(world) == []

    kept: dict[str, Any] = {}
    virtual.run(first)
    virtual.run(second)
    virtual.run(switched_off)


def test_nothing_is_left_behind_by_a_gateway_that_ends_while_it_learns() -> None:
    async def main() -> None:
        async with World({"deepseek": [KeyRule(rpm=3)]}) as world:
            await world.many(MODEL, 5, timeout=0.1)
            assert world.gateway.live.meters.book.every_learned() != []

    virtual.run(main)


def test_counting_for_a_limit_ends_after_an_hour_without_another_429() -> None:
    async def main() -> None:
        async with World({"deepseek": 1}, faults=[Fault(provider="deepseek", times=1, error="rate_limited")]) as world:
            await world.chat(MODEL, timeout=1.0)
            book = world.gateway.live.meters.book
            assert len(book.every_learned()) == 1
            assert capacities(world) == [], "what is only counted is no limit"
            assert [row["limits"] for row in world.gateway.keys()] == [[]]
            await world.clock.sleep_until(world.clock.mono() + 3800.0)
            assert book.every_learned() == []

    virtual.run(main)


def test_who_else_uses_a_key_is_found_by_what_is_left() -> None:
    async def main() -> None:
        async with World({"openai": [KeyRule(rpm=100, tpm=1_000_000, limiter="rolling")]}) as world:
            quota = None
            for _ in range(6):
                await world.chat("openai/gpt-4o")
                if quota is None:
                    quota = next(iter(world.upstream.quotas._quotas.values()))
                    quota.meters["requests", "minute"].take(world.clock.mono(), 50)
                await world.clock.sleep_until(world.clock.mono() + 5.5)
            pool = world.gateway.pools.of(Deployment("openai", "gpt-4o"))
            scope = pool.entries[0].limit_scopes[0]
            rows = {row.metric: row for row in world.gateway.live.view(0.0).snapshot(scope, world.clock.mono())}
            assert 55 <= rows["requests"].used <= 57, "six of ours and fifty of somebody"
            assert rows["requests"].capacity == 100

    virtual.run(main)


def test_a_pin_holds_over_everything_at_once_and_can_be_taken_away() -> None:
    async def main() -> None:
        async with World({"deepseek": [KeyRule(), KeyRule()]}, environ={"LIMITS_DEEPSEEK": "rpm=20"}) as world:
            gateway = world.gateway
            await world.chat(MODEL)
            pool = gateway.pools.of(Deployment("deepseek", "m"))
            scope = pool.entries[0].limit_scopes[0]
            gateway.live.report(scope, "requests", MINUTE, 15, world.clock.mono())
            pin = read_pin(gateway.config, "deepseek", "deepseek/m", "rpm", 50)
            pin_again(gateway, [pin])
            assert [(each.capacity, each.source) for each in gateway.live.limits(scope)] == [(50, "pinned")]
            only = read_pin(gateway.config, "deepseek", "m", "requests/minute", 3, "deepseek-2")
            pin_again(gateway, [pin, only])
            assert capacities(world) == [50, 3]
            answers = await world.many(MODEL, 10)
            assert all(answer.status == 200 for answer in answers)
            assert capacities(world) == [50, 3]
            rows = [row for row in limit_rows(gateway) if row["source"] == "pinned"]
            assert [(row["capacity"], len(row["keys"])) for row in rows] == [(50, 1), (3, 1)]
            stay, gone = pins_but(gateway, Choice("deepseek", None, "deepseek-2"))
            assert [row["capacity"] for row in gone] == [3]
            assert stay == (pin,)
            pin_again(gateway, [])
            assert capacities(world) == [15, 20]

    virtual.run(main)


def test_clearing_forgets_what_was_learned_and_reported_and_says_so() -> None:
    async def main() -> None:
        async with World({"deepseek": [KeyRule(rpm=10)]}) as world:
            gateway = world.gateway
            await traffic(world, 20.0, 10)
            assert capacities(world)
            scope = gateway.pools.of(Deployment("deepseek", "m")).entries[0].limit_scopes[0]
            gateway.live.report(scope, "tokens", MINUTE, 15_000, world.clock.mono())
            assert clear_limits(gateway, choice_of(gateway, "deepseek", "other", None, None))[0] == []
            rows, _ = clear_limits(gateway, choice_of(gateway, "deepseek", "m", "deepseek-1", "learned"))
            assert [(row["source"], row["metric"]) for row in rows] == [("learned", "requests")]
            assert capacities(world) == []
            rows, _ = clear_limits(gateway, Choice())
            assert [(row["source"], row["metric"]) for row in rows] == [("reported", "tokens")]
            await traffic(world, 20.0, 10, seed=3)
            assert capacities(world), "and learned again"

    virtual.run(main)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deepsek", "m", "rpm", 5), "did you mean deepseek?"),
        (("deepseek", "m", "request/minute", 5), "did you mean requests?"),
        (("deepseek", "m", "requests/minuet", 5), "did you mean minute?"),
        (("deepseek", "m", "rpm", 0), "a number from 1 to"),
        (("deepseek", "m", "rpm", 10**30), "a number from 1 to"),
        (("deepseek", "m", "rpm", 5, "deepseek-7"), "did you mean deepseek-1?"),
    ],
)
def test_a_pin_that_cannot_be_says_what_is_meant(arguments: tuple[object, ...], said: str) -> None:
    config = World({"deepseek": 1}).config()
    with pytest.raises(BadRequest) as raised:
        read_pin(config, *arguments)  # type: ignore[arg-type]
    assert said in raised.value.message


def test_a_pin_is_for_the_models_that_its_pattern_names() -> None:
    async def main() -> None:
        async with World({"deepseek": 1}) as world:
            pin_again(world.gateway, [Pin("deepseek", "deep*", "requests", "minute", 7)])
            world.gateway.pools.of(Deployment("deepseek", "deep-1"))
            world.gateway.pools.of(Deployment("deepseek", "m"))
            found = {limit.scope.partition("|")[2]: limit for limit in every(world)}
            assert {model: limit.capacity for model, limit in found.items()} == {"deep-1": 7}

    def every(world: World) -> list[Limit]:
        live = world.gateway.live
        return [limit for scope in live.meters.book.every_scope() for limit in live.limits(scope)]

    virtual.run(main)


def test_a_secret_that_is_given_for_a_label_is_not_said_again() -> None:
    secret = "sk-planted-0123456789"
    with pytest.raises(BadRequest) as raised:
        read_pin(World({"deepseek": 2}).config(), "deepseek", "m", "rpm", 5, secret)
    assert secret not in raised.value.message
    assert "deepseek-1" in raised.value.message
