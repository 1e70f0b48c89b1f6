"""`keyturn run`: what a tool is started with, and that its files, its signals and its exit code are its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from keyturn.cli.connect_target import Target
from keyturn.cli.entry import Failure
from keyturn.cli.run import PLANS, Launch
from keyturn.config import DataFolder

from .conftest import KEYTURN, Terminal

KEY = "kt-planted-caller-key"
MODEL = "groq/llama-3.3-70b-versatile"
STUB = """#!/bin/sh
[ "$1" = wait ] && { trap 'echo stopped; exit 7' TERM; echo $$; while :; do sleep 0.01; done; }
[ "$1" = kill ] && kill -9 $$
for word in "$@"; do echo "arg $word"; done
env | grep -E '^(ANTHROPIC|OPENAI|PROXY_API|GEMINI|GOOGLE|LLM)_' | sort
[ -n "$GEMINI_CLI_HOME" ] && cat "$GEMINI_CLI_HOME/.gemini/settings.json" && echo
[ -n "$GEMINI_CLI_HOME" ] && echo >"$GEMINI_CLI_HOME/.gemini/history/new"
cat
echo complaint >&2
exit 3
"""


class Models(BaseHTTPRequestHandler):
    """The one page of a gateway that the command asks for."""

    def do_GET(self) -> None:
        known = self.path == "/admin/models" and self.headers["x-keyturn-admin"] == "admin"
        body = json.dumps([{"id": "openai/embed-small", "provider": "openai"}, {"id": MODEL, "provider": "groq"}])
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a gateway seems to run; `bin` in it holds stubs."""
    place = tmp_path_factory.mktemp("run")
    for name in ("home", "bin", ".cache"):
        (place / name).mkdir()
    for name in PLANS:
        stub = place / "bin" / name
        stub.write_text(STUB)
        stub.chmod(0o755)
    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        data = DataFolder(place / ".cache")
        data.lock()
        data.publish(f"http://127.0.0.1:{server.server_address[1]}")
        (place / ".cache" / "admin.key").write_text("admin\n")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield place
        data.release()
        server.shutdown()
        thread.join()


def environ(place: Path, **more: str) -> dict[str, str]:
    path = f"{place / 'bin'}:/usr/bin:/bin"
    return {
        "PATH": path,
        "GROQ_API_KEY": "gsk_one",
        "HOME": str(place / "home"),
        "TMPDIR": str(place),
        "PROXY_API_KEY": KEY,
        **more,
    }


def url(place: Path) -> str:
    found: str = json.loads((place / ".cache" / "gateway.json").read_text())["url"]
    return found


def run(place: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KEYTURN, "run", *args],
        cwd=place,
        env=environ(place, **more),
        input="typed\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def plan(tool: str, tmp_path: Path, **present: str) -> Launch:
    return PLANS[tool](Target("http://127.0.0.1:8000", "groq/llama"), KEY, present, lambda: tmp_path)


def test_claude_code_asks_this_gateway_whatever_its_own_settings_say(folder: Path) -> None:
    """The `env` of its settings wins over variables; settings that are named win over both."""
    done = run(folder, "claude", "--", "-p", "two words", ANTHROPIC_API_KEY="theirs", CLAUDE_CODE_USE_BEDROCK="1")
    assert done.returncode == 3
    first, second, *lines = done.stdout.splitlines()
    assert first == "arg --settings"
    path = Path(second.removeprefix("arg "))
    assert path.name == "settings.json"
    assert not path.exists(), "it is gone afterwards"
    assert lines == [
        "arg -p",
        "arg two words",
        "ANTHROPIC_API_KEY=",
        f"ANTHROPIC_AUTH_TOKEN={KEY}",
        f"ANTHROPIC_BASE_URL={url(folder)}",
        f"ANTHROPIC_DEFAULT_HAIKU_MODEL={MODEL}",
        f"ANTHROPIC_DEFAULT_OPUS_MODEL={MODEL}",
        f"ANTHROPIC_DEFAULT_SONNET_MODEL={MODEL}",
        f"ANTHROPIC_MODEL={MODEL}",
        f"PROXY_API_KEY={KEY}",
        "typed",
    ]
    assert done.stderr == "complaint\n"


def test_the_settings_of_claude_code_say_what_the_variables_say(tmp_path: Path) -> None:
    launch = plan("claude", tmp_path)
    path = Path(launch.args[1])
    assert json.loads(path.read_text()) == {"env": launch.environ}
    assert path.stat().st_mode & 0o777 == 0o600
    assert launch.temporary


def test_settings_of_the_users_own_choice_are_left_to_claude_code(folder: Path) -> None:
    done = run(folder, "claude", "--", "--settings", "{}")
    assert done.stdout.splitlines()[:2] == ["arg --settings", "arg {}"]
    assert "arg --settings" not in done.stdout.splitlines()[2:]


def test_gemini_gets_settings_for_one_run(folder: Path) -> None:
    home = folder / "theirs"
    (home / ".gemini" / "history").mkdir(parents=True)
    settings = home / ".gemini" / "settings.json"
    settings.write_text('{"security": {"auth": {"selectedType": "oauth-personal"}}, "ui": {"theme": "Dark"}}')
    before, text = sorted(path.name for path in folder.iterdir()), settings.read_text()
    done = run(folder, "gemini", "-m", "demo/fast", GEMINI_CLI_HOME=str(home), GOOGLE_API_KEY="theirs")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert lines[-1] == "typed"
    assert f"GEMINI_API_KEY={KEY}" in lines
    assert f"GOOGLE_GEMINI_BASE_URL={url(folder)}" in lines
    assert not [line for line in lines if line.startswith("GOOGLE_API_KEY")]
    assert json.loads(lines[-2]) == {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "ui": {"theme": "Dark"},
        "model": {"name": "demo/fast"},
    }
    assert sorted(path.name for path in folder.iterdir()) == before, "a folder was left behind"
    assert settings.read_text() == text
    assert (home / ".gemini" / "history" / "new").exists(), "what it keeps is kept where it always is"
    assert list((folder / "home").iterdir()) == []


def test_signals_reach_the_tool_and_its_folder_goes(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    process = subprocess.Popen(
        [*KEYTURN, "run", "gemini", "--", "wait"], cwd=folder, env=environ(folder), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert child != process.pid
    process.send_signal(signal.SIGINT)  # the terminal would send it to the tool too: that one decides
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("stopped\n", 7)
    assert sorted(path.name for path in folder.iterdir()) == before
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_tool_that_is_killed_gives_the_code_of_a_shell(folder: Path) -> None:
    assert run(folder, "llm", "--", "kill").returncode == 128 + signal.SIGKILL


def test_codex_is_configured_by_arguments(tmp_path: Path) -> None:
    launch = plan("codex", tmp_path)
    assert launch.args[::2] == ("-c",) * 6
    assert launch.args[1::2] == (
        'model="groq/llama"',
        'model_provider="keyturn"',
        'model_providers.keyturn.name="Keyturn"',
        'model_providers.keyturn.base_url="http://127.0.0.1:8000/v1"',
        'model_providers.keyturn.env_key="PROXY_API_KEY"',
        'model_providers.keyturn.wire_api="responses"',
    )
    assert launch.environ == {"PROXY_API_KEY": KEY}
    assert not launch.temporary


def test_opencode_is_configured_by_a_variable(tmp_path: Path) -> None:
    launch = plan("opencode", tmp_path)
    config = json.loads(launch.environ["OPENCODE_CONFIG_CONTENT"])
    assert config["model"] == config["small_model"] == "keyturn/groq/llama"
    assert config["provider"]["keyturn"]["options"] == {
        "baseURL": "http://127.0.0.1:8000/v1",
        "apiKey": "{env:PROXY_API_KEY}",
    }
    assert KEY not in launch.environ["OPENCODE_CONFIG_CONTENT"]


def test_aider_and_llm(tmp_path: Path) -> None:
    aider = plan("aider", tmp_path)
    assert aider.args == ("--model", "openai/groq/llama")
    assert aider.environ == {"OPENAI_API_BASE": "http://127.0.0.1:8000/v1", "OPENAI_API_KEY": KEY}
    llm = plan("llm", tmp_path)
    assert llm.environ == {"LLM_USER_PATH": str(tmp_path), "LLM_MODEL": "keyturn"}
    assert llm.temporary
    assert json.loads((tmp_path / "keys.json").read_text()) == {"keyturn": KEY}


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini" / "settings.json").write_text("{ // mine\n}")
    with pytest.raises(Failure, match="has a comment"):
        plan("gemini", tmp_path, GEMINI_CLI_HOME=str(tmp_path))


def test_a_program_that_is_not_there(terminal: Terminal) -> None:
    terminal.set(PATH=str(terminal.cwd))
    done = terminal.run("run", "claude", "-m", MODEL)
    assert done.exit_code == 1
    assert "npm install -g @anthropic-ai/claude-code" in done.stderr


def test_without_a_gateway_nothing_is_started(folder: Path, terminal: Terminal) -> None:
    terminal.set(PATH=f"{folder / 'bin'}:/usr/bin:/bin")
    done = terminal.run("run", "codex", "-m", MODEL, "--", "kill")
    assert done.exit_code == 1
    assert "keyturn serve" in done.stderr
    assert done.stdout == ""
