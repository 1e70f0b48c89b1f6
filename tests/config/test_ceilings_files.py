"""limits.yaml and callers.yaml."""

from __future__ import annotations

import hashlib
from pathlib import Path

from keyturn.config import LimitRule, LimitSpec
from keyturn.core import MINUTE, MONTH, NANO, Caller, Limit

from .files import loaded, problems_of


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_CFG_11_limits_of_the_seeds_shape(tmp_path: Path) -> None:
    limits = """
        providers:
          groq:
            models:
              llama-3.1-8b-instant: { rpm: 30, tpm: 7000 }
        default_limits: { rpm: 60, tpm: 10000 }
    """
    config = loaded(tmp_path, limits=limits)
    rpm, tpm = LimitSpec("requests", "minute", 30), LimitSpec("tokens", "minute", 7000)
    rule = LimitRule("llama-3.1-8b-instant", (rpm, tpm), origin="config/limits.yaml:5")
    assert config.limit_rules == {"groq": (rule,)}
    assert config.default_limits == (LimitSpec("requests", "minute", 60), LimitSpec("tokens", "minute", 10000))


def test_CFG_11_limits_defaults_to_none_with_a_word_about_it(tmp_path: Path) -> None:
    config = loaded(tmp_path, roles="")
    assert (config.limit_rules, config.default_limits) == ({}, ())
    assert config.notes == (
        "config/limits.yaml: there is none, so only limits that providers report or LIMITS_<P> declares hold",
    )
    (tmp_path / "config" / "roles.yaml").unlink()
    assert loaded(tmp_path).notes == (), "who has no files at all is not told"


def test_blocks_patterns_and_every_window(tmp_path: Path) -> None:
    limits = """
        providers:
          google_ai_studio:
            - plan: free
              scope: key
              models:
                gemini-*-flash: { rps: 1, rph: 2, rpd: 3, rpmonth: 4, tph: 5, tpd: 6, tpmonth: 7, concurrency: 8 }
                gemini-2.5-pro: { unavailable: true }
                a: { rpm: 1, quota_group: flash, scope: shared }
              default: { rpm: 9 }
            - models: { a: { rpm: 2 } }
    """
    rules = loaded(tmp_path, limits=limits).limit_rules["gemini"]
    assert [(rule.pattern, rule.plan, rule.scope, rule.quota_group, rule.unavailable) for rule in rules] == [
        ("gemini-*-flash", "free", "key", "", False),
        ("gemini-2.5-pro", "free", "key", "", True),
        ("a", "free", "shared", "flash", False),
        ("*", "free", "key", "", False),
        ("a", None, "quota_group", "", False),
    ]
    assert [tuple(spec) for spec in rules[0].specs] == [
        ("requests", "second", 1),
        ("requests", "hour", 2),
        ("requests", "day", 3),
        ("requests", "month", 4),
        ("tokens", "hour", 5),
        ("tokens", "day", 6),
        ("tokens", "month", 7),
        ("concurrency", "inflight", 8),
    ]


def test_absent_null_zero_and_negative_are_unlimited(tmp_path: Path) -> None:
    limits = "providers: { groq: { models: { a: { rpm: , tpm: 0, rpd: -1 }, b: {} } } }"
    rules = loaded(tmp_path, limits=limits).limit_rules["groq"]
    assert [(rule.pattern, rule.specs) for rule in rules] == [("a", ()), ("b", ())]


def test_capacities_may_come_from_variables(tmp_path: Path) -> None:
    limits = "providers: { groq: { models: { a: { rpm: ${RPM:-30} } } } }"
    assert loaded(tmp_path, limits=limits).limit_rules["groq"][0].specs[0].capacity == 30
    assert loaded(tmp_path, {"RPM": "7"}).limit_rules["groq"][0].specs[0].capacity == 7


def test_callers(tmp_path: Path) -> None:
    callers = f"""
        team-a:
          key_env: TEAM_A_KEY
          routes: [senior_dev, "groq/*"]
          weight: 2
          class: interactive
          rpm: 60
          tpm: 1000
          monthly_usd: 25
        nightly: {{ key_hash: "sha256:{sha("night").upper()}", class: batch, rpm: 0 }}
        default: {{ rpm: 5 }}
    """
    config = loaded(tmp_path, {"TEAM_A_KEY": " key-of-team-a ", "PROXY_API_KEY": "own"}, callers=callers, limits="")
    limits = (
        Limit("caller/team-a", "requests", MINUTE, 60, owner="caller"),
        Limit("caller/team-a", "tokens", MINUTE, 1000, owner="caller"),
        Limit("caller/team-a", "cost", MONTH, 25 * NANO, owner="caller"),
    )
    assert config.callers == {
        sha("key-of-team-a"): Caller("team-a", ("senior_dev", "groq/*"), limits, 2.0, "interactive"),
        sha("night"): Caller("nightly", rank="batch"),
    }
    own = (Limit("caller/default", "requests", MINUTE, 5, owner="caller"),)
    assert config.default_caller == Caller("default", (), own)
    assert config.notes == ()
    assert "key-of-team-a" not in repr(config)


def test_without_callers_yaml_there_is_one_who_may_do_everything(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert (config.callers, config.default_caller) == ({}, Caller())


def test_a_caller_whose_variable_is_not_set_cannot_log_in(tmp_path: Path) -> None:
    config = loaded(tmp_path, callers="team: { key_env: TEAM_API_KEY }", limits="")
    assert config.callers == {}
    assert config.notes == ("config/callers.yaml:1: team cannot log in: TEAM_API_KEY is not set",)


def test_a_callers_variable_is_not_taken_for_a_providers(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"TEAM_API_KEY": "key-of-team"}, callers="team: { key_env: TEAM_API_KEY }", limits="")
    assert config.notes == ()
    assert list(config.callers) == [sha("key-of-team")]


def test_a_callers_key_is_a_key(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {"TEAM_KEY": "two words"}, callers="team: { key_env: TEAM_KEY }")
    assert problem.startswith("TEAM_KEY: the key holds a space")
    assert "words" not in problem
