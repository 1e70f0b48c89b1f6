"""What HTTP providers get and how their answers are taken, configured as the seed has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import load
from keyturn.core import Candidate, Deployment, HttpRequest
from keyturn.dispatch import read_call
from keyturn.providers import CATALOG, prepare
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

MODELS = """
providers:
  groq: { kind: http, base_url: https://api.groq.com/openai/v1, env_key: GROQ_API_KEY }
  together: { kind: http, base_url: https://api.together.ai/v1, env_key: TOGETHER_API_KEY }
  openrouter: { kind: http, base_url: https://openrouter.ai/api/v1, env_key: OPENROUTER_API_KEY }
  google_ai_studio:
    kind: http
    base_url: https://generativelanguage.googleapis.com
    api_keys: [${GOOGLE_API_KEY_1}]
"""
KEYS = {f"{name}_API_KEY": f"sk-planted-{name.lower()}" for name in ("GROQ", "TOGETHER", "OPENROUTER", "DEEPSEEK")}
KEYS["GOOGLE_API_KEY_1"] = "sk-planted-gemini"
BODY = b'{"model":"x/y","messages":[{"role":"user","content":"Hi"}],"temperature":0.70,"x_own":[1e2]}'
GPT = "openrouter/openai/gpt-4o"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("groq", "https://api.groq.com/openai/v1/chat/completions"),
        ("together", "https://api.together.ai/v1/chat/completions"),
        ("openrouter", "https://openrouter.ai/api/v1/chat/completions"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/models/some-model:generateContent"),
        ("deepseek", "https://api.deepseek.com/chat/completions"),
    ],
)
def test_PRV_02_PRV_04_PRV_05_where_a_call_goes_and_with_which_key(tmp_path: Path, name: str, url: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.yaml").write_text(MODELS)
    config = load(KEYS, cwd=tmp_path)
    (credential,) = config.credentials[name]
    candidate = Candidate(Deployment(name, "some-model"), credential)
    request = prepare(config.providers[name], read_call("chat", BODY, {}), candidate, [])
    assert isinstance(request, HttpRequest)
    assert (request.method, request.url) == ("POST", url)
    assert request.auth is not None
    bearer = ("authorization", f"Bearer sk-planted-{name}")
    shown = ("x-goog-api-key", f"sk-planted-{name}") if name == "gemini" else bearer  # PRV-04: never in the query
    assert (request.auth[0], request.auth[1] + request.auth[2].reveal()) == shown
    assert dict(request.headers)["content-type"] == "application/json"
    assert "planted" not in repr((request.url, request.headers, request.body))


@pytest.mark.parametrize("name", ["groq", "together", "openrouter"])
def test_PRV_02_the_upstream_sees_the_bearer_key_and_what_the_client_wrote(name: str) -> None:
    """The seed filled in temperature 0.1 and max_tokens 4000 or 800; here a request stays as it was (design §5.11)."""

    async def main() -> None:
        async with World({name: 1}, files={"models.yaml": MODELS}, keep_bodies=True) as world:
            body = json.loads(BODY) | {"model": f"{name}/some-model"}
            assert (await world.send("chat", body)).status == 200
            (exchange,) = world.seen()
            assert exchange.headers["authorization"] == f"Bearer {name}-secret-key-1"
            assert exchange.headers["content-type"] == "application/json"
            assert json.loads(exchange.body) == body | {"model": "some-model"}

    virtual.run(main)


def test_PRV_02_an_attempt_that_says_nothing_for_too_long_is_given_up() -> None:
    """The seed gave up after 30 s; here each phase has its bound, as settings.toml says it (design §5.13)."""
    files = {"models.yaml": MODELS, "settings.toml": "[timeouts]\nno_content = 30\n"}

    async def main() -> None:
        faults = [Fault(provider="groq", does="hang", times=1)]
        async with World({"groq": 2}, files=files, faults=faults) as world:
            assert (await world.chat("groq/some-model")).status == 200
            assert world.clock.mono() - virtual.START_MONO == pytest.approx(30.0, abs=0.1)

    virtual.run(main)


@pytest.mark.parametrize(
    "fault",
    [Fault(quirks=frozenset({"empty"})), Fault(status=200, body='{"id":"gen-1","object":"chat.completion"}')],
    ids=["an empty list of choices", "no choices at all"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_PRV_03_a_2xx_without_choices_is_an_error(fault: Fault, stream: bool) -> None:
    async def main() -> None:
        async with World({"openrouter": 2}, faults=[fault]) as world:
            answer = await world.chat(GPT, stream=stream)
            assert (answer.status, answer.code) == (502, "bad_upstream")
            assert len(world.seen()) == 2, "at most twice per provider"

    virtual.run(main)


def test_PRV_03_a_2xx_without_choices_makes_way_for_another_key() -> None:
    async def main() -> None:
        async with World({"openrouter": 2}, faults=[Fault(quirks=frozenset({"empty"}), times=1)]) as world:
            answer = await world.chat(GPT)
            assert (answer.status, answer.headers["x-keyturn-attempts"]) == (200, "2")

    virtual.run(main)


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(status=502), Fault(does="reset")], ids=["500", "502", "cut"]
)
def test_PRV_03_faults_are_met_twice_per_provider_and_not_three_times(fault: Fault) -> None:
    """The seed made up to three attempts at OpenRouter; the design allows two (§5.4)."""

    async def main() -> None:
        async with World({"openrouter": 5}, faults=[fault]) as world:
            assert (await world.chat(GPT)).status == 502
            assert len(world.seen()) == 2

    virtual.run(main)


def test_PRV_03_content_that_is_a_list_of_parts_comes_through() -> None:
    parts = [{"type": "text", "text": "Bonjour"}]
    answer_body: dict[str, Any] = {
        "id": "gen-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}],
    }

    async def main() -> None:
        async with World({"openrouter": 1}, faults=[Fault(status=200, body=json.dumps(answer_body))]) as world:
            answer = await world.chat(GPT)
            assert answer.status == 200
            assert answer.json() == answer_body

    virtual.run(main)


def test_PRV_05_deepseek_is_known_and_qwen_by_its_openai_address() -> None:
    """The seed spoke DashScope's own dialect; its OpenAI-compatible endpoint is a provider like any other (§6)."""
    assert CATALOG["deepseek"].base_url == "https://api.deepseek.com"
    environ = {
        "QWEN_API_KEY": "sk-planted-qwen",
        "QWEN_API_BASE": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    }
    config = load(environ, cwd=Path("/nonexistent"))
    assert config.providers["qwen"].base_url == environ["QWEN_API_BASE"]
    assert [each.label for each in config.credentials["qwen"]] == ["qwen-0"]
