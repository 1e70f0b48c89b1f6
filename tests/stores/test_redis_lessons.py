"""Limits that one gateway learns become known to the others on the same Redis, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keyturn.core import MINUTE, UNKNOWN, Grounds, Limit
from keyturn.stores import Learned
from keyturn.stores.redis_lessons import Lessons
from tests.support import virtual

from .test_redis_state import RPM, SCOPE, Shared, shared

__all__ = ["shared"]

LEARNED = Limit(SCOPE, "requests", MINUTE, 3, "learned")
WALL = virtual.START_WALL


def grounds(at: float, *evidence: str) -> Grounds:
    return Grounds(WALL + at, evidence, 4, 6)


def test_what_one_learns_others_obey_at_once_and_who_comes_later_too(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        second.state.declare(SCOPE, [RPM])
        first.state.learn(LEARNED, grounds(1.0, "a1", "a2"), first.now)
        await virtual.idle()
        assert second.state.limits(SCOPE) == (LEARNED,)
        assert second.state.meters.book.learned(RPM) == (LEARNED, grounds(1.0, "a1", "a2"))
        assert second.learned == [Learned(taught=(LEARNED,))]
        assert first.learned == []
        third = await world.one()
        assert third.state.limits(SCOPE) == (LEARNED,)
        assert third.learned == [Learned(taught=(LEARNED,))]

    shared(main)


def test_the_latest_word_holds_and_forgetting_is_a_word(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        await world.passes(10.0)
        first.state.learn(LEARNED, grounds(5.0), first.now)
        second.state.learn(replace(LEARNED, capacity=2), grounds(3.0), second.now)
        await virtual.idle()
        assert second.state.limits(SCOPE)[0].capacity == 3
        assert first.state.limits(SCOPE)[0].capacity == 3
        second.state.forget(LEARNED, "learned")
        await virtual.idle()
        assert first.state.limits(SCOPE) == ()
        assert (await world.one()).state.limits(SCOPE) == ()
        assert first.learned[-1] == Learned(taught=(replace(LEARNED, capacity=1),))

    shared(main)


def test_what_is_counted_to_learn_from_is_counted_by_all(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        counted = replace(LEARNED, capacity=UNKNOWN)
        first.state.learn(counted, grounds(0.0), first.now)
        await virtual.idle()
        for number in range(10):
            one = (first, second)[number % 2]
            await one.spend(f"n{number}", *one.state.charged(SCOPE))
        assert (await world.used(first, counted)) == (10, 0)
        assert second.state.view(0.0).row(counted, second.now).used == 10
        assert first.state.limits(SCOPE) == ()

    shared(main)


def test_a_redis_that_lost_everything_is_told_again(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one = await world.one()
        one.state.learn(LEARNED, grounds(1.0), one.now)
        world.hub.forget()
        await one.link.come_back(lost=True)
        assert (await world.one()).state.limits(SCOPE) == (LEARNED,)

    shared(main)


def test_redis_keeps_a_bounded_number_and_lets_the_old_go(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one = await world.one()
        for number in range(12):
            one.state.learn(Limit(f"groq/old{number}|m", "requests", MINUTE, 3, "learned"), grounds(-40 * 86_400), 0.0)
        one.state.learn(LEARNED, grounds(0.0), one.now)
        one.state.learn(LEARNED, grounds(1.0), one.now)
        await virtual.idle()
        later = await world.one()
        assert [limit for limit, _ in later.state.meters.book.every_learned()] == [LEARNED]

    shared(main)


def test_words_that_are_none_are_passed_over() -> None:
    from keyturn.core import Meters

    meters = Meters()
    lessons = Lessons("g", meters, lambda: WALL)
    good = str(lessons.told(LEARNED, grounds(0.0))[-1])
    bad = ["", "[]", '["s","weight","rolling",60,"UTC",3,0]', '["s","requests","square",60,"UTC",3,0]', "{"]
    assert lessons.take([*bad, good], 0.0) == (LEARNED,)
    half = Limit("groq/g|\udc80", "requests", MINUTE, 3, "learned")
    assert lessons.take([str(lessons.told(half, grounds(0.0))[-1])], 0.0) != ()
