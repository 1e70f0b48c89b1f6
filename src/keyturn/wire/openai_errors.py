"""Our own errors in the shape that OpenAI clients read: body, stream event and headers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from keyturn.errors import KeyturnError

from .jsontext import clean, loose
from .sse import write_event

_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
"""The official SDKs choose their exception by the status alone; other tools look at `type`."""


def error_body(error: KeyturnError, call_id: str, attempts: Sequence[Mapping[str, object]]) -> bytes:
    """The JSON envelope: OpenAI's four members, and under `keyturn` the call with its *attempts* in brief."""
    default = "server_error" if error.status >= 500 else "invalid_request_error"
    return msgspec.json.encode(
        {
            "error": {
                "message": clean(error.message),
                "type": _TYPES.get(error.status, default),
                "param": error.param,
                "code": error.code,
                "keyturn": {"call": call_id, "attempts": attempts, **(error.more or {})},
            }
        }
    )


def error_event(error: KeyturnError, call_id: str, attempts: Sequence[Mapping[str, object]]) -> bytes:
    """The same as the last event of a stream: clients raise on it, and no `[DONE]` follows."""
    return write_event(error_body(error, call_id, attempts))


def upstream_message(body: bytes) -> str:
    """What an upstream's error says in words, in whatever shape it says it; empty when it says nothing."""
    document: Any = loose(body)
    if isinstance(document, list) and document:
        document = document[0]
    for _ in range(3):
        if not isinstance(document, dict):
            break
        if isinstance(document.get("message"), str):
            return str(document["message"])
        document = document.get("error") or document.get("detail")
    return document if isinstance(document, str) else ""


def error_headers(error: KeyturnError) -> list[tuple[str, str]]:
    """When and whether to try again, as the official SDKs read it.

    `retry-after-ms` is exact, rounded up to a millisecond; `retry-after` is rounded up to whole seconds, at least 1.
    Both are absent while nobody knows when. `x-should-retry` overrides the clients' own rules and is sent only where
    the error says so: a refusal for lack of capacity is worth a retry, at the time stated.
    """
    headers = []
    if error.retry_after is not None and math.isfinite(error.retry_after):
        milliseconds = max(0, math.ceil(round(error.retry_after * 1000, 3)))  # 0.07 s is 70 ms, not 71
        headers.append(("retry-after", str(max(1, math.ceil(milliseconds / 1000)))))
        headers.append(("retry-after-ms", str(milliseconds)))
    if error.should_retry is not None:
        headers.append(("x-should-retry", "true" if error.should_retry else "false"))
    return headers
