"""How the keys of a deployment stand for a call that nobody has sent: free, or what keeps each away, and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from keyturn.core import FOREVER, Call, Claim, Cost, Deployment, Entry, Limit, claims

from .declared import window_name
from .signing_in import trouble_of

if TYPE_CHECKING:
    from .gateway import Gateway
    from .generation import Generation

FREE = "free"


class Stand(NamedTuple):
    """Why a key cannot be asked now, and for how many seconds: infinite when nobody knows. `free` when it can."""

    state: str
    why: str = ""
    wait: float = 0.0

    @property
    def free(self) -> bool:
        return self.state == FREE


def cost_there(gateway: Gateway, generation: Generation, call: Call, deployment: Deployment) -> Cost:
    """What *call* is charged on the limits of *deployment* before it is sent."""
    provider = generation.config.providers[deployment.provider]
    return gateway.estimator.charge(
        call,
        str(deployment),
        counts_output=provider.counts_output,
        charges_max_output=provider.charges_max_output,
    )


def claims_of(gateway: Gateway, entry: Entry, cost: Cost) -> list[Claim]:
    """What a call of *cost* needs of each limit of *entry*."""
    return claims([limit for scope in entry.limit_scopes for limit in gateway.live.limits(scope)], cost)


def standing_of(gateway: Gateway, entry: Entry, needed: list[Claim], now: float) -> Stand:
    """How *entry* stands for a call that needs *needed*."""
    mark = gateway.marks.blocked(entry.scopes, now)
    wait, limit = gateway.live.wait(needed, now)
    if mark is not None:
        longest = mark.wait(now)
        return Stand(mark.state, mark.reason, max(longest, wait) if mark.block in ("limit", "fault") else longest)
    if trouble := trouble_of(entry.candidate.credential):
        return Stand("invalid", trouble, FOREVER)
    if limit is None:
        return Stand(FREE)
    return Stand("limited", told_limit(limit), wait)


def told_limit(limit: Limit) -> str:
    """`requests limit of 30 a minute reached`."""
    over = window_name(limit.window)
    span = "" if over == "in flight" else f" a {over}" if over.isalpha() else f" in {over}"
    return f"{limit.metric.replace('_', ' ')} limit of {limit.capacity}{span} reached"


def seconds(wait: float) -> float | None:
    """*wait* for people and JSON; None for what nobody knows the end of."""
    return round(wait, 1) if wait < FOREVER else None


def moment_of(gateway: Gateway, wait: float) -> str | None:
    """When *wait* seconds are over, as RFC 3339 in UTC; None when nobody knows, or beyond every calendar."""
    if wait == FOREVER:
        return None
    try:
        then = datetime.fromtimestamp(gateway.clock.wall() + wait, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return then.isoformat(timespec="seconds").replace("+00:00", "Z")
