"""Everything beside the keys: precedence, defaults, timeouts, pools, the paid gate, notes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyturn.config import Config, LimitSpec, Options, Timeouts, load, notes_of
from keyturn.errors import ConfigError

NOWHERE = Path("/nonexistent")


def configured(**environ: str) -> Config:
    return load({"GROQ_API_KEY": "gsk_key_of_the_test"} | environ, cwd=NOWHERE)


def problems_of(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(**environ)
    return caught.value.problems


def test_defaults() -> None:
    config = configured()
    assert (config.server.host, config.server.port, config.data) == ("127.0.0.1", 8000, NOWHERE / ".cache")
    assert config.timeouts == Timeouts()
    assert config.notes == ()


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEYTURN_PORT=1\nKEYTURN_HOST=127.0.0.2\nKEYTURN_DATA=from-file\n")
    config = load({"KEYTURN_PORT": "2", "KEYTURN_HOST": "127.0.0.3"}, cwd=tmp_path, options=Options(port=3))
    assert (config.server.port, config.server.host, config.data) == (3, "127.0.0.3", tmp_path / "from-file")
    assert config.origins["port"] == "--port"
    assert config.origins["KEYTURN_HOST"] == "environment"
    assert config.origins["KEYTURN_DATA"] == ".env:3"


@pytest.mark.parametrize("port", ["x", "-1", "65536", "8000.0"])
def test_a_port_that_is_none_is_a_mistake(port: str) -> None:
    assert problems_of(KEYTURN_PORT=port) == [f"KEYTURN_PORT: '{port}' is not a port from 0 to 65535"]


def test_the_grace_is_a_number_of_seconds_from_0(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.toml").write_text("[server]\ngrace_seconds = 5\n")
    assert load({}, cwd=tmp_path).server.grace_seconds == 5
    assert load({"KEYTURN_GRACE_SECONDS": "0"}, cwd=tmp_path).server.grace_seconds == 0
    assert load({"KEYTURN_GRACE_SECONDS": "2.5"}, cwd=tmp_path).server.grace_seconds == 2.5
    for wrong in ("-1", "soon", "inf"):
        said = f"KEYTURN_GRACE_SECONDS: '{wrong}' is not a number of seconds from 0"
        assert problems_of(KEYTURN_GRACE_SECONDS=wrong) == [said]


def test_allowed_hosts() -> None:
    assert configured(KEYTURN_ALLOWED_HOSTS="LLM.example.com, box:8000,[::1]").server.allowed_hosts == (
        "llm.example.com",
        "box:8000",
        "[::1]",
    )
    (problem,) = problems_of(KEYTURN_ALLOWED_HOSTS="https://llm.example.com")
    assert problem.endswith("is not a host name such as llm.example.com")


def test_listening_beyond_this_machine_without_allowed_hosts_is_noted() -> None:
    (note,) = configured(KEYTURN_HOST="0.0.0.0").notes
    assert note.startswith("KEYTURN_ALLOWED_HOSTS: Keyturn listens on 0.0.0.0")
    assert configured(KEYTURN_HOST="0.0.0.0", KEYTURN_ALLOWED_HOSTS="llm.example.com").notes == ()


def test_CFG_22_proxy_api_key_is_the_callers_key() -> None:
    key = configured(PROXY_API_KEY=" team-key ").caller_key
    assert key is not None
    assert key.reveal() == "team-key"
    assert configured(PROXY_API_KEY="  ").caller_key is None
    (problem,) = problems_of(PROXY_API_KEY="team key")
    assert problem.startswith("PROXY_API_KEY: ")
    assert "team" not in problem


@pytest.mark.parametrize(
    ("value", "paid"),
    [("", False), ("false", False), ("0", False), ("no", False), ("FALSE", False), ("true", True), ("1", True)],
)
def test_CFG_14_the_paid_gate_is_shut_unless_it_is_opened(value: str, paid: bool) -> None:
    assert configured(USE_PAID_MODELS=value).use_paid is paid


def test_a_paid_gate_that_is_neither_open_nor_shut_is_a_mistake() -> None:
    assert problems_of(USE_PAID_MODELS="maybe") == ["USE_PAID_MODELS: 'maybe' is neither true nor false"]


def test_CFG_55_free_only_mode_shuts_the_gate() -> None:
    assert not configured(FREE_ONLY_MODE="true").use_paid
    both = configured(FREE_ONLY_MODE="true", USE_PAID_MODELS="true")
    assert not both.use_paid
    assert both.notes == ("FREE_ONLY_MODE: contradicts USE_PAID_MODELS=true; paid models are not used",)
    assert configured(FREE_ONLY_MODE="false", USE_PAID_MODELS="true").use_paid


def test_CFG_15_price_tiers() -> None:
    assert configured().price_tiers is None
    assert configured(ALLOWED_MODEL_TIERS="Free, cheap").price_tiers == frozenset({"free", "cheap"})
    (problem,) = problems_of(ALLOWED_MODEL_TIERS="free,cheep")
    assert problem.endswith("(did you mean cheap?)")


def test_CFG_25_global_timeout_bounds_the_time_to_content() -> None:
    assert configured().timeouts.to_content is None
    assert configured(GLOBAL_TIMEOUT="30").timeouts.to_content == 30.0


def test_CFG_26_timeouts_by_their_names_and_old_names() -> None:
    timeouts = configured(
        TIMEOUT_CONNECT="3", TIMEOUT_READ_STREAMING="180", TIMEOUT_READ_NON_STREAMING="500", TIMEOUT_TOTAL="400"
    ).timeouts
    assert (timeouts.connect, timeouts.silence, timeouts.total) == (3.0, 180.0, 400.0)


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf"])
def test_CFG_26_a_wrong_timeout_is_noted_and_the_default_kept(value: str) -> None:
    config = configured(TIMEOUT_CONNECT=value)
    assert config.timeouts.connect == 5.0
    (note,) = config.notes
    assert note == f"TIMEOUT_CONNECT: '{value}' is not a positive number of seconds; the default, 5 s, holds"


def test_old_timeouts_without_a_meaning_here_are_noted() -> None:
    assert [note.partition(":")[0] for note in configured(TIMEOUT_POOL="60", TIMEOUT_WRITE="30").notes] == [
        "TIMEOUT_WRITE",
        "TIMEOUT_POOL",
    ]


@pytest.mark.parametrize(
    "mode", ["balanced", "sequential", "round_robin", "weighted", "fastest", "cheapest", "Round-Robin"]
)
def test_CFG_30_rotation_mode(mode: str) -> None:
    assert configured(ROTATION_MODE_GROQ=mode).strategies == {"groq": mode.lower().replace("-", "_")}


def test_CFG_30_a_wrong_rotation_mode_is_noted_and_the_default_kept() -> None:
    config = configured(ROTATION_MODE_GROQ="sequental")
    assert config.strategies == {}
    assert config.notes == (
        "ROTATION_MODE_GROQ: 'sequental' is not one of balanced, round_robin, sequential, weighted, fastest "
        "and cheapest (did you mean sequential?); balanced is used",
    )


def test_CFG_51_provider_priority() -> None:
    assert configured(PROVIDER_PRIORITY_GOOGLE="1", PROVIDER_PRIORITY_GROQ="5").tiers == {"gemini": 1, "groq": 5}


@pytest.mark.parametrize("value", ["first", "0", "-1", "1.5", "11"])
def test_CFG_51_a_wrong_priority_is_noted_and_the_default_kept(value: str) -> None:
    config = configured(PROVIDER_PRIORITY_GROQ=value)
    assert config.tiers == {}
    assert config.notes == (
        f"PROVIDER_PRIORITY_GROQ: '{value}' is not a whole number from 1 to 10; the default tier is used",
    )


def test_CFG_32_concurrency_per_key() -> None:
    name = "MAX_CONCURRENT_REQUESTS_PER_KEY_GROQ"
    assert configured().max_concurrent == {}
    assert configured(**{name: "4"}).max_concurrent == {"groq": 4}
    assert configured(**{name: "-1"}).max_concurrent == {}
    assert configured(**{name: "4", f"{name}_BALANCED": "2"}).max_concurrent == {"groq": 2}
    assert configured(**{name: "4", f"{name}_SEQUENTIAL": "2"}).max_concurrent == {"groq": 4}
    sequential = {"ROTATION_MODE_GROQ": "sequential", name: "4", f"{name}_SEQUENTIAL": "1"}
    assert configured(**sequential).max_concurrent == {"groq": 1}
    assert problems_of(**{name: "few"}) == [f"{name}: 'few' is not a whole number; -1 means unlimited"]


def test_limits() -> None:
    config = configured(LIMITS_GROQ="rpm=30 tpm=6_000, rpd=14400 tpd=0 concurrency=4")
    assert config.limits == {
        "groq": (
            LimitSpec("requests", "minute", 30),
            LimitSpec("tokens", "minute", 6000),
            LimitSpec("requests", "day", 14400),
            LimitSpec("concurrency", "inflight", 4),
        )
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("rmp=30", "'rmp' is not one of rpm, tpm, rpd, tpd and concurrency (did you mean rpm?)"),
        ("rpm=many", "'rpm=many' is not like rpm=30"),
        ("rpm", "'rpm' is not like rpm=30"),
    ],
)
def test_a_wrong_limit_is_a_mistake(value: str, said: str) -> None:
    assert problems_of(LIMITS_GROQ=value) == [f"LIMITS_GROQ: {said}"]


def test_CFG_42_models_as_json_or_separated_by_commas() -> None:
    assert configured(GROQ_MODELS="a, b,,a").static_models == {"groq": ("a", "b")}
    assert configured(GROQ_MODELS='["a", "b"]').static_models == {"groq": ("a", "b")}
    aliased = configured(GROQ_MODELS='{"quick": {"id": "a", "options": {"x": 1}}, "b": {}}')
    assert aliased.static_models == {"groq": ("a", "b")}
    assert aliased.notes == ("GROQ_MODELS: 'a' is offered by its id; alias and options are not used",)


@pytest.mark.parametrize("value", ['["a"', "[1]", '{"a": {"id": 2}}'])
def test_models_that_are_none_are_a_mistake(value: str) -> None:
    (problem,) = problems_of(GROQ_MODELS=value)
    assert problem.startswith("GROQ_MODELS: ")


def test_CFG_20_chat_models() -> None:
    config = configured(GROQ_CHAT_MODEL="llama3-8b-8192", OPENROUTER_CHAT_MODEL="google/gemini-2.0-flash-exp:free")
    assert config.chat_models == {"groq": "llama3-8b-8192", "openrouter": "google/gemini-2.0-flash-exp:free"}


def test_a_misspelt_setting_of_ours_is_noted() -> None:
    notes = configured(KEYTURN_ALOWED_HOSTS="x", TIMEOUT_CONECT="3", TIMEOUT_OF_SOMEBODY_ELSES_PROGRAM="1").notes
    assert notes == (
        "KEYTURN_ALOWED_HOSTS: is not read; did you mean KEYTURN_ALLOWED_HOSTS?",
        "TIMEOUT_CONECT: is not read; did you mean TIMEOUT_CONNECT?",
    )


def test_without_files_there_is_no_word_of_them(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    config = load({"GROQ_API_KEY": "gsk_key_of_the_test"}, cwd=tmp_path)
    assert config.notes == ()
    assert (config.routes, config.names, config.limit_rules, config.callers) == ({}, {}, {}, {})


def test_a_folder_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, cwd=tmp_path, options=Options(config=Path("nowhere")))
    assert caught.value.problems == [f"--config: there is no folder {tmp_path}/nowhere"]


def test_a_server_at_the_gateways_own_port_is_noted() -> None:
    (note,) = configured(VLLM_API_BASE="http://localhost:8000/v1").notes
    assert note.startswith("vllm is reached at port 8000 of this machine")
    assert load({"VLLM_API_BASE": "http://localhost:8000/v1"}, cwd=NOWHERE, options=Options(port=8001)).notes == ()


def test_find_keys_by_every_name() -> None:
    config = configured(GROQ_API_KEY_2="b", OPENAI_API_KEY="c")
    second = config.credentials["groq"][1]
    for name in ("groq-2", second.shown, second.fingerprint, second.fingerprint[:6]):
        assert config.find_keys(name) == (second,)
    assert config.find_keys("groq") == config.credentials["groq"]
    assert config.find_keys("groq-3") == ()


def test_a_mistake_does_not_hide_the_notes() -> None:
    with pytest.raises(ConfigError) as caught:
        configured(KEYTURN_PORT="x", TIMEOUT_POOL="60")
    (note,) = notes_of(caught.value)
    assert note.startswith("TIMEOUT_POOL: has no effect")


def test_the_example_file_loads_and_sets_nothing() -> None:
    config = load({}, env_file=Path(__file__).parents[2] / ".env.example", cwd=NOWHERE)
    assert config.demo
    assert config.notes == ()
    assert config.origins == {}


def test_the_example_file_is_right_in_every_line(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / ".env.example").read_text()
    (tmp_path / ".env").write_text(re.sub(r"^#(?=[A-Z][A-Z0-9_]*=)", "", text, flags=re.MULTILINE))
    keys = {f"{name}_API_KEY_{number}": f"{name}{number}" for name in ("GROQ", "GEMINI") for number in (1, 2, 3)}
    config = load(keys, cwd=tmp_path)
    assert config.notes == ()
    assert list(config.providers) == ["gemini", "vertex", "groq", "ollama", "g4f", "myserver"]


@pytest.mark.parametrize(
    "name", ["G4F_FALLBACK_ENABLED", "MODEL_FALLBACK_GROUPS", "TRANSIENT_RETRY_DELAY", "OPENROUTER_MAX_TOKENS"]
)
def test_what_an_older_system_read_and_this_one_does_not_is_told(name: str, tmp_path: Path) -> None:
    config = load({"GROQ_API_KEY": "a", name: "1"}, cwd=tmp_path)
    assert any(note.startswith(f"{name}: has no effect") for note in config.notes)
