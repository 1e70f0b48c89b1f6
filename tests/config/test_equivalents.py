"""Groups of the same model: the shipped ones, those of models.yaml, the switch; and defaults without a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import Config, default_models, load
from keyturn.core import Deployment
from keyturn.errors import ConfigError
from keyturn.providers import CATALOG, price_of, shipped_equivalents

from .files import write

GPT_4O = Deployment("openai", "gpt-4o")
KEYS = {"OPENAI_API_KEY": "sk-one", "GROQ_API_KEY": "gsk_one"}


def configured(folder: Path, models: str = "", settings: str = "", **environ: str) -> Config:
    write(folder, models=models, settings=settings)
    return load({**KEYS, **environ}, cwd=folder)


def same(config: Config, name: str) -> set[str]:
    provider, model = name.split("/", 1)
    return {str(each) for each in config.equivalents.of(Deployment(provider, model))}


def problems(folder: Path, models: str = "", settings: str = "", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(folder, models, settings, **environ)
    return caught.value.problems


# --- the shipped groups ---------------------------------------------------------------------------------------------


def test_RTE_16_the_shipped_groups_name_known_providers_and_each_deployment_once() -> None:
    members = [each for group in shipped_equivalents() for each in group]
    assert len(members) == len(set(members))
    assert {each.provider for each in members} <= set(CATALOG)
    assert all(len(group) > 1 for group in shipped_equivalents())
    for (
        each
    ) in members:  # names that the list of prices would not know were made up, or their source stands in the file
        told = each.provider in ("g4f", "huggingface", "sambanova")
        assert told or price_of(*each) is not None or each.model.startswith(("gemma-4", "qwen/qwen3.6")), each


def test_RTE_16_the_shipped_groups_know_the_usual_models() -> None:
    groups = {str(each): {one.provider for one in group} for group in shipped_equivalents() for each in group}
    assert groups["openai/gpt-4o"] == {"openai", "openrouter", "g4f"}
    assert groups["anthropic/claude-opus-5-5"] == {"anthropic", "openrouter"}
    assert groups["gemini/gemini-2.5-flash"] == {"gemini", "openrouter", "g4f"}
    assert {"groq", "together", "openrouter", "cerebras", "sambanova"} <= groups["groq/llama-3.3-70b-versatile"]
    assert {"groq", "together", "openrouter", "cerebras", "fireworks"} <= groups["groq/openai/gpt-oss-120b"]


# --- groups of one's own and the switch -----------------------------------------------------------------------------

OWN = """
providers:
  my_server: { base_url: https://llm.example.com/v1, api_key: x }
equivalents:
  - [openai/gpt-4o, my-server/big]
  - [groq/a, google_ai_studio/models/a]
"""


def test_RTE_16_own_groups_are_joined_with_the_shipped_ones(tmp_path: Path) -> None:
    config = configured(tmp_path, OWN)
    assert same(config, "openai/gpt-4o") == {"my_server/big", "openrouter/openai/gpt-4o", "g4f/gpt-4o"}
    assert same(config, "groq/a") == {"gemini/a"}
    assert same(config, "groq/llama-3.1-8b-instant")


def test_RTE_16_own_groups_alone_or_none(tmp_path: Path) -> None:
    own = '[routing]\nequivalents = "own"\n'
    config = configured(tmp_path, OWN, own)
    assert same(config, "openai/gpt-4o") == {"my_server/big"}
    assert config.origins["equivalents"].endswith("settings.toml:2")
    assert same(configured(tmp_path, OWN, own, KEYTURN_EQUIVALENTS="off"), "openai/gpt-4o") == set()
    assert "g4f/gpt-4o" in same(configured(tmp_path, OWN, own, KEYTURN_EQUIVALENTS="Shipped"), "openai/gpt-4o")


def test_RTE_16_mistakes_in_groups_are_told_with_their_place(tmp_path: Path) -> None:
    text = "equivalents:\n  - [openai/gpt-4o, grok_/x]\n  - [groq/a, gpt-4o]\n"
    found = problems(tmp_path, text, KEYTURN_EQUIVALENTS="of")
    assert any("models.yaml:2: no provider is called grok_; did you mean grok?" in each for each in found)
    assert any("models.yaml:3: equivalents.1: gpt-4o is not like provider/model" in each for each in found)
    assert any(each.startswith("KEYTURN_EQUIVALENTS: 'of' is not one of shipped, own and off") for each in found)
    (alone,) = problems(tmp_path, "equivalents:\n  - [openai/gpt-4o]\n")
    assert "models.yaml:2" in alone
    (word,) = problems(tmp_path, settings='[routing]\nequivalents = "of"\n')
    assert "settings.toml:2: routing.equivalents" in word


# --- provider tiers -------------------------------------------------------------------------------------------------


def test_CFG_51_and_LIB_09_tiers_of_providers(tmp_path: Path) -> None:
    config = configured(tmp_path, G4F_API_BASE="https://g4f.test/v1", MYSERVER_API_BASE="https://my.test/v1")
    named = (
        "openai",
        "anthropic",
        "groq",
        "openrouter",
        "gemini",
        "google-ai-studio",
        "mistral",
        "g4f",
        "MyServer",
        "who",
    )
    assert [config.tier_of(name) for name in named] == [1, 1, 2, 2, 3, 3, 3, 5, 4, 4]
    assert config.by_tier() == ("openai", "groq", "myserver", "g4f")


def test_RTE_14_g4f_is_last_unless_its_own_variable_says_otherwise(tmp_path: Path) -> None:
    more = {"G4F_API_BASE": "https://g4f.test/v1", "PROVIDER_PRIORITY_OPENAI": "10"}
    assert configured(tmp_path, **more).by_tier() == ("groq", "openai", "g4f")
    assert configured(tmp_path, **more, PROVIDER_PRIORITY_G4F="9").by_tier() == ("groq", "g4f", "openai")


@pytest.mark.parametrize("spelling", ["NVIDIA", "NVIDIA_NIM", "NIM"])
def test_CFG_61_every_spelling_of_a_provider_sets_its_tier(spelling: str) -> None:
    config = load({"NIM_API_KEY": "nvapi-1", f"PROVIDER_PRIORITY_{spelling}": "2"}, cwd=Path("/nonexistent"))
    assert config.tiers == {"nvidia": 2}
    assert [config.tier_of(name) for name in ("nvidia-nim", "nvidia_nim", "NVIDIA")] == [2, 2, 2]


# --- defaults -------------------------------------------------------------------------------------------------------


def test_CFG_20_defaults_of_calls_without_a_model(tmp_path: Path) -> None:
    more = {"OPENROUTER_API_KEY": "sk-or-1", "GEMINI_API_KEY": "AIza-1", "G4F_API_BASE": "https://g4f.test/v1"}
    built_in = default_models(configured(tmp_path, **more))
    assert [str(each) for each in built_in["chat"]] == [
        "openrouter/google/gemini-2.0-flash-exp:free",
        "groq/llama3-8b-8192",
        "gemini/gemini-2.0-flash-exp",
    ]
    assert [str(each) for each in built_in["embeddings"]] == [
        "openai/text-embedding-3-small",
        "gemini/gemini-embedding-001",
    ]
    said = {
        "G4F_CHAT_MODEL": "gpt-4o",
        "GROQ_CHAT_MODEL": "b",
        "GEMINI_CHAT_MODEL": "models/c",
        "OPENAI_CHAT_MODEL": "a",
    }
    told = default_models(configured(tmp_path, **more, **said, OPENAI_EMBEDDING_MODEL="e"))
    wanted = ["openai/a", "openrouter/google/gemini-2.0-flash-exp:free", "groq/b", "gemini/c", "g4f/gpt-4o"]
    assert [str(each) for each in told["chat"]] == wanted
    assert told["embeddings"][0] == Deployment("openai", "e")


def test_PRV_06_the_default_of_embeddings_in_models_yaml_and_the_variable_over_it(tmp_path: Path) -> None:
    text = "providers:\n  openai: { env_key: OPENAI_API_KEY, embedding_model: large }\n"
    config = configured(tmp_path, text)
    assert config.embedding_models == {"openai": "large"}
    assert config.origins["openai.embedding_model"].endswith("models.yaml:2")
    assert configured(tmp_path, text, OPENAI_EMBEDDING_MODEL="small").embedding_models == {"openai": "small"}
