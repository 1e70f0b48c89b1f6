"""`keyturn routes list|explain` and `keyturn limits list`, from the configuration and from a running gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.setup import Place, read_config
from keyturn.config import DataFolder
from keyturn.core import Deployment
from keyturn.dispatch import build

from .conftest import Terminal, start, stop

MODELS = """
providers:
  groq: { kind: http, base_url: "URL/groq/v1", env_key: GROQ_API_KEY, plan: free }
  mistral: { kind: http, base_url: "URL/mistral/v1", env_key: MISTRAL_API_KEY }
provider_routes:
  - { id: llama, provider: groq, model: llama-3.1-8b-instant, is_paid: false, tier: free }
  - id: large
    provider: mistral
    model: mistral-large-latest
    is_paid: true
    tier: performance
    price: { input: 2, output: 6 }
aliases: { fast: [llama], dear: [large] }
"""
ROLES = "roles: { senior_dev: { model_chain: [large, llama], budgets: { monthly_limit: 200 } } }\n"
LIMITS = (
    "providers: { groq: { plan: free, models: { llama-3.1-8b-instant: { rpm: 30 }, gone: { unavailable: true } } } }\n"
)
CALLERS = f"ci: {{ key_hash: 'sha256:{'0' * 64}', routes: [fast], rpm: 7 }}\n"


def write(cwd: Path, url: str = "http://127.0.0.1:9") -> None:
    (cwd / "config").mkdir(exist_ok=True)
    files = {"models.yaml": MODELS.replace("URL", url), "roles.yaml": ROLES, "limits.yaml": LIMITS}
    for name, text in (files | {"callers.yaml": CALLERS}).items():
        (cwd / "config" / name).write_text(text)


def explained(terminal: Terminal, *args: str) -> dict[str, Any]:
    result = terminal.run("routes", "explain", "--json", *args)
    told = json.loads(result.stdout)
    assert isinstance(told, dict)
    assert result.exit_code == (1 if told["error"] else 0)
    return told


def test_routes_list(terminal: Terminal) -> None:
    write(terminal.cwd)
    terminal.set(GROQ_API_KEY="gsk_planted_1")
    rows = {row["name"]: row for row in json.loads(terminal.run("routes", "list", "--json").stdout)}
    assert set(rows) == {"fast", "dear", "senior_dev", "llama", "large", "auto"}
    assert (rows["auto"]["kind"], rows["auto"]["chain"]) == ("default", ["groq/llama3-8b-8192"])
    assert rows["senior_dev"]["budget_usd"] == 200
    assert rows["large"]["chain"] == ["mistral/mistral-large-latest"]
    assert (rows["large"]["paid"], rows["large"]["price_tier"]) == (True, "performance")
    assert "200 USD a month" in terminal.run("routes", "list").stdout


def test_explain_tells_who_is_asked_and_who_is_left_out(terminal: Terminal) -> None:
    write(terminal.cwd)
    terminal.set(GROQ_API_KEY_1="gsk_planted_1", GROQ_API_KEY_2="gsk_planted_2")
    told = explained(terminal, "senior_dev")
    (step,) = told["steps"]
    (deployment,) = step["deployments"]
    assert (deployment["provider"], deployment["model"]) == ("groq", "llama-3.1-8b-instant")
    assert [row["state"] for row in deployment["candidates"]] == ["free", "free"]
    assert told["refusals"] == ["mistral/mistral-large-latest: no key, set MISTRAL_API_KEY"]
    assert told["own_limits"][0]["capacity"] == 200
    said = terminal.run("routes", "explain", "senior_dev").stdout
    assert "left out: mistral/mistral-large-latest: no key, set MISTRAL_API_KEY" in said
    assert "planted" not in said


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["dear"], "paid_route"),
        (["fast", "--caller", "ci"], None),
        (["llama", "--caller", "ci"], "route_not_allowed"),
        (["nowhere"], "model_not_found"),
        (["groq/gone"], "model_not_found"),
    ],
)
def test_explain_gives_the_error_that_a_client_would_get(terminal: Terminal, args: list[str], code: str | None) -> None:
    write(terminal.cwd)
    terminal.set(GROQ_API_KEY="gsk_planted_1", MISTRAL_API_KEY="planted_2")
    told = explained(terminal, *args)
    assert (told["error"] and told["error"]["code"]) == code


def test_explain_for_a_caller_that_does_not_exist(terminal: Terminal) -> None:
    write(terminal.cwd)
    terminal.set(GROQ_API_KEY="gsk_planted_1")
    result = terminal.run("routes", "explain", "fast", "--caller", "nobody")
    assert result.exit_code == 2
    assert "no caller is called nobody; there are ci, default" in result.output


def test_explain_of_a_call_of_some_size_tells_what_it_is_charged_and_costs(terminal: Terminal) -> None:
    write(terminal.cwd)
    terminal.set(GROQ_API_KEY="gsk_planted_1", MISTRAL_API_KEY="planted", USE_PAID_MODELS="true")
    said = terminal.run("routes", "explain", "senior_dev", "--tokens", "1000", "--output", "500").stdout.splitlines()
    assert said[1] == (
        "  1. mistral/mistral-large-latest (2 / 6 USD per million, this call is charged 1,556 tokens and costs about "
        "0.003536 USD)"
    )
    assert said[2].startswith("     > mistral-0:")
    assert said[4].startswith("       groq-0:")
    told = explained(terminal, "senior_dev", "--tokens", "1000")
    assert [row["chosen"] for row in told["steps"][0]["deployments"][0]["candidates"]] == [True]
    assert terminal.run("routes", "explain", "fast", "--tokens", "0").exit_code == 2


def test_limits_list(terminal: Terminal) -> None:
    write(terminal.cwd)
    terminal.set(GROQ_API_KEY="gsk_planted_1", LIMITS_MISTRAL="rpm=5")
    rows = json.loads(terminal.run("limits", "list", "--json").stdout)
    by_models = {(row["provider"], row["models"]): row for row in rows}
    assert by_models["groq", "llama-3.1-8b-instant"]["limits"] == "requests/minute=30"
    assert by_models["groq", "llama-3.1-8b-instant"]["from"].endswith("config/limits.yaml:1")
    assert by_models["groq", "gone"]["limits"] == "not offered"
    assert "not offered" in terminal.run("limits", "list", "groq").stdout


def test_a_running_gateway_explains_its_live_state_and_takes_up_changes(terminal: Terminal, simulator: str) -> None:
    write(terminal.cwd, simulator)
    (terminal.cwd / ".env").write_text("GROQ_API_KEY_1=gsk_revoked\nGROQ_API_KEY_2=gsk_good_1\n")
    process, _ = start("serve", "--port", "0", cwd=terminal.cwd, until="listens on", environ=dict(os.environ))
    try:
        assert "Hello" in terminal.run("chat", "-m", "fast", "Hello").output
        told = explained(terminal, "fast")
        states = {row["key"][:6]: row["state"] for row in told["steps"][0]["deployments"][0]["candidates"]}
        assert states == {"groq-1": "invalid", "groq-2": "free"}
        models = terminal.cwd / "config" / "models.yaml"
        good = models.read_text()
        models.write_text(good.replace("provider: groq,", "provider: gorq,"))
        wait_for(process, "no provider is called gorq; did you mean groq?")
        models.write_text(good.replace("fast: [llama]", "quick: [llama]"))
        process.send_signal(signal.SIGHUP)
        wait_for(process, "the configuration was read again")
        assert explained(terminal, "quick")["error"] is None
        assert explained(terminal, "fast")["error"]["code"] == "model_not_found"
        process.send_signal(signal.SIGHUP)
        wait_for(process, "nothing is different")
    finally:
        assert stop(process) == 0


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read what *process* says until *text*; one that says it not within 20 s is ended, and the test fails."""
    said = ""
    guard = threading.Timer(20.0, process.kill)
    guard.start()
    try:
        while text not in said:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line, f"it ended: {said}"
            said += line
    finally:
        guard.cancel()


def test_without_a_gateway_its_first_line_says_what_it_goes_by(terminal: Terminal) -> None:
    write(terminal.cwd)
    terminal.set(GROQ_API_KEY="gsk_planted_1", LIMITS_GROQ="rpm=1")
    first, *_ = terminal.run("routes", "explain", "fast").stdout.splitlines()
    assert first == "fast for caller default, no live state is known:"

    async def limited() -> None:
        """A gateway uses the one request of this minute up, and ends."""
        config = read_config(Place(None, None, None))
        folder = DataFolder(config.data)
        folder.lock()
        gateway = build(config, folder=folder)
        await gateway.open()
        (entry,) = gateway.pools.of(Deployment("groq", "llama-3.1-8b-instant")).entries
        now = gateway.clock.mono()
        for scope in entry.limit_scopes:
            for limit in gateway.live.limits(scope):
                gateway.live.take(limit, limit.capacity, now)
        await gateway.close()
        folder.release()

    asyncio.run(limited())
    first, *rest = terminal.run("routes", "explain", "fast").stdout.splitlines()
    assert re.fullmatch(r"fast for caller default, as it stood (just now|\d+ seconds? ago):", first)
    assert any("limited" in line for line in rest)
