"""Headers on their way out, with the secret put in, and on their way in, as a plain dict."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain

from keyturn.core import HttpRequest, Secret
from keyturn.errors import TransportError

MAX_INCOMING = 64 * 1024
"""Characters of an answer's header values together."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Pairs = tuple[tuple[str, str], ...]
Auth = tuple[str, str, Secret]
"""Name of a header, what its value begins with, and the secret that follows."""


def outgoing(request: HttpRequest) -> Pairs:
    """The headers to write. Raises TransportError `protocol` for a control character, which could begin a header."""
    return checked(request.headers) + secret_header(request.auth) + request.trace


@lru_cache(maxsize=1024)
def checked(headers: Pairs) -> Pairs:
    """*headers*, which are the same few again and again. Raises as `outgoing`."""
    refuse_control("".join(chain.from_iterable(headers)))
    return headers


def secret_header(auth: Auth | None) -> Pairs:
    """The one header with the secret, if there is one. This is the one place that reveals it. Raises as `outgoing`."""
    if auth is None:
        return ()
    name, prefix, secret = auth
    value = prefix + secret.reveal()
    refuse_control(name + value)
    return ((name, value),)


def refuse_control(text: str) -> None:
    if _CONTROL.search(text):
        raise TransportError("protocol", "a header of the request holds a control character")


def incoming(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case, the values of one name joined by commas, text beyond ASCII as Latin-1, as HTTP has it.

    Raises TransportError `protocol` for too many.
    """
    plain: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in headers:
        name, value = raw_name.lower().decode("latin-1"), raw_value.decode("latin-1")
        plain[name] = value if name not in plain else f"{plain[name]}, {value}"
        size += len(value)
    if size > MAX_INCOMING:
        raise TransportError("protocol", f"the answer's headers are larger than {MAX_INCOMING:,} bytes", sent=True)
    return plain
