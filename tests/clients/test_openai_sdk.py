"""The official `openai` SDK, sync and async, against `keyturn serve`: every feature through a pool of failing keys."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Literal

import msgspec
import openai
import pytest
from pydantic import BaseModel

from keyturn.simulator import Exchange
from tests.support.serving import Served, Upstreams

from .conftest import BROKEN, DEAD, EACH_WAY, FAULTS, LIMITED, SLOW, Sdk, options_of, run, say, text_of

pytestmark = EACH_WAY

GPT = "openai/gpt-4o"
HELLO = "This is the Keyturn simulator (openai/gpt-4o): … You said: Hello"
ALL_KEYS = [DEAD, LIMITED, BROKEN, SLOW]

CITY = 'Zürich "Nord" \\ \u2028 ☃ 😀'
ARGUMENTS = json.dumps({"city": CITY, "degrees": 1.50, "when": "now"}, ensure_ascii=False)
"""What the simulator's model calls a tool with: as its provider wrote it, not as this gateway would."""
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"const": CITY}, "degrees": {"const": 1.50}, "when": {"enum": ["now", "then"]}},
            "required": ["city", "degrees", "when"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Wind(BaseModel):
    speed: float
    gusts: bool


class Weather(BaseModel):
    city: str
    sky: Literal["clear", "cloudy"]
    winds: list[Wind]


SIMULATED_WEATHER = Weather(city="simulated", sky="clear", winds=[Wind(speed=1.0, gusts=True)])
"""What the simulator makes of the schema of `Weather`."""


def members(body: bytes) -> dict[str, bytes]:
    """The top-level members of a JSON object, their values as they were written."""
    return {name: bytes(raw) for name, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}


def assert_untouched(sdk: Sdk, exchanges: list[Exchange], **changed: bytes) -> None:
    """Every upstream got what the SDK had sent, byte for byte, but for the model's name and *changed*."""
    [sent] = sdk.sent
    expected = members(sent.content) | {"model": b'"gpt-4o"'} | changed
    assert exchanges
    for exchange in exchanges:
        assert members(exchange.body) == expected


def test_chat(sdk: Sdk, upstreams: Upstreams) -> None:
    answer = sdk.chat(GPT, temperature=0.30, extra_body={"x_unknown": {"b": 1e-07, "a": [None, 1e22]}})
    assert answer.choices[0].message.content == HELLO
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert [each.key for each in upstreams.seen()] == ALL_KEYS
    assert [each.status for each in upstreams.seen()] == [401, 429, 500, 200]
    assert_untouched(sdk, upstreams.seen())
    assert members(upstreams.seen()[-1].body)["x_unknown"] == b'{"b":1e-07,"a":[null,1e+22]}'  # as Python writes them


def test_headers_tell_what_answered(sdk: Sdk, gateway: Served) -> None:
    create = {"model": GPT, "messages": say("Hello")}
    raw = sdk.call(lambda client: client.chat.completions.with_raw_response.create(**create))
    assert raw.headers["x-keyturn-provider"] == "openai"
    assert raw.headers["x-keyturn-model"] == "gpt-4o"
    assert raw.headers["x-keyturn-key"].startswith("openai-4:")
    assert raw.headers["x-keyturn-attempts"] == "4"
    assert "x-fallback-provider" not in raw.headers
    assert raw.request_id == raw.headers["x-keyturn-call"]
    assert raw.parse()._request_id == raw.request_id
    assert gateway.states()["openai-1"] == "invalid"
    assert gateway.states()["openai-2"] == "cooling"


def test_a_dead_key_costs_one_attempt_in_all(sdk: Sdk, upstreams: Upstreams) -> None:
    for _ in range(5):
        assert sdk.chat(GPT).choices[0].message.content == HELLO
    assert len(upstreams.seen(key=DEAD)) == 1
    assert len(upstreams.seen(key=LIMITED)) == 1
    assert len(upstreams.seen(key=SLOW)) == 5


def test_stream(sdk: Sdk, upstreams: Upstreams) -> None:
    chunks = sdk.stream(GPT)
    assert text_of(chunks) == HELLO
    assert len(chunks) > 5
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert [each.status for each in upstreams.seen()] == [401, 429, 500, 200]
    assert_untouched(sdk, upstreams.seen(), stream_options=b'{"include_usage":true}')


def test_stream_with_usage(sdk: Sdk, upstreams: Upstreams) -> None:
    chunks = sdk.stream(GPT, stream_options={"include_usage": True})
    assert text_of(chunks) == HELLO
    *others, last = chunks
    assert last.choices == []
    assert last.usage == sdk.chat(GPT).usage
    assert all(chunk.usage is None for chunk in others)


def test_the_streaming_helper(sdk: Sdk) -> None:
    options = {"model": GPT, "messages": say("Hello"), "stream_options": {"include_usage": True}}
    events, final = sdk.events(lambda client: client.chat.completions.stream(**options))
    assert "".join(event.delta for event in events if event.type == "content.delta") == HELLO
    assert [event.content for event in events if event.type == "content.done"] == [HELLO]
    assert final.choices[0].message.content == HELLO
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.completion_tokens > 0


def test_a_tool_call_and_its_answer(sdk: Sdk, upstreams: Upstreams) -> None:
    answer = sdk.chat(GPT, "Call get_weather please", tools=[TOOL], tool_choice="auto")
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert call.function.arguments == ARGUMENTS
    assert_untouched(sdk, upstreams.seen())

    sdk.sent.clear()
    upstreams.forget()
    history: list[Any] = [*say("Call get_weather please"), answer.choices[0].message]
    history.append({"role": "tool", "tool_call_id": call.id, "content": '{"degrees":  1.50}'})
    create = {"model": GPT, "messages": history, "tools": [TOOL]}
    after = sdk.call(lambda client: client.chat.completions.create(**create))
    assert after.choices[0].message.content.endswith('The tool answered: {"degrees":  1.50}')
    assert_untouched(sdk, upstreams.seen())


def test_an_answer_comes_as_its_provider_wrote_it(sdk: Sdk, upstreams: Upstreams) -> None:
    arguments = ' {"city" :"Z\\u00fcrich",\n "degrees":1.50, "degrees": 1E2 }'
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call], "x_more": 1.50}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    told = {"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2", "choices": [choice]}
    body = json.dumps(told, indent=3).replace("call_1", "call\\u005f1")
    upstreams.script({"key": SLOW, "body": body}, *FAULTS)
    create = {"model": GPT, "messages": say("Hello"), "tools": [TOOL]}
    raw = sdk.call(lambda client: client.chat.completions.with_raw_response.create(**create))
    assert raw.content == body.encode()
    assert raw.parse().choices[0].message.tool_calls[0].function.arguments == arguments


def test_streamed_tool_calls_are_put_together(sdk: Sdk) -> None:
    options = {"model": GPT, "messages": say("Call get_weather please"), "tools": [TOOL]}
    events, final = sdk.events(lambda client: client.chat.completions.stream(**options))
    parts = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert len(parts) > 1
    assert "".join(parts) == ARGUMENTS
    [call] = final.choices[0].message.tool_calls
    assert call.function.arguments == ARGUMENTS
    assert call.function.parsed_arguments == json.loads(ARGUMENTS)
    assert final.choices[0].finish_reason == "tool_calls"


def test_an_answer_in_a_json_schema(sdk: Sdk, upstreams: Upstreams) -> None:
    schema = {
        "name": "weather",
        "strict": True,
        "schema": {**Weather.model_json_schema(), "additionalProperties": False},
    }
    answer = sdk.chat(GPT, response_format={"type": "json_schema", "json_schema": schema})
    assert Weather.model_validate_json(answer.choices[0].message.content) == SIMULATED_WEATHER
    assert_untouched(sdk, upstreams.seen())


def test_an_answer_parsed_into_a_model(sdk: Sdk) -> None:
    parse: Any = {"model": GPT, "messages": say("Hello"), "response_format": Weather}
    answer = sdk.call(lambda client: client.chat.completions.parse(**parse))
    assert answer.choices[0].message.parsed == SIMULATED_WEATHER
    _, final = sdk.events(lambda client: client.chat.completions.stream(**parse))
    assert final.choices[0].message.parsed == SIMULATED_WEATHER


def test_an_image_is_passed_on_as_it_is(sdk: Sdk, upstreams: Upstreams) -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 400).decode()
    image = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
    answer = sdk.call(lambda client: client.chat.completions.create(model=GPT, messages=messages))
    assert answer.choices[0].message.content.endswith("You said: What is this? I was sent 1 image(s).")
    assert_untouched(sdk, upstreams.seen())
    assert json.loads(upstreams.seen(key=SLOW)[0].body)["messages"] == messages


def test_embeddings(sdk: Sdk, upstreams: Upstreams) -> None:
    create: Any = {"model": "openai/text-embedding-3-small", "input": ["Hello", "Grüezi"]}
    usual = sdk.call(lambda client: client.embeddings.create(**create))
    assert members(sdk.sent[0].content)["encoding_format"] == b'"base64"'
    assert [each.status for each in upstreams.seen()] == [401, 429, 500, 200]
    assert members(upstreams.seen()[-1].body)["encoding_format"] == b'"base64"'
    assert [row.index for row in usual.data] == [0, 1]
    assert usual.usage.prompt_tokens > 0

    floats = sdk.call(lambda client: client.embeddings.create(**create, encoding_format="float"))
    for row, same in zip(usual.data, floats.data, strict=True):
        assert len(row.embedding) == 64
        assert row.embedding == pytest.approx(same.embedding, abs=1e-6)
    assert usual.data[0].embedding != usual.data[1].embedding

    create["input"] = [[15496, 11], [995]]
    short = sdk.call(lambda client: client.embeddings.create(**create, dimensions=8))
    assert [len(row.embedding) for row in short.data] == [8, 8]


def test_models(sdk: Sdk) -> None:
    page = sdk.call(lambda client: client.models.list())
    owners = {model.id: model.owned_by for model in page.data}
    assert owners.pop("auto") == "keyturn"
    assert owners["groq/openai/gpt-oss-20b"] == "groq"
    assert owners["openai/gpt-4o-mini"] == "openai", "three bad keys hide the list of the provider"
    assert set(owners.values()) == {"openai", "groq", "deepseek", "mistral"}


@pytest.mark.parametrize("name", ["groq/openai/gpt-oss-20b", "openai/gpt-4o-mini", "deepseek/deepseek-chat"])
def test_one_model(sdk: Sdk, name: str) -> None:
    model = sdk.call(lambda client: client.models.retrieve(name))
    assert (model.id, model.object, model.owned_by) == (name, "model", name.partition("/")[0])


def test_an_id_with_a_slash(sdk: Sdk, upstreams: Upstreams) -> None:
    answer = sdk.chat("groq/openai/gpt-oss-20b")
    assert answer.choices[0].message.content.startswith("This is the Keyturn simulator (groq/openai/gpt-oss-20b)")
    assert [each.model for each in upstreams.seen()] == ["openai/gpt-oss-20b"]


def test_many_calls_at_once_over_one_client(gateway: Served, upstreams: Upstreams) -> None:
    async def main() -> list[Any]:
        async with openai.AsyncOpenAI(**options_of(gateway, asynchronous=True)) as client:
            return await asyncio.gather(*(one(client, number) for number in range(30)))

    async def one(client: openai.AsyncOpenAI, number: int) -> Any:
        create: Any = {"model": "openai/gpt-4o-mini", "messages": say(f"Number {number}"), "stream": number % 2 == 0}
        answer: Any = await client.chat.completions.create(**create)
        if not create["stream"]:
            return answer.choices[0].message.content
        return text_of([chunk async for chunk in answer])

    texts = run(main)
    assert [text.partition("You said: ")[2] for text in texts] == [f"Number {number}" for number in range(30)]
    assert len(upstreams.seen(status=200)) == 30
