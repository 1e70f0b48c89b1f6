"""G4F's variables: five endpoints, an optional key, and where plain http may lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import Config, load
from keyturn.errors import ConfigError

from .files import loaded, problems_of

NOWHERE = Path("/nonexistent")
LOCAL = "http://localhost:1337/v1"
HOSTED = "https://g4f.test/v1"


def configured(**environ: str) -> Config:
    return load(environ, cwd=NOWHERE)


def endpoints(**environ: str) -> dict[str, str]:
    return dict(configured(**environ).providers["g4f"].endpoints)


def wrong(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(**environ)
    return caught.value.problems


def test_CFG_50_g4f_config_all_five_endpoints_are_one_provider() -> None:
    config = configured(
        G4F_NVIDIA_API_BASE=f"{HOSTED}/nvidia",
        G4F_GEMINI_API_BASE=f"{HOSTED}/gemini/",
        G4F_GROK_API_BASE=f"{HOSTED}/grok",
        G4F_GROQ_API_BASE=f"{HOSTED}/groq",
        G4F_MAIN_API_BASE=LOCAL,
    )
    assert list(config.providers) == ["g4f"]
    assert list(config.providers["g4f"].endpoints.items()) == [
        ("main", LOCAL),
        ("groq", f"{HOSTED}/groq"),
        ("grok", f"{HOSTED}/grok"),
        ("gemini", f"{HOSTED}/gemini"),
        ("nvidia", f"{HOSTED}/nvidia"),
    ]
    assert config.notes == ()


@pytest.mark.parametrize("name", ["GROQ", "GROK", "GEMINI", "NVIDIA"])
def test_CFG_50_g4f_config_any_one_of_them_will_do(name: str) -> None:
    config = configured(**{f"G4F_{name}_API_BASE": HOSTED, "G4F_MAIN_API_BASE": " "})
    assert dict(config.providers["g4f"].endpoints) == {name.lower(): HOSTED}
    (key,) = config.credentials["g4f"]
    assert (bool(key.secret), key.origin) == (False, f"G4F_{name}_API_BASE")


def test_CFG_50_g4f_config_the_older_name_is_another_one_of_main() -> None:
    assert endpoints(G4F_API_BASE=LOCAL) == endpoints(GPT4FREE_API_BASE=LOCAL) == {"main": LOCAL}
    both = configured(G4F_API_BASE=LOCAL, G4F_MAIN_API_BASE=HOSTED)
    assert dict(both.providers["g4f"].endpoints) == {"main": HOSTED}
    assert both.notes == ("G4F_API_BASE: is another name of G4F_MAIN_API_BASE, which says something else and is used",)
    assert configured(G4F_API_BASE=LOCAL, G4F_MAIN_API_BASE=LOCAL).notes == ()


def test_CFG_50_g4f_config_keys_are_optional_and_shared() -> None:
    keys = configured(G4F_API_KEY="zero", G4F_API_KEY_3="three", G4F_GROK_API_BASE=HOSTED).credentials["g4f"]
    assert [(key.label, key.secret.reveal()) for key in keys] == [("g4f-0", "zero"), ("g4f-3", "three")]
    config = configured(G4F_GROQ_API_BASE=HOSTED, G4F_GROQ_API_KEY="gsk_planted_key")
    said = "G4F_GROQ_API_KEY: is not read: the endpoints of G4F share its keys; did you mean G4F_API_KEY?"
    assert config.notes == (said,)


def test_CFG_50_g4f_config_a_key_alone_guesses_no_host() -> None:
    config = configured(G4F_API_KEY="key", GROQ_API_KEY="other")
    assert list(config.providers) == ["groq"]
    (note,) = config.notes
    assert note.startswith("G4F_API_KEY: not used: g4f has no address without one of G4F_MAIN_API_BASE, G4F_GROQ_API")
    assert note.endswith("G4F_NVIDIA_API_BASE")


def test_CFG_50_g4f_config_a_misspelled_endpoint_is_told() -> None:
    assert configured(G4F_GORK_API_BASE=HOSTED).notes == (
        "G4F_GORK_API_BASE: taken as a server of your own; was G4F_GROK_API_BASE meant?",
    )


def test_CFG_50_g4f_config_in_models_yaml(tmp_path: Path) -> None:
    written = "providers:\n  g4f: { kind: http, base_url: http://127.0.0.1:1337/v1 }\n"
    config = loaded(tmp_path, models=written)
    assert dict(config.providers["g4f"].endpoints) == {"main": "http://127.0.0.1:1337/v1"}
    more = loaded(tmp_path, {"G4F_GROQ_API_BASE": HOSTED, "G4F_API_BASE": LOCAL}, models=written)
    assert dict(more.providers["g4f"].endpoints) == {"main": LOCAL, "groq": HOSTED}
    (problem,) = problems_of(tmp_path, models=written.replace("127.0.0.1", "10.0.0.9"))
    assert problem.startswith("config/models.yaml:2: providers.g4f.base_url: must start with https://: plain http is")


def test_CFG_52_g4f_is_balanced_unless_told_otherwise() -> None:
    assert configured(G4F_MAIN_API_BASE=LOCAL).strategies == {}
    assert configured(G4F_MAIN_API_BASE=LOCAL, ROTATION_MODE_G4F="sequential").strategies == {"g4f": "sequential"}


@pytest.mark.parametrize("host", ["g4f.test", "8.8.8.8", "10.0.0.1", "192.168.1.2", "g4f", "box.local", "[fd00::1]"])
def test_CFG_53_plain_http_leads_to_this_machine_only(host: str) -> None:
    (problem,) = wrong(G4F_MAIN_API_BASE=f"http://{host}/v1")
    assert problem.startswith("G4F_MAIN_API_BASE: must start with https://: plain http is for this machine only")
    assert "G4F_ALLOW_INSECURE_HTTP=true" in problem
    assert endpoints(G4F_MAIN_API_BASE=f"http://{host}/v1", G4F_ALLOW_INSECURE_HTTP="true")["main"] == (
        f"http://{host}/v1"
    )


@pytest.mark.parametrize("host", ["localhost:1337", "127.0.0.1:1337", "127.9.9.9", "[::1]:8080"])
def test_CFG_53_this_machine_needs_no_leave(host: str) -> None:
    assert endpoints(G4F_GROQ_API_BASE=f"http://{host}/api/groq") == {"groq": f"http://{host}/api/groq"}


@pytest.mark.parametrize("host", ["[::1].evil.test", "[::1]x", "[::1%eth0]", "127.0.0.1.evil.test", "localhost.evil"])
def test_CFG_53_what_only_looks_like_this_machine_is_another(host: str) -> None:
    (problem,) = wrong(G4F_MAIN_API_BASE=f"http://{host}/v1")
    assert host not in problem


@pytest.mark.parametrize("url", ["ftp://g4f.test/v1", "file:///etc/passwd", "g4f.test/v1", "ws://g4f.test"])
def test_CFG_53_other_schemes_are_refused_in_any_case(url: str) -> None:
    for allowed in ("true", "false"):
        (problem,) = wrong(G4F_GROK_API_BASE=url, G4F_ALLOW_INSECURE_HTTP=allowed)
        assert problem.startswith("G4F_GROK_API_BASE: must start with https://")


def test_CFG_53_mistakes_name_the_variable_and_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# none\nG4F_GEMINI_API_BASE=http://g4f.test/v1\nG4F_ALLOW_INSECURE_HTTP=perhaps\n")
    with pytest.raises(ConfigError) as caught:
        load({}, cwd=tmp_path)
    first, second = sorted(caught.value.problems)
    assert first == "G4F_ALLOW_INSECURE_HTTP (.env:3): 'perhaps' is neither true nor false"
    assert second.startswith("G4F_GEMINI_API_BASE (.env:2): must start with https://: plain http is for this machine")


def test_CFG_53_the_leave_is_for_g4f_alone() -> None:
    (problem,) = wrong(MYSERVER_API_BASE="http://example.com/v1", G4F_ALLOW_INSECURE_HTTP="true")
    assert problem.startswith("MYSERVER_API_BASE: must start with https://: plain http is for this machine and private")
