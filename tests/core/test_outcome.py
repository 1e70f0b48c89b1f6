"""classify: meanings, scopes, waits and flags, over answers of many providers in many wordings.

`upstream_answers.jsonl` holds a line per answer: what came, and what it means. All are judged at NOW.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import GENERIC, Facts, Meaning, Outcome, Rules, Scope, classify
from keyturn.core.outcome import seconds_to_reset
from keyturn.providers import known

NOW = 1795252674.0  # 2026-11-21 09:17:54 UTC
ANSWERS = [json.loads(line) for line in Path(__file__).with_name("upstream_answers.jsonl").read_text().splitlines()]


def judge(
    provider: str,
    status: int | None,
    body: Any = "",
    headers: dict[str, str] | None = None,
    *,
    stream: bool = False,
    fault: str | None = None,
    now: float = NOW,
) -> Outcome:
    row = known(provider)
    text = body if isinstance(body, str) else json.dumps(body)
    rules = row.rules if row is not None else GENERIC
    return classify(Facts(status, headers or {}, text.encode(), now, stream, fault, rules))


def label(answer: dict[str, Any]) -> str:
    return f"{answer['provider']}-{answer['status']}-{answer['meaning']}"


@pytest.mark.parametrize("answer", ANSWERS, ids=label)
def test_an_answer_means_what_it_says(answer: dict[str, Any]) -> None:
    outcome = judge(
        answer["provider"],
        answer["status"],
        answer["body"],
        answer.get("headers"),
        stream=answer.get("stream", False),
    )
    assert (outcome.meaning, outcome.scope) == (answer["meaning"], answer["scope"]), outcome.message
    assert outcome.wait_s == (None if answer["wait_s"] is None else pytest.approx(answer["wait_s"], abs=1e-3))


FLAGS: dict[Meaning, tuple[bool, bool, bool]] = {
    "rate_limited": (False, True, True),
    "daily_quota": (False, True, True),
    "insufficient_credit": (False, True, True),
    "invalid_key": (False, True, True),
    "forbidden": (False, True, True),
    "unknown": (False, True, True),
    "overloaded": (False, False, True),
    "not_found": (False, False, True),
    "context_length": (False, False, True),
    "bad_request": (False, False, False),
    "content_filter": (False, False, False),
    "ok": (False, False, False),
}


@pytest.mark.parametrize("answer", ANSWERS, ids=label)
def test_flags_follow_from_meaning_scope_and_status(answer: dict[str, Any]) -> None:
    outcome = judge(
        answer["provider"],
        answer["status"],
        answer["body"],
        answer.get("headers"),
        stream=answer.get("stream", False),
    )
    flags = (outcome.retry_same, outcome.try_other_key, outcome.try_other_provider)
    meaning: Meaning = answer["meaning"]
    scope: Scope = answer["scope"]
    if meaning == "server_error":
        assert flags == (answer["status"] == 500, True, True)
    elif meaning == "timeout":
        assert flags == (answer["status"] in (408, 425), True, True)
    elif scope == "provider" or (scope == "request" and meaning in ("rate_limited", "insufficient_credit")):
        assert flags == (False, False, True)
    else:
        assert flags == FLAGS[meaning]


ENVELOPES = (
    {"error": {"message": "Rate limit exceeded", "type": "rate_limit_error"}},
    {"type": "error", "error": {"type": "rate_limit_error", "message": "Rate limit exceeded"}},
    [{"error": {"code": 429, "message": "Rate limit exceeded", "status": "RESOURCE_EXHAUSTED"}}],
    {"message": "Rate limit exceeded", "type": "too_many_requests_error", "code": "request_quota_exceeded"},
    {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
    {"detail": "Rate limit exceeded"},
    {"id": "0", "message": "Rate limit exceeded"},
    {"code": "resource-exhausted", "error": "Rate limit exceeded"},
    {"status": 429, "title": "Too Many Requests", "detail": "Rate limit exceeded"},
    {"error": "Rate limit exceeded"},
    {"object": "error", "message": {"detail": [{"msg": "Rate limit exceeded"}]}, "code": 429},
    {"errors": [{"code": 10000, "message": "Rate limit exceeded"}], "success": False},
    "Rate limit exceeded",
)


@pytest.mark.parametrize("envelope", ENVELOPES, ids=range(len(ENVELOPES)))
def test_every_envelope_is_read(envelope: Any) -> None:
    outcome = judge("some_server", 429, envelope)
    assert outcome.meaning == "rate_limited"
    assert "Rate limit exceeded" in outcome.message or outcome.message == "Too Many Requests"


@pytest.mark.parametrize("envelope", ENVELOPES[:11], ids=range(11))
@pytest.mark.parametrize(
    "frame", ["event: error\ndata: {}\n\n", "event: error\r\ndata: {}\r\n\r\n", ": hi\n\ndata: {}"]
)
def test_an_error_after_200_is_judged_by_what_it_says(envelope: Any, frame: str) -> None:
    text = frame.replace("{}", json.dumps(envelope))
    if "event: error" in frame or (isinstance(envelope, dict) and ("error" in envelope or "object" in envelope)):
        assert judge("some_server", 200, text, stream=True).meaning == "rate_limited"


@pytest.mark.parametrize(
    ("provider", "body", "explicit"),
    [
        ("openai", {"error": {"message": "Incorrect API key provided: sk-x", "code": "invalid_api_key"}}, True),
        ("anthropic", {"type": "error", "error": {"type": "authentication_error", "message": "no"}}, True),
        ("anthropic", {"error": {"message": "invalid x-api-key"}}, True),
        ("cerebras", {"message": "Wrong API Key", "code": "wrong_api_key"}, True),
        ("mistral", {"detail": "Invalid API Key"}, True),
        ("azure", {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}, True),
        ("g4f", {"error": {"message": "Invalid G4F API key"}}, True),
        ("mistral", {"message": "Unauthorized", "request_id": "x"}, False),
        ("openrouter", {"error": {"message": "Missing Authentication header", "code": 401}}, False),
        ("perplexity", "<html><h1>401 Authorization Required</h1></html>", False),
        ("openai", "", False),
    ],
)
def test_a_401_is_explicit_only_when_it_says_why(provider: str, body: Any, explicit: bool) -> None:
    outcome = judge(provider, 401, body)
    assert (outcome.meaning, outcome.explicit) == ("invalid_key", explicit)


def test_a_bad_key_of_gemini_is_a_400() -> None:
    body = {
        "error": {"code": 400, "message": "x", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}
    }
    assert judge("gemini", 400, [body]).explicit


@pytest.mark.parametrize(
    "text",
    [
        "* Quota exceeded for metric: generate_content_free_tier_requests, limit: 0, model: gemini-2.5-pro",
        "Rate limit reached for gpt-4 on requests per min. Limit: 0 / min. Please try again in 20s.",
        "Requests per Minute (actual/limit): 0/0",
    ],
)
def test_a_limit_of_nothing_is_no_limit_but_a_refusal(text: str) -> None:
    outcome = judge("some_server", 429, {"error": {"message": text}}, {"retry-after": "20"})
    assert (outcome.meaning, outcome.scope, outcome.no_quota, outcome.wait_s) == ("forbidden", "model", True, None)


@pytest.mark.parametrize(
    "text", ["limit: 10", "Limit 0.5, Used 1", "rate limit of 5 per 0s exceeded", "limits 0 things"]
)
def test_other_noughts_are_not_a_limit_of_nothing(text: str) -> None:
    assert not judge("some_server", 429, {"error": {"message": text}}).no_quota


class TestWaiting:
    """What the provider itself states, in the order: body, Retry-After, reset of the limit that was hit."""

    def test_the_body_comes_before_the_header(self) -> None:
        body = {"error": {"message": "Rate limit reached on tokens per min (TPM). Please try again in 1.4s."}}
        assert judge("openai", 429, body, {"retry-after": "2"}).wait_s == pytest.approx(1.4)

    def test_the_longest_of_several_in_the_body(self) -> None:
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"}]
        body = {"error": {"code": 429, "message": "Please retry in 48.939935699s.", "details": details}}
        assert judge("gemini", 429, body).wait_s == pytest.approx(48.939935699)

    def test_milliseconds_are_exact(self) -> None:
        assert judge("openai", 429, "", {"Retry-After-Ms": "1423", "Retry-After": "2"}).wait_s == pytest.approx(1.423)

    def test_zero_milliseconds_beside_a_second(self) -> None:
        outcome = judge("azure", 429, "", {"retry-after": "1", "retry-after-ms": "0"})
        assert outcome.wait_s == 1.0
        assert outcome.limits == {"retry_after_s": 1.0}

    def test_an_http_date_is_measured_against_now(self) -> None:
        headers = {"retry-after": "Tue, 04 Mar 2025 23:50:46 GMT"}
        assert judge("openai", 429, "", headers, now=1741132216.0).wait_s == 30.0
        assert judge("openai", 429, "", headers, now=1741132300.0).wait_s is None

    @pytest.mark.parametrize("status", [200, 201, 400, 404, 500, 502, 504])
    def test_retry_after_counts_on_refusals_only(self, status: int) -> None:
        outcome = judge("anthropic", status, {"error": {"message": "x"}} if status > 299 else {}, {"retry-after": "5"})
        assert outcome.wait_s is None
        assert "retry_after_s" not in outcome.limits

    @pytest.mark.parametrize("status", [408, 429, 498, 503, 529])
    def test_retry_after_on_a_refusal(self, status: int) -> None:
        assert judge("some_server", status, "", {"retry-after": "5"}).wait_s == 5.0

    @pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "1e9", "99999999", "soon", "", "١٢"])
    def test_what_cannot_be_meant_is_not_believed(self, value: str) -> None:
        outcome = judge("some_server", 429, "", {"retry-after": value})
        assert (outcome.meaning, outcome.wait_s) == ("rate_limited", None)

    def test_a_minutes_limit_does_not_ask_for_an_hour(self) -> None:
        body = {"error": {"message": "limit of 30 requests per minute reached"}}
        assert judge("some_server", 429, body, {"retry-after": "3600"}).wait_s is None
        assert judge("some_server", 429, body, {"retry-after": "59"}).wait_s == 59.0

    def test_a_limit_of_unknown_window_that_asks_for_long_is_a_long_quota(self) -> None:
        outcome = judge("some_server", 429, "Too Many Requests", {"retry-after": "7200"})
        assert (outcome.meaning, outcome.wait_s) == ("daily_quota", 7200.0)

    def test_the_reset_of_the_limit_that_is_used_up(self) -> None:
        headers = {
            "x-ratelimit-remaining-requests": "5",
            "x-ratelimit-reset-requests": "50s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "7.66s",
        }
        assert judge("openai", 429, "", headers).wait_s == pytest.approx(7.66)

    def test_the_reset_of_the_limit_that_the_text_names(self) -> None:
        body = {"message": "Tokens per day limit exceeded - too many tokens processed.", "code": "token_quota_exceeded"}
        headers = {"x-ratelimit-reset-tokens-day": "33011.5", "x-ratelimit-reset-tokens-minute": "3"}
        assert judge("cerebras", 429, body, headers).wait_s == 33011.5

    def test_an_epoch_in_the_past_says_nothing(self) -> None:
        body = {"error": {"message": "Rate limit exceeded: free-models-per-day.", "code": 429}}
        headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1788825600000"}
        assert judge("openrouter", 429, body, headers).wait_s is None
        assert judge("openrouter", 429, body, headers, now=1788825000.0).wait_s == 600.0

    @pytest.mark.parametrize(
        ("now", "left"),
        [
            (1795252674.0, 22 * 3600 + 42 * 60 + 6),  # 01:17:54 in Los Angeles
            (1793516400.0, 25 * 3600),  # 2026-11-01, the day that has 25 hours there
        ],
    )
    def test_a_day_quota_of_gemini_ends_at_midnight_pacific(self, now: float, left: float) -> None:
        details = [
            {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "500"}]},
            {"retryDelay": "38s"},
        ]
        body = {
            "error": {
                "code": 429,
                "message": "Please retry in 38.4s.",
                "status": "RESOURCE_EXHAUSTED",
                "details": details,
            }
        }
        outcome = judge("gemini", 429, body, now=now)
        assert (outcome.meaning, outcome.wait_s) == ("daily_quota", left)

    def test_the_reset_of_a_day_is_known_for_some(self) -> None:
        gemini = known("gemini")
        groq = known("groq")
        assert gemini is not None
        assert groq is not None
        assert seconds_to_reset(gemini.rules, NOW) == 22 * 3600 + 42 * 60 + 6
        assert seconds_to_reset(groq.rules, NOW) is None
        assert seconds_to_reset(Rules(day_zone="Nowhere/At_All"), NOW) is None


class TestFaults:
    @pytest.mark.parametrize("fault", ["connect_timeout", "timeout", "first_token", "silence", "no_content"])
    def test_a_timeout(self, fault: str) -> None:
        outcome = judge("openai", None, fault=fault)
        assert (outcome.meaning, outcome.retry_same, outcome.try_other_key) == ("timeout", False, True)

    @pytest.mark.parametrize(
        "fault",
        ["dns", "refused", "unreachable", "tls", "stale", "reset", "closed", "protocol", "too_large", "garbage", "cut"],
    )
    def test_any_other_fault(self, fault: str) -> None:
        outcome = judge("openai", 200 if fault in ("garbage", "cut") else None, fault=fault)
        assert (outcome.meaning, outcome.scope, outcome.retry_same) == ("server_error", "provider", False)
        assert outcome.code == fault

    def test_a_refusal_whose_body_broke_off_is_still_a_refusal(self) -> None:
        assert judge("openai", 429, '{"error": {"mess', fault="closed").meaning == "rate_limited"


class TestWords:
    def test_the_upstreams_words_are_one_short_line(self) -> None:
        outcome = judge("openai", 400, {"error": {"message": "line\r\nbreak\x00\x1b[31m " + "x" * 1000}})
        assert outcome.message.startswith("line break")
        assert len(outcome.message) == 300
        assert outcome.message.isprintable()

    def test_code_and_status_are_kept(self) -> None:
        outcome = judge(
            "openai", 404, {"error": {"message": "x", "type": "invalid_request_error", "code": "model_not_found"}}
        )
        assert (outcome.status, outcome.code) == (404, "model_not_found")

    def test_the_status_of_an_error_after_200_is_the_one_it_states(self) -> None:
        assert judge("openrouter", 200, {"error": {"code": 502, "message": "Provider returned error"}}).status == 502
        assert judge("openai", None, {"error": {"type": "invalid_request_error", "message": "x"}}).status == 400

    def test_words_of_the_prompt_do_not_count(self) -> None:
        body = {
            "detail": [
                {"type": "missing", "loc": ["body"], "msg": "Field required", "input": "rate limit, invalid api key"}
            ]
        }
        assert judge("mistral", 422, body).meaning == "bad_request"

    def test_links_do_not_count(self) -> None:
        body = {"error": {"message": "Rate limit reached, see https://x.test/billing-limit/spend-limit"}}
        assert judge("openai", 429, body).meaning == "rate_limited"


def test_as_json_is_the_documented_form() -> None:
    outcome = judge("groq", 429, "", {"retry-after": "3", "x-ratelimit-limit-requests": "14400"})
    assert outcome.as_json() == {
        "meaning": "rate_limited",
        "scope": "quota_group",
        "wait_s": 3.0,
        "retry_same": False,
        "try_other_key": True,
        "try_other_provider": True,
        "limits": {
            "requests": {"limit": 14400, "remaining": None, "reset_s": None, "window": "day"},
            "retry_after_s": 3.0,
        },
    }


def test_a_long_answer_is_judged_by_its_beginning_a_long_stream_by_its_end() -> None:
    padding = " " * 200_000
    assert judge("openai", 200, '{"choices": [' + padding + "]}").meaning == "ok"
    assert judge("openai", 400, '{"error": {"message": "prompt is too long"' + padding).meaning == "context_length"
    stream = 'data: {"choices":[]}\n\n' * 10_000 + 'data: {"error": {"type": "overloaded_error", "message": "x"}}\n\n'
    assert judge("openai", 200, stream, stream=True).meaning == "overloaded"


def test_a_rule_of_a_provider_wins() -> None:
    rules = Rules(
        codes={"E7": "not_found", "e7": "not_found"}, texts={"blue moon": "overloaded"}, statuses={499: "bad_request"}
    )
    assert classify(Facts(400, {}, b'{"error":{"code":"E7"}}', NOW, rules=rules)).meaning == "not_found"
    assert classify(Facts(400, {}, b'{"error":"Once in a Blue Moon"}', NOW, rules=rules)).meaning == "overloaded"
    assert classify(Facts(499, {}, b"", NOW, rules=rules)).meaning == "bad_request"


GROQ = (
    "Rate limit reached for model `m` in organization `org_1` service tier `on_demand` on {what}: Limit {limit}, "
    "Used 15, Requested 1. Please try again in 2s. Need more tokens? Upgrade at https://console.groq.com/settings/billing"
)


@pytest.mark.parametrize(
    ("what", "limit", "stated"),
    [
        ("requests per minute (RPM)", "15", ("requests", "minute", 15)),
        ("tokens per min (TPM)", "6000", ("tokens", "minute", 6000)),
        ("requests per day (RPD)", "500", ("requests", "day", 500)),
        ("requests per minute (RPM)", "0", None),
        ("requests per minute (RPM)", "unknown", None),
        ("images per minute", "5", None),
    ],
)
def test_a_refusal_may_name_its_limit(what: str, limit: str, stated: tuple[str, str, int] | None) -> None:
    body = {"error": {"message": GROQ.format(what=what, limit=limit), "code": "rate_limit_exceeded"}}
    assert judge("groq", 429, body).stated == stated


def violation(quota: str, value: str, metric: str = "requests") -> dict[str, str]:
    name = f"generativelanguage.googleapis.com/generate_content_free_tier_{metric}"
    return {"quotaMetric": name, "quotaId": quota, "quotaValue": value}


@pytest.mark.parametrize(
    ("violations", "stated"),
    [
        ([violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10")], ("requests", "minute", 10)),
        ([violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "250")], ("requests", "day", 250)),
        (
            [violation("GenerateContentInputTokensPerModelPerMinute-FreeTier", "250000", "input_token_count")],
            ("tokens", "minute", 250_000),
        ),
        ([violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "0")], None),
        (
            [
                violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10"),
                violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "250"),
            ],
            None,
        ),
    ],
)
def test_a_quota_that_was_hit_may_say_how_large_it_is(
    violations: list[dict[str, str]], stated: tuple[str, str, int] | None
) -> None:
    error = {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}]
    assert judge("gemini", 429, {"error": {**error, "details": details}}).stated == stated
