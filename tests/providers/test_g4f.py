"""Which of G4F's endpoints a model is asked at, and what their answers mean: pure decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    PROFILES,
    Candidate,
    Credential,
    Deployment,
    Facts,
    Marks,
    Outcome,
    Report,
    classify,
    judge,
    scopes_of,
)
from keyturn.providers import CATALOG, ENDPOINTS, address_of, endpoint_of, prepare_models, read_models
from keyturn.providers.g4f import WORDS

ALL = {name: f"https://g4f.test/{name}" for name in ENDPOINTS}
RULES = CATALOG["g4f"].rules
PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Error 503</body></html>"


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [
        ("gpt-4o", "main"),
        ("llama-3.3-70b", "main"),  # not groq: only the words of the name count
        ("grok-3", "grok"),
        ("x-ai/Grok-4", "grok"),
        ("groq/compound", "groq"),
        ("GROQ/llama-3.3-70b", "groq"),
        ("gemini-2.5-flash", "gemini"),
        ("google/Gemini-2.5-pro", "gemini"),
        ("nvidia/llama-3.1", "nvidia"),
        ("llama-3.1-Nemotron-70b", "nvidia"),
        ("gro-q", "main"),
        ("", "main"),
    ],
)
def test_RTE_13_g4f_routing_by_a_word_of_the_model(model: str, endpoint: str) -> None:
    assert endpoint_of(ALL, model) == endpoint
    without = {name: url for name, url in ALL.items() if name != endpoint or name == "main"}
    assert endpoint_of(without, model) == "main"


@pytest.mark.parametrize(
    ("there", "model", "endpoint"),
    [
        (("groq",), "gpt-4o", "groq"),
        (("nvidia", "grok"), "gpt-4o", "grok"),  # main, groq, grok, gemini, nvidia: whatever order they were set in
        (("gemini", "grok"), "groq/llama", "grok"),
        (("groq", "nvidia"), "nvidia/groq", "groq"),
        (("main", "gemini"), "gemini-on-groq", "gemini"),
    ],
)
def test_RTE_13_g4f_routing_when_not_all_are_set(there: tuple[str, ...], model: str, endpoint: str) -> None:
    assert endpoint_of({name: ALL[name] for name in there}, model) == endpoint


@given(st.sets(st.sampled_from(ENDPOINTS), min_size=1), st.text(max_size=40))
def test_RTE_13_g4f_routing_always_finds_one_that_is_set(there: set[str], model: str) -> None:
    found = endpoint_of({name: ALL[name] for name in there}, model)
    assert found in there
    named = [endpoint for word, endpoint in WORDS if word in model.lower()]
    assert found in named or found == next(each for each in ENDPOINTS if each in there)


def test_the_catalog_names_no_host() -> None:
    row = CATALOG["g4f"]
    assert (row.base_url, row.endpoints, row.tier, row.keyless) == ("", {}, 5, True)
    assert address_of(CATALOG["groq"], "grok-3") == CATALOG["groq"].base_url


def test_each_endpoint_lists_what_is_asked_there() -> None:
    row = replace(CATALOG["g4f"], endpoints={name: ALL[name] for name in ("main", "groq")})
    request = prepare_models(row, Credential.of("g4f", ""), "groq")
    assert request.url == "https://g4f.test/groq/models"  # type: ignore[union-attr]
    body = b'{"data": [{"id": "llama-3.3-70b"}, {"id": "groq/compound"}, {"id": "Groq", "provider": true}]}'
    assert read_models(row, body, "groq") == ["groq/compound"]
    assert read_models(row, body, "main") == ["llama-3.3-70b"]


def judged(status: int | None, body: bytes, *, stream: bool = False, fault: str | None = None) -> Outcome:
    return classify(Facts(status, {}, body, 0.0, stream=stream, fault=fault, rules=RULES))


@pytest.mark.parametrize(
    ("status", "body", "meaning", "scope"),
    [
        (200, PAGE, "server_error", "provider"),
        (200, b"\n <html><body>HTTP 403 - status code 429</body></html>", "server_error", "provider"),
        (200, b"Just a moment...", "server_error", "provider"),
        (200, b"error code: 1020", "server_error", "provider"),
        (200, b"Shield: Status: 403", "server_error", "provider"),
        (200, b'{"error": {"message": "Shield: Status: 403"}}', "server_error", "provider"),
        (500, b'{"error": {"message": "Shield: Status: 429 Too Many Requests"}}', "server_error", "provider"),
        (
            500,
            b'{"error": {"message": "CloudflareError: Response 403: Cloudflare detected"}, "provider": "P"}',
            "server_error",
            "provider",
        ),
        (403, PAGE, "forbidden", "provider"),
        (503, PAGE, "overloaded", "provider"),
        (200, b"Rate limit reached, please try again later.", "rate_limited", "key"),
    ],
)
def test_ERR_30_block_pages_are_faults_of_the_way_there(
    status: int | None, body: bytes, meaning: str, scope: str
) -> None:
    outcome = judged(status, body)
    assert (outcome.meaning, outcome.scope) == (meaning, scope)
    assert outcome.try_other_provider


@pytest.mark.parametrize(
    ("body", "meaning"),
    [
        (PAGE, "server_error"),
        (b"Just a moment...", "server_error"),
        (b"Rate limit reached, please try again later.", "rate_limited"),
        (b"Daily limit of 100 requests per day reached: rate limit", "daily_quota"),
    ],
)
def test_ERR_30_garbage_is_read_when_it_is_a_page_or_a_sentence(body: bytes, meaning: str) -> None:
    assert judged(200, body, fault="garbage").meaning == meaning
    assert judged(200, body, stream=True, fault="garbage").meaning == meaning


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"choices": [{"message": {"content": "a rate limit is',  # cut: words of a model
        b'data: {"choices": [{"delta": {"content": "rate limit',
        b": rate limit",
        b"this violates the content policy",  # never the client's mistake
        b"rate limit " * 500,
        b"null",
        b"Hello! How can I help you?",
    ],
)
def test_ERR_30_words_of_a_model_are_no_evidence(body: bytes) -> None:
    outcome = judged(200, body, fault="garbage")
    assert (outcome.meaning, outcome.code) == ("server_error", "garbage")


def test_ERR_30_a_page_tells_its_title() -> None:
    outcome = judged(200, PAGE, fault="garbage")
    assert (outcome.code, outcome.message) == ("page", "Just a moment...")


def test_STR_10_an_error_chunk_in_a_stream_is_read() -> None:
    chunk = (
        b'data: {"error": {"message": "RateLimitError: Response 429: Too Many"}, "provider": "P"}\n\ndata: [DONE]\n\n'
    )
    outcome = judged(200, chunk, stream=True)
    assert (outcome.meaning, outcome.scope) == ("rate_limited", "model")


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("siblings", [1, 4])
@pytest.mark.parametrize(
    ("meaning", "scope", "longest"),
    [
        ("rate_limited", "key", 60),
        ("rate_limited", "model", 60),
        ("daily_quota", "key", 5),
        ("insufficient_credit", "quota_group", 5),
        ("insufficient_credit", "provider", 20),  # its upstream's purse: a fault
        ("invalid_key", "provider", 20),
        ("forbidden", "provider", 60),
        ("overloaded", "provider", 20),
        ("server_error", "provider", 20),
        ("timeout", "request", 20),
        ("unknown", "model", 60),
    ],
)
def test_ERR_31_rests_are_bounded_in_every_profile(
    profile: str, siblings: int, meaning: str, scope: str, longest: float
) -> None:
    marks, now = Marks(), 0.0
    candidate = Candidate(Deployment("g4f", "gpt-4o"), Credential.of("g4f", "a"))
    rests = []
    for wait in (None, 36_000.0) * 5:
        outcome = Outcome(meaning, scope, wait, False, True, True)  # type: ignore[arg-type]
        table, bounds = PROFILES[profile], CATALOG["g4f"].longest_rests
        report = Report(
            candidate, scopes_of(candidate), outcome, now, now, siblings, table=table, longest=bounds, reset_in=40_000.0
        )
        for change in judge(marks, report, lambda: 0.9).transitions:
            marks.apply(change)
            rests.append(change.until - now)
        now += 100.0
    assert max(rests) == pytest.approx(longest)


def test_ERR_31_a_wrong_key_of_its_own_is_no_soft_matter() -> None:
    assert "invalid_key" not in CATALOG["g4f"].longest_rests
    assert {name for name, row in CATALOG.items() if row.longest_rests} == {"g4f"}
