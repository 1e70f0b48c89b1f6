"""`keyturn config merge` as a person runs it."""

from __future__ import annotations

from .conftest import Terminal

NEW = "provider_routes:\n  - { id: newer, provider: groq }\n"


def test_a_merge_tells_what_was_kept_and_added_and_where_the_backup_is(terminal: Terminal) -> None:
    (terminal.cwd / "config").mkdir()
    models = terminal.cwd / "config" / "models.yaml"
    models.write_text("provider_routes:\n  - { id: older, provider: groq }\n")
    (terminal.cwd / "models.yaml.new").write_text(NEW)
    result = terminal.run("config", "merge", "models.yaml.new")
    assert result.exit_code == 0
    (backup,) = (terminal.cwd / "config").glob("models.yaml.bak.*")
    assert "kept of provider_routes: older\n" in result.stdout
    assert "added to providers: groq, together, openrouter, google_ai_studio, codex_cli, claude_code\n" in result.stdout
    assert f"the file as it was before: {backup}\n" in result.stdout
    assert not (terminal.cwd / "models.yaml.new").exists()
    assert models.read_text().startswith(f"{NEW}  - {{ id: older, provider: groq }}\n\nproviders:\n  groq:\n")


def test_a_result_that_would_not_load_is_refused_with_its_mistakes(terminal: Terminal) -> None:
    (terminal.cwd / "models.yaml.new").write_text("provider_routes:\n  - { id: x, provider: gorq }\n")
    result = terminal.run("config", "merge", "models.yaml.new", "--config", "elsewhere", "--keep-source")
    assert result.exit_code == 3
    assert "elsewhere/models.yaml:2: " in result.stderr
    assert "groq" in result.stderr
    assert "So would it be with" in result.stderr
    assert not (terminal.cwd / "elsewhere" / "models.yaml").exists()
