"""The figures of a process under strain: how late its loop is, its memory, its connections, what it refused."""

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


def strain_totals(gateway: Gateway) -> Iterator[Figure]:
    """What has been refused since the start."""
    for labels, calls in gateway.strain.shed.items():
        yield "keyturn_shed_total", labels, calls
    for bound, connections in gateway.strain.refused.items():
        yield "keyturn_connections_refused_total", (bound,), connections
