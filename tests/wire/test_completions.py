"""Legacy completions: parsed thinly, read as a chat of one message, answered in their own shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Delta,
    Message,
    Ping,
    Reasoning,
    ReasoningDelta,
    Started,
    Stopped,
    Text,
    TextDelta,
    ToolUse,
    Usage,
    Used,
)
from keyturn.errors import BadRequest, Untranslatable
from keyturn.wire import Context
from keyturn.wire.completions import COMPLETIONS, parse_completions

LOGPROBS = (
    b'{"content":[{"token":"a ","logprob":-0.5,"top_logprobs":[{"token":"b","logprob":-1}]},'
    b'{"token":"c","logprob":-2},7]}'
)
SHOWN = {
    "tokens": ["a ", "c"],
    "token_logprobs": [-0.5, -2],
    "top_logprobs": [{"b": -1}, {}],
    "text_offset": [0, 2],
}


def parse(prompt: Any = "Say hi", **members: Any) -> Call:
    return parse_completions(json.dumps({"model": "m", "prompt": prompt, **members}).encode(), {})


def context(**members: Any) -> Context:
    return Context(parse(**members), "7", 1_790_000_000, "m-0")


def test_the_call() -> None:
    call = parse(max_tokens=5, stream=True, stream_options={"include_usage": True})
    assert (call.dialect, call.kind, call.model, call.max_output) == ("openai_completions", "completions", "m", 5)
    assert (call.stream, call.wants_usage, call.text_bytes) == (True, True, len('"Say hi"'))
    assert parse([1, 2]).members["prompt"] == b"[1, 2]"  # whoever serves completions may take it
    nothing: Any
    for nothing in (None, "", []):
        with pytest.raises(BadRequest, match="prompt"):
            parse(nothing)


def test_a_prompt_is_what_a_user_says() -> None:
    request = COMPLETIONS.read_request(parse(["Say hi"], logprobs=2, stop=["."], n=2, best_of=2, suffix="", echo=False))
    assert request.messages == (Message("user", (Text("Say hi"),)),)
    assert (request.logprobs, request.top_logprobs, request.stop, request.n) == (True, 2, (".",), 2)
    assert request.others == {"best_of": b"2"}


@pytest.mark.parametrize(
    ("prompt", "members", "place", "words"),
    [
        (["a", "b"], {}, "prompt", "2 prompts"),
        ([[1, 2]], {}, "prompt", "tokens"),
        ([1, 2], {}, "prompt", "tokens"),
        ([""], {}, "prompt", "not empty"),
        ({"a": 1}, {}, "prompt", "a string"),
        ("a", {"suffix": "z"}, "suffix", "no counterpart"),
        ("a", {"echo": True}, "echo", "no counterpart"),
        ("a", {"logprobs": "many"}, "logprobs", "a whole number"),
    ],
)
def test_what_no_chat_can_answer(prompt: Any, members: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        COMPLETIONS.read_request(parse(prompt, **members))
    assert caught.value.param == place
    assert words in caught.value.message
    assert isinstance(caught.value, Untranslatable) is (place in ("suffix", "echo"))


def test_the_answer() -> None:
    parts = (Reasoning("hm"), Text("a "), Text("c"), ToolUse("1", "f"))
    answer = Answer(
        (Choice(parts, "tool_calls", logprobs=LOGPROBS), Choice((), "length")), model="m-1", usage=Usage(3, 2)
    )
    written = COMPLETIONS.write_answer(answer, context())
    Completion.model_validate_json(written)
    body = json.loads(written)
    assert (body["id"], body["object"], body["created"], body["model"]) == (
        "cmpl-7",
        "text_completion",
        1_790_000_000,
        "m-1",
    )
    assert body["choices"] == [
        {"text": "a c", "index": 0, "logprobs": SHOWN, "finish_reason": "stop"},
        {"text": "", "index": 1, "logprobs": None, "finish_reason": "length"},
    ]
    assert body["usage"]["total_tokens"] == 5


def stream(*deltas: Delta, **members: Any) -> list[dict[str, Any]]:
    writer = COMPLETIONS.writer(context(stream=True, **members))
    written = writer.write(deltas) + writer.end()
    assert written.endswith(b"\n\ndata: [DONE]\n\n")
    found = [event[6:] for event in written.split(b"\n\n")[:-2] if not event.startswith(b":")]
    for each in found:
        Completion.model_validate_json(each.replace(b'"finish_reason":null', b'"finish_reason":"stop"'))
    return [json.loads(each) for each in found]


def test_the_stream() -> None:
    found = stream(
        Started("x", "m-1", created=5),
        Ping(),
        ReasoningDelta("hm"),
        TextDelta("a c", 0, LOGPROBS),
        TextDelta("d", 0, b'{"content":[{"token":"d","logprob":0}]}'),
        TextDelta("e", 1, b"{}"),
        Stopped("length"),
        Stopped("stop"),
        Used(Usage(3, 2)),
        stream_options={"include_usage": True},
    )
    assert {(each["id"], each["object"], each["created"], each["model"]) for each in found} == {
        ("cmpl-7", "text_completion", 5, "m-1")
    }
    choices = [each["choices"][0] for each in found[:-1]]
    assert [(each["index"], each["text"], each["finish_reason"]) for each in choices] == [
        (0, "a c", None),
        (0, "d", None),
        (1, "e", None),
        (0, "", "length"),
        (1, "", "stop"),
    ]
    assert choices[0]["logprobs"] == SHOWN
    assert choices[1]["logprobs"]["text_offset"] == [3]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["prompt_tokens"] == 3


def test_a_stream_of_nothing() -> None:
    (only,) = stream()
    assert only["choices"][0] == {"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}
    assert "usage" not in only
