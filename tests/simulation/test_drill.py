"""The drill: what failures would do to clients, by the user's own configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config, load
from keyturn.simulation import RULES, SHAPES, Drilled, Finding, Tried, drilled, routes_of

TWO = {"GROQ_API_KEY_1": "gsk_planted_one", "GROQ_API_KEY_2": "gsk_planted_two", "TOGETHER_API_KEY": "tgp_planted"}
MODELS = """
providers:
  groq: { kind: http, base_url: https://api.groq.com/openai/v1, env_key: GROQ_API_KEY }
  together: { kind: http, base_url: https://api.together.ai/v1, env_key: TOGETHER_API_KEY }
provider_routes:
  - { id: llama, provider: groq, model: llama-3.1-8b-instant, is_paid: false, tier: free }
  - { id: dear, provider: together, model: big, is_paid: true, tier: performance }
"""


def config_of(tmp_path: Path, environ: dict[str, str], **files: str) -> Config:
    if files:
        (tmp_path / "config").mkdir(exist_ok=True)
        for name, text in files.items():
            (tmp_path / "config" / f"{name}.yaml").write_text(text)
    return load(environ, cwd=tmp_path)


def drill(config: Config, route: str, *shapes: str, **more: Any) -> dict[str, Tried]:
    chosen = [SHAPES[name] for name in shapes] or list(SHAPES.values())
    (report,) = drilled(config, [route], config.default_caller, shapes=chosen, **more)
    return {tried.shape.name: tried for tried in report.tried}


def rules(tried: Tried) -> set[str]:
    return {each.rule for found in tried.findings for each in found}


def finding(tried: Tried, rule: str) -> Finding:
    return next(each for found in tried.findings for each in found if each.rule == rule)


def chain(first: str = "groq/llama-3.1-8b-instant", second: str = "together/some-model") -> str:
    return f"roles: {{ dev: {{ model_chain: [{first}, {second}] }} }}\n"


def test_a_role_with_a_second_provider_surprises_nobody_but_by_cuts_and_hangs(tmp_path: Path) -> None:
    tried = drill(config_of(tmp_path, TWO, models=MODELS, roles=chain()), "dev")
    assert {name for name, each in tried.items() if each.verdict == "surprising"} == {
        "hangs",  # two keys of 300 s each leave nothing of the call's 600 s
        "cut-stream",
        "silent-stream",
        "error-in-a-stream",
    }
    assert rules(tried["hangs"]) >= {"never-reached"}
    assert "TIMEOUT_NO_CONTENT" in finding(tried["hangs"], "never-reached").hint
    assert all(each.verdict != "fine" for name, each in tried.items() if name.endswith("everywhere"))
    assert {rule for each in tried.values() for rule in rules(each)} <= set(RULES)
    for name in ("healthy", "revoked-key", "vague-401", "no-credit", "minute-limit", "day-quota", "one-500", "reset"):
        assert tried[name].verdict == "fine", name
    for name in ("login-outage", "model-gone", "day-quota-all", "only-500s", "overloaded", "outage", "no-such-host"):
        assert (tried[name].verdict, rules(tried[name])) == ("degraded", {"elsewhere"}), name


def test_what_happened_behind_is_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, TWO, models=MODELS, roles=chain())
    played = drill(config, "dev", "revoked-key")["revoked-key"].played[0]
    first = played.calls[0]
    assert (first.status, first.whole, first.provider) == (200, True, "groq")
    assert [(provider, meaning) for provider, _, meaning, _ in first.attempts] == [
        ("groq", "invalid_key"),
        ("groq", "ok"),
    ]
    (rest,) = played.rests
    assert rest.what == config.credentials["groq"][0].shown
    assert rest.reason == "invalid_key"
    assert rest.seconds == pytest.approx(86_400.0)
    limited = drill(config, "dev", "limits-everywhere")["limits-everywhere"].played[0]
    assert limited.calls[0].status == 429
    assert limited.calls[0].retry_after is not None
    assert limited.again is not None
    assert limited.again.whole


def test_a_role_at_one_provider_while_another_could_answer(tmp_path: Path) -> None:
    only = "roles: { dev: { model_chain: [llama] } }\n"
    tried = drill(
        config_of(tmp_path, TWO, models=MODELS, roles=only), "dev", "outage", "revoked-key", "brief-limit-all"
    )
    assert tried["revoked-key"].verdict == "fine"
    assert tried["outage"].verdict == "surprising"
    told = finding(tried["outage"], "alone")
    assert "together could answer" in told.text
    assert "roles.yaml, dev" in told.hint


def test_a_single_key_makes_every_429_visible(tmp_path: Path) -> None:
    one = {"GROQ_API_KEY": "gsk_planted_one", "GROQ_CHAT_MODEL": "llama-3.1-8b-instant"}
    tried = drill(config_of(tmp_path, one), "auto", "minute-limit", "day-quota", "revoked-key", "tight-limits")
    assert {name: each.verdict for name, each in tried.items()} == dict.fromkeys(tried, "surprising")
    assert "GROQ_API_KEY_2" in finding(tried["minute-limit"], "one-key").hint
    pair = one | {"GROQ_API_KEY_2": "gsk_planted_two"}
    assert drill(config_of(tmp_path, pair), "auto", "minute-limit")["minute-limit"].verdict == "fine"
    shared = pair | {"QUOTA_GROUP_GROQ": "0,2"}
    assert rules(drill(config_of(tmp_path, shared), "auto", "minute-limit")["minute-limit"]) >= {"one-key"}


def test_limits_that_hardly_allow_anything(tmp_path: Path) -> None:
    environ = {"GROQ_API_KEY": "gsk_planted_one", "GROQ_CHAT_MODEL": "m", "LIMITS_GROQ": "rpm=1"}
    tried = drill(config_of(tmp_path, environ), "auto", "healthy", "one-500", "outage")
    assert tried["healthy"].verdict == "fine"
    assert "do not allow three calls" in tried["outage"].skipped


def test_only_one_provider_is_configured(tmp_path: Path) -> None:
    environ = {name: key for name, key in TWO.items() if name.startswith("GROQ")} | {"GROQ_CHAT_MODEL": "m"}
    tried = drill(config_of(tmp_path, environ), "auto", "outage")["outage"]
    assert tried.verdict == "degraded"
    assert "only provider that is configured" in finding(tried, "refused").text


def test_the_paid_gate_leaves_nobody(tmp_path: Path) -> None:
    roles = "roles: { dev: { model_chain: [llama, dear] }, only: { model_chain: [dear] } }\n"
    config = config_of(tmp_path, TWO, models=MODELS, roles=roles)
    tried = drill(config, "dev", "outage")["outage"]
    assert tried.verdict == "surprising"
    assert "USE_PAID_MODELS=true" in finding(tried, "paid-gate").hint
    shut = drill(config, "only", "healthy", "outage")
    assert rules(shut["healthy"]) == {"paid-gate"}
    assert shut["outage"].skipped == "nobody answers this route"


def test_who_asks_for_one_provider_by_its_name_is_not_surprised(tmp_path: Path) -> None:
    tried = drill(config_of(tmp_path, TWO), "groq/some-model", "outage")["outage"]
    assert tried.verdict == "degraded"
    assert "groq/some-model gets no other provider" in finding(tried, "refused").hint


def test_the_clients_patience_is_the_measure(tmp_path: Path) -> None:
    config = config_of(tmp_path, TWO, models=MODELS, roles=chain())
    assert drill(config, "dev", "slow-to-begin")["slow-to-begin"].verdict == "degraded"
    hasty = drill(config, "dev", "slow-to-begin", patience=30.0)["slow-to-begin"]
    assert "TIMEOUT_FIRST_TOKEN" in finding(Tried(hasty.shape, hasty.played[1:], hasty.findings[1:]), "too-slow").hint
    adaptive = config_of(tmp_path, TWO | {"TIMEOUT_NO_CONTENT": "40"}, models=MODELS, roles=chain())
    assert drill(adaptive, "dev", "hangs")["hangs"].verdict == "degraded"


def test_a_rule_can_be_accepted(tmp_path: Path) -> None:
    config = config_of(tmp_path, TWO, models=MODELS, roles=chain())
    assert rules(drill(config, "dev", "cut-stream")["cut-stream"]) == {"cut"}
    assert drill(config, "dev", "cut-stream", accepted=["cut"])["cut-stream"].verdict == "degraded"


def test_the_clients_own_mistake_is_fine_as_it_comes(tmp_path: Path) -> None:
    tried = drill(config_of(tmp_path, TWO, models=MODELS, roles=chain()), "dev", "bad-request", "content-filter")
    assert {each.verdict for each in tried.values()} == {"fine"}
    assert tried["bad-request"].played[0].calls[0].status == 400


def test_a_drill_is_the_same_each_time(tmp_path: Path) -> None:
    config = config_of(tmp_path, TWO, models=MODELS, roles=chain())
    shapes = ("vague-401", "minute-limit-all", "wordless-429", "tight-limits", "packets-vanish")
    first, second = drill(config, "dev", *shapes), drill(config, "dev", *shapes)
    assert {name: each.verdict for name, each in first.items()} == {name: each.verdict for name, each in second.items()}
    assert {name: each.played for name, each in first.items()} == {name: each.played for name, each in second.items()}
    assert len(SHAPES) >= 30


def test_no_real_key_takes_part(tmp_path: Path) -> None:
    config = config_of(tmp_path, TWO, models=MODELS, roles=chain())
    report = drilled(config, ["dev"], config.default_caller, shapes=[SHAPES["revoked-key"], SHAPES["bad-request"]])
    assert "planted" not in repr(report)
    assert "planted" not in repr(report[0].route)


def test_tools_and_g4f_play_too(tmp_path: Path) -> None:
    models = """
providers:
  claude_code: { kind: cli, cmd: ["true", "--model", "${MODEL}"], timeout: 90 }
provider_routes:
  - { id: opus, provider: claude_code, model: opus, is_paid: false }
"""
    environ = {"G4F_MAIN_API_BASE": "http://127.0.0.1:9/v1", "G4F_CHAT_MODEL": "gpt-4o", "PATH": os.environ["PATH"]}
    config = config_of(tmp_path, environ, models=models)
    tried = drill(config, "opus", "healthy", "no-such-host", "revoked-key", "hangs", "no-credit-at-all")
    assert tried["healthy"].verdict == "fine"
    assert "command line tool" in tried["no-such-host"].skipped
    assert "without a key" in tried["revoked-key"].skipped
    hangs = tried["hangs"].played[0].calls[0]
    assert hangs.seconds == pytest.approx(90.0, abs=1.0)
    assert tried["no-credit-at-all"].played[0].calls[0].attempts[0][2] == "insufficient_credit"
    last = drill(config, "auto", "healthy", "outage", "web-page")
    assert last["healthy"].verdict == "fine"
    assert last["web-page"].played[0].calls[0].attempts[0][0] == "g4f"


def test_other_dialects_play_too(tmp_path: Path) -> None:
    environ = {
        "GEMINI_API_KEY_1": "AIza_planted_1",
        "GEMINI_API_KEY_2": "AIza_planted_2",
        "ANTHROPIC_API_KEY": "sk-ant-p",
    }
    roles = "roles: { dev: { model_chain: [gemini/gemini-2.5-flash, anthropic/claude-sonnet-4-5] } }\n"
    shapes = ("healthy", "outage", "minute-limit", "cut-stream", "bad-request")
    tried = drill(config_of(tmp_path, environ, roles=roles), "dev", *shapes)
    assert tried["healthy"].verdict == "fine"
    assert rules(tried["outage"]) == {"elsewhere"}
    assert tried["minute-limit"].verdict == "fine"


def test_what_is_drilled_when_nobody_says_what(tmp_path: Path) -> None:
    assert routes_of(config_of(tmp_path, TWO, models=MODELS, roles=chain())) == ("dev", "llama", "dear", "auto")
    assert routes_of(load({"MINE_API_BASE": "http://127.0.0.1:9/v1", "MINE_MODELS": "m,n"}, cwd=tmp_path / "x")) == (
        "mine/m",
    )
    assert routes_of(load({}, cwd=tmp_path / "x")) == ("demo/echo",)


def test_the_demo_pool(tmp_path: Path) -> None:
    tried = drill(load({}, cwd=tmp_path), "demo/echo", "healthy", "outage")
    assert tried["healthy"].verdict == "fine"
    assert tried["outage"].verdict == "degraded"


def test_a_report_is_json(tmp_path: Path) -> None:
    heard: list[Drilled] = []
    config = config_of(tmp_path, TWO)
    drilled(config, ["groq/m"], config.default_caller, shapes=[SHAPES["healthy"]], told=heard.append)
    assert json.dumps(heard[0].route._asdict())
