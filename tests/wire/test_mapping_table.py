"""The tables of docs/wire-formats.md say what the code does: each cell is written, and read back."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import replace

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Citation,
    Foreign,
    Media,
    Message,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Request,
    Shape,
    Signature,
    StopReason,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Usage,
)
from keyturn.errors import BadRequest, KeyturnError, Untranslatable
from keyturn.wire import (
    Context,
    Target,
    dialect,
    parse_chat,
    parse_generate,
    parse_messages,
    parse_responses,
)
from tests.test_docs import rows, section

PAGE = (Path(__file__).parents[2] / "docs" / "wire-formats.md").read_text()
DIALECTS = ("openai_chat", "openai_responses", "anthropic", "gemini")
OPENAI = DIALECTS[:2]
ORIGIN = Origin("somebody", "m-1", "group")
STRANGER = Origin("stranger", "m-9", "other")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = b64encode(b"%PDF-1.4 nothing").decode()
SCHEMA = b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
ASKED = Message("user", (Text("What is it?"),))
CALLED = Message("assistant", (ToolUse("call_1", "look", '{"city":"Oslo"}'),))
LOOK = Tool("look", "Looks.", SCHEMA)
TOOLS = (LOOK, Tool("listen", "Listens.", SCHEMA), Tool("smell", "Smells.", SCHEMA))

Body = dict[str, Any]
Check = Callable[[Body], object]


class Row(NamedTuple):
    """One row of the first table. *look* finds in a request what the row is about: nothing where it is not."""

    look: Callable[[Request], object]
    given: Mapping[str, Any] | Callable[[str, str], Mapping[str, Any]]
    """Members of the request, perhaps made for its own dialect and the target's."""
    word: str = ""
    """What the note of a loss names: a regular expression."""
    sources: tuple[str, ...] = DIALECTS
    told: Mapping[str, Check] = {}
    """How a dialect says it otherwise."""


def user(*parts: Part) -> dict[str, Any]:
    return {"messages": (Message("user", (Text("Here:"), *parts)),)}


def turns(*parts: Part) -> dict[str, Any]:
    """A conversation whose middle is the assistant's."""
    return {"messages": (ASKED, Message("assistant", parts), Message("user", (Text("Go on."),)))}


def result(*parts: Text | Media, **more: Any) -> dict[str, Any]:
    messages = (ASKED, CALLED, Message("user", (ToolResult("call_1", parts, "look", **more),)))
    return {"messages": messages, "tools": (LOOK,)}


def parts_of(request: Request, kind: type) -> list[Any]:
    return [part for message in request.messages for part in message.parts if isinstance(part, kind)]


def medium(*names: str) -> Callable[[Request], object]:
    """Members of the media of a request, none that are empty."""
    return lambda request: [
        found for each in parts_of(request, Media) if all(found := [getattr(each, name) for name in names])
    ]


def field(name: str) -> Callable[[Request], object]:
    return lambda request: getattr(request, name)


def signed(request: Request) -> object:
    """Values of the signatures in a history."""
    held = [part for kind in (Reasoning, Text, ToolUse) for part in parts_of(request, kind)]
    return [part.signature.value for part in held if part.signature is not None]


def thought(maker: Callable[[str], Signature | None]) -> Callable[[str, str], dict[str, Any]]:
    return lambda source, target: turns(Reasoning("Hm.", maker(target)), Text("A stone."))


def own_signature(target: str) -> Signature:
    return Signature("c2lnbmVk", "anthropic" if target == "openai_chat" else target, ORIGIN)


def foreign_signature(target: str) -> Signature:
    return Signature("c2lnbmVk", "anthropic" if target == "gemini" else "gemini", STRANGER)


def hosted(what: str) -> Callable[[str, str], dict[str, Any]]:
    return lambda source, target: {"hosted": (Foreign(source, what, b'{"type":"%b"}' % what.encode()),)}


def marks(request: Request) -> object:
    return [mark for message in request.messages for part in message.parts if (mark := getattr(part, "cache", ""))]


def choice_of(request: Request) -> object:
    return request.choice


def said(text: str) -> Check:
    return lambda body: text in json.dumps(body)


def sent_tools(*names: str) -> Check:
    """Exactly the tools *names* are sent."""
    return lambda body: sorted(re.findall(r'"name": "(\w+)", "desc', json.dumps(body["tools"]))) == sorted(names)


def plain_input(body: Body) -> bool:
    return '"required": ["input"]' in json.dumps(body["tools"])


TITLED = "Notes\\n\\nStones are hard."
IN_SYSTEM = {"anthropic": said("<system>\\nBe brief.\\n</system>"), "gemini": said("<system>Be brief.</system>")}
SPACED = dict.fromkeys(DIALECTS, said('"name": "shell__look"'))

ROWS: dict[str, Row] = {
    "text": Row(lambda r: [part.text for part in parts_of(r, Text)], {}),
    "system prompt": Row(
        lambda r: [m.parts for m in r.messages if m.role == "system"],
        {"messages": (Message("system", (Text("Be brief."),)), ASKED)},
    ),
    "system message in the middle": Row(
        lambda r: [m.parts for m in r.messages[1:] if m.role == "system"],
        {
            "messages": (
                ASKED,
                Message("assistant", (Text("A stone."),)),
                Message("system", (Text("Be brief."),)),
                ASKED,
            )
        },
        told=IN_SYSTEM,
    ),
    "name of who speaks": Row(
        lambda r: [m.name for m in r.messages if m.name],
        {"messages": (Message("user", (Text("Hi"),), "ada"),)},
        "name",
    ),
    "image in base64": Row(medium("kind", "mime", "data"), user(Media("image", "image/png", PIXEL))),
    "image by address": Row(medium("kind", "url"), user(Media("image", url="https://a.example/stone.png"))),
    "image by OpenAI's file id": Row(medium("kind", "file_id"), user(Media("image", file_id="file-1")), sources=OPENAI),
    "detail of an image": Row(
        medium("detail"), user(Media("image", "image/png", PIXEL, detail="low")), "detail", OPENAI
    ),
    "PDF in base64": Row(medium("kind", "mime", "data"), user(Media("document", "application/pdf", PDF, name="a.pdf"))),
    "PDF by address": Row(
        medium("kind", "url"), user(Media("document", "application/pdf", url="https://a.example/a.pdf"))
    ),
    "document as text, with a title": Row(
        medium("text", "name"),
        user(Media("document", "text/plain", text="Stones are hard.", name="Notes")),
        told={
            "openai_chat": said(TITLED),
            "openai_responses": said(TITLED.replace("\\n\\n", "\\n")),
            "gemini": said(TITLED),
        },
    ),
    "document to be cited": Row(
        medium("cited"), user(Media("document", "application/pdf", PDF, name="a.pdf", cited=True)), "citations"
    ),
    "document by OpenAI's file id": Row(
        medium("kind", "file_id"), user(Media("document", file_id="file-1")), sources=OPENAI
    ),
    "document by another provider's file id": Row(
        medium("file_id"), user(Media("document", file_id="file_1")), sources=("anthropic", "gemini")
    ),
    "audio": Row(medium("kind", "mime", "data"), user(Media("audio", "audio/wav", "UklGRgAA"))),
    "video": Row(medium("kind", "mime", "data"), user(Media("video", "video/mp4", "AAAAIGZ0eXA="))),
    "functions": Row(lambda r: [(t.name, t.description) for t in r.tools], {"tools": TOOLS}),
    "`strict` of a function": Row(
        lambda r: [t.strict for t in r.tools if t.strict], {"tools": (replace(LOOK, strict=True),)}, "strict"
    ),
    "tool that takes plain text": Row(
        lambda r: [t.name for t in r.tools if t.free],
        {"tools": (Tool("patch", "Patches.", free=True),)},
        sources=OPENAI,
        told=dict.fromkeys(DIALECTS, plain_input),
    ),
    "tools in a namespace": Row(
        lambda r: [(t.namespace, t.name) for t in r.tools if t.namespace],
        {"tools": (replace(LOOK, namespace="shell"),)},
        sources=("openai_responses",),
        told=SPACED,
    ),
    "another provider's web search": Row(
        field("hosted"),
        hosted("web_search"),
        "web_search",
        told={"gemini": lambda body: body["tools"] == [{"googleSearch": {}}]},
    ),
    "other tools that a provider runs itself": Row(field("hosted"), hosted("code_execution"), "code_execution"),
    "tools: as it likes, at least one, none": Row(choice_of, {"tools": TOOLS, "choice": ToolChoice("any")}),
    "tools: this one": Row(choice_of, {"tools": TOOLS, "choice": ToolChoice("any", ("look",))}),
    "tools: only some of them": Row(
        choice_of,
        {"tools": TOOLS, "choice": ToolChoice("any", ("look", "smell"))},
        told=dict.fromkeys(DIALECTS, sent_tools("look", "smell")),
    ),
    "one tool call at a time": Row(lambda r: r.parallel is False, {"tools": TOOLS, "parallel": False}, "parallel_tool"),
    "tool calls and their results": Row(
        lambda r: [
            [(part.id, part.name, json.loads(part.arguments)) for part in parts_of(r, ToolUse)],
            [(part.id, part.parts) for part in parts_of(r, ToolResult)],
        ],
        result(Text("rain")),
    ),
    "image in a result": Row(
        lambda r: [part.data for each in parts_of(r, ToolResult) for part in each.parts if isinstance(part, Media)],
        result(Text("rain"), Media("image", "image/png", PIXEL)),
        told={
            "openai_chat": lambda body: (
                body["messages"][2]["content"].endswith("[image 1]") and body["messages"][3]["content"][1]["image_url"]
            ),
            "gemini": lambda body: (
                [next(iter(part)) for part in body["contents"][2]["parts"]] == ["functionResponse", "inlineData"]
            ),
        },
    ),
    "failed result": Row(
        lambda r: [part.failed for part in parts_of(r, ToolResult) if part.failed],
        result(Text("no rain"), failed=True),
        told=dict.fromkeys(OPENAI, said("Error: no rain")),
    ),
    "thinking that the target signed": Row(signed, thought(own_signature), "reasoning"),
    "thinking that nobody signed": Row(lambda r: parts_of(r, Reasoning), thought(lambda target: None), "reasoning"),
    "thinking that somebody else signed": Row(signed, thought(foreign_signature), "reasoning"),
    "refusal of an earlier turn": Row(
        lambda r: [part.text for part in parts_of(r, Refusal)],
        turns(Refusal("I will not.")),
        told=dict.fromkeys(DIALECTS, said('"text": "I will not."')),
    ),
    "what only another format knows in the history": Row(
        lambda r: parts_of(r, Foreign),
        lambda source, target: turns(Text("A stone."), Foreign(source, "oracle_call", b'{"type":"oracle_call"}')),
        "oracle_call",
    ),
    "answer by a JSON Schema": Row(
        lambda r: r.shape and (r.shape.kind, json.loads(r.shape.schema)), {"shape": Shape("schema", SCHEMA, "place")}
    ),
    "answer in JSON": Row(
        lambda r: r.shape and r.shape.kind,
        {"shape": Shape("object")},
        told={"anthropic": lambda body: "JSON" in json.dumps(body["system"])},
    ),
    "how hard to think": Row(lambda r: r.thinking and r.thinking.effort, {"thinking": Thinking("medium")}),
    "tokens to think": Row(
        lambda r: r.thinking and r.thinking.budget,
        {"thinking": Thinking(budget=4096)},
        told={
            "openai_chat": lambda body: body["reasoning_effort"] == "medium",
            "openai_responses": lambda body: body["reasoning"]["effort"] == "medium",
            "anthropic": lambda body: body["output_config"]["effort"] == "medium",
            "gemini": lambda body: body["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "MEDIUM",
        },
    ),
    "thinking shown": Row(
        lambda r: r.thinking and r.thinking.shown,
        {"thinking": Thinking("high", shown=True)},
        told={"openai_chat": lambda body: set(body) == {"model", "messages", "reasoning_effort"}},
    ),
    "largest answer": Row(field("max_output"), {"max_output": 512}),
    "stop sequences": Row(field("stop"), {"stop": ("END", "FIN")}),
    "`temperature`": Row(field("temperature"), {"temperature": 0.5}),
    "`top_p`": Row(field("top_p"), {"top_p": 0.25}),
    "`top_k`": Row(field("top_k"), {"top_k": 7}, "top_k|topK", ("anthropic", "gemini")),
    "`seed`": Row(field("seed"), {"seed": 7}, "seed"),
    "penalties": Row(
        lambda r: (r.presence_penalty, r.frequency_penalty) if r.presence_penalty else None,
        {"presence_penalty": 0.5, "frequency_penalty": 0.25},
        "presence_?[pP]enalty",
    ),
    "`n` above 1": Row(field("n"), {"n": 2}),
    "log probabilities": Row(lambda r: r.logprobs and r.top_logprobs, {"logprobs": True, "top_logprobs": 3}),
    "answer in sound, asked for in `modalities`": Row(
        lambda r: r.others.get("modalities"), {"others": {"modalities": b'["text","audio"]'}}, sources=("openai_chat",)
    ),
    "answer in sound, asked for in Gemini's `responseModalities`": Row(
        field("others"), {"others": {"generationConfig.responseModalities": b'["AUDIO"]'}}, sources=("gemini",)
    ),
    "contents that Gemini keeps (`cachedContent`)": Row(
        field("others"), {"others": {"cachedContent": b'"cachedContents/1"'}}, sources=("gemini",)
    ),
    "cache marks": Row(marks, user(Text("Long.", cache="1h")), "cache"),
    "cache mark for the whole prompt": Row(field("cache"), {"cache": "1h"}, "cache", ("anthropic",)),
    "cache key": Row(field("cache_key"), {"cache_key": "k-1"}, "prompt_cache_key|cache_key", OPENAI),
    "user": Row(field("user"), {"user": "u-1"}, "user"),
    "OpenAI's `metadata`": Row(
        lambda r: r.others.get("metadata"), {"others": {"metadata": b'{"team":"a"}'}}, "metadata", OPENAI
    ),
    "service tier `default`": Row(field("tier"), {"tier": "default"}, "service_tier|tier", OPENAI),
    "service tier `flex`": Row(field("tier"), {"tier": "flex"}, "service_tier|tier", OPENAI),
    "verbosity": Row(field("verbosity"), {"verbosity": "low"}, "verbosity", OPENAI),
    "any other member": Row(lambda r: r.others.get("novelty"), {"others": {"novelty": b"1"}}, "novelty"),
}


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the tables under *heading* by their first cell."""
    return {name: cells for name, *cells in rows(section(PAGE, heading))}


def cases(names: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(name, each) for name in names for each in DIALECTS]


def parsed(spoken: str, body: bytes) -> Call:
    match spoken:
        case "openai_chat":
            return parse_chat(body, {})
        case "openai_responses":
            return parse_responses(body, {})
        case "anthropic":
            return parse_messages(body, {})
    return parse_generate(body, {}, "m-1", stream=False, array=False)


def written(spoken: str, request: Request, notes: list[str], **target: Any) -> bytes:
    write = dialect(spoken).write_request
    assert write is not None
    return msgspec.json.encode(write(request, Target("m-1", ORIGIN, **target), notes))


def fate(cell: str) -> str:
    """The first word of a cell."""
    return cell.partition(":")[0]


REQUESTS = table("## What becomes of a request")
ANSWERS = {name: cells for name, cells in table("## What becomes of an answer").items() if "`" not in cells[0][:1]}
STOPS = {name: cells for name, cells in table("## What becomes of an answer").items() if name not in ANSWERS}


def test_every_row_is_checked() -> None:
    assert list(REQUESTS) == list(ROWS)
    assert all(len(cells) == len(DIALECTS) for cells in REQUESTS.values())
    assert {fate(cell) for cells in REQUESTS.values() for cell in cells} == {
        "carried",
        "equivalent",
        "dropped",
        "refused",
    }


@pytest.mark.parametrize(("name", "target"), cases(ROWS))
def test_what_becomes_of_a_request(name: str, target: str) -> None:
    row, cell = ROWS[name], REQUESTS[name][DIALECTS.index(target)]
    for source in [each for each in row.sources if each != target] or row.sources:
        given = row.given(source, target) if callable(row.given) else row.given
        request = Request(**{"dialect": source, "model": "m", "messages": (ASKED,), **given})
        assert row.look(request), "the row looks where the feature is"
        notes: list[str] = []
        if fate(cell) == "refused":
            with pytest.raises((Untranslatable, BadRequest)):
                written(target, request, notes)
            continue
        body = written(target, request, notes)
        found = row.look(dialect(target).read_request(parsed(target, body)))
        lost = [note for note in notes if note.startswith("dropped ")]
        match fate(cell):
            case "carried":
                assert found == row.look(request)
                assert lost == []
            case "equivalent":
                assert row.told[target](json.loads(body)), body
                assert lost == []
            case "dropped":
                assert not found
                assert any(re.search(row.word, note.partition(":")[0]) for note in lost), notes


# --- answers --------------------------------------------------------------------------------------------------------

LOGPROBS = b'{"content":[{"token":"Hi","logprob":-0.5,"bytes":null,"top_logprobs":[]}]}'
FREE = {
    "openai_chat": b'[{"type":"custom","custom":{"name":"patch"}}]',
    "openai_responses": b'[{"type":"custom","name":"patch"}]',
}


class Given(NamedTuple):
    """One row of the second table."""

    look: Callable[[Answer], object]
    parts: tuple[Part, ...] = (Text("Hi"),)
    choice: Mapping[str, Any] = {}
    answer: Mapping[str, Any] = {}
    told: Mapping[str, Check] = {}


def in_choice(kind: type, *names: str) -> Callable[[Answer], object]:
    """Members of the parts of one kind, none that are empty."""
    return lambda answer: [
        found
        for part in answer.choices[0].parts
        if isinstance(part, kind) and all(found := [getattr(part, name) for name in names])
    ]


def has_signature(kind: type) -> Callable[[Answer], object]:
    return lambda answer: any(
        getattr(part, "signature", None) is not None for part in answer.choices[0].parts if isinstance(part, kind)
    )


def counted(*names: str) -> Callable[[Answer], object]:
    return lambda answer: answer.usage and all(found := [getattr(answer.usage, each) for each in names]) and found


USED = {"usage": Usage(100, 40, 20, 10, written=30)}
MADE = Signature("c2lnbmVk", "gemini", STRANGER)
PATCHED = (ToolUse("call_1", "patch", "*** Begin", free=True),)

GIVEN: dict[str, Given] = {
    "text": Given(in_choice(Text, "text")),
    "thinking": Given(in_choice(Reasoning, "text"), (Reasoning("Hm."), Text("Hi"))),
    "signature of the thinking": Given(
        has_signature(Reasoning), (Reasoning("Hm.", Signature("c2lnbmVk", "anthropic", STRANGER)), Text("Hi"))
    ),
    "signature of a tool call": Given(
        has_signature(ToolUse),
        (ToolUse("call_1", "look", "{}", signature=MADE),),
        told={
            "openai_responses": lambda body: (
                [each["type"] for each in body["output"]] == ["reasoning", "function_call"]
            ),
            "anthropic": lambda body: [each["type"] for each in body["content"]] == ["thinking", "tool_use"],
        },
    ),
    "tool calls": Given(
        in_choice(ToolUse, "id", "name", "arguments"),
        (ToolUse("call_1", "look", '{"city":"Oslo"}'), ToolUse("call_2", "look", '{"city":"Rome"}')),
        {"stop": "tool_calls"},
    ),
    "input of a tool that takes plain text": Given(
        in_choice(ToolUse, "free", "arguments"), PATCHED, told=dict.fromkeys(DIALECTS, said('{"input": "*** Begin"}'))
    ),
    "refusal": Given(
        in_choice(Refusal, "text"),
        (Refusal("I will not."),),
        {"stop": "content_filter"},
        told={"gemini": lambda body: said("I will not.")(body) and said('"SAFETY"')(body)},
    ),
    "image": Given(
        in_choice(Media, "kind", "data"),
        (Text("Hi"), Media("image", "image/png", PIXEL)),
        told={"openai_responses": lambda body: body["output"][-1]["type"] == "image_generation_call"},
    ),
    "sources": Given(
        lambda a: [c.url for part in a.choices[0].parts if isinstance(part, Text) for c in part.citations],
        (Text("Hi", citations=(Citation("https://a.example", "A", start=0, end=2),)),),
    ),
    "log probabilities": Given(
        lambda a: a.choices[0].logprobs and json.loads(a.choices[0].logprobs)["content"][0]["token"],
        choice={"logprobs": LOGPROBS},
    ),
    "several choices": Given(lambda a: len(a.choices) - 1, answer={"choices": (Choice((Text("Hi"),), "stop"),) * 2}),
    "which stop sequence was met": Given(
        lambda a: a.choices[0].stop_sequence, choice={"stop": "stop_sequence", "stop_sequence": "END"}
    ),
    "tokens of input and output": Given(counted("input", "output"), answer=USED),
    "tokens read from a prompt cache": Given(counted("cached"), answer=USED),
    "tokens written to a prompt cache": Given(counted("written"), answer=USED),
    "tokens of thinking": Given(counted("reasoning"), answer=USED),
    "service tier": Given(lambda a: a.tier, answer={"tier": "priority"}),
    "what only another format knows": Given(
        in_choice(Foreign, "what"), (Text("Hi"), Foreign("", "oracle", b'{"type":"oracle"}'))
    ),
}


def context(spoken: str) -> Context:
    members = {"generationConfig": b'{"thinkingConfig":{"includeThoughts":true}}', "tools": FREE.get(spoken, b"[]")}
    return Context(Call(spoken, "chat", "m", members, 0), "c1", 1_800_000_000, "m-1")


def answered(spoken: str, answer: Answer) -> bytes:
    return dialect(spoken).write_answer(answer, context(spoken))


def test_every_row_of_answers_is_checked() -> None:
    assert list(ANSWERS) == list(GIVEN)
    assert {fate(cell) for cells in ANSWERS.values() for cell in cells} <= {"carried", "equivalent", "dropped"}


@pytest.mark.parametrize(("name", "client"), cases(GIVEN))
def test_what_becomes_of_an_answer(name: str, client: str) -> None:
    row, cell = GIVEN[name], ANSWERS[name][DIALECTS.index(client)]
    choice = Choice(**{"parts": row.parts, "stop": "stop", **row.choice})
    answer = Answer(**{"choices": (choice,), "model": "m-1", **row.answer})
    assert row.look(answer)
    body = answered(client, answer)
    read = dialect(client).read_answer
    assert read is not None
    found = read(body, ORIGIN)
    assert isinstance(found, Answer)
    match fate(cell):
        case "carried":
            assert row.look(found) == row.look(answer)
        case "equivalent":
            assert row.told[client](json.loads(body)), body
        case "dropped":
            assert not row.look(found)


WHY: dict[str, StopReason] = {
    "it was done": "stop",
    "a stop sequence": "stop_sequence",
    "the largest answer, or a full context": "length",
    "it calls tools": "tool_calls",
    "refused or filtered": "content_filter",
    "a tool of the provider's own runs on": "pause",
}


@pytest.mark.parametrize(("name", "client"), cases(WHY))
def test_why_an_answer_stopped(name: str, client: str) -> None:
    assert list(STOPS) == list(WHY)
    parts: tuple[Part, ...] = (ToolUse("call_1", "look"),) if WHY[name] == "tool_calls" else (Text("Hi"),)
    body = json.loads(answered(client, Answer((Choice(parts, WHY[name], "END"),))))
    match client:
        case "openai_chat":
            word = body["choices"][0]["finish_reason"]
        case "openai_responses":
            word = (body["incomplete_details"] or {"reason": body["status"]})["reason"]
        case "anthropic":
            word = body["stop_reason"]
        case _:
            word = body["candidates"][0]["finishReason"]
    assert f"`{word}`" == STOPS[name][DIALECTS.index(client)]


# --- errors ---------------------------------------------------------------------------------------------------------


def test_what_errors_are_called() -> None:
    known = rows(section(PAGE, "## Errors"))
    assert len(known) > 8
    for status, openai, anthropic, gemini in known:
        error = KeyturnError("no")
        error.status = int(status)
        told = {each: json.loads(dialect(each).error_body(error, "c1", ()))["error"] for each in DIALECTS}
        assert f"`{told['openai_chat']['type']}`" == f"`{told['openai_responses']['type']}`" == openai
        assert f"`{told['anthropic']['type']}`" == anthropic
        assert f"`{told['gemini']['status']}`" == gemini
