"""`keyturn config show|check|schema` and `keyturn doctor`: what is configured, from where, and never a secret."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from .conftest import Terminal

ROOT = Path(__file__).parents[2]


def shown(terminal: Terminal, *args: str) -> dict[str, dict[str, Any]]:
    result = terminal.run("config", "show", "--json", *args)
    assert result.exit_code == 0, result.output
    return {row["setting"]: row for row in json.loads(result.stdout)}


def test_show_tells_where_each_value_came_from(terminal: Terminal) -> None:
    (terminal.cwd / ".env").write_text("GROQ_API_KEY_1=gsk_one\n\nKEYTURN_PORT=9001\nTIMEOUT_READ_STREAMING=90\n")
    terminal.set(PROVIDER_PRIORITY_GROQ="7", MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ_BALANCED="3")
    rows = shown(terminal, "--data", "elsewhere")
    assert (rows["server.port"]["value"], rows["server.port"]["from"]) == (9001, "KEYTURN_PORT (.env:3)")
    assert (rows["groq.tier"]["value"], rows["groq.tier"]["from"]) == (7, "PROVIDER_PRIORITY_GROQ (environment)")
    assert rows["groq.max_concurrent"]["from"] == "MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ_BALANCED (environment)"
    assert rows["groq.key"]["from"] == "GROQ_API_KEY_1 (.env:1)"
    assert rows["timeouts.silence"] == {
        "setting": "timeouts.silence",
        "value": 90.0,
        "from": "TIMEOUT_READ_STREAMING (.env:4)",
    }
    assert rows["timeouts.connect"]["from"] == "default"
    assert rows["data"] == {"setting": "data", "value": str(terminal.cwd / "elsewhere"), "from": "--data"}


def test_no_view_of_the_configuration_shows_a_secret(terminal: Terminal) -> None:
    secrets = {"GROQ_API_KEY": "gsk_planted_1", "PROXY_API_KEY": "caller_planted_2", "GORQ_API_KEY": "gsk_planted_3"}
    terminal.set(**secrets)
    for args in (
        ["config", "show"],
        ["config", "show", "--json"],
        ["config", "check"],
        ["doctor"],
        ["doctor", "--env"],
    ):
        output = terminal.run(*args).output
        assert "GORQ_API_KEY" in output or "groq-0:" in output
        assert "planted" not in output


def test_check_says_what_is_odd(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY="a", GORQ_API_KEY="b")
    result = terminal.run("config", "check")
    assert result.stdout == "The configuration is valid: 1 provider, 1 key.\n"
    assert "did you mean GROQ_API_KEY?" in result.stderr


def test_check_tells_of_oddities_beside_mistakes(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY="two words", GORQ_API_KEY="b")
    for command in ("config check", "doctor"):
        result = terminal.run(*command.split())
        assert result.exit_code == 3
        assert "the key holds a space" in result.output
        assert "did you mean GROQ_API_KEY?" in result.output


def test_show_tells_what_the_files_say_and_where(terminal: Terminal) -> None:
    folder = terminal.cwd / "config"
    folder.mkdir()
    (folder / "models.yaml").write_text(
        "providers:\n  groq:\n    plan: free\n    api_keys: [gsk_planted_in_a_file]\n"
        "    rotation: { strategy: sequential, cooldown_seconds: 5 }\n"
        "  mistral: { kind: http }\n  mine: { kind: cli, cmd: [no-such-program] }\n"
        "provider_routes: [{ id: a, provider: groq }, { id: b, provider: groq }]\naliases: { fast: [a, b] }\n"
    )
    (folder / "roles.yaml").write_text("roles:\n  qa: { model: a, providers: [groq], budgets: { monthly_limit: 5 } }\n")
    (folder / "limits.yaml").write_text("providers: { groq: { models: { a: { rpm: 5 } } } }\n")
    (folder / "settings.toml").write_text('[server]\nport = 9000\n[cooldown]\nprofile = "fixed"\n')
    rows = {name: (row["value"], row["from"]) for name, row in shown(terminal).items()}
    models = "config/models.yaml"
    assert rows["groq.plan"] == ("free", f"{models}:3")
    assert rows["groq.strategy"] == ("sequential", f"{models}:5")
    assert rows["groq.rotation"] == ("cooldown_seconds=5.0", f"{models}:5")
    assert rows["groq.key"][1] == f"{models}:4"
    assert rows["mistral.key"] == ("(none: set MISTRAL_API_KEY)", "")
    assert rows["mine.found"] == (False, "PATH")
    assert rows["routes"] == (2, models)
    assert rows["alias.fast"] == (["a", "b"], f"{models}:9")
    assert rows["role.qa"] == (["a", "(at groq)"], "config/roles.yaml:2")
    assert rows["role.qa.monthly_usd"] == (5.0, "config/roles.yaml:2")
    assert rows["groq.limit_rules"] == (1, "config/limits.yaml")
    assert rows["server.port"] == (9000, "config/settings.toml:2")
    assert rows["cooldown.profile"] == ("fixed", "config/settings.toml:4")
    assert "planted" not in terminal.run("config", "show").output
    said = terminal.run("config", "check").stdout
    assert said == "The configuration is valid: 2 providers, 1 key, 2 routes, 1 role.\n"


def test_check_names_the_mistakes_of_all_files_and_exits_with_3(terminal: Terminal) -> None:
    folder = terminal.cwd / "config"
    folder.mkdir()
    (folder / "models.yaml").write_text("providers: { groq: { plan: fre } }\n")
    (folder / "roles.yaml").write_text("rolls: {}\n")
    result = terminal.run("config", "check")
    assert result.exit_code == 3
    assert "config/models.yaml:1: providers.groq.plan: 'fre' is not one of free and paid" in result.output
    assert "config/roles.yaml:1: rolls: is not a key that is known here; did you mean roles?" in result.output


def test_schema_prints_one_or_all(terminal: Terminal) -> None:
    roles = json.loads(terminal.run("config", "schema", "roles").stdout)
    assert roles["title"] == "Keyturn roles.yaml"
    everything = json.loads(terminal.run("config", "schema").stdout)
    assert list(everything) == ["models", "roles", "limits", "callers", "settings"]
    assert everything["roles"] == roles
    assert terminal.run("config", "schema", "users").exit_code == 2


def findings(terminal: Terminal, *args: str) -> dict[str, tuple[str, str]]:
    result = terminal.run("doctor", "--json", *args)
    return {row["check"]: (row["state"], row["detail"]) for row in json.loads(result.stdout)}


def test_doctor_on_a_fresh_folder(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        terminal.set(KEYTURN_PORT=str(busy.getsockname()[1]))
        assert terminal.run("doctor").exit_code == 1
        found = findings(terminal)
    assert found["providers"][0] == "warn"
    assert found["port"][0] == "fail"
    assert found["data folder"] == ("ok", f"{terminal.cwd}/.cache will be made at the first start")
    assert terminal.run("doctor").exit_code == 0


def test_doctor_finds_files_that_others_can_read(terminal: Terminal) -> None:
    (terminal.cwd / ".env").write_text("GROQ_API_KEY=a\n")
    (terminal.cwd / ".env").chmod(0o644)
    terminal.set(KEYTURN_PORT="0")
    found = findings(terminal)
    assert found["env file"] == (
        "warn",
        f"{terminal.cwd}/.env is open to other users (644): chmod 600 {terminal.cwd}/.env",
    )


def test_doctor_counts_keys_and_their_groups(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="a", GROQ_API_KEY_2="b", QUOTA_GROUP_GROQ="1,2")
    assert findings(terminal)["groq"][1].startswith("2 keys in 1 quota group, ")


def test_doctor_tells_of_mistakes_and_exits_with_3(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY="two words")
    assert terminal.run("doctor").exit_code == 3
    assert findings(terminal)["configuration"][0] == "fail"


def test_doctor_online_asks_every_provider(terminal: Terminal, simulator: str) -> None:
    terminal.set(
        KEYTURN_PORT="0",
        GROQ_API_KEY="gsk_revoked",
        GROQ_API_BASE=f"{simulator}/groq/v1",
        MISTRAL_API_KEY="any",
        MISTRAL_API_BASE="http://127.0.0.1:9/v1",
    )
    found = findings(terminal, "--online")
    assert found["groq online"][0] == "warn"
    assert found["groq online"][1].startswith("invalid_key, status 401")
    assert found["mistral online"][0] == "fail"


def test_DEP_01_a_copy_of_the_example_is_all_that_a_run_from_source_needs(terminal: Terminal) -> None:
    example = (ROOT / ".env.example").read_text()
    (terminal.cwd / ".env").write_text(example.replace("GROQ_API_KEY_1=\n", "GROQ_API_KEY_1=gsk_planted_1\n"))
    checked = terminal.run("config", "check")
    assert checked.exit_code == 0, checked.output
    assert "1 provider, 1 key" in checked.stdout
    assert terminal.run("doctor").exit_code == 0
