"""The parameters of a call, as a program has them, into the body and the headers of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .doorway import NO_HEADERS
from .pool import LONGEST_LEAVE

TIMEOUT = "x-request-timeout-ms"


def _plain(value: object) -> object:
    """What pydantic models and answers of other SDKs are in JSON."""
    for name in ("model_dump", "to_dict"):
        method = getattr(value, name, None)
        if callable(method):
            return method(exclude_none=True) if name == "model_dump" else method()
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def encode(members: Mapping[str, Any]) -> bytes:
    """The JSON of *members*. Raises TypeError that names the one that cannot be written."""
    try:
        return _encode(members)
    except (TypeError, NotImplementedError, ValueError) as error:
        for name, value in members.items():
            try:
                _encode(value)
            except (TypeError, NotImplementedError, ValueError):
                said = f"{name!r} is a {type(value).__name__} (or holds something) that cannot be written as JSON"
                raise TypeError(said) from error
        raise


def read_options(more: dict[str, Any]) -> Mapping[str, str]:
    """Takes out of *more* what is said to the pool and not to the model, and what is None; the headers to send.

    `timeout`: seconds until the call's deadline. `extra_headers`: those of a dialect, such as `anthropic-beta`.
    `extra_body`: further members, which win. Raises ValueError for a timeout that is no positive number, and for
    headers that cannot be sent, TypeError for what is no dict.
    """
    for name in [name for name, value in more.items() if value is None]:
        del more[name]
    if "timeout" not in more and "extra_headers" not in more and "extra_body" not in more:
        return NO_HEADERS
    headers = {str(name).lower(): str(value) for name, value in _mapping("extra_headers", more).items()}
    for name, value in headers.items():
        if not (name.isascii() and value.isprintable()):
            raise ValueError(f"extra_headers[{name!r:.60}] holds a line break or another character of no header")
    timeout = more.pop("timeout", None)
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise ValueError("timeout must be a positive number of seconds")
        headers[TIMEOUT] = str(max(1, round(timeout * 1000)))
    more.update(_mapping("extra_body", more))
    return headers


def _mapping(name: str, more: dict[str, Any]) -> Mapping[str, Any]:
    found = more.pop(name, None) or {}
    if not isinstance(found, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(found).__name__}")
    return found


def listed(texts: Any) -> list[Any]:
    """*texts* as a list, also if it is one. Raises TypeError for what is neither."""
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be a string or a list of strings, not of type {type(texts).__name__}")
    return [texts] if isinstance(texts, str) else list(texts)


def wait_of(headers: Mapping[str, str]) -> float:
    """How many seconds a call may wait for a gateway that is shutting down."""
    given = headers.get(TIMEOUT, "")
    return min(float(given) / 1000, LONGEST_LEAVE) if given.isdecimal() else LONGEST_LEAVE
