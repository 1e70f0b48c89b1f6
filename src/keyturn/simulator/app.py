"""The ASGI application: finds out which provider is asked for what, and answers questions about itself.

`/<provider>/…/chat/completions`, `…/responses`, `…/completions`, `…/embeddings`, `…/images/generations`,
`…/images/edits`, `…/audio/transcriptions`, `…/audio/speech`, `…/moderations`, `…/rerank` and `…/models` are served for
every persona, whatever stands between: `GROQ_API_BASE=http://127.0.0.1:9000/groq/v1` works, and
`/gemini/v1beta/openai`.
`/anthropic/v1/messages` and `/gemini/v1beta/models/<model>:generateContent` with their kin speak those providers' own
formats (also `/gemini/v1/…`; `GET …/models` there is Google's list for its own key headers). What a prompt can make a
simulated model do is told in `answers`, what signatures look like in `signatures`.
Called in process with a provider's own address, it goes by the Host header. `GET /_simulator/stats` counts;
`POST /_simulator/script` takes `{"clear": true, "faults": [{…}]}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keyturn.errors import ConfigError

from .connection import ClientLeft, Connection, Message, Receive, Send
from .personas import PERSONAS, Persona
from .quotas import KeyRule, Quotas, rule_of
from .record import Exchange, Record, Result
from .reply import to_json
from .routes import Route, endings, route_of
from .script import Fault, Script, fault_of, unknown_members
from .turn import Turn

if TYPE_CHECKING:
    from keyturn.core import Clock, Draw


class Simulator:
    """All providers in one application. Nothing is shared between two simulators.

    *keys* maps a provider to its keys; a provider that is not listed accepts any key. *unknown* is the rule of a key
    that a listed provider does not know; None refuses it. *latency* (seconds, or a range to draw from) and *pace*
    (seconds between events) apply to every model but the demo's slower ones. *models* replaces a provider's list;
    names outside it are then not found.
    """

    def __init__(
        self,
        clock: Clock,
        draw: Draw,
        *,
        keys: Mapping[str, Mapping[str, KeyRule]] | None = None,
        unknown: KeyRule | None = None,
        faults: Iterable[Fault] = (),
        personas: Iterable[Persona] = (),
        models: Mapping[str, Sequence[str]] | None = None,
        latency: float | tuple[float, float] = 0.0,
        pace: float = 0.0,
        log_limit: int | None = None,
        keep_bodies: bool = False,
    ) -> None:
        self.clock = clock
        self.draw = draw
        self.keys = {provider: dict(rules) for provider, rules in (keys or {}).items()}
        self.quotas = Quotas(self.keys, unknown)
        self.script = Script(faults)
        self.record = Record(log_limit)
        self.keep_bodies = keep_bodies
        self._personas = PERSONAS | {persona.name: persona for persona in personas}
        self._hosts = {host: persona for persona in self._personas.values() for host in persona.hosts}
        self._models = dict(models or {})
        self._latency = latency if isinstance(latency, tuple) else (latency, latency)
        self._pace = pace
        self._prompts: set[tuple[str, ...]] = set()
        self._began = clock.mono()
        self._began_wall = clock.wall()

    @property
    def log(self) -> list[Exchange]:
        """Every request in order of arrival."""
        return list(self.record.log)

    @property
    def own_429(self) -> int:
        """How often the limiters themselves refused; scripted faults do not count."""
        return self.record.results["limited"]

    def stats(self) -> dict[str, Any]:
        return self.record.stats()

    def select(self, **members: Any) -> list[Exchange]:
        """`Record.select`: the exchanges with these members."""
        return self.record.select(**members)

    def elapsed(self) -> float:
        """Seconds since the simulator began."""
        return self.clock.mono() - self._began

    def now(self) -> float:
        """The providers' own Unix time: never set back, whatever happens to the gateway's wall clock."""
        return self._began_wall + self.elapsed()

    def seen(self, prompt: tuple[str, ...]) -> bool:
        """Whether a prompt began like this before; from now on it has."""
        known = prompt in self._prompts
        self._prompts.add(prompt)
        return known

    def offers(self, persona: Persona, model: str) -> bool:
        if persona.name in self._models:
            return model in self._models[persona.name]
        return not persona.strict or model in persona.models

    def models_of(self, persona: Persona) -> Sequence[str]:
        return self._models.get(persona.name, persona.models)

    def latency_of(self, persona: Persona, model: str) -> float:
        low, high = self._latency
        drawn = low + (high - low) * self.draw() if high > low else low
        return max(drawn, persona.behaviour(model).latency)

    def pace_of(self, persona: Persona, model: str) -> float:
        return max(self._pace, persona.behaviour(model).pace)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        connection = Connection(receive, send, self.clock)
        try:
            if scope["path"].startswith("/_simulator/"):
                status, answer = await self._control(scope, connection)
            else:
                found = self._find(scope, headers)
                if not isinstance(found, str):
                    persona, route = found
                    exchange = self.record.begin(self.clock.mono(), persona.name, route.key, route.kind)
                    exchange.headers = headers if self.keep_bodies else {}
                    exchange.dialect, exchange.path = route.dialect, scope["path"]
                    await self._converse(
                        Turn(self, connection, exchange, persona, route, headers), connection, exchange
                    )
                    return
                status, answer = 404, {"error": {"message": found, "type": "invalid_request_error", "code": None}}
            data = to_json(answer)
            await connection.start(status, [("content-type", "application/json"), ("content-length", str(len(data)))])
            await connection.write(data, more=False)
        except ClientLeft:
            return
        finally:
            connection.close()

    async def _converse(self, turn: Turn, connection: Connection, exchange: Exchange) -> None:
        result: Result = "faulted"
        try:
            result = await turn.run()
        except (ClientLeft, asyncio.CancelledError):
            result = "cancelled"
            raise
        finally:
            exchange.bytes_sent = connection.bytes_sent
            left = connection.left_at
            self.record.end(exchange, result, self.clock.mono() if left is None else left)

    def _find(self, scope: Message, headers: Mapping[str, str]) -> tuple[Persona, Route] | str:
        """Whom and what a path means, else why it means nothing."""
        path: str = scope["path"]
        host = headers.get("host", "").partition(":")[0]
        persona = self._hosts.get(host) or self._personas.get(path.split("/", 2)[1])
        if persona is None:
            return f"no such provider; the simulator plays {', '.join(self._personas)}, each under /<provider>/v1"
        route = route_of(persona, scope["method"], path, scope.get("query_string", b""), headers)
        if route is not None:
            return persona, route
        return f"{scope['method']} {path} is not simulated; there are {endings()}"

    async def _control(self, scope: Message, connection: Connection) -> tuple[int, object]:
        asked = (scope["method"], scope["path"].removeprefix("/_simulator/"))
        if asked == ("GET", "stats"):
            return 200, self.stats()
        if asked != ("POST", "script"):
            return 404, {"error": {"message": "there are GET /_simulator/stats and POST /_simulator/script"}}
        try:
            wanted = json.loads(await connection.read())
            if unknown := sorted(wanted.keys() - {"clear", "faults"}):
                raise ConfigError([f"unknown member {name!r}, known are clear, faults" for name in unknown])
            faults = [fault_of(members) for members in wanted.get("faults", [])]
        except ConfigError as error:
            return 400, {"error": {"message": error.message}}
        except (ValueError, TypeError, AttributeError) as error:
            return 400, {"error": {"message": f'expected {{"clear": true, "faults": [{{…}}]}}: {error}'}}
        if wanted.get("clear"):
            self.script.clear()
        for fault in faults:
            self.script.add(fault)
        return 200, {"faults": len(self.script.faults)}


def application(options: Mapping[str, Any], clock: Clock, draw: Draw) -> Simulator:
    """A simulator from plain JSON options, for the command line. Raises ConfigError with every mistake.

    Members: `keys` ({provider: {key: {members of KeyRule}}}), `unknown` (the same members, else unknown keys are
    refused), `faults`, `models`, `latency` (seconds or [low, high]), `pace`. The log keeps the last 10,000 requests.
    """
    problems: list[str] = []
    keys: dict[str, dict[str, KeyRule]] = {}
    for provider, rules in _named(options, "keys", problems).items():
        keys[provider] = {}
        for key, members in _named({provider: rules}, provider, problems, "keys.").items():
            rule = _rule(members, f"keys.{provider}", problems)
            if rule is not None:
                keys[provider][key] = rule
    faults = []
    for members in options.get("faults", []):
        try:
            faults.append(fault_of(members))
        except ConfigError as error:
            problems.extend(error.problems)
    unknown = _rule(options["unknown"], "unknown", problems) if "unknown" in options else None
    known = {"keys", "unknown", "faults", "models", "latency", "pace"}
    problems.extend(unknown_members(options, known, "of a script"))
    if problems:
        raise ConfigError(problems)
    latency = options.get("latency", 0.0)
    return Simulator(
        clock,
        draw,
        keys=keys,
        unknown=unknown,
        faults=faults,
        models=options.get("models"),
        latency=tuple(latency) if isinstance(latency, list) else latency,
        pace=options.get("pace", 0.0),
        log_limit=10_000,
    )


def _named(options: Mapping[str, Any], name: str, problems: list[str], place: str = "") -> Mapping[str, Any]:
    """The object of that name; empty when there is none, or something else stands there, which is a problem."""
    found = options.get(name, {})
    if isinstance(found, Mapping):
        return found
    problems.append(f"{place}{name}: must be an object")
    return {}


def _rule(members: Any, place: str, problems: list[str]) -> KeyRule | None:
    found: list[str] = []
    rule = rule_of(members, found)
    problems.extend(f"{place}: {problem}" for problem in found)
    return rule


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
