"""What `GET /v1/headroom` says is true: so many calls are let through at once, and the next one is not."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from keyturn.core import Caller
from keyturn.dispatch import read_call
from keyturn.dispatch.headroom import HORIZON, Size, _Reading, gauges, headroom
from keyturn.errors import ModelNotFound, RouteNotAllowed
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"
TEXT = "Hello.."
LATENCY = 30.0
"""Seconds that an answer takes: whoever is let through is still under way when the next one asks."""

Work = Callable[[World], Awaitable[None]]


def run(pool: dict[str, Any], work: Work, latency: float = LATENCY, **options: Any) -> None:
    async def main() -> None:
        async with World(pool, latency=latency, **options) as world:
            await work(world)

    virtual.run(main)


def size(text: str = TEXT, **members: Any) -> Size:
    """That of the calls that `World.chat` makes with *text*."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **members}
    call = read_call("chat", json.dumps(body).encode(), {})
    assert call.text_bytes % 4 == 0, "choose a text whose size is a whole number of tokens"
    return Size(call.text_bytes // 4 + 8, call.max_output)


async def told(
    world: World, route: str = MODEL, caller: Caller | None = None, of: Size | None = None
) -> dict[str, Any]:
    """The row of *route*."""
    who = caller or world.gateway.config.default_caller
    (row,) = (await headroom(world.gateway, who, route, of or size()))["routes"]
    return dict(row)


async def let_through(world: World, count: int, route: str = MODEL, **members: Any) -> int:
    """How many of *count* calls made at once are let through before any time passes. All of them are ended."""
    before = len(world.seen())
    members.setdefault("text", TEXT)
    tasks = [asyncio.create_task(world.chat(route, **members)) for _ in range(count)]
    await virtual.idle()
    through = len(world.seen()) - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return through


async def holds(world: World, route: str = MODEL, of: Size | None = None, **members: Any) -> int:
    """Check that the figure of this moment is true, and give it."""
    row = await told(world, route, of=of)
    promised = row["now"]["requests"]
    assert await let_through(world, promised + 1, route, **members) == promised
    return int(promised)


@pytest.mark.parametrize(
    "limits", ["rpm=7", "concurrency=3", "rpm=9 concurrency=2 rpd=30", "rpd=11", "tpm=3000", "tpm=900 rpm=2"]
)
def test_what_it_promises_now_is_let_through_and_no_more(limits: str) -> None:
    async def work(world: World) -> None:
        assert await holds(world) > 0
        assert await holds(world) == 0 or "concurrency" in limits

    run({"groq": 3}, work, environ={"LIMITS_GROQ": limits})


async def used(world: World, count: int, route: str = MODEL, text: str = TEXT) -> None:
    """*count* calls made at once and answered."""
    answers = await asyncio.gather(*(world.chat(route, text=text) for _ in range(count)))
    assert [each.status for each in answers] == [200] * count


async def later(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


@pytest.mark.parametrize("limits", ["rpm=7", "rpm=20 rpd=9", "tpm=3000", "rpm=5 concurrency=4"])
@pytest.mark.parametrize("pause", [0.0, 7.0, 30.0])
def test_what_it_promises_for_in_a_minute_is_let_through_then_and_no_more(limits: str, pause: float) -> None:
    async def work(world: World) -> None:
        await used(world, 4)
        await later(world, pause)
        await used(world, 5)
        promised = (await told(world))["in_60_s"]["requests"]
        await later(world, HORIZON)
        assert await let_through(world, promised + 1) == promised

    run({"groq": 2}, work, latency=0.2, environ={"LIMITS_GROQ": limits})


@pytest.mark.parametrize("seed", range(12))
def test_the_figures_of_any_pool_after_any_use_are_true(seed: int) -> None:
    draw = virtual.seeded(seed)

    def of(*choices: Any) -> Any:
        return choices[int(draw() * len(choices))]

    limits = {
        name: of("rpm=6", "rpm=11 tpm=9000", "tpm=4000", "rpm=8 rpd=15", "rpd=12") for name in ("groq", "mistral")
    }
    environ = {f"LIMITS_{name.upper()}": each for name, each in limits.items()}
    environ["QUOTA_GROUP_GROQ"] = of("1,2;3", "1,2,3", "")
    route = of("both", "groq/m", "mistral/m")
    files = {"models.yaml": "aliases: { both: [groq/m, mistral/m] }\n"}

    async def work(world: World) -> None:
        for _ in range(4):
            await asyncio.gather(
                *(world.chat(of("both", "groq/m", "mistral/m"), text=TEXT) for _ in range(of(1, 2, 4)))
            )
            await later(world, draw() * 25)
        soon, rests = (await told(world, route))["in_60_s"]["requests"], HORIZON
        await later(world, rests)
        assert (await told(world, route))["now"]["requests"] == soon
        assert await let_through(world, soon + 1, route) == soon
        await later(world, 20 + draw() * 40)
        await holds(world, route)

    run({"groq": 3, "mistral": 2}, work, latency=0.1, environ=environ, files=files)


def test_what_a_chain_shares_is_counted_once() -> None:
    files = {
        "models.yaml": "aliases: { both: [groq/one, groq/two] }\n",
        "limits.yaml": "providers: { groq: { models: {\n"
        "  one: { rpm: 4, quota_group: q }, two: { rpm: 4, quota_group: q } } } }\n",
    }

    async def work(world: World) -> None:
        assert (await told(world, "groq/one"))["now"]["requests"] == 8, "two quota groups: that of key 3 is its own"
        assert await holds(world, "both") == 8

    run({"groq": 3}, work, environ={"QUOTA_GROUP_GROQ": "1,2"}, files=files)


def test_a_key_that_rests_is_away_and_then_takes_one_call_that_probes() -> None:
    faults = [Fault(provider="groq", error="rate_limited", wait=20, times=1)]

    async def work(world: World) -> None:
        assert (await world.chat(MODEL, timeout=10)).status == 429
        row = await told(world)
        assert (row["now"]["requests"], row["in_60_s"]["requests"]) == (0, 1), "one probes, the others wait for that"
        assert row["returns"]["why"] == "rate_limited"
        assert 15 < row["returns"]["in_s"] <= 22
        (key,) = (await headroom(world.gateway, Caller(), MODEL, size()))["keys"]
        assert (key["state"], key["why"], key["now"]["requests"]) == ("cooling", "rate_limited", 0)
        assert key["returns_at"] == row["returns"]["at"]
        assert key["returns_at"].startswith("2026-03-02T12:00:2")
        await later(world, row["returns"]["in_s"] + 0.1)
        assert await holds(world) == 1

    run({"groq": 1}, work, latency=5.0, faults=faults)


def test_what_waits_already_comes_first() -> None:
    async def work(world: World) -> None:
        waiting = [asyncio.create_task(world.chat(MODEL, text=TEXT, timeout=90)) for _ in range(6)]
        await virtual.idle()
        row = await told(world)
        assert (row["now"]["requests"], row["waiting"]["calls"]) == (0, 2)
        await later(world, 10)
        assert (await told(world))["in_60_s"]["requests"] == 2, "four are back, two of them are waited for"
        await asyncio.gather(*waiting)

    run({"groq": 1}, work, latency=0.1, environ={"LIMITS_GROQ": "rpm=4"})


def test_the_limits_of_who_asks_are_part_of_it() -> None:
    callers = f"ci: {{ key_hash: 'sha256:{'0' * 64}', routes: [mine], rpm: 3 }}\n"
    files = {"models.yaml": "aliases: { mine: [groq/m], other: [groq/n] }\n", "callers.yaml": callers}

    async def work(world: World) -> None:
        (ci,) = world.gateway.config.callers.values()
        told = await headroom(world.gateway, ci)
        assert [row["route"] for row in told["routes"]] == ["mine"]
        assert told["routes"][0]["now"]["requests"] == 3
        assert told["own"][0]["capacity"] == 3
        assert "keys" not in told
        assert "groq-1" not in json.dumps(told)
        assert await let_through(world, 4, "mine", caller=ci) == 3
        with pytest.raises(RouteNotAllowed):
            await headroom(world.gateway, ci, "other")
        with pytest.raises(ModelNotFound):
            await headroom(world.gateway, Caller(), "mistral/not-configured")
        every = await headroom(world.gateway, Caller())
        assert {"mine", "other", "groq/m", "groq/n"} <= {row["route"] for row in every["routes"]}
        assert [row["now"] for row in every["routes"] if row["route"] == "other"] == [
            {"requests": None, "tokens": None}
        ]

    run({"groq": 2}, work, files=files)


def test_a_budget_bounds_what_fits() -> None:
    files = {
        "models.yaml": "provider_routes:\n"
        "  - { id: m, provider: groq, model: m, is_paid: false, price: { input: 100, output: 100 } }\n",
        "roles.yaml": "roles: { dev: { model_chain: [m], budgets: { monthly_limit: 10 } } }\n",
    }

    async def work(world: World) -> None:
        asked = size(max_tokens=10_000)
        row = await told(world, "dev", of=asked)
        assert row["own"][0]["capacity"] == 10
        assert 5 < row["now"]["requests"] < 10
        assert await let_through(world, 12, "dev", max_tokens=10_000) == row["now"]["requests"]

    run({"groq": 2}, work, files=files)


def test_day_quotas_are_summed_and_say_when_they_end() -> None:
    async def work(world: World) -> None:
        await used(world, 5)
        (quota,) = (await told(world))["day_quotas"]
        assert (quota["metric"], quota["window"], quota["capacity"], quota["used"], quota["free"]) == (
            "requests",
            "day",
            20,
            5,
            15,
        )
        assert quota["resets_at"] is not None
        keys = (await headroom(world.gateway, Caller(), MODEL))["keys"]
        assert [each["day_quotas"][0]["capacity"] for each in keys] == [10, 10]

    run({"groq": 2}, work, latency=0.1, environ={"LIMITS_GROQ": "rpd=10"})


def test_tokens_are_what_the_limits_leave_whatever_the_size_of_a_call() -> None:
    async def work(world: World) -> None:
        row = await told(world)
        assert row["now"]["tokens"] == 6000
        assert (await told(world, of=Size(900, 50)))["now"]["requests"] < row["now"]["requests"]

    run({"groq": 2}, work, environ={"LIMITS_GROQ": "tpm=3000"})


def test_figures_for_metrics_are_those_of_the_names_of_the_configuration() -> None:
    async def work(world: World) -> None:
        await world.chat("groq/made-up-by-a-client")
        assert list(gauges(world.gateway)) == [("mine", 6.0, 6.0)]

    files = {"models.yaml": "aliases: { mine: [groq/m] }\n"}
    run({"groq": 2}, work, latency=0.1, files=files, environ={"LIMITS_GROQ": "rpm=3"})


def test_a_large_pool_is_left_out_rather_than_looked_at_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.dispatch.headroom.MOST_ROUTES", 2)
    monkeypatch.setattr("keyturn.dispatch.headroom.MOST_KEYS", 3)
    files = {"models.yaml": "aliases: { one: [groq/a], two: [groq/b], three: [groq/c] }\n"}

    async def work(world: World) -> None:
        told = await headroom(world.gateway, Caller())
        assert [row["route"] for row in told["routes"]] == ["one", "two"]
        assert told["routes_left_out"] >= 4
        assert (len(told["keys"]), told["keys_left_out"]) == (3, 1)

    run({"groq": 2}, work, files=files)


def test_a_large_pool_is_looked_at_a_few_keys_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls go on meanwhile: whoever asks again and again holds nobody up."""
    turn, looked = 0, Counter[int]()
    place = _Reading._place

    def counted(self: _Reading, *arguments: Any) -> Any:
        looked[turn] += 1
        return place(self, *arguments)

    monkeypatch.setattr(_Reading, "_place", counted)
    monkeypatch.setattr("keyturn.dispatch.headroom.AT_ONCE", 20)

    async def work(world: World) -> None:
        async def turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(turns())
        assert (await told(world))["now"]["requests"] == 3 * 150
        others.cancel()
        assert looked.total() == 150
        assert max(looked.values()) <= 20

    run({"groq": 150}, work, environ={"LIMITS_GROQ": "rpm=3"})
