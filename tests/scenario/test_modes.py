"""How keys are used beyond their order, end to end: priorities, bounds, shared quotas, caps, cycles, lists."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest

from keyturn.core import Caller
from keyturn.dispatch import read_call
from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "groq/llama-3.1-8b-instant"
LONG = "What goes before is the same for all. " * 150
Story = Callable[[World], Awaitable[None]]


def play(story: Story, pool: Any, environ: dict[str, str] | None = None, **more: Any) -> None:
    async def main() -> None:
        async with World(pool, environ=environ or {}, **more) as world:
            await story(world)

    virtual.run(main)


async def later(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


def used(world: World) -> list[int]:
    """The numbers of the keys that answered, in order."""
    return [int(each.key.rpartition("-")[2]) for each in world.seen()]


def rows(world: World, key: int) -> list[dict[str, Any]]:
    """The limits of a groq key as `keys list --json` has them."""
    found = next(row for row in world.gateway.keys() if str(row["key"]).startswith(f"groq-{key}:"))
    return found["limits"]  # type: ignore[return-value]


class TestPriorities:
    def test_ROT_10_the_next_priority_serves_while_the_better_one_is_full_or_cools(self) -> None:
        async def story(world: World) -> None:
            for _ in range(4):
                assert (await world.chat(MODEL)).status == 200
            assert used(world) == [2, 2, 1, 1], "two a minute on key 2, then the next priority"
            await later(world, 65)
            await world.chat(MODEL)
            assert used(world)[-1] == 2, "the better one is back and takes the traffic"

        play(story, {"groq": 2}, {"KEY_PRIORITIES_GROQ": "1:2,2:1", "LIMITS_GROQ": "rpm=2"})

    def test_RTE_18_a_model_is_served_by_keys_that_are_good_enough(self) -> None:
        async def story(world: World) -> None:
            for model in ("big", "small") * 3:
                assert (await world.chat(f"groq/{model}")).status == 200
            assert [each.key[-1] for each in world.seen(model="big")] == ["2", "2", "3"], "key 3 has no priority"
            assert [each.key[-1] for each in world.seen(model="small")] == ["2", "2", "1"]
            offered = {row.id for row in await world.gateway.models()}
            assert {"groq/big", "groq/small"} <= offered

        environ = {"KEY_PRIORITIES_GROQ": "1:2,2:1", "KEY_PRIORITY_FOR_GROQ": "big:1", "LIMITS_GROQ": "rpm=2"}
        play(story, {"groq": 3}, environ, models={"groq": ["big", "small"]})

    def test_RTE_18_no_key_is_good_enough(self) -> None:
        async def story(world: World) -> None:
            refused = await world.chat("groq/big")
            assert (refused.status, refused.code) == (404, "model_not_found")
            assert "needs a key of key priority 1, and none has it" in refused.json()["error"]["message"]
            assert not world.seen()
            assert "groq/big" not in {row.id for row in await world.gateway.models()}

        environ = {"KEY_PRIORITIES_GROQ": "1:2,2:3", "KEY_PRIORITY_FOR_GROQ": "b*:1"}
        play(story, {"groq": 2}, environ, models={"groq": ["big", "small"]})


class TestCallsUnderWay:
    def test_LIM_13_the_hard_bound_is_never_exceeded_and_multiplied_for_the_best(self) -> None:
        async def story(world: World) -> None:
            answers = await world.many(MODEL, 12)
            assert {answer.status for answer in answers} == {200}
            assert Counter(used(world)[:8]) == {1: 6, 2: 2}, (
                "3 × 2 at the best priority, 2 at the other; then they wait"
            )
            assert world.clock.mono() > 1.0, "full keys make calls wait, and only when no other is free"

        environ = {
            "KEY_PRIORITIES_GROQ": "1:1,2:2",
            "MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ": "2",
            "CONCURRENCY_MULTIPLIER_GROQ_PRIORITY_1": "3",
        }
        play(story, {"groq": [KeyRule(concurrency=6), KeyRule(concurrency=2)]}, environ, latency=1.0)

    def test_CFG_32_the_bound_of_the_mode_in_use(self) -> None:
        async def story(world: World) -> None:
            await world.many(MODEL, 3)
            assert not world.seen(status=429)
            assert [each.key[-1] for each in world.seen()] == ["1", "1", "1"]

        environ = {
            "MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ": "5",
            "MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ_SEQUENTIAL": "1",
            "ROTATION_MODE_GROQ": "sequential",
        }
        play(story, {"groq": [KeyRule(concurrency=1)]}, environ, latency=0.5)

    def test_ROT_11_below_the_soft_target_first_then_stacked_up_to_the_bound(self) -> None:
        async def story(world: World) -> None:
            await world.many(MODEL, 7)
            assert used(world)[:6] == [1, 1, 2, 2, 1, 2]

        environ = {
            "ROTATION_MODE_GROQ": "sequential",
            "OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_GROQ": "2",
            "MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ": "3",
        }
        play(story, {"groq": 2}, environ, latency=1.0)


class TestSharedQuotas:
    LIMITS = "providers: { groq: { models: { one: { rpm: 3 }, two: { rpm: 2 }, three: { rpm: 2, quota_group: x } } } }"

    def test_LIM_11_models_of_one_quota_count_together(self) -> None:
        async def story(world: World) -> None:
            models = ("one", "two", "one", "three")
            assert [(await world.chat(f"groq/{each}", timeout=1)).status for each in models] == [200, 200, 429, 200]
            (row,) = [each for each in rows(world, 1) if each["model"] == "one, two"]
            assert (row["capacity"], row["used"]) == (2, 2), "the tightest of the two"

        play(story, {"groq": 1}, {"QUOTA_GROUPS_GROQ_PAIR": "one,two"}, files={"limits.yaml": self.LIMITS})

    def test_LIM_11_they_cool_together_for_that_quota_group_of_keys(self) -> None:
        async def story(world: World) -> None:
            assert (await world.chat("groq/one")).status == 200
            assert [each.status for each in world.seen()] == [429, 200]
            assert (await world.chat("groq/two")).headers["x-keyturn-attempts"] == "1"
            assert used(world) == [1, 2, 2], "key 1 rests for the other model of the group too"
            await world.chat("groq/alone")
            assert used(world)[-1] == 1
            states = {str(row["key"])[:6]: row["reason"] for row in world.gateway.keys()}
            assert states["groq-1"] == "daily_quota (one, two)"
            assert world.gateway.reset("groq-1")
            assert {row["state"] for row in world.gateway.keys()} == {"healthy"}
            await asyncio.gather(*(world.chat("groq/two") for _ in range(2)))
            assert set(used(world)[-2:]) == {1, 2}, "what was parked is taken back"

        faults = [Fault(model="one", key="*-1", error="daily_quota", times=1)]
        environ = {"QUOTA_GROUPS_GROQ_PAIR": "one,two"}
        play(story, {"groq": 2}, environ, faults=faults)

    def test_CFG_36_groups_of_limits_yaml_cool_together_and_can_be_switched_off(self) -> None:
        limits = "providers: { groq: { models: { one: { rpm: 9, quota_group: x }, two: { rpm: 9, quota_group: x } } } }"
        seen: dict[str, list[int]] = {}

        for name, environ in (("on", {}), ("off", {"QUOTA_GROUPS_GROQ_X": ""})):

            async def story(world: World, name: str = name) -> None:
                for model in ("one", "two"):
                    assert (await world.chat(f"groq/{model}")).status == 200
                seen[name] = used(world)

            faults = [Fault(model="one", key="*-1", error="daily_quota", times=1)]
            more = {"ROTATION_MODE_GROQ": "sequential", **environ}
            play(story, {"groq": 2}, more, faults=faults, files={"limits.yaml": limits})
        assert seen == {"on": [1, 2, 2], "off": [1, 2, 1]}


class TestCaps:
    def test_LIM_12_a_key_at_its_cap_is_skipped_for_that_model(self) -> None:
        async def story(world: World) -> None:
            for _ in range(4):
                assert (await world.chat("groq/big")).status == 200
            assert used(world) == [1, 1, 2, 2], "the cap holds for keys of priority 1"
            await world.chat("groq/small")
            assert used(world)[-1] == 1
            (row,) = [each for each in rows(world, 1) if each["source"] == "cap"]
            assert row | {"resets_at": None} == {
                "metric": "requests",
                "window": "day",
                "model": "big",
                "capacity": 2,
                "used": 2,
                "reserved": 0,
                "free": 0,
                "resets_at": None,
                "source": "cap",
            }

        environ = {"KEY_PRIORITIES_GROQ": "1:1,2:2", "CUSTOM_CAP_GROQ": "model=b* priority=1 requests=2/day"}
        play(story, {"groq": 2}, environ)

    def test_LIM_12_it_rests_for_as_long_as_the_cap_says(self) -> None:
        async def story(world: World) -> None:
            assert (await world.chat(MODEL)).status == 200
            refused = await world.chat(MODEL, timeout=2)
            assert 3590 < float(refused.headers["retry-after"]) <= 3600
            (state,) = [row for row in world.gateway.keys() if row["state"] != "healthy"]
            assert (state["state"], str(state["reason"]).partition(" ")[0]) == ("cooling", "custom_cap")
            await later(world, 3000)
            refused = await world.chat(MODEL, timeout=2)
            assert (refused.status, refused.code) == (429, "capacity"), "the minute is long over, the hour is not"
            assert 600 < float(refused.headers["retry-after"]) <= 662, "a minute after the one that was told before"
            await later(world, 600)
            assert (await world.chat(MODEL)).status == 200

        play(story, {"groq": 1}, {"CUSTOM_CAP_GROQ": "requests=1/minute cooldown=1h"})

    def test_LIM_12_reset_and_some_more(self) -> None:
        async def story(world: World) -> None:
            await world.chat(MODEL)
            await later(world, 100)
            assert (await world.chat(MODEL, timeout=2)).status == 429
            await later(world, 300)
            assert (await world.chat(MODEL)).status == 200

        play(story, {"groq": 1}, {"CUSTOM_CAP_GROQ": "requests=1/minute cooldown=reset+5m"})

    def test_LIM_12_a_share_of_what_the_provider_reports(self) -> None:
        async def story(world: World) -> None:
            statuses = [(await world.chat(MODEL, timeout=1)).status for _ in range(12)]
            assert statuses == [200] * 5 + [429] * 7, "50 % of the ten a day that its headers state"
            assert not world.seen(status=429)

        play(story, {"groq": [KeyRule(rpd=10)]}, {"CUSTOM_CAP_GROQ": "requests=50%/day"})

    def test_LIM_12_models_of_one_quota_share_their_cap(self) -> None:
        async def story(world: World) -> None:
            assert [(await world.chat(f"groq/{each}", timeout=1)).status for each in ("a", "b", "a")] == [200, 200, 429]

        play(story, {"groq": 1}, {"CUSTOM_CAP_GROQ": "requests=2/day", "QUOTA_GROUPS_GROQ_BOTH": "a,b"})


class TestFairCycles:
    FAULTS = (
        Fault(key="*-1", error="rate_limited", wait=310.0, times=1),
        Fault(key="*-2", error="rate_limited", wait=310.0, times=1, skip=4),
    )

    def test_ROT_13_who_was_exhausted_waits_until_the_others_were_and_nobody_is_refused(self) -> None:
        async def story(world: World) -> None:
            for _ in range(3):
                assert (await world.chat(MODEL)).status == 200
                await later(world, 200)
            assert used(world) == [1, 2, 2, 2], "key 1 is back since 310 s, and waits"
            world.gateway.adopt(world.config())
            read = read_call("chat", json.dumps({"model": MODEL, "messages": talk("x")}).encode(), {}, "", "")
            told = await world.gateway.explain(read, Caller())
            names = [each["key"][:6] for each in told["steps"][0]["deployments"][0]["candidates"]]
            assert names == ["groq-2", "groq-1"], "`routes explain` has the order"
            await world.chat(MODEL)
            assert used(world)[-1] == 2, "a reload does not begin a new cycle"
            assert (await world.chat(MODEL)).status == 200
            assert used(world)[-2:] == [2, 1], "now key 2 is exhausted as well"

        environ = {"KEY_PRIORITIES_GROQ": "1:1,2:1", "FAIR_CYCLE_GROQ": "true", "ROTATION_MODE_GROQ": "round_robin"}
        play(story, {"groq": 2}, environ, faults=self.FAULTS)

    def test_ROT_13_of_the_key_as_a_whole(self) -> None:
        async def story(world: World) -> None:
            await world.chat("groq/a")
            await later(world, 400)
            for _ in range(3):
                await world.chat("groq/b")
            assert used(world) == [1, 2, 2, 2, 2]

        environ = {"FAIR_CYCLE_GROQ": "true", "FAIR_CYCLE_TRACKING_MODE_GROQ": "credential"}
        play(story, {"groq": 2}, environ, faults=self.FAULTS[:1])

    def test_CFG_37_off_it_takes_no_part(self) -> None:
        async def story(world: World) -> None:
            await world.chat(MODEL)
            await later(world, 400)
            for _ in range(4):
                await world.chat(MODEL)
            assert set(used(world)[2:]) == {1, 2}

        play(story, {"groq": 2}, faults=self.FAULTS[:1])


def talk(name: str) -> list[dict[str, str]]:
    """The second turn of a conversation whose beginning depends on *name* alone."""
    said = [{"role": "user", "content": f"{LONG} {name}"}, {"role": "assistant", "content": "Yes."}]
    return [*said, {"role": "user", "content": "And?"}]


class TestConversations:
    async def key(self, world: World, name: str, caller: str = "default", **members: object) -> int:
        body = {"model": MODEL, "messages": talk(name), **members}
        answer: Answer = await world.send("chat", body, caller=Caller(caller))
        assert answer.status == 200, answer.body
        return used(world)[-1]

    def test_ROT_12_two_conversations_in_turn_stay_on_their_keys(self) -> None:
        async def story(world: World) -> None:
            one, other = await self.key(world, "one"), await self.key(world, "other")
            assert one != other
            for _ in range(4):
                assert (await self.key(world, "one"), await self.key(world, "other")) == (one, other)

        play(story, {"groq": 3})

    def test_ROT_12_callers_who_say_the_same_are_placed_each_by_itself(self) -> None:
        async def story(world: World) -> None:
            one = await self.key(world, "same", "ann")
            other = await self.key(world, "same", "ben")
            assert one != other, "the key that ann used last comes last for anybody else"
            for _ in range(3):
                assert await self.key(world, "same", "ann") == one
                assert await self.key(world, "same", "ben") == other
            assert await self.key(world, "same", "ann", session_id="a") != one, "ann says that it is another one"

        play(story, {"groq": 3})

    @pytest.mark.parametrize("where", ["session_id", "conversationId", "metadata"])
    def test_ROT_12_a_name_of_the_clients_own_counts_and_goes_on_as_it_came(self, where: str) -> None:
        def named(name: str) -> dict[str, Any]:
            return {where: {"chat_id": name} if where == "metadata" else name}

        async def story(world: World) -> None:
            one = await self.key(world, "a", **named("x"))
            other = await self.key(world, "b", **named("y"))
            assert [await self.key(world, text, **named("x")) for text in "bcd"] == [one] * 3
            assert await self.key(world, "a", **named("y")) == other != one
            assert await self.key(world, "e", "somebody", **named("x")) not in (one, other)
            assert json.loads(world.seen()[-1].body)[where] == named("x")[where]

        play(story, {"groq": 3}, keep_bodies=True)

    def test_ROT_12_for_as_long_as_is_said(self) -> None:
        async def story(world: World) -> None:
            first = await self.key(world, "one")
            await later(world, 59)
            assert await self.key(world, "one") == first
            await later(world, 61)
            assert await self.key(world, "one") != first

        play(story, {"groq": 2}, {"SESSION_STICKINESS_TTL": "60"})

    def test_ROT_12_off(self) -> None:
        async def story(world: World) -> None:
            assert {await self.key(world, "one") for _ in range(3)} == {1, 2, 3}

        play(story, {"groq": 3}, {"SESSION_STICKINESS_TTL": "0"})


class TestModelLists:
    ENVIRON: ClassVar = {"IGNORE_MODELS_GROQ": "*", "WHITELIST_MODELS_GROQ": "good*"}

    def test_CFG_40_they_hold_for_the_list_and_for_requests(self) -> None:
        async def story(world: World) -> None:
            offered = {row.id for row in await world.gateway.models()}
            assert "groq/good-one" in offered
            assert "groq/bad" not in offered
            assert (await world.chat("groq/good-one")).status == 200
            for name in ("groq/bad", "groq/BAD", "bad"):
                refused = await world.chat(name)
                assert (refused.status, refused.code) == (404, "model_not_found")
                assert "left out by IGNORE_MODELS_GROQ" in refused.json()["error"]["message"], name
            assert len(world.seen()) == 1
            wrong = (await world.chat("groq-bad")).json()["error"]["message"]
            assert not re.search(r"groq/bad\b", wrong), "it is not suggested either"

        play(story, {"groq": 1}, self.ENVIRON, models={"groq": ["good-one", "bad"]})

    def test_CFG_40_a_chain_skips_them_with_the_reason(self) -> None:
        async def story(world: World) -> None:
            answer = await world.chat("fast")
            assert answer.headers["x-keyturn-model"] == "good-one"
            trail = world.gateway.recent[answer.headers["x-keyturn-call"]]
            assert "groq/bad: is left out by IGNORE_MODELS_GROQ" in trail.refusals

        files = {"models.yaml": "aliases: { fast: [groq/bad, groq/good-one] }"}
        play(story, {"groq": 1}, self.ENVIRON, files=files)


def test_ROT_15_the_trail_of_a_refused_call_says_how_the_keys_stand() -> None:
    async def story(world: World) -> None:
        await world.many(MODEL, 2)
        refused = await world.chat(MODEL, timeout=1)
        assert refused.status == 429
        (told,) = [note for trail in world.gateway.recent.values() for note in trail.notes]
        assert told == f"{MODEL}: none of 4 keys is free (2 at a limit, 1 at a cap of yours, 1 not usable)"

    environ = {
        "KEY_PRIORITIES_GROQ": "1:1,2:2,3:3,4:4",
        "CUSTOM_CAP_GROQ": "priority=2 requests=1/hour",
    }
    rules = [KeyRule(state="invalid_key"), KeyRule(), KeyRule(), KeyRule()]
    faults = [
        Fault(key="*-3", error="rate_limited", wait=100.0),
        Fault(key="*-4", error="rate_limited", wait=100.0, skip=1),
    ]
    play(story, {"groq": rules}, environ, faults=faults)


def test_LIM_13_nobody_holds_anything_while_it_waits_for_a_full_key() -> None:
    """One key is full for long; calls for what others can do go on, and a waiter that leaves takes nothing along."""

    async def story(world: World) -> None:
        slow = asyncio.create_task(world.chat(MODEL))
        await virtual.idle()
        waiting = asyncio.create_task(world.chat(MODEL))
        await virtual.idle()
        assert world.gateway.room.waiting == 1
        began = world.clock.mono()
        assert (await world.chat("together/other")).status == 200
        assert world.clock.mono() - began <= 1.0
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await slow).status == 200
        assert world.gateway.room.waiting == 0

    environ = {"MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ": "1", "ROTATION_MODE_GROQ": "sequential"}
    faults = [Fault(provider="groq", latency=30.0)]
    play(story, {"groq": 1, "together": 1}, environ, faults=faults, models={"together": ["other"]})
