"""What each strategy remembers and prefers: whose turn it is, who is quick, who is free of charge."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    STRATEGIES,
    Cost,
    Credential,
    Deployment,
    Entry,
    Exhausted,
    KeyIndex,
    Mark,
    Marks,
    Pace,
    Pool,
    ScopeKey,
    Strategy,
    Transition,
    peek,
    pick,
    scopes_of,
    strategy_named,
)
from keyturn.core.entries import FADING

SMALL = Cost(10, 0, 1)


class Shares:
    """A view whose loads are set by hand."""

    def __init__(self) -> None:
        self.marks = Marks()
        self.shares: dict[str, float] = {}
        self.asked = 0

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None:
        return self.marks.blocked(scopes, now)

    def load(self, scope: str, now: float) -> tuple[float, float]:
        self.asked += 1
        return self.shares.get(scope, 0.0), inf


def keys(count: int, free: Sequence[int] = ()) -> list[Credential]:
    return [Credential.of("groq", f"secret{n}", n, plan="free" if n in free else None) for n in range(count)]


def pool_of(count: int, strategy: Strategy, free: Sequence[int] = (), model: str = "llama") -> tuple[Pool, Shares]:
    view = Shares()
    return Pool(Deployment("groq", model), keys(count, free), strategy, view), view


def chosen(pool: Pool, now: float = 0.0, tried: Sequence[int] = (), draw: float = 0.0) -> Entry:
    entry = pick(pool, SMALL, tried, now, lambda: draw)
    assert isinstance(entry, Entry), entry
    return entry


def block(view: Shares, pool: Pool, order: int, until: float) -> None:
    scope = scopes_of(pool.entries[order].candidate)[2]
    view.marks.apply(Transition(scope, "cooling", until, "rate_limited", 1, 0.0))


# --- round robin


def test_ROT_01_many_429_of_one_key_move_the_index_once() -> None:
    turn = KeyIndex()
    pool, _ = pool_of(3, strategy_named("round_robin", turn))
    for late in range(20):
        pool.strategy.moved(pool, pool.entries[0], started=0.0, now=1.0 + late)
    assert turn.index == 1


def test_a_late_429_of_an_old_burst_does_not_move_an_index_that_has_come_round() -> None:
    turn = KeyIndex()
    pool, _ = pool_of(2, strategy_named("round_robin", turn))
    pool.strategy.moved(pool, pool.entries[0], started=0.0, now=1.0)
    pool.strategy.moved(pool, pool.entries[1], started=0.5, now=2.0)
    assert turn.index == 0
    pool.strategy.moved(pool, pool.entries[0], started=0.9, now=3.0)
    assert turn.index == 0
    pool.strategy.moved(pool, pool.entries[0], started=1.5, now=3.5)
    assert turn.index == 1


def test_only_the_key_that_the_index_names_moves_it() -> None:
    turn = KeyIndex()
    pool, _ = pool_of(3, strategy_named("round_robin", turn))
    pool.strategy.moved(pool, pool.entries[2], started=0.0, now=1.0)
    assert turn.index == 0


def test_one_key_alone_has_nowhere_to_move() -> None:
    moves = list[int]()
    turn = KeyIndex(0, moves.append)
    pool, _ = pool_of(1, strategy_named("round_robin", turn))
    pool.strategy.moved(pool, pool.entries[0], started=0.0, now=1.0)
    assert (turn.index, moves) == (0, [])


@pytest.mark.parametrize(("remembered", "first"), [(0, 0), (2, 2), (3, 0), (7, 1), (-1, 2)])
def test_ROT_02_a_remembered_index_is_clamped_to_the_keys_there_are(remembered: int, first: int) -> None:
    turn = KeyIndex(remembered)
    pool, _ = pool_of(3, strategy_named("round_robin", turn))
    assert chosen(pool).order == first
    pool.strategy.moved(pool, pool.entries[first], started=0.0, now=1.0)
    assert turn.index == (first + 1) % 3


def test_all_pools_of_a_provider_share_the_index_and_every_move_is_told() -> None:
    moves = list[int]()
    turn = KeyIndex(0, moves.append)
    one, _ = pool_of(3, strategy_named("round_robin", turn))
    other, _ = pool_of(3, strategy_named("round_robin", turn), model="other")
    one.strategy.moved(one, one.entries[0], started=0.0, now=1.0)
    assert chosen(other).order == 1
    other.strategy.moved(other, other.entries[1], started=2.0, now=3.0)
    assert chosen(one).order == 2
    one.strategy.moved(one, one.entries[2], started=4.0, now=5.0)
    assert moves == [1, 2, 0]


def test_the_index_means_the_same_key_in_a_pool_that_lacks_some() -> None:
    turn, every = KeyIndex(1), keys(5)
    some = [every[0], every[2], every[4]]
    pool = Pool(Deployment("groq", "small"), some, strategy_named("round_robin", turn), Shares(), every)
    assert chosen(pool).candidate.credential is every[2]
    pool.strategy.moved(pool, pool.entries[1], started=0.0, now=1.0)
    assert turn.index == 1, "not the key that the index names"
    turn.index = 4
    assert chosen(pool).candidate.credential is every[4]
    pool.strategy.moved(pool, pool.entries[2], started=0.0, now=2.0)
    assert turn.index == 0
    turn.index = 3
    assert chosen(pool).candidate.credential is every[4]


def test_each_call_moves_the_index_when_the_owner_wants_it() -> None:
    moves = list[int]()
    pool, view = pool_of(3, strategy_named("round_robin", KeyIndex(0, moves.append), each_call=True))
    block(view, pool, 1, 10.0)
    assert [chosen(pool).order for _ in range(4)] == [0, 2, 0, 2]
    assert moves[-1] == 0
    pool.strategy.moved(pool, pool.entries[0], started=0.0, now=1.0)
    assert moves[-1] == 0


# --- looking without moving


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("each_call", [False, True])
def test_a_peek_tells_what_a_pick_would_and_moves_nothing(name: str, each_call: bool) -> None:
    moves = list[int]()
    pool, view = pool_of(5, strategy_named(name, KeyIndex(3, moves.append), each_call=each_call), free=(2, 4))
    block(view, pool, 3, 10.0)
    for draw in (0.0, 0.3, 0.99):
        expected = peek(pool, SMALL, (), 1.0, lambda draw=draw: draw)  # type: ignore[misc]
        assert peek(pool, SMALL, (), 1.0, lambda draw=draw: draw) is expected  # type: ignore[misc]
        assert moves == []
        assert chosen(pool, 1.0, draw=draw) is expected
        moves.clear()


@pytest.mark.parametrize("name", STRATEGIES)
def test_peeks_with_all_before_left_out_tell_the_whole_order(name: str) -> None:
    pool, _ = pool_of(4, strategy_named(name, KeyIndex(2)))
    order = list[int]()
    while isinstance(found := peek(pool, SMALL, order, 0.0, lambda: 0.0), Entry):
        order.append(found.order)
    assert sorted(order) == [0, 1, 2, 3]
    if name == "round_robin":
        assert order == [2, 3, 0, 1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_finds_what_is_there_and_nothing_else(name: str) -> None:
    rng = random.Random(name)
    pool, view = pool_of(200, strategy_named(name), free=range(0, 200, 2))
    for order in range(200):
        if order not in (70, 71, 150):
            block(view, pool, order, 100.0)
    found = {entry.order for _ in range(60) if isinstance(entry := pick(pool, SMALL, (150,), 1.0, rng.random), Entry)}
    assert found <= {70, 71}
    assert found
    assert isinstance(pick(pool, SMALL, (70, 71, 150), 1.0, rng.random), Exhausted)
    pool, _ = pool_of(0, strategy_named(name))
    assert isinstance(pick(pool, SMALL, (), 0.0, rng.random), Exhausted)


# --- fastest


def measured(pool: Pool, *seconds: float, now: float = 0.0) -> None:
    for entry, each in zip(pool.entries, seconds, strict=True):
        pool.observed(entry, each, now)


@pytest.mark.parametrize("count", [8, 200], ids=["all are compared", "eight are drawn"])
def test_ROT_08_balanced_spreads_calls_evenly_and_evens_out_what_was_uneven(count: int) -> None:
    random.seed(8)
    pool, view = pool_of(count, strategy_named("balanced"))
    served = Counter({0: 5})
    for _ in range(20 * count):
        for each in pool.entries:
            view.shares[each.limit_scopes[0]] = served[each.order] / 1000
            each.load_until = -inf
        entry = pick(pool, SMALL, (), 0.0, random.random)
        assert isinstance(entry, Entry)
        pool.used(entry)
        pool.done(entry)
        served[entry.order] += 1
    assert set(served) == set(range(count))
    assert max(served.values()) - min(served.values()) <= (1 if count == 8 else 6)


def test_fastest_measures_everybody_first_and_nobody_twice_at_once() -> None:
    pool, _ = pool_of(3, strategy_named("fastest"))
    asked = []
    for _ in range(3):
        entry = chosen(pool)
        pool.used(entry)
        asked.append(entry.order)
    assert sorted(asked) == [0, 1, 2]
    pool.observed(pool.entries[0], 0.2, 1.0)
    pool.done(pool.entries[0])
    for draw in (0.0, 0.4, 0.9):
        assert chosen(pool, 1.0, tried=[] if draw < 0.9 else [1]).order == 0, "the others are being measured"
    pool.done(pool.entries[2])
    assert chosen(pool, 1.0).order == 2, "its measurement came to nothing: again"


def test_fastest_takes_the_better_of_two_drawn() -> None:
    pool, _ = pool_of(3, strategy_named("fastest"))
    measured(pool, 2.0, 0.3, 0.9)
    rng = random.Random(3)
    counts: Counter[int] = Counter()
    for _ in range(3000):
        entry = pick(pool, SMALL, (), 0.0, rng.random)
        assert isinstance(entry, Entry)
        counts[entry.order] += 1
    assert counts[0] == 0, "the slowest loses against whoever is drawn with it"
    assert abs(counts[1] - 2000) < 150
    assert abs(counts[2] - 1000) < 150


def test_fastest_of_two_is_the_faster_one_until_it_is_busy() -> None:
    pool, _ = pool_of(2, strategy_named("fastest"))
    measured(pool, 1.0, 0.4)
    taken = []
    for _ in range(4):
        entry = chosen(pool)
        pool.used(entry)
        taken.append(entry.order)
    assert taken == [1, 1, 0, 1]


def test_a_slow_answer_counts_at_once_and_is_forgotten_in_time() -> None:
    pace = Pace(0.5, 0.0)
    pace.observe(4.0, 1.0)
    assert pace.at(1.0) == 4.0
    pace.observe(0.5, 1.0 + FADING)
    assert 1.5 < pace.at(1.0 + FADING) < 2.0
    for step in range(2, 12):
        pace.observe(0.5, 1.0 + step * FADING)
    assert pace.at(1.0 + 11 * FADING) == pytest.approx(0.5, abs=0.01)


def test_what_was_slow_once_is_tried_again() -> None:
    pool, _ = pool_of(2, strategy_named("fastest"))
    measured(pool, 5.0, 0.5)
    assert chosen(pool).order == 1
    for step in range(1, 8):
        pool.observed(pool.entries[1], 0.5, step * FADING / 2)
    assert chosen(pool, 7 * FADING / 2).order == 0


def test_a_pool_knows_the_pace_of_its_deployment() -> None:
    pool, _ = pool_of(2, strategy_named("balanced"))
    paces = [pool.pace]
    measured(pool, 0.5, 1.5)
    paces.append(pool.pace)
    assert [pace and pace.at(0.0) for pace in paces] == [None, 1.5]


def test_a_clock_that_stands_or_steps_back_breaks_no_pace() -> None:
    pace = Pace(1.0, 10.0)
    pace.observe(0.5, 5.0)
    assert pace.at(0.0) == 1.0


@given(st.lists(st.tuples(st.floats(0.001, 300.0), st.floats(0.0, 500.0)), min_size=1, max_size=40))
def test_a_pace_lies_within_what_was_measured(story: list[tuple[float, float]]) -> None:
    now, seen = 0.0, [story[0][0]]
    pace = Pace(story[0][0], now)
    for seconds, passed in story[1:]:
        now += passed
        pace.observe(seconds, now)
        seen.append(seconds)
        assert min(seen) * 0.999 <= pace.at(now) <= max(seen) * 1.001
        assert pace.at(now) >= seconds * 0.999
        assert pace.at(now + 5.0) < pace.at(now)


def test_fastest_of_ten_thousand_looks_at_few() -> None:
    """Most of them blocked for ever and never measured: they must not be walked through each time."""
    pool, _ = pool_of(10_000, strategy_named("fastest"))
    for order in range(9_000):
        pool.park(pool.entries[order], inf, "dead")
    looked = 0

    class Counted(list[Entry]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(place)

    pool.entries = Counted(pool.entries)
    rng = random.Random(1)
    for _ in range(100):
        assert isinstance(pick(pool, SMALL, (), 0.0, rng.random), Entry)
    assert looked <= 100 * 20


# --- cheapest


def test_cheapest_takes_free_keys_as_long_as_there_is_one() -> None:
    pool, view = pool_of(5, strategy_named("cheapest"), free=(1, 3))
    view.shares[pool.entries[1].limit_scopes[0]] = 0.9
    view.shares[pool.entries[3].limit_scopes[0]] = 0.5
    assert chosen(pool).order == 3
    block(view, pool, 3, 10.0)
    assert chosen(pool).order == 1
    assert chosen(pool, tried=[1]).order == 0
    pool.entries[1].short_cost, pool.entries[1].short_until = 5, 10.0
    assert chosen(pool).order == 0
    assert chosen(pool, now=10.0).order == 3


def test_cheapest_breaks_ties_as_balanced_does() -> None:
    pool, _ = pool_of(4, strategy_named("cheapest"), free=(0, 1, 2))
    counts: Counter[int] = Counter()
    for _ in range(300):
        entry = chosen(pool)
        counts[entry.order] += 1
        pool.used(entry)
        pool.done(entry)
    assert counts == {0: 100, 1: 100, 2: 100}


def test_cheapest_finds_the_one_free_key_among_ten_thousand() -> None:
    pool, view = pool_of(10_000, strategy_named("cheapest"), free=(7_777,))
    rng = random.Random(1)
    for _ in range(50):
        entry = pick(pool, SMALL, (), 0.0, rng.random)
        assert isinstance(entry, Entry)
        assert entry.order == 7_777
    assert view.asked <= 50 * 8 * 2


@given(st.lists(st.tuples(st.sampled_from("pbru"), st.integers(0, 5), st.floats(0, 20)), max_size=60))
def test_the_free_ones_are_always_those_of_the_ready(story: list[tuple[str, int, float]]) -> None:
    pool, _ = pool_of(6, strategy_named("cheapest"), free=(0, 2, 5))
    now = 0.0
    for action, order, seconds in story:
        entry = pool.entries[order]
        if action == "p":
            pool.park(entry, now + seconds, "limit")
        elif action == "b":
            pool.park(entry, inf, "busy")
        elif action == "r":
            now += seconds
            pool.revive(now)
        else:
            pool.unpark(entry)
        assert pool.ranks[0].free == [each for each in pool.ready if each in (0, 2, 5)]
