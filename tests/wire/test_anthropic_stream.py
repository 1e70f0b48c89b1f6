"""Anthropic's event streams: read, written, and watched as they are relayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from keyturn.core import (
    Boundary,
    Call,
    Citation,
    Cited,
    Delta,
    Foreign,
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
from keyturn.wire.anthropic import ANTHROPIC
from keyturn.wire.dialect import AnswerStream, Context, StreamReader
from keyturn.wire.signatures import pack
from keyturn.wire.sse import read_event, split
from tests.wire.golden_files import golden
from tests.wire.steps import is_linear

ORIGIN = Origin("anthropic", "claude-x", "g1")
CALL = Call("anthropic", "chat", "claude-x", {}, 0)
CONTEXT = Context(CALL, "k1", 0, "claude-x", 12)
GEMINI = Signature("Zw==", "gemini", Origin("google", "gemini-3", "g"))
STREAMS = ("diary", "cut_call", "refusal")
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def stream(name: str) -> bytes:
    return golden(f"anthropic/{name}.sse")


def reader() -> StreamReader:
    assert ANTHROPIC.reader is not None
    return ANTHROPIC.reader(ORIGIN)


def watch() -> AnswerStream:
    assert ANTHROPIC.watch is not None
    return ANTHROPIC.watch(CALL)


def read(body: bytes, size: int = 0) -> tuple[list[Delta], StreamReader]:
    """What *body* says, in chunks of *size* bytes, and its reader at the end."""
    own = reader()
    size = size or max(1, len(body))
    said = [delta for at in range(0, len(body), size) for delta in own.feed(body[at : at + size])]
    return said + own.end(), own


def write(*deltas: Delta, finish: bool = True) -> list[dict[str, Any]]:
    """The events for *deltas*, each of which the SDK takes."""
    writer = ANTHROPIC.writer(CONTEXT)
    written = b"".join(writer.write([delta]) for delta in deltas) + (writer.end() if finish else b"")
    return events(written)


def events(written: bytes) -> list[dict[str, Any]]:
    found = []
    for raw in split(written):
        event = read_event(raw)
        if event.data is None:
            continue
        data = json.loads(event.data)
        assert data["type"] == event.name
        if event.name != "ping":
            EVENT.validate_python(data)
        found.append(data)
    return found


def shape(written: list[dict[str, Any]]) -> list[str]:
    """The events in brief: `+text` opens a block, `-` ends it, the rest is what a delta carries."""
    brief = []
    for event in written:
        if event["type"] == "content_block_start":
            brief.append(f"+{event['content_block']['type']}")
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            words = (delta.get(name) for name in ("text", "thinking", "partial_json", "signature"))
            brief.append(next((word for word in words if word is not None), delta["type"]))
        else:
            brief.append({"content_block_stop": "-"}.get(event["type"], event["type"]))
    return brief


# --- reading --------------------------------------------------------------------------------------------------------


def test_everything_is_read() -> None:
    citation = (
        b'{"type":"web_search_result_location","cited_text":"In May.","url":"https://beans.example/may",'
        b'"title":"Beans","encrypted_index":"eA=="}'
    )
    said, own = read(stream("diary"))
    assert (own.finished, own.done, own.error) == (True, True, None)
    assert said == [
        Started("msg_up1", "claude-test-1", Usage(20, 1, 6, written=4)),
        Ping(),
        ReasoningDelta("Beans grow"),
        ReasoningDelta(" in May."),
        Signed(Signature("c2lnbmVk", "anthropic", ORIGIN)),
        Boundary(),
        Signed(Signature("aGlkZGVu", "anthropic", ORIGIN), redacted=True),
        Boundary(),
        TextDelta("Grüne "),
        TextDelta("Bohnen."),
        Cited(Citation("https://beans.example/may", "Beans", "In May.", 0, 13, "anthropic", citation)),
        Boundary(),
        ForeignPart(
            Foreign(
                "anthropic",
                "server_tool_use",
                b'{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"peas"}}',
            )
        ),
        ForeignPart(
            Foreign(
                "anthropic",
                "web_search_tool_result",
                b'{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[]}',
            )
        ),
        ToolStarted(0, "toolu_1", "plant"),
        ToolDelta(0, '{"row"'),
        ToolDelta(0, ": 3}"),
        ToolEnded(0),
        ToolStarted(1, "toolu_2", "rest"),
        ToolDelta(1, "{}"),
        ToolEnded(1),
        Used(Usage(20, 42, 6, 9, written=4)),
        Stopped("tool_calls"),
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_chunks_and_line_ends_do_not_matter(name: str) -> None:
    said, _ = read(stream(name))
    assert read(stream(name), 1)[0] == said
    crlf = stream(name).replace(b"\n", b"\r\n")
    assert read(crlf)[0] == read(crlf, 1)[0] == read(crlf, 7)[0] == said


def test_a_call_that_was_cut_has_no_end() -> None:
    said, own = read(stream("cut_call"))
    assert said[1:] == [
        ToolStarted(0, "toolu_1", "write"),
        ToolDelta(0, '{"text": "Long ago'),
        Used(Usage(10, 16)),
        Stopped("length"),
    ]
    assert own.finished


def test_a_refusal_is_explained() -> None:
    assert read(stream("refusal"))[0][-2:] == [RefusalDelta("Not this."), Stopped("content_filter")]


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Busy"}}\n\n',
        b'data: {"error":{"message":"Busy"}}\n\n',
        b"event: error\ndata: Busy\n\n",
    ],
)
def test_an_error_event(event: bytes) -> None:
    cut = stream("diary")[:400].rpartition(b"\n\n")[0] + b"\n\n"
    _, own = read(cut + event + b'event: ping\ndata: {"type":"ping"}\n\n')
    assert own.error is not None
    assert json.loads(own.error)["error"]["message"] == "Busy"
    assert not own.finished
    own_watch = watch()
    assert event not in own_watch.feed(cut + event)
    assert own_watch.error == own.error
    assert not own_watch.end()


def test_servers_that_are_not_quite_right() -> None:
    body = (
        b'data: {"type":"message_start","message":null}\n\n'
        b'data: {"type":"content_block_start","index":0.0,"content_block":{"type":"text","text":"He"}}\n\n'
        b'data: {"type":"content_block_delta","index":0.0,"delta":{"type":"text_delta","text":"llo\\ud800"}}\n\n'
        b'data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":null,"name":"f",'
        b'"input":{"a":1}}}\n\n'
        b'data: {"type":"content_block_stop","index":1}\n\n'
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":null}\n\n'
    )
    said, own = read(body)
    assert said == [
        Started(),
        TextDelta("He"),
        TextDelta("llo?"),
        ToolStarted(0, "", "f"),
        ToolDelta(0, '{"a":1}'),
        ToolEnded(0),
        Stopped("stop"),
    ]
    assert (own.finished, own.done) == (True, False)


fragments = st.lists(
    st.sampled_from([piece + b"\n\n" for name in STREAMS for piece in stream(name).split(b"\n\n") if piece])
    | st.binary(max_size=8)
    | st.sampled_from([b"data: {}\n\n", b'data: {"type":"message_delta","delta":[]}\n\n', b"data: [1]\r\n\r\n"]),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(fragments, st.integers(1, 9))
def test_nothing_makes_it_raise(pieces: list[bytes], size: int) -> None:
    body = b"".join(pieces)
    said, own = read(body)
    assert read(body, size)[0] == said
    writer = ANTHROPIC.writer(CONTEXT)
    events(writer.write(said) + writer.end())
    own_watch = watch()
    relayed = own_watch.feed(body)
    own_watch.end()
    assert relayed in body
    assert (own_watch.finished, own_watch.done) == (own.finished, own.done)


# --- writing --------------------------------------------------------------------------------------------------------


def test_the_order_of_events() -> None:
    written = write(
        Ping(),
        Started("up", "claude-up", Usage(30, 1, 5)),
        Ping(),
        ReasoningDelta("Hm"),
        Signed(GEMINI),
        TextDelta("Hel"),
        TextDelta(""),
        TextDelta("lo"),
        ToolStarted(0, "call:1", "f"),
        ToolDelta(0, '{"a":1}'),
        ToolEnded(0),
        Stopped("tool_calls"),
        Used(Usage(30, 9, 5, 2, written=4)),
    )
    assert shape(written) == [
        "message_start",
        "ping",
        *("+thinking", "Hm", pack(GEMINI), "-"),
        *("+text", "Hel", "lo", "-"),
        *("+tool_use", "", '{"a":1}', "-"),
        "message_delta",
        "message_stop",
    ]
    message = Message.model_validate(written[0]["message"])
    assert (message.id, message.model, message.usage.input_tokens) == ("msg_k1", "claude-up", 25)
    assert written[0]["message"]["usage"]["cache_read_input_tokens"] == 5
    assert [event["index"] for event in written if "index" in event] == [0] * 4 + [1] * 4 + [2] * 4
    assert next(e for e in written if e.get("index") == 2)["content_block"]["id"] == "call_1"
    assert written[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert written[-2]["usage"] == {
        "input_tokens": 21,
        "cache_creation_input_tokens": 4,
        "cache_read_input_tokens": 5,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 2},
    }


def test_an_early_ping_is_a_comment() -> None:
    writer = ANTHROPIC.writer(CONTEXT)
    assert writer.write([Ping()]) == b": ping\n\n"
    assert writer.write([Started()]).startswith(b"event: message_start\ndata: {")
    assert writer.write([Ping()]) == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_calls_that_interleave_come_one_after_another() -> None:
    written = write(
        ToolStarted(0, "a", "f"),
        ToolDelta(0, "1"),
        ToolStarted(1, "b", "g"),
        ToolStarted(2, "c", "h"),
        ToolDelta(2, "5"),
        ToolDelta(1, "3"),
        ToolDelta(0, "2"),
        TextDelta("Done."),
        ToolEnded(0),
        ToolDelta(1, "4"),
        ToolEnded(2),
        ToolDelta(1, "6"),
        Stopped("tool_calls"),
        Stopped("stop", choice=1),
    )
    assert shape(written)[1:-2] == [
        *("+tool_use", "", "1", "2", "-"),
        *("+tool_use", "", "3", "4", "6", "-"),
        *("+tool_use", "", "5", "-"),
        *("+text", "Done.", "-"),
    ]


def test_a_call_is_written_as_it_comes() -> None:
    writer = ANTHROPIC.writer(CONTEXT)
    writer.write([ToolStarted(0, "a", "f")])
    assert b'"partial_json":"{"' in writer.write([ToolDelta(0, "{")])


def test_calls_without_ends_end_with_the_answer() -> None:
    written = write(ToolStarted(0, "a", "f"), ToolStarted(1, "b", "g"), ToolDelta(1, "{}"))
    assert shape(written)[1:] == ["+tool_use", "", "-", "+tool_use", "", "{}", "-", "message_delta", "message_stop"]
    assert written[-2]["delta"]["stop_reason"] == "tool_use"


def test_signatures_of_texts_and_calls() -> None:
    empty = ["+thinking", pack(GEMINI), "-"]
    call = ToolStarted(0, "a", "f", signature=GEMINI)
    again = ToolStarted(1, "b", "f", signature=GEMINI)
    tool = ["+tool_use", "", "-"]
    assert shape(write(call))[1:-2] == empty + tool
    assert shape(write(TextDelta("Hi"), Signed(GEMINI), TextDelta("!")))[1:-2] == [
        *("+text", "Hi", "-"),
        *empty,
        *("+text", "!", "-"),
    ]
    assert shape(write(call, ToolEnded(0), Signed(GEMINI), again))[1:-2] == empty + tool + tool
    assert shape(write(ReasoningDelta("Hm"), Boundary(), call))[1:-2] == ["+thinking", "Hm", *empty[1:], *tool]


def test_hidden_thinking() -> None:
    made = Signature("aGlk", "openai_responses", ORIGIN)
    alone = write(Signed(made, redacted=True))
    assert alone[1]["content_block"] == {"type": "redacted_thinking", "data": pack(made)}
    summed_up = write(ReasoningDelta("One"), Boundary(), ReasoningDelta("two"), Boundary(), Signed(made, redacted=True))
    assert shape(summed_up)[1:-2] == ["+thinking", "One", "\n\ntwo", pack(made), "-"]
    own = Signed(Signature("b3du", "anthropic", ORIGIN), redacted=True)
    assert shape(write(ReasoningDelta("One"), own))[1:-2] == ["+thinking", "One", "-", "+redacted_thinking", "-"]


def test_free_text_becomes_an_object() -> None:
    written = write(ToolStarted(0, "a", "f", free=True), ToolDelta(0, 'say "hi"\n'), ToolDelta(0, "\\"), ToolEnded(0))
    arguments = "".join(e["delta"]["partial_json"] for e in written if e["type"] == "content_block_delta")
    assert json.loads(arguments) == {"input": 'say "hi"\n\\'}


def test_refusals_and_other_ends() -> None:
    refused = write(RefusalDelta("Not "), RefusalDelta("this."), Stopped("stop"))
    assert refused[-2]["delta"]["stop_details"] == {"type": "refusal", "category": None, "explanation": "Not this."}
    assert shape(refused)[1:-2] == ["+text", "Not ", "this.", "-"]
    assert write(Stopped("stop_sequence", 0, "END"))[-2]["delta"] == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
    }
    nothing = write()
    assert shape(nothing) == ["message_start", "message_delta", "message_stop"]
    assert nothing[0]["message"]["usage"]["input_tokens"] == nothing[1]["usage"]["input_tokens"] == 12


def test_only_the_first_choice_and_its_own_parts() -> None:
    written = write(
        TextDelta("Hi"),
        TextDelta("Ho", choice=1),
        ToolStarted(0, "a", "f", choice=1),
        ForeignPart(Foreign("gemini", "executableCode", b"{}")),
        Cited(Citation("https://x.example")),
        TextDelta("!"),
    )
    assert shape(written)[1:-2] == ["+text", "Hi", "!", "-"]


@pytest.mark.parametrize("name", STREAMS[:1])
def test_what_is_read_is_written_again(name: str) -> None:
    said, _ = read(stream(name))
    writer = ANTHROPIC.writer(CONTEXT)
    again, _ = read(writer.write(said) + writer.end())
    own = [pack(delta.signature) if isinstance(delta, Signed) else delta for delta in said[1:]]
    back = [delta.signature.value if isinstance(delta, Signed) else delta for delta in again[1:]]
    assert back == own


# --- watching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_a_relayed_stream_is_untouched(name: str, size: int) -> None:
    body = stream(name)
    own = watch()
    assert b"".join(own.feed(body[at : at + size]) for at in range(0, len(body), size)) == body
    assert own.end()
    assert (own.started, own.finished, own.done, own.error, own.tail) == (True, True, True, None, b"")
    assert own.usage == next(delta.usage for delta in read(body)[0] if isinstance(delta, Used))
    assert own.signatures == (["c2lnbmVk", "aGlkZGVu"] if name == "diary" else [])


def test_when_output_has_started() -> None:
    own = watch()
    pieces = stream("diary").split(b"\n\n")
    started = []
    for piece in pieces[:5]:
        own.feed(piece + b"\n\n")
        started.append(own.started)
    assert started == [False, False, False, True, True]
    assert own.output_bytes > 0
    assert not own.end()


def test_a_last_event_without_its_blank_line() -> None:
    body = stream("cut_call").rstrip()
    own = watch()
    relayed = own.feed(body)
    assert own.end()
    assert relayed + own.tail == stream("cut_call").rstrip() + b"\n\n"


def test_calls_that_have_no_end_are_written_in_one_go() -> None:
    def calls(size: int) -> list[Delta]:
        return [each for at in range(size) for each in (ToolStarted(at, f"c{at}", "f"), ToolDelta(at, "{}"))]

    def writing(size: int) -> Callable[[], object]:
        deltas = [*calls(size), Stopped("tool_calls")]

        def work() -> bytes:
            writer = ANTHROPIC.writer(CONTEXT)
            return writer.write(deltas) + writer.end()

        return work

    assert is_linear(writing)
    brief = shape(write(*calls(3), Stopped("tool_calls")))
    assert brief[1:-2] == ["+tool_use", "", "{}", "-"] * 3


def test_a_call_that_waits_gets_all_that_is_its_own() -> None:
    brief = shape(
        write(
            ToolStarted(0, "a", "f"),
            ToolStarted(1, "b", "g"),
            TextDelta("then"),
            ToolDelta(1, "{1"),
            ToolDelta(0, "{0}"),
            ToolDelta(7, "nobody's"),
            ToolEnded(0),
            ToolDelta(1, "}"),
            ToolStarted(1, "c", "h"),
            ToolDelta(1, "{}"),
            Stopped("tool_calls"),
        )
    )
    assert brief[1:-2] == [
        "+tool_use",
        "",
        "{0}",
        "-",
        "+tool_use",
        "",
        "{1",
        "}",
        "{}",
        "-",
        "+text",
        "then",
        "-",
        "+tool_use",
        "",
        "-",
    ]
