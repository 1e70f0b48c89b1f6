"""`keyturn login …` against authorisation servers of our own, on loopback; nothing that is printed holds a secret."""

from __future__ import annotations

import http.client
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from keyturn.config import load
from keyturn.dispatch import SystemClock
from tests.support.authorities import Authority, allow, serve_authority

from .conftest import Terminal, start, stop

SECRETS = ("sk-or-v1-planted", "planted-code", "planted-device", "access-1", "refresh-1")


class Door:
    """One port for the authorities of all tests."""

    behind: Authority

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.behind(scope, receive, send)


@pytest.fixture(scope="module")
def door() -> Iterator[tuple[Door, str]]:
    door = Door()
    with serve_authority(door) as url:
        yield door, url


@pytest.fixture
def authority(door: tuple[Door, str]) -> Authority:
    door[0].behind = Authority(SystemClock())
    return door[0].behind


@pytest.fixture
def address(door: tuple[Door, str]) -> str:
    return door[1]


def browse(monkeypatch: pytest.MonkeyPatch, authority: Authority, answer: str = "") -> list[str]:
    """A browser whose user says yes, or whose page ends with *answer*; the addresses that it was sent to."""
    seen: list[str] = []

    def visit(url: str) -> None:
        parts = urlsplit(allow(authority, url))
        target = f"{parts.path}?{answer or parts.query}"
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
        connection.request("GET", target)
        connection.getresponse().read()
        connection.close()

    def show(url: str, no_browser: bool) -> None:
        seen.append(url)
        threading.Thread(target=visit, args=(url,), daemon=True).start()

    monkeypatch.setattr("keyturn.cli.login._show", show)
    return seen


def test_OAU_01_openrouter_makes_a_key(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, authority: Authority, address: str
) -> None:
    seen = browse(monkeypatch, authority)
    result = terminal.run("login", "openrouter", "--auth-url", address, "--port", "0")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"OPENROUTER_API_KEY_1 was added to {terminal.cwd / '.env'}\n"
    env = terminal.cwd / ".env"
    assert env.read_text() == f"OPENROUTER_API_KEY_1={authority.new_key}\n"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert seen[0].startswith(f"{address}/auth?callback_url=http%3A%2F%2Flocalhost%3A")
    assert not any(secret in result.output for secret in SECRETS)


def test_OAU_01_openrouter_says_no(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, authority: Authority, address: str
) -> None:
    browse(monkeypatch, authority, "error=access_denied")
    result = terminal.run("login", "openrouter", "--auth-url", address, "--port", "0")
    assert (result.exit_code, result.stderr) == (1, "you did not allow it: nothing was changed\n")
    assert not (terminal.cwd / ".env").exists()


def test_OAU_01_a_code_that_is_not_ours_gives_no_key(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, authority: Authority, address: str
) -> None:
    browse(monkeypatch, authority, "code=planted-by-another")
    result = terminal.run("login", "openrouter", "--auth-url", address, "--port", "0")
    assert result.exit_code == 1
    assert "OpenRouter gave no key: 403 Invalid code" in result.stderr
    assert not (terminal.cwd / ".env").exists()


class Person:
    """A terminal whose person reads the address, visits it and pastes what came of it."""

    def __init__(self, authority: Authority, said: list[str], spoil: str = "") -> None:
        self._authority, self._said, self._spoil = authority, said, spoil

    def readline(self) -> str:
        url = next(line for line in self._said if line.startswith("http"))
        return allow(self._authority, url).replace("/callback/", f"/callback/{self._spoil}") + "\n"


@pytest.mark.parametrize("spoil", ["", "x"], ids=["right", "wrong state"])
def test_OAU_01_headless_the_address_is_pasted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, authority: Authority, address: str, spoil: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr("keyturn.cli.login.say", said.append)
    monkeypatch.setattr("keyturn.cli.login._line", Person(authority, said, spoil).readline)
    result = terminal.run("login", "openrouter", "--paste", "--auth-url", address)
    if spoil:
        assert result.exit_code == 1
        assert "not the address that the browser was sent to" in result.stderr
    else:
        assert result.exit_code == 0, result.output
        assert authority.new_key in (terminal.cwd / ".env").read_text()


@pytest.mark.parametrize("url", ["http://id.example.com", "ftp://x", "https://user:pw@x.com"])
def test_an_authorisation_server_is_asked_over_https_only(terminal: Terminal, url: str) -> None:
    result = terminal.run("login", "openrouter", "--auth-url", url)
    assert result.exit_code == 2
    assert "--auth-url" in result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("anthropic", "keyturn keys add anthropic"),
        ("chatgpt", "keyturn keys add openai"),
        ("gemini-cli", "GEMINI_AUTH=adc"),
        ("copilot", "keyturn keys add github_models"),
        ("vertex", "VERTEX_PROJECT"),
        ("groq", "groq takes API keys and has no login: keyturn keys add groq"),
    ],
)
def test_OAU_07_who_has_no_login_is_told_what_to_do(terminal: Terminal, name: str, said: str) -> None:
    result = terminal.run("login", name)
    assert result.exit_code == 1
    assert said in result.stderr


def test_a_name_that_nobody_has_is_wrong_usage(terminal: Terminal) -> None:
    assert terminal.run("login", "nobody").exit_code == 2


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def log_in(terminal: Terminal, address: str, *more: str) -> Any:
    return terminal.run("login", "huggingface", "--no-browser", "--auth-url", address, *more)


def test_OAU_01_huggingface_by_device(terminal: Terminal, authority: Authority, address: str) -> None:
    authority.pending = ["authorization_pending"]
    terminal.set(HUGGINGFACE_CLIENT_ID="app")
    result = log_in(terminal, address)
    assert result.exit_code == 0, result.output
    assert result.stdout == "logged in to huggingface as ada\n"
    assert "https://huggingface.co/device" in result.stderr
    assert "WDJB-MJHT" in result.stderr
    folder = terminal.cwd / ".cache" / "tokens"
    files = [each for each in folder.iterdir() if each.suffix == ".json"]
    assert len(files) == 2
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    assert "access" not in (folder / "logins.json").read_text()
    (row,) = json.loads(terminal.run("keys", "list", "--json").stdout)
    assert (row["provider"], row["state"], row["reason"]) == ("huggingface", "configured", None)
    (login,) = json.loads(terminal.run("login", "list", "--json").stdout)
    assert (login["key"], login["who"]) == (row["key"], "ada")
    doctor = terminal.run("doctor").stdout
    assert "1 account" in doctor
    assert "ada, from login ada" in doctor
    shown = result.output + doctor + terminal.run("config", "show").output + terminal.run("login", "list").output
    assert not any(secret in shown for secret in SECRETS)


def test_CRD_11_a_login_is_removed_with_its_tokens(terminal: Terminal, authority: Authority, address: str) -> None:
    assert log_in(terminal, address, "--client-id", "app").exit_code == 0
    key = json.loads(terminal.run("keys", "list", "--json").stdout)[0]["key"]
    assert terminal.run("login", "remove", key).stdout == f"removed: {key}\n"
    assert json.loads(terminal.run("login", "list", "--json").stdout) == []
    names = [each.name for each in (terminal.cwd / ".cache" / "tokens").iterdir() if each.suffix == ".json"]
    assert names == ["logins.json"]


def test_OAU_03_tokens_that_are_gone_need_a_login(terminal: Terminal, authority: Authority, address: str) -> None:
    assert log_in(terminal, address, "--client-id", "app").exit_code == 0
    for file in (terminal.cwd / ".cache" / "tokens").glob("huggingface-*.json"):
        file.unlink()
    (row,) = json.loads(terminal.run("keys", "list", "--json").stdout)
    assert row["reason"] == "needs a login: keyturn login huggingface"
    assert "needs login" in terminal.run("login", "list").stdout


def test_keys_test_gets_a_token_and_asks_with_it(terminal: Terminal, authority: Authority, address: str) -> None:
    assert log_in(terminal, address, "--client-id", "app").exit_code == 0
    terminal.set(HUGGINGFACE_API_BASE=f"{address}/v1")
    result = terminal.run("keys", "test", "--json")
    assert [row["meaning"] for row in json.loads(result.stdout)] == ["ok"], result.output
    for file in (terminal.cwd / ".cache" / "tokens").glob("huggingface-*.json"):
        file.unlink()
    (row,) = json.loads(terminal.run("keys", "test", "--json").stdout)
    assert (row["meaning"], row["status"]) == ("invalid_key", None)
    assert "keyturn login huggingface" in row["message"]


def test_dry_run_shows_where_a_token_goes(terminal: Terminal) -> None:
    terminal.set(VERTEX_PROJECT="p1", HOME=str(terminal.cwd))
    told = json.loads(terminal.run("dry-run", "-m", "vertex/gemini-2.5-flash", "Hi").stdout)
    assert told["headers"]["authorization"] == "Bearer ***"
    assert told["url"].endswith(
        "/projects/p1/locations/global/publishers/google/models/gemini-2.5-flash:generateContent"
    )


def test_the_app_of_a_login_must_be_named(terminal: Terminal) -> None:
    result = terminal.run("login", "huggingface")
    assert result.exit_code == 2
    assert "HUGGINGFACE_CLIENT_ID" in result.stderr


@pytest.mark.parametrize("users", [["ada"], ["ada", "grace"]], ids=["one", "several"])
def test_CRD_10_what_is_exported_loads_back(
    terminal: Terminal, authority: Authority, address: str, tmp_path: Path, users: list[str]
) -> None:
    for user in users:
        authority.user = user
        assert log_in(terminal, address, "--client-id", "app").exit_code == 0
    result = terminal.run("login", "export", "huggingface")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".env").write_text(result.stdout)
    here, there = (load({}, cwd=place).credentials["huggingface"] for place in (terminal.cwd, elsewhere))
    assert {each.fingerprint for each in there} == {each.fingerprint for each in here}
    account = there[-1].account
    assert account is not None
    assert [each.reveal() for each in account.secrets] == [f"refresh-{len(users)}", f"access-{len(users)}"]
    assert account.expires > 1_700_000_000
    assert "`keyturn login remove`" in result.stderr


def test_CRD_10_tokens_are_not_printed_to_a_terminal_unasked(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, authority: Authority, address: str
) -> None:
    assert log_in(terminal, address, "--client-id", "app").exit_code == 0
    monkeypatch.setattr("keyturn.cli.login._on_terminal", lambda: True)
    result = terminal.run("login", "export")
    assert result.exit_code == 1
    assert "--yes" in result.stderr
    assert "access-1" in terminal.run("login", "export", "--yes").stdout


def test_there_is_nothing_to_export(terminal: Terminal) -> None:
    assert terminal.run("login", "export").exit_code == 1


def test_OAU_01_ctrl_c_ends_the_wait(terminal: Terminal) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(terminal.cwd), "PYTHONUNBUFFERED": "1"}
    command = ("login", "openrouter", "--no-browser", "--port", "0")
    process, said = start(*command, cwd=terminal.cwd, until="code_challenge", environ=environ)
    assert stop(process) == 130
    assert "https://openrouter.ai/auth?callback_url=http%3A%2F%2Flocalhost%3A" in said
    assert not (terminal.cwd / ".env").exists()
