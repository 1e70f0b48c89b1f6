"""Errors of calls: the exception that each answer with an error becomes."""

from __future__ import annotations

import copy
import pickle

import pytest

from keyturn import NoAvailableKeysError, ProviderExhaustedError
from keyturn.client.failures import failure
from keyturn.errors import (
    BadRequest,
    BadUpstream,
    BudgetExhausted,
    CallerLimit,
    Capacity,
    DeadlineExceeded,
    Draining,
    InvalidCallerKey,
    KeyturnError,
    ModelNotFound,
    NoValidCredentials,
    PaidRoute,
    PoolError,
    RequestError,
    RequestExceedsLimit,
    RouteNotAllowed,
    UpstreamInterrupted,
    UpstreamRefused,
)
from keyturn.wire import dialect, error_headers

ATTEMPTS = [{"provider": "groq", "model": "m", "key": "groq-1:aaaaaa", "meaning": "rate_limited", "status": 429}]


def raised(error: KeyturnError, spoken: str = "openai_chat", attempts: int = 1) -> KeyturnError:
    """What the library raises for *error*, once a door has put it into its dialect."""
    body = dialect(spoken).error_body(error, "019a", ATTEMPTS * attempts)
    headers = [(name.encode(), value.encode()) for name, value in error_headers(error)]
    return failure(error.status, headers, body)


@pytest.mark.parametrize("spoken", ["openai_chat", "anthropic", "openai_responses"])
@pytest.mark.parametrize(
    "kind", [Capacity, BadUpstream, NoValidCredentials, Draining, DeadlineExceeded], ids=lambda kind: kind.code
)
def test_ERR_07_ERR_28_nothing_could_answer(kind: type[PoolError], spoken: str) -> None:
    error = raised(kind("every key rests", retry_after=2.5), spoken)
    assert isinstance(error, ProviderExhaustedError)
    assert isinstance(error, RuntimeError)
    assert isinstance(error, PoolError)
    assert NoAvailableKeysError is ProviderExhaustedError
    assert str(error) == "All API keys exhausted: every key rests"
    assert (error.code, error.status, error.retry_after) == (kind.code, kind.status, 2.5)
    assert error.trail == {"call": "019a", "attempts": ATTEMPTS}


def test_ERR_07_the_long_form_when_several_providers_or_nobody_was_asked() -> None:
    assert str(raised(NoValidCredentials("x"), attempts=0)).startswith("All API keys exhausted across all providers: ")
    two = [*ATTEMPTS, {**ATTEMPTS[0], "provider": "gemini"}]
    body = dialect("openai_chat").error_body(Capacity("x"), "019a", two)
    assert str(failure(429, [], body)).startswith("All API keys exhausted across all providers: ")


@pytest.mark.parametrize("spoken", ["openai_chat", "anthropic"])
@pytest.mark.parametrize(
    "kind",
    [
        BadRequest,
        RequestExceedsLimit,
        PaidRoute,
        BudgetExhausted,
        CallerLimit,
        ModelNotFound,
        RouteNotAllowed,
        InvalidCallerKey,
    ],
    ids=lambda kind: kind.code,
)
def test_the_call_itself_is_the_cause(kind: type[RequestError], spoken: str) -> None:
    error = raised(kind("as it is", param="messages"), spoken)
    assert type(error) is kind
    assert (str(error), error.param, error.status) == ("as it is", "messages", kind.status)


def test_an_upstreams_own_refusal_keeps_its_words_and_its_status() -> None:
    body = b'{"error": {"message": "max_tokens is too large", "type": "invalid_request_error", "code": null}}'
    error = failure(422, [], body)
    assert isinstance(error, UpstreamRefused)
    assert (str(error), error.status) == ("max_tokens is too large", 422)
    told = raised(UpstreamRefused("too long", 400, "context_length_exceeded"))
    assert isinstance(told, UpstreamRefused)
    assert (told.code, told.status) == ("context_length_exceeded", 400)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "no"}', b'{"error": {"message": 3}}', b"\xff"])
def test_any_body_makes_an_error(body: bytes) -> None:
    assert failure(500, [], body).status == 500


def test_a_cut_and_a_fault_of_our_own() -> None:
    assert type(raised(UpstreamInterrupted("cut"))) is UpstreamInterrupted
    assert type(raised(KeyturnError("the gateway itself failed"))) is KeyturnError


def test_errors_can_be_copied_and_sent_to_other_processes() -> None:
    for error in (raised(Capacity("x", retry_after=1.0)), failure(422, [], b"{}"), raised(BadRequest("x", param="y"))):
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(twin) is type(error)
            assert (str(twin), vars(twin)) == (str(error), vars(error))
