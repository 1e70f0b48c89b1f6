"""What callers wait for and ask for, and the work that is done before one more call by the fair order.

Where many callers wait, those that want alike for their weight are reckoned with together: so what a call costs that
asks for its turn does not grow with how many others ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import NamedTuple

from .model import CallerClass, Deployment
from .turns import WEIGHTS

FEW = 24
"""Callers of a class up to which each is reckoned with by itself, and groups that they are put into beyond."""
DEMAND = 30.0
"""Seconds in which what was asked for loses two thirds of its weight."""
MOST_CALLERS = 1024
"""Callers of whom it is remembered how much they ask for."""


class Weighed(NamedTuple):
    """What one caller of a class wants: its weight, the work it waits for, and how many calls that is."""

    weight: float
    work: float
    calls: float
    work_coming: float = 0.0
    """What it asks for in a second more, as far as it goes on as lately."""
    calls_coming: float = 0.0

    def plus(self, work: float, calls: float) -> Weighed:
        """So much more of both."""
        return Weighed(self.weight, self.work + work, self.calls + calls, self.work_coming, self.calls_coming)


class Demand:
    """How much work callers ask for lately, per second: who asks for more than its share will go on to, probably."""

    __slots__ = ("_rates",)

    def __init__(self) -> None:
        self._rates: dict[tuple[tuple[Deployment, ...], CallerClass, str], tuple[float, float, float]] = {}
        """Work and calls per second, and when that was so; the one that asked last stands last."""

    def asked(
        self, deployments: tuple[Deployment, ...], rank: CallerClass, caller: str, work: float, now: float
    ) -> None:
        """A call of *caller* that makes so much work came, and could not be answered at once."""
        key = (deployments, rank, caller)
        rate, calls, since = self._rates.pop(key, (0.0, 0.0, now))
        fades = exp((since - now) / DEMAND)
        self._rates[key] = rate * fades + work / DEMAND, calls * fades + 1 / DEMAND, now
        if len(self._rates) > MOST_CALLERS:
            del self._rates[next(iter(self._rates))]

    def coming(
        self, deployments: tuple[Deployment, ...], rank: CallerClass, caller: str, now: float
    ) -> tuple[float, float]:
        """Work and calls that *caller* asks for in a second, as far as it goes on as lately."""
        rate = self._rates.get((deployments, rank, caller))
        if rate is None:
            return 0.0, 0.0
        fades = exp((rate[2] - now) / DEMAND)
        return rate[0] * fades, rate[1] * fades


Wants = Mapping[CallerClass, Mapping[str, Weighed]]


class Crowd:
    """What everybody wants at one moment."""

    __slots__ = ("_group_of", "_wants", "size")

    def __init__(self, wants: Wants) -> None:
        """*wants* is not to change any more."""
        self.size = sum(map(len, wants.values()))
        """How many callers it is made of."""
        self._group_of: dict[tuple[CallerClass, str], tuple[str, Weighed]] = {}
        """Of who stands in a group: the group, and its part in it."""
        self._wants: dict[CallerClass, Mapping[str, Weighed]] = {
            rank: callers if len(callers) <= FEW else self._grouped(rank, callers) for rank, callers in wants.items()
        }

    def _grouped(self, rank: CallerClass, callers: Mapping[str, Weighed]) -> dict[str, Weighed]:
        """*callers* in a few groups of those that want about as much for their weight."""
        ordered = sorted(callers.items(), key=lambda each: each[1].work / each[1].weight)
        groups: dict[str, Weighed] = {}
        for number in range(FEW):
            members = ordered[number * len(ordered) // FEW : (number + 1) * len(ordered) // FEW]
            group = f"\n{number}"  # no caller has such a name
            groups[group] = Weighed(*map(sum, zip(*(each for _, each in members), strict=True)))
            for caller, each in members:
                self._group_of[rank, caller] = group, each
        return groups

    def own(self, rank: CallerClass, caller: str) -> Weighed | None:
        """What *caller* wants, in a crowd of a few; None: nothing."""
        return self._wants.get(rank, {}).get(caller)

    def besides(self, rank: CallerClass, caller: str, own: Weighed | None) -> Wants:
        """What everybody wants, *caller* by itself, which wants *own*; None: nothing."""
        found, callers = dict(self._wants), dict(self._wants.get(rank, {}))
        found[rank] = callers
        member = self._group_of.get((rank, caller))
        if member is not None:
            group, part = member
            callers[group] = Weighed(*(max(all_ - one, 0.0) for all_, one in zip(callers[group], part, strict=True)))
        callers.pop(caller, None)
        if own is not None:
            callers[caller] = own
        return found


def work_before(
    wants: Wants, rank: CallerClass, caller: str, weight: float, cost: float, ahead: float = 0.0
) -> tuple[float, float]:
    """The work done until one more call of *caller* that costs *cost* is served, its own included; and how many calls
    that is. Of the others counts what they are given meanwhile by their weights, at most what they wait for, and what
    they will ask for within *ahead* seconds."""
    mine = wants.get(rank, {})
    own = mine.get(caller)
    work, calls = (cost, 1.0) if own is None else (own.work + cost, own.calls + 1.0)
    turn, place = work / weight, calls / weight
    for name, other in mine.items():
        if name != caller:
            work += min(other.work + other.work_coming * ahead, turn * other.weight)
            calls += min(other.calls + other.calls_coming * ahead, place * other.weight)
    turn, place = work / WEIGHTS[rank], calls / WEIGHTS[rank]
    for kind, others in wants.items():
        if kind != rank:
            wanted = number = 0.0
            for each in others.values():
                wanted += each.work + each.work_coming * ahead
                number += each.calls + each.calls_coming * ahead
            work += min(wanted, turn * WEIGHTS[kind])
            calls += min(number, place * WEIGHTS[kind])
    return work, calls
