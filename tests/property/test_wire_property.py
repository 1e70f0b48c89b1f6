"""Any bytes, cut anywhere: requests are a Call or a BadRequest, streams are relayed the same, replies never raise."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyturn.core import Call, Kind
from keyturn.errors import BadRequest, TransportError
from keyturn.wire import (
    ChatStream,
    Splitter,
    parse_chat,
    parse_embeddings,
    read_event,
    read_reply,
    read_usage,
    render,
    split,
)
from keyturn.wire.jsontext import depth, read_object
from keyturn.wire.prompt import measure

GOLDEN = Path(__file__).parents[1] / "wire" / "golden"

OPTIONAL = ("stream", "stream_options", "max_tokens", "tools", "response_format", "input", "functions")

# --- requests -------------------------------------------------------------------------------------------------------

# JSON as people and programs write it: every number form, escape, blank and duplicate.
numbers = st.sampled_from(["0", "-0", "1.0", "1e2", "1E-7", "-12.50", "123456789012345678901234567890", "1e999"])
characters = st.sampled_from(
    ["a", "é", "😀", "\\u00e9", "\\ud83d\\ude00", "\\/", "\\n", '\\"', "\\\\", "{", "[", "]", "}", ":", " "]
)
strings = st.lists(characters, max_size=6).map(lambda parts: f'"{"".join(parts)}"')
blanks = st.sampled_from(["", " ", "\n", "\r\n\t"])
scalars = st.one_of(numbers, strings, st.sampled_from(["null", "true", "false"]))


def _array(items: list[str], blank: str) -> str:
    return f"[{blank}{f'{blank},'.join(items)}]"


def _object(members: list[tuple[str, str]], blank: str) -> str:
    return "{" + blank + f",{blank}".join(f"{name}{blank}:{blank}{value}" for name, value in members) + "}"


values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(_array, st.lists(inner, max_size=3), blanks),
        st.builds(_object, st.lists(st.tuples(strings, inner), max_size=3), blanks),
    ),
    max_leaves=12,
)
names = st.sampled_from(["temperature", "tools", "stop", "metadata", "x", "max_completion_tokens", "na\\u006de"])


@given(members=st.lists(st.tuples(names, values), max_size=6), blank=blanks, usage=st.booleans())
def test_a_rendered_request_keeps_every_value_byte_for_byte(
    members: list[tuple[str, str]], blank: str, usage: bool
) -> None:
    members = [pair for pair in members if pair[0] != "max_completion_tokens"]
    arguments = '{"role":"assistant","tool_calls":[{"function":{"arguments":"{\\"a\\": 1.0}"}}]}'
    pairs = [("model", '"groq/m"'), ("messages", f"[{arguments}]"), *members, ("top_p", "0.10")]
    body = _object([(f'"{name}"', value) for name, value in pairs], blank).encode()
    call = parse_chat(body, {})
    notes: list[str] = []
    rendered = read_object(render(call, "m", drop=("stop",), rename={"x": "y"}, include_usage=usage, notes=notes))
    expected = {json.loads(f'"{name}"'): value.encode() for name, value in pairs}
    dropped = expected.pop("stop", None)
    if "x" in expected:
        expected["y"] = expected.pop("x")
    if usage:
        expected["stream_options"] = b'{"include_usage":true}'
    assert rendered == expected | {"model": b'"m"'}
    assert ("dropped stop" in notes) == (dropped is not None)


def parsed(body: bytes) -> list[Call]:
    """The calls that *body* makes; a refusal that says nothing is an error."""
    calls = []
    for parse in (parse_chat, parse_embeddings):
        try:
            calls.append(parse(body, {}))
        except BadRequest as refusal:
            if not refusal.message:
                raise
    return calls


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode), values.map(str.encode)))
@example(b'{"model":"m","messages":[{}],"stream_options":{"include_usage":[[[[')
@example(b"[" * 5000)
@example(b'{"model":"m","input":"\\ud800"}')
def test_any_body_is_a_call_or_a_bad_request(body: bytes) -> None:
    assert all(call.size == len(body) for call in parsed(body))


@given(
    st.fixed_dictionaries(
        {"model": st.one_of(st.just('"m"'), scalars), "messages": st.one_of(st.just('[{"role":"user"}]'), values)},
        optional=dict.fromkeys(OPTIONAL, values),
    )
)
def test_any_values_of_known_members_are_a_call_or_a_bad_request(members: dict[str, str]) -> None:
    body = _object([(f'"{name}"', value) for name, value in members.items()], "").encode()
    for call in parsed(body):
        assert json.loads(render(call, "other", include_usage=True, notes=[]))["model"] == "other"


def _levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_levels, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_levels, value), default=0)
    return 0


@given(values)
def test_depth_is_that_of_the_parsed_value(text: str) -> None:
    # Duplicate members are gone from the parsed value, so compare what a parser that keeps them would see.
    kept = json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs])
    assert depth(text.encode()) == _levels(kept)


@given(values)
def test_a_prompt_is_never_larger_than_its_text(text: str) -> None:
    for messages in (text.encode(), b'[{"type":"file","file":{"data":' + text.encode() + b"}}]"):
        assert 0 <= measure(messages).text_bytes <= len(messages)


# --- replies --------------------------------------------------------------------------------------------------------


@given(st.one_of(st.binary(max_size=200), values.map(str.encode)))
def test_any_reply_is_read(body: bytes) -> None:
    kinds: tuple[Kind, ...] = ("chat", "embeddings")
    for kind in kinds:
        read_reply(body, kind)
    for name in ("choices", "data", "error", "usage"):
        read_reply(f'{{"{name}":'.encode() + body + b',"choices":[{"message":{}}]}', "chat")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), inner, max_size=2),
    max_leaves=3,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"]
        ),
        json_values,
    )
)
def test_usage_is_never_negative_nor_more_in_part_than_in_whole(given_usage: dict[str, Any]) -> None:
    usage = read_usage(given_usage)
    if usage is not None:
        assert 0 <= usage.cached <= usage.input <= 10**9
        assert 0 <= usage.reasoning <= usage.output <= 10**9
        assert usage.total > 0


# --- streams --------------------------------------------------------------------------------------------------------

# Made of what matters to a reader of streams, whole and broken, with every line end.
PIECES = [
    b"data: ", b"data:", b"event: error", b"event: x", b": ping", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"\r\r",
    b"\xef\xbb\xbf", b"\xc3", b"[DONE]", b'{"error":{"message":"x"}}', b'{"error":null}', b"<html>",
    b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}',
    b'{"choices":[{"delta":{"content":""},"finish_reason":null}],"usage":null}',
    b'{"choices":[{"delta":{},"finish_reason": "stop"}]}',
    b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    b'{"choices":[],"x_groq":{"error":"y"}}',
]  # fmt: skip
EVENTS = [piece + end for piece in (b"data: " + rest for rest in PIECES[13:]) for end in (b"\n\n", b"\r\n\r\n")]
raw_streams = st.lists(st.sampled_from(PIECES + EVENTS), max_size=25).map(b"".join)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    return [raw[start:end] for start, end in pairwise(marks)]


def told(chunks: list[bytes], max_event: int) -> tuple[object, ...] | None:
    """Everything that a stream tells at its end, or None when an event was too large."""
    stream = ChatStream(drop_usage=True, max_event=max_event)
    try:
        relayed = b"".join(stream.feed(chunk) for chunk in chunks)
    except TransportError as error:
        if error.kind != "too_large":
            raise
        return None
    complete = stream.end()
    facts = (stream.started, stream.finished, stream.done, stream.error, stream.usage, stream.output_bytes, stream.tail)
    return relayed, complete, *facts


@given(raw=raw_streams, places=st.lists(st.integers(0, 10_000), max_size=12), bound=st.sampled_from([60, 1 << 20]))
@example(raw=b"x\n\r\r\n\n\r\ndata: [DONE]\n\r\n", places=[2], bound=1 << 20)
@example(raw=b"data: [DONE]\n\n" + b"x" * 70, places=[14], bound=60)
@example(raw=b"data: [DONE]\n\n" + b"x" * 70 + b"\n\n", places=[14], bound=60)
def test_where_a_stream_is_cut_changes_nothing(raw: bytes, places: list[int], bound: int) -> None:
    whole = told([raw], bound)
    assert told(cut(raw, places), bound) == whole
    assert told([raw[at : at + 1] for at in range(len(raw))], bound) == whole


STARTED = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
WHOLE = [
    STARTED,
    STARTED.replace(b"Hi", b"data: {[DONE] event: error"),
    STARTED.replace(b"null", b'"stop"'),
    STARTED.replace(b"null", b" null"),
    STARTED.replace(b"\n", b"\r\n"),
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
    b"event: message\n" + STARTED,
    b": ping\n\n",
    b"\n",
    b"data: [DONE]\n\n",
    b'data: {"error":{"message":"x"}}\n\n',
    b'event: error\ndata: {"message":"x"}\n\n',
]


@given(groups=st.lists(st.lists(st.sampled_from(WHOLE), max_size=4), max_size=5))
@example(groups=[[STARTED, b": ping\n\n"], [STARTED, b"data: [DONE]\n\n"]])
@example(groups=[[STARTED, STARTED, STARTED]])
def test_how_many_events_wait_changes_nothing(groups: list[list[bytes]]) -> None:
    single = [STARTED, *(event for group in groups for event in group)]
    assert told([STARTED, *(b"".join(group) for group in groups)], 1 << 20) == told(single, 1 << 20)


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.sse")))
@given(places=st.lists(st.integers(0, 10_000), max_size=12))
def test_where_a_real_stream_is_cut_changes_nothing(name: str, places: list[int]) -> None:
    raw = (GOLDEN / name).read_bytes()
    assert told(cut(raw, places), 1 << 20) == told([raw], 1 << 20)


@given(raw=raw_streams, places=st.lists(st.integers(0, 10_000), max_size=12))
def test_a_splitter_loses_and_adds_nothing(raw: bytes, places: list[int]) -> None:
    splitter = Splitter(1 << 20)
    blocks = [splitter.feed(chunk) for chunk in cut(raw, places)]
    assert b"".join(blocks) + splitter.rest == raw
    assert all(b"".join(split(block)) == block for block in blocks)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_relayed_without_an_exception(chunks: list[bytes]) -> None:
    told(chunks, 40)
    read_event(b"".join(chunks))
