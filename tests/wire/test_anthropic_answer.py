"""Anthropic's complete answers: read, read for relaying, and written for its clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Citation,
    Foreign,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Signature,
    StopReason,
    Text,
    ToolUse,
    Usage,
)
from keyturn.wire.anthropic import ANTHROPIC
from keyturn.wire.dialect import Context
from keyturn.wire.signatures import pack
from tests.wire.golden_files import golden

ORIGIN = Origin("anthropic", "claude-x", "g1")
CONTEXT = Context(Call("anthropic", "chat", "claude-x", {}, 0), "k1", 0, "claude-x", 12)
GEMINI = Signature("Zw==", "gemini", Origin("google", "gemini-3", "g"))


def read(body: bytes) -> Answer | bytes | None:
    assert ANTHROPIC.read_answer is not None
    return ANTHROPIC.read_answer(body, ORIGIN)


def reply(body: bytes, kind: Any = "chat") -> Reply | bytes | None:
    assert ANTHROPIC.read_reply is not None
    return ANTHROPIC.read_reply(body, kind)


def write(
    *parts: Part, stop: StopReason | None = "stop", usage: Usage | None = None, stop_sequence: str = ""
) -> dict[str, Any]:
    """The Message for one choice, which is one that the SDK takes."""
    answer = Answer((Choice(parts, stop, stop_sequence),), usage=usage)
    message: dict[str, Any] = json.loads(ANTHROPIC.write_answer(answer, CONTEXT))
    Message.model_validate(message)
    return message


def test_everything_is_read() -> None:
    citation = json.loads(golden("anthropic/answer.response.json"))["content"][4]["citations"][0]
    answer = read(golden("anthropic/answer.response.json"))
    assert isinstance(answer, Answer)
    assert (answer.id, answer.model) == ("msg_up4", "claude-test-1")
    assert answer.usage == Usage(20, 42, 6, 9, written=4)
    raw = json.dumps(citation, separators=(",", ":")).encode()
    assert answer.choices == (
        Choice(
            (
                Reasoning("Rows first.", Signature("c2ln", "anthropic", ORIGIN)),
                Reasoning(signature=Signature("aGlk", "anthropic", ORIGIN), redacted=True),
                Foreign(
                    "anthropic",
                    "server_tool_use",
                    b'{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"peas"}}',
                ),
                Text("Peas. "),
                Text("In May.", citations=(Citation("https://peas.example", "Peas", "May", 6, 13, "anthropic", raw),)),
                ToolUse("toolu_1", "plant", '{"row":3}'),
            ),
            "tool_calls",
        ),
    )


def test_what_is_read_is_written_again() -> None:
    body = json.loads(golden("anthropic/answer.response.json"))
    answer = read(golden("anthropic/answer.response.json"))
    assert isinstance(answer, Answer)
    written = json.loads(ANTHROPIC.write_answer(answer, CONTEXT))
    body["content"][0]["signature"] = pack(Signature("c2ln", "anthropic", ORIGIN))
    body["content"][1]["data"] = pack(Signature("aGlk", "anthropic", ORIGIN))
    del body["usage"]["service_tier"]
    assert written == {**body, "id": "msg_k1", "stop_details": None}


def test_a_reply_for_relaying() -> None:
    assert reply(golden("anthropic/answer.response.json")) == Reply(
        "Peas. In May.", "tool_calls", Usage(20, 42, 6, 9, written=4), "claude-test-1", 1, signatures=("c2ln", "aGlk")
    )
    assert reply(b'{"content":[],"stop_reason":null}') == Reply(empty=True)
    assert reply(b'{"input_tokens":9}', "count") == Reply()


@pytest.mark.parametrize(
    "body", [b'{"type":"error","error":{"type":"api_error"}}', b'{"error":{"message":"no"}}', b'{"type":"error"}']
)
def test_errors_are_handed_on(body: bytes) -> None:
    assert read(body) == reply(body) == reply(body, "count") == body


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"content":"Hi"}', b"3"])
def test_garbage(body: bytes) -> None:
    assert read(body) is reply(body) is reply(body, "count") is None


@pytest.mark.parametrize(
    ("said", "stop"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop_sequence"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause"),
        ("future", "other"),
        (None, None),
    ],
)
def test_stop_reasons(said: str | None, stop: StopReason | None) -> None:
    answer = read(json.dumps({"content": [{"type": "text", "text": "Hi"}], "stop_reason": said}).encode())
    assert isinstance(answer, Answer)
    assert answer.choices[0].stop == stop
    back = {"model_context_window_exceeded": "max_tokens", "future": "end_turn", None: "end_turn"}.get(said, said)
    assert write(Text("Hi"), stop=stop)["stop_reason"] == back


def test_calls_decide_whether_it_stopped_for_them() -> None:
    assert write(ToolUse("a", "f"), stop="stop")["stop_reason"] == "tool_use"
    assert write(ToolUse("a", "f"), stop="length")["stop_reason"] == "max_tokens"
    assert write(Text("Hi"), stop="tool_calls")["stop_reason"] == "end_turn"
    assert write(Text("Hi"), stop="stop_sequence", stop_sequence="END")["stop_sequence"] == "END"


def test_a_refusal() -> None:
    body = {"content": [], "stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "Not this."}}
    answer = read(json.dumps(body).encode())
    assert isinstance(answer, Answer)
    assert answer.choices[0].parts == (Refusal("Not this."),)
    message = write(Refusal("Not this."))
    assert message["content"] == [{"type": "text", "text": "Not this.", "citations": None}]
    assert message["stop_reason"] == "refusal"
    assert message["stop_details"] == {"type": "refusal", "category": None, "explanation": "Not this."}


def test_another_dialects_signatures_travel_in_thinking_blocks() -> None:
    empty = {"type": "thinking", "thinking": "", "signature": pack(GEMINI)}
    call = ToolUse("a", "f", signature=GEMINI)
    assert write(call)["content"][0] == empty
    assert write(Reasoning("Hm"), call)["content"][0] == {**empty, "thinking": "Hm"}
    assert [block["type"] for block in write(call, call)["content"]] == ["thinking", "tool_use", "tool_use"]
    assert write(Text("Hi", signature=GEMINI))["content"][1] == empty


def test_odd_parts() -> None:
    content = write(
        Text(""),
        Foreign("gemini", "executableCode", b"{}"),
        ToolUse("", "f", "not json"),
        ToolUse("a.b", "g", "plain", free=True),
        ToolUse("c", "h", "[1]"),
        Reasoning("unsigned"),
    )["content"]
    assert [(block.get("id"), block.get("input")) for block in content] == [
        ("call_k1_0", {"input": "not json"}),
        ("a_b", {"input": "plain"}),
        ("c", {"input": [1]}),
        (None, None),
    ]
    assert content[3] == {"type": "thinking", "thinking": "unsigned", "signature": ""}


def test_usage() -> None:
    assert write(Text("Hi"))["usage"]["input_tokens"] == 12
    usage = {"input_tokens": 2.0, "output_tokens": 10**30, "cache_read_input_tokens": None}
    answer = read(json.dumps({"content": [], "stop_reason": "end_turn", "usage": usage}).encode())
    assert isinstance(answer, Answer)
    assert answer.usage == Usage(2, 1_000_000_000)


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    answer = read(b'{"content":[{"type":"text","text":"a\\ud800"},{"type":"x_tool_result","y":"\\ud800"}]}')
    assert isinstance(answer, Answer)
    assert b'"a?"' in ANTHROPIC.write_answer(answer, CONTEXT)


loose = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from("text thinking tool_use é \ud800".split()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from("type text input id name content usage input_tokens stop_reason citations error".split()),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40) | st.builds(lambda content: json.dumps({"content": [content]}).encode(), loose))
def test_nothing_makes_it_raise(body: bytes) -> None:
    reply(body)
    reply(body, "count")
    answer = read(body)
    if isinstance(answer, Answer):
        json.loads(ANTHROPIC.write_answer(answer, CONTEXT))
