"""Keys from variables: numbering, blanks, duplicates, spellings, groups, plans, custom servers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyturn.config import VARIABLES, Config, load
from keyturn.core import Credential, fingerprint
from keyturn.errors import ConfigError

NOWHERE = Path("/nonexistent")


def configured(**environ: str) -> Config:
    return load(environ, cwd=NOWHERE)


def problems_of(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(**environ)
    return caught.value.problems


def variables(keys: tuple[Credential, ...]) -> list[str]:
    return [key.origin for key in keys]


def test_CFG_16_numbered_keys() -> None:
    config = configured(GROQ_API_KEY_2="b", GROQ_API_KEY_1="a", GROQ_API_KEY="z")
    assert [(key.label, key.secret.reveal()) for key in config.credentials["groq"]] == [
        ("groq-0", "z"),
        ("groq-1", "a"),
        ("groq-2", "b"),
    ]


def test_CFG_17_blank_keys_and_the_caller_key_make_no_credential() -> None:
    config = configured(GROQ_API_KEY="", GROQ_API_KEY_1="  \t", GROQ_API_KEY_2="a", PROXY_API_KEY="caller")
    assert list(config.credentials) == ["groq"]
    assert variables(config.credentials["groq"]) == ["GROQ_API_KEY_2"]


def test_CFG_18_gaps_in_the_numbers_are_allowed() -> None:
    assert variables(configured(GROQ_API_KEY_1="a", GROQ_API_KEY_3="c").credentials["groq"]) == [
        "GROQ_API_KEY_1",
        "GROQ_API_KEY_3",
    ]


def test_CFG_19_any_number_in_natural_order() -> None:
    config = configured(**{f"GROQ_API_KEY_{number}": f"key-{number}" for number in range(1, 31)})
    assert [key.number for key in config.credentials["groq"]] == list(range(1, 31))


def test_CRD_01_several_keys_of_several_providers() -> None:
    config = configured(GROQ_API_KEY_1="a", GROQ_API_KEY_2="b", OPENAI_API_KEY="c", GEMINI_API_KEY_1="d")
    assert {name: len(keys) for name, keys in config.credentials.items()} == {"groq": 2, "openai": 1, "gemini": 1}


def test_CRD_02_blank_keys_and_spaces_around_keys() -> None:
    blanks = {f"GOOGLE_API_KEY_{number}": "" for number in range(2, 6)}
    (key,) = configured(GOOGLE_API_KEY_1="  AIza-one\n", **blanks).credentials["gemini"]
    assert key.secret.reveal() == "AIza-one"


def test_CRD_03_a_provider_without_a_key_is_left_out_and_breaks_no_other() -> None:
    config = configured(GROQ_API_KEY="a", TOGETHER_API_KEY="", OPENROUTER_API_BASE="https://openrouter.ai/api/v1")
    assert list(config.providers) == ["groq"]
    assert config.notes == ("OPENROUTER_API_BASE: has no effect: openrouter needs a key, set OPENROUTER_API_KEY",)


def test_CRD_04_identity_depends_on_provider_and_secret_alone() -> None:
    """The design's 16 hex digits, not the row's 12."""
    (first,) = configured(GROQ_API_KEY_7="same").credentials["groq"]
    (second,) = configured(GROQ_API_KEY="same").credentials["groq"]
    assert first.fingerprint == second.fingerprint == fingerprint("groq", "same")
    assert re.fullmatch(r"[0-9a-f]{16}", first.fingerprint)


def test_CRD_05_keys_are_shown_by_label_and_fingerprint() -> None:
    (key,) = configured(GROQ_API_KEY_2="gsk_very_secret_value").credentials["groq"]
    assert key.shown == f"groq-2:{key.fingerprint[:6]}"
    assert "gsk" not in repr(key)


def test_one_key_in_two_variables_is_used_once() -> None:
    config = configured(GROQ_API_KEY="a", GROQ_API_KEY_2="b", GROQ_API_KEY_10="a")
    assert variables(config.credentials["groq"]) == ["GROQ_API_KEY", "GROQ_API_KEY_2"]
    assert config.notes == ("GROQ_API_KEY_10: is the same key as GROQ_API_KEY; it is used once",)


def test_google_and_gemini_are_one_provider() -> None:
    config = configured(GOOGLE_API_KEY_1="a", GEMINI_API_KEY_2="b", GEMINI_API_KEY_3="a")
    assert {name: variables(keys) for name, keys in config.credentials.items()} == {
        "gemini": ["GOOGLE_API_KEY_1", "GEMINI_API_KEY_2"]
    }


def test_aliases_name_their_provider() -> None:
    assert list(configured(TOGETHER_AI_API_KEY="a").providers) == ["together"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GORQ_API_KEY", "did you mean GROQ_API_KEY?"),
        ("GORQ_API_KEY_3", "did you mean GROQ_API_KEY_3?"),
        ("groq_api_key", "did you mean GROQ_API_KEY?"),
        ("GROQ_API_KEYS", "did you mean GROQ_API_KEY?"),
        ("GROQ_API_KEY2", "did you mean GROQ_API_KEY_2?"),
        ("QQQQQQ_API_KEY", "set QQQQQQ_API_BASE if it speaks the OpenAI API"),
    ],
)
def test_an_unknown_key_variable_is_reported_and_not_guessed(name: str, said: str) -> None:
    config = configured(**{name: "secret-value"})
    assert config.demo
    assert len(config.notes) == 1
    assert config.notes[0].startswith(f"{name}: ")
    assert config.notes[0].endswith(said)
    assert "secret-value" not in config.notes[0]


@pytest.mark.parametrize("flawed", ["two words", "line\nbreak", "bell\x07", "“smart”", "zero\u200bwidth", '"quoted"'])
def test_a_key_with_an_impossible_character_is_refused_without_showing_it(flawed: str) -> None:
    (problem,) = problems_of(GROQ_API_KEY_1=flawed)
    assert problem.startswith("GROQ_API_KEY_1: ")
    assert flawed not in problem


def test_all_mistakes_come_at_once_with_their_places(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "GROQ_API_KEY=a b\nKEY_PLAN_OPENAI=fre\n\nOPENAI_API_KEY=x\nQUOTA_GROUP_OPENAI=0,7\n"
    )
    with pytest.raises(ConfigError) as caught:
        load({"USE_PAID_MODELS": "perhaps", "MYSERVER_API_BASE": "ftp://host"}, cwd=tmp_path)
    assert sorted(re.split("[ :]", problem)[0] for problem in caught.value.problems) == [
        "GROQ_API_KEY",
        "KEY_PLAN_OPENAI",
        "MYSERVER_API_BASE",
        "QUOTA_GROUP_OPENAI",
        "USE_PAID_MODELS",
    ]
    assert "KEY_PLAN_OPENAI (.env:2): 'fre' is not one of free and paid (did you mean free?)" in caught.value.problems


GROQ_KEYS = {"GROQ_API_KEY": "z", "GROQ_API_KEY_1": "a", "GROQ_API_KEY_2": "b", "GROQ_API_KEY_3": "c"}


class TestQuotaGroups:
    def groups(self, value: str, **more: str) -> list[list[int]]:
        config = configured(**GROQ_KEYS, **more, QUOTA_GROUP_GROQ=value)
        keys = config.credentials["groq"]
        names = dict.fromkeys(key.group for key in keys)
        return [[key.number for key in keys if key.group == name] for name in names]

    def test_by_default_every_key_is_its_own(self) -> None:
        assert self.groups(" ") == [[0], [1], [2], [3]]

    def test_numbers_with_commas_share_and_semicolons_separate(self) -> None:
        assert self.groups("1, 2; 3") == [[0], [1, 2], [3]]
        assert self.groups("0,3;1,2") == [[0, 3], [1, 2]]

    def test_a_duplicate_stands_for_the_key_that_it_repeats(self) -> None:
        assert self.groups("2,4", GROQ_API_KEY_4="a") == [[0], [1, 2], [3]]

    def test_a_blank_key_is_passed_over(self) -> None:
        assert self.groups("1,9", GROQ_API_KEY_9="") == [[0], [1], [2], [3]]

    def test_a_group_keeps_its_name_when_keys_are_renumbered(self) -> None:
        one = configured(GROQ_API_KEY_1="a", GROQ_API_KEY_2="b", QUOTA_GROUP_GROQ="1,2").credentials["groq"]
        two = configured(GROQ_API_KEY_5="b", GROQ_API_KEY_7="a", QUOTA_GROUP_GROQ="5,7").credentials["groq"]
        assert {key.group for key in one} == {key.group for key in two}

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("1,8", "there is no key 8; the keys are 0, 1, 2 and 3"),
            ("1,2;2,3", "names key 2 twice; a key is in one group"),
            ("1,x", "'x' is not a key number; write 2 for …_API_KEY_2 and 0 for the bare key"),
        ],
    )
    def test_a_wrong_number_is_a_mistake(self, value: str, said: str) -> None:
        assert problems_of(**GROQ_KEYS, QUOTA_GROUP_GROQ=value) == [f"QUOTA_GROUP_GROQ: {said}"]

    def test_a_group_of_an_unknown_provider_is_noted(self) -> None:
        config = configured(GROQ_API_KEY="a", QUOTA_GROUP_GORQ="0,1")
        assert config.notes == (
            "QUOTA_GROUP_GORQ: no provider is called gorq, so it has no effect; did you mean QUOTA_GROUP_GROQ?",
        )


def test_plans_and_weights() -> None:
    keys = configured(GROQ_API_KEY_1="a", GROQ_API_KEY_2="b", KEY_PLAN_GROQ="Free", KEY_WEIGHTS_GROQ="1:3").credentials[
        "groq"
    ]
    assert [(key.plan, key.weight) for key in keys] == [("free", 3.0), ("free", 1.0)]


@pytest.mark.parametrize("value", ["1", "1:0", "1:x", "1:-2", "1:nan"])
def test_a_wrong_weight_is_a_mistake(value: str) -> None:
    (problem,) = problems_of(GROQ_API_KEY_1="a", KEY_WEIGHTS_GROQ=value)
    assert problem.startswith("KEY_WEIGHTS_GROQ: is not a list like 1:3,2:1")


class TestBases:
    def test_CFG_41_a_base_overrides_a_known_provider(self) -> None:
        config = configured(GROQ_API_KEY="a", GROQ_API_BASE="https://proxy.example.com/groq/v1/")
        assert config.providers["groq"].base_url == "https://proxy.example.com/groq/v1"

    def test_CFG_41_a_base_with_a_new_name_makes_a_provider(self) -> None:
        config = configured(MYSERVER_API_BASE="http://127.0.0.1:1234/v1", MYSERVER_API_KEY_2="k")
        assert config.providers["myserver"].base_url == "http://127.0.0.1:1234/v1"
        assert [(key.number, key.secret.reveal()) for key in config.credentials["myserver"]] == [(2, "k")]

    def test_a_server_of_ones_own_needs_no_key(self) -> None:
        (key,) = configured(MYSERVER_API_BASE="http://127.0.0.1:1234/v1").credentials["myserver"]
        assert (key.number, key.secret.reveal(), key.origin) == (0, "", "MYSERVER_API_BASE")

    def test_a_local_server_of_the_catalog_is_used_once_its_base_is_set(self) -> None:
        assert configured().demo
        assert list(configured(OLLAMA_API_BASE="http://localhost:11434/v1").providers) == ["ollama"]

    def test_two_spellings_that_disagree_are_a_mistake(self) -> None:
        (problem,) = problems_of(
            GOOGLE_API_KEY="a",
            GEMINI_API_BASE="https://one.example.com/v1",
            GOOGLE_API_BASE="https://two.example.com/v1",
        )
        assert problem == "GOOGLE_API_BASE: says something else than GEMINI_API_BASE; keep one of them"

    def test_a_server_without_a_path_is_noted(self) -> None:
        config = configured(MYSERVER_API_BASE="http://127.0.0.1:1234")
        assert config.notes == ("MYSERVER_API_BASE: has no path; most servers of this kind want /v1 at its end",)


def test_without_any_key_only_the_demo_is_served() -> None:
    config = configured(GROQ_API_KEY=" ")
    assert config.demo
    assert list(config.providers) == ["demo"]
    assert [key.secret.reveal() for key in config.credentials["demo"]] == [""]


PREFIXES = ("GROQ", "GOOGLE", "GEMINI", "GORQ", "MYSERVER", "PROXY", "", "DEMO", "AZURE", "GROQ_BALANCED")
FAMILIES = (
    *("{}_API_KEY", "{}_API_KEY_1", "{}_API_KEY_02", "{}_API_KEYS", "{}_API_KEY_x", "{}_API_BASE", "{}_MODELS"),
    *("{}_CHAT_MODEL", "QUOTA_GROUP_{}", "KEY_PLAN_{}", "KEY_WEIGHTS_{}", "ROTATION_MODE_{}", "PROVIDER_PRIORITY_{}"),
    *("MAX_CONCURRENT_REQUESTS_PER_KEY_{}", "LIMITS_{}", "TIMEOUT_{}", "KEYTURN_{}"),
)
NAMES = st.one_of(
    st.builds(str.format, st.sampled_from(FAMILIES), st.sampled_from(PREFIXES)),
    st.sampled_from(
        [variable.name for variable in VARIABLES if "<" not in variable.name and variable.name != "PROXY_ENV"]
    ),
)
SECRETS = st.from_regex(r"SECRET[0-9]{4}[ -~]{0,8}", fullmatch=True)
TEXTS = st.one_of(SECRETS, st.text(max_size=30), st.from_regex(r"[0-9,;: =\[\]{}\"a-z./@?#]{0,20}", fullmatch=True))


@given(st.dictionaries(NAMES, TEXTS, max_size=12))
@example({"GROQ_API_KEY": "SECRET1234", "ROTATION_MODE_GROQ": "SECRET1234"})
@example({"GROQ_API_KEY": "SECRET1234", "GROQ_MODELS": '["SECRET1234"'})
@example({"MYSERVER_API_BASE": "https://SECRET1234@host/v1"})
@example({"GROQ_MODELS": "[" * 5000})
@example({"KEYTURN_DATA": "~nobody-of-that-name/x"})
def test_any_environment_loads_or_is_refused_and_shows_no_secret(environ: dict[str, str]) -> None:
    try:
        said = list(load(environ, cwd=NOWHERE).notes)
    except ConfigError as error:
        said = error.problems
    assert all(message.isprintable() for message in said)
    for name, value in environ.items():
        if "_API_" in name and value.startswith("SECRET"):
            assert not any(value.strip() in message for message in said)


@pytest.mark.parametrize(
    ("variable", "key", "meant"),
    [
        ("GROK_API_KEY", "gsk_planted", "GROQ_API_KEY"),
        ("OPENAI_API_KEY_2", "sk-ant-planted", "ANTHROPIC_API_KEY_2"),
        ("OPENAI_API_KEY", "sk-or-planted", "OPENROUTER_API_KEY"),
        ("GROQ_API_KEY", "AIzaplanted", "GEMINI_API_KEY"),
        ("GROQ_API_KEY", "nvapi-planted", "NVIDIA_API_KEY"),
        ("GROQ_API_KEY", "xai-planted", "XAI_API_KEY"),
        ("GROQ_API_KEY", "pplx-planted", "PERPLEXITY_API_KEY"),
        ("GROQ_API_KEY", "csk-planted", "CEREBRAS_API_KEY"),
        ("GROQ_API_KEY", "hf_planted", "HUGGINGFACE_API_KEY"),
    ],
)
def test_a_key_of_another_provider_is_noted(variable: str, key: str, meant: str) -> None:
    (note,) = configured(**{variable: key}).notes
    assert note.startswith(f"{variable}: is sent to ")
    assert note.endswith(f"use {meant}?")
    assert "planted" not in note


def test_a_key_that_fits_its_provider_or_an_address_of_ones_own_is_not_noted() -> None:
    assert configured(GROQ_API_KEY="gsk_a", OPENAI_API_KEY="sk-proj-a", XAI_API_KEY="xai-a").notes == ()
    assert configured(OPENAI_API_KEY="sk-or-a", OPENAI_API_BASE="https://openrouter.ai/api/v1").notes == ()
