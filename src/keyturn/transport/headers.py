"""Headers on their way out, with the secret put in, and on their way in, as a plain dict."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

from keyturn.core import HttpRequest
from keyturn.errors import TransportError

MAX_INCOMING = 64 * 1024
"""Characters of an answer's header values together."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def outgoing(request: HttpRequest) -> tuple[tuple[str, str], ...]:
    """The headers to write. This is the one place that reveals a secret.

    Raises TransportError `protocol` for a control character, which could begin a header of its own.
    """
    headers = request.headers
    if request.auth is not None:
        name, prefix, secret = request.auth
        headers = (*headers, (name, prefix + secret.reveal()))
    if _CONTROL.search("".join(chain.from_iterable(headers))):
        raise TransportError("protocol", "a header of the request holds a control character")
    return headers


def incoming(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, the values of one name joined by commas, text beyond ASCII as Latin-1, as HTTP has it.

    Values come as aiohttp decodes them, UTF-8 with surrogates. Raises TransportError `protocol` for too many.
    """
    plain: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        plain[key] = value if key not in plain else f"{plain[key]}, {value}"
    text = "".join(plain.values())
    if len(text) > MAX_INCOMING:
        raise TransportError("protocol", f"the answer's headers are larger than {MAX_INCOMING:,} bytes", sent=True)
    if not text.isascii():
        return {name: value.encode("utf-8", "surrogateescape").decode("latin-1") for name, value in plain.items()}
    return plain
