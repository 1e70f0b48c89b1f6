"""`get_client`: one provider with one key, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import keyturn
from keyturn.errors import ProviderExhaustedError
from tests.support.serving import Upstreams

from .smart_world import KEYS, addresses, set_all, smart_upstreams


@pytest.fixture(scope="module")
def simulated() -> Iterator[Upstreams]:
    with smart_upstreams() as found:
        yield found


@pytest.fixture(autouse=True)
def upstreams(simulated: Upstreams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Upstreams:
    """The providers, whose keys the environment holds; none of them may be used but the one that is given."""
    simulated.script()
    simulated.forget()
    monkeypatch.chdir(tmp_path)
    set_all(monkeypatch, addresses(simulated), KEYS)
    return simulated


def test_LIB_06_PRV_01_chat_complete_embed_and_a_name(upstreams: Upstreams) -> None:
    with keyturn.get_client("google_ai_studio", "AIza-mine") as client:
        assert client.name == "gemini"
        assert client.is_available() is True
        assert client.chat([{"role": "user", "content": "Hello"}], temperature=0.5).endswith("You said: Hello")
        assert client.complete("Hello again", max_tokens=9)
        assert [len(vector) for vector in client.embed(["one", "two"])] == [64, 64]
        assert "AIza" not in repr(client)
    assert {(each.provider, each.key) for each in upstreams.seen()} == {("gemini", "AIza-mine")}
    assert json.loads(upstreams.seen()[0].body)["generationConfig"]["temperature"] == 0.5


def test_LIB_06_the_model_is_the_providers_own_id(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_CHAT_MODEL", "llama-3.1-8b-instant")
    with keyturn.get_client("groq", "gsk_mine") as client:
        client.complete("Hello")
        client.complete("Hello", model="groq/compound")
    with keyturn.get_client("groq", "gsk_mine", model="openai/gpt-oss-20b") as client:
        client.complete("Hello")
    asked = [each.model for each in upstreams.seen()]
    assert asked == ["llama-3.1-8b-instant", "groq/compound", "openai/gpt-oss-20b"]


def test_LIB_06_a_key_that_is_at_its_limit_is_not_replaced_by_another(upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "error": "rate_limited", "wait": 60})
    with keyturn.get_client("groq", "gsk_mine") as client:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="All API keys exhausted"):
                client.complete("Hello")
        assert client.is_available() is False
    assert [each.key for each in upstreams.seen()] == ["gsk_mine"], "it rests as the provider said"


@pytest.mark.parametrize("key", [None, "", "  "])
def test_LIB_06_without_a_key_nothing_is_available(upstreams: Upstreams, key: str | None) -> None:
    with keyturn.get_client("openrouter", key) as client:
        assert client.is_available() is False
        with pytest.raises(ProviderExhaustedError, match="OPENROUTER_API_KEY"):
            client.complete("Hello")
    assert upstreams.seen() == []


@pytest.mark.parametrize(("name", "near"), [("gorq", "'groq'"), ("nobody at all", "NOBODY AT ALL_API_BASE")])
@pytest.mark.parametrize("key", ["k", None])
def test_LIB_06_an_unknown_provider_is_a_value_error(name: str, near: str, key: str | None) -> None:
    with pytest.raises(ValueError, match=near):
        keyturn.get_client(name, key)


def test_LIB_06_without_a_model_it_tells_what_to_set(upstreams: Upstreams) -> None:
    with keyturn.get_client("together", "mine") as client:
        with pytest.raises(ValueError, match="TOGETHER_CHAT_MODEL"):
            client.complete("Hello")
        with pytest.raises(ValueError, match="TOGETHER_EMBEDDING_MODEL"):
            client.embed("Hello")


def test_LIB_06_a_server_of_ones_own(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE_API_BASE", f"{upstreams.url}/groq/openai/v1")
    with keyturn.get_client("mine", "gsk_mine", model="openai/gpt-oss-20b") as client:
        assert client.name == "mine"
        assert client.complete("Hello")
    assert [(each.model, each.key) for each in upstreams.seen()] == [("openai/gpt-oss-20b", "gsk_mine")]


def test_LIB_06_nobody_else_is_asked_not_even_for_the_same_model(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that needs no key stays configured, and here it is said to serve the same model."""
    monkeypatch.setenv("MINE_API_BASE", f"{upstreams.url}/openrouter/api/v1")
    (tmp_path / "config").mkdir()
    same = "equivalents: [[groq/openai/gpt-oss-20b, mine/google/gemini-2.0-flash-exp:free]]\n"
    (tmp_path / "config" / "models.yaml").write_text(same)
    upstreams.script({"provider": "groq", "error": "rate_limited", "wait": 60})
    with keyturn.get_client("groq", "gsk_mine", model="openai/gpt-oss-20b") as client, pytest.raises(RuntimeError):
        client.complete("Hello")
    assert [each.provider for each in upstreams.seen()] == ["groq"]
