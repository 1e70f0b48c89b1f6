"""A breaker that gateways share: what one finds out about a provider holds for all, on one real Redis."""

from __future__ import annotations

from keyturn.core import Breaker, Deployment, Seen, Transition
from tests.support import virtual
from tests.support.redis_server import Hub

from .test_redis_state import One, Shared

SCOPE = ("provider", "groq", "")
LLAMA = Deployment("groq", "llama")


def failed(one: One, breaker: Breaker) -> None:
    """An attempt of this gateway, begun a moment ago, met a fault."""
    for change in breaker.failed(one.marks, Seen(LLAMA, one.now - 0.01, one.now), lambda: 0.0):
        one.state.cool(change)


def answered(one: One, breaker: Breaker) -> None:
    for change in breaker.answered(one.marks, Seen(LLAMA, one.now - 0.01, one.now)):
        one.state.cool(change)


def test_one_opens_it_another_probes_and_all_go_on(redis_hub: Hub) -> None:
    async def main() -> None:
        world = Shared(redis_hub)
        first, second = await world.one(), await world.one()
        mine, other = Breaker(SCOPE), Breaker(SCOPE)
        resting = ("deployment", "groq", "llama")
        first.state.cool(Transition(resting, "cooling", first.now + 60.0, "overloaded", 6, first.now - 1))
        await world.passes(0.5)
        assert second.marks.get(resting) is not None
        for _ in range(20):
            failed(first, mine)
        await world.passes(0.1)
        mark = second.marks.blocked([SCOPE], second.now)
        assert mark is not None
        assert mark.block == "fault"
        assert second.marks.get(resting) is None, "what the outage had marked is taken off for all"
        await world.passes(5.0)
        assert second.marks.blocked([SCOPE], second.now) is None
        failed(second, other)
        await world.passes(0.1)
        lengthened = first.marks.blocked([SCOPE], first.now)
        assert lengthened is not None
        assert lengthened.strikes == 2
        await world.passes(7.0)
        for _ in range(3):
            await world.passes(0.1)
            answered(second, other)
        await world.passes(0.1)
        assert second.marks.get(SCOPE) is None
        assert first.marks.get(SCOPE) is None
        assert any(SCOPE in each.freed for each in first.learned), "who waits there is woken"
        for one in world.ones:
            await one.state.close()

    virtual.run(main)
