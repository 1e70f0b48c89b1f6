"""What an answer's headers say of the limits of the key that answered, handed on to the live state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from keyturn.core import METRICS as COUNTED
from keyturn.core import Limit, Outcome, parse_limits

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
    response, gateway, entry = exchange.response, exchange.gateway, exchange.grant.entry
    now = gateway.clock.mono()
    if response is None or (outcome.meaning == "ok" and now < entry.report_due) or exchange.run.call.kind == "count":
        return
    entry.report_due = now + REPORT_EVERY
    stated = outcome.limits or parse_limits(response.headers, exchange.provider.rules, gateway.clock.wall())
    scope, changed = entry.limit_scopes[0], False
    for name, row in stated.items():
        if not isinstance(row, Mapping):
            continue
        metric = METRICS.get(name, "")
        window, capacity, remaining = str(row.get("window")), row.get("limit"), row.get("remaining")
        if metric and window in SECONDS and isinstance(capacity, int) and capacity > 0:
            left = remaining if isinstance(remaining, int) else None
            span = window_of(exchange.provider, metric, window)
            own = None if gateway.adapting.is_suspected(exchange) else left  # what another key used may be in it
            changed = gateway.live.report(scope, metric, span, capacity, now, own) or changed
            if left is not None and gateway.config.learning.enabled and not gateway.adapting.unclear(exchange):
                _others(gateway, Limit(scope, COUNTED[metric], span, capacity, "reported"), left, now)
    if changed and exchange.grant.pool.capped:
        exchange.run.generation.pools.cap(exchange.grant.pool, entry)


def _others(gateway: Gateway, limit: Limit, left: int, now: float) -> None:
    """Where a provider counted more than all of us sent, others use the key: that is taken as used."""
    row = gateway.live.view(now).row(limit, now)
    foreign = gateway.adapting.strangers.use(limit.key, limit.capacity, left, row.used + row.reserved)
    if foreign:
        gateway.live.take(limit, foreign, now)
