"""A client's mistakes: told in its own dialect, by us before anything is sent, or by an upstream asked once."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.simulator import Fault
from tests.scenario.shapes import DIALECTS, UPSTREAMS, ask, body, play, refusal, said
from tests.support.world import World

PAIRS = [(client, upstream) for client in DIALECTS for upstream in DIALECTS if client != upstream]
TWO = pytest.mark.parametrize(("dialect", "upstream"), PAIRS)

CODES = {
    "bad_request": (400, "bad_request", "INVALID_ARGUMENT", "invalid_request_error"),
    "not_found": (404, "model_not_found", "NOT_FOUND", "not_found_error"),
    "context_length": (400, "context_length_exceeded", "INVALID_ARGUMENT", "invalid_request_error"),
    "content_filter": (400, "content_filter", "INVALID_ARGUMENT", "invalid_request_error"),
}
"""A case -> its status, and what it is called by OpenAI, Gemini and Anthropic."""


UNWORDED = ("openai_chat", "gemini")
"""Nobody knows in what words Groq and Gemini refuse a prompt for its content."""


@pytest.mark.parametrize(
    ("dialect", "upstream", "case"),
    [(*pair, case) for pair in PAIRS for case in CODES if case != "content_filter" or pair[1] not in UNWORDED],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstreams_refusal_is_told_in_the_clients_dialect(
    dialect: str, upstream: str, case: str, stream: bool
) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, UPSTREAMS[upstream], stream=stream)
        told = refusal(dialect, answer)
        status, code, google, anthropic = CODES[case]
        assert told.status == status
        assert told.message
        assert "secret-key" not in answer.body.decode()
        if dialect == "gemini":
            assert told.kind == google
        elif dialect == "anthropic":
            assert told.kind == anthropic
        else:
            assert told.code == code
        assert len(world.seen()) == 1
        assert answer.headers["content-type"] == "application/json"

    pool = {"groq": 2, "openai": 2, "anthropic": 2, "gemini": 2}
    play(story, pool, faults=[Fault(kind="chat", error=case, quirks=frozenset({"echo_key"}))])


NO_IMAGE = "data:image/png;base64,!"
NOT_BASE64 = "this is no base64 at all!"
DEEP: dict[str, Any] = {"type": "object"}
for _ in range(60):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


def told_wrong(dialect: str, mistake: str) -> tuple[dict[str, Any], str]:
    """A request with *mistake*, and the place that the error must name."""
    ours = body(dialect, "", "Hello")
    deep: tuple[dict[str, Any], str]
    match dialect:
        case "openai_chat":
            more: dict[str, tuple[dict[str, Any], str]] = {
                "role": ({"role": "wizard", "content": "x"}, "messages[1].role"),
                "orphan": ({"role": "tool", "tool_call_id": "call_9", "content": "x"}, "messages[1].tool_call_id"),
                "part": ({"role": "user", "content": [{"type": "hologram"}]}, "messages[1].content[0].type"),
                "image": (
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}],
                    },
                    "messages[1].content[0].image_url",
                ),
            }
            schema = {"tools": [{"type": "function", "function": {"name": "deep", "parameters": DEEP}}]}
            deep, history = (schema, "tools[0].function.parameters"), "messages"
        case "openai_responses":
            more = {
                "role": ({"role": "wizard", "content": "x"}, "input[1].role"),
                "orphan": ({"type": "function_call_output", "call_id": "call_9", "output": "x"}, "input[1].call_id"),
                "part": ({"role": "user", "content": [{"type": "hologram"}]}, "input[1].content[0].type"),
                "image": (
                    {"role": "user", "content": [{"type": "input_image", "image_url": NO_IMAGE}]},
                    "input[1].content[0].image_url",
                ),
            }
            deep = ({"tools": [{"type": "function", "name": "deep", "parameters": DEEP}]}, "tools[0].parameters")
            history = "input"
        case "anthropic":
            result = {"type": "tool_result", "tool_use_id": "toolu_9", "content": "x"}
            source = {"type": "base64", "media_type": "image/png", "data": NOT_BASE64}
            more = {
                "role": ({"role": "wizard", "content": "x"}, "messages[1].role"),
                "orphan": ({"role": "user", "content": [result]}, "messages[1].content[0].tool_use_id"),
                "part": ({"role": "user", "content": [{"type": "hologram"}]}, "messages[1].content[0].type"),
                "image": (
                    {"role": "user", "content": [{"type": "image", "source": source}]},
                    "messages[1].content[0].source.data",
                ),
            }
            deep, history = ({"tools": [{"name": "deep", "input_schema": DEEP}]}, "tools[0].input_schema"), "messages"
        case _:
            inline = {"inlineData": {"mimeType": "image/png", "data": NOT_BASE64}}
            answered: Any = {"functionResponse": {"name": "weather", "response": {}}}
            parts: list[Any] = [{"text": "x"}]
            more = {
                "role": ({"role": "wizard", "parts": parts}, "contents[1].role"),
                "orphan": ({"role": "user", "parts": [answered]}, "contents[1].parts[0].functionResponse"),
                "part": ({"role": "user", "parts": [{"hologram": {}}]}, "contents[1].parts[0]"),
                "image": ({"role": "user", "parts": [inline]}, "contents[1].parts[0].inlineData"),
            }
            declared = {"name": "deep", "parametersJsonSchema": DEEP}
            deep = ({"tools": [{"functionDeclarations": [declared]}]}, "tools[0].functionDeclarations[0].parameters")
            history = "contents"
    if mistake == "deep":
        return ours | deep[0], deep[1]
    item, place = more[mistake]
    return ours | {history: [*ours[history], item]}, place


@TWO
@pytest.mark.parametrize("mistake", ["role", "orphan", "part", "image", "deep"])
def test_our_own_refusal_names_the_field_and_nothing_is_sent(dialect: str, upstream: str, mistake: str) -> None:
    asked, place = told_wrong(dialect, mistake)

    async def story(world: World) -> None:
        for stream in (False, True):
            given = asked if dialect == "gemini" else asked | {"model": UPSTREAMS[upstream]}
            answer = await ask(world, dialect, UPSTREAMS[upstream], given, stream=stream)
            told = refusal(dialect, answer)
            assert told.status == 400, told
            assert place in told.message + " " + told.param, told
            assert told.kind in ("invalid_request_error", "INVALID_ARGUMENT")
            assert not world.seen()

    play(story)


@TWO
def test_a_long_history_is_no_error(dialect: str, upstream: str) -> None:
    word = "history repeats itself, word for word. " * 500  # some 5,000 tokens

    async def story(world: World) -> None:
        asked = body(dialect, UPSTREAMS[upstream])
        history = "contents" if dialect == "gemini" else "input" if dialect == "openai_responses" else "messages"
        first = asked[history][0]
        rows: list[dict[str, Any]] = []
        for number in range(40):
            role = "user" if number % 2 == 0 else "model" if dialect == "gemini" else "assistant"
            text = word + str(number)
            rows.append(
                {"role": role, "parts": [{"text": text}]} if dialect == "gemini" else {"role": role, "content": text}
            )
        answer = await ask(world, dialect, UPSTREAMS[upstream], asked | {history: [*rows, first]})
        if answer.status != 200:  # the simulated model's own window is smaller
            assert upstream in ("openai_chat", "anthropic", "openai_responses"), answer.body[:300]
            assert world.seen()[0].case == "context_length"
        else:
            assert said(dialect, answer).endswith("Hello")

    play(story)


CHAIN = "  team: { model_chain: [anthropic/claude-sonnet-4-5, %s] }\n"
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
UNSAYABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "audio": ("openai_chat", {"messages": [{"role": "user", "content": [SOUND]}]}, "audio"),
    "n": ("openai_chat", {"n": 2}, "n"),
    "logprobs": ("openai_chat", {"logprobs": True, "top_logprobs": 2}, "logprobs"),
    "candidates": ("gemini", {"generationConfig": {"candidateCount": 2}}, "candidateCount"),
    "google_logprobs": ("gemini", {"generationConfig": {"responseLogprobs": True}}, "responseLogprobs"),
    "responses_logprobs": (
        "openai_responses",
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        "logprobs",
    ),
}


@pytest.mark.parametrize("what", UNSAYABLE)
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_first_cannot_say_is_asked_of_one_that_can(what: str, stream: bool) -> None:
    dialect, more, _ = UNSAYABLE[what]
    able = {"openai_chat": "openrouter/openai/gpt-4o", "gemini": "gemini/gemini-2.5-flash"}.get(
        dialect, "openai/gpt-4o"
    )

    async def story(world: World) -> None:
        answer = await ask(world, dialect, "team", body(dialect, "team") | more, stream=stream)
        assert answer.status == 200, answer.body
        assert [each.provider for each in world.seen()] == [able.partition("/")[0]]
        trail = world.gateway.recent[answer.headers["x-keyturn-call"]]
        assert any("anthropic" in line for line in trail.refusals), trail.refusals

    pool = {"openrouter": 1, "openai": 1, "anthropic": 2, "gemini": 1}
    play(story, pool, roles=CHAIN % able)


@pytest.mark.parametrize("what", UNSAYABLE)
def test_what_nobody_can_say_is_a_clear_refusal(what: str) -> None:
    dialect, more, place = UNSAYABLE[what]

    async def story(world: World) -> None:
        model = UPSTREAMS["anthropic"]
        told = refusal(dialect, await ask(world, dialect, model, body(dialect, model) | more))
        assert told.status == 400
        assert place in told.message + " " + told.param, told
        assert "Anthropic" in told.message, told
        assert not world.seen()

    play(story, {"anthropic": 3})


@pytest.mark.parametrize("dialect", [each for each in DIALECTS if each != "anthropic"])
def test_a_prompt_of_white_space_is_not_sent_to_who_refuses_it(dialect: str) -> None:
    async def story(world: World) -> None:
        model = UPSTREAMS["anthropic"]
        told = refusal(dialect, await ask(world, dialect, model, body(dialect, model, " \n ")))
        assert told.status == 400
        assert "Anthropic" in told.message
        assert not world.seen()

    play(story)


@pytest.mark.parametrize(
    ("dialect", "more", "place"),
    [
        ("openai_chat", {"n": 2}, "n"),
        ("openai_chat", {"stop": ["END"]}, "stop"),
        ("anthropic", {"stop_sequences": ["END"]}, "stop_sequences"),
        ("gemini", {"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ("gemini", {"generationConfig": {"stopSequences": ["END"]}}, "generationConfig.stopSequences"),
    ],
)
def test_what_responses_cannot_say_is_named_in_the_clients_words(
    dialect: str, more: dict[str, Any], place: str
) -> None:
    async def story(world: World) -> None:
        model = UPSTREAMS["openai_responses"]
        told = refusal(dialect, await ask(world, dialect, model, body(dialect, model) | more))
        assert told.status == 400
        assert told.message.startswith(f"`{place}` ")
        assert not world.seen()

    play(story)
