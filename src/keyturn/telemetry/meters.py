"""The figures of calls as OpenTelemetry metrics, with the names and buckets of its GenAI and HTTP conventions."""

from __future__ import annotations

from opentelemetry.metrics import Meter

from keyturn.core import Attempt, Trail
from keyturn.dispatch import CallEnded

from .catalog import OPERATION, SECONDS, TOKENS
from .metrics import Names
from .naming import provider_name

HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
Attributes = dict[str, str | int]


class Meters:
    """Records calls. Used from one thread. A model's name becomes an attribute once an upstream has answered to it."""

    def __init__(self, meter: Meter) -> None:
        self._models = Names()
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "Time of one upstream attempt.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "From the start of a streamed upstream attempt to its first content.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of one upstream attempt.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self._requests = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Time of one request for a model.",
            explicit_bucket_boundaries_advisory=HTTP_SECONDS,
        )

    def call(self, event: CallEnded, server: Attributes) -> None:
        """A call ended; *server* holds what is known of how it came in, nothing for one of the library."""
        trail = event.trail
        for attempt in trail.attempts:
            if attempt.meaning == "ok":
                self._models.admit(attempt.model)
        if server:
            self._requests.record((trail.ended or trail.started) - trail.started, {**server, **failed(trail)})

    def attempt(self, attempt: Attempt, kind: str, stream: bool, address: Attributes) -> None:
        """An attempt of such a call; *address* says where it was sent."""
        labels: Attributes = {
            "gen_ai.operation.name": OPERATION.get(kind, kind),
            "gen_ai.provider.name": provider_name(attempt.provider),
            "gen_ai.request.model": self._models.label(attempt.model),
            **address,
        }
        outcome: Attributes = {} if attempt.meaning == "ok" else {"error.type": attempt.meaning or "_OTHER"}
        self._duration.record((attempt.ended or attempt.started) - attempt.started, {**labels, **outcome})
        if stream and attempt.first_token is not None:
            self._first.record(attempt.first_token - attempt.started, {**labels, **outcome})
        usage = attempt.usage
        if usage is not None and usage.exact:
            self._tokens.record(usage.input, {**labels, "gen_ai.token.type": "input"})
            if kind != "embeddings":
                self._tokens.record(usage.output, {**labels, "gen_ai.token.type": "output"})


def failed(trail: Trail) -> Attributes:
    """`error.type` of a call that the server, not its client, is to blame for; else nothing."""
    if trail.status >= 500 or (trail.code and trail.status == 200):
        return {"error.type": trail.code or str(trail.status)}
    return {}
