"""What a review of tiers and modes found: ways round the gates and caps, and what `explain` and the lists said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.core import Caller, Deployment
from keyturn.dispatch import read_call
from keyturn.simulator import KeyRule
from tests.support import virtual
from tests.support.world import World

PAID = "provider_routes:\n  - { id: dear, provider: openai, model: gpt-4o, is_paid: true }\n"
DEAR = "provider_routes:\n  - { id: dear, provider: openrouter, model: openai/gpt-oss-120b, is_paid: true }\n"


async def answered(world: World, *names: str, **more: Any) -> list[int]:
    return [(await world.chat(name, timeout=1, **more)).status for name in names]


async def later(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


async def told_keys(world: World, model: str) -> list[str]:
    call = read_call("chat", json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode(), {})
    told = await world.gateway.explain(call, Caller())
    return [row["key"].partition(":")[0] for row in told["steps"][0]["deployments"][0]["candidates"]]


# --- the paid gate --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disabled", [False, True])
def test_RTE_16_a_paid_model_is_not_bought_elsewhere_by_another_spelling_or_without_its_keys(disabled: bool) -> None:
    async def main() -> None:
        async with World({"openai": 1, "openrouter": 1}, files={"models.yaml": PAID}) as world:
            if disabled:
                world.gateway.disable("openai")
            names = ("openai/gpt-4o", "openai/GPT-4o", "gpt-4o", "GPT-4o")
            assert await answered(world, *names) == [400] * 4
            assert world.seen() == []

    virtual.run(main)


def test_RTE_16_that_a_default_sees_no_images_does_not_make_it_free() -> None:
    async def main() -> None:
        environ = {"GROQ_CHAT_MODEL": "openai/gpt-oss-120b"}
        async with World({"groq": 1, "openrouter": 1}, files={"models.yaml": DEAR}, environ=environ) as world:
            assert await answered(world, "openrouter/openai/gpt-oss-120b") == [400]

    virtual.run(main)


# --- lists of models and caps ---------------------------------------------------------------------------------------


def test_CFG_40_a_variant_is_no_way_round_a_list_of_models() -> None:
    async def main() -> None:
        environ = {"IGNORE_MODELS_OPENROUTER": "openai/gpt-4o,openai/o1", "WHITELIST_MODELS_OPENROUTER": "*o1:online"}
        async with World({"openrouter": 1}, environ=environ) as world:
            left_out = ("gpt-4o", "gpt-4o:nitro", "GPT-4o:Online", "gpt-4o:online:nitro", "o1:nitro")
            assert await answered(world, *(f"openrouter/openai/{name}" for name in left_out)) == [404] * 5
            let_through = ("openrouter/openai/gpt-4o:free", "openrouter/openai/o1:online")
            assert await answered(world, *let_through) == [200, 200]

    virtual.run(main)


def test_RTE_18_a_variant_needs_the_key_priority_of_its_model() -> None:
    async def main() -> None:
        environ = {"KEY_PRIORITY_FOR_OPENROUTER": "openai/gpt-4o:1", "KEY_PRIORITIES_OPENROUTER": "1:2"}
        async with World({"openrouter": 1}, environ=environ) as world:
            names = ("openai/gpt-4o", "openai/gpt-4o:nitro", "OpenAI/gpt-4o:floor", "openai/gpt-4o:free")
            assert await answered(world, *(f"openrouter/{name}" for name in names)) == [404, 404, 404, 200]

    virtual.run(main)


@pytest.mark.parametrize("written", ["gemini/{}", "google_ai_studio/{}", "models/{}", "Google-AI-Studio/models/{}"])
def test_CFG_40_and_CFG_39_a_model_may_be_written_under_any_name_of_its_provider(written: str) -> None:
    environ = {
        "CUSTOM_CAP_GEMINI": f"model={written.format('gemini-2.5-flash')} requests=1/day",
        "IGNORE_MODELS_GEMINI": written.format("gemini-2.5-pro"),
        "KEY_PRIORITY_FOR_GEMINI": f"{written.format('gemini-3*')}:1",
        "KEY_PRIORITIES_GEMINI": "1:2",
        "QUOTA_GROUPS_GEMINI_LITE": f"{written.format('gemini-2.5-flash')},{written.format('gemini-2.5-flash-lite')}",
    }

    async def main() -> None:
        async with World({"gemini": 1}, environ=environ) as world:
            assert await answered(world, "gemini/gemini-2.5-pro", "gemini/gemini-3-flash") == [404, 404]
            assert await answered(world, *["gemini/gemini-2.5-flash"] * 2) == [200, 429]
            limits = world.gateway.keys()[0]["limits"]
            assert "gemini-2.5-flash-lite" in str(limits)  # they are counted together

    virtual.run(main)


def test_LIM_12_two_caps_of_the_same_models_and_keys_both_hold() -> None:
    async def main() -> None:
        environ = {"CUSTOM_CAP_GROQ": "requests=2/day cooldown=2d; tokens=1000000/minute; requests=4/hour"}
        async with World({"groq": 1}, environ=environ) as world:
            assert await answered(world, *["groq/llama-3.1-8b-instant"] * 3) == [200, 200, 429]
            limits = world.gateway.keys()[0]["limits"]
            assert isinstance(limits, list)
            told = sorted((row["metric"], row["window"], row["used"]) for row in limits if row["metric"] == "requests")
            assert told == [("requests", "day", 2), ("requests", "hour", 2)]

    virtual.run(main)


def test_LIM_12_a_variant_or_another_spelling_is_no_way_round_a_cap() -> None:
    async def main() -> None:
        async with World({"openrouter": 1}, environ={"CUSTOM_CAP_OPENROUTER": "model=a/b requests=1/day"}) as world:
            names = ("a/b", "a/b:nitro", "A/B", "a/B:online:floor")
            assert await answered(world, *(f"openrouter/{name}" for name in names)) == [200, 429, 429, 429]
            assert await answered(world, "openrouter/a/b:free") == [200]

    virtual.run(main)


def test_LIM_12_what_is_counted_together_rests_together_at_a_cap() -> None:
    flash, lite = "gemini/gemini-2.5-flash", "gemini/gemini-2.5-flash-lite"

    async def models() -> None:
        environ = {
            "CUSTOM_CAP_GEMINI": "requests=2/minute cooldown=1h",
            "QUOTA_GROUPS_GEMINI_FLASH": "gemini-2.5-flash,gemini-2.5-flash-lite",
        }
        async with World({"gemini": 1}, environ=environ) as world:
            assert await answered(world, lite, flash) == [200, 200]
            await later(world, 70)
            assert await answered(world, flash, lite) == [429, 429]
            await later(world, 3600)
            assert await answered(world, flash, lite) == [200, 200]

    async def keys() -> None:
        environ = {"CUSTOM_CAP_GEMINI": "requests=2/minute cooldown=1h", "QUOTA_GROUP_GEMINI": "1,2"}
        async with World({"gemini": 3}, environ=environ | {"ROTATION_MODE_GEMINI": "sequential"}) as world:
            assert await answered(world, flash, flash) == [200, 200]
            await later(world, 70)
            assert await answered(world, flash) == [200]
            assert world.seen()[-1].key == "gemini-secret-key-3"

    virtual.run(models)
    virtual.run(keys)


def test_LIM_12_another_cap_ends_the_rest_after_the_old_one() -> None:
    model = "groq/llama-3.1-8b-instant"

    async def main() -> None:
        async with World({"groq": 1}, environ={"CUSTOM_CAP_GROQ": "requests=1/day cooldown=7d"}) as world:
            assert await answered(world, model, model) == [200, 429]
            world.gateway.adopt(world.config())
            assert await answered(world, model) == [429]  # nothing has changed
            world.environ["CUSTOM_CAP_GROQ"] = "requests=3/day cooldown=7d"
            world.gateway.adopt(world.config())
            assert await answered(world, model, model, model) == [200, 200, 429]
            del world.environ["CUSTOM_CAP_GROQ"]
            world.gateway.adopt(world.config())
            assert await answered(world, model) == [200]

    virtual.run(main)


# --- conversations --------------------------------------------------------------------------------------------------


def test_ROT_12_the_holder_is_kept_when_the_better_key_has_just_met_its_limit() -> None:
    async def main() -> None:
        rules = [KeyRule(rpm=1), KeyRule(), KeyRule()]
        async with World({"gemini": rules}, environ={"KEY_PRIORITIES_GEMINI": "1:1,2:2,3:2"}) as world:
            assert (
                await answered(world, *["gemini/gemini-2.5-flash"] * 6, text="x" * 5000, session_id="one") == [200] * 6
            )
            asked = [each.key[-1] for each in world.seen()]
            assert asked == ["1", "1", "2", "2", "2", "2", "2"]

    virtual.run(main)


# --- what is told ---------------------------------------------------------------------------------------------------


def test_RTE_08_a_caller_sees_auto_where_it_gets_some_of_the_defaults() -> None:
    async def main() -> None:
        async with World({"groq": 1, "openrouter": 1}) as world:
            some, none = Caller("some", routes=("groq/*",)), Caller("none", routes=("gemini/*",))
            assert "auto" in [row.id for row in await world.gateway.models(some)]
            assert await answered(world, "auto", caller=some) == [200]
            assert "auto" not in [row.id for row in await world.gateway.models(none)]
            assert await answered(world, "auto", caller=none) == [403]

    virtual.run(main)


MODES = [
    {
        "ROTATION_MODE_GEMINI": "round_robin",
        "KEY_PRIORITY_FOR_GEMINI": "gemini-2.5-pro:1",
        "KEY_PRIORITIES_GEMINI": "1:2,2:1,3:1,4:1",
    },
    {"ROTATION_MODE_GEMINI": "sequential", "OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_GEMINI": "1"},
    {},
]


@pytest.mark.parametrize("environ", MODES)
def test_ROT_11_explain_tells_the_order_in_which_keys_are_asked(environ: dict[str, str]) -> None:
    async def main() -> None:
        async with World({"gemini": 4}, environ=environ) as world:
            await answered(world, "gemini/gemini-2.5-pro", "gemini/gemini-2.5-flash", "gemini/gemini-2.5-pro")
            world.gateway.rotations.of("gemini", 4).move(2)
            pool = world.gateway.pools.of(Deployment("gemini", "gemini-2.5-pro"))
            pool.used(pool.entries[0])
            told = await told_keys(world, "gemini/gemini-2.5-pro")
            answer = await world.chat("gemini/gemini-2.5-pro")
            assert told[0] == answer.headers["x-keyturn-key"].partition(":")[0]
            pool.done(pool.entries[0])

    virtual.run(main)
