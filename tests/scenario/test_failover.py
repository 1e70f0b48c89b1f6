"""The upstream's view of a call: what was sent where, how often, and what the client saw of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import World

LLAMA = "groq/llama-3.1-8b-instant"
Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, pool: dict[str, Any], **options: Any) -> None:
    async def main() -> None:
        async with World(pool, **options) as world:
            await story(world)

    virtual.run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_ERR_15_a_400_is_sent_once_and_comes_back_as_it_was(stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=stream)
        assert len(world.seen()) == 1
        assert answer.status == 400
        assert "keyturn" not in answer.json()["error"]
        assert answer.headers["x-keyturn-attempts"] == "1"
        assert (await world.chat(LLAMA)).status == 200

    play(story, {"groq": 8}, faults=[Fault(error="bad_request", times=1)])


def test_a_401_with_an_explicit_code_costs_one_attempt_in_all() -> None:
    async def story(world: World) -> None:
        for _ in range(40):
            assert (await world.chat(LLAMA)).status == 200
        assert len(world.seen(key="groq-secret-key-3")) == 1
        row = next(row for row in world.gateway.keys() if str(row["key"]).startswith("groq-3:"))
        assert row["state"] == "invalid"

    play(story, {"groq": [KeyRule(), KeyRule(), KeyRule(state="invalid_key"), KeyRule()]})


def test_a_500_at_most_twice_per_provider() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert (answer.status, answer.code) == (502, "bad_upstream")
        assert len(world.seen()) == 2
        assert [each["status"] for each in answer.json()["error"]["keyturn"]["attempts"]] == [500, 500]

    play(story, {"groq": 8}, faults=[Fault(status=500)])


def test_a_500_once_more_on_the_only_key() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert answer.status == 200
        assert answer.headers["x-keyturn-attempts"] == "2"

    play(story, {"groq": 1}, faults=[Fault(status=500, times=1)])


def test_a_503_is_not_repeated_on_the_only_key() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert answer.status == 502
        assert len(world.seen()) == 1

    play(story, {"groq": 1}, faults=[Fault(status=503, times=1)])


@pytest.mark.parametrize("state", ["invalid_key", "insufficient_credit", "forbidden", "rate_limited", "daily_quota"])
def test_seven_bad_keys_of_eight_do_not_fail_a_call(state: str) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert answer.status == 200
        tries = Counter(each.key for each in world.seen())
        assert max(tries.values()) == 1

    play(story, {"groq": [KeyRule(state=state)] * 7 + [KeyRule()]})


def test_nothing_is_sent_to_a_cooling_key() -> None:
    async def story(world: World) -> None:
        for _ in range(60):
            assert (await world.chat(LLAMA)).status == 200
            await world.clock.sleep_until(world.clock.mono() + 1.0)
        refused = world.seen(case="rate_limited")
        assert refused
        for each in refused:
            later = [other.started - each.started for other in world.seen(key=each.key) if other.started > each.started]
            assert not later or min(later) >= 20.0

    play(story, {"groq": 4}, faults=[Fault(key="*-2", error="rate_limited", wait=20, times=2)])


def test_keys_of_one_project_are_not_tried_after_its_429() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert answer.status == 200
        assert [each.key for each in world.seen()] == ["groq-secret-key-1", "groq-secret-key-3"]

    play(
        story,
        {"groq": [KeyRule(state="rate_limited"), KeyRule(state="rate_limited"), KeyRule()]},
        environ={"QUOTA_GROUP_GROQ": "1,2"},
    )


def test_RTE_10_a_bare_name_goes_on_to_the_next_provider_and_says_so() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("llama-shared")
        assert answer.status == 200
        assert answer.headers["x-keyturn-provider"] == "together"
        assert answer.headers["x-fallback-provider"] == "together"
        assert Counter(each.provider for each in world.seen()) == {"groq": 2, "together": 1}

    models = {"groq": ["llama-shared"], "together": ["llama-shared"]}
    play(story, {"groq": 3, "together": 1}, models=models, faults=[Fault(provider="groq", kind="chat", status=502)])


def test_an_overloaded_provider_is_not_asked_with_another_key() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("llama-shared")
        assert answer.headers["x-keyturn-provider"] == "together"
        assert Counter(each.provider for each in world.seen()) == {"groq": 1, "together": 1}

    models = {"groq": ["llama-shared"], "together": ["llama-shared"]}
    play(
        story,
        {"groq": 3, "together": 1},
        models=models,
        faults=[Fault(provider="groq", kind="chat", error="overloaded")],
    )


def test_not_found_everywhere_returns_the_first_such_answer() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("groq/llama-gone")
        assert answer.status == 404
        assert len(world.seen()) == 1
        assert "keyturn" not in answer.json()["error"]
        assert (await world.chat("groq/llama-gone")).status == 404
        assert len(world.seen()) == 2

    play(story, {"groq": 4}, models={"groq": ["llama-3.1-8b-instant"]})


def test_all_keys_dead_is_503_and_says_not_to_retry() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert (answer.status, answer.code) == (503, "no_valid_credentials")
        assert answer.headers["x-should-retry"] == "false"
        assert len(world.seen()) == 2
        await world.chat(LLAMA)
        assert len(world.seen()) == 2

    play(story, {"groq": [KeyRule(state="invalid_key")] * 2})


def test_all_keys_limited_is_429_with_the_true_wait() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert (answer.status, answer.code) == (429, "capacity")
        wait = float(answer.headers["retry-after-ms"]) / 1000
        assert 40 <= wait <= 42.1
        await world.clock.sleep_until(world.clock.mono() + wait)
        assert (await world.chat(LLAMA)).status == 200

    play(story, {"groq": 2}, faults=[Fault(error="rate_limited", wait=40, times=2)])


def test_a_call_waits_for_a_key_that_returns_in_time() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(LLAMA, timeout=5)).status == 429
        began = world.clock.mono()
        assert (await world.chat(LLAMA)).status == 200
        assert 10.0 <= world.clock.mono() - began < 11.0

    play(story, {"groq": 1}, faults=[Fault(error="rate_limited", wait=10, times=1)])


@pytest.mark.parametrize("keys", [1, 3])
def test_a_call_that_finds_out_a_limit_waits_for_its_end_like_all_others(keys: int) -> None:
    """Every key says no for 10 s: the client gets its answer a little later, never the 429."""

    async def story(world: World) -> None:
        began = world.clock.mono()
        assert (await world.chat(LLAMA)).status == 200
        assert 10.0 <= world.clock.mono() - began < 11.0
        assert len(world.seen(status=429)) == keys

    play(story, {"groq": keys}, faults=[Fault(error="rate_limited", wait=10, times=keys)])


def test_a_key_that_refuses_again_is_not_asked_a_third_time() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert (answer.status, answer.code) == (429, "capacity")
        assert len(world.seen()) == 2

    play(story, {"groq": 1}, faults=[Fault(error="rate_limited", wait=1)])


def test_the_callers_deadline_bounds_the_wait() -> None:
    async def story(world: World) -> None:
        await world.chat(LLAMA, timeout=3.0)
        began = world.clock.mono()
        answer = await world.chat(LLAMA, timeout=3.0)
        assert answer.status == 429
        assert world.clock.mono() == began

    play(story, {"groq": 1}, faults=[Fault(error="rate_limited", wait=10, times=1)])


def test_an_upstream_that_says_nothing_is_left_after_its_time() -> None:
    async def story(world: World) -> None:
        began = world.clock.mono()
        answer = await world.chat(LLAMA, stream=True)
        assert answer.text.endswith("Hello")
        assert world.clock.mono() - began == pytest.approx(60.0, abs=0.1)
        assert [each.result for each in world.seen()] == ["cancelled", "served"]

    play(story, {"groq": 2}, faults=[Fault(does="hang", times=1)])


def test_the_calls_own_deadline_is_nobodys_fault() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, timeout=2.0)
        assert (answer.status, answer.code) == (504, "deadline")
        assert {row["state"] for row in world.gateway.keys()} == {"healthy"}

    play(story, {"groq": 2}, faults=[Fault(does="hang", times=1)])


@pytest.mark.parametrize("quirk", ["html", "truncated_json"])
def test_ERR_30_garbage_with_status_200_is_not_passed_on(quirk: str) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert answer.text.endswith("Hello")
        assert len(world.seen()) == 2

    play(story, {"groq": 2}, faults=[Fault(quirks=frozenset({quirk}), times=1)])


def test_an_error_inside_a_200_is_an_error() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert answer.text.endswith("Hello")
        assert len(world.seen()) == 2

    play(story, {"groq": 2}, faults=[Fault(error="rate_limited", status=200, times=1)])


def test_a_redirect_is_never_followed() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert (answer.status, answer.code) == (502, "bad_upstream")
        assert [each.status for each in world.seen()] == [302]

    play(story, {"groq": 2}, faults=[Fault(quirks=frozenset({"redirect"}), times=1)])


def test_a_probe_after_a_cooldown_is_alone() -> None:
    async def story(world: World) -> None:
        await world.chat(LLAMA)
        await world.clock.sleep_until(world.clock.mono() + 31.0)
        answers = await world.many(LLAMA, 10)
        assert {each.status for each in answers} == {200}
        probe, *others = world.seen()[1:]
        assert all(other.started >= probe.ended for other in others)

    play(story, {"groq": 1}, faults=[Fault(error="rate_limited", wait=30, times=1)], latency=0.5)


def test_embeddings_fail_over_too() -> None:
    async def story(world: World) -> None:
        answer = await world.send("embeddings", {"model": "openai/text-embedding-3-small", "input": ["a", "b"]})
        assert answer.status == 200
        assert len(answer.json()["data"]) == 2
        assert len(world.seen()) == 2

    play(story, {"openai": 2}, faults=[Fault(status=500, times=1)])


def test_models_are_merged_and_a_broken_list_breaks_nothing() -> None:
    async def story(world: World) -> None:
        rows = await world.gateway.models()
        assert {row.provider for row in rows} == {"groq", "keyturn"}
        assert rows.pop().id == "auto"
        assert all(row.id.startswith("groq/") for row in rows)
        fetched = len(world.upstream.select(kind="models"))
        await world.gateway.models()
        assert len(world.upstream.select(kind="models")) == fetched

    play(story, {"groq": 1, "together": 1}, faults=[Fault(provider="together", kind="models", status=500)])
