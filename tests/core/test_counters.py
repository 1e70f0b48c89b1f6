from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from math import inf

import pytest

from keyturn.core.counters import CalendarPeriod, Counter, RefillingBucket, Shift, SlotRing, counter_for
from keyturn.core.windows import DAY, INFLIGHT, MINUTE, MONTH, Window, day_of, month_of

HOUR = 3600.0


def ring(capacity: int, seconds: float = 60.0) -> SlotRing:
    return SlotRing("s", capacity, seconds)


def bucket(capacity: int, seconds: float = 86_400.0) -> RefillingBucket:
    return RefillingBucket("s", capacity, seconds)


def pacific(capacity: int, moment: str) -> tuple[CalendarPeriod, Shift]:
    """A day counter in Los Angeles whose monotonic zero is *moment*, UTC."""
    shift = Shift()
    shift.seconds = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    return CalendarPeriod("s", capacity, "America/Los_Angeles", shift, day_of), shift


def fits_at(counter: Counter, cost: int, now: float) -> bool:
    """Whether *cost* would fit at *now*, asked of a copy: a counter that has seen a moment does not go back."""
    return deepcopy(counter).fits(cost, now)


def fill(counter: Counter, now: float) -> int:
    """Charge single units until nothing fits any more; how many did."""
    taken = 0
    while counter.fits(1, now):
        counter.charge(1, now)
        taken += 1
    return taken


# --- slot ring


def test_a_minute_returns_after_its_window_its_slot_and_the_guard() -> None:
    counter = ring(10)
    counter.charge(10, 100.2)  # the slot 100.0 … 100.5
    assert not counter.fits(1, 161.0 - 1e-9)
    assert counter.fits(10, 161.0)


def test_a_slot_counts_in_full_until_it_leaves() -> None:
    counter = ring(10)
    counter.charge(4, 0.1)
    counter.charge(6, 0.6)
    assert counter.used(60.99) == 10
    assert counter.used(61.0) == 6
    assert counter.used(61.5) == 0


def test_the_wait_of_a_ring_is_exact() -> None:
    for start in (0.0, 0.3, 12.345678, 98_765.4321, 1e7 + 1 / 3):
        for length in (1.0, 7.0, 10.0, 60.0, 3600.0, 86_400.0):
            counter = ring(10, length)
            counter.charge(3, start)
            counter.charge(7, start + length / 3)
            now = start + length / 2
            for cost in (1, 3, 4, 10):
                wait = counter.wait(cost, now)
                assert not fits_at(counter, cost, now + wait - 1e-8)
                assert fits_at(counter, cost, now + wait)


def test_a_wait_that_others_hold_up_is_infinite() -> None:
    counter = ring(10)
    counter.held = 4
    counter.charge(6, 0.0)
    assert counter.wait(6, 1.0) == 60.0
    assert counter.wait(7, 1.0) == inf


def test_a_refund_goes_to_the_slot_of_its_charge_and_only_while_that_counts() -> None:
    counter = ring(10)
    first = counter.charge(5, 0.0)
    second = counter.charge(5, 30.0)
    assert counter.refund(2, first, 30.0)
    assert counter.used(60.9) == 8
    assert counter.used(61.0) == 5
    assert not counter.refund(2, first, 61.0)
    assert counter.refund(5, second, 61.0)
    assert counter.used(61.0) == 0


def test_a_debt_is_waited_for() -> None:
    counter = ring(10)
    counter.charge(25, 0.0)
    assert counter.used(1.0) == 25
    assert counter.wait(1, 1.0) == 60.0


def test_a_clock_that_steps_back_frees_nothing_and_is_no_negative_count() -> None:
    counter = ring(10)
    mark = counter.charge(6, 100.0)
    counter.charge(4, 40.0)
    assert counter.used(40.0) == 10
    assert counter.used(160.9) == 10
    assert counter.used(200.0) == 0
    counter.charge(1, 100.0)
    assert counter.refund(6, mark, 100.0)
    assert counter.used(100.0) == 0
    assert counter.used(200.0) == 0
    counter.charge(1, 40.0)
    assert [counter.used(150.0), counter.used(161.0)] == [1, 0]


def test_a_long_idle_ring_holds_nothing() -> None:
    counter = ring(10_000)
    for step in range(10_000):
        counter.charge(1, step * 0.1)
    assert counter.used(1000.0) <= 610
    assert counter.used(2000.0) == 0
    assert counter.steady(2000.0) == inf
    assert counter.whole_in(2000.0) == 0.0


def test_a_ring_is_steady_until_its_oldest_slot_leaves_and_whole_when_the_newest_has() -> None:
    counter = ring(10)
    counter.charge(1, 0.0)
    counter.charge(1, 10.0)
    assert counter.steady(20.0) == 61.0
    assert counter.whole_in(20.0) == 51.0


def test_saturated_a_minute_is_used_to_over_98_percent() -> None:
    counter = ring(60)
    admitted = sum(fill(counter, tick * 0.05) for tick in range(int(3600 / 0.05)))
    assert 60 * 60 * 0.98 <= admitted <= 60 * 61


# --- calendar


def test_a_calendar_day_ends_at_midnight_there() -> None:
    counter, _ = pacific(10, "2026-01-10T12:00")  # 04:00 in Los Angeles
    counter.charge(10, 0.0)
    assert counter.wait(1, 0.0) == pytest.approx(20 * HOUR, abs=1e-5)
    assert not counter.fits(1, 20 * HOUR - 1e-3)
    assert counter.fits(10, 20 * HOUR)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08T08:00", 23), ("2026-11-01T07:00", 25)])
def test_days_on_which_clocks_change_are_shorter_or_longer(day: str, hours: int) -> None:
    counter, _ = pacific(1, day)
    counter.charge(1, 0.0)
    assert counter.wait(1, 0.0) == pytest.approx(hours * HOUR, abs=1e-5)
    assert counter.fits(1, counter.wait(1, 0.0))


def test_the_leap_day_is_a_day_of_its_own() -> None:
    counter, _ = pacific(1, "2028-02-29T07:30")  # half an hour before midnight
    assert [fill(counter, hour * HOUR) for hour in (0, 1, 24, 25)] == [1, 1, 0, 1]


def test_a_wall_clock_set_back_over_midnight_takes_up_the_count_of_that_day() -> None:
    counter, shift = pacific(10, "2026-01-10T07:59")
    counter.charge(7, 0.0)
    counter.charge(2, 120.0)
    shift.seconds -= 180.0
    assert counter.used(121.0) == 7
    shift.seconds += 180.0
    assert counter.used(122.0) == 2


def test_a_wall_clock_set_back_to_an_unknown_day_frees_nothing_and_the_next_midnight_does() -> None:
    counter, shift = pacific(10, "2031-05-01T00:00")
    counter.charge(10, 0.0)
    shift.seconds = datetime(2026, 1, 10, 7, tzinfo=UTC).timestamp()
    assert not counter.fits(1, 1.0)
    assert counter.wait(1, 1.0) == pytest.approx(HOUR - 1.0, abs=1e-5)
    assert counter.fits(10, HOUR)


def test_a_refund_after_midnight_is_none() -> None:
    counter, _ = pacific(10, "2026-01-10T07:59")
    mark = counter.charge(8, 0.0)
    assert counter.refund(3, mark, 30.0)
    assert counter.used(30.0) == 5
    counter.charge(1, 61.0)
    assert not counter.refund(5, mark, 61.0)
    assert counter.used(61.0) == 1


# --- month


def month(capacity: int, moment: str, zone: str = "UTC") -> tuple[CalendarPeriod, Shift]:
    """A month counter whose monotonic zero is *moment*, UTC."""
    shift = Shift()
    shift.seconds = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    return CalendarPeriod("s", capacity, zone, shift, month_of), shift


@pytest.mark.parametrize(
    ("moment", "zone", "hours"),
    [
        ("2026-02-01T00:00", "UTC", 28 * 24),
        ("2028-02-01T00:00", "UTC", 29 * 24),
        ("2026-12-31T12:00", "UTC", 12),
        ("2026-03-01T08:00", "America/Los_Angeles", 31 * 24 - 1),
        ("2026-11-01T07:00", "America/Los_Angeles", 30 * 24 + 1),
    ],
)
def test_a_month_ends_on_the_first_of_the_next_there(moment: str, zone: str, hours: int) -> None:
    counter, _ = month(10, moment, zone)
    counter.charge(10, 0.0)
    assert counter.wait(1, 0.0) == pytest.approx(hours * HOUR, abs=1e-5)
    assert counter.whole_in(0.0) == counter.wait(1, 0.0)
    assert not counter.fits(1, hours * HOUR - 1e-3)
    assert counter.fits(10, counter.wait(1, 0.0))


def test_a_wall_clock_set_back_over_the_year_end_takes_up_the_count_of_that_month() -> None:
    counter, shift = month(10, "2026-12-31T23:59")
    counter.charge(7, 0.0)
    counter.charge(2, 120.0)
    shift.seconds -= 180.0
    assert counter.used(121.0) == 7
    shift.seconds += 180.0
    assert counter.used(122.0) == 2


def test_a_wall_clock_set_back_to_an_unknown_month_frees_nothing_and_the_next_first_does() -> None:
    counter, shift = month(10, "2031-05-01T00:00")
    counter.charge(10, 0.0)
    shift.seconds = datetime(2026, 1, 31, 23, tzinfo=UTC).timestamp()
    assert not counter.fits(1, 1.0)
    assert counter.wait(1, 1.0) == pytest.approx(HOUR - 1.0, abs=1e-5)
    assert counter.fits(10, HOUR)


# --- bucket


def test_a_bucket_admits_99_percent_and_refills_evenly() -> None:
    counter = bucket(14_400)
    assert fill(counter, 0.0) == 14_256
    one = 86_400 / 14_256
    assert counter.wait(1, 0.0) == pytest.approx(one, rel=1e-3)
    assert fill(counter, 3600.0) == int(3600 / one)


@pytest.mark.parametrize("capacity", [1, 2, 50, 99, 100, 1000])
def test_a_bucket_of_any_size_admits_something_and_the_wait_is_exact(capacity: int) -> None:
    counter = bucket(capacity)
    assert fill(counter, 5.0) == max(1, int(capacity * 0.99))
    unit = 86_400 / (capacity * 0.99)
    for cost in {1, counter.most}:
        wait = counter.wait(cost, 5.0)
        assert fits_at(counter, cost, 5.0 + wait)
        assert not fits_at(counter, cost, 5.0 + wait - unit / 500)


def test_a_bucket_does_not_refund_what_has_drained_already() -> None:
    counter = bucket(100, 99.0)  # drains one unit a second
    mark = counter.charge(60, 0.0)
    counter.charge(20, 50.0)
    assert counter.used(50.0) == 30
    assert counter.refund(60, mark, 50.0)
    assert counter.used(50.0) == 20
    assert not counter.refund(60, mark, 50.0)
    assert counter.used(70.0) == 0


def test_refunds_of_a_bucket_do_not_count_the_same_drain_twice() -> None:
    counter = bucket(200, 198.0)
    first, second = counter.charge(90, 0.0), counter.charge(90, 0.0)
    assert counter.refund(90, first, 1.0)
    assert counter.used(100.0) == 0
    counter.charge(40, 150.0)
    assert not counter.refund(90, second, 150.0)
    assert counter.used(150.0) == 40


def test_a_resized_bucket_keeps_its_level() -> None:
    counter = bucket(100, 99.0)
    counter.charge(50, 0.0)
    counter.resize(200, 10.0)
    assert counter.used(10.0) == 40
    assert counter.most == 198
    assert counter.used(20.0) == 20


def test_a_bucket_waits_longer_when_the_clock_stepped_back() -> None:
    counter = bucket(100, 99.0)
    counter.charge(99, 50.0)
    assert counter.wait(1, 40.0) == pytest.approx(11.0)
    assert counter.fits(1, 51.0)


def test_a_bucket_is_steady_for_a_hundredth_and_whole_when_empty() -> None:
    counter = bucket(1000, 990.0)  # drains one unit a second
    assert (counter.steady(0.0), counter.whole_in(0.0)) == (inf, 0.0)
    counter.charge(500, 0.0)
    assert counter.steady(0.0) == pytest.approx(9.9)
    assert counter.whole_in(0.0) == pytest.approx(500.0)


def test_what_others_hold_of_a_bucket_or_a_day_has_no_date() -> None:
    for counter in (bucket(10), pacific(10, "2026-01-10T12:00")[0]):
        counter.held = 9
        assert counter.wait(5, 0.0) == inf


def test_a_calendar_day_is_steady_and_whole_at_midnight() -> None:
    counter, _ = pacific(10, "2026-01-10T12:00")
    assert (counter.steady(0.0), counter.whole_in(0.0)) == (inf, 0.0)
    counter.charge(1, 0.0)
    assert counter.steady(HOUR) == pytest.approx(20 * HOUR, abs=1e-5)
    assert counter.whole_in(HOUR) == pytest.approx(19 * HOUR, abs=1e-5)


# --- in flight and choice


def test_in_flight_counts_what_is_held_alone() -> None:
    counter = counter_for(INFLIGHT, "s", 2, Shift())
    counter.held = 2
    assert not counter.fits(1, 0.0)
    assert counter.wait(1, 0.0) == inf
    counter.held = 1
    counter.charge(1, 0.0)
    assert counter.fits(1, 0.0)
    assert counter.used(0.0) == 0


@pytest.mark.parametrize(
    ("window", "kind"),
    [
        (MINUTE, "SlotRing"),
        (DAY, "SlotRing"),
        (Window("calendar", 86_400.0, "UTC"), "CalendarPeriod"),
        (MONTH, "CalendarPeriod"),
        (Window("bucket", 86_400.0), "RefillingBucket"),
        (INFLIGHT, "InFlight"),
    ],
)
def test_each_window_has_its_counter(window: Window, kind: str) -> None:
    assert type(counter_for(window, "s", 1, Shift())).__name__ == kind
