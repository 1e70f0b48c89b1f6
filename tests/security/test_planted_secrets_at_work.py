"""`keyturn serve` and every command with a hundred planted keys, on real sockets: none is in what they say or write."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from keyturn.cli import main
from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import PERSONAS, KeyRule, Simulator
from tests.support.serving import Response, Served, Upstreams, ask, serve, simulate

from .planted import SECRETS, Collected, env_line

PROVIDERS = ("openai", "groq", "together", "openrouter", "gemini", "mistral", "deepseek")
NAMED = {f"{PROVIDERS[number % 7].upper()}_API_KEY_{1 + number // 7}": key for number, key in enumerate(SECRETS)}
IN_ENVIRONMENT = {name: key for name, key in NAMED.items() if name.startswith(("OPENAI", "GROQ", "GEMINI"))}
PAGES = "/ /healthz /readyz /metrics /v1/models /v1/models/x /v1/providers /nothing/here /admin/keys".split()
FAULTS: tuple[dict[str, Any], ...] = (
    {},
    {"error": "invalid_key", "quirks": ["echo_key"]},
    {"error": "bad_request", "quirks": ["echo_key"]},
    {"error": "server_error", "quirks": ["echo_key"]},
    {"error": "overloaded", "quirks": ["echo_key"], "at_chunk": 3, "stream": True},
)


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    keys = {
        provider: {key: KeyRule() for name, key in NAMED.items() if name.startswith(provider.upper())}
        for provider in PROVIDERS
    }
    with simulate(Simulator(SystemClock(), draw, keys=keys)) as running:
        yield running


@pytest.fixture
def environ(tmp_path: Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What configures the hundred keys, with the env file in *tmp_path*; set in this process too, for commands."""
    upstreams.script()
    in_file = [env_line(name, key) for name, key in NAMED.items() if name not in IN_ENVIRONMENT]
    (tmp_path / ".env").write_text("".join(in_file))
    set_up = {f"{name.upper()}_API_BASE": f"{upstreams.url}/{name}/v1" for name in PROVIDERS} | IN_ENVIRONMENT
    for name, value in set_up.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return set_up


def run(collected: Collected, *args: str, code: int | None = 0) -> str:
    """A command, with all that it said collected."""
    result = CliRunner().invoke(main, args)
    assert code is None or result.exit_code == code, result.output
    collected.add(f"keyturn {' '.join(args)}", f"{result.output}\n{result.exception!r}")
    return result.output


def collect_data(collected: Collected, folder: Path) -> None:
    """Every file of the data folder; of the two that hold a key of ours, nothing but that key is allowed."""
    ours = {}
    for name in ("caller.key", "admin.key"):
        if (folder / name).exists():
            ours[name] = (folder / name).read_text().strip()
            assert ours[name].startswith("kt-") or name == "admin.key"
            assert ours[name].isascii()
            assert " " not in ours[name]
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ours]
    assert {"gateway.json", "lock"} <= {path.name for path in files}
    for path in files:
        collected.add(path.name, path.read_bytes())


def visit(gateway: Served, collected: Collected, upstreams: Upstreams) -> None:
    """Everything that a client can ask, and every way in which calls go wrong."""

    def get(method: str, path: str, key: str, body: object = None) -> Response:
        answer = ask(gateway.url, method, path, headers={"authorization": f"Bearer {key}"}, body=body)
        collected.add(f"body of {method} {path[:30]}", answer.body)
        collected.add(f"headers of {method} {path[:30]}", repr(answer.headers))
        return answer

    for path in (
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/models",
        "/v1/models/x",
        "/v1/providers",
        "/x",
        "/admin/keys",
    ):
        get("GET", path, gateway.caller_key)
    for key in SECRETS[::5]:
        assert get("GET", "/v1/models", key).status == 401
    for fault in FAULTS:
        upstreams.script(*([fault | {"kind": "chat"}] if fault else []))
        for provider in PROVIDERS:
            model = f"{provider}/{PERSONAS[provider].models[0]}"
            body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": "stream" in fault}
            assert get("POST", "/v1/chat/completions", gateway.caller_key, body).status == 200 or "error" in fault
        collected.add("keys", repr(gateway.admin("GET", "keys")))
        gateway.reset()
    with socket.create_connection((urlsplit(gateway.url).hostname, urlsplit(gateway.url).port)) as raw:
        raw.sendall(f"NO HTTP {SECRETS[4]}\r\nauthorization: {SECRETS[5]}\r\n\r\n".encode())
        collected.add("answer to no HTTP", raw.recv(65536))


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_gateway_at_work(log_format: str, tmp_path: Path, environ: dict[str, str], upstreams: Upstreams) -> None:
    collected = Collected()
    data = tmp_path / ".cache"
    with serve(tmp_path, environ, ["--log-requests", "--log-format", log_format]) as gateway:
        visit(gateway, collected, upstreams)
        for command in ("keys list --json", "keys disable groq-1", "keys enable groq-1", "keys reset", "models --json"):
            run(collected, *command.split())
        run(collected, "chat", "--trace", "-m", "groq/llama-3.1-8b-instant", "Hi")
        collect_data(collected, data)
        pid = (data / "lock").read_text()
        collected.add("command line", Path(f"/proc/{pid}/cmdline").read_bytes())
        ours = [gateway.caller_key, (data / "admin.key").read_text().strip()]
    recorded = list((data / "requests").iterdir())
    assert len(recorded) >= len(FAULTS) * len(PROVIDERS)
    log = (tmp_path / "log.txt").read_text()
    assert log.count("(you sent ***)") >= len(SECRETS), "the keys were quoted, and taken out"
    for line in log.splitlines():
        collected.add("log", line)
    collected.assert_clean()
    collected.assert_clean(ours)


def test_commands_without_a_gateway(tmp_path: Path, environ: dict[str, str], upstreams: Upstreams) -> None:
    collected = Collected()
    for fault in FAULTS:
        code = None if fault else 0
        upstreams.script(*([fault] if fault else []))
        run(collected, "keys", "test", "--json", code=code)
        run(collected, "keys", "test", "groq-1", code=code)
        run(collected, "doctor", "--json", "--online", code=None)
        run(collected, "models", "--json")
        for provider in PROVIDERS:
            model = f"{provider}/{PERSONAS[provider].models[0]}"
            run(collected, "chat", "--trace", "-m", model, "Hello", code=code)
    for command in (
        *("config show --json", "config show", "config check", "doctor --json", "doctor", "doctor --env --json"),
        *("keys list --json", "keys list", "keys disable openai-1", "keys enable openai-1", "keys reset"),
        *("dry-run -m openai/gpt-4o Hello", "dry-run -m gemini/gemini-2.5-flash Hello"),
        *("chat -m nobody/nothing Hello", "keys test nobody-7", "dry-run -m nobody/nothing Hello"),
    ):
        run(collected, *command.split(), code=None)
    assert '"Bearer ***"' in run(collected, "dry-run", "-m", "groq/llama-3.1-8b-instant", "Hello")
    collected.assert_clean()
