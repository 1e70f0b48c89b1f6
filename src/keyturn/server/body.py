"""Reads a request body within its bounds. Deadline and least rate are kept by the listener, per connection."""

from __future__ import annotations

from collections.abc import Mapping

from keyturn.errors import TooLarge, UnsupportedEncoding

from .exchange import ClientLeft, Receive


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """The whole body, at most *limit* bytes. Raises UnsupportedEncoding, TooLarge, ClientLeft.

    Refuses by the announced length, before a byte is read, or as soon as the limit is passed. What is left of the body
    is then skipped by the listener, so that a client which sends everything before it reads still sees the answer.
    """
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise UnsupportedEncoding("a compressed request body is not accepted; send it without Content-Encoding")
    if announced(headers) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def announced(headers: Mapping[bytes, bytes], unknown: int = 0) -> int:
    """The length that *headers* state for the body; *unknown* when they state none."""
    length = headers.get(b"content-length", b"")
    return int(length[:20]) if length.isdigit() else unknown


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {limit // (1024 * 1024)} MiB, the most that is accepted")
