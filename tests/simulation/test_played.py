"""The played upstreams: true limits, refusals in the providers' words, dead keys, outages, prompts that are cached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from keyturn.simulation import Scenario, VirtualClock, run, seeded
from keyturn.simulation.arrivals import Asked
from keyturn.simulation.played import PlayedKey, Upstreams, play

from .scenes import scene

T = TypeVar("T")
Story = Callable[[Upstreams, list[PlayedKey], VirtualClock], Coroutine[Any, Any, T]]


def played(scenario: Scenario, story: Story[T]) -> T:
    async def main() -> T:
        clock = VirtualClock()
        keys = play(scenario, seeded(), clock.wall())
        return await story(Upstreams(scenario, keys, clock, seeded()), keys, clock)

    return run(main)


def one(conversation: int = 0, known: int = 0, input: int = 100, output: int = 50) -> Asked:
    return Asked(0.0, 0, input, output, input, 30.0, conversation=conversation, known=known)


def groq(**members: Any) -> Scenario:
    return scene({"groq": {"keys": 1, "transit": 0.1, "latency": 2, **members}})


def test_an_answer_takes_its_time_and_states_what_was_used() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> None:
        began, asked = clock.mono(), one()
        status, headers, body = await upstreams.ask(keys[0], asked)
        assert status == 200
        assert clock.mono() - began == pytest.approx(2.1)
        assert json.loads(body)["usage"]["total_tokens"] == 150
        assert headers["x-ratelimit-remaining-tokens"] == "850"
        assert asked.admitted == pytest.approx(0.0)
        assert asked.attempts == upstreams.counts.served == 1
        assert upstreams.counts.cost == pytest.approx(100 * 1e-6 + 50 * 2e-6)

    played(groq(limits={"tpm": 1000}, price={"input": 1, "output": 2}), story)


def test_a_limit_refuses_in_the_providers_words_and_says_truly_when_to_come_back() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> None:
        assert (await upstreams.ask(keys[0], one())).status == 200
        status, headers, body = await upstreams.ask(keys[0], one())
        assert status == 429
        assert "Rate limit reached for model" in json.loads(body)["error"]["message"]
        await clock.sleep_until(clock.mono() + float(headers["retry-after"]))
        assert (await upstreams.ask(keys[0], one())).status == 200
        assert (upstreams.counts.requests, upstreams.counts.served, upstreams.counts.limited) == (3, 2, 1)

    played(groq(limits={"rpm": 1}, window="rolling"), story)


def test_without_a_hint_nothing_says_when_to_come_back() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> None:
        await upstreams.ask(keys[0], one())
        status, headers, body = await upstreams.ask(keys[0], one())
        assert (status, set(headers)) == (429, {"content-type"})
        assert b"again" not in body

    played(groq(limits={"rpm": 1}, retry_after=False, headers=False), story)


def test_dead_and_revoked_keys_and_outages() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> list[int]:
        found = []
        for moment in (1.0, 70.0, 130.0, 190.0):
            await clock.sleep_until(1000.0 + moment)
            found.append((await upstreams.ask(keys[0], one())).status)
        return found

    assert played(groq(outages={"at": "1m", "lasts": "1m"}), story) == [200, 503, 200, 200]
    assert played(groq(revoked={"at": "3m", "share": 1.0}), story) == [200, 200, 200, 401]
    assert played(groq(dead=1.0), story) == [401, 401, 401, 401]


def test_keys_of_one_account_share_its_limit() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> list[int]:
        return [(await upstreams.ask(key, one())).status for key in keys]

    scenario = scene({"groq": {"keys": 3, "per_account": 2, "limits": {"rpm": 1}}})
    assert played(scenario, story) == [200, 429, 200]


def test_halved_accounts_truly_have_half() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> list[int]:
        return [(await upstreams.ask(keys[0], one())).status for _ in range(3)]

    assert played(groq(limits={"rpm": 4}, halved=1.0), story) == [200, 200, 429]


def test_who_leaves_frees_the_slot_and_is_charged_what_was_worked() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> None:
        task = asyncio.create_task(upstreams.ask(keys[0], one()))
        await clock.sleep_until(clock.mono() + 1)
        assert (await upstreams.ask(keys[0], one())).status == 429
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert keys[0].quota.slots is not None
        assert keys[0].quota.slots.open == 0
        early = asyncio.create_task(upstreams.ask(keys[0], one()))
        await clock.sleep_until(clock.mono() + 0.05)
        early.cancel()  # before it has arrived
        await asyncio.gather(early, return_exceptions=True)
        await clock.sleep_until(clock.mono() + 5)
        assert keys[0].quota.slots.open == 0
        assert keys[0].quota.meters["tokens", "minute"].used(clock.wall()) == 150

    played(groq(limits={"concurrency": 1, "tpm": 1000}), story)


def test_a_prompt_is_cached_where_the_conversation_was_and_not_for_ever() -> None:
    async def story(upstreams: Upstreams, keys: list[PlayedKey], clock: VirtualClock) -> list[int]:
        found = []
        for key, conversation, pause in ((0, 7, 0), (0, 7, 0), (1, 7, 0), (0, 8, 0), (0, 7, 400)):
            await clock.sleep_until(clock.mono() + pause)
            body = (await upstreams.ask(keys[key], one(conversation, known=100, input=300))).body
            found.append(json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"])
        return found

    scenario = scene({"groq": {"keys": 2}}, calls={"conversations": {"share": 0.5, "turns": 2, "cache_lasts": "5m"}})
    assert played(scenario, story) == [0, 100, 0, 0, 0]


def test_the_same_seed_gives_the_same_keys_their_mishaps() -> None:
    scenario = scene({"groq": {"keys": 40, "dead": "10%", "halved": "25%", "revoked": {"at": "5m", "share": "20%"}}})
    first, second = ([(key.secret, key.halved, key.dies) for key in play(scenario, seeded(3), 0.0)] for _ in range(2))
    assert first == second
    assert sum(halved for _, halved, _ in first) == 10
    assert sorted(dies for _, _, dies in first)[:12] == [0.0] * 4 + [300.0] * 8
