"""uvicorn's request-response cycle with a leaner way out: one pass over the headers, one write for head and body.

uvicorn matches two patterns against every header and writes head and body apart. All our headers are made by us or
taken from an upstream's parsed answer, so one look at the finished head is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from .listener import Listener

CLOSE = (b"connection", b"close")
"""A header that an error may have: this answer is the connection's last."""


class Cycle(RequestResponseCycle):
    """One exchange. The head waits for the first piece of the body: that of a stream at most until the loop's next
    turn, that of a whole answer, which states its length, always, as the body is sent right behind it."""

    head = b""
    listener: Listener

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
        else:
            self._go_on(message["body"], message.get("more_body", False))

    def flush(self) -> None:
        """Nothing followed the head at once: write it."""
        if self.head and not self.disconnected:
            head, self.head = self.head, b""
            self.transport.write(head)

    def _begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Makes the head. Each line but the last of these ends in two characters that no header may hold."""
        self.response_started = True
        self.waiting_for_100_continue = False
        pairs = (*self.default_headers, *headers)
        head = STATUS_LINE[status] + b"\r\n".join(map(b": ".join, pairs))
        if len(head) - len(head.translate(None, b"\r\n\0")) != 2 * len(pairs):
            raise RuntimeError("a header of this answer holds a line break")
        whole = b"\r\ncontent-length: " in head
        self.chunked_encoding = not whole and self.scope["http_version"] != "1.0"
        if status >= 400 and CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            head += b"\r\nconnection: close"
        if self.chunked_encoding:
            head += b"\r\ntransfer-encoding: chunked"
        self.head = head + b"\r\n\r\n"
        if not whole:
            self.listener.loop.call_soon(self.flush)

    def _go_on(self, body: bytes, more: bool) -> None:
        if self.chunked_encoding:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                data += b"0\r\n\r\n"
        else:
            data = body
        if self.head:
            data, self.head = self.head + data, b""
        if data:
            self.transport.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.listener.leave()
            self.on_response()
