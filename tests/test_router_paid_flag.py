"""The paid gate: what is marked paid is passed over, never failed, and the trail says so; nothing paid is ever sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config
from keyturn.core import Trail
from keyturn.dispatch import read_call
from keyturn.errors import ConfigError
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import Answer, World

MODELS = """
provider_routes:
  - { id: opus, provider: openai, is_paid: true, tier: ultra }
  - { id: sonnet, provider: openai, is_paid: true, tier: budget }
  - { id: nano, provider: openrouter, is_paid: true, tier: cheap }
  - { id: mystery, provider: openrouter, is_paid: true }
  - { id: llama, provider: groq, is_paid: false, tier: free }
  - { id: plain, provider: groq }
  - { id: both, provider: openai, is_paid: true, tier: performance }
  - { id: both, provider: groq, is_paid: false, tier: free }
aliases:
  smart: [opus, sonnet, llama]
  dear: [opus, sonnet]
"""
ROLES = "roles: { senior_dev: { model_chain: [sonnet, nano, llama], budgets: { monthly_limit: 200 } } }\n"
POOL = {"openai": 1, "openrouter": 1, "groq": 1}
SHUT: list[dict[str, str]] = [
    {},
    {"USE_PAID_MODELS": ""},
    {"USE_PAID_MODELS": "false"},
    {"USE_PAID_MODELS": "0"},
    {"USE_PAID_MODELS": "no"},
    {"USE_PAID_MODELS": "FALSE"},
    {"USE_PAID_MODELS": "Off"},
    {"USE_PAID_MODELS": "true", "FREE_ONLY_MODE": "true"},
]
OPEN = [{"USE_PAID_MODELS": word} for word in ("true", "1", "yes", "TRUE", "on")]
Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, environ: dict[str, str], models: str = MODELS, **options: Any) -> None:
    files = {"models.yaml": models, "roles.yaml": ROLES} | options.pop("files", {})

    async def main() -> None:
        async with World(options.pop("pool", POOL), files=files, environ=environ, **options) as world:
            await story(world)

    virtual.run(main)


def trail(world: World, answer: Answer) -> Trail:
    return world.gateway.recent[answer.headers["x-keyturn-call"]]


def models_seen(world: World) -> list[str]:
    return [each.model for each in world.seen()]


@pytest.mark.parametrize("environ", SHUT, ids=str)
def test_TST_03_paid_items_of_a_chain_are_skipped_and_the_trail_says_why(environ: dict[str, str]) -> None:
    async def story(world: World) -> None:
        answer = await world.chat("smart")
        assert (answer.status, answer.headers["x-keyturn-model"]) == (200, "llama")
        assert (answer.headers["x-keyturn-attempts"], answer.headers["x-fallback-provider"]) == ("1", "groq")
        assert models_seen(world) == ["llama"]
        assert trail(world, answer).refusals == [
            "openai/opus: is marked paid, and USE_PAID_MODELS is false",
            "openai/sonnet: is marked paid, and USE_PAID_MODELS is false",
        ]
        assert (await world.chat("senior_dev")).headers["x-keyturn-model"] == "llama"

    play(story, environ)


@pytest.mark.parametrize("environ", OPEN, ids=str)
def test_RTE_04_with_the_gate_open_the_chain_begins_with_its_first(environ: dict[str, str]) -> None:
    async def story(world: World) -> None:
        answer = await world.chat("smart")
        assert (answer.status, answer.headers["x-keyturn-model"]) == (200, "opus")
        assert "x-fallback-provider" not in answer.headers
        assert trail(world, answer).refusals == []

    play(story, environ)


@pytest.mark.parametrize("environ", SHUT, ids=str)
def test_CFG_14_a_direct_call_of_a_paid_model_is_refused_as_such(environ: dict[str, str]) -> None:
    """In the seed's code unset meant true; here it means false, as its README said (design §5.14)."""

    async def story(world: World) -> None:
        for name in ("opus", "openai/opus", "dear"):
            answer = await world.chat(name)
            assert (answer.status, answer.code) == (400, "paid_route")
            assert "USE_PAID_MODELS" in answer.json()["error"]["message"]
        assert world.seen() == []

    play(story, environ)


def test_CFG_14_a_word_that_is_no_switch_is_a_mistake_and_opens_nothing() -> None:
    with pytest.raises(ConfigError, match="USE_PAID_MODELS"):
        play(lambda world: pytest.fail("it began"), {"USE_PAID_MODELS": "maybe"})


def test_CFG_14_settings_toml_may_open_the_gate_and_the_environment_shuts_it() -> None:
    files = {"settings.toml": "[providers]\nuse_paid_models = true\n"}

    async def opened(world: World) -> None:
        assert (await world.chat("opus")).status == 200

    async def shut(world: World) -> None:
        assert (await world.chat("opus")).code == "paid_route"

    play(opened, {}, files=files)
    play(shut, {"USE_PAID_MODELS": "false"}, files=files)


@pytest.mark.parametrize(
    ("environ", "answering"),
    [
        ({"ALLOWED_MODEL_TIERS": "free,budget", "USE_PAID_MODELS": "true"}, "sonnet"),
        ({"ALLOWED_MODEL_TIERS": "budget, ULTRA", "USE_PAID_MODELS": "true"}, "opus"),
        ({"ALLOWED_MODEL_TIERS": "free", "USE_PAID_MODELS": "true"}, "llama"),
        ({"ALLOWED_MODEL_TIERS": "free,budget"}, "llama"),
        ({"ALLOWED_MODEL_TIERS": "", "USE_PAID_MODELS": "true"}, "opus"),
    ],
    ids=str,
)
def test_CFG_15_price_tiers_refine_the_gate(environ: dict[str, str], answering: str) -> None:
    """In the seed's source the list overrode USE_PAID_MODELS; here it refines it (design §5.14)."""

    async def story(world: World) -> None:
        answer = await world.chat("smart")
        assert (answer.status, answer.headers["x-keyturn-model"]) == (200, answering)
        assert models_seen(world) == [answering]

    play(story, environ)


def test_CFG_15_a_paid_model_without_a_price_tier_is_in_none_and_the_refusal_names_what_is_allowed() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("mystery")
        assert (answer.status, answer.code) == (400, "paid_route")
        message = answer.json()["error"]["message"]
        assert "it is paid and has no price tier" in message
        assert "cheap, free" in message
        assert (await world.chat("nano")).status == 200
        assert (await world.chat("plain")).status == 200
        assert models_seen(world) == ["nano", "plain"]

    play(story, {"ALLOWED_MODEL_TIERS": "free,cheap", "USE_PAID_MODELS": "true"})


def test_CFG_15_what_counts_as_free_is_left_out_too_when_free_is_not_allowed() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("plain")).code == "paid_route"
        assert (await world.chat("sonnet")).status == 200

    play(story, {"ALLOWED_MODEL_TIERS": "budget", "USE_PAID_MODELS": "true"})


@pytest.mark.parametrize("name", ["plain", "groq/never-heard-of", "openai/gpt-4o", "openrouter/openai/gpt-4o"])
def test_RTE_04_what_is_not_marked_counts_as_free(name: str) -> None:
    async def story(world: World) -> None:
        assert (await world.chat(name)).status == 200

    play(story, {})


def test_RTE_04_one_id_at_a_paid_and_a_free_provider_is_answered_by_the_free_one() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("both")
        assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "groq")
        assert [each.provider for each in world.seen()] == ["groq"]

    play(story, {})


def test_RTE_04_a_failover_does_not_get_past_the_gate() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("chain")
        assert (answer.status, answer.code) == (502, "bad_upstream")
        assert {each.provider for each in world.seen()} == {"groq"}

    models = MODELS + "  chain: [llama, sonnet, opus, nano]\n"
    play(story, {}, models, faults=[Fault(provider="groq", status=503)])


GOOGLE = "providers: {{ google_ai_studio: {{ kind: http }} }}\nprovider_routes:\n{routes}"


def test_RTE_04_google_ai_studio_is_free_unless_its_route_says_otherwise() -> None:
    routes = (
        "  - { id: gemini-2.5-flash, provider: google_ai_studio }\n"
        "  - { id: gemini-2.5-pro, provider: google_ai_studio, is_paid: true, tier: performance }\n"
    )

    async def story(world: World) -> None:
        assert (await world.chat("gemini-2.5-flash")).status == 200
        assert (await world.chat("gemini/gemini-2.5-flash-lite")).status == 200
        assert (await world.chat("google_ai_studio/gemini-2.5-pro")).code == "paid_route"

    play(story, {}, GOOGLE.format(routes=routes), pool={"gemini": 1}, files={"roles.yaml": "roles: {}\n"})


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has the programs of the tools. They are never run here."""
    for name in ("claude", "codex"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
    return {"PATH": str(tmp_path)}


TOOLS = """
providers:
  claude_code: { kind: cli, cmd: ["claude", "--model", "${MODEL}"] }
  codex_cli: { kind: cli, cmd: ["codex", "chat", "--model", "${MODEL}", "--stdin"] }
provider_routes:
  - { id: gpt-5-codex, provider: codex_cli, is_paid: true, tier: performance }
aliases:
  coder: [gpt-5-codex, claude_code/sonnet, plain]
  plain: [groq/llama]
"""


async def explained(world: World, name: str) -> dict[str, Any]:
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    return await world.gateway.explain(read_call("chat", body, {}), world.gateway.config.default_caller)


def test_RTE_04_command_line_tools_are_free_unless_their_route_says_otherwise(on_path: dict[str, str]) -> None:
    async def story(world: World) -> None:
        told = await explained(world, "coder")
        asked = [each["provider"] for step in told["steps"] for each in step["deployments"]]
        assert asked == ["claude_code", "groq"]
        assert told["refusals"] == ["codex_cli/gpt-5-codex: is marked paid, and USE_PAID_MODELS is false"]
        assert (await explained(world, "codex_cli/another"))["error"] is None

    play(story, on_path, TOOLS, pool={"groq": 1}, files={"roles.yaml": "roles: {}\n"})


def test_RTE_04_the_list_of_models_holds_none_that_the_gate_keeps_away() -> None:
    async def story(world: World) -> None:
        names = {row.id for row in await world.gateway.models()}
        assert {"llama", "plain", "smart", "both", "senior_dev"} <= names
        assert not {"opus", "sonnet", "nano", "mystery", "dear", "openai/opus"} & names

    play(story, {})


def test_RTE_04_the_gate_moves_with_the_configuration() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("opus")).code == "paid_route"
        world.environ["USE_PAID_MODELS"] = "true"
        changed: Config = world.config()
        world.gateway.adopt(changed)
        assert (await world.chat("opus")).status == 200

    play(story, {})
