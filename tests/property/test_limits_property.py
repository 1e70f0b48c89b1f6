"""Limits against models of their own: an exact log, the upstream's true limiters, and themselves with calls doubled."""

from __future__ import annotations

from collections import Counter as Tally
from copy import deepcopy
from datetime import UTC, datetime
from math import inf
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyturn.core.limitbook import Limit
from keyturn.core.limits import Claim, Cost, Denied, Meters, claims
from keyturn.core.message import Usage
from keyturn.core.windows import DAY, GUARD, INFLIGHT, MINUTE, Window, slots_of

WINDOW = 60.0
RPM, TPM, MOST = 6, 100, 4
LIMITS = (
    Limit("s", "requests", MINUTE, RPM),
    Limit("s", "tokens", MINUTE, TPM),
    Limit("s", "output_tokens", MINUTE, TPM),
    Limit("s", "concurrency", INFLIGHT, MOST),
)


# --- an exact log, in lock-step


class Entry:
    """What one attempt has in the log of one rolling limit."""

    def __init__(self, attempt: str, metric: str, amount: int) -> None:
        self.attempt = attempt
        self.metric = metric
        self.amount = amount
        self.at: float | None = None
        """When it was counted; None while it is held."""


class Log:
    """The reference: every charge with its moment. Slow, and free of slots."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def held(self, metric: str) -> int:
        return sum(e.amount for e in self.entries if e.metric == metric and e.at is None)

    def since(self, metric: str, moment: float) -> int:
        return sum(e.amount for e in self.entries if e.metric == metric and e.at is not None and e.at > moment)

    def slots(self, metric: str, now: float) -> int:
        """What the slots k-N-g … k hold, by the definition."""
        slots, guard = slots_of(WINDOW)
        width = WINDOW / slots
        first = now // width - slots - guard
        return sum(e.amount for e in self.entries if e.metric == metric and e.at is not None and e.at // width >= first)

    def of(self, attempt: str) -> dict[str, Entry]:
        return {e.metric: e for e in self.entries if e.attempt == attempt}

    def drop(self, entry: Entry) -> None:
        self.entries.remove(entry)


class MetersAgainstLog(RuleBasedStateMachine):
    """Any order of reserve, counted, settle, release and time."""

    def __init__(self) -> None:
        super().__init__()
        self.meters = Meters()
        self.meters.declare("s", LIMITS)
        self.log = Log()
        self.now = 1000.0
        self.made = 0
        self.open: dict[str, bool] = {}
        """Attempts under way, and whether each is counted."""

    def pick(self, which: int) -> str:
        return sorted(self.open)[which % len(self.open)]

    @rule(seconds=st.sampled_from([0.01, 0.2, 0.5, 3.0, 14.9, 30.0, 61.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(tokens=st.integers(1, 150), output=st.integers(0, 60), again=st.booleans())
    def reserve(self, tokens: int, output: int, again: bool) -> None:
        self.made += 1
        name = f"a{self.made:04}"
        wanted = claims(LIMITS, Cost(tokens, output))
        costs = {claim.limit.metric: min(claim.cost, claim.limit.capacity) for claim in wanted}
        fits = all(
            self.log.slots(metric, self.now) + self.log.held(metric) + cost <= limit.capacity
            for (metric, cost), limit in zip(costs.items(), LIMITS, strict=True)
        )
        denied = self.meters.reserve(name, wanted, self.now)
        assert (denied is None) == fits
        if denied is not None:
            self.check_wait(denied, wanted)
            return
        if again:
            assert self.meters.reserve(name, wanted, self.now) is None
        self.log.entries += [Entry(name, metric, cost) for metric, cost in costs.items()]
        self.open[name] = False
        for limit in LIMITS[:3]:
            window = self.log.since(limit.metric, self.now - WINDOW)
            assert window + self.log.held(limit.metric) <= limit.capacity

    def check_wait(self, denied: Denied, wanted: list[Claim]) -> None:
        """Alone, it is denied just before the wait is over and admitted when it is."""
        assert denied.wait > 0
        assert denied.wait_any <= denied.wait
        if denied.wait == inf or self.open:
            return
        assert isinstance(deepcopy(self.meters).reserve("x", wanted, self.now + denied.wait - 1e-6), Denied)
        assert deepcopy(self.meters).reserve("x", wanted, self.now + denied.wait) is None
        if 0 < denied.wait_any < inf:
            one = [Claim(limit, 1) for limit in LIMITS]
            assert isinstance(deepcopy(self.meters).reserve("x", one, self.now + denied.wait_any - 1e-6), Denied)
            assert deepcopy(self.meters).reserve("x", one, self.now + denied.wait_any) is None

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99))
    def counted(self, which: int) -> None:
        name = self.pick(which)
        self.meters.counted(name, self.now)
        if not self.open[name]:
            self.open[name] = True
            for metric, entry in self.log.of(name).items():
                if metric in ("requests", "tokens"):
                    entry.at = self.now

    @precondition(lambda self: self.open)
    @rule(
        which=st.integers(0, 99),
        usage=st.none() | st.builds(Usage, input=st.integers(0, 200), output=st.integers(0, 90), exact=st.booleans()),
        times=st.integers(1, 2),
    )
    def settle(self, which: int, usage: Usage | None, times: int) -> None:
        name = self.pick(which)
        del self.open[name]
        for _ in range(times):
            self.meters.settle(name, usage, self.now)
        output_counts = self.log.of(name)["output_tokens"].amount > 0
        for metric, entry in self.log.of(name).items():
            self.settle_entry(entry, usage, metric, output_counts)

    def settle_entry(self, entry: Entry, usage: Usage | None, metric: str, output_counts: bool) -> None:
        if metric == "concurrency":
            self.log.drop(entry)
            return
        actual = entry.amount
        if usage is not None and metric == "tokens":
            actual = usage.input + usage.output * output_counts
        elif usage is not None and metric == "output_tokens":
            actual = usage.output
        if usage is not None and not usage.exact:
            actual = max(actual, entry.amount)
        if entry.at is None:
            entry.at, entry.amount = self.now, actual
        elif actual > entry.amount:
            debt = Entry(entry.attempt, metric, actual - entry.amount)
            debt.at = self.now
            self.log.entries.append(debt)
        else:
            entry.amount = actual

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), times=st.integers(1, 2))
    def release(self, which: int, times: int) -> None:
        name = self.pick(which)
        del self.open[name]
        for _ in range(times):
            self.meters.release(name)
        for entry in self.log.of(name).values():
            if entry.at is None:
                self.log.drop(entry)
        assert isinstance(self.meters.reserve(name, [], self.now), Denied)

    @invariant()
    def rows_agree_with_the_log(self) -> None:
        assert self.meters.held() == len(self.open)
        for row in self.meters.snapshot("s", self.now):
            assert row.reserved == self.log.held(row.metric)
            assert row.used == (self.log.slots(row.metric, self.now) if row.metric != "concurrency" else 0)
            assert row.free == max(0, row.capacity - row.used - row.reserved)
            assert type(row.used) is type(row.reserved) is int

    def teardown(self) -> None:
        """However it went: an hour after everything ended, everything is free."""
        for name in self.open:
            self.meters.settle(name, None, self.now)
        assert self.meters.held() == 0
        rows = self.meters.snapshot("s", self.now + 3600.0)
        assert [(row.used, row.reserved) for row in rows] == [(0, 0)] * len(LIMITS)


TestMetersAgainstLog = MetersAgainstLog.TestCase
TestMetersAgainstLog.settings = settings(max_examples=100, stateful_step_count=40)


# --- the upstream's own limiters


class Sent(NamedTuple):
    """One attempt as the upstream sees it."""

    arrived: float
    cost: int


def rolling_log_denials(sent: list[Sent], capacity: int, seconds: float) -> int:
    log: list[Sent] = []
    denials = 0
    for each in sent:
        log = [old for old in log if old.arrived > each.arrived - seconds]
        if sum(old.cost for old in log) + each.cost > capacity:
            denials += 1
        else:
            log.append(each)
    return denials


def fixed_window_denials(sent: list[Sent], capacity: int, seconds: float, phase: float) -> int:
    windows: Tally[float] = Tally()
    denials = 0
    for each in sent:
        period = (each.arrived - phase) // seconds
        if windows[period] + each.cost > capacity:
            denials += 1
        else:
            windows[period] += each.cost
    return denials


def bucket_denials(sent: list[Sent], capacity: int, seconds: float) -> int:
    level, at, denials = float(capacity), 0.0, 0
    for each in sent:
        level = min(float(capacity), level + (each.arrived - at) * capacity / seconds)
        at = each.arrived
        if each.cost > level + 1e-6:
            denials += 1
        else:
            level -= each.cost
    return denials


def drive(limit: Limit, random: Random, decisions: int, jitter: float) -> list[Sent]:
    """Attempts at random moments, mostly more than fit; what was admitted, in the order of its arrival.

    A request arrives somewhere between its reservation and *jitter* after it was counted, and uses what was charged or
    less. Its upload may take seconds, its answer longer than the window.
    """
    meters = Meters()
    largest = 1 if limit.metric == "requests" else max(1, limit.capacity // 4)
    pace = limit.window.seconds * (1 + largest) / 2 / limit.capacity
    now, sent = 1000.0, list[Sent]()
    pending: list[tuple[float, str, str, Usage | None]] = []
    for number in range(decisions):
        now += random.choice([0.0, 0.0, random.random() * pace, random.random() * 4 * pace])
        if random.random() < 0.01:
            now += random.random() * 1.5 * limit.window.seconds
        pending.sort()
        while pending and pending[0][0] <= now:
            when, name, step, usage = pending.pop(0)
            meters.counted(name, when) if step == "counted" else meters.settle(name, usage, when)
        cost = random.randint(1, largest)
        name = f"a{number}"
        if meters.reserve(name, claims([limit], Cost(cost, 0)), now) is not None:
            continue
        counted = now + random.choice([0.0, random.random() * 3])
        actual = cost if limit.metric == "requests" else random.randint(0, cost)
        usage = random.choice([Usage(actual, 0), None])
        pending.append((counted, name, "counted", None))
        pending.append((counted + random.random() * 1.2 * limit.window.seconds, name, "settle", usage))
        arrived = random.choice([now, counted, counted + jitter, now + random.random() * (counted + jitter - now)])
        sent.append(Sent(arrived, actual if usage is not None else random.randint(actual, cost)))
    return sorted(sent)


@pytest.mark.parametrize("seconds", [1.0, 10.0, 60.0, 3600.0])
@pytest.mark.parametrize(("metric", "capacity"), [("requests", 30), ("tokens", 500)])
def test_a_ring_makes_no_true_limiter_deny(seconds: float, metric: str, capacity: int) -> None:
    limit = Limit("s", "requests" if metric == "requests" else "tokens", Window("rolling", seconds), capacity)
    random = Random(f"{seconds} {metric}")
    for _ in range(4):
        sent = drive(limit, random, 2000, jitter=GUARD)
        assert len(sent) > 300
        assert rolling_log_denials(sent, capacity, seconds) == 0
        assert bucket_denials(sent, capacity, seconds) == 0
        for phase in (0.0, seconds / 3, random.random() * seconds):
            assert fixed_window_denials(sent, capacity, seconds, phase) == 0


@pytest.mark.parametrize("capacity", [1, 7, 60, 2000])
def test_a_day_ring_makes_no_true_limiter_deny(capacity: int) -> None:
    sent = drive(Limit("s", "requests", DAY, capacity), Random(capacity), 3000, jitter=0.0)
    assert rolling_log_denials(sent, capacity, 86_400.0) == 0
    assert bucket_denials(sent, capacity, 86_400.0) == 0
    assert fixed_window_denials(sent, capacity, 86_400.0, 0.0) == 0


@pytest.mark.parametrize(
    ("metric", "capacity"), [("requests", 1), ("requests", 50), ("tokens", 300), ("tokens", 10**6)]
)
def test_a_bucket_makes_the_same_bucket_upstream_never_deny(metric: str, capacity: int) -> None:
    window = Window("bucket", 86_400.0)
    limit = Limit("s", "requests" if metric == "requests" else "tokens", window, capacity)
    for seed in range(4):
        sent = drive(limit, Random(seed), 1500, jitter=GUARD)
        assert sent
        assert bucket_denials(sent, capacity, 86_400.0) == 0


def test_two_thousand_random_decisions_stay_within_every_limit() -> None:
    """Without refunds the exact sum of what was admitted is known: it reaches the limit and never passes it."""
    random = Random(20)
    limits = [Limit("s", "requests", MINUTE, 30), Limit("s", "tokens", MINUTE, 6000), Limit("s", "requests", DAY, 900)]
    meters = Meters()
    now, admitted = 0.0, list[tuple[float, int]]()
    for number in range(2000):
        now += random.choice([0.0, random.random(), 4 * random.random()])
        cost = random.randint(1, 400)
        if meters.reserve(str(number), claims(limits, Cost(cost, 0)), now) is None:
            meters.counted(str(number), now)
            meters.settle(str(number), None, now)
            admitted.append((now, cost))
    fullest_requests = fullest_tokens = 0
    for last, _ in admitted:
        within = [cost for when, cost in admitted if last - 60.0 < when <= last]
        fullest_requests, fullest_tokens = max(fullest_requests, len(within)), max(fullest_tokens, sum(within))
    assert fullest_requests == 30
    assert 5900 <= fullest_tokens <= 6000
    assert len(admitted) <= 900
    assert len(admitted) >= 0.95 * 30 * now / 61.5


# --- calls doubled, calendars


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("rcsxt"), st.integers(0, 5), st.integers(1, 60)), max_size=60))
def test_doubling_every_call_changes_nothing(steps: list[tuple[str, int, int]]) -> None:
    once, twice = Meters(), Meters()
    now = 0.0
    for kind, which, amount in steps:
        name = f"a{which}"
        now += amount / 4 if kind == "t" else 0.0
        for made, times in ((once, 1), (twice, 2)):
            for _ in range(times):
                if kind == "r":
                    made.reserve(name, claims(LIMITS, Cost(amount, amount // 2)), now)
                elif kind == "c":
                    made.counted(name, now)
                elif kind == "s":
                    made.settle(name, Usage(amount, amount // 3), now)
                elif kind == "x":
                    made.release(name)
        once.declare("s", LIMITS)
        twice.declare("s", LIMITS)
        assert once.snapshot("s", now) == twice.snapshot("s", now)
        assert once.held() == twice.held()


@settings(max_examples=100)
@given(
    zone=st.sampled_from(["America/Los_Angeles", "America/Havana", "Europe/Berlin", "Asia/Kathmandu", "UTC"]),
    start=st.sampled_from(["2026-03-07T20:00", "2026-03-28T12:00", "2026-10-31T12:00", "2028-02-28T12:00"]),
    steps=st.lists(
        st.tuples(st.floats(0, 6 * 3600), st.sampled_from([0.0, 0.0, 0.0, -3600.0, 3600.0, -0.3, 86_400.0])),
        max_size=60,
    ),
)
def test_no_calendar_day_gets_more_than_the_capacity(zone: str, start: str, steps: list[tuple[float, float]]) -> None:
    """Whatever the wall clock does: an hour to and fro, or a day ahead."""
    limit = Limit("s", "requests", Window("calendar", 86_400.0, zone), 3)
    meters = Meters()
    meters.wall_offset = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()
    there = ZoneInfo(zone)
    days: Tally[object] = Tally()
    now = 0.0
    for number, (passed, jump) in enumerate(steps):
        now += passed
        meters.wall_offset += jump
        for attempt in (f"{number}a", f"{number}b"):
            if meters.reserve(attempt, [Claim(limit, 1, 1)], now) is None:
                meters.counted(attempt, now)
                meters.settle(attempt, None, now)
                days[datetime.fromtimestamp(now + meters.wall_offset, there).date()] += 1
    assert max(days.values(), default=0) <= 3
