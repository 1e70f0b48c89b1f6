"""Waiting for the key that holds a prompt cache, against processing its tokens anew."""

from __future__ import annotations

import pytest

from keyturn.core import Price, cached_tokens, weigh

SONNET = Price(3000.0, 15000.0, 300.0)
SMALL = Price(150.0, 600.0, 75.0)
FREE = Price(0.0, 0.0, 0.0)


def test_a_short_prompt_is_not_weighed() -> None:
    assert cached_tokens(4999) == 0
    assert cached_tokens(50_000) == 40_000


@pytest.mark.parametrize(
    ("tokens", "wait", "price", "waits"),
    [
        (38_000, 4.2, SONNET, True),  # 0.10 USD are 6 s, and 7.6 s are saved
        (38_000, 13.0, SONNET, True),
        (38_000, 14.0, SONNET, False),
        (38_000, 7.5, FREE, True),  # seconds alone
        (38_000, 7.7, FREE, False),
        (5_000, 1.1, SMALL, False),
        (5_000, 0.9, SMALL, True),
        (38_000, 0.0, SONNET, False),
        (38_000, float("inf"), SONNET, False),
    ],
)
def test_the_cheaper_is_chosen(tokens: int, wait: float, price: Price, waits: bool) -> None:
    assert weigh(tokens, wait, price, price, usd_per_hour=60.0, most=20.0).waits is waits


def test_never_longer_than_allowed() -> None:
    assert not weigh(400_000, 10.1, SONNET, SONNET, usd_per_hour=0.0, most=10.0).waits
    assert weigh(400_000, 9.9, SONNET, SONNET, usd_per_hour=0.0, most=10.0).waits


def test_what_is_at_stake_is_the_price_there_less_the_cached_price_here() -> None:
    switch = weigh(38_000, 4.2, SONNET, SONNET, usd_per_hour=60.0, most=10.0)
    assert switch.stake == "about 0.103 USD and 38,000 cached tokens"
    assert weigh(38_000, 4.2, SONNET, SMALL, usd_per_hour=60.0, most=10.0).money == 0
    assert weigh(38_000, 4.2, None, None, usd_per_hour=60.0, most=10.0).stake == "about 38,000 cached tokens"
    without = Price(3000.0, 15000.0)
    assert weigh(38_000, 4.2, without, without, usd_per_hour=60.0, most=10.0).money == 0
