"""Undoes the compression that some upstreams apply although `identity` was asked for, within fixed bounds."""

from __future__ import annotations

import zlib

from keyturn.errors import TransportError

MAX_DECODED = 64 * 1024 * 1024
"""Bytes that one answer may become."""

MAX_RATIO = 200
"""Decoded bytes per received byte. JSON text stays below 50; only a bomb comes near this."""

FREE_BYTES = 1024 * 1024
"""Decoded bytes before the ratio counts: a short answer of repeated text may compress very well."""

MAX_MEMBERS = 1024
"""Gzip members in one answer: each costs a fresh decoder, however little it holds."""

_SLICE = 16 * 1024
"""Input per step. zlib copies what is left over behind a member, so that must be short for the whole to be linear."""

_PIECE = 256 * 1024
"""Output per step, so that the bounds are checked long before a bomb fills the memory."""

_GZIP = zlib.MAX_WBITS | 16
_WRAPPED = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class Inflater:
    """Decodes one gzip or deflate body as it arrives.

    *encoding* is the value of Content-Encoding. Raises TransportError: `protocol` for an encoding that is not offered
    and for bytes that are not in it, `too_large` above the bounds, `closed` when the body ends too early.
    """

    __slots__ = ("_decoder", "_gzip", "_members", "_received", "_written")

    def __init__(self, encoding: str) -> None:
        name = encoding.strip().lower()
        if name not in ("gzip", "x-gzip", "deflate"):
            raise TransportError("protocol", f"the answer came in encoding {name[:40]!r}, not as asked for", sent=True)
        self._gzip = name != "deflate"
        self._decoder: zlib._Decompress | None = None
        self._members = 0
        self._received = 0
        self._written = 0

    def feed(self, data: bytes) -> bytes:
        """What *data* decodes to; often nothing yet."""
        pieces: list[bytes] = []
        for start in range(0, len(data), _SLICE):
            self._feed(data[start : start + _SLICE], pieces)
        return b"".join(pieces)

    def end(self) -> None:
        """The body is over: check that it was whole. One without any byte is."""
        if self._received and (self._decoder is None or not self._decoder.eof):
            raise TransportError("closed", "the compressed answer ended too early", sent=True)

    def _feed(self, data: bytes, pieces: list[bytes]) -> None:
        self._received += len(data)
        full = False  # a full piece: zlib may hold more output, even when it has taken all input
        while data or full:
            decoder = self._decoder
            if decoder is None or decoder.eof:
                if self._members and self._gzip:
                    data = data.lstrip(b"\0")  # padding behind a member
                    if not data:
                        return
                decoder = self._decoder = self._next_member(data)
            try:
                piece = decoder.decompress(data, _PIECE)
            except zlib.error:
                raise _damaged() from None
            self._count(len(piece))
            pieces.append(piece)
            full = len(piece) == _PIECE and not decoder.eof
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail

    def _next_member(self, data: bytes) -> zlib._Decompress:
        """A decoder for what begins with *data*: the body itself or, in gzip alone, a further member of it."""
        self._members += 1
        if self._members > (MAX_MEMBERS if self._gzip else 1):
            raise _damaged()
        if self._gzip:
            return zlib.decompressobj(_GZIP)
        # `deflate` means the zlib format, whose first byte has 8 in its low half; some servers send it bare.
        return zlib.decompressobj(_WRAPPED if data[0] & 0x0F == 8 else _RAW)

    def _count(self, size: int) -> None:
        self._written += size
        if self._written > MAX_DECODED or self._written > max(FREE_BYTES, self._received * MAX_RATIO):
            raise TransportError("too_large", "the compressed answer grows beyond all bounds", sent=True)


def _damaged() -> TransportError:
    return TransportError("protocol", "the compressed answer is damaged", sent=True)
