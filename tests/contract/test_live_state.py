"""What every LiveState must do, whichever store is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest

from keyturn.core import UNKNOWN, Claim, Cost, Denied, Grounds, Limit, Marks, Transition, Usage, Window, claims
from keyturn.stores import LiveState, MemoryState, Reservation
from keyturn.stores.redis_state import RedisState
from tests.support.redis_server import Hub

MINUTE = Window("rolling", 60.0)
INFLIGHT = Window("inflight")
SCOPE = "groq/g1|llama"
RPM = Limit(SCOPE, "requests", MINUTE, 2)
TPM = Limit(SCOPE, "tokens", MINUTE, 1000)
MOST = Limit(SCOPE, "concurrency", INFLIGHT, 3)
KEY = ("key", "groq", "abc")
USUAL = Cost(100, 50)


class Timed:
    """A clock that shows the moment of the call that is being made."""

    now = 0.0

    def mono(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep_until(self, when: float) -> None:
        await asyncio.get_running_loop().create_future()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        raise NotImplementedError


class Driven:
    """A shared state without a loop of its own: each call happens at its `now`, and a reservation is waited for."""

    TIMED: ClassVar = {"reserve": 2, "counted": 1, "settle": 2, "take": 2, "report": 4, "learn": 2}
    """Which argument is the moment."""

    def __init__(self, hub: Hub) -> None:
        self.__dict__["clock"] = Timed()
        self.__dict__["loop"] = asyncio.new_event_loop()
        self.__dict__["link"] = hub.link(self.clock.mono)
        state = RedisState(self.link, Marks(), self.clock, name="one", prefix=hub.prefix)
        self.__dict__["state"] = state
        self.loop.run_until_complete(state.open())

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.state, name)
        return partial(self._call, name, found) if callable(found) else found

    def __setattr__(self, name: str, value: float) -> None:
        self.link.shift = value  # the one thing that is set: the wall clock, which Redis shows too
        setattr(self.state, name, value)

    def _call(self, name: str, method: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        if name in self.TIMED:
            self.clock.now = arguments[self.TIMED[name]]
        return self.loop.run_until_complete(self._done(method, arguments, more))

    async def _done(self, method: Callable[..., Any], arguments: Any, more: Any) -> Any:
        got = method(*arguments, **more)
        if not isinstance(got, Denied | Reservation) and hasattr(got, "__await__"):
            got = await got
        await asyncio.sleep(0)  # news that is on its way arrives
        return got

    def finish(self) -> None:
        self.loop.run_until_complete(self.state.close())
        self.loop.close()


@pytest.fixture(params=["memory", "redis"])
def live(request: pytest.FixtureRequest) -> Iterator[LiveState]:
    if request.param == "memory":
        yield MemoryState(Marks())
        return
    driven = Driven(request.getfixturevalue("redis_hub"))
    yield driven
    driven.finish()


def take(live: LiveState, name: str, now: float, cost: Cost = USUAL) -> Reservation | Denied:
    got = live.reserve(name, claims(live.limits(SCOPE), cost), now)
    assert isinstance(got, Reservation | Denied)
    return got


def used(live: LiveState, now: float) -> list[tuple[int, int]]:
    return [(row.used, row.reserved) for row in live.view(now).snapshot(SCOPE, now)]


def test_a_reservation_carries_its_id_and_a_denial_its_reason(live: LiveState) -> None:
    live.declare(SCOPE, [RPM, TPM])
    first = take(live, "a", 0.0)
    assert isinstance(first, Reservation)
    assert first.id == "a"
    take(live, "b", 0.0)
    live.counted("a", 0.0)
    live.counted("b", 0.0)
    denied = take(live, "c", 1.0)
    assert isinstance(denied, Denied)
    assert (denied.wait, denied.limit, denied.never) == (60.0, RPM, False)
    assert used(live, 1.0) == [(2, 0), (300, 0)]


def test_a_life_from_held_to_counted_to_settled(live: LiveState) -> None:
    live.declare(SCOPE, [RPM, TPM, MOST])
    take(live, "a", 0.0)
    assert used(live, 0.0) == [(0, 1), (0, 150), (0, 1)]
    live.counted("a", 1.0)
    assert used(live, 1.0) == [(1, 0), (150, 0), (0, 1)]
    live.settle("a", Usage(80, 20), 2.0)
    assert used(live, 2.0) == [(1, 0), (100, 0), (0, 0)]
    assert used(live, 62.0) == [(0, 0), (0, 0), (0, 0)]


def test_all_claims_or_none(live: LiveState) -> None:
    live.declare(SCOPE, [RPM, TPM])
    take(live, "a", 0.0, Cost(950, 0))
    before = used(live, 0.0)
    assert isinstance(take(live, "b", 0.0), Denied)
    assert used(live, 0.0) == before


def test_closing_twice_or_after_settling_changes_nothing(live: LiveState) -> None:
    live.declare(SCOPE, [RPM, MOST])
    kept, dropped = take(live, "a", 0.0), take(live, "b", 0.0)
    assert isinstance(kept, Reservation)
    assert isinstance(dropped, Reservation)
    live.counted("a", 0.0)
    live.settle("a", None, 1.0)
    for reservation in (kept, dropped, kept, dropped):
        reservation.close()
    live.settle("a", Usage(5, 5), 2.0)
    live.settle("b", Usage(5, 5), 2.0)
    assert used(live, 2.0) == [(1, 0), (0, 0)]


def test_unknown_ids_are_no_error(live: LiveState) -> None:
    live.declare(SCOPE, [RPM])
    live.counted("x", 0.0)
    live.settle("x", Usage(1, 1), 0.0)
    live.release("x")
    assert used(live, 0.0) == [(0, 0)]


def test_a_released_id_cannot_reserve_late(live: LiveState) -> None:
    live.declare(SCOPE, [RPM])
    live.release("late")
    assert isinstance(take(live, "late", 10.0), Denied)
    closed = take(live, "b", 10.0)
    assert isinstance(closed, Reservation)
    closed.close()
    assert isinstance(take(live, "b", 11.0), Denied)
    assert used(live, 11.0) == [(0, 0)]


def test_callers_limits_are_claimed_beside_the_candidates(live: LiveState) -> None:
    live.declare(SCOPE, [TPM])
    own = Limit("caller:ci", "requests", MINUTE, 1, owner="caller")
    both = [*claims(live.limits(SCOPE), Cost(10, 10)), Claim(own, 1, 1)]
    assert isinstance(live.reserve("a", both, 0.0), Reservation)
    denied = live.reserve("b", both, 0.0)
    assert isinstance(denied, Denied)
    assert denied.limit.owner == "caller"
    assert used(live, 0.0) == [(0, 20)]


def test_even_the_least_is_too_much(live: LiveState) -> None:
    live.declare(SCOPE, [TPM])
    denied = take(live, "a", 0.0, Cost(90_000, 256, floor=1001))
    assert isinstance(denied, Denied)
    assert denied.never
    assert denied.limit == TPM
    assert isinstance(take(live, "b", 0.0, Cost(90_000, 256, floor=1000)), Reservation)


def test_reported_limits_are_learned(live: LiveState) -> None:
    assert live.report(SCOPE, "requests", MINUTE, 1, 0.0, remaining=1)
    assert not live.report(SCOPE, "requests", MINUTE, 1, 0.0)
    assert [limit.source for limit in live.limits(SCOPE)] == ["reported"]
    assert isinstance(take(live, "a", 0.0), Reservation)
    assert isinstance(take(live, "b", 0.0), Denied)


def test_the_load_is_seen_through_the_view(live: LiveState) -> None:
    live.declare(SCOPE, [RPM, TPM])
    view = live.view(0.0)
    take(live, "a", 0.0)
    live.counted("a", 0.0)
    assert view.load(SCOPE, 0.0) == (0.5, 61.0)
    assert view.limits(SCOPE) == (RPM, TPM)


def test_a_calendar_limit_resets_with_the_wall_clock(live: LiveState) -> None:
    live.wall_offset = 1_767_225_600.0 - 100.0  # monotonic 100 is 2026-01-01 00:00 UTC
    live.declare(SCOPE, [Limit(SCOPE, "requests", Window("calendar", 86_400.0), 1)])
    take(live, "a", 40.0)
    live.counted("a", 41.0)
    denied = take(live, "b", 50.0)
    assert isinstance(denied, Denied)
    assert denied.wait == pytest.approx(50.0, abs=1e-5)
    assert isinstance(take(live, "b", 100.0), Reservation)


def test_what_was_spent_before_the_start_is_taken_over_and_read_back(live: LiveState) -> None:
    live.wall_offset = 1_769_904_000.0 - 100.0  # monotonic 100 is 2026-02-01 00:00 UTC
    budget = Limit("role/dev", "cost", Window("month", 31 * 86_400.0), 1000, owner="caller")
    live.declare("role/dev", [budget])
    live.take(budget, 900, 0.0)
    assert isinstance(live.reserve("a", claims([budget], Cost(1, 1, 1, 100)), 0.0), Reservation)
    assert live.view(0.0).used(budget, 0.0) == 900
    denied = live.reserve("b", claims([budget], Cost(1, 1, 1, 1)), 0.0)
    assert isinstance(denied, Denied)
    assert denied.busy
    assert (denied.limit, live.view(0.0).row(budget, 0.0).reserved) == (budget, 100)
    live.settle("a", Usage(1, 1, cost=60), 1.0)
    assert [(row.metric, row.used, row.free) for row in live.view(1.0).snapshot("role/dev", 1.0)] == [("cost", 960, 40)]
    spent = live.reserve("c", claims([budget], Cost(1, 1, 1, 50)), 1.0)
    assert isinstance(spent, Denied)
    assert spent.wait == pytest.approx(99.0, abs=1e-5)
    assert live.view(100.0).used(budget, 100.0) == 0


def test_a_failed_attempt_costs_the_caller_the_request_alone_and_the_provider_keeps_its_count(live: LiveState) -> None:
    live.declare(SCOPE, [RPM, TPM])
    own = Limit("caller/ci", "requests", MINUTE, 2, owner="caller")
    tokens = Limit("caller/ci", "tokens", MINUTE, 150, owner="caller")
    both = [*claims(live.limits(SCOPE), USUAL), *claims([own, tokens], USUAL)]
    for name in "ab":
        assert isinstance(live.reserve(name, both, 0.0), Reservation)
        live.counted(name, 0.0)
        live.settle(name, None, 1.0)
    assert used(live, 1.0) == [(2, 0), (300, 0)]
    assert (live.view(1.0).used(own, 1.0), live.view(1.0).used(tokens, 1.0)) == (2, 0)


def test_wakes_reach_every_subscriber_and_only_after_a_denial(live: LiveState) -> None:
    first, second = list[str](), list[str]()
    live.subscribe(first.append)
    live.subscribe(second.append)
    live.declare(SCOPE, [MOST])
    for name in "abc":
        take(live, name, 0.0)
    live.settle("a", None, 1.0)
    assert first == []
    take(live, "d", 1.0)
    take(live, "e", 1.0)
    assert first == []
    live.settle("b", None, 2.0)
    assert first == second == [SCOPE]


def test_marks_block_probe_and_clear(live: LiveState) -> None:
    view = live.view(0.0)
    assert view.blocked([KEY], 0.0) is None
    live.cool(Transition(KEY, "cooling", 60.0, "rate_limited", 1, 0.0))
    mark = view.blocked([KEY], 10.0)
    assert mark is not None
    assert mark.until == 60.0
    live.begin([KEY], "probe", 61.0)
    assert view.blocked([KEY], 61.0) is mark
    assert live.end("probe") == [KEY]
    assert live.end("probe") == []
    assert view.blocked([KEY], 61.0) is None
    assert live.cool(Transition(KEY, None))


def test_a_learned_limit_holds_below_what_is_declared_until_it_is_forgotten(live: LiveState) -> None:
    live.declare(SCOPE, [RPM, TPM])
    learned = Limit(SCOPE, "requests", MINUTE, 1, "learned")
    assert live.learn(learned, Grounds(5.0, ("a1",), 2, 3), 0.0)
    assert live.limits(SCOPE) == (learned, TPM)
    take(live, "a", 0.0)
    live.counted("a", 0.0)
    denied = take(live, "b", 0.0)
    assert isinstance(denied, Denied)
    assert denied.limit == learned
    assert live.meters.book.learned(RPM) == (learned, Grounds(5.0, ("a1",), 2, 3))
    assert live.forget(learned, "learned")
    assert not live.forget(learned, "learned")
    assert live.limits(SCOPE) == (RPM, TPM)
    assert isinstance(take(live, "b", 0.0), Reservation)


def test_what_is_only_counted_denies_nobody_and_is_no_limit(live: LiveState) -> None:
    counted = Limit(SCOPE, "requests", MINUTE, UNKNOWN, "learned")
    live.learn(counted, Grounds(), 0.0)
    assert live.limits(SCOPE) == ()
    assert live.charged(SCOPE) == (counted,)
    for number in range(30):
        got = live.reserve(str(number), claims(live.charged(SCOPE), USUAL), 0.0)
        assert isinstance(got, Reservation)
        live.counted(str(number), 0.0)
    assert live.view(0.0).row(counted, 0.0).used == 30
    assert live.view(0.0).snapshot(SCOPE, 0.0) == []
    assert live.view(0.0).load(SCOPE, 0.0)[0] == 0.0


def test_a_pinned_limit_holds_over_a_reported_and_a_learned_one(live: LiveState) -> None:
    live.declare(SCOPE, [RPM])
    live.learn(Limit(SCOPE, "requests", MINUTE, 1, "learned"), Grounds(), 0.0)
    live.report(SCOPE, "requests", MINUTE, 1, 0.0)
    pinned = Limit(SCOPE, "requests", MINUTE, 50, "pinned")
    live.pin(SCOPE, [pinned])
    assert live.limits(SCOPE) == (pinned,)
    live.pin(SCOPE, [])
    assert live.limits(SCOPE)[0].capacity == 1
