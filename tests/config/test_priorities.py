"""Key priorities, calls per key, shared quotas, fair cycles, lists of models and stickiness, as they are configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import Config, load
from keyturn.core import FairRule
from keyturn.errors import ConfigError

from .files import loaded

NOWHERE = Path("/nonexistent")
KEYS = {"GROQ_API_KEY_1": "first", "GROQ_API_KEY_2": "second", "GROQ_API_KEY_3": "third"}


def configured(**environ: str) -> Config:
    return load(KEYS | environ, cwd=NOWHERE)


def problem_of(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(**environ)
    (problem,) = caught.value.problems
    return problem


def priorities(config: Config) -> list[int | None]:
    return [key.priority for key in config.credentials["groq"]]


class TestKeyPriorities:
    def test_ROT_10_key_number_and_priority(self) -> None:
        assert priorities(configured(KEY_PRIORITIES_GROQ="1:1, 2:1,3:2")) == [1, 1, 2]
        assert priorities(configured()) == [None, None, None]

    def test_ROT_10_in_models_yaml_and_the_variable_wins(self, tmp_path: Path) -> None:
        models = "providers: { groq: { kind: http, key_priorities: { 1: 3, 2: 1, 3: 1 } } }"
        assert priorities(loaded(tmp_path, KEYS, models=models)) == [3, 1, 1]
        said = KEYS | {"KEY_PRIORITIES_GROQ": "1:1,2:2,3:3"}
        assert priorities(loaded(tmp_path, said, models=models)) == [1, 2, 3]

    def test_who_has_none_is_told_what_that_means(self) -> None:
        config = configured(KEY_PRIORITIES_GROQ="2:2")
        assert priorities(config) == [None, 2, None]
        assert "KEY_PRIORITIES_GROQ: keys 1 and 3 have no priority, so all others come before" in config.notes

    @pytest.mark.parametrize("text", ["1", "1:0", "1:x", "1:100", "x:1", "9:1"])
    def test_mistakes(self, text: str) -> None:
        assert problem_of(KEY_PRIORITIES_GROQ=text).startswith("KEY_PRIORITIES_GROQ: ")

    def test_RTE_18_which_models_need_which(self, tmp_path: Path) -> None:
        models = 'providers: { groq: { kind: http, key_priority: { "big-*": 2, big-one: 1 } } }'
        modes = loaded(tmp_path, KEYS, models=models).modes
        assert [modes.enough("groq", model, 2) for model in ("big-one", "big-two", "small")] == [False, True, True]
        assert not modes.enough("groq", "BIG-two", 3)
        assert modes.enough("groq", "big-one", None), "a key without a priority may serve any model"
        said = loaded(tmp_path, KEYS | {"KEY_PRIORITY_FOR_GROQ": "a/b:free:1"}, models=models).modes
        assert said.needed == {"groq": (("a/b:free", 1),)}
        assert "is not like gemini-2.5-pro:1" in problem_of(KEY_PRIORITY_FOR_GROQ="big-one")


class TestCallsPerKey:
    @pytest.mark.parametrize(
        ("environ", "soft"),
        [
            ({}, None),
            ({"OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_GROQ": "2"}, 2),
            ({"OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_GROQ": "-1"}, None),
            ({"OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_GROQ_BALANCED": "3"}, 3),
            ({"OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_GROQ_SEQUENTIAL": "3"}, None),
        ],
    )
    def test_CFG_33_the_soft_target(self, environ: dict[str, str], soft: int | None) -> None:
        assert configured(**environ).modes.soft.get("groq") == soft

    def test_CFG_34_multipliers(self) -> None:
        config = configured(
            CONCURRENCY_MULTIPLIER_GROQ_PRIORITY_1="5",
            CONCURRENCY_MULTIPLIER_GROQ_PRIORITY_2="2",
            CONCURRENCY_MULTIPLIER_GROQ_PRIORITY_2_BALANCED="3",
            CONCURRENCY_MULTIPLIER_GROQ_PRIORITY_1_SEQUENTIAL="9",
        )
        assert config.modes.multipliers == {"groq": {1: 5, 2: 3}}
        assert "is not a whole number from 1 to 1000" in problem_of(CONCURRENCY_MULTIPLIER_GROQ_PRIORITY_1="0")
        assert any("is not read" in note for note in configured(CONCURRENCY_MULTIPLIER_GROQ="2").notes)

    def test_CFG_35_the_fallback_holds_under_sequential_alone(self) -> None:
        said = {"SEQUENTIAL_FALLBACK_MULTIPLIER_GROQ": "4"}
        assert configured(**said).modes.multipliers == {}
        assert configured(**said, ROTATION_MODE_GROQ="sequential").modes.multipliers == {"groq": {0: 4}}

    def test_in_models_yaml(self, tmp_path: Path) -> None:
        models = "providers: { groq: { kind: http, optimal_concurrent: 2, concurrency_multipliers: { 1: 5 } } }"
        modes = loaded(tmp_path, KEYS, models=models).modes
        assert (modes.soft, modes.multipliers) == ({"groq": 2}, {"groq": {1: 5}})

    def test_CFG_31_a_setting_without_effect_is_told(self) -> None:
        (note,) = [each for each in configured(ROTATION_TOLERANCE="3.0").notes if "ROTATION_TOLERANCE" in each]
        assert "has no effect" in note


class TestSharedQuotas:
    def test_CFG_36_groups_of_models(self, tmp_path: Path) -> None:
        models = "providers: { groq: { kind: http, model_quota_groups: { Big: [a, b], other: [c] } } }"
        environ = KEYS | {"QUOTA_GROUPS_GROQ_BIG": "x, y-*", "QUOTA_GROUPS_GROQ_FREE_MODELS": ""}
        groups = loaded(tmp_path, environ, models=models).modes.groups["groq"]
        assert groups == {"big": ("x", "y-*"), "other": ("c",), "free-models": ()}

    def test_CFG_36_the_longest_name_of_a_provider_counts(self) -> None:
        config = configured(QUOTA_GROUPS_GOOGLE_AI_STUDIO_FLASH_LITE="a")
        assert config.modes.groups == {"gemini": {"flash-lite": ("a",)}}

    def test_mistakes(self) -> None:
        assert "names no group; write QUOTA_GROUPS_GROQ_FLASH=" in problem_of(QUOTA_GROUPS_GROQ="a,b")
        told = problem_of(QUOTA_GROUPS_GROQ_X="a", QUOTA_GROUPS_GROQ_Y="b,A", QUOTA_GROUPS_GEMINI_X="a")
        assert told.startswith("QUOTA_GROUPS_GROQ_Y: groq: 'A' is in the groups x and y")
        assert any("no provider is called" in note for note in configured(QUOTA_GROUPS_NOBODY_X="a").notes)


class TestFairCycles:
    @pytest.mark.parametrize(
        ("environ", "on"),
        [
            ({}, False),
            ({"ROTATION_MODE_GROQ": "sequential"}, True),
            ({"ROTATION_MODE_GROQ": "sequential", "FAIR_CYCLE_GROQ": "false"}, False),
            ({"FAIR_CYCLE_GROQ": "true"}, True),
            ({"FAIR_CYCLE_ENABLED_GROQ": "true"}, True),
        ],
    )
    def test_CFG_37_on_under_sequential_or_when_said(self, environ: dict[str, str], on: bool) -> None:
        assert ("groq" in configured(**environ).modes.fair) == on

    def test_CFG_37_how_it_goes(self, tmp_path: Path) -> None:
        environ = {
            "FAIR_CYCLE_GROQ": "true",
            "FAIR_CYCLE_TRACKING_MODE_GROQ": "credential",
            "FAIR_CYCLE_CROSS_TIER_GROQ": "true",
            "FAIR_CYCLE_DURATION_GROQ": "7d",
        }
        assert configured(**environ).modes.fair["groq"] == FairRule(300.0, 604800.0, True, True)
        models = "providers: { groq: { kind: http, fair_cycle: { enabled: true, duration_seconds: 60 } } }"
        assert loaded(tmp_path, KEYS, models=models).modes.fair["groq"] == FairRule(duration=60.0)

    def test_CFG_38_what_counts_as_exhausted_everywhere_and_at_one_provider(self) -> None:
        said = {"FAIR_CYCLE_GROQ": "1", "FAIR_CYCLE_GEMINI": "1", "EXHAUSTION_COOLDOWN_THRESHOLD": "600"}
        fair = configured(**said, EXHAUSTION_COOLDOWN_THRESHOLD_GROQ="2m").modes.fair
        assert (fair["groq"].threshold, fair["gemini"].threshold) == (120, 600)

    def test_CFG_37_mistakes_and_what_has_no_effect(self) -> None:
        assert "is not one of model_group and credential" in problem_of(FAIR_CYCLE_TRACKING_MODE_GROQ="models")
        assert "says something else" in problem_of(FAIR_CYCLE_GROQ="true", FAIR_CYCLE_ENABLED_GROQ="false")
        assert "is no length such as" in problem_of(FAIR_CYCLE_DURATION_GROQ="a day")
        notes = configured(FAIR_CYCLE_DURATION_GROQ="1h", FAIR_CYCLE_QUOTA_THRESHOLD_GROQ="0.9").notes
        assert any("the fair cycle is off, set FAIR_CYCLE_GROQ=true" in note for note in notes)
        assert any("FAIR_CYCLE_QUOTA_THRESHOLD_GROQ: has no effect" in note for note in notes)


class TestModelsAndConversations:
    def test_CFG_40_allow_and_deny(self, tmp_path: Path) -> None:
        models = 'providers: { groq: { kind: http, allow_models: [Llama-3], ignore_models: ["*"] } }'
        found = loaded(tmp_path, KEYS, models=models).modes.lists["groq"]
        assert (found.allow, found.ignore) == (("llama-3",), ("*",))
        assert found.place.startswith("config/models.yaml:")
        said = loaded(tmp_path, KEYS | {"IGNORE_MODELS_GROQ": "a, b*"}, models=models).modes.lists["groq"]
        assert (said.ignore, said.place) == (("a", "b*"), "IGNORE_MODELS_GROQ")

    def test_CFG_40_to_allow_alone_refuses_nothing_and_says_so(self) -> None:
        config = configured(WHITELIST_MODELS_GROQ="llama*")
        assert config.modes.lists == {}
        assert any("WHITELIST_MODELS_GROQ: refuses nothing by itself" in note for note in config.notes)

    @pytest.mark.parametrize(("text", "seconds"), [("", 3600.0), ("0", 0.0), ("90", 90.0)])
    def test_ROT_12_how_long_a_conversation_is_kept(self, text: str, seconds: float) -> None:
        assert configured(SESSION_STICKINESS_TTL=text).modes.stickiness == seconds

    def test_ROT_12_a_mistake(self) -> None:
        assert "is no number of seconds" in problem_of(SESSION_STICKINESS_TTL="-1")
