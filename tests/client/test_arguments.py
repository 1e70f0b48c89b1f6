"""What clients are constructed with: read into one configuration, or refused with what to do instead."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import keyturn
from keyturn import AsyncClient, Client
from keyturn.client.arguments import REPLACED, read
from keyturn.errors import ConfigError

ENVIRON = {"GROQ_API_KEY": "gsk_of_environment", "OPENAI_API_KEY_3": "sk-of-environment", "GLOBAL_TIMEOUT": "7"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys(given: Any) -> dict[str, list[str]]:
    return {
        provider: [each.secret.reveal() for each in credentials]
        for provider, credentials in given.config.credentials.items()
    }


def test_LIB_01_without_arguments_the_environment_counts() -> None:
    given = read(environ=ENVIRON)
    assert keys(given) == {"openai": ["sk-of-environment"], "groq": ["gsk_of_environment"]}
    assert given.config.timeouts.to_content == 7
    assert given.share
    assert not given.keyed


def test_LIB_01_given_keys_are_the_only_ones_and_everything_else_holds() -> None:
    environ = {**ENVIRON, "QUOTA_GROUP_GROQ": "0", "KEY_PLAN_GROQ": "free", "OLLAMA_API_BASE": "http://127.0.0.1:11434"}
    given = read(environ=environ, api_keys={"groq": ["gsk_a", " gsk_b ", "", "gsk_a"], "google_ai_studio": "AIza-c"})
    assert keys(given) == {"gemini": ["AIza-c"], "groq": ["gsk_a", "gsk_b"], "ollama": [""]}
    groq = given.config.credentials["groq"]
    assert [(each.label, each.plan, each.origin) for each in groq] == [
        ("groq-1", "free", "api_keys['groq']"),
        ("groq-2", "free", "api_keys['groq']"),
    ]
    assert given.config.timeouts.to_content == 7
    assert given.keyed
    assert "gsk_" not in repr(given.config) + str(given.config.notes)


def test_LIB_01_a_given_key_that_is_configured_keeps_its_quota_group() -> None:
    environ = {"GROQ_API_KEY_1": "gsk_a", "GROQ_API_KEY_2": "gsk_b", "QUOTA_GROUP_GROQ": "1,2"}
    first, second = read(environ=environ, api_keys={"groq": ["gsk_b", "gsk_a"]}).config.credentials["groq"]
    assert first.group == second.group
    assert (first.secret.reveal(), first.label) == ("gsk_b", "groq-1")


def test_LIB_01_the_configuration_folder_of_the_repository_takes_given_keys() -> None:
    config = Path(__file__).parents[2] / "config"
    given = read(environ={}, config=config, api_keys={"gemini": ["AIza-a", "AIza-b"]})
    assert keys(given)["gemini"] == ["AIza-a", "AIza-b"]
    assert "groq" not in keys(given)


@pytest.mark.parametrize(
    ("api_keys", "said"),
    [
        ({"gorq": "gsk_a"}, r"api_keys\['gorq'\]: no provider is called so; did you mean 'groq'\? set GORQ_API_BASE"),
        ({"groq": ["gsk_a", "gsk b"]}, r"api_keys\['groq'\], key 2: the key holds a space"),
        ({"demo": "x"}, "is the name of a rehearsal"),
        ({"azure": "abc"}, "azure has no address; set AZURE_API_BASE"),
    ],
)
def test_LIB_01_keys_that_cannot_be_used_are_refused_unseen(api_keys: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read(environ={}, api_keys=api_keys)
    assert "gsk" not in str(caught.value)


def test_LIB_01_the_other_arguments() -> None:
    given = read(
        environ=ENVIRON,
        data_dir="here",
        global_timeout=2.5,
        max_concurrent_requests_per_key={"groq": 3},
        pre_request_callback=print,
        abort_on_callback_error=False,
        enable_request_logging=True,
        configure_logging=False,
        embedding_batch_window=0,
        share=False,
        session_stickiness_ttl_seconds=60,
        ignore_models={"groq": ["*-preview", "other"]},
        whitelist_models={"groq": "good-preview"},
    )
    config = given.config
    assert config.modes.stickiness == 60
    assert config.modes.lists["groq"].ignore == ("*-preview", "other")
    assert config.modes.lists["groq"].allow == ("good-preview",)
    assert config.data == Path("here").absolute()
    assert config.timeouts.to_content == 2.5
    assert dict(config.max_concurrent) == {"groq": 3}
    assert given.callback is not None
    assert (given.callback.hook, given.callback.abort) == (print, False)
    assert (given.log_calls, given.log_events, given.batch_window, given.share) == (True, False, 0, False)
    assert dict(read(environ=ENVIRON, max_concurrent_requests_per_key=2).config.max_concurrent) == {
        "groq": 2,
        "openai": 2,
    }


def test_LIB_01_an_env_file_and_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "secrets.env").write_text("GROQ_API_KEY=gsk_filed\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "roles.yaml").write_text("roles:\n  dev: { model_chain: [m], providers: [groq] }\n")
    given = read(environ={}, env_file="secrets.env", config="conf")
    assert keys(given) == {"groq": ["gsk_filed"]}
    assert set(given.config.names) == {"dev"}
    with pytest.raises(ConfigError, match="there is no file"):
        read(environ={}, env_file="nowhere.env")


CALLERS = "team: { key_hash: 'sha256:%s' }\n"


def test_LIB_01_a_caller_by_name_or_by_key(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "callers.yaml").write_text(CALLERS % sha256(b"kt-team").hexdigest())
    assert read(environ={}, caller="team").caller.name == "team"
    by_key = read(environ={}, caller_key="kt-team")
    assert by_key.caller.name == "team"
    assert "kt-team" not in repr(by_key)
    assert read(environ={}).caller.name == "default"
    with pytest.raises(ValueError, match=r"no caller is called 'temas'; callers\.yaml has default, team"):
        read(environ={}, caller="temas")
    with pytest.raises(TypeError, match="not both"):
        read(environ={}, caller="team", caller_key="kt-team")


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_LIB_01_what_makes_no_sense_any_more_says_what_replaces_it(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is no argument here: "):
        read(**{name: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"api_kyes": {}}, TypeError, "'api_kyes' is no argument of a client; did you mean api_keys?"),
        ({"global_timeout": 0}, ValueError, "global_timeout must be a positive number"),
        ({"embedding_batch_window": -1}, ValueError, "embedding_batch_window"),
        ({"max_concurrent_requests_per_key": 1.5}, TypeError, "a whole number"),
        ({"max_concurrent_requests_per_key": {"nobody": 1}}, ValueError, "'nobody' has no key"),
        ({"api_keys": {"groq": [1]}}, TypeError, "must be a string or a list of strings"),
        ({"api_keys": "gsk_planted"}, TypeError, r"a dict of providers and their keys, such as \{'groq'.* type str"),
        ({"api_keys": ["gsk_planted"]}, TypeError, "a dict of providers and their keys"),
        ({"api_keys": {"groq": {"a": "gsk_planted"}}}, TypeError, "must be a string or a list of strings"),
        ({"api_keys": {"gsk_planted" + 40 * "x": "groq"}}, TypeError, "whose names are providers"),
        ({"config": 5}, TypeError, "config must be a path"),
        ({"global_timeout": "30"}, TypeError, "global_timeout must be a number of seconds"),
        ({"share": "no"}, TypeError, "share must be True or False"),
        ({"ignore_models": ["x"]}, TypeError, "ignore_models must be a dict"),
        ({"pre_request_callback": "x"}, TypeError, "pre_request_callback must be a function"),
        ({"caller_key": 5}, TypeError, "caller_key must be the key of a caller"),
    ],
)
def test_LIB_01_arguments_that_are_wrong(arguments: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        Client(**arguments)
    assert "planted" not in str(caught.value)


def test_LIB_01_mistakes_in_the_configuration_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_PAID_MODELS", "perhaps")
    with pytest.raises(ConfigError, match="neither true nor false"):
        AsyncClient()


def test_LIB_09_CFG_51_provider_priorities_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row has 10 for unknown providers; here everything else is 4 (design §5.8)."""
    tiers = {name: keyturn.get_provider_priority(name) for name in ("openai", "anthropic", "groq", "openrouter")}
    assert tiers == {"openai": 1, "anthropic": 1, "groq": 2, "openrouter": 2}
    assert [keyturn.get_provider_priority(name) for name in ("gemini", "mistral", "g4f", "cohere", "nobody")] == [
        3,
        3,
        5,
        4,
        4,
    ]
    monkeypatch.setenv("PROVIDER_PRIORITY_NVIDIA", "1")
    monkeypatch.setenv("NVIDIA_API_KEY", "nvapi-x")
    monkeypatch.setenv("GROQ_API_KEY", "gsk_x")
    assert keyturn.get_provider_priority("nvidia") == 1
    assert keyturn.get_providers_by_priority() == ["nvidia", "groq"]
    monkeypatch.setenv("PROVIDER_PRIORITY_NVIDIA", "first")
    assert keyturn.get_provider_priority("nvidia") == 4, "what is no whole number is noted, and the default holds"
