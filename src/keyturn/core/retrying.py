"""The retry budget of one provider: how many second tries it gets while it fails. Values in, decisions out.

A full budget is 500. A second try of a call that is not answered well either takes of the budget of who was asked, by
what had gone wrong before:

    a fault of an upstream (5xx, timeout, transport, overload, no answer)   14
    a minute limit (429)                                                     5
    a key or account that cannot be used, a day quota, a model not there     0

Each call that is answered well at its first try adds one. So in an outage a few dozen calls are tried twice, and then
one in fourteen: the upstream is not asked twice as often as usual just when it cannot bear it. Of second tries where
the first one failed, three at a time are under way, or a fifth of all calls, and more only as long as the budget would
bear it if all of them failed: of four keys one may be broken, and thirty calls find it at the same moment. A try at
another provider is not counted there, since a provider that is down must not keep its calls from one that works.

Only after faults is a second try held back. After a 429 another key is always tried: each 429 sets a key aside, so
those tries are bounded by the number of keys.
"""

from __future__ import annotations

from typing import NamedTuple

from .model import Meaning

FULL = 500
FAULT = 14
LIMITED = 5
LEAST_AT_ONCE = 3
"""Second tries after faults that may be under way in any case."""
SHARE_AT_ONCE = 0.2
"""How many may be, as a share of the calls under way."""
FREE: frozenset[Meaning] = frozenset(
    {"ok", "daily_quota", "insufficient_credit", "invalid_key", "forbidden", "not_found", "context_length"}
)


class Budget(NamedTuple):
    """What is left, and how many second tries after faults are under way where the first one failed."""

    left: int = FULL
    flying: int = 0


def price_of_retry(meaning: Meaning) -> int:
    """What another try costs after an attempt that meant *meaning*."""
    if meaning in FREE:
        return 0
    return LIMITED if meaning == "rate_limited" else FAULT


def affords(budget: Budget, price: int, under_way: int, *, elsewhere: bool) -> bool:
    """Whether a try of *price* may be made while *under_way* calls are being answered. *elsewhere*: another provider
    had failed."""
    if price < FAULT:
        return True
    if budget.left < price:
        return False
    at_once = max(LEAST_AT_ONCE, int(SHARE_AT_ONCE * under_way), budget.left // FAULT)
    return elsewhere or budget.flying < at_once


def began(budget: Budget, price: int, *, elsewhere: bool) -> Budget:
    """A try of *price* begins."""
    return budget if elsewhere or price < FAULT else budget._replace(flying=budget.flying + 1)


def ended(budget: Budget, price: int, *, elsewhere: bool, failed: bool) -> Budget:
    """It is over: answered well, *failed*, or given up by its client."""
    flying = budget.flying if elsewhere or price < FAULT else max(0, budget.flying - 1)
    return Budget(max(0, budget.left - price) if failed else budget.left, flying)


def earned(budget: Budget) -> Budget:
    """A call was answered well at its first try."""
    return budget._replace(left=min(FULL, budget.left + 1))
