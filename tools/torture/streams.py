"""Streams of every dialect that are cut at a random place: none may look whole to its client, none whole one cut.

The upstream decides where: after a random number of bytes or events, by a reset, a clean end, or an error in the
stream. What the client got is judged by the events of its own dialect, read from the bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random
from typing import Any, Literal, NamedTuple

from keyturn.simulator import Fault, KeyRule
from tests.scenario.shapes import DIALECTS, UPSTREAMS, ask
from tests.support import virtual
from tests.support.world import World

LAST = ("response.completed", "response.incomplete", "message_stop")
"""Types of the events that end a stream."""
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
        if answer.status != 200:
            seen["refused before any output"] += 1
            return
        read = end_of(answer.body)
        seen["cut and told" if read.told else "whole"] += 1
        if wrong := judged(read):
            found.append(f"{dialect} over {upstream} was {wrong}: {answer.body[-200:]!r}")

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


class End(NamedTuple):
    """How a stream ended, as its client reads it."""

    ended: bool
    """By the terminal event of its dialect."""
    finished: bool
    """With the reason why the model stopped: all of its text is there, even when the terminal event is not."""
    told: bool
    """By an error event."""


def end_of(body: bytes) -> End:
    """Read from whole events alone, of whichever dialect."""
    ended = finished = told = False
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
        data = b"\n".join(line[6:] for line in block.split(b"\n") if line.startswith(b"data: "))
        if data == b"[DONE]":
            ended = True
            continue
        try:
            row = json.loads(data)
        except ValueError:
            continue
        told = told or "error" in row or row.get("type") == "error"
        ended = ended or row.get("type") in LAST
        choices = [*row.get("choices", ()), *row.get("candidates", ())]
        reasons = [each.get("finish_reason") or each.get("finishReason") for each in choices]
        finished = finished or any(reasons) or bool(row.get("delta", "") and "stop_reason" in row["delta"])
    return End(ended, finished, told)


def judged(end: End) -> str:
    """What is wrong with such an end; empty when nothing is."""
    if end.told and end.ended:
        return "both whole and cut"
    return "" if end.told or end.ended or end.finished else "neither whole nor told to be cut"


def _fault(random: Random) -> Fault:
    """One cut; it meets one stream."""
    how: dict[str, Any] = {"times": 1, "stream": True, "kind": "chat"}
    how |= {"error": "overloaded"} if random.random() < 0.2 else {"does": random.choice(("reset", "end"))}
    if random.random() < 0.7:
        return Fault(**how, at_byte=random.randrange(LONGEST))
    return Fault(**how, at_chunk=random.randrange(6), inside=random.choice(INSIDE))
