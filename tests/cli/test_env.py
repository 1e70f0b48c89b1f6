"""`keyturn env merge` as a person runs it."""

from __future__ import annotations

import re

from .conftest import Terminal


def test_a_merge_tells_names_and_the_backup_and_no_value(terminal: Terminal) -> None:
    (terminal.cwd / ".env").write_text("GROQ_API_KEY=planted-old\nTOGETHER_API_KEY=\n")
    new = "GROQ_API_KEY=planted-new\nTOGETHER_API_KEY=planted-filled\nOTHER=planted-added\n"
    (terminal.cwd / ".env.new").write_text(new)
    result = terminal.run("env", "merge", ".env.new")
    assert result.exit_code == 0
    assert "planted" not in result.output
    assert "added: OTHER\nfilled in: TOGETHER_API_KEY\n" in result.stdout
    assert (
        "kept, where the new file has another value: GROQ_API_KEY\nstill blank: OPENROUTER_API_KEY, " in result.stdout
    )
    (backup,) = terminal.cwd.glob(".env.bak.*")
    assert re.fullmatch(r"\.env\.bak\.\d{8}_\d{6}", backup.name)
    assert f"the file as it was before: {backup}\n" in result.stdout
    assert not (terminal.cwd / ".env.new").exists()


def test_the_source_may_be_kept_and_the_file_named(terminal: Terminal) -> None:
    (terminal.cwd / "new").write_text("A=1\n")
    result = terminal.run("env", "merge", "new", "--env-file", "prod.env", "--keep-source")
    assert "new is still there: as you asked" in result.stderr
    assert (terminal.cwd / "prod.env").read_text().startswith("A=1\n")
    assert (terminal.cwd / "new").exists()


def test_a_missing_source_is_wrong_usage_and_a_broken_one_a_mistake(terminal: Terminal) -> None:
    assert terminal.run("env", "merge", ".env.new").exit_code == 2
    (terminal.cwd / ".env.new").write_text("A='planted\n")
    result = terminal.run("env", "merge", ".env.new")
    assert result.exit_code == 3
    assert ".env.new:1: is not NAME=value" in result.stderr
    assert "planted" not in result.output
    assert not (terminal.cwd / ".env").exists()
