"""Command line tools of models.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import Config
from keyturn.config.tools import output_of
from keyturn.providers import Tool

from .files import loaded


def tool(config: Config, name: str) -> Tool:
    found = config.providers[name].tool
    assert found is not None
    return found


def program(folder: Path, name: str) -> None:
    """An executable of that name in *folder*."""
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_a_tool_is_found_on_the_path_or_kept_as_not_found(tmp_path: Path) -> None:
    program(tmp_path, "my-tool")
    models = """
        providers:
          mine: { kind: cli, cmd: [my-tool, "${MODEL}", ""], timeout: 7, concurrency: 3, models: [a] }
          other: { kind: cli, cmd: [no-such-program] }
    """
    config = loaded(tmp_path, {"PATH": str(tmp_path)}, models=models)
    assert tool(config, "mine").found
    assert not tool(config, "other").found
    assert tool(config, "mine").argv == ("my-tool", "${MODEL}", "")
    assert tool(config, "mine").timeout == 7.0
    assert config.max_concurrent == {"mine": 3, "other": 2}
    assert config.static_models == {"mine": ("a",)}
    row, (key,) = config.providers["mine"], config.credentials["mine"]
    assert (row.models_path, row.embeddings_path, row.keyless) == ("", "", True)
    assert not key.secret


def test_a_tool_sees_the_environment_that_it_needs_and_nothing_else(tmp_path: Path) -> None:
    environ = {
        "PATH": "/bin", "HOME": "/home/a", "LC_ALL": "C", "XDG_CONFIG_HOME": "/x", "CODEX_HOME": "/c",
        "GROQ_API_KEY": "gsk_not_for_it", "DATABASE_URL": "mysql://secret@host/app", "MY_SETTING": "seen",
    }  # fmt: skip
    (tmp_path / ".env").write_text("FROM_FILE=too\n")
    models = "providers: { mine: { kind: cli, cmd: [run], env: [MY_SETTING, FROM_FILE, NOT_SET] } }"
    config = loaded(tmp_path, environ, models=models)
    assert dict(tool(config, "mine").environ) == {
        "PATH": "/bin", "HOME": "/home/a", "LC_ALL": "C", "XDG_CONFIG_HOME": "/x", "CODEX_HOME": "/c",
        "MY_SETTING": "seen", "FROM_FILE": "too",
    }  # fmt: skip
    assert "gsk_not_for_it" not in repr(config)


@pytest.mark.parametrize(
    ("written", "name", "begins"),
    [
        ('["codex", "chat", "--model", "${MODEL}", "--stdin"]', "codex_cli", ("codex", "exec", "--json")),
        ('["claude", "--model", "${MODEL}"]', "claude_code", ("claude", "-p", "--output-format", "stream-json")),
    ],
)
def test_arguments_of_old_files_are_replaced_and_it_is_said(
    tmp_path: Path, written: str, name: str, begins: tuple[str, ...]
) -> None:
    config = loaded(tmp_path, models=f"providers:\n  {name}:\n    kind: cli\n    cmd: {written}\n", limits="")
    found = tool(config, name)
    assert found.argv[: len(begins)] == begins
    assert found.argv.count("${MODEL}") == 1
    (note,) = config.notes
    assert note.startswith("config/models.yaml:4: ")
    assert '"${MODEL}"' in note, "what to write instead"


def test_the_model_and_the_program_of_an_old_command_are_kept(tmp_path: Path) -> None:
    models = "providers: { claude_code: { kind: cli, cmd: [/opt/claude, --model, sonnet] } }"
    argv = tool(loaded(tmp_path, models=models), "claude_code").argv
    assert argv[0] == "/opt/claude"
    assert argv[argv.index("--model") + 1] == "sonnet"


def test_commands_of_today_are_left_alone(tmp_path: Path) -> None:
    models = (
        "providers: { claude_code: { kind: cli, cmd: [claude, -p] }, codex_cli: { kind: cli, cmd: [codex, exec] } }"
    )
    config = loaded(tmp_path, models=models, limits="")
    assert tool(config, "claude_code").argv == ("claude", "-p")
    assert tool(config, "codex_cli").argv == ("codex", "exec")
    assert config.notes == ()


def test_a_known_tool_needs_no_command(tmp_path: Path) -> None:
    config = loaded(tmp_path, models="providers: { gemini_cli: { kind: cli } }")
    assert tool(config, "gemini_cli").argv[0] == "gemini"
    assert tool(config, "gemini_cli").output == "gemini_stream_json"


@pytest.mark.parametrize(
    ("argv", "output"),
    [
        (["codex", "exec", "--json", "-"], "codex_jsonl"),
        (["codex", "exec", "-"], "text"),
        (["/usr/bin/claude", "-p", "--output-format", "json"], "claude_json"),
        (["claude", "-p", "--output-format=stream-json"], "claude_stream_json"),
        (["claude", "-p", "--output-format", "text"], "text"),
        (["claude", "-p", "--output-format"], "text"),
        (["gemini", "-o", "json"], "gemini_json"),
        (["gemini", "--output-format", "stream-json"], "gemini_stream_json"),
        (["llm", "-o", "json"], "text"),
    ],
)
def test_how_a_program_prints_is_told_by_its_arguments(argv: list[str], output: str) -> None:
    assert output_of(argv) == output


def test_what_the_file_says_of_the_output_wins(tmp_path: Path) -> None:
    models = "providers: { mine: { kind: cli, cmd: [run], output: claude_json } }"
    assert tool(loaded(tmp_path, models=models), "mine").output == "claude_json"
