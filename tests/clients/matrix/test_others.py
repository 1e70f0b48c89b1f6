"""What clients ask beside answers: models, counts of tokens, embeddings, ids of requests; and each SDK's other kind."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.clients.conftest import run
from tests.support.serving import Served, Upstreams

from .cells import UPSTREAMS, Upstream, cells
from .clients import CLIENTS, TOOLS, Client

COUNTED = {"anthropic", "gemini"}
"""Formats whose providers count tokens themselves when a client of the same format asks; else it is our estimate."""
DIMENSIONS = 64


@cells("models")
def test_models(client: Client, upstream: Upstream) -> None:
    if client.dialect == "gemini":
        wanted = f"models/{upstream.name}"
        assert client.api.models.get(model=upstream.name).name == wanted
    else:
        wanted = upstream.name
        assert client.api.models.retrieve(wanted).id == wanted
    assert wanted in client.models()


@cells("count")
def test_tokens_are_counted(client: Client, upstream: Upstream, upstreams: Upstreams) -> None:
    few, many = (_count(client, upstream.name, text) for text in ("Hello there", "Hello there " * 50))
    assert 0 < few < many < 1000
    asked = client.dialect == upstream.dialect and upstream.dialect in COUNTED
    seen = [(each.kind, each.dialect, each.input_tokens) for each in upstreams.seen()]
    assert seen == ([("count", upstream.dialect, few), ("count", upstream.dialect, many)] if asked else [])


def _count(client: Client, model: str, text: str) -> int:
    history = client.prompt(text)
    counted: Any
    if client.dialect == "anthropic":
        tools: Any = [{"name": tool["name"], "input_schema": tool["schema"]} for tool in TOOLS]
        counted = client.api.messages.count_tokens(model=model, messages=history, tools=tools).input_tokens
    elif client.dialect == "gemini":
        counted = client.api.models.count_tokens(model=model, contents=history).total_tokens
    else:
        counted = client.api.responses.input_tokens.count(model=model, input=history).input_tokens
    assert isinstance(counted, int)
    return counted


@cells("embeddings")
def test_embeddings(client: Client, upstream: Upstream, upstreams: Upstreams) -> None:
    model, texts = f"{upstream.provider}/{upstream.embedder}", ["Hello", "Grüezi"]
    if client.dialect == "gemini":
        answer = client.api.models.embed_content(model=model, contents=texts)
        vectors = [row.values for row in answer.embeddings]
        config = types.EmbedContentConfig(output_dimensionality=8)
        short = [
            row.values
            for row in client.api.models.embed_content(model=model, contents=["Hello"], config=config).embeddings
        ]
    else:
        answer = client.api.embeddings.create(model=model, input=texts)
        assert [row.index for row in answer.data] == [0, 1]
        vectors = [row.embedding for row in answer.data]
        short = [row.embedding for row in client.api.embeddings.create(model=model, input="Hello", dimensions=8).data]
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 2
    assert [len(vector) for vector in short] == [8]
    assert vectors[0] != vectors[1]
    assert all(sum(number * number for number in vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
    spoken = "gemini" if upstream.dialect == "gemini" else "openai_chat"
    assert {(each.kind, each.dialect, each.status) for each in upstreams.seen()} == {("embeddings", spoken, 200)}


@pytest.mark.parametrize("name", ["openai_chat", "openai_responses", "anthropic"])
@pytest.mark.parametrize("upstream", UPSTREAMS.values(), ids=UPSTREAMS)
def test_ids_of_requests(clients: dict[str, Client], name: str, upstream: Upstream) -> None:
    """Where an SDK shows the id of a request, it is that of the call, as in the log."""
    client = clients[name]
    one, other = (client.ask(upstream.name, client.prompt("Hello")).raw for _ in range(2))
    assert len(one._request_id) == 36
    assert one._request_id != other._request_id


def test_the_headers_tell_what_answered(clients: dict[str, Client]) -> None:
    """Through each SDK's way to the raw response."""
    for name, upstream in zip(CLIENTS, reversed(UPSTREAMS.values()), strict=True):
        client = clients[name]
        history: Any = client.prompt("Hello")
        if name == "gemini":
            answer = client.api.models.generate_content(model=upstream.name, contents=history)
            headers = answer.sdk_http_response.headers
        elif name == "anthropic":
            messages = client.api.messages.with_raw_response
            headers = messages.create(model=upstream.name, messages=history, max_tokens=64).headers
        elif name == "openai_chat":
            completions = client.api.chat.completions.with_raw_response
            headers = completions.create(model=upstream.name, messages=history).headers
        else:
            headers = client.api.responses.with_raw_response.create(model=upstream.name, input=history).headers
        assert headers["x-keyturn-provider"] == upstream.provider
        assert headers["x-keyturn-model"] == upstream.model
        assert headers["x-keyturn-attempts"] == "1"


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
def test_asynchronous_clients(gateway: Served) -> None:
    """All at once: every upstream through every client, streamed."""

    async def main() -> list[tuple[str, str]]:
        options: Any = {"api_key": gateway.caller_key, "max_retries": 0}
        google = genai.Client(api_key=gateway.caller_key, http_options=types.HttpOptions(base_url=gateway.url))
        async with (
            openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", **options) as first,
            anthropic.AsyncAnthropic(base_url=gateway.url, **options) as second,
            google.aio as third,
        ):
            asked = []
            for upstream in UPSTREAMS.values():
                asked += [_chat(first, upstream.name), _respond(first, upstream.name)]
                asked += [_message(second, upstream.name), _generate(third, upstream.name)]
            return await asyncio.gather(*asked)

    for name, text in run(main):
        assert text == f"This is the Keyturn simulator ({name}): … You said: Hello"


async def _chat(client: openai.AsyncOpenAI, model: str) -> tuple[str, str]:
    async with client.chat.completions.stream(model=model, messages=[{"role": "user", "content": "Hello"}]) as stream:
        return model, (await stream.get_final_completion()).choices[0].message.content or ""


async def _respond(client: openai.AsyncOpenAI, model: str) -> tuple[str, str]:
    async with client.responses.stream(model=model, input="Hello", store=False) as stream:
        return model, (await stream.get_final_response()).output_text


async def _message(client: anthropic.AsyncAnthropic, model: str) -> tuple[str, str]:
    messages: Any = [{"role": "user", "content": "Hello"}]
    async with client.messages.stream(model=model, messages=messages, max_tokens=64) as stream:
        return model, await stream.get_final_text()


async def _generate(client: Any, model: str) -> tuple[str, str]:
    stream = await client.models.generate_content_stream(model=model, contents="Hello")
    return model, "".join([chunk.text or "" async for chunk in stream])
