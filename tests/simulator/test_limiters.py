"""The judge is judged: each limiter against a brute-force reading of its definition."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.simulator.limiters import CalendarDay, FixedWindow, Limiter, RollingLog, Slots, TokenBucket, limiter

START = 1_772_452_800.0
"""A whole minute and a whole multiple of every window tried here."""

steps = st.lists(
    st.tuples(st.integers(0, 40).map(lambda quarters: quarters / 4), st.integers(1, 6)), min_size=1, max_size=60
)
"""Pauses in quarter seconds, which floats hold exactly, and costs."""

Charges = list[tuple[float, int]]


def fixed_used(charges: Charges, now: float, seconds: float) -> float:
    return sum(cost for when, cost in charges if when // seconds == now // seconds)


def rolling_used(charges: Charges, now: float, seconds: float) -> float:
    return sum(cost for when, cost in charges if now - seconds < when <= now)


def drive(subject: Limiter, used: Callable[[Charges, float], float], script: list[tuple[float, int]]) -> None:
    """Offer every cost; whatever is admitted is charged. The limiter must agree with *used* at each step."""
    charges: Charges = []
    now = START
    for pause, cost in script:
        now += pause
        before = used(charges, now)
        assert subject.used(now) == before
        fits = before + cost <= subject.capacity
        assert (subject.wait(now, cost) == 0) is fits
        if fits:
            subject.take(now, cost)
            charges.append((now, cost))


@given(steps, st.integers(6, 12))
def test_fixed_window_counts_what_came_since_its_last_boundary(script: list[tuple[float, int]], capacity: int) -> None:
    drive(FixedWindow(capacity, 10.0), lambda charges, now: fixed_used(charges, now, 10.0), script)


@given(steps, st.integers(6, 12))
def test_rolling_log_counts_what_came_within_its_length(script: list[tuple[float, int]], capacity: int) -> None:
    drive(RollingLog(capacity, 10.0), lambda charges, now: rolling_used(charges, now, 10.0), script)


@given(steps, st.integers(6, 12))
def test_rolling_log_never_admits_more_than_its_capacity_in_any_stretch(
    script: list[tuple[float, int]], capacity: int
) -> None:
    subject, admitted, now = RollingLog(capacity, 10.0), list[tuple[float, int]](), START
    for pause, cost in script:
        now += pause
        if subject.wait(now, cost) == 0:
            subject.take(now, cost)
            admitted.append((now, cost))
    for begin, _ in admitted:
        assert sum(cost for when, cost in admitted if begin <= when < begin + 10.0) <= capacity


@given(steps, st.integers(6, 12))
def test_token_bucket_never_admits_more_than_burst_plus_refill(script: list[tuple[float, int]], capacity: int) -> None:
    subject, admitted, now = TokenBucket(capacity, 10.0), list[tuple[float, int]](), START
    for pause, cost in script:
        now += pause
        if subject.wait(now, cost) == 0:
            subject.take(now, cost)
            admitted.append((now, cost))
    for begin, _ in admitted:
        for end in (when for when, _ in admitted if when >= begin):
            spent = sum(cost for when, cost in admitted if begin <= when <= end)
            assert spent <= capacity + (end - begin) * capacity / 10.0 + 1e-6


@given(steps, st.sampled_from(["fixed", "rolling", "bucket", "calendar"]))
def test_the_stated_wait_is_exact(script: list[tuple[float, int]], kind: str) -> None:
    subject, now = limiter(kind, 8, 10.0), START  # type: ignore[arg-type]
    for pause, cost in script:
        now += pause
        wait = subject.wait(now, cost)
        assert 0 <= wait < math.inf
        if wait > 0.01:
            assert subject.wait(now + wait - 0.005, cost) > 0
        now += wait
        assert subject.wait(now, cost) == 0
        subject.take(now, cost)


@given(steps, st.sampled_from(["fixed", "rolling", "bucket", "calendar"]))
def test_all_is_free_again_when_it_says(script: list[tuple[float, int]], kind: str) -> None:
    subject, now = limiter(kind, 8, 10.0), START  # type: ignore[arg-type]
    for pause, cost in script:
        now += pause
        if subject.wait(now, cost) == 0:
            subject.take(now, cost)
    assert subject.used(now + subject.full_in(now)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", ["fixed", "rolling", "bucket", "calendar"])
def test_a_cost_above_the_capacity_never_fits(kind: str) -> None:
    assert limiter(kind, 5, 60.0).wait(START, 6) == math.inf  # type: ignore[arg-type]
    assert limiter(kind, 0, 60.0).wait(START, 1) == math.inf  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["rolling", "bucket"])
def test_a_charge_that_nobody_could_foresee_leaves_a_debt(kind: str) -> None:
    subject = limiter(kind, 10, 10.0)  # type: ignore[arg-type]
    subject.take(START, 10)
    subject.take(START + 1, 10)
    assert subject.used(START + 1) > subject.capacity
    assert subject.wait(START + 1, 1) > 9


def test_a_calendar_day_ends_at_midnight_in_its_zone_also_when_clocks_change() -> None:
    zone = ZoneInfo("America/Los_Angeles")
    evening = datetime.datetime(2026, 3, 7, 23, 0, tzinfo=zone).timestamp()
    subject = CalendarDay(1, "America/Los_Angeles")
    subject.take(evening, 1)
    assert subject.wait(evening, 1) == 3600
    subject.take(evening + 3600, 1)
    assert subject.wait(evening + 3600, 1) == 23 * 3600  # 8 March 2026: clocks go forward


def test_slots_are_taken_and_given_back() -> None:
    slots = Slots(2)
    assert [slots.enter(), slots.enter(), slots.enter()] == [True, True, False]
    slots.leave()
    assert slots.enter()
