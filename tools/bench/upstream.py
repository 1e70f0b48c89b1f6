"""A mock upstream on asyncio.Protocol: chat completions over keep-alive, plain and streamed, at next to no cost."""

from __future__ import annotations

import asyncio
from typing import cast

EVENTS = 60
"""Content events of one stream."""
PACE = 0.005
"""Seconds between two of them."""

_USAGE = b'"usage":{"prompt_tokens":12,"completion_tokens":60,"total_tokens":72}'
_PLAIN = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1772452800,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"'
    + b"All work and no play. " * 12
    + b'"},"finish_reason":"stop"}],'
    + _USAGE
    + b"}"
)
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1772452800,"model":"m","choices":'
    b'[{"index":0,"delta":{%s},"finish_reason":%s}]}\n\n'
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_PLAIN), _PLAIN)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM = [_chunk(_EVENT % (b'"content":" word"', b"null"))] * EVENTS
STREAM_END = (
    _chunk(_EVENT % (b"", b'"stop"'))
    + _chunk(b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],' + _USAGE + b"}\n\n")
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class Upstream(asyncio.Protocol):
    """One connection: reads requests with a content-length, answers each in turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self._buffer[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 : head.find(b"\r\n", start)]) if start >= 0 else 0
            if len(self._buffer) < end + length:
                return
            body, self._buffer = self._buffer[end : end + length], self._buffer[end + length :]
            if b'"stream":true' in body or b'"stream": true' in body:
                self._transport.write(STREAM_HEAD)
                self._stream(0)
            else:
                self._transport.write(self.plain())

    def plain(self) -> bytes:
        """The next whole answer."""
        return PLAIN

    def _stream(self, position: int) -> None:
        if self._transport.is_closing():
            return
        if position == EVENTS:
            self._transport.write(STREAM_END)
            return
        self._transport.write(STREAM[position])
        self._loop.call_later(PACE, self._stream, position + 1)
