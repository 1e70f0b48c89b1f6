"""The played upstreams: keys with true limiters, dead keys, outages and latency, and their own counts of it all.

What is admitted is decided by `keyturn.simulator.limiters` alone, which shares no code with the gateway's own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from keyturn.core import Clock, TimerHandle
from keyturn.simulator import PERSONAS, KeyRule, Persona, Quota, Refusal, answer_of, rate_headers

from .arrivals import Asked
from .shape import Limits, Scenario, Upstream

T = TypeVar("T")
JSON = {"content-type": "application/json"}
BARE_REFUSAL = b'{"error":{"message":"Rate limit reached","type":"rate_limit_error","code":"rate_limit_exceeded"}}'
MOST_PROMPTS = 20_000
"""Prompts that one key remembers before those that are forgotten by now are swept out."""


class Answered(NamedTuple):
    """What an upstream says."""

    status: int
    headers: dict[str, str]
    body: bytes


class Mishap(NamedTuple):
    """From when until when a key is out."""

    begins: float
    ends: float


@dataclass(slots=True, eq=False)
class PlayedKey:
    """One key of one provider."""

    provider: str
    number: int
    secret: str
    account: str
    quota: Quota
    halved: bool
    dies: float
    """When it stops working; infinite for a good one."""
    outages: list[Mishap] = field(default_factory=list)
    prompts: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Conversation -> until when its prompt is cached, and how many tokens of it."""

    def state(self, now: float) -> str:
        """What a request meets before any limit: `ok`, `invalid_key` or `overloaded`."""
        if now >= self.dies:
            return "invalid_key"
        for out in self.outages:
            if out.begins <= now < out.ends:
                return "overloaded"
        return "ok"


class Counts:
    """What the upstreams saw of one run."""

    def __init__(self) -> None:
        self.requests = self.served = self.limited = self.invalid = self.failed = 0
        self.input = self.cached = self.output = 0
        self.cost = 0.0


def play(scenario: Scenario, draw: Callable[[], float], wall: float) -> list[PlayedKey]:
    """All keys of *scenario*, with the mishaps that *draw* gives each; the same for the same draws."""
    found: list[PlayedKey] = []
    for name, upstream in scenario.providers.items():
        persona = persona_of(name, upstream)
        accounts = [f"{name}/{place}" for place in range(math.ceil(upstream.keys / upstream.per_account))]
        halved = _some(accounts, upstream.halved, draw)
        quotas = {each: Quota(_rule(upstream, each in halved), persona) for each in accounts}
        numbers = range(1, upstream.keys + 1)
        dead = _some(numbers, upstream.dead, draw)
        alive = [number for number in numbers if number not in dead]
        dies = dict.fromkeys(dead, 0.0)
        for revoked in upstream.revoked:
            for number in _some([each for each in alive if each not in dies], revoked.share, draw, len(numbers)):
                dies[number] = revoked.at
        outages: dict[int, list[Mishap]] = {number: [] for number in numbers}
        for outage in upstream.outages:
            for number in _some(numbers, outage.share, draw):
                outages[number].append(Mishap(outage.at, outage.at + outage.lasts))
        for number in numbers:
            account = accounts[(number - 1) // upstream.per_account]
            found.append(
                PlayedKey(
                    name,
                    number,
                    f"simulated-{name}-key-{number:05d}",
                    account,
                    quotas[account],
                    account in halved,
                    dies.get(number, math.inf),
                    outages[number],
                )
            )
    return found


def persona_of(name: str, upstream: Upstream) -> Persona:
    """Who is played: the provider that it is like, else one that speaks as OpenAI does."""
    return PERSONAS.get(upstream.like or name, PERSONAS["openai"])


def true_limits(upstream: Upstream, halved: bool) -> dict[str, int]:
    """The limits of an account by their names, `rpm` and the like."""
    return limits_of(upstream.limits, 2 if halved else 1)


def limits_of(limits: Limits, divided: int = 1) -> dict[str, int]:
    """*limits* that are there, by name, divided by *divided* and at least 1."""
    return {name: max(1, value // divided) for name, value in limits.model_dump().items() if value is not None}


def _rule(upstream: Upstream, halved: bool) -> KeyRule:
    limits: dict[str, Any] = true_limits(upstream, halved)
    return KeyRule(limiter=upstream.window, day=upstream.day, zone=upstream.zone, **limits)


def _some(them: Sequence[T], share: float, draw: Callable[[], float], of: int | None = None) -> set[T]:
    """*share* of *them*, drawn without putting back."""
    count = min(len(them), round(share * (len(them) if of is None else of)))
    left, found = list(them), set()
    for _ in range(count):
        found.add(left.pop(int(draw() * len(left))))
    return found


class Upstreams:
    """Answers requests as the providers of *scenario* would."""

    def __init__(self, scenario: Scenario, keys: Sequence[PlayedKey], clock: Clock, draw: Callable[[], float]) -> None:
        self.keys = keys
        self.counts = Counts()
        self.clock = clock
        self._draw = draw
        self._providers: Mapping[str, Upstream] = scenario.providers
        self._personas = {name: persona_of(name, upstream) for name, upstream in scenario.providers.items()}
        self._models = {name: model_of(name, upstream) for name, upstream in scenario.providers.items()}
        talk = scenario.calls.conversations
        self._cache_lasts = talk.cache_lasts if talk is not None else 0.0
        self._began = clock.mono()

    def elapsed(self) -> float:
        """Seconds since the start of the simulation."""
        return self.clock.mono() - self._began

    async def ask(self, key: PlayedKey, asked: Asked) -> Answered:
        """Send *asked* with *key*: under way, judged as it arrives, answered. May be cancelled at any moment."""
        self.counts.requests += 1
        asked.attempts += 1
        visit = _Visit(self, key, asked, asyncio.get_running_loop().create_future())
        visit.start(self._between(self._providers[key.provider].transit))
        try:
            return await visit.answer
        finally:
            visit.close()

    def arrived(self, visit: _Visit) -> None:
        """A request is there: judge it, and answer at once or after a while."""
        key, asked = visit.key, visit.asked
        now = self.clock.mono() - self._began
        state = key.state(now)
        if state != "ok":
            visit.answered(self._out(key, state))
            return
        wall, quota = self.clock.wall(), key.quota
        refusal = quota.admit(wall, asked.input + (asked.output if quota.charge == "max_output" else 0))
        if refusal is not None:
            visit.answered(self._limited(key, refusal, wall))
            return
        asked.admitted = now - visit.transit
        visit.work(self._between(self._providers[key.provider].latency))

    def done(self, visit: _Visit) -> None:
        """An answer is finished."""
        visit.answered(self._served(visit.key, self._providers[visit.key.provider], visit.asked))

    def _limited(self, key: PlayedKey, refusal: Refusal, wall: float) -> Answered:
        self.counts.limited += 1
        if not self._providers[key.provider].retry_after:
            return Answered(429, dict(JSON), BARE_REFUSAL)
        persona, model = self._personas[key.provider], self._models[key.provider]
        return Answered(*answer_of(persona, refusal, model, key.secret, wall))

    def _out(self, key: PlayedKey, state: str) -> Answered:
        if state == "invalid_key":
            self.counts.invalid += 1
        else:
            self.counts.failed += 1
        persona, model = self._personas[key.provider], self._models[key.provider]
        return Answered(*answer_of(persona, state, model, key.secret, self.clock.wall()))

    def _served(self, key: PlayedKey, upstream: Upstream, asked: Asked) -> Answered:
        counts = self.counts
        cached = self._cached(key, asked) if asked.conversation else 0
        counts.served += 1
        counts.input += asked.input
        counts.cached += cached
        counts.output += asked.output
        price = upstream.price
        if price is not None:
            dear = price.input if price.cached is None else price.cached
            counts.cost += ((asked.input - cached) * price.input + cached * dear + asked.output * price.output) / 1e6
        headers = dict(JSON)
        if upstream.headers:
            headers.update(rate_headers(self._personas[key.provider], key.quota.meters, self.clock.wall(), asked.input))
        return Answered(200, headers, BODY % (asked.input, asked.output, asked.input + asked.output, cached))

    def _cached(self, key: PlayedKey, asked: Asked) -> int:
        """Tokens of *asked* that *key* has cached; it has all of it from now on."""
        now, prompts = self.elapsed(), key.prompts
        until, size = prompts.get(asked.conversation, (0.0, 0))
        if len(prompts) > MOST_PROMPTS:
            for number in [number for number, (end, _) in prompts.items() if end < now]:
                del prompts[number]
        prompts[asked.conversation] = (now + self._cache_lasts, asked.input)
        return min(size, asked.known) if until >= now else 0

    def _between(self, span: tuple[float, float]) -> float:
        low, high = span
        return low + (high - low) * self._draw() if high > low else low


class _Visit:
    """One request at an upstream: two timers, and a future that whoever asked waits for."""

    __slots__ = ("answer", "asked", "inside", "key", "timer", "transit", "upstreams")

    def __init__(self, upstreams: Upstreams, key: PlayedKey, asked: Asked, answer: asyncio.Future[Answered]) -> None:
        self.upstreams = upstreams
        self.key = key
        self.asked = asked
        self.answer = answer
        self.transit = 0.0
        self.inside = False
        """It was admitted, and its tokens of output are still to be charged."""
        self.timer: TimerHandle | None = None

    def start(self, transit: float) -> None:
        """It is under way for *transit* seconds."""
        clock = self.upstreams.clock
        self.transit = transit
        self.timer = clock.call_at(clock.mono() + transit, self._arrive)

    def work(self, latency: float) -> None:
        """It was admitted and is answered in *latency* seconds."""
        clock = self.upstreams.clock
        self.inside = True
        self.timer = clock.call_at(clock.mono() + latency, self._finish)

    def answered(self, answered: Answered) -> None:
        """Hand the answer over."""
        if not self.answer.done():
            self.answer.set_result(answered)

    def close(self) -> None:
        """It is over, or its client has left: what it used until now is charged."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.inside:
            self.inside = False
            quota = self.key.quota
            quota.leave()
            if quota.charge == "output":
                quota.settle(self.upstreams.clock.wall(), self.asked.output)

    def _arrive(self) -> None:
        self.timer = None
        self.upstreams.arrived(self)

    def _finish(self) -> None:
        self.timer = None
        self.close()
        self.upstreams.done(self)


BODY = (
    b'{"id":"chatcmpl-simulated","object":"chat.completion","created":1772452800,"model":"simulated","choices":[{"index":'
    b'0,"message":{"role":"assistant","content":"As simulated."},"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,'
    b'"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}}'
)


def model_of(name: str, upstream: Upstream) -> str:
    """What the provider calls the model."""
    return upstream.model or persona_of(name, upstream).models[0]
