"""Counts calls, attempts and tokens in plain dictionaries, and gives them Prometheus' format when somebody asks.

A label never holds a key or an address, and a model's name becomes a label only once an upstream has answered to it:
what clients make up is counted as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from keyturn.core import FOREVER, NANO, Attempt, Trail
from keyturn.dispatch import Alarm, CallEnded, Cooled, Event, LimitLearned, Rotated

from .catalog import COUNTERS, GAUGES, HISTOGRAMS, OPERATION

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

OTHER = "other"
MOST_NAMES = 200
"""Model names that get a label of their own."""

EXHAUSTED = frozenset({"capacity", "no_valid_credentials", "draining", "overloaded", "deadline"})

Labels = tuple[str, ...]
Gauges = Callable[[], Iterable[tuple[str, Labels, float]]]
"""Name, label values and value of each gauge, read when somebody asks."""
Costs = Callable[[Attempt], int | None]
"""What an attempt that used something cost, in nano-dollars; None when its price is not known."""


class Histogram:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def cumulative(self) -> list[tuple[str, float]]:
        """(`le`, how many values are not above it), as the format wants it."""
        rows: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            rows.append((bound, float(seen)))
        return rows


class Names:
    """The model names that may be labels: those that an upstream has answered to, the first 200 of them."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def admit(self, name: str) -> None:
        if len(self._known) < MOST_NAMES:
            self._known.add(name)

    def label(self, name: str) -> str:
        return name if name in self._known else OTHER


class Metrics:
    """All figures of one process. `count` takes events, `page` gives the text for Prometheus."""

    def __init__(self, gauges: Gauges, cost: Costs | None = None) -> None:
        self._gauges = gauges
        self._cost = cost
        self._counters: dict[str, defaultdict[Labels, float]] = {name: defaultdict(float) for name in COUNTERS}
        self._histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in HISTOGRAMS}
        self._routes = Names()
        self._models = Names()
        self._valid = True
        """Whether the configuration files as they are now are in use."""

    def count(self, event: Event) -> None:
        """Takes one event into the figures."""
        if isinstance(event, CallEnded):
            self._count_call(event)
        elif isinstance(event, Cooled):
            if event.seconds < FOREVER:
                self._observe("keyturn_key_cooldown_seconds", (event.provider, event.reason), event.seconds)
        elif isinstance(event, Alarm):
            self._add("keyturn_alarms_total", ())
        elif isinstance(event, Rotated):
            self._add("keyturn_rotations_total", (event.provider,))
        elif isinstance(event, LimitLearned):
            self._add("keyturn_limits_learned_total", (event.provider,))
        else:
            self._valid = not event.problems
            self._add("keyturn_config_reloads_total", ("ok" if self._valid else "invalid",))

    def set_total(self, name: str, value: float, labels: Labels = ()) -> None:
        """What is counted elsewhere has come to *value* until now."""
        self._counters[name][labels] = value

    def page(self) -> bytes:
        """Everything in Prometheus' text format."""
        from prometheus_client.exposition import generate_latest
        from prometheus_client.registry import CollectorRegistry

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """What `prometheus_client` asks of a collector."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, shape in COUNTERS.items():
            counter = CounterMetricFamily(name, shape.help, labels=shape.labels)
            for labels, value in self._counters[name].items():
                counter.add_metric(labels, value)
            yield counter
        for name, shape in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, shape.help, labels=shape.labels)
            for labels, values in self._histograms[name].items():
                histogram.add_metric(labels, values.cumulative(), values.total)
            yield histogram
        families = {name: GaugeMetricFamily(name, shape.help, labels=shape.labels) for name, shape in GAUGES.items()}
        families["keyturn_config_valid"].add_metric((), float(self._valid))
        for name, labels, value in self._gauges():
            families[name].add_metric(labels, value)
        yield from families.values()

    def _count_call(self, event: CallEnded) -> None:
        trail = event.trail
        for attempt in trail.attempts:
            if attempt.meaning == "ok":
                self._routes.admit(trail.route)
                self._models.admit(attempt.model)
        kind = event.call.kind if event.call is not None else ""
        api = event.call.dialect if event.call is not None else "unread"
        route, outcome = self._routes.label(trail.route), outcome_of(trail)
        seconds = (trail.ended or trail.started) - trail.started
        self._add("keyturn_requests_total", (api, route, f"{trail.status // 100}xx", outcome))
        stream = "true" if trail.stream else "false"
        self._observe("keyturn_request_duration_seconds", (api, route, stream, outcome), seconds)
        if outcome == "ok" and trail.attempts and kind != "count":
            served = trail.attempts[-1]
            self._add("keyturn_served_total", (served.provider, str(served.tier), trail.fallback))
        if trail.shared:
            self._add("keyturn_cache_requests_total", (trail.shared,))
        if trail.waited:
            self._observe("keyturn_queue_wait_seconds", (api,), trail.waited)
        upstream = 0.0
        before: Attempt | None = None
        for attempt in trail.attempts:
            upstream += self._count_attempt(attempt, kind, trail.stream)
            if before is not None and not attempt.resend and before.meaning != "cancelled":  # one of two at once
                self._moved(before.provider, attempt, before.meaning)
            elif before is None and trail.planned not in ("", attempt.provider):
                self._moved(trail.planned, attempt, "passed_over")
            before = attempt
        if before is not None and outcome == "ok":
            self._observe("keyturn_gateway_overhead_seconds", (api,), max(0.0, seconds - upstream - trail.waited))
        if before is not None and trail.stream and (trail.code == "upstream_interrupted" or outcome == "cancelled"):
            phase = "mid_stream" if before.first_token is not None else "before_first_byte"
            self._add("keyturn_stream_aborted_total", (before.provider, phase))

    def _moved(self, before: str, attempt: Attempt, reason: str) -> None:
        self._add("keyturn_failovers_total", (before, attempt.provider, reason, str(attempt.tier)))

    def _count_attempt(self, attempt: Attempt, kind: str, stream: bool) -> float:
        """Returns how many seconds it took."""
        provider, model = attempt.provider, self._models.label(attempt.model)
        meaning = attempt.meaning or "unfinished"
        tier = str(attempt.tier)
        self._add("keyturn_upstream_attempts_total", (provider, tier, model, meaning))
        labels = (OPERATION.get(kind, kind), provider, model, "" if meaning == "ok" else meaning)
        seconds = (attempt.ended or attempt.started) - attempt.started
        self._observe("keyturn_attempt_duration_seconds", (provider, tier), seconds)
        self._observe("gen_ai_client_operation_duration_seconds", labels, seconds)
        if stream and attempt.first_token is not None:
            first = attempt.first_token - attempt.started
            self._observe("gen_ai_client_operation_time_to_first_chunk_seconds", labels, first)
        usage = attempt.usage
        if usage is not None and self._cost is not None:
            cost = self._cost(attempt)
            name = "keyturn_unpriced_attempts_total" if cost is None else "keyturn_cost_usd_total"
            self._add(name, (provider, model), 1 if cost is None else cost / NANO)
        if usage is None or not usage.exact:
            return seconds
        self._observe("gen_ai_client_token_usage", (labels[0], provider, model, "input"), usage.input)
        self._add("keyturn_tokens_total", (provider, model, "input"), usage.input)
        if kind != "embeddings":
            self._observe("gen_ai_client_token_usage", (labels[0], provider, model, "output"), usage.output)
            self._add("keyturn_tokens_total", (provider, model, "output"), usage.output)
        if usage.cached:
            self._add("keyturn_tokens_total", (provider, model, "cached_input"), usage.cached)
        if usage.reasoning:
            self._add("keyturn_tokens_total", (provider, model, "reasoning"), usage.reasoning)
        return seconds

    def _add(self, name: str, labels: Labels, amount: float = 1) -> None:
        self._counters[name][labels] += amount

    def _observe(self, name: str, labels: Labels, value: float) -> None:
        histograms = self._histograms[name]
        histogram = histograms.get(labels)
        if histogram is None:
            histogram = histograms[labels] = Histogram(HISTOGRAMS[name].buckets)
        histogram.counts[bisect_left(histogram.bounds, value)] += 1
        histogram.total += value


def outcome_of(trail: Trail) -> str:
    """What became of a call: ok, client_error, upstream_error, exhausted or cancelled."""
    if trail.status in (0, 499) or (trail.attempts and trail.attempts[-1].meaning == "cancelled"):
        return "cancelled"
    if trail.code in EXHAUSTED:
        return "exhausted"
    if trail.status < 400:
        return "ok" if not trail.code else "upstream_error"
    return "client_error" if trail.status < 500 else "upstream_error"
