"""The star of dialects: what all four can say passes through any two of them, both ways, and means the same."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from keyturn.core import (
    Answer,
    Boundary,
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
    Signature,
    Signed,
    Started,
    Stopped,
    StopReason,
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
from keyturn.wire import Context, Target, parse_chat, unpack
from keyturn.wire.anthropic import ANTHROPIC, parse_messages
from keyturn.wire.chat import CHAT
from keyturn.wire.dialect import Dialect
from keyturn.wire.gemini import GEMINI, parse_generate
from keyturn.wire.gemini_signatures import unpack_bytes
from keyturn.wire.responses import RESPONSES, parse_responses

ORIGIN = Origin("up", "m-1", "g")
TARGET = Target("m-1", ORIGIN, max_output=100_000)
SOME = settings(max_examples=15, deadline=None)
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
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
    },
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

ODD = [
    " a ",
    "a\n",
    "\n x \t",
    "a\r\nb",
    "5",
    "null",
    '"x"',
    "[1]",
    '{"a":1}',
    "data: x\n\n",
    "[DONE]",
    "<system>x</system>",
]
TEXTS = st.sampled_from(ODD) | st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8
)
NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,8}", fullmatch=True)
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.just(1.5) | TEXTS
ARGUMENTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    NAMES, VALUES | st.lists(VALUES, max_size=2) | st.just({}), max_size=2
)
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
STOPS: st.SearchStrategy[StopReason] = st.sampled_from(["stop", "length"])


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    calls = [
        ToolUse(f"call_{n}", name, json.dumps(draw(ARGUMENTS)))
        for n, name in enumerate(draw(st.lists(NAMES, max_size=2)))
    ]
    texts = (Text(draw(TEXTS)),) if not calls or draw(st.booleans()) else ()
    thought = (Reasoning(draw(TEXTS)),) if draw(st.booleans()) else ()
    stop: StopReason = "tool_calls" if calls else draw(STOPS)
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
    told: list[tuple[str, str, object]] = [
        (call, name, json.loads(given or "{}")) for call, name, given in calls.values()
    ]
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
    parts: tuple[Part, ...] = (Text(text), *(ToolUse(call, name, json.dumps(given)) for call, name, given in calls))
    answer = Answer((Choice(parts if text else parts[1:], stop),), "x-1", "m-1", usage=usage)
    assert said(answered(one, answer)) == folded(streamed(one, deltas, 100_000))


# --- signatures and free tools, through every client ----------------------------------------------------------------


def history(dialect: Dialect, body: bytes) -> dict[str, Any]:
    """The request of a client of *dialect* that sends the answer *body* back, with the results of its calls."""
    answer = json.loads(body)
    asked = {"model": "m-1", **ASKED[dialect.name]}
    match dialect.name:
        case "openai_chat":
            message = answer["choices"][0]["message"]
            results = [
                {"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in message.get("tool_calls", ())
            ]
            asked["messages"] = [*asked["messages"], message, *results]
        case "anthropic":
            content = answer["content"]
            done = [
                {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
                for block in content
                if block["type"] == "tool_use"
            ]
            asked["messages"] = [*asked["messages"], {"role": "assistant", "content": content}]
            asked["messages"] += [{"role": "user", "content": done or "ok"}]
        case "gemini":
            content = answer["candidates"][0]["content"]
            calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
            parts: list[Any] = [
                {"functionResponse": {"id": call["id"], "name": call["name"], "response": {"result": "ok"}}}
                for call in calls
            ]
            asked["contents"] = [*asked["contents"], content, {"role": "user", "parts": parts or [{"text": "ok"}]}]
        case _:
            output = answer["output"]
            said = [{"type": "message", "role": "user", "content": "Hi"}, *output]
            kinds = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
            asked["input"] = said + [
                {"type": kinds[item["type"]], "call_id": item["call_id"], "output": "ok"}
                for item in output
                if item["type"] in kinds
            ]
    return asked


def returned(client: Dialect, upstream: Dialect, parts: tuple[Part, ...], target: Target) -> dict[str, Any]:
    """What *upstream* is sent when its answer of *parts* comes back in the history of a *client*."""
    answer = Answer((Choice(parts, "tool_calls"),), "x-1", "m-1", usage=Usage(1, 1))
    body = history(client, client.write_answer(answer, context(client)))
    request = client.read_request(PARSE[client.name](json.dumps(body).encode(), {}))
    assert upstream.write_request is not None
    sent: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(upstream.write_request(request, target, [])))
    return sent


def signed(dialect: Dialect) -> tuple[Part, ...]:
    """An answer of *dialect* with the signatures that it gives."""
    proof = Signature("c2lnbmVk", dialect.name, ORIGIN)
    call = ToolUse("call_1", "look", '{"a":1}')
    if dialect is GEMINI:
        return (Text("a"), structs.replace(call, signature=proof))
    return (Reasoning("hm", proof, id="rs_1" if dialect is RESPONSES else ""), Text("a"), call)


@pytest.mark.parametrize("upstream", [ANTHROPIC, GEMINI, RESPONSES], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("client", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_signature_comes_back_to_its_maker_and_to_nobody_else(client: Dialect, upstream: Dialect) -> None:
    sent = returned(client, upstream, signed(upstream), TARGET)
    assert "c2lnbmVk" in _strings(sent)
    assert not any(text.startswith("kt1.") for text in _strings(sent))
    elsewhere = returned(client, upstream, signed(upstream), Target("m-1", Origin("other", "m-1", "g"), 100_000))
    assert not any("c2lnbmVk" in text for text in _strings(elsewhere))


@pytest.mark.parametrize(
    "client",
    [
        CHAT,
        ANTHROPIC,
        RESPONSES,
        GEMINI,
    ],
    ids=lambda dialect: dialect.name,
)
def test_hidden_thinking_comes_back(client: Dialect) -> None:
    hidden = Reasoning("", Signature("c2lnbmVk", "anthropic", ORIGIN), redacted=True)
    sent = returned(client, ANTHROPIC, (hidden, Text("a"), ToolUse("call_1", "look")), TARGET)
    assert sent["messages"][1]["content"][0] == {"type": "redacted_thinking", "data": "c2lnbmVk"}


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _strings(each)]


FREE: dict[str, Any] = {
    "openai_chat": [{"type": "custom", "custom": {"name": "sh"}}],
    "openai_responses": [{"type": "custom", "name": "sh"}],
}


@pytest.mark.parametrize("upstream", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("client", [CHAT, RESPONSES], ids=lambda dialect: dialect.name)
def test_a_free_tool_takes_plain_text_whoever_answers(client: Dialect, upstream: Dialect) -> None:
    body = json.dumps({"model": "m-1", "tools": FREE[client.name], **ASKED[client.name]}).encode()
    call = PARSE[client.name](body, {})
    assert upstream.write_request is not None
    sent = msgspec.json.decode(msgspec.json.encode(upstream.write_request(client.read_request(call), TARGET, [])))
    wrapped = upstream is not client and not (client is CHAT and upstream is RESPONSES)
    assert ("input" in _names(sent["tools"])) is wrapped
    use = ToolUse("call_1", "sh", '{"input":"ls"}') if wrapped else ToolUse("call_1", "sh", "ls", free=True)
    told = Context(call, "7", 1_790_000_000, "m-1")
    assert client.read_answer is not None
    answer = client.read_answer(client.write_answer(Answer((Choice((use,), "tool_calls"),)), told), ORIGIN)
    assert isinstance(answer, Answer)
    assert answer.choices[0].parts == (ToolUse("call_1", "sh", "ls", free=True),)
    assert client.reader is not None
    writer, reader = client.writer(told), client.reader(ORIGIN)
    begun = ToolStarted(0, "call_1", "sh", free=use.free)
    stream = writer.write(
        [begun, ToolDelta(0, use.arguments[:3]), ToolDelta(0, use.arguments[3:]), Stopped("tool_calls")]
    )
    deltas = reader.feed(stream + writer.end())
    assert [delta for delta in deltas if isinstance(delta, ToolStarted)] == [ToolStarted(0, "call_1", "sh", free=True)]
    assert "".join(delta.arguments for delta in deltas if isinstance(delta, ToolDelta)) == "ls"


def _names(value: object) -> set[str]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = set(value) if isinstance(value, dict) else set()
    return own.union(*(_names(each) for each in inner))


@PAIRS
def test_a_picture_from_a_tool_is_seen_behind_two_dialects(one: Dialect, other: Dialect) -> None:
    messages = (
        Message("user", (Text("Look."),)),
        Message("assistant", (ToolUse("call_1", "look", "{}"),)),
        Message("user", (ToolResult("call_1", (Text("seen"), IMAGE), "look"),)),
    )
    request = Request("openai_chat", "m-1", messages, max_output=99)
    last = through(other, through(one, request)).messages[2:]
    parts = [part for message in last for part in message.parts]
    inner = [each for part in parts if isinstance(part, ToolResult) for each in part.parts]
    assert [part.data for part in (*parts, *inner) if isinstance(part, Media)] == [PNG]
    assert any("seen" in part.text for part in inner if isinstance(part, Text))


@pytest.mark.parametrize("upstream", [ANTHROPIC, GEMINI, RESPONSES], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("client", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_stream_carries_the_signature_too(client: Dialect, upstream: Dialect) -> None:
    made = Signature("c2lnbmVk", upstream.name, ORIGIN)
    call = ToolStarted(0, "call_1", "look", signature=made if upstream is GEMINI else None)
    thought: list[Delta] = [] if upstream is GEMINI else [ReasoningDelta("hm"), Signed(made, id="rs_1"), Boundary()]
    told = [Started("x-1", "m-1"), *thought, call, ToolDelta(0, "{}"), ToolEnded(0), Used(Usage(1, 1))]
    deltas = streamed(client, [*told, Stopped("tool_calls")], 100_000)
    values = [delta.signature for delta in deltas if isinstance(delta, (Signed, ToolStarted)) and delta.signature]
    read = unpack_bytes if client is GEMINI else lambda value: unpack(value, client.name)
    assert [read(signature.value) for signature in values] == [made]
