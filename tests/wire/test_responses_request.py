"""Responses requests: parsed into a Call, read into the neutral request, written for an upstream; and every refusal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Call,
    Citation,
    Foreign,
    Media,
    Message,
    Origin,
    Reasoning,
    Refusal,
    Request,
    Shape,
    Signature,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from keyturn.errors import BadRequest, Untranslatable
from keyturn.wire.dialect import Target
from keyturn.wire.responses import RESPONSES, parse_input_tokens, parse_responses
from keyturn.wire.signatures import pack

from .steps import is_linear

GOLDEN = Path(__file__).with_name("golden") / "responses"
ORIGIN = Origin("openai", "gpt-5.6", "g1")
TARGET = Target("up", ORIGIN, cache_marks=True)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
DEEP: Any = {}
for _ in range(60):
    DEEP = {"a": DEEP}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}


def parse(headers: dict[str, str] | None = None, **members: Any) -> Call:
    body = {"model": "m", "input": "hi", **members}
    return parse_responses(json.dumps({k: v for k, v in body.items() if v is not ...}).encode(), headers or {})


def read(*items: Any, **members: Any) -> Request:
    return RESPONSES.read_request(parse(input=list(items) or "hi", **members))


def write(request: Request, target: Target = TARGET) -> tuple[dict[str, Any], list[str]]:
    assert RESPONSES.write_request is not None
    notes: list[str] = []
    return json.loads(msgspec.json.encode(RESPONSES.write_request(request, target, notes))), notes


# --- the Call -------------------------------------------------------------------------------------------------------


def test_a_call() -> None:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
    document = {"type": "input_file", "file_data": "data:application/pdf;base64," + "JVBERi0x" * 500}
    call = parse(
        {"x-request-timeout-ms": "2500", "session-id": "s1"},
        input=[{"role": "user", "content": [image, document]}],
        tools=[FUNCTION],
        text={"format": {"type": "json_object"}},
        max_output_tokens=99,
        stream=True,
    )
    assert (call.dialect, call.kind, call.model, call.stream) == ("openai_responses", "chat", "m", True)
    assert call.needs == {"vision", "tools", "json"}
    assert (call.max_output, call.media, call.timeout, call.conversation) == (99, 2, 2.5, "s1")
    assert call.text_bytes < 600
    assert call.members["store"] == b"false"


def test_a_document_alone_is_no_text() -> None:
    document = {"type": "input_file", "file_data": "data:application/pdf;base64," + "JVBERi0x" * 500}
    call = parse(input=[{"role": "user", "content": [document]}])
    assert (call.media, call.text_bytes < 300) == (1, True)


def test_a_conversation_is_named_by_its_cache_key_first() -> None:
    assert parse({"session_id": "s"}, prompt_cache_key="k").conversation == "k"
    assert parse({"session_id": "s"}).conversation == "s"
    assert parse().conversation == ""


def test_counting_adds_nothing_to_the_request() -> None:
    call = parse_input_tokens(b'{"model":"m","input":"hi","stream":true}', {})
    assert (call.kind, call.stream, "store" in call.members) == ("count", False, False)


PARSE_REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("input", {"input": ...}),
    ("input", {"input": ""}),
    ("input", {"input": []}),
    ("input", {"input": 5}),
    ("input", {"input": ["x"]}),
    ("model", {"model": ...}),
    ("stream", {"stream": "yes"}),
    ("max_output_tokens", {"max_output_tokens": "9"}),
    ("previous_response_id", {"previous_response_id": 1}),
    ("conversation", {"conversation": {"id": "conv_1"}}),
    ("background", {"background": True}),
    ("prompt", {"prompt": {"id": "pmpt_1"}}),
]


@pytest.mark.parametrize(("param", "members"), PARSE_REFUSALS)
def test_what_parsing_refuses(param: str, members: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(**members)
    assert caught.value.param == param


def test_members_of_a_server_that_keeps_responses_may_be_null_or_false() -> None:
    call = parse(previous_response_id=None, conversation=None, prompt=None, store=False, background=False)
    assert call.members["store"] == b"false"
    assert (call.previous, call.store) == ("", False)


def test_what_is_asked_of_this_gateway_is_not_asked_of_an_upstream() -> None:
    call = parse(previous_response_id="resp_1", store=True)
    assert (call.previous, call.store) == ("resp_1", True)
    assert call.members["store"] == b"false"
    assert "previous_response_id" not in call.members
    assert parse().store is None


# --- there and back by example --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.request.json")), ids=lambda path: path.name.partition(".")[0])
def test_a_request_read_and_written(path: Path) -> None:
    example = json.loads(path.read_bytes())
    call = parse_responses(json.dumps(example["given"]).encode(), {})
    written, notes = write(RESPONSES.read_request(call))
    assert written == example["written"]
    assert notes == example["notes"]


def test_neighbours_become_one_message() -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": "1"}
    request = read(
        {"role": "user", "content": "Go."},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "gAAA"},
        {"role": "assistant", "content": "I call."},
        CALL,
        {**CALL, "call_id": "c2"},
        output,
        {**output, "call_id": "c2", "output": "2"},
    )
    thought = Reasoning("Hm.", Signature("gAAA", "openai_responses"))
    assert request.messages == (
        Message("user", (Text("Go."),)),
        Message("assistant", (thought, Text("I call."), ToolUse("c1", "f"), ToolUse("c2", "f"))),
        Message("user", (ToolResult("c1", (Text("1"),), "f"), ToolResult("c2", (Text("2"),), "f"))),
    )


def test_a_signature_of_gemini_goes_to_the_call_behind_it_or_the_text_before_it() -> None:
    made = Origin("google", "flash", "g")
    one, two = (Signature(value, "gemini", made) for value in ("T25l", "VHdv"))
    say = {"role": "assistant", "content": "Well."}
    bare = {"type": "reasoning", "summary": []}
    request = read(say, {**bare, "encrypted_content": pack(one)}, {**bare, "encrypted_content": pack(two)}, CALL)
    text, call = request.messages[0].parts
    assert isinstance(text, Text)
    assert isinstance(call, ToolUse)
    assert (text.signature, call.signature) == (one, two)


def test_namespaces_are_flattened_with_the_choice() -> None:
    space = {"type": "namespace", "name": "files", "description": "d", "tools": [FUNCTION]}
    request = read(tools=[space], tool_choice={"type": "function", "name": "f"})
    assert request.tools == (Tool("f", schema=b'{"type":"object"}', namespace="files"),)
    assert request.choice == ToolChoice("any", ("files__f",))


# --- refusals -------------------------------------------------------------------------------------------------------


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


ITEM_REFUSALS: list[tuple[str, Any]] = [
    ("input[0].role", {"role": "tool", "content": "x"}),
    ("input[0].content", {"role": "user"}),
    ("input[0].type", {"content": "x"}),
    ("input[0].type", {"type": "telepathy"}),
    ("input[0]", {"type": "item_reference", "id": "msg_1"}),
    ("input[0]", {"id": "msg_1"}),
    ("input[0].content[0].type", user({"type": "image_url", "image_url": {"url": "https://a.example"}})),
    ("input[0].content[0].text", user({"type": "input_text"})),
    ("input[0].content[0].image_url", user({"type": "input_image"})),
    ("input[0].content[0].image_url", user({"type": "input_image", "image_url": {"url": "https://a.example"}})),
    ("input[0].content[0].image_url", user({"type": "input_image", "image_url": "data:image/png;base64,aGFsbG8="})),
    ("input[0].content[0].file_url", user({"type": "input_file", "filename": "a"})),
    ("input[0].content[0].type", {"role": "system", "content": [{"type": "input_image", "file_id": "f"}]}),
    ("input[0].content[0].type", {"role": "assistant", "content": [{"type": "input_image", "file_id": "f"}]}),
    ("input[0].call_id", {"type": "function_call_output", "call_id": "c9", "output": "x"}),
    ("input[0].call_id", {"type": "function_call", "name": "f"}),
    ("input[0].name", {"type": "function_call", "call_id": "c"}),
]


@pytest.mark.parametrize(("param", "item"), ITEM_REFUSALS)
def test_an_item_that_is_refused(param: str, item: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        read(item)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


MEMBER_REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("tools[0].type", {"tools": [{"name": "f"}]}),
    ("tools[0].name", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("tools[0].parameters", {"tools": [{"type": "function", "name": "f", "parameters": DEEP}]}),
    ("tools[0].tools[0].type", {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]}),
    ("tool_choice", {"tool_choice": "any"}),
    ("tool_choice.name", {"tool_choice": {"type": "function", "name": "g"}, "tools": [FUNCTION]}),
    ("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "x"}}}),
    ("text.format.json_schema", {"text": {"format": {"type": "json_schema", "json_schema": {}}}}),
    ("text.format.type", {"text": {"format": {"type": "xml"}}}),
    ("reasoning.effort", {"reasoning": {"effort": "heroic"}}),
    ("temperature", {"temperature": "hot"}),
]


@pytest.mark.parametrize(("param", "members"), MEMBER_REFUSALS)
def test_a_member_that_is_refused(param: str, members: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**members)
    assert caught.value.param == param


NAMES = """type role content text input_text output_text message user assistant reasoning summary encrypted_content id
function_call function_call_output call_id name arguments output namespace tools input_image image_url input_file
file_data refusal annotations web_search_call item_reference function custom parameters""".split()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(NAMES)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=70, deadline=None)
@given(items=st.lists(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5), min_size=1, max_size=4), tools=JSON)
def test_any_json_is_read_or_refused(items: Any, tools: Any) -> None:
    with contextlib.suppress(BadRequest):
        call = parse(input=items, tools=tools, text=tools, reasoning=tools, tool_choice=tools, include=tools)
        request = RESPONSES.read_request(call)
        write(request)


# --- for an upstream ------------------------------------------------------------------------------------------------


def ask(*messages: Message, **more: Any) -> Request:
    return Request("openai_chat", "m", messages or (Message("user", (Text("hi"),)),), **more)


def test_what_is_dropped_is_told() -> None:
    request = ask(
        Message("user", (Text("hi", cache="5m"),), name="Ada"),
        Message("assistant", (Reasoning("no proof"), Reasoning("x", Signature("s", "anthropic")), Text("yo"))),
        seed=1,
        top_k=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        temperature=0.3,
        max_output=5,
        tier="standard_only",
        user="u" * 65,
        others={"logit_bias": b"{}", "metadata": b'{"a":"b"}'},
        hosted=(Foreign("anthropic", "bash", b"{}"),),
    )
    written, notes = write(request, Target("up", ORIGIN, sampling=False))
    assert notes == [
        "dropped name: OpenAI Responses has no counterpart",
        "dropped prompt_cache_breakpoint: the upstream places its cache marks itself",
        "dropped reasoning: it is not signed",
        "dropped reasoning: signed by another provider",
        "dropped tools.bash: only its own provider runs it",
        "raised max_output_tokens to 16: OpenAI Responses takes no less",
        "dropped temperature: the model does not take it",
        "dropped top_k: OpenAI Responses has no counterpart",
        "dropped seed: OpenAI Responses has no counterpart",
        "dropped presence_penalty: OpenAI Responses has no counterpart",
        "dropped frequency_penalty: OpenAI Responses has no counterpart",
        "dropped user: OpenAI takes at most 64 characters",
        "dropped service_tier: OpenAI Responses has no counterpart",
        "dropped logit_bias: OpenAI Responses has no counterpart",
    ]
    assert written == {
        "model": "up",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "yo", "annotations": []}],
            },
        ],
        "store": False,
        "max_output_tokens": 16,
        "metadata": {"a": "b"},
    }


def test_documents_of_another_dialect() -> None:
    shown = (
        Media("document", "text/plain", text="All of it.", name="Notes", context="From May.", cited=True),
        Media("document", "application/pdf", "JVBERi0x"),
        Media("image", file_id="file-1", cache="1h"),
    )
    written, notes = write(ask(Message("user", shown)))
    assert notes == ["dropped citations: OpenAI Responses cannot be told to cite"]
    assert written["input"][0]["content"] == [
        {"type": "input_text", "text": "From May."},
        {"type": "input_text", "text": "Notes\nAll of it."},
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0x", "filename": "document.pdf"},
        {
            "type": "input_image",
            "detail": "auto",
            "file_id": "file-1",
            "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"},
        },
    ]


UNTRANSLATABLE: list[tuple[str, Request]] = [
    ("stop", ask(stop=("x",))),
    ("n", ask(n=2)),
    ("modalities", ask(others={"modalities": b'["text","audio"]'})),
    ("messages[0]", ask(Message("user", (Media("audio", "audio/wav", "UklG"),)))),
    ("messages[0]", ask(Message("user", (Media("video", url="https://v.example/a.mp4"),)))),
    ("messages[0]", ask(Message("user", (Media("image", url="gs://bucket/a.png"),)))),
    ("messages[0]", ask(Message("assistant", (Media("image", "image/png", PNG),)))),
    ("messages[0]", ask(Message("user", (ToolResult("", (), "f"),)))),
    ("messages[0]", Request("anthropic", "m", (Message("user", (Media("image", file_id="file_1"),)),))),
]


@pytest.mark.parametrize(("param", "request_"), UNTRANSLATABLE)
def test_what_cannot_be_said_is_refused(param: str, request_: Request) -> None:
    with pytest.raises(Untranslatable) as caught:
        write(request_)
    assert caught.value.param == param


BUDGETS = [(0, "none"), (1024, "low"), (2048, "medium"), (10_000, "high"), (24_000, "xhigh")]


@pytest.mark.parametrize(("budget", "effort"), BUDGETS)
def test_a_budget_becomes_an_effort(budget: int, effort: str) -> None:
    written, _ = write(ask(thinking=Thinking(budget=budget, shown=True)))
    shown = {} if effort == "none" else {"summary": "auto"}
    assert written["reasoning"] == {"effort": effort, **shown}
    assert ("include" in written) == (effort != "none")


def test_tools_of_another_dialect_are_not_strict_by_omission() -> None:
    written, _ = write(ask(tools=(Tool("f"), Tool("g", "G.", b'{"type":"object"}', True)), choice=ToolChoice("any")))
    assert written["tools"] == [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False},
        {"type": "function", "name": "g", "description": "G.", "parameters": {"type": "object"}, "strict": True},
    ]
    assert written["tool_choice"] == "required"


def test_shapes_choices_results_and_ids() -> None:
    request = ask(
        Message("system", (Text("a"),)),
        Message("system", (Text("b"),)),
        Message("assistant", (ToolUse("", "f", ""), ToolUse("", "g"))),
        Message("user", (ToolResult("", (Text("gone"),), "g", failed=True), ToolResult("", (), "f"), Text("so?"))),
        tools=(Tool("f"), Tool("g", free=True)),
        choice=ToolChoice("any", ("f", "g")),
        shape=Shape("schema", b'{"type":"object"}'),
        logprobs=True,
        top_logprobs=3,
    )
    written, notes = write(request)
    assert notes == []
    assert "instructions" not in written
    assert [item.get("role") or item["call_id"] for item in written["input"]] == [
        "developer", "developer", "call_0", "call_1", "call_1", "call_0", "user",
    ]  # fmt: skip
    assert [item["output"] for item in written["input"][4:6]] == ["Error: gone", ""]
    form = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": False}
    assert written["text"] == {"format": form}
    assert written["tool_choice"] == {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}],
    }
    assert (written["include"], written["top_logprobs"]) == (["message.output_text.logprobs"], 3)


# --- there and back for any request -----------------------------------------------------------------------------------

WORDS = st.text("abc é", min_size=1, max_size=6)
CITATION = Citation("https://a.example", "A", "", 0, 1, "openai_responses", b'{"url":"https://a.example"}')
SAID = st.builds(Text, WORDS)
MARKED = st.builds(Text, WORDS, st.sampled_from(["", "30m", "12h"]))
PICTURE = st.builds(
    Media, st.just("image"), st.just("image/png"), st.just(PNG), detail=st.sampled_from(["auto", "low"])
)
LINKED = st.builds(Media, st.just("document"), url=st.just("https://a.example/b.pdf"), name=WORDS)
SIGNED = st.builds(Reasoning, WORDS, st.just(Signature("gAAA", "openai_responses")), summary=st.booleans())
FOUND = st.just(Foreign("openai_responses", "web_search_call", b'{"type":"web_search_call","id":"ws"}'))
SYSTEM = st.builds(lambda parts: Message("system", tuple(parts)), st.lists(MARKED, min_size=1, max_size=2))
USER = st.builds(lambda p: Message("user", tuple(p)), st.lists(MARKED | PICTURE | LINKED, min_size=1, max_size=3))


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """A user's message, what the assistant says to it, and what its tools answered."""
    number = draw(st.integers(0, 10**6))
    spoken: list[Any] = draw(st.lists(SAID | st.builds(Refusal, WORDS) | FOUND, max_size=3))
    calls = [
        ToolUse(f"c{number}_{at}", "f", text if free else '{"a":1}', free, "" if free else space)
        for at, (free, text, space) in enumerate(
            draw(st.lists(st.tuples(st.booleans(), WORDS, st.sampled_from(["", "files"])), max_size=2))
        )
    ]
    parts = [*spoken, *calls]
    thoughts = draw(st.lists(SIGNED, max_size=1)) if parts else []
    results = [
        ToolResult(call.id, tuple(draw(st.lists(MARKED | PICTURE, min_size=1, max_size=2))), "f", free=call.free)
        for call in calls
    ]
    messages = [draw(USER)]
    if parts:
        messages.append(Message("assistant", (*thoughts, *parts)))
    if results:
        messages.append(Message("user", tuple(results)))
    return messages


REQUESTS = st.builds(
    lambda system, conversation, **more: Request(
        "openai_responses", "up", (*system, *(message for turn in conversation for message in turn)), **more
    ),
    st.lists(SYSTEM, max_size=2),
    st.lists(turns(), min_size=1, max_size=3),
    tools=st.lists(st.builds(Tool, st.just("f"), WORDS, st.just(b'{"type":"object"}'), st.booleans()), max_size=1).map(
        tuple
    ),
    parallel=st.none(),
    shape=st.none() | st.builds(Shape, st.just("schema"), st.just(b'{"a":1}'), WORDS, WORDS, st.booleans()),
    thinking=st.none() | st.builds(Thinking, st.sampled_from(["low", "max"]), shown=st.sampled_from([None, True])),
    max_output=st.none() | st.integers(16, 9999),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    user=st.text("ab", max_size=5),
    cache_key=st.text("ab", max_size=5),
    verbosity=st.sampled_from(["", "low"]),
    tier=st.sampled_from(["", "flex"]),
)


@settings(max_examples=60, deadline=None)
@given(REQUESTS)
def test_any_request_comes_back(request_: Request) -> None:
    written, notes = write(request_)
    back = RESPONSES.read_request(parse_responses(json.dumps(written).encode(), {}))
    assert notes == []
    assert msgspec.structs.replace(back, others={}) == request_


def test_calls_without_ids_are_answered_in_any_order() -> None:
    def writing(size: int) -> Callable[[], object]:
        uses = tuple(ToolUse("", f"f{at}", "{}") for at in range(size))
        results = tuple(ToolResult("", (Text("r"),), use.name) for use in reversed(uses))
        request = Request("gemini", "m", (Message("assistant", uses), Message("user", results)))
        return lambda: write(request)

    assert is_linear(writing)


def test_chosen_tools_and_signatures_are_found_at_once() -> None:
    def choosing(size: int) -> Callable[[], object]:
        tools = [{"type": "function", "name": f"f{at}"} for at in range(size)]
        choice = {"type": "allowed_tools", "mode": "auto", "tools": tools[::-1]}
        call = parse(input="hi", tools=tools, tool_choice=choice)
        return lambda: RESPONSES.read_request(call)

    def signing(size: int) -> Callable[[], object]:
        signature = pack(Signature("Zw==", "gemini", ORIGIN))
        calls = [{"type": "function_call", "call_id": f"c{at}", "name": "f"} for at in range(size)]
        call = parse(input=[*calls, *[{"type": "reasoning", "encrypted_content": signature}] * size])
        return lambda: RESPONSES.read_request(call)

    assert is_linear(choosing)
    assert is_linear(signing)
