"""Requests to upstreams as they leave, and the lists of models as they come."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.core import Call, Candidate, Credential, Deployment, HttpRequest, LocalRequest
from keyturn.providers import CATALOG, Provider, custom, prepare, prepare_models, read_models
from keyturn.wire import parse_chat, parse_embeddings

SECRET = "sk-planted-0123456789"


def chat(**members: Any) -> Call:
    body = {"model": "x/y", "messages": [{"role": "user", "content": "hi"}], **members}
    return parse_chat(json.dumps(body).encode(), {})


def send(provider: Provider, call: Call, model: str = "m-1", secret: str = SECRET) -> tuple[HttpRequest, list[str]]:
    notes: list[str] = []
    candidate = Candidate(Deployment(provider.name, model), Credential.of(provider.name, secret))
    request = prepare(provider, call, candidate, notes)
    sent = request.http if isinstance(request, LocalRequest) else request
    assert isinstance(sent, HttpRequest)
    return sent, notes


def test_a_chat_request() -> None:
    request, notes = send(CATALOG["groq"], chat(temperature=0.5))
    assert (request.method, request.url) == ("POST", "https://api.groq.com/openai/v1/chat/completions")
    assert json.loads(request.body) == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
    }
    assert request.auth is not None
    assert request.auth[:2] == ("authorization", "Bearer ")
    assert request.auth[2].reveal() == SECRET
    assert notes == []
    headers = dict(request.headers)
    assert headers["accept-encoding"] == "identity"
    assert headers["accept"] == "application/json"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("keyturn/")


def test_the_secret_is_in_its_header_only() -> None:
    for provider in [row for row in CATALOG.values() if row.tool is None]:
        request, _ = send(provider, chat(stream=True))
        assert SECRET not in repr((request.url, request.headers, request.body))


@pytest.mark.parametrize("model", ["a\r\nx-evil: 1", "a\x00b", "../../admin", "мод?key=1#"])
def test_a_models_name_goes_into_the_body_only(model: str) -> None:
    request, _ = send(CATALOG["openai"], chat(), model)
    assert json.loads(request.body)["model"] == model
    assert request.url == "https://api.openai.com/v1/chat/completions"
    assert all(model not in value and "\n" not in value for _, value in request.headers)


def test_what_a_provider_rejects_is_dropped_with_a_note() -> None:
    request, notes = send(CATALOG["groq"], chat(logprobs=True, logit_bias={}, top_p=0.9))
    body = json.loads(request.body)
    assert "logprobs" not in body
    assert "logit_bias" not in body
    assert body["top_p"] == 0.9
    assert len(notes) == 2


def test_what_a_provider_knows_by_another_name_is_renamed() -> None:
    request, notes = send(CATALOG["mistral"], chat(max_completion_tokens=5, seed=7))
    body = json.loads(request.body)
    assert (body["max_tokens"], body["random_seed"]) == (5, 7)
    assert "max_completion_tokens" not in body
    assert notes


def test_reasoning_members_pass_untouched() -> None:
    request, _ = send(CATALOG["openai"], chat(max_completion_tokens=5, reasoning_effort="low"))
    body = json.loads(request.body)
    assert (body["max_completion_tokens"], body["reasoning_effort"]) == (5, "low")


@pytest.mark.parametrize(
    ("provider", "members", "expected"),
    [
        ("openai", {"stream": True}, {"include_usage": True}),
        ("openai", {"stream": True, "stream_options": {"include_usage": True}}, {"include_usage": True}),
        ("openai", {"stream": True, "stream_options": {"x": 1}}, {"x": 1, "include_usage": True}),
        ("openai", {}, None),
        ("together", {"stream": True}, None),
        ("mistral", {"stream": True, "stream_options": {"include_usage": True}}, None),
    ],
)
def test_usage_is_asked_for_where_it_must_be(provider: str, members: dict[str, Any], expected: Any) -> None:
    request, _ = send(CATALOG[provider], chat(**members))
    assert json.loads(request.body).get("stream_options") == expected
    if members:
        assert dict(request.headers)["accept"] == "text/event-stream"


def test_azure_has_its_own_base_and_header() -> None:
    azure = CATALOG["azure"]
    assert azure.base_url == ""
    request, _ = send(custom("azure", "https://res.openai.azure.com/openai/v1"), chat())
    assert request.url == "https://res.openai.azure.com/openai/v1/chat/completions"
    own, _ = send(azure, chat())
    assert own.auth is not None
    assert own.auth[:2] == ("api-key", "")


def test_a_server_without_keys_gets_no_header() -> None:
    request, _ = send(CATALOG["ollama"], chat(), secret="")
    assert request.auth is None


def test_the_demo_is_answered_in_this_process() -> None:
    candidate = Candidate(Deployment("demo", "m"), Credential.of("demo", ""))
    request = prepare(CATALOG["demo"], chat(), candidate, [])
    assert isinstance(request, LocalRequest)
    assert request.app == "demo"


def test_embeddings() -> None:
    call = parse_embeddings(b'{"model":"a/b","input":["x"]}', {})
    request, _ = send(CATALOG["openai"], call)
    assert request.url == "https://api.openai.com/v1/embeddings"


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        ("openai", "https://api.openai.com/v1/models"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000"),
        ("cohere", "https://api.cohere.ai/v1/models"),
        ("github_models", "https://models.github.ai/catalog/models"),
        ("ollama", "http://localhost:11434/v1/models"),
    ],
)
def test_where_the_list_of_models_is(provider: str, url: str) -> None:
    request = prepare_models(CATALOG[provider], Credential.of(provider, SECRET))
    assert isinstance(request, HttpRequest)
    assert (request.method, request.url, request.body) == ("GET", url, b"")


def test_the_list_of_anthropic_wants_another_header() -> None:
    request = prepare_models(CATALOG["anthropic"], Credential.of("anthropic", SECRET))
    assert isinstance(request, HttpRequest)
    assert request.auth is not None
    assert request.auth[:2] == ("x-api-key", "")
    assert dict(request.headers)["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    ("provider", "body", "ids"),
    [
        ("openai", {"object": "list", "data": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}, ["a", "b"]),
        ("together", [{"id": "org/a", "type": "chat"}, {"id": "org/b"}], ["org/a", "org/b"]),
        ("github_models", [{"id": "openai/gpt-4o", "rate_limit_tier": "high"}], ["openai/gpt-4o"]),
        ("cohere", {"models": [{"name": "command-a"}], "next_page_token": ""}, ["command-a"]),
        ("gemini", {"data": [{"id": "models/gemini-2.5-flash"}]}, ["gemini-2.5-flash"]),
        ("gemini", {"models": [{"name": "models/gemini-2.5-pro"}]}, ["gemini-2.5-pro"]),
        ("openai", {"data": [{"id": "models/x"}]}, ["models/x"]),
        ("ollama", {"models": [{"name": "llama3:8b", "model": "llama3:8b"}]}, ["llama3:8b"]),
        ("g4f", {"data": [{"id": "gpt-4o"}, {"id": "PollinationsAI", "provider": True}]}, ["gpt-4o"]),
        ("openai", {"data": [{"id": 5}, {"id": "x" * 300}, {"id": "a\nb"}, {}, None, "plain"]}, ["plain"]),
        ("openai", {"data": []}, []),
        ("openai", {"error": "no"}, []),
        ("openai", "text", []),
    ],
)
def test_lists_of_models(provider: str, body: Any, ids: list[str]) -> None:
    assert read_models(CATALOG[provider], json.dumps(body).encode()) == ids


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff"])
def test_garbage_is_no_list(body: bytes) -> None:
    assert read_models(CATALOG["openai"], body) == []
