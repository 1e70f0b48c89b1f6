"""What goes wrong reaches each client as its SDK's own typed exception, with our words and whether to try again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
from google.genai import errors

from tests.support.serving import Served, Upstreams

from .cells import UPSTREAMS, Upstream, cells
from .clients import CLIENTS, Called, Client, Mode, Turn

ANY = (openai.APIError, anthropic.APIError, errors.APIError)
TRIES = 3
"""Of an SDK that retries as it likes: once, and twice again."""


class Wanted(NamedTuple):
    """What a client sees of an upstream's *status*; *code* is ours, empty for the upstream's own refusal."""

    status: int
    code: str
    says: str
    retry: str = ""
    """`x-should-retry`, where it says something."""


OF_UPSTREAM = {
    400: Wanted(400, "", ""),
    401: Wanted(503, "no_valid_credentials", "no usable key", "false"),
    404: Wanted(404, "", ""),
    429: Wanted(429, "capacity", "limit"),
    500: Wanted(502, "bad_upstream", "failed"),
    503: Wanted(502, "bad_upstream", "failed"),
    529: Wanted(502, "bad_upstream", "failed"),
}
"""By the status that every key of the provider answers with."""

TYPES: dict[str, dict[int, type[Exception]]] = {
    "openai": {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        404: openai.NotFoundError,
        429: openai.RateLimitError,
        502: openai.InternalServerError,
        503: openai.InternalServerError,
    },
    "anthropic": {
        400: anthropic.BadRequestError,
        401: anthropic.AuthenticationError,
        404: anthropic.NotFoundError,
        429: anthropic.RateLimitError,
        502: anthropic.InternalServerError,
        503: anthropic.ServiceUnavailableError,
    },
    "google-genai": dict.fromkeys((400, 401, 404, 429), errors.ClientError)
    | dict.fromkeys((502, 503), errors.ServerError),
}
MISTAKES = {
    "openai_chat": "messages[1].tool_call_id",
    "openai_responses": "input[1].call_id",
    "anthropic": "messages[1].content[0].tool_use_id",
    "gemini": "contents[1].parts[0].functionResponse",
}
"""Where an answer to a call that nobody made is found."""
GOOGLE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}
ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
}


@pytest.fixture
def faulty(gateway: Served, upstreams: Upstreams) -> Iterator[Upstreams]:
    """The providers, to be scripted; afterwards nothing of it is left."""
    yield upstreams
    upstreams.script()
    gateway.reset()


def fails(client: Client, upstream: Upstream, mode: Mode = "plain") -> Any:
    """The exception that the SDK raises."""
    with pytest.raises(ANY) as caught:
        client.ask(upstream.name, client.prompt("Hello"), mode)
    return caught.value


def headers_of(error: Any) -> Any:
    return error.response.headers


def assert_typed(client: Client, raised: Exception, status: int) -> None:
    """*raised* is exactly what the SDK's own documentation promises for *status*, with all that it reads."""
    assert type(raised) is TYPES[client.sdk][status]
    error: Any = raised
    call = headers_of(error)["x-keyturn-call"]
    if isinstance(error, errors.APIError):
        assert (error.code, error.status) == (status, GOOGLE[status])
    elif isinstance(error, anthropic.APIStatusError):
        assert (error.status_code, error.request_id) == (status, call)
        assert isinstance(error.body, dict)
        assert (error.body["type"], error.body["error"]["type"]) == ("error", ANTHROPIC[status])
    else:
        assert (error.status_code, error.request_id) == (status, call)


def code_of(error: Any) -> str:
    """Our own code, wherever the format has it."""
    if isinstance(error, errors.APIError):
        rows = error.details["error"].get("details", [])
        return next((row["reason"].lower() for row in rows if row.get("domain") == "keyturn"), "")
    if isinstance(error, anthropic.APIStatusError):
        assert isinstance(error.body, dict)
        return str((error.body["error"].get("details") or {}).get("code", ""))
    return str(error.code)


@pytest.mark.parametrize("mode", ["plain", "stream"])
@pytest.mark.parametrize("status", OF_UPSTREAM)
@cells("errors")
def test_what_an_upstream_answers(
    client: Client, upstream: Upstream, status: int, mode: Mode, faulty: Upstreams
) -> None:
    faulty.script({"kind": "chat", "provider": upstream.provider, "status": status})
    error = fails(client, upstream, mode)
    wanted = OF_UPSTREAM[status]
    assert_typed(client, error, wanted.status)
    assert wanted.says in str(error)
    if wanted.code:
        assert code_of(error) == wanted.code
    assert headers_of(error).get("x-should-retry", "") == wanted.retry
    if status == 429:
        assert 1 <= int(headers_of(error)["retry-after"]) <= 60
        assert headers_of(error)["retry-after-ms"]
    assert {(each.dialect, each.status) for each in faulty.seen()} == {(upstream.dialect, status)}


@pytest.mark.parametrize("status", [400, 404])
@cells("errors")
def test_the_upstreams_own_words(client: Client, upstream: Upstream, status: int, faulty: Upstreams) -> None:
    """A client's mistake is told in the upstream's words, whatever the format of either."""
    words = "The moon is not made of cheese."
    shape = {"code": status, "message": words, "status": GOOGLE[status], "type": ANTHROPIC[status]}
    body = '{"type":"error","error":' + str(shape).replace("'", '"') + "}"
    faulty.script({"kind": "chat", "status": status, "error": "bad_request", "body": body})
    error = fails(client, upstream)
    assert_typed(client, error, status)
    assert words in str(error)


@cells("errors")
def test_a_stream_that_breaks(client: Client, upstream: Upstream, faulty: Upstreams) -> None:
    """After output nothing is tried again: the SDK raises, and has what came before."""
    faulty.script({"kind": "chat", "does": "reset", "at_chunk": 8})
    with pytest.raises(ANY, match="interrupted after output had begun"):
        client.ask(upstream.name, client.prompt("Hello"), "stream")


@cells("errors")
def test_a_wrong_caller_key(client: Client, upstream: Upstream, gateway: Served, upstreams: Upstreams) -> None:
    stranger = type(client)(gateway.url, "nobody")
    try:
        error = fails(stranger, upstream)
    finally:
        stranger.close()
    assert_typed(client, error, 401)
    assert "caller key" in str(error)
    assert upstreams.seen() == []


@pytest.mark.parametrize("name", CLIENTS)
def test_an_unknown_model(clients: dict[str, Client], name: str, upstreams: Upstreams) -> None:
    client = clients[name]
    with pytest.raises(ANY) as caught:
        client.ask("grok/nothing", client.prompt("Hello"))
    assert_typed(client, caught.value, 404)
    assert code_of(caught.value) == "model_not_found"
    assert "grok" in str(caught.value)
    assert upstreams.seen() == []


@pytest.mark.parametrize("name", CLIENTS)
def test_a_mistake_that_we_find(clients: dict[str, Client], name: str, upstreams: Upstreams) -> None:
    """What cannot be translated is a mistake with the place where it is."""
    client = clients[name]
    upstream = UPSTREAMS["gemini" if name == "anthropic" else "anthropic"]
    answers = client.results(Turn(None, calls=[Called("call_1", "weather", {})]), ["18 degrees"])
    with pytest.raises(ANY) as caught:
        client.ask(upstream.name, [*client.prompt("Hello"), *answers])
    assert_typed(client, caught.value, 400)
    assert code_of(caught.value) == "bad_request"
    assert MISTAKES[name] in str(caught.value)
    assert upstreams.seen() == []


@pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.Anthropic])
def test_retries_are_as_the_headers_say(kind: Any, gateway: Served, faulty: Upstreams) -> None:
    """A pool without a usable key is asked once, whatever retries the SDK allows itself; a short wait is kept."""
    path = "" if kind is anthropic.Anthropic else "/v1"
    with kind(base_url=gateway.url + path, api_key=gateway.caller_key, max_retries=TRIES - 1) as client:
        asked: dict[str, Any] = {"model": "groq/openai/gpt-oss-20b", "messages": [{"role": "user", "content": "Hi"}]}

        def ask() -> Any:
            if kind is anthropic.Anthropic:
                return client.messages.create(max_tokens=9, **asked)
            return client.chat.completions.create(**asked)

        faulty.script({"kind": "chat", "status": 401})
        with pytest.raises(ANY) as caught:
            ask()
        error: Any = caught.value
        assert error.response.request.headers["x-stainless-retry-count"] == "0"

        gateway.reset()
        faulty.script({"kind": "chat", "status": 429, "wait": 0.3, "times": 1})
        assert ask()


def test_every_client_has_its_types() -> None:
    assert {kind.sdk for kind in CLIENTS.values()} == set(TYPES)
