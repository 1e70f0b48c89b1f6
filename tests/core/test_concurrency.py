"""How many attempts an upstream bears at once, as its overloads tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Bound, Meaning, Outcome, narrowed, overload, widened


def outcome(meaning: Meaning, code: str = "", message: str = "") -> Outcome:
    return Outcome(meaning, "provider", None, False, False, True, {}, code=code, message=message)


@pytest.mark.parametrize(
    ("found", "sign"),
    [
        (outcome("overloaded"), True),
        (outcome("timeout", "first_token"), True),
        (outcome("timeout", "silence"), False),
        (outcome("rate_limited", message="Too many concurrent requests"), True),
        (outcome("rate_limited", message="Rate limit reached for requests per minute"), False),
        (outcome("server_error", message="concurrent"), False),
    ],
)
def test_what_is_a_sign(found: Outcome, sign: bool) -> None:
    assert overload(found) is sign


def test_the_first_sign_bounds_to_seven_tenths() -> None:
    bound = narrowed(None, 20, 0.0, 100.0)
    assert bound is not None
    assert (bound.limit, bound.too_much) == (14, 20)


@pytest.mark.parametrize("under_way", [1, 2, 3])
def test_so_few_under_way_are_hardly_too_many(under_way: int) -> None:
    assert narrowed(None, under_way, 0.0, 100.0) is None


def test_a_burst_counts_once_and_a_later_sign_again() -> None:
    bound = Bound(14, 20, 100.0)
    assert narrowed(bound, 14, 99.0, 101.0) is None
    again = narrowed(bound, 14, 100.5, 101.0)
    assert again is not None
    assert again.limit == 9


def test_a_single_probe_says_nothing_of_a_bound_that_is_not_used() -> None:
    assert narrowed(Bound(14, 20, 100.0), 1, 105.0, 106.0) is None


def grown(bound: Bound, answers: int, now: float) -> Bound:
    for _ in range(answers):
        after = widened(bound, bound.limit, now)
        assert after is not None
        bound = after
    return bound


def test_it_grows_quickly_to_near_what_was_too_much_and_then_by_one_a_round() -> None:
    bound = Bound(14, 21, 100.0)
    assert grown(bound, 3 + 3 + 4 + 4, 101.0).limit == 18
    assert grown(Bound(18, 21, 100.0), 17, 101.0).limit == 18
    assert grown(Bound(18, 21, 100.0), 18, 101.0).limit == 19


def test_it_stays_just_below_for_a_while() -> None:
    bound = grown(Bound(20, 21, 100.0), 500, 109.9)
    assert bound.limit == 20
    assert grown(bound, 1, 110.0).limit == 21


def test_patience_doubles_when_it_was_too_much_again_and_not_when_less_was() -> None:
    again = narrowed(Bound(21, 21, 100.0), 21, 111.0, 112.0)
    assert again is not None
    assert again.patience == 20.0
    less = narrowed(Bound(12, 21, 100.0, 0, 80.0), 12, 111.0, 112.0)
    assert less is not None
    assert (less.patience, less.too_much) == (10.0, 12)


def test_it_does_not_grow_while_it_is_not_used() -> None:
    bound = Bound(10, 21, 100.0)
    assert widened(bound, 7, 101.0) == bound
    assert widened(bound, 8, 101.0) != bound


def test_it_is_forgotten_after_ten_quiet_minutes_and_above_512() -> None:
    assert widened(Bound(10, 21, 100.0), 1, 700.0) is None
    assert widened(Bound(512, 400, 100.0, 511), 512, 200.0) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 600), st.floats(0.0, 30.0)), max_size=200))
def test_it_never_leaves_its_bounds(steps: list[tuple[bool, int, float]]) -> None:
    bound: Bound | None = None
    now = 1000.0
    for sign, under_way, passed in steps:
        now += passed
        if sign:
            bound = narrowed(bound, under_way, now - passed / 2, now) or bound
        elif bound is not None:
            bound = widened(bound, under_way, now)
        if bound is not None:
            assert 1 <= bound.limit <= 512
            assert 10.0 <= bound.patience <= 600.0
