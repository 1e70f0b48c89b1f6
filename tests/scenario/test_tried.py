"""What somebody found who tried the program without knowing it: each story went wrong once."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import Config, load
from keyturn.core import nano
from keyturn.errors import ConfigError
from keyturn.simulator import Fault
from tests.scenario.test_callers import callers, named
from tests.scenario.test_reload import Watched
from tests.support import virtual
from tests.support.world import World

LLAMA = "groq/llama-3.1-8b-instant"
PAID = """
providers:
  openrouter: { kind: http, base_url: https://openrouter.ai/api/v1, env_key: OPENROUTER_API_KEY, plan: free }
provider_routes:
  - { id: opus, provider: openrouter, model: anthropic/claude-opus, is_paid: true, tier: performance, price: { input: 5, output: 25 } }
  - { id: gratis, provider: openrouter, model: some/model:free, is_paid: false, tier: free }
  - { id: cheap, provider: openrouter, model: some/cheap, tier: cheap }
"""  # noqa: E501
ROLE = "roles: { seen: { model: groq/llama-3.1-8b-instant, budgets: { monthly_limit: 10, current_usage: 9.99 } } }\n"


def loaded(tmp_path: Path, **files: str) -> Config:
    (tmp_path / "config").mkdir()
    for name, text in files.items():
        (tmp_path / "config" / f"{name}.yaml").write_text(text)
    return load({"GROQ_API_KEY": "gsk_planted_0123456789"}, cwd=tmp_path)


def test_a_key_of_plan_free_does_not_make_a_paid_model_free_of_charge() -> None:
    async def story() -> None:
        files = {"models.yaml": PAID, "callers.yaml": callers({"eve": "monthly_usd: 0.000001"})}
        environ = {"USE_PAID_MODELS": "true"}
        async with World({"openrouter": 1}, files=files, environ=environ) as world:
            assert (await world.chat("opus", caller=named(world, "eve"))).code == "budget_exhausted"
            assert (await world.chat("openrouter/nobody/knows", caller=named(world, "eve"))).code == "budget_exhausted"
            assert (await world.chat("gratis", caller=named(world, "eve"))).status == 200

    virtual.run(story)


@pytest.mark.parametrize("variant", ["", ":nitro", ":floor", ":online"])
@pytest.mark.parametrize("model", ["anthropic/claude-opus", "Anthropic/Claude-Opus"])
def test_a_variant_of_a_paid_model_is_paid(model: str, variant: str) -> None:
    async def story() -> None:
        async with World({"openrouter": 1}, files={"models.yaml": PAID}) as world:
            assert (await world.chat(f"openrouter/{model}{variant}")).code == "paid_route"
            assert (await world.chat("openrouter/anthropic/claude-opus:free")).status == 200
            assert [each.model for each in world.seen()] == ["anthropic/claude-opus:free"]

    virtual.run(story)


def test_a_price_tier_above_free_means_paid_unless_it_says_otherwise() -> None:
    async def story() -> None:
        async with World({"openrouter": 1}, files={"models.yaml": PAID}) as world:
            assert (await world.chat("cheap")).code == "paid_route"
            assert (await world.chat("gratis")).status == 200

    virtual.run(story)


def test_what_is_used_is_in_sight_right_after_a_reload() -> None:
    async def story() -> None:
        limits = "providers: { groq: { models: { llama-3.1-8b-instant: { rpm: 3 } } } }\n"
        async with World({"groq": 1}, files={"limits.yaml": limits}) as world:
            await world.chat(LLAMA)
            await world.chat(LLAMA)
            world.gateway.adopt(world.config())
            (row,) = world.gateway.keys()
            assert [each["used"] for each in row["limits"]] == [2]  # type: ignore[attr-defined]

    virtual.run(story)


def test_what_a_role_had_spent_counts_when_a_reload_brings_the_role() -> None:
    async def story() -> None:
        async with World({"groq": 1}) as world:
            world.files["roles.yaml"] = ROLE
            world.gateway.adopt(world.config())
            assert world.gateway.carried.spent() == {"role/seen": nano(9.99)}

    virtual.run(story)


def test_a_slip_in_a_chain_is_noted_with_the_name_that_was_meant(tmp_path: Path) -> None:
    routes = "provider_routes: [ { id: gemini-3.8-flash, provider: groq } ]\n"
    role = "roles: { dev: { model_chain: [gemini-3.8-flsh], providers: [groq] } }\n"
    config = loaded(tmp_path, models=routes, roles=role)
    assert any("no route is called gemini-3.8-flsh; was gemini-3.8-flash meant?" in note for note in config.notes)


def test_a_key_in_the_place_of_a_name_is_not_shown(tmp_path: Path) -> None:
    secret = "gsk_AbCdEf0123456789AbCdEf0123456789AbCdEf0123456789AbCd"
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, models=f"providers: {{ groq: {{ kind: http, {secret}: 1 }} }}\n")
    assert secret not in str(caught.value)
    assert "config/models.yaml:1" in str(caught.value)


def test_two_letters_that_changed_places_are_put_back(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean rpm\?"):
        loaded(tmp_path, limits="providers: { groq: { models: { m: { rmp: 30 } } } }\n")


def test_a_refusal_while_everything_rests_says_so() -> None:
    async def story() -> None:
        async with World({"groq": 1}, faults=[Fault(status=502)]) as world:
            for _ in range(6):
                answer = await world.chat(LLAMA, timeout=1)
            assert answer.status == 502
            assert answer.headers["x-keyturn-attempts"] == "0"
            assert "rests after faults of its upstream; one is tried again in" in answer.json()["error"]["message"]

    virtual.run(story)


def test_a_chain_without_keys_names_each_variable_once() -> None:
    async def story() -> None:
        models = "aliases: { far: [openrouter/a, openrouter/b, mistral/c, mistral/d] }\n"
        async with World({"groq": 1}, files={"models.yaml": models}) as world:
            answer = await world.chat("far")
            message = answer.json()["error"]["message"]
            assert (answer.status, answer.code) == (503, "no_valid_credentials")
            assert (message.count("OPENROUTER_API_KEY"), message.count("MISTRAL_API_KEY")) == (1, 1)

    virtual.run(story)


def test_an_env_file_that_is_just_being_written_anew_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with World({"groq": 1}) as world:
            watched = Watched(world, tmp_path)
            watched.file.write_text("a")
            watched.watch_its_size()
            watched.file.write_text("")
            await world.clock.sleep_until(world.clock.mono() + 4.0)
            assert watched.adopted == []
            watched.file.write_text("ab")
            await world.clock.sleep_until(world.clock.mono() + 3.0)
            assert len(watched.adopted) == 1
            watched.file.write_text("")
            await world.clock.sleep_until(world.clock.mono() + 9.0)
            assert len(watched.adopted) == 2
            await watched.reloader.close()

    virtual.run(story)


def test_a_rule_of_its_own_goes_before_one_that_withholds_everything_else() -> None:
    async def story() -> None:
        models = "{ kept: { rpm: 5 }, 'fam*': { rpm: 5 } }"
        limits = f"providers: {{ groq: {{ models: {models}, default: {{ unavailable: true }} }} }}\n"
        async with World({"groq": 1}, files={"limits.yaml": limits}) as world:
            assert [(await world.chat(f"groq/{name}")).status for name in ("kept", "family", "other")] == [
                200,
                200,
                404,
            ]

    virtual.run(story)
