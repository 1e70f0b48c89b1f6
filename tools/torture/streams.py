"""Streams of every dialect that are cut at a random place: none may look whole to its client, none whole one cut.

The upstream decides where: after a random number of bytes or events, by a reset, a clean end, or an error in the
stream. What the client got is judged by the terminal mark of its own dialect, read from the bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any, Literal

from keyturn.simulator import Fault, KeyRule
from tests.scenario.shapes import DIALECTS, UPSTREAMS, ask
from tests.support import virtual
from tests.support.world import World

TERMINAL = {
    "openai_chat": b"data: [DONE]",
    "openai_responses": b"event: response.completed",
    "anthropic": b"event: message_stop",
    "gemini": b'"finishReason"',
}
"""What tells a client of the dialect that it has everything."""
TOLD = {
    "openai_chat": b'"error"',
    "openai_responses": b"event: error",
    "anthropic": b"event: error",
    "gemini": b'"error"',
}
"""What tells it that it has not."""
INSIDE: tuple[Literal["", "event", "character"], ...] = ("", "event", "character")
TOGETHER = 40
LONGEST = 2500
"""Bytes of a stream after which a cut may come; some streams are shorter and stay whole."""


def cut_streams(size: int, seed: int) -> list[str]:
    """*size* streams that are cut after output, and more before or not at all; what was wrong with any."""
    random = Random(seed)
    found: list[str] = []
    seen: Counter[str] = Counter()

    async def one(world: World, dialect: str, upstream: str) -> None:
        answer = await ask(world, dialect, UPSTREAMS[upstream], stream=True)
        whole, told = TERMINAL[dialect] in answer.body, TOLD[dialect] in answer.body
        if answer.status != 200:
            seen["refused before any output"] += 1
            return
        seen["whole" if whole else "cut and told"] += 1
        if whole == told:
            what = "both whole and cut" if whole else "neither whole nor told to be cut"
            found.append(f"{dialect} over {upstream} was {what}: {answer.body[-200:]!r}")

    async def main() -> None:
        names = {name.partition("/")[0] for name in UPSTREAMS.values()}
        pool = {name: [KeyRule()] for name in names}
        async with World(pool, environ={"OPENAI_DIALECT": "openai_responses"}, log_limit=100) as world:
            while seen["cut and told"] < size:
                world.upstream.script.clear()
                for _ in range(TOGETHER):
                    world.upstream.script.add(_fault(random))
                world.gateway.reset(None)
                pairs = [(random.choice(DIALECTS), random.choice(list(UPSTREAMS))) for _ in range(TOGETHER)]
                await asyncio.gather(*(one(world, *pair) for pair in pairs))
                await virtual.idle()
                if world.held() or world.gateway.inflight:
                    found.append(f"{world.held()} reservations and {world.gateway.inflight} calls are left over")
                    return
                if len(found) > 20:
                    return

    virtual.run(main)
    print(f"streams: {sum(seen.values()):,}, " + ", ".join(f"{count:,} {what}" for what, count in seen.most_common()))
    return found


def _fault(random: Random) -> Fault:
    """One cut; it meets one stream."""
    how: dict[str, Any] = {"times": 1, "stream": True, "kind": "chat"}
    how |= {"error": "overloaded"} if random.random() < 0.2 else {"does": random.choice(("reset", "end"))}
    if random.random() < 0.7:
        return Fault(**how, at_byte=random.randrange(LONGEST))
    return Fault(**how, at_chunk=random.randrange(6), inside=random.choice(INSIDE))
