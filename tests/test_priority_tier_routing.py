"""Provider tiers decide who is asked: through real requests, counted by the upstreams."""

from __future__ import annotations

import pytest

from keyturn.core import Call, Caller
from keyturn.simulator import Fault, KeyRule

from .support.tiers import ASKED, GROUP, MODEL, asked, out, tiered
from .support.world import World

FOUR = {"openrouter": 1, "groq": 1, "gemini": 1, "g4f": 1}
AUTO = {"OPENROUTER_CHAT_MODEL": MODEL, "GROQ_CHAT_MODEL": MODEL, "GEMINI_CHAT_MODEL": MODEL}


async def order_of(world: World, name: str) -> list[str]:
    """Who is asked for *name* while nobody answers, in order."""
    before = len(world.seen())
    assert (await world.chat(name, timeout=2)).status >= 400  # it does not wait until somebody may be asked once more
    return asked(world)[before:]


# --- the order ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ASKED, MODEL])
def test_RTE_10_the_tiers_are_asked_in_their_order(name: str) -> None:
    async def story(world: World) -> None:
        assert await order_of(world, name) == ["openai", "groq", "gemini", "g4f"]

    tiered(story, out(error="rate_limited", wait=5), alone=True)


def test_RTE_10_the_same_tier_first_then_the_next() -> None:
    group = (
        f"equivalents:\n  - [groq/{MODEL}, openrouter/{MODEL}, gemini/{MODEL}, mistral/{MODEL}, {ASKED}, g4f/{MODEL}]\n"
    )

    async def story(world: World) -> None:
        wanted = ["openrouter", "groq", "gemini", "mistral", "openai", "g4f"]
        assert await order_of(world, f"openrouter/{MODEL}") == wanted

    pool = dict.fromkeys(("mistral", "gemini", "groq", "openrouter", "openai", "g4f"), 1)
    own = {"KEYTURN_EQUIVALENTS": "own"}
    tiered(story, out(error="rate_limited", wait=5), pool=pool, models=group, environ=own)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"PROVIDER_PRIORITY_GEMINI": "1"}, ["openai", "gemini", "groq", "g4f"]),
        ({"PROVIDER_PRIORITY_GOOGLE": "2", "PROVIDER_PRIORITY_GROQ": "3"}, ["openai", "gemini", "groq", "g4f"]),
        ({"PROVIDER_PRIORITY_GROQ": "10"}, ["openai", "gemini", "groq", "g4f"]),
        ({"PROVIDER_PRIORITY_G4F": "2"}, ["openai", "g4f", "groq", "gemini"]),
        ({"PROVIDER_PRIORITY_OPENAI": "4"}, ["openai", "groq", "gemini", "g4f"]),
        ({"PROVIDER_PRIORITY_GROQ": "11"}, ["openai", "groq", "gemini", "g4f"]),
    ],
    ids=["raised", "swapped", "last but g4f", "g4f on purpose", "asked by name", "out of range"],
)
def test_CFG_51_the_variable_moves_a_provider(variables: dict[str, str], wanted: list[str]) -> None:
    async def story(world: World) -> None:
        assert await order_of(world, ASKED) == wanted

    tiered(story, out(error="rate_limited", wait=5), environ=variables)


def test_CFG_51_a_bare_name_begins_with_the_first_tier_there_is() -> None:
    async def story(world: World) -> None:
        assert await order_of(world, MODEL) == ["groq", "gemini", "openai", "g4f"]

    tiered(story, out(error="rate_limited", wait=5), environ={"PROVIDER_PRIORITY_OPENAI": "4"}, alone=True)


def test_RTE_14_g4f_is_never_used_while_a_higher_tier_can_answer() -> None:
    async def story(world: World) -> None:
        for _ in range(30):
            assert (await world.chat(ASKED)).status == 200
        assert world.seen(provider="g4f") == []
        assert set(asked(world)) == {"openai", "groq", "gemini"}

    tiered(story, out("openai"), out("groq", error="rate_limited", times=1, wait=3))


def test_RTE_14_what_is_asked_of_g4f_by_name_goes_there_first() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(f"g4f/{MODEL}")
        assert answer.headers["x-keyturn-provider"] == "g4f"
        assert "x-fallback-provider" not in answer.headers
        assert asked(world) == ["g4f"]

    tiered(story)


# --- what tiers never do --------------------------------------------------------------------------------------------


def test_RTE_16_without_a_group_a_model_stays_with_its_provider() -> None:
    async def story(world: World) -> None:
        assert await order_of(world, ASKED) == ["openai", "openai"]  # the same key once more: nobody else is there

    tiered(story, out(), environ={"KEYTURN_EQUIVALENTS": "off"}, models="{}")


def test_RTE_16_the_shipped_groups_work_without_any_file() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED)
        assert (answer.headers["x-keyturn-provider"], answer.headers["x-keyturn-model"]) == ("g4f", MODEL)
        assert asked(world) == ["openai", "g4f"]  # groq and gemini have no such model

    tiered(story, out("openai"), models="{}", alone=True)


def test_RTE_16_the_other_provider_is_asked_by_its_own_name_of_the_model() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("groq/llama-3.3-70b-versatile")
        assert answer.headers["x-keyturn-model"] == "meta-llama/llama-3.3-70b-instruct"
        assert [each.model for each in world.seen()] == ["llama-3.3-70b-versatile", "meta-llama/llama-3.3-70b-instruct"]

    tiered(story, out("groq"), pool={"groq": 1, "openrouter": 1}, models="{}")


def test_RTE_21_a_written_chain_wins_over_tiers() -> None:
    async def story(world: World) -> None:
        assert await order_of(world, "mine") == ["gemini", "openai"]

    chain = f"aliases:\n  mine: [gemini/{MODEL}, {ASKED}]\n{GROUP}"
    tiered(story, out(error="rate_limited", wait=5), models=chain)


# --- calls that name no model ---------------------------------------------------------------------------------------


def test_RTE_08_openrouter_then_groq_then_gemini() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("auto")
        assert answer.headers["x-keyturn-model"] == "google/gemini-2.0-flash-exp:free"
        world.upstream.script.add(out(error="rate_limited", wait=5))
        assert await order_of(world, "auto") == ["openrouter", "groq", "gemini"]
        defaults = ["google/gemini-2.0-flash-exp:free", "llama3-8b-8192", "gemini-2.0-flash-exp"]
        assert [each.model for each in world.seen()][1:] == defaults

    tiered(story, pool=FOUR, models="{}")


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"G4F_CHAT_MODEL": MODEL}, ["openrouter", "groq", "gemini", "g4f"]),
        ({"PROVIDER_PRIORITY_GEMINI": "1"}, ["gemini", "openrouter", "groq"]),
        ({"PROVIDER_PRIORITY_OPENROUTER": "4", "G4F_CHAT_MODEL": MODEL}, ["groq", "gemini", "openrouter", "g4f"]),
    ],
    ids=["g4f with a model", "by tier", "all tiers"],
)
def test_CFG_20_defaults_follow_the_tiers(variables: dict[str, str], wanted: list[str]) -> None:
    async def story(world: World) -> None:
        assert await order_of(world, "auto") == wanted
        assert {each.model for each in world.seen()} == {MODEL}

    tiered(story, out(error="rate_limited", wait=5), pool=FOUR, environ={**AUTO, **variables}, models="{}")


def test_RTE_08_with_no_key_that_can_be_used_it_says_so_and_what_to_set() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("auto")
        assert (answer.status, answer.code) == (503, "no_valid_credentials")
        told = answer.json()["error"]["message"]
        assert told.startswith("All API keys exhausted across all providers: ")
        assert "OPENROUTER_API_KEY, GROQ_API_KEY, GEMINI_API_KEY" in told
        assert "OPENAI_CHAT_MODEL" in told
        assert world.seen() == []

    async def dead(world: World) -> None:
        answer = await world.chat("auto")
        assert (answer.status, answer.code) == (503, "no_valid_credentials")
        assert answer.json()["error"]["message"].startswith("All API keys exhausted across all providers: ")

    tiered(story, pool={"openai": 1}, environ={"G4F_MAIN_API_BASE": ""}, models="{}")
    tiered(dead, pool={name: [KeyRule(state="invalid_key")] for name in FOUR}, models="{}")


def test_CFG_20_a_default_that_is_gone_names_the_variable_to_set() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("auto")
        assert (answer.status, answer.headers["x-fallback-provider"]) == (200, "gemini")
        trail = world.gateway.recent.popitem()[1]
        assert trail.notes == [
            f"{name} has no {model}, its default model: set {name.upper()}_CHAT_MODEL to one that it has"
            for name, model in (("openrouter", "google/gemini-2.0-flash-exp:free"), ("groq", "llama3-8b-8192"))
        ]
        world.upstream.script.add(out(error="not_found"))
        answer = await world.chat("auto")
        assert (answer.status, answer.code) == (404, "model_not_found")
        assert "set GEMINI_CHAT_MODEL" in answer.json()["error"]["message"]

    gone = [out(name, error="not_found") for name in ("openrouter", "groq")]
    tiered(story, *gone, pool=FOUR, models="{}")


def test_RTE_08_embeddings_without_a_model() -> None:
    async def story(world: World) -> None:
        answer = await world.send("embeddings", {"model": "auto", "input": "a"})
        assert (answer.status, answer.headers["x-keyturn-model"]) == (200, "gemini-embedding-001")
        assert answer.headers["x-fallback-provider"] == "gemini"
        assert [(each.provider, each.kind) for each in world.seen()] == [
            ("openai", "embeddings"),
            ("gemini", "embeddings"),
        ]

    tiered(story, Fault(provider="openai", kind="embeddings", status=500), models="{}")


def test_RTE_08_an_image_without_a_model_goes_to_who_may_see() -> None:
    async def story(world: World) -> None:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        body = {"model": "auto", "messages": [{"role": "user", "content": [image]}]}
        assert (await world.send("chat", body)).headers["x-keyturn-provider"] == "gemini"
        assert asked(world) == ["gemini"]

    tiered(story, pool={"groq": 1, "gemini": 1}, models="{}")


def test_RTE_08_auto_is_listed_and_explained() -> None:
    async def story(world: World) -> None:
        told = await world.gateway.explain(Call("openai_chat", "chat", "auto", {}, 0), Caller())
        found = [[each["provider"] for each in step["deployments"]] for step in told["steps"]]
        assert found == [["openrouter", "groq"], ["gemini"]]
        row = (await world.gateway.models())[-1]
        assert (row.id, row.provider, len(row.behind)) == ("auto", "keyturn", 3)

    tiered(story, pool=FOUR, models="{}")


def test_RTE_16_who_stands_in_is_explained() -> None:
    async def story(world: World) -> None:
        told = await world.gateway.explain(Call("openai_chat", "chat", "groq/llama-3.3-70b-versatile", {}, 0), Caller())
        (step,) = told["steps"]
        found = [(each["provider"], each["provider_tier"], each["stands_in"]) for each in step["deployments"]]
        assert found == [("groq", 2, False), ("openrouter", 2, True)]

    tiered(story, pool=FOUR, models="{}")
