"""What Anthropic and Google say when they refuse in their own formats: rows as those of `bodies`, by dialect.

Wordings follow the providers' documentation and published recordings (2024 to 2026); what was never recorded is ours,
in the provider's shape. Both formats know the error's kind by the status, so a status that a script changes is told.
"""

from __future__ import annotations

import copy
from typing import Any

from .bodies import GEMINI, Row

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _anthropic(status: int, message: str, **headers: str) -> Row:
    body = {"type": "error", "error": {"type": _TYPES[status], "message": message}, "request_id": "req_{request}"}
    return Row(status, body, tuple((name.replace("_", "-"), value) for name, value in headers.items()))


_LIMITED = (
    "This request would exceed the rate limit for your organization ({org}) of {limit} {metric} per {per}. For "
    "details, refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current "
    "usage. Please reduce the prompt length or the maximum tokens requested, or try again later."
)

ANTHROPIC: dict[str, Row] = {
    "no_key": _anthropic(401, "x-api-key header is required", x_should_retry="false"),
    "invalid_key": _anthropic(401, "invalid x-api-key", x_should_retry="false"),
    "insufficient_credit": _anthropic(
        400,
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
        "purchase credits.",
        x_should_retry="false",
    ),
    "rate_limited": _anthropic(429, _LIMITED, retry_after="{wait_s}", x_should_retry="true"),
    "daily_quota": _anthropic(429, _LIMITED, retry_after="{wait_s}", x_should_retry="true"),
    "too_large": _anthropic(429, _LIMITED, x_should_retry="false"),
    "shared_capacity": _anthropic(429, "Rate limited"),
    "forbidden": _anthropic(403, "Your API key does not have permission to use the specified resource."),
    "not_found": _anthropic(404, "model: {model}", x_should_retry="false"),
    "context_length": _anthropic(
        400, "prompt is too long: {requested} tokens > {capacity} maximum", x_should_retry="false"
    ),
    "content_filter": _anthropic(400, "Output blocked by content filtering policy"),
    "bad_request": _anthropic(400, "{why}", x_should_retry="false"),
    "rejected_member": _anthropic(400, "{member}: Extra inputs are not permitted", x_should_retry="false"),
    "overloaded": _anthropic(529, "Overloaded", x_should_retry="true"),
    "server_error": _anthropic(500, "Internal server error"),
    "timeout": _anthropic(504, "Request timed out."),
}


def _bare(row: Row) -> Row:
    """Google's own endpoints send the error without the array around it."""
    return Row(row.status, copy.deepcopy(row.body[0]), row.headers)


def _google(code: int, status: str, message: str, *details: dict[str, Any]) -> Row:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    return Row(code, {"error": error | ({"details": list(details)} if details else {})})


NATIVE_GEMINI: dict[str, Row] = {case: _bare(row) for case, row in GEMINI.items()} | {
    "no_key": _google(
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other "
        "form of API consumer identity to call this API.",
    ),
    "content_filter": _google(400, "INVALID_ARGUMENT", "The prompt was blocked for safety reasons."),
    "not_found": _google(
        404,
        "NOT_FOUND",
        "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call "
        "ModelService.ListModels to see the list of available models and their supported methods.",
    ),
    "unknown_name": _google(
        400,
        "INVALID_ARGUMENT",
        "{why}",
        {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"description": "{why}"}]},
    ),
}

ROWS = {"anthropic": ANTHROPIC, "gemini": NATIVE_GEMINI}


def restated(body: Any, dialect: str, status: int) -> Any:
    """*body* with the kind of error that *status* has in *dialect*."""
    if dialect == "anthropic":
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return body | {"error": body["error"] | {"type": kind}}
    if dialect == "gemini":
        kind = _STATUSES.get(status, "UNKNOWN")
        return body | {"error": body["error"] | {"code": status, "status": kind}}
    return body
