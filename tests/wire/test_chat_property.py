"""Any bytes and any JSON: readers of OpenAI Chat never raise but BadRequest; what is written is read back the same."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Answer,
    Choice,
    Message,
    Origin,
    Reasoning,
    Refusal,
    Request,
    Signature,
    Text,
    TextDelta,
    Tool,
    ToolDelta,
    ToolResult,
    ToolStarted,
    ToolUse,
    Usage,
    Used,
)
from keyturn.errors import BadRequest
from keyturn.wire import Context, Target, parse_chat
from keyturn.wire.chat import CHAT
from keyturn.wire.completions import COMPLETIONS, parse_completions

ORIGIN = Origin("up", "m-1", "g")
FEW = settings(max_examples=40, deadline=None)
assert CHAT.write_request is not None
assert CHAT.read_answer is not None
assert CHAT.reader is not None
write_request, read_answer, open_reader = CHAT.write_request, CHAT.read_answer, CHAT.reader

WORDS = st.sampled_from(
    """role content user assistant tool system type text image_url url tool_calls id function name arguments custom
    reasoning_details reasoning reasoning.text reasoning.encrypted data signature format index delta message choices
    finish_reason stop usage prompt_tokens error x_groq annotations url_citation extra_content google tool_call_id
    thought_signature function_call refusal logprobs thinking summary input tools parameters detail object""".split()
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)
CALL = parse_chat(b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}', {})
CONTEXT = Context(CALL, "7", 1_790_000_000, "m-0")


def drain(stream: bytes, size: int) -> tuple[object, ...]:
    reader = open_reader(ORIGIN)
    deltas = []
    for at in range(0, len(stream), size):
        deltas += reader.feed(stream[at : at + size])
    deltas += reader.end()
    writer = CHAT.writer(CONTEXT)
    writer.write(deltas)
    writer.end()
    return deltas, reader.done, reader.finished, reader.error


def events(values: list[Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


CHOICES = st.builds(lambda delta, finish: {"delta": delta, "finish_reason": finish}, VALUES, VALUES)
CHUNKS = st.one_of(VALUES, st.builds(lambda choices: {"choices": choices}, st.lists(CHOICES, max_size=2)))


PIECES = [
    b"data: ",
    b'data: {"choices":[{"delta":{"content":"a"}}]}',
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"[DONE]",
    b": x",
    b"{}",
    b"event: error",
]


@FEW
@given(
    st.one_of(st.binary(max_size=80), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)), st.integers(1, 9)
)
def test_any_bytes_as_a_stream(stream: bytes, size: int) -> None:
    assert drain(stream, size) == drain(stream, len(stream) + 1)


@FEW
@given(st.lists(CHUNKS, max_size=4), st.integers(1, 9))
def test_any_json_as_a_stream(values: list[Any], size: int) -> None:
    stream = events(values)
    assert repr(drain(stream, size)) == repr(drain(stream, len(stream) + 1))  # NaN is not equal to itself


@FEW
@given(st.one_of(VALUES, st.builds(lambda message: {"choices": [{"message": message}]}, VALUES)))
def test_any_json_as_an_answer(value: Any) -> None:
    answer = read_answer(json.dumps(value).encode(), ORIGIN)
    if isinstance(answer, Answer):
        CHAT.write_answer(answer, CONTEXT)
        COMPLETIONS.write_answer(answer, CONTEXT)


@FEW
@given(st.lists(st.dictionaries(WORDS, VALUES), min_size=1, max_size=3), st.dictionaries(WORDS, VALUES, max_size=3))
def test_any_json_as_a_request(messages: list[Any], members: dict[str, Any]) -> None:
    body = json.dumps({**members, "model": "m", "messages": messages}).replace("NaN", "0").replace("Infinity", "0")
    try:
        CHAT.read_request(parse_chat(body.encode(), {}))
    except BadRequest:
        pass


@FEW
@given(VALUES, st.dictionaries(WORDS, VALUES, max_size=3))
def test_any_json_as_a_completion(prompt: Any, members: dict[str, Any]) -> None:
    body = json.dumps({**members, "model": "m", "prompt": prompt}).replace("NaN", "0").replace("Infinity", "0")
    try:
        COMPLETIONS.read_request(parse_completions(body.encode(), {}))
    except BadRequest:
        pass


# --- there and back -------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
ARGUMENTS = st.dictionaries(NAMES, st.integers() | TEXTS, max_size=2).map(lambda value: json.dumps(value))


@st.composite
def turns(draw: st.DrawFn) -> tuple[Message, ...]:
    """A conversation as OpenAI Chat says it: a text for each turn, calls that are all answered."""
    found = [Message("system", (Text(draw(TEXTS)),))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        found.append(Message("user", (Text(draw(TEXTS)),), draw(st.just("") | NAMES)))
        names = draw(st.lists(NAMES, max_size=2))
        uses = [ToolUse(f"call_{turn}_{n}", name, draw(ARGUMENTS)) for n, name in enumerate(names)]
        found.append(Message("assistant", (Text(draw(TEXTS)), *uses)))
        if uses:
            results = tuple(ToolResult(use.id, (Text(draw(TEXTS)),), use.name) for use in uses)
            found.append(Message("user", results))
    return tuple(found)


REQUESTS = st.builds(
    Request,
    st.just("openai_chat"),
    st.just("m-1"),
    turns(),
    st.lists(st.builds(Tool, NAMES, TEXTS, st.just(b'{"type":"object"}')), max_size=2).map(tuple),
    max_output=st.none() | st.integers(1, 1000),
    temperature=st.none() | st.floats(0, 2),
    stop=st.lists(TEXTS, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 100),
    user=st.just("") | NAMES,
)


@FEW
@given(REQUESTS)
def test_a_request_that_is_written_is_read_back(request: Request) -> None:
    notes: list[str] = []
    body = msgspec.json.encode(write_request(request, Target("m-1", ORIGIN), notes))
    assert CHAT.read_request(parse_chat(body, {})) == request
    assert notes == []


SIGNED = st.sampled_from([None, Signature("s", "anthropic", ORIGIN), Signature("s", "openai_responses", ORIGIN)])


@st.composite
def parts(draw: st.DrawFn) -> tuple[Any, ...]:
    found: list[Any] = []
    if (signature := draw(SIGNED)) is not None:
        found.append(Reasoning(draw(TEXTS), signature))
    elif draw(st.booleans()):
        found.append(Reasoning(draw(TEXTS)))
    found.append(Text(draw(TEXTS)))
    if draw(st.booleans()):
        found.append(Refusal(draw(TEXTS)))
    names = draw(st.lists(NAMES, max_size=2))
    return (*found, *(ToolUse(f"call_{n}", name, draw(ARGUMENTS)) for n, name in enumerate(names)))


@FEW
@given(parts(), st.tuples(st.integers(1, 99), st.integers(1, 99)).map(lambda counts: Usage(*counts)))
def test_an_answer_that_is_written_is_read_back(said: tuple[Any, ...], usage: Usage) -> None:
    stop: Any = "tool_calls" if any(isinstance(part, ToolUse) for part in said) else "length"
    answer = Answer((Choice(said, stop),), "chatcmpl-7", "m-1", 5, usage)
    found = read_answer(CHAT.write_answer(answer, CONTEXT), ORIGIN)
    assert isinstance(found, Answer)
    (choice,) = found.choices
    client = [_packed(part) for part in said]  # a client keeps signatures packed
    assert [_unpacked(part) for part in choice.parts] == client
    assert (choice.stop, found.usage, found.id, found.model, found.created) == (stop, usage, "chatcmpl-7", "m-1", 5)


def _packed(part: Any) -> Any:
    return (part.text, part.signature.dialect) if isinstance(part, Reasoning) and part.signature else part


def _unpacked(part: Any) -> Any:
    if isinstance(part, Reasoning) and part.signature:
        assert part.signature.value.startswith("kt1.")
        return (part.text, part.signature.dialect)
    return part


@FEW
@given(st.lists(TEXTS, max_size=4), st.lists(st.tuples(NAMES, ARGUMENTS), max_size=2))
def test_a_stream_that_is_written_is_read_back(texts: list[str], called: list[tuple[str, str]]) -> None:
    call = parse_chat(
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream_options":{"include_usage":true}}', {}
    )
    writer = CHAT.writer(Context(call, "7", 1_790_000_000, "m-0"))
    deltas: list[Any] = [TextDelta(text) for text in texts]
    for index, (name, arguments) in enumerate(called):
        deltas += [ToolStarted(index, f"call_{index}", name), ToolDelta(index, arguments)]
    deltas.append(Used(Usage(3, 2)))
    reader = open_reader(ORIGIN)
    found = reader.feed(writer.write(deltas) + writer.end())
    assert reader.done
    assert [each for each in found if isinstance(each, (TextDelta, ToolStarted, ToolDelta, Used))] == deltas
