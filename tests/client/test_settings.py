"""`keyturn.settings`: each provider's keys as attributes, as programs of the smart-client toolkit read them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from keyturn.errors import ConfigError
from keyturn.settings import Settings

KEYS = {
    "OPENROUTER_API_KEY_1": "or-one",
    "OPENROUTER_API_KEY_2": "",
    "OPENROUTER_API_KEY_10": "or-ten",
    "OPENROUTER_API_KEY_3": "or-three",
    "OPENROUTER_API_KEY_4": "or-one",
    "GROQ_API_KEY": "groq-bare",
    "GOOGLE_API_KEY_2": "google-two",
    "GROQ_CHAT_MODEL": "llama-3.1-8b-instant",
}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.chdir(tmp_path)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("openrouter_api_keys", ["or-one", "or-three", "or-ten"]),
        ("openrouter_api_key", "or-one"),
        ("groq_api_keys", ["groq-bare"]),
        ("groq_api_key", "groq-bare"),
        ("gemini_api_keys", ["google-two"]),
        ("google_ai_studio_api_key", "google-two"),
        ("together_api_keys", []),
        ("together_api_key", None),
        ("groq_chat_model", "llama-3.1-8b-instant"),
        ("together_chat_model", None),
    ],
)
def test_CFG_21_keys_of_a_provider(settings: Settings, name: str, value: object) -> None:
    assert getattr(settings, name) == value


def test_CFG_21_the_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROQ_API_KEY_1", "set")
    (tmp_path / ".env").write_text("GROQ_API_KEY_1=filed\nGROQ_API_KEY_2=two\nMINE_API_BASE=http://127.0.0.1:9/v1\n")
    settings = Settings()
    assert settings.groq_api_keys == ["set", "two"]
    assert settings.mine_api_keys == []


def test_CFG_21_read_when_first_asked_and_only_then(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "later")
    assert "not read yet" in repr(settings)
    assert settings.groq_api_key == "later"
    monkeypatch.setenv("GROQ_API_KEY", "too late")
    assert settings.groq_api_key == "later"


@pytest.mark.parametrize(
    ("name", "near"),
    [("gorq_api_keys", "groq_api_keys"), ("openruter_api_key", "openrouter_api_key"), ("colour", "<provider>_api_key")],
)
def test_CFG_21_an_unknown_name_tells_the_nearest(settings: Settings, name: str, near: str) -> None:
    with pytest.raises(AttributeError, match=near):
        getattr(settings, name)
    assert not hasattr(settings, name)


def test_CFG_21_shows_no_key(settings: Settings) -> None:
    assert settings.openrouter_api_key
    assert repr(settings) == "<Settings: gemini 1 key, groq 1 key, openrouter 3 keys>"
    assert "groq_api_keys" in dir(settings)
    assert copy.copy(settings).groq_api_key == "groq-bare"


def test_CFG_59_overrides_make_new_settings(settings: Settings) -> None:
    changed = settings.update_from_kwargs(groq_api_key="other")
    assert (changed.groq_api_key, settings.groq_api_key) == ("other", "groq-bare")
    assert changed.openrouter_api_keys == settings.openrouter_api_keys
    with pytest.raises(AttributeError, match="groq_api_key"):
        settings.update_from_kwargs(grok_apikey="x")


def test_CFG_21_a_configuration_with_mistakes_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_PORT", "many")
    with pytest.raises(ConfigError, match="KEYTURN_PORT"):
        _ = settings.groq_api_key
