"""The figures of a process, or its upstreams, under strain: lag, memory, connections, breakers, what was refused."""

from __future__ import annotations

from collections.abc import Iterator

from keyturn.dispatch import Gateway

Figure = tuple[str, tuple[str, ...], float]
"""Name, label values, value."""


def strain_gauges(gateway: Gateway) -> Iterator[Figure]:
    """How the process stands now."""
    strain = gateway.strain
    yield "keyturn_loop_lag_seconds", (), strain.lag
    yield "keyturn_connections", (), strain.connections
    if strain.resident:
        yield "keyturn_resident_bytes", (), strain.resident
    if strain.memory_limit:
        yield "keyturn_memory_limit_bytes", (), strain.memory_limit
    for mark in gateway.marks.every():
        if mark.scope[0] == "provider":
            yield "keyturn_breaker_open", (mark.scope[1], mark.scope[2]), 1.0
    yield "keyturn_learned_concurrency", (), gateway.adapting.narrowed


def room_gauges(gateway: Gateway) -> Iterator[Figure]:
    """Who waits for a credential."""
    room = gateway.room
    yield "keyturn_queue_waiters", (), room.waiting
    for rank, waiting in room.classes.items():
        yield "keyturn_queue_waiters_by_class", (rank,), waiting
    yield "keyturn_queue_promises", (), room.promises.open


def strain_totals(gateway: Gateway) -> Iterator[Figure]:
    """What has been refused since the start."""
    for labels, calls in gateway.strain.shed.items():
        yield "keyturn_shed_total", labels, calls
    for reason, calls in gateway.room.refused.items():
        yield "keyturn_queue_refusals_total", reason, calls
    for bound, connections in gateway.strain.refused.items():
        yield "keyturn_connections_refused_total", (bound,), connections
    adapting = gateway.adapting
    counters = (
        ("keyturn_breaker_opened_total", adapting.steadiness.opened),
        ("keyturn_retries_held_back_total", adapting.steadiness.held_back),
        ("keyturn_calls_spared_total", adapting.steadiness.spared),
        ("keyturn_hedges_total", adapting.watched.results if adapting.watched is not None else {}),
    )
    for name, counts in counters:
        for label, count in counts.items():
            yield name, (label,), count
