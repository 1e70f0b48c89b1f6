"""What command line agents send, through each upstream dialect: a tool is called, answered, and the answer read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.scenario.shapes import (
    DIALECTS,
    UPSTREAMS,
    ask,
    assert_whole,
    body,
    calls,
    events,
    followed,
    play,
    refusal,
    said,
)
from tests.scenario.shapes.agents import AGENTS, OPENCODE_HEADERS, codex, opencode_title
from tests.support.world import World

MODELS = [*UPSTREAMS.values(), "gemini/gemini-2.5-flash", "anthropic/claude-opus-4-6", "openai/gpt-4o", "mistral/small"]
POOL = {"groq": 2, "openai": 2, "anthropic": 2, "gemini": 2, "mistral": 2}


UNFIT = [("claude_code", "anthropic/claude-sonnet-4-5"), ("gemini_cli", "gemini/gemini-3-pro")]
"""What the agent itself says is relayed, though this model of its own vendor does not take it."""


@pytest.mark.parametrize(("agent", "model"), UNFIT)
def test_what_an_agent_says_to_its_own_vendor_is_not_mended(agent: str, model: str) -> None:
    dialect, shape, headers = AGENTS[agent]

    async def story(world: World) -> None:
        answer = await ask(world, dialect, model, shape(model), headers=headers)
        assert "hinking" in refusal(dialect, answer).message
        assert [each.result for each in world.seen()] == ["refused"]

    play(story, POOL)


@pytest.mark.parametrize(("agent", "model"), UNFIT)
@pytest.mark.parametrize("stream", [False, True])
def test_behind_a_role_an_agents_words_are_made_to_fit(agent: str, model: str, stream: bool) -> None:
    """Who asks for a role cannot know which model stands behind it."""
    dialect, shape, headers = AGENTS[agent]
    roles = f"  coder: {{ model_chain: ['{model}'] }}"

    async def story(world: World) -> None:
        asked = shape("coder")
        first = await ask(world, dialect, "coder", asked, stream=stream, headers=headers)
        assert first.status == 200, first.body
        asked = followed(dialect, asked, first, "It is 22 degrees")
        second = await ask(world, dialect, "coder", asked, stream=stream, headers=headers)
        assert second.status == 200, second.body
        assert "It is 22 degrees" in said(dialect, second)
        sent = json.loads(world.seen()[0].body)
        if dialect == "anthropic":
            assert sent["thinking"]["type"] == "enabled"
            assert sent["context_management"] == asked["context_management"], "the rest goes as it came"
        else:
            assert "thinkingBudget" not in sent["generationConfig"]["thinkingConfig"]

    play(story, POOL, roles=roles)


@pytest.mark.parametrize(("agent", "model"), [(a, m) for a in AGENTS for m in MODELS if (a, m) not in UNFIT])
@pytest.mark.parametrize("stream", [False, True])
def test_an_agents_tool_loop(agent: str, model: str, stream: bool) -> None:
    dialect, shape, headers = AGENTS[agent]

    async def story(world: World) -> None:
        asked = shape(model)
        first = await ask(world, dialect, model, asked, stream=stream, headers=headers)
        assert first.status == 200, first.body
        assert [(each.name, each.arguments) for each in calls(dialect, first)] == [("weather", {"city": "Rome"})]
        asked = followed(dialect, asked, first, "It is 22 degrees")
        second = await ask(world, dialect, model, asked, stream=stream, headers=headers)
        assert second.status == 200, second.body
        assert "It is 22 degrees" in said(dialect, second)
        if stream:
            assert_whole(dialect, first)
            assert_whole(dialect, second)
        assert {each.result for each in world.seen()} == {"served"}
        assert len(world.seen()) == 2
        _sent_well(world, agent, dialect)

    play(story, POOL)


def _sent_well(world: World, agent: str, dialect: str) -> None:
    """What every upstream got of it."""
    for each in world.seen():
        sent, text = json.loads(each.body), each.body.decode()
        if each.dialect == dialect:
            continue
        assert "x-anthropic-billing-header" not in text
        assert "cc_version" not in text
        for name in ("context_management", "client_metadata", "safetySettings", "metadata"):
            if not (name == "metadata" and each.dialect == "anthropic"):
                assert name not in sent, name
        assert "terminal" in text  # the system prompt
        assert not [name for name in each.headers if name.startswith(("x-stainless", "x-claude", "x-goog-api-cl"))]
        if each.dialect != "anthropic":
            assert "anthropic-beta" not in each.headers
            assert "anthropic-version" not in each.headers
        if agent == "claude_code" and each.dialect != "gemini":
            assert "The user has opened notes.txt." in text
    if world.seen()[0].dialect == "openai_responses":
        assert json.loads(world.seen()[0].body)["store"] is False


@pytest.mark.parametrize("model", MODELS)
def test_opencodes_two_calls_at_once(model: str) -> None:
    _, shape, _ = AGENTS["opencode"]

    async def story(world: World) -> None:
        title = await ask(world, "openai_chat", model, opencode_title(model), stream=True, headers=OPENCODE_HEADERS)
        answer = await ask(world, "openai_chat", model, shape(model), stream=True, headers=OPENCODE_HEADERS)
        assert said("openai_chat", title)
        assert calls("openai_chat", answer)
        for each in (title, answer):
            assert_whole("openai_chat", each)
            assert events(each)[-1]["usage"]["total_tokens"] > 0

    play(story, POOL)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_in_a_namespace_goes_out_flat_and_comes_back_in_it(model: str, stream: bool) -> None:
    async def story(world: World) -> None:
        asked = codex(model)
        asked["input"][2]["content"][0]["text"] = "Call files__read, that is read in files."
        first = await ask(world, "openai_responses", model, asked, stream=stream)
        rows = [row for row in _output(first) if row["type"] == "function_call"]
        assert [(row["name"], row.get("namespace")) for row in rows] == [("read", "files")], rows
        again = await ask(world, "openai_responses", model, followed("openai_responses", asked, first), stream=stream)
        assert "22 degrees" in said("openai_responses", again)

    play(story, POOL)


def _output(answer: Any) -> list[dict[str, Any]]:
    if answer.body[:1] == b"{":
        return list(answer.json()["output"])
    return list(events(answer)[-1]["response"]["output"])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_two_tools_at_once_and_a_step_more(dialect: str, model: str, stream: bool) -> None:
    prompt = '[call: weather {"city": "Rome"}] [call: weather {"city": "Bari"}] [then: weather {"city": "Ostia"}]'

    async def story(world: World) -> None:
        asked = body(dialect, model, prompt, tools=True)
        first = await ask(world, dialect, model, asked, stream=stream)
        made = calls(dialect, first)
        assert [each.arguments["city"] for each in made] == ["Rome", "Bari"]
        if (dialect, model) != ("gemini", "gemini/gemini-2.5-flash"):  # relayed: older models give no ids
            assert len({each.id for each in made}) == 2
        asked = followed(dialect, asked, first)
        second = await ask(world, dialect, model, asked, stream=stream)
        assert [each.arguments["city"] for each in calls(dialect, second)] == ["Ostia"], second.body
        asked = followed(dialect, asked, second, "rain")
        third = await ask(world, dialect, model, asked, stream=stream)
        assert "The tool answered: rain" in said(dialect, third), third.body
        assert {each.result for each in world.seen()} == {"served"}

    play(story, POOL)
