from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from math import inf

import pytest

from keyturn.core.limitbook import BELIEVED, Limit, Metric, Source
from keyturn.core.limits import REMEMBERED, REST, Claim, Cost, Denied, Meters, claims
from keyturn.core.message import Usage
from keyturn.core.windows import DAY, INFLIGHT, MINUTE, Window

SCOPE = "groq/g1|llama"
USUAL = Cost(10, 5)


def limit(metric: Metric, capacity: int, window: Window = MINUTE, source: Source = "declared") -> Limit:
    return Limit(SCOPE, metric, window, capacity, source)


def meters(*limits: Limit) -> Meters:
    made = Meters()
    made.declare(SCOPE, limits)
    return made


def take(made: Meters, name: str, now: float, cost: Cost = USUAL) -> Denied | None:
    return made.reserve(name, claims(made.limits(SCOPE), cost), now)


def spend(made: Meters, name: str, now: float, cost: Cost = USUAL, usage: Usage | None = None) -> None:
    """One whole attempt at one moment."""
    assert take(made, name, now, cost) is None
    made.counted(name, now)
    made.settle(name, usage, now)


def used(made: Meters, now: float) -> list[tuple[int, int]]:
    return [(row.used, row.reserved) for row in made.snapshot(SCOPE, now)]


class Woken(list[str]):
    """Records wakes of the meters that it is attached to."""

    def __init__(self, made: Meters) -> None:
        super().__init__()
        made.wake = self.append


# --- claims


def test_claims_charge_each_metric_its_part() -> None:
    limits = [
        limit("requests", 30),
        limit("tokens", 6000),
        limit("input_tokens", 5000),
        limit("output_tokens", 1000),
        limit("concurrency", 2, INFLIGHT),
    ]
    found = claims(limits, Cost(100, 40, 3))
    assert [(claim.cost, claim.floor, claim.output) for claim in found] == [
        (1, 1, 0),
        (140, 3, 40),
        (100, 3, 0),
        (40, 0, 40),
        (1, 1, 0),
    ]
    assert [claim.limit for claim in found] == limits


# --- reserve


def test_LIM_01_rpm_window() -> None:
    made = meters(limit("requests", 3))
    for number in range(3):
        spend(made, f"a{number}", 100.0 + number)
    denied = take(made, "b", 110.0)
    assert isinstance(denied, Denied)
    assert denied.limit == limit("requests", 3)
    assert denied.wait == 51.0  # the first leaves at 161.0: a window, its slot and the guard after 100.0
    assert isinstance(take(deepcopy(made), "b", 160.999), Denied)
    assert take(made, "b", 161.0) is None


def test_LIM_02_tpm_window() -> None:
    made = meters(limit("tokens", 100))
    spend(made, "a", 0.0, Cost(60, 20), Usage(60, 20))
    assert isinstance(take(made, "b", 1.0, Cost(15, 6)), Denied)
    assert take(made, "c", 1.0, Cost(14, 6)) is None


def test_LIM_06_models_isolated() -> None:
    made = Meters()
    one, two = Limit("groq/g|a", "requests", MINUTE, 1), Limit("groq/g|b", "requests", MINUTE, 1)
    assert made.reserve("1", claims([one], Cost(1, 1)), 0.0) is None
    assert made.reserve("2", claims([two], Cost(1, 1)), 0.0) is None
    assert isinstance(made.reserve("3", claims([one], Cost(1, 1)), 0.0), Denied)


def test_LIM_08_usage_query() -> None:
    made = meters(limit("requests", 30), limit("tokens", 6000))
    spend(made, "a", 0.0, Cost(100, 50), Usage(90, 30))
    take(made, "b", 1.0, Cost(200, 56))
    rows = made.snapshot(SCOPE, 1.0)
    assert [(r.metric, r.window, r.capacity, r.used, r.reserved, r.free, r.source) for r in rows] == [
        ("requests", MINUTE, 30, 1, 1, 28, "declared"),
        ("tokens", MINUTE, 6000, 120, 256, 5624, "declared"),
    ]
    assert [row.resets_in for row in rows] == [60.0, 60.0]


def test_LIM_09_a_burst_cannot_pass_before_it_is_counted() -> None:
    made = meters(limit("requests", 5))
    answers = [take(made, str(number), 0.0) for number in range(20)]
    assert answers.count(None) == 5
    denied = answers[5]
    assert isinstance(denied, Denied)
    assert (denied.wait, denied.wait_any) == (inf, inf)


def test_LIM_13_concurrency_limits() -> None:
    made = meters(limit("concurrency", 2, INFLIGHT))
    assert take(made, "a", 0.0) is None
    assert take(made, "b", 0.0) is None
    made.counted("a", 1.0)
    denied = take(made, "c", 1.0)
    assert isinstance(denied, Denied)
    assert denied.wait == inf
    made.settle("a", Usage(1, 1), 2.0)
    assert take(made, "c", 2.0) is None


def test_all_or_nothing() -> None:
    made = meters(limit("requests", 30), limit("tokens", 100), limit("concurrency", 5, INFLIGHT))
    spend(made, "a", 0.0, Cost(90, 5))
    before = used(made, 1.0)
    assert isinstance(take(made, "b", 1.0, Cost(90, 5)), Denied)
    assert used(made, 1.0) == before
    assert made.held() == 0


def test_a_denial_names_the_limit_with_the_longest_wait() -> None:
    made = meters(limit("requests", 1), limit("tokens", 10, DAY), limit("input_tokens", 1000))
    spend(made, "a", 0.0, Cost(5, 5))
    denied = take(made, "b", 10.0, Cost(5, 5))
    assert isinstance(denied, Denied)
    assert denied.limit.metric == "tokens"
    assert denied.wait > 86_000
    assert not denied.never


def test_a_wait_that_is_too_long_anyway_need_not_be_the_longest() -> None:
    made = meters(limit("requests", 1), limit("tokens", 10, DAY), limit("input_tokens", 1000))
    spend(made, "a", 0.0, Cost(5, 5))
    needed = claims(made.limits(SCOPE), Cost(5, 5))
    longest, found = made.wait(needed, 10.0)
    assert found is not None
    assert found.metric == "tokens"
    assert made.wait(needed, 10.0, longest + 1.0) == made.wait(needed, 10.0, longest) == (longest, found)
    minute, first = made.wait(needed, 10.0, 20.0)
    assert first is not None
    assert first.metric == "requests"
    assert 20.0 <= minute < longest


def test_wait_any_tells_whether_smaller_calls_fit() -> None:
    made = meters(limit("tokens", 100))
    spend(made, "a", 0.0, Cost(40, 5))
    spend(made, "b", 30.0, Cost(40, 5))
    small = take(made, "c", 40.0, Cost(20, 5))
    assert isinstance(small, Denied)
    assert (small.wait, small.wait_any) == (21.0, 0.0)
    spend(made, "d", 40.0, Cost(9, 1))
    full = take(made, "e", 40.0, Cost(50, 10))
    assert isinstance(full, Denied)
    assert (full.wait, full.wait_any) == (51.0, 21.0)


def test_a_charge_above_the_capacity_is_clamped_to_it() -> None:
    made = meters(limit("tokens", 100))
    assert take(made, "a", 0.0, Cost(400, 100, floor=3)) is None
    assert used(made, 0.0) == [(0, 100)]
    made.counted("a", 0.0)
    made.settle("a", Usage(120, 30), 5.0)
    assert used(made, 5.0) == [(150, 0)]
    denied = take(made, "b", 6.0, Cost(400, 100, floor=3))
    assert isinstance(denied, Denied)
    assert denied.wait == 60.0  # the debt of 5.0 must leave as well


@pytest.mark.parametrize(
    ("source", "never"), [("declared", True), ("reported", True), ("default", False), ("learned", False)]
)
def test_only_a_declared_or_reported_limit_refuses_for_ever(source: Source, never: bool) -> None:
    made = meters(limit("requests", 1), limit("tokens", 100, source=source))
    got = take(made, "a", 0.0, Cost(4000, 256, floor=101))
    if not never:
        assert got is None
        return
    assert isinstance(got, Denied)
    assert (got.never, got.wait, got.limit.metric) == (True, inf, "tokens")
    assert used(made, 0.0) == [(0, 0), (0, 0)]


def test_never_is_said_at_once_though_another_limit_is_full() -> None:
    made = meters(limit("requests", 1), limit("tokens", 100))
    spend(made, "a", 0.0)
    denied = take(made, "b", 0.0, Cost(4000, 0, floor=101))
    assert isinstance(denied, Denied)
    assert denied.never
    assert denied.limit.metric == "tokens"


def test_a_denial_beside_a_shipped_limit_is_not_for_ever() -> None:
    made = meters(limit("requests", 1), limit("tokens", 100, source="default"))
    spend(made, "a", 0.0)
    denied = take(made, "b", 0.0, Cost(4000, 0, floor=101))
    assert isinstance(denied, Denied)
    assert not denied.never


def test_a_floor_at_the_capacity_is_no_reason_to_refuse() -> None:
    assert take(meters(limit("tokens", 100)), "a", 0.0, Cost(4000, 256, floor=100)) is None


def test_an_id_reserves_once() -> None:
    made = meters(limit("requests", 2))
    assert take(made, "a", 0.0) is None
    assert take(made, "a", 1.0) is None
    assert used(made, 1.0) == [(0, 1)]


def test_a_callers_limits_need_no_declaration() -> None:
    made = Meters()
    own = Limit("caller:ci", "requests", MINUTE, 1, owner="caller")
    assert made.reserve("a", [Claim(own, 1, 1)], 0.0) is None
    denied = made.reserve("b", [Claim(own, 1, 1)], 0.0)
    assert isinstance(denied, Denied)
    assert denied.limit.owner == "caller"


def test_no_limits_no_denials() -> None:
    made = Meters()
    assert all(take(made, str(number), 0.0) is None for number in range(1000))
    assert made.held() == 1000


# --- counted, settle, release


def test_the_window_starts_when_the_request_was_written_in_full() -> None:
    made = meters(limit("requests", 1))
    take(made, "a", 0.0)
    made.counted("a", 40.0)
    assert used(made, 40.0) == [(1, 0)]
    assert isinstance(take(made, "b", 100.9), Denied)
    assert take(made, "b", 101.0) is None


def test_output_tokens_stay_held_until_they_are_known() -> None:
    made = meters(limit("output_tokens", 1000), limit("tokens", 5000))
    take(made, "a", 0.0, Cost(100, 256))
    made.counted("a", 0.0)
    assert used(made, 50.0) == [(0, 256), (356, 0)]
    made.settle("a", Usage(100, 40), 50.0)
    assert used(made, 50.0) == [(40, 0), (140, 0)]
    assert used(made, 61.0) == [(40, 0), (0, 0)]  # what was refunded and what is left were charged at 0.0


def test_what_a_provider_does_not_count_is_not_charged_at_the_end_either() -> None:
    made = meters(limit("tokens", 5000))
    spend(made, "a", 0.0, Cost(100, 0), Usage(90, 4000))
    assert used(made, 0.0) == [(90, 0)]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (Usage(50, 30), 80),  # refund
        (Usage(500, 300), 800),  # debt
        (None, 150),  # unknown: nothing is given back
        (Usage(50, 30, exact=False), 150),
        (Usage(500, 300, exact=False), 800),
        (Usage(-7, -9), 0),
    ],
)
def test_settling_leaves_what_was_used(usage: Usage | None, tokens: int) -> None:
    made = meters(limit("tokens", 1000), limit("requests", 10))
    spend(made, "a", 0.0, Cost(100, 50), usage)
    assert used(made, 0.0) == [(tokens, 0), (1, 0)]


def test_settling_what_was_never_counted_counts_it_now() -> None:
    made = meters(limit("requests", 10), limit("tokens", 1000))
    take(made, "a", 0.0, Cost(100, 50))
    made.settle("a", None, 70.0)
    assert used(made, 130.0) == [(1, 0), (150, 0)]
    assert used(made, 131.0) == [(0, 0), (0, 0)]


def test_a_debt_is_of_the_moment_it_is_known() -> None:
    made = meters(limit("tokens", 1000))
    take(made, "a", 0.0, Cost(100, 50))
    made.counted("a", 0.0)
    made.settle("a", Usage(700, 250), 50.0)
    assert used(made, 61.0) == [(800, 0)]
    assert used(made, 111.0) == [(0, 0)]


def test_a_refund_after_the_window_is_none() -> None:
    made = meters(limit("tokens", 1000))
    take(made, "a", 0.0, Cost(100, 50))
    made.counted("a", 0.0)
    spend(made, "b", 65.0, Cost(20, 20))
    made.settle("a", Usage(1, 1), 70.0)
    assert used(made, 70.0) == [(40, 0)]


def test_everything_about_an_id_happens_once() -> None:
    made = meters(limit("requests", 10), limit("tokens", 1000), limit("concurrency", 3, INFLIGHT))
    take(made, "a", 0.0, Cost(100, 50))
    for _ in range(2):
        made.counted("a", 0.0)
    for _ in range(3):
        made.settle("a", Usage(60, 20), 0.0)
        made.release("a")
        made.counted("a", 0.0)
    assert used(made, 0.0) == [(1, 0), (80, 0), (0, 0)]
    assert made.held() == 0


def test_release_gives_back_what_the_provider_has_not_counted() -> None:
    made = meters(limit("requests", 10), limit("output_tokens", 1000), limit("concurrency", 3, INFLIGHT))
    take(made, "a", 0.0, Cost(100, 50))
    made.release("a")
    assert used(made, 0.0) == [(0, 0), (0, 0), (0, 0)]
    take(made, "b", 0.0, Cost(100, 50))
    made.counted("b", 0.0)
    made.release("b")
    assert used(made, 0.0) == [(1, 0), (0, 0), (0, 0)]
    assert made.held() == 0


def test_a_released_id_is_refused_for_a_minute() -> None:
    made = meters(limit("requests", 10))
    take(made, "before", 0.0)
    made.release("late")
    assert isinstance(take(made, "late", REMEMBERED - 1.0), Denied)
    assert made.held() == 1
    for minute in range(1, 4):
        take(made, f"{minute}", minute * REMEMBERED)
    assert take(made, "late", 4 * REMEMBERED) is None


# --- what is known


def test_declaring_keeps_what_was_counted() -> None:
    made = meters(limit("requests", 5))
    for number in range(4):
        spend(made, str(number), 0.0)
    made.declare(SCOPE, [limit("requests", 3)])
    assert isinstance(take(made, "a", 1.0), Denied)
    made.declare(SCOPE, [limit("requests", 6)])
    assert take(made, "a", 1.0) is None
    assert [(row.capacity, row.used, row.free) for row in made.snapshot(SCOPE, 1.0)] == [(6, 4, 1)]


def test_a_reported_limit_holds_for_a_day_and_is_forgotten_then() -> None:
    made = Meters()
    assert made.report(SCOPE, "requests", MINUTE, 2, 0.0)
    assert not made.report(SCOPE, "requests", MINUTE, 2, 10.0)
    spend(made, "a", 20.0)
    spend(made, "b", 20.0)
    assert isinstance(take(made, "c", 20.0), Denied)
    take(made, "d", BELIEVED + 11.0)
    assert made.limits(SCOPE) == ()


def test_the_first_report_tells_what_was_used_before() -> None:
    made = Meters()
    made.report(SCOPE, "tokens", MINUTE, 6000, 0.0, remaining=1000)
    assert [(row.used, row.free) for row in made.snapshot(SCOPE, 0.0)] == [(5000, 1000)]
    made.report(SCOPE, "tokens", MINUTE, 6000, 1.0, remaining=900)
    assert [(row.used, row.free) for row in made.snapshot(SCOPE, 1.0)] == [(5000, 1000)]
    assert [row.used for row in made.snapshot(SCOPE, 61.0)] == [0]


@pytest.mark.parametrize(("remaining", "gone"), [(None, 0), (30, 0), (99, 0), (0, 30), (-5, 30)])
def test_a_report_of_absurd_remains_is_bounded(remaining: int | None, gone: int) -> None:
    made = Meters()
    made.report(SCOPE, "requests", MINUTE, 30, 0.0, remaining)
    assert [row.used for row in made.snapshot(SCOPE, 0.0)] == [gone]


@pytest.mark.parametrize(("metric", "capacity"), [("requests", 0), ("requests", -1), ("images", 10)])
def test_a_report_that_says_nothing_is_ignored(metric: str, capacity: int) -> None:
    made = Meters()
    assert not made.report(SCOPE, metric, MINUTE, capacity, 0.0)
    assert made.limits(SCOPE) == ()


def test_load_is_the_share_of_the_fullest_limit_until_it_can_fall() -> None:
    made = meters(limit("requests", 10), limit("tokens", 1000), limit("concurrency", 8, INFLIGHT))
    assert made.load(SCOPE, 0.0) == (0.0, inf)
    assert made.load("unknown", 0.0) == (0.0, inf)
    spend(made, "a", 0.0, Cost(300, 50))
    assert made.load(SCOPE, 10.0) == (0.35, 61.0)
    for name in "bcde":
        take(made, name, 20.0, Cost(1, 1))
    assert made.load(SCOPE, 20.0) == (0.5, 61.0)
    made.release("b")
    assert made.load(SCOPE, 61.0) == (0.375, inf)


def test_a_calendar_day_needs_the_wall_offset() -> None:
    made = meters(limit("requests", 2, Window("calendar", 86_400.0, "America/Los_Angeles")))
    made.wall_offset = 1_767_254_400.0  # 2026-01-01 08:00 UTC: midnight there
    spend(made, "a", 100.0)
    spend(made, "b", 86_399.0)
    denied = take(made, "c", 86_399.0)
    assert isinstance(denied, Denied)
    assert denied.wait == pytest.approx(1.0, abs=1e-5)
    assert take(made, "c", 86_399.0 + denied.wait) is None


# --- wake


def test_nobody_is_woken_when_nobody_was_denied() -> None:
    made = meters(limit("requests", 2), limit("tokens", 1000), limit("concurrency", 2, INFLIGHT))
    woken = Woken(made)
    spend(made, "a", 0.0, Cost(100, 50), Usage(1, 1))
    take(made, "b", 0.0)
    made.release("b")
    made.declare(SCOPE, [limit("requests", 20)])
    assert woken == []


def test_a_refund_wakes_once_per_denial() -> None:
    made = meters(limit("tokens", 100))
    woken = Woken(made)
    for name in "ab":
        take(made, name, 0.0, Cost(40, 10))
        made.counted(name, 0.0)
    assert isinstance(take(made, "c", 1.0), Denied)
    made.settle("a", Usage(10, 10), 2.0)
    made.settle("b", Usage(10, 10), 2.0)
    assert woken == [SCOPE]


def test_a_release_and_a_free_place_wake() -> None:
    made = meters(limit("concurrency", 1, INFLIGHT))
    woken = Woken(made)
    take(made, "a", 0.0)
    take(made, "b", 0.0)
    made.release("a")
    assert woken == [SCOPE]
    take(made, "c", 1.0)
    take(made, "d", 1.0)
    made.settle("c", None, 2.0)
    assert woken == [SCOPE, SCOPE]


def test_who_was_told_to_wait_for_others_is_woken_when_their_charge_has_a_date() -> None:
    made = meters(limit("requests", 1))
    woken = Woken(made)
    take(made, "a", 0.0)
    denied = take(made, "b", 0.0)
    assert isinstance(denied, Denied)
    assert denied.wait == inf
    made.counted("a", 1.0)
    assert woken == [SCOPE]
    again = take(made, "b", 1.0)
    assert isinstance(again, Denied)
    assert again.wait == 61.0
    made.settle("a", Usage(1, 1), 2.0)
    assert woken == [SCOPE]


def test_an_attempt_that_was_never_counted_wakes_at_its_end() -> None:
    made = meters(limit("requests", 1))
    woken = Woken(made)
    take(made, "a", 0.0)
    take(made, "b", 0.0)
    made.settle("a", None, 1.0)
    assert woken == [SCOPE]


@pytest.mark.parametrize("change", ["declared", "gone", "reported"])
def test_a_larger_limit_wakes(change: str) -> None:
    made = meters(limit("requests", 1, source="default"))
    woken = Woken(made)
    spend(made, "a", 0.0)
    take(made, "b", 0.0)
    made.declare(SCOPE, [limit("requests", 1, source="default")])
    assert woken == []
    if change == "reported":
        made.report(SCOPE, "requests", MINUTE, 5, 1.0)
    else:
        made.declare(SCOPE, [limit("requests", 2)] if change == "declared" else [])
    assert woken == [SCOPE]


def test_a_wake_may_reserve_at_once() -> None:
    made = meters(limit("concurrency", 1, INFLIGHT))
    answers: list[Denied | None] = []
    made.wake = lambda scope: answers.append(take(made, "b", 1.0))
    take(made, "a", 0.0)
    take(made, "b", 0.0)
    made.settle("a", None, 1.0)
    assert answers == [None]
    assert made.held() == 1


# --- bounded memory


def sizes(made: Meters) -> Sequence[int]:
    return len(made._counters), len(made._loans), len(made._resting), len(made._refused) + len(made._old_refused)


def test_nothing_is_remembered_for_ever() -> None:
    made = Meters()
    for number in range(500):
        now = number * 0.01
        one = Limit(f"scope {number}", "requests", MINUTE, 5)
        full = Limit(f"scope {number}", "tokens", MINUTE, 5)
        made.reserve(f"a{number}", [Claim(one, 1, 1), Claim(full, 5, 1)], now)
        assert made.reserve(f"c{number}", [Claim(one, 1, 1), Claim(full, 5, 1)], now) is not None
        made.counted(f"a{number}", now)
        made.settle(f"a{number}", None, now)
        made.release(f"b{number}")
    for step in range(1, 6):
        made.reserve("tick", [], step * REST)
        made.settle("tick", None, step * REST)
    assert sizes(made) == (0, 0, 0, 0)


def test_a_counter_with_an_open_reservation_is_kept() -> None:
    made = meters(limit("tokens", 100))
    take(made, "slow", 0.0, Cost(50, 10))
    made.counted("slow", 0.0)
    made.reserve("tick", [], REST + 1.0)
    made.settle("slow", Usage(50, 50), REST + 2.0)
    assert used(made, REST + 2.0) == [(40, 0)]


def test_what_is_taken_is_what_is_used_and_what_is_held() -> None:
    made = meters(limit("requests", 30), limit("tokens", 6000))
    requests, tokens = made.limits(SCOPE)
    assert made.taken(requests, 0.0) == 0
    spend(made, "one", 0.0)
    assert take(made, "two", 1.0) is None
    assert (made.taken(requests, 1.0), made.taken(tokens, 1.0)) == (2, 30)
    assert made.taken(tokens, 62.0) == 15, "what is held does not age"
