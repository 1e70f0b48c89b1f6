"""Findings of a review: each test fails on what it was written against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any

import pytest

from keyturn.core import (
    Candidate,
    Credential,
    Deployment,
    Facts,
    Marks,
    Report,
    classify,
    judge,
    scopes_of,
)
from keyturn.providers import CATALOG
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


async def rest(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


def test_a_probe_that_fails_does_not_park_its_key_for_ever() -> None:
    """While the probe was out another call parked the key as busy; nothing unparked it when the probe failed."""

    async def story(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 429
        await rest(world, 11)
        await world.many(LLAMA, 2, timeout=5.0)
        await rest(world, 3600)
        assert (await world.chat(LLAMA)).status == 200

    play(story, {"groq": 1}, faults=[Fault(error="rate_limited", wait=10, times=2)], latency=1.0)


def test_a_failed_probe_of_a_group_frees_the_other_keys_of_it() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(LLAMA, timeout=5.0)).status == 429
        await rest(world, 11)
        await world.many(LLAMA, 3, timeout=5.0)
        await rest(world, 3600)
        keys = set()
        for _ in range(6):
            assert (await world.chat(LLAMA)).status == 200
            keys.add(world.seen()[-1].key)
        assert len(keys) == 3

    play(
        story,
        {"groq": 3},
        environ={"QUOTA_GROUP_GROQ": "1,2,3"},
        faults=[Fault(error="rate_limited", wait=10, times=2)],
        latency=1.0,
    )


def test_a_probe_granted_to_a_waiter_who_just_left_frees_the_key() -> None:
    """Two calls wait for the end of a cooldown; the first gets the probe and is cancelled in the same instant."""

    async def story(world: World) -> None:
        assert (await world.chat(LLAMA, timeout=5.0)).status == 429
        serve = world.gateway.room._serve
        tasks: list[asyncio.Task[Any]] = []

        def served(*line: Any) -> None:
            serve(*line)
            tasks[0].cancel()

        world.gateway.room._serve = served  # type: ignore[method-assign]
        for _ in range(2):
            tasks.append(asyncio.create_task(world.chat(LLAMA)))
            await virtual.idle()
        assert world.gateway.room.waiting == 2
        answer = await tasks[1]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert answer.status == 200
        assert (await world.chat(LLAMA)).status == 200

    play(story, {"groq": 1}, faults=[Fault(error="rate_limited", wait=10, times=1)])


def test_a_direct_call_is_sent_though_a_chain_found_the_model_absent() -> None:
    """Design 5.5: not found rests in chains only, a direct call is still sent."""

    async def story(world: World) -> None:
        answer = await world.chat("shared")
        assert answer.headers["x-keyturn-provider"] == "together"
        world.upstream.script.clear()
        answer = await world.chat("groq/shared")
        assert answer.status == 200

    play(
        story,
        {"groq": 1, "together": 1},
        models={"groq": ["shared"], "together": ["shared"]},
        faults=[Fault(provider="groq", kind="chat", error="not_found", times=1)],
    )


def test_a_chain_in_which_all_say_not_found_says_so_twice() -> None:
    async def story(world: World) -> None:
        first = await world.chat("shared")
        assert first.status == 404
        second = await world.chat("shared")
        assert second.status == 404, second.json()

    play(
        story,
        {"groq": 1, "together": 1},
        models={"groq": ["shared"], "together": ["shared"]},
        faults=[Fault(kind="chat", error="not_found")],
    )


def test_a_burst_of_faults_in_flight_counts_once() -> None:
    """credentials.py: "a burst of failures that were in flight together counts once". With one key it does not."""

    async def story(world: World) -> None:
        await world.many(LLAMA, 8)
        (row,) = world.gateway.keys()
        longest = max((mark.until for mark in world.gateway.marks.of("groq")), default=0.0) - world.clock.mono()
        assert longest <= 5.0, (row, longest)

    play(story, {"groq": 1}, faults=[Fault(status=502, times=8)], latency=1.0)


def test_a_cooling_key_is_not_asked_again_by_a_resend() -> None:
    """The second 500 in a row cools the only key; the re-send after the third goes out to a cooling key."""

    async def story(world: World) -> None:
        await world.chat(LLAMA)
        await rest(world, 30)
        before = len(world.seen())
        await world.chat(LLAMA)
        assert len(world.seen()) - before == 1

    play(story, {"groq": 1}, faults=[Fault(status=500)])


def test_one_who_has_tried_every_key_does_not_wait_for_a_busy_one() -> None:
    """Tried: key 1 (500) and key 2 (429). Key 1 is now busy with another call, which is of no use to this one."""

    async def story(world: World) -> None:
        slow = Fault(key="*-2", error="rate_limited", wait=60, latency=3.0)
        world.upstream.script.add(Fault(key="*-1", status=500, latency=1.0, times=1))
        world.upstream.script.add(slow)
        world.upstream.script.add(Fault(key="*-1", latency=300.0))
        began = world.clock.mono()

        async def timed(delay: float) -> tuple[int, float]:
            await rest(world, delay)
            answer = await world.chat(LLAMA)
            return answer.status, world.clock.mono() - began

        one = asyncio.create_task(timed(0.0))
        await virtual.idle()
        others = [asyncio.create_task(timed(1.5)), asyncio.create_task(timed(2.0))]
        status, took = await one
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert took < 10.0, (status, took)

    play(story, {"groq": 2}, environ={"LIMITS_GROQ": "concurrency=1"})


def test_who_stands_behind_one_that_leaves_is_looked_at() -> None:
    """A large call waits at the head of the line; when its client leaves, a small one behind it fits at once."""

    async def story(world: World) -> None:
        for _ in range(3):
            await world.chat(LLAMA, text="x" * 2000, max_tokens=100)
        large = asyncio.create_task(world.chat(LLAMA, text="x" * 12_000, max_tokens=10, timeout=80.0))
        await virtual.idle()
        began = world.clock.mono()
        small = asyncio.create_task(world.chat(LLAMA, text="x", max_tokens=10, timeout=90.0))
        await virtual.idle()
        assert world.gateway.room.waiting == 2
        large.cancel()
        answer = await small
        await asyncio.gather(large, return_exceptions=True)
        assert (answer.status, world.clock.mono() - began) == (200, 0.0)

    play(story, {"groq": 1}, environ={"LIMITS_GROQ": "tpm=4000"})


def test_twenty_dead_keys_are_not_no_valid_credentials() -> None:
    """Five good keys were never asked: telling the client not to try again is wrong, its next call succeeds."""

    async def story(world: World) -> None:
        answer = await world.chat(LLAMA)
        assert len(world.seen()) == 20
        assert answer.headers.get("x-should-retry") != "false", answer.json()
        assert (await world.chat(LLAMA)).status == 200

    play(story, {"groq": [KeyRule(state="invalid_key")] * 20 + [KeyRule()] * 5})


def test_a_limited_deployment_that_was_not_asked_did_not_say_not_found() -> None:
    """One step has no such model, the other only rests for a minute: `capacity` with its wait, not the 404."""

    async def story(world: World) -> None:
        assert (await world.chat("together/shared", timeout=5.0)).status == 429
        answer = await world.chat("shared", timeout=5.0)
        assert (answer.status, answer.code) == (429, "capacity"), answer.json()

    play(
        story,
        {"groq": 1, "together": 1},
        models={"groq": ["shared"], "together": ["shared"]},
        faults=[
            Fault(provider="groq", kind="chat", error="not_found"),
            Fault(provider="together", kind="chat", error="rate_limited", wait=60, times=1),
        ],
    )


def test_waiters_of_a_failing_provider_are_not_told_that_limits_stand_in_the_way() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 502
        answers = await world.many(LLAMA, 4)
        assert {answer.status for answer in answers} == {502}, [(a.status, a.code) for a in answers]

    play(story, {"groq": 1}, faults=[Fault(error="overloaded", wait=15)], latency=0.5)


def test_a_slow_list_of_models_does_not_outlast_the_deadline_of_a_call() -> None:
    async def story(world: World) -> None:
        began = world.clock.mono()
        await world.chat("llama-3.1-8b-instant", timeout=2.0)
        assert world.clock.mono() - began <= 2.1

    play(story, {"groq": 1, "together": 1}, faults=[Fault(provider="together", kind="models", does="hang")])


def test_an_upstream_credential_of_an_aggregator_is_not_our_key() -> None:
    """OpenRouter relays its upstream's 401: scope `provider`. Our own key must not rest for it."""
    credential = Credential.of("openrouter", "sk-or-1", 1)
    candidate = Candidate(Deployment("openrouter", "x/y"), credential)
    body = (
        b'{"error":{"message":"Provider returned error","code":401,'
        b'"metadata":{"provider_name":"Acme","raw":"{\\"error\\":{\\"message\\":\\"Invalid API key\\"}}"}}}'
    )
    outcome = classify(Facts(401, {}, body, 0.0, rules=CATALOG["openrouter"].rules))
    assert (outcome.meaning, outcome.scope) == ("invalid_key", "provider")
    marks = Marks()
    report = Report(candidate, scopes_of(candidate), outcome, 0.0, 1.0, 4)
    for change in judge(marks, report, lambda: 0.5).transitions:
        marks.apply(change)
    assert marks.get(scopes_of(candidate)[0]) is None


def test_a_call_that_does_not_fit_beside_what_is_held_waits_or_is_told_the_truth() -> None:
    """Two calls at once, each 60 % of the limit. The first is held, not yet counted, when the second asks: `busy`."""

    async def story(world: World) -> None:
        began = world.clock.mono()
        answers = await world.many(LLAMA, 2, text="x" * 9000, max_tokens=10, timeout=90.0)
        assert {answer.status for answer in answers} == {200}, [answer.json() for answer in answers]
        assert world.clock.mono() - began == pytest.approx(61, abs=1.1)

    play(story, {"groq": 1}, environ={"LIMITS_GROQ": "tpm=4000"})


def test_what_a_stream_had_said_when_its_deadline_cut_it_is_charged() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=True, timeout=2.0)
        assert '"upstream_interrupted"' in answer.events[-1]
        (trail,) = world.gateway.recent.values()
        assert trail.attempts[-1].usage is not None
        assert trail.attempts[-1].usage.output > 0

    play(story, {"groq": 1}, environ={"LIMITS_GROQ": "tpm=4000"}, pace=0.9)


def test_names_of_clients_do_not_fill_the_memory_with_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.core.credentials.MOST_MARKS", 400)

    async def story(world: World) -> None:
        for number in range(800):
            await world.chat(f"groq/invented-{number}")
            await rest(world, 30.0)
        marks = world.gateway.marks
        assert len(marks._table) + len(marks._failing) < 900

    play(story, {"groq": 1}, faults=[Fault(status=502)])


def test_a_call_whose_first_attempt_took_long_may_still_wait() -> None:
    """Key 2 answers 429 after 30 s; key 1 is free again a second later. The 20 s are of waiting, not of the call."""

    async def story(world: World) -> None:
        first = asyncio.create_task(world.chat(LLAMA))
        await virtual.idle()
        answer = await world.chat(LLAMA)
        assert answer.status == 200, answer.json()
        await first

    play(
        story,
        {"groq": 2},
        environ={"LIMITS_GROQ": "concurrency=1"},
        faults=[Fault(key="*-2", error="rate_limited", wait=300, latency=30.0), Fault(key="*-1", latency=31.0)],
    )


def test_a_date_to_wait_for_is_read_by_the_upstreams_own_clock() -> None:
    """The upstream's clock is an hour ahead of ours: `Retry-After` less `Date` is 30 s, whatever our clock says."""

    async def story(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 429
        (mark,) = world.gateway.marks.of("groq")
        assert 30.0 <= mark.until - world.clock.mono() <= 31.0

    ahead = virtual.START_WALL + 3600
    headers = {"date": formatdate(ahead, usegmt=True), "retry-after": formatdate(ahead + 30, usegmt=True)}
    body = '{"error": {"message": "Too many requests", "type": "rate_limit_error"}}'
    play(story, {"groq": 1}, faults=[Fault(status=429, body=body, headers=headers, times=1)])


def test_calls_of_another_plan_do_not_overtake_who_waits_for_the_same_key() -> None:
    """`shared` may be answered by groq and together; together is dead. It must not starve `groq/shared`."""

    async def story(world: World) -> None:
        done = False

        async def greedy() -> None:
            while not done:
                assert (await world.chat("shared")).status == 200

        await world.gateway.models()
        world.gateway.disable("groq-1")
        await world.chat("shared")
        world.gateway.enable("groq-1")
        task = asyncio.create_task(greedy())
        await rest(world, 2.5)
        began = world.clock.mono()
        answer = await world.chat("groq/shared")
        took = world.clock.mono() - began
        done = True
        await task
        assert answer.status == 200, answer.json()
        assert took <= 3.0

    play(
        story,
        {"groq": 1, "together": 1},
        models={"groq": ["shared"], "together": ["shared"]},
        environ={"LIMITS_GROQ": "concurrency=1"},
        faults=[Fault(provider="together", kind="chat", error="invalid_key")],
        latency=1.0,
    )


def test_who_let_another_line_go_first_is_looked_at_when_it_is_gone() -> None:
    """A large `groq/shared` waits; a small `shared` lets it go first. When the large one leaves, the small one fits."""

    async def story(world: World) -> None:
        await world.gateway.models()
        world.gateway.disable("groq-1")
        await world.chat("shared")
        world.gateway.enable("groq-1")
        for _ in range(3):
            await world.chat("groq/shared", text="x" * 2000, max_tokens=100)
        large = asyncio.create_task(world.chat("groq/shared", text="x" * 12_000, max_tokens=10, timeout=80.0))
        await virtual.idle()
        began = world.clock.mono()
        small = asyncio.create_task(world.chat("shared", text="x", max_tokens=10, timeout=90.0))
        await virtual.idle()
        large.cancel()
        answer = await small
        await asyncio.gather(large, return_exceptions=True)
        assert (answer.status, world.clock.mono() - began) == (200, 0.0)

    play(
        story,
        {"groq": 1, "together": 1},
        models={"groq": ["shared"], "together": ["shared"]},
        environ={"LIMITS_GROQ": "tpm=4000"},
        faults=[Fault(provider="together", kind="chat", error="invalid_key")],
    )


def test_a_mark_on_a_whole_deployment_is_found_out_without_a_look_at_each_of_its_keys() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(LLAMA)).status == 502
        await world.chat(LLAMA)
        (pool,) = world.gateway.pools
        assert len(pool.ready) == 10_000

    play(story, {"groq": 10_000}, faults=[Fault(error="overloaded", wait=60)])


def test_a_dead_key_does_not_make_its_group_look_dead() -> None:
    """A quota group may be named after one of its members: what is on the member is not on the group."""

    async def story(world: World) -> None:
        for _ in range(3):
            assert (await world.chat(LLAMA)).status == 200
        states = sorted(str(row["state"]) for row in world.gateway.keys())
        assert states == ["healthy", "healthy", "invalid"]
        assert len(world.gateway.reset("groq-2")) <= 1

    for dead in range(3):
        rules = [KeyRule(state="invalid_key") if number == dead else KeyRule() for number in range(3)]
        play(story, {"groq": rules}, environ={"QUOTA_GROUP_GROQ": "1,2,3"})


def test_a_success_clears_what_a_chain_remembers_of_an_absent_model() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("shared")).headers["x-keyturn-provider"] == "together"
        assert (await world.chat("groq/shared")).status == 200
        assert (await world.chat("shared")).headers["x-keyturn-provider"] == "groq"

    play(
        story,
        {"groq": 1, "together": 1},
        models={"groq": ["shared"], "together": ["shared"]},
        faults=[Fault(provider="groq", kind="chat", error="not_found", times=1)],
    )
