"""Each persona speaks as its provider does: codes, shapes, headers, lists and streams."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.simulator import PERSONAS, Fault, KeyRule, Simulator
from keyturn.simulator.personas import CASES, go_duration, row_of
from tests.support import asgi, virtual

PROVIDERS = ["openai", "groq", "together", "openrouter", "gemini", "mistral", "deepseek", "demo"]
BASES = {"gemini": "/gemini/v1beta/openai", "openrouter": "/openrouter/api/v1", "groq": "/groq/openai/v1"}


def base(provider: str) -> str:
    return BASES.get(provider, f"/{provider}/v1")


def chat(model: str = "echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello there"}]} | more


def ask(provider: str, *, calls: int = 1, path: str = "/chat/completions", method: str = "POST", **options: Any) -> Any:
    """The last of *calls* replies of a fresh simulator; `body` is the request, the rest are options of Simulator."""
    body = options.pop("body", chat() if method == "POST" else None)

    async def main() -> asgi.Reply:
        simulator = Simulator(virtual.VirtualClock(), virtual.seeded(), **options)
        for _ in range(calls):
            reply = await asgi.call(simulator, method, base(provider) + path, json=body, key="key-0123456789-abcdef")
        return reply

    return virtual.run(main)


def failing(provider: str, case: str, **more: Any) -> asgi.Reply:
    reply: asgi.Reply = ask(provider, faults=[Fault(error=case, **more)])
    return reply


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("case", sorted(CASES))
def test_every_case_is_a_complete_error(provider: str, case: str) -> None:
    reply = failing(provider, case)
    assert reply.status == row_of(PERSONAS[provider], case).status >= 400
    assert len(reply.body) == int(reply.headers["content-length"])
    if reply.headers["content-type"] == "application/json":
        assert isinstance(reply.json(), dict | list)


@pytest.mark.parametrize(
    ("provider", "status", "find"),
    [
        ("openai", 401, lambda body: body["error"]["code"] == "invalid_api_key"),
        ("groq", 401, lambda body: body["error"]["code"] == "invalid_api_key"),
        ("together", 401, lambda body: body["error"]["code"] == "invalid_api_key"),
        ("openrouter", 401, lambda body: body["error"]["code"] == 401),
        ("gemini", 400, lambda body: body[0]["error"]["details"][0]["reason"] == "API_KEY_INVALID"),
        ("mistral", 401, lambda body: body == {"detail": "Invalid API Key"}),
        ("deepseek", 401, lambda body: body["error"]["type"] == "authentication_error"),
    ],
)
def test_a_bad_key(provider: str, status: int, find: Any) -> None:
    reply = ask(provider, keys={provider: {}})
    assert reply.status == status
    assert find(reply.json())
    assert "key-0123456789-abcdef" not in reply.body.decode()


@pytest.mark.parametrize(
    ("provider", "status", "words"),
    [
        ("openai", 429, "insufficient_quota"),
        ("groq", 400, "blocked_api_access"),
        ("together", 402, "credit_limit"),
        ("openrouter", 402, "Insufficient credits"),
        ("gemini", 429, "prepayment credits"),
        ("mistral", 402, "Payment required"),
        ("deepseek", 402, "Insufficient Balance"),
    ],
)
def test_no_credit(provider: str, status: int, words: str) -> None:
    rule = KeyRule(state="insufficient_credit")
    reply = ask(provider, keys={provider: {"key-0123456789-abcdef": rule}})
    assert reply.status == status
    assert words in reply.body.decode()


def limited(provider: str, **rule: Any) -> asgi.Reply:
    """The second call of a key that may make one."""
    reply: asgi.Reply = ask(provider, calls=2, keys={provider: {"key-0123456789-abcdef": KeyRule(**rule)}})
    assert reply.status == 429
    return reply


def test_openai_says_when_a_bucket_has_room_again() -> None:
    reply = limited("openai", rpm=1)
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "on requests per min (RPM): Limit 1, Used 1, Requested 1. Please try again in 1m0s" in error["message"]
    assert reply.headers["retry-after"] == "60"
    assert reply.headers["retry-after-ms"] == "60000"
    assert reply.headers["x-ratelimit-limit-requests"] == "1"
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert reply.headers["x-ratelimit-reset-requests"] == "1m0s"


def test_groq_counts_requests_by_the_day_and_tokens_by_the_minute() -> None:
    day = limited("groq", rpd=1, tpm=1000)
    assert "on requests per day (RPD): Limit 1" in day.json()["error"]["message"]
    assert day.headers["x-ratelimit-limit-requests"] == "1"
    assert day.headers["x-ratelimit-limit-tokens"] == "1000"
    assert int(day.headers["retry-after"]) == 86_400
    tokens = limited("groq", tpm=20)
    assert tokens.json()["error"]["type"] == "tokens"
    assert "on tokens per minute (TPM): Limit 20" in tokens.json()["error"]["message"]


def test_groq_answers_413_to_a_request_above_a_whole_minute() -> None:
    reply = ask("groq", keys={"groq": {"key-0123456789-abcdef": KeyRule(tpm=2)}})
    assert reply.status == 413
    assert "Request too large" in reply.json()["error"]["message"]


def test_gemini_names_the_quota_and_misleads_about_the_day() -> None:
    minute, day = limited("gemini", rpm=1).json()[0]["error"], limited("gemini", rpd=1).json()[0]["error"]
    for error, part in ((minute, "PerMinute"), (day, "PerDay")):
        assert error["status"] == "RESOURCE_EXHAUSTED"
        quota, _, retry = error["details"]
        assert part in quota["violations"][0]["quotaId"]
        assert quota["violations"][0]["quotaValue"] == "1"
        assert float(retry["retryDelay"].rstrip("s")) <= 60
        assert f"Please retry in {retry['retryDelay']}" in error["message"]
    assert "limit: 0, model: echo" in failing("gemini", "not_offered").json()[0]["error"]["message"]


def test_openrouter_states_the_reset_in_unix_milliseconds_at_midnight_utc() -> None:
    reply = limited("openrouter", rpd=1)
    midnight = (virtual.START_WALL // 86_400 + 1) * 86_400 * 1000
    assert int(reply.headers["x-ratelimit-reset"]) == midnight
    error = reply.json()["error"]
    assert error["metadata"]["headers"]["X-RateLimit-Reset"] == str(int(midnight))
    assert "free-models-per-day" in error["message"]
    assert not any(name.startswith("x-ratelimit") for name in ask("openrouter").headers)


def test_together_counts_by_the_second_and_mistral_never_says_when() -> None:
    together = limited("together", rps=1)
    assert together.json()["error"]["type"] == "model_rate_limit"
    assert [together.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == ["1", "0", "1"]
    mistral = limited("mistral", rpm=1)
    assert mistral.json()["code"] == "1300"
    assert mistral.headers["x-ratelimit-remaining-req-minute"] == "0"
    assert not any("reset" in name or name == "retry-after" for name in mistral.headers)


def test_deepseek_limits_what_runs_at_the_same_time() -> None:
    async def main() -> list[int]:
        simulator = Simulator(
            virtual.VirtualClock(), virtual.seeded(), latency=1.0, keys={"deepseek": {"k": KeyRule(concurrency=1)}}
        )
        first = asgi.begin(simulator, "POST", "/deepseek/chat/completions", json=chat(), key="k")
        await virtual.idle()
        second = await asgi.call(simulator, "POST", "/deepseek/chat/completions", json=chat(), key="k")
        await first.start()
        await first.rest()
        third = await asgi.call(simulator, "POST", "/deepseek/chat/completions", json=chat(), key="k")
        return [first.status, second.status, third.status]

    assert virtual.run(main) == [200, 429, 200]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_limits_are_stated_on_success_where_the_provider_does(provider: str) -> None:
    rule = KeyRule(rps=5, rpm=30, tpm=6000, rpd=1000)
    headers = ask(provider, keys={provider: {"key-0123456789-abcdef": rule}}).headers
    stated = sorted(name for name in headers if name.startswith("x-ratelimit-limit"))
    expected = {
        "openai": ["x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"],
        "demo": ["x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"],
        "groq": ["x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"],
        "together": ["x-ratelimit-limit"],
        "mistral": ["x-ratelimit-limit-req-minute", "x-ratelimit-limit-tokens-minute"],
    }
    assert stated == expected.get(provider, [])


@pytest.mark.parametrize(
    ("provider", "member", "status"), [("gemini", "seed", 400), ("mistral", "max_completion_tokens", 422)]
)
def test_members_that_a_provider_does_not_know_are_refused(provider: str, member: str, status: int) -> None:
    reply = ask(provider, body=chat() | {member: 5})
    assert reply.status == status
    assert member in reply.body.decode()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_model_lists_have_the_providers_own_shape(provider: str) -> None:
    listed = ask(provider, path="/models", method="GET").json()
    rows = listed if provider == "together" else listed["data"]
    assert isinstance(listed, list) is (provider == "together")
    assert ("object" in listed) is (provider not in ("together", "openrouter"))
    prefix = "models/" if provider == "gemini" else ""
    assert [row["id"] for row in rows] == [prefix + model for model in PERSONAS[provider].models]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_is_a_stream_in_each_dialect(provider: str) -> None:
    reply = ask(provider, body=chat(stream=True))
    events = reply.events()
    assert reply.text().startswith(f"This is the Keyturn simulator ({provider}/echo): …")
    assert reply.text().endswith("You said: Hello there")
    assert events[-1] == "[DONE]"
    told = [event for event in events[:-1] if event.get("usage") or event.get("x_groq", {}).get("usage")]
    assert len(told) == (0 if provider in ("openai", "gemini", "demo") else 1)
    assert reply.body.startswith(b": OPENROUTER PROCESSING") is (provider == "openrouter")
    with_usage = ask(provider, body=chat(stream=True, stream_options={"include_usage": True})).events()
    usage = [event["usage"] for event in with_usage[:-1] if event.get("usage")]
    assert usage[-1]["total_tokens"] == usage[-1]["prompt_tokens"] + usage[-1]["completion_tokens"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("at_chunk", [0, 2])
def test_an_error_inside_a_stream(provider: str, at_chunk: int) -> None:
    fault = Fault(error="overloaded", at_chunk=at_chunk)
    reply = ask(provider, body=chat(stream=True), faults=[fault])
    assert reply.status == 200
    last = [event for event in reply.events() if event != "[DONE]"][-1]
    assert last.get("error") or last["object"] == "error"
    assert (b"event: error" in reply.body) is (provider == "groq")
    assert len([event for event in reply.events() if event != "[DONE]"]) == at_chunk + 1


def test_go_durations() -> None:
    spoken = [go_duration(seconds) for seconds in (0, 0.026, 1.4, 17.4, 60, 360, 414.72, 3723)]
    assert spoken == ["0s", "26ms", "1.4s", "17.4s", "1m0s", "6m0s", "6m54.72s", "1h2m3s"]
