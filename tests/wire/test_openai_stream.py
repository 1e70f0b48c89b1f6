"""ChatStream: what it relays, when an answer has started, finished, failed or been cut, and what it used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.core import Usage
from keyturn.errors import TransportError
from keyturn.wire import ChatStream, split

from .golden_files import golden, streams


def event(delta: dict[str, Any] | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **more}, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
HELLO = event({"content": "Hello"})


def read(*chunks: bytes, drop_usage: bool = True) -> tuple[ChatStream, bytes]:
    stream = ChatStream(drop_usage=drop_usage)
    return stream, b"".join(stream.feed(chunk) for chunk in chunks)


# --- whole answers of each provider ---------------------------------------------------------------------------------

FACTS: dict[str, tuple[int, bool, Usage | None]] = {
    # stream: (which event starts it, whether it ends with [DONE], usage)
    "openai.sse": (1, True, Usage(9, 3, 4, 1)),
    "openai_tools.sse": (1, True, None),
    "openai_refusal.sse": (1, True, None),
    "groq.sse": (1, True, Usage(20, 7)),
    "openrouter.sse": (3, True, Usage(43, 36, 0, 13, cost=669_000)),
    "deepseek.sse": (2, True, Usage(6, 212, 2, 198)),
    "mistral.sse": (2, True, Usage(11, 20)),
    "azure.sse": (2, True, Usage(5, 2)),
    "perplexity.sse": (0, False, Usage(3, 2)),
    "crlf.sse": (2, True, None),
}


@pytest.mark.parametrize("name", FACTS)
def test_a_whole_answer(name: str) -> None:
    start, done, usage = FACTS[name]
    stream = ChatStream(drop_usage=False)
    for number, raw in enumerate(split(golden(name))):
        assert stream.feed(raw) == raw
        assert stream.started == (number >= start)
    assert stream.end()
    assert (stream.finished, stream.done, stream.error, stream.usage) == (True, done, None, usage)
    assert stream.tail == b""


@pytest.mark.parametrize("name", streams())
def test_in_one_chunk_or_byte_by_byte_it_is_the_same(name: str) -> None:
    raw = golden(name)
    whole, relayed = read(raw)
    single, pieces = read(*(raw[at : at + 1] for at in range(len(raw))))
    assert pieces == relayed
    assert whole.end() == single.end()
    for told in ("started", "finished", "done", "error", "usage", "output_bytes", "tail"):
        assert getattr(single, told) == getattr(whole, told)


# --- the only event that is ever dropped ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACTS)
def test_only_the_usage_event_is_dropped(name: str) -> None:
    events = split(golden(name))
    kept = [raw for raw in events if b'"choices":[]' not in raw or b'"usage":{' not in raw]
    stream, relayed = read(b"".join(events))
    assert relayed == b"".join(kept)
    assert len(events) - len(kept) == (1 if name in ("openai.sse", "azure.sse") else 0)
    assert stream.usage == FACTS[name][2]


# --- start ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b": OPENROUTER PROCESSING\n\n",
        b"event: ping\n\n",
        b"\n",
        b"data: \n\n",
        b"data: {}\n\n",
        b"data: 7\n\n",
        b"data: <html>\n\n",
        b'data: {"choices":[]}\n\n',
        b'data: {"choices":null}\n\n',
        b'data: {"choices":{}}\n\n',
        b'data: {"choices":[null,7,{"delta":null},{"delta":"x"}]}\n\n',
        event({"role": "assistant", "content": ""}),
        event({"role": "assistant", "content": None, "refusal": None, "reasoning_content": ""}),
        event({"content": [], "tool_calls": [], "function_call": {}, "audio": None}),
        event({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": ""}], "closed": False}]}),
        event({"reasoning_details": [{"type": "reasoning.text", "text": "", "format": "x", "index": 0}]}),
    ],
)
def test_what_does_not_start_an_answer(raw: bytes) -> None:
    stream, relayed = read(raw)
    assert relayed == raw
    assert not stream.started
    assert not stream.finished


@pytest.mark.parametrize(
    "raw",
    [
        event({"content": " "}),
        event({"reasoning": "x"}),
        event({"reasoning_content": "x"}),
        event({"reasoning_details": [{"type": "reasoning.encrypted", "data": "abc"}]}),
        event({"refusal": "No"}),
        event({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}),
        event({"function_call": {"name": "f", "arguments": ""}}),
        event({"audio": {"id": "audio_1"}}),
        event({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "So"}]}]}),
        b'data: {"choices":[{"index":0,"text":"Hi","finish_reason":null}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"logprob":-Infinity},{"index":1,"delta":{"content":"Hi"}}]}\n\n',
        b'data:{"choices":\ndata: [{"delta":{"content":"Hi"}}]}\n\n',
        b'\xef\xbb\xbfdata: {"choices":[{"delta":{"content":"Hi"}}]}\n\n',
        b'event: message\nid: 1\ndata: {"choices":[{"delta":{"content":"Hi"}}]}\n\n',
    ],
)
def test_what_starts_an_answer(raw: bytes) -> None:
    stream, relayed = read(raw)
    assert relayed == raw
    assert stream.started
    assert not stream.finished


@pytest.mark.parametrize("raw", [event(finish="stop"), DONE, b"data:[DONE]\r\n\r\n"])
def test_a_terminal_event_starts_and_finishes(raw: bytes) -> None:
    stream, relayed = read(raw)
    assert relayed == raw
    assert stream.started
    assert stream.finished


# --- after the start ------------------------------------------------------------------------------------------------


def test_events_that_wait_are_relayed_in_one_write() -> None:
    stream, _ = read(HELLO)
    assert stream.feed(HELLO * 3 + HELLO[:40]) == HELLO * 3
    assert stream.feed(HELLO[40:]) == HELLO


@pytest.mark.parametrize(
    "text", ['{"error": {"message": "x"}}', "[DONE]", "event: error\ndata: x", '"finish_reason":"stop"', '"usage":{}']
)
def test_what_a_model_writes_is_never_taken_for_the_stream_s_own(text: str) -> None:
    stream, relayed = read(HELLO, event({"content": text}), HELLO)
    assert relayed == HELLO + event({"content": text}) + HELLO
    assert (stream.finished, stream.error, stream.usage) == (False, None, None)


@pytest.mark.parametrize("spacing", ['"finish_reason":"stop"', '"finish_reason": "stop"', '"finish_reason" :\t"stop"'])
def test_a_finish_reason_in_any_spacing(spacing: str) -> None:
    stream, _ = read(HELLO, f'data: {{"choices":[{{"delta":{{}},{spacing}}}]}}\n\n'.encode())
    assert stream.finished
    assert stream.end()


@pytest.mark.parametrize("spacing", ['"usage":{', '"usage": {', '"usage" : {'])
def test_usage_in_any_spacing(spacing: str) -> None:
    stream, _ = read(HELLO, f'data: {{"choices":[],{spacing}"prompt_tokens":4,"completion_tokens":2}}}}\n\n'.encode())
    assert stream.usage == Usage(4, 2)


def test_usage_is_that_of_the_last_event_that_told_it() -> None:
    first = {"prompt_tokens": 4, "completion_tokens": 1}
    later = {"prompt_tokens": 4, "completion_tokens": 2}
    zeros = {"prompt_tokens": 0, "completion_tokens": 0}
    stream, _ = read(event({"content": "a"}, usage=first), event({"content": "b"}, usage=later), event(usage=zeros))
    assert stream.usage == Usage(4, 2)


def test_nothing_behind_done_is_relayed() -> None:
    stream, relayed = read(HELLO + DONE + HELLO, HELLO)
    assert relayed == HELLO + DONE
    assert stream.done
    assert stream.end()


def test_the_size_of_the_output_without_usage() -> None:
    words = ["word " * 4] * 50
    stream, _ = read(event({"role": "assistant", "content": ""}), *(event({"content": word}) for word in words))
    assert stream.output_bytes == sum(len(word) for word in words)


def test_comments_and_pings_are_no_output() -> None:
    stream, _ = read(HELLO)
    before = stream.output_bytes
    assert stream.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert stream.feed(b"\n\nevent: ping\n\n")
    assert stream.output_bytes == before == len("Hello")


def test_the_first_event_may_be_larger_than_the_others() -> None:
    stream, _ = read(event({"role": "assistant", "content": "Hi"}), *[event({"content": "word"})] * 20)
    assert 80 <= stream.output_bytes <= 110


def test_nothing_was_output_before_the_start() -> None:
    assert read(event({"role": "assistant", "content": ""}))[0].output_bytes == 0


# --- errors ---------------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[bytes, Any]] = {
    "top_level": (b'data: {"error":{"message":"x"}}\n\n', {"error": {"message": "x"}}),
    "text": (b'data: {"error": "busy"}\n\n', {"error": "busy"}),
    "with_status": (b'data: {"error":{"code":"c"},"status_code":9}\n\n', {"error": {"code": "c"}, "status_code": 9}),
    "named": (b'event: error\ndata: {"message":"x","code":"c"}\n\n', {"message": "x", "code": "c"}),
    "named_text": (b"event: error\ndata: overloaded\n\n", {"error": {"message": "overloaded"}}),
    "named_only": (b"event:error\n\n", {"error": {"message": "the upstream sent an error event without data"}}),
    "groq": (event(x_groq={"id": "r", "error": "over_capacity"}), {"error": "over_capacity"}),
    "wrapped": (b'data: [{"error":{"code":429}}]\n\n', [{"error": {"code": 429}}]),
    "no_prefix": (b'{"error":{"message":"x"}}\n\n', {"error": {"message": "x"}}),
    "ndjson": (b'{"error":"x"}\ndata: [DONE]\n\n', {"error": "x"}),
    "ndjson_behind": (b'data: {"choices":[]}\n{"error":"x"}\n\n', {"error": "x"}),
    "crlf": (b'event: error\r\ndata: {"error":{"message":"x"}}\r\n\r\n', {"error": {"message": "x"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("before", [b"", HELLO])
def test_an_error_event_is_kept_back_and_ends_the_stream(name: str, before: bytes) -> None:
    raw, told = ERRORS[name]
    stream, relayed = read(before, raw + HELLO, DONE)
    assert relayed == before
    assert stream.error is not None
    assert json.loads(stream.error) == told
    assert stream.started == bool(before)
    assert not stream.finished
    assert not stream.end()


@pytest.mark.parametrize("nothing", ["null", "{}", '""', "false", "[]"])
def test_an_error_member_that_holds_nothing_is_none(nothing: str) -> None:
    raw = f'data: {{"choices":[{{"delta":{{"content":"a"}}}}],"error":{nothing}}}\n\n'.encode()
    stream, relayed = read(raw, raw)
    assert relayed == raw * 2
    assert stream.error is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"x"}}',
        b'{\n  "error": {\n    "message": "x"\n  }\n}\n',
        b'\n[{"error":{"message":"x"}}]\n',
        b'{"error":"x"}\n',
    ],
)
def test_a_plain_error_body_under_the_content_type_of_a_stream(body: bytes) -> None:
    stream, relayed = read(body)
    assert not stream.end()
    assert relayed.strip() == b""
    assert stream.error is not None
    assert json.loads(stream.error) == json.loads(body)


def test_the_usage_of_an_answer_that_failed_is_known() -> None:
    stream, _ = read(golden("openrouter_error.sse"))
    assert stream.usage == Usage(43, 10)
    assert stream.error is not None
    assert not stream.end()


@pytest.mark.parametrize(("name", "started"), [("groq_error.sse", False), ("groq_x_error.sse", True)])
def test_errors_of_groq(name: str, started: bool) -> None:
    stream, _ = read(golden(name))
    assert stream.started == started
    assert b"over_capacity" in (stream.error or b"")


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_cut_answer_leaves_no_half_event_and_is_told() -> None:
    stream, relayed = read(golden("cut.sse"))
    assert relayed.endswith(b"\n\n")
    assert relayed.count(b"data:") == 2
    assert not stream.end()
    assert (stream.started, stream.finished, stream.error, stream.tail) == (True, False, None, b"")


@pytest.mark.parametrize("raw", [b"", b"<html>Bad gateway</html>\n", b": ping\n\n", b'data: {"choices":[{"del'])
def test_what_never_was_an_answer(raw: bytes) -> None:
    stream, _ = read(raw)
    assert not stream.end()
    assert (stream.started, stream.error, stream.tail) == (False, None, b"")


@pytest.mark.parametrize("last", [event(finish="stop").rstrip(), event(finish="stop")[:-1], b"data: [DONE]\r\n"])
def test_a_last_event_without_its_blank_line_is_completed(last: bytes) -> None:
    stream, relayed = read(HELLO + last)
    assert relayed == HELLO
    assert stream.end()
    assert stream.tail == last.rstrip() + b"\n\n"


def test_a_last_event_that_was_cut_behind_the_finish_is_not_relayed() -> None:
    stream, relayed = read(HELLO, event(finish="stop"), b'data: {"choices":[],"usage":{"prompt_t')
    assert relayed == HELLO + event(finish="stop")
    assert stream.end()
    assert stream.tail == b""


def test_an_event_above_the_bound() -> None:
    stream = ChatStream(drop_usage=True, max_event=1000)
    stream.feed(b"data: " + b"x" * 900)
    with pytest.raises(TransportError) as caught:
        stream.feed(b"x" * 100)
    assert caught.value.kind == "too_large"


def test_one_event_of_ten_megabytes_in_pieces() -> None:
    raw = event({"content": "x" * 10_000_000})
    stream = ChatStream(drop_usage=True, max_event=16 << 20)
    relayed = [stream.feed(raw[at : at + 65536]) for at in range(0, len(raw), 65536)]
    assert b"".join(relayed) == raw
    assert stream.started
