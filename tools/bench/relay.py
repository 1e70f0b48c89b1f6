"""The bare relay, the yardstick: uvicorn and aiohttp with the gateway's own options, raw ASGI, no policy at all.

python -m tools.bench.relay PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn

Message = MutableMapping[str, Any]


class Relay:
    """Passes a request on and its answer back."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                read_bufsize=128 * 1024,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["path"] == "/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        headers = {"content-type": "application/json", "authorization": "Bearer k", "accept-encoding": "identity"}
        async with self._client().post(self._upstream, data=body, headers=headers, allow_redirects=False) as answer:
            kind = answer.headers["content-type"].encode()
            if not kind.startswith(b"text/event-stream"):
                data = await answer.read()
                head = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
                await send({"type": "http.response.start", "status": answer.status, "headers": head})
                await send({"type": "http.response.body", "body": data})
                return
            await send({"type": "http.response.start", "status": answer.status, "headers": [(b"content-type", kind)]})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def main(port: int, upstream_port: int) -> None:
    """Serve until terminated."""
    uvicorn.run(
        Relay(f"http://127.0.0.1:{upstream_port}/v1/chat/completions"),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
