"""Rate-limit headers of many providers, in one shape."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.core import GENERIC, parse_limits
from keyturn.core.rate_headers import window_seconds
from keyturn.providers import known

NOW = 1741132216.0  # Tue, 04 Mar 2025 23:50:16 GMT


def row(limit: int | None, remaining: int | None, reset_s: float | None, window: str = "minute") -> dict[str, Any]:
    return {"limit": limit, "remaining": remaining, "reset_s": reset_s, "window": window}


def limits(provider: str, headers: dict[str, str]) -> dict[str, Any]:
    found = known(provider)
    rules = GENERIC if found is None else found.rules
    whole, bare = parse_limits(headers, rules, NOW), parse_limits(headers, rules, NOW, resets=False)
    assert _capacities(whole) == _capacities(bare)
    return whole


def _capacities(rows: dict[str, Any]) -> dict[str, Any]:
    """What is told of *rows* without their resets."""
    return {
        name: (each["limit"], each["remaining"], each["window"]) if isinstance(each, dict) else each
        for name, each in rows.items()
        if not isinstance(each, dict) or each["limit"] is not None
    }


@pytest.mark.parametrize(
    ("provider", "headers", "expected"),
    [
        ("openai", {}, {}),
        ("openai", {"content-length": "5", "x-ratelimit-limit-requests": "n/a"}, {}),
        (
            "openai",
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-project-tokens": "150000",
                "x-ratelimit-limit-input-images": "20",
                "x-ratelimit-reset-input-images": "6m0s",
            },
            {
                "requests": row(60, 59, 1.0),
                "project_tokens": row(150000, None, None),
                "input_images": row(20, None, 360.0),
            },
        ),
        (
            "anthropic",
            {
                "anthropic-ratelimit-requests-limit": "5",
                "anthropic-ratelimit-requests-remaining": "4",
                "anthropic-ratelimit-requests-reset": "2025-03-04T23:50:13Z",
                "anthropic-ratelimit-input-tokens-limit": "400000",
                "anthropic-ratelimit-unified-5h-reset": "1741140000",
            },
            {"requests": row(5, 4, 0.0), "input_tokens": row(400000, None, None)},
        ),
        (
            "groq",
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-reset-requests": "17.399999999s",
                "x-ratelimit-limit-tokens": "30000",
                "x-ratelimit-reset-tokens": "26ms",
            },
            {"requests": row(14400, None, 17.4, "day"), "tokens": row(30000, None, 0.026)},
        ),
        (
            "mistral",
            {
                "x-ratelimit-limit-req-10-second": "60",
                "x-ratelimit-limit-tokens-minute": "2000000",
                "x-ratelimit-limit-tokens-month": "10000000000",
                "x-ratelimit-tokens-query-cost": "110",
                "x-ratelimit-limit-ocr-pages-minute": "1250",
                "x-ratelimit-ocr-pages-query-cost": "1",
            },
            {
                "requests": row(60, None, None, "10s"),
                "tokens": row(2000000, None, None),
                "tokens_month": row(10000000000, None, None, "month"),
                "ocr_pages_minute": row(1250, None, None),
                "query_cost_tokens": 110,
            },
        ),
        (
            "mistral",
            {
                "ratelimitbysize-limit": "500000",
                "ratelimitbysize-remaining": "499900",
                "ratelimitbysize-reset": "28",
                "x-ratelimitbysize-limit-month": "1000000000",
            },
            {"tokens": row(500000, 499900, 28.0), "tokens_month": row(1000000000, None, None, "month")},
        ),
        (
            "cerebras",
            {
                "x-ratelimit-limit-requests-day": "14400",
                "x-ratelimit-reset-requests-day": "33011.382867",
                "x-ratelimit-limit-tokens-minute": "60000",
            },
            {"requests": row(14400, None, 33011.382867, "day"), "tokens": row(60000, None, None)},
        ),
        (
            "cerebras",
            {
                "x-ratelimit-limit-requests-minute": "5",
                "x-ratelimit-limit-requests-hour": "150",
                "x-ratelimit-limit-requests-day": "2400",
                "x-ratelimit-limit-tokens-day": "1000000",
            },
            {
                "requests": row(5, None, None),
                "requests_hour": row(150, None, None, "hour"),
                "requests_day": row(2400, None, None, "day"),
                "tokens_day": row(1000000, None, None, "day"),
            },
        ),
        (
            "cohere",
            {"x-endpoint-monthly-call-limit": "1000", "x-trial-endpoint-call-limit": "20"},
            {"requests": row(20, None, None), "requests_month": row(1000, None, None, "month")},
        ),
        (
            "together",
            {
                "x-ratelimit-limit": "2",
                "x-ratelimit-remaining": "1",
                "x-ratelimit-reset": "2",
                "x-tokenlimit-limit": "9",
            },
            {"requests": row(2, 1, 2.0, "second"), "tokens": row(9, None, None, "second")},
        ),
        (
            "azure",
            {
                "x-ratelimit-limit-requests": "120",
                "x-ratelimit-reset-requests": "500",
                "x-ratelimit-renewalperiod-requests": "60",
                "x-ratelimit-key": "gpt-5-nano",
                "x-ratelimit-abusepenalty-active": "False",
            },
            {"requests": row(120, None, 0.5)},
        ),
        (
            "fireworks",
            {
                "x-ratelimit-limit-tokens-cache-adjusted-prompt": "15000",
                "x-ratelimit-limit-tokens-generated": "600",
                "x-ratelimit-over-limit": "no",
            },
            {
                "tokens_uncached_prompt": row(15000, None, None, "second"),
                "tokens_generated": row(600, None, None, "second"),
            },
        ),
        (
            "openrouter",
            {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1741219200000"},
            {"requests": {**row(50, 0, None, "day"), "reset_epoch_ms": 1741219200000}},
        ),
        (
            "openrouter",
            {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1741132256000"},
            {"requests": {**row(20, 0, None, "minute"), "reset_epoch_ms": 1741132256000}},
        ),
        (
            "huggingface",
            {"RateLimit": '"api";r=999;t=295', "RateLimit-Policy": '"fixed window";"api";q=1000;w=300'},
            {"requests": row(1000, 999, 295.0, "300s fixed")},
        ),
        (
            "sambanova",
            {"x-ratelimit-remaining-requests": "5", "x-ratelimit-remaining-requests-day": "0"},
            {"requests": row(None, 5, None), "requests_day": row(None, 0, None, "day")},
        ),
        (
            "g4f",
            {
                "X-Ratelimit-Limit-Requests": "250",
                "X-Ratelimit-Remaining-Requests": "-1",
                "X-Ratelimit-Model-Factor": "2",
            },
            {"requests": row(250, 0, None, "day")},
        ),
        (
            "some_server",
            {"X-RateLimit-Limit-Minute": "60", "RateLimit-Remaining": "59", "x-rate-limit-reset": "1741132276"},
            {"requests": row(60, 59, 60.0)},
        ),
        (
            "azure",
            {
                "x-ratelimit-remaining-tokens": "-1",
                "x-ratelimit-limit-tokens": "-1",
                "x-ratelimit-reset-tokens": "0",
                "x-ratelimit-remaining-requests": "79",
            },
            {"requests": row(None, 79, None)},
        ),
        (
            "azure",
            {"x-rate-limit-reset-tokens": "55", "x-ratelimit-remaining-tokens": "0"},
            {"tokens": row(None, 0, 55.0)},
        ),
        (
            "some_server",
            {
                "X-RateLimit-Limit": "100, 100;window=60, 10000;window=86400",
                "X-RateLimit-Remaining": "98",
                "X-RateLimit-Reset-After": "3",
            },
            {"requests": row(100, 98, 3.0)},
        ),
        (
            "some_server",
            {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=3600"},
            {"requests": row(100, 50, 5.0, "hour")},
        ),
        (
            "some_server",
            {
                "RateLimit": '"burst";r=9;t=3, "daily";r=0;t=-1',
                "RateLimit-Policy": '"burst";q=10;w=10, "daily";q=1000;w=86400',
            },
            {"requests": row(10, 9, 3.0, "10s"), "requests_daily": row(1000, 0, 0.0, "day")},
        ),
    ],
)
def test_headers(provider: str, headers: dict[str, str], expected: dict[str, Any]) -> None:
    assert limits(provider, headers) == expected


@pytest.mark.parametrize(
    ("left", "reset", "window"),
    [
        ("900", "8h14m0s", "day"),
        ("999", "1m26.4s", "hour"),
        ("999", "62s", "minute"),
        ("0", "1m26.4s", "minute"),
    ],
)
def test_a_limit_that_takes_longer_to_be_whole_than_a_minute_is_none_per_minute(
    left: str, reset: str, window: str
) -> None:
    """Where no window is named; with nothing left it may be a debt."""
    named = {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": left,
        "x-ratelimit-reset-requests": reset,
    }
    found = limits("some_server", named)["requests"]
    assert (found["window"], found["limit"], found["remaining"]) == (window, 1000, int(left))
    outright = limits("some_server", {f"{name}-minute": value for name, value in named.items()})["requests"]
    assert outright["window"] == "minute", "what a header says outright is believed"


def test_a_window_has_a_length() -> None:
    lengths = [window_seconds(name) for name in ("second", "10s", "minute", "300s fixed", "day", "", "whatever")]
    assert lengths == [1.0, 10.0, 60.0, 300.0, 86400.0, 0.0, 0.0]
