"""A gateway on a real socket in this process, and a client of it at the level of bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keyturn.config import DataFolder, load
from keyturn.core import Secret
from keyturn.dispatch import Gateway, SystemClock, build, draw
from keyturn.providers import CATALOG
from keyturn.server import Access, App, Pages, Server, bind
from keyturn.simulator import Simulator
from keyturn.telemetry import Telemetry

CALLER_KEY = "kt-the-callers-key-0123456789"
KEY = "gsk_the_providers_key_0123456789abcdefghij"
GOOD = "together/meta-llama/Llama-3.3-70B-Instruct-Turbo"
"""A model that always answers, whatever happens to the upstream under test."""
BAD = "groq/llama-3.1-8b-instant"
"""The model of the upstream under test."""


@dataclass(slots=True)
class Answer:
    """Header names are lower case; of repeated ones the last is in *headers*, all are in *head*."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a plain answer, or of a stream's last event."""
        text = self.body.strip().split(b"\n\n")[-1].removeprefix(b"data: ")
        return dict(json.loads(text)["error"])


class Live:
    """The gateway *gateway*, listening on *port*."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway = gateway
        self.port = port

    async def send(self, *parts: bytes, to_the_end: bool = False) -> Answer:
        """The answer to a request in these parts, however wrong it is. When one comes early, the rest is not sent,
        unless the client is one that sends everything *to_the_end*."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 25)
        reading = asyncio.create_task(_read(reader))
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
                if reading.done() and not to_the_end:
                    break
            return await reading
        except ConnectionError:
            return await reading
        finally:
            reading.cancel()
            writer.transport.abort()

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request with the caller key and every usual header; *headers* replace or add to them."""
        given = {"host": f"127.0.0.1:{self.port}", "authorization": f"Bearer {CALLER_KEY}"}
        if body is not None:
            given |= {"content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in (given | dict(headers or {})).items() if value]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "\r\n"]).encode("latin-1")
        return await self.send(head + (body or b""))

    async def chat(self, model: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
        """A chat call with *members* beside model and messages."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **members}
        return await self.ask("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)

    async def goes_on(self) -> None:
        """Fails unless the next call is answered well."""
        answer = await self.chat(GOOD)
        assert answer.status == 200, answer.body


@asynccontextmanager
async def live(folder: Path, environ: Mapping[str, str]) -> AsyncIterator[Live]:
    """A gateway that *environ* configures, with GOOD beside it; nothing may be left over when it ends."""
    clock = SystemClock()
    settings = {"GROQ_API_KEY": KEY, "TOGETHER_API_KEY": "always-good-key", "PROXY_API_KEY": CALLER_KEY}
    settings["KEYTURN_EQUIVALENTS"] = "off"  # GOOD must not answer for BAD
    config = load({**settings, **environ}, cwd=folder)
    row = replace(CATALOG["together"], local_app="good", base_url="http://good/together/v1")
    config = replace(config, providers={**config.providers, "together": row})
    gateway = build(config, clock=clock, apps={"good": Simulator(clock, draw)})
    access = Access(bound_host="127.0.0.1", allowed_hosts=(), caller_key=config.caller_key, admin_key=Secret("admin"))
    with (folder / "log").open("w") as log, bind("127.0.0.1", 0) as sock:
        telemetry = Telemetry(gateway, log)
        server = Server(App(gateway, access, Pages(gateway, telemetry, DataFolder(folder))), gateway, sock)
        await server.start()
        try:
            yield Live(gateway, sock.getsockname()[1])
        finally:
            await server.stop(0.5)
            await gateway.close()
            telemetry.close()
        assert gateway.inflight == 0
        assert gateway.live.held() == 0  # type: ignore[attr-defined]
        assert gateway.transport.acquired == 0  # type: ignore[attr-defined]


async def _read(reader: asyncio.StreamReader) -> Answer:
    """One answer; interim ones are passed over."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        if status >= 200:
            break
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if name}
    return Answer(status, headers, await _body(reader, headers), head)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        chunks = []
        while size := int(await reader.readline(), 16):
            chunks.append(await reader.readexactly(size))
            await reader.readline()
        return b"".join(chunks)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()
