"""Turns an answer that is an error into the exception that a program catches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from keyturn.errors import (
    KeyturnError,
    NoValidCredentials,
    ProviderExhaustedError,
    RequestError,
    UpstreamInterrupted,
    UpstreamRefused,
)

EXHAUSTED = "All API keys exhausted"
EVERYWHERE = " across all providers"
"""Follows it when nobody at all could answer."""
Json = Mapping[str, Any]


def _kinds() -> Iterator[type[RequestError]]:
    """Every error that the request itself is the cause of, and that can be made from its message."""
    kinds = [RequestError]
    for kind in kinds:
        kinds += [each for each in kind.__subclasses__() if each is not UpstreamRefused]
    yield from kinds[1:]


_BY_CODE: dict[str, type[RequestError]] = {}
for _kind in _kinds():
    _BY_CODE.setdefault(_kind.code, _kind)


def failure(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> KeyturnError:
    """The exception for an answer with an error status, in whatever dialect it is written."""
    told = {name: value.decode("latin-1") for name, value in headers}
    return failed(_object(body), status, _retry_after(told))


def failed(document: Json, status: int, retry_after: float | None = None) -> KeyturnError:
    """The exception for the error in *document*, the decoded body or the data of an event.

    What the pool says itself becomes the error of that code; what has no such code is the upstream's own refusal of a
    client's mistake.
    """
    error = _member(document, "error") or document
    details = _member(error, "details") or error
    ours = _member(details, "keyturn")
    code = details.get("code", error.get("code"))
    message = str(error.get("message") or f"the answer has status {status} and says nothing")
    found: KeyturnError
    if not ours:
        found = UpstreamRefused(message, status, str(code or error.get("type") or "bad_request"))
    elif code == UpstreamInterrupted.code:
        found = UpstreamInterrupted(message, retry_after=retry_after)
    elif code in _BY_CODE:
        param = details.get("param")
        found = _BY_CODE[code](message, param=param if isinstance(param, str) else None, retry_after=retry_after)
    elif code == KeyturnError.code:
        found = KeyturnError(message)
    elif code in ("bad_request", *_UPSTREAMS):
        found = UpstreamRefused(message, status, str(code))
    else:
        found = exhausted(message, str(code), status, retry_after, ours)
    found.trail = ours or None
    return found


_UPSTREAMS = ("context_length_exceeded", "content_filter")
"""What an upstream's refusal is called when it is told in another dialect."""


def exhausted(message: str, code: str, status: int, retry_after: float | None, ours: Json) -> ProviderExhaustedError:
    """Nothing could answer: *message* says why."""
    if message.startswith(EXHAUSTED):
        return ProviderExhaustedError(message, code=code, status=status, retry_after=retry_after)
    attempts = ours.get("attempts") or ()
    providers = {str(each.get("provider")) for each in attempts if isinstance(each, Mapping)}
    nobody = code == NoValidCredentials.code and not providers
    where = EVERYWHERE if nobody or len(providers) > 1 else ""
    error = ProviderExhaustedError(f"{EXHAUSTED}{where}: {message}", code=code, status=status, retry_after=retry_after)
    error.should_retry = NoValidCredentials.should_retry if code == NoValidCredentials.code else None
    return error


def _object(body: bytes) -> Json:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(found, list) and found:  # Gemini's compatible endpoint
        found = found[0]
    return found if isinstance(found, dict) else {}


def _member(document: Json, name: str) -> Json:
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def _retry_after(headers: Mapping[bytes, str]) -> float | None:
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        try:
            return float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
    return None
