"""OpenAI Chat answers that are not streamed: read whole from every kind of server, and written for clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Citation,
    Media,
    Origin,
    Reasoning,
    Refusal,
    Signature,
    Text,
    ToolUse,
    Usage,
)
from keyturn.wire import Context, parse_chat, unpack
from keyturn.wire.chat import CHAT

from .golden_files import golden

ORIGIN = Origin("up", "m-1", "g")
CALL = {"id": "call_1", "type": "function", "function": {"name": "sum", "arguments": '{"a": 1.0}'}}


def body(message: Any = None, finish_reason: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message or {"role": "assistant", "content": "Hi"}, "finish_reason": finish_reason}
    return json.dumps({"id": "c-1", "object": "chat.completion", "model": "m-1", "choices": [choice], **more}).encode()


def read(given: bytes) -> Answer:
    assert CHAT.read_answer is not None
    answer = CHAT.read_answer(given, ORIGIN)
    assert isinstance(answer, Answer)
    return answer


def choice(message: Any, finish_reason: Any = "stop") -> Choice:
    return read(body(message, finish_reason)).choices[0]


def context(**members: Any) -> Context:
    asked = {"model": "alias", "messages": [{"role": "user", "content": "Hi"}], **members}
    call: Call = parse_chat(json.dumps(asked).encode(), {})
    return Context(call, "7", 1_790_000_000, "m-0")


def write(answer: Answer, **members: Any) -> dict[str, Any]:
    written = CHAT.write_answer(answer, context(**members))
    ChatCompletion.model_validate_json(written, strict=True)
    decoded: dict[str, Any] = json.loads(written)
    return decoded


def message(*parts: Any, stop: Any = "stop", **members: Any) -> dict[str, Any]:
    found: dict[str, Any] = write(Answer((Choice(parts, stop),)), **members)["choices"][0]
    return found


# --- read -----------------------------------------------------------------------------------------------------------


def test_a_plain_answer() -> None:
    usage = {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 6},
    }
    assert read(body(usage=usage, created=1_790_000_001, service_tier="flex")) == Answer(
        (Choice((Text("Hi"),), "stop"),),
        "c-1",
        "m-1",
        1_790_000_001,
        Usage(19, 10, cached=4, reasoning=6, written=5),
        "flex",
    )


def test_calls() -> None:
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    found = choice({"content": None, "tool_calls": [CALL, custom]}, "tool_calls")
    assert found == Choice(
        (ToolUse("call_1", "sum", '{"a": 1.0}'), ToolUse("call_2", "sh", "ls", free=True)), "tool_calls"
    )


def test_calls_as_some_servers_bend_them() -> None:
    bent = [{"function": {"name": "sum", "arguments": {"a": 1}}}, {"function": {"arguments": "{}"}}, "odd"]
    assert choice({"tool_calls": bent}) == Choice((ToolUse("", "sum", '{"a":1}'),), "tool_calls")
    legacy = {"function_call": {"name": "sum", "arguments": ""}}
    assert choice(legacy, "function_call") == Choice((ToolUse("", "sum"),), "tool_calls")


def test_thinking_of_every_kind() -> None:
    assert choice({"content": "4", "reasoning_content": "hm"}).parts == (Reasoning("hm"), Text("4"))
    assert choice({"content": "4", "reasoning": "hm"}).parts == (Reasoning("hm"), Text("4"))
    details = [{"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1"}]
    signed = Reasoning("hm", Signature("s", "anthropic", ORIGIN))
    assert choice({"content": "4", "reasoning": "hm", "reasoning_details": details}).parts == (signed, Text("4"))
    mistral = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "4"}]
    assert choice({"content": mistral}).parts == (Reasoning("hm"), Text("4"))


def test_a_refusal_sources_and_pictures() -> None:
    assert choice({"content": None, "refusal": "No."}).parts == (Refusal("No."),)
    source = {"url": "https://example.org", "title": "t", "start_index": 0, "end_index": 2}
    annotation = {"type": "url_citation", "url_citation": source}
    (text,) = choice({"content": "Hi", "annotations": [annotation, {"type": "file_citation"}]}).parts
    assert isinstance(text, Text)
    assert [(each.url, each.title, each.start, each.end) for each in text.citations] == [
        ("https://example.org", "t", 0, 2)
    ]
    images = [
        {"type": "image_url", "image_url": {"url": url}} for url in ("data:image/png;base64,AA==", "https://e.org/a")
    ]
    assert choice({"content": "", "images": images}).parts == (
        Media("image", "image/png", "AA=="),
        Media("image", url="https://e.org/a"),
    )
    assert choice({"content": None, "audio": {"transcript": "Hello"}}).parts == (Text("Hello"),)


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("length", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
        ("eos", "other"),
        (7, "other"),
        (None, None),
    ],
)
def test_why_it_stopped(finish: Any, stop: str | None) -> None:
    assert choice({"content": "a"}, finish).stop == stop


def test_errors_and_garbage() -> None:
    assert CHAT.read_answer is not None
    for error in (b'{"error": {"message": "no"}}', b'[{"error": {"code": 4}}]', b'{"object": "error"}'):
        assert CHAT.read_answer(error, ORIGIN) == error
    for garbage in (b"", b"<html>", b"[]", b"{}", b'{"choices": {}}', b"[" * 5000):
        assert CHAT.read_answer(garbage, ORIGIN) is None
    assert read(b'{"choices":[],"usage":null}').choices == ()
    assert read(b'{"choices":[{"message":"text"},7]}').choices == (Choice(()),)
    assert read(b'{"choices":[{"message":{"content":"a\\ud800"},"logprobs":{"content":[NaN]}}]}').choices[0].parts == (
        Text("a?"),
    )


# --- written --------------------------------------------------------------------------------------------------------


def test_an_answer_of_another_dialect() -> None:
    answer = Answer(
        (
            Choice(
                (
                    Reasoning("two and two", Signature("s1", "anthropic", ORIGIN)),
                    Reasoning("", Signature("e1", "anthropic", ORIGIN), redacted=True),
                    Text("It is ", citations=(Citation("https://example.org", "t"), Citation(quote="of a document"))),
                    Text("4."),
                    ToolUse("toolu_1", "sum", '{"a":1}'),
                    ToolUse("", "look", "{}", signature=Signature("g1", "gemini", ORIGIN)),
                ),
                "tool_calls",
            ),
        ),
        "msg_1",
        "opus",
        usage=Usage(19, 10, cached=4, reasoning=6, written=5),
        tier="default",
    )
    assert write(answer) == json.loads(golden("chat/signed.answer.json"))


def test_a_signature_comes_back_to_its_maker() -> None:
    made = Signature("s1", "anthropic", ORIGIN)
    written = message(Reasoning("hm", made), Text("4"))["message"]
    body = {"model": "m", "messages": [{"role": "user", "content": "2+2"}, written]}
    request = CHAT.read_request(parse_chat(json.dumps(body).encode(), {}))
    assert request.messages[1].parts == (Reasoning("hm", made), Text("4"))
    assert unpack(written["reasoning_details"][0]["signature"], "") == made


def test_content_is_null_only_beside_calls_and_refusals() -> None:
    assert message()["message"]["content"] == ""
    assert message(Refusal("No."))["message"] == {"role": "assistant", "content": None, "refusal": "No."}
    assert message(ToolUse("1", "f"), stop=None)["message"]["content"] is None


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        (None, "stop"),
        ("stop_sequence", "stop"),
        ("pause", "stop"),
        ("other", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
    ],
)
def test_finish_reasons(stop: str | None, finish: str) -> None:
    assert message(Text("a"), stop=stop)["finish_reason"] == finish


def test_a_free_tool_gets_its_text_back() -> None:
    tools = [{"type": "custom", "custom": {"name": "sh"}}]
    wrapped = ToolUse("1", "sh", '{"input": "ls"}')
    for use in (wrapped, ToolUse("1", "sh", "ls", free=True)):
        assert message(use, tools=tools)["message"]["tool_calls"] == [
            {"id": "1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
        ]
    broken = message(ToolUse("1", "sh", "no json"), tools=tools)
    assert broken["message"]["tool_calls"][0]["custom"]["input"] == "no json"


def test_a_client_that_knows_only_functions() -> None:
    found = message(ToolUse("1", "f", '{"a":1}'), stop="tool_calls", functions=[{"name": "f"}])
    assert found["finish_reason"] == "function_call"
    assert found["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in found["message"]


def test_pictures() -> None:
    found = message(Text("Here."), Media("image", "image/png", "AA=="))["message"]
    assert found["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


def test_log_probabilities_and_several_choices() -> None:
    logprobs = b'{"content":[{"token":"a","logprob":-0.5,"bytes":null,"top_logprobs":[]}]}'
    found = write(Answer((Choice((Text("a"),), "stop", logprobs=logprobs), Choice((Text("b"),), "length"))))
    assert [each["index"] for each in found["choices"]] == [0, 1]
    assert found["choices"][0]["logprobs"] == json.loads(logprobs)
    assert (found["id"], found["created"], found["model"]) == ("chatcmpl-7", 1_790_000_000, "m-0")
