"""Responses answers: read from an upstream, written for a client whole or as a stream, checked with OpenAI's SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import Stream
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from keyturn.core import (
    Answer,
    Boundary,
    Call,
    Choice,
    Citation,
    Cited,
    Delta,
    Foreign,
    Media,
    Origin,
    Ping,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Reply,
    Signature,
    Signed,
    Started,
    Stopped,
    Text,
    TextDelta,
    ToolDelta,
    ToolEnded,
    ToolStarted,
    ToolUse,
    Usage,
    Used,
)
from keyturn.errors import Capacity, UpstreamInterrupted
from keyturn.wire.dialect import Context
from keyturn.wire.responses import RESPONSES, count_body, parse_responses
from keyturn.wire.responses_stream import ResponsesReader
from keyturn.wire.signatures import MARK

GOLDEN = Path(__file__).with_name("golden") / "responses"
STREAMS = sorted(path.name.partition(".")[0] for path in GOLDEN.glob("*.upstream.sse"))
ORIGIN = Origin("openai", "gpt-5.6", "g1")
CLAUDE = Signature("Q2xhdWRl", "anthropic", Origin("anthropic", "claude", "g"))
GEMINI = Signature("R2VtaW5p", "gemini", Origin("google", "flash", "g"))
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def call() -> Call:
    return parse_responses((GOLDEN / "client.json").read_bytes(), {})


CONTEXT = Context(call(), "k1", 1_790_000_001, "route")


def events(raw: bytes) -> Iterator[dict[str, Any]]:
    for piece in raw.decode().split("\n\n"):
        if piece.startswith("event: "):
            name, data = piece.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert event["type"] == name.removeprefix("event: ")
            yield event


def stream(*deltas: Delta) -> bytes:
    writer = RESPONSES.writer(CONTEXT)
    return b"".join(writer.write([delta]) for delta in deltas) + writer.end()


def output(*deltas: Delta) -> list[dict[str, Any]]:
    return list(events(stream(*deltas)))[-1]["response"]["output"]  # type: ignore[no-any-return]


def whole(*parts: Any, **more: Any) -> dict[str, Any]:
    answer = Answer((Choice(parts, **more),), "up", "gpt-5.6", usage=Usage(1, 2))
    return json.loads(RESPONSES.write_answer(answer, CONTEXT))  # type: ignore[no-any-return]


# --- streams for a client -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_for_a_client(name: str) -> None:
    deltas = ResponsesReader(ORIGIN).feed((GOLDEN / f"{name}.upstream.sse").read_bytes())
    assert stream(*deltas) == (GOLDEN / f"{name}.client.sse").read_bytes()


@pytest.mark.parametrize("name", STREAMS)
def test_the_sdk_takes_every_event_and_puts_them_together(name: str) -> None:
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=[], text_format=openai.omit)
    raw = (GOLDEN / f"{name}.client.sse").read_bytes()
    last: Any = None
    for number, event in enumerate(events(raw)):
        assert event["sequence_number"] == number
        last = EVENT.validate_python(event)
        state.handle_event(last)
    assert last.type == ("response.incomplete" if "incomplete" in name else "response.completed")


def test_an_answer_is_what_its_stream_ends_with() -> None:
    for name in ("text", "reasoning_tools", "hosted_incomplete", "refusal", "open_reasoning"):
        upstream = list(events((GOLDEN / f"{name}.upstream.sse").read_bytes()))[-1]["response"]
        assert RESPONSES.read_answer is not None
        answer = RESPONSES.read_answer(json.dumps(upstream).encode(), ORIGIN)
        assert isinstance(answer, Answer)
        body = json.loads(RESPONSES.write_answer(answer, CONTEXT))
        assert body == list(events((GOLDEN / f"{name}.client.sse").read_bytes()))[-1]["response"]
        Response.model_validate(body)


def test_calls_may_interleave_and_text_goes_on_between_them() -> None:
    raw = stream(
        TextDelta("One."),
        ToolStarted(0, "a", "weather"),
        ToolStarted(1, "", "files__list"),
        ToolDelta(1, '{"x"'),
        ToolDelta(0, "{}"),
        TextDelta("Two."),
        ToolDelta(1, ":1}"),
        ToolEnded(1),
        Stopped("tool_calls"),
    )
    first, one, two, second = list(events(raw))[-1]["response"]["output"]
    assert [first["content"][0]["text"], second["content"][0]["text"]] == ["One.", "Two."]
    assert (one["call_id"], one["name"], one["arguments"]) == ("a", "weather", "{}")
    assert (two["call_id"], two["name"], two["namespace"]) == ("call_k1_2", "list", "files")
    assert two["arguments"] == '{"x":1}'
    done = [event["output_index"] for event in events(raw) if event["type"] == "response.output_item.done"]
    assert done == [0, 2, 1, 3]


def test_a_free_tool_called_with_an_object_gets_its_text() -> None:
    (item,) = output(ToolStarted(0, "a", "shell"), ToolDelta(0, '{"inp'), ToolDelta(0, 'ut":"ls"}'), ToolEnded(0))
    assert (item["type"], item["input"]) == ("custom_tool_call", "ls")
    (odd,) = output(ToolStarted(0, "a", "shell"), ToolDelta(0, "ls"), ToolEnded(0))
    assert odd["input"] == "ls"


def test_a_call_without_arguments_has_an_empty_object() -> None:
    raw = stream(ToolStarted(0, "a", "weather"), ToolEnded(0))
    assert [event["delta"] for event in events(raw) if event["type"].endswith("arguments.delta")] == ["{}"]


def test_what_was_cut_off_says_so() -> None:
    raw = stream(TextDelta("All."), ToolStarted(0, "a", "weather"), ToolDelta(0, '{"pl'), Stopped("length"))
    body = list(events(raw))[-1]["response"]
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in body["output"]] == ["completed", "incomplete"]


def test_signatures_go_where_they_come_back_from() -> None:
    signed, hidden, mark, called = output(
        ReasoningDelta("Hm."),
        Signed(CLAUDE),
        Signed(CLAUDE, redacted=True),
        ToolStarted(0, "a", "weather", signature=GEMINI),
        ToolEnded(0),
    )
    assert called["type"] == "function_call"
    history = [{"role": "user", "content": "x"}, signed, hidden, mark, called]
    body = {"model": "m", "input": history}
    request = RESPONSES.read_request(parse_responses(json.dumps(body).encode(), {}))
    assert request.messages[1].parts == (
        Reasoning("Hm.", CLAUDE, id="rs_k1_0"),
        Reasoning("", CLAUDE, True, "rs_k1_1"),
        ToolUse("a", "weather", "{}", signature=GEMINI),
    )


def test_thoughts_that_nobody_signed_are_marked_so_that_openai_never_sees_them() -> None:
    thoughts, said = output(ReasoningDelta("Hm."), TextDelta("x"))
    assert thoughts["encrypted_content"].startswith(MARK)
    assert output(Signed(CLAUDE, redacted=True))[0]["encrypted_content"].startswith(MARK)
    body = {"model": "m", "input": [{"role": "user", "content": "x"}, thoughts, said]}
    request = RESPONSES.read_request(parse_responses(json.dumps(body).encode(), {}))
    assert request.messages[1].parts == (Reasoning("Hm.", id="rs_k1_0"), Text("x"))


def test_open_thoughts_take_the_signature_of_the_call_behind_them() -> None:
    thoughts, _ = output(ReasoningDelta("Hm."), ToolStarted(0, "a", "weather", signature=GEMINI))
    assert thoughts["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert thoughts["encrypted_content"].endswith(GEMINI.value)
    parts = (Reasoning("Hm."), ToolUse("a", "weather", "{}", signature=GEMINI))
    assert whole(*parts)["output"][0] == thoughts


def test_parts_sources_pings_and_other_choices() -> None:
    cited = Citation("https://a.example", "A", dialect="anthropic", raw=b"{}")
    raw = stream(
        Started(usage=Usage(7)),
        TextDelta("One"),
        Cited(cited),
        Cited(Citation(quote="no address")),
        Boundary(),
        Ping(),
        TextDelta("Two"),
        TextDelta("never", choice=1),
        Stopped("stop", choice=1),
        ReasoningDelta("\ud800"),
    )
    assert b"\n\n: ping\n\n" in raw
    body = list(events(raw.replace(b": ping\n\n", b"")))[-1]["response"]
    message, thoughts = body["output"]
    assert [part["text"] for part in message["content"]] == ["One", "Two"]
    assert message["content"][0]["annotations"] == [
        {"type": "url_citation", "start_index": 0, "end_index": 3, "title": "A", "url": "https://a.example"}
    ]
    assert thoughts["summary"][0]["text"] == "?"
    assert (body["status"], body["usage"]["input_tokens"]) == ("completed", 7)


def test_usage_comes_last_and_whole() -> None:
    raw = stream(TextDelta("x"), Used(Usage(1, 1)), Stopped("stop"), Used(Usage(9, 5, 3, 2, written=1)))
    assert list(events(raw))[-1]["response"]["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }


# --- whole answers --------------------------------------------------------------------------------------------------


def test_a_whole_answer_of_another_dialect() -> None:
    logprobs = json.dumps({"content": [{"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}]}).encode()
    foreign = Foreign("anthropic", "server_tool_use", b"{}")
    body = whole(Text("x"), foreign, Refusal("No."), Media("image", "image/png", "aGk="), logprobs=logprobs)
    message, picture = body["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert message["content"][0]["logprobs"] == json.loads(logprobs)["content"]
    assert (picture["type"], picture["result"]) == ("image_generation_call", "aGk=")
    Response.model_validate(body)


def test_a_client_hears_what_it_asked_for() -> None:
    body = whole(Text("x"))
    request = json.loads((GOLDEN / "client.json").read_bytes())
    assert body["metadata"] == request["metadata"]
    assert [tool["name"] for tool in body["tools"]] == ["weather", "shell", "files"]
    said = (body["id"], body["model"], body["created_at"], body["store"], body["previous_response_id"])
    assert said == ("resp_k1", "gpt-5.6", 1_790_000_001, False, None)


def test_read_answers_and_replies() -> None:
    upstream = list(events((GOLDEN / "reasoning_tools.upstream.sse").read_bytes()))[-1]["response"]
    body = json.dumps(upstream).encode()
    assert RESPONSES.read_answer is not None
    assert RESPONSES.read_reply is not None
    answer = RESPONSES.read_answer(body, ORIGIN)
    assert isinstance(answer, Answer)
    assert answer.choices[0].parts[0] == Reasoning(
        "Look up.\n\nAnswer.", Signature("gAAAwhole", "openai_responses", ORIGIN), id="rs_u1"
    )
    assert answer.choices[0].parts[3] == ToolUse("call_u3", "list", "{}", namespace="files")
    usage = Usage(20, 9, 8, 5, written=4)
    reply = Reply("", "tool_calls", usage, "gpt-5.6", 3, False, ("gAAAwhole",))
    assert RESPONSES.read_reply(body, "chat") == reply
    assert RESPONSES.read_reply(count_body(5), "count") == Reply()
    assert RESPONSES.read_reply(b'{"output":[]}', "chat") == Reply(stop="stop", empty=True)


FAILED = [
    b'{"status":"failed","error":{"code":"server_error","message":"Oh"},"output":[]}',
    b'{"error":{"code":"server_error","message":"Oh"}}',
]


@pytest.mark.parametrize("body", FAILED)
def test_an_error_under_200(body: bytes) -> None:
    assert RESPONSES.read_answer is not None
    assert RESPONSES.read_reply is not None
    for found in (RESPONSES.read_answer(body, ORIGIN), RESPONSES.read_reply(body, "chat")):
        assert isinstance(found, bytes)
        assert json.loads(found) == {"error": {"code": "server_error", "message": "Oh"}}


def test_what_no_utf8_can_hold_is_replaced() -> None:
    assert RESPONSES.read_answer is not None
    raw = rb'{"output":[{"type":"odd","n":12345678901234567890,"s":"a\ud800","l":[NaN,true,{"\udfff":null}]}]}'
    answer = RESPONSES.read_answer(raw, ORIGIN)
    assert isinstance(answer, Answer)
    (part,) = answer.choices[0].parts
    assert isinstance(part, Foreign)
    assert json.loads(part.raw) == {
        "type": "odd",
        "n": 12345678901234567890,
        "s": "a?",
        "l": [None, True, {"?": None}],
    }


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=3)
    | st.sampled_from(["message", "reasoning", "function_call", "incomplete", "failed", "output_text", "refusal"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from("type content summary encrypted_content text name id arguments annotations error".split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
MEMBERS = "output status error usage model id created_at incomplete_details input_tokens".split()


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(MEMBERS), VALUES), st.lists(VALUES, max_size=3), st.binary(max_size=20))
def test_any_body_is_read_without_an_exception(body: dict[str, Any], items: list[Any], noise: bytes) -> None:
    assert RESPONSES.read_answer is not None
    assert RESPONSES.read_reply is not None
    for raw in (json.dumps({**body, "output": items}).encode(), json.dumps(body).encode(), noise):
        answer = RESPONSES.read_answer(raw, ORIGIN)
        if isinstance(answer, Answer):
            RESPONSES.write_answer(answer, CONTEXT)
        RESPONSES.read_reply(raw, "chat")
        RESPONSES.read_reply(raw, "count")


# --- errors ---------------------------------------------------------------------------------------------------------


def test_the_sdk_raises_our_error_in_a_stream() -> None:
    raw = RESPONSES.error_event(UpstreamInterrupted("The upstream broke off."), "k1", [])
    with openai.OpenAI(api_key="x", base_url="http://127.0.0.1:1") as client:
        request = httpx2.Request("POST", "http://127.0.0.1:1/responses")
        answer = httpx2.Response(200, content=raw, request=request)
        with pytest.raises(openai.APIError) as caught:
            list(Stream(cast_to=object, response=answer, client=client))
    assert (caught.value.message, caught.value.code) == ("The upstream broke off.", "upstream_interrupted")
    event = json.loads(raw.split(b"data: ")[1])
    assert raw.startswith(b"event: error\n")
    assert (event["type"], event["code"], event["message"]) == ("error", "upstream_interrupted", caught.value.message)


def test_errors_are_those_of_openai() -> None:
    body = json.loads(RESPONSES.error_body(Capacity("Full."), "k1", []))
    assert body["error"]["code"] == "capacity"
    assert json.loads(count_body(12)) == {"object": "response.input_tokens", "input_tokens": 12}
