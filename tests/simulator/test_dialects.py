"""The simulator speaks four wire formats: the official SDKs understand it, all with one server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.serving import Upstreams, simulate

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
DATA = base64.b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT = SCHEMA | {"additionalProperties": False}
CALLS = 'Go on: [call: weather {"city": "Rome"}] [call: weather {"city": "Oslo"}] [then: weather {"city": "Bonn"}]'


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    with simulate(Simulator(SystemClock(), draw)) as running:
        yield running


@pytest.fixture(scope="module")
def claude(upstreams: Upstreams) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"{upstreams.url}/anthropic", api_key="sk-a", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def gpt(upstreams: Upstreams) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{upstreams.url}/openai/v1", api_key="sk-o", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def gemini(upstreams: Upstreams) -> genai.Client:
    return genai.Client(api_key="AIza", http_options=types.HttpOptions(base_url=f"{upstreams.url}/gemini"))


def test_the_anthropic_sdk_carries_thinking_and_two_steps_of_tools(claude: anthropic.Anthropic) -> None:
    messages: list[Any] = [{"role": "user", "content": CALLS}]
    asked: dict[str, Any] = {
        "model": "claude-opus-4-6",
        "max_tokens": 500,
        "thinking": {"type": "adaptive"},
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    }
    cities = []
    for _ in range(2):
        with claude.messages.stream(messages=messages, **asked) as stream:
            answer = stream.get_final_message()
        assert answer.stop_reason == "tool_use"
        assert answer.content[0].type == "thinking"
        uses = [block for block in answer.content if block.type == "tool_use"]
        cities.append([use.input["city"] for use in uses])
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
        results = [
            {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "21 degrees"}, image]}
            for use in uses
        ]
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    assert cities == [["Rome", "Oslo"], ["Bonn"]]
    final = claude.messages.create(messages=messages, **asked)
    text = next(block.text for block in final.content if block.type == "text")
    assert "The tool answered: 21 degrees" in text
    assert f"image seen: image/png, {len(PNG)} bytes" in text
    assert final.usage.cache_read_input_tokens


def test_the_anthropic_sdk_counts_lists_and_raises(claude: anthropic.Anthropic, upstreams: Upstreams) -> None:
    hello: list[Any] = [{"role": "user", "content": "Hello"}]
    assert claude.messages.count_tokens(model="claude-opus-4-6", messages=hello).input_tokens == 5
    assert next(iter(claude.models.list())).id == "claude-opus-4-6"
    assert claude.models.retrieve("claude-haiku-4-5").lifecycle == "active"
    wanted: Any = {"format": {"type": "json_schema", "schema": STRICT}}
    answer = claude.messages.create(model="claude-opus-4-6", max_tokens=99, messages=hello, output_config=wanted)
    assert json.loads(answer.content[0].text) == {"city": "simulated"}  # type: ignore[union-attr]
    upstreams.script({"dialect": "anthropic", "error": "overloaded", "at_chunk": 3})
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(claude.messages.create(model="claude-opus-4-6", max_tokens=99, messages=hello, stream=True))
    upstreams.script({"status": 529})
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(model="claude-opus-4-6", max_tokens=99, messages=hello)
    assert caught.value.body == {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}} | {
        "request_id": caught.value.body["request_id"]  # type: ignore[index]
    }
    upstreams.script()


def test_the_openai_sdk_carries_encrypted_reasoning_and_tools_of_both_kinds(gpt: openai.OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": CALLS + ' [call: shell "ls -l"]'}]
    asked: dict[str, Any] = {
        "model": "gpt-5.4",
        "store": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}, {"type": "custom", "name": "shell"}],
    }
    with gpt.responses.stream(input=items, **asked) as stream:
        names = [event.type for event in stream]
        first = stream.get_final_response()
    assert names[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert names[-1] == "response.completed"
    assert [item.type for item in first.output] == ["reasoning", "function_call", "function_call"]
    items += first.output
    items += [
        {"type": "function_call_output", "call_id": item.call_id, "output": "21"}
        for item in first.output
        if item.type == "function_call"
    ]
    second = gpt.responses.create(input=items, **asked)
    assert [item.type for item in second.output] == ["reasoning", "function_call", "custom_tool_call"]
    assert second.output[2].input == "ls -l"
    image = [{"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"}]
    items += second.output
    items += [
        {"type": "function_call_output", "call_id": second.output[1].call_id, "output": image},
        {"type": "custom_tool_call_output", "call_id": second.output[2].call_id, "output": "a.txt"},
    ]
    third = gpt.responses.create(input=items, **asked)
    assert "a.txt" in third.output_text
    assert f"image seen: image/png, {len(PNG)} bytes" in third.output_text
    assert third.usage is not None
    assert third.usage.input_tokens_details.cached_tokens == third.usage.input_tokens // 2
    with pytest.raises(openai.BadRequestError, match="could not be verified") as caught:
        gpt.with_options(api_key="sk-other").responses.create(input=items, **asked)
    assert caught.value.code == "invalid_encrypted_content"


def test_the_openai_sdk_gets_pictures_sound_and_the_rest(gpt: openai.OpenAI) -> None:
    picture = gpt.images.generate(model="gpt-image-1", prompt="a cat", n=2)
    assert picture.data is not None
    assert base64.b64decode(picture.data[1].b64_json or "").startswith(b"\x89PNG")
    assert gpt.images.edit(model="gpt-image-1", prompt="a cat", image=("cat.png", PNG)).data
    heard = gpt.audio.transcriptions.create(model="whisper-1", file=("speech.mp3", b"ID3" + bytes(97)))
    assert "heard speech.mp3" in heard.text
    assert "100 bytes" in heard.text
    with gpt.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Hello") as sound:
        assert sound.headers["content-type"] == "audio/mpeg"
        assert sound.read().startswith(b"ID3")
    assert gpt.moderations.create(model="omni-moderation-latest", input="some violence").results[0].flagged
    assert gpt.completions.create(model="gpt-4o", prompt="Once").choices[0].text.endswith("Once")
    parts = list(gpt.completions.create(model="gpt-4o", prompt="Once", stream=True))
    assert parts[-1].choices[0].finish_reason == "stop"
    assert gpt.responses.input_tokens.count(model="gpt-4o", input="Hello").input_tokens == 5


def test_the_google_sdk_carries_signatures_and_tools(gemini: genai.Client) -> None:
    declared: Any = [{"function_declarations": [{"name": "weather", "parameters_json_schema": SCHEMA}]}]
    config = types.GenerateContentConfig(
        tools=declared,
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level="low"),  # type: ignore[arg-type]
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents: list[Any] = [types.Content(role="user", parts=[types.Part(text=CALLS)])]
    answer = gemini.models.generate_content(model="gemini-3-flash", contents=contents, config=config)
    model = answer.candidates[0].content  # type: ignore[index]
    calls = [part.function_call for part in model.parts if part.function_call]  # type: ignore[union-attr]
    assert [call.args for call in calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    blob = types.FunctionResponseBlob(mime_type="image/png", data=PNG)
    replies = [
        types.Part(
            function_response=types.FunctionResponse(
                id=call.id,
                name=call.name,
                response={"result": "21 degrees"},
                parts=[types.FunctionResponsePart(inline_data=blob)],
            )
        )
        for call in calls
    ]
    contents += [model, types.Content(role="user", parts=replies)]
    chunks = list(gemini.models.generate_content_stream(model="gemini-3-flash", contents=contents, config=config))
    assert [call.args for chunk in chunks for call in chunk.function_calls or []] == [{"city": "Bonn"}]
    assert chunks[-1].usage_metadata.thoughts_token_count == 3  # type: ignore[union-attr]
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts or []]  # type: ignore[index,union-attr]
    contents.append(types.Content(role="model", parts=[part for part in parts if part.function_call]))
    answered = types.FunctionResponse(name="weather", response={"error": "no such city"})
    contents.append(types.Content(role="user", parts=[types.Part(function_response=answered)]))
    final = gemini.models.generate_content(model="gemini-3-flash", contents=contents, config=config)
    assert "The tool answered: (failed) no such city" in (final.text or "")
    assert f"image seen: image/png, {len(PNG)} bytes" in (final.text or "")
    with pytest.raises(errors.ClientError, match=r"Corrupted thought signature"):
        gemini.models.generate_content(model="gemini-3-pro", contents=contents, config=config)


def test_the_google_sdk_counts_embeds_lists_and_raises(gemini: genai.Client, upstreams: Upstreams) -> None:
    assert gemini.models.count_tokens(model="gemini-2.5-flash", contents="Hello").total_tokens == 5
    rows = gemini.models.embed_content(model="gemini-embedding-001", contents=["a", "b"]).embeddings or []
    assert [len(row.values or []) for row in rows] == [64, 64]
    assert "models/gemini-2.5-flash" in [model.name for model in gemini.models.list()]
    upstreams.script({"dialect": "gemini", "status": 503, "at_chunk": 2})
    with pytest.raises(errors.APIError, match="overloaded"):
        list(gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="Hello"))
    upstreams.script({"dialect": "gemini", "status": 429})
    with pytest.raises(errors.ClientError, match="RESOURCE_EXHAUSTED"):
        gemini.models.generate_content(model="gemini-2.5-flash", contents="Hello")
    upstreams.script()


def test_a_ranking(upstreams: Upstreams) -> None:
    asked = {"model": "m", "query": "red apple", "documents": ["a blue car", "the red apple"], "top_n": 1}
    answer = httpx2.post(f"{upstreams.url}/together/v1/rerank", json=asked).json()
    assert answer["results"] == [{"index": 1, "relevance_score": 1.0}]
