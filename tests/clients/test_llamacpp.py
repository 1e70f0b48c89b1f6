"""A model server that is not ours behind the gateway: llama.cpp in a process of its own, with a tiny random model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.support import gguf
from tests.support.serving import Response, Served, ask, serve, start, wait_until_ready

from .conftest import Sdk, say, text_of

pytest.importorskip("xllamacpp", reason="xllamacpp has no wheel for this platform")

ROOT = Path(__file__).parents[2]
MODEL = "llamacpp/tiny/chat"
CONTEXT = 256
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
"""The same words each time, so that what went through the gateway can be compared with what did not."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the model server."""
    folder = tmp_path_factory.mktemp("llama")
    model, address, log = folder / "tiny.gguf", folder / "address", folder / "log.txt"
    gguf.write(model, context=CONTEXT)
    command = [sys.executable, "-m", "tests.clients.model_server", str(model), str(address)]
    with start(command, log, {}, cwd=ROOT) as process:
        yield wait_until_ready(process, log, address.read_text, "/health")


@pytest.fixture(scope="module")
def behind(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with the model server as its only provider, without a key."""
    with serve(tmp_path_factory.mktemp("gateway"), {"LLAMACPP_API_BASE": f"{llama}/v1"}) as gateway:
        yield gateway


@pytest.fixture
def through(kind: type[Sdk], behind: Served) -> Sdk:
    """A client of the gateway."""
    return kind(behind.base_url, behind.caller_key)


@pytest.fixture
def direct(kind: type[Sdk], llama: str) -> Sdk:
    """A client of the model server itself."""
    return kind(f"{llama}/v1", "none")


def post(server: Served | str, path: str, body: dict[str, Any]) -> Response:
    """One request without the SDK, to the gateway or to the model server itself."""
    if isinstance(server, str):
        return ask(server, "POST", path, body=body)
    return ask(server.url, "POST", path, headers={"authorization": f"Bearer {server.caller_key}"}, body=body)


def test_chat(through: Sdk, direct: Sdk) -> None:
    answer, expected = through.chat(MODEL, **GREEDY), direct.chat("tiny/chat", **GREEDY)
    assert answer.choices[0].message.content == expected.choices[0].message.content
    assert len(answer.choices[0].message.content) == 8
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage == expected.usage
    assert answer.usage.completion_tokens == 8
    assert answer.usage.prompt_tokens > len("Hello")
    assert answer.model == "tiny/chat"
    assert answer._request_id


def test_stream(through: Sdk, direct: Sdk) -> None:
    chunks, expected = through.stream(MODEL, **GREEDY), direct.stream("tiny/chat", **GREEDY)
    assert text_of(chunks) == text_of(expected) == through.chat(MODEL, **GREEDY).choices[0].message.content
    assert len(chunks) == len(expected) > 8
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in chunks)


def test_stream_with_usage(through: Sdk) -> None:
    *others, last = through.stream(MODEL, **GREEDY, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == 8
    assert others[-1].choices[0].finish_reason == "length"


def test_a_stream_ends_with_done(behind: Served) -> None:
    body = {"model": MODEL, "messages": say("Hello"), "stream": True, **GREEDY}
    answer = post(behind, "/v1/chat/completions", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.count(b"data: [DONE]\n\n") == 1
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_a_stop_word_ends_the_answer(through: Sdk) -> None:
    whole = through.chat(MODEL, **GREEDY).choices[0].message.content
    answer = through.chat(MODEL, **GREEDY, stop=[whole[4:6]])
    assert answer.choices[0].message.content == whole[:4]
    assert answer.choices[0].finish_reason == "stop"


def test_an_answer_in_a_json_schema(through: Sdk) -> None:
    class Verdict(BaseModel):
        sure: bool
        grade: Literal["good", "bad"]

    parse: Any = {"model": MODEL, "messages": say("Well?"), "response_format": Verdict, "temperature": 0}
    answer = through.call(lambda client: client.chat.completions.parse(**parse, max_tokens=120))
    assert isinstance(answer.choices[0].message.parsed, Verdict)
    assert answer.choices[0].finish_reason == "stop"


def test_embeddings(through: Sdk, direct: Sdk) -> None:
    create = {"model": MODEL, "input": ["Hello", "world"]}
    rows = through.call(lambda client: client.embeddings.create(**create)).data
    expected = direct.call(lambda client: client.embeddings.create(**create)).data
    assert [len(row.embedding) for row in rows] == [gguf.WIDTH] * 2
    assert [row.embedding for row in rows] == [row.embedding for row in expected]


def test_models(through: Sdk) -> None:
    page = through.call(lambda client: client.models.list())
    assert [(model.id, model.owned_by) for model in page.data] == [(MODEL, "llamacpp")]
    assert through.call(lambda client: client.models.retrieve(MODEL)).id == MODEL
    assert through.chat("tiny/chat", **GREEDY).usage.completion_tokens == 8, "the bare id is on offer too"


def test_a_model_that_nobody_offers(through: Sdk) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL):
        through.chat("tiny/chap")


@pytest.mark.parametrize("stream", [False, True])
def test_a_context_that_is_too_long_comes_back_as_it_came(
    through: Sdk, behind: Served, llama: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        through.chat(MODEL, "word " * CONTEXT, stream=stream)
    assert caught.value.type == "exceed_context_size_error"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["n_ctx"] == CONTEXT
    assert caught.value.response.headers["x-keyturn-attempts"] == "1"

    body = {"messages": say("word " * CONTEXT), "stream": stream}
    came = post(behind, "/v1/chat/completions", {"model": MODEL, **body})
    expected = post(llama, "/v1/chat/completions", {"model": "tiny/chat", **body})
    assert (came.status, came.body) == (expected.status, expected.body) == (400, expected.body)
    assert came.headers["content-type"] == expected.headers["content-type"]


def test_a_mistake_that_only_the_model_server_sees(through: Sdk, direct: Sdk) -> None:
    bad: Any = {"messages": [{"role": "user", "content": 5}]}
    with pytest.raises(openai.BadRequestError) as caught:
        through.call(lambda client: client.chat.completions.create(model=MODEL, **bad))
    with pytest.raises(openai.BadRequestError) as expected:
        direct.call(lambda client: client.chat.completions.create(model="tiny/chat", **bad))
    assert caught.value.body == expected.value.body
    assert caught.value.response.headers["x-keyturn-attempts"] == "1"
