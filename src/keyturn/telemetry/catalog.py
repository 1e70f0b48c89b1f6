"""Every metric that `/metrics` shows: its name, its help, its labels, its buckets.

Names and labels follow the OpenTelemetry GenAI conventions (v1.41.1) where they cover it; the rest has our prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SECONDS = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
    163.84,
    327.68,
    655.36,
)
"""The conventions' buckets, continued to where our timeouts are."""
TOKENS = tuple(4.0**n for n in range(14))
OVERHEAD = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)


OPERATION: Mapping[str, str] = {"completions": "text_completion"}
"""What the conventions call a kind of call, where it is not called so already."""


class Shape(NamedTuple):
    """What one metric is: its help, its labels, and, for a histogram, its buckets."""

    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


COUNTERS: Mapping[str, Shape] = {
    "keyturn_requests_total": Shape(
        "Requests answered, by what became of them.", ("inbound_api", "model_alias", "status_class", "outcome")
    ),
    "keyturn_served_total": Shape(
        "Answers by who gave them: fallback is none for the first choice, later for somebody of a later step or "
        "tier, last for the last tier there is.",
        ("provider", "tier", "fallback"),
    ),
    "keyturn_upstream_attempts_total": Shape(
        "Requests handed to an upstream, by what its answer meant.", ("provider", "tier", "model", "result")
    ),
    "keyturn_failovers_total": Shape(
        "Moves from one credential to the next within a call, by what the first one answered (passed_over: the "
        "provider that stands first was not even asked) and the tier of the provider moved to.",
        ("from_provider", "to_provider", "reason", "tier"),
    ),
    "keyturn_tokens_total": Shape("Tokens used, as upstreams reported them.", ("provider", "model", "kind")),
    "keyturn_stream_aborted_total": Shape(
        "Streams that did not reach their end, by whether the client had seen any of it.", ("provider", "phase")
    ),
    "keyturn_alarms_total": Shape("Times that something asked for the owner's attention; the log says what.", ()),
    "keyturn_limits_learned_total": Shape("Limits that 429s taught, and their changes since.", ("provider",)),
    "keyturn_rotations_total": Shape("Moves of a round robin to its next key.", ("provider",)),
    "keyturn_config_reloads_total": Shape(
        "Times that a changed configuration was read: ok when it was taken over, else invalid.", ("result",)
    ),
    "keyturn_cache_requests_total": Shape(
        "Calls that may share an answer: hit (a kept one), joined (that of a call under way), miss.", ("result",)
    ),
    "keyturn_cost_usd_total": Shape("What attempts cost, as far as their prices are known.", ("provider", "model")),
    "keyturn_unpriced_attempts_total": Shape(
        "Attempts that used tokens whose price is not known.", ("provider", "model")
    ),
    "keyturn_ledger_rows_total": Shape("Rows (two of an attempt, one of a call) that the ledger recorded.", ()),
    "keyturn_ledger_rows_lost_total": Shape("Rows that could not be recorded; the log says why.", ()),
    "keyturn_shed_total": Shape(
        "Calls refused because the gateway itself is under strain: lag of its event loop, or memory.",
        ("class", "reason"),
    ),
    "keyturn_queue_refusals_total": Shape(
        "Calls that could not wait for a credential, or waited in vain: never (none returns in time), predicted (its "
        "turn would come too late), full (of the room), evicted (for callers with less of it), late.",
        ("class", "reason"),
    ),
    "keyturn_breaker_opened_total": Shape("Times that a provider was left alone because it was down.", ("provider",)),
    "keyturn_retries_held_back_total": Shape(
        "Second tries that were not made because the provider's budget for them was spent.", ("provider",)
    ),
    "keyturn_calls_spared_total": Shape(
        "Calls that left a provider alone because most of its answers were faults.", ("provider",)
    ),
    "keyturn_hedges_total": Shape(
        "Second requests for slow calls: won (it answered first), lost, failed (neither did), left (the client did).",
        ("result",),
    ),
    "keyturn_connections_refused_total": Shape(
        "Connections of clients refused at a bound: total, or per_ip.", ("bound",)
    ),
    "keyturn_recordings_dropped_total": Shape(
        "Calls not recorded or exported because the disk or the collector could not keep pace.", ()
    ),
    "keyturn_log_lines_dropped_total": Shape("Log lines given up because the log could not keep pace.", ()),
}

_CLIENT_OPERATION = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type")

HISTOGRAMS: Mapping[str, Shape] = {
    "keyturn_request_duration_seconds": Shape(
        "From a request's last byte to its answer's last byte.",
        ("inbound_api", "model_alias", "stream", "outcome"),
        SECONDS,
    ),
    "keyturn_gateway_overhead_seconds": Shape(
        "The part of a call's time that was spent neither upstream nor waiting for a credential.",
        ("inbound_api",),
        OVERHEAD,
    ),
    "keyturn_queue_wait_seconds": Shape(
        "How long calls waited for a credential, of those that had to.", ("inbound_api",), SECONDS
    ),
    "keyturn_attempt_duration_seconds": Shape(
        "Time of one upstream attempt, by provider and its tier.", ("provider", "tier"), SECONDS
    ),
    "keyturn_key_cooldown_seconds": Shape(
        "For how long credentials were set aside.", ("provider", "reason"), (*SECONDS, 3600.0, 86400.0)
    ),
    "gen_ai_client_operation_duration_seconds": Shape("Time of one upstream attempt.", _CLIENT_OPERATION, SECONDS),
    "gen_ai_client_operation_time_to_first_chunk_seconds": Shape(
        "From the start of a streamed upstream attempt to its first content.", _CLIENT_OPERATION, SECONDS
    ),
    "gen_ai_client_token_usage": Shape(
        "Tokens of one upstream attempt.",
        ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"),
        TOKENS,
    ),
}

GAUGES: Mapping[str, Shape] = {
    "keyturn_keys": Shape("Credentials, by what they are doing.", ("provider", "state")),
    "keyturn_inflight_requests": Shape("Calls being answered.", ()),
    "keyturn_config_valid": Shape("1 while the configuration files as they are now are in use, else 0.", ()),
    "keyturn_upstream_connections": Shape("HTTP connections to upstreams, in use and idle.", ()),
    "keyturn_queue_waiters": Shape("Calls waiting for a credential.", ()),
    "keyturn_queue_waiters_by_class": Shape("The same, by class.", ("class",)),
    "keyturn_queue_promises": Shape("Calls that were told when to come back, and are expected.", ()),
    "keyturn_headroom_requests": Shape(
        "Calls of middling size that the keys of a role, alias or route id would let through at once: now, and in 60 "
        "s. +Inf where no limit is known.",
        ("route", "when"),
    ),
    "keyturn_cache_entries": Shape("Answers that are kept, where any route keeps them.", ()),
    "keyturn_cache_bytes": Shape("Bytes of the answers that are kept.", ()),
    "keyturn_breaker_open": Shape("1 for a provider that is left alone because it is down.", ("provider", "endpoint")),
    "keyturn_learned_concurrency": Shape("Quota groups and models that are sent fewer requests at once.", ()),
    "keyturn_loop_lag_seconds": Shape("How late the event loop was at most, in the last three seconds.", ()),
    "keyturn_resident_bytes": Shape("Memory of the process, where the system tells.", ()),
    "keyturn_memory_limit_bytes": Shape("Memory that the process may have, where there is a limit.", ()),
    "keyturn_connections": Shape("Open connections of clients.", ()),
    "keyturn_ledger_writable": Shape("1 while calls can be recorded, else 0: the disk is full, or too much waits.", ()),
    "keyturn_ledger_reachable": Shape("1 while the ledger's database takes rows, else 0: they wait on the disk.", ()),
    "keyturn_ledger_waiting_bytes": Shape("Bytes that wait on the disk for the ledger's database.", ()),
    "keyturn_live_reachable": Shape("1 while the store of live state (memory, Redis) can be reached, else 0.", ()),
    "keyturn_live_replicas": Shape("Gateways that share the live state, this one included.", ()),
    "keyturn_live_reservations": Shape("Reservations of attempts under way; 0 when idle.", ()),
    "keyturn_live_queued": Shape("Messages that wait to be sent to the shared live state.", ()),
}

METRICS: Mapping[str, str] = {
    name: shape.help for table in (COUNTERS, HISTOGRAMS, GAUGES) for name, shape in table.items()
}
"""Every metric that `/metrics` can show, with its help."""
