"""The star of dialects: what all four can say passes through any two of them, both ways, and means the same."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, Phase
from hypothesis import strategies as st

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Delta,
    Media,
    Message,
    Origin,
    Part,
    Reasoning,
    ReasoningDelta,
    Request,
    Started,
    StopReason,
    Stopped,
    Text,
    TextDelta,
    Tool,
    ToolChoice,
    ToolDelta,
    ToolEnded,
    ToolResult,
    ToolStarted,
    ToolUse,
    Usage,
    Used,
)
from keyturn.wire import Context, Target, parse_chat
from keyturn.wire.anthropic import ANTHROPIC, parse_messages
from keyturn.wire.chat import CHAT
from keyturn.wire.dialect import Dialect
from keyturn.wire.gemini import GEMINI, parse_generate
from keyturn.wire.responses import RESPONSES, parse_responses

ORIGIN = Origin("up", "m-1", "g")
TARGET = Target("m-1", ORIGIN, max_output=100_000)
SOME = settings(max_examples=150, phases=[Phase.explicit, Phase.generate], deadline=None)
PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()


def parse_gemini(body: bytes, headers: dict[str, str]) -> Call:
    return parse_generate(body, headers, "m-1", stream=False, array=False)


PARSE: dict[str, Callable[[bytes, dict[str, str]], Call]] = {
    "openai_chat": parse_chat,
    "anthropic": parse_messages,
    "gemini": parse_gemini,
    "openai_responses": parse_responses,
}
ASKED: dict[str, dict[str, Any]] = {
    "openai_chat": {"messages": [{"role": "user", "content": "Hi"}], "stream_options": {"include_usage": True}},
    "anthropic": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "openai_responses": {"input": "Hi"},
}
DIALECTS: tuple[Dialect, ...] = (CHAT, ANTHROPIC, GEMINI, RESPONSES)
ONES = pytest.mark.parametrize("one", DIALECTS, ids=lambda dialect: dialect.name)
PAIRS = pytest.mark.parametrize(
    ("one", "other"), [(a, b) for a in DIALECTS for b in DIALECTS if a is not b], ids=lambda dialect: dialect.name
)


def through(dialect: Dialect, request: Request) -> Request:
    """*request* written in *dialect* and read back."""
    assert dialect.write_request is not None
    body = msgspec.json.encode(dialect.write_request(request, TARGET, []))
    return dialect.read_request(PARSE[dialect.name](body, {}))


def context(dialect: Dialect) -> Context:
    """A client of *dialect* that has asked."""
    body = json.dumps({"model": "m-1", "stream": True, **ASKED[dialect.name]}).encode()
    return Context(PARSE[dialect.name](body, {}), "7", 1_790_000_000, "m-1")


# --- what all can say -----------------------------------------------------------------------------------------------

ODD = [" a ", "a\n", "\n x \t", "a\r\nb", "5", "null", '"x"', "[1]", '{"a":1}', "data: x\n\n", "[DONE]", "<system>x</system>"]
TEXTS = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)
NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,8}", fullmatch=True)
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.just(1.5) | TEXTS
ARGUMENTS = st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=2) | st.just({}), max_size=2)
SCHEMAS = st.dictionaries(NAMES, st.sampled_from(["string", "integer", "number", "boolean"]), max_size=2).map(
    lambda types: msgspec.json.encode(
        {"type": "object", "properties": {name: {"type": kind} for name, kind in types.items()}, "required": [*types]}
    )
)
IMAGE = Media("image", "image/png", PNG)


@st.composite
def turns(draw: st.DrawFn) -> tuple[Message, ...]:
    """A system prompt, then users and assistants in turn; every call is answered at once."""
    found = [Message("system", (Text(draw(TEXTS)),))] if draw(st.booleans()) else []
    count = draw(st.integers(1, 3))
    for turn in range(count):
        words = (Text(draw(TEXTS)),)
        found.append(Message("user", (*words, IMAGE) if draw(st.booleans()) else words))
        if turn == count - 1:
            break
        names = draw(st.lists(NAMES, max_size=2, unique=True))
        uses = [ToolUse(f"call_{turn}_{n}", name, json.dumps(draw(ARGUMENTS))) for n, name in enumerate(names)]
        said = (Text(draw(TEXTS)),) if not uses or draw(st.booleans()) else ()
        found.append(Message("assistant", (*said, *uses)))
        if uses:
            results = [ToolResult(u.id, (Text(draw(TEXTS)),), u.name, failed=draw(st.booleans())) for u in uses]
            found.append(Message("user", tuple(results)))
    return tuple(found)


CHOICES = st.none() | st.builds(ToolChoice, st.sampled_from(["auto", "any", "none"]), st.just(()))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    tools = draw(st.lists(st.builds(Tool, NAMES, TEXTS, SCHEMAS), max_size=2, unique_by=lambda tool: tool.name))
    return Request(
        "openai_chat",
        "m-1",
        draw(turns()),
        tuple(tools),
        choice=draw(CHOICES) if tools else None,
        max_output=draw(st.integers(16, 1000)),
        temperature=draw(st.none() | st.sampled_from([0.0, 0.25, 1.0])),
    )


def meaning(request: Request) -> tuple[object, ...]:
    """What *request* means, whatever the dialect: neighbours of one speaker are one turn, JSON is its value, tools are
    chosen freely unless stated, and OpenAI's words tell that a tool failed."""
    history: list[tuple[str, list[object]]] = []
    names: dict[str, str] = {}
    for message in request.messages:
        if not history or history[-1][0] != message.role:
            history.append((message.role, []))
        for part in message.parts:
            if isinstance(part, ToolUse):
                names[part.id] = part.name
            history[-1][1].append(_meaning(part, names))
    tools = [(tool.name, tool.description, json.loads(tool.schema or b"null")) for tool in request.tools]
    choice = request.choice.mode if request.choice is not None else "auto"
    return history, tools, choice, request.max_output, request.temperature


def _meaning(part: Part, names: dict[str, str]) -> object:
    match part:
        case Text():
            return part.text
        case Media():
            return (part.kind, part.mime, part.data)
        case ToolUse():
            return ("call", part.id, part.name, json.loads(part.arguments))
        case ToolResult():
            texts = "".join(each.text for each in part.parts if isinstance(each, Text))
            return ("result", part.id, part.name or names.get(part.id), f"Error: {texts}" if part.failed else texts)
    raise AssertionError(part)


@PAIRS
@SOME
@given(request=requests())
def test_a_request_means_the_same_behind_two_dialects(one: Dialect, other: Dialect, request: Request) -> None:
    first = through(one, request)
    assert meaning(first) == meaning(request)
    assert meaning(through(other, first)) == meaning(request)


# --- answers --------------------------------------------------------------------------------------------------------

Said = tuple[str, list[tuple[str, str, object]], StopReason | None, Usage | None]
"""Text, calls (id, name, arguments), why it stopped, usage."""

USAGES = st.tuples(st.integers(20, 99), st.integers(10, 99), st.integers(0, 9), st.integers(0, 9)).map(
    lambda counts: Usage(*counts)
)
STOPS = st.sampled_from(["stop", "length"])


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    calls = [
        ToolUse(f"call_{n}", name, json.dumps(draw(ARGUMENTS))) for n, name in enumerate(draw(st.lists(NAMES, max_size=2)))
    ]
    texts = (Text(draw(TEXTS)),) if not calls or draw(st.booleans()) else ()
    thought = (Reasoning(draw(TEXTS)),) if draw(st.booleans()) else ()
    stop = "tool_calls" if calls else draw(STOPS)
    return Answer((Choice((*thought, *texts, *calls), stop),), "x-1", "m-1", usage=draw(USAGES))


def said(answer: Answer) -> Said:
    (choice,) = answer.choices
    texts = "".join(part.text for part in choice.parts if isinstance(part, Text))
    calls: list[tuple[str, str, object]] = [
        (part.id, part.name, json.loads(part.arguments)) for part in choice.parts if isinstance(part, ToolUse)
    ]
    return texts, calls, choice.stop, answer.usage


def answered(dialect: Dialect, answer: Answer) -> Answer:
    """*answer* written in *dialect* and read back."""
    assert dialect.read_answer is not None
    found = dialect.read_answer(dialect.write_answer(answer, context(dialect)), ORIGIN)
    assert isinstance(found, Answer)
    return found


@PAIRS
@SOME
@given(answer=answers())
def test_an_answer_means_the_same_behind_two_dialects(one: Dialect, other: Dialect, answer: Answer) -> None:
    first = answered(one, answer)
    assert said(first) == said(answer)
    assert said(answered(other, first)) == said(answer)


# --- streams --------------------------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> list[Delta]:
    """An answer as it arrives. Calls may be told in turn, or both at once as OpenAI Chat may."""
    found: list[Delta] = [Started("x-1", "m-1")]
    found += [ReasoningDelta(text) for text in draw(st.lists(TEXTS, max_size=2))]
    names = draw(st.lists(NAMES, max_size=2))
    found += [TextDelta(text) for text in draw(st.lists(TEXTS, min_size=0 if names else 1, max_size=3))]
    calls: list[list[Delta]] = []
    ended = draw(st.booleans())
    for index, name in enumerate(names):
        arguments = json.dumps(draw(ARGUMENTS))
        cut = draw(st.integers(0, len(arguments)))
        pieces = [piece for piece in (arguments[:cut], arguments[cut:]) if piece]
        calls.append([ToolStarted(index, f"call_{index}", name), *(ToolDelta(index, piece) for piece in pieces)])
        if ended:
            calls[-1].append(ToolEnded(index))
    if len(calls) == 2 and draw(st.booleans()):
        begun = [call[0] for call in calls]
        found += [*begun, *calls[1][1:], *calls[0][1:]]
    else:
        found += [delta for call in calls for delta in call]
    stop: StopReason = "tool_calls" if names else draw(STOPS)
    found += [Used(draw(USAGES)), Stopped(stop)]
    return found


def folded(deltas: Iterable[Delta]) -> Said:
    """What *deltas* say in all. Calls in the order of their ids: Gemini tells each when it is whole."""
    text, stop, usage = "", None, None
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        match delta:
            case TextDelta():
                text += delta.text
            case ToolStarted():
                assert delta.index not in calls
                calls[delta.index] = [delta.id, delta.name, ""]
            case ToolDelta():
                calls[delta.index][2] += delta.arguments
            case Stopped():
                assert stop is None
                stop = delta.stop
            case Started() | Used():
                usage = delta.usage or usage
    told: list[tuple[str, str, object]] = [(call, name, json.loads(given or "{}")) for call, name, given in calls.values()]
    return text, sorted(told, key=lambda call: call[0]), stop, usage


def streamed(dialect: Dialect, deltas: list[Delta], size: int) -> list[Delta]:
    """*deltas* written in *dialect* delta by delta, and read back in chunks of *size* bytes."""
    assert dialect.reader is not None
    writer, reader = dialect.writer(context(dialect)), dialect.reader(ORIGIN)
    stream = b"".join(writer.write([delta]) for delta in deltas) + writer.end()
    found: list[Delta] = []
    for at in range(0, len(stream), size):
        found += reader.feed(stream[at : at + size])
    found += reader.end()
    assert reader.error is None
    assert reader.finished
    return found


@PAIRS
@SOME
@given(deltas=streams(), size=st.sampled_from([1, 50, 100_000]))
def test_a_stream_means_the_same_behind_two_dialects(
    one: Dialect, other: Dialect, deltas: list[Delta], size: int
) -> None:
    first = streamed(one, deltas, size)
    assert folded(first) == folded(deltas)
    assert folded(streamed(other, first, size)) == folded(deltas)


@ONES
@SOME
@given(deltas=streams())
def test_a_stream_says_what_the_whole_answer_says(one: Dialect, deltas: list[Delta]) -> None:
    text, calls, stop, usage = folded(deltas)
    parts = (Text(text), *(ToolUse(call, name, json.dumps(given)) for call, name, given in calls))
    answer = Answer((Choice(parts if text else parts[1:], stop),), "x-1", "m-1", usage=usage)
    assert said(answered(one, answer)) == folded(streamed(one, deltas, 100_000))
