"""Any answer whatever gives a class, never an exception."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Facts, classify
from keyturn.providers import CATALOG

MEANINGS = {
    "rate_limited", "daily_quota", "insufficient_credit", "invalid_key", "forbidden", "not_found", "context_length",
    "content_filter", "bad_request", "overloaded", "server_error", "timeout", "ok", "unknown",
}  # fmt: skip
SCOPES = {"key", "quota_group", "model", "provider", "request"}

words = st.sampled_from(
    [
        "rate limit",
        "per day",
        "per min",
        "try again in 7m12s",
        "limit: 0",
        "billing",
        "api key",
        "per 86400s",
        "²",
        "until 2027-01-01",
    ]
) | st.text(max_size=30)
members = st.sampled_from(
    "error message code type status detail details retryDelay quotaId metadata raw headers choices retry_after title "
    "errors response x_groq candidates promptFeedback provider".split(" ")
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner, max_size=4),
    max_leaves=12,
)
texts = documents.map(json.dumps)
frames = st.sampled_from(
    ["{}", "data: {}\n\n", "event: error\ndata: {}\n\n", "{}\n{}\n", "<html>{}", "[{}]", "{} ", "\ufeff{}"]
)
framed = st.builds(lambda frame, text: frame.replace("{}", text), frames, texts)
bodies = st.binary(max_size=200) | framed.map(lambda text: text.encode("utf-8", "surrogatepass"))
names = st.sampled_from(
    "retry-after retry-after-ms date x-ratelimit-reset x-ratelimit-limit-tokens-day RateLimit ratelimit-policy "
    "x-ratelimit-remaining-requests anthropic-ratelimit-tokens-reset x-ratelimit-type "
    "x-ratelimit-limit-req-²-second".split(" ")
)
values = st.sampled_from(["0", "-1", "nan", "1e400", "6m0s", "1788825600000", "9" * 40, '"a";r=1;t=²']) | st.text(
    max_size=20
)
statuses = st.none() | st.integers(100, 599) | st.sampled_from([200, 400, 401, 402, 403, 404, 413, 429, 500, 503, 529])
moments = st.sampled_from([0.0, 1795252674.0, -1e18, 1e18, math.nan, math.inf])


@given(
    status=statuses,
    headers=st.dictionaries(names | st.text(max_size=12), values, max_size=5),
    body=bodies,
    now=moments,
    stream=st.booleans(),
    fault=st.none() | st.sampled_from(["garbage", "timeout", "whatever"]),
    provider=st.sampled_from(sorted(CATALOG)),
)
def test_any_answer_has_a_class(
    status: int | None,
    headers: dict[str, str],
    body: bytes,
    now: float,
    stream: bool,
    fault: str | None,
    provider: str,
) -> None:
    outcome = classify(Facts(status, headers, body, now, stream, fault, CATALOG[provider].rules))
    assert outcome.meaning in MEANINGS
    assert outcome.scope in SCOPES
    assert outcome.wait_s is None or 0 < outcome.wait_s <= 32 * 86400
    assert len(outcome.message) <= 300
    assert outcome.message.isprintable()
    told = outcome.as_json()["limits"]
    assert all(row["reset_s"] is None or row["reset_s"] >= 0 for row in told.values() if isinstance(row, dict))
    json.dumps(outcome.as_json(), allow_nan=False)


@given(depth=st.integers(1, 3000), opening=st.sampled_from(["[", '{"error":']))
def test_depth_does_no_harm(depth: int, opening: str) -> None:
    body = (opening * depth).encode()
    assert classify(Facts(400, {}, body, 0.0)).meaning == "bad_request"
