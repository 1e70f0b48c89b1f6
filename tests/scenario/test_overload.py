"""An upstream that bears so many requests at once and refuses more: what is served when twice as much is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keyturn.core import INFLIGHT, Limit
from keyturn.simulator import Simulator
from tests.support import virtual, world
from tests.support.world import World

BEARS, TAKES = 10, 2.0
"""Requests at once, and seconds that each takes: it can serve BEARS / TAKES per second."""
BUSY = b'{"error":{"message":"The engine is currently overloaded, please try again later","type":"server_error"}}'


class Crowded(Simulator):
    """Answers at most BEARS requests at a time, any more with 503 at once."""

    inside = refused = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        self.inside += 1
        try:
            if self.inside > BEARS:
                self.refused += 1
                await send({"type": "http.response.start", "status": 503, "headers": [(b"content-type", b"text/json")]})
                await send({"type": "http.response.body", "body": BUSY})
            else:
                await super().__call__(scope, receive, send)
        finally:
            self.inside -= 1


@pytest.fixture(autouse=True)
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "Simulator", Crowded)


def served(load: float, *, stream: bool = False, learns: bool = True, seconds: float = 180.0) -> tuple[float, int]:
    """What share of what the upstream can bear was served at a *load* of so many times that, and its refusals."""
    found: list[float] = []
    refused = 0

    async def story() -> None:
        nonlocal refused
        async with World({"groq": 1}, latency=TAKES, environ={"CONCURRENCY_LEARNED": str(learns)}) as pool:
            start, draw = pool.clock.mono(), virtual.seeded(7)

            async def one() -> None:
                if (await pool.chat("groq/m", stream=stream)).status == 200:
                    found.append(pool.clock.mono() - start)

            tasks, now = [], 0.0
            while now < seconds:
                now += 2 * draw() * TAKES / (load * BEARS)
                await pool.clock.sleep_until(start + now)
                tasks.append(asyncio.ensure_future(one()))
            refused = pool.upstream.refused  # type: ignore[attr-defined]
            await asyncio.gather(*tasks)

    virtual.run(story, max_turns=20_000_000)
    return len([each for each in found if each <= seconds]) * TAKES / BEARS / seconds, refused


def test_twice_the_load_serves_nine_tenths_of_what_is_served_at_once_the_load() -> None:
    once, _ = served(1.0)
    twice, refused = served(2.0)
    assert twice >= 0.9 * once
    assert twice >= 0.9
    assert refused <= 6, "it is asked for more than it bears ever more rarely"


def test_streams_too() -> None:
    twice, refused = served(2.0, stream=True)
    assert twice >= 0.9
    assert refused <= 6


def test_without_learning_it_is_asked_for_too_much_again_and_again() -> None:
    assert served(1.5, learns=False, seconds=40.0)[1] > 30


def test_the_bound_is_a_learned_limit_with_its_evidence() -> None:
    async def story() -> None:
        async with World({"groq": 1}, latency=1.0) as pool:
            await pool.many("groq/m", 14)
            (row,) = [each for key in pool.gateway.keys() for each in limits_of(key) if each["source"] == "learned"]
            assert (row["metric"], row["model"]) == ("concurrency", "m")
            assert 9 <= row["capacity"] <= BEARS, "from seven tenths of 14"
            scopes = pool.gateway.live.meters.book.scopes()
            known = pool.gateway.live.meters.book.learned(Limit(scopes[0], "concurrency", INFLIGHT, 1))
            assert known is not None
            assert known[1].evidence
            await pool.clock.sleep_until(pool.clock.mono() + 601)
            assert "narrowing" in pool.gateway.adapting.alert
            for _ in range(2):
                await pool.chat("groq/m")
            assert "narrowing" not in pool.gateway.adapting.alert
            assert not [each for key in pool.gateway.keys() for each in limits_of(key) if each["source"] == "learned"]

    virtual.run(story)


def limits_of(key: dict[str, object]) -> list[dict[str, Any]]:
    rows = key["limits"]
    assert isinstance(rows, list)
    return rows
