"""A secret in the configuration, in its place or a wrong one, is in nothing that is said about the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyturn.cli import main
from keyturn.config import load
from keyturn.errors import ConfigError

from .planted import REFUSED, SECRETS, Collected, env_line, is_telling

WRONG_PLACES = (
    *("KEYTURN_PORT", "TIMEOUT_TOTAL", "GLOBAL_TIMEOUT", "USE_PAID_MODELS"),
    *("FREE_ONLY_MODE", "ALLOWED_MODEL_TIERS", "ROTATION_MODE_GROQ", "KEY_PLAN_GROQ", "QUOTA_GROUP_GROQ"),
    *("LIMITS_GROQ", "PROVIDER_PRIORITY_GROQ", "MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ", "KEY_WEIGHTS_GROQ"),
    *("GROQ_API_BASE", "MYOWN_API_BASE", "ROTATION_MODE_GORQ", "KEYTURN_PROT"),
)


def said(environ: Mapping[str, str], folder: Path) -> tuple[bool, str]:
    """Whether *environ* is accepted, and every word that is said about it."""
    try:
        config = load(environ, cwd=folder)
    except ConfigError as error:
        return False, f"{error}\n{error!r}\n{error.problems}"
    return True, f"{config.notes}\n{config!r}"


def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    collected = Collected()
    for secret in REFUSED:
        for name in ("GROQ_API_KEY_3", "PROXY_API_KEY"):
            accepted, words = said({"GROQ_API_KEY": "fine-and-well", name: secret}, tmp_path)
            assert not accepted, (name, secret)
            assert name in words
            collected.add(name, words)
    collected.assert_clean([part for secret in REFUSED for part in secret.split() if len(part) >= 16])


@pytest.mark.parametrize(
    "url",
    [
        "https://user:{}@llm.example.com/v1", "https://{}@llm.example.com/v1", "https://{}:x@llm.example.com/v1",
        "https://llm.example.com/v1?key={}", "https://llm.example.com/v1#{}", "{}",
    ],
)  # fmt: skip
def test_a_base_url_with_a_secret_is_refused_without_showing_it(url: str, tmp_path: Path) -> None:
    collected = Collected()
    for secret in SECRETS:
        for name in ("GROQ_API_BASE", "MYOWN_API_BASE"):
            accepted, words = said({"GROQ_API_KEY": "fine-and-well", name: url.format(secret)}, tmp_path)
            assert not accepted, (url, secret)
            assert name in words
            collected.add(name, words)
    collected.assert_clean()


def test_a_key_in_the_wrong_variable_is_not_shown(tmp_path: Path) -> None:
    """Those that are keys elsewhere, whatever their shape, and those that look like keys."""
    collected = Collected()
    for secret in SECRETS:
        for name in WRONG_PLACES:
            environ = {"GROQ_API_KEY": "fine-and-well" if is_telling(secret) else secret, name: secret}
            collected.add(name, said(environ, tmp_path)[1])
    collected.assert_clean([*SECRETS, *map(str.lower, SECRETS)])


def test_a_key_under_a_name_that_is_not_read_is_not_shown(tmp_path: Path) -> None:
    collected = Collected()
    for secret in SECRETS:
        environ = {
            f"{name}{number}": secret
            for name in ("GORQ_API_KEY", "NOBODY_API_KEY", "GROQ_API_KEYS", "groq_api_key", "GROQ_API_KEY_")
            for number in ("", "1", "_x")
        }
        accepted, words = said({"GROQ_API_KEY": secret, **environ}, tmp_path)
        assert accepted
        assert "GROQ_API_KEY_x" in words or "GORQ_API_KEY" in words
        collected.add("notes", words)
    collected.assert_clean()


LINES: dict[str, Callable[[str], str]] = {
    "a bare key": lambda key: f"{key}\n",
    "exported": lambda key: f"export {key}\n",
    "with a colon": lambda key: f"GROQ_API_KEY: {key}\n",
    "with a space": lambda key: f"GROQ_API_KEY {key}\n",
    "as a name": lambda key: f"{key}=GROQ_API_KEY\n",
    "with a quote that is never closed": lambda key: f"GROQ_API_KEY_2=\"{key}\nX='{key}\n",
    "twice": lambda key: env_line("GROQ_API_KEY_2", key) + env_line("GROQ_API_KEY_2", key + "x"),
    "with a quote inside": lambda key: f"GROQ_API_KEY_2='{key}'{key}\n",
}


@pytest.mark.parametrize("mistake", LINES)
def test_a_broken_line_of_the_env_file_is_not_shown(mistake: str, tmp_path: Path) -> None:
    collected = Collected()
    for secret in SECRETS:
        (tmp_path / ".env").write_text(env_line("GROQ_API_KEY", "fine-and-well") + LINES[mistake](secret))
        collected.add(mistake, said({}, tmp_path)[1])
    collected.assert_clean()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in an empty folder; what it said, and its error with what led to it."""
    monkeypatch.chdir(tmp_path)

    def invoke(*args: str, code: int, input: str | None = None) -> str:
        result = CliRunner().invoke(main, args, input=input)
        assert result.exit_code == code, result.output
        return f"{result.output}\n{result.exception!r}\n{result.exception and result.exception.__cause__!r}"

    return invoke


def test_commands_that_find_mistakes(run: Callable[..., str], tmp_path: Path) -> None:
    collected = Collected()
    wrong = dict(zip(WRONG_PLACES, (secret for secret in SECRETS if is_telling(secret)), strict=False))
    refused = {f"GROQ_API_KEY_{number}": secret for number, secret in enumerate(REFUSED) if "\x00" not in secret}
    (tmp_path / ".env").write_text("".join(env_line(*row) for row in {**wrong, **refused}.items()))
    for command in ("config show --json", "config check", "keys list --json", "doctor --json", "doctor --env", "serve"):
        collected.add(command, run(*command.split(), code=3))
    collected.assert_clean()
    collected.assert_clean([part for secret in REFUSED for part in secret.split() if len(part) >= 16])


def test_adding_keys(run: Callable[..., str], tmp_path: Path) -> None:
    collected = Collected()
    for secret in SECRETS:
        collected.add("keys add", run("keys", "add", "groq", code=0, input=secret + "\n"))
        collected.add("keys add, again", run("keys", "add", "groq", code=1, input=secret + "\n"))
    for secret in REFUSED:
        if secret.split() == [secret]:
            collected.add("keys add, refused", run("keys", "add", "groq", code=1, input=secret))
    listed = run("keys", "list", "--json", code=0)
    collected.add("keys list", listed)
    assert listed.count('"state": "configured"') == len(SECRETS)
    collected.assert_clean()
