"""How many attempts an upstream bears at once, as its overloads tell."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Begun, Bound, Meaning, Onset, Outcome, narrowed, overload, slowed, widened


def outcome(meaning: Meaning, code: str = "", message: str = "") -> Outcome:
    return Outcome(meaning, "provider", None, False, False, True, {}, code=code, message=message)


@pytest.mark.parametrize(
    ("found", "sign"),
    [
        (outcome("overloaded"), True),
        (outcome("timeout", "first_token"), True),
        (outcome("timeout", "silence"), False),
        (outcome("rate_limited", message="Too many concurrent requests"), True),
        (outcome("rate_limited", message="Rate limit reached for requests per minute"), False),
        (outcome("server_error", message="concurrent"), False),
    ],
)
def test_what_is_a_sign(found: Outcome, sign: bool) -> None:
    assert overload(found) is sign


def test_the_first_sign_bounds_to_seven_tenths() -> None:
    bound = narrowed(None, 20, 0.0, 100.0)
    assert bound is not None
    assert (bound.limit, bound.too_much) == (14, 20)


@pytest.mark.parametrize("under_way", [1, 2, 3])
def test_so_few_under_way_are_hardly_too_many(under_way: int) -> None:
    assert narrowed(None, under_way, 0.0, 100.0) is None


def test_a_burst_counts_once_and_a_later_sign_again() -> None:
    bound = Bound(14, 20, 100.0)
    assert narrowed(bound, 14, 99.0, 101.0) is None
    again = narrowed(bound, 14, 100.5, 101.0)
    assert again is not None
    assert again.limit == 9


def test_a_single_probe_says_nothing_of_a_bound_that_is_not_used() -> None:
    assert narrowed(Bound(14, 20, 100.0), 1, 105.0, 106.0) is None


def grown(bound: Bound, answers: int, now: float) -> Bound:
    for _ in range(answers):
        after = widened(bound, bound.limit, now)
        assert after is not None
        bound = after
    return bound


def test_it_grows_quickly_to_near_what_was_too_much_and_then_by_one_a_round() -> None:
    bound = Bound(14, 21, 100.0)
    assert grown(bound, 3 + 3 + 4 + 4, 101.0).limit == 18
    assert grown(Bound(18, 21, 100.0), 17, 101.0).limit == 18
    assert grown(Bound(18, 21, 100.0), 18, 101.0).limit == 19


def test_it_stays_just_below_for_a_while() -> None:
    bound = grown(Bound(20, 21, 100.0), 500, 109.9)
    assert bound.limit == 20
    assert grown(bound, 1, 110.0).limit == 21


def test_patience_doubles_when_it_was_too_much_again_and_not_when_less_was() -> None:
    again = narrowed(Bound(21, 21, 100.0), 21, 111.0, 112.0)
    assert again is not None
    assert again.patience == 20.0
    less = narrowed(Bound(12, 21, 100.0, 0, 80.0), 12, 111.0, 112.0)
    assert less is not None
    assert (less.patience, less.too_much) == (10.0, 12)


def test_it_does_not_grow_while_it_is_not_used() -> None:
    bound = Bound(10, 21, 100.0)
    assert widened(bound, 7, 101.0) == bound
    assert widened(bound, 8, 101.0) != bound


def test_it_is_forgotten_after_ten_quiet_minutes_and_above_512() -> None:
    assert widened(Bound(10, 21, 100.0), 1, 700.0) is None
    assert widened(Bound(512, 400, 100.0, 511), 512, 200.0) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 600), st.floats(0.0, 30.0)), max_size=200))
def test_it_never_leaves_its_bounds(steps: list[tuple[bool, int, float]]) -> None:
    bound: Bound | None = None
    now = 1000.0
    for sign, under_way, passed in steps:
        now += passed
        if sign:
            bound = narrowed(bound, under_way, now - passed / 2, now) or bound
        elif bound is not None:
            bound = widened(bound, under_way, now)
        if bound is not None:
            assert 1 <= bound.limit <= 512
            assert 10.0 <= bound.patience <= 600.0


def test_one_that_is_in_use_is_not_forgotten() -> None:
    assert widened(Bound(10, 21, 100.0, 0, 600.0), 10, 701.0) == Bound(10, 21, 100.0, 1, 600.0, 701.0)
    assert widened(Bound(10, 21, 100.0, 1, 600.0, 701.0), 2, 1300.0) is not None
    assert widened(Bound(10, 21, 100.0, 1, 600.0, 701.0), 2, 1301.0) is None


@pytest.mark.parametrize(
    ("bound", "crowd", "waiting", "after"),
    [
        (None, 30, 22.0, (21, 30)),
        (None, 30, 0.2, (29, 30)),
        (None, 4, 3.0, (3, 4)),
        (Bound(9, 9, 0.0), 9, 0.7, (8, 9)),
        (Bound(9, 9, 0.0), 5, 0.7, (4, 5)),
        (Bound(2, 2, 0.0), 2, 5.0, (1, 2)),
    ],
)
def test_as_many_fewer_are_sent_as_seem_to_wait_and_at_most_three_tenths(
    bound: Bound | None, crowd: int, waiting: float, after: tuple[int, int]
) -> None:
    assert slowed(bound, crowd, waiting, 100.0)[:2] == after


class Upstream:
    """An upstream that streams, asked as often as a random draw says; at most *slots* at a time, others wait there."""

    def __init__(self, slots: int, *, noise: float = 0.2, first: float = 0.2, slow: float = 1.0, seed: int = 1) -> None:
        self.draw = random.Random(seed)
        self.slots, self.noise, self.first, self.slow = slots, noise, first, slow
        self.onset = Onset()
        self.learns = True
        self.bound: Bound | None = None
        self.lowest = 10_000
        self.waiting = self.busy = self.active = self.ended = 0
        self.late: list[float] = []
        self.used = 0.0
        """Seconds that its slots were busy, all together."""
        self._queue: list[tuple[int, float, int]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.now = 0.0

    def run(self, rate: float, seconds: float) -> None:
        """*rate* calls per second; those that the bound keeps away wait before it."""
        begin, until = self.now, self.now + seconds
        while begin < until:
            begin += self.draw.expovariate(rate)
            self._at(begin, self._come)
        while self._events and self._events[0][0] <= until:
            when, _, happens = heappop(self._events)
            self.used += self.busy * (when - self.now)
            self.now = when
            happens()

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (when, self._count, happens))

    def _come(self) -> None:
        self.waiting += 1
        self._send()

    def _send(self) -> None:
        while self.waiting and (self.bound is None or self.active < self.bound.limit):
            self.waiting -= 1
            self.active += 1
            self._queue.append((int(exp(self.draw.gauss(7.0, 1.0))), self.now, self.active))
            self._serve()

    def _serve(self) -> None:
        if self._queue and self.busy < self.slots:
            self.busy += 1
            size, started, crowd = self._queue.pop(0)
            takes = (self.first + 2e-5 * size) * exp(self.draw.gauss(0.0, self.noise)) * self.slow
            self._at(self.now + takes, lambda: self._begin(size, started, crowd))

    def _begin(self, size: int, started: float, crowd: int) -> None:
        self.late.append(self.now - started)
        if self.learns:
            self.bound = self.onset.observe(Begun(size, crowd, started, self.now), self.bound, self.ended)
        if self.bound is not None:
            self.lowest = min(self.lowest, self.bound.limit)
            if not self.onset.trying(self.now):
                self.bound = widened(self.bound, self.active, self.now)
        self._at(self.now + self.draw.expovariate(0.5) * self.slow, self._end)
        self._send()

    def _end(self) -> None:
        self.active -= 1
        self.busy -= 1
        self.ended += 1
        self._serve()
        self._send()


@pytest.mark.parametrize("slots", [4, 16])
@pytest.mark.parametrize("load", [1.1, 2.0])
def test_a_queue_is_found_out_and_hardly_more_than_what_is_served_is_sent(slots: int, load: float) -> None:
    upstream, full = Upstream(slots), slots / 2.23
    upstream.run(load * full, 600.0)
    used, now = upstream.used, upstream.now
    upstream.run(load * full, 200.0)
    assert upstream.bound is not None
    assert slots <= upstream.bound.limit <= slots + max(3, slots // 8)
    assert upstream.used - used >= 0.95 * slots * (upstream.now - now)
    assert sorted(upstream.late[-200:])[100] < 1.0


@pytest.mark.parametrize("slots", [1, 2])
def test_one_that_answers_hardly_any_at_a_time_is_sent_fewer_too(slots: int) -> None:
    upstream, free = Upstream(slots), Upstream(slots)
    free.learns = False
    for each in (upstream, free):
        each.run(0.9 * slots, 900.0)
    assert sorted(upstream.late[-200:])[100] < sorted(free.late[-200:])[100] / 8
    assert upstream.used >= 0.95 * slots * upstream.now


def test_once_there_is_less_to_do_it_is_forgotten() -> None:
    upstream = Upstream(8)
    upstream.run(8.0, 200.0)
    assert upstream.bound is not None
    upstream.waiting = 0
    upstream.run(0.5, 900.0)
    assert upstream.bound is None


@pytest.mark.parametrize("noise", [0.0, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_who_does_not_queue_is_never_bounded(noise: float, seed: int) -> None:
    upstream = Upstream(10_000, noise=noise, seed=seed)
    upstream.run(5.0, 300.0)
    assert upstream.lowest == 10_000


@pytest.mark.parametrize("seed", range(3))
def test_however_much_it_varies_as_much_is_served(seed: int) -> None:
    upstream, free = Upstream(10_000, noise=1.0, seed=seed), Upstream(10_000, noise=1.0, seed=seed)
    upstream.run(5.0, 300.0)
    free.learns = False
    free.run(5.0, 300.0)
    assert upstream.ended >= 0.97 * free.ended


@pytest.mark.parametrize("seed", range(2))
def test_who_is_slow_for_another_reason_is_soon_sent_as_much_as_before(seed: int) -> None:
    upstream = Upstream(10_000, seed=seed, first=0.5)
    upstream.run(5.0, 300.0)
    upstream.slow, before = 2.0, upstream.ended
    upstream.run(5.0, 600.0)
    assert 5 <= upstream.lowest < 10_000, "it was tried"
    assert upstream.ended - before >= 0.94 * 5.0 * 600.0
    assert upstream.waiting == 0


def test_a_slow_call_alone_changes_nothing() -> None:
    onset = Onset()
    for each in range(100):
        assert onset.observe(Begun(100, 6, each, each + 0.3), None, each) is None
    assert onset.observe(Begun(100, 6, 100.0, 160.0), None, 100) is None
    for each in range(160, 260):
        assert onset.observe(Begun(100, 6, each, each + 0.3), None, each) is None
    assert not onset.trying(260.0)


@pytest.mark.parametrize("crowd", [1, 3])
def test_so_few_are_never_too_many(crowd: int) -> None:
    onset = Onset()
    for each in range(400):
        took = 0.2 if each < 50 else 5.0
        assert onset.observe(Begun(100, crowd, each, each + took), None, each) is None


@given(
    st.lists(
        st.tuples(st.floats(0.0, 100.0), st.integers(1, 600), st.integers(0, 10**7), st.floats(0.0, 50.0)),
        max_size=200,
    )
)
def test_whatever_is_seen_the_bound_is_one(stream: list[tuple[float, int, int, float]]) -> None:
    onset, bound, now = Onset(), None, 1000.0
    for took, crowd, size, passed in stream:
        now += passed
        bound = onset.observe(Begun(size, crowd, now - took, now), bound, int(now))
        assert bound is None or 1 <= bound.limit < 600


def test_a_trial_ends_when_nobody_streams_any_more() -> None:
    upstream = Upstream(8)
    while not upstream.onset.trying(upstream.now):
        upstream.run(8.0, 1.0)
    assert upstream.onset.trying(upstream.now + 50.0)
    assert not upstream.onset.trying(upstream.now + 70.0)
