"""The live state that gateways share, several of them on one real Redis, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from keyturn.core import MINUTE, Claim, Cost, Denied, Limit, Marks, Transition, Usage, Window, claims
from keyturn.errors import LimiterUnavailable
from keyturn.stores import Learned, Reservation
from keyturn.stores.redis_counts import figures_of
from keyturn.stores.redis_port import Away
from keyturn.stores.redis_state import RedisState
from tests.support import virtual
from tests.support.redis_server import Hub, SyncLink

SCOPE = "groq/g1|llama"
RPM = Limit(SCOPE, "requests", MINUTE, 4)
TPM = Limit(SCOPE, "tokens", MINUTE, 1000)
RPD = Limit(SCOPE, "requests", Window("calendar", 86_400.0), 100)
MOST = Limit(SCOPE, "concurrency", Window("inflight"), 2)
OWN = Limit("caller/ci", "requests", MINUTE, 4, owner="caller")
BUDGET = Limit("role/dev", "cost", Window("month", 31 * 86_400.0), 1000, owner="caller")
USUAL = Cost(100, 50)
KEY = ("key", "groq", "abc")
OTHER = ("key", "groq", "def")
Main = Callable[["Shared"], Awaitable[None]]


class One:
    """One gateway's state, and what it was told."""

    def __init__(self, hub: Hub, clock: virtual.VirtualClock, name: str, replicas: int, more: dict[str, Any]) -> None:
        self.clock = clock
        self.link: SyncLink = hub.link(clock.mono, replicas)
        self.link.shift = virtual.START_WALL - virtual.START_MONO
        self.marks = Marks()
        self.state = RedisState(self.link, self.marks, clock, name=name, prefix=hub.prefix, **more)
        self.woken: list[str] = []
        self.learned: list[Learned] = []
        self.state.subscribe(self.woken.append)
        self.state.follow(self.learned.append)

    @property
    def now(self) -> float:
        return self.clock.mono()

    def ask(self, name: str, *limits: Limit, cost: Cost = USUAL, scopes: Any = ()) -> Any:
        return self.state.reserve(name, claims(limits, cost), self.now, scopes)

    async def reserve(self, name: str, *limits: Limit, cost: Cost = USUAL, scopes: Any = ()) -> Any:
        got = self.ask(name, *limits, cost=cost, scopes=scopes)
        return got if isinstance(got, Reservation | Denied) else await got

    async def spend(self, name: str, *limits: Limit, cost: Cost = USUAL) -> Any:
        """A reservation that is counted and settled at once."""
        got = await self.reserve(name, *limits, cost=cost)
        if isinstance(got, Reservation):
            self.state.counted(name, self.now)
            self.state.settle(name, Usage(cost.input, cost.output, cost=cost.money), self.now)
        return got

    def cool(self, scope: tuple[str, ...], seconds: float, **more: Any) -> None:
        self.state.cool(Transition(scope, "cooling", self.now + seconds, "rate_limited", 1, self.now, **more))


class Shared:
    """Gateways on one Redis."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.clock = virtual.VirtualClock()
        self.ones: list[One] = []

    async def one(self, replicas: int = 1, **more: Any) -> One:
        made = One(self.hub, self.clock, f"g{len(self.ones)}", replicas, more)
        self.ones.append(made)
        await made.state.open()
        return made

    async def passes(self, seconds: float) -> None:
        await self.clock.sleep_until(self.clock.mono() + seconds)
        await virtual.idle()

    async def used(self, one: One, limit: Limit) -> tuple[int, int]:
        """What all gateways used and hold of *limit*, as Redis tells *one*."""
        _, (row,) = await one.state.ask("figures", one.state.spec(limit))
        return figures_of(row)[:2]


@pytest.fixture
def shared(redis_hub: Hub) -> Callable[[Main], None]:
    def run(main: Main) -> None:
        async def whole() -> None:
            world = Shared(redis_hub)
            try:
                await main(world)
            finally:
                for one in world.ones:
                    await one.state.close()

        virtual.run(whole)

    return run


def test_gateways_share_a_limit_with_one_round_trip_each(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        for number, one in enumerate((first, second, first, second)):
            assert isinstance(await one.spend(f"n{number}", RPM, TPM), Reservation)
        assert first.link.sent["reserve"] == second.link.sent["reserve"] == 2
        denied = await first.reserve("late", RPM, TPM)
        assert (denied.limit, denied.wait > 55.0) == (RPM, True)
        assert first.link.sent["reserve"] == 3
        assert await first.reserve("later", RPM, TPM) == denied  # as much is not asked for again
        assert first.link.sent["reserve"] == 3
        assert await world.used(second, RPM) == (4, 0)
        await world.passes(61.0)
        assert isinstance(await first.reserve("n9", RPM, TPM), Reservation)

    shared(main)


def test_what_only_others_hold_comes_free_with_their_news(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        await first.reserve("a", MOST)
        await first.reserve("b", MOST)
        denied = await second.reserve("c", MOST)
        assert denied.busy
        assert second.woken == []
        first.state.settle("a", Usage(1, 1), first.now)
        await virtual.idle()
        assert second.woken == [SCOPE]
        assert first.woken == []  # nobody was denied there
        assert isinstance(await second.reserve("c", MOST), Reservation)

    shared(main)


def test_a_limit_that_is_larger_now_wakes_who_was_denied(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        second.state.declare(SCOPE, [MOST])
        for name in "ab":
            await first.reserve(name, MOST)
        assert (await second.reserve("c", MOST)).busy
        second.state.declare(SCOPE, [MOST])
        assert second.woken == []
        larger = replace(MOST, capacity=3)
        second.state.declare(SCOPE, [larger])
        assert second.woken == [SCOPE]
        assert isinstance(await second.reserve("c", larger), Reservation)

    shared(main)


def test_a_lost_wake_is_made_up_for(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        await first.reserve("a", MOST)
        await first.reserve("b", MOST)
        second.link.deaf = True
        assert (await second.reserve("c", MOST)).busy
        first.state.settle("a", Usage(1, 1), first.now)
        await world.passes(2.5)
        assert second.woken == [SCOPE]

    shared(main)


def test_claims_are_all_or_nothing_and_what_is_limited_by_nothing_is_not_asked_for(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        await second.spend("x", TPM, cost=Cost(900, 0))
        denied = await first.reserve("a", RPM, TPM, MOST, OWN)
        assert denied.limit == TPM
        assert [await world.used(first, each) for each in (RPM, MOST, OWN)] == [(0, 0)] * 3
        assert first.state.held() == 0
        asked = first.link.sent["reserve"]
        assert isinstance(first.ask("free"), Reservation)
        assert first.link.sent["reserve"] == asked

    shared(main)


def test_the_same_id_again_and_a_released_one(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one = await world.one()
        for _ in range(2):
            assert isinstance(await one.reserve("a", RPM), Reservation)
        assert await world.used(one, RPM) == (0, 1)
        one.state.release("a")
        assert world.hub.keys("t:") == ["t:a"]
        denied = await one.reserve("a", RPM)
        assert denied.limit.scope == "released"
        assert await world.used(one, RPM) == (0, 0)
        one.state.settle("a", Usage(1, 1), one.now)
        one.state.counted("a", one.now)
        assert await world.used(one, RPM) == (0, 0)

    shared(main)


def test_a_grant_that_comes_after_its_caller_left_is_given_back(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one = await world.one()
        one.link.late = []
        asked = one.ask("a", MOST)
        waiting = asyncio.ensure_future(one_of(asked))
        await virtual.idle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        asked.close()
        asked.close()
        one.link.deliver()
        one.link.late = None
        assert one.state.held() == 0
        assert await world.used(one, MOST) == (0, 0)
        assert world.hub.client.zcard(world.hub.base + "leases") == 0

    shared(main)


async def one_of(asked: Any) -> Any:
    return await asked


def test_a_gateway_that_dies_blocks_concurrency_for_less_than_a_minute(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        for name in "ab":
            await first.reserve(name, MOST, RPM, TPM)
        first.link.leave()
        first.link.deaf = True
        assert (await second.reserve("c", MOST)).busy
        await world.passes(51.0)
        assert isinstance(await second.reserve("c", MOST), Reservation)
        assert await world.used(second, RPM) == (2, 0)  # the upstream may well have counted them
        assert await world.used(second, TPM) == (300, 0)
        assert world.hub.keys("r:") == ["r:c"]

    shared(main)


def test_what_is_under_way_for_long_stays_held(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        for name in "ab":
            await first.reserve(name, MOST)
        await world.passes(170.0)
        assert (await second.reserve("c", MOST)).busy

    shared(main)


# --- marks and round robins


def test_a_cooldown_is_known_to_all_at_once_and_only_ever_lengthened(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        first.cool(KEY, 60.0)
        await virtual.idle()
        mark = second.state.view(0.0).blocked([KEY], second.now)
        assert mark is not None
        assert mark.until == pytest.approx(second.now + 60.0, abs=1e-5)
        first.state.cool(Transition(KEY, "cooling", first.now + 60.0, "rate_limited", 3, first.now))
        second.cool(KEY, 20.0)
        await virtual.idle()
        third = await world.one()
        for one in (first, second, third):
            found = one.marks.get(KEY)
            assert found is not None
            assert found.until == pytest.approx(one.now + 60.0, abs=1e-5)
        assert third.marks.get(KEY).strikes == 3  # type: ignore[union-attr]
        second.cool(KEY, 5.0, shorten=True)
        await virtual.idle()
        assert first.learned[-1] == Learned(freed=(KEY,))
        assert first.marks.get(KEY).until == pytest.approx(first.now + 5.0, abs=1e-5)  # type: ignore[union-attr]

    shared(main)


def test_a_success_clears_no_mark_that_another_set_after_it_began(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        began = first.now
        first.cool(KEY, 60.0)
        await world.passes(5.0)
        second.link.deaf = True
        first.cool(KEY, 90.0)
        second.state.cool(Transition(KEY, None, started=began + 2.0))
        await virtual.idle()
        assert first.marks.get(KEY) is not None
        assert (await world.one()).marks.get(KEY) is not None
        first.state.cool(Transition(KEY, None, started=first.now))
        await virtual.idle()
        assert first.marks.get(KEY) is None
        first.state.cool(Transition(OTHER, "disabled", float("inf"), "disabled", 0, first.now))
        second.link.deaf = False
        await world.passes(1.5)
        assert second.marks.get(OTHER).until == float("inf")  # type: ignore[union-attr]
        second.state.cool(Transition(OTHER, None))
        await virtual.idle()
        assert first.marks.get(OTHER) is None

    shared(main)


def test_a_rest_that_no_success_ends_is_ended_for_all_by_its_owner(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        until = first.now + 100.0
        first.state.cool(Transition(KEY, "cooling", until, "custom_cap", 0, until))
        await virtual.idle()
        second.state.cool(Transition(OTHER, None, started=first.now))
        first.state.cool(Transition(KEY, None, started=first.now))
        await virtual.idle()
        assert second.marks.get(KEY) is not None
        second.state.cool(Transition(KEY, None))
        await virtual.idle()
        assert world.hub.client.hget(world.hub.base + "marks", '["key","groq","abc"]').split()[4] == b"-"
        first.cool(OTHER, 60.0)
        first.state.cool(Transition(KEY, "cooling", until, "custom_cap", 0, until))
        await virtual.idle()
        assert second.marks.get(KEY) is not None
        first.state.cool(Transition(KEY, None))  # as `keys reset` there
        await virtual.idle()
        assert second.marks.get(KEY) is None
        assert second.marks.get(OTHER) is not None
        assert second.learned[-1] == Learned(freed=(KEY,))

    shared(main)


def test_a_reservation_tells_of_a_cooldown_whose_message_was_lost(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        second.link.deaf = True
        first.cool(KEY, 60.0)
        assert await second.reserve("a", RPM, scopes=[OTHER, KEY]) is None
        assert second.marks.blocked([KEY], second.now) is not None
        assert second.state.held() == 0
        assert await world.used(second, RPM) == (0, 0)
        first.cool(("key", "groq", "ghi"), 60.0)
        assert isinstance(await second.reserve("b", RPM, scopes=[OTHER]), Reservation)
        assert len(second.marks.every()) == 2
        first.cool(("key", "groq", "jkl"), 60.0)
        assert isinstance(await second.reserve("c", RPM, scopes=[KEY]), Reservation)  # it knew of that one

    shared(main)


def test_many_changes_at_once_are_looked_up_and_a_missed_one_within_a_second(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        second.link.deaf = True
        for number in range(200):
            first.cool(("key", "groq", f"k{number}"), 60.0)
        assert await second.reserve("a", RPM, scopes=[("key", "groq", "k199")]) is None
        await virtual.idle()
        assert len(second.marks.every()) == 200
        first.cool(KEY, 60.0)
        await world.passes(1.5)
        assert second.marks.get(KEY) is not None
        second.link.deaf = False
        first.cool(OTHER, 60.0)
        await virtual.idle()
        assert second.marks.get(OTHER) is not None

    shared(main)


def test_round_robins_move_together(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        first.state.turn("groq", 3)
        await virtual.idle()
        assert second.learned == [Learned(turned=(("groq", 3),))]
        assert first.learned == []
        third = await world.one()
        assert third.learned == [Learned(turned=(("groq", 3),))]

    shared(main)


# --- Redis is away


def test_while_redis_is_away_each_gateway_goes_on_with_its_part(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(replicas=2), await world.one(replicas=2)
        await first.spend("a", RPM)
        await second.spend("b", RPM)
        await first.spend("c", RPM)  # one of four is left, as far as the first knows
        for one in (first, second):
            one.link.leave()
        assert not first.state.standing().reachable
        assert isinstance(first.ask("d", RPM), Denied)  # half of one is none
        await world.passes(61.0)
        for name in "ef":
            assert isinstance(first.ask(name, RPM), Reservation)
            first.state.counted(name, first.now)
            first.state.settle(name, Usage(1, 1), first.now)
        denied = first.ask("g", RPM)
        assert denied.limit == RPM
        assert isinstance(second.ask("h", OWN), Reservation)
        await first.link.come_back()
        assert await world.used(first, RPM) == (2, 0)
        assert isinstance(await first.reserve("i", RPM), Reservation)
        await second.link.come_back()
        assert await world.used(first, OWN) == (0, 1)

    shared(main)


def test_while_redis_is_away_who_is_denied_is_told_how_long_it_is(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(replicas=2), await world.one(replicas=2)
        six = replace(RPM, capacity=6)
        for number in range(3):
            await first.spend(f"a{number}", six)
        for number in range(2):
            await second.spend(f"b{number}", six)
        await world.passes(20.0)
        first.link.leave()
        away = first.now
        denied = first.ask("c", six)  # half of the one that was left is none, until the first window is over
        assert (denied.limit, denied.wait, denied.wait_any) == (six, 60.0, 60.0)
        await world.passes(59.9)
        assert first.ask("d", six).wait == pytest.approx(away + 60.0 - first.now)
        await world.passes(0.1)
        for number in range(3):
            assert isinstance(await first.spend(f"e{number}", six), Reservation)
        wait = first.ask("f", six).wait
        assert 60.0 <= wait <= 62.0, "until the own use leaves the window"
        await world.passes(wait - 0.1)
        assert isinstance(first.ask("g", six), Denied)
        await world.passes(0.1)
        assert isinstance(await first.spend("h", six), Reservation)

    shared(main)


def test_while_redis_is_away_the_part_may_widen_before_own_use_leaves_it(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(replicas=2), await world.one(replicas=2)
        for one in (first, second):
            await one.spend(f"{one.state.name}-before", TPM, cost=Cost(300, 0))
        await first.spend("known", TPM, cost=Cost(1, 0))
        first.link.leave()
        small, large = Cost(150, 0), Cost(501, 0)
        began = first.now
        assert isinstance(await first.spend("a", TPM, cost=small), Reservation)  # of 199
        denied = first.ask("b", TPM, cost=small)
        assert denied.wait == pytest.approx(60.0, abs=2.0)
        assert denied.wait_any == 0.0, "a smaller one fits"
        denied = first.ask("c", TPM, cost=large)
        assert (denied.wait, denied.wait_any) == (5.0, 0.0), "it is larger than half of the limit"
        await world.passes(30.0)
        assert isinstance(await first.spend("d", TPM, cost=Cost(49, 0)), Reservation)
        denied = first.ask("e", TPM, cost=small)
        assert began + 60.0 <= first.now + denied.wait <= began + 63.0
        await world.passes(denied.wait)
        assert isinstance(await first.spend("f", TPM, cost=small), Reservation)
        await world.passes(3.0)
        assert isinstance(first.ask("g", TPM, cost=large), Denied)
        first.woken.clear()
        await first.link.come_back()
        assert SCOPE in first.woken
        assert isinstance(await first.reserve("h", TPM, cost=large), Reservation)

    shared(main)


def test_a_bucket_is_waited_for_as_long_as_it_takes_while_redis_is_away(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(replicas=2), await world.one(replicas=2)
        bucket = replace(TPM, window=Window("bucket", 60.0))
        await second.spend("others", bucket, cost=Cost(600, 0))
        await first.spend("known", bucket, cost=Cost(1, 0))
        first.link.leave()
        assert isinstance(await first.spend("a", bucket, cost=Cost(190, 0)), Reservation)
        for number in range(40):
            denied = first.ask(f"b{number}", bucket, cost=Cost(400 - 5 * number, 0))
            if isinstance(denied, Reservation):
                first.state.release(f"b{number}")
            else:
                assert denied.wait > 0.0
                assert denied.limit == bucket
            await world.passes(2.0)
        assert isinstance(first.ask("c", bucket, cost=Cost(400, 0)), Reservation)

    shared(main)


def test_what_only_held_is_in_the_way_while_redis_is_away_is_not_waited_for_by_time(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one = await world.one(least_replicas=2)
        one.link.leave()
        assert isinstance(one.ask("a", MOST, RPM), Reservation)
        denied = one.ask("b", MOST, RPM)
        assert (denied.limit, denied.busy) == (MOST, True)
        one.state.release("a")
        assert SCOPE in one.woken
        assert isinstance(one.ask("c", MOST, RPM), Reservation)

    shared(main)


def test_what_others_used_of_late_is_known_when_redis_goes(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(replicas=2), await world.one(replicas=2)
        eight = replace(RPM, capacity=8)
        await first.spend("a", eight)
        for number in range(5):
            await second.spend(f"b{number}", eight)
        await world.passes(1.6)
        first.link.leave()
        assert isinstance(await first.reserve("c", eight), Reservation)  # half of the two that were left
        assert isinstance(await first.reserve("d", eight), Denied)
        await world.passes(200.0)
        await first.link.come_back()
        asked = first.link.sent["figures"]
        await world.passes(10.0)
        assert first.link.sent["figures"] == asked  # of what nobody claims any more nobody asks

    shared(main)


@pytest.mark.parametrize("without", ["open", "closed", "local_share"])
def test_policies_while_redis_is_away(shared: Any, without: str) -> None:
    async def main(world: Shared) -> None:
        one = await world.one(replicas=1, without=without, least_replicas=4)
        one.state.link.leave()  # type: ignore[attr-defined]
        with pytest.raises(LimiterUnavailable) as caught:
            one.ask("money", BUDGET, RPM, cost=Cost(1, 1, money=1))
        assert 1.0 <= (caught.value.retry_after or 0.0) <= 3.0
        assert isinstance(one.ask("own", OWN), Reservation)
        if without == "closed":
            with pytest.raises(LimiterUnavailable):
                one.ask("a", RPM)
            return
        got = [isinstance(one.ask(f"n{number}", RPM), Reservation) for number in range(6)]
        assert got == ([True] * 6 if without == "open" else [True] + [False] * 5)
        assert one.state.held() == sum(got) + 1
        await one.link.come_back()
        assert await world.used(one, RPM) == (0, sum(got))

    shared(main)


def test_an_answer_that_does_not_come_costs_no_call_and_leaks_nothing(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one = await world.one()
        one.link.silent = True
        got = await one.reserve("a", RPM, MOST)
        assert isinstance(got, Reservation)
        one.link.silent = False
        assert await world.used(one, MOST) == (0, 1)
        one.state.counted("a", one.now)
        one.state.settle("a", Usage(1, 1), one.now)
        assert await world.used(one, RPM) == (1, 0)
        assert await world.used(one, MOST) == (0, 0)
        assert world.hub.client.zcard(world.hub.base + "leases") == 0
        one.link.silent = True
        with pytest.raises(LimiterUnavailable):
            await one.reserve("b", BUDGET, cost=Cost(1, 1, money=10))
        one.link.silent = False
        assert await world.used(one, BUDGET) == (0, 0)
        assert one.state.held() == 0

    shared(main)


def test_while_redis_only_hesitates_a_gateway_asks_again_and_does_not_decide_alone(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one, two = await world.one(), await world.one()
        for name in ("a", "b", "c"):
            assert isinstance(await two.spend(name, RPM), Reservation)
        one.link.silent = True
        asked = one.ask("d", RPM)
        one.link.silent = False
        assert isinstance(await asked, Reservation)  # granted the first time; the answer got lost
        assert one.link.sent["reserve"] == 2
        assert await world.used(one, RPM) == (3, 1)
        one.link.silent = True
        asked = one.ask("e", RPM)
        one.link.silent = False
        assert isinstance(await asked, Denied)
        assert await world.used(one, RPM) == (3, 1)
        one.state.release("d")
        assert one.state.held() == 0

    shared(main)


def test_what_ended_while_redis_was_away_is_told_afterwards(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        await first.reserve("a", TPM, MOST)
        first.state.counted("a", first.now)
        await first.reserve("b", TPM, MOST)
        first.link.leave()
        first.state.settle("a", Usage(10, 10), first.now)
        first.state.release("b")
        first.cool(KEY, 60.0)
        first.state.turn("groq", 2)
        assert first.state.standing().queued == 4
        second.cool(OTHER, 60.0)
        await first.link.come_back()
        await virtual.idle()
        assert first.state.standing().queued == 0
        assert await world.used(second, TPM) == (20, 0)
        assert await world.used(second, MOST) == (0, 0)
        assert second.marks.get(KEY) is not None
        assert first.marks.get(OTHER) is not None
        assert second.learned[-1] == Learned(turned=(("groq", 2),))

    shared(main)


def test_a_redis_that_comes_back_without_its_last_writes_is_told_them_again(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(replicas=2), await world.one(replicas=2)
        ones = (first, second)
        for one in ones:
            await one.spend(f"before {one.state.name}", RPM, RPD, TPM, cost=Cost(50, 50))
        await world.passes(5.0)
        put_back, moment = world.hub.snapshot(), first.now + first.link.shift
        await world.passes(1.0)
        await first.spend("a", RPM, RPD, TPM, cost=Cost(50, 50))
        await second.reserve("b", TPM, MOST)
        await second.spend("c", RPD)
        for one in ones:
            one.link.leave()
        put_back()
        await second.spend("away", TPM, cost=Cost(10, 10))
        for one in ones:
            one.link.rewound = moment
            if one is first:
                one.link.silent = True  # all of it is done, but Redis goes before it says so
                with pytest.raises(Away):
                    await one.link.come_back()
                one.link.silent = False
            await one.link.come_back()
        assert await world.used(first, RPM) == (3, 0)
        assert await world.used(first, RPD) == (4, 0)
        assert await world.used(first, MOST) == (0, 1)
        used, held = await world.used(first, TPM)
        assert (used + held, held) == (300 + 20 + 2 * 150, 150)  # what is under way counts twice for a while
        second.state.settle("b", Usage(100, 50), second.now)
        await world.passes(70.0)
        assert await world.used(first, TPM) == (0, 0)
        assert await world.used(first, RPD) == (4, 0)

    shared(main)


@pytest.mark.parametrize("lost", [False, True])
def test_making_up_for_a_loss_may_be_cut_short_and_begun_again(shared: Any, lost: bool) -> None:
    async def main(world: Shared) -> None:
        one = await world.one()
        await one.spend("a", TPM)
        one.link.leave()
        if lost:
            world.hub.forget()
        await one.reserve("b", TPM, MOST)
        one.state.counted("b", one.now)
        await one.spend("c", TPM)
        one.link.silent = True  # all of it is done, but Redis goes before it says so
        with pytest.raises(Away):
            await one.link.come_back(lost=lost)
        one.link.leave()
        one.link.silent = False
        await one.link.come_back()
        assert await world.used(one, TPM) == (450, 0)
        assert await world.used(one, MOST) == (0, 1)
        one.state.settle("b", Usage(100, 50), one.now)
        assert await world.used(one, MOST) == (0, 0)
        assert await world.used(one, TPM) == (450, 0)

    shared(main)


def test_an_emptied_redis_is_told_all_again(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(replicas=2), await world.one(replicas=2)
        for one in (first, second):
            one.state.take(BUDGET, 300, one.now)
        await first.spend("a", RPM, TPM)
        await second.spend("b", RPM, TPM)
        await first.reserve("c", RPM, MOST, BUDGET, cost=Cost(1, 1, money=200))
        first.state.counted("c", first.now)
        first.cool(KEY, 600.0)
        first.state.turn("groq", 5)
        await virtual.idle()
        for one in (first, second):
            one.link.leave()
        world.hub.forget()
        back = asyncio.ensure_future(first.link.come_back(lost=True))
        await world.passes(1.0)
        assert not back.done()  # the second has not told what it knows
        await second.link.come_back(lost=True)
        await world.passes(0.3)
        assert back.done()
        for one in (first, second):
            assert await world.used(one, RPM) == (3, 0)
            assert await world.used(one, TPM) == (300, 0)
            assert await world.used(one, MOST) == (0, 1)
            assert await world.used(one, BUDGET) == (300, 200)
        first.state.settle("c", Usage(1, 1, cost=50), first.now)
        assert await world.used(second, MOST) == (0, 0)
        assert await world.used(second, BUDGET) == (350, 0)
        third = await world.one()
        assert third.marks.get(KEY) is not None
        assert third.learned == [Learned(turned=(("groq", 5),))]
        denied = [isinstance(await third.reserve(f"n{number}", RPM), Denied) for number in range(2)]
        assert denied == [False, True]

    shared(main)


def test_a_gateway_that_never_comes_back_is_waited_for_five_seconds(shared: Any) -> None:
    async def main(world: Shared) -> None:
        one = await world.one(replicas=3)
        one.link.leave()
        world.hub.forget()
        began = one.now
        await one.link.come_back(lost=True)
        assert 5.0 <= one.now - began <= 5.5

    shared(main)


# --- cancellation


def test_a_thousand_cancelled_calls_leave_nothing(shared: Any) -> None:
    async def main(world: Shared) -> None:
        draw, granted = Random(7), 0
        most = Limit(SCOPE, "concurrency", Window("inflight"), 30)
        tokens = Limit(SCOPE, "tokens", Window("rolling", 5.0), 1_000_000)
        ones = [await world.one(), await world.one()]

        async def call(one: One, name: str) -> None:
            nonlocal granted
            asked = one.ask(name, most, tokens, cost=Cost(5, 5))
            try:
                got = asked if isinstance(asked, Reservation | Denied) else await asked
                if isinstance(got, Reservation):
                    granted += 1
                    await world.clock.sleep_until(one.now + draw.random())
                    one.state.counted(name, one.now)
                    await world.clock.sleep_until(one.now + draw.random())
                    one.state.settle(name, draw.choice([None, Usage(5, 5)]), one.now)
            finally:
                if not isinstance(asked, Denied):
                    asked.close()

        for start in range(0, 1000, 50):
            tasks = []
            for number in range(start, start + 50):
                one = ones[number % 2]
                one.link.late = [] if draw.random() < 0.5 else None
                tasks.append(asyncio.ensure_future(call(one, f"n{number}")))
            await virtual.idle()
            for task in draw.sample(tasks, 30):
                task.cancel()
            for one in ones:
                one.link.deliver()
                one.link.late = None
            await world.passes(draw.random() * 2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for one in ones:
            assert one.state.held() == 0
            assert await world.used(one, most) == (0, 0)
            assert (await world.used(one, tokens))[1] == 0
        assert granted > 200
        assert sum(one.link.sent["reserve"] for one in ones) > 400
        assert world.hub.client.zcard(world.hub.base + "leases") == 0
        assert world.hub.keys("r:") == []

    shared(main)


def test_the_view_shows_what_others_use(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        for one in (first, second):
            one.state.declare(SCOPE, [RPM, MOST])
        await first.spend("a", RPM)
        await first.reserve("b", RPM, MOST)
        view = second.state.view(0.0)
        assert view.load(SCOPE, second.now) == (0.0, float("inf"))
        await second.state.refresh([SCOPE])
        assert [(row.used, row.reserved, row.free) for row in view.snapshot(SCOPE, second.now)] == [
            (1, 1, 2),
            (0, 1, 1),
        ]
        assert view.used(RPM, second.now) == 1
        share, until = view.load(SCOPE, second.now)
        assert (share, until - second.now) == (0.5, 1.0)
        await second.spend("c", RPM)
        assert view.row(RPM, second.now).used == 2
        await world.passes(62.0)
        assert view.row(RPM, second.now).used == 0
        await first.spend("d", OWN)
        await second.state.refresh([], [OWN])
        assert view.row(OWN, second.now).used == 1

    shared(main)


def test_a_first_report_tells_what_others_used(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        assert first.state.report(SCOPE, "requests", MINUTE, 30, first.now, 10)
        assert second.state.report(SCOPE, "requests", MINUTE, 30, second.now, 12)
        limit = first.state.limits(SCOPE)[0]
        assert await world.used(first, limit) == (20, 0)

    shared(main)


def test_hostile_names_are_counted_like_any(shared: Any) -> None:
    async def main(world: Shared) -> None:
        first, second = await world.one(), await world.one()
        odd = Limit('x/y|mo"del \ud800 \n}é', "concurrency", Window("inflight"), 1)
        await first.reserve("a", odd)
        assert (await second.reserve("b", odd)).busy
        first.state.release("a")
        scope = ("key_model", "x", 'mo"del \ud800 }')
        first.cool(scope, 60.0)
        await virtual.idle()
        assert second.woken == [odd.scope]
        assert second.marks.get(scope) is not None
        second.link._news(b"\xff\x00")
        second.link._news(b'["mark", "x", 1]')
        second.link._news(b"{}")
        assert Claim(odd, 1).limit is odd

    shared(main)
