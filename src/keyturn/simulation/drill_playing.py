"""One shape on one route: the calls that a client makes, what it sees of them, and what happens behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from keyturn.config import Config
from keyturn.core import AUTO, Caller, Deployment, Trail
from keyturn.dispatch import Alarm, Cooled, Event, Gateway, new_id, read_call
from keyturn.errors import ModelNotFound
from keyturn.providers import asking, goes_on, nearest
from keyturn.wire import dialect

from .drill_cast import cast_of, secret_of, upstreams_of
from .drill_shapes import SHAPES, Mode, Shape
from .rehearsing import rehearsal
from .virtual import VirtualClock, run, seed_all, seeded

SEED = 7
LONGEST_WAIT = 3600.0
"""Seconds that a client who is told to come back later waits at most."""
HORIZON = 2 * 86_400.0


Able = Literal["", "same", "elsewhere"]
"""Nobody; the model that is asked first, there or elsewhere; only other models."""


class Seen(NamedTuple):
    """What a client saw of one call. Times in virtual seconds."""

    at: float
    """When it was made, from the beginning."""
    status: int
    code: str
    """Of the error; empty for an answer."""
    retry_after: float | None
    whole: bool
    cut: bool
    """A stream that ended in an error event."""
    seconds: float
    silence: float
    """The longest time without a byte."""
    waited: float
    """Of it, for a key."""
    provider: str
    attempts: tuple[tuple[str, str, str, int | None], ...]
    """Provider, key, meaning, status."""
    message: str = ""

    @property
    def refused(self) -> bool:
        return not self.whole and not self.cut


class Rest(NamedTuple):
    """Something that was set aside: a key, or a model of a provider. *seconds* may be infinite."""

    what: str
    reason: str
    seconds: float


class Played(NamedTuple):
    """All calls of one shape in one mode."""

    mode: Mode
    calls: tuple[Seen, ...]
    again: Seen | None
    """What a client saw who was refused, told how long to wait, and did."""
    rests: tuple[Rest, ...]
    alarms: tuple[str, ...]

    @property
    def attempts(self) -> int:
        return sum(len(seen.attempts) for seen in self.calls)


class Route(NamedTuple):
    """A name that is drilled, and who may answer it."""

    name: str
    kind: str
    """role, alias, route, default or model."""
    providers: tuple[str, ...]
    """In the order of the plan, once each."""
    groups: dict[str, int]
    """Quota groups of each."""
    others: tuple[str, ...]
    """Providers with keys that it never reaches."""
    refusals: tuple[str, ...]
    """Who is left out of it, and why."""
    target: tuple[str, str]
    """The provider and the key that are asked first; empty when it is not answered at all."""
    tool: bool
    keyed: bool
    """What is asked first is a tool; has a key."""
    narrow: bool
    """Its limits, or the caller's, do not even allow three calls in a row."""
    able: Able
    """Who behind it can be told to go on with a text that has begun."""


class Drill:
    """One configuration in a drill."""

    def __init__(self, config: Config, caller: Caller, disabled: Collection[str] = ()) -> None:
        self.config = cast_of(config)
        self.caller = caller
        self.disabled = disabled
        self._well: dict[tuple[str, Mode], Played] = {}

    def route(self, name: str) -> Route:
        """Who may answer *name*."""
        told = run(lambda: self._explained(name), horizon=HORIZON)
        rows = [row for step in told["steps"] for row in step["deployments"]]
        providers = tuple(dict.fromkeys(str(row["provider"]) for row in rows))
        well = self.well(name, "plain").calls
        target = self._target(well[0])
        config = self.config
        return Route(
            name,
            self._kind(name),
            providers,
            {
                each: len({key.group for key in config.credentials[each] if key.fingerprint not in self.disabled})
                for each in providers
            },
            tuple(each for each in config.by_tier() if each not in providers and self._usable(each)),
            tuple(told["refusals"]),
            target,
            bool(target[0]) and config.providers[target[0]].tool is not None,
            bool(target[1]),
            well[0].whole and any(seen.status == 429 for seen in well),
            self._able([Deployment(str(row["provider"]), str(row["model"])) for row in rows], target[0]),
        )

    def known(self, name: str) -> None:
        """Raises ModelNotFound, which names the nearest, when nothing is called *name*."""
        error = run(lambda: self._explained(name), horizon=HORIZON)["error"]
        if error is None or error["code"] != ModelNotFound.code:
            return
        if "/" in name:
            raise ModelNotFound(error["message"], param="model")
        names = dict.fromkeys((*self.config.names, *self.config.routes, AUTO))
        near = nearest(name, names)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}, and PROVIDER/MODEL"
        raise ModelNotFound(f"no route is called {name}; {hint}", param="model")

    def _able(self, plan: Sequence[Deployment], provider: str) -> Able:
        """Who of *plan*, whose *provider* is asked first, goes on with a text of the drill's own."""
        config, call = self.config, read_call("chat", _question("any", "stream", 0), {})
        request = dialect(call.dialect).read_request(call)
        able = [
            each
            for each in plan
            if goes_on(
                row := config.providers[each.provider], asking(row, call, each.model).dialect, each.model, request
            )
        ]
        first = next((each for each in plan if each.provider == provider), None)
        if first is None or not able:
            return ""
        same = {first, *config.equivalents.of(first)}
        alike = any(each in same or each.model.lower() == first.model.lower() for each in able)
        return "same" if alike else "elsewhere"

    def well(self, name: str, mode: Mode) -> Played:
        """What a client sees of *name* when nothing fails."""
        if (name, mode) not in self._well:
            self._well[name, mode] = self.play(name, SHAPES["healthy"], mode, ("", ""))
        return self._well[name, mode]

    def play(self, name: str, shape: Shape, mode: Mode, target: tuple[str, str]) -> Played:
        """*shape* on route *name*, in a gateway of its own."""
        seed_all(SEED)
        return run(lambda: self._played(name, shape, mode, target), horizon=HORIZON)

    async def _explained(self, name: str) -> dict[str, Any]:
        clock = VirtualClock()
        upstreams = upstreams_of(self.config, SHAPES["healthy"], ("", ""), clock, seeded(SEED))
        async with rehearsal(self.config, clock, transport=upstreams, disabled=self.disabled) as gateway:
            return await gateway.explain(read_call("chat", _question(name, "plain", 0), {}), self.caller)

    async def _played(self, name: str, shape: Shape, mode: Mode, target: tuple[str, str]) -> Played:
        clock = VirtualClock()
        upstreams = upstreams_of(self.config, shape, target, clock, seeded(SEED))
        rests: list[Rest] = []
        alarms: list[str] = []

        def note(event: Event) -> None:
            if isinstance(event, Cooled) and event.seconds > 0:
                rests.append(Rest(_rested(event), event.reason, event.seconds))
            elif isinstance(event, Alarm):
                alarms.append(event.text)

        async with rehearsal(self.config, clock, transport=upstreams, disabled=self.disabled) as gateway:
            gateway.events.subscribe(note)
            client = _Client(gateway, clock, name, mode, self.caller)
            calls = await asyncio.gather(*(client.ask(number, number * shape.every) for number in range(shape.calls)))
            last, again = calls[-1], None
            if last.refused and last.retry_after is not None and last.retry_after <= LONGEST_WAIT:
                again = await client.ask(shape.calls, last.at + last.seconds + last.retry_after)
        return Played(mode, tuple(calls), again, _once(rests), tuple(dict.fromkeys(alarms)))

    def _target(self, first: Seen) -> tuple[str, str]:
        """Whom the first attempt of a call asks, and the secret that stands in for that key's."""
        if not first.attempts:
            return "", ""
        provider, shown, _, _ = first.attempts[0]
        key = next(each for each in self.config.credentials[provider] if each.shown == shown)
        return provider, secret_of(provider, key.fingerprint) if key.keyed else ""

    def _kind(self, name: str) -> str:
        if name in self.config.names:
            return self.config.names[name].kind
        if name in self.config.routes:
            return "route"
        if name == AUTO:
            return "default"
        return "model" if name.partition("/")[0] in self.config.providers else "route"

    def _usable(self, provider: str) -> bool:
        row = self.config.providers[provider]
        keys = [key for key in self.config.credentials[provider] if key.fingerprint not in self.disabled]
        return bool(keys) and (row.tool is None or row.tool.found)


class _Client:
    """Asks as a client does."""

    def __init__(self, gateway: Gateway, clock: VirtualClock, name: str, mode: Mode, caller: Caller) -> None:
        self._gateway = gateway
        self._clock = clock
        self._name = name
        self._mode = mode
        self._caller = caller
        self._began = clock.mono()

    async def ask(self, number: int, at: float) -> Seen:
        """Call *number*, made *at* so many seconds from the beginning, read to its end."""
        clock = self._clock
        await clock.sleep_until(self._began + at)
        call_id = new_id(clock.wall())
        body = _question(self._name, self._mode, number)
        began = heard = clock.mono()
        silence = 0.0
        reply = await self._gateway.handle(read_call("chat", body, {}), self._caller, call_id)
        try:
            if reply.stream is not None:
                async for _ in reply.stream:
                    silence, heard = max(silence, clock.mono() - heard), clock.mono()
        finally:
            reply.close()
        ended = clock.mono()
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        trail = self._gateway.recent[call_id]
        stated = headers.get("retry-after-ms")
        return Seen(
            began - self._began,
            reply.status,
            trail.code,
            float(stated) / 1000.0 if stated else float(headers["retry-after"]) if "retry-after" in headers else None,
            reply.status == 200 and not trail.code,
            trail.code == "upstream_interrupted",
            ended - began,
            max(silence, ended - heard),
            trail.waited,
            headers.get("x-keyturn-provider", ""),
            _attempts(trail),
            _message(reply.body) if reply.status != 200 else "",
        )


def _attempts(trail: Trail) -> tuple[tuple[str, str, str, int | None], ...]:
    return tuple((each.provider, each.key, each.meaning, each.status) for each in trail.attempts)


def _message(body: bytes) -> str:
    """What an error body says, on one line."""
    try:
        told = json.loads(body)
        error = (told[0] if isinstance(told, list) else told)["error"]
        return " ".join(str(error["message"] if isinstance(error, dict) else error).split())
    except (ValueError, LookupError, TypeError):
        return ""


def _question(name: str, mode: Mode, number: int) -> bytes:
    asked: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": f"Drill, call {number}."}]}
    if mode == "stream":
        asked["stream"] = True
    return json.dumps(asked).encode()


def _rested(event: Cooled) -> str:
    """A key; where all of them are meant, a model of a provider, or the provider."""
    return event.key or "/".join(filter(None, (event.provider, event.model)))


def _once(rests: list[Rest]) -> tuple[Rest, ...]:
    """Each that was set aside for each reason, with its longest rest."""
    longest: dict[tuple[str, str], float] = {}
    for what, reason, seconds in rests:
        longest[what, reason] = max(seconds, longest.get((what, reason), 0.0))
    return tuple(Rest(what, reason, seconds) for (what, reason), seconds in longest.items())
