"""The error envelope, event and headers, as the official SDKs read them."""

from __future__ import annotations

import json

import pytest

from keyturn import errors
from keyturn.errors import KeyturnError
from keyturn.wire import error_body, error_event, error_headers

from .golden_files import golden

ATTEMPTS: list[dict[str, object]] = [
    {
        "provider": "groq",
        "model": "llama-3.1-8b-instant",
        "key": "groq-1:9f3a1c",
        "meaning": "rate_limited",
        "status": 429,
    },
    {
        "provider": "groq",
        "model": "llama-3.1-8b-instant",
        "key": "groq-2:0b77e2",
        "meaning": "timeout",
        "status": None,
    },
]

EMPTY = '`messages` is empty. Send at least one message, such as {"role": "user", "content": "Hi"}.'


@pytest.mark.parametrize(
    ("name", "error", "attempts"),
    [
        (
            "capacity",
            errors.Capacity("All 2 keys of groq are at their limits; the first is free in 1.5 s.", retry_after=1.5),
            ATTEMPTS,
        ),
        ("bad_request", errors.BadRequest(EMPTY, param="messages"), []),
        ("no_valid_credentials", errors.NoValidCredentials("No key is configured for groq: set GROQ_API_KEY."), []),
    ],
)
def test_envelopes(name: str, error: KeyturnError, attempts: list[dict[str, object]]) -> None:
    assert error_body(error, "0193-call", attempts) == golden(f"{name}.error.json")


def test_the_event_of_a_cut_stream() -> None:
    error = errors.UpstreamInterrupted("The upstream broke off.")
    assert error_event(error, "0193-call", []) == golden("upstream_interrupted.error.sse")


def test_a_message_of_several_lines_stays_one_event() -> None:
    event = error_event(errors.BadUpstream("one\ntwo\r\n\r\ndata: three"), "c", [])
    assert event.count(b"\n") == 2
    assert event.endswith(b"}\n\n")


def test_half_a_surrogate_pair_does_not_break_the_answer() -> None:
    assert json.loads(error_body(errors.BadUpstream("bad \udcff byte"), "c", []))["error"]["message"] == "bad ? byte"


TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    502: "server_error",
    503: "server_error",
    504: "server_error",
}


def leaves(kind: type[KeyturnError]) -> list[type[KeyturnError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [leaf for child in children for leaf in leaves(child)] or [kind]


@pytest.mark.parametrize(
    "kind",
    [each for each in leaves(errors.RequestError) if each is not errors.UpstreamRefused] + leaves(errors.PoolError),
)
def test_each_error_has_a_type_that_fits_its_status(kind: type[KeyturnError]) -> None:
    inner = json.loads(error_body(kind("what and why"), "c", []))["error"]
    assert list(inner) == ["message", "type", "param", "code", "keyturn"]
    assert inner["type"] == TYPES.get(kind.status, "invalid_request_error")
    assert inner["code"] == kind.code


@pytest.mark.parametrize(
    ("seconds", "whole", "exact"),
    [
        (0.0, "1", "0"),
        (0.0001, "1", "1"),
        (0.07, "1", "70"),
        (1.0, "1", "1000"),
        (1.0004, "2", "1001"),
        (1.5, "2", "1500"),
        (59.999, "60", "59999"),
        (-3.0, "1", "0"),
    ],
)
def test_retry_after_is_rounded_up(seconds: float, whole: str, exact: str) -> None:
    headers = error_headers(errors.Capacity("full", retry_after=seconds))
    assert headers == [("retry-after", whole), ("retry-after-ms", exact)]


@pytest.mark.parametrize("unknown", [None, float("inf"), float("nan")])
def test_no_retry_after_while_nobody_knows(unknown: float | None) -> None:
    assert error_headers(errors.Capacity("full", retry_after=unknown)) == []


def test_whether_to_retry_is_said_only_where_it_differs_from_the_status() -> None:
    assert error_headers(errors.NoValidCredentials("none")) == [("x-should-retry", "false")]
    assert error_headers(errors.BadUpstream("failed")) == []
