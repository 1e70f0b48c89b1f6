"""Roles, aliases and routes through the gateway: who is asked, in which order, who is passed over, and what is told."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from keyturn.core import Redactor
from keyturn.errors import ConfigError
from keyturn.simulator import Fault, KeyRule
from keyturn.telemetry.logs import Lines
from tests.support import virtual
from tests.support.world import Answer, World

MODELS = """
providers:
  google_ai_studio:
    kind: http
    base_url: https://generativelanguage.googleapis.com
    api_keys: [${GOOGLE_API_KEY_1}, ${GOOGLE_API_KEY_2}, ${GOOGLE_API_KEY_3}, ${GOOGLE_API_KEY_4}, ${GOOGLE_API_KEY_5}]
    rotation: { strategy: round_robin, cooldown_seconds: 60 }
  openrouter: { kind: http, base_url: https://openrouter.ai/api/v1, env_key: OPENROUTER_API_KEY }
provider_routes:
  - { id: gemini-2.5-pro, provider: google_ai_studio }
  - { id: "deepseek/deepseek-r1-0528:free", provider: openrouter, is_paid: false, tier: free }
  - { id: "z-ai/glm-4.5-air:free", provider: openrouter, is_paid: false, tier: free }
  - { id: same, provider: groq }
  - { id: same, provider: mistral }
aliases:
  quick: same
  either: [same, gemini-2.5-pro]
  deep: [quick, either]
"""
ROLES = """
roles:
  senior_dev:
    name: Senior developer
    description: hard changes
    model_chain: [gemini-2.5-pro, "deepseek/deepseek-r1-0528:free", "z-ai/glm-4.5-air:free"]
    providers: [google_ai_studio, openrouter]
    budgets: { monthly_limit: 200, current_usage: 0 }
  junior_dev:
    name: Junior developer
    description: small changes
    model: same
    providers: [mistral, groq]
  free_choice:
    model_chain: [gemini-2.5-pro, same]
"""
R1, GLM = "deepseek/deepseek-r1-0528:free", "z-ai/glm-4.5-air:free"
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
POOL = {"gemini": 2, "openrouter": 1, "groq": 1, "mistral": 1}
Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, pool: dict[str, Any], *, models: str = MODELS, roles: str = ROLES, **options: Any) -> None:
    async def main() -> None:
        async with World(pool, files={"models.yaml": models, "roles.yaml": roles}, **options) as world:
            await story(world)

    virtual.run(main)


def asked(world: World) -> list[tuple[str, str]]:
    """What the upstreams saw: provider and model, in order."""
    return [(each.provider, each.model) for each in world.seen()]


def refusals(world: World, answer: Answer) -> list[str]:
    return world.gateway.recent[answer.headers["x-keyturn-call"]].refusals


def down(*names: str) -> list[Fault]:
    """These providers or models are overloaded: no other key is a remedy."""
    return [
        Fault(provider="" if "-" in name else name, model=name if "-" in name else "", status=503) for name in names
    ]


async def see(world: World, name: str, text: str = "What is it?", **members: Any) -> Answer:
    """A call with an image."""
    content = [{"type": "text", "text": text}, PIXEL]
    return await world.send("chat", {"model": name, "messages": [{"role": "user", "content": content}], **members})


def test_RTE_01_a_role_asks_its_first_model_at_its_first_provider() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev")
        assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "gemini")
        assert answer.headers["x-keyturn-model"] == "gemini-2.5-pro"
        assert "x-fallback-provider" not in answer.headers

    play(story, POOL)


def test_RTE_01_the_providers_of_a_role_are_asked_in_its_order_not_in_that_of_the_routes() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("junior_dev")
        assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "groq")
        assert asked(world) == [("mistral", "same"), ("groq", "same")]
        assert "x-fallback-provider" not in answer.headers, "the same step answered, only another of its providers"
        assert (await world.chat("same")).headers["x-keyturn-provider"] == "groq"

    play(story, POOL, faults=down("mistral"))


def test_RTE_02_an_explicit_id_is_looked_up_in_the_provider_routes() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(R1)
        assert (answer.headers["x-keyturn-provider"], answer.headers["x-keyturn-model"]) == ("openrouter", R1)
        answer = await world.chat("gemini-2.5-pro")
        assert answer.headers["x-keyturn-provider"] == "gemini"
        assert asked(world) == [("openrouter", R1), ("gemini", "gemini-2.5-pro")]

    play(story, POOL)


def test_RTE_02_an_id_at_two_providers_goes_on_to_the_second() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("same")).headers["x-keyturn-provider"] == "mistral"
        assert asked(world) == [("groq", "same"), ("mistral", "same")]

    play(story, POOL, faults=down("groq"))


def test_RTE_02_provider_and_model_names_one_and_nothing_else_answers() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("groq/same")
        assert (answer.status, answer.code) == (502, "bad_upstream")
        assert {provider for provider, _ in asked(world)} == {"groq"}

    play(story, POOL, faults=down("groq"))


@pytest.mark.parametrize("stream", [False, True])
def test_RTE_03_the_chain_is_tried_until_one_gives_an_answer_that_is_not_empty(stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev", stream=stream)
        assert (answer.status, answer.headers["x-keyturn-model"]) == (200, GLM)
        assert "You said: Hello" in answer.text
        assert answer.headers["x-fallback-provider"] == "openrouter"
        assert [model for _, model in asked(world)] == ["gemini-2.5-pro", "gemini-2.5-pro", R1, GLM]

    empty = frozenset({"empty"})
    play(story, POOL, faults=[Fault(provider="gemini", quirks=empty), Fault(model=R1, quirks=empty)])


def test_RTE_03_when_the_whole_chain_fails_every_attempt_is_told() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev")
        assert (answer.status, answer.code) == (502, "bad_upstream")
        told = answer.json()["error"]["keyturn"]["attempts"]
        assert [each["model"] for each in told] == ["gemini-2.5-pro", R1, GLM]
        assert {each["meaning"] for each in told} == {"overloaded"}

    play(story, POOL, faults=down("gemini", "openrouter"))


def test_a_chain_without_providers_takes_route_ids() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("free_choice")
        assert (answer.headers["x-keyturn-provider"], answer.headers["x-fallback-provider"]) == ("mistral", "mistral")
        assert [provider for provider, _ in asked(world)] == ["gemini", "groq", "mistral"]

    play(story, POOL, faults=down("gemini", "groq"))


@pytest.mark.parametrize(("alias", "order"), [("quick", "groq mistral"), ("either", "groq mistral gemini")])
def test_an_alias_stands_for_a_name_or_a_chain(alias: str, order: str) -> None:
    async def story(world: World) -> None:
        assert (await world.chat(alias)).status == 502
        assert [provider for provider, _ in asked(world)] == order.split()

    play(story, POOL, faults=down("gemini", "groq", "mistral"))


def test_aliases_within_aliases_ask_each_deployment_once() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("deep")).status == 502
        assert [provider for provider, _ in asked(world)] == ["groq", "mistral", "gemini"]

    play(story, POOL, faults=down("gemini", "groq", "mistral"))


def test_a_circle_of_aliases_is_a_mistake_that_is_told_with_its_way_round() -> None:
    circle = MODELS + "  one: [two]\n  two: [same, three]\n  three: one\n"

    with pytest.raises(ConfigError, match="one → two → three → one"):
        play(lambda world: pytest.fail("it began"), POOL, models=circle)


def test_an_unknown_name_is_told_the_nearest_role_or_alias() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dve")
        assert (answer.status, answer.code) == (404, "model_not_found")
        assert "senior_dev" in answer.json()["error"]["message"]

    play(story, POOL)


def test_RTE_05_a_provider_that_cannot_be_used_is_passed_over_with_the_reason() -> None:
    """No key, keys that their owner switched off, a tool whose program is not there."""
    models = MODELS + "  all: [claude_code/sonnet, together/some-model, groq/same, mistral/same]\n"
    models = models.replace("providers:\n", "providers:\n  claude_code: { kind: cli }\n  together: { kind: http }\n", 1)

    async def story(world: World) -> None:
        world.gateway.disable("groq")
        answer = await world.chat("all")
        assert (answer.status, answer.headers["x-fallback-provider"]) == (200, "mistral")
        assert answer.headers["x-keyturn-attempts"] == "1"
        tool, keyless, off = refusals(world, answer)
        assert "claude is not on the PATH" in tool
        assert keyless == "together/some-model: no key, set TOGETHER_API_KEY"
        assert "keyturn keys enable groq" in off
        world.gateway.enable("groq")
        assert (await world.chat("all")).headers["x-keyturn-provider"] == "groq"

    play(story, POOL, models=models, environ={"PATH": "/nonexistent"})


def test_RTE_06_each_call_is_a_line_of_provider_model_and_latency() -> None:
    async def story(world: World) -> None:
        lines = Lines(Redactor([]))
        said: list[str] = []
        world.gateway.events.subscribe(lambda event: said.append(lines.line(event, world.clock.wall())))
        await world.chat("senior_dev")
        line = said[-1]
        assert " senior_dev 200 " in line
        first, second = line.split(" | ")[1:]
        assert first.startswith("gemini → gemini-2.5-pro → gemini-")
        assert "→ overloaded 503 → 250 ms" in first
        assert second.startswith(f"openrouter → {R1} → openrouter-1:")
        assert second.endswith("→ ok → 1500 ms")

    faults = [Fault(provider="gemini", status=503, latency=0.25), Fault(provider="openrouter", latency=1.5)]
    play(story, POOL, faults=faults)


@pytest.mark.parametrize("stream", [False, True])
def test_RTE_07_the_usage_that_the_provider_told_is_recorded(stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev", stream=stream, text="word " * 50)
        (attempt,) = world.gateway.recent[answer.headers["x-keyturn-call"]].attempts
        (exchange,) = world.seen()
        assert attempt.usage is not None
        assert (attempt.usage.input, attempt.usage.output) == (exchange.input_tokens, exchange.output_tokens)
        assert attempt.usage.exact

    play(story, POOL)


def test_RTE_07_usage_that_nobody_told_is_estimated_and_marked_as_such() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev", stream=True, text="word " * 400)
        (attempt,) = world.gateway.recent[answer.headers["x-keyturn-call"]].attempts
        assert attempt.usage is not None
        assert not attempt.usage.exact
        assert 300 <= attempt.usage.input <= 800

    play(story, POOL, faults=[Fault(quirks=frozenset({"no_usage"}))])


def test_ERR_09_a_429_moves_to_the_next_google_key_and_the_chain_stays() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev")
        assert (answer.headers["x-keyturn-provider"], answer.headers["x-keyturn-attempts"]) == ("gemini", "2")
        assert "x-fallback-provider" not in answer.headers
        assert [each.key for each in world.seen()] == ["gemini-secret-key-1", "gemini-secret-key-2"]

    play(story, POOL, faults=[Fault(key="gemini-secret-key-1", error="rate_limited")])


@pytest.mark.parametrize(
    ("fault", "at_gemini"),
    [
        (Fault(provider="gemini", status=503), 1),
        (Fault(provider="gemini", status=500), 2),
        (Fault(provider="gemini", does="reset"), 2),
        (Fault(provider="gemini", quirks=frozenset({"html"})), 2),
        (Fault(provider="gemini", error="not_found"), 1),
        (Fault(provider="gemini", error="invalid_key"), 2),
        (Fault(provider="gemini", error="rate_limited"), 2),
    ],
    ids=["503", "500", "network", "parse", "404", "401", "429 of every key"],
)
def test_ERR_09_other_errors_go_to_the_next_of_the_chain_at_once(fault: Fault, at_gemini: int) -> None:
    """What another key may remedy is tried there first, twice at most (design §5.4); nothing sleeps."""

    async def story(world: World) -> None:
        answer = await world.chat("senior_dev")
        assert (answer.status, answer.headers["x-fallback-provider"]) == (200, "openrouter")
        assert [provider for provider, _ in asked(world)] == ["gemini"] * at_gemini + ["openrouter"]
        assert world.clock.mono() == virtual.START_MONO

    play(story, POOL, faults=[fault])


def test_what_was_not_even_asked_is_told_with_the_reason() -> None:
    """A resting deployment, and one that lately had no such model: the trail of the next call names both."""

    async def story(world: World) -> None:
        await world.chat("senior_dev")
        answer = await world.chat("senior_dev")
        assert (answer.headers["x-keyturn-model"], answer.headers["x-keyturn-attempts"]) == (GLM, "1")
        absent, resting = refusals(world, answer)
        assert absent == f"openrouter/{R1}: lately its provider had no such model"
        assert resting.startswith("gemini/gemini-2.5-pro: every key rests after a fault; one is free again in 2.")

    play(story, POOL, faults=[*down("gemini"), Fault(model=R1, error="not_found")])


def test_ERR_09_a_clients_mistake_goes_nowhere_else() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("senior_dev")).status == 400
        assert asked(world) == [("gemini", "gemini-2.5-pro")]

    play(story, POOL, faults=[Fault(provider="gemini", error="bad_request")])


def test_CRD_01_any_number_of_keys_of_several_providers_stand_behind_one_role() -> None:
    async def story(world: World) -> None:
        answers = [await world.chat("senior_dev") for _ in range(13)]
        assert {answer.status for answer in answers} == {200}
        assert len({each.key for each in world.seen(status=200)}) == 12 + 1

    pool = {"gemini": [KeyRule(state="rate_limited")] * 2, "openrouter": [KeyRule(rpm=1) for _ in range(13)]}
    environ = {"ROTATION_MODE_OPENROUTER": "balanced"}
    play(story, pool, environ=environ)


def test_CRD_02_only_the_first_google_key_is_enough_for_a_chain() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev")
        assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "gemini")
        assert answer.headers["x-keyturn-key"].startswith("gemini-1:")
        assert refusals(world, answer) == [
            f"openrouter/{R1}: no key, set OPENROUTER_API_KEY",
            f"openrouter/{GLM}: no key, set OPENROUTER_API_KEY",
        ]

    blanks = {f"GOOGLE_API_KEY_{number}": "" for number in range(2, 6)} | {"OPENROUTER_API_KEY": " "}
    environ = {"GOOGLE_API_KEY_1": "gemini-secret-key-1", "GEMINI_API_KEY_1": ""} | blanks
    play(story, {"gemini": 1}, environ=environ)


def test_CRD_03_one_provider_without_a_key_does_not_break_the_others() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev")
        assert (answer.status, answer.headers["x-fallback-provider"]) == (200, "openrouter")
        assert refusals(world, answer) == ["gemini/gemini-2.5-pro: no key, set GOOGLE_API_KEY_1"]

    play(story, {"openrouter": 1})


@pytest.mark.parametrize("pool", [{}, {"groq": 1}], ids=["no key at all", "another provider's key"])
def test_a_chain_without_any_key_names_every_variable_to_set(pool: dict[str, int]) -> None:
    async def story(world: World) -> None:
        answer = await world.chat("senior_dev")
        assert (answer.status, answer.code) == (503, "no_valid_credentials")
        assert answer.headers["x-should-retry"] == "false"
        message = answer.json()["error"]["message"]
        assert "GOOGLE_API_KEY_1" in message
        assert "OPENROUTER_API_KEY" in message
        assert world.seen() == []

    play(story, pool)


CAPABLE = """
provider_routes:
  - { id: sees, provider: openai, capabilities: { streaming: true, vision: true, tools: true } }
  - { id: blind, provider: groq, capabilities: { streaming: true, vision: false, tools: true } }
  - { id: unsaid, provider: groq, capabilities: { tools: true } }
  - { id: looks, provider: mistral, capabilities: { streaming: false, vision: true, tools: false } }
  - { id: short, provider: groq, context_length: 2000 }
  - { id: long, provider: mistral, context_length: 100000 }
aliases:
  pictures: [sees, blind, unsaid, looks]
  blind_first: [blind, looks]
  all_blind: [blind, unsaid]
  books: [short, long]
"""
CAPABLE_POOL = {"openai": 2, "groq": 2, "mistral": 2}


def gated(story: Story, **options: Any) -> None:
    play(story, CAPABLE_POOL, models=CAPABLE, roles="roles: {}\n", **options)


def test_an_image_never_goes_to_a_route_without_vision_and_not_through_a_failover_either() -> None:
    async def story(world: World) -> None:
        answer = await see(world, "pictures")
        assert (answer.status, answer.headers["x-keyturn-model"]) == (200, "looks")
        assert refusals(world, answer) == ["groq/blind: has no vision", "groq/unsaid: has no vision"]
        assert asked(world) == [("openai", "sees"), ("mistral", "looks")]
        assert (await world.chat("pictures")).headers["x-keyturn-model"] == "blind", "words may go there"

    gated(story, faults=down("openai"))


def test_an_image_for_a_chain_that_begins_blind_is_answered_by_the_first_that_sees() -> None:
    async def story(world: World) -> None:
        answer = await see(world, "blind_first")
        assert (answer.status, answer.headers["x-fallback-provider"]) == (200, "mistral")
        assert (await world.chat("blind_first")).headers["x-keyturn-model"] == "blind"

    gated(story)


@pytest.mark.parametrize("name", ["blind", "unsaid", "all_blind", "groq/blind"])
def test_an_image_that_nobody_behind_a_name_sees_is_refused_and_sent_nowhere(name: str) -> None:
    async def story(world: World) -> None:
        answer = await see(world, name)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "has no vision" in answer.json()["error"]["message"]
        assert world.seen() == []

    gated(story)


def test_tools_go_to_who_can_call_them() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}

    async def story(world: World) -> None:
        answer = await world.chat("looks", tools=[tool])
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "has no tools" in answer.json()["error"]["message"]
        answer = await see(world, "pictures", tools=[tool])
        assert (answer.status, answer.headers["x-keyturn-model"]) == (200, "sees")
        assert "mistral/looks: has no tools" in refusals(world, answer)

    gated(story)


def test_who_does_not_stream_is_not_asked_to() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("looks")).status == 200
        answer = await world.chat("looks", stream=True)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "does not stream" in answer.json()["error"]["message"]

    gated(story)


def test_what_is_too_long_for_one_goes_to_one_where_it_fits() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("books")).headers["x-keyturn-model"] == "short"
        answer = await world.chat("books", text="word " * 4000)
        assert (answer.status, answer.headers["x-fallback-provider"]) == (200, "mistral")
        (refusal,) = refusals(world, answer)
        assert refusal.startswith("groq/short: its context of 2000 tokens is too short for about 50")
        assert (await world.chat("short", text="word " * 4000)).status == 200, "asked for alone, its provider decides"

    gated(story)


PRICED = """
provider_routes:
  - { id: same, provider: openai }
  - { id: same, provider: groq, price: { input: 5, output: 10 } }
  - { id: same, provider: mistral, price: { input: 1, output: 2 } }
  - { id: same, provider: openrouter, price: { input: 2, output: 4 } }
aliases:
  in_order: same
  cheap: { chain: [same], providers: [openai, groq, mistral, openrouter], strategy: cheapest }
  quick: { chain: [same], providers: [groq, mistral, openrouter], strategy: fastest }
"""
PRICED_POOL = {"openai": 1, "groq": 1, "mistral": 1, "openrouter": 1}


def priced(story: Story, **options: Any) -> None:
    play(story, PRICED_POOL, models=PRICED, roles="roles: {}\n", **options)


def test_cheapest_asks_by_price_and_an_unknown_price_comes_last() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("cheap")).headers["x-keyturn-provider"] == "mistral"
        assert (await world.chat("in_order")).headers["x-keyturn-provider"] == "openai"
        for fault in down("mistral", "openrouter", "groq"):
            world.upstream.script.add(fault)
        answer = await world.chat("cheap")
        assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "openai")
        assert [each.provider for each in world.seen()][2:] == ["mistral", "openrouter", "groq", "openai"]

    priced(story)


def test_fastest_asks_who_began_to_answer_soonest_once_each_was_measured() -> None:
    async def story(world: World) -> None:
        told = [(await world.chat("quick")).headers["x-keyturn-provider"] for _ in range(8)]
        assert sorted(told[:3]) == ["groq", "mistral", "openrouter"]
        assert told[3:] == ["mistral"] * 5
        world.upstream.script.clear()
        world.upstream.script.add(Fault(provider="mistral", latency=9.0))
        await world.chat("quick")
        assert (await world.chat("quick")).headers["x-keyturn-provider"] == "openrouter", "it has become slow"

    latencies = {"groq": 3.0, "mistral": 0.2, "openrouter": 1.0}
    priced(story, faults=[Fault(provider=name, latency=seconds) for name, seconds in latencies.items()])
