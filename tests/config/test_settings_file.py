"""settings.toml, under the variables and the options of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import Options, ServerSettings, Timeouts, load
from keyturn.core import Secret

from .files import loaded, write

SEED = """
    [general]
    project = "router"
    log_level = "DEBUG"

    [discord]
    enabled = true
    bot_token = "${DISCORD_BOT_TOKEN}"
    guild_id = 42

    [discord.webhooks]
    senior_dev = "https://discord.example/hook/planted-token"
    release_qa = ""

    [vault]
    path = "~/vault"

    [orchestrator]
    watch_interval = 1.0
    max_concurrent_tasks = 5

    [providers]
    use_paid_models = true
    timeout = 30.0
    max_retries = 3
"""


def test_CFG_13_settings(tmp_path: Path) -> None:
    config = loaded(tmp_path, settings=SEED, limits="")
    assert config.sections["general"] == {"project": "router", "log_level": "DEBUG"}
    assert config.sections["vault"] == {"path": "~/vault"}
    assert config.sections["orchestrator"] == {"watch_interval": 1.0, "max_concurrent_tasks": 5}
    assert config.use_paid
    assert (config.timeouts.first_token, config.timeouts.no_content) == (30.0, 30.0)
    assert config.notes == (
        "config/settings.toml:25: max_retries has no effect: another key or provider is tried while one is left",
    )


def test_CFG_13_timeouts_win_over_the_older_timeout(tmp_path: Path) -> None:
    config = loaded(tmp_path, settings="[providers]\ntimeout = 30\n[timeouts]\nfirst_token = 10\n")
    assert (config.timeouts.first_token, config.timeouts.no_content) == (10.0, 30.0)
    assert config.origins["timeouts.first_token"] == "config/settings.toml:4"
    assert config.origins["timeouts.no_content"] == "config/settings.toml:2"


def test_CFG_56_discord_variables_win_over_the_file(tmp_path: Path) -> None:
    environ = {
        "DISCORD_BOT_TOKEN": "token-of-the-bot",
        "DISCORD_APP_ID": "7",
        "DISCORD_MESSAGE_CONTENT": "1",
        "DISCORD_PRESENCE": "0",
        "RELEASE_QA_WEBHOOK_URL": "https://discord.example/hook/qa",
    }
    config = loaded(tmp_path, environ, settings=SEED)
    discord = config.sections["discord"]
    assert discord["bot_token"] == Secret("token-of-the-bot")
    assert discord["webhooks"] == {
        "senior_dev": Secret("https://discord.example/hook/planted-token"),
        "release_qa": Secret("https://discord.example/hook/qa"),
    }
    assert (discord["app_id"], discord["guild_id"], discord["enabled"]) == ("7", "42", True)
    assert (discord["message_content"], discord["presence"]) == (True, False)
    assert "token" not in repr(config.sections).replace("bot_token", "")


def test_CFG_56_without_anything_said_there_is_no_section(tmp_path: Path) -> None:
    assert loaded(tmp_path).sections == {}
    assert loaded(tmp_path, settings="[server]\nport = 1\n").sections == {}


def test_CFG_57_tuning_variables(tmp_path: Path) -> None:
    environ = {"ORCHESTRATOR_ROLES": "senior_dev, junior_dev", "LOG_LEVEL": "INFO", "OBSIDIAN_VAULT_PATH": "/v"}
    sections = loaded(tmp_path, environ, settings=SEED).sections
    assert sections["orchestrator"]["roles"] == ("senior_dev", "junior_dev")
    assert (sections["general"]["log_level"], sections["vault"]["path"]) == ("INFO", "/v")


def test_a_slip_in_a_section_of_others_is_noted_and_kept(tmp_path: Path) -> None:
    config = loaded(tmp_path, settings="[orchestrator]\nwatch_intervall = 2\n", limits="")
    assert config.sections["orchestrator"]["watch_intervall"] == 2
    assert config.notes == (
        "config/settings.toml:2: [orchestrator] watch_intervall is kept as it is; was watch_interval meant?",
    )


@pytest.mark.parametrize(
    ("value", "paid"),
    [(None, True), ("false", False), ("0", False), ("no", False), ("FALSE", False), ("true", True)],
)
def test_CFG_14_the_variable_wins_over_the_file(tmp_path: Path, value: str | None, paid: bool) -> None:
    environ = {} if value is None else {"USE_PAID_MODELS": value}
    config = loaded(tmp_path, environ, settings="[providers]\nuse_paid_models = true\n")
    assert config.use_paid is paid
    assert config.origins["use_paid"] == "config/settings.toml:2"
    assert not loaded(tmp_path, {"FREE_ONLY_MODE": "true"}).use_paid


def test_price_tiers(tmp_path: Path) -> None:
    write(tmp_path, settings='[providers]\nallowed_model_tiers = ["free", "cheap"]\n')
    assert loaded(tmp_path).price_tiers == frozenset({"free", "cheap"})
    assert loaded(tmp_path, {"ALLOWED_MODEL_TIERS": "ultra"}).price_tiers == frozenset({"ultra"})


def test_everything_of_the_server(tmp_path: Path) -> None:
    settings = """
        [server]
        host = "127.0.0.2"
        port = 9000
        allowed_hosts = ["LLM.example.com"]
        trust_local = true
        log_requests = true
        log_format = "json"
        max_body_mib = 1.5
        drain_seconds = 0
        [cooldown]
        profile = "patient"
    """
    config = loaded(tmp_path, settings=settings)
    assert config.server == ServerSettings(
        host="127.0.0.2", port=9000, allowed_hosts=("llm.example.com",), trust_local=True, log_requests=True,
        log_format="json", max_body=1536 * 1024, drain_seconds=0.0,
    )  # fmt: skip
    assert config.cooldown == "patient"
    assert loaded(tmp_path, settings="").cooldown == "adaptive"


def test_every_timeout(tmp_path: Path) -> None:
    names = [name for name in Timeouts.__dataclass_fields__ if name != "adaptive"]
    lines = "\n".join(f"{name} = {number}" for number, name in enumerate(names, start=1))
    timeouts = loaded(tmp_path, settings=f"[timeouts]\n{lines}\n").timeouts
    assert [getattr(timeouts, name) for name in names] == [float(number) for number in range(1, len(names) + 1)]
    assert loaded(tmp_path, {"GLOBAL_TIMEOUT": "99"}).timeouts.to_content == 99.0


def test_the_command_line_over_the_environment_over_the_env_file_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, settings='[server]\nport = 1\nhost = "127.0.0.1"\n[timeouts]\nconnect = 1\ntls = 1\nsilence = 1\n')
    (tmp_path / ".env").write_text("TIMEOUT_TLS=2\nTIMEOUT_SILENCE=2\nKEYTURN_PORT=2\nKEYTURN_HOST=127.0.0.2\n")
    environ = {"TIMEOUT_SILENCE": "3", "KEYTURN_PORT": "3"}
    config = load(environ, cwd=tmp_path, options=Options(port=4))
    assert (config.timeouts.connect, config.timeouts.tls, config.timeouts.silence) == (1.0, 2.0, 3.0)
    assert (config.server.port, config.server.host) == (4, "127.0.0.2")
