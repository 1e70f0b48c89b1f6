"""Gemini requests: parsed into Calls, read whole, and written for a Gemini upstream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Call,
    Foreign,
    Media,
    Message,
    Origin,
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
from keyturn.wire.dialect import Target
from keyturn.wire.gemini import GEMINI, parse_count_tokens, parse_embed, parse_generate
from keyturn.wire.gemini_contents import mime_by_name
from keyturn.wire.gemini_schema import to_openapi
from keyturn.wire.gemini_signatures import pack_bytes, unpack_bytes
from keyturn.wire.signatures import MARK_INSIDE

from .golden_files import golden
from .steps import is_linear

ORIGIN = Origin("gemini", "gemini-t", "g1")
TARGET = Target("gemini-t", ORIGIN)
HELLO: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def parsed(body: object, **more: Any) -> Call:
    return parse_generate(json.dumps(body).encode(), {}, "gemini-t", **{"stream": False, "array": False, **more})


def read(body: object) -> Request:
    return GEMINI.read_request(parsed(body))


def written(request: Request, target: Target = TARGET, notes: list[str] | None = None) -> dict[str, Any]:
    assert GEMINI.write_request is not None
    body = GEMINI.write_request(request, target, [] if notes is None else notes)
    found: dict[str, Any] = json.loads(msgspec.json.encode(body))
    return found


def asked(*messages: Message, **more: Any) -> Request:
    return Request(**{"dialect": "openai_chat", "model": "m", "messages": messages, **more})


USER = Message("user", (Text("Hi"),))


@pytest.mark.parametrize(("name", "thinking"), [("tools", "effort"), ("sampling", "budget")])
def test_there_and_back(name: str, thinking: str) -> None:
    call = parse_generate(golden(f"gemini/{name}.request.json"), {}, "gemini-t", stream=False, array=False)
    notes: list[str] = []
    body = written(GEMINI.read_request(call), TARGET._replace(thinking=thinking), notes)
    assert body == json.loads(golden(f"gemini/{name}.written.json"))
    assert notes == []


def test_what_routing_needs() -> None:
    call = parse_generate(golden("gemini/tools.request.json"), {}, "models/gemini-t", stream=True, array=True)
    assert (call.model, call.max_output, call.needs, call.form) == ("gemini-t", 99, frozenset({"tools"}), "array")
    assert "systemInstruction" in call.members
    body = {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": PIXEL * 50}}]}]}
    call = parsed({**body, "generation_config": {"response_mime_type": "application/json"}})
    assert call.needs == {"vision", "json"}
    assert (call.media, call.text_bytes < 300) == (1, True)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("models/x", "x"),
        ("publishers/google/models/x", "x"),
        ("tunedModels/x", "tunedModels/x"),
        ("groq/a/b", "groq/a/b"),
    ],
)
def test_the_model_of_the_path(given: str, name: str) -> None:
    assert parse_generate(json.dumps(HELLO).encode(), {}, given, stream=False, array=False).model == name


@pytest.mark.parametrize("contents", [None, [], "Hi", {"parts": []}, ["Hi"]])
def test_contents_are_needed(contents: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed({"contents": contents})
    assert caught.value.param == "contents"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"texts": "x"}]}]}, "contents[0].parts[0]"),
        (
            {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]},
            "contents[0].parts[0].functionResponse",
        ),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}}]}]},
            "contents[0].parts[0].inlineData.data",
        ),
        (
            {**HELLO, "generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}},
            "generationConfig.thinkingConfig",
        ),
        ({**HELLO, "toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
        ({**HELLO, "generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({**HELLO, "generationConfig": {"temperature": 10**400}}, "generationConfig.temperature"),
    ],
)
def test_mistakes_name_their_place(body: object, place: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.param == place


def test_a_schema_too_deep() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(60):
        schema = {"type": "ARRAY", "items": schema}
    with pytest.raises(BadRequest, match="nested"):
        read({**HELLO, "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema}})


def test_results_find_their_calls_by_id_and_by_name() -> None:
    def call(**given: str) -> dict[str, Any]:
        return {"functionCall": {"name": "f", **given}}

    request = read(
        {
            "contents": [
                {"role": "model", "parts": [call(id="a"), call(), call(id="c")]},
                {"role": "function", "parts": [{"functionResponse": {"name": "f", "id": "c", "response": {"x": 1}}}]},
                {"parts": [{"functionResponse": {"name": "f", "response": {"result": "one"}}}]},
            ]
        }
    )
    results = [part for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    assert [(each.id, each.parts) for each in results] == [("c", (Text('{"x":1}'),)), ("a", (Text("one"),))]


def test_fragments_of_a_streamed_answer_are_one_turn() -> None:
    texts = [
        {"role": "model", "parts": [{"text": text, "thought": thought}]}
        for text, thought in [("a", True), ("b", True), ("c", False), ("d", False)]
    ]
    request = read({"contents": [*HELLO["contents"], *texts]})
    assert request.messages[1].parts == (Reasoning("ab"), Text("cd"))


def test_signatures_survive_a_client_that_decodes_them() -> None:
    mine = Signature("zzz", "anthropic", Origin("p", "m", "g"))
    packed = pack_bytes(mine)
    assert packed.startswith(MARK_INSIDE)
    assert unpack_bytes(packed) == mine
    assert unpack_bytes("AAEC") == Signature("AAEC", "gemini")
    assert unpack_bytes(packed[:-3]).dialect != "gemini" or unpack_bytes(packed[:-3]).value != mine.value


# --- written --------------------------------------------------------------------------------------------------------


def conversation(**more: Any) -> Request:
    return asked(
        Message("system", (Text("Be brief."),)),
        USER,
        Message("assistant", (Reasoning("hm"), ToolUse("c1", "f", '{"a":1}'), ToolUse("c2", "g", ""))),
        Message("user", (ToolResult("c2", (Text('{"n":2}'),)),)),
        Message("user", (ToolResult("c1", (Text("boom"),), failed=True), Text("and?"))),
        Message("system", (Text("Now in French."),)),
        **more,
    )


def test_turns_alternate_and_results_follow_their_calls() -> None:
    body = written(conversation())
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][1]["parts"] == [
        {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
        {"functionCall": {"id": "c2", "name": "g", "args": {}}},
    ]
    assert body["contents"][2]["parts"] == [
        {"functionResponse": {"id": "c2", "name": "g", "response": {"n": 2}}},
        {"functionResponse": {"id": "c1", "name": "f", "response": {"error": "boom"}}},
        {"text": "and?"},
        {"text": "<system>Now in French.</system>"},
    ]


def test_a_call_without_result_gets_an_empty_one() -> None:
    notes: list[str] = []
    body = written(asked(USER, Message("assistant", (ToolUse("c", "f"),)), USER), notes=notes)
    assert body["contents"][2]["parts"][0] == {
        "functionResponse": {"id": "c", "name": "f", "response": {"error": "no result"}}
    }
    assert len(notes) == 1


def test_signatures_of_others_give_way_to_the_documented_stand_in() -> None:
    def first(signature: Signature | None, target: Target) -> tuple[Any, list[str]]:
        notes: list[str] = []
        turn = Message("assistant", (ToolUse("c", "f", signature=signature), ToolUse("d", "f")))
        parts = written(asked(USER, turn), target, notes)["contents"][1]["parts"]
        assert "thoughtSignature" not in parts[1]
        return parts[0].get("thoughtSignature"), notes

    own, other = Signature("S", "gemini", ORIGIN), Signature("S", "gemini", ORIGIN._replace(group="g2"))
    new = TARGET._replace(signed_calls=True)
    assert first(own, TARGET) == ("S", [])
    assert first(None, TARGET) == (None, [])
    assert first(other, new) == ("skip_thought_signature_validator", ["dropped reasoning: signed by another provider"])


def test_images_in_results() -> None:
    image = Media("image", "image/png", PIXEL)
    request = asked(
        USER, Message("assistant", (ToolUse("c", "f"),)), Message("user", (ToolResult("c", (Text("see"), image)),))
    )
    inline = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    assert written(request)["contents"][2]["parts"][1] == inline
    parts = written(request, TARGET._replace(signed_calls=True))["contents"][2]["parts"]
    assert [part["functionResponse"]["parts"] for part in parts] == [[inline]]


@pytest.mark.parametrize(
    "request_",
    [
        asked(Message("user", (Media("document", file_id="file-123"),))),
        asked(USER, stop=tuple("abcdef")),
        asked(USER, others={"modalities": b'["text","audio"]'}),
    ],
)
def test_what_must_not_be_lost_is_refused(request_: Request) -> None:
    with pytest.raises(Untranslatable):
        written(request_)


def test_broken_arguments_and_orphans_are_refused() -> None:
    with pytest.raises(BadRequest, match="c7"):
        written(asked(USER, Message("assistant", (ToolUse("c7", "f", '{"a":'),))))
    with pytest.raises(BadRequest, match="zz"):
        written(asked(USER, Message("user", (ToolResult("zz"),))))


@pytest.mark.parametrize(
    ("kind", "thinking", "config", "noted"),
    [
        ("effort", Thinking("xhigh"), {"thinkingLevel": "HIGH"}, False),
        ("effort", Thinking("none"), {"thinkingLevel": "MINIMAL"}, True),
        ("effort", Thinking(budget=9000, shown=True), {"thinkingLevel": "MEDIUM", "includeThoughts": True}, False),
        ("effort", Thinking(), None, False),
        ("budget", Thinking("none"), {"thinkingBudget": 0}, False),
        ("budget", Thinking("low"), {"thinkingBudget": 1024}, False),
        ("budget", Thinking("low", 77), {"thinkingBudget": 77}, False),
        ("budget", Thinking(), {"thinkingBudget": -1}, False),
        ("none", Thinking("high"), None, True),
    ],
)
def test_thinking(kind: str, thinking: Thinking, config: object, noted: bool) -> None:
    notes: list[str] = []
    body = written(asked(USER, thinking=thinking), TARGET._replace(thinking=kind), notes)
    assert body.get("generationConfig", {}).get("thinkingConfig") == config
    assert bool(notes) is noted


def test_a_small_limit_leaves_room_for_thinking() -> None:
    notes: list[str] = []
    body = written(asked(USER, thinking=Thinking("low"), max_output=100), TARGET, notes)
    assert body["generationConfig"]["maxOutputTokens"] == 1124
    assert notes == ["raised max_completion_tokens from 100 to 1124: Gemini counts thinking in it"]
    small = TARGET._replace(max_output=500)
    assert (
        written(asked(USER, thinking=Thinking("low"), max_output=100), small)["generationConfig"]["maxOutputTokens"]
        == 500
    )


def test_losses_are_told() -> None:
    notes: list[str] = []
    written(
        asked(
            USER,
            user="u",
            tier="flex",
            parallel=False,
            others={"store": b"true"},
            hosted=(Foreign("openai_responses", "mcp", b"{}"),),
        ),
        notes=notes,
    )
    assert sorted(note.partition(":")[0] for note in notes) == [
        "dropped parallel_tool_calls",
        "dropped service_tier",
        "dropped store",
        "dropped tool mcp",
        "dropped user",
    ]


def test_older_models_get_the_older_schemas() -> None:
    schema = {
        "$defs": {"unit": {"type": "string", "enum": ["C", "F"]}},
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "unit": {"$ref": "#/$defs/unit", "description": "Of heat"},
            "kind": {"const": "now"},
            "days": {"type": ["integer", "null"], "enum": [1, 2]},
            "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
            "tags": {"type": "array"},
        },
        "required": ["unit", "gone"],
    }
    target = TARGET._replace(schemas=False)
    text = json.dumps(schema).encode()
    body = written(
        asked(
            USER, tools=(Tool("f", schema=text), Tool("g", schema=b'{"type":"object"}')), shape=Shape("schema", text)
        ),
        target,
    )
    expected = {
        "type": "OBJECT",
        "properties": {
            "unit": {"type": "STRING", "enum": ["C", "F"], "description": "Of heat"},
            "kind": {"type": "STRING", "enum": ["now"]},
            "days": {"type": "INTEGER", "nullable": True, "description": "One of: 1, 2."},
            "at": {"type": "STRING", "format": "date-time", "nullable": True},
            "tags": {"type": "ARRAY", "items": {"type": "STRING"}},
        },
        "required": ["unit"],
    }
    assert body["tools"][0]["functionDeclarations"][0]["parameters"] == expected
    assert "parameters" not in body["tools"][0]["functionDeclarations"][1]
    assert body["generationConfig"]["responseSchema"] == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "allOf": [{"$ref": "#/$defs/a"}]},
        {
            "$defs": {f"d{n}": {"properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "ab"}} for n in range(20)}
            | {"d20": {}},
            "$ref": "#/$defs/d0",
        },
    ],
)
def test_schemas_without_end_are_refused(schema: object) -> None:
    with pytest.raises(Untranslatable):
        to_openapi(json.dumps(schema).encode(), "response_format")


def test_count_and_embed_calls() -> None:
    call = parse_count_tokens(json.dumps({"generateContentRequest": {"model": "models/x", **HELLO}}).encode(), {}, "x")
    assert (call.kind, GEMINI.read_request(call).messages) == ("count", (USER,))
    assert parse_count_tokens(json.dumps(HELLO).encode(), {}, "x").kind == "count"
    call = parse_embed(b'{"requests":[{"content":{"parts":[{"text":"a"}]}}]}', {}, "models/x", batch=True)
    assert (call.kind, call.path, call.model) == ("embeddings", "batchEmbedContents", "x")
    for body, batch in [(b"{}", False), (b'{"content":[]}', False), (b'{"requests":[]}', True)]:
        with pytest.raises(BadRequest):
            parse_embed(body, {}, "x", batch=batch)


NAMES = """contents parts text role model user inlineData data mimeType functionCall functionResponse name args response
id thought thoughtSignature tools functionDeclarations parameters type properties generationConfig toolConfig
functionCallingConfig mode responseSchema thinkingConfig thinkingLevel fileData fileUri systemInstruction""".split()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=25,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4),
)
def test_any_request_is_read_or_refused(contents: list[Any], body: dict[str, Any]) -> None:
    try:
        request = read({**body, "contents": contents})
        for target in (TARGET, TARGET._replace(schemas=False, thinking="budget", signed_calls=True)):
            written(request, target)
    except BadRequest:
        pass


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
USES = st.builds(ToolUse, st.uuids().map(str), st.sampled_from(["f", "g"]), st.integers().map(lambda n: f'{{"n":{n}}}'))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    messages = [Message("system", (Text(draw(TEXTS)),))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", (Text(draw(TEXTS)),)))
        uses = draw(st.lists(USES, max_size=2))
        messages.append(Message("assistant", (Text(draw(TEXTS)), *uses)))
        if uses:
            results = [ToolResult(use.id, (Text("r" + draw(TEXTS)),), use.name, draw(st.booleans())) for use in uses]
            messages += [Message("user", tuple(results)), Message("assistant", (Text(draw(TEXTS)),))]
    return Request(
        "gemini",
        "gemini-t",
        tuple(messages),
        tools=(Tool("f", "F", b'{"type":"object"}'), Tool("g")),
        choice=draw(st.none() | st.builds(ToolChoice, st.sampled_from(["auto", "any", "none"]))),
        shape=draw(st.sampled_from([None, Shape("object"), Shape("schema", b'{"type":"object"}')])),
        thinking=draw(st.sampled_from([None, Thinking("low"), Thinking("high", shown=True)])),
        max_output=draw(st.none() | st.integers(1, 1000)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_k=draw(st.none() | st.integers(1, 100)),
        stop=draw(st.sampled_from([(), ("a", "b")])),
        n=draw(st.none() | st.integers(1, 4)),
        logprobs=draw(st.booleans()),
        others={"cachedContent": b'"cachedContents/1"', "generationConfig.mediaResolution": b'"LOW"'},
    )


@settings(max_examples=60, deadline=None)
@given(requests())
def test_what_is_carried_comes_back(request: Request) -> None:
    assert read(written(request)) == request


# --- what a client can ask for at length ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "mime"),
    [
        ("https://a.example/b.PNG?size=1#top", "image/png"),
        ("https://a.example/b.jpeg", "image/jpeg"),
        ("https://a.example/v1.2/b", ""),
        ("https://a.example/b.unheardof", ""),
        ("", ""),
        (".ab?" * 500_000 + "\n", ""),
        ("." * 500_000 + "#" * 500_000, ""),
    ],
    ids=["query", "plain", "folder", "unknown", "empty", "long", "dots"],
)
def test_a_file_is_known_by_its_extension(address: str, mime: str) -> None:
    assert mime_by_name(address) == mime


def calls_answered_backwards(size: int, *, named: bool = False) -> dict[str, Any]:
    """*size* calls, and their results in the opposite order, told apart by id, or else by name."""
    what = [{"name": f"f{at}"} if named else {"name": "f", "id": f"c{at}"} for at in range(size)]
    return {
        "contents": [
            {"role": "model", "parts": [{"functionCall": each} for each in what]},
            {"role": "user", "parts": [{"functionResponse": each} for each in reversed(what)]},
        ]
    }


@pytest.mark.parametrize("named", [False, True])
def test_results_in_any_order_cost_the_same(named: bool) -> None:
    def reading(size: int) -> Callable[[], object]:
        call = parsed(calls_answered_backwards(size, named=named))
        return lambda: GEMINI.read_request(call)

    assert is_linear(reading)
    _, results = read(calls_answered_backwards(3, named=named)).messages
    expected = ["call_2", "call_1", "call_0"] if named else ["c2", "c1", "c0"]
    assert [part.id for part in results.parts if isinstance(part, ToolResult)] == expected


def test_turns_of_the_model_are_joined_once() -> None:
    def reading(size: int) -> Callable[[], object]:
        turn = {"role": "model", "parts": [{"text": "a"}, {"functionCall": {"name": "f"}}]}
        call = parsed({"contents": [turn] * size})
        return lambda: GEMINI.read_request(call)

    assert is_linear(reading)
    turn = {"role": "model", "parts": [{"text": "Hm", "thought": True}, {"text": "a"}]}
    (message,) = read({"contents": [turn, {"role": "model", "parts": [{"text": "b"}, {"text": "c"}]}]}).messages
    assert message.parts == (Reasoning("Hm"), Text("abc"))


def test_results_of_many_messages_are_written_in_the_order_of_their_calls() -> None:
    def conversation(size: int) -> Request:
        calls = tuple(ToolUse(f"c{at}", "f", "{}") for at in range(size))
        results = [Message("user", (ToolResult(call.id, (Text("r"),)),)) for call in reversed(calls)]
        return asked(Message("user", (Text("Go"),)), Message("assistant", calls), *results)

    def writing(size: int) -> Callable[[], object]:
        request = conversation(size)
        return lambda: written(request)

    def of_the_model(size: int) -> Callable[[], object]:
        turns = [Message("assistant", (Text("a"),)), Message("assistant", (ToolUse("c", "f", "{}"),))] * size
        request = asked(*turns[::2], *turns[1::2])
        return lambda: written(request)

    assert is_linear(writing)
    assert is_linear(of_the_model)
    calls = tuple(ToolUse(each, "f", "{}") for each in "ab")
    results = tuple(ToolResult(each, (Text(each),)) for each in "ba")
    *_, answers = written(asked(Message("assistant", calls), Message("user", (*results, Text("Go on")))))["contents"]
    assert [part.get("functionResponse", {}).get("id") for part in answers["parts"]] == ["a", "b", None]


def test_older_schemas_are_not_written_out_without_end() -> None:
    large = {"enum": [f"{at}" for at in range(20_000)]}
    schema = {
        "type": "object",
        "properties": {f"p{at}": {"$ref": "#/$defs/large"} for at in range(200)},
        "$defs": {"large": large},
    }
    with pytest.raises(Untranslatable, match="too large"):
        to_openapi(json.dumps(schema).encode(), "tools")


def test_of_two_spellings_of_the_largest_output_the_larger_is_held() -> None:
    config = {"maxOutputTokens": 1, "max_output_tokens": 60_000}
    body = json.dumps({"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": config}).encode()
    assert parse_generate(body, {}, "m", stream=False, array=False).max_output == 60_000
