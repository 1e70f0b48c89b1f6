"""Which raw path reaches which endpoint."""

from __future__ import annotations

import pytest

from keyturn.dispatch import PLACES, place_at, spoken
from keyturn.errors import UnknownPath
from keyturn.server import ENDPOINTS
from keyturn.server.paths import WrongMethod, find


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/v1/chat/completions", "chat"),
        (b"/chat/completions", "chat"),
        (b"/v1/v1/chat/completions", "chat"),
        (b"/embeddings", "embeddings"),
        (b"/v1/v1/models", "models"),
        (b"/models", "models"),
        (b"/providers", "providers"),
        (b"/", "home"),
        (b"/metrics", "metrics"),
        (b"/admin/keys/reset", "admin_reset"),
    ],
)
def test_a_missing_or_doubled_v1_is_forgiven(path: bytes, name: str) -> None:
    assert find(path)[0].name == name


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/v1/models/gpt-5", "gpt-5"),
        (b"/v1/models/openrouter/deepseek/r1:free", "openrouter/deepseek/r1:free"),
        (b"/v1/models/openrouter%2Fdeepseek%2Fr1%3Afree", "openrouter/deepseek/r1:free"),
        (b"/models/groq/x", "groq/x"),
        (b"/v1/v1/models/groq/x", "groq/x"),
        (b"/v1/models/../admin/keys", "../admin/keys"),
    ],
)
def test_a_model_id_may_hold_slashes(path: bytes, model: str) -> None:
    endpoint, argument = find(path)
    assert (endpoint.name, argument) == ("model", model)


@pytest.mark.parametrize(
    "path",
    [
        b"//v1/models",
        b"/v1//models",
        b"/v1/models/",
        b"/v1/chat/completions/",
        b"/v1/chat%2Fcompletions",
        b"/V1/chat/completions",
        b"/v1/v1/v1/chat/completions",
        b"/v1/healthz",
        b"/v1/admin/keys",
        b"/admin/keys;a=b",
        b"/admin/%6beys",
        b"/./admin/keys",
        b"/v1/../admin/keys",
        b"/admin/keys\x00",
        b"/v1/response",
        b"",
        b"\xff\xfe",
    ],
)
def test_any_other_path_is_unknown_and_the_answer_names_what_is_served(path: bytes) -> None:
    with pytest.raises(UnknownPath) as caught:
        find(path)
    assert "POST /v1/chat/completions" in caught.value.message
    assert "GET /admin" not in caught.value.message
    assert caught.value.message.isprintable()


def test_every_endpoint_is_found_by_its_own_path() -> None:
    for endpoint in ENDPOINTS:
        path = endpoint.path
        for name, value in (("{id}", "x"), ("{method}", "generateContent")):
            path = path.replace(name, value)
        assert find(path.encode())[0] is endpoint


def test_what_is_found_in_process_is_what_is_served() -> None:
    for place in PLACES:
        path = place.path.replace("{id}", "x/y").replace("{method}", "countTokens").encode()
        found = place_at(path)
        assert found is not None
        endpoint, argument = find(path)
        assert (found[0].path, found[1], found[0].dialect) == (endpoint.path, argument, endpoint.dialect)
    assert place_at(b"/healthz") is None
    assert place_at(b"/admin/keys") is None


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha", "v1beta1", "v1beta/v1beta"])
@pytest.mark.parametrize(
    ("model", "argument"),
    [
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("models/openrouter/deepseek/deepseek-r1:free", "openrouter/deepseek/deepseek-r1:free"),
        ("models/groq%2Fllama", "groq/llama"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
    ],
)
def test_gemini_names_model_and_method_in_the_path(version: str, model: str, argument: str) -> None:
    endpoint, found = find(f"/{version}/{model}:streamGenerateContent".encode())
    assert (endpoint.name, found) == ("gemini", f"{argument}:streamGenerateContent")
    assert find(f"/{version}/{model}%3AcountTokens".encode())[1] == f"{argument}:countTokens"


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        (b"/v1/messages", {}, "anthropic"),
        (b"/v1/messages/unknown", {}, "anthropic"),
        (b"/v1beta/nothing", {}, "gemini"),
        (b"/v1/models/x:generateContent", {}, "gemini"),
        (b"/v1/models", {}, "openai_chat"),
        (b"/v1/models", {b"anthropic-version": b"2026-10-21"}, "anthropic"),
        (b"/v1/models", {b"x-goog-api-key": b"k"}, "gemini"),
        (b"/v1beta/models", {}, "gemini"),
        (b"/elsewhere", {}, "openai_chat"),
        (b"/v1/cachedContents", {b"x-goog-api-key": b"k"}, "gemini"),
        (b"/v1/files", {b"anthropic-version": b"2026-10-21"}, "anthropic"),
    ],
)
def test_errors_and_lists_are_in_the_dialect_of_who_asks(
    path: bytes, headers: dict[bytes, bytes], dialect: str
) -> None:
    assert spoken(path, headers) == dialect


def test_only_what_holds_nothing_is_open() -> None:
    assert {endpoint.path for endpoint in ENDPOINTS if endpoint.need == "nothing"} == {"/", "/healthz", "/readyz"}
    assert all(endpoint.need == "admin" for endpoint in ENDPOINTS if endpoint.path.startswith("/admin"))


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [(b"/v1/models", "POST", "GET, HEAD"), (b"/v1/chat/completions", "GET", "POST"), (b"/", "OPTIONS", "GET, HEAD")],
)
def test_a_wrong_method_is_told_the_right_one(path: bytes, method: str, allow: str) -> None:
    with pytest.raises(WrongMethod) as caught:
        find(path)[0].check_method(method)
    assert caught.value.allow == allow


def test_head_is_served_where_get_is() -> None:
    find(b"/v1/models")[0].check_method("HEAD")
    with pytest.raises(WrongMethod):
        find(b"/v1/chat/completions")[0].check_method("HEAD")
