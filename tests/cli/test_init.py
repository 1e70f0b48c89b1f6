"""`keyturn init` as a person runs it."""

from __future__ import annotations

from .conftest import Terminal


def test_it_writes_what_is_missing_and_names_what_is_there(terminal: Terminal) -> None:
    (terminal.cwd / ".env").write_text("MINE=1\n")
    result = terminal.run("init", "--config", "settings")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "made: settings/models.yaml",
        "made: settings/roles.yaml",
        "made: settings/limits.yaml",
        "made: settings/settings.toml",
        "made: settings/callers.yaml",
        "made: settings/schema",
        "left as it is: .env",
    ]
    assert (terminal.cwd / ".env").read_text() == "MINE=1\n"
    again = terminal.run("init", "--config", "settings")
    assert again.exit_code == 0
    assert "made" not in again.stdout


def test_what_it_writes_is_valid(terminal: Terminal) -> None:
    terminal.run("init")
    terminal.set(GROQ_API_KEY="gsk_planted")
    result = terminal.run("config", "check")
    assert (result.exit_code, result.stderr) == (0, "")
