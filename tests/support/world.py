"""A gateway over the simulator in virtual time: real dispatch, real transport seam, no socket.

def test_something():
    async def main():
        async with World({"groq": 3}) as world:
            reply = await world.chat("groq/llama-3.1-8b-instant")
            assert reply.status == 200
    virtual.run(main)
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyturn.config import Config, DataFolder, Options, load
from keyturn.core import Caller
from keyturn.dispatch import Gateway, Reply, build, new_id, read_call
from keyturn.simulator import Fault, KeyRule, Simulator

from . import virtual

APP = "upstreams"


class Answer:
    """A whole reply of the gateway."""

    def __init__(self, reply: Reply, chunks: list[bytes]) -> None:
        self.status = reply.status
        self.headers = {name.decode(): value.decode() for name, value in reply.headers}
        self.chunks = chunks
        self.body = reply.body or b"".join(chunks)

    def json(self) -> Any:
        return jsonlib.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream."""
        blocks = self.body.replace(b"\r\n", b"\n").split(b"\n\n")
        return [block[6:].decode() for block in blocks if block.startswith(b"data: ")]

    @property
    def text(self) -> str:
        """The content of a chat answer, streamed or not."""
        if not self.headers["content-type"].startswith("text/event-stream"):
            return str(self.json()["choices"][0]["message"]["content"])
        parts = [jsonlib.loads(event) for event in self.events if event != "[DONE]"]
        deltas = [part["choices"][0]["delta"] for part in parts if part.get("choices")]
        return "".join(delta.get("content") or "" for delta in deltas)


class World:
    """A pool of simulated keys. *pool* says how many keys each provider has, or what each key may do."""

    def __init__(
        self,
        pool: Mapping[str, int | Sequence[KeyRule]],
        *,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        folder: DataFolder | None = None,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        tell: bool = True,
        **simulator: Any,
    ) -> None:
        self.rules = {
            name: {f"{name}-secret-key-{number}": rule for number, rule in enumerate(_rules(given), 1)}
            for name, given in pool.items()
        }
        self.clock = virtual.VirtualClock()
        self.environ = dict(environ or {})
        self.files = dict(files or {})
        """The configuration files by name: `models.yaml` -> its text."""
        self.folder = folder
        self._options = simulator
        self._faults = faults
        self._seed = seed

    async def __aenter__(self) -> World:
        self.upstream = Simulator(
            self.clock, virtual.seeded(self._seed), keys=self.rules, faults=self._faults, **self._options
        )
        self.gateway: Gateway = build(self.config(), clock=self.clock, apps={APP: self.upstream}, folder=self.folder)
        await self.gateway.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gateway.close()
        assert self.held() == 0, "reservations left over"
        assert self.gateway.inflight == 0, "calls left over"
        assert self.gateway.transport.acquired == 0, "upstream exchanges left over"  # type: ignore[attr-defined]

    def config(self) -> Config:
        """The configuration that these keys in the environment make, its providers answered by the simulator."""
        environ = {
            f"{name.upper()}_API_KEY_{number}": key
            for name, keys in self.rules.items()
            for number, key in enumerate(keys, 1)
        }
        with tempfile.TemporaryDirectory() as place:
            for name, text in self.files.items():
                Path(place, "config").mkdir(exist_ok=True)
                Path(place, "config", name).write_text(text)
            config = load(environ | self.environ, cwd=Path(place), options=Options(data=Path("/nonexistent/data")))
        rows = {
            name: row if row.tool else replace(row, local_app=APP, base_url=f"http://simulator/{name}/v1")
            for name, row in config.providers.items()
        }
        rows |= {
            name: replace(row, endpoints={each: f"http://simulator/{name}/{each}/v1" for each in row.endpoints})
            for name, row in rows.items()
            if row.endpoints
        }
        return replace(config, providers=rows)

    def held(self) -> int:
        """Open reservations."""
        return int(self.gateway.live.held())  # type: ignore[attr-defined]

    async def chat(
        self,
        model: str,
        *,
        stream: bool = False,
        timeout: float | None = None,
        text: str = "Hello",
        caller: Caller | None = None,
        **members: Any,
    ) -> Answer:
        """One chat call, read to its end."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **members}
        if stream:
            body["stream"] = True
        return await self.send("chat", body, timeout, caller)

    async def send(
        self,
        door: str,
        body: object,
        timeout: float | None = None,
        caller: Caller | None = None,
        *,
        argument: str = "",
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call with *body* at *door*, read to its end, as *caller* (default: who may do everything)."""
        told = dict(headers or {})
        if timeout is not None:
            told["x-request-timeout-ms"] = str(int(timeout * 1000))
        call = read_call(door, jsonlib.dumps(body).encode(), told, argument, query)
        reply = await self.gateway.handle(call, caller or self.gateway.config.default_caller, new_id(self.clock.wall()))
        chunks: list[bytes] = []
        try:
            if reply.stream is not None:
                chunks = [chunk async for chunk in reply.stream]
        finally:
            reply.close()
        return Answer(reply, chunks)

    async def many(self, model: str, count: int, **members: Any) -> list[Answer]:
        """*count* chat calls at once."""
        return await asyncio.gather(*(self.chat(model, **members) for _ in range(count)))

    def seen(self, **members: Any) -> list[Any]:
        """The upstream's own log of model calls with these members, in order of arrival."""
        return [each for each in self.upstream.select(**members) if each.kind != "models"]


def _rules(given: int | Sequence[KeyRule]) -> Sequence[KeyRule]:
    return [KeyRule() for _ in range(given)] if isinstance(given, int) else given
