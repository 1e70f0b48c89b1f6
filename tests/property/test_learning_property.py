"""The learner against true limiters that it knows nothing of: bounds, monotony, convergence, and what that costs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core.claims import Claim
from keyturn.core.learning import Learner, Lesson, Rejection
from keyturn.core.limitbook import UNKNOWN, Limit
from keyturn.core.limits import Denied, Meters
from keyturn.core.windows import MINUTE, Window
from keyturn.simulator.limiters import Kind, Limiter, limiter

SECOND = Window("rolling", 1.0)
COOLDOWN = (10.0, 30.0, 60.0, 120.0, 300.0)


class Key:
    """One key behind a true limiter, used as the gateway uses it: counted, cooled, learned. No call lasts."""

    def __init__(self, truth: Limiter, trusted: int | None = None) -> None:
        self.truth = truth
        self.meters = Meters()
        self.trusted = trusted
        self.learner: Learner | None = None
        self.served = self.refused = self.number = 0
        self.rests_until, self.strikes = -inf, 0
        self.full_until, self.full = -inf, MINUTE
        """Until when, and over which window, our own limit keeps everything away."""
        self.looked = 0.0
        self.capacities: list[float] = []

    @property
    def capacity(self) -> int:
        known = self.trusted if self.trusted is not None else UNKNOWN
        rate = self.learner.rate if self.learner is not None else None
        return known if rate is None or rate.capacity is None else min(known, rate.whole)

    def limits(self) -> list[Limit]:
        if self.learner is None and self.trusted is None:
            return []
        found = [Limit("k", "requests", MINUTE, self.capacity)]
        if self.learner is not None and self.learner.burst is not None:
            found.append(Limit("k", "requests", SECOND, self.learner.burst.whole))
        return found

    def send(self, now: float) -> bool:
        """Whether a call was served at *now*."""
        while self.learner is not None and now >= self.looked + 60.0:
            self.looked += 60.0
            self._look(self.looked)
        if now < self.rests_until:
            return False
        if now < self.full_until:
            self._hinder()
            return False
        self.number += 1
        attempt = str(self.number)
        denied = self.meters.reserve(attempt, [Claim(each, 1) for each in self.limits()], now)
        if isinstance(denied, Denied):
            self.full_until, self.full = now + denied.wait, denied.limit.window
            self._hinder()
            return False
        self.meters.counted(attempt, now)
        self.meters.settle(attempt, None, now)
        if self.truth.wait(now, 1) <= 0.0:
            self.truth.take(now, 1)
            self.served += 1
            self.strikes = 0
            return True
        self.refused += 1
        self.rests_until = now + COOLDOWN[min(self.strikes, 4)]
        self.strikes += 1
        self._learn(attempt, now)
        return False

    def _hinder(self) -> None:
        if self.learner is not None:
            lesson = self.learner.burst if self.full == SECOND else self.learner.rate
            if lesson is not None:
                lesson.hindered = True

    def _learn(self, attempt: str, now: float) -> None:
        limit = Limit("k", "requests", MINUTE, UNKNOWN)
        if self.learner is None:
            self.learner = Learner(Lesson(60.0, -inf if self.trusted is not None else now, self.trusted))
            self.looked = now
        before = self.capacity
        lately = self.meters.lately(limit, now - 1.0)
        self.learner.refused(Rejection(attempt, now, now, now, self.meters.used(limit, now), 1, lately))
        assert 1 <= self.capacity <= before, "a 429 never raises a limit"
        self.capacities.append(self.capacity)

    def _look(self, now: float) -> None:
        assert self.learner is not None
        self.full_until = -inf
        used = self.meters.used(Limit("k", "requests", MINUTE, UNKNOWN), now)
        refused = self.learner.refused_since(now - 60.0)
        if self.learner.burst is not None:
            burst = self.learner.burst
            burst.window_over(burst.whole if burst.hindered else 0, refused, now, now)
        self.learner.rate.window_over(used, refused, now, now)


@dataclass
class Hour:
    served: int
    refused: int
    capacity: int


def play(key: Key, hours: int, per_minute: float, *, seed: int = 1, burst: int = 1, begin: float = 0.0) -> list[Hour]:
    """*per_minute* calls on average for *hours*, in bursts of *burst* within two seconds."""
    draw, now, told = random.Random(seed), begin, []
    for hour in range(1, hours + 1):
        served, refused = key.served, key.refused
        while now < begin + hour * 3600.0:
            now += draw.expovariate(per_minute / burst / 60.0)
            for each in range(burst):
                key.send(now + each * 2.0 / burst)
            now += 2.0 * (burst > 1)
        told.append(Hour(key.served - served, key.refused - refused, key.capacity))
    return told


def per_thousand(hours: list[Hour]) -> float:
    return 1000.0 * sum(hour.refused for hour in hours) / max(1, sum(hour.served for hour in hours))


@pytest.mark.parametrize("kind", ["rolling", "fixed", "bucket"])
@pytest.mark.parametrize(("capacity", "load", "burst"), [(15, 0.7, 1), (15, 1.2, 1), (30, 3.0, 8), (60, 1.2, 120)])
def test_an_unknown_limit_costs_few_429s_after_the_first_hour(
    kind: Kind, capacity: int, load: float, burst: int
) -> None:
    key = Key(limiter(kind, capacity, 60.0))
    hours = play(key, 4, capacity * load, burst=burst)
    assert per_thousand(hours[1:]) <= 5.0
    most = 60 * capacity * min(1.0, load)
    if burst == 1:
        assert all(hour.served >= 0.8 * most for hour in hours[1:]), "what is learned is no tighter than it has to be"


@pytest.mark.parametrize("kind", ["rolling", "fixed", "bucket"])
def test_a_declared_limit_that_is_true_is_never_lowered_and_one_that_is_too_high_is(kind: Kind) -> None:
    right = Key(limiter(kind, 30, 60.0), trusted=30)
    assert [hour.refused for hour in play(right, 2, 60.0)] == [0, 0]
    assert right.learner is None
    hopeful = Key(limiter(kind, 15, 60.0), trusted=30)
    hours = play(hopeful, 4, 60.0)
    assert per_thousand(hours[1:]) <= 5.0
    assert 13 <= hours[-1].capacity <= 20


@pytest.mark.parametrize("kind", ["rolling", "fixed"])
@pytest.mark.parametrize("load", [0.9, 2.0])
def test_a_limit_that_the_provider_halves_is_learned_within_three_429s_and_one_that_it_raises_is_found(
    kind: Kind, load: float
) -> None:
    key = Key(limiter(kind, 30, 60.0))
    play(key, 3, 30 * load)
    assert 27 <= key.capacity <= 33
    key.truth.capacity, key.capacities = 15, []
    play(key, 1, 30 * load, begin=3 * 3600.0)
    assert min(key.capacities[:3]) <= 15, key.capacities
    key.truth.capacity = 60
    assert play(key, 3, 90.0, begin=4 * 3600.0)[-1].capacity >= 50


class Trouble:
    """Refuses a share of what it could serve until an hour is over, whatever the key was used for."""

    def __init__(self, truth: Limiter, share: float) -> None:
        self.truth, self.share, self.draw = truth, share, random.Random(5)
        self.capacity = truth.capacity

    def wait(self, now: float, cost: int) -> float:
        if now < 3600.0 and self.draw.random() < self.share:
            return 5.0
        return self.truth.wait(now, cost)

    def take(self, now: float, cost: int) -> None:
        self.truth.take(now, cost)

    def used(self, now: float) -> float:
        return self.truth.used(now)

    def full_in(self, now: float) -> float:
        return self.truth.full_in(now)


@pytest.mark.parametrize("trusted", [None, 60])
@pytest.mark.parametrize(("share", "soon"), [(1.0, 0.8), (0.8, 0.4), (0.5, 0.4)])
def test_a_provider_s_bad_hour_does_not_slow_a_key_down_for_long(
    share: float, soon: float, trusted: int | None
) -> None:
    """*soon*: how much of what the key could serve it does serve in the hour after that."""
    key = Key(Trouble(limiter("rolling", 60, 60.0), share), trusted)
    play(key, 1, 48.0)
    after, later = play(key, 2, 48.0, begin=3600.0)
    assert after.served >= soon * 48 * 60
    assert later.served >= 0.95 * 48 * 60


def test_a_limit_per_second_is_learned_as_one_and_the_rate_stays() -> None:
    """Sixty a minute, of which four in a second: bursts are refused, though the minute is never used up."""
    second, minute = limiter("rolling", 4, 1.0), limiter("rolling", 60, 60.0)

    class Both:
        capacity = 60

        def wait(self, now: float, cost: int) -> float:
            return max(second.wait(now, cost), minute.wait(now, cost))

        def take(self, now: float, cost: int) -> None:
            second.take(now, cost)
            minute.take(now, cost)

        def used(self, now: float) -> float:
            return minute.used(now)

        def full_in(self, now: float) -> float:
            return minute.full_in(now)

    key = Key(Both(), trusted=60)
    now = 0.0
    for _ in range(300):
        now += 30.0
        for each in range(10):
            key.send(now + each * 0.1)
    assert key.learner is not None
    assert key.learner.burst is not None
    assert key.learner.burst.whole <= 4
    assert key.learner.rate.capacity is None


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["rolling", "fixed", "bucket"]),
    truth=st.integers(2, 40),
    trusted=st.none() | st.integers(1, 60),
    load=st.floats(0.3, 3.0),
    burst=st.sampled_from([1, 5, 40]),
    seed=st.integers(0, 10_000),
)
def test_never_below_one_never_above_what_is_stated_and_never_raised_by_a_429(
    kind: Kind, truth: int, trusted: int | None, load: float, burst: int, seed: int
) -> None:
    key = Key(limiter(kind, truth, 60.0), trusted)  # `Key` asserts after each 429 that it raised nothing
    play(key, 1, truth * load, seed=seed, burst=burst)
    assert 1 <= key.capacity <= (UNKNOWN if trusted is None else trusted)
    if key.learner is not None and trusted is not None and key.learner.rate.capacity is not None:
        assert 1.0 <= key.learner.rate.capacity <= trusted


@settings(max_examples=6, deadline=None)
@given(truth=st.integers(5, 60), kind=st.sampled_from(["rolling", "fixed"]), seed=st.integers(0, 10_000))
def test_it_comes_near_the_true_limit_within_an_hour_of_full_use(truth: int, kind: Kind, seed: int) -> None:
    key = Key(limiter(kind, truth, 60.0))
    play(key, 1, 3.0 * truth, seed=seed)
    assert 0.8 * truth - 1 <= key.capacity <= 1.2 * truth + 1
