"""Names in models.yaml and roles.yaml: routes, aliases, the older models, roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.core import MONTH, NANO, Deployment, Limit, ModelFacts, Price, Route

from .files import loaded, problems_of

ROUTES = """
    provider_routes:
      - id: gemini-2.5-flash
        provider: google_ai_studio
        is_paid: false
        tier: free
        capabilities: { streaming: true, vision: true }
        context_length: 1048576
      - { id: llama, provider: groq, model: llama-3.1-8b-instant, is_paid: true, tier: cheap, aliases: [small, tiny] }
      - { id: llama, providers: [Cerebras, open-router], model: llama3.1-8b, price: { input: 0.1, output: 0.2 } }
"""


def test_CFG_08_routes(tmp_path: Path) -> None:
    config = loaded(tmp_path, models=ROUTES)
    flash = Deployment("gemini", "gemini-2.5-flash")
    llama = Deployment("groq", "llama-3.1-8b-instant")
    others = Deployment("cerebras", "llama3.1-8b"), Deployment("openrouter", "llama3.1-8b")
    assert config.routes == {"gemini-2.5-flash": (flash,), "llama": (llama, *others)}
    assert config.facts[flash] == ModelFacts(False, "free", {"streaming": True, "vision": True}, 1048576)
    assert config.facts[llama] == ModelFacts(True, "cheap")
    assert config.facts[others[0]] == ModelFacts(price=Price(100.0, 200.0))
    assert config.names == {name: Route(name, "alias", ("llama",)) for name in ("small", "tiny")}


def test_two_routes_to_one_deployment_add_up(tmp_path: Path) -> None:
    models = """
        provider_routes:
          - { id: a, provider: groq, model: m, tier: free, capabilities: { vision: true } }
          - { id: b, provider: groq, model: m, is_paid: true, context_length: 9, capabilities: { tools: true } }
    """
    facts = loaded(tmp_path, models=models).facts
    assert facts == {Deployment("groq", "m"): ModelFacts(True, "free", {"vision": True, "tools": True}, 9)}


def test_the_strategy_of_a_route_orders_its_deployments(tmp_path: Path) -> None:
    models = "provider_routes: [{ id: a, providers: [groq, cerebras], strategy: cheapest }]"
    config = loaded(tmp_path, models=models)
    assert config.names == {"a": Route("a", "alias", ("a",), strategy="cheapest")}
    assert len(config.routes["a"]) == 2


def test_CFG_09_a_legacy_file_alone(tmp_path: Path) -> None:
    models = """
        models:
          llama-3.1-8b-instant:
            provider_name: groq
            api_endpoint: https://api.groq.com/openai/v1/chat/completions
            cost_per_1k_tokens: 0.002
            is_paid: true
            max_tokens: 4096
          local-model:
            provider_name: my-box
            api_endpoint: http://192.168.0.2:8080/v1
          gemini-2.5-flash:
            provider_name: google_ai_studio
            api_endpoint: https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent
    """
    config = loaded(tmp_path, {"GROQ_API_KEY": "gsk_one", "GOOGLE_API_KEY": "AIza"}, models=models)
    assert config.routes == {
        "llama-3.1-8b-instant": (Deployment("groq", "llama-3.1-8b-instant"),),
        "local-model": (Deployment("my_box", "local-model"),),
        "gemini-2.5-flash": (Deployment("gemini", "gemini-2.5-flash"),),
    }
    facts = config.facts[Deployment("groq", "llama-3.1-8b-instant")]
    assert facts.paid
    assert facts.price == Price(2000.0, 2000.0), "0.002 USD a thousand tokens are 2,000 nano-dollars a token"
    assert config.providers["groq"].base_url == "https://api.groq.com/openai/v1"
    assert config.providers["my_box"].base_url == "http://192.168.0.2:8080/v1"
    assert config.providers["gemini"].base_url == "https://generativelanguage.googleapis.com/v1beta"


def test_CFG_09_a_legacy_model_of_a_provider_that_nobody_knows(tmp_path: Path) -> None:
    models = "models: { m: { provider_name: grok_cloud } }"
    (problem,) = problems_of(tmp_path, models=models)
    assert problem == "config/models.yaml:1: no provider is called grok_cloud; did you mean groq_cloud?"


def test_aliases_in_all_their_forms(tmp_path: Path) -> None:
    models = """
        aliases:
          one: groq/llama
          several: [groq/llama, two]
          two: { chain: [m], providers: [google], strategy: fastest, description: quick }
    """
    assert loaded(tmp_path, models=models).names == {
        "one": Route("one", "alias", ("groq/llama",)),
        "several": Route("several", "alias", ("groq/llama", "two")),
        "two": Route("two", "alias", ("m",), ("gemini",), "fastest", "quick"),
    }


def test_an_alias_may_begin_with_the_route_of_its_own_name(tmp_path: Path) -> None:
    models = "{ provider_routes: [{ id: m, provider: groq }], aliases: { m: [m, openai/m] } }"
    assert loaded(tmp_path, models=models).names["m"].chain == ("m", "openai/m")


@pytest.mark.parametrize("depth", [2, 5, 50])
def test_a_circle_is_told_once_whatever_its_length(tmp_path: Path, depth: int) -> None:
    lines = "".join(f"  a{n}: a{(n + 1) % depth}\n" for n in range(depth))
    (problem,) = problems_of(tmp_path, models=f"aliases:\n{lines}")
    assert "a0: leads back to itself: a0 → a1 → " in problem


def test_a_long_chain_of_names_is_no_circle(tmp_path: Path) -> None:
    lines = "".join(f"  a{n}: [a{n + 1}, a{n + 2}]\n" for n in range(2000))
    assert len(loaded(tmp_path, models=f"aliases:\n{lines}", limits="").names) == 2000


def test_what_is_almost_a_name_is_noted(tmp_path: Path) -> None:
    models = (
        "{ provider_routes: [{ id: gemini-2.5-flash, provider: gemini }], aliases: { a: [gemini-2.5-flsh, other] } }"
    )
    (note,) = loaded(tmp_path, models=models, limits="").notes
    assert note.startswith("config/models.yaml:1: a: no route is called gemini-2.5-flsh; was gemini-2.5-flash meant?")


def test_CFG_10_roles(tmp_path: Path) -> None:
    roles = """
        roles:
          senior_dev:
            name: Senior developer
            description: hard changes
            model_chain: [gemini-2.5-pro, "deepseek/deepseek-r1-0528:free"]
            providers: [google_ai_studio, openrouter]
            budgets: { monthly_limit: 200, current_usage: 12.5 }
          junior_dev: { name: Junior, model: small, model_chain: [large], strategy: cheapest }
          release_qa: { model: small, model_chain: [large, small] }
          project_manager: { model: small, budgets: }
    """
    config = loaded(tmp_path, roles=roles)
    budget = Limit("role/senior_dev", "cost", MONTH, 200 * NANO, owner="caller")
    chain = ("gemini-2.5-pro", "deepseek/deepseek-r1-0528:free")
    assert config.names == {
        "senior_dev": Route(
            "senior_dev", "role", chain, ("gemini", "openrouter"), description="hard changes", budget=budget
        ),
        "junior_dev": Route("junior_dev", "role", ("small", "large"), (), "cheapest", "Junior"),
        "release_qa": Route("release_qa", "role", ("large", "small")),
        "project_manager": Route("project_manager", "role", ("small",)),
    }
    assert config.spent == {"senior_dev": 12_500_000_000}
    assert config.origins["names.junior_dev"] == "config/roles.yaml:9"


def test_a_role_may_name_providers_that_only_models_yaml_knows(tmp_path: Path) -> None:
    models = "providers: { my-box: { base_url: 'http://127.0.0.1:9/v1' } }"
    config = loaded(tmp_path, models=models, roles="roles: { a: { model: m, providers: [my-box] } }")
    assert config.names["a"].providers == ("my_box",)


def test_who_refers_to_a_broken_provider_is_not_blamed_for_it(tmp_path: Path) -> None:
    models = """
        providers:
          my-box: { base_ulr: 'http://127.0.0.1:9/v1' }
        provider_routes:
          - { id: m, provider: my-box }
    """
    (problem,) = problems_of(tmp_path, models=models)
    assert problem.startswith("config/models.yaml:3: providers.my-box.base_ulr:")


def test_lines_are_right_after_entries_that_are_wrong(tmp_path: Path) -> None:
    models = """
        provider_routes:
          - { id: a, provider: groq, tier: none }
          - { id: b, provider: groq }
          - { id: c, provider: nobody-has-this }
    """
    assert [problem.partition(": ")[0] for problem in problems_of(tmp_path, models=models)] == [
        "config/models.yaml:3",
        "config/models.yaml:5",
    ]
