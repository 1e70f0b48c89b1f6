"""Writing a request for an upstream that speaks OpenAI Chat: what is carried, dropped with a note, or refused."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import structs

from keyturn.core import (
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
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from keyturn.errors import Untranslatable
from keyturn.wire import Target, parse_chat
from keyturn.wire.chat import CHAT

from .golden_files import golden
from .steps import is_linear

ORIGIN = Origin("up", "m-1", "g")
TARGET = Target("m-1", ORIGIN)
HI = (Message("user", (Text("Hi"),)),)
PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()


def written(request: Request, target: Target = TARGET) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    assert CHAT.write_request is not None
    body = CHAT.write_request(request, target, notes)
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    return decoded, notes


def asked(*, dialect: str = "anthropic", messages: tuple[Message, ...] = HI, **fields: Any) -> Request:
    return Request(dialect, "alias", messages, **fields)


def turns(*messages: Message, dialect: str = "anthropic", target: Target = TARGET) -> list[dict[str, Any]]:
    body, _ = written(asked(dialect=dialect, messages=messages), target)
    found: list[dict[str, Any]] = body["messages"]
    return found


def said(*parts: Part, target: Target = TARGET) -> Any:
    return turns(Message("user", parts), target=target)[0]["content"]


def test_the_least() -> None:
    assert written(asked()) == ({"model": "m-1", "messages": [{"role": "user", "content": "Hi"}]}, [])


def test_a_whole_request_is_written_as_it_was_read() -> None:
    body = golden("chat/whole.request.json")
    request = CHAT.read_request(parse_chat(body, {}))
    again, notes = written(request, Target("m-1", Origin("up", "m-1", "g"), cache_marks=True))
    assert again == json.loads(body) | {"stream_options": {"include_usage": True}}
    assert notes == []


def test_the_same_request_of_another_dialect() -> None:
    request = CHAT.read_request(parse_chat(golden("chat/whole.request.json"), {}))
    again, notes = written(structs.replace(request, dialect="anthropic"))
    assert again == json.loads(golden("chat/whole.rendered.json"))
    assert notes == [
        "dropped metadata: OpenAI Chat has no counterpart",
        "dropped cache_control: prompts are cached without marks here",
    ]


# --- turns ----------------------------------------------------------------------------------------------------------


def test_system_messages_stay_where_they_are() -> None:
    assert turns(Message("system", (Text("a"), Text("b"))), *HI, Message("system", (Text("c"),))) == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "c"},
    ]


def test_results_of_tools_come_one_by_one_and_their_media_behind_them() -> None:
    image = Media("image", "image/png", PNG)
    results = (
        ToolResult("a", (Text("see"), image)),
        ToolResult("b", (Text("no"),), failed=True),
        ToolResult("c", (Media("document", "text/plain", text="body", name="t"),)),
    )
    calls = Message("assistant", tuple(ToolUse(name, "f") for name in "abc"))
    found = turns(calls, Message("user", (*results, Text("go on"))))
    assert [(each["role"], each.get("tool_call_id")) for each in found[1:4]] == [("tool", name) for name in "abc"]
    assert [each["content"] for each in found[1:4]] == ["see\n[image 1]", "Error: no", "t\n\nbody"]
    assert found[4] == {
        "role": "user",
        "content": [
            {"type": "text", "text": "[image 1]"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "text", "text": "go on"},
        ],
    }


def test_calls_without_ids_get_some_and_their_results_the_same() -> None:
    calls = Message("assistant", (ToolUse("", "f"), ToolUse("", "g"), ToolUse("", "f")))
    results = tuple(ToolResult("", (Text(text),), name) for name, text in (("g", "2"), ("f", "1"), ("f", "3")))
    found = turns(calls, Message("user", results))
    assert [call["id"] for call in found[0]["tool_calls"]] == ["call_0", "call_1", "call_2"]
    assert {each["tool_call_id"]: each["content"] for each in found[1:]} == {
        "call_1": "2",
        "call_0": "1",
        "call_2": "3",
    }


def test_what_an_assistant_says() -> None:
    assert turns(
        Message("assistant", (Text("a"), Text("b"), ToolUse("1", "f", "{}", namespace="ns"))),
        Message("user", (ToolResult("1"),)),
        Message("assistant", (Refusal("No."),)),
    ) == [
        {
            "role": "assistant",
            "content": "ab",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "ns__f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": ""},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]


def test_neighbours_of_calls_are_joined_since_only_answers_may_follow_them() -> None:
    (turn,) = turns(
        Message("assistant", (Text("a"), ToolUse("1", "f"))), Message("assistant", (Text("b"), ToolUse("2", "g")))
    )
    assert (turn["content"], [call["id"] for call in turn["tool_calls"]]) == ("ab", ["1", "2"])


def test_thinking_is_left_out_and_told() -> None:
    signature = Signature("s", "anthropic", Origin("claude", "opus", "g"))
    body, notes = written(asked(messages=(Message("assistant", (Reasoning("hm"), Text("4"))),)))
    assert body["messages"] == [{"role": "assistant", "content": "4"}]
    assert notes == ["dropped reasoning: it is not signed"]
    _, notes = written(asked(messages=(Message("assistant", (Reasoning("hm", signature), Text("4"))),)))
    assert notes == ["dropped reasoning: signed by another provider"]


def test_googles_signatures_go_back_to_who_made_them() -> None:
    def sent(origin: Origin | None) -> Any:
        call = ToolUse("1", "f", signature=Signature("s", "gemini", origin))
        return turns(Message("assistant", (call,)))[0]["tool_calls"][0].get("extra_content")

    assert sent(ORIGIN) == {"google": {"thought_signature": "s"}}
    assert sent(Origin("other", "m-1", "g")) is None


def test_a_free_tool_is_wrapped_for_servers_that_know_functions_only() -> None:
    form = b'{"type":"grammar","syntax":"lark","definition":"start: A"}'
    messages = (Message("assistant", (ToolUse("1", "sh", 'echo "a"', free=True),)),)
    request = asked(messages=messages, tools=(Tool("sh", "Runs.", form, free=True), Tool("any", free=True)))
    body, _ = written(request)
    assert body["messages"][0]["tool_calls"][0]["function"] == {"name": "sh", "arguments": '{"input":"echo \\"a\\""}'}
    first = body["tools"][0]["function"]
    assert first["description"] == "Runs.\n\n`input` follows this grammar:\nstart: A"
    assert first["parameters"]["required"] == ["input"]
    own, _ = written(structs.replace(request, dialect="openai_chat"))
    assert own["messages"][0]["tool_calls"][0]["custom"] == {"name": "sh", "input": 'echo "a"'}
    assert own["tools"][0]["custom"]["format"]["grammar"] == {"syntax": "lark", "definition": "start: A"}
    assert own["tools"][1] == {"type": "custom", "custom": {"name": "any"}}


# --- parts ----------------------------------------------------------------------------------------------------------


def test_media() -> None:
    parts = (
        Media("image", url="https://example.org/a.png", detail="low"),
        Media("document", "application/pdf", "JVBERi0="),
        Media("document", "text/plain", "SGk=", name="a.txt"),
        Media("audio", "audio/mpeg", "SUQz"),
    )
    assert said(*parts) == [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "text", "text": "a.txt\n\nHi"},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
    ]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Media("video", url="https://example.org/a.mp4"), "a video"),
        (Media("audio", "audio/flac", "ZkxhQw=="), "audio/flac"),
        (Media("document", url="https://example.org/a.pdf"), "a document by its address"),
        (Media("document", file_id="f"), "the id of a file"),
        (Media("image", file_id="f"), "an image by the id"),
        (Media("image", url="gs://bucket/a.png"), "an image by its address"),
        (Refusal("No."), "only an assistant"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_place(part: Part, words: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        said(part)
    assert caught.value.param == "messages[0]"
    assert words in caught.value.message


def test_media_in_a_system_message_are_refused() -> None:
    with pytest.raises(Untranslatable, match="only text in a system message"):
        turns(Message("system", (Media("image", "image/png", PNG),)))


def test_cache_marks_go_where_they_are_taken() -> None:
    marked = Text("a", cache="1h")
    assert said(marked) == "a"
    mark = {"mode": "explicit", "ttl": "30m"}
    taken = Target("m-1", ORIGIN, cache_marks=True)
    assert said(marked, target=taken) == [{"type": "text", "text": "a", "prompt_cache_breakpoint": mark}]


def test_what_only_another_dialect_knows_is_dropped_and_told() -> None:
    body, notes = written(
        asked(
            messages=(*HI, Message("assistant", (Foreign("anthropic", "server_tool_use", b"{}"),))),
            hosted=(Foreign("anthropic", "web_search", b"{}"),),
            others={"container": b'"c"'},
            top_k=4,
        )
    )
    assert "tools" not in body
    assert notes == [
        "dropped server_tool_use: only anthropic knows it",
        "dropped web_search: OpenAI Chat has no counterpart of a provider's own tool",
        "dropped top_k: OpenAI Chat has no counterpart",
        "dropped container: OpenAI Chat has no counterpart",
    ]


# --- the other fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        (Thinking(), None),
        (Thinking("xhigh"), "xhigh"),
        (Thinking(budget=0), "none"),
        (Thinking(budget=1024), "low"),
        (Thinking(budget=2048), "medium"),
        (Thinking(budget=10_000), "high"),
        (Thinking(budget=24_000), "xhigh"),
        (Thinking("low", budget=24_000), "low"),
    ],
)
def test_how_much_to_think(thinking: Thinking, effort: str | None) -> None:
    assert written(asked(thinking=thinking))[0].get("reasoning_effort") == effort


def test_a_model_that_takes_less() -> None:
    target = Target("m-1", ORIGIN, max_output=100, sampling=False, thinking="none", schemas=False)
    body, notes = written(
        asked(dialect="gemini", thinking=Thinking("low"), temperature=1.0, top_p=0.5, max_output=200), target
    )
    assert body["max_completion_tokens"] == 100
    assert notes == [
        "dropped generationConfig.thinkingConfig: this model does not think",
        "lowered generationConfig.maxOutputTokens to 100: the model's largest output",
        "dropped generationConfig.temperature: this model refuses it",
        "dropped generationConfig.topP: this model refuses it",
    ]
    with pytest.raises(Untranslatable, match="response_format"):
        written(asked(shape=Shape("schema", b"{}")), target)


def test_structured_output() -> None:
    assert written(asked(shape=Shape("object")))[0]["response_format"] == {"type": "json_object"}
    shape = written(asked(shape=Shape("schema", b'{"type":"object"}', description="d", strict=True)))[0]
    assert shape["response_format"]["json_schema"] == {
        "name": "answer",
        "schema": {"type": "object"},
        "description": "d",
        "strict": True,
    }


def test_only_some_tools() -> None:
    tools = (Tool("a"), Tool("b", namespace="ns"), Tool("c"))
    body, _ = written(asked(tools=tools, choice=ToolChoice("any", ("a", "b")), parallel=False))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["a", "ns__b"]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    body, _ = written(asked(tools=tools, choice=ToolChoice("any", ("b",))))
    assert body["tool_choice"] == {"type": "function", "function": {"name": "ns__b"}}
    body, _ = written(asked(tools=tools, choice=ToolChoice("auto", ("a",))))
    assert (len(body["tools"]), body["tool_choice"]) == (1, "auto")
    body, _ = written(asked(tools=tools, dialect="openai_chat", choice=ToolChoice("auto", ("a",))))
    assert len(body["tools"]) == 3
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "a"}}]}
    assert body["tool_choice"] == {"type": "allowed_tools", "allowed_tools": allowed}


def test_a_choice_without_tools_is_not_sent() -> None:
    assert "tool_choice" not in written(asked(choice=ToolChoice("none"), parallel=True))[0]


def test_calls_without_ids_are_answered_in_any_order() -> None:
    def writing(size: int) -> Callable[[], object]:
        uses = tuple(ToolUse("", f"f{at}", "{}") for at in range(size))
        results = tuple(ToolResult("", (Text("r"),), use.name) for use in reversed(uses))
        request = asked(messages=(*HI, Message("assistant", uses), Message("user", results)))
        return lambda: written(request)

    assert is_linear(writing)
    uses = tuple(ToolUse("", name, "{}") for name in "fgf")
    results = tuple(ToolResult("", (Text("r"),), name) for name in ("f", "h", "f", "f"))
    _, *answers = turns(Message("assistant", uses), Message("user", results))
    assert [each["tool_call_id"] for each in answers] == ["call_0", "call_1", "call_2", "call_3"]


def test_what_the_assistant_says_behind_its_calls_is_one_message() -> None:
    calling = Message("assistant", (Text("a"), ToolUse("c", "f", "{}")), "Ann")
    more = Message("assistant", (Text("b"), ToolUse("d", "f", "{}"), Refusal("no")))
    before, joined, after = turns(Message("assistant", (Text("x"),)), calling, more, Message("assistant", ()), *HI)
    assert (before["content"], after["content"]) == ("x", "Hi")
    assert (joined["content"], joined["refusal"], joined["name"]) == ("ab", "no", "Ann")
    assert [call["id"] for call in joined["tool_calls"]] == ["c", "d"]


def test_tools_that_may_be_called_are_found_at_once() -> None:
    names = tuple(f"f{at}" for at in range(20_000))
    body, _ = written(asked(tools=tuple(Tool(name) for name in names), choice=ToolChoice("any", names)))
    assert len(body["tools"]) == len(names)
