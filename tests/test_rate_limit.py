"""Limits of limits.yaml hold: the simulated upstream, which counts by itself, is the judge, and it never says 429."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder
from keyturn.core import Caller
from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import Answer, World

LLAMA = "groq/llama-3.1-8b-instant"
SMALL = "mistral/mistral-small-latest"
GPT = "openrouter/openai/gpt-4o"
PATIENT = {"TIMEOUT_QUEUE_WAIT": "20"}
FREE = "providers: { groq: { kind: http, plan: free }, openrouter: { kind: http, plan: free } }\n"
CHAIN = """
aliases:
  both: [groq/llama-3.1-8b-instant, mistral/mistral-small-latest]
"""
Story = Callable[[World], Coroutine[Any, Any, Any]]


def play(story: Story, pool: dict[str, Any], limits: str, models: str = "", **options: Any) -> None:
    files = {"limits.yaml": limits} | ({"models.yaml": models} if models else {})
    environ = {"TIMEOUT_QUEUE_WAIT": "1"} | options.pop("environ", {})

    async def main() -> None:
        async with World(pool, files=files, environ=environ, **options) as world:
            await story(world)
            assert world.upstream.own_429 == 0, "the upstream had to refuse"

    virtual.run(main)


def llama(rates: str, *, block: str = "") -> str:
    """limits.yaml with *rates* for one model of groq."""
    return f"providers: {{ groq: {{ {block} models: {{ llama-3.1-8b-instant: {{ {rates} }} }} }} }}\n"


async def rest(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


def rows(world: World, **members: Any) -> list[dict[str, Any]]:
    """The limits in `keys list` with these members, of all keys."""
    every: list[dict[str, Any]] = [row for key in world.gateway.keys() for row in key["limits"]]  # type: ignore[attr-defined]
    return [row for row in every if all(row[name] == value for name, value in members.items())]


def statuses(answers: list[Answer]) -> dict[int, int]:
    return dict(Counter(answer.status for answer in answers))


def test_TST_02_rpm_1_and_the_second_of_two_calls_falls_back_to_the_next_of_the_chain() -> None:
    async def story(world: World) -> None:
        first, second = await world.chat("both"), await world.chat("both")
        assert (first.status, first.headers["x-keyturn-provider"]) == (200, "groq")
        assert "x-fallback-provider" not in first.headers
        assert (second.status, second.headers["x-fallback-provider"]) == (200, "mistral")
        assert second.headers["x-keyturn-attempts"] == "1", "what our own limiter denies is no attempt"
        (why,) = world.gateway.recent[second.headers["x-keyturn-call"]].refusals
        assert why.startswith(f"{LLAMA}: every key is at its limit; one is free again in 6")
        assert world.clock.mono() == virtual.START_MONO

    play(story, {"groq": [KeyRule(rpm=1)], "mistral": 1}, llama("rpm: 1"), CHAIN)


def test_LIM_03_without_another_to_fall_back_to_the_call_waits_if_its_time_allows() -> None:
    """The seed slept first and then looked for a fallback; here the fallback comes first (design §5.6)."""

    async def story(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 200
        assert (await world.chat(LLAMA, timeout=90)).status == 200
        assert 60 <= world.clock.mono() - virtual.START_MONO <= 61.1

    play(story, {"groq": [KeyRule(rpm=1)]}, llama("rpm: 1"))


def test_LIM_03_and_else_it_is_told_at_once_and_in_truth_when_to_come_back() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 200
        await rest(world, 15)
        refused = await world.chat(LLAMA)
        assert (refused.status, refused.code) == (429, "capacity")
        assert world.clock.mono() == virtual.START_MONO + 15, "45 s are more than it would wait"
        assert int(refused.headers["retry-after"]) in (46, 47)
        assert 45_000 <= int(refused.headers["retry-after-ms"]) <= 46_100
        await rest(world, int(refused.headers["retry-after-ms"]) / 1000)
        assert (await world.chat(LLAMA, timeout=0.05)).status == 200

    play(story, {"groq": [KeyRule(rpm=1)]}, llama("rpm: 1"))


def test_LIM_01_the_minute_rolls_and_no_stretch_of_60_s_holds_more() -> None:
    """A fixed minute would let four calls through around its end."""

    async def story(world: World) -> None:
        for wait, status in ((0, 200), (50, 200), (9, 429), (2.1, 200), (1, 429), (47, 429), (2, 200)):
            await rest(world, wait)
            assert (await world.chat(LLAMA, timeout=0.05)).status == status
        began = [each.started for each in world.seen()]
        assert all(third - first >= 60 for first, third in zip(began, began[2:], strict=False))

    play(story, {"groq": [KeyRule(rpm=2, limiter="rolling")]}, llama("rpm: 2"))


def test_LIM_02_tokens_of_the_last_minute_are_summed_and_what_does_not_fit_is_refused() -> None:
    """The seed guessed 1000 tokens a call; here the prompt is estimated and settled with the real usage (§5.2)."""

    async def story(world: World) -> None:
        answers = [await world.chat(LLAMA, text="word " * 500, max_tokens=20, timeout=0.05) for _ in range(8)]
        served = statuses(answers)[200]
        assert 2 <= served <= 4
        assert [answer.status for answer in answers] == [200] * served + [429] * (8 - served)
        await rest(world, 62)
        assert (await world.chat(LLAMA, text="word " * 500, max_tokens=20, timeout=0.05)).status == 200

    play(story, {"groq": [KeyRule(tpm=2000)]}, llama("tpm: 2000"))


def test_LIM_02_what_was_used_is_what_the_provider_counted_not_what_was_estimated() -> None:
    async def story(world: World) -> None:
        await world.chat(LLAMA, text="word " * 300)
        (exchange,) = world.seen()
        (row,) = rows(world, metric="tokens", window="minute")
        assert row["used"] == exchange.input_tokens + exchange.output_tokens
        assert row["free"] == 50_000 - row["used"]
        assert row["reserved"] == 0

    play(story, {"groq": 1}, llama("tpm: 50000"))


def test_LIM_02_a_request_that_can_never_fit_is_refused_as_such() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, text="word " * 60_000)
        assert (answer.status, answer.code) == (400, "request_exceeds_limit")
        assert world.seen() == []

    play(story, {"groq": 1}, llama("tpm: 1000"))


@pytest.mark.parametrize("off", ["0", "-1", "null"])
@pytest.mark.parametrize("name", ["rpm", "tpm", "rpd", "concurrency"])
def test_LIM_04_zero_negative_and_null_mean_no_limit(name: str, off: str) -> None:
    async def story(world: World) -> None:
        assert statuses(await world.many(LLAMA, 70, text="word " * 300)) == {200: 70}
        assert rows(world, metric="requests") == rows(world, metric="tokens") == []

    play(story, {"groq": 1}, llama(f"{name}: {off}"))


@pytest.mark.parametrize(("plan", "served"), [("free", 3), ("paid", 10), (None, 10)])
def test_LIM_05_defaults_hold_for_unlisted_models_on_plan_free(plan: str | None, served: int) -> None:
    """The seed's defaults held for every unlisted model; the design (§5.2) has them for keys of plan free only."""

    async def story(world: World) -> None:
        answers = await world.many("groq/unlisted", 10)
        assert statuses(answers).get(200) == served
        assert statuses(await world.many(LLAMA, 7)) == {200: 5, 429: 2}

    models = "providers: { groq: { kind: http" + (f", plan: {plan}" if plan else "") + " } }\n"
    play(story, {"groq": 1}, llama("rpm: 5") + "default_limits: { rpm: 3, tpm: 100000 }\n", models)


def test_LIM_06_each_model_counts_for_itself() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 200
        assert (await world.chat(LLAMA, timeout=0.05)).status == 429
        assert (await world.chat("groq/llama-3.3-70b-versatile")).status == 200

    limits = "providers: { groq: { models: { '*': { rpm: 1 } } } }\n"
    play(story, {"groq": [KeyRule(rpm=1)]}, limits)


def test_LIM_06_the_same_id_at_two_providers_counts_apart() -> None:
    """In the seed's source the two shared a counter."""
    models = "provider_routes: [{ id: same, provider: groq }, { id: same, provider: mistral }]\n"
    limits = "providers: { groq: { models: { same: { rpm: 1 } } }, mistral: { models: { same: { rpm: 2 } } } }\n"

    async def story(world: World) -> None:
        answers = [await world.chat("same", timeout=0.05) for _ in range(4)]
        told = [answer.headers.get("x-keyturn-provider") for answer in answers]
        assert told == ["groq", "mistral", "mistral", None]

    play(story, {"groq": 1, "mistral": 1}, limits, models)


def test_LIM_07_a_restart_goes_on_counting_where_the_last_one_ended(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 200
        assert (await world.chat(LLAMA, timeout=0.05)).status == 429

    async def second(world: World) -> None:
        assert (await world.chat(LLAMA, timeout=0.05)).status == 429
        await rest(world, 62)
        assert (await world.chat(LLAMA)).status == 200

    for story in (first, second):
        play(story, {"groq": 1}, llama("rpm: 1"), folder=DataFolder(tmp_path))


def test_LIM_08_each_limit_is_shown_as_it_stands_also_while_a_call_runs() -> None:
    async def story(world: World) -> None:
        running = asyncio.create_task(world.chat(LLAMA))
        await rest(world, 1)
        row = rows(world, metric="requests", window="minute", free=29)[0]
        assert (row["model"], row["capacity"], row["source"]) == ("llama-3.1-8b-instant", 30, "declared")
        assert row["used"] + row["reserved"] == 1
        assert [tokens["free"] < 7000 for tokens in rows(world, metric="tokens")] == [True, False]
        assert (await running).status == 200
        row = rows(world, metric="requests", window="minute")[0]
        assert (row["used"], row["reserved"], row["free"]) == (1, 0, 29)
        assert row["resets_at"].startswith("2026-03-02T12:01:")
        assert [day["capacity"] for day in rows(world, metric="requests", window="day")] == [14400, 14400]
        stats: Any = world.gateway.quota_stats(Caller())
        assert stats["keys"] == json.loads(json.dumps(world.gateway.keys()))
        sums = {(each["metric"], each["window"]): each for each in stats["totals"]["limits"]}
        assert sums["requests", "minute"]["used"] == 1
        assert sums["requests", "minute"]["capacity"] == 60

    rates = "rpm: 30, tpm: 7000, rpd: 14400"
    play(story, {"groq": 2}, llama(rates), faults=[Fault(latency=10.0, times=1)])


def test_LIM_08_the_source_of_each_limit_is_told() -> None:
    async def story(world: World) -> None:
        await world.chat(LLAMA)
        await world.chat("groq/unlisted")
        told = {(row["metric"], row["window"], row["model"]): row["source"] for row in rows(world)}
        assert told["requests", "minute", "llama-3.1-8b-instant"] == "declared"
        assert told["requests", "minute", "unlisted"] == "default"
        assert told["tokens", "minute", "llama-3.1-8b-instant"] == "reported"
        await world.chat(LLAMA)
        (row,) = rows(world, metric="tokens", window="minute", model="llama-3.1-8b-instant")
        assert row["capacity"] == 9000

    limits = llama("rpm: 30") + "default_limits: { rpm: 60 }\n"
    play(story, {"groq": [KeyRule(tpm=9000)]}, limits, FREE)


def test_LIM_09_a_burst_never_passes_the_limit() -> None:
    """The seed counted after the answer, so that bursts passed; here a call reserves before it is sent (§5.1)."""

    async def story(world: World) -> None:
        answers = await world.many(LLAMA, 100)
        assert statuses(answers) == {200: 30, 429: 70}
        assert set(Counter(each.key for each in world.seen()).values()) == {10}

    play(story, {"groq": [KeyRule(rpm=10)] * 3}, llama("rpm: 10"), latency=0.5)


def test_LIM_09_bursts_minute_after_minute_are_all_served_in_their_turn() -> None:
    async def story(world: World) -> None:
        answers = await world.many(LLAMA, 60, timeout=300)
        assert statuses(answers) == {200: 60}
        assert world.clock.mono() - virtual.START_MONO <= 3 * 61 + 5

    play(story, {"groq": [KeyRule(rpm=5)] * 3}, llama("rpm: 5"), latency=(0.1, 3.0))


def test_limits_are_counted_per_key() -> None:
    async def story(world: World) -> None:
        assert statuses(await world.many(LLAMA, 5)) == {200: 3, 429: 2}
        assert sorted(each.key for each in world.seen()) == [f"groq-secret-key-{number}" for number in (1, 2, 3)]

    play(story, {"groq": [KeyRule(rpm=1)] * 3}, llama("rpm: 1"))


def test_keys_of_one_quota_group_share_their_limits() -> None:
    async def story(world: World) -> None:
        assert statuses(await world.many(LLAMA, 5)) == {200: 2, 429: 3}

    pool = {"groq": [KeyRule(rpm=1, project="one"), KeyRule(rpm=1, project="one"), KeyRule(rpm=1)]}
    play(story, pool, llama("rpm: 1"), environ={"QUOTA_GROUP_GROQ": "1,2;3"})


def test_scope_key_counts_each_key_of_a_quota_group_for_itself() -> None:
    async def story(world: World) -> None:
        assert statuses(await world.many(LLAMA, 5)) == {200: 2, 429: 3}

    play(story, {"groq": 2}, llama("rpm: 1, scope: key"), environ={"QUOTA_GROUP_GROQ": "1,2"})


@pytest.mark.parametrize("limits", [llama("rpm: 2, scope: shared"), llama("rpm: 2", block="scope: shared,")])
def test_scope_shared_counts_all_keys_together(limits: str) -> None:
    async def story(world: World) -> None:
        assert statuses(await world.many(LLAMA, 6)) == {200: 2, 429: 4}
        assert statuses(await world.many(LLAMA, 2, timeout=70)) == {200: 2}

    play(story, {"groq": 3}, limits)


def test_models_of_one_quota_group_count_together() -> None:
    """As OpenRouter counts all `:free` models of an account."""
    limits = "providers: { openrouter: { models: { '*:free': { rpm: 3, quota_group: free } } } }\n"

    async def story(world: World) -> None:
        names = ["deepseek/deepseek-r1-0528:free", "meta-llama/llama-3.3-70b-instruct:free"]
        asked = [f"openrouter/{names[number % 2]}" for number in range(6)]
        answers = await asyncio.gather(*map(world.chat, asked))
        assert statuses(list(answers)) == {200: 3, 429: 3}
        assert statuses(await world.many("openrouter/openai/gpt-4o", 5)) == {200: 5}
        (row,) = {json.dumps(row) for row in rows(world, metric="requests")}
        assert json.loads(row)["used"] == 3

    play(story, {"openrouter": 1}, limits)


def test_what_one_model_of_a_quota_group_leaves_free_wakes_who_waits_for_another() -> None:
    limits = "providers: { groq: { models: { 'llama-*': { concurrency: 1, quota_group: llamas } } } }\n"

    async def story(world: World) -> None:
        running = asyncio.create_task(world.chat(LLAMA))
        await rest(world, 1)
        other = await world.chat("groq/llama-3.3-70b-versatile")
        assert (other.status, (await running).status) == (200, 200)
        assert world.clock.mono() - virtual.START_MONO == pytest.approx(5.0, abs=0.1)

    play(
        story,
        {"groq": [KeyRule(concurrency=1, per_model=False)]},
        limits,
        faults=[Fault(latency=5.0, times=1)],
        environ=PATIENT,
    )


def test_a_model_that_the_plan_does_not_offer_is_skipped_and_a_direct_call_is_told_why() -> None:
    limits = llama("unavailable: true", block="plan: free,")

    async def story(world: World) -> None:
        answer = await world.chat("both")
        assert (answer.status, answer.headers["x-fallback-provider"]) == (200, "mistral")
        direct = await world.chat(LLAMA)
        assert (direct.status, direct.code) == (404, "model_not_found")
        assert "not offered on plan free" in direct.json()["error"]["message"]
        assert [each.provider for each in world.seen()] == ["mistral"]

    play(story, {"groq": 1, "mistral": 1}, limits, FREE + CHAIN)


@pytest.mark.parametrize("plan", ["paid", ""])
def test_what_is_said_of_plan_free_does_not_bind_keys_of_another_plan(plan: str) -> None:
    async def story(world: World) -> None:
        assert statuses(await world.many(LLAMA, 20)) == {200: 20}

    environ = {"KEY_PLAN_GROQ": plan}
    play(story, {"groq": 1}, llama("rpm: 1", block="plan: free,"), environ=environ)
    play(story, {"groq": 1}, llama("unavailable: true", block="plan: free,"), environ=environ)


def test_concurrency_is_bounded_and_who_came_first_goes_first() -> None:
    async def story(world: World) -> None:
        assert statuses(await world.many(LLAMA, 12)) == {200: 12}
        assert world.clock.mono() - virtual.START_MONO == pytest.approx(6 * 2.0, abs=0.2)

    play(story, {"groq": [KeyRule(concurrency=2)]}, llama("concurrency: 2"), latency=2.0, environ=PATIENT)


def test_what_the_provider_reports_wins_over_a_block_for_plan_free() -> None:
    """Shipped figures of a free plan may be old; the provider knows better (design §5.2)."""

    async def story(world: World) -> None:
        assert statuses([await world.chat(SMALL, timeout=0.05) for _ in range(12)]) == {200: 10, 429: 2}
        (row,) = rows(world, metric="requests", window="minute")
        assert (row["capacity"], row["source"]) == (10, "reported")

    models = "providers: { mistral: { kind: http, plan: free } }\n"
    limits = "providers: { mistral: { plan: free, models: { mistral-small-latest: { rpm: 2 } } } }\n"
    play(story, {"mistral": [KeyRule(rpm=10)]}, limits, models)


def test_what_the_provider_reports_does_not_win_over_a_tighter_limit_of_the_owner() -> None:
    async def story(world: World) -> None:
        assert statuses([await world.chat(SMALL, timeout=0.05) for _ in range(12)]) == {200: 2, 429: 10}

    limits = "providers: { mistral: { models: { mistral-small-latest: { rpm: 2 } } } }\n"
    play(story, {"mistral": [KeyRule(rpm=10)]}, limits)


def test_what_the_provider_reports_wins_over_a_looser_limit_of_the_owner() -> None:
    async def story(world: World) -> None:
        assert statuses([await world.chat(SMALL, timeout=0.05) for _ in range(12)]) == {200: 4, 429: 8}

    limits = "providers: { mistral: { models: { mistral-small-latest: { rpm: 1000 } } } }\n"
    play(story, {"mistral": [KeyRule(rpm=4)]}, limits)


def test_limits_of_a_day_hold_over_the_minutes_until_the_providers_midnight() -> None:
    async def story(world: World) -> None:
        for _ in range(3):
            assert statuses(await world.many(GPT, 2)) == {200: 2}
            await rest(world, 61)
        refused = await world.chat(GPT)
        assert (refused.status, refused.code) == (429, "capacity")
        until_midnight = 12 * 3600 - 183
        assert until_midnight <= int(refused.headers["retry-after"]) <= until_midnight + 2
        await rest(world, int(refused.headers["retry-after"]))
        assert (await world.chat(GPT)).status == 200

    limits = "providers: { openrouter: { models: { 'openai/gpt-4o': { rpm: 2, rpd: 6 } } } }\n"
    play(story, {"openrouter": [KeyRule(rpm=2, rpd=6)]}, limits)
