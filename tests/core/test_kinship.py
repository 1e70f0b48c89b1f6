"""Which keys share a quota: what speaks for it, what against, and that no independent keys are ever taken together."""

from __future__ import annotations

import random

import pytest

from keyturn.core import Kinship
from keyturn.core.suspects import (
    APART_FOR,
    MOST_PLACES,
    MOST_SUSPECTS,
    SUSPECTED_FOR,
    UNSETTLED,
    Spot,
    Stated,
    together,
)
from keyturn.simulator.limiters import Kind
from tests.support.quota_world import PLACE, Pool, Upstream, bursts, limiters, steady


def shared(kind: Kind, capacity: int, *, known: bool, keys: int = 2, others: tuple[int, ...] = ()) -> Pool:
    """*keys* keys of one project, and others that have one each."""
    projects = [0] * keys + [1 + each for each in range(len(others))]
    capacities = [capacity, *others]
    upstream = Upstream(projects, limiters(kind, capacities), {})
    return Pool(upstream, capacities=[capacities[each] for each in projects] if known else None)


LOADS = {
    "steady": lambda capacity: steady(1.6 * capacity / 60, 900),
    "at random": lambda capacity: steady(1.8 * capacity / 60, 900, random.Random(3)),
    "bursts": lambda capacity: bursts(lambda: int(1.6 * capacity), 70, 900),
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("kind", ["fixed", "rolling", "bucket"])
def test_two_keys_of_one_project_are_found_within_200_calls(kind: Kind, known: bool, load: str) -> None:
    pool = shared(kind, 15, known=known)
    pool.run([7 + each for each in LOADS[load](15)], 200)
    assert pool.kin, "not found"
    assert {pool.kin[0][0].one, pool.kin[0][0].other} == {"0", "1"}
    assert pool.kin[0][0].evidence


@pytest.mark.parametrize("kind", ["fixed", "rolling"])
def test_of_three_keys_only_the_two_that_share(kind: Kind) -> None:
    pool = shared(kind, 15, known=False, others=(15,))
    pool.run([7 + each for each in steady(1.5 * 30 / 60, 1800)])
    assert {frozenset((kin.one, kin.other)) for kin, _ in pool.kin} == {frozenset(("0", "1"))}


def independent(seed: int) -> Pool:
    """A random pool in which nobody shares: equal limits and others, exhausted together in bursts, storms of 429."""
    draw = random.Random(seed)
    keys = draw.choice((2, 2, 2, 3, 4, 8))
    kind: Kind = draw.choice(("fixed", "rolling", "bucket"))
    capacity = draw.choice((5, 10, 15, 30))
    equal = draw.random() < 0.6
    capacities = [capacity if equal else max(2, int(capacity * draw.uniform(0.3, 3))) for _ in range(keys)]
    if draw.random() < 0.1:
        capacities = [0] * keys  # no limits: only storms
    storms, now = [], 0.0
    every, length = draw.choice(((1e9, 1), (1e9, 1), (400, 60), (90, 25)))
    while now < 1200:
        now += draw.expovariate(1 / every)
        storms.append((now, now := now + draw.expovariate(1 / length)))
    known = draw.random() < 0.3 and all(capacities)
    upstream = Upstream(list(range(keys)), limiters(kind, capacities), {}, storms, draw.random() < 0.7)
    pool = Pool(upstream, seed, capacities if known else None, draw.choice((0.01, 0.2, 1.0)))
    rate = draw.choice((0.6, 0.95, 1.1, 1.3, 2.0, 3.0)) * (sum(capacities) or 60) / 60
    seconds, wave = 350 / rate, draw.choice((60, 60, 30, 75))
    many = max(1, int(rate * wave))
    shapes = (
        steady(rate, seconds),
        steady(rate, seconds, draw),
        bursts(lambda: many, wave, seconds),
        bursts(lambda: draw.randint(1, 2 * many), wave, seconds),
    )
    pool.run(shapes[draw.randrange(len(shapes))])
    return pool


def test_no_false_merge_in_100_random_independent_pools() -> None:
    pools = {seed: independent(seed) for seed in range(100)}
    assert {seed: pool.kin for seed, pool in pools.items() if pool.kin} == {}
    assert sum(pool.refused for pool in pools.values()) > 2000, "hardly anything was put to the test"


def in_trouble(seed: int) -> Pool:
    """A pool in which nobody shares, at a provider that refuses everybody a quarter of the time."""
    draw = random.Random(seed)
    kind: Kind = draw.choice(("fixed", "rolling", "bucket"))
    capacity, every = draw.choice((5, 8, 15, 30, 60)), draw.choice((75, 30, 12))
    storms, now = [], 0.0
    while now < 1200:
        now += draw.expovariate(1 / every)
        storms.append((now, now := now + draw.expovariate(3 / every)))
    upstream = Upstream([0, 1], limiters(kind, [capacity] * 2), {}, storms, draw.random() < 0.7)
    pool = Pool(upstream, seed, [capacity] * 2 if draw.random() < 0.4 else None, draw.choice((0.01, 0.2, 1.0)))
    rate = draw.choice((0.6, 1.1, 1.6, 3.0)) * 2 * capacity / 60
    pool.run(steady(rate, 250 / rate, draw.choice((None, draw))))
    return pool


def test_no_false_merge_where_everybody_is_refused_a_quarter_of_the_time() -> None:
    pools = {seed: in_trouble(seed) for seed in range(60)}
    assert {seed: pool.kin for seed, pool in pools.items() if pool.kin} == {}
    assert sum(pool.refused for pool in pools.values()) > 2000, "hardly anything was put to the test"


def overloaded(seed: int) -> Pool:
    """Independent keys with equal limits, which the same traffic overloads at once."""
    draw = random.Random(seed)
    kind: Kind = draw.choice(("fixed", "rolling", "bucket"))
    keys, capacity = draw.choice((2, 2, 3)), draw.choice((5, 8, 15, 30, 60))
    upstream = Upstream(list(range(keys)), limiters(kind, [capacity] * keys), {}, (), draw.random() < 0.7)
    known = draw.choice((None, [capacity] * keys, [2 * capacity] * keys))
    pool = Pool(upstream, seed, known, draw.choice((0.01, 0.2, 3.0)))
    rate = draw.choice((1.05, 1.6, 3.0)) * capacity * keys / 60
    pool.run(steady(rate, 300 / rate))
    return pool


def test_no_false_merge_of_keys_that_are_overloaded_at_once() -> None:
    pools = {seed: overloaded(seed) for seed in range(40)}
    assert {seed: pool.kin for seed, pool in pools.items() if pool.kin} == {}
    assert sum(pool.refused for pool in pools.values()) > 1000, "hardly anything was put to the test"


def test_who_had_said_it_would_be_free_and_was_left_alone_tells() -> None:
    kinship = Kinship()
    refused(kinship, "a", 100.0, wait=10.0)
    refused(kinship, "b", 100.0, wait=10.0)
    found, now = [], 112.0
    for leader, other in (("a", "b"), ("b", "a")) * 4:  # one call is given back every 10 s
        admitted(kinship, leader, now)
        for each in (leader, other):
            found += kinship.refused(PLACE, each, now + 2.0, now + 2.0, wait=8.0, cost=10)
        now += 12.0
        if found:
            break
    assert [{kin.one, kin.other} for kin in found] == [{"a", "b"}]


def test_who_says_so_and_lies_tells_nothing() -> None:
    kinship = Kinship()
    for now in range(100, 1000, 30):
        for each in ("a", "b"):
            refused(kinship, each, float(now), wait=2.0)
            refused(kinship, each, now + 4.0, wait=2.0)  # it was said to be free, and nobody was admitted
        admitted(kinship, "a" if now % 60 else "b", now + 20.0)
        refused(kinship, "a", now + 21.0, wait=2.0)
        refused(kinship, "b", now + 21.1, wait=2.0)


def test_headers_that_several_keys_may_explain_say_nothing() -> None:
    kinship = Kinship()
    found = []
    for each in "abc":
        found += kinship.refused(PLACE, each, 100.0, 100.0, wait=30.0, cost=10)
    for turn in range(10):
        start = 200.0 + 61 * turn
        for call in range(8):
            for each in "ab":  # a shares with c: but b is used as much
                found += kinship.admitted(PLACE, each, start + call, start + call, cost=10)
        found += kinship.admitted(PLACE, "c", start + 9, start + 9, cost=10, stated=[Stated(20, 11)])
    assert found == []


def test_keys_that_have_nothing_to_do_with_each_other_have_leaders_of_their_own() -> None:
    kinship = Kinship()
    for each in "abcd":
        refused(kinship, each, 100.0)
    assert kinship.leads(PLACE) == (("a", "b", "c", "d"),)
    for one in "ab":
        for other in "cd":
            kinship.keep_apart("acme", one, other, float("inf"))
    refused(kinship, "a", 200.0)
    assert kinship.leads(PLACE) == (("a", "b"), ("c", "d"))


def test_it_is_open_who_shares_until_something_tells() -> None:
    kinship = Kinship()
    refused(kinship, "a", 100.0)
    assert kinship.unsettled(PLACE, "a", ["a", "b"], 101.0)
    admitted(kinship, "b", 102.0)
    assert not kinship.unsettled(PLACE, "a", ["a", "b"], 103.0)
    assert kinship.unsettled(PLACE, "a", ["a", "b", "c"], 103.0)
    assert not kinship.unsettled(PLACE, "a", ["a", "b", "c"], 100.0 + UNSETTLED)


def test_keys_that_run_out_together_are_told_apart_by_who_is_asked_first() -> None:
    pool = shared("fixed", 20, known=False, keys=1, others=(20,))
    pool.run(bursts(lambda: 60, 60, 600))
    assert not pool.kin
    assert pool.kinship.lead(PLACE) == (), "it is known by now that they do not share"
    assert pool.served == 400


def refused(kinship: Kinship, name: str, now: float, *, wait: float | None = 30.0, cost: int = 10) -> None:
    assert kinship.refused(PLACE, name, now, now, wait=wait, cost=cost) == []


def admitted(kinship: Kinship, name: str, now: float, *, cost: int = 10) -> None:
    assert kinship.admitted(PLACE, name, now, now, cost=cost) == []


def test_an_admission_while_the_other_is_refused_sets_them_apart_for_a_day() -> None:
    kinship = Kinship()
    refused(kinship, "a", 100.0)
    refused(kinship, "b", 100.1)
    assert kinship.lead(PLACE) == ("a", "b")
    refused(kinship, "a", 200.0)
    admitted(kinship, "b", 200.2)
    assert kinship.lead(PLACE) == ()
    refused(kinship, "a", 300.0)
    refused(kinship, "b", 300.1)
    assert kinship.lead(PLACE) == ()
    refused(kinship, "a", 200.2 + APART_FOR)
    refused(kinship, "b", 200.3 + APART_FOR)
    assert kinship.lead(PLACE) == ("a", "b")


def test_a_smaller_call_that_is_admitted_says_nothing() -> None:
    kinship = Kinship()
    refused(kinship, "a", 100.0, cost=5000)
    refused(kinship, "b", 100.1, cost=5000)
    refused(kinship, "a", 200.0, cost=5000)
    admitted(kinship, "b", 200.2, cost=10)
    assert kinship.lead(PLACE) == ("a", "b")


def test_what_was_under_way_before_the_refusal_says_nothing() -> None:
    kinship = Kinship()
    refused(kinship, "a", 100.0)
    refused(kinship, "b", 100.1)
    refused(kinship, "a", 200.0)
    kinship.admitted(PLACE, "b", 199.9, 203.0, cost=10)
    assert kinship.lead(PLACE) == ("a", "b")


def test_suspicions_end_and_are_bounded() -> None:
    kinship = Kinship()
    for number in range(MOST_SUSPECTS + 4):
        refused(kinship, str(number), 100.0 + number / 100)
    assert len(kinship.lead(PLACE)) == MOST_SUSPECTS
    for number in range(2 * MOST_PLACES):
        kinship.refused(("acme", f"model-{number}"), "a", 101.0, 101.0, wait=None, cost=1)
    assert sum(kinship.watches(("acme", f"model-{number}")) for number in range(2 * MOST_PLACES)) <= MOST_PLACES
    kinship.expire(101.0 + SUSPECTED_FOR)
    kinship.expire(102.0 + SUSPECTED_FOR)
    assert not kinship


def test_the_word_of_the_owner_holds() -> None:
    kinship = Kinship()
    kinship.keep_apart("acme", "a", "b", float("inf"))
    for now in range(100, 1000, 50):
        refused(kinship, "a", float(now))
        refused(kinship, "b", now + 0.1)
    assert kinship.lead(PLACE) == ()


def test_fixed_windows_are_known_by_when_they_end() -> None:
    spot = Spot(100.0)
    assert not spot.heard(160.0)
    assert not spot.heard(160.4), "the same end again"
    assert spot.heard(220.2)
    assert spot.fixed
    assert spot.began(200.0) == pytest.approx(160.2)
    assert spot.began(221.0) == pytest.approx(220.2)
    assert spot.heard(237.0)
    assert not spot.fixed


@pytest.mark.parametrize("seed", range(6))
def test_who_is_suspected_together_is_never_out_of_date(seed: int) -> None:
    draw, kinship, now = random.Random(seed), Kinship(), 0.0
    names, places = "abcdef", [PLACE, (PLACE[0], "another")]
    for _ in range(400):
        now += draw.choice((0.0, 0.2, 3.0, 40.0))
        name, place, what = draw.choice(names), draw.choice(places), draw.random()
        if what < 0.55:
            kinship.refused(place, name, now - 0.1, now, wait=draw.choice((None, 20.0)), cost=5)
        elif what < 0.9:
            kinship.admitted(place, name, now - 0.1, now, cost=5)
        elif what < 0.94:
            kinship.keep_apart(place[0], name, draw.choice(names), now + 100)
        elif what < 0.97:
            kinship.forget(place[0], [name])
        else:
            kinship.expire(now)
        for (provider, _), spot in kinship._spots.items():
            pairs = [pair for each in spot.suspects for pair in kinship._pairs_of(provider, spot, each)]
            assert kinship._together(provider, spot) == together(pairs)
