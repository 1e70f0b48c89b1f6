"""Responses streams of an upstream: read into deltas whatever the chunks, and watched while they are relayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Boundary,
    Cited,
    ForeignPart,
    Origin,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Signature,
    Signed,
    Started,
    Stopped,
    TextDelta,
    ToolDelta,
    ToolEnded,
    ToolStarted,
    Usage,
    Used,
)
from keyturn.errors import TransportError
from keyturn.wire.dialect import AnswerStream
from keyturn.wire.responses import RESPONSES, parse_responses
from keyturn.wire.responses_stream import ResponsesReader
from keyturn.wire.sse import split

GOLDEN = Path(__file__).with_name("golden") / "responses"
STREAMS = sorted(path.name.partition(".")[0] for path in GOLDEN.glob("*.upstream.sse"))
ORIGIN = Origin("openai", "gpt-5.6", "g1")
USAGE = Usage(20, 9, 8, 5, written=4)
STARTED = Started("resp_up", "gpt-5.6", created=1_790_000_000)


def stream(name: str) -> bytes:
    return (GOLDEN / f"{name}.upstream.sse").read_bytes()


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def read(*chunks: bytes) -> tuple[ResponsesReader, list[Any]]:
    reader = ResponsesReader(ORIGIN)
    return reader, [delta for chunk in chunks for delta in reader.feed(chunk)] + reader.end()


def watching() -> AnswerStream:
    assert RESPONSES.watch is not None
    return RESPONSES.watch(parse_responses(b'{"model":"m","input":"x","stream":true}', {}))


# --- read -----------------------------------------------------------------------------------------------------------

DELTAS: dict[str, list[Any]] = {
    "text": [STARTED, *map(TextDelta, ["Grüß", " dich", "."]), Boundary(), Used(USAGE), Stopped("stop")],
    "refusal": [STARTED, RefusalDelta("I can"), RefusalDelta("not."), Boundary(), Used(USAGE), Stopped("stop")],
    "open_reasoning": [
        STARTED,
        ReasoningDelta("Open ", summary=False),
        ReasoningDelta("thoughts.", summary=False),
        Boundary(),
        TextDelta("Hm."),
        Boundary(),
        Used(USAGE),
        Stopped("stop"),
    ],
    "reasoning_tools": [
        STARTED,
        *map(ReasoningDelta, ["Look", " up.", "\n\n", "Answer."]),
        Signed(Signature("gAAAwhole", "openai_responses", ORIGIN), id="rs_u1"),
        Boundary(),
        ToolStarted(0, "call_u1", "weather"),
        ToolDelta(0, '{"place"'),
        ToolDelta(0, ':"Oslo"}'),
        ToolEnded(0),
        ToolStarted(1, "call_u2", "shell", free=True),
        ToolDelta(1, "ls"),
        ToolDelta(1, " -l"),
        ToolEnded(1),
        ToolStarted(2, "call_u3", "list", namespace="files"),
        ToolDelta(2, "{}"),
        ToolEnded(2),
        Used(USAGE),
        Stopped("tool_calls"),
    ],
    "few_events": [
        Started("resp_few"),
        TextDelta("Whole."),
        Boundary(),
        ToolStarted(0, "call_w", "weather"),
        ToolDelta(0, '{"place":"Rome"}'),
        ToolEnded(0),
        Used(Usage(3, 2)),
        Stopped("tool_calls"),
    ],
}


@pytest.mark.parametrize("name", DELTAS)
def test_the_deltas_of_a_stream(name: str) -> None:
    reader, deltas = read(stream(name))
    assert deltas == DELTAS[name]
    assert (reader.finished, reader.done, reader.error) == (True, True, None)


def test_hosted_tools_citations_and_a_cut() -> None:
    _, deltas = read(stream("hosted_incomplete"))
    (foreign,) = (delta.part for delta in deltas if isinstance(delta, ForeignPart))
    (cited,) = (delta.citation for delta in deltas if isinstance(delta, Cited))
    assert (foreign.dialect, foreign.what) == ("openai_responses", "web_search_call")
    assert json.loads(foreign.raw)["action"] == {"type": "search", "query": "colour"}
    assert (cited.url, cited.title, cited.start, cited.end) == ("https://hues.example", "Hues", 5, 8)
    assert deltas[-1] == Stopped("length")


@pytest.mark.parametrize("name", STREAMS)
def test_chunks_do_not_matter(name: str) -> None:
    whole = stream(name)
    assert read(*(whole[at : at + 1] for at in range(len(whole))))[1] == read(whole)[1]
    crlf = whole.replace(b"\n", b"\r\n")
    assert read(crlf)[1] == read(whole)[1]


def test_logprobs_have_the_shape_of_chat() -> None:
    probable = {"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}
    _, deltas = read(event("response.output_text.delta", delta="a", output_index=0, logprobs=[probable]))
    assert json.loads(deltas[0].logprobs) == {"content": [probable]}


def test_members_of_other_types_than_documented() -> None:
    odd = event("response.output_text.delta", delta="a", output_index="0", logprobs=5, item_id=7)
    _, deltas = read(odd, event("response.output_text.delta", delta=None), event("response.later"), event("keepalive"))
    assert deltas == [TextDelta("a", logprobs=b'{"content":5}'), Ping()]


ERRORS: list[tuple[bytes, dict[str, Any]]] = [
    (
        event("response.failed", response={"status": "failed", "error": {"code": "server_error", "message": "Oh"}}),
        {"code": "server_error", "message": "Oh"},
    ),
    (
        event("error", code="rate_limit_exceeded", message="Slow down", param=None, sequence_number=3),
        {"code": "rate_limit_exceeded", "message": "Slow down", "param": None},
    ),
    (event("error", error={"code": "x", "message": "Inner"}), {"code": "x", "message": "Inner"}),
    (b'data: {"error":{"message":"Bare"}}\n\n', {"message": "Bare"}),
    (b'{"error":{"message":"No stream at all"}}', {"message": "No stream at all"}),
]


@pytest.mark.parametrize(("raw", "error"), ERRORS)
def test_an_error_in_a_stream(raw: bytes, error: dict[str, Any]) -> None:
    begin = event("response.created", response={"id": "r"})
    reader, _ = read(begin, raw)
    assert reader.error is not None
    assert json.loads(reader.error)["error"] == error
    watch = watching()
    relayed = watch.feed(begin) + watch.feed(raw)
    assert not watch.end()
    assert watch.error is not None
    assert json.loads(watch.error)["error"] == error
    assert relayed == begin


def test_nothing_counts_after_the_end() -> None:
    _, deltas = read(stream("text"), event("response.output_text.delta", delta="more"))
    assert deltas == DELTAS["text"]


def test_a_stream_that_is_cut_is_not_finished() -> None:
    reader, deltas = read(stream("text")[:-400])
    assert not reader.finished
    assert Stopped("stop") not in deltas


def test_an_event_that_is_too_large() -> None:
    reader = ResponsesReader(ORIGIN, max_event=100)
    with pytest.raises(TransportError):
        reader.feed(b"data: " + b"x" * 200)


# --- watched --------------------------------------------------------------------------------------------------------

STARTS = {"text": 4, "reasoning_tools": 4, "hosted_incomplete": 5, "few_events": 1, "refusal": 4, "open_reasoning": 4}
"""Which event is the first output."""


@pytest.mark.parametrize("name", STARTS)
def test_a_stream_is_relayed_as_it_comes(name: str) -> None:
    watch = watching()
    for number, raw in enumerate(split(stream(name))):
        assert watch.feed(raw) == raw
        assert watch.started == (number >= STARTS[name])
    assert watch.end()
    assert (watch.finished, watch.done, watch.error) == (True, True, None)
    assert watch.usage == (Usage(3, 2) if name == "few_events" else USAGE)
    assert watch.signatures == (["gAAAwhole"] if name == "reasoning_tools" else [])
    assert watch.output_bytes > 0


@pytest.mark.parametrize("name", STREAMS)
def test_a_watch_does_not_care_for_chunks(name: str) -> None:
    watch, whole = watching(), stream(name)
    assert b"".join(watch.feed(whole[at : at + 7]) for at in range(0, len(whole), 7)) == whole
    assert watch.end()


def test_a_last_event_without_its_blank_line() -> None:
    watch, whole = watching(), stream("text")
    relayed = watch.feed(whole.rstrip(b"\n"))
    assert watch.end()
    assert relayed + watch.tail == whole


def test_a_watch_tells_a_cut() -> None:
    watch = watching()
    watch.feed(stream("text")[:-400])
    assert not watch.end()


# --- any bytes ------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"event: response.output_item.done\n",
        b"data: ",
        b"\n\n",
        b"\r\n",
        b'{"type":"response.output_item.done","item":',
        b'{"type":"response.output_text.delta","delta":"\\ud800","output_index":1e999}',
        b'{"type":"response.completed","response":{"usage":{"input_tokens":NaN},"output":[1,{}]}}',
        b'{"type":"function_call","arguments":"\\ud800","id":123456789012345678901234567890}}',
        b'{"type":"response.reasoning_text.delta","delta":{"a":[]}}',
        b'{"type":"error","error":"\\udfff"}',
        b'{"type":"reasoning","summary":[{"text":"a"},1],"encrypted_content":"x"}}',
        b'{"type":"web_search_call","n":123456789012345678901234567890,"s":"\\ud800"}}',
        b"[DONE]",
        b"[" * 3000,
    ]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=8), max_size=10))
def test_any_bytes_are_read_without_an_exception(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    _, deltas = read(body)
    watch = watching()
    watch.feed(body)
    watch.end()
    context_free = [delta for delta in deltas if isinstance(delta, TextDelta | ToolDelta)]
    for delta in context_free:
        (delta.text if isinstance(delta, TextDelta) else delta.arguments).encode()
