"""Budgets against a plain sum: whatever runs at once, nobody spends what is not there."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyturn.core.limitbook import Limit
from keyturn.core.limits import Cost, Denied, Meters, claims
from keyturn.core.message import Usage
from keyturn.core.pricing import NANO, Price
from keyturn.core.windows import INFLIGHT, MINUTE, MONTH

CENT = NANO // 100
BUDGET = Limit("caller/ci", "cost", MONTH, NANO, owner="caller")
ROLE = Limit("role/dev", "cost", MONTH, NANO // 2, owner="caller")
OWN_RPM = Limit("caller/ci", "requests", MINUTE, 5, owner="caller")
OWN_TPM = Limit("caller/ci", "tokens", MINUTE, 300, owner="caller")
THEIR_RPM = Limit("p/g|m", "requests", MINUTE, 8)
THEIR_MOST = Limit("p/g|m", "concurrency", INFLIGHT, 4)
LIMITS = (THEIR_RPM, THEIR_MOST, OWN_RPM, OWN_TPM, BUDGET, ROLE)
MONTHS = [datetime(2026, month, 1, tzinfo=UTC).timestamp() for month in range(1, 13)]
START = MONTHS[0] - 20.0
"""The wall clock at monotonic 0: the year is about to end."""


class Spending(RuleBasedStateMachine):
    """Any order of reserve, counted, settle, release and time; nothing costs more than it reserved."""

    def __init__(self) -> None:
        super().__init__()
        self.meters = Meters()
        self.meters.wall_offset = START
        self.meters.declare("caller/ci", [OWN_RPM, OWN_TPM, BUDGET])
        self.meters.declare("role/dev", [ROLE])
        self.now = 0.0
        self.made = 0
        self.open: dict[str, tuple[int, bool]] = {}
        """Attempts under way: the money that each reserved, and whether it is counted."""
        self.spent: list[tuple[float, int]] = []

    def name_of(self, which: int) -> str:
        return sorted(self.open)[which % len(self.open)]

    def month_began(self) -> float:
        return max((each - START for each in MONTHS if each - START <= self.now), default=-inf)

    def used(self) -> int:
        return sum(cost for when, cost in self.spent if when >= self.month_began())

    def held(self) -> int:
        return sum(cost for cost, _ in self.open.values())

    @rule(seconds=st.sampled_from([0.01, 1.0, 15.0, 62.0, 40 * 86_400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(money=st.integers(0, 60), tokens=st.integers(1, 90))
    def reserve(self, money: int, tokens: int) -> None:
        self.made += 1
        name, cost = f"a{self.made:04}", money * CENT
        denied = self.meters.reserve(name, claims(LIMITS, Cost(tokens, 0, 0, cost)), self.now)
        room = ROLE.capacity - self.used() - self.held()
        if denied is None:
            assert cost <= room
            self.open[name] = (cost, False)
            return
        if denied.limit is ROLE:
            assert cost > room
            assert denied.never == (cost > ROLE.capacity)
            assert denied.busy == (self.used() + cost <= ROLE.capacity)
            if not denied.never and not denied.busy:
                self.check_wait(denied, cost)
        else:
            assert cost + self.used() <= ROLE.capacity, f"the spent budget is not named, but {denied}"
        if denied.limit.owner == "candidate":
            own = claims([limit for limit in LIMITS if limit.owner == "caller"], Cost(tokens, 0, 0, cost))
            assert self.meters.reserve(f"own {name}", own, self.now) is None
            self.meters.release(f"own {name}")

    def check_wait(self, denied: Denied, cost: int) -> None:
        """It is over when the month is, and not before."""
        ends = min(each - START for each in MONTHS if each - START > self.now)
        assert abs(self.now + denied.wait - ends) < 1e-3

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99))
    def counted(self, which: int) -> None:
        name = self.name_of(which)
        self.meters.counted(name, self.now)
        self.open[name] = (self.open[name][0], True)

    @precondition(lambda self: self.open)
    @rule(
        which=st.integers(0, 99),
        share=st.integers(0, 100),
        how=st.sampled_from(["stated", "priced", "guessed", "failed"]),
    )
    def settle(self, which: int, share: int, how: str) -> None:
        name = self.name_of(which)
        reserved, _ = self.open.pop(name)
        actual = reserved * share // 100
        if how == "stated":
            self.meters.settle(name, Usage(5, 5, cost=actual), self.now)
        elif how == "failed":
            actual = 0
            self.meters.settle(name, None, self.now)
        else:  # without a price what was reserved stays
            actual = reserved
            self.meters.settle(name, Usage(5, 5, exact=how == "priced"), self.now)
        self.spent.append((self.now, actual))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99))
    def release(self, which: int) -> None:
        name = self.name_of(which)
        del self.open[name]
        self.meters.release(name)

    @invariant()
    def nobody_spends_what_is_not_there(self) -> None:
        for limit in (BUDGET, ROLE):
            (row,) = [row for row in self.meters.snapshot(limit.scope, self.now) if row.metric == "cost"]
            assert row.used == self.meters.used(limit, self.now) == self.used()
            assert row.reserved == self.held()
            assert row.used + row.reserved <= ROLE.capacity


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=100, stateful_step_count=40)


@given(
    spent=st.integers(0, NANO),
    calls=st.lists(st.tuples(st.integers(0, NANO // 5), st.integers(0, 100), st.integers(0, 200)), max_size=200),
)
def test_whatever_the_interleaving_used_never_exceeds_the_capacity(
    spent: int, calls: list[tuple[int, int, int]]
) -> None:
    """Each call reserves, is counted and settles at moments of its own; actual cost is at most what was reserved."""
    meters, price = Meters(), Price(1.0, 1.0)
    meters.wall_offset = MONTHS[0]
    meters.take(BUDGET, spent, 0.0)
    steps = []
    for number, (money, share, after) in enumerate(calls):
        steps += [
            (number, 0, number, money, share),
            (number + after / 3, 1, number, money, share),
            (number + after, 2, number, money, share),
        ]
    actual, total = set[int](), spent
    for moment, step, number, money, share in sorted(steps):
        name = str(number)
        if step == 0:
            if meters.reserve(name, claims([BUDGET], Cost(1, 1, 0, money, price)), moment) is None:
                actual.add(number)
        elif step == 1:
            meters.counted(name, moment)
        elif number in actual:
            meters.settle(name, Usage(money * share // 100, 0), moment)
            total += money * share // 100
        assert meters.used(BUDGET, moment) <= BUDGET.capacity
    assert meters.used(BUDGET, 1000.0) == total <= BUDGET.capacity
    assert meters.held() == 0


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 80), st.floats(0, 20)), max_size=40),
)
def test_failed_attempts_take_no_tokens_and_no_money_from_a_caller(story: list[tuple[bool, int, float]]) -> None:
    """A caller with failures between its calls stands exactly as one without, the provider's limits do not."""
    with_failures, without = Meters(), Meters()
    own = [OWN_TPM, BUDGET]
    now = 0.0
    for number, (fails, tokens, passed) in enumerate(story):
        now += passed
        name = str(number)
        wanted = claims([*own, THEIR_RPM], Cost(tokens, 0, 0, tokens * CENT // 10, Price(1.0, 1.0)))
        for meters in (with_failures,) if fails else (with_failures, without):
            if meters.reserve(name, [claim for claim in wanted if claim.limit.owner == "caller"], now) is None:
                meters.counted(name, now)
                meters.settle(name, None if fails else Usage(tokens, 0), now + 0.1)
        for limit in own:
            assert with_failures.used(limit, now + 0.1) == without.used(limit, now + 0.1)
