"""Twice as much as can be served is asked for by callers of all classes: who is served, who waits, who is refused when.

What is given by weight and refused by foresight serves as much as can be served at all, which is why nobody who waits
is sent away before its own time is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import log
from typing import Any, NamedTuple

from keyturn.core import Caller, CallerClass
from keyturn.simulation.virtual import all_seeded
from keyturn.simulator import KeyRule
from tests.support import virtual
from tests.support.world import World

RANKS: tuple[CallerClass, ...] = ("interactive", "normal", "batch")


class Told(NamedTuple):
    status: int
    took: float


def play(
    keys: Sequence[KeyRule], rates: tuple[float, float, float], seconds: float, **how: Any
) -> dict[str, list[Told]]:
    """What the calls of each class got, *rates* of them per second for so long; those of the first minute left out."""
    told: dict[str, list[Told]] = {rank: [] for rank in RANKS}

    async def story() -> None:
        async with World({"groq": keys}, **how) as pool:
            start, draw = pool.clock.mono(), virtual.seeded(5)
            callers = {rank: Caller(name=rank, rank=rank) for rank in RANKS}

            async def one(rank: CallerClass) -> None:
                came = pool.clock.mono()
                answer = await pool.chat("groq/m", caller=callers[rank])
                if came >= start + 60.0:
                    told[rank].append(Told(answer.status, pool.clock.mono() - came))

            tasks, now = [], 0.0
            while now < seconds:
                now -= log(1 - draw()) / sum(rates)
                await pool.clock.sleep_until(start + now)
                share = draw() * sum(rates)
                rank = RANKS[0] if share < rates[0] else RANKS[1] if share < rates[0] + rates[1] else RANKS[2]
                tasks.append(asyncio.ensure_future(one(rank)))
            await asyncio.gather(*tasks)

    with all_seeded(5):  # which of several keys is taken is drawn
        virtual.run(story, max_turns=20_000_000)
    return told


def served(told: Sequence[Told]) -> float:
    return sum(each.status == 200 for each in told) / len(told)


def longest(told: Sequence[Told], share: float) -> float:
    """What *share* of those that were answered took at most."""
    return sorted(each.took for each in told if each.status == 200)[int(share * served(told) * len(told)) - 1]


def refused_at_once(told: Sequence[Told]) -> float:
    """The share of those who were refused that were within two seconds."""
    waits = [each.took for each in told if each.status != 200]
    return sum(wait < 2.0 for wait in waits) / len(waits) if waits else 1.0


def test_where_what_ends_makes_room_the_higher_classes_are_served_and_batch_is_not_starved() -> None:
    told = play([KeyRule(concurrency=8)], (0.4, 0.4, 3.2), 160.0, latency=4.0)
    assert served(told["interactive"]) >= 0.99
    assert served(told["normal"]) >= 0.99
    assert longest(told["interactive"], 0.95) <= 10.0
    assert served(told["batch"]) >= 0.25
    everything = [each for rank in RANKS for each in told[rank]]
    assert served(everything) * 4.0 >= 0.93 * 2.0, "what can be served at all"
    assert longest(told["batch"], 1.0) <= 125.0


def test_where_a_minute_bounds_it_as_much_is_served_as_can_be_and_refusals_are_immediate() -> None:
    told = play([KeyRule(rpm=30, limiter="fixed")] * 4, (1.2, 1.2, 1.6), 180.0)
    everything = [each for rank in RANKS for each in told[rank]]
    assert served(everything) * 4.0 >= 0.93 * 2.0
    assert refused_at_once(everything) >= 0.95
    assert min(served(told[rank]) for rank in RANKS) >= 0.3, "nobody is starved"
    assert longest(told["interactive"], 1.0) <= 20.5
