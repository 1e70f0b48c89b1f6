"""The catalog: every provider, by every name that people use for it."""

from __future__ import annotations

from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest

from keyturn.providers import CATALOG, custom, known, nearest, speaking
from keyturn.providers.quirks import OURS
from keyturn.wire import Target

ISSUE = (
    "openai anthropic gemini groq together openrouter deepseek mistral cerebras nvidia cohere fireworks xai "
    "huggingface github_models sambanova perplexity azure ollama vllm llamacpp g4f demo"
)


def test_every_provider_of_the_issue_has_a_row() -> None:
    assert set(ISSUE.split()) <= set(CATALOG)
    assert len(CATALOG) == len(list(CATALOG))


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("gemini", "gemini"),
        ("google_ai_studio", "gemini"),
        ("Google-AI-Studio", "gemini"),
        ("gemini_openai_compat", "gemini"),
        ("together-ai", "together"),
        ("together_ai", "together"),
        ("huggingface_hub", "huggingface"),
        ("HF", "huggingface"),
        ("llama.cpp", "llamacpp"),
        ("nvidia_nim", "nvidia"),
        ("ollama_cloud", "ollama_cloud"),
        (" openai ", "openai"),
    ],
)
def test_names_and_aliases(spelled: str, name: str) -> None:
    found = known(spelled)
    assert found is not None
    assert found.name == name


def test_unknown_names() -> None:
    assert known("myserver") is None
    assert known("") is None
    assert "myserver" not in CATALOG


def test_no_two_providers_share_a_name_or_a_variable() -> None:
    names = [name for row in CATALOG.values() for name in (row.name, *row.aliases)]
    variables = [variable for row in CATALOG.values() for variable in row.variables]
    assert len(names) == len(set(names))
    assert len(variables) == len(set(variables))


@pytest.mark.parametrize("name", CATALOG)
def test_a_row_is_sound(name: str) -> None:
    provider = CATALOG[name]
    assert provider.rules.name == provider.name
    assert 1 <= provider.tier <= 5
    assert provider.title
    assert provider.shared_by
    assert set(provider.windows.values()) <= {"rolling", "calendar", "bucket"}
    assert provider.usage_in_stream in ("option", "always", "never")
    assert ZoneInfo(provider.zone).key == provider.zone
    assert provider.models_path or provider.models
    assert all(name == name.lower() for name, _ in provider.headers + provider.models_headers)
    assert all(phrase == phrase.lower() for phrase in provider.rules.texts)
    assert all(code == code.lower() for code in provider.rules.codes)
    parts = urlsplit(provider.base_url)
    if provider.tool is not None:
        assert "${MODEL}" in provider.tool.argv
        assert provider.models
        assert not provider.variables, "it logs in by itself"
    elif provider.name not in ("azure", "g4f"):  # these are wherever their owner says
        assert parts.hostname
        assert parts.scheme == "https" or provider.keyless


def test_tiers_of_the_design() -> None:
    tiers = {name: row.tier for name, row in CATALOG.items() if row.tier != 4}
    assert tiers == {"openai": 1, "anthropic": 1, "groq": 2, "openrouter": 2, "gemini": 3, "mistral": 3, "g4f": 5}


def test_gemini_answers_to_two_variables() -> None:
    assert CATALOG["gemini"].variables[:2] == ("GEMINI", "GOOGLE")


def test_local_servers_need_no_key() -> None:
    keyless = {name for name, row in CATALOG.items() if row.keyless and row.tool is None}
    assert keyless == {"ollama", "vllm", "llamacpp", "g4f", "demo"}


def test_tools_need_no_key() -> None:
    tools = {name for name, row in CATALOG.items() if row.tool is not None}
    assert tools == {"codex_cli", "claude_code", "gemini_cli"}
    assert all(CATALOG[name].keyless for name in tools)


def test_CFG_41_an_unknown_server_becomes_a_provider() -> None:
    row = custom("My-Server", "http://10.0.0.5:9000/v1/")
    assert (row.name, row.base_url, row.variables) == ("my_server", "http://10.0.0.5:9000/v1", ("MY_SERVER",))
    assert (row.tier, row.dialect, row.keyless) == (4, "openai_chat", False)


def test_nearest() -> None:
    assert nearest("grok_", ["groq", "gemini"]) == "groq"
    assert nearest("OPENAI", ["openai"]) == "openai"
    assert nearest("zzz", ["openai"]) is None
    assert nearest("x", []) is None


def test_a_provider_in_another_dialect_has_what_is_usual_there() -> None:
    groq = CATALOG["groq"]
    anthropic, gemini = speaking(groq, "anthropic"), speaking(groq, "gemini")
    assert (anthropic.auth_header, anthropic.auth_prefix, anthropic.embeddings_path) == ("x-api-key", "", "")
    assert (gemini.auth_header, gemini.model_prefix) == ("x-goog-api-key", "models/")
    assert anthropic.quirks[-1].takes["thinking"] == "budget", "who is not Anthropic knows budgets"
    assert speaking(groq, "openai_chat") is groq
    back = speaking(CATALOG["anthropic"], "openai_chat")
    assert (back.auth_header, back.auth_prefix, back.models_auth_header) == ("authorization", "Bearer ", "x-api-key")
    assert not back.quirks


def test_every_quirk_is_a_member_of_target_or_heeded_here() -> None:
    known = set(Target._fields) | OURS
    for row in CATALOG.values():
        for quirk in row.quirks:
            assert set(quirk.takes) <= known, (row.name, quirk)
        assert not row.quirks or row.quirks[-1].match == "*" or row.dialect == "openai_chat"
