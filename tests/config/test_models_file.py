"""models.yaml: providers and their keys."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

from keyturn.config import Rotation, load
from tools.bench import loading

from .files import loaded, notes_beside, problems_of, write

SEED = """
    providers:
      groq:
        kind: http
        base_url: https://api.groq.com/openai/v1
        env_key: GROQ_API_KEY
      together:
        kind: http
        base_url: https://api.together.ai/v1
        env_key: TOGETHER_API_KEY
      openrouter:
        kind: http
        base_url: https://openrouter.ai/api/v1
        env_key: OPENROUTER_API_KEY
      google_ai_studio:
        kind: http
        base_url: https://generativelanguage.googleapis.com
        api_keys: [KEYS]
        rotation: { strategy: round_robin, cooldown_seconds: 60 }
      codex_cli:
        kind: cli
        cmd: ["codex", "chat", "--model", "${MODEL}", "--stdin"]
      claude_code:
        kind: cli
        cmd: ["claude", "--model", "${MODEL}"]
"""
"""The shape that the router's users have."""
BARE = ", ".join(f"${{GOOGLE_API_KEY_{number}}}" for number in range(1, 6))
QUOTED = ", ".join(f'"${{GOOGLE_API_KEY_{number}}}"' for number in range(1, 6))
ALL_KEYS = {
    "GROQ_API_KEY": "gsk_key_of_the_test",
    "TOGETHER_API_KEY": "together-key",
    "OPENROUTER_API_KEY": "sk-or-key-of-the-test",
} | {f"GOOGLE_API_KEY_{number}": f"AIza-key-number-{number}" for number in range(1, 6)}


def test_CFG_04_providers_of_both_kinds(tmp_path: Path) -> None:
    config = loaded(tmp_path, ALL_KEYS, models=SEED.replace("KEYS", BARE))
    assert list(config.providers) == ["gemini", "groq", "together", "openrouter", "codex_cli", "claude_code"]
    tool = config.providers["claude_code"].tool
    assert tool is not None
    assert "${MODEL}" in tool.argv
    assert not config.demo


def test_CFG_05_default_base_urls(tmp_path: Path) -> None:
    """Gemini is reached through its native API: the host alone is completed."""
    config = loaded(tmp_path, ALL_KEYS, models=SEED.replace("KEYS", BARE))
    assert {name: config.providers[name].base_url for name in ("groq", "together", "openrouter", "gemini")} == {
        "groq": "https://api.groq.com/openai/v1",
        "together": "https://api.together.ai/v1",
        "openrouter": "https://openrouter.ai/api/v1",
        "gemini": "https://generativelanguage.googleapis.com/v1beta",
    }
    assert config.providers["gemini"].dialect == "gemini"


@pytest.mark.parametrize("path", ["", "/", "/v1beta", "/v1beta/", "/v1beta/openai"])
def test_CFG_05_every_way_to_write_the_address_of_gemini(tmp_path: Path, path: str) -> None:
    """The address of the OpenAI-compatible endpoint says that it is spoken to in OpenAI Chat."""
    compatible = path.endswith("/openai")
    whole = "https://generativelanguage.googleapis.com/v1beta" + ("/openai" if compatible else "")
    key = {"GEMINI_API_KEY": "AIza-key"}
    written = f"https://generativelanguage.googleapis.com{path}"
    filed = loaded(tmp_path, key, models=f"providers: {{ gemini: {{ kind: http, base_url: '{written}' }} }}")
    for config in (filed, loaded(tmp_path, key | {"GEMINI_API_BASE": written})):
        gemini = config.providers["gemini"]
        assert gemini.base_url == whole
        assert gemini.dialect == ("openai_chat" if compatible else "gemini")
        assert gemini.auth_header == ("authorization" if compatible else "x-goog-api-key")


def test_a_server_of_ones_own_may_speak_any_dialect(tmp_path: Path) -> None:
    box = {"BOX_API_KEY": "k", "BOX_API_BASE": "http://127.0.0.1:1/v1"}
    models = "providers: { box: { kind: http, base_url: 'http://127.0.0.1:1/v1', dialect: gemini } }"
    assert loaded(tmp_path, box).providers["box"].dialect == "openai_chat"
    assert loaded(tmp_path, box, models=models).providers["box"].dialect == "gemini"
    anthropic = loaded(tmp_path, box | {"BOX_DIALECT": "anthropic"}, models=models).providers["box"]
    assert (anthropic.dialect, anthropic.auth_header, anthropic.auth_prefix) == ("anthropic", "x-api-key", "")


def test_a_dialect_that_nobody_speaks(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {"GROQ_API_KEY": "k", "GROQ_DIALECT": "antropic"})
    assert problem == "GROQ_DIALECT: 'antropic' is no dialect; did you mean anthropic?"


def test_CFG_05_another_path_is_left_alone(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"GEMINI_API_KEY": "AIza-key", "GEMINI_API_BASE": "http://127.0.0.1:1/v1"})
    assert config.providers["gemini"].base_url == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize("written", [BARE, QUOTED])
def test_CFG_06_google_keys_bare_and_quoted(tmp_path: Path, written: str) -> None:
    config = loaded(tmp_path, ALL_KEYS, models=SEED.replace("KEYS", written))
    keys = config.credentials["gemini"]
    assert [(key.number, key.origin) for key in keys] == [(n, f"GOOGLE_API_KEY_{n}") for n in range(1, 6)]
    assert [key.secret.reveal() for key in keys] == [f"AIza-key-number-{n}" for n in range(1, 6)]
    assert config.strategies == {"gemini": "round_robin"}
    assert config.rotations == {"gemini": Rotation(60.0)}


def test_CRD_02_blank_keys(tmp_path: Path) -> None:
    environ = {"GOOGLE_API_KEY_1": " AIza-only ", "GOOGLE_API_KEY_2": "", "GOOGLE_API_KEY_3": "  "}
    config = loaded(tmp_path, environ, models=SEED.replace("KEYS", BARE))
    assert [(key.number, key.secret.reveal()) for key in config.credentials["gemini"]] == [(1, "AIza-only")]


def test_CRD_03_one_missing_provider_key_does_not_break_others(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"GROQ_API_KEY": "gsk_key_of_the_test"}, models=SEED.replace("KEYS", BARE))
    assert [name for name, row in config.providers.items() if row.tool is None] == ["groq"]
    assert config.unset == {
        "gemini": "GOOGLE_API_KEY_1",
        "together": "TOGETHER_API_KEY",
        "openrouter": "OPENROUTER_API_KEY",
    }


def test_without_any_key_the_demo_is_served_beside_the_tools(tmp_path: Path) -> None:
    config = loaded(tmp_path, models=SEED.replace("KEYS", BARE))
    assert config.demo
    assert list(config.providers) == ["demo", "codex_cli", "claude_code"]


def test_CFG_07_a_variable_that_is_not_set_is_a_blank_key(tmp_path: Path) -> None:
    config = loaded(tmp_path, models="providers: { groq: { kind: http, api_keys: [${NO_SUCH_KEY}, '${NOR_THIS}'] } }")
    assert config.demo
    assert config.unset == {"groq": "NO_SUCH_KEY"}


def test_CFG_07_a_default_is_taken_when_nothing_is_set(tmp_path: Path) -> None:
    models = "providers: { mine: { kind: http, base_url: '${MINE_URL:-http://127.0.0.1:9/v1}' } }"
    assert loaded(tmp_path, models=models).providers["mine"].base_url == "http://127.0.0.1:9/v1"
    config = loaded(tmp_path, {"MINE_URL": "http://10.0.0.1/v1"}, models=models)
    assert config.providers["mine"].base_url == "http://10.0.0.1/v1"


def test_keys_of_the_list_come_first_and_duplicates_are_dropped_without_a_word(tmp_path: Path) -> None:
    environ = {"GROQ_API_KEY": "gsk_bare", "GROQ_API_KEY_1": "gsk_one", "GROQ_API_KEY_7": "gsk_seven"}
    models = "providers: { groq: { kind: http, api_key: gsk_filed, api_keys: [${GROQ_API_KEY_7}, ${GROQ_API_KEY_1}] } }"
    config = loaded(tmp_path, environ, models=models, limits="")
    assert [(key.number, key.secret.reveal(), key.origin) for key in config.credentials["groq"]] == [
        (0, "gsk_filed", "config/models.yaml:1"),
        (1, "gsk_seven", "GROQ_API_KEY_7"),
        (2, "gsk_one", "GROQ_API_KEY_1"),
        (0, "gsk_bare", "GROQ_API_KEY"),
    ]
    assert [note for note in config.notes if "same key" in note] == []


def test_a_key_that_is_twice_in_the_list_is_noted(tmp_path: Path) -> None:
    config = loaded(tmp_path, models="providers: { groq: { api_keys: [gsk_one, gsk_one] } }", limits="")
    assert len(config.credentials["groq"]) == 1
    assert [note for note in config.notes if "same key" in note and "gsk" not in note]


def test_env_key_names_a_variable_and_its_numbered_ones(tmp_path: Path) -> None:
    environ = {"WORK_TOKEN": "k0", "WORK_TOKEN_2": "k2", "WORK_TOKEN_10": "k10", "WORK_TOKEN_X": "no"}
    models = "providers: { work: { base_url: 'https://llm.example.com/v1', env_key: WORK_TOKEN } }"
    config = loaded(tmp_path, environ, models=models, limits="")
    assert [(key.number, key.secret.reveal()) for key in config.credentials["work"]] == [
        (0, "k0"),
        (2, "k2"),
        (10, "k10"),
    ]
    assert config.notes == ()


def test_env_key_whose_name_looks_like_another_provider_is_not_noted(tmp_path: Path) -> None:
    environ = {"WORK_API_KEY": "k0", "WORK_API_KEY_1": "k1"}
    models = "providers: { groq: { env_key: WORK_API_KEY } }"
    config = loaded(tmp_path, environ, models=models, limits="")
    assert [key.secret.reveal() for key in config.credentials["groq"]] == ["k0", "k1"]
    assert config.notes == ()


def test_a_server_of_ones_own(tmp_path: Path) -> None:
    models = "providers: { My-Server: { base_url: 'http://127.0.0.1:9/v1', models: [tiny, small], chat_model: tiny } }"
    config = loaded(tmp_path, models=models)
    assert config.providers["my_server"].base_url == "http://127.0.0.1:9/v1"
    assert not config.credentials["my_server"][0].secret, "no word of a key: it needs none"
    assert config.static_models == {"my_server": ("tiny", "small")}
    assert config.chat_models == {"my_server": "tiny"}
    keyed = models.replace("models:", "env_key: MY_KEY, models:")
    assert loaded(tmp_path, models=keyed).unset == {"my_server": "MY_KEY"}


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    models = """
        providers:
          google_ai_studio:
            base_url: https://example.com/v1beta/openai
            api_keys: [AIza-one, AIza-two]
            rotation: { strategy: round_robin, cooldown_seconds: 5, rotate_each_call: true }
            plan: free
            priority: 2
            quota_groups: [[1, 2]]
            models: [a]
            chat_model: a
            max_concurrent: 3
    """
    filed = loaded(tmp_path, models=models)
    assert filed.providers["gemini"].base_url == "https://example.com/v1beta/openai"
    assert (filed.tiers, filed.max_concurrent, filed.chat_models) == ({"gemini": 2}, {"gemini": 3}, {"gemini": "a"})
    assert filed.rotations == {"gemini": Rotation(5.0, each_call=True)}
    first, second = filed.credentials["gemini"]
    assert first.group == second.group
    assert {first.plan, second.plan} == {"free"}
    said = loaded(
        tmp_path,
        {
            "GEMINI_API_BASE": "https://example.org/v1beta/openai",
            "ROTATION_MODE_GOOGLE": "sequential",
            "PROVIDER_PRIORITY_GEMINI": "5",
            "QUOTA_GROUP_GEMINI": "1;2",
            "GEMINI_MODELS": "b",
            "GEMINI_CHAT_MODEL": "b",
            "MAX_CONCURRENT_REQUESTS_PER_KEY_GEMINI": "-1",
            "KEY_PLAN_GEMINI": "paid",
        },
    )
    assert said.providers["gemini"].base_url == "https://example.org/v1beta/openai"
    assert said.strategies == {"gemini": "sequential"}
    assert said.rotations == {"gemini": Rotation(5.0, each_call=True)}
    assert (said.tiers, said.max_concurrent, said.chat_models) == ({"gemini": 5}, {}, {"gemini": "b"})
    assert said.static_models == {"gemini": ("a", "b")}
    first, second = said.credentials["gemini"]
    assert first.group != second.group
    assert first.plan == "free", "the plan of the file comes before KEY_PLAN_<P>"


def test_the_plan_of_the_environment_holds_where_the_file_says_nothing(tmp_path: Path) -> None:
    environ = {"GROQ_API_KEY": "gsk_one", "KEY_PLAN_GROQ": "paid"}
    config = loaded(tmp_path, environ, models="providers: { groq: { kind: http } }")
    assert config.credentials["groq"][0].plan == "paid"


def test_a_quota_group_names_keys_that_there_are(tmp_path: Path) -> None:
    models = "providers: { groq: { api_keys: [gsk_one], quota_groups: [[1, 4]] } }"
    assert problems_of(tmp_path, models=models) == ["config/models.yaml:1: there is no key 4; the keys are 1"]


def test_origins_tell_the_place(tmp_path: Path) -> None:
    models = """
        providers:
          groq:
            base_url: https://api.groq.com/openai/v1
            plan: free
            rotation:
              strategy: sequential
    """
    config = loaded(tmp_path, {"GROQ_API_KEY": "gsk_one"}, models=models)
    assert config.origins["groq.base_url"] == "config/models.yaml:4"
    assert config.origins["groq.plan"] == "config/models.yaml:5"
    assert config.origins["groq.strategy"] == "config/models.yaml:7"
    assert config.origins["GROQ_API_KEY"] == "environment"


def test_no_literal_key_is_quoted_in_a_message(tmp_path: Path) -> None:
    models = "providers: { groq: { api_keys: [gsk_planted_in_a_file] } }"
    problems = problems_of(tmp_path, {"KEYTURN_PORT": "gsk_planted_in_a_file"}, models=models)
    assert len(problems) == 1
    assert "planted" not in problems[0]


def test_files_and_folder_are_told(tmp_path: Path) -> None:
    config = loaded(tmp_path, models="", roles="")
    assert config.folder == tmp_path / "config"
    assert {stamp.path.name: stamp.present for stamp in config.files} == {
        "models.yaml": True,
        "roles.yaml": True,
        "limits.yaml": False,
        "callers.yaml": False,
        "settings.toml": False,
        ".env": False,
    }


def test_a_file_with_another_ending_is_noted(tmp_path: Path) -> None:
    write(tmp_path, limits="")
    (tmp_path / "config" / "models.yml").write_text("providers: {}")
    assert loaded(tmp_path).notes == ("config/models.yml: is not read; the name is models.yaml",)


def test_notes_beside_mistakes_are_told_too(tmp_path: Path) -> None:
    models = "providers: { openrooter: { base_url: 'https://example.com/v1' }, groq: { plan: none } }"
    (note,) = notes_beside(tmp_path, models=models, limits="")
    assert note == "config/models.yaml:1: openrooter is taken as a server of your own; was openrouter meant?"


def work(folder: Path, routes: int, keys: int) -> int:
    """How many functions are called while a configuration of that size is loaded."""
    environ = loading.variables(keys) | {"PATH": ""}
    place = write(folder, models=loading.models_yaml(routes, keys), limits="")
    load(environ, cwd=place)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        load(environ, cwd=place)
    finally:
        sys.setprofile(None)
    return calls


def test_loading_grows_with_the_size_of_the_files_and_no_faster(tmp_path: Path) -> None:
    """Counted, not timed; `make bench` has the time: at most four times what the bare parser takes."""
    small, large = work(tmp_path, 100, 50), work(tmp_path, 1000, 500)
    assert large <= 11 * small
    assert large <= 400 * 1000, "function calls; 1,000 routes and 500 keys are some 10,000 parts"


def test_CFG_05_gemini_in_openais_words_is_asked_where_they_are_spoken(tmp_path: Path) -> None:
    gemini = loaded(tmp_path, {"GEMINI_API_KEY": "k", "GEMINI_DIALECT": "openai_chat"}).providers["gemini"]
    assert gemini.base_url == "https://generativelanguage.googleapis.com/v1beta/openai"
    assert (gemini.dialect, gemini.models_path) == ("openai_chat", "/models")


def test_a_server_that_speaks_as_anthropic_is_asked_for_its_models_so(tmp_path: Path) -> None:
    environ = {"BOX_API_KEY": "k", "BOX_API_BASE": "http://127.0.0.1:1/v1", "BOX_DIALECT": "anthropic"}
    assert dict(loaded(tmp_path, environ).providers["box"].models_headers) == {"anthropic-version": "2023-06-01"}
