from __future__ import annotations

import pytest

from keyturn.core.message import Usage
from keyturn.core.pricing import ZERO, Price, cost_of, dollars, nano

PRICE = Price(2500.0, 10_000.0, 1250.0)  # 2.50, 10 and 1.25 dollars a million


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (PRICE, Usage(1_000_000, 0), 2_500_000_000),
        (PRICE, Usage(1000, 100), 3_500_000),
        (PRICE, Usage(1000, 100, cached=600), 1_000_000 + 750_000 + 1_000_000),
        (Price(2500.0, 10_000.0), Usage(1000, 0, cached=600), 2_500_000),  # cached at the price of input
        (PRICE, Usage(10, 0, cached=20), 25_000),  # no negative rest
        (Price(0.5, 0.0), Usage(1, 0), 1),  # rounded up: a budget never gets anything for nothing
        (ZERO, Usage(10**6, 10**6), 0),
    ],
)
def test_tokens_cost_what_their_price_says(price: Price, usage: Usage, cost: int) -> None:
    assert price.of(usage) == cost


def test_the_upstreams_own_figure_wins_and_an_unknown_price_is_not_zero() -> None:
    assert cost_of(Usage(1000, 100), PRICE) == 3_500_000
    assert cost_of(Usage(1000, 100, cost=7), PRICE) == 7
    assert cost_of(Usage(1000, 100, cost=0), PRICE) == 0
    assert cost_of(Usage(1000, 100, cost=7), None) == 7
    assert cost_of(Usage(1000, 100), None) is None


def test_dollars_come_back_as_they_were() -> None:
    assert nano(12.34) == 12_340_000_000
    assert dollars(nano(0.000001)) == 0.000001
