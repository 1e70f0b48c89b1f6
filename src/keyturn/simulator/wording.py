"""The numbers and names that a provider's error text and headers state."""

from __future__ import annotations

import hashlib
import math

from .personas import go_duration
from .quotas import Refusal

DEFAULT_WAIT = 20.0
DEFAULT_DAY_WAIT = 3 * 3600.0
INVENTED_LIMIT = 30
"""What a scripted rate limit claims the limit to be."""

_ABBREVIATIONS = {
    ("requests", "second"): "RPS",
    ("requests", "minute"): "RPM",
    ("tokens", "minute"): "TPM",
    ("requests", "day"): "RPD",
    ("tokens", "day"): "TPD",
}
_GEMINI_QUOTAS = {
    ("requests", "minute"): (
        "generate_content_free_tier_requests",
        "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
    ),
    ("tokens", "minute"): (
        "generate_content_free_tier_input_token_count",
        "GenerateContentInputTokensPerModelPerMinute-FreeTier",
    ),
    ("requests", "day"): (
        "generate_content_free_tier_requests",
        "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
    ),
    ("tokens", "day"): (
        "generate_content_free_tier_input_token_count",
        "GenerateContentInputTokensPerModelPerDay-FreeTier",
    ),
}


def case_of(refusal: Refusal) -> str:
    """The error case that a limiter's refusal is answered with."""
    if math.isinf(refusal.wait):
        return "too_large"
    return "daily_quota" if refusal.window == "day" else "rate_limited"


def invented(case: str, wait: float | None) -> Refusal:
    """The refusal that a scripted error pretends to."""
    if case == "daily_quota":
        return Refusal("requests", "day", INVENTED_LIMIT, INVENTED_LIMIT, 1, DEFAULT_DAY_WAIT if wait is None else wait)
    return Refusal("requests", "minute", INVENTED_LIMIT, INVENTED_LIMIT, 1, DEFAULT_WAIT if wait is None else wait)


def names(refusal: Refusal, now: float) -> dict[str, object]:
    """What a refusal contributes to a text; *now* is Unix seconds."""
    wait = 60.0 if math.isinf(refusal.wait) else refusal.wait
    meter = (refusal.metric, refusal.window)
    quota_metric, quota_id = _GEMINI_QUOTAS.get(meter, _GEMINI_QUOTAS["requests", "minute"])
    # Gemini states some seconds even when the day is spent (observed 2026); so does its persona.
    hint = 5 + wait % 50 if refusal.window == "day" else wait
    return {
        "limit": refusal.limit,
        "used": refusal.used,
        "requested": refusal.requested,
        "wait_go": go_duration(wait),
        "wait_s": max(1, math.ceil(wait)),
        "wait_ms": math.ceil(wait * 1000),
        "hint": f"{hint:.6f}".rstrip("0").rstrip("."),
        "reset_ms": math.ceil((now + wait) * 1000),
        "metric": refusal.metric,
        "per": refusal.window,
        "per_short": {"minute": "min"}.get(refusal.window, refusal.window),
        "abbreviation": _ABBREVIATIONS.get(meter, "concurrent requests"),
        "quota_metric": quota_metric,
        "quota_id": quota_id,
    }


def masked(key: str) -> str:
    """As providers quote a key back: a few characters at either end."""
    return f"{key[:4]}{'*' * 8}{key[-4:]}" if len(key) >= 16 else "*" * len(key)


def organisation(owner: str) -> str:
    """An invented account id, the same for all keys of one project."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]
