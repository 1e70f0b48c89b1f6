"""The smart client: no model named, every key and then every provider tried, one client for the whole process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import keyturn
from keyturn.client.smart import SmartClient
from keyturn.core import Facts, classify
from keyturn.errors import BadRequest, ModelNotFound, ProviderExhaustedError
from keyturn.providers import CATALOG
from tests.support.serving import Upstreams

from .smart_world import KEYS, PICTURE, TRIED, addresses, asked, set_all, smart_upstreams

HI = [{"role": "user", "content": "Hello"}]
LOOK: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}]
LIMITED = {"kind": "chat", "error": "rate_limited", "wait": 60}


@pytest.fixture(scope="module")
def simulated() -> Iterator[Upstreams]:
    with smart_upstreams() as found:
        yield found


@pytest.fixture
def upstreams(simulated: Upstreams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Upstreams:
    """The providers, and an empty folder to work in: keys are not set yet."""
    simulated.script()
    simulated.forget()
    monkeypatch.chdir(tmp_path)
    set_all(monkeypatch, addresses(simulated))
    return simulated


@pytest.fixture
def client(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmartClient]:
    set_all(monkeypatch, KEYS)
    found = keyturn.get_smart_client()
    yield found
    found.close()


def test_LIB_05_chat_needs_no_model_and_passes_on_what_it_is_given(client: SmartClient, upstreams: Upstreams) -> None:
    assert client.get_current_provider() is None
    text = client.chat([{"role": "system", "content": "Be kind."}, *HI], temperature=0.3, max_tokens=500)
    assert text.endswith("You said: Hello")
    [seen] = upstreams.seen()
    body = json.loads(seen.body)
    assert (seen.provider, seen.model) == ("openrouter", "google/gemini-2.0-flash-exp:free")
    assert (body["temperature"], body["max_tokens"], body["messages"][0]["content"]) == (0.3, 500, "Be kind.")
    assert client.get_current_provider() == "openrouter"


def test_LIB_05_a_model_can_be_named_and_an_answer_streamed(client: SmartClient, upstreams: Upstreams) -> None:
    pieces = list(client.chat(HI, model="groq/llama3-8b-8192", stream=True))
    assert len(pieces) > 3
    assert "".join(pieces).endswith("You said: Hello")
    assert asked(upstreams) == ["groq"]


def test_LIB_05_embeddings(client: SmartClient, upstreams: Upstreams) -> None:
    vectors = client.embed(["one", "two"])
    assert [len(vector) for vector in vectors] == [64, 64]
    assert vectors[0] != vectors[1]
    assert set(asked(upstreams)) == {"gemini"}


def test_RTE_08_ROT_16_every_key_of_openrouter_then_groq_then_gemini(client: SmartClient, upstreams: Upstreams) -> None:
    upstreams.script(LIMITED | {"provider": "openrouter"}, LIMITED | {"provider": "groq"})
    assert client.chat(HI).endswith("You said: Hello")
    assert asked(upstreams) == TRIED
    assert len({each.key for each in upstreams.seen()}) == len(TRIED)
    assert client.get_current_provider() == "gemini"
    upstreams.forget()
    assert client.chat(HI)
    assert asked(upstreams) == ["gemini"], "who is at a limit is left alone"


def test_ERR_07_all_exhausted_is_a_runtime_error_until_cleared(client: SmartClient, upstreams: Upstreams) -> None:
    upstreams.script(LIMITED)
    with pytest.raises(RuntimeError, match="All API keys exhausted across all providers") as caught:
        client.chat(HI)
    assert isinstance(caught.value, ProviderExhaustedError)
    assert asked(upstreams) == TRIED
    assert not any(key in str(caught.value) for key in KEYS.values() if key)
    status = client.get_status_summary()
    assert status["openrouter"] | {"total": 2} == status["openrouter"]
    assert [status[name]["rate_limited"] for name in ("openrouter", "groq", "gemini")] == [2, 1, 1]
    upstreams.script()
    assert client.clear_rate_limits(["groq"])
    assert client.chat(HI)
    assert client.get_current_provider() == "groq"


def test_ERR_07_default_models_that_are_gone_are_a_runtime_error_too(client: SmartClient, upstreams: Upstreams) -> None:
    upstreams.script({"kind": "chat", "error": "not_found"})
    with pytest.raises(RuntimeError, match="All API keys exhausted across all providers") as caught:
        client.chat(HI)
    assert "GROQ_CHAT_MODEL" in str(caught.value)
    assert str(caught.value).count("exhausted") == 1
    with pytest.raises(ModelNotFound):
        client.chat(HI, model="nobody/has-this")


def test_LIB_05_without_any_key_the_call_says_what_to_set(upstreams: Upstreams) -> None:
    client = keyturn.get_smart_client()
    status = client.get_status_summary()
    assert status.pop("timestamp")
    assert list(status) == ["openrouter", "groq", "gemini"]
    assert all(row["available"] == row["total"] == 0 for row in status.values())
    for call in (lambda: client.chat(HI), lambda: client.embed(["x"])):
        with pytest.raises(RuntimeError, match="All API keys exhausted across all providers") as caught:
            call()
        assert "OPENROUTER_API_KEY" in str(caught.value)
    client.close()


def test_LIB_05_a_mistake_is_the_programs(client: SmartClient, upstreams: Upstreams) -> None:
    with pytest.raises(BadRequest, match="message"):
        client.chat([])
    assert upstreams.seen() == []


def test_LIB_05_one_client_for_the_process(
    client: SmartClient, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(keyturn.get_smart_client())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(each) for each in found} == {id(client)}
    own = keyturn.get_smart_client(global_timeout=5, data_dir=tmp_path / "elsewhere")
    assert own is not client
    assert own.chat(HI)
    own.close()
    assert keyturn.get_smart_client() is client
    client.close()
    again = keyturn.get_smart_client()
    assert again is not client
    assert again.chat(HI)
    again.close()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert keyturn.get_smart_client() is not again
    keyturn.get_smart_client().close()


# --- images -----------------------------------------------------------------------------------------------------------


def test_VIS_01_images_go_to_openrouter_and_gemini_only(client: SmartClient, upstreams: Upstreams) -> None:
    upstreams.script(LIMITED | {"provider": "openrouter"})
    assert "image seen" in client.chat(LOOK)
    assert asked(upstreams) == ["openrouter", "openrouter", "gemini"]


def test_ERR_07_VIS_01_when_nobody_who_sees_can_answer(client: SmartClient, upstreams: Upstreams) -> None:
    upstreams.script(LIMITED)
    with pytest.raises(ProviderExhaustedError, match="All vision-capable API keys exhausted"):
        client.chat(LOOK)
    assert asked(upstreams) == ["openrouter", "openrouter", "gemini"]
    with pytest.raises(RuntimeError, match="All API keys exhausted"):
        client.chat(HI)


def test_ERR_07_VIS_01_when_there_is_nobody_who_sees(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"GROQ_API_KEY": "gsk_one"})
    with keyturn.get_smart_client() as client:
        with pytest.raises(ProviderExhaustedError, match="All vision-capable API keys exhausted") as caught:
            client.chat(LOOK)
        assert "has no vision" in str(caught.value)
        assert client.chat(HI)
    assert asked(upstreams) == ["groq"]


@pytest.mark.parametrize(
    ("model", "sees"), [("llama-3.1-8b-instant", False), ("openai/gpt-oss-20b", False), ("groq/llama-4-scout", True)]
)
def test_VIS_01_another_default_of_groq_sees_only_if_its_name_says_so(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch, model: str, sees: bool
) -> None:
    set_all(monkeypatch, KEYS, {"GROQ_CHAT_MODEL": model})
    upstreams.script(LIMITED)
    with keyturn.get_smart_client() as client, pytest.raises(ProviderExhaustedError):
        client.chat(LOOK)
    assert ("groq" in asked(upstreams)) is sees


def test_VIS_02_frames_through_the_smart_client(client: SmartClient, upstreams: Upstreams) -> None:
    text = keyturn.summarise_frames([b"\xff\xd8\xff one", b"\xff\xd8\xff two"], [0.0, 1.5])
    assert "image" in text
    body = json.loads(upstreams.seen()[-1].body)
    assert (body["temperature"], body["max_tokens"]) == (0.2, 256)
    parts = body["messages"][0]["content"]
    assert [part["image_url"]["detail"] for part in parts if part["type"] == "image_url"] == ["low", "low"]
    assert [part["text"] for part in parts[2::2]] == ["Timestamp: 0.00 s", "Timestamp: 1.50 s"]


def test_PRV_06_gemini_is_spoken_to_in_its_own_format(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"GEMINI_API_KEY": "AIza-one"})
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        *LOOK,
    ]
    with keyturn.get_smart_client() as client:
        assert client.chat(messages, temperature=0.5, max_tokens=77)
        assert client.embed("one")
    chat, embedding = upstreams.seen()
    body = json.loads(chat.body)
    assert (chat.path, chat.key) == ("/gemini/v1beta/models/gemini-2.0-flash-exp:generateContent", "AIza-one")
    assert body["systemInstruction"]["parts"] == [{"text": "Be kind."}]
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][1]["parts"] == [{"text": "Hi."}]
    text, image = body["contents"][2]["parts"]
    assert text == {"text": "What is it?"}
    assert image["inlineData"] == {"mimeType": "image/jpeg", "data": "/9j/4AAQ"}
    assert body["generationConfig"] | {"temperature": 0.5, "maxOutputTokens": 77} == body["generationConfig"]
    assert embedding.model == "gemini-embedding-001"


# --- what counts as a limit -------------------------------------------------------------------------------------------

WORDINGS = ("rate limit", "429", "quota exceeded", "too many requests", "rate_limit_exceeded", "insufficient_quota")
LIMITS = ("rate_limited", "daily_quota", "insufficient_credit")


@pytest.mark.parametrize("provider", ["openrouter", "groq", "gemini"])
@pytest.mark.parametrize("status", [400, 403, 429])
@pytest.mark.parametrize("wording", WORDINGS)
def test_ERR_01_a_limit_is_known_by_its_status_or_by_its_words(provider: str, status: int, wording: str) -> None:
    for error in ({"message": f"Error: {wording.capitalize()} for this key"}, {"message": "no", "code": wording}):
        body = json.dumps({"error": error}).encode()
        found = classify(Facts(status, {}, body, 0.0, False, None, CATALOG[provider].rules))
        if status == 429 or wording != "429":
            assert found.meaning in LIMITS, error


def test_ERR_01_a_status_of_429_is_enough_and_an_ordinary_mistake_is_none() -> None:
    rules = CATALOG["groq"].rules
    assert classify(Facts(429, {}, b"", 0.0, False, None, rules)).meaning == "rate_limited"
    told = b'{"error":{"message":"invalid value for temperature"}}'
    assert classify(Facts(400, {}, told, 0.0, False, None, rules)).meaning == "bad_request"
