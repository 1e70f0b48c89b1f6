"""Two minutes and a half: premium goes out, fast and standard are limited, G4F carries on, premium returns."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from keyturn.simulator import KeyRule
from tests.support.tiers import ASKED, asked, out, tiered
from tests.support.world import Answer, World

FROM, UNTIL = 10.0, 70.0
"""Seconds between which premium is out."""
POOL: dict[str, int | list[KeyRule]] = {
    "openai": 2,
    "groq": [KeyRule(rpm=10, limiter="rolling")],
    "gemini": [KeyRule(rpm=5, limiter="rolling")],
    "g4f": 1,
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_TST_07_premium_out_fast_and_standard_limited_g4f_answers_and_premium_returns(stream: bool) -> None:
    async def story(world: World) -> None:
        began = world.clock.mono()
        calls: list[asyncio.Task[Answer]] = []
        for second in range(150):
            await world.clock.sleep_until(began + second)
            calls.append(asyncio.create_task(world.chat(ASKED, stream=stream)))
        answers = await asyncio.gather(*calls)
        assert {answer.status for answer in answers} == {200}
        assert all(answer.text.endswith("You said: Hello") for answer in answers)

        by = [answer.headers["x-keyturn-provider"] for answer in answers]
        assert set(by[:10]) == {"openai"}, "premium answers while it can"
        assert "openai" not in by[11:70]
        assert {"groq", "gemini", "g4f"} == set(by[11:70])
        assert by[11:].index("g4f") >= 10, "fast and standard are used up before the last resort is asked"
        assert set(by[131:]) == {"openai"}, "premium gets the traffic back, when its rest of a minute at most is over"
        for answer, provider in zip(answers, by, strict=True):
            assert answer.headers.get("x-fallback-provider", "openai") == provider

        served = Counter(each.provider for each in world.seen(result="served"))
        assert served == Counter(by), "what clients were told is what the upstreams saw"
        assert served["g4f"] >= 30
        assert served["groq"] + served["gemini"] >= 15
        limited = world.seen(result="limited")
        assert len(limited) <= 4, "once their limits are known, fast and standard are not asked in vain"
        failed = [each for each in world.seen(provider="openai") if each.result == "faulted"]
        assert len(failed) <= 12, "who rests is probed, not hammered"
        assert len(asked(world)) == 150 + len(limited) + len(failed)

    tiered(story, out("openai", status=500, after=FROM, until=UNTIL), pool=POOL, latency=0.2)
