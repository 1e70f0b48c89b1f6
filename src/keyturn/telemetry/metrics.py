"""Counts calls, attempts and tokens in plain dictionaries, and gives them Prometheus' format when somebody asks.

A label never holds a key or an address, and a model's name becomes a label only once an upstream has answered to it:
what clients make up is counted as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from keyturn.core import FOREVER, NANO, Attempt, Trail, Usage
from keyturn.dispatch import Alarm, CallEnded, Cooled, Event, LimitLearned, Rotated

from .catalog import COUNTERS, GAUGES, HISTOGRAMS, OPERATION

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

OTHER = "other"
MOST_NAMES = 200
"""Model names that get a label of their own."""

UNFINISHED = "unfinished"
"""What an attempt meant that has no meaning yet."""
EXHAUSTED = frozenset({"capacity", "no_valid_credentials", "draining", "overloaded", "deadline"})

Labels = tuple[str, ...]
Gauges = Callable[[], Iterable[tuple[str, Labels, float]]]
"""Name, label values and value of each gauge, read when somebody asks."""
Costs = Callable[[Attempt], int | None]
"""What an attempt that used something cost, in nano-dollars; None when its price is not known."""


class Count:
    """How often something happened, or how much of it there was."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

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


class CallsAlike(NamedTuple):
    """What calls with the same labels are counted in: looked up once, as most calls are like one before."""

    number: Count
    seconds: Histogram


class AttemptsAlike(NamedTuple):
    """The same for attempts. *labels* are those of the conventions' metrics."""

    number: Count
    seconds: Histogram
    operation: Histogram
    labels: Labels


class TokensAlike(NamedTuple):
    """The same for what attempts used; embeddings have no output."""

    input: Count
    inputs: Histogram
    output: Count | None
    outputs: Histogram | None


class Metrics:
    """All figures of one process. `count` takes events, `page` gives the text for Prometheus."""

    def __init__(self, gauges: Gauges, cost: Costs | None = None) -> None:
        self._gauges = gauges
        self._cost = cost
        self._counters: dict[str, defaultdict[Labels, Count]] = {name: defaultdict(Count) for name in COUNTERS}
        self._histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in HISTOGRAMS}
        self._calls: dict[tuple[str, str, int, str, bool], CallsAlike] = {}
        self._attempts: dict[tuple[str, int, str, str, str], AttemptsAlike] = {}
        self._tokens: dict[tuple[str, str, str], TokensAlike] = {}
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
        self._counters[name][labels].value = value

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
            for labels, count in self._counters[name].items():
                counter.add_metric(labels, count.value)
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
        kind, api = (event.call.kind, event.call.dialect) if event.call is not None else ("", "unread")
        outcome = outcome_of(trail)
        seconds = (trail.ended or trail.started) - trail.started
        labels = (api, self._routes.label(trail.route), trail.status // 100, outcome, trail.stream)
        alike = self._calls.get(labels) or self._calls_alike(*labels)
        alike.number.value += 1
        alike.seconds.observe(seconds)
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
        if before is None:
            return
        if outcome == "ok":
            self._observe("keyturn_gateway_overhead_seconds", (api,), max(0.0, seconds - upstream - trail.waited))
            if kind != "count":
                self._add("keyturn_served_total", (before.provider, str(before.tier), trail.fallback))
        if trail.stream and (trail.code == "upstream_interrupted" or outcome == "cancelled"):
            phase = "mid_stream" if before.first_token is not None else "before_first_byte"
            self._add("keyturn_stream_aborted_total", (before.provider, phase))

    def _calls_alike(self, api: str, route: str, status_class: int, outcome: str, stream: bool) -> CallsAlike:
        """The first call with these labels."""
        alike = self._calls[api, route, status_class, outcome, stream] = CallsAlike(
            self._counters["keyturn_requests_total"][api, route, f"{status_class}xx", outcome],
            self._histogram("keyturn_request_duration_seconds", (api, route, "true" if stream else "false", outcome)),
        )
        return alike

    def _moved(self, before: str, attempt: Attempt, reason: str) -> None:
        self._add("keyturn_failovers_total", (before, attempt.provider, reason, str(attempt.tier)))

    def _count_attempt(self, attempt: Attempt, kind: str, stream: bool) -> float:
        """Returns how many seconds it took."""
        provider, model = attempt.provider, self._models.label(attempt.model)
        labels = (provider, attempt.tier, model, attempt.meaning, kind)
        alike = self._attempts.get(labels) or self._attempts_alike(*labels)
        seconds = (attempt.ended or attempt.started) - attempt.started
        alike.number.value += 1
        alike.seconds.observe(seconds)
        alike.operation.observe(seconds)
        if stream and attempt.first_token is not None:
            first = attempt.first_token - attempt.started
            self._observe("gen_ai_client_operation_time_to_first_chunk_seconds", alike.labels, first)
        usage = attempt.usage
        if usage is None:
            return seconds
        if self._cost is not None:
            cost = self._cost(attempt)
            name = "keyturn_unpriced_attempts_total" if cost is None else "keyturn_cost_usd_total"
            self._add(name, (provider, model), 1 if cost is None else cost / NANO)
        if usage.exact:
            self._count_tokens(usage, provider, model, kind)
        return seconds

    def _attempts_alike(self, provider: str, tier: int, model: str, meaning: str, kind: str) -> AttemptsAlike:
        """The first attempt with these labels."""
        shown = str(tier)
        labels = (OPERATION.get(kind, kind), provider, model, "" if meaning == "ok" else meaning or UNFINISHED)
        counter = self._counters["keyturn_upstream_attempts_total"]
        alike = self._attempts[provider, tier, model, meaning, kind] = AttemptsAlike(
            counter[provider, shown, model, meaning or UNFINISHED],
            self._histogram("keyturn_attempt_duration_seconds", (provider, shown)),
            self._histogram("gen_ai_client_operation_duration_seconds", labels),
            labels,
        )
        return alike

    def _count_tokens(self, usage: Usage, provider: str, model: str, kind: str) -> None:
        alike = self._tokens.get((provider, model, kind)) or self._tokens_alike(provider, model, kind)
        alike.input.value += usage.input
        alike.inputs.observe(usage.input)
        if alike.output is not None and alike.outputs is not None:
            alike.output.value += usage.output
            alike.outputs.observe(usage.output)
        if usage.cached:
            self._add("keyturn_tokens_total", (provider, model, "cached_input"), usage.cached)
        if usage.reasoning:
            self._add("keyturn_tokens_total", (provider, model, "reasoning"), usage.reasoning)

    def _tokens_alike(self, provider: str, model: str, kind: str) -> TokensAlike:
        """The first that used tokens."""
        operation, total = OPERATION.get(kind, kind), self._counters["keyturn_tokens_total"]
        name, speaks = "gen_ai_client_token_usage", kind != "embeddings"
        alike = self._tokens[provider, model, kind] = TokensAlike(
            total[provider, model, "input"],
            self._histogram(name, (operation, provider, model, "input")),
            total[provider, model, "output"] if speaks else None,
            self._histogram(name, (operation, provider, model, "output")) if speaks else None,
        )
        return alike

    def _add(self, name: str, labels: Labels, amount: float = 1) -> None:
        self._counters[name][labels].value += amount

    def _observe(self, name: str, labels: Labels, value: float) -> None:
        self._histogram(name, labels).observe(value)

    def _histogram(self, name: str, labels: Labels) -> Histogram:
        histograms = self._histograms[name]
        histogram = histograms.get(labels)
        if histogram is None:
            histogram = histograms[labels] = Histogram(HISTOGRAMS[name].buckets)
        return histogram


def outcome_of(trail: Trail) -> str:
    """What became of a call: ok, client_error, upstream_error, exhausted or cancelled."""
    if trail.status in (0, 499) or (trail.attempts and trail.attempts[-1].meaning == "cancelled"):
        return "cancelled"
    if trail.code in EXHAUSTED:
        return "exhausted"
    if trail.status < 400:
        return "ok" if not trail.code else "upstream_error"
    return "client_error" if trail.status < 500 else "upstream_error"
