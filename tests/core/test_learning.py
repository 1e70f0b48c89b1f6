"""What one 429 after the other teaches; how that goes over hours stands in tests/property/test_learning_property.py."""

from __future__ import annotations

from math import inf

import pytest

from keyturn.core.learning import IN_A_ROW, Learner, Lesson, Rejection, Strangers, limit_in_words


def seen(now: float, used: int, *, started: float | None = None, cost: int = 1, lately: int = 0) -> Rejection:
    return Rejection(f"a{now:g}", now if started is None else started, now, 1e9 + now, used, cost, lately)


def learner(since: float = -inf, trusted: int | None = None) -> Learner:
    return Learner(Lesson(60.0, since, trusted))


def learned(one: Learner) -> tuple[int | None, int | None]:
    """The rate and the limit per second."""
    return one.rate.whole if one.rate.capacity else None, one.burst.whole if one.burst else None


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        ("", "Too many requests", ("requests", 60.0)),
        ("rate_limit_exceeded", "Rate limit reached on tokens per min (TPM): Limit 6000", ("tokens", 60.0)),
        ("tokens", "slow down", ("tokens", 60.0)),
        ("", "Limit 20 on requests per minute. See https://console.groq.com/settings/tps", ("requests", 60.0)),
        ("", "Limit 2 (RPS) reached", ("requests", 1.0)),
        ("", "Rate limit reached on requests per min (RPM). Visit the page on tokens", ("requests", 60.0)),
        ("", "1 request per second exceeded", ("requests", 1.0)),
        ("", "Token limit per hour exceeded", ("tokens", 3600.0)),
        ("", "Too many concurrent requests", None),
    ],
)
def test_the_words_say_what_is_limited(code: str, message: str, said: tuple[str, float] | None) -> None:
    assert limit_in_words(code, message) == said


def test_nothing_is_learned_before_a_whole_window_was_counted() -> None:
    one = learner(since=0.0)
    assert one.refused(seen(30.0, 12)) == (False, False)
    assert one.refused(seen(60.5, 12)) == (False, False)
    assert one.rate.capacity is None
    assert one.refused(seen(100.0, 14)) == (True, False)
    assert one.rate.whole == 10, "nine tenths of the 12 that were let through: two were refused in this window"
    assert one.rate.evidence == ("a100",)
    assert one.rate.at == 1e9 + 100


def test_one_decrease_per_burst_and_late_refusals_count_as_refused() -> None:
    one = learner(trusted=100)
    one.refused(seen(10.0, 80))
    assert one.rate.whole == 71
    for late in range(9):
        assert one.refused(seen(10.1, 80, started=9.9 + late / 100)).rate
    assert one.rate.whole == 63, "of 80 that were sent, 70 were let through"
    assert one.refused(seen(200.0, 70, started=9.95)) == (False, False), "an old attempt says nothing of now"


def test_a_429_at_low_use_is_believed_the_second_time() -> None:
    one = learner(trusted=100)
    assert one.refused(seen(10.0, 31)) == (False, False)
    assert one.refused(seen(10.2, 31, started=9.9)) == (False, False), "the same burst confirms nothing"
    assert one.refused(seen(90.0, 41)).rate
    assert one.rate.whole == 36
    other = learner(trusted=100)
    other.refused(seen(10.0, 31))
    assert other.refused(seen(1000.0, 31)) == (False, False), "a quarter of an hour later it is a new doubt"


def test_a_burst_at_low_use_teaches_a_limit_per_second_and_is_disproved_by_the_next() -> None:
    one = learner(trusted=100)
    assert one.refused(seen(10.0, 21, lately=6)) == (False, True)
    assert learned(one) == (None, 5)
    assert one.refused(seen(80.0, 31, lately=2)) == (True, True)
    assert learned(one) == (27, None)


def test_a_429_without_anything_let_through_is_somebody_elses() -> None:
    one = learner(trusted=30)
    assert one.refused(seen(10.0, 1)) == (False, False)
    assert one.refused(seen(50.0, 1)) == (False, False)
    assert one.rate.capacity is None


def test_it_rises_after_three_full_windows_up_to_what_is_stated() -> None:
    one = learner(trusted=100)
    one.refused(seen(0.0, 101))
    rate, now, steps = one.rate, 0.0, []
    assert rate.whole == 90
    rate.reached = 0  # so that nothing but what is stated stops it
    for used in (90, 90, 10, 90, 90, 90):
        now += 60.0
        rate.window_over(used, False, now, now)
        steps.append(rate.whole)
    assert steps == [90, 90, 90, 91, 93, 95], "a window that was not used up counts for nothing"
    for _ in range(20):
        now += 60.0
        rate.window_over(100, False, now, now)
    assert rate.capacity == 100.0
    assert not rate.window_over(100, False, now + 60.0, now)
    assert rate.window_over(100, True, now + 120.0, now) is False
    assert rate.clean == 0


def test_where_it_was_refused_it_waits_and_longer_each_time() -> None:
    rate = Lesson(60.0, -inf)
    waits, now = [], 0.0
    for _ in range(10):
        rate.lower(30, seen(now, 31))
        windows = 0
        while rate.whole <= 30:
            windows += 1
            now += 60.0
            rate.window_over(rate.whole, False, now, now)
        waits.append(windows)
    assert waits[0] < 12
    assert waits == sorted(waits)
    assert rate.patience == 720, "half a day"
    assert sum(waits[:7]) <= 12 * 60, "and never much longer than it is known already"


def test_a_refusal_before_anything_more_was_tried_does_not_make_it_wait_for_hours() -> None:
    """A provider in trouble refuses at the same place, and that proves nothing of its limit."""
    rate, now = Lesson(60.0, -inf), 0.0
    for _ in range(6):
        rate.lower(30, seen(now, 31))
        while rate.whole <= 30:
            now += 60.0
            rate.window_over(rate.whole, False, now, now)
    rate.lower(30, seen(now, 31))
    before = rate.patience
    assert before > 60
    rate.lower(28, seen(now + 600.0, 29))
    assert rate.patience <= before


def test_a_limit_that_was_raised_after_long_is_found_at_the_next_try() -> None:
    rate, now = Lesson(60.0, -inf), 0.0
    for _ in range(10):
        rate.lower(30, seen(now, 31))
        while rate.whole <= 30:
            now += 60.0
            rate.window_over(rate.whole, False, now, now)
    windows = 0
    while rate.whole < 60:
        windows += 1
        now += 60.0
        rate.window_over(rate.whole, False, now, now)
    assert windows <= 20


def test_after_a_fall_far_below_what_was_let_through_it_tries_more_soon_and_ever_faster() -> None:
    rate, now = Lesson(60.0, -inf), 0.0
    rate.lower(60, seen(now, 61))
    for level in (20, 5, 1):
        now += 300.0
        rate.lower(level, seen(now, level + 1))
    assert (rate.whole, rate.patience) == (1, 3)
    windows = 0
    while rate.whole < 60:
        windows += 1
        now += 60.0
        rate.window_over(rate.whole, False, now, now)
    assert windows <= 20, "a quarter of an hour, not a day"


def test_a_limit_per_second_that_is_none_any_more_is_found_to_be_none() -> None:
    """It is in the way every minute, and nobody refuses: so all of it is let through."""
    burst, now = Lesson(1.0, -inf), 0.0
    burst.lower(4, seen(now, 5))
    windows = 0
    while burst.whole < 40:
        windows += 1
        now += 60.0
        burst.hindered = True
        burst.window_over(burst.whole, False, now, now)
    assert windows <= 30, "half an hour, not two"


def test_a_fall_that_is_confirmed_is_one_and_more_is_tried_seldom() -> None:
    rate, now, waits = Lesson(60.0, -inf), 0.0, []
    rate.lower(60, seen(now, 61))
    for _ in range(6):
        now += 300.0
        rate.lower(5, seen(now, 6))
        waits.append(rate.patience)
        while rate.whole <= 5:
            now += 60.0
            rate.window_over(rate.whole, False, now, now)
    assert waits == [3, 6, 12, 24, 48, 96]


def test_what_others_use_counts_after_three_answers_in_a_row() -> None:
    strangers = Strangers()
    used = [strangers.use("k", 100, remaining, 10) for remaining in (60, 50, 55)]
    assert used == [0, 0, 30], "the least of the three"
    assert strangers.use("k", 100, 60, 40) == 0
    for remaining in (60, 60, 90, 60, 60):
        assert strangers.use("k", 100, remaining, 10) == 0, "an answer between begins anew"
    assert IN_A_ROW == 3
    assert strangers.use("k", 100, 86, 10) == 0, "four percent are nothing"


def test_what_others_use_is_followed_for_a_bounded_number_of_limits() -> None:
    strangers = Strangers()
    for number in range(10_050):
        strangers.use(str(number), 100, 0, 0)
    assert len(strangers._seen) <= 10_000
