"""OpenAI Chat streams: read from every kind of server into deltas, and written as chunks for clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from keyturn.core import (
    Boundary,
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
from keyturn.wire import Context, StreamReader, parse_chat
from keyturn.wire.chat import CHAT

from .golden_files import golden, streams
from .steps import is_linear

ORIGIN = Origin("up", "m-1", "g")
BEGUN = Started("c-1", "m-1", created=1)


def read(stream: bytes, size: int = 0) -> tuple[list[Delta], StreamReader]:
    assert CHAT.reader is not None
    reader = CHAT.reader(ORIGIN)
    deltas: list[Delta] = []
    for at in range(0, len(stream), size or len(stream) or 1):
        deltas += reader.feed(stream[at : at + (size or len(stream))])
    return deltas + reader.end(), reader


def chunk(delta: Any = None, finish: Any = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    body = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def told(*chunks: bytes) -> list[Delta]:
    """What *chunks* say behind the start."""
    deltas, _ = read(b"".join(chunks))
    assert deltas[0] == BEGUN
    return deltas[1:]


def calls(*items: Any) -> bytes:
    return chunk({"tool_calls": list(items)})


def piece(index: Any = 0, arguments: Any = "", name: str = "", **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {**({} if index is None else {"index": index}), "function": function, **more}


def context(**members: Any) -> Context:
    asked = {"model": "alias", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **members}
    return Context(parse_chat(json.dumps(asked).encode(), {}), "7", 1_790_000_000, "m-0")


def write(*deltas: Delta, **members: Any) -> bytes:
    writer = CHAT.writer(context(**members))
    return b"".join(writer.write([delta]) for delta in deltas) + writer.end()


def chunks(written: bytes) -> list[dict[str, Any]]:
    assert written.endswith(b"\n\ndata: [DONE]\n\n")
    found = []
    for event in written.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]:
        if not event.startswith(b":"):
            data = event.removeprefix(b"data: ")
            ChatCompletionChunk.model_validate_json(data)
            found.append(json.loads(data))
    return found


def deltas_of(written: bytes) -> list[Any]:
    """The choices' deltas, without the first, the last and usage."""
    return [each["choices"][0]["delta"] for each in chunks(written)[1:-1]]


# --- read -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", streams())
def test_every_server_is_read_the_same_however_it_is_cut(name: str) -> None:
    stream = golden(name)
    deltas, whole = read(stream)
    assert whole.finished is (name not in ("cut.sse", "groq_error.sse", "groq_x_error.sse", "openrouter_error.sse"))
    for size in (1, 7, 100):
        again, reader = read(stream, size)
        assert again == deltas
        assert (reader.done, reader.finished, reader.error) == (whole.done, whole.finished, whole.error)


@pytest.mark.parametrize("name", ["mistral.sse", "deepseek.sse", "openrouter.sse", "openai.sse", "openai_tools.sse"])
def test_servers_rewritten_for_a_client(name: str) -> None:
    deltas, _ = read(golden(name))
    written = write(*deltas, stream_options={"include_usage": True})
    chunks(written)
    assert written == golden(f"chat/{name}")


def test_text_log_probabilities_and_usage() -> None:
    logprobs = {"content": [{"token": "Hi"}]}
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": logprobs}
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    assert told(
        chunk({"role": "assistant", "content": ""}),
        chunk(choices=[choice]),
        chunk({}, "stop"),
        chunk(choices=[], usage=usage),
        chunk(choices=[], usage=usage),
    ) == [TextDelta("Hi", 0, b'{"content":[{"token":"Hi"}]}'), Stopped("stop"), Used(Usage(3, 1))]


def test_calls_are_told_apart_by_index() -> None:
    assert told(
        calls(piece(0, "", "a", id="1")),
        calls(piece(1, "", "b", id="2")),
        calls(piece(1, "{}"), piece(0, "{")),
        calls(piece(0, "}")),
        chunk({}, "tool_calls"),
    ) == [
        ToolStarted(0, "1", "a"),
        ToolStarted(1, "2", "b"),
        ToolDelta(1, "{}"),
        ToolDelta(0, "{"),
        ToolDelta(0, "}"),
        Stopped("tool_calls"),
    ]


@pytest.mark.parametrize(
    "items",
    [
        [piece(None, "{}", "a", id="1"), piece(None, "[]", "b", id="2")],  # whole and without numbers
        [piece(0, "{}", "a", id="1"), piece(0, "[]", "b", id="2")],  # all of them numbered 0
        [piece(5, "{}", "a", id="1"), piece(9, "[]", "b", id="2")],  # numbers with gaps
        [piece(0, "{", "a", id="1"), piece(0, "}", "a", id="1"), piece(1, "[]", "b", id="2")],  # named again
        [piece(0, "{}", id="1"), piece(0, "", "a"), piece(1, "[]", "b", id="2")],  # named late
        [piece(None, {}, "a", id="1"), piece(None, "[", "b", id="2"), piece(None, "]")],  # an object
    ],
)
def test_calls_as_servers_bend_them(items: list[Any]) -> None:
    found: dict[int, list[str]] = {}
    for delta in told(*(calls(item) for item in items), chunk({}, "stop")):
        match delta:
            case ToolStarted():
                found[delta.index] = [delta.id, delta.name, ""]
            case ToolDelta():
                found[delta.index][2] += delta.arguments
            case _:
                assert delta == Stopped("tool_calls")
    assert found == {0: ["1", "a", "{}"], 1: ["2", "b", "[]"]}


def test_a_free_tool_an_old_function_call_and_googles_signature() -> None:
    free = {"index": 0, "id": "1", "type": "custom", "custom": {"name": "sh", "input": "l"}}
    more = {"index": 0, "custom": {"input": "s"}}
    assert told(calls(free), calls(more)) == [
        ToolStarted(0, "1", "sh", free=True),
        ToolDelta(0, "l"),
        ToolDelta(0, "s"),
    ]
    old = {"function_call": {"name": "sum", "arguments": "{"}}
    assert told(chunk(old), chunk({"function_call": {"arguments": "}"}})) == [
        ToolStarted(0, "", "sum"),
        ToolDelta(0, "{"),
        ToolDelta(0, "}"),
    ]
    signature = Signature("s", "gemini", ORIGIN)
    signed = piece(0, "{}", "a", id="1", extra_content={"google": {"thought_signature": "s"}})
    assert told(calls(signed)) == [ToolStarted(0, "1", "a", signature=signature), ToolDelta(0, "{}")]
    late = piece(0, extra_content={"google": {"thought_signature": "s"}})
    assert told(calls(piece(0, "", "a")), calls(late))[1:] == [Signed(signature)]


def test_thinking_is_told_once() -> None:
    form = {"format": "anthropic-claude-v1"}
    assert told(
        chunk({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", **form}]}),
        chunk({"reasoning_details": [{"type": "reasoning.text", "signature": "s", **form}]}),
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "e", "id": "x", **form}, "odd"]}),
        chunk({"reasoning": "so", "reasoning_details": []}),
    ) == [
        ReasoningDelta("hm"),
        Signed(Signature("s", "anthropic", ORIGIN)),
        Signed(Signature("e", "anthropic", ORIGIN), redacted=True, id="x"),
        ReasoningDelta("so"),
    ]


def test_sources_and_refusals() -> None:
    annotation = {"type": "url_citation", "url_citation": {"url": "https://example.org"}}
    raw = b'{"type":"url_citation","url_citation":{"url":"https://example.org"}}'
    cited = Cited(Citation("https://example.org", dialect="openai_chat", raw=raw))
    assert told(chunk({"refusal": "No.", "annotations": [annotation]})) == [RefusalDelta("No."), cited]


def test_every_choice_has_to_stop() -> None:
    both = chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk({}, "stop")
    _, reader = read(both)
    assert not reader.finished
    _, reader = read(both + chunk({}, "length", index=1))
    assert reader.finished
    assert not reader.done


def test_nothing_counts_behind_the_end_of_a_choice() -> None:
    assert told(chunk({"content": "a"}, "length"), chunk({"content": "b"}, "stop")) == [
        TextDelta("a"),
        Stopped("length"),
    ]


@pytest.mark.parametrize(
    "failure",
    [
        b'data: {"error": {"message": "no"}}\n\n',
        b'data: [{"error": {"message": "no"}}]\n\n',
        b'data: {"object": "error", "message": "no"}\n\n',
        b'data: {"detail": "no"}\n\n',
        b'data: {"id": "c", "x_groq": {"error": "no"}}\n\n',
        b'event: error\ndata: {"message": "no"}\n\n',
        b"event: error\ndata: no\n\n",
        b'{"error": {"message": "no"}}\n\n',
        b"<html>no</html>\n\n",
    ],
)
def test_failures_end_the_stream(failure: bytes) -> None:
    deltas, reader = read(chunk({"content": "a"}) + failure + chunk({"content": "b"}))
    assert deltas == [BEGUN, TextDelta("a")]
    assert b"no" in (reader.error or b"")
    assert not reader.finished


def test_an_error_event_without_data() -> None:
    _, reader = read(b"event: error\n\n")
    assert json.loads(reader.error or b"")["error"]["message"].endswith("without data")


# --- written --------------------------------------------------------------------------------------------------------


def test_the_order_of_chunks() -> None:
    written = write(
        Started("msg_1", "opus", created=5),
        Ping(),
        TextDelta("Hi"),
        ToolStarted(0, "toolu_1", "sum"),
        ToolDelta(0, '{"a"'),
        ToolDelta(0, ":1}"),
        ToolEnded(0),
        Stopped("tool_calls"),
        Used(Usage(3, 2)),
        stream_options={"include_usage": True},
    )
    assert written == golden("chat/order.sse")
    chunks(written)


def test_usage_is_told_only_to_who_asked() -> None:
    written = write(TextDelta("Hi"), Stopped("stop"), Used(Usage(3, 2)))
    assert b'"usage"' not in written
    assert [each["choices"][0]["finish_reason"] for each in chunks(written)] == [None, None, "stop"]


def test_an_empty_answer_and_one_without_a_stop_are_closed() -> None:
    assert [each["choices"][0]["finish_reason"] for each in chunks(write())] == [None, "stop"]
    assert chunks(write(ToolStarted(0, "1", "f")))[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert (
        chunks(write(TextDelta("a"), Stopped("length"), Stopped("stop")))[-1]["choices"][0]["finish_reason"] == "length"
    )


def test_choices_have_their_own_beginning_and_end() -> None:
    found = chunks(write(TextDelta("a"), TextDelta("b", 1), Stopped("stop", 1), Stopped("length")))
    assert [(each["choices"][0]["index"], each["choices"][0]["finish_reason"]) for each in found] == [
        (0, None),
        (0, None),
        (1, None),
        (1, None),
        (1, "stop"),
        (0, "length"),
    ]
    assert found[2]["choices"][0]["delta"]["role"] == "assistant"


def test_thinking_comes_with_its_signature_whole() -> None:
    made = Signature("s", "anthropic")
    assert deltas_of(
        write(
            ReasoningDelta("two "),
            ReasoningDelta("and two"),
            Signed(made),
            Boundary(),
            Signed(Signature("e", "anthropic"), redacted=True),
            Boundary(),
            ReasoningDelta("so"),
            Boundary(),
            ReasoningDelta("4"),
            Signed(Signature("r", "openai_responses"), id="rs_1"),
            Boundary(),
            TextDelta("4"),
            Stopped("stop"),
        )
    ) == [
        {"reasoning_content": "two "},
        {"reasoning_content": "and two"},
        {"reasoning_details": [detail(0, text="two and two", signature="s", format="anthropic-claude-v1")]},
        {"reasoning_details": [{**detail(1, data="e", format="anthropic-claude-v1"), "type": "reasoning.encrypted"}]},
        {"reasoning_content": "\n\nso"},
        {"reasoning_content": "\n\n4"},
        {"reasoning_details": [detail(2, text="so\n\n4", signature="r", id="rs_1", format="openai-responses-v1")]},
        {"content": "4"},
    ]


def detail(index: int, **members: str) -> dict[str, Any]:
    return {"type": "reasoning.text", **members, "index": index}


def test_googles_signatures_stand_on_calls_and_nowhere_else() -> None:
    made = Signature("s", "gemini")
    google = {"google": {"thought_signature": "s"}}
    assert deltas_of(
        write(
            TextDelta("a"),
            Signed(made),
            ToolStarted(0, "", "f", signature=made),
            ToolStarted(1, "2", "g", namespace="ns"),
            Signed(made),
            Stopped("tool_calls"),
        )
    ) == [
        {"content": "a"},
        {"tool_calls": [{**called(0, "call_7_0", "f"), "extra_content": google}]},
        {"tool_calls": [called(1, "2", "ns__g")]},
        {"tool_calls": [{"index": 1, "extra_content": google}]},
    ]


def called(index: int, call_id: str, name: str) -> dict[str, Any]:
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}


def test_free_tools() -> None:
    tools = [{"type": "custom", "custom": {"name": "sh"}}]
    begun = {"index": 0, "id": "1", "type": "custom", "custom": {"name": "sh", "input": ""}}
    whole = {"index": 0, "custom": {"input": "ls"}}
    wrapped: list[Delta] = [ToolStarted(0, "1", "sh"), ToolDelta(0, '{"input"'), ToolDelta(0, ':"ls"}')]
    ends: list[list[Delta]] = [[ToolEnded(0), Stopped("tool_calls")], [Stopped("tool_calls")]]
    for end in ends:
        written = write(*wrapped, *end, tools=tools)
        found = [json.loads(event[6:]) for event in written.split(b"\n\n")[1:-3]]
        assert [each["choices"][0]["delta"]["tool_calls"] for each in found] == [[begun], [whole]]
    plain = write(ToolStarted(0, "1", "sh", free=True), ToolDelta(0, "ls"), Stopped("tool_calls"))
    assert json.loads(plain.split(b"\n\n")[2][6:])["choices"][0]["delta"]["tool_calls"] == [whole]


def test_a_client_that_knows_only_functions() -> None:
    written = write(
        ToolStarted(0, "1", "f"),
        ToolDelta(0, "{}"),
        ToolStarted(1, "2", "g"),
        ToolDelta(1, "{}"),
        Stopped("tool_calls"),
        functions=[{"name": "f"}],
    )
    assert deltas_of(written) == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
    ]
    assert chunks(written)[-1]["choices"][0]["finish_reason"] == "function_call"


def test_sources_stand_where_their_text_does() -> None:
    written = write(
        TextDelta("It is "),
        Boundary(),
        TextDelta("4."),
        Cited(Citation("https://example.org", "t")),
        Cited(Citation(quote="without an address")),
        RefusalDelta("No."),
        ForeignPart(Foreign("anthropic", "server_tool_use", b"{}")),
        Stopped("stop"),
    )
    source = {"url": "https://example.org", "title": "t", "start_index": 6, "end_index": 8}
    assert deltas_of(written)[2:] == [
        {"refusal": "No."},
        {"annotations": [{"type": "url_citation", "url_citation": source}]},
    ]


def test_openais_own_sdk_puts_the_chunks_together() -> None:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    made = Signature("s", "anthropic")
    written = write(
        Started("msg_1", "opus"),
        ReasoningDelta("hm"),
        Signed(made),
        Signed(Signature("e", "anthropic"), redacted=True),
        TextDelta("It is "),
        TextDelta("4."),
        Cited(Citation("https://example.org", "t")),
        Cited(Citation("https://example.com", "u")),
        ToolStarted(0, "1", "f", signature=Signature("g", "gemini")),
        ToolStarted(1, "2", "g"),
        ToolDelta(1, '{"b":2}'),
        ToolDelta(0, "{"),
        ToolDelta(0, "}"),
        Stopped("tool_calls"),
        Used(Usage(3, 2)),
        stream_options={"include_usage": True},
    )
    for each in chunks(written):
        state.handle_chunk(ChatCompletionChunk.model_validate(each))
    whole = state.get_final_completion()
    message = whole.choices[0].message
    assert (message.content, whole.choices[0].finish_reason) == ("It is 4.", "tool_calls")
    assert [(use.id, use.function.arguments) for use in message.tool_calls or []] == [("1", "{}"), ("2", '{"b":2}')]
    assert len(message.annotations or []) == 2
    extra = message.model_extra or {}
    assert extra["reasoning_content"] == "hm"
    assert [each.get("signature", each.get("data")) for each in extra["reasoning_details"]] == ["s", "e"]
    assert whole.usage is not None
    assert whole.usage.total_tokens == 5


def test_log_probabilities() -> None:
    logprobs = b'{"content":[{"token":"a","logprob":-0.5,"bytes":null,"top_logprobs":[]}]}'
    assert chunks(write(TextDelta("a", 0, logprobs)))[1]["choices"][0]["logprobs"] == json.loads(logprobs)


def test_a_relayed_stream_is_watched_for_as_many_choices_as_were_asked_for() -> None:
    assert CHAT.watch is not None
    watch = CHAT.watch(context(n=2).call)
    watch.feed(chunk({"content": "a"}, "stop"))
    states = [watch.finished]
    watch.feed(chunk({"content": "a"}, "stop", index=1))
    assert [*states, watch.finished] == [False, True]
    assert watch.signatures == []


def test_a_call_without_number_is_found_by_its_id_at_once() -> None:
    def reading(size: int) -> Callable[[], object]:
        stream = b"".join(calls(piece(None, "{}", "f", id=f"c{at}")) for at in range(size))
        return lambda: read(stream)

    assert is_linear(reading)


def test_calls_without_ids_under_one_number_are_told_apart_by_name() -> None:
    assert told(
        calls(piece(0, "{}", "a")), calls(piece(0, "[", "b")), calls(piece(0, "]", "b")), chunk({}, "stop")
    ) == [
        ToolStarted(0, "", "a"),
        ToolDelta(0, "{}"),
        ToolStarted(1, "", "b"),
        ToolDelta(1, "["),
        ToolDelta(1, "]"),
        Stopped("tool_calls"),
    ]
