"""Who plays in a drill: the user's own configuration with stand-ins for its keys and its upstreams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

from keyturn.config import Config
from keyturn.core import (
    Clock,
    Credential,
    Draw,
    HttpRequest,
    Interpreter,
    LocalRequest,
    ProcessRequest,
    Secret,
    UpstreamRequest,
    UpstreamResponse,
)
from keyturn.dispatch import Watch
from keyturn.errors import TransportError
from keyturn.providers import Provider
from keyturn.simulator import PERSONAS, Fault, KeyRule, Persona, Simulator
from keyturn.transport import LocalTransport

from .drill_shapes import Shape
from .rehearsing import STAGE, staged

LATENCY, PACE = 0.3, 0.05
"""Seconds that a well upstream takes to begin, and from one event of a stream to the next."""
LARGEST = 64 * 1024 * 1024
"""Bytes of an answer that a played tool takes."""


def cast_of(config: Config) -> Config:
    """*config* as a drill plays it: no real key in it, its upstreams in this process, nothing kept or shared.

    A credential keeps its label, its quota group and its plan; what stands in for its secret is made of its
    fingerprint. A login is played by a key, a command line tool by one that prints what the simulator answers.
    """
    stand_ins = {name: tuple(map(_stand_in, keys)) for name, keys in config.credentials.items()}
    tools = {name: _played(row) for name, row in config.providers.items() if row.tool is not None}
    played = staged(replace(config, credentials=stand_ins, cache=None, coalesce=None))
    return replace(
        played,
        providers={
            name: tools.get(name) or played.providers[name]
            for name in config.providers
            if name in tools or name in played.providers
        },
        credentials={name: keys for name, keys in stand_ins.items() if name in tools or name in played.providers},
    )


def secret_of(provider: str, fingerprint: str) -> str:
    """What stands in for the secret of a credential."""
    return f"drill-{provider}-{fingerprint}"


def _stand_in(key: Credential) -> Credential:
    secret = Secret(secret_of(key.provider, key.fingerprint)) if key.keyed else key.secret
    return replace(key, secret=secret, account=None, tokens=None)


def _played(row: Provider) -> Provider:
    """A tool that is not run: the words behind its program say whom it plays, and it prints plain text."""
    assert row.tool is not None
    return replace(
        row, tool=replace(row.tool, argv=(row.tool.argv[0], row.name, "${MODEL}"), output="text", environ={})
    )


def upstreams_of(config: Config, shape: Shape, target: tuple[str, str], clock: Clock, draw: Draw) -> Upstreams:
    """The upstreams of *config*, of which *shape* hits *target*: the provider and the key that are asked first."""
    provider, secret = target
    rules: dict[str, dict[str, KeyRule]] = {}
    if shape.allows is not None:
        keys = config.credentials[provider]
        rules[provider] = {each.secret.reveal(): KeyRule(rpm=shape.allows, limiter="rolling") for each in keys}
    simulator = Simulator(
        clock,
        draw,
        keys=rules,
        faults=_faults(shape, provider, secret),
        personas=_personas(config),
        latency=LATENCY,
        pace=PACE,
    )
    return Upstreams(simulator, clock, shape, "" if shape.reach == "everybody" else provider)


def _faults(shape: Shape, provider: str, secret: str) -> Iterable[Fault]:
    if not shape.fault:
        return
    whom: dict[str, Any] = {}
    if shape.reach in ("provider", "key"):
        whom["provider"] = provider
    if shape.reach == "key":
        whom["key"] = secret
    yield Fault(kind="chat", until=shape.ends, **whom, **shape.fault)


def _personas(config: Config) -> Iterable[Persona]:
    """Every provider as the simulator plays it; with the models that are configured in its list."""
    offered: dict[str, dict[str, None]] = {
        name: dict.fromkeys(config.static_models.get(name, ())) for name in config.providers
    }
    routes = [each for deployments in config.routes.values() for each in deployments]
    for deployment in (*routes, *config.facts):
        if deployment.provider in offered:
            offered[deployment.provider][deployment.model] = None
    for name, row in config.providers.items():
        models = (*offered[name], *row.models)
        if name in PERSONAS:
            persona = PERSONAS[name]
            yield replace(persona, models=tuple(dict.fromkeys((*persona.models, *models))))
        else:
            native = row.dialect if row.dialect in ("anthropic", "gemini") else ""
            yield Persona(name=name, native=cast(Any, native), models=models or ("simulated",))


class Upstreams:
    """The transport of a drill: to the simulator, over connections that fail as the shape says, and to played tools."""

    def __init__(self, simulator: Simulator, clock: Clock, shape: Shape, provider: str) -> None:
        self.simulator = simulator
        self._local = LocalTransport({STAGE: simulator})
        self._clock = clock
        self._shape = shape
        self._provider = provider
        """Whose connections fail; empty: everybody's."""

    @property
    def acquired(self) -> int:
        return self._local.acquired

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> UpstreamResponse:
        """See `Transport`."""
        if isinstance(request, ProcessRequest):
            return await self._run(request, on_sent)
        assert isinstance(request, LocalRequest)
        if self._shape.connection and request.http.method == "POST" and self._fails(request.http):
            await self._clock.sleep_until(self._clock.mono() + self._shape.vanishes)
            raise TransportError(self._shape.connection, f"the drill lets it fail: {self._shape.title}")
        return await self._local.send(request, on_sent)

    def _fails(self, request: HttpRequest) -> bool:
        return not self._provider or urlsplit(request.url).path.split("/")[1] == self._provider

    async def _run(self, request: ProcessRequest, on_sent: Callable[[], None]) -> PlayedRun:
        """One run of a tool, which asks the simulator and prints what it says."""
        _, provider, model = request.argv
        question = {"model": model, "messages": [{"role": "user", "content": request.stdin.decode("utf-8", "replace")}]}
        http = HttpRequest(
            "POST",
            f"http://simulator/{provider}/v1/chat/completions",
            (("content-type", "application/json"),),
            json.dumps(question).encode(),
        )
        with Watch(self._clock, self._clock.mono() + request.timeout, "timeout") as watch:
            answer = await self._local.send(LocalRequest(STAGE, http), on_sent)
            body = await answer.read(LARGEST)
        watch.close()
        return PlayedRun(request.interpreter, answer.status, body, self._clock.wall())

    async def close(self) -> None:
        await self._local.close()


class PlayedRun:
    """The answer of one run of a tool, all of it at once."""

    def __init__(self, interpreter: Interpreter, status: int, body: bytes, now: float) -> None:
        code, said, complaint = _printed(status, body)
        first = interpreter.feed(said, now)
        reply = interpreter.end(code, complaint, now)
        self.status = 200 if first else reply.status
        self.headers: Mapping[str, str] = {"content-type": "text/event-stream"} if first else reply.headers
        self._body = first + reply.body

    async def read(self, limit: int) -> bytes:
        """See `UpstreamResponse`."""
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `UpstreamResponse`."""
        yield self._body

    def close(self) -> None:
        """Nothing is held."""


def _printed(status: int, body: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a tool whose upstream answered so."""
    try:
        told = json.loads(body)
        if status == 200:
            return 0, str(told["choices"][0]["message"]["content"]).encode(), b""
        return 1, b"", str(told["error"]["message"]).encode()
    except (ValueError, LookupError, TypeError):
        return 1, b"", body[:300] or b"it gave no reason"
