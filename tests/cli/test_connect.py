"""`keyturn connect`: what is printed, what becomes of a tool's files, and how they come back."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn.cli.connect_edits import edited
from keyturn.cli.connect_parts import Unfit

from .conftest import Terminal

KEY = "kt-planted-caller-key"
MODEL = "groq/llama-3.3-70b-versatile"
FOLDERS = (
    "CLAUDE_CONFIG_DIR",
    "CODEX_HOME",
    "XDG_CONFIG_HOME",
    "LLM_USER_PATH",
    "GEMINI_CLI_HOME",
    "CONTINUE_GLOBAL_DIR",
)
FILES = {
    "claude": [".claude/settings.json"],
    "codex": [".codex/config.toml"],
    "gemini": [".gemini/settings.json", ".gemini/.env"],
    "opencode": [".config/opencode/opencode.json"],
    "continue": [".continue/config.yaml"],
    "aider": [".aider.conf.yml"],
    "llm": ["llm/extra-openai-models.yaml", "llm/keys.json"],
}
SECRET = {".claude/settings.json", ".gemini/.env", ".continue/config.yaml", ".aider.conf.yml", "llm/keys.json"}
PRESENT = {
    ".claude/settings.json": (
        '{\n    "permissions": {"allow": ["Read", "Bash(ls *)"]},\n    "env": {\n        "DEBUG": "1"\n    }\n}'
    ),
    ".codex/config.toml": (
        '# mine\nmodel = "gpt-5"  # the big one\n\nnotify = [\n  "a",\n  ["b"],\n]\n\n# tools\n[mcp_servers.docs]\n'
        'command = "x"\n'
    ),
    ".gemini/settings.json": '{"ui": {"theme": "Dark"}}\n',
    ".gemini/.env": "# mine\nexport GEMINI_API_KEY=old\nOTHER='two words'\n",
    ".config/opencode/opencode.json": '{\n\t"theme": "x",\n\t"provider": {}\n}\n',
    ".continue/config.yaml": (
        "name: Mine  # keep\nversion: 0.0.1\nschema: v1\nmodels:\n  # first\n  - name: Other\n    provider: ollama\n"
        "    model: qwen\n# rules below\nrules: []\n"
    ),
    ".aider.conf.yml": "# mine\nmodel: sonnet  # usual\ndark-mode: true\n",
    "llm/extra-openai-models.yaml": "- model_id: other\n  model_name: other\n",
    "llm/keys.json": '{\n  "// Note": "Do not share!",\n  "openai": "sk-theirs"\n}\n',
}


@pytest.fixture
def home(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder, a caller key, and nothing that leads elsewhere."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    terminal.set(HOME=str(folder), PROXY_API_KEY=KEY, LLM_USER_PATH=str(folder / "llm"))
    return folder


def place(home: Path, *names: str) -> None:
    """The files as somebody has them, readable to all."""
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(PRESENT[name])
        (home / name).chmod(0o644)


def all_files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- printing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [*FILES, "cursor", "openwebui"])
def test_the_key_is_printed_only_on_request_and_nothing_is_written(home: Path, terminal: Terminal, tool: str) -> None:
    printed = terminal.run("connect", tool, "-m", MODEL)
    assert printed.exit_code == 0, printed.output
    assert KEY not in printed.output
    assert MODEL in printed.stdout
    assert "http://127.0.0.1:8000" in printed.stdout
    assert KEY not in terminal.run("connect", tool, "-m", MODEL, "--json").output
    shown = terminal.run("connect", tool, "-m", MODEL, "--show-key").stdout
    assert KEY in shown
    assert all_files(home) == {}


def test_what_claude_code_needs(home: Path, terminal: Terminal) -> None:
    told = json.loads(terminal.run("connect", "claude", "-m", MODEL, "--url", "https://gw.test/v1/", "--json").stdout)
    assert list(told)[:5] == ["tool", "files", "environment", "model", "url"]
    assert told["url"] == "https://gw.test"
    assert told["environment"] == {
        "ANTHROPIC_BASE_URL": "https://gw.test",
        "ANTHROPIC_AUTH_TOKEN": "$PROXY_API_KEY",
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_MODEL": MODEL,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": MODEL,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": MODEL,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODEL,
    }
    (file,) = told["files"]
    assert file["path"] == str(home / ".claude" / "settings.json")
    assert json.loads(file["content"])["env"]["ANTHROPIC_BASE_URL"] == "https://gw.test"


def test_a_file_that_is_there_is_told_as_changes(home: Path, terminal: Terminal) -> None:
    place(home, ".codex/config.toml")
    (file,) = json.loads(terminal.run("connect", "codex", "-m", MODEL, "--json").stdout)["files"]
    assert file["changes"]["model_providers"]["keyturn"] == {
        "name": "Keyturn",
        "base_url": "http://127.0.0.1:8000/v1",
        "env_key": "PROXY_API_KEY",
        "wire_api": "responses",
    }


def test_the_key_is_named_by_its_file(home: Path, terminal: Terminal) -> None:
    terminal.set(PROXY_API_KEY="", KEYTURN_PORT="8123", KEYTURN_HOST="0.0.0.0")
    printed = terminal.run("connect", "claude", "-m", MODEL).stdout
    assert f'export ANTHROPIC_AUTH_TOKEN="$(cat {terminal.cwd / ".cache" / "caller.key"})"' in printed
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:8123\n" in printed


def test_without_a_model_there_is_a_placeholder_to_print_and_none_to_write(home: Path, terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY="gsk_one")
    printed = terminal.run("connect", "codex")
    assert printed.exit_code == 0
    assert 'model = "PROVIDER/MODEL"' in printed.stdout
    assert "keyturn models" in printed.stderr
    assert terminal.run("connect", "codex", "--write").exit_code == 2
    assert all_files(home) == {}
    terminal.set(GROQ_CHAT_MODEL="llama-3.3-70b-versatile")
    assert f'model = "{MODEL}"' in terminal.run("connect", "codex").stdout


@pytest.mark.parametrize("url", ["gw.test", "ftp://gw.test", "http://", "http://gw.test?x=1"])
def test_what_is_no_url_is_refused(home: Path, terminal: Terminal, url: str) -> None:
    assert terminal.run("connect", "codex", "--url", url).exit_code == 2


# --- writing and undoing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", FILES)
@pytest.mark.parametrize("present", [True, False], ids=["there", "new"])
def test_write_and_undo_twice(home: Path, terminal: Terminal, tool: str, present: bool) -> None:
    if present:
        place(home, *FILES[tool])
    before = all_files(home)
    for _ in range(2):
        done = terminal.run("connect", tool, "-m", MODEL, "--write")
        assert done.exit_code == 0, done.output
        assert KEY not in done.output
    assert done.stdout.count("unchanged: ") == len(FILES[tool])
    for name in FILES[tool]:
        assert mode(home / name) == (0o600 if name in SECRET or not present else 0o644)
        assert (KEY in (home / name).read_text()) is (name in SECRET)
    assert len([name for name in all_files(home) if ".bak." in name]) == len(before)
    assert terminal.run("connect", tool, "--undo").exit_code == 0
    assert all_files(home) == before
    assert {mode(home / name) for name in before} <= {0o644}
    again = terminal.run("connect", tool, "--undo")
    assert again.exit_code == 0
    assert again.stdout.count("nothing to undo: ") == len(FILES[tool])
    assert all_files(home) == before


def written(home: Path, terminal: Terminal, tool: str) -> list[str]:
    """The files of *tool*, as they are after a write over what was there."""
    place(home, *FILES[tool])
    assert terminal.run("connect", tool, "-m", MODEL, "--write").exit_code == 0
    return [(home / name).read_text() for name in FILES[tool]]


def test_json_keeps_what_is_there(home: Path, terminal: Terminal) -> None:
    (text,) = written(home, terminal, "claude")
    head = '{\n    "permissions": {"allow": ["Read", "Bash(ls *)"]},\n    "env": {\n        "DEBUG": "1",\n'
    assert text.startswith(f'{head}        "ANTHROPIC_BASE_URL": "http://127.0.0.1:8000",\n')
    assert text.endswith(f'"ANTHROPIC_DEFAULT_HAIKU_MODEL": "{MODEL}"\n    }}\n}}')
    assert json.loads(text)["env"]["ANTHROPIC_AUTH_TOKEN"] == KEY


def test_toml_keeps_comments_and_order(home: Path, terminal: Terminal) -> None:
    (text,) = written(home, terminal, "codex")
    expected = PRESENT[".codex/config.toml"].replace('"gpt-5"', f'"{MODEL}"')
    assert text.startswith(expected.replace("]\n\n# tools", ']\nmodel_provider = "keyturn"\n\n# tools'))
    assert tomllib.loads(text)["model_providers"]["keyturn"]["env_key"] == "PROXY_API_KEY"


def test_yaml_keeps_comments_and_order(home: Path, terminal: Terminal) -> None:
    (text,) = written(home, terminal, "continue")
    before, after = PRESENT[".continue/config.yaml"].split("# rules below")
    assert text.startswith(f"{before}  - name: Keyturn\n    provider: openai\n    model: {MODEL}\n")
    assert text.endswith(f"# rules below{after}")
    (aider,) = written(home, terminal, "aider")
    assert aider.startswith(f"# mine\nmodel: openai/{MODEL}  # usual\ndark-mode: true\n")
    assert yaml.safe_load(aider)["openai-api-key"] == KEY


def test_env_and_llm_keep_what_is_there(home: Path, terminal: Terminal) -> None:
    settings, env = written(home, terminal, "gemini")
    assert json.loads(settings) == {
        "ui": {"theme": "Dark"},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "model": {"name": MODEL},
    }
    first = f"# mine\nexport GEMINI_API_KEY={KEY}\nOTHER='two words'\n"
    assert env == f"{first}GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8000\n"
    models, keys = written(home, terminal, "llm")
    assert [row["model_id"] for row in yaml.safe_load(models)] == ["other", "keyturn"]
    assert json.loads(keys)["openai"] == "sk-theirs"


@pytest.mark.parametrize("tool", FILES)
def test_another_model_takes_the_place_of_the_first(home: Path, terminal: Terminal, tool: str) -> None:
    place(home, *FILES[tool])
    before = all_files(home)
    terminal.run("connect", tool, "-m", MODEL, "--write")
    terminal.run("connect", tool, "-m", "groq/other", "--write")
    now = {name: (home / name).read_text() for name in FILES[tool]}
    assert any("groq/other" in text for text in now.values())
    if tool != "opencode":  # which keeps both in its list
        assert not any(MODEL in text for text in now.values())
    terminal.run("connect", tool, "--undo")
    assert all_files(home) == before


def test_the_folders_of_tools_may_be_elsewhere(home: Path, terminal: Terminal, tmp_path: Path) -> None:
    elsewhere = {name: str(tmp_path / name) for name in FOLDERS}
    terminal.set(**elsewhere)
    for tool in ("claude", "codex", "gemini", "opencode", "continue", "llm"):
        assert terminal.run("connect", tool, "-m", MODEL, "--write").exit_code == 0
    for name in (
        "CLAUDE_CONFIG_DIR/settings.json",
        "CODEX_HOME/config.toml",
        "GEMINI_CLI_HOME/.gemini/.env",
        "XDG_CONFIG_HOME/opencode/opencode.json",
        "CONTINUE_GLOBAL_DIR/config.yaml",
        "LLM_USER_PATH/keys.json",
    ):
        assert (tmp_path / name).is_file(), name
    assert all_files(home) == {}


def test_a_link_stays_a_link(home: Path, terminal: Terminal, tmp_path: Path) -> None:
    place(home, ".claude/settings.json")
    real = (home / ".claude" / "settings.json").rename(tmp_path / "settings.json")
    (home / ".claude" / "settings.json").symlink_to(real)
    before = real.read_bytes()
    terminal.run("connect", "claude", "-m", MODEL, "--write")
    assert (home / ".claude" / "settings.json").is_symlink()
    assert KEY in real.read_text()
    terminal.run("connect", "claude", "--undo")
    assert real.read_bytes() == before


def test_undo_refuses_what_somebody_changed_since(home: Path, terminal: Terminal) -> None:
    place(home, ".claude/settings.json")
    file = home / ".claude" / "settings.json"
    before = file.read_bytes()
    terminal.run("connect", "claude", "-m", MODEL, "--write")
    theirs = file.read_text().replace('"1"', '"2"')
    file.write_text(theirs)
    refused = terminal.run("connect", "claude", "--undo")
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert file.read_text() == theirs
    forced = terminal.run("connect", "claude", "--undo", "--force")
    assert forced.exit_code == 0
    assert file.read_bytes() == before
    (backup,) = (each for each in file.parent.iterdir() if ".bak." in each.name)
    assert backup.read_text() == theirs
    assert str(backup) in forced.stdout


def test_undo_goes_back_over_what_somebody_changed_between_two_writes(home: Path, terminal: Terminal) -> None:
    terminal.run("connect", "codex", "-m", MODEL, "--write")
    file = home / ".codex" / "config.toml"
    file.write_text(theirs := file.read_text() + "\n[tui]\nanimations = false\n")
    terminal.run("connect", "codex", "-m", "groq/other", "--write")
    terminal.run("connect", "codex", "--undo")
    assert file.read_text() == theirs
    assert terminal.run("connect", "codex", "--undo").exit_code == 1
    assert terminal.run("connect", "codex", "--undo", "--force").exit_code == 0
    assert not file.exists()


def test_undo_of_one_file_that_was_changed_leaves_the_other_alone(home: Path, terminal: Terminal) -> None:
    terminal.run("connect", "gemini", "-m", MODEL, "--write")
    with (home / ".gemini" / ".env").open("a") as file:
        file.write("MORE=1\n")
    before = all_files(home)
    assert terminal.run("connect", "gemini", "--undo").exit_code == 1
    assert all_files(home) == before


@pytest.mark.parametrize(
    ("tool", "name", "text", "said"),
    [
        ("claude", ".claude/settings.json", '{\n  // mine\n  "env": {}\n}\n', ":2: has a comment"),
        ("claude", ".claude/settings.json", '{"env": {}', ":1: is not JSON"),
        ("claude", ".claude/settings.json", "[]", "must be an object"),
        ("codex", ".codex/config.toml", "a = 1\nb = \n", ":2: is not TOML"),
        ("codex", ".codex/config.toml", 'model_providers = { x = { name = "X" } }\n', "by hand"),
        ("continue", ".continue/config.yaml", "models: [\n", "is not YAML"),
        ("continue", ".continue/config.yaml", "models: [{name: X}]\n", ":1: is not a block"),
        ("aider", ".aider.conf.yml", "model: [a]\n", "model is not a text"),
        ("gemini", ".gemini/settings.json", "\ufeff{,}", ":1: is not JSON"),
        ("llm", "llm/keys.json", "{]", ":1: is not JSON"),
    ],
)
def test_what_cannot_be_edited_is_named_and_nothing_is_written(
    home: Path, terminal: Terminal, tool: str, name: str, text: str, said: str
) -> None:
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(text)
    before = all_files(home)
    done = terminal.run("connect", tool, "-m", MODEL, "--write")
    assert done.exit_code == 1
    assert f"{home / name}:" in done.stderr
    assert said in done.stderr
    assert all_files(home) == before


def test_a_key_that_is_needed_and_not_there(home: Path, terminal: Terminal) -> None:
    terminal.set(PROXY_API_KEY="")
    done = terminal.run("connect", "claude", "-m", MODEL, "--write")
    assert done.exit_code == 1
    assert "keyturn serve" in done.stderr
    assert terminal.run("connect", "codex", "-m", MODEL, "--write").exit_code == 0
    assert not (terminal.cwd / ".cache").exists()


@pytest.mark.parametrize("tool", ["cursor", "openwebui"])
def test_what_has_no_file_says_what_to_click(home: Path, terminal: Terminal, tool: str) -> None:
    done = terminal.run("connect", tool, "-m", MODEL, "--write")
    assert done.exit_code == 2
    assert "Settings" in done.stderr
    assert terminal.run("connect", tool, "--undo").exit_code == 2


@pytest.mark.parametrize("args", [["--write", "--undo"], ["--force"], ["--write", "--force"]])
def test_options_that_exclude_each_other(home: Path, terminal: Terminal, args: list[str]) -> None:
    assert terminal.run("connect", "codex", *args).exit_code == 2


# --- edits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "text", "changes", "after"),
    [
        ("json", "{}", {"a": "1"}, '{\n  "a": "1"\n}'),
        ("json", '{"a": {"b": 1e5, "c": [1,2]}}', {"a": {"d": "x"}}, '{"a": {"b": 1e5, "c": [1,2], "d": "x"}}'),
        ("json", '{"a":1,"a":2}', {"a": "3"}, '{"a":1,"a":"3"}'),
        ("json", '{\r\n\t"a": "é"\r\n}\r\n', {"b": "ü"}, '{\r\n\t"a": "é",\r\n\t"b": "ü"\r\n}\r\n'),
        ("toml", "", {"a": "1"}, 'a = "1"\n'),
        ("toml", "# c\n[t]\nx = 1", {"a": "1"}, 'a = "1"\n\n# c\n[t]\nx = 1\n'),
        ("toml", "[t]\nx = 1\n\n[u]\n", {"t": {"x": "2", "y": "3"}}, '[t]\nx = "2"\ny = "3"\n\n[u]\n'),
        ("toml", 's = """\n[t]\n"""\n', {"a": "1"}, 's = """\n[t]\n"""\na = "1"\n'),
        ("yaml", "# c\n", {"a": "1"}, '# c\na: "1"\n'),
        ("yaml", "a:\nb: 1\n", {"a": "x"}, "a: x\nb: 1\n"),
        ("yaml", "a: |\n  long\n  text\nb: 1\n", {"a": "x"}, "a: x\nb: 1\n"),
        ("yaml", "m:\nb: 1\n", {"m": [{"k": "x"}]}, "m:\n  - k: x\nb: 1\n"),
        ("yaml", "m: []\nb: 1\n", {"m": [{"k": "x"}]}, "m:\n  - k: x\nb: 1\n"),
        ("yaml", "m:\n- k: x\n  v: a\n- k: y\n", {"m": [{"k": "x", "v": "b"}]}, "m:\n- k: x\n  v: b\n- k: y\n"),
        ("yaml", "[]\n", [{"k": "x"}], "- k: x\n"),
        ("yaml", "{}\n", {"a": "x"}, "a: x\n"),
        ("env", "A=1\nA=2", {"A": "3", "B": "a b"}, "A=1\nA=3\nB='a b'\n"),
    ],
)  # fmt: skip
def test_edits_change_nothing_else(form: Any, text: str, changes: Any, after: str) -> None:
    assert edited(form, text.encode(), changes).decode() == after
    assert edited(form, after.encode(), changes).decode() == after


@pytest.mark.parametrize("form", ["json", "toml", "yaml", "env"])
def test_a_byte_order_mark_stays_and_other_encodings_are_refused(form: Any) -> None:
    assert edited(form, b"\xef\xbb\xbf", {"a": "x"}).startswith(b"\xef\xbb\xbf")
    with pytest.raises(Unfit):
        edited(form, b"\xff\xfe", {"a": "x"})
