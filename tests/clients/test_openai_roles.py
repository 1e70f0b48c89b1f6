"""The `openai` SDK asks `keyturn serve` for a role: headers, trace and log tell the story. Callers have bounds."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import KeyRule, Simulator
from tests.support.serving import KEYTURN, SETTLING, Served, Upstreams, serve, simulate

from .conftest import Sdk, say, text_of

PRO, R1, LLAMA = "gemini-2.5-pro", "deepseek/deepseek-r1-0528:free", "llama-3.3-70b-versatile"
OUT, LIMITED, GOOD = "AIza-out-1111", "sk-or-limited-2222", "gsk_good_3333"
KEYS = {
    "gemini": {OUT: KeyRule()},
    "openrouter": {LIMITED: KeyRule()},
    "groq": {GOOD: KeyRule()},
}
FAULTS: tuple[dict[str, Any], ...] = (
    {"provider": "gemini", "kind": "chat", "status": 503},
    {
        "provider": "openrouter",
        "kind": "chat",
        "status": 429,
        "body": '{"error":{"message":"Rate limit exceeded: free-models-per-min. ","code":429}}',
        "headers": {f"x-ratelimit-{what}": "" for what in ("limit", "remaining", "reset")},
    },
)
"""The first deployment of the chain is out, the second at its limit."""
MODELS = """
providers:
  google_ai_studio:
    kind: http
    base_url: {url}/gemini/v1beta/openai
    api_keys: [${{GOOGLE_API_KEY_1}}, ${{GOOGLE_API_KEY_2}}]
    rotation: {{ strategy: round_robin, cooldown_seconds: 60 }}
  openrouter: {{ kind: http, base_url: "{url}/openrouter/api/v1", env_key: OPENROUTER_API_KEY }}
  groq: {{ kind: http, base_url: "{url}/groq/openai/v1", env_key: GROQ_API_KEY }}
provider_routes:
  - {{ id: gemini-2.5-pro, provider: google_ai_studio, capabilities: {{ streaming: true, vision: true }} }}
  - {{ id: "deepseek/deepseek-r1-0528:free", provider: openrouter, is_paid: false, tier: free }}
  - {{ id: llama-3.3-70b-versatile, provider: groq, price: {{ input: 100, output: 100 }} }}
  - {{ id: opus, provider: openrouter, model: anthropic/opus, is_paid: true, tier: ultra }}
"""
ROLES = """
roles:
  senior_dev:
    name: Senior developer
    model_chain: [opus, gemini-2.5-pro, "deepseek/deepseek-r1-0528:free", llama-3.3-70b-versatile]
"""
CALLERS = """
poor: { key_env: POOR_KEY, monthly_usd: 5 }
hasty: { key_env: HASTY_KEY, rpm: 1 }
elsewhere: { key_env: ELSEWHERE_KEY, routes: ["gemini/*"] }
"""
CALLER_KEYS = {"POOR_KEY": "kt-poor-caller-key", "HASTY_KEY": "kt-hasty-caller-key", "ELSEWHERE_KEY": "kt-else-key"}
ASKED = {"model": "senior_dev", "messages": say("Hello")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the gateway runs: a month in which the budget of one caller is spent already."""
    folder = tmp_path_factory.mktemp("roles")
    (folder / "config").mkdir()
    (folder / "config" / "roles.yaml").write_text(ROLES)
    (folder / "config" / "callers.yaml").write_text(CALLERS)
    (folder / ".cache").mkdir(mode=0o700)
    spent = {"month": f"{datetime.now(UTC):%Y-%m}", "usd": {"caller/poor": 5.0}}
    (folder / ".cache" / "spend.json").write_text(json.dumps(spent))
    return folder


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    keys = {"GOOGLE_API_KEY_1": OUT, "GOOGLE_API_KEY_2": "", "OPENROUTER_API_KEY": LIMITED, "GROQ_API_KEY": GOOD}
    return keys | CALLER_KEYS


@pytest.fixture(scope="module")
def running(place: Path, environ: dict[str, str]) -> Iterator[tuple[Served, Upstreams]]:
    with simulate(Simulator(SystemClock(), draw, keys=KEYS)) as upstreams:
        (place / "config" / "models.yaml").write_text(MODELS.format(url=upstreams.url))
        with serve(place, environ) as gateway:
            yield gateway, upstreams


@pytest.fixture
def upstreams(running: tuple[Served, Upstreams]) -> Upstreams:
    running[1].settled()
    running[1].script(*FAULTS)
    running[1].forget()
    return running[1]


def raw(sdk: Sdk) -> Any:
    return sdk.call(lambda client: client.chat.completions.with_raw_response.create(**ASKED))


def test_a_role_is_answered_by_its_third_deployment_and_the_headers_say_so(sdk: Sdk, upstreams: Upstreams) -> None:
    answer = raw(sdk)
    assert answer.parse().choices[0].message.content.endswith("You said: Hello")
    told = {name: value for name, value in answer.headers.items() if name.startswith(("x-keyturn", "x-fallback"))}
    assert told.pop("x-keyturn-call") == answer.request_id
    assert told.pop("x-keyturn-key").startswith("groq-0:")
    assert told == {
        "x-keyturn-provider": "groq",
        "x-keyturn-model": LLAMA,
        "x-keyturn-attempts": "3",
        "x-fallback-provider": "groq",
    }
    assert [(each.key, each.model, each.status) for each in upstreams.seen()] == [
        (OUT, PRO, 503),
        (LIMITED, R1, 429),
        (GOOD, LLAMA, 200),
    ]


def test_a_stream_fails_over_before_the_client_sees_anything(sdk: Sdk, upstreams: Upstreams) -> None:
    assert text_of(sdk.stream("senior_dev")).endswith("You said: Hello")
    assert [each.status for each in upstreams.seen()] == [503, 429, 200]


def test_the_trace_tells_each_attempt_and_who_was_left_out(sdk: Sdk, gateway: Served, upstreams: Upstreams) -> None:
    call = raw(sdk).headers["x-keyturn-call"]
    trail = gateway.admin("POST", "trace", {"call": call})
    told = [(each["provider"], each["model"], each["meaning"], each["status"]) for each in trail["attempts"]]
    assert told == [
        ("gemini", PRO, "overloaded", 503),
        ("openrouter", R1, "rate_limited", 429),
        ("groq", LLAMA, "ok", 200),
    ]
    assert trail["refusals"] == ["openrouter/anthropic/opus: is marked paid, and USE_PAID_MODELS is false"]
    assert trail["route"] == "senior_dev"


def test_the_next_call_goes_straight_to_who_can_answer(sdk: Sdk, gateway: Served, upstreams: Upstreams) -> None:
    sdk.chat("senior_dev")
    assert raw(sdk).headers["x-keyturn-attempts"] == "1"
    assert gateway.states() == {"gemini-1": "healthy", "openrouter-0": "cooling", "groq-0": "healthy"}
    assert [each.key for each in upstreams.seen()] == [OUT, LIMITED, GOOD, GOOD]


def test_the_command_line_prints_the_same_story(
    place: Path, environ: dict[str, str], gateway: Served, upstreams: Upstreams
) -> None:
    command = [str(KEYTURN), "chat", "-m", "senior_dev", "--trace", "Hello"]
    done = subprocess.run(command, cwd=place, env=os.environ | environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("You said: Hello")
    lines = done.stderr.splitlines()
    steps = [line for line in lines if line[:2] in ("1.", "2.", "3.")]
    assert f"1. gemini → {PRO} → gemini-1:" in steps[0]
    assert "→ overloaded 503 →" in steps[0]
    assert f"2. openrouter → {R1} → openrouter-0:" in steps[1]
    assert "→ rate_limited 429 →" in steps[1]
    assert f"3. groq → {LLAMA} → groq-0:" in steps[2]
    assert "→ ok 200 →" in steps[2]
    assert "- openrouter/anthropic/opus: is marked paid, and USE_PAID_MODELS is false" in lines
    assert not any(key in done.stderr for key in (OUT, LIMITED, GOOD))


def test_the_log_has_one_line_with_the_whole_way(sdk: Sdk, place: Path, gateway: Served, upstreams: Upstreams) -> None:
    call = raw(sdk).headers["x-keyturn-call"]
    until = time.monotonic() + SETTLING
    while not (found := [line for line in (place / "log.txt").read_text().splitlines() if call in line]):
        gateway.admin("GET", "status")  # lines are written behind the answer
        assert time.monotonic() < until, "nothing was logged"
    (line,) = found
    assert line.index("gemini → ") < line.index("openrouter → ") < line.index("groq → ")
    assert not any(key in line for key in (OUT, LIMITED, GOOD))


def test_roles_are_in_the_list_of_models(sdk: Sdk, upstreams: Upstreams) -> None:
    names = sdk.call(lambda client: client.models.list()).data
    owned = {each.id: each.owned_by for each in names}
    assert owned["senior_dev"] == "keyturn"
    assert owned[PRO] == "gemini"
    assert "opus" not in owned


def as_caller(kind: type[Sdk], gateway: Served, name: str) -> Sdk:
    return kind(gateway.base_url, CALLER_KEYS[name])


def refused(sdk: Sdk, error: type[openai.APIStatusError], model: str = LLAMA) -> Any:
    with pytest.raises(error) as caught:
        sdk.chat(model)
    return caught.value


def test_a_caller_whose_budget_is_spent_gets_402(kind: type[Sdk], gateway: Served, upstreams: Upstreams) -> None:
    sdk = as_caller(kind, gateway, "POOR_KEY")
    sdk.options["max_retries"] = 2
    error = refused(sdk, openai.APIStatusError)
    assert (error.status_code, error.code) == (402, "budget_exhausted")
    assert error.response.headers["x-should-retry"] == "false"
    assert "caller poor, 5 USD" in str(error)
    assert len(sdk.sent) == 1
    assert upstreams.seen() == []


def test_a_caller_without_the_route_gets_403(kind: type[Sdk], gateway: Served, upstreams: Upstreams) -> None:
    error = refused(as_caller(kind, gateway, "ELSEWHERE_KEY"), openai.PermissionDeniedError)
    assert (error.status_code, error.code) == (403, "route_not_allowed")
    assert "its routes are gemini/*" in str(error)
    assert upstreams.seen() == []


def test_a_caller_above_its_rpm_gets_429_with_the_time_to_wait(
    kind: type[Sdk], gateway: Served, upstreams: Upstreams
) -> None:
    sdk = as_caller(kind, gateway, "HASTY_KEY")
    try:
        sdk.chat(LLAMA)
    except openai.RateLimitError:
        assert kind.__name__ == "Async", "the other kind has used the one call of this minute"
    error = refused(sdk, openai.RateLimitError)
    assert (error.status_code, error.code) == (429, "caller_limit")
    assert 1 <= int(error.response.headers["retry-after"]) <= 62
    assert "caller hasty may use 1 requests a minute" in str(error)


def test_a_key_that_is_no_callers_gets_401(kind: type[Sdk], gateway: Served, upstreams: Upstreams) -> None:
    error = refused(kind(gateway.base_url, "kt-nobody"), openai.AuthenticationError)
    assert (error.status_code, error.code) == (401, "invalid_api_key")


def test_the_gateways_own_key_is_bound_by_none_of_this(sdk: Sdk, upstreams: Upstreams) -> None:
    assert [sdk.chat(LLAMA).choices[0].finish_reason for _ in range(3)] == ["stop"] * 3
