"""From a scenario to the configuration that its owner would write, and the gateway that answers by it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyturn.config import Config, Options, load
from keyturn.core import Call, Clock, HttpRequest, LocalRequest, UpstreamRequest, UpstreamResponse
from keyturn.core import Caller as AskingCaller
from keyturn.dispatch import Gateway, new_id
from keyturn.errors import TransportError
from keyturn.providers import CATALOG

from .arrivals import Asked, Person
from .played import Answered, PlayedKey, Upstreams, limits_of, model_of, true_limits
from .rehearsing import rehearsal
from .shape import Limits, Scenario, Upstream

ROUTE = "simulated"
"""What every call asks for."""
ASKED: ContextVar[Asked] = ContextVar("asked")
"""The call that the running task is about: so that the played upstreams know its true size."""
BYTES_PER_TOKEN = 4
"""Of prompt text, as the gateway's estimate has it."""
PREAMBLE = 8
"""Tokens that the estimate adds to every prompt."""


def environment_of(scenario: Scenario) -> dict[str, str]:
    """The variables that *scenario* stands for: keys, groups, tiers, addresses, and the settings that it names."""
    found: dict[str, str] = {"LEDGER_ENABLED": "false"}
    for name, upstream in scenario.providers.items():
        prefix = name.upper()
        for number in range(1, upstream.keys + 1):
            found[f"{prefix}_API_KEY_{number}"] = f"simulated-{name}-key-{number:05d}"
        if name not in CATALOG or not CATALOG[name].base_url:
            found[f"{prefix}_API_BASE"] = f"https://{name.replace('_', '-')}.invalid/v1"
        if upstream.per_account > 1 and upstream.accounts_declared:
            found[f"QUOTA_GROUP_{prefix}"] = ";".join(
                ",".join(str(number) for number in range(first, min(first + upstream.per_account, upstream.keys + 1)))
                for first in range(1, upstream.keys + 1, upstream.per_account)
            )
        if upstream.priority is not None:
            found[f"PROVIDER_PRIORITY_{prefix}"] = str(upstream.priority)
    return found | {name: _written(value) for name, value in scenario.settings.items()}


def files_of(scenario: Scenario) -> dict[str, str]:
    """Its configuration files; JSON is YAML too."""
    routes: list[dict[str, Any]] = []
    limits: dict[str, Any] = {}
    for name, upstream in scenario.providers.items():
        model = model_of(name, upstream)
        route: dict[str, Any] = {"id": ROUTE, "provider": name, "model": model}
        if upstream.price is not None:
            route["price"] = upstream.price.model_dump(exclude_none=True)
        routes.append(route)
        if told := declared_of(upstream):
            limits[name] = {"models": {model: told}}
    files: dict[str, Any] = {"models.yaml": {"provider_routes": routes}}
    if limits:
        files["limits.yaml"] = {"providers": limits}
    return {name: json.dumps(content) for name, content in files.items()}


def declared_of(upstream: Upstream) -> dict[str, int]:
    """The limits that the gateway is told."""
    if isinstance(upstream.declared, Limits):
        return limits_of(upstream.declared)
    return true_limits(upstream, halved=False) if upstream.declared else {}


def configured(scenario: Scenario) -> Config:
    """The configuration of *scenario*. Raises ConfigError when a setting of it is wrong."""
    with tempfile.TemporaryDirectory(prefix="keyturn-") as place:
        folder = Path(place, "config")
        folder.mkdir()
        for name, text in files_of(scenario).items():
            Path(folder, name).write_text(text)
        config = load(environment_of(scenario), cwd=Path(place), options=Options(data=Path(place, "data")))
    rows = dict(config.providers)
    for name, upstream in scenario.providers.items():
        row = CATALOG.get(name) or CATALOG.get(upstream.like or "")
        if row is not None:
            rows[name] = replace(
                row,
                name=name,
                base_url=f"https://{name.replace('_', '-')}.invalid/v1",
                endpoints={},
                dialect="openai_chat",
                also=frozenset(),
            )
    return replace(config, providers=rows)


class PlayedTransport:
    """A `Transport` whose upstreams are played in this process: no bytes are moved, but the time that it takes."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._keys: Mapping[str, PlayedKey] = {key.secret: key for key in upstreams.keys}

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> UpstreamResponse:
        """See `Transport`."""
        http = request.http if isinstance(request, LocalRequest) else request
        assert isinstance(http, HttpRequest)
        secret = http.auth[2].reveal() if http.auth is not None else ""
        if http.method != "POST" or secret not in self._keys:
            raise TransportError("refused", "only calls with the scenario's keys are played")
        on_sent()
        return PlayedAnswer(await self._upstreams.ask(self._keys[secret], ASKED.get()))

    async def close(self) -> None:
        """Nothing is open."""


class PlayedAnswer:
    """An answer that is there as a whole."""

    __slots__ = ("_body", "headers", "status")

    headers: Mapping[str, str]

    def __init__(self, answered: Answered) -> None:
        self.status, self.headers, self._body = answered

    async def read(self, limit: int) -> bytes:
        """The whole body."""
        return self._body

    def chunks(self) -> AsyncIterator[bytes]:
        """Nothing is asked for as a stream."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


class GatewayStrategy:
    """Answers by the real gateway."""

    def __init__(self, gateway: Gateway, persons: Sequence[Person], clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._callers = [AskingCaller(person.name, weight=person.weight) for person in persons]
        self._patient = [AskingCaller(person.name, weight=person.weight, rank="batch") for person in persons]

    async def answer(self, asked: Asked) -> tuple[int, float | None]:
        """The status that the client sees, and the `Retry-After` with it."""
        ASKED.set(asked)
        who = (self._patient if asked.batch else self._callers)[asked.caller]
        reply = await self._gateway.handle(call_of(asked), who, new_id(self._clock.wall()))
        if reply.status == 200:
            return 200, None
        said = dict(reply.headers)
        exact, whole = said.get(b"retry-after-ms"), said.get(b"retry-after")
        wait = float(exact) / 1000 if exact else float(whole) if whole else None
        reply.close()
        return reply.status, wait


def call_of(asked: Asked) -> Call:
    """The call as a client would make it, but for its text, of which only the length counts."""
    size = max(1, (asked.judged - PREAMBLE) * BYTES_PER_TOKEN)
    members = {"model": b'"simulated"', "messages": b'[{"role":"user","content":"%x"}]' % id(asked)}
    return Call(
        "openai_chat",
        "chat",
        ROUTE,
        members,
        size,
        text_bytes=size,
        timeout=asked.patience,
        conversation=str(asked.conversation) if asked.conversation else "",
    )


@asynccontextmanager
async def gateway_of(
    config: Config, upstreams: Upstreams, persons: Sequence[Person], clock: Clock
) -> AsyncIterator[GatewayStrategy]:
    """The real gateway over the played upstreams, open until the block ends."""
    async with rehearsal(config, clock, transport=PlayedTransport(upstreams)) as gateway:
        yield GatewayStrategy(gateway, persons, clock)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
