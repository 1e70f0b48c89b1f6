"""Who is being played: how each provider words its errors, states its limits, and shapes its lists and streams."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from . import bodies, native_bodies
from .bodies import Row
from .limiters import Kind, Limiter

Headers = list[tuple[str, str]]

FALLBACKS = {
    "daily_quota": "rate_limited",
    "too_large": "rate_limited",
    "upstream_limited": "rate_limited",
    "shared_capacity": "overloaded",
    "rejected_member": "bad_request",
    "content_filter": "bad_request",
    "key_limit": "insufficient_credit",
    "unknown_parameter": "bad_request",
    "unverified": "bad_request",
    "no_item": "bad_request",
    "no_previous_response": "bad_request",
    "not_offered": "forbidden",
}
"""What a provider says that has no words of its own for a case; what is missing then comes from OpenAI's rows."""

CASES = frozenset(bodies.OPENAI) | frozenset(FALLBACKS)
"""Every case that a key's state or a fault may name."""


class DemoModel(NamedTuple):
    """How a model of the demo behaves: seconds to the first byte, seconds per piece, whether it calls tools at once."""

    latency: float = 0.0
    pace: float = 0.0
    eager_tools: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """One provider as the simulator plays it. *minute*, *day*, *zone* and *charge* say how it counts by default."""

    name: str
    native: Literal["", "anthropic", "gemini"] = ""
    """The format that it speaks beside OpenAI's."""
    errors: Mapping[str, Row] = field(default_factory=lambda: bodies.OPENAI)
    hosts: tuple[str, ...] = ()
    models: tuple[str, ...] = ("simulated-large", "simulated-small", "simulated-embed")
    strict: bool = False
    """Only *models* exist; otherwise every name is served."""
    context: int = 131_072
    rejects: frozenset[str] = frozenset()
    rate_headers: Literal["", "openai", "groq", "together", "mistral", "anthropic"] = ""
    usage: Literal["option", "finish", "x_groq", "repeat"] = "option"
    """Where a stream carries usage: when asked for, in the finish chunk, in `x_groq`, or in a repeated finish chunk."""
    stream_error: Literal["data", "done", "event", "chunk"] = "data"
    """An error inside a stream: as data, the same before [DONE], as an event of its own, in a chunk of the answer."""
    reasoning: str = "reasoning_content"
    listing: Literal["openai", "array", "openrouter", "mistral", "gemini", "groq", "g4f"] = "openai"
    opening: bytes = b""
    id_prefix: str = "chatcmpl-"
    minute: Kind = "rolling"
    day: Kind = "bucket"
    zone: str = "UTC"
    charge: Literal["input", "output", "max_output"] = "output"
    behaviours: tuple[tuple[str, DemoModel], ...] = ()

    def behaviour(self, model: str) -> DemoModel:
        """The pace of *model*: a demo model's own, else immediate."""
        return dict(self.behaviours).get(model, DemoModel())


PERSONAS: dict[str, Persona] = {
    persona.name: persona
    for persona in (
        Persona(
            name="openai",
            hosts=("api.openai.com",),
            models=("gpt-4o", "gpt-4o-mini", "text-embedding-3-small"),
            rate_headers="openai",
            minute="bucket",
        ),
        Persona(
            name="groq",
            errors=bodies.GROQ,
            hosts=("api.groq.com",),
            models=("llama-3.1-8b-instant", "llama-3.3-70b-versatile", "openai/gpt-oss-20b"),
            rejects=frozenset({"logprobs", "logit_bias", "top_logprobs"}),
            rate_headers="groq",
            usage="x_groq",
            stream_error="event",
            reasoning="reasoning",
            listing="groq",
        ),
        Persona(
            name="together",
            errors=bodies.TOGETHER,
            hosts=("api.together.ai", "api.together.xyz"),
            models=("meta-llama/Llama-3.3-70B-Instruct-Turbo", "BAAI/bge-large-en-v1.5"),
            rate_headers="together",
            usage="finish",
            reasoning="reasoning",
            listing="array",
            id_prefix="",
        ),
        Persona(
            name="openrouter",
            errors=bodies.OPENROUTER,
            hosts=("openrouter.ai",),
            models=("deepseek/deepseek-r1-0528:free", "meta-llama/llama-3.3-70b-instruct:free", "openai/gpt-4o"),
            usage="repeat",
            stream_error="chunk",
            reasoning="reasoning",
            listing="openrouter",
            opening=b": OPENROUTER PROCESSING\n\n",
            id_prefix="gen-",
            minute="fixed",
            day="calendar",
        ),
        Persona(
            name="anthropic",
            native="anthropic",
            hosts=("api.anthropic.com",),
            models=("claude-opus-4-6", "claude-sonnet-4-5", "claude-haiku-4-5"),
            context=200_000,
            rate_headers="anthropic",
            id_prefix="msg_",
            minute="bucket",
        ),
        Persona(
            name="gemini",
            native="gemini",
            errors=bodies.GEMINI,
            hosts=("generativelanguage.googleapis.com",),
            models=("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-embedding-001"),
            context=1_048_576,
            rejects=frozenset({"frequency_penalty", "presence_penalty", "seed", "top_k", "logit_bias", "reasoning"}),
            listing="gemini",
            id_prefix="",
            minute="fixed",
            day="calendar",
            zone="America/Los_Angeles",
            charge="input",
        ),
        Persona(
            name="mistral",
            errors=bodies.MISTRAL,
            hosts=("api.mistral.ai", "codestral.mistral.ai"),
            models=("mistral-small-latest", "mistral-large-latest", "mistral-embed"),
            rejects=frozenset({"max_completion_tokens", "seed"}),
            rate_headers="mistral",
            usage="finish",
            listing="mistral",
            id_prefix="",
        ),
        Persona(
            name="deepseek",
            errors=bodies.DEEPSEEK,
            hosts=("api.deepseek.com",),
            models=("deepseek-chat", "deepseek-reasoner"),
            usage="finish",
            id_prefix="",
        ),
        Persona(
            name="g4f",
            errors=bodies.G4F,
            models=("gpt-4o", "gpt-4o-mini", "grok-3", "gemini-2.5-flash", "nemotron-70b", "groq/compound"),
            stream_error="done",
            listing="g4f",
            minute="fixed",
            day="calendar",
        ),
        Persona(
            name="demo",
            hosts=("demo.localhost",),
            models=("echo", "fast", "slow", "tools", "embed"),
            strict=True,
            rate_headers="openai",
            behaviours=(
                ("echo", DemoModel(latency=0.15, pace=0.02)),
                ("slow", DemoModel(latency=1.5, pace=0.15)),
                ("tools", DemoModel(latency=0.15, eager_tools=True)),
            ),
        ),
    )
}


def render(
    persona: Persona,
    case: str,
    names: Mapping[str, object],
    *,
    echo: str = "",
    dialect: str = "",
    status: int | None = None,
) -> tuple[int, Headers, bytes]:
    """Status, headers and body with which *persona* answers *case*; *echo* is a secret that its text then quotes.

    *dialect* is the format of the request, *status* one that replaces the usual one: a format that states it in the
    body too then says the same there.
    """
    row = row_of(persona, case, dialect)
    body = _filled(row.body, names)
    if status is not None and status != row.status:
        body = native_bodies.restated(body, dialect, status)
    if echo:
        body = _with_echo(body, f" (you sent {echo})")
    headers: Headers = [(name.lower(), str(value).format_map(names)) for name, value in row.headers]
    if not any(name == "content-type" for name, _ in headers):
        headers.insert(0, ("content-type", "application/json"))
    payload = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return row.status, headers, payload.encode()


def row_of(persona: Persona, case: str, dialect: str = "") -> Row:
    """The row for *case* in *dialect*, by way of the fallbacks."""
    names = (case, FALLBACKS.get(case, case))
    tables = (native_bodies.ROWS.get(dialect, persona.errors), bodies.OPENAI)
    rows = [errors[name] for errors in tables for name in names if name in errors]
    return rows[0]


def rate_headers(persona: Persona, meters: Mapping[tuple[str, str], Limiter], now: float, cost: int) -> Headers:
    """What *persona* states about its limits on every answer; *cost* is the request's tokens."""
    if persona.rate_headers == "anthropic":
        rows = [("requests", meters.get(("requests", "minute"))), ("tokens", meters.get(("tokens", "minute")))]
        return _anthropic_headers(rows, now)
    if persona.rate_headers == "openai":
        requests = meters.get(("requests", "minute")) or meters.get(("requests", "day"))
        rows = [("requests", requests), ("tokens", meters.get(("tokens", "minute")))]
        return _openai_headers(rows, now)
    if persona.rate_headers == "groq":  # requests are counted by the day there, tokens by the minute
        rows = [("requests", meters.get(("requests", "day"))), ("tokens", meters.get(("tokens", "minute")))]
        return _openai_headers(rows, now)
    if persona.rate_headers == "together":  # a bucket of requests per second
        second = meters.get(("requests", "second"))
        if second is None:
            return []
        return [
            ("x-ratelimit-limit", str(second.capacity)),
            ("x-ratelimit-remaining", str(_remaining(second, now))),
            ("x-ratelimit-reset", str(math.ceil(second.full_in(now)))),
        ]
    if persona.rate_headers == "mistral":  # never says when anything resets
        headers: Headers = []
        for name, meter in (("req", meters.get(("requests", "minute"))), ("tokens", meters.get(("tokens", "minute")))):
            if meter is not None:
                headers.append((f"x-ratelimit-limit-{name}-minute", str(meter.capacity)))
                headers.append((f"x-ratelimit-remaining-{name}-minute", str(_remaining(meter, now))))
        return [*headers, ("x-ratelimit-tokens-query-cost", str(cost))] if headers else []
    return []


def go_duration(seconds: float) -> str:
    """The way Go prints a duration: `26ms`, `1.4s`, `6m0s`, `1h2m3s`."""
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{thousandths:03d}".rstrip("0") if thousandths else ""
    if hours:
        return f"{hours}h{minutes}m{rest}{fraction}s"
    return f"{minutes}m{rest}{fraction}s" if minutes else f"{rest}{fraction}s"


def _remaining(meter: Limiter, now: float) -> int:
    return max(0, math.floor(meter.capacity - meter.used(now) + 1e-6))


def _openai_headers(rows: Sequence[tuple[str, Limiter | None]], now: float) -> Headers:
    limits: Headers = []
    remaining: Headers = []
    resets: Headers = []
    for name, meter in rows:
        if meter is not None:
            limits.append((f"x-ratelimit-limit-{name}", str(meter.capacity)))
            remaining.append((f"x-ratelimit-remaining-{name}", str(_remaining(meter, now))))
            resets.append((f"x-ratelimit-reset-{name}", go_duration(meter.full_in(now))))
    return limits + remaining + resets


def _anthropic_headers(rows: Sequence[tuple[str, Limiter | None]], now: float) -> Headers:
    """Anthropic states the moment at which all is free again, in RFC 3339."""
    headers: Headers = []
    for name, meter in rows:
        if meter is not None:
            reset = datetime.datetime.fromtimestamp(now + meter.full_in(now), datetime.UTC)
            headers += [
                (f"anthropic-ratelimit-{name}-limit", str(meter.capacity)),
                (f"anthropic-ratelimit-{name}-remaining", str(_remaining(meter, now))),
                (f"anthropic-ratelimit-{name}-reset", reset.strftime("%Y-%m-%dT%H:%M:%SZ")),
            ]
    return headers


def _filled(value: Any, names: Mapping[str, object]) -> Any:
    if isinstance(value, str):
        return value.format_map(names)
    if isinstance(value, dict):
        return {key: _filled(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, names) for part in value]
    return value


def _with_echo(value: Any, addition: str) -> Any:
    """*addition* behind the first text named message or detail, wherever the provider's shape has it."""
    if isinstance(value, str):
        return value + addition
    if isinstance(value, list):
        return [_with_echo(value[0], addition), *value[1:]]
    for name in ("message", "detail", "error"):
        if name in value:
            return value | {name: _with_echo(value[name], addition)}
    return value
