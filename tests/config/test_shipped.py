"""The configuration that is shipped: it loads clean, its facts fit together, and its figures are the newest known."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from keyturn.config import Config, LimitRule, load
from keyturn.core import PRICE_TIERS, Deployment
from keyturn.providers import CATALOG, known, price_of

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "src" / "keyturn" / "config" / "shipped"
FILES = ("callers.yaml", "limits.yaml", "models.yaml", "roles.yaml", "settings.toml")
GOOGLE = {f"GOOGLE_API_KEY_{number}": f"AIza-key-of-the-test-{number}" for number in range(1, 6)}
KEYS = GOOGLE | {
    name: f"{name.lower()}-of-the-test" for name in ("GROQ_API_KEY", "OPENROUTER_API_KEY", "TOGETHER_API_KEY")
}
MAKERS = {"codex_cli": "openai", "claude_code": "anthropic", "gemini_cli": "gemini"}
"""Whose list prices the tier of a command line tool follows."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with the shipped files in its `config/`, free to be changed."""
    shutil.copytree(SHIPPED, tmp_path / "config")
    return tmp_path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The shipped files, loaded with every key."""
    place = tmp_path_factory.mktemp("shipped")
    shutil.copytree(SHIPPED, place / "config")
    return load(KEYS, cwd=place)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """models.yaml as any YAML parser reads it, once bare variables are quoted."""
    text = re.sub(r"(?<=[\[ ])(\$\{\w+\})(?=[,\]])", r'"\1"', (SHIPPED / "models.yaml").read_text())
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def roles() -> dict[str, Any]:
    found = yaml.safe_load((SHIPPED / "roles.yaml").read_text())["roles"]
    assert isinstance(found, dict)
    return found


def rule_of(rules: Mapping[str, tuple[LimitRule, ...]], provider: str, model: str) -> LimitRule | None:
    """The rule that names *model* itself, else the first whose pattern fits."""
    mine = rules[provider]
    exact = [rule for rule in mine if rule.pattern == model]
    return next(iter(exact + [rule for rule in mine if fnmatchcase(model, rule.pattern)]), None)


def told(rule: LimitRule | None) -> str:
    """What *rule* allows, in the names of limits.yaml."""
    assert rule is not None
    names = {"second": "s", "minute": "m", "hour": "h", "day": "d", "month": "month"}
    limits = [
        f"concurrency {spec.capacity}"
        if spec.metric == "concurrency"
        else f"{spec.metric[0]}p{names[spec.window]} {spec.capacity}"
        for spec in rule.specs
    ]
    return "unavailable" if rule.unavailable else ", ".join(sorted(limits))


@pytest.mark.parametrize("name", FILES)
def test_the_repository_shows_the_files_that_the_package_carries(name: str) -> None:
    assert (ROOT / "config" / name).read_bytes() == (SHIPPED / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_every_file_names_its_schema(name: str) -> None:
    assert f"schema/{name.partition('.')[0]}.schema.json" in (SHIPPED / name).read_text().splitlines()[0]


def test_the_shipped_files_load_without_a_mistake_or_a_note(config: Config) -> None:
    assert config.notes == ()
    assert set(config.credentials) >= {"gemini", "groq", "openrouter", "together"}
    assert [key.label for key in config.credentials["gemini"]] == [f"gemini-{number}" for number in range(1, 6)]


def test_the_shipped_files_change_no_setting(place: Path) -> None:
    bare = load(KEYS, cwd=place / "nowhere")
    config = load(KEYS, cwd=place)
    assert (config.timeouts, config.server) == (bare.timeouts, bare.server)
    assert (config.use_paid, config.price_tiers, config.cooldown) == (False, None, "adaptive")


def test_without_any_key_they_still_load(place: Path) -> None:
    config = load({}, cwd=place)
    assert not {"gemini", "groq", "openrouter", "together"} & set(config.credentials)
    assert set(config.names) >= set(roles())


def test_one_google_key_is_enough(place: Path) -> None:
    config = load({"GOOGLE_API_KEY_1": "AIza-the-only-one", **dict.fromkeys(list(GOOGLE)[1:], "")}, cwd=place)
    assert [key.label for key in config.credentials["gemini"]] == ["gemini-1"]
    for name in roles():
        assert any(offered(config, entry, ("gemini",)) for entry in config.names[name].chain), name


def offered(config: Config, entry: str, providers: tuple[str, ...]) -> list[Deployment]:
    """The deployments of *entry* at *providers* that cost nothing and that a free plan offers."""
    return [
        deployment
        for deployment in config.routes[entry]
        if deployment.provider in providers
        and not config.facts[deployment].paid
        and not getattr(rule_of(config.limit_rules, *deployment), "unavailable", False)
    ]


def test_CFG_05_default_base_urls(models: dict[str, Any]) -> None:
    assert {name: block["base_url"] for name, block in models["providers"].items() if block["kind"] == "http"} == {
        "groq": "https://api.groq.com/openai/v1",
        "together": "https://api.together.ai/v1",
        "openrouter": "https://openrouter.ai/api/v1",
        "google_ai_studio": "https://generativelanguage.googleapis.com",
    }


def test_CFG_06_google_keys_and_rotation(models: dict[str, Any], config: Config) -> None:
    block = models["providers"]["google_ai_studio"]
    assert block["api_keys"] == [f"${{GOOGLE_API_KEY_{number}}}" for number in range(1, 6)]
    assert block["rotation"] == {"strategy": "round_robin", "cooldown_seconds": 60}
    assert "[${GOOGLE_API_KEY_1}, ${GOOGLE_API_KEY_2}" in (SHIPPED / "models.yaml").read_text(), "bare, as promised"
    assert config.strategies["gemini"] == "round_robin"
    assert config.rotations["gemini"].cooldown_seconds == 60


def test_the_four_http_providers_are_on_the_free_plan(models: dict[str, Any], config: Config) -> None:
    assert {name for name, block in models["providers"].items() if block.get("plan") == "free"} == {
        "groq", "together", "openrouter", "google_ai_studio",
    }  # fmt: skip
    assert {key.plan for name in ("groq", "gemini") for key in config.credentials[name]} == {"free"}


def test_CFG_04_the_tools_run_as_the_catalog_runs_them(models: dict[str, Any], config: Config) -> None:
    blocks = {name: block for name, block in models["providers"].items() if block["kind"] == "cli"}
    assert set(blocks) == set(MAKERS)
    for name, block in blocks.items():
        tool, usual = config.providers[name].tool, CATALOG[name].tool
        assert tool is not None
        assert usual is not None
        assert block["cmd"].count("${MODEL}") == 1
        assert (tuple(block["cmd"]), tool.argv, tool.output) == (usual.argv, usual.argv, usual.output)


def test_CFG_08_at_least_seventy_routes_free_and_paid(models: dict[str, Any]) -> None:
    routes = models["provider_routes"]
    assert len(routes) >= 70
    assert len({(route["id"], route["provider"]) for route in routes}) == len(routes), "no route stands here twice"
    assert {route["tier"] for route in routes} == set(PRICE_TIERS)
    assert {route["provider"] for route in routes} == set(models["providers"])
    for route in routes:
        assert set(route) - {"model"} == {"id", "provider", "is_paid", "tier", "context_length", "capabilities"}, route
        assert {"streaming", "vision"} <= set(route["capabilities"]), route
        assert route["context_length"] >= 8192, route


def test_every_route_is_in_the_configuration(models: dict[str, Any], config: Config) -> None:
    for route in models["provider_routes"]:
        row = known(route["provider"])
        assert row is not None
        deployment = Deployment(row.name, route.get("model", route["id"]))
        assert deployment in config.routes[route["id"]]
        facts = config.facts[deployment]
        assert (facts.paid, facts.price_tier) == (route["is_paid"], route["tier"])
        assert facts.context_length == route["context_length"]


def tier_by_price(provider: str, model: str) -> str:
    """The rule that models.yaml states."""
    price = price_of(provider, model)
    assert price is not None, f"{provider}/{model} has no price"
    dollars = price.blended / 1000
    return "cheap" if dollars < 0.5 else "budget" if dollars < 2 else "performance" if dollars < 10 else "ultra"


def test_price_tiers_follow_the_list_prices(models: dict[str, Any]) -> None:
    wrong = []
    for route in models["provider_routes"]:
        provider, model = route["provider"], route.get("model", route["id"])
        if not route["is_paid"]:
            expected = "free"
        elif provider in MAKERS:
            expected = route["tier"] if provider != "codex_cli" else tier_by_price(MAKERS[provider], model)
        else:
            expected = tier_by_price(provider, model)
        if route["tier"] != expected:
            wrong.append((provider, model, route["tier"], expected))
    assert wrong == []


def test_what_costs_nothing_is_free_by_its_name_or_its_plan(models: dict[str, Any], config: Config) -> None:
    for route in models["provider_routes"]:
        if route["provider"] == "openrouter":
            assert route["is_paid"] != (route["id"].endswith(":free") or route["id"] == "openrouter/free"), route
        if route["provider"] == "together":
            assert route["is_paid"], "Together has no free plan"
        if route["provider"] == "google_ai_studio":
            rule = rule_of(config.limit_rules, "gemini", route["id"])
            assert route["is_paid"] == getattr(rule, "unavailable", False), route


def test_no_route_takes_an_id_that_another_provider_uses_itself(models: dict[str, Any]) -> None:
    """A route id wins over `provider/model`: `openai/gpt-6-sol` must go on meaning OpenAI for who has its key."""
    prices = json.loads((ROOT / "src" / "keyturn" / "providers" / "prices.json").read_text())["models"]
    for route in models["provider_routes"]:
        head, _, rest = route["id"].partition("/")
        maker, seller = known(head), known(route["provider"])
        assert seller is not None
        if rest and maker is not None and maker.name != seller.name and not rest.startswith("gpt-oss"):
            assert rest not in {row["id"] for row in prices.get(maker.name, ())}, route["id"]


def test_aliases_lead_to_routes(models: dict[str, Any], config: Config) -> None:
    assert {"fast", "smart", "vision"} <= set(models["aliases"])
    for name, chain in models["aliases"].items():
        assert tuple(config.names[name].chain) == tuple(chain)
        assert all(entry in config.routes for entry in chain), name
    for entry in models["aliases"]["vision"]:
        assert any(config.facts[deployment].capabilities["vision"] for deployment in config.routes[entry]), entry


def test_CFG_10_roles_load(config: Config) -> None:
    found = {name: config.names[name] for name in roles()}
    assert {name: route.budget.capacity // 10**9 for name, route in found.items() if route.budget is not None} == {
        "communications": 50,
        "project_manager": 100,
        "senior_dev": 200,
        "junior_dev": 50,
        "release_qa": 75,
    }
    for name, route in found.items():
        assert route.kind == "role"
        assert route.description, name
        assert len(set(route.chain)) == len(route.chain) >= 3


@pytest.mark.parametrize("name", roles())
def test_every_role_answers_with_one_free_key(name: str, config: Config) -> None:
    route = config.names[name]
    for entry in route.chain:
        declared = {deployment.provider for deployment in config.routes[entry]}
        assert declared & set(route.providers), f"{name}: {entry} is offered by none of its providers"
    for provider in ("gemini", "groq", "openrouter"):
        assert any(offered(config, entry, (provider,)) for entry in route.chain), f"{name} with a {provider} key alone"
    assert offered(config, route.chain[0], route.providers), f"{name} begins with something that costs"


def test_CFG_11_limits_defaults(config: Config, place: Path) -> None:
    assert {f"{spec.metric}/{spec.window}": spec.capacity for spec in config.default_limits} == {
        "requests/minute": 60,
        "tokens/minute": 10_000,
    }
    (place / "config" / "limits.yaml").unlink()
    assert load(KEYS, cwd=place).limit_rules == {}


@pytest.mark.parametrize(
    ("provider", "model", "older", "newer"),
    [
        ("groq", "llama-3.1-8b-instant", "rpm 30, tpm 7000", "rpd 14400, rpm 30, tpd 500000, tpm 6000"),
        ("groq", "llama-3.3-70b-versatile", "rpm 30, tpm 6000", "rpd 1000, rpm 30, tpd 100000, tpm 12000"),
        ("groq", "mixtral-8x7b-32768", "rpm 30, tpm 5000", "rpd 1000, rpm 30, tpd 200000, tpm 8000"),
        ("openrouter", "deepseek/deepseek-r1-0528:free", "rpm 20, tpm 5000", "rpd 50, rpm 20"),
        ("gemini", "gemini-2.5-flash", "rpm 1000, tpm 50000", "rpd 20, rpm 5, tpm 250000"),
        ("gemini", "gemini-2.5-flash-lite", "rpm 1000, tpm 50000", "rpd 20, rpm 10, tpm 250000"),
        ("gemini", "gemini-2.5-pro", "rpm 150, tpm 10000", "unavailable"),
        ("gemini", "gemini-3.1-flash-lite", "", "rpd 500, rpm 15, tpm 250000"),
        ("groq", "openai/gpt-oss-120b", "", "rpd 1000, rpm 30, tpd 200000, tpm 8000"),
        ("mistral", "mistral-small-latest", "", "rpm 60, rps 1, tpm 500000, tpmonth 1000000000"),
        ("cerebras", "gpt-oss-120b", "", "rpd 2400, rph 150, rpm 5, tpd 1000000"),
        ("cohere", "command-a-03-2025", "", "rpm 20, rpmonth 1000"),
        ("github_models", "openai/gpt-4.1", "", "concurrency 2, rpd 50, rpm 10"),
        ("sambanova", "DeepSeek-V3.2", "", "rpd 20, rpm 20, tpd 200000"),
        ("nvidia", "meta/llama-3.3-70b-instruct", "", "rpm 40"),
    ],
)
def test_CFG_12_shipped_limit_values(config: Config, provider: str, model: str, older: str, newer: str) -> None:
    """The row's figures (*older*) are of 2025. Newer ones win, each with its date and source in the file."""
    assert told(rule_of(config.limit_rules, provider, model)) == newer != older


def test_CFG_12_together_has_no_block_and_so_the_default_limits(config: Config) -> None:
    """The row's 60 requests and 10,000 tokens a minute; today its rate is dynamic and not published."""
    assert "together" not in config.limit_rules
    assert [spec.capacity for spec in config.default_limits] == [60, 10_000]


def test_all_shipped_limits_are_of_the_free_plan_and_of_known_providers(config: Config) -> None:
    assert set(config.limit_rules) <= set(CATALOG)
    for provider, rules in config.limit_rules.items():
        assert {rule.plan for rule in rules} == {"free"}, provider


def test_free_models_of_openrouter_share_one_counter(config: Config) -> None:
    groups = {
        getattr(rule_of(config.limit_rules, "openrouter", route), "quota_group", "")
        for route, deployments in config.routes.items()
        for deployment in deployments
        if deployment.provider == "openrouter" and not config.facts[deployment].paid
    }
    assert groups == {"free-models"}
    assert told(rule_of(config.limit_rules, "openrouter", "anthropic/claude-opus-5.5")) == ""


def test_every_block_of_limits_tells_its_source_and_date() -> None:
    lines = (SHIPPED / "limits.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.fullmatch(r"  [a-z_]+:", line):
            above: list[str] = []
            while lines[number - 1 - len(above)].startswith("  #"):
                above.append(lines[number - 1 - len(above)])
            assert re.search(r"\b202\d\b", " ".join(above)), line


def test_CFG_13_settings(config: Config) -> None:
    orchestrator = config.sections["orchestrator"]
    assert (orchestrator["watch_interval"], orchestrator["max_concurrent_tasks"]) == (1.0, 5)
    text = (SHIPPED / "settings.toml").read_text()
    sections = (
        "general server cooldown timeouts cache coalesce retries breaker concurrency hedging stream waiting redis"
    )
    sections += " ledger responses learning providers routing discord discord.webhooks vault orchestrator watch"
    assert re.findall(r"^\[([\w.]+)\]", text, re.MULTILINE) == sections.split()
    assert set(re.findall(r"^# (\w+) = .*_WEBHOOK_URL", text, re.MULTILINE)) == set(roles())
    for member in ("use_paid_models = false", "timeout = 30.0", "max_retries = 3", 'profile = "adaptive"'):
        assert f"# {member}" in text


def test_what_settings_show_as_defaults_are_the_defaults(place: Path) -> None:
    """The lines of [server] and [timeouts] that are commented out can be taken in without changing anything."""
    path = place / "config" / "settings.toml"
    text = path.read_text()
    server = text.partition("[server]")[2].partition("[cooldown]")[0]
    timeouts = text.partition("[timeouts]")[2].partition("[providers]")[0].replace("# to_content", "# # to_content")
    path.write_text("[server]" + server.replace("\n# ", "\n") + "[timeouts]" + timeouts.replace("\n# ", "\n"))
    bare, config = load(KEYS, cwd=place / "nowhere"), load(KEYS, cwd=place)
    assert asdict(config.timeouts) == asdict(bare.timeouts)
    assert asdict(config.server) == asdict(bare.server)


def test_callers_are_an_example_only(config: Config) -> None:
    assert config.callers == {}
    lines = (SHIPPED / "callers.yaml").read_text().splitlines()
    assert all(line.startswith("#") for line in lines)


def test_the_callers_example_is_one(place: Path) -> None:
    """Taken in as it stands it loads."""
    path = place / "config" / "callers.yaml"
    lines = path.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("# default:"))
    path.write_text("\n".join(line.removeprefix("# ").removeprefix("#") for line in lines[start:]))
    config = load(KEYS | {"TEAM_A_KEY": "a-key-of-team-a-for-the-test"}, cwd=place)
    assert [caller.name for caller in config.callers.values()] == ["team_a"]


def test_price_tiers_are_those_that_routes_may_name() -> None:
    from keyturn.config.shape_models import PriceTier

    assert get_args(PriceTier) == PRICE_TIERS
