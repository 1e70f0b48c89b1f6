"""Which limits of limits.yaml, of variables and of the defaults hold for one credential on one model."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import Config, load
from keyturn.core import Deployment
from keyturn.dispatch.declared import budgets, declared, withheld

LIMITS = """
providers:
  groq:
    - plan: free
      models:
        llama-3.1-8b-instant: { rpm: 30, tpm: 6000, rpd: 14400 }
        "openai/*": { rpm: 20 }
        "openai/gpt-oss-20b": { rpm: 10 }
        whole: { rpm: 5, scope: shared }
        mine: { rpm: 5, scope: key }
        secretive: { unavailable: true }
      default: { rpm: 3 }
    - models:
        llama-3.1-8b-instant: { rpm: 25 }
  openrouter:
    plan: free
    models:
      "*:free": { rpm: 20, rpd: 50, quota_group: free }
  mistral: { models: { off: { rpm: 0, tpm: -1, rpd: null } } }
default_limits: { rpm: 60, tpm: 10000 }
"""


def config(tmp_path: Path, **environ: str) -> Config:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "limits.yaml").write_text(LIMITS)
    keys = {"GROQ_API_KEY_1": "a1", "GROQ_API_KEY_2": "a2", "OPENROUTER_API_KEY": "b", "MISTRAL_API_KEY": "c"}
    return load(keys | environ, cwd=tmp_path)


def of(found: Config, provider: str, model: str, key: int = 0) -> dict[str, str]:
    """Scope without the fingerprint -> `requests/60=30 declared~`; `~`: it yields to what the provider reports."""
    credential = found.credentials[provider][key]
    limits = declared(found, Deployment(provider, model), credential)
    return {
        scope.replace(credential.group, "own").replace(credential.fingerprint, "key"): " ".join(
            f"{limit.metric}/{limit.window.seconds:g}={limit.capacity} {limit.source}{'~' * limit.yields}"
            for limit in rows
        )
        for scope, rows in limits.items()
    }


def test_a_block_of_a_plan_holds_for_that_plan_only(tmp_path: Path) -> None:
    assert of(config(tmp_path, KEY_PLAN_GROQ="paid"), "groq", "openai/gpt-oss-120b") == {}
    assert of(config(tmp_path), "groq", "openai/gpt-oss-120b") == {}
    free = config(tmp_path, KEY_PLAN_GROQ="free")
    assert of(free, "groq", "openai/gpt-oss-120b") == {"groq/own|openai/gpt-oss-120b": "requests/60=20 declared~"}


def test_the_exact_name_comes_before_a_pattern_and_both_before_the_default(tmp_path: Path) -> None:
    free = config(tmp_path, KEY_PLAN_GROQ="free")
    assert of(free, "groq", "openai/gpt-oss-20b") == {"groq/own|openai/gpt-oss-20b": "requests/60=10 declared~"}
    assert of(free, "groq", "something-else") == {"groq/own|something-else": "requests/60=3 declared~"}


def test_what_holds_for_all_plans_comes_before_what_holds_for_one(tmp_path: Path) -> None:
    free = config(tmp_path, KEY_PLAN_GROQ="free")
    (text,) = of(free, "groq", "llama-3.1-8b-instant").values()
    assert text == "requests/60=25 declared requests/86400=14400 declared~ tokens/60=6000 declared~"


def test_a_variable_comes_before_every_file(tmp_path: Path) -> None:
    free = config(tmp_path, KEY_PLAN_GROQ="free", LIMITS_GROQ="rpm=300")
    (text,) = of(free, "groq", "llama-3.1-8b-instant").values()
    assert text == "requests/60=300 declared requests/86400=14400 declared~ tokens/60=6000 declared~"


def test_what_is_counted_together(tmp_path: Path) -> None:
    free = config(tmp_path, KEY_PLAN_GROQ="free", KEY_PLAN_OPENROUTER="free")
    assert list(of(free, "groq", "whole")) == ["groq/*free|whole"]
    assert of(free, "groq", "whole", 1) == of(free, "groq", "whole", 0)
    assert list(of(free, "groq", "mine")) == ["groq/own|mine"]
    one, other = (of(free, "openrouter", f"{name}:free") for name in ("a/b", "c/d"))
    assert one == other == {"openrouter/own|#free": "requests/60=20 declared~ requests/86400=50 declared~"}


def test_LIM_05_default_limits_are_for_plan_free(tmp_path: Path) -> None:
    """The old system applied them to everything; here an account that pays is unlimited until a limit is known."""
    assert of(config(tmp_path), "openrouter", "openai/gpt-6") == {}
    free = config(tmp_path, KEY_PLAN_OPENROUTER="free")
    assert of(free, "openrouter", "openai/gpt-6") == {
        "openrouter/own|openai/gpt-6": "requests/60=60 default~ tokens/60=10000 default~"
    }


@pytest.mark.parametrize("plan", ["free", "paid"])
def test_LIM_04_null_zero_and_below_are_unlimited(tmp_path: Path, plan: str) -> None:
    assert of(config(tmp_path, KEY_PLAN_MISTRAL=plan), "mistral", "off") == {}


def test_what_a_plan_does_not_offer(tmp_path: Path) -> None:
    free, paid = (config(tmp_path, KEY_PLAN_GROQ=plan) for plan in ("free", "paid"))
    secretive = Deployment("groq", "secretive")
    assert withheld(free, secretive, free.credentials["groq"][0])
    assert not withheld(paid, secretive, paid.credentials["groq"][0])


def test_every_budget_is_known(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "roles.yaml").write_text("roles: { qa: { model: groq/a, budgets: { monthly_limit: 75 } } }")
    (tmp_path / "config" / "callers.yaml").write_text(f"ci: {{ key_hash: 'sha256:{'0' * 64}', monthly_usd: 5 }}")
    found = {limit.scope: limit.capacity for limit in budgets(config(tmp_path))}
    assert found == {"role/qa": 75_000_000_000, "caller/ci": 5_000_000_000}
