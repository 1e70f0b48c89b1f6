"""Budgets in money, and the limits of callers: reserved with the candidate's, settled differently."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import pytest

from keyturn.core.limitbook import Limit, Metric
from keyturn.core.limits import Cost, Denied, Meters, claims
from keyturn.core.message import Usage
from keyturn.core.pricing import NANO, ZERO, Price
from keyturn.core.windows import INFLIGHT, MINUTE, MONTH, Window

DOLLAR = NANO
CENT = NANO // 100
PRICE = Price(1000.0, 2000.0)
BUDGET = Limit("caller/ci", "cost", MONTH, DOLLAR, owner="caller")
ROLE = Limit("role/dev", "cost", MONTH, 10 * DOLLAR, owner="caller")
THEIR_TPM = Limit("groq/g|m", "tokens", MINUTE, 1000)
THEIR_RPM = Limit("groq/g|m", "requests", MINUTE, 2)
JANUARY_ENDS = 3600.0


def own(metric: Metric, capacity: int, window: Window = MINUTE) -> Limit:
    return Limit("caller/ci", metric, window, capacity, owner="caller")


def meters() -> Meters:
    """Monotonic zero is an hour before February."""
    made = Meters()
    made.wall_offset = datetime(2026, 1, 31, 23, tzinfo=UTC).timestamp()
    return made


def paying(money: int, price: Price | None = PRICE) -> Cost:
    return Cost(10, 5, 1, money, price)


def take(made: Meters, name: str, *limits: Limit, cost: Cost, now: float = 0.0) -> Denied | None:
    return made.reserve(name, claims(limits, cost), now)


def refused(made: Meters, name: str, *limits: Limit, cost: Cost, now: float = 0.0) -> Denied:
    denied = take(made, name, *limits, cost=cost, now=now)
    assert isinstance(denied, Denied)
    return denied


# --- money


def test_a_claim_in_money_carries_what_settling_needs() -> None:
    (claim,) = claims([BUDGET], Cost(100, 40, 3, 7 * CENT, PRICE))
    assert (claim.cost, claim.price) == (7 * CENT, PRICE)


def test_money_is_held_until_the_attempt_is_over_and_settled_by_its_price() -> None:
    made = meters()
    made.declare("caller/ci", [BUDGET])
    assert take(made, "a", BUDGET, cost=paying(30 * CENT)) is None
    made.counted("a", 0.0)
    assert made.used(BUDGET, 0.0) == 0
    assert [(row.used, row.reserved) for row in made.snapshot("caller/ci", 0.0)] == [(0, 30 * CENT)]
    made.settle("a", Usage(1000, 500), 1.0)
    assert made.used(BUDGET, 1.0) == 2_000_000
    (row,) = made.snapshot("caller/ci", 1.0)
    assert (row.metric, row.used, row.reserved, row.free) == ("cost", 2_000_000, 0, DOLLAR - 2_000_000)
    assert row.resets_in == pytest.approx(JANUARY_ENDS - 1.0, abs=1e-5)
    assert made.used(BUDGET, JANUARY_ENDS) == 0


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        (Usage(1000, 500), 2_000_000),
        (Usage(1000, 500, cost=5), 5),  # the upstream's own figure wins
        (Usage(1000, 500, exact=False), 30 * CENT),  # an estimate frees nothing
        (Usage(10**6, 0, exact=False), 100 * CENT),
        (Usage(1000, 500, exact=False, cost=5), 5),
        (Usage(10**6, 0), 100 * CENT),  # more than was reserved is a debt
        (None, 0),  # nothing was delivered
    ],
)
def test_what_an_attempt_is_charged(usage: Usage | None, charged: int) -> None:
    made = meters()
    take(made, "a", BUDGET, cost=paying(30 * CENT))
    made.counted("a", 0.0)
    made.settle("a", usage, 1.0)
    assert made.used(BUDGET, 1.0) == charged


def test_without_a_price_what_was_reserved_is_charged() -> None:
    made = meters()
    take(made, "a", BUDGET, cost=paying(30 * CENT, None))
    made.settle("a", Usage(1, 1), 0.0)
    assert made.used(BUDGET, 0.0) == 30 * CENT


def test_a_spent_budget_waits_for_the_month_and_one_that_is_held_for_others() -> None:
    made = meters()
    made.take(BUDGET, 40 * CENT, 0.0)
    assert take(made, "a", BUDGET, cost=paying(50 * CENT)) is None
    held = refused(made, "b", BUDGET, cost=paying(20 * CENT))
    assert (held.wait, held.busy, held.never) == (inf, True, False)
    spent = refused(made, "c", BUDGET, cost=paying(70 * CENT))
    assert spent.wait == pytest.approx(JANUARY_ENDS, abs=1e-5)
    assert not spent.busy
    assert spent.limit == BUDGET
    made.settle("a", Usage(1000, 0), 1.0)
    assert take(made, "b", BUDGET, cost=paying(20 * CENT), now=1.0) is None
    assert take(made, "c", BUDGET, cost=paying(70 * CENT), now=JANUARY_ENDS + 1) is None


def test_who_was_denied_for_what_others_hold_is_woken_when_they_end() -> None:
    made, woken = meters(), list[str]()
    made.wake = woken.append
    take(made, "a", BUDGET, cost=paying(DOLLAR))
    assert refused(made, "b", BUDGET, cost=paying(1)).busy
    made.counted("a", 0.0)
    assert woken == []
    made.settle("a", Usage(1, 1), 1.0)
    assert woken == ["caller/ci"]


def test_one_call_that_costs_more_than_the_whole_budget_is_never_clamped_to_it() -> None:
    made = meters()
    denied = refused(made, "a", BUDGET, cost=paying(DOLLAR + 1))
    assert (denied.never, denied.busy, denied.limit) == (True, False, BUDGET)
    shipped = Limit("caller/x", "cost", MONTH, DOLLAR, "default", "caller")
    assert refused(made, "b", shipped, cost=paying(DOLLAR + 1)).never
    assert take(made, "c", BUDGET, cost=paying(DOLLAR)) is None


def test_what_costs_nothing_needs_no_budget() -> None:
    made = meters()
    made.take(BUDGET, DOLLAR + CENT, 0.0)
    assert not refused(made, "a", BUDGET, cost=paying(1)).busy
    assert take(made, "b", BUDGET, cost=paying(0, ZERO)) is None
    made.settle("b", Usage(1000, 1000), 0.0)
    assert made.used(BUDGET, 0.0) == DOLLAR + CENT


def test_what_was_spent_before_the_start_counts_until_the_month_ends() -> None:
    made = meters()
    made.declare("role/dev", [ROLE])
    made.take(ROLE, 9 * DOLLAR, 0.0)
    made.take(ROLE, 0, 0.0)
    assert [(row.metric, row.used) for row in made.snapshot("role/dev", 0.0)] == [("cost", 9 * DOLLAR)]
    assert refused(made, "a", ROLE, cost=paying(2 * DOLLAR)).limit == ROLE
    assert take(made, "b", ROLE, cost=paying(DOLLAR)) is None
    assert made.used(ROLE, JANUARY_ENDS + 1) == 0
    assert made.used(BUDGET, 0.0) == 0


def test_a_callers_and_a_roles_budget_are_charged_together() -> None:
    made = meters()
    take(made, "a", BUDGET, ROLE, THEIR_TPM, cost=paying(50 * CENT))
    made.settle("a", Usage(1000, 0), 0.0)
    assert (made.used(BUDGET, 0.0), made.used(ROLE, 0.0), made.used(THEIR_TPM, 0.0)) == (1_000_000, 1_000_000, 1000)


# --- whose limit


def test_who_got_nothing_is_charged_the_request_alone_and_the_providers_limits_keep_the_charge() -> None:
    made = meters()
    rpm, tpm, most = own("requests", 2), own("tokens", 100), own("concurrency", 1, INFLIGHT)
    limits = (THEIR_RPM, THEIR_TPM, rpm, tpm, most, BUDGET)
    assert take(made, "a", *limits, cost=paying(CENT)) is None
    made.counted("a", 0.5)
    assert [made.used(limit, 0.5) for limit in limits] == [1, 15, 1, 15, 0, 0]
    made.settle("a", None, 5.0)
    assert [made.used(limit, 5.0) for limit in limits] == [1, 15, 1, 0, 0, 0]
    assert take(made, "b", *limits, cost=paying(CENT), now=5.0) is None


def test_an_estimate_of_the_usage_gives_the_caller_nothing_back() -> None:
    made = meters()
    rpm, tpm = own("requests", 9), own("tokens", 100)
    take(made, "a", rpm, tpm, cost=Cost(40, 10))
    made.counted("a", 0.0)
    made.settle("a", Usage(3, 3, exact=False), 1.0)
    assert (made.used(rpm, 1.0), made.used(tpm, 1.0)) == (1, 50)


@pytest.mark.parametrize("first", ["candidate", "caller"])
def test_a_callers_limit_is_named_whatever_the_candidates_say(first: str) -> None:
    """It has the shorter wait, and still it is what ends the call."""
    made = meters()
    rpm = own("requests", 1, Window("rolling", 10.0))
    limits = (THEIR_RPM, rpm) if first == "candidate" else (rpm, THEIR_RPM)
    for name in ("a", "b"):
        take(made, name, THEIR_RPM, cost=Cost(1, 1))
        made.counted(name, 0.0)
    take(made, "c", rpm, cost=Cost(1, 1))
    made.counted("c", 0.0)
    denied = refused(made, "d", *limits, cost=Cost(1, 1))
    assert denied.limit == rpm
    assert denied.wait == denied.wait_any < 12.0
    assert made.reserve("e", claims([THEIR_RPM], Cost(1, 1)), 0.0) is not None


def test_a_callers_limit_is_named_even_when_the_candidate_could_never_serve_the_call() -> None:
    made = meters()
    rpm = own("requests", 1)
    take(made, "a", rpm, cost=Cost(1, 1))
    made.counted("a", 0.0)
    denied = refused(made, "b", THEIR_TPM, rpm, cost=Cost(5000, 1, 2000))
    assert (denied.limit, denied.never) == (rpm, False)


def test_a_spent_budget_is_named_before_what_the_caller_has_under_way() -> None:
    made = meters()
    most = own("concurrency", 1, INFLIGHT)
    made.take(BUDGET, DOLLAR, 0.0)
    take(made, "a", most, cost=Cost(1, 1))
    denied = refused(made, "b", most, BUDGET, cost=paying(CENT))
    assert denied.limit == BUDGET
    assert not denied.busy


def test_tokens_of_a_caller_are_clamped_as_a_providers_are() -> None:
    made = meters()
    tpm = own("tokens", 100)
    assert take(made, "a", tpm, cost=Cost(5000, 200, 100)) is None
    assert refused(made, "b", tpm, cost=Cost(5000, 200, 101)).never


def test_nothing_is_held_after_a_denial_by_either() -> None:
    made = meters()
    made.declare("caller/ci", [BUDGET])
    made.declare("groq/g|m", [THEIR_TPM])
    made.take(BUDGET, DOLLAR, 0.0)
    refused(made, "a", THEIR_TPM, BUDGET, cost=paying(1))
    for scope in ("caller/ci", "groq/g|m"):
        assert [row.reserved for row in made.snapshot(scope, 0.0)] == [0]


def test_two_hundred_calls_at_once_against_one_remaining_dollar_never_spend_two() -> None:
    made = meters()
    made.take(ROLE, 9 * DOLLAR, 0.0)
    served = [name for name in map(str, range(200)) if take(made, name, ROLE, THEIR_TPM, cost=paying(3 * CENT)) is None]
    assert len(served) == 33
    for name in served:
        made.settle(name, Usage(10, 5, cost=3 * CENT), 1.0)
    assert made.used(ROLE, 1.0) == 9 * DOLLAR + 99 * CENT
