"""`keyturn serve`: what it says, what it refuses, and the commands that ask a running one."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keyturn.cli.banner import banner, curl
from keyturn.config import Options, load

from .conftest import Terminal, start, stop

NOWHERE = Path("/nonexistent")
URL = "http://127.0.0.1:8000"


def said(options: Options = Options(), **environ: str) -> str:  # noqa: B008
    return "\n".join(banner(load(environ, cwd=NOWHERE, options=options), URL))


def test_the_banner_says_what_is_configured_and_no_secret() -> None:
    text = said(
        GROQ_API_KEY_1="gsk_planted", GROQ_API_KEY_2="gsk_planted_too", PROXY_API_KEY="planted", GORQ_API_KEY="planted"
    )
    assert "groq: 2 keys" in text
    assert "USE_PAID_MODELS=false" in text
    assert "did you mean GROQ_API_KEY?" in text
    assert "caller key: PROXY_API_KEY" in text
    assert "planted" not in text


def test_the_banner_is_loud_about_the_demo() -> None:
    assert said().startswith("DEMO: no key is configured. Only models named demo/… are served")


def test_the_curl_line_reads_the_caller_key_from_its_file_whatever_its_path() -> None:
    config = load({}, cwd=Path("/tmp/it's a folder"))
    assert """-H "Authorization: Bearer $(cat '/tmp/it'"'"'s a folder/.cache/caller.key')\"""" in curl(config, URL)
    assert '"model":"demo/echo"' in curl(config, URL)


def test_the_curl_line_needs_no_key_where_callers_need_none() -> None:
    config = load({"GROQ_API_KEY": "a", "GROQ_CHAT_MODEL": "m'x"}, cwd=NOWHERE, options=Options(trust_local=True))
    line = curl(config, URL)
    assert "Authorization" not in line
    assert """'{"model":"groq/m'"'"'x","messages\"""" in line


def test_the_curl_line_asks_for_the_models_when_none_is_known() -> None:
    config = load({"GROQ_API_KEY": "a", "PROXY_API_KEY": "b"}, cwd=NOWHERE)
    assert curl(config, URL) == f'curl {URL}/v1/models -H "Authorization: Bearer $PROXY_API_KEY"'


@pytest.mark.parametrize(
    "line",
    [
        "PROXY_API_KEY=team-key",
        "  export PROXY_API_KEY = 'team-key' # for all",
        'PROXY_API_KEY="team-key"\r',
        "PROXY_API_KEY=old\n#PROXY_API_KEY=older\nPROXY_API_KEY=team-key\nMY_PROXY_API_KEY=another",
    ],
)
def test_the_curl_line_reads_the_caller_key_from_the_env_file(line: str, tmp_path: Path) -> None:
    folder = tmp_path / "it's a $(folder)"
    folder.mkdir()
    (folder / ".env").write_text(f"GROQ_API_KEY=a\n{line}\n", newline="")
    config = load({}, cwd=folder)
    assert config.caller_key is not None
    assert config.caller_key.reveal() == "team-key"
    printed = f"printf '%s\\n' {curl(config, URL).removeprefix('curl ')}"
    done = subprocess.run(
        ["/bin/sh", "-c", printed],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert done.stdout.splitlines()[-2:] == ["-H", "Authorization: Bearer team-key"]
    assert done.stderr == ""


def test_a_second_worker_is_refused(terminal: Terminal) -> None:
    result = terminal.run("serve", "--workers", "2")
    assert result.exit_code == 2
    assert (
        "--workers: more than one worker would multiply every limit without shared state: set REDIS_URL"
        in result.stderr
    )
    folder = terminal.cwd / "config"
    folder.mkdir()
    (folder / "settings.toml").write_text("[server]\nworkers = 2\n")
    result = terminal.run("serve")
    assert result.exit_code == 3, "a mistake of the configuration, not of the command"
    assert "settings.toml:2: more than one worker" in result.stderr
    (folder / "settings.toml").write_text("[server]\nworkers = 2\nport = 99999\n")
    assert terminal.run("serve", "--workers", "3").exit_code == 3, "both are told of"


class Running(Terminal):
    """A gateway at work in the terminal's folder, its process and what it has said."""

    process: subprocess.Popen[str]
    said: str


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulator: str) -> Iterator[Running]:
    environ = {
        "GROQ_API_BASE": f"{simulator}/groq/v1",
        "GROQ_API_KEY_1": "gsk_revoked",
        "GROQ_API_KEY_2": "gsk_good_2",
        "GROQ_CHAT_MODEL": "llama-3.1-8b-instant",
        "ROTATION_MODE_GROQ": "sequential",
    }
    terminal = Running(tmp_path, monkeypatch)
    terminal.set(**environ)
    terminal.process, terminal.said = start(
        "serve", "--port", "0", cwd=tmp_path, until="curl ", environ=environ | {"PATH": "/usr/bin:/bin"}
    )
    yield terminal
    if terminal.process.poll() is None:
        stop(terminal.process)


def states(terminal: Terminal) -> dict[str, str]:
    rows = json.loads(terminal.run("keys", "list", "--json").stdout)
    return {row["key"].partition(":")[0]: row["state"] for row in rows}


def test_commands_ask_the_running_gateway(running: Running) -> None:
    assert states(running) == {"groq-1": "healthy", "groq-2": "healthy"}

    answer = running.run("chat", "--trace", "Hello")
    assert "You said: Hello" in answer.stdout
    assert "attempts: 2" in answer.stderr
    assert "No gateway" not in answer.stderr
    assert states(running) == {"groq-1": "invalid", "groq-2": "healthy"}

    assert running.run("keys", "reset", "groq-1").stdout.startswith("reset: groq-1:")
    assert states(running)["groq-1"] == "healthy"
    assert running.run("keys", "disable", "groq-2").stdout.startswith("disabled: groq-2:")
    assert states(running)["groq-2"] == "disabled"
    assert running.run("keys", "enable", "groq-2").stdout.startswith("enabled: groq-2:")
    running.run("keys", "disable", "groq-1")
    assert "groq/llama-3.1-8b-instant" in running.run("models").stdout.split()


def test_a_second_serve_names_the_first_and_how_to_share(running: Running) -> None:
    second = running.run("serve", "--port", "0")
    assert second.exit_code == 1
    assert f"process {running.process.pid}" in second.stderr
    assert "REDIS_URL" in second.stderr


def test_the_caller_key_is_the_same_after_a_restart_and_ctrl_c_ends_well(running: Running) -> None:
    key = (running.cwd / ".cache" / "caller.key").read_text()
    assert stop(running.process) == 0
    left = {path.name for path in (running.cwd / ".cache").iterdir()}
    assert {"caller.key", "lock"} <= left
    assert not {"admin.key", "gateway.json"} & left
    environ = {"GROQ_API_KEY": "gsk_good_1"}
    again, _ = start("serve", "--port", "0", cwd=running.cwd, until="curl ", environ=environ)
    assert (running.cwd / ".cache" / "caller.key").read_text() == key
    assert stop(again) == 0


def test_the_gateway_answers_its_callers(running: Running) -> None:
    url = urlsplit(json.loads((running.cwd / ".cache" / "gateway.json").read_text())["url"])
    key = (running.cwd / ".cache" / "caller.key").read_text().strip()
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    for headers, status in (({}, 401), ({"authorization": f"Bearer {key}"}, 200)):
        connection.request("GET", "/v1/models", headers=headers)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_line_that_is_shown_works_when_pasted(running: Running) -> None:
    line = next(line for line in running.said.splitlines() if line.strip().startswith("curl "))
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=20, check=True)
    assert "You said: Hello" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_a_port_in_use_is_said(running: Running, tmp_path: Path) -> None:
    port = running.said.partition("curl http://127.0.0.1:")[2].partition("/")[0]
    result = running.run("serve", "--port", port, "--data", str(tmp_path / "other"))
    assert result.exit_code == 1
    assert f"127.0.0.1 port {port} is in use" in result.stderr
