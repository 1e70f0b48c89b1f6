"""Figures for Prometheus: what is counted under which labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from keyturn.core import Usage
from keyturn.dispatch import Alarm, Cooled, Event
from keyturn.telemetry import METRICS
from keyturn.telemetry.metrics import MOST_NAMES, Metrics

from .events import SECRET, attempt, ended, served

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def counted(*events: Event, metrics: Metrics | None = None) -> Samples:
    """Every sample of the page after *events*."""
    metrics = metrics or Metrics(lambda: [("keyturn_keys", ("groq", "healthy"), 2), ("keyturn_queue_waiters", (), 1)])
    for event in events:
        metrics.count(event)
    families = text_string_to_metric_families(metrics.page().decode())
    return {(row.name, frozenset(row.labels.items())): row.value for family in families for row in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_a_served_call_with_a_failover() -> None:
    samples = counted(served())
    api = {"inbound_api": "openai_chat"}
    model = {"provider": "groq", "model": "llama"}
    attempts = "keyturn_upstream_attempts_total"
    assert (
        value(samples, "keyturn_requests_total", **api, model_alias="groq/llama", status_class="2xx", outcome="ok") == 1
    )
    assert value(samples, attempts, **model, tier="2", result="rate_limited") == 1
    assert value(samples, attempts, **model, tier="2", result="ok") == 1
    assert value(samples, "keyturn_served_total", provider="groq", tier="2", fallback="none") == 1
    assert value(samples, "keyturn_attempt_duration_seconds_count", provider="groq", tier="2") == 2
    moved = {"from_provider": "groq", "to_provider": "groq", "reason": "rate_limited", "tier": "2"}
    assert value(samples, "keyturn_failovers_total", **moved) == 1
    assert value(samples, "keyturn_tokens_total", **model, kind="input") == 12
    assert value(samples, "keyturn_tokens_total", **model, kind="output") == 40
    assert value(samples, "keyturn_tokens_total", **model, kind="cached_input") == 4
    duration = {**api, "model_alias": "groq/llama", "stream": "false", "outcome": "ok"}
    assert value(samples, "keyturn_request_duration_seconds_sum", **duration) == 0.5
    assert value(samples, "keyturn_request_duration_seconds_bucket", **duration, le="0.32") == 0
    assert value(samples, "keyturn_request_duration_seconds_bucket", **duration, le="0.64") == 1
    overhead = value(samples, "keyturn_gateway_overhead_seconds_sum", **api)
    assert abs(overhead - 0.042) < 1e-9
    operation = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "groq", "gen_ai_request_model": "llama"}
    assert value(samples, "gen_ai_client_operation_duration_seconds_count", **operation, error_type="rate_limited") == 1
    assert value(samples, "gen_ai_client_token_usage_sum", **operation, gen_ai_token_type="output") == 40


def test_the_time_to_the_first_chunk_is_counted_for_streams_only() -> None:
    name = "gen_ai_client_operation_time_to_first_chunk_seconds_sum"
    labels = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "groq", "gen_ai_request_model": "llama"}
    samples = counted(ended(attempt(first_token=1000.02), stream=True))
    assert abs(value(samples, name, **labels, error_type="") - 0.02) < 1e-9
    assert not any(name == each for each, _ in counted(ended(attempt(first_token=1000.02))))


def test_outcomes_of_calls() -> None:
    samples = counted(
        ended(status=400, code="bad_request", unread=True),
        ended(attempt(meaning="bad_request"), status=400, code="bad_request"),
        ended(status=429, code="capacity"),
        ended(attempt(meaning="server_error"), status=502, code="bad_upstream"),
        ended(status=499, code="client_left"),
        ended(attempt(meaning="cancelled"), stream=True),
        ended(attempt(meaning="server_error", first_token=1000.01), stream=True, code="upstream_interrupted"),
    )
    totals: dict[str, float] = {}
    for (name, labels), amount in samples.items():
        if name == "keyturn_requests_total":
            outcome = dict(labels)["outcome"]
            totals[outcome] = totals.get(outcome, 0) + amount
    assert totals == {"client_error": 2, "exhausted": 1, "upstream_error": 2, "cancelled": 2}
    aborted = "keyturn_stream_aborted_total"
    assert value(samples, aborted, provider="groq", phase="mid_stream") == 1
    assert value(samples, aborted, provider="groq", phase="before_first_byte") == 1


def test_names_that_clients_make_up_are_counted_as_other() -> None:
    samples = counted(
        *(ended(attempt(meaning="not_found", model=f"x{n}"), route=f"groq/x{n}", status=404) for n in range(500)),
        ended(route=SECRET, status=404, code="model_not_found"),
    )
    labels = {amount for _, labels in samples for name, amount in labels if name in ("model", "model_alias")}
    assert labels == {"other"}


def test_names_that_upstreams_answer_to_are_bounded_too() -> None:
    samples = counted(*(ended(attempt(model=f"m{n}"), route=f"r{n}") for n in range(MOST_NAMES + 50)))
    for label in ("model", "model_alias"):
        assert len({amount for _, labels in samples for name, amount in labels if name == label}) == MOST_NAMES + 1


def test_estimated_usage_is_not_reported_as_tokens() -> None:
    samples = counted(ended(attempt(usage=Usage(5, 6, exact=False))))
    assert not any(name == "keyturn_tokens_total" for name, _ in samples)


def test_cooldowns_waits_and_alarms() -> None:
    samples = counted(
        Cooled("groq", "groq-1:9f3a1c", "llama", "rate_limited", 10.0),
        Cooled("groq", "groq-1:9f3a1c", "", "disabled", float("inf")),
        Alarm("look"),
        ended(attempt(), waited=0.25),
    )
    assert value(samples, "keyturn_key_cooldown_seconds_sum", provider="groq", reason="rate_limited") == 10
    assert value(samples, "keyturn_queue_wait_seconds_sum", inbound_api="openai_chat") == 0.25
    assert value(samples, "keyturn_alarms_total") == 1
    assert all(amount != float("inf") for amount in samples.values())


def test_gauges_are_read_when_the_page_is_made() -> None:
    samples = counted()
    assert value(samples, "keyturn_keys", provider="groq", state="healthy") == 2
    assert value(samples, "keyturn_queue_waiters") == 1


def test_every_metric_is_listed_with_its_help_and_no_label_names_a_key() -> None:
    metrics = Metrics(list)
    metrics.count(served())
    metrics.set_total("keyturn_log_lines_dropped_total", 1)
    page = metrics.page().decode()
    shown = {line.split()[2] for line in page.splitlines() if line.startswith("# HELP")}
    assert shown == set(METRICS)
    assert "9f3a1c" not in page
