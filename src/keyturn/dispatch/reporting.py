"""What an answer's headers say of the limits of the key that answered, handed on to the live state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.core import METRICS as COUNTED
from keyturn.core import Limit, Outcome, parse_limits, reported_limit

from .declared import SECONDS, window_of

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway

REPORT_EVERY = 5.0
"""Seconds between two looks at the limit headers of one quota group and model."""
METRICS = {
    name + window: name
    for name in ("requests", "tokens", "input_tokens", "output_tokens")
    for window in ("", "_second", "_minute", "_hour", "_day")
}
"""What a provider may call a limit -> the metric that it is. Others (per month, per image) are not kept."""


def reported(exchange: Exchange, outcome: Outcome) -> None:
    """Take over the limits that the provider stated in its headers."""
    response, gateway, entry, now = exchange.response, exchange.gateway, exchange.grant.entry, exchange.now()
    if (outcome.meaning == "ok" and now < entry.report_due) or response is None or exchange.run.call.kind == "count":
        return
    entry.report_due = now + REPORT_EVERY
    rules, wall = exchange.provider.rules, gateway.clock.wall()
    stated = outcome.limits or parse_limits(response.headers, rules, wall, resets=False)
    if not stated:
        return
    scope, changed, adapting = entry.limit_scopes[0], False, gateway.adapting
    suspected = adapting.is_suspected(exchange)  # what another key used may be in it
    clear = gateway.config.learning.enabled and not adapting.unclear(exchange)
    for name, row in stated.items():
        metric = METRICS.get(name)
        if metric is None or not isinstance(row, dict):
            continue
        window, capacity, remaining = row["window"], row["limit"], row["remaining"]
        if window in SECONDS and isinstance(capacity, int) and capacity > 0:
            left = remaining if isinstance(remaining, int) else None
            span = window_of(exchange.provider, metric, window)
            changed = gateway.live.report(scope, metric, span, capacity, now, None if suspected else left) or changed
            if left is not None and clear:
                _others(gateway, reported_limit(scope, COUNTED[metric], span, capacity), left, now)
    if changed and exchange.grant.pool.capped:
        exchange.run.generation.pools.cap(exchange.grant.pool, entry)


def _others(gateway: Gateway, limit: Limit, left: int, now: float) -> None:
    """Where a provider counted more than all of us sent, others use the key: that is taken as used."""
    own = gateway.live.view(now).taken(limit, now)
    foreign = gateway.adapting.strangers.use(limit.key, limit.capacity, left, own)
    if foreign:
        gateway.live.take(limit, foreign, now)
