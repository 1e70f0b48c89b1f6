"""The counters in Lua against those in Python: on the same clock, whatever happens, both say the same."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Claim,
    Cost,
    Limit,
    Meters,
    Price,
    Usage,
    Window,
    actual_of,
    claims,
)
from keyturn.stores.redis_counts import Specs, answer_of, denial, figures_of, name_of
from keyturn.stores.redis_scripts import channel_of, script
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import Hub

START = 1_772_452_790.0
"""A moment ten seconds before noon in UTC, a Monday."""
MIDNIGHT = 1_772_495_990.0
"""Ten seconds before midnight."""
LIMITS = (
    Limit("a|m", "requests", Window("rolling", 60.0), 5),
    Limit("a|m", "tokens", Window("rolling", 60.0), 900),
    Limit("a|m", "output_tokens", Window("rolling", 10.0), 300),
    Limit("a|m", "requests", Window("rolling", 86_400.0), 60),
    Limit("a|m", "input_tokens", Window("bucket", 60.0), 700),
    Limit("a|m", "requests", Window("calendar", 86_400.0, "Europe/Berlin"), 40),
    Limit("a|m", "concurrency", Window("inflight"), 3),
    Limit("caller/é", "requests", Window("rolling", 1.0), 2, owner="caller"),
    Limit("caller/é", "cost", Window("month", 31 * 86_400.0), 5_000_000_000, owner="caller"),
)
STEPS = (0.001, 0.01, 0.2, 0.5, 1.0, 3.0, 14.9, 30.0, 49.0)


class Both:
    """The same calls to both, compared after each."""

    def __init__(self, hub: Hub, now: float) -> None:
        self.hub = hub
        self.woken: list[str] = []
        self.heard: list[str] = []
        self.meters = Meters(self.woken.append)
        self.specs = Specs()
        self.now = now
        self.open: list[str] = []

    def run(self, name: str, *arguments: Any) -> Any:
        return self.hub.run(name, [self.hub.base, channel_of(self.hub.prefix), *arguments], self.now)

    def reserve(self, name: str, wanted: list[Claim]) -> None:
        parts = [part for claim in wanted for part in self.specs.claim(claim, self.now)]
        expected = self.meters.reserve(name, wanted, self.now)
        answer = answer_of(self.run("reserve", name, 0, 0, *parts))
        assert (answer.code == 1) == (expected is None), (expected, answer)
        if expected is None:
            self.open.append(name)
            return
        told = denial(wanted, [(row.wait, row.wait_any) for row in answer.rows])
        assert (told.limit, told.never) == (expected.limit, expected.never)
        assert told.wait == pytest.approx(expected.wait, abs=2e-6)
        assert told.wait_any == pytest.approx(expected.wait_any, abs=2e-6)

    def settle(self, name: str, usage: Usage | None) -> None:
        actuals = [actual_of(claim, cost, usage) for claim, cost in self.meters.parts(name)]
        self.meters.settle(name, usage, self.now)
        self.run("settle", name, *actuals)

    def compare(self) -> None:
        parts = [part for limit in LIMITS for part in self.specs.limit(limit, self.now)]
        _, rows = self.run("figures", *parts)
        for limit, row in zip(LIMITS, map(figures_of, rows), strict=True):
            mine = self.meters.row(limit, self.now)
            assert (row.used, row.held) == (mine.used, mine.reserved), limit.key
            assert row.whole_in == pytest.approx(mine.resets_in, abs=2e-6), limit.key


def life(both: Both, draw: Random, steps: int) -> None:
    """A random life of *steps* events."""
    price = Price(2_000, 8_000)
    for number in range(steps):
        event = draw.random()
        if event < 0.45:
            some = draw.sample(LIMITS, draw.randint(1, len(LIMITS)))
            cost = Cost(draw.randint(1, 400), draw.randint(0, 200), 1, draw.randint(0, 2_000_000_000), price)
            both.reserve(f"n{number}", claims(some, cost))
        elif event < 0.6:
            both.now += draw.choice(STEPS)
            assert both.run("renew", *both.open) == []  # else they would end by themselves
        elif both.open:
            name = draw.choice(both.open)
            if event < 0.75:
                both.meters.counted(name, both.now)
                both.run("counted", name)
            elif event < 0.85:
                both.meters.release(name)
                both.run("release", name)
                both.open.remove(name)
            else:
                used = Usage(draw.randint(0, 500), draw.randint(0, 300), exact=draw.random() < 0.6)
                both.settle(name, draw.choice([used, used, None]))
                both.open.remove(name)
        if number % 4 == 3:
            both.compare()


@given(seed=st.integers(0, 2**32), start=st.sampled_from([START, MIDNIGHT, 1000.0]))
@settings(max_examples=25)
def test_scripts_and_meters_agree(redis_server: RedisProcess, seed: int, start: float) -> None:
    hub = Hub(redis_server)
    try:
        life(Both(hub, start), Random(seed), 60)
    finally:
        hub.close()


def test_what_no_longer_counts_is_deleted_and_every_limit_is_forgotten_some_day(redis_hub: Hub) -> None:
    both = Both(redis_hub, START)
    for number in range(300):
        both.now += 0.7
        both.reserve(f"n{number}", claims(LIMITS[2:3], Cost(1, 1)))
        both.meters.counted(f"n{number}", both.now)
        both.run("counted", f"n{number}")
        both.settle(f"n{number}", Usage(1, 1))
    key = f"{redis_hub.base}u:{name_of(LIMITS[2])}"
    assert 20 < redis_hub.client.hlen(key) < 40  # a slot each 0.7 s of ten seconds, and the figures
    assert 86_400 < redis_hub.client.ttl(key) < 86_500
    both.compare()


def test_a_released_id_is_refused_in_redis_too(redis_hub: Hub) -> None:
    both = Both(redis_hub, START)
    both.run("release", "late")
    parts = [part for claim in claims(LIMITS[:1], Cost(1, 1)) for part in both.specs.claim(claim, START)]
    assert answer_of(both.run("reserve", "late", 0, 0, *parts)).code == 3
    assert 0 < redis_hub.client.ttl(redis_hub.base + "t:late") <= 60
    both.compare()


def test_a_clock_that_steps_back_stands_still(redis_hub: Hub) -> None:
    head = [redis_hub.base, channel_of(redis_hub.prefix)]
    before = float(redis_hub.client.eval(script("look"), 0, *head, 0, "")[0])
    redis_hub.client.set(redis_hub.base + "last", repr(before + 500.0))
    assert float(redis_hub.client.eval(script("look"), 0, *head, 0, "")[0]) == before + 500.0
    redis_hub.client.set(redis_hub.base + "last", repr(before - 500.0))
    assert before <= float(redis_hub.client.eval(script("look"), 0, *head, 0, "")[0]) < before + 60.0


def test_a_period_that_is_over_when_the_question_arrives(redis_hub: Hub) -> None:
    """Redis may be past midnight when it reads what was written before it."""
    limit = LIMITS[5]
    both = Both(redis_hub, MIDNIGHT)
    day = both.specs.limit(limit, MIDNIGHT)
    ends = float(day[4])
    both.now = ends - 1.0
    both.run("atleast", *day, 40)
    both.now = ends + 0.5
    _, (row,) = both.run("figures", *day)
    assert figures_of(row).used == 0
    both.run("atleast", *day, 7)
    both.now = ends + 3600.0
    _, (row,) = both.run("figures", *both.specs.limit(limit, both.now))
    assert figures_of(row).used == 7


def test_the_largest_budget_is_counted_exactly(redis_hub: Hub) -> None:
    budget = Limit("role/rich", "cost", Window("month", 31 * 86_400.0), 10**18, owner="caller")
    both = Both(redis_hub, START)
    spec = both.specs.limit(budget, START)
    assert spec[2] == 2**53 - 1
    both.run("atleast", *spec, 2**53 - 3)
    _, (row,) = both.run("figures", *spec)
    assert figures_of(row).used == 2**53 - 3
    parts = both.specs.claim(claims([budget], Cost(1, 1, money=3))[0], START)
    assert answer_of(both.run("reserve", "a", 0, 0, *parts)).code == 0
    parts = both.specs.claim(claims([budget], Cost(1, 1, money=2))[0], START)
    assert answer_of(both.run("reserve", "b", 0, 0, *parts)).code == 1
