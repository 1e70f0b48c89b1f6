"""`keyturn keys …` without a running gateway: lists, tests, adds and switches."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import fingerprint

from .conftest import Terminal


def listed(terminal: Terminal, *args: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(terminal.run("keys", "list", "--json", *args).stdout)
    return rows


def test_list_shows_the_configuration_and_says_so(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_2="gsk_planted", LIMITS_GROQ="rpm=30", OPENAI_API_KEY="sk_planted")
    result = terminal.run("keys", "list")
    assert "No gateway is running" in result.stderr
    assert "planted" not in result.output
    (row,) = listed(terminal, "groq")
    assert (row["key"], row["state"]) == (f"groq-2:{fingerprint('groq', 'gsk_planted')[:6]}", "configured")
    (limit,) = row["limits"]
    assert (limit["metric"], limit["window"], limit["capacity"], limit["source"]) == (
        "requests",
        "minute",
        30,
        "declared",
    )


def test_disable_and_enable_are_kept_by_identity(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_one", GROQ_API_KEY_2="gsk_two")
    assert terminal.run("keys", "disable", "groq-2").exit_code == 0
    terminal.set(GROQ_API_KEY_2="gsk_three", GROQ_API_KEY_5="gsk_two")
    assert {row["key"].partition(":")[0]: row["state"] for row in listed(terminal)} == {
        "groq-1": "configured",
        "groq-2": "configured",
        "groq-5": "disabled",
    }
    assert stat.S_IMODE((terminal.cwd / ".cache" / "disabled.json").stat().st_mode) == 0o600
    assert "gsk" not in (terminal.cwd / ".cache" / "disabled.json").read_text()
    terminal.run("keys", "enable", "groq")
    assert {row["state"] for row in listed(terminal)} == {"configured"}


def test_groups_that_were_found_out_are_shown_and_taken_apart(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_one", GROQ_API_KEY_2="gsk_two", GROQ_API_KEY_3="gsk_three")
    assert "no keys were found to share a quota" in terminal.run("keys", "groups").stdout
    one, two = fingerprint("groq", "gsk_one"), fingerprint("groq", "gsk_two")
    file = terminal.cwd / ".cache" / "quota_groups.json"
    file.parent.mkdir(exist_ok=True)
    known = {"provider": "groq", "keys": [one, two], "since": 1.7e9, "evidence": ["they were refused together"]}
    file.write_text(json.dumps({"groups": [known], "apart": []}))
    (row,) = json.loads(terminal.run("keys", "groups", "--json").stdout)
    assert row == known | {
        "keys": [f"groq-1:{one[:6]}", f"groq-2:{two[:6]}"],
        "since": "2023-11-14T22:13:20Z",
        "state": "inferred",
    }
    assert "they were refused together" in terminal.run("keys", "groups", "groq").stdout
    assert "nothing, it was in no group" in terminal.run("keys", "ungroup", "groq-3").stdout
    result = terminal.run("keys", "ungroup", "groq-2")
    assert f"taken apart: groq-1:{one[:6]}, groq-2:{two[:6]}" in result.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {"groups": [], "apart": [{"provider": "groq", "keys": sorted([one, two])}]}


@pytest.mark.parametrize("action", ["disable", "enable", "reset", "test", "ungroup"])
def test_a_key_that_is_not_there_is_wrong_usage(terminal: Terminal, action: str) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_one")
    result = terminal.run("keys", action, "groq-9")
    assert result.exit_code == 2
    assert "there are groq-1:" in result.stderr


@pytest.mark.parametrize("command", ["keys list", "models"])
@pytest.mark.parametrize(
    ("name", "hint"), [("groq-3", "did you mean groq?"), ("gorq", "did you mean groq?"), ("zzz", "there are groq, xai")]
)
def test_a_provider_that_is_not_there_is_wrong_usage(terminal: Terminal, command: str, name: str, hint: str) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_one", XAI_API_KEY="two")
    result = terminal.run(*command.split(), name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"no configured provider is called {name}; {hint}" in result.stderr


def test_list_knows_a_provider_by_its_alias(terminal: Terminal) -> None:
    terminal.set(GEMINI_API_KEY_1="one")
    assert listed(terminal, "google") == listed(terminal, "gemini") == listed(terminal)


def test_list_counts_the_calls_under_way(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = {"metric": "concurrency", "window": "inflight", "model": None, "capacity": 3, "used": 0, "reserved": 1}
    row = {"provider": "groq", "key": "groq-1:abcdef", "state": "healthy", "until": None, "reason": None}

    class Running:
        def ask(self, path: str) -> list[dict[str, Any]]:
            return (
                []
                if path.endswith("/groups")
                else [row | {"limits": [limit, limit | {"metric": "requests", "window": "minute", "used": 1}]}]
            )

    monkeypatch.setattr("keyturn.cli.live.find_gateway", lambda config, otherwise: Running())
    assert "concurrency/inflight 1 of 3; requests/minute 2 of 3" in terminal.run("keys", "list").stdout


def test_a_key_is_known_by_the_letters_that_are_shown(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_one", GROQ_API_KEY_2="gsk_two")
    mark = fingerprint("groq", "gsk_two")[:6]
    assert terminal.run("keys", "disable", mark).stdout == f"disabled: groq-2:{mark}\n"


def test_reset_without_a_gateway_has_nothing_to_forget(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_one")
    result = terminal.run("keys", "reset")
    assert result.exit_code == 0
    assert "there are no cooldowns to forget" in result.stderr


def test_add_reads_the_key_from_stdin_and_says_what_it_did(terminal: Terminal) -> None:
    first = terminal.run("keys", "add", "groq", input="gsk_planted_1\n")
    second = terminal.run("keys", "add", "groq", input="gsk_planted_2")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert (terminal.cwd / ".env").read_text() == "GROQ_API_KEY_1=gsk_planted_1\nGROQ_API_KEY_2=gsk_planted_2\n"
    assert f"GROQ_API_KEY_2 was added to {terminal.cwd}/.env" in second.stdout
    (backup,) = (path for path in terminal.cwd.iterdir() if ".bak." in path.name)
    assert str(backup) in second.stdout
    assert "planted" not in first.output + second.output


def test_add_takes_no_key_from_the_command_line(terminal: Terminal) -> None:
    result = terminal.run("keys", "add", "groq", "gsk_planted")
    assert result.exit_code == 2
    assert not (terminal.cwd / ".env").exists()


def test_add_to_a_file_of_its_own(terminal: Terminal) -> None:
    assert terminal.run("keys", "add", "groq", "--env-file", "prod.env", input="gsk_one").exit_code == 0
    assert Path("prod.env").read_text() == "GROQ_API_KEY_1=gsk_one\n"


@pytest.mark.parametrize(
    ("provider", "key", "code", "said"),
    [
        ("gorq", "gsk_planted", 2, "no provider is called gorq; did you mean groq?"),
        ("groq", "two words planted", 1, "the key holds a space"),
        ("groq", "", 1, "the key is empty"),
    ],
)
def test_add_refuses_what_cannot_be(terminal: Terminal, provider: str, key: str, code: int, said: str) -> None:
    result = terminal.run("keys", "add", provider, input=key)
    assert result.exit_code == code
    assert said in result.stderr
    assert "The configuration" not in result.output
    assert "planted" not in result.output
    assert not list(terminal.cwd.iterdir())


def test_add_refuses_a_key_that_is_there(terminal: Terminal) -> None:
    terminal.run("keys", "add", "groq", input="gsk_planted")
    result = terminal.run("keys", "add", "groq", input="gsk_planted")
    assert (result.exit_code, result.stderr) == (1, "this key is already there, as GROQ_API_KEY_1 (.env:1)\n")


def test_test_says_what_each_key_is_worth(terminal: Terminal, simulator: str) -> None:
    terminal.set(
        GROQ_API_BASE=f"{simulator}/groq/v1",
        GROQ_API_KEY_1="gsk_good_1",
        GROQ_API_KEY_2="gsk_revoked",
        MISTRAL_API_BASE="http://127.0.0.1:9/v1",
        MISTRAL_API_KEY="any",
    )
    result = terminal.run("keys", "test", "--json")
    assert result.exit_code == 1
    assert {row["variable"]: (row["meaning"], row["status"]) for row in json.loads(result.stdout)} == {
        "GROQ_API_KEY_1": ("ok", 200),
        "GROQ_API_KEY_2": ("invalid_key", 401),
        "MISTRAL_API_KEY": ("server_error", None),
    }
    assert terminal.run("keys", "test", "groq-1").exit_code == 0


def test_test_needs_a_key(terminal: Terminal) -> None:
    assert terminal.run("keys", "test").exit_code == 2


def test_a_file_that_cannot_be_written_is_said(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_one")
    (terminal.cwd / ".cache" / "disabled.json").mkdir(parents=True)
    result = terminal.run("keys", "disable", "groq-1")
    assert result.exit_code == 3
    assert "disabled.json" in result.stderr


def test_CFG_50_without_any_endpoint_of_g4f_the_variables_are_named(terminal: Terminal) -> None:
    for variables in ({}, {"GROQ_API_KEY": "gsk_planted_1"}):
        terminal.set(**variables)
        result = terminal.run("keys", "test", "g4f")
        assert result.exit_code == 2
        for name in ("MAIN", "GROQ", "GROK", "GEMINI", "NVIDIA"):
            assert f"G4F_{name}_API_BASE" in result.output
