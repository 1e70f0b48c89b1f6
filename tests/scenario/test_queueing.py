"""Servers that queue what is too much for them, and providers that are slow for other reasons: who is sent less."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from math import exp, log
from statistics import median
from typing import Any, NamedTuple

import pytest

from keyturn.core import Draw
from keyturn.simulator import Simulator
from tests.support import virtual, world
from tests.support.world import World

FIRST = 0.2
"""Seconds until a stream begins on a server that is free, and more for each byte of its prompt."""
PER_BYTE = 2e-5
TAKES = 2.0
"""Seconds that an answer takes from then on, on average."""


class Server(Simulator):
    """Streams. At most `slots` at a time: others wait there, first come, first served."""

    slots = 10_000
    noise = 0.0
    """The spread of when streams begin, as a logarithm."""
    slowness: Callable[[float], float] = staticmethod(lambda now: 1.0)
    """By how much everything takes longer, by the seconds since the beginning."""
    varies: Callable[[Draw], float] = staticmethod(lambda draw: -log(1 - draw()))
    """How long an answer is, 1 on average."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.free = asyncio.Semaphore(self.slots)
        self.late: list[tuple[float, float]] = []
        """When each stream began, and how long that took."""
        self.ended: list[float] = []
        self.used = 0.0
        """Seconds that streams took here, without those that they waited."""
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/chat/completions"):
            await super().__call__(scope, receive, send)
            return
        came = self.elapsed()
        size = len((await receive())["body"])
        self.inside += 1
        try:
            async with self.free:
                slow = self.slowness(self.elapsed())
                spread = exp(self.noise * _normal(self.draw))
                await self._pass((FIRST + PER_BYTE * size) * spread * slow)
                self.late.append((self.elapsed(), self.elapsed() - came))
                await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
                await send({"type": "http.response.body", "body": chunk("Hello"), "more_body": True})
                await self._pass(TAKES * self.varies(self.draw) * slow)
                last = chunk(None) + b"data: [DONE]\n\n"
                await send({"type": "http.response.body", "body": last, "more_body": False})
                self.ended.append(self.elapsed())
        finally:
            self.inside -= 1

    async def _pass(self, seconds: float) -> None:
        self.used += seconds
        await self.clock.sleep_until(self.clock.mono() + seconds)


EVENTS = (b"content-type", b"text/event-stream")


def _normal(draw: Draw) -> float:
    return sum(draw() for _ in range(12)) - 6.0


def chunk(text: str | None) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if text is None else None}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Day(NamedTuple):
    """What came of it."""

    pace: float
    """Answers that ended per second."""
    used: float
    """How many were answered at a time, on average."""
    late: float
    """Seconds until streams began at the server, the median."""
    refused: int
    inside: int
    """The most that were there at once."""
    limits: list[int]
    """The bound, looked at each second; 0 while there is none."""


def play(
    monkeypatch: pytest.MonkeyPatch,
    rate: float,
    seconds: float,
    *,
    learns: bool = True,
    settle: float = 60.0,
    **how: Any,
) -> Day:
    """*rate* calls per second for so long; what is told is of the time after *settle* seconds."""
    server = type("Playing", (Server,), {name: staticmethod(it) if callable(it) else it for name, it in how.items()})
    monkeypatch.setattr(world, "Simulator", server)
    found: list[Day] = []

    async def story() -> None:
        environ = {"CONCURRENCY_LEARNED": str(learns), "TIMEOUT_FIRST_TOKEN": "1000", "TIMEOUT_TOTAL": "3000"}
        async with World({"groq": 1}, environ=environ) as pool:
            start, draw, upstream = pool.clock.mono(), virtual.seeded(11), pool.upstream
            assert isinstance(upstream, Server)
            refused, limits, inside, used = 0, [], 0, 0.0

            async def one() -> None:
                nonlocal refused
                answer = await pool.chat("groq/m", stream=True, text="x" * int(2000 * draw()))
                refused += answer.status != 200

            tasks, now, second = [], 0.0, 0.0
            while now < seconds:
                now -= log(1 - draw()) / rate
                await pool.clock.sleep_until(start + now)
                tasks.append(asyncio.ensure_future(one()))
                if now <= settle:
                    used = upstream.used
                else:
                    inside = max(inside, upstream.inside)
                if now >= second:
                    second += 1.0
                    limits.append(bounds_of(pool))
            late = median(took for when, took in upstream.late if when > settle)
            used = (upstream.used - used) / (seconds - settle)
            ended = sum(settle < when <= seconds for when in upstream.ended)
            found.append(Day(ended / (seconds - settle), used, late, refused, inside, limits))
            await asyncio.gather(*tasks)

    virtual.run(story, max_turns=20_000_000)
    return found[0]


def bounds_of(pool: World) -> int:
    """How many may be under way; 0 while that is not bounded."""
    book = pool.gateway.live.meters.book
    return next((limit.capacity for limit, _ in book.every_learned() if limit.metric == "concurrency"), 0)


def full(slots: int) -> float:
    """Answers per second of a server that is never idle."""
    return slots / (TAKES + FIRST + PER_BYTE * 1100)


@pytest.mark.parametrize(("slots", "seconds"), [(4, 100.0)])
def test_a_server_that_queues_is_sent_hardly_more_than_it_can_do(
    monkeypatch: pytest.MonkeyPatch, slots: int, seconds: float
) -> None:
    before = play(monkeypatch, 2 * full(slots), seconds, slots=slots, learns=False)
    day = play(monkeypatch, 2 * full(slots), seconds, slots=slots)
    assert day.used >= 0.95 * slots
    assert day.late <= before.late / 10
    assert before.inside > 8 * slots
    assert day.inside <= 2 * slots + 4
    assert slots <= day.limits[-1] <= slots + 3
    assert day.refused > 0, "who would have waited for too long is told so, instead of waiting there"


@pytest.mark.parametrize("how", [{"noise": 0.6}, {"varies": lambda draw: 10 ** (2 * draw() - 1)}])
def test_a_provider_that_does_not_queue_is_left_alone(monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]) -> None:
    day = play(monkeypatch, 4.0, 60.0, settle=0.0, **how)
    assert set(day.limits) == {0}
    assert day.refused == 0
    assert day.inside > 8


def test_a_provider_that_is_slow_for_long_is_soon_sent_as_much_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowness(now: float) -> float:
        return 2.5 if now > 60.0 else 1.0

    day = play(monkeypatch, 4.0, 240.0, settle=150.0, noise=0.2, slowness=slowness)
    slow = [limit for limit in day.limits if limit]
    assert slow, "it was tried whether fewer help"
    assert min(slow) >= 5
    assert len(slow) <= 30, "seconds: a trial, not a bound that stays"
    assert day.pace >= 0.95 * 4.0
