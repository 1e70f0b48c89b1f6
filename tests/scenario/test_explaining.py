"""What would happen to a call, and what happened to one: scores, prices, waits, plans, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder
from keyturn.core import Caller, call_of_size
from keyturn.dispatch.usage import story_told
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/m"
FILES = {
    "models.yaml": "aliases: { both: [groq/m, mistral/m] }\n"
    "provider_routes:\n"
    "  - { id: m, provider: groq, model: m, is_paid: false, price: { input: 2, output: 10 } }\n",
}

Work = Callable[[World], Awaitable[None]]


def run(work: Work, pool: dict[str, int] | None = None, **options: Any) -> None:
    async def main() -> None:
        async with World(pool or {"groq": 3}, files=FILES, **options) as world:
            await work(world)

    virtual.run(main)


async def explained(world: World, route: str = MODEL, tokens: int = 0, output: int | None = None) -> dict[str, Any]:
    return await world.gateway.explain(call_of_size(route, tokens, output), Caller())


def candidates(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for step in told["steps"] for each in step["deployments"] for row in each["candidates"]]


def test_the_key_that_is_marked_as_chosen_is_the_one_that_is_asked() -> None:
    async def work(world: World) -> None:
        for _ in range(5):
            told = await explained(world)
            (chosen,) = (row["key"] for row in candidates(told) if row["chosen"])
            assert (await world.chat(MODEL)).headers["x-keyturn-key"] == chosen
        loads = {row["key"][:6]: row["load"] for row in candidates(told)}
        assert set(loads.values()) == {0.0, 0.1, 0.2} or set(loads.values()) == {0.1, 0.2}
        assert told["wait"] is None
        assert told["steps"][0]["deployments"][0]["strategy"] == "balanced"

    run(work, latency=0.1, environ={"LIMITS_GROQ": "rpm=10"})


def test_a_size_has_a_charge_and_a_price() -> None:
    async def work(world: World) -> None:
        (deployment,) = (await explained(world, tokens=1000, output=100))["steps"][0]["deployments"]
        assert deployment["tokens"] == {"input": 1300, "output": 100}, "with a margin of 30 %"
        assert deployment["usd"] == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
        (deployment,) = (await explained(world))["steps"][0]["deployments"]
        assert (deployment["tokens"], deployment["usd"]) == (None, None)

    run(work)


def test_a_call_that_fits_nowhere_now_is_told_when_it_would() -> None:
    async def work(world: World) -> None:
        await world.chat(MODEL, text="x" * 3000, max_tokens=10)
        assert (await explained(world))["wait"] is None, "a small one fits"
        told = await explained(world, tokens=900, output=10)
        (row,) = candidates(told)
        assert (row["state"], row["why"]) == ("limited", "tokens limit of 1500 a minute reached")
        assert 55 < row["wait_s"] < 62
        assert row["returns_at"] == "2026-03-02T12:01:01Z"
        assert told["wait"]["expected_s"] == row["wait_s"]
        assert (told["wait"]["waits"], told["wait"]["position"]) == (False, 1)
        (row,) = candidates(await explained(world, tokens=100_000))
        assert (row["state"], row["wait_s"]) == ("too_small", None)

    run(work, pool={"groq": 1}, latency=0.1, environ={"LIMITS_GROQ": "tpm=1500"})


def test_what_is_only_under_way_has_no_time() -> None:
    async def work(world: World) -> None:
        running = asyncio.create_task(world.chat(MODEL))
        await virtual.idle()
        told = await explained(world)
        assert (told["wait"]["expected_s"], told["wait"]["waits"]) == (None, True)
        assert candidates(told)[0]["active"] == 1
        await running

    run(work, pool={"groq": 1}, latency=5.0, environ={"LIMITS_GROQ": "concurrency=1"})


def test_the_trail_knows_plan_choice_and_deadlines() -> None:
    async def work(world: World) -> None:
        call = (await world.chat("both", timeout=30)).headers["x-keyturn-call"]
        told: dict[str, Any] = world.gateway.recent[call].told()
        assert told["plan"] == ["groq/m", "mistral/m"]
        assert told["ordered"] == "in_order"
        assert told["deadlines"] == {"total_ms": 30_000.0, "content_ms": 30_000.0, "wait_ms": 30_000.0}
        first, second = told["attempts"]
        assert first["pick"] == {"ready": 3, "load": 0.0, "active": 0, "pace_ms": None}
        assert second["pick"] is None, "mistral has one key"
        assert first["content_by_ms"] == 30_000.0
        assert world.gateway.recent[call].caller == "default"

    run(work, {"groq": 3, "mistral": 1}, faults=[Fault(provider="groq", error="overloaded")])


def test_the_ledger_has_it_in_words_and_of_a_plain_call_nothing(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        plain = (await world.chat(MODEL)).headers["x-keyturn-call"]
        call = (await world.chat("both")).headers["x-keyturn-call"]
        await world.gateway.ledger.flush()
        story = await world.gateway.ledger.story(call)
        assert story is not None
        notes = story_told(story)["notes"]
        assert isinstance(notes, list)
        assert notes[-4] == "planned: groq/m, mistral/m"
        assert "was chosen of 3 ready keys: 0 % of its limits used, 0 calls under way" in notes[-3]
        assert notes[-2].startswith("attempt 2: its first content was to come within ")
        assert notes[-1] == "deadlines: 600 s in all, 20 s waiting for a key"
        story = await world.gateway.ledger.story(plain)
        assert story is not None
        assert story_told(story)["notes"] == []

    folder = DataFolder(tmp_path / "data")
    folder.lock()
    faults = [Fault(provider="groq", error="overloaded", skip=1)]
    run(work, {"groq": 3, "mistral": 1}, folder=folder, faults=faults)
    folder.release()
