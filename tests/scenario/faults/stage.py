"""Where one row of the matrix is played: a gateway in virtual time, its live state in memory or in a real Redis.

@scenario(11, {"together": 3}, faults=[Fault(key="*-1", error="insufficient_credit")])
async def a_key_without_credit(stage: Stage) -> str:
    answer = await stage.ask(TURBO)
    …
    return "what the client saw, and what became of the keys: stands in the table"
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config, DataFolder
from keyturn.core import Clock, Mark, Marks, Trail, UpstreamRequest, UpstreamResponse
from keyturn.dispatch import Alarm, CallEnded, Event, build
from keyturn.errors import TransportError
from keyturn.stores.redis_state import RedisState
from tests.support import virtual
from tests.support.redis_server import Hub
from tests.support.world import APP, Answer, World

LLAMA = "groq/llama-3.1-8b-instant"
OTHER = "groq/llama-3.3-70b-versatile"
TURBO = "together/meta-llama/Llama-3.3-70B-Instruct-Turbo"
GEMINI = "gemini/gemini-2.5-flash"
SHARED = "llama-shared"
BOTH = {"groq": [SHARED], "together": [SHARED]}
"""Two providers offer the same model: who asks for it by its bare name may be answered by either."""
MODES = ("plain", "stream")
Story = Callable[["Stage"], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way in which a row is played. *modes*: plain answers, streams, or both."""

    row: int
    name: str
    story: Story
    pool: Mapping[str, Any]
    modes: tuple[str, ...] = MODES
    options: Mapping[str, Any] | None = None
    """Of the World; `folder=True` gives it a data folder."""

    @property
    def id(self) -> str:
        return f"{self.row:02d}-{self.name}"


SCENARIOS: list[Scenario] = []


def scenario(
    row: int, pool: Mapping[str, Any], *, modes: tuple[str, ...] = MODES, variant: str = "", **options: Any
) -> Callable[[Story], Story]:
    """Enters the story under *row*; *variant* tells several entries of one story apart."""

    def enter(story: Story) -> Story:
        name = story.__name__ + (f"-{variant}" if variant else "")
        SCENARIOS.append(Scenario(row, name, story, pool, modes, options))
        return story

    return enter


class Stage:
    """What a story has at hand."""

    def __init__(self, world: World, *, stream: bool) -> None:
        self.world = world
        self.stream = stream
        self.alarms: list[str] = []
        self.trails: list[Trail] = []
        self._listen()

    def _listen(self) -> None:
        self.world.gateway.events.subscribe(self._note)

    def _note(self, event: Event) -> None:
        if isinstance(event, Alarm):
            self.alarms.append(event.text)
        elif isinstance(event, CallEnded):
            self.trails.append(event.trail)

    async def ask(self, model: str = LLAMA, **members: Any) -> Answer:
        """One call, read to its end."""
        return await self.world.chat(model, stream=self.stream, **members)

    async def later(self, seconds: float) -> None:
        await self.world.clock.sleep_until(self.now + seconds)

    @property
    def now(self) -> float:
        return self.world.clock.mono()

    @property
    def marks(self) -> list[Mark]:
        """What stands against anything at this moment."""
        return [mark for mark in self.world.gateway.marks.every() if mark.until > self.now]

    def mark(self, kind: str) -> Mark:
        """The only mark there is, which is on a scope of this kind."""
        (mark,) = self.marks
        assert mark.scope[0] == kind, mark
        return mark

    def left(self, mark: Mark) -> float:
        """Seconds that *mark* still lasts."""
        return mark.until - self.now

    def state(self, label: str) -> str:
        """That of a key, as `keyturn keys list` shows it."""
        rows = [row for row in self.world.gateway.keys() if str(row["key"]).startswith(f"{label}:")]
        return str(rows[0]["state"])

    def sent(self, **members: Any) -> int:
        """How many model calls the upstream saw."""
        return len(self.world.seen(**members))

    def attempts(self) -> int:
        """Attempts of all calls that have ended."""
        return sum(len(trail.attempts) for trail in self.trails)

    def break_connections(self, kind: str, *, provider: str = "", times: int = 10**9, wait: float = 0.0) -> Breaking:
        """From now on requests to *provider* (default: to anybody) fail as the transport tells it."""
        breaking = Breaking(self.world, kind, provider, times, wait)
        self.world.gateway.transport = breaking
        return breaking

    async def restart(self) -> None:
        """The gateway ends, and another begins on the same data folder or the same Redis."""
        world = self.world
        await world.gateway.close()
        world.gateway = build(world.config(), clock=world.clock, apps={APP: world.upstream}, folder=world.folder)
        await world.gateway.open()
        self._listen()


class Breaking:
    """A transport whose connections fail, before anything of the request was sent."""

    def __init__(self, world: World, kind: str, provider: str, times: int, wait: float) -> None:
        self._inner = world.gateway.transport
        self._clock = world.clock
        self.kind = kind
        self.provider = provider
        self.times = times
        self.wait = wait
        self.broken = 0

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> UpstreamResponse:
        address = getattr(getattr(request, "http", request), "url", "")
        chat = address.endswith("/chat/completions")
        if chat and self.broken < self.times and (not self.provider or f"/{self.provider}/" in address):
            self.broken += 1
            await self._clock.sleep_until(self._clock.mono() + self.wait)
            raise TransportError(self.kind, f"as the test says: {self.kind}")
        return await self._inner.send(request, on_sent)

    @property
    def acquired(self) -> int:
        return int(self._inner.acquired)  # type: ignore[attr-defined]

    async def close(self) -> None:
        await self._inner.close()


def whole(answer: Answer) -> bool:
    """Whether the client has all of a good answer."""
    if answer.status != 200 or not answer.text.endswith("You said: Hello"):
        return False
    return not answer.headers["content-type"].startswith("text/event-stream") or answer.events[-1] == "[DONE]"


def cut(answer: Answer) -> bool:
    """Whether a stream ends with one error event: no finish reason and no `[DONE]` were made up."""
    if answer.status != 200 or "[DONE]" in answer.events:
        return False
    *before, last = [json.loads(event) for event in answer.events]
    finished = any(choice["finish_reason"] for event in before for choice in event["choices"])
    return not finished and last["error"]["code"] == "upstream_interrupted"


def play(scenario: Scenario, mode: str, hub: Hub | None, monkeypatch: pytest.MonkeyPatch, path: Path) -> str:
    """Play *scenario*, with Redis where there is a *hub*; what its story tells."""

    def shared_state_of(config: Config, marks: Marks, clock: Clock) -> RedisState:
        assert hub is not None
        link = hub.link(clock.mono, 1)
        link.shift = virtual.START_WALL - virtual.START_MONO
        return RedisState(link, marks, clock, name=f"g{len(hub.links)}", prefix=hub.prefix)

    if hub is not None:
        monkeypatch.setattr(import_module("keyturn.dispatch.build"), "live_state_of", shared_state_of)
    options = dict(scenario.options or {})
    if options.pop("folder", False) and hub is None:
        options["folder"] = DataFolder(path)

    async def main() -> str:
        async with World(scenario.pool, **options) as world:
            stage = Stage(world, stream=mode == "stream")
            told = await scenario.story(stage)
            if hub is not None:
                await _known_to_all(stage)
            return told

    return virtual.run(main)


async def _known_to_all(stage: Stage) -> None:
    """A gateway that joins now knows from Redis what stands against whom, and nothing else."""
    world = stage.world
    other = build(world.config(), clock=world.clock, apps={APP: world.upstream})
    await other.open()
    try:
        here = {mark.scope: (mark.state, round(mark.until, 2)) for mark in stage.marks}
        there = {
            mark.scope: (mark.state, round(mark.until, 2)) for mark in other.marks.every() if mark.until > stage.now
        }
        assert here == there
    finally:
        await other.close()
        await asyncio.sleep(0)
