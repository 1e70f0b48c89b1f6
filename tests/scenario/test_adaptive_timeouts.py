"""Timeouts that follow what a deployment usually takes: shorter for what hangs, never for what is merely slow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "groq/llama-3.1-8b-instant"
ADAPTIVE = {"TIMEOUT_ADAPTIVE": "true"}
HANGS = Fault(does="hang", key="groq-secret-key-1")


async def timed(world: World, model: str = MODEL, **members: Any) -> tuple[Answer, float]:
    """An answer, and what it took."""
    began = world.clock.mono()
    answer = await world.chat(model, **members)
    return answer, world.clock.mono() - began


async def used(world: World, count: int, **members: Any) -> None:
    """So many calls, one after the other."""
    for _ in range(count):
        assert (await world.chat(MODEL, **members)).status == 200


KINDS: dict[str, tuple[dict[str, Any], float, float]] = {
    "stream": ({"stream": True}, 10.0, 60.0),
    "plain": ({"max_tokens": 100}, 10.0, 300.0),
    "open-ended": ({}, 30.0, 300.0),
}
"""What is asked for, the bound once enough is known, the configured one."""


@pytest.mark.parametrize("kind", KINDS)
def test_CAC_04_what_suddenly_hangs_is_given_up_after_the_floor(kind: str) -> None:
    members, floor, configured = KINDS[kind]

    async def main(environ: dict[str, str]) -> tuple[float, list[str]]:
        environ = {**environ, "ROTATION_MODE_GROQ": "sequential"}
        async with World({"groq": 2}, environ=environ, latency=1.0) as world:
            await used(world, 20, **members)
            world.upstream.script.add(HANGS)
            answer, seconds = await timed(world, **members)
            assert answer.status == 200
            assert answer.headers["x-keyturn-attempts"] == "2"
            return seconds, world.gateway.recent[answer.headers["x-keyturn-call"]].notes

    seconds, notes = virtual.run(lambda: main(ADAPTIVE))
    assert seconds == pytest.approx(floor + 1.0, abs=0.1)
    assert notes == [f"{MODEL}: given up after {floor:.1f} s; its slowest answer of late took 1.0 s"]
    seconds, notes = virtual.run(lambda: main({}))
    assert seconds == pytest.approx(configured + 1.0, abs=0.1)
    assert notes == []


def test_CAC_04_the_floor_is_the_owners() -> None:
    async def main() -> None:
        files = {"settings.toml": "[timeouts]\nadaptive = true\nadaptive_floor = 3\n"}
        environ = {"ROTATION_MODE_GROQ": "sequential"}
        async with World({"groq": 2}, environ=environ, files=files, latency=1.0) as world:
            await used(world, 20, stream=True)
            world.upstream.script.add(HANGS)
            assert (await timed(world, stream=True))[1] == pytest.approx(4.0, abs=0.1)

    virtual.run(main)


def test_CAC_04_a_model_that_is_always_slow_is_never_cut() -> None:
    async def main() -> None:
        async with World({"groq": 2}, environ=ADAPTIVE, latency=40.0) as world:
            await used(world, 40, stream=True)
            assert {each.result for each in world.seen()} == {"served"}
            assert len(world.seen()) == 40

    virtual.run(main)


def test_CAC_04_one_that_becomes_slow_is_found_out_with_one_attempt_lost() -> None:
    async def main() -> None:
        environ = {**ADAPTIVE, "ROTATION_MODE_GROQ": "sequential"}
        async with World({"groq": 2}, environ=environ, latency=1.0) as world:
            await used(world, 30, stream=True)
            world.upstream.script.add(Fault(latency=15.0))
            answers = [await timed(world, stream=True) for _ in range(10)]
            assert {answer.status for answer, _ in answers} == {200}
            tried = [int(answer.headers["x-keyturn-attempts"]) for answer, _ in answers]
            assert tried == [2, *[1] * 9]
            assert answers[0][1] == pytest.approx(25.0, abs=0.1), "the second had 20 s"

    virtual.run(main)


def test_CAC_04_the_last_resort_gets_all_its_time() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=ADAPTIVE, latency=1.0) as world:
            await used(world, 30, stream=True)
            world.upstream.script.add(Fault(latency=50.0))
            answer, seconds = await timed(world, stream=True)
            assert (answer.status, answer.headers["x-keyturn-attempts"]) == (200, "1")
            assert seconds == pytest.approx(50.0, abs=0.1)

    virtual.run(main)


def test_CAC_04_another_deployment_is_somebody_left_and_a_resting_one_is_not() -> None:
    files = {
        "models.yaml": "provider_routes:\n"
        "  - { id: fast, provider: groq, model: llama-3.1-8b-instant }\n"
        "  - { id: fast, provider: openrouter, model: meta-llama/llama-3.1-8b-instruct }\n"
    }

    async def main(*, disabled: bool) -> float:
        async with World({"groq": 1, "openrouter": 1}, environ=ADAPTIVE, files=files, latency=1.0) as world:
            for _ in range(30):
                assert (await world.chat("fast", stream=True)).headers["x-keyturn-provider"] == "groq"
            world.upstream.script.add(Fault(does="hang", provider="groq"))
            if disabled:
                world.gateway.disable("openrouter")
            answer, seconds = await timed(world, "fast", stream=True)
            assert answer.status == (502 if disabled else 200)
            return seconds

    assert virtual.run(lambda: main(disabled=False)) == pytest.approx(11.0, abs=0.1)
    assert virtual.run(lambda: main(disabled=True)) == pytest.approx(60.0, abs=0.1)


def test_CAC_04_the_calls_own_deadline_is_no_measure_of_the_model() -> None:
    async def main() -> None:
        async with World({"groq": 2}, environ=ADAPTIVE, latency=1.0) as world:
            await used(world, 30, stream=True)
            for _ in range(30):
                assert (await world.chat(MODEL, stream=True, timeout=0.5)).code == "deadline"
            task = asyncio.create_task(world.chat(MODEL, stream=True))
            await virtual.idle()
            task.cancel()
            (kind,) = world.gateway.latencies._kinds
            assert world.gateway.latencies.usual(kind) == pytest.approx(1.0, abs=0.01)

    virtual.run(main)
