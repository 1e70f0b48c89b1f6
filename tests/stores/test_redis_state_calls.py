"""Whole calls through gateways that share their limits: dispatch, the waiting room, callers and budgets over Redis."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config, Options, load
from keyturn.core import Caller, Claim, Clock, Denied, Limit, Marks, Transition, Window, nano
from keyturn.dispatch import SystemClock, build
from keyturn.dispatch.storing import live_state_of
from keyturn.errors import StoreError
from keyturn.simulator import Fault, KeyRule
from keyturn.stores import Reservation
from keyturn.stores.redis_state import RedisState
from tests.support import virtual
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import Hub, SyncLink
from tests.support.world import APP, Answer, World

MODEL = "groq/llama-3.1-8b-instant"
MODELS = """
providers:
  groq: { kind: http, base_url: https://api.groq.com/openai/v1, env_key: GROQ_API_KEY }
provider_routes:
  - { id: llama, provider: groq, model: llama-3.1-8b-instant, price: { input: 100, output: 1000 } }
"""
CALLERS = "\n".join(
    f"{name}: {{ key_hash: 'sha256:{hashlib.sha256(name.encode()).hexdigest()}', {rest} }}"
    for name, rest in {"hasty": "rpm: 2", "poor": "monthly_usd: 1"}.items()
)


class Sharing:
    """Two gateways before one upstream, and their links."""

    def __init__(self, worlds: list[World], links: list[SyncLink]) -> None:
        self.worlds = worlds
        self.links = links

    async def chat(self, which: int, name: str = MODEL, caller: str = "", **members: Any) -> Answer:
        world = self.worlds[which]
        found = {each.name: each for each in world.gateway.config.callers.values()}.get(caller)
        return await world.chat(name, caller=found, **members)

    def statuses(self) -> Counter[int]:
        """What the upstream answered."""
        return Counter(each.status for each in self.worlds[0].seen())


@pytest.fixture
def play(redis_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    links: list[SyncLink] = []

    def shared_state_of(config: Config, marks: Marks, clock: Clock) -> RedisState:
        link = redis_hub.link(clock.mono, 2)
        link.shift = virtual.START_WALL - virtual.START_MONO
        links.append(link)
        return RedisState(link, marks, clock, name=f"g{len(links)}", prefix=redis_hub.prefix)

    monkeypatch.setattr(import_module("keyturn.dispatch.build"), "live_state_of", shared_state_of)

    def run(story: Callable[[Sharing], Awaitable[None]], pool: Any, **options: Any) -> None:
        async def main() -> None:
            async with World(pool, **options) as first:
                second = World(pool, **options)
                second.upstream = first.upstream
                second.gateway = build(second.config(), clock=second.clock, apps={APP: first.upstream})
                await second.gateway.open()
                try:
                    await story(Sharing([first, second], links))
                finally:
                    await second.__aexit__()
            assert redis_hub.client.zcard(redis_hub.base + "leases") == 0
            assert redis_hub.keys("r:") == []

        virtual.run(main)

    return run


def test_two_gateways_never_send_more_than_the_provider_allows(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        began = sharing.worlds[0].clock.mono()
        answers = await asyncio.gather(*(sharing.chat(number % 2, timeout=300) for number in range(25)))
        assert Counter(each.status for each in answers) == {200: 25}
        assert sharing.statuses() == {200: 25}
        assert sharing.worlds[0].clock.mono() - began == pytest.approx(122.0, abs=4.0)  # ten a minute

    play(story, {"groq": [KeyRule(rpm=5), KeyRule(rpm=5)]}, environ={"LIMITS_GROQ": "rpm=5"})


def test_a_cooldown_of_one_is_obeyed_by_the_other(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        assert (await sharing.chat(0)).status == 200
        assert sharing.statuses() == {429: 1, 200: 1}
        for _ in range(4):
            assert (await sharing.chat(1)).status == 200
        assert sharing.statuses() == {429: 1, 200: 5}

    faults = [Fault(key="*-1", error="rate_limited", wait=40.0)]
    play(story, {"groq": 2}, faults=faults, environ={"LIMITS_GROQ": "rpm=100"})


def test_who_waits_here_is_woken_by_what_ends_there(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        clock = sharing.worlds[0].clock
        began = clock.mono()
        answers = await asyncio.gather(*(sharing.chat(number % 2, timeout=60) for number in range(6)))
        assert {each.status for each in answers} == {200}
        assert clock.mono() - began == pytest.approx(6.0, abs=0.2)

    play(story, {"groq": [KeyRule(concurrency=1)]}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=1.0)


def test_many_who_wait_do_not_ask_redis_all_at_once(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        for _ in range(30):  # a second each: the limit comes free again one by one
            assert (await sharing.chat(0)).status == 200
        answers = await asyncio.gather(*(sharing.chat(1, timeout=300) for _ in range(25)))
        assert Counter(each.status for each in answers) == {200: 25}
        assert sharing.statuses() == {200: 55}
        assert sharing.links[1].sent["reserve"] < 100  # at first all of them, then two for each that comes free

    play(story, {"groq": [KeyRule(rpm=30)]}, environ={"LIMITS_GROQ": "rpm=30"}, latency=1.0)


def test_a_callers_limit_is_one_over_all_gateways(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        assert (await sharing.chat(0, "llama", "hasty")).status == 200
        assert (await sharing.chat(1, "llama", "hasty")).status == 200
        refused = await sharing.chat(0, "llama", "hasty")
        assert (refused.status, refused.code) == (429, "caller_limit")
        assert 55 <= int(refused.headers["retry-after"]) <= 62

    play(story, {"groq": 1}, files={"models.yaml": MODELS, "callers.yaml": CALLERS})


def test_a_budget_is_one_over_all_gateways_and_never_overspent(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        calls = (
            sharing.chat(number % 2, "llama", "poor", max_tokens=40, text="word " * 40, timeout=30)
            for number in range(120)
        )
        answers = await asyncio.gather(*calls)
        codes = Counter(each.status for each in answers)
        assert codes[200] > 0
        assert set(codes) <= {200, 402, 429}
        limit = next(each for each in budgets(sharing) if each.scope == "caller/poor")
        for world in sharing.worlds:
            await world.gateway.live.refresh(["caller/poor"])
            assert 0 < world.gateway.live.view(0.0).used(limit, world.clock.mono()) <= nano(1.0)

    play(story, {"groq": 4}, files={"models.yaml": MODELS, "callers.yaml": CALLERS})


def budgets(sharing: Sharing) -> Any:
    return sharing.worlds[0].gateway.live.budgets.values()  # type: ignore[attr-defined]


def test_without_redis_calls_go_on_but_money_is_refused(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        assert (await sharing.chat(0, "llama", "poor", max_tokens=40)).status == 200
        for link in sharing.links:
            link.leave()
        assert (await sharing.chat(0)).status == 200
        assert (await sharing.chat(1)).status == 200
        refused = await sharing.chat(1, "llama", "poor", max_tokens=40)
        assert (refused.status, refused.code) == (503, "limiter_unavailable")
        assert 1 <= int(refused.headers["retry-after"]) <= 3
        for link in sharing.links:
            await link.come_back()
        assert (await sharing.chat(1, "llama", "poor", max_tokens=40)).status == 200

    options = {"files": {"models.yaml": MODELS, "callers.yaml": CALLERS}, "environ": {"LIMITS_GROQ": "rpm=30"}}
    play(story, {"groq": 1}, **options)


def test_answers_that_stay_away_cost_no_call(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        for link in sharing.links:
            link.silent = True
        answers = await asyncio.gather(*(sharing.chat(number % 2) for number in range(6)))
        assert {each.status for each in answers} == {200}
        assert sharing.statuses() == {200: 6}

    play(story, {"groq": 1}, environ={"LIMITS_GROQ": "rpm=30"})


def test_a_configuration_with_an_address_shares_its_limits_over_the_real_link(
    redis_server: RedisProcess, tmp_path: Path
) -> None:
    environ = {"REDIS_URL": redis_server.url, "REDIS_PREFIX": "assembled", "GROQ_API_KEY": "gsk-1"}
    config = load(environ, cwd=tmp_path, options=Options(data=tmp_path / "data"))
    limit = Limit("groq/g1|llama", "concurrency", Window("inflight"), 1)
    key = ("key", "groq", "abc")

    async def story() -> None:
        clock = SystemClock()
        first, second = (live_state_of(config, Marks(), clock) for _ in range(2))
        await first.open()
        await second.open()
        woken = asyncio.Event()
        second.subscribe(lambda scope: woken.set())
        try:
            held = first.reserve("a", [Claim(limit, 1, 1)], clock.mono(), [key])
            assert not isinstance(held, Reservation | Denied)
            assert isinstance(await held, Reservation)
            asked = second.reserve("b", [Claim(limit, 1, 1)], clock.mono(), [key])
            assert not isinstance(asked, Reservation | Denied)
            denied = await asked
            assert isinstance(denied, Denied)
            assert denied.busy
            first.cool(Transition(key, "cooling", clock.mono() + 60.0, "rate_limited", 1, clock.mono()))
            first.release("a")
            await woken.wait()  # the mark came before it on the same channel
            assert second.view(0.0).blocked([key], clock.mono()) is not None
            standing = second.standing()
            assert (standing.store, standing.reachable, standing.replicas, standing.open) == ("redis", True, 2, 0)
        finally:
            await first.close()
            await second.close()

    asyncio.run(story())


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environ = {"REDIS_URL": "redis://:secret-word@localhost:1/0", "GROQ_API_KEY": "gsk-1"}
    config = load(environ, cwd=tmp_path, options=Options(data=tmp_path / "data"))
    for name in [each for each in sys.modules if each.partition(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "redis", None)
    live = live_state_of(config, Marks(), SystemClock())
    with pytest.raises(StoreError, match=r'pip install "keyturn\[redis\]"') as caught:
        asyncio.run(live.open())
    assert "secret-word" not in str(caught.value)


def test_headroom_knows_what_the_other_gateway_used_and_holds(play: Any) -> None:
    async def story(sharing: Sharing) -> None:
        here, there = sharing.worlds

        async def fits(world: World) -> tuple[Any, Any]:
            (row,) = (await world.gateway.headroom(Caller(), MODEL))["routes"]
            return row["now"]["requests"], row["in_60_s"]["requests"]

        assert await fits(there) == (10, 10)
        await asyncio.gather(*(sharing.chat(0) for _ in range(3)))
        assert await fits(there) == await fits(here) == (7, 10), "they were sent 10 s ago"
        running = [asyncio.create_task(sharing.chat(0)) for _ in range(2)]
        await virtual.idle()
        assert await fits(here) == (5, 8), "these two were sent just now"
        assert await fits(there) == (5, 5), "of what others used it is known when the last of it is back"
        before = len(here.seen())
        calls = [asyncio.create_task(sharing.chat(1)) for _ in range(6)]
        await virtual.idle()
        assert len(here.seen()) - before == 5
        for call in calls:
            call.cancel()
        await asyncio.gather(*running, *calls, return_exceptions=True)

    play(story, {"groq": 2}, environ={"LIMITS_GROQ": "rpm=5"}, latency=10.0)
