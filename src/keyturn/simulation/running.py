"""Runs one strategy through a scenario in virtual time and counts what became of every call."""

from __future__ import annotations

import asyncio
import gc
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from keyturn.config import Config

from . import virtual
from .arrivals import DAY, Asked, Person, arrivals, people
from .baselines import BASELINES
from .bound import MOST_OBEYED
from .house import configured, gateway_of
from .played import Counts, Upstreams, play
from .shape import Scenario

STRATEGIES = ("keyturn", *BASELINES)
"""What can be compared."""
GRACE = 3600.0
"""Virtual seconds that the last calls may take after the end of the scenario."""
MOST_TURNS = 10**12


class Strategy(Protocol):
    """Somebody who answers calls."""

    async def answer(self, asked: Asked) -> tuple[int, float | None]: ...


@dataclass
class PerCaller:
    """What one caller asked for and got. Tokens are those of input and output together."""

    name: str
    weight: float
    asked: int = 0
    served: int = 0
    asked_tokens: int = 0
    served_tokens: int = 0
    waits: array[float] = field(default_factory=lambda: array("d"))


class Tally:
    """What became of the calls of one run."""

    def __init__(self, strategy: str, persons: Sequence[Person]) -> None:
        self.strategy = strategy
        self.callers = [PerCaller(person.name, person.weight) for person in persons]
        self.asked = self.served = 0
        self.statuses: Counter[int] = Counter()
        """Of the calls that were not served in the end."""
        self.advised = self.admitted = 0
        """Refused calls that came back when they were told to, and those of them that a provider then let in."""
        self.waits = array("d")
        self.counts = Counts()
        self.until = 0.0
        """How far the run came, in seconds of the scenario."""
        self.complete = False

    def come(self, asked: Asked) -> None:
        """A call is asked for the first time."""
        caller = self.callers[asked.caller]
        self.asked += 1
        caller.asked += 1
        caller.asked_tokens += asked.input + asked.output

    def answered(self, asked: Asked, status: int, came: float) -> None:
        """A call is over; *came*: when it was asked for last."""
        if status != 200:
            self.statuses[status] += 1
            return
        caller = self.callers[asked.caller]
        self.served += 1
        caller.served += 1
        caller.served_tokens += asked.input + asked.output
        wait = max(0.0, asked.admitted - came)
        self.waits.append(wait)
        caller.waits.append(wait)


class Prepared:
    """A scenario with its calls drawn: the same for every strategy."""

    def __init__(self, scenario: Scenario, calls: list[Asked] | None = None) -> None:
        """Raises ConfigError when a setting in *scenario* is wrong. *calls*: as they are to come, not drawn."""
        self.scenario = scenario
        self.people = people(scenario)
        self.config = configured(scenario)
        self.calls = arrivals(scenario, virtual.seeded(scenario.seed)) if calls is None else calls
        self.start_wall = virtual.START_WALL // DAY * DAY + scenario.starts


def run(prepared: Prepared, strategy: str, told: Callable[[Tally, float], object] = lambda tally, part: None) -> Tally:
    """Simulate *strategy*. *told* hears now and then how far it is, as a part of the whole, and may raise to end it:
    the tally that it was handed then says what was simulated so far."""
    tally = Tally(strategy, prepared.people)
    with virtual.all_seeded(prepared.scenario.seed), _calm_collector():
        virtual.run(
            lambda: _simulated(prepared, tally, told),
            start_wall=prepared.start_wall,
            horizon=prepared.scenario.duration + GRACE,
            max_turns=MOST_TURNS,
        )
    tally.complete = True
    return tally


async def _simulated(prepared: Prepared, tally: Tally, told: Callable[[Tally, float], object]) -> None:
    scenario, clock = prepared.scenario, virtual.VirtualClock()
    keys = play(scenario, virtual.seeded(scenario.seed + 1), clock.wall())
    upstreams = Upstreams(scenario, keys, clock, virtual.seeded(scenario.seed + 2))
    tally.counts = upstreams.counts
    step = max(1, len(prepared.calls) // 100)
    async with _strategy(tally.strategy, prepared.config, upstreams, prepared) as strategy:
        crowd = _Crowd(strategy, tally, clock)
        for place in range(0, len(prepared.calls), step):
            told(tally, place / len(prepared.calls))
            await crowd.come(prepared.calls[place : place + step])
        await crowd.answered()
    tally.until = scenario.duration


class _Crowd:
    """Clients, each of whom calls at its moment. What costs something for each call is done once: one timer brings the
    next one, and a task per call is all that runs."""

    def __init__(self, strategy: Strategy, tally: Tally, clock: virtual.VirtualClock) -> None:
        self._strategy = strategy
        self._tally = tally
        self._clock = clock
        self._began = clock.mono()
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, asyncio.Task[None]] = {}
        """By the id of what is asked."""
        self._left: Iterator[Asked] = iter(())
        self._timer: asyncio.TimerHandle | None = None

    async def come(self, calls: Sequence[Asked]) -> None:
        """Have *calls*, which are in order, asked for; until the last of them is."""
        self._left, come = iter(calls), self._loop.create_future()
        self._go_on(come)
        try:
            await come
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def answered(self) -> None:
        """Wait until nobody is left who waits for an answer."""
        await asyncio.gather(*self._running.values())

    def _go_on(self, come: asyncio.Future[None]) -> None:
        """Ask what is due, and set the timer for the next; *come*: all have been asked, or nobody waits for that."""
        if come.done():
            return
        now = self._clock.mono()
        for asked in self._left:
            at = self._began + asked.at
            if at > now:
                self._timer = self._loop.call_at(at, self._due, asked, come)
                return
            self._ask(asked)
        self._timer = None
        come.set_result(None)

    def _due(self, asked: Asked, come: asyncio.Future[None]) -> None:
        if not come.done():
            self._ask(asked)
            self._go_on(come)

    def _ask(self, asked: Asked) -> None:
        asked.attempts, asked.admitted = 0, 0.0
        self._tally.until = asked.at
        self._running[id(asked)] = self._loop.create_task(self._call(asked))

    async def _call(self, asked: Asked) -> None:
        """One call as its client sees it: asked for, and once more if it is told when to come back and does."""
        strategy, tally, clock = self._strategy, self._tally, self._clock
        tally.come(asked)
        came = clock.mono() - self._began
        status, wait = await strategy.answer(asked)
        if status == 429 and wait is not None and asked.obeys and wait <= MOST_OBEYED:
            await clock.sleep_until(clock.mono() + wait)
            came = clock.mono() - self._began
            asked.admitted = 0.0
            status, _ = await strategy.answer(asked)
            tally.advised += 1
            tally.admitted += asked.admitted > 0
        tally.answered(asked, status, came)
        del self._running[id(asked)]


@asynccontextmanager
async def _strategy(name: str, config: Config, upstreams: Upstreams, prepared: Prepared) -> AsyncIterator[Strategy]:
    clock = virtual.VirtualClock()
    if name == "keyturn":
        async with gateway_of(config, upstreams, prepared.people, clock) as strategy:
            yield strategy
    else:
        yield BASELINES[name](prepared.scenario, upstreams, clock, virtual.seeded(prepared.scenario.seed + 3))


@contextmanager
def _calm_collector() -> Iterator[None]:
    """The collector of garbage looks rarely: a run makes many objects and hardly any cycle. What the program around it
    keeps from the collector stays so."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not frozen:
            gc.unfreeze()
