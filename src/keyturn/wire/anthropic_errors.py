"""Our own errors in the shape that Anthropic's clients read: body and stream event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from keyturn.errors import KeyturnError

from .jsontext import clean
from .sse import write_event

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(error: KeyturnError, call_id: str, attempts: Sequence[Mapping[str, object]]) -> bytes:
    """The JSON envelope; in `error.details` our code, the field, and under `keyturn` the call with its *attempts*."""
    default = "api_error" if error.status >= 500 else "invalid_request_error"
    return msgspec.json.encode(
        {
            "type": "error",
            "error": {
                "type": _TYPES.get(error.status, default),
                "message": clean(error.message),
                "details": {
                    "code": error.code,
                    "param": error.param,
                    "keyturn": {"call": call_id, "attempts": attempts, **(error.more or {})},
                },
            },
            "request_id": call_id,
        }
    )


def error_event(error: KeyturnError, call_id: str, attempts: Sequence[Mapping[str, object]]) -> bytes:
    """The same as the last event of a stream: clients raise on it, and no `message_stop` follows."""
    return write_event(error_body(error, call_id, attempts), "error")
