"""The ranks of a pool: key priorities, soft targets of calls under way, fair cycles, and who holds a conversation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    STRATEGIES,
    Cost,
    Credential,
    Cycle,
    Deployment,
    Entry,
    Exhausted,
    FairRule,
    Flow,
    KeyIndex,
    Mark,
    Marks,
    Pool,
    ScopeKey,
    Secret,
    Transition,
    holder_in,
    pick,
    standing,
    strategy_named,
)

SMALL = Cost(10, 0, 1)
DRAW = random.Random(7).random


MANY = [Credential("groq", Secret(""), n, f"{n}", f"{n}", priority=1 + n % 3) for n in range(10_000)]


class Bare:
    """A view without limits; its marks are set by hand."""

    def __init__(self) -> None:
        self.marks = Marks()
        self.looked = 0

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None:
        self.looked += 1
        return self.marks.blocked(scopes, now)

    def load(self, scope: str, now: float) -> tuple[float, float]:
        return 0.0, inf


def make(priorities: Sequence[int | None], strategy: str = "balanced", **more: object) -> Pool:
    keys = [Credential.of("groq", f"secret{n}", n, priority=each) for n, each in enumerate(priorities)]
    return Pool(Deployment("groq", "llama"), keys, strategy_named(strategy), Bare(), **more)  # type: ignore[arg-type]


def chosen(pool: Pool, now: float = 0.0, tried: Sequence[int] = (), *, uses: bool = False) -> int:
    entry = pick(pool, SMALL, tried, now, DRAW)
    assert isinstance(entry, Entry), entry
    if uses:
        pool.used(entry)
    return entry.order


def turns(pool: Pool, now: float = 0.0, count: int = 10) -> set[int]:
    """Who is chosen for *count* calls, one after the other."""
    found = set()
    for _ in range(count):
        found.add(chosen(pool, now, uses=True))
        pool.done(max(pool.entries, key=lambda entry: entry.last_used))
    return found


def rest(pool: Pool, order: int, until: float, now: float = 0.0) -> None:
    """The key at *order* is limited until a moment, as after a 429."""
    pool.view.marks.apply(Transition(pool.entries[order].scopes[2], "cooling", until, "rate_limited", 1, now))  # type: ignore[attr-defined]
    pool.exhausted(pool.entries[order], pool.view.blocked(pool.entries[order].own_scopes, now), now)


@pytest.mark.parametrize("strategy", STRATEGIES)
class TestPriorities:
    def test_ROT_10_the_best_priority_is_used_by_every_strategy(self, strategy: str) -> None:
        pool = make([2, 1, 3, 1], strategy)
        assert turns(pool) <= {1, 3}

    def test_ROT_10_the_next_only_when_no_better_one_is_eligible_and_a_better_one_takes_over_again(
        self, strategy: str
    ) -> None:
        pool = make([2, 1, 3, 1], strategy)
        rest(pool, 1, 50)
        rest(pool, 3, 60)
        assert turns(pool, 1) == {0}
        rest(pool, 0, 100, 2)
        assert turns(pool, 3) == {2}
        assert turns(pool, 55) == {1}

    def test_ROT_14_what_was_tried_lets_the_next_priority_in(self, strategy: str) -> None:
        assert chosen(make([2, 1, 3, 1], strategy), tried=[1, 3]) == 0

    def test_a_key_without_a_priority_comes_after_those_that_have_one(self, strategy: str) -> None:
        pool = make([None, 9, None], strategy)
        assert chosen(pool) == 1
        assert chosen(pool, tried=[1]) in (0, 2)


class TestTurns:
    def test_ROT_10_round_robin_moves_on_within_a_priority(self) -> None:
        pool, now = make([2, 1, 1, 2, 1], "round_robin"), 0.0
        seen = []
        for _ in range(4):
            order = chosen(pool, now)
            seen.append(order)
            pool.strategy.moved(pool, pool.entries[order], now, now + 1)
            now += 2
        assert seen == [1, 2, 4, 1]

    def test_ROT_10_each_priority_has_its_own_turn(self) -> None:
        pool = make([1, 2, 1, 2, 2], "round_robin")
        pool.strategy.moved(pool, pool.entries[0], 0, 1)
        for order in (0, 2):
            rest(pool, order, 50)
        assert chosen(pool, 2) == 1
        pool.strategy.moved(pool, pool.entries[1], 2, 3)
        assert chosen(pool, 4) == 3
        assert chosen(pool, 60) == 2, "the turn of the better ones did not move meanwhile"

    def test_each_call_takes_turns_within_a_priority(self) -> None:
        turn = KeyIndex()
        pool = make([1, 2, 1, 1])
        pool.strategy = strategy_named("round_robin", turn, each_call=True)
        assert [chosen(pool) for _ in range(6)] == [0, 2, 3, 0, 2, 3]
        assert chosen(pool, tried=[0, 2, 3]) == 1

    def test_sequential_keeps_one_of_the_best_priority(self) -> None:
        pool = make([2, 1, 1], "sequential")
        assert [chosen(pool) for _ in range(3)] == [1, 1, 1]
        pool.strategy.moved(pool, pool.entries[1], 0, 1)
        rest(pool, 1, 10)
        assert [chosen(pool, 2), chosen(pool, 20)] == [2, 2], "the one that is kept now stays"

    def test_the_copy_for_explanations_moves_nothing(self) -> None:
        pool = make([1, 2, 2], "sequential")
        chosen(pool, tried=[0])
        before = chosen(pool)
        copy = pool.strategy.preview()
        copy.choose(pool, pool.ranks[1], 10, (), 0.0, DRAW)
        assert chosen(pool) == before


class TestSoftTarget:
    def test_ROT_11_keys_below_the_target_are_preferred_then_they_are_stacked(self) -> None:
        pool = make([None] * 3, "sequential", soft=2)
        assert [chosen(pool, uses=True) for _ in range(6)] == [0, 0, 1, 1, 2, 2]
        assert [chosen(pool, uses=True) for _ in range(2)] == [0, 0], "all are at the target: the kept one takes more"
        pool.done(pool.entries[2])
        assert chosen(pool) == 2

    def test_ROT_11_priority_goes_before_the_target(self) -> None:
        pool = make([1, 2], "balanced", soft=1)
        assert [chosen(pool, uses=True) for _ in range(3)] == [0, 0, 0]

    def test_a_credential_is_counted_over_all_its_pools(self) -> None:
        keys = [Credential.of("groq", f"secret{n}", n) for n in range(2)]
        flows: dict[str, Flow] = {}
        one, other = (
            Pool(Deployment("groq", model), keys, strategy_named("sequential"), Bare(), soft=1, flows=flows)
            for model in ("a", "b")
        )
        one.used(one.entries[0])
        assert chosen(other) == 1
        one.done(one.entries[0])
        assert chosen(other) == 0
        later = Pool(Deployment("groq", "c"), keys, strategy_named("sequential"), Bare(), soft=1, flows=flows)
        later.used(later.entries[0])
        later.let_go()
        assert [len(flow.places) for flow in flows.values()] == [2, 2]
        assert chosen(other) == 1

    def test_sequential_keeps_the_one_that_has_only_enough_to_do(self) -> None:
        pool = make([None] * 2, "sequential", soft=1)
        assert [chosen(pool, uses=True), chosen(pool, uses=True)] == [0, 1]
        pool.done(pool.entries[1])
        pool.done(pool.entries[0])
        assert chosen(pool) == 0


class TestFairCycle:
    RULE = FairRule(threshold=300.0, duration=1000.0)

    def fair(self, priorities: Sequence[int | None], strategy: str = "balanced", **rule: bool) -> Pool:
        return make(priorities, strategy, cycle=Cycle(), fair=self.RULE._replace(**rule))

    def test_ROT_13_who_was_exhausted_waits_until_all_have_been(self) -> None:
        pool = self.fair([None] * 3)
        rest(pool, 0, 300)
        assert turns(pool, 400) == {1, 2}
        rest(pool, 1, 710, 410)
        assert turns(pool, 720) == {2}
        rest(pool, 2, 1030, 730)
        assert turns(pool, 1040) == {0, 1, 2}, "a new cycle"

    def test_ROT_13_a_short_rest_is_no_exhaustion(self) -> None:
        pool = self.fair([None] * 2)
        rest(pool, 0, 299)
        assert turns(pool, 400) == {0, 1}

    def test_ROT_13_it_only_orders(self) -> None:
        pool = self.fair([None] * 2)
        rest(pool, 0, 300)
        rest(pool, 1, 450, 400)
        assert chosen(pool, 420) == 0, "the other one rests for a moment: nobody is refused"
        assert chosen(pool, 460) == 1
        assert chosen(pool, 460, tried=[1]) == 0

    def test_ROT_13_the_cycle_is_over_after_its_duration(self) -> None:
        pool = self.fair([None] * 2)
        rest(pool, 0, 300)
        assert turns(pool, 999) == {1}
        assert turns(pool, 1000) == {0, 1}

    def test_ROT_13_of_each_priority_or_of_all(self) -> None:
        alone, together = self.fair([1, 2]), self.fair([1, 2], cross_priority=True)
        for pool in (alone, together):
            rest(pool, 0, 300)
        assert chosen(alone, 400) == 0, "the only one of its priority: its cycle is over at once"
        assert chosen(together, 400) == 1

    def test_ROT_13_one_that_can_never_be_used_does_not_hold_up_the_cycle(self) -> None:
        pool = self.fair([None] * 3)
        pool.view.marks.apply(Transition(pool.entries[2].scopes[0], "disabled", inf, "disabled"))  # type: ignore[attr-defined]
        rest(pool, 0, 300)
        rest(pool, 1, 701, 401)
        assert turns(pool, 600) == {0}
        assert turns(pool, 720) == {0, 1}

    def test_ROT_13_what_limits_say_counts_too(self) -> None:
        pool = self.fair([None] * 2)
        pool.park(pool.entries[0], 400, "limit")
        pool.exhausted_until(pool.entries[0], 400, 0)
        pool.exhausted_until(pool.entries[1], inf, 0)
        assert turns(pool, 500) == {1}

    def test_ROT_13_pools_that_share_a_cycle_share_who_was_exhausted(self) -> None:
        keys, cycle = [Credential.of("groq", f"secret{n}", n) for n in range(2)], Cycle()
        one, other = (
            Pool(Deployment("groq", each), keys, strategy_named("balanced"), Bare(), cycle=cycle, fair=self.RULE)
            for each in ("a", "b")
        )
        rest(one, 0, 300)
        assert turns(other, 400) == {1}


class TestConversations:
    def test_ROT_12_it_stays_for_as_long_as_it_is_kept(self) -> None:
        pool = make([None] * 3, keeps=100.0)
        pool.holds(pool.entries[2], 7, 0.0)
        assert holder_in(pool, 7, 10, (), 99.0) is pool.entries[2]
        assert holder_in(pool, 7, 10, (), 100.0) is None
        assert not pool.holders

    def test_ROT_12_what_is_over_leaves_the_memory(self) -> None:
        pool = make([None] * 2, keeps=100.0)
        for number in range(50):
            pool.holds(pool.entries[0], number, float(number))
        pool.holds(pool.entries[0], 50, 140.0)
        assert list(pool.holders) == [*range(41, 50), 50]
        make([None] * 2, keeps=0.0).holds(pool.entries[0], 1, 0.0)

    def test_ROT_12_a_better_priority_takes_the_conversation_back(self) -> None:
        pool = make([2, 1])
        rest(pool, 1, 50)
        pool.holds(pool.entries[0], 7, 0.0)
        assert chosen(pool, 1) == 0
        assert holder_in(pool, 7, 10, (), 1.0) is pool.entries[0]
        assert holder_in(pool, 7, 10, (), 51.0) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ROT_10_a_pick_costs_the_same_among_ten_thousand_keys(strategy: str) -> None:
    """Keys looked at per pick: none of it grows with the pool, whatever the ranks."""
    pool = Pool(Deployment("groq", "llama"), MANY, strategy_named(strategy), Bare(), soft=1, cycle=Cycle())
    for _ in range(200):
        chosen(pool, uses=True)
    assert pool.view.looked == 400  # type: ignore[attr-defined]


def test_ROT_15_a_refused_call_is_told_how_the_keys_stand() -> None:
    pool = make([None] * 7)
    rest(pool, 0, 50)
    pool.park(pool.entries[1], 9, "limit")
    pool.park_capped(pool.entries[2], 9)
    pool.park(pool.entries[3], inf, "busy")
    pool.park(pool.entries[4], inf, "dead")
    pool.entries[5].short_until, pool.entries[5].short_cost = 9.0, 5
    assert isinstance(pick(pool, SMALL, [6], 1, DRAW), Exhausted)
    assert standing(pool, [6], 1) == (
        "groq/llama: none of 7 keys is free (1 tried, 2 at a limit, 1 at a cap of yours, 1 full, 1 not usable, "
        "1 without room for a call of this size)"
    )
    pool.revive(10)
    assert pool.at_cap == 0


@given(st.data())
def test_ranks_hold_exactly_what_is_ready(data: st.DataObject) -> None:
    """Whatever happens, each ready entry stands in its own rank once, and a pick is never worse than it could be."""
    priorities = data.draw(st.lists(st.sampled_from([None, 1, 2]), min_size=1, max_size=6))
    soft, cycle = data.draw(st.sampled_from([0, 1, 2])), data.draw(st.sampled_from([True, False]))
    pool = make(priorities, data.draw(st.sampled_from(STRATEGIES)), soft=soft, cycle=Cycle() if cycle else None)
    under_way: Counter[int] = Counter()
    now = 0.0
    for action in data.draw(st.lists(st.sampled_from("pudrwx"), max_size=25)):
        entry = pool.entries[data.draw(st.integers(0, len(priorities) - 1))]
        if action == "p":
            pool.park(entry, now + data.draw(st.sampled_from([1.0, 50.0, inf])), "limit")
        elif action == "u":
            pool.unpark(entry)
        elif action == "d" and under_way[entry.order]:
            under_way[entry.order] -= 1
            pool.done(entry)
        elif action == "r":
            rest(pool, entry.order, now + 400, now)
        elif action == "w":
            now += 60.0
        else:
            found = pick(pool, SMALL, (), now, DRAW)
            if isinstance(found, Entry):
                assert all(
                    not rank.ready or rank is found.rank for rank in pool.ranks[: pool.ranks.index(found.rank) + 1]
                )
                pool.used(found)
                under_way[found.order] += 1
        ready = [order for rank in pool.ranks for order in rank.ready]
        assert sorted(ready) == [each.order for each in pool.entries if each.block is None]
        assert all(rank.ready == sorted(rank.ready) for rank in pool.ranks)
        for each in pool.entries:
            assert each.block is not None or each.order in each.rank.ready
            assert not soft or each.stacked == (each.active >= soft)
