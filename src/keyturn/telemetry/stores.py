"""The figures of the ledger and of live state, read when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator

from keyturn.core import Attempt, Deployment, cost_of
from keyturn.dispatch import Gateway

Reading = tuple[str, tuple[str, ...], float]


def store_gauges(gateway: Gateway) -> Iterator[Reading]:
    """How the stores stand at this moment; of a ledger that keeps nothing, nothing."""
    if gateway.ledger.keeps:
        ledger = gateway.ledger.standing()
        yield "keyturn_ledger_writable", (), float(ledger.writable)
        yield "keyturn_ledger_reachable", (), float(ledger.reachable)
        yield "keyturn_ledger_waiting_bytes", (), ledger.waiting_bytes
    live = gateway.live.standing()
    yield "keyturn_live_reachable", (), float(live.reachable)
    yield "keyturn_live_replicas", (), live.replicas
    yield "keyturn_live_reservations", (), live.open
    yield "keyturn_live_queued", (), live.queued


def store_totals(gateway: Gateway) -> Iterator[tuple[str, float]]:
    """What was counted by the stores themselves, since the start."""
    if gateway.ledger.keeps:
        ledger = gateway.ledger.standing()
        yield "keyturn_ledger_rows_total", ledger.recorded
        yield "keyturn_ledger_rows_lost_total", ledger.lost


def price_of(gateway: Gateway, attempt: Attempt) -> int | None:
    """What *attempt* cost in nano-dollars, by the configuration in use; None when its price is not known."""
    assert attempt.usage is not None, "asked of what was used"
    return cost_of(attempt.usage, gateway.generation.prices.of(Deployment(attempt.provider, attempt.model)))
