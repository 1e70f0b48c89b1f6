"""Reading an OpenAI Chat request: every field finds its place, and each mistake is told with its own."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from keyturn.core import (
    Foreign,
    Media,
    Message,
    Origin,
    Reasoning,
    Refusal,
    Request,
    Shape,
    Signature,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from keyturn.errors import BadRequest
from keyturn.wire import pack, parse_chat
from keyturn.wire.chat import CHAT

from .steps import is_linear

PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
PDF = b64encode(b"%PDF-1.7 a").decode()
CALL = {"id": "call_1", "type": "function", "function": {"name": "sum", "arguments": '{"a":1}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def read(messages: list[Any] | None = None, **members: Any) -> Request:
    body = {"model": "m", "messages": messages or [{"role": "user", "content": "Hi"}], **members}
    return CHAT.read_request(parse_chat(json.dumps(body).encode(), {}))


def turns(*messages: Any) -> tuple[Message, ...]:
    return read(list(messages)).messages


def said(*content: Any) -> tuple[Any, ...]:
    return turns({"role": "user", "content": list(content)})[0].parts


def refused(messages: list[Any] | None = None, **members: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(messages, **members)
    return caught.value


# --- turns ----------------------------------------------------------------------------------------------------------


def test_every_role() -> None:
    assert turns(
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Now."}]},
        {"role": "user", "content": "1+1?", "name": "ann"},
        CALLED,
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "2."},
    ) == (
        Message("system", (Text("Be brief."),)),
        Message("system", (Text("Now."),)),
        Message("user", (Text("1+1?"),), "ann"),
        Message("assistant", (ToolUse("call_1", "sum", '{"a":1}'),)),
        Message("user", (ToolResult("call_1", (Text("2"),), "sum"),)),
        Message("user", (Text("And?"),)),
        Message("assistant", (Text("2."),)),
    )


def test_neighbouring_results_are_one_message() -> None:
    second = {**CALL, "id": "call_2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    _, results = turns(
        {"role": "assistant", "tool_calls": [CALL, second]},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "a"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": ""},
    )
    assert results.parts == (ToolResult("call_2", (Text("a"),), "sh", free=True), ToolResult("call_1", (), "sum"))


def test_the_older_function_call() -> None:
    call, result = turns(
        {"role": "assistant", "content": None, "function_call": {"name": "sum", "arguments": ""}},
        {"role": "function", "name": "sum", "content": "2"},
    )
    assert call.parts == (ToolUse("call_0", "sum"),)
    assert result.parts == (ToolResult("call_0", (Text("2"),), "sum"),)


def test_an_assistant_that_said_nothing_is_left_out() -> None:
    assert len(turns({"role": "user", "content": "a"}, {"role": "assistant", "content": ""})) == 1


def test_what_an_assistant_can_say() -> None:
    (turn,) = turns(
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "No."},
                {"type": "refusal", "refusal": "Not that."},
            ],
            "audio": {"id": "audio_1"},
        }
    )
    assert turn.parts == (
        Reasoning("hm"),
        Text("No."),
        Refusal("Not that."),
        Foreign("openai_chat", "audio", b'{"id":"audio_1"}'),
    )


def test_thinking_and_its_signatures() -> None:
    origin = Origin("claude", "opus", "g")
    packed = pack(Signature("s1", "anthropic", origin))
    form = "anthropic-claude-v1"
    (turn,) = turns(
        {
            "role": "assistant",
            "content": "4",
            "reasoning_content": "ignored where details tell it",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "two and ", "format": form, "index": 0},
                {"type": "reasoning.text", "text": "two", "format": form, "index": 0},
                {"type": "reasoning.text", "signature": packed, "format": form, "index": 0},
                {"type": "reasoning.encrypted", "data": "e1", "format": form},
                {"type": "reasoning.summary", "summary": "short", "id": "rs_1", "format": "openai-responses-v1"},
                {"type": "reasoning.encrypted", "data": "e2", "id": "rs_1", "format": "openai-responses-v1"},
                {"type": "reasoning.unheard"},
                "odd",
            ],
        }
    )
    assert turn.parts == (
        Reasoning("two and two", Signature("s1", "anthropic", origin)),
        Reasoning("", Signature("e1", "anthropic"), redacted=True),
        Reasoning("short", Signature("e2", "openai_responses"), id="rs_1"),
        Text("4"),
    )


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_without_a_signature(name: str) -> None:
    (turn,) = turns({"role": "assistant", "content": "4", name: "two and two"})
    assert turn.parts == (Reasoning("two and two"), Text("4"))


def test_a_signature_that_came_alone_finds_its_thinking() -> None:
    details = [{"type": "reasoning.text", "signature": "s", "format": "anthropic-claude-v1"}]
    (turn,) = turns({"role": "assistant", "reasoning_content": "hm", "reasoning_details": details})
    assert turn.parts == (Reasoning("hm", Signature("s", "anthropic")),)


def test_googles_signature_of_a_call() -> None:
    call = {**CALL, "extra_content": {"google": {"thought_signature": "sig"}}}
    (turn,) = turns({"role": "assistant", "tool_calls": [call]})
    assert turn.parts == (ToolUse("call_1", "sum", '{"a":1}', signature=Signature("sig", "gemini")),)


# --- parts ----------------------------------------------------------------------------------------------------------


def test_media() -> None:
    assert said(
        {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}", "detail": "low"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": PDF}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,SGk=", "filename": "a.txt"}},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
    ) == (
        Media("image", "image/png", PNG, detail="low"),
        Media("image", url="https://example.org/a.png"),
        Media("audio", "audio/wav", "UklGRg=="),
        Media("document", "application/pdf", PDF, name="a.pdf"),
        Media("document", "application/pdf", PDF),
        Media("document", file_id="file-1"),
        Media("document", "text/plain", text="Hi", name="a.txt"),
        Media("video", url="https://example.org/a.mp4"),
    )


def test_cache_marks() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    assert said(
        {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}},
        {"type": "text", "text": "b", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {**image, "cache_control": {"type": "ephemeral"}},
    ) == (Text("a", "12h"), Text("b", "30m"), Media("image", url="https://example.org/a.png", cache="5m"))


# --- the other fields -----------------------------------------------------------------------------------------------


def test_plain_fields() -> None:
    request = read(
        max_completion_tokens=9,
        max_tokens=5,
        temperature=1,
        top_p=0.5,
        top_k=40,
        stop="END",
        seed=7.0,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        n=2,
        logprobs=True,
        top_logprobs=3,
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        verbosity="low",
        service_tier="flex",
        reasoning_effort="minimal",
        parallel_tool_calls=False,
        stream=True,
        stream_options={"include_usage": True},
        store=None,
        metadata={"a": "b"},
        logit_bias={"1": 1.50},
    )
    others = {"metadata": b'{"a": "b"}', "logit_bias": b'{"1": 1.5}'}
    assert request == Request(
        "openai_chat",
        "m",
        (Message("user", (Text("Hi"),)),),
        parallel=False,
        thinking=Thinking("minimal"),
        max_output=9,
        temperature=1.0,
        top_p=0.5,
        top_k=40,
        stop=("END",),
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        n=2,
        logprobs=True,
        top_logprobs=3,
        user="s",
        cache_key="k",
        verbosity="low",
        tier="flex",
        stream=True,
        wants_usage=True,
        others=others,
    )


def test_the_conversation_has_the_name_that_the_client_gives_it() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"prompt_cache_key":%s}'
    assert parse_chat(body % b'"thread-1"', {}).conversation == "thread-1"
    assert parse_chat(body % b"7", {}).conversation == ""


def test_tools() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: A"}}
    request = read(
        tools=[
            {"type": "function", "function": {"name": "sum", "description": "Adds.", "parameters": {}, "strict": True}},
            {"type": "custom", "custom": {"name": "sh", "format": grammar}},
            {"type": "browser", "depth": 2},
        ]
    )
    assert request.tools == (
        Tool("sum", "Adds.", b"{}", strict=True),
        Tool("sh", schema=b'{"type":"grammar","syntax":"lark","definition":"start: A"}', free=True),
    )
    assert request.hosted == (Foreign("openai_chat", "browser", b'{"type":"browser","depth":2}'),)


def test_the_older_functions_are_called_one_at_a_time() -> None:
    request = read(functions=[{"name": "sum"}], function_call={"name": "sum"})
    assert (request.tools, request.choice, request.parallel) == ((Tool("sum"),), ToolChoice("any", ("sum",)), False)
    assert read(functions=[{"name": "sum"}], function_call="none").choice == ToolChoice("none")


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("any")),
        ("none", ToolChoice("none")),
        ({"type": "function", "function": {"name": "a"}}, ToolChoice("any", ("a",))),
        ({"type": "custom", "custom": {"name": "b"}}, ToolChoice("any", ("b",))),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "a"}}]},
            },
            ToolChoice("auto", ("a",)),
        ),
    ],
)
def test_tool_choice(given: Any, choice: ToolChoice) -> None:
    assert read(tool_choice=given).choice == choice


def test_structured_output() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
    assert read(response_format={"type": "text"}).shape is None
    assert read(response_format={"type": "json_object"}).shape == Shape("object")
    assert read(response_format={"type": "json_schema", "json_schema": schema}).shape == Shape(
        "schema", b'{"type":"object"}', "n", "d", True
    )


# --- mistakes -------------------------------------------------------------------------------------------------------


def user(part: Any) -> list[Any]:
    return [{"role": "user", "content": [part]}]


DEEP: dict[str, Any] = {}
for _ in range(60):
    DEEP = {"properties": DEEP}


@pytest.mark.parametrize(
    ("messages", "members", "place", "words"),
    [
        ([{"content": "Hi"}], {}, "messages[0].role", "missing"),
        ([{"role": "robot", "content": "Hi"}], {}, "messages[0].role", "known are developer"),
        ([{"role": "user"}], {}, "messages[0].content", "missing"),
        ([{"role": "user", "content": 5}], {}, "messages[0].content", "a string, or a list"),
        ([{"role": "user", "content": ["Hi"]}], {}, "messages[0].content[0]", "an object"),
        (user({"type": "input_text", "text": "Hi"}), {}, "messages[0].content[0].type", "known are text, image_url"),
        (user({"type": "text", "text": 5}), {}, "messages[0].content[0].text", "a string"),
        (user({"type": "image_url"}), {}, "messages[0].content[0].image_url", "missing"),
        (user({"type": "image_url", "image_url": {"url": "cat"}}), {}, "messages[0].content[0].image_url.url", "http"),
        (
            user({"type": "image_url", "image_url": {"url": "data:image/png;base64,SGk="}}),
            {},
            "messages[0].content[0].image_url.url",
            "not those of an image",
        ),
        (user({"type": "file", "file": {}}), {}, "messages[0].content[0].file.file_data", "missing"),
        (user({"type": "input_audio"}), {}, "messages[0].content[0].input_audio", "missing"),
        (user({"type": "video_url"}), {}, "messages[0].content[0].video_url", "missing"),
        ([{"role": "system", "content": [{"type": "file"}]}], {}, "messages[0].content[0].type", "system message"),
        ([{"role": "tool", "content": "2"}], {}, "messages[0].tool_call_id", "missing"),
        (
            [CALLED, {"role": "tool", "tool_call_id": "call_9", "content": "2"}],
            {},
            "messages[1].tool_call_id",
            "no tool",
        ),
        ([CALLED, {"role": "function", "name": "other", "content": "2"}], {}, "messages[1].name", "no call"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], {}, "messages[0].tool_calls[0].id", "missing"),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}], {}, "messages[0].tool_calls[0].function", "missing"),
        (None, {"tools": [{"type": "function"}]}, "tools[0].function", "missing"),
        (None, {"tools": [{"function": {"name": "a", "parameters": 1}}]}, "tools[0].function.parameters", "an object"),
        (None, {"tools": [{"function": {"name": "a", "parameters": DEEP}}]}, "tools[0].function.parameters", "deep"),
        (None, {"tool_choice": "always"}, "tool_choice", "known are auto"),
        (None, {"tool_choice": 5}, "tool_choice", "an object"),
        (None, {"tool_choice": {"type": "robot"}}, "tool_choice.type", "known are function"),
        (None, {"response_format": {"type": "yaml"}}, "response_format.type", "known are text"),
        (None, {"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
        (None, {"reasoning_effort": "huge"}, "reasoning_effort", "known are none"),
        (None, {"temperature": "hot"}, "temperature", "a number"),
        (None, {"stop": [5]}, "stop[0]", "a string"),
        (None, {"n": 0}, "n", "at least 1"),
        (None, {"logprobs": 1}, "logprobs", "true or false"),
    ],
)
def test_mistakes_are_told_with_their_place(messages: Any, members: dict[str, Any], place: str, words: str) -> None:
    error = refused(messages, **members)
    assert error.param == place
    assert words in error.message


@pytest.mark.parametrize("kind", [[], {}, ["reasoning.text"], None, 1])
def test_thinking_of_an_unknown_kind_is_passed_over(kind: Any) -> None:
    details = [{"type": kind, "text": "a"}, {"type": "reasoning.text", "index": [], "text": "b"}]
    (turn,) = turns({"role": "assistant", "content": "c", "reasoning_details": details})
    assert turn.parts == (Reasoning("b"), Text("c"))


@pytest.mark.parametrize(
    ("choice", "place"),
    [
        ("", "tool_choice"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "", "tools": []}}, "tool_choice.allowed_tools.mode"),
        ({"type": "allowed_tools", "mode": "none", "tools": []}, "tool_choice.mode"),
    ],
)
def test_a_choice_of_nothing_is_refused(choice: Any, place: str) -> None:
    assert refused(tool_choice=choice).param == place


def test_calls_of_the_older_kind_are_found_at_once() -> None:
    def reading(size: int) -> Callable[[], object]:
        calls = [{**CALL, "id": f"c{at}", "function": {"name": f"f{at}"}} for at in range(size)]
        results = [{"role": "function", "name": f"f{at}", "content": "r"} for at in reversed(range(size))]
        body = {"model": "m", "messages": [{"role": "assistant", "tool_calls": calls}, *results]}
        call = parse_chat(json.dumps(body).encode(), {})
        return lambda: CHAT.read_request(call)

    assert is_linear(reading)
