"""Which credential a pool picks, and how it sets aside and takes back what cannot be used."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    Cost,
    Credential,
    Deployment,
    Entry,
    Exhausted,
    Mark,
    Marks,
    Pool,
    ScopeKey,
    Transition,
    holder_in,
    pick,
    scopes_of,
    standing,
    strategy_named,
)

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
        return self.shares.get(scope, 0.0), float("inf")


def make(count: int, strategy: str = "balanced", weights: Sequence[float] = ()) -> tuple[Pool, Shares]:
    view = Shares()
    keys = [Credential.of("groq", f"secret{n}", n, weight=weights[n] if weights else 1.0) for n in range(count)]
    return Pool(Deployment("groq", "llama"), keys, strategy_named(strategy), view), view


def picked(pool: Pool, now: float = 0.0, tried: Sequence[int] = (), draw: float = 0.0) -> int:
    entry = pick(pool, SMALL, tried, now, lambda: draw)
    assert isinstance(entry, Entry), entry
    return entry.order


def block(view: Shares, pool: Pool, order: int, until: float, reason: str = "rate_limited") -> None:
    scope = scopes_of(pool.entries[order].candidate)[2]
    view.marks.apply(Transition(scope, "cooling", until, reason, 1, 0.0))


def test_balanced_takes_the_least_used_share() -> None:
    pool, view = make(4)
    for order, share in enumerate((0.5, 0.2, 0.1, 0.9)):
        view.shares[pool.entries[order].limit_scopes[0]] = share
    assert picked(pool) == 2
    assert picked(pool, tried=[2]) == 1


def test_balanced_breaks_ties_by_attempts_under_way_then_last_use_then_order() -> None:
    pool, _ = make(3)
    orders = []
    for _ in range(4):
        order = picked(pool)
        pool.used(pool.entries[order])
        orders.append(order)
    assert orders == [0, 1, 2, 0]
    for order in (0, 0, 1, 2):
        pool.done(pool.entries[order])
    assert picked(pool) == 1


SHARES = st.sampled_from((0.0, 0.25, 0.5, 1.5))


@given(st.lists(st.tuples(SHARES, st.integers(0, 2), st.integers(-1, 3)), min_size=1, max_size=70), st.integers(0, 9))
def test_balanced_takes_the_first_of_the_whole_order(keys: list[tuple[float, int, int]], seed: int) -> None:
    pool, view = make(len(keys))
    for entry, (share, active, last_used) in zip(pool.entries, keys, strict=True):
        view.shares[entry.limit_scopes[0]] = share
        entry.active, entry.last_used = active, last_used
    found = pick(pool, SMALL, (), 0.0, random.Random(seed).random)
    assert isinstance(found, Entry)
    seen = [each for each in pool.entries if each.load_until > 0.0] or [found]
    assert found is min(seen, key=lambda each: (each.load, each.active, each.last_used, each.order))
    assert len(seen) == len(keys) or len(keys) > 64


def test_how_a_pool_stands_is_told_anew_when_it_changes() -> None:
    pool, view = make(3)
    for entry in pool.entries:
        pool.park(entry, 10.0, "limit")
    assert standing(pool, (), 0.0) == "groq/llama: none of 3 keys is free (3 at a limit)"
    assert standing(pool, (1,), 0.0) == "groq/llama: none of 3 keys is free (1 tried, 2 at a limit)"
    pool.park(pool.entries[0], 10.0, "fault")
    told = "groq/llama: none of 3 keys is free (2 at a limit, 1 resting after a fault)"
    assert standing(pool, (), 0.0) == told
    view.marks.apply(Transition(pool.scope[0], "cooling", 5.0, "overloaded", 1, 0.0))
    assert standing(pool, (), 0.0) == told.replace("fault)", "fault, all resting: overloaded)")
    assert standing(pool, (), 6.0) == told


def test_ROT_14_a_tried_key_is_left_out() -> None:
    pool, _ = make(3)
    assert picked(pool, tried=[0, 1]) == 2
    gone = pick(pool, SMALL, [0, 1, 2], 0.0, lambda: 0.0)
    assert isinstance(gone, Exhausted)
    assert gone.wait == float("inf")


def test_blocked_entries_return_when_their_time_comes() -> None:
    pool, view = make(3)
    for order, until in enumerate((30.0, 12.0, 20.0)):
        block(view, pool, order, until)
    short = pick(pool, SMALL, (), 2.0, lambda: 0.0)
    assert isinstance(short, Exhausted)
    assert (short.wait, short.limits, short.faults, short.dead) == (10.0, 3, 0, 0)
    assert picked(pool, now=12.0) == 1
    assert picked(pool, now=21.0, tried=[1]) == 2


def test_the_reasons_are_counted_apart() -> None:
    pool, view = make(3)
    block(view, pool, 0, 10.0, "rate_limited")
    block(view, pool, 1, 10.0, "server_error")
    block(view, pool, 2, 10.0, "forbidden")
    short = pick(pool, SMALL, (), 0.0, lambda: 0.0)
    assert isinstance(short, Exhausted)
    assert (short.limits, short.faults, short.dead) == (1, 1, 1)


def test_a_call_too_large_now_does_not_keep_smaller_ones_away() -> None:
    pool, _ = make(1)
    pool.entries[0].short_cost, pool.entries[0].short_until = 500, 9.0
    large = pick(pool, Cost(600, 0, 1), (), 1.0, lambda: 0.0)
    assert isinstance(large, Exhausted)
    assert (large.wait, large.by_size) == (8.0, True)
    assert picked(pool, now=1.0) == 0


def test_ROT_01_round_robin_moves_on_429_and_wraps() -> None:
    pool, _ = make(3, "round_robin")
    seen = []
    for _ in range(5):
        order = picked(pool)
        assert picked(pool) == order
        seen.append(order)
        pool.strategy.moved(pool, pool.entries[order])
    assert seen == [0, 1, 2, 0, 1]


def test_round_robin_skips_what_rests_without_moving_its_index() -> None:
    pool, view = make(3, "round_robin")
    block(view, pool, 0, 10.0)
    assert picked(pool) == 1
    assert picked(pool, now=10.0) == 0


def test_ROT_09_sequential_keeps_its_key_until_it_cannot() -> None:
    pool, view = make(3, "sequential")
    assert [picked(pool) for _ in range(3)] == [0, 0, 0]
    block(view, pool, 0, 10.0)
    assert [picked(pool, now=now) for now in (1.0, 2.0, 11.0)] == [1, 1, 1]


def test_weighted_follows_the_weights() -> None:
    pool, _ = make(3, "weighted", weights=(1.0, 2.0, 5.0))
    rng = random.Random(7)
    counts = Counter(
        entry.order for _ in range(8000) if isinstance(entry := pick(pool, SMALL, (), 0.0, rng.random), Entry)
    )
    assert abs(counts[0] - 1000) < 150
    assert abs(counts[1] - 2000) < 200
    assert abs(counts[2] - 5000) < 200


def test_ROT_06_balanced_spreads_evenly() -> None:
    pool, _ = make(10)
    counts: Counter[int] = Counter()
    for _ in range(1000):
        order = picked(pool)
        counts[order] += 1
        pool.used(pool.entries[order])
        pool.done(pool.entries[order])
    assert set(counts.values()) == {100}


def test_a_pick_looks_at_few_of_ten_thousand() -> None:
    pool, view = make(10_000)
    rng = random.Random(1)
    for _ in range(50):
        entry = pick(pool, SMALL, (), 0.0, rng.random)
        assert isinstance(entry, Entry)
        pool.used(entry)
    assert view.asked <= 50 * 8 * 2


def test_ten_thousand_exhausted_credentials_are_looked_at_once() -> None:
    pool, view = make(10_000)
    for order in range(10_000):
        block(view, pool, order, 60.0)
    assert isinstance(pick(pool, SMALL, (), 0.0, random.Random(1).random), Exhausted)
    assert pool.ready == []
    assert isinstance(pick(pool, SMALL, (), 1.0, random.Random(1).random), Exhausted)


@given(st.lists(st.tuples(st.sampled_from("pbrw"), st.integers(0, 5), st.floats(0, 20)), max_size=60))
def test_ready_and_parked_always_partition_the_pool(story: list[tuple[str, int, float]]) -> None:
    pool, _ = make(6)
    now = 0.0
    for action, order, seconds in story:
        entry = pool.entries[order]
        if action == "p":
            pool.park(entry, now + seconds, "limit")
        elif action == "b":
            pool.park(entry, float("inf"), "busy")
        elif action == "r":
            now += seconds
            pool.revive(now)
        else:
            pool.unpark(entry)
        parked = [each.order for each in pool.entries if each.block is not None]
        assert sorted(pool.ready + parked) == list(range(6))
        assert pool.ready == sorted(pool.ready)
        assert sum(pool.blocks.values()) == len(parked)
        pool.revive(now)
        assert all(each.parked_until > now for each in pool.entries if each.block is not None)


def test_who_holds_the_prompt_cache_is_preferred() -> None:
    pool, view = make(3)
    assert holder_in(pool, 7, 10, (), 0.0) is None
    pool.holds(pool.entries[2], 7, 0.0)
    found = holder_in(pool, 7, 10, (), 0.0)
    assert found is pool.entries[2]
    assert holder_in(pool, 7, 10, (2,), 0.0) is None, "it was tried in this call"
    assert holder_in(pool, 8, 10, (), 0.0) is None
    view.shares[pool.entries[2].limit_scopes[0]] = 0.8
    pool.entries[2].load_until = -1.0
    assert holder_in(pool, 7, 10, (), 0.0) is None, "it is nearly full"


def test_who_rests_is_not_preferred_for_its_cache() -> None:
    pool, view = make(2)
    pool.holds(pool.entries[1], 7, 0.0)
    block(view, pool, 1, 30.0)
    assert holder_in(pool, 7, 10, (), 0.0) is None
    assert holder_in(pool, 7, 10, (), 31.0) is pool.entries[1]


def test_the_conversations_remembered_are_bounded() -> None:
    pool, _ = make(2)
    for number in range(5000):
        pool.holds(pool.entries[0], number, 0.0)
    assert len(pool.holders) == 4096
    assert holder_in(pool, 0, 10, (), 0.0) is None
    assert holder_in(pool, 4999, 10, (), 0.0) is pool.entries[0]
