"""Which calls a scenario brings: when each comes, from whom, how large it is and how long it may wait."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, exp, log, pi, sqrt
from typing import NamedTuple

from .shape import Calls, Scenario, Spread, seconds_of

DAY = 86_400.0
ROUND = 2 * pi
Draw = Callable[[], float]


@dataclass(slots=True)
class Asked:
    """One call, and what became of it. Times are seconds from the start of the simulation."""

    at: float
    caller: int
    """Its place among `people`."""
    input: int
    """True tokens of input."""
    output: int
    judged: int
    """Tokens of input as the gateway will estimate them."""
    patience: float
    batch: bool = False
    obeys: bool = False
    """Comes back once when it is refused with a `Retry-After`, after that time."""
    conversation: int = 0
    """Its number; 0: none."""
    known: int = 0
    """Tokens of its input that the conversation held before."""
    admitted: float = 0.0
    """When the provider let it in at last."""
    attempts: int = 0


class Person(NamedTuple):
    """Somebody who asks."""

    name: str
    share: float
    weight: float


def people(scenario: Scenario) -> list[Person]:
    """Who asks, those of a kind one by one."""
    found = []
    for caller in scenario.callers:
        share = caller.share
        names = [caller.name] if caller.count == 1 else [f"{caller.name}-{n}" for n in range(1, caller.count + 1)]
        found += [Person(name, share, caller.weight) for name in names]
    return found or [Person("default", 1.0, 1.0)]


def arrivals(scenario: Scenario, draw: Draw) -> list[Asked]:
    """Every call of *scenario* in the order in which they come; the same for the same draws."""
    return sorted(_all(scenario, draw), key=lambda asked: asked.at)


def _all(scenario: Scenario, draw: Draw) -> Iterator[Asked]:
    calls, ends = scenario.calls, scenario.duration
    sketch = Sketch(calls, people(scenario), draw)
    for at in times(scenario, draw):
        if calls.conversations is not None and draw() < calls.conversations.share:
            yield from _conversation(sketch, calls, at, ends, draw)
        else:
            yield sketch.one(at)


def _conversation(sketch: Sketch, calls: Calls, at: float, ends: float, draw: Draw) -> Iterator[Asked]:
    talk = calls.conversations
    assert talk is not None
    number, caller, held = sketch.next_conversation(), sketch.caller(), 0
    for _ in range(talk.turns):
        if at >= ends:
            return
        asked = sketch.one(at, caller)
        asked.conversation, asked.known = number, held
        asked.input += held
        asked.judged += held
        held = asked.input + asked.output
        yield asked
        at += talk.pause * 2 * draw()


class Sketch:
    """Draws single calls."""

    def __init__(self, calls: Calls, persons: Sequence[Person], draw: Draw) -> None:
        self._calls = calls
        self._draw = draw
        self._patience = [seconds_of(name) for name in calls.patience]
        self._patient = list(calls.patience.values())
        """The share of each."""
        total = sum(person.share for person in persons)
        self._shares = [person.share / total for person in persons]
        self._conversations = 0

    def next_conversation(self) -> int:
        """The number of a new conversation."""
        self._conversations += 1
        return self._conversations

    def caller(self) -> int:
        """The place of who asks."""
        return chosen(self._shares, self._draw)

    def one(self, at: float, caller: int | None = None, input: int = 0, output: int = 0) -> Asked:
        """A call at *at*; what is not given is drawn."""
        calls, draw = self._calls, self._draw
        size = input or sized(calls.input, draw)
        off = exp(calls.misjudged * normal(draw)) if calls.misjudged else 1.0
        return Asked(
            at,
            self.caller() if caller is None else caller,
            size,
            output or sized(calls.output, draw),
            max(1, round(size * off)),
            self._patience[chosen(self._patient, draw)],
            batch=calls.batch > 0 and draw() < calls.batch,
            obeys=calls.comes_back > 0 and draw() < calls.comes_back,
        )


def times(scenario: Scenario, draw: Draw) -> Iterator[float]:
    """When something begins, in order: a Poisson stream whose rate may swing over the day, and bursts on top."""
    return heapq.merge(_stream(scenario, draw), *([*_bursts(scenario, draw)],))


def _stream(scenario: Scenario, draw: Draw) -> list[float]:
    calls, ends = scenario.calls, scenario.duration
    if calls.rate is None:
        return []
    rate, at = calls.rate, 0.0
    found: list[float] = []
    if calls.conversations is not None:  # each that begins brings several calls
        share = calls.conversations.share
        rate /= 1 - share + share * calls.conversations.turns
    highest = rate * (1 + calls.diurnal)
    while True:
        at -= log(1 - draw()) / highest
        if at >= ends:
            return found
        if calls.diurnal == 0 or draw() * highest < rate * swing(calls, scenario.starts + at):
            found.append(at)


def swing(calls: Calls, moment: float) -> float:
    """The rate at *moment* of the day, as a part of the average."""
    return 1 + calls.diurnal * cos(ROUND * (moment - calls.peak) / DAY)


def _bursts(scenario: Scenario, draw: Draw) -> list[float]:
    found: list[float] = []
    for burst in scenario.calls.bursts:
        begins = burst.at
        while begins < scenario.duration:
            found += [begins + burst.within * draw() for _ in range(burst.calls)]
            if burst.every <= 0:
                break
            begins += burst.every
    return sorted(at for at in found if at < scenario.duration)


def chosen(shares: Sequence[float], draw: Draw) -> int:
    """A place, each with its share."""
    if len(shares) == 1:
        return 0
    left = draw()
    for place, share in enumerate(shares):
        left -= share
        if left < 0:
            return place
    return len(shares) - 1


def sized(spread: Spread, draw: Draw) -> int:
    """A number of tokens."""
    value = spread.median
    if spread.sigma:
        value *= exp(spread.sigma * normal(draw))
    return max(1, min(spread.most, round(value)))


def normal(draw: Draw) -> float:
    """A standard normal number (Box and Muller)."""
    return sqrt(-2 * log(1 - draw())) * cos(ROUND * draw())
