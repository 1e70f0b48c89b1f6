"""The retry budget of a provider."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Budget, affords, earned, price_of_retry, retry_began, retry_ended


def spent(budget: Budget, price: int = 14, *, elsewhere: bool = False, failed: bool = True) -> Budget:
    """One second try from its beginning to its end."""
    began = retry_began(budget, price, elsewhere=elsewhere)
    return retry_ended(began, price, elsewhere=elsewhere, failed=failed)


@pytest.mark.parametrize(
    ("meaning", "price"),
    [
        ("server_error", 14),
        ("timeout", 14),
        ("overloaded", 14),
        ("unknown", 14),
        ("rate_limited", 5),
        ("daily_quota", 0),
        ("insufficient_credit", 0),
        ("invalid_key", 0),
        ("forbidden", 0),
        ("not_found", 0),
        ("ok", 0),
    ],
)
def test_what_a_second_try_costs(meaning: str, price: int) -> None:
    assert price_of_retry(meaning) == price  # type: ignore[arg-type]


def test_a_budget_lasts_for_thirty_five_failures_and_then_for_one_in_fourteen() -> None:
    budget, tries = Budget(), 0
    while affords(budget, 14, 100, elsewhere=False):
        budget, tries = spent(budget), tries + 1
    assert tries == 35
    tries = 0
    for _ in range(140):
        budget = earned(budget)
        if affords(budget, 14, 100, elsewhere=False):
            budget, tries = spent(budget), tries + 1
    assert tries == 10


def test_what_is_answered_costs_nothing() -> None:
    assert spent(Budget(20), failed=False) == Budget(20)


def test_after_a_429_another_key_is_always_tried() -> None:
    assert affords(Budget(0, 50), 5, 1, elsewhere=False)
    assert spent(Budget(3), 5) == Budget(0)


@pytest.mark.parametrize(("under_way", "at_once"), [(1, 3), (15, 3), (20, 4), (100, 20)])
def test_a_fifth_of_all_calls_is_tried_again_at_once(under_way: int, at_once: int) -> None:
    assert at_most(Budget(14), under_way) == at_once


def test_a_full_budget_bears_a_burst_that_finds_a_broken_key_at_the_same_moment() -> None:
    assert at_most(Budget(), 30) == 500 // 14
    assert at_most(Budget(), 1000) == 200


def at_most(budget: Budget, under_way: int) -> int:
    """How many second tries are let through while none of them is over."""
    flying = 0
    while affords(budget, 14, under_way, elsewhere=False):
        budget, flying = retry_began(budget, 14, elsewhere=False), flying + 1
    return flying


def test_tries_at_another_provider_are_not_held_back_by_their_number() -> None:
    budget = Budget()
    for _ in range(1000):
        assert affords(budget, 14, 10, elsewhere=True)
        budget = retry_began(budget, 14, elsewhere=True)
    assert budget == Budget()
    assert not affords(Budget(13), 14, 10, elsewhere=True)


@given(st.lists(st.tuples(st.sampled_from([0, 5, 14]), st.booleans(), st.booleans()), max_size=200))
def test_it_never_leaves_its_bounds(tries: list[tuple[int, bool, bool]]) -> None:
    budget = Budget()
    for price, elsewhere, failed in tries:
        budget = earned(spent(budget, price, elsewhere=elsewhere, failed=failed))
        assert 0 <= budget.left <= 500
        assert budget.flying == 0
