"""Our own errors in the shape that Gemini clients read: body and stream event."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from keyturn.errors import KeyturnError

from .jsontext import clean

_STATUS = {
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""google.rpc.Code by HTTP status; the official SDK chooses its exception by the status alone."""
_TYPE = "type.googleapis.com/google.rpc."


def error_body(error: KeyturnError, call_id: str, attempts: Sequence[Mapping[str, object]]) -> bytes:
    """The JSON envelope. Its details: our own code, the call and its *attempts*, the field, when to try again."""
    message = clean(error.message)
    metadata = {"call": call_id}
    if attempts:  # its values are strings
        metadata["attempts"] = msgspec.json.encode(attempts).decode()
    metadata.update((name, msgspec.json.encode(value).decode()) for name, value in (error.more or {}).items())
    details: list[dict[str, object]] = [
        {"@type": _TYPE + "ErrorInfo", "reason": error.code.upper(), "domain": "keyturn", "metadata": metadata}
    ]
    if error.param:
        violation = {"field": clean(error.param), "description": message}
        details.append({"@type": _TYPE + "BadRequest", "fieldViolations": [violation]})
    if error.retry_after is not None and math.isfinite(error.retry_after):
        seconds = f"{max(0.0, math.ceil(round(error.retry_after * 1000, 3)) / 1000):.3f}".rstrip("0").rstrip(".")
        details.append({"@type": _TYPE + "RetryInfo", "retryDelay": f"{seconds}s"})
    status = _STATUS.get(error.status, "INTERNAL" if error.status >= 500 else "INVALID_ARGUMENT")
    return msgspec.json.encode(
        {"error": {"code": error.status, "message": message, "status": status, "details": details}}
    )


def error_event(error: KeyturnError, call_id: str, attempts: Sequence[Mapping[str, object]]) -> bytes:
    """The same as the last event of a stream. The official SDK knows it by its first bytes, `{"error":`."""
    return b"data: " + error_body(error, call_id, attempts) + b"\r\n\r\n"
