"""read_reply: usable, an error to classify, or garbage; and the lists of models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.core import Kind, Reply, Usage
from keyturn.wire import model_body, models_body, read_reply

from .golden_files import golden


def chat(*, message: Any = None, finish_reason: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message or {"role": "assistant", "content": "Hi"}, "finish_reason": finish_reason}
    return json.dumps({"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice], **more}).encode()


def test_a_usable_answer() -> None:
    usage = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
    assert read_reply(chat(usage=usage, error=None), "chat") == Reply(
        text="Hi", stop="stop", usage=Usage(19, 10), model="m-1"
    )


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("eos", "other"),
        (None, None),
    ],
)
def test_why_it_stopped(finish: str | None, stop: str | None) -> None:
    reply = read_reply(chat(finish_reason=finish), "chat")
    assert isinstance(reply, Reply)
    assert reply.stop == stop


def test_tool_calls_and_content_as_a_list() -> None:
    message = {"content": [{"type": "text", "text": "a"}], "tool_calls": [{"id": "1"}, {"id": "2"}]}
    reply = read_reply(chat(message=message, finish_reason="tool_calls"), "chat")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.tool_calls) == ("", 2)


def test_blank_lines_may_lead() -> None:
    assert isinstance(read_reply(b"\n\n\r\n \n" + chat(), "chat"), Reply)


def test_an_answer_without_choices_is_empty() -> None:
    assert read_reply(b'{"choices":[]}', "chat") == Reply(empty=True)
    assert read_reply(b'{"data":[]}', "embeddings") == Reply(empty=True)


@pytest.mark.parametrize(
    "odd",
    [
        {"message": {"content": {"parts": []}}},
        {"finish_reason": 3},
        {"model": 7},
        {"usage": "none"},
        {"message": "text"},
    ],
)
def test_a_member_of_another_type_does_not_make_an_answer_unusable(odd: dict[str, Any]) -> None:
    assert isinstance(read_reply(chat(**odd), "chat"), Reply)


def test_an_answer_with_nan_is_usable_and_its_usage_counts() -> None:
    body = chat(usage={"prompt_tokens": 1, "completion_tokens": 2}, logprob=float("-inf"))
    assert read_reply(body, "chat") == Reply(usage=Usage(1, 2), model="m-1")


def test_embeddings() -> None:
    body = b'{"object":"list","data":[{"embedding":[0.1]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}'
    assert read_reply(body, "embeddings") == Reply(usage=Usage(8, 0), model="e")
    assert (
        read_reply(b'{"data":[{}],"error":{"message":"x"}}', "embeddings") == b'{"data":[{}],"error":{"message":"x"}}'
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"code":429,"message":"Provider returned error"},"user_id":"u"}',
        b'{"error":"Model busy"}',
        b'[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]',
        b'{"object":"error","message":"x","code":400}',
        chat(error={"message": "x"}),
        b'\n{"choices":null,"error":{"message":"x"}}',
    ],
)
@pytest.mark.parametrize("kind", ["chat", "embeddings"])
def test_a_200_that_is_an_error_is_handed_on_to_classify(body: bytes, kind: Kind) -> None:
    assert read_reply(body, kind) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Bad gateway</body></html>",
        b"null",
        b"[]",
        b'"choices"',
        b"{}",
        b'{"choices":null}',
        b'{"choices":{}}',
        b'{"message":"busy"}',
        b'{"error":null}',
        b'[{"choices":[]}]',
        chat()[:-5],
        b"data: {}\n\n",
        b"[" * 100_000,
        b'{"choices":[' + b"[" * 100_000,
        b'{"data":[{}]}',
    ],
)
def test_garbage(body: bytes) -> None:
    assert read_reply(body, "chat") is None


def test_the_lists_of_models() -> None:
    rows = [("groq/llama-3.1-8b-instant", "groq", 1693721698), ("gemini/gemini-2.5-flash", "gemini", 0)]
    assert models_body(rows) == golden("models.json")
    assert json.loads(model_body(*rows[0])) == json.loads(golden("models.json"))["data"][0]
