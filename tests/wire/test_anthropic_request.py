"""Requests read from Anthropic's words and written in them: there and back, what is refused, what is dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Foreign,
    Media,
    Message,
    Origin,
    Part,
    Reasoning,
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
from keyturn.wire.anthropic import ANTHROPIC, parse_messages
from keyturn.wire.dialect import Target
from keyturn.wire.signatures import pack
from tests.wire.golden_files import golden
from tests.wire.steps import is_linear

ORIGIN = Origin("anthropic", "claude-x", "g1")
TARGET = Target("claude-x", ORIGIN, mid_system=True)
USER: dict[str, object] = {"role": "user", "content": "Hi"}


def read(**members: object) -> Request:
    body = {"model": "claude-x", "max_tokens": 100, "messages": [USER], **members}
    return ANTHROPIC.read_request(parse_messages(json.dumps(body).encode(), {}))


def asked(*messages: object) -> tuple[Message, ...]:
    return read(messages=list(messages)).messages


def write(request: Request, target: Target = TARGET, notes: list[str] | None = None) -> dict[str, Any]:
    assert ANTHROPIC.write_request is not None
    body = ANTHROPIC.write_request(request, target, [] if notes is None else notes)
    return json.loads(msgspec.json.encode(body))  # type: ignore[no-any-return]


def chat(*messages: Message, **members: Any) -> Request:
    """A request of an OpenAI client."""
    return Request("openai_chat", "m", messages or (Message("user", (Text("Hi"),)),), **members)


# --- there and back -------------------------------------------------------------------------------------------------


def test_its_own_words_come_out_as_they_went_in() -> None:
    body = golden("anthropic/rich.request.json")
    request = ANTHROPIC.read_request(parse_messages(body, {}))
    notes: list[str] = []
    written = write(request, TARGET._replace(model=request.model, thinking="budget"), notes)
    assert written == json.loads(body)
    assert notes == []


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
caches = st.sampled_from(["", "", "", "5m", "1h"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(texts, values.filter(lambda value: value is not None), min_size=1, max_size=3)
json_texts = objects.map(msgspec.json.encode)
text_parts = st.builds(Text, texts)
media = st.one_of(
    st.builds(Media, st.just("image"), st.just("image/gif"), st.just("R0lGODlhAQABAAAAACw="), cache=caches),
    st.builds(Media, st.just("image"), st.just(""), url=st.just("https://x.example/a.png")),
    st.builds(Media, st.just("document"), st.just("application/pdf"), st.just("JVBERi0xLjQK"), name=names),
    st.builds(Media, st.just("document"), st.just("text/plain"), text=texts, context=texts, cited=st.booleans()),
    st.builds(Media, st.just("document"), st.just(""), file_id=names),
)
signatures = st.builds(Signature, names, st.just("anthropic"))
reasonings = st.one_of(
    st.builds(Reasoning, texts, signatures),
    st.builds(Reasoning, signature=signatures, redacted=st.just(True)),
)
foreigns = json_texts.map(
    lambda raw: Foreign("anthropic", "container_upload", b'{"type":"container_upload",' + raw[1:])
)
results = st.lists(text_parts | media, max_size=3).map(tuple)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """A prompt, then turns; every call is answered at the beginning of the next turn."""
    messages: list[Message] = []
    if draw(st.booleans()):
        prompt = st.builds(Text, texts.filter(lambda text: not text.startswith("x-anthropic")), caches)
        messages.append(Message("system", tuple(draw(st.lists(prompt, min_size=1, max_size=2)))))
    pending: tuple[Part, ...] = ()
    count = 0
    for _ in range(draw(st.integers(0, 2))):
        told = draw(st.lists(text_parts | media, min_size=0 if pending else 1, max_size=3))
        messages.append(Message("user", (*pending, *told)))
        if draw(st.booleans()):
            messages.append(Message("system", (draw(text_parts),)))
        said = draw(st.lists(reasonings | text_parts | foreigns, min_size=1, max_size=3))
        calls = [
            ToolUse(
                f"call_{count + at}", draw(names), draw(objects.map(lambda value: msgspec.json.encode(value).decode()))
            )
            for at in range(draw(st.integers(0, 2)))
        ]
        count += len(calls)
        messages.append(Message("assistant", (*said, *calls)))
        pending = tuple(ToolResult(call.id, draw(results), failed=draw(st.booleans())) for call in calls)
    last = draw(st.lists(text_parts | media, min_size=0 if pending else 1, max_size=2))
    messages.append(Message("user", (*pending, *last)))
    return tuple(messages)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    called = draw(st.lists(names, max_size=3, unique=True))
    tools = tuple(Tool(name, draw(texts | st.just("")), draw(json_texts), cache=draw(caches)) for name in called)
    choices = [None, ToolChoice("auto"), ToolChoice("none"), *(ToolChoice("any", (name,)) for name in called)]
    choice = draw(st.sampled_from(choices)) if tools else None
    parallel = draw(st.sampled_from([None, False])) if choice and choice.mode != "none" else None
    thinking = draw(
        st.sampled_from([None, Thinking("low"), Thinking("max", shown=False), Thinking(), Thinking("none")])
    )
    if choice and choice.mode == "any":
        thinking = None
    samples = thinking is None or thinking.effort == "none"
    return Request(
        "anthropic",
        "claude-x",
        draw(conversations()),
        tools=tools,
        hosted=draw(st.sampled_from([(), (Foreign("anthropic", "bash_20250124", b'{"type":"bash_20250124"}'),)])),
        choice=choice,
        parallel=parallel,
        shape=draw(st.none() | st.builds(Shape, st.just("schema"), json_texts)),
        thinking=thinking,
        max_output=draw(st.integers(0, 10**6)),
        temperature=draw(st.none() | st.floats(0, 1)) if samples else None,
        top_k=draw(st.none() | st.integers(0, 99)) if samples else None,
        stop=tuple(draw(st.lists(texts, max_size=2))),
        user=draw(st.just("") | texts),
        cache=draw(caches),
        tier=draw(st.sampled_from(["", "auto", "default"])),
        stream=draw(st.booleans()),
        others=draw(st.dictionaries(st.sampled_from(["container", "speed"]), json_texts)),
    )


def _marks(request: Request) -> int:
    return json.dumps(write(request)).count('"cache_control"')


@settings(max_examples=25, deadline=None)
@given(requests())
def test_there_and_back(request: Request) -> None:
    notes: list[str] = []
    body = msgspec.json.encode(write(request, notes=notes))
    back = ANTHROPIC.read_request(parse_messages(body, {}))
    assert _marks(request) <= 4
    if notes:  # nothing but marks above the four may be lost
        assert all("cache marks" in note for note in notes)
        assert write(back) == write(request)
    else:
        assert back == request


# --- reading --------------------------------------------------------------------------------------------------------


def test_what_claude_code_says_of_billing_is_left_out() -> None:
    system = [{"type": "text", "text": "x-anthropic-billing-header: v=1"}, {"type": "text", "text": "Be kind."}]
    assert read(system=system).messages[0] == Message("system", (Text("Be kind."),))
    assert read(system=system[:1]).messages[0].role == "user"


@pytest.mark.parametrize(
    ("thinking", "config", "expected"),
    [
        ({"type": "adaptive"}, {"effort": "high"}, Thinking("high")),
        ({"type": "adaptive", "display": "omitted"}, {}, Thinking(shown=False)),
        ({"type": "enabled", "budget_tokens": 2048}, {}, Thinking("", 2048)),
        ({"type": "disabled"}, {"effort": "low"}, Thinking("none")),
        ({"type": "between_tools"}, {"effort": "low"}, Thinking("low")),
        (None, {"effort": "max"}, Thinking("max")),
        (None, {}, None),
    ],
)
def test_thinking(thinking: object, config: object, expected: Thinking | None) -> None:
    request = read(thinking=thinking, output_config=config)
    assert request.thinking == expected
    written = write(request)
    if thinking and expected and expected.budget is None:
        assert written["thinking"] == thinking
        assert written.get("output_config", {}) == config


def test_a_gemini_signature_goes_back_to_its_call() -> None:
    made = Signature("Zw==", "gemini", Origin("google", "gemini-3", "g"))
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    for text in ("", "Hm."):
        thinking = {"type": "thinking", "thinking": text, "signature": pack(made)}
        parts = asked(USER, {"role": "assistant", "content": [thinking, call]})[1].parts
        kept = (Reasoning(text),) if text else ()
        assert parts == (*kept, ToolUse("t1", "f", "{}", signature=made))


def test_search_results_and_documents_with_images() -> None:
    found = {"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "Body"}]}
    image = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
    content = [{"type": "text", "text": "Row"}, image]
    document = {"type": "document", "source": {"type": "content", "content": content}}
    assert asked({"role": "user", "content": [found, document]})[0].parts == (
        Text("T\ns\n\nBody"),
        Media("document", "", text="Row"),
        Media("image", "", url="https://x.example/a.png"),
    )


def blocks(*content: object, role: str = "user") -> dict[str, object]:
    return {"messages": [{"role": role, "content": list(content)}]}


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": []}, USER]}, "messages[0].content"),
        (blocks({"type": "text", "text": ""}), "messages[0].content[0].text"),
        (blocks({"text": "Hi"}), "messages[0].content[0].type"),
        (blocks({"type": "hologram"}), "messages[0].content[0].type"),
        (blocks({"type": "thinking", "thinking": "x"}), "messages[0].content[0].type"),
        (blocks({"type": "tool_use", "id": "a", "name": "b", "input": {}}), "messages[0].content[0].type"),
        (blocks({"type": "tool_use", "id": "a", "name": "b", "input": []}, role="assistant"), "content[0].input"),
        (blocks({"type": "tool_result", "tool_use_id": "a"}), "messages[0].content[0].tool_use_id"),
        (blocks({"type": "image", "source": {"type": "ftp"}}), "messages[0].content[0].source.type"),
        (
            blocks({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}}),
            "messages[0].content[0].source.data",
        ),
        (blocks({"type": "text", "text": "a", "cache_control": {"ttl": "9m"}}), "content[0].cache_control.ttl"),
        ({"system": 3}, "system"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": json.loads("[" * 60 + "]" * 60) or []}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "f", "input_schema": {"a": json.loads("[" * 60 + "]" * 60)}}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"name": "f"}}, "tool_choice.type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
    ],
)
def test_mistakes_are_named_with_their_place(members: dict[str, object], place: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**members)
    assert caught.value.param is not None
    assert caught.value.param.endswith(place)


def test_a_result_answers_the_turn_before_only() -> None:
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}
    asked(USER, call, {"role": "system", "content": "Now."}, result)
    with pytest.raises(BadRequest, match="no tool_use block"):
        asked(USER, call, USER, {"role": "assistant", "content": "Hm"}, result)


keys = st.sampled_from("model messages role content type text source data tool_use id input name tools system".split())
members = st.dictionaries(
    st.sampled_from("system tools tool_choice thinking output_config metadata stop_sequences cache_control".split())
    | st.just("messages"),
    st.recursive(
        st.none() | st.integers() | st.sampled_from(["user", "text", "image", "tool_result", "base64", "adaptive"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    ),
)


@settings(max_examples=60, deadline=None)
@given(members)
def test_any_json_is_read_or_refused(given_members: dict[str, object]) -> None:
    try:
        request = read(**given_members)
    except BadRequest:
        return
    write(request)


# --- writing --------------------------------------------------------------------------------------------------------


def test_turns_take_turns_and_results_come_first() -> None:
    call = ToolUse("call.1", "f", '{"a":1}')
    written = write(
        chat(
            Message("system", (Text("One."),)),
            Message("system", (Text("Two."),)),
            Message("user", (Text("Go"), Text("  "))),
            Message("assistant", (Text(""), call)),
            Message("system", (Text("Hurry."),)),
            Message("user", (ToolResult("call.1", (Text("done"),)),)),
            Message("user", (Text("Next"),)),
        ),
        TARGET._replace(mid_system=False),
    )
    text = {"type": "text", "text": "Go"}
    assert written["system"] == [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    assert written["messages"] == [
        {"role": "user", "content": [text]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "done"},
                {"type": "text", "text": "<system>\nHurry.\n</system>"},
                {"type": "text", "text": "Next"},
            ],
        },
    ]


def test_an_instruction_in_between_does_not_part_call_and_result() -> None:
    messages = write(
        chat(
            Message("assistant", (ToolUse("", "f"), ToolUse("", "g"))),
            Message("system", (Text("Hurry."),)),
            Message("user", (ToolResult("", (), "g"), ToolResult("", (), "f"))),
        )
    )["messages"]
    assert [message["role"] for message in messages] == ["assistant", "user", "system"]
    assert [block["tool_use_id"] for block in messages[1]["content"]] == ["call_1", "call_0"]


def test_instructions_alone_are_said_as_a_turn() -> None:
    written = write(chat(Message("system", (Text("Tell a joke."),))))
    assert "system" not in written
    assert written["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Tell a joke."}]}]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": (Tool("a.b"),)}, "tools"),
    ],
)
def test_what_must_not_be_lost_is_refused(members: dict[str, Any], param: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        write(chat(**members))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "part",
    [
        Media("audio", "audio/wav", "AAAA"),
        Media("image", "image/bmp", "AAAA"),
        Media("image", "", url="gs://bucket/a.png"),
        Media("document", "", file_id="file-1"),
        Media("document", "application/zip", "AAAA"),
        Media("document", "text/plain", "/w=="),
    ],
)
def test_media_that_it_does_not_take(part: Media) -> None:
    with pytest.raises(Untranslatable):
        write(chat(Message("user", (part,))))


def test_text_files_are_written_as_text() -> None:
    written = write(chat(Message("user", (Media("document", "text/csv", "YSxi"),))))
    assert written["messages"][0]["content"][0]["source"] == {"type": "text", "media_type": "text/plain", "data": "a,b"}


def test_arguments_that_are_no_object() -> None:
    for arguments in ("[1]", "{broken"):
        with pytest.raises(BadRequest, match="call_9"):
            write(chat(Message("assistant", (ToolUse("call_9", "f", arguments),))))


def test_what_is_dropped_is_told() -> None:
    notes: list[str] = []
    request = chat(
        Message("user", (Media("image", "", url="https://x.example/a.png", detail="high"),), name="Ann"),
        Message("assistant", (Reasoning("Hm", Signature("s", "gemini")), Reasoning("Hm"), Text("Yes"))),
        seed=1,
        presence_penalty=0.5,
        cache_key="k",
        verbosity="low",
        tier="flex",
        top_p=0.5,
        temperature=1.5,
        stop=(" ", "END"),
        hosted=(Foreign("openai_responses", "web_search", b"{}"),),
        others={"logit_bias": b"{}"},
    )
    written = write(request, notes=notes)
    assert written["temperature"] == 1.0
    assert written["stop_sequences"] == ["END"]
    assert not {"top_p", "service_tier", "tools", "seed"} & set(written)
    assert notes == [
        "dropped seed: Anthropic has no counterpart",
        "dropped presence_penalty: Anthropic has no counterpart",
        "dropped prompt_cache_key: Anthropic has no counterpart",
        "dropped verbosity: Anthropic has no counterpart",
        "dropped detail: Anthropic has no counterpart",
        "dropped name: Anthropic has no counterpart",
        "dropped reasoning: signed by another provider",
        "dropped reasoning: it is not signed",
        "dropped the tool web_search: it is another provider's own",
        "changed temperature to 1.0: Anthropic's are from 0 to 1",
        "dropped top_p: Anthropic does not take it together with a temperature",
        "dropped stop of white space: Anthropic refuses it",
        "dropped service_tier: Anthropic has no counterpart",
        "dropped logit_bias: Anthropic has no counterpart",
    ]


@pytest.mark.parametrize(
    ("thinking", "max_output", "target", "expected"),
    [
        (Thinking("minimal"), 100, {}, ({"type": "adaptive"}, "low", 100)),
        (Thinking("none"), 100, {}, ({"type": "disabled"}, None, 100)),
        (Thinking("", 0), 100, {}, ({"type": "disabled"}, None, 100)),
        (Thinking("", 3000), 100, {}, ({"type": "adaptive"}, "medium", 100)),
        (Thinking("", 99000, True), 100, {}, ({"type": "adaptive", "display": "summarized"}, "high", 100)),
        (Thinking("low"), 9000, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 4096}, None, 9000)),
        (Thinking("low"), 100, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 4096}, None, 4196)),
        (
            Thinking("max"),
            100,
            {"thinking": "budget", "max_output": 8000},
            ({"type": "enabled", "budget_tokens": 7999}, None, 8000),
        ),
        (Thinking("max"), 100, {"thinking": "budget", "max_output": 500}, (None, None, 100)),
        (Thinking("max"), 100, {"thinking": "none"}, (None, None, 100)),
        (None, None, {"max_output": 64000}, (None, None, 64000)),
        (None, 99999, {"max_output": 64000}, (None, None, 64000)),
        (None, None, {}, (None, None, 4096)),
    ],
)
def test_how_much_to_think_and_say(
    thinking: Thinking | None, max_output: int | None, target: dict[str, Any], expected: tuple[object, ...]
) -> None:
    written = write(chat(thinking=thinking, max_output=max_output), TARGET._replace(**target))
    config = written.get("output_config", {})
    assert (written.get("thinking"), config.get("effort"), written["max_tokens"]) == expected


def test_a_forced_call_is_not_thought_about() -> None:
    notes: list[str] = []
    forced = chat(tools=(Tool("f"),), choice=ToolChoice("any", ("f",)), thinking=Thinking("high"), parallel=False)
    written = write(forced, notes=notes)
    assert written["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    assert "thinking" not in written
    assert notes == ["dropped reasoning_effort: Anthropic does not think when a tool call is forced"]


def test_tools() -> None:
    tools = (Tool("f", "F."), Tool("g", namespace="ns"), Tool("h", free=True, schema=b'{"type":"text"}'), Tool("i"))
    choice = ToolChoice("auto", ("f", "g", "h"))
    written = write(chat(tools=tools, choice=choice))
    assert [tool["name"] for tool in written["tools"]] == ["f", "ns__g", "h"]
    assert written["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    assert written["tools"][2]["input_schema"]["required"] == ["input"]
    assert written["tool_choice"] == {"type": "auto"}
    assert "tool_choice" not in write(chat(choice=ToolChoice("none")))
    call = write(chat(Message("assistant", (ToolUse("a", "h", "free {text", free=True),))))
    assert call["messages"][0]["content"][0]["input"] == {"input": "free {text"}


def test_structured_output() -> None:
    notes: list[str] = []
    schema = {
        "type": "object",
        "$defs": {"Row": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}}},
        "properties": {
            "crop": {"type": "string", "pattern": "^b", "description": "Its name.", "format": "date"},
            "rows": {"type": "array", "items": {"$ref": "#/$defs/Row"}, "minItems": 1, "maxItems": 3},
            "pick": {
                "oneOf": [{"type": "null"}, {"type": ["object", "null"], "additionalProperties": {"type": "null"}}]
            },
        },
        "required": ["crop"],
    }
    shape = Shape("schema", msgspec.json.encode(schema), name="diary", strict=True)
    written = write(chat(shape=shape), notes=notes)
    assert written["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "$defs": {
                "Row": {
                    "type": "object",
                    "properties": {"n": {"type": "integer", "description": "{minimum: 1, maximum: 9}"}},
                    "additionalProperties": False,
                }
            },
            "properties": {
                "crop": {"type": "string", "format": "date", "description": "Its name.\n\n{pattern: ^b}"},
                "rows": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/Row"},
                    "minItems": 1,
                    "description": "{maxItems: 3}",
                },
                "pick": {
                    "anyOf": [
                        {"type": "null"},
                        {
                            "type": ["object", "null"],
                            "additionalProperties": False,
                            "description": '{additionalProperties: {"type":"null"}}',
                        },
                    ]
                },
            },
            "required": ["crop"],
            "additionalProperties": False,
        },
    }
    moved = "additionalProperties, maxItems, maximum, minimum, pattern"
    assert notes == [f"moved {moved} of response_format into descriptions: Anthropic does not enforce them"]
    with pytest.raises(Untranslatable):
        write(chat(shape=shape), TARGET._replace(schemas=False))
    assert "JSON object" in write(chat(shape=Shape("object")))["system"]


def test_the_last_four_cache_marks_stay() -> None:
    marked = tuple(Text(str(number), "30m" if number else "12h") for number in range(5))
    notes: list[str] = []
    written = write(chat(Message("system", marked[:3]), Message("user", marked), cache="12h"), notes=notes)
    assert written["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert all("cache_control" not in block for block in written["system"])
    marks = [block.get("cache_control") for block in written["messages"][0]["content"]]
    assert marks == [None, None, *[{"type": "ephemeral"}] * 3]
    assert notes == ["dropped 5 cache marks: Anthropic takes 4"]


def test_sampling_that_the_model_does_not_take() -> None:
    notes: list[str] = []
    assert "temperature" not in write(chat(temperature=0.5, thinking=Thinking("low")), notes=notes)
    assert "top_k" not in write(chat(top_k=5), TARGET._replace(sampling=False), notes)
    assert notes == [
        "dropped temperature: Anthropic does not take it while thinking",
        "dropped top_k: claude-x does not take it",
    ]


def test_signatures_go_back_to_their_provider_only() -> None:
    own = Reasoning("Hm", Signature("s", "anthropic", ORIGIN._replace(model="other")))
    other = Reasoning("Hm", Signature("s", "anthropic", ORIGIN._replace(provider="bedrock")))
    content = write(chat(Message("assistant", (own, other))))["messages"][0]["content"]
    assert content == [{"type": "thinking", "thinking": "Hm", "signature": "s"}]


def test_a_turn_that_began_without_thinking_goes_on_without() -> None:
    """Anthropic answers 400 to `enabled` when the turn under way begins with a call (docs: extended thinking)."""
    call, result = ToolUse("toolu_1", "read"), ToolResult("toolu_1", (Text("done"),))
    loop = (Message("user", (Text("Read it"),)), Message("assistant", (call,)), Message("user", (result,)))
    budget, notes = TARGET._replace(thinking="budget"), list[str]()
    wants = {"thinking": Thinking(budget=2048), "max_output": 4096, "tools": (Tool("read"),)}
    assert "thinking" not in write(chat(*loop, **wants), budget, notes)
    assert any(note.startswith("dropped") and "midway" in note for note in notes)
    later = (*loop, Message("assistant", (Text("Read."),)), Message("user", (Text("And now?"),)))
    assert write(chat(*later, **wants), budget)["thinking"]["type"] == "enabled", "a new turn thinks again"
    thought = Reasoning("hm", Signature("EqQB", "anthropic"))
    kept = (loop[0], Message("assistant", (thought, call)), loop[2])
    assert write(chat(*kept, **wants), budget)["thinking"]["type"] == "enabled"


def test_results_in_any_order_cost_the_same() -> None:
    def writing(size: int, *, named: bool) -> Callable[[], object]:
        uses = tuple(ToolUse("" if named else f"c{at}", f"f{at % 9}", "{}") for at in range(size))
        results = tuple(ToolResult(use.id, (Text("r"),), use.name) for use in reversed(uses))
        request = chat(Message("user", (Text("Go"),)), Message("assistant", uses), Message("user", results))
        return lambda: write(request)

    assert is_linear(partial(writing, named=False))
    assert is_linear(partial(writing, named=True))


def test_a_result_without_an_id_answers_the_oldest_call_of_its_tool() -> None:
    uses = (ToolUse("", "f", "{}"), ToolUse("", "g", "{}"), ToolUse("", "f", "{}"))
    results = tuple(ToolResult("", (Text("r"),), name) for name in ("g", "f", "unknown", "f"))
    written = write(chat(Message("user", (Text("Go"),)), Message("assistant", uses), Message("user", results)))
    answered = [block["tool_use_id"] for block in written["messages"][-1]["content"]]
    assert answered == ["call_1", "call_0", "call_2", "call_0"]


def test_members_of_its_own_tools_and_chosen_tools_are_found_at_once() -> None:
    def writing(size: int) -> Callable[[], object]:
        tools = [{"name": f"t{at}", "input_schema": {"type": "object"}, "defer_loading": True} for at in range(size)]
        request = read(tools=tools)
        return lambda: write(request)

    assert is_linear(writing, 100)
