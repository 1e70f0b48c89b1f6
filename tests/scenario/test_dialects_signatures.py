"""Reasoning signatures on their way through clients and failovers: nobody is sent another's, everybody gets its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from keyturn.simulator import Fault
from keyturn.simulator.personas import Persona
from tests.scenario.shapes import DIALECTS, HISTORY, ask, body, calls, followed, play, results, said, turn
from tests.support.world import World

TEAM = "  team: { model_chain: [gemini/gemini-3-pro, anthropic/claude-opus-4-6] }\n"
DUMMY = "skip_thought_signature_validator"
CLIENTS = pytest.mark.parametrize("dialect", DIALECTS)
STREAMED = pytest.mark.parametrize("stream", [False, True])
ASK = "Use the weather tool, please."


def thinking(dialect: str) -> dict[str, Any]:
    """Members with which a client asks for thinking, and to see it."""
    asked: dict[str, dict[str, Any]] = {
        "openai_chat": {"reasoning_effort": "medium"},
        "openai_responses": {
            "reasoning": {"effort": "medium", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "store": False,
        },
        "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "gemini": {"generationConfig": {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "MEDIUM"}}},
    }
    return asked[dialect]


def signed_parts(exchange: Any) -> list[str | None]:
    """The signatures of the calls of tools in a body that Gemini was sent."""
    contents = json.loads(exchange.body)["contents"]
    return [part.get("thoughtSignature") for each in contents for part in each["parts"] if "functionCall" in part]


def values(given: Any, names: tuple[str, ...]) -> Iterator[str]:
    """Every value of members of these names in a body."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            if name in names and isinstance(value, str):
                yield value
            yield from values(value, names)
    elif isinstance(given, list):
        for each in given:
            yield from values(each, names)


@CLIENTS
@STREAMED
def test_geminis_signature_comes_back_and_goes_to_nobody_else(dialect: str, stream: bool) -> None:
    async def story(world: World) -> None:
        asked = body(dialect, "team", ASK, tools=True) | thinking(dialect)
        first = await ask(world, dialect, "team", asked, stream=stream)
        assert first.headers["x-keyturn-provider"] == "gemini"
        asked = followed(dialect, asked, first)
        second = await ask(world, dialect, "team", asked, stream=stream)
        assert said(dialect, second).count("22 degrees") == 1
        (own,) = signed_parts(world.seen()[-1])
        assert own is not None
        assert own.startswith("sim-gemini-")

        asked = {**asked, HISTORY[dialect]: [*asked[HISTORY[dialect]], *turn(dialect, second), *_says(dialect, ASK)]}
        world.upstream.script.add(Fault(provider="gemini", status=503, times=1))
        third = await ask(world, dialect, "team", asked, stream=stream)
        assert third.status == 200, third.body
        assert third.headers["x-keyturn-provider"] == "anthropic"
        sent = world.seen()[-1].body.decode()
        assert "sim-gemini" not in sent
        assert "kt1." not in sent
        assert DUMMY not in sent

        asked = followed(dialect, asked, third, "23 degrees")
        world.gateway.reset(None)
        fourth = await ask(world, dialect, "team", asked, stream=stream)
        assert fourth.headers["x-keyturn-provider"] == "gemini", fourth.headers
        assert "23 degrees" in said(dialect, fourth)
        assert signed_parts(world.seen()[-1]) == [own, DUMMY]
        sent = world.seen()[-1].body.decode()
        assert "sim-anthropic" not in sent
        assert "kt1." not in sent

    play(story, roles=TEAM)


def _says(dialect: str, text: str) -> list[dict[str, Any]]:
    if dialect == "gemini":
        return [{"role": "user", "parts": [{"text": text}]}]
    return [{"role": "user", "content": text}]


@CLIENTS
@STREAMED
def test_a_signature_that_the_client_lost_is_remembered_by_the_id_of_its_call(dialect: str, stream: bool) -> None:
    async def story(world: World) -> None:
        asked = body(dialect, "team", ASK, tools=True)
        first = await ask(world, dialect, "team", asked, stream=stream)
        bare = [_bare(dialect, each.id, each.name, each.arguments) for each in calls(dialect, first)]
        history = [*asked[HISTORY[dialect]], *bare, *results(dialect, calls(dialect, first))]
        second = await ask(world, dialect, "team", asked | {HISTORY[dialect]: history}, stream=stream)
        assert "22 degrees" in said(dialect, second)
        (own,) = signed_parts(world.seen()[-1])
        assert own is not None
        if dialect != "gemini":  # relayed as it came: its client must not lose what is its own
            assert own.startswith("sim-gemini-")

    play(story, roles=TEAM)


def _bare(dialect: str, identity: str, name: str, arguments: Any) -> dict[str, Any]:
    """The call as a client sends it that keeps what it knows and nothing more."""
    if dialect == "openai_chat":
        made = {"name": name, "arguments": json.dumps(arguments)}
        return {"role": "assistant", "tool_calls": [{"id": identity, "type": "function", "function": made}]}
    if dialect == "openai_responses":
        return {"type": "function_call", "call_id": identity, "name": name, "arguments": json.dumps(arguments)}
    if dialect == "anthropic":
        return {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": identity, "name": name, "input": arguments}],
        }
    call = {"name": name, "args": arguments, "id": identity}
    return {"role": "model", "parts": [{"functionCall": call, "thoughtSignature": DUMMY}]}


@CLIENTS
def test_another_project_gets_the_dummy(dialect: str) -> None:
    async def story(world: World) -> None:
        asked = body(dialect, "gemini/gemini-3-pro", ASK, tools=True)
        first = await ask(world, dialect, "gemini/gemini-3-pro", asked)
        used = world.seen()[0].key
        world.upstream.script.add(Fault(key=used, error="invalid_key"))
        second = await ask(world, dialect, "gemini/gemini-3-pro", followed(dialect, asked, first))
        assert "22 degrees" in said(dialect, second)
        last = world.seen()[-1]
        assert last.key != used
        assert signed_parts(last) == [DUMMY]

    play(story, {"gemini": 2})


@CLIENTS
@STREAMED
def test_anthropics_thinking_comes_back_on_every_key_and_not_to_others(dialect: str, stream: bool) -> None:
    """Signed thinking goes round through each client, whichever key is asked next."""
    team = "  team: { model_chain: [anthropic/claude-opus-4-6, gemini/gemini-3-pro] }\n"

    async def story(world: World) -> None:
        asked = body(dialect, "team", ASK, tools=True) | thinking(dialect)
        if dialect == "anthropic":
            asked["thinking"] = {"type": "adaptive"}
        first = await ask(world, dialect, "team", asked, stream=stream)
        assert first.headers["x-keyturn-provider"] == "anthropic"
        asked = followed(dialect, asked, first)
        for _ in range(3):
            again = await ask(world, dialect, "team", asked, stream=stream)
            assert "22 degrees" in said(dialect, again)
        assert len({each.key for each in world.seen()}) > 1
        for each in world.seen()[1:]:
            signatures = list(values(json.loads(each.body)["messages"], ("signature",)))
            if dialect != "openai_chat" or signatures:
                assert [value[:14] for value in signatures] == ["sim-anthropic-"], each.body
        world.upstream.script.add(Fault(provider="anthropic", status=503))
        other = await ask(world, dialect, "team", asked, stream=stream)
        assert "22 degrees" in said(dialect, other)
        assert "sim-anthropic" not in world.seen()[-1].body.decode()
        assert "kt1." not in world.seen()[-1].body.decode()

    play(story, {"anthropic": 3, "gemini": 1}, roles=team)


BOX = {"BOX_DIALECT": "anthropic", "BOX_API_BASE": "http://simulator/box/v1"}
BOXED = Persona(name="box", native="anthropic", models=("claude-opus-4-6",), id_prefix="msg_")


@STREAMED
def test_thinking_of_one_provider_is_not_relayed_to_another_that_speaks_the_same(stream: bool) -> None:
    team = "  team: { model_chain: [anthropic/claude-opus-4-6, box/claude-opus-4-6] }\n"
    more: dict[str, Any] = {
        "thinking": {"type": "adaptive"},
        "metadata": {"user_id": "u-7"},
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    }

    async def story(world: World) -> None:
        asked = body("anthropic", "team", ASK, tools=True) | more
        first = await ask(world, "anthropic", "team", asked, stream=stream)
        assert first.headers["x-keyturn-provider"] == "anthropic"
        asked = followed("anthropic", asked, first)
        assert asked["messages"][1]["content"][0]["type"] == "thinking"
        again = await ask(world, "anthropic", "team", asked, stream=stream)
        relayed = json.loads(world.seen()[-1].body)
        assert relayed["messages"] == asked["messages"]
        assert "22 degrees" in said("anthropic", again)
        world.upstream.script.add(Fault(provider="anthropic", status=503))
        other = await ask(world, "anthropic", "team", asked, stream=stream)
        assert other.headers["x-keyturn-provider"] == "box", other.body
        sent = json.loads(world.seen()[-1].body)
        assert "sim-anthropic" not in json.dumps(sent)
        kept = [block for block in asked["messages"][1]["content"] if block["type"] != "thinking"]
        assert sent["messages"][1]["content"] == kept
        assert sent["messages"][2] == asked["messages"][2]
        assert sent["tools"] == asked["tools"]
        for name, value in more.items():
            assert sent[name] == value, name

    play(story, {"anthropic": 1, "box": 1}, roles=team, environ=BOX, personas=[BOXED])


@STREAMED
@pytest.mark.parametrize("dialect", ["openai_responses", "anthropic", "gemini"])
def test_encrypted_reasoning_stays_with_its_organisation(dialect: str, stream: bool) -> None:
    async def story(world: World) -> None:
        asked = body(dialect, "openai/gpt-5.1", ASK, tools=True) | thinking(dialect)
        first = await ask(world, dialect, "openai/gpt-5.1", asked, stream=stream)
        used = world.seen()[0].key
        asked = followed(dialect, asked, first)
        again = await ask(world, dialect, "openai/gpt-5.1", asked, stream=stream)
        while world.seen()[-1].key != used:
            again = await ask(world, dialect, "openai/gpt-5.1", asked, stream=stream)
        assert "22 degrees" in said(dialect, again)
        if dialect == "openai_responses":
            assert list(values(json.loads(world.seen()[-1].body), ("encrypted_content",)))
        world.upstream.script.add(Fault(key=used, error="invalid_key"))
        other = await ask(world, dialect, "openai/gpt-5.1", asked, stream=stream)
        assert "22 degrees" in said(dialect, other)
        assert world.seen()[-1].key != used
        assert not list(values(json.loads(world.seen()[-1].body), ("encrypted_content",)))
        assert {each.status for each in world.seen() if each.result == "refused"} == set()

    play(story, {"openai": 2})
