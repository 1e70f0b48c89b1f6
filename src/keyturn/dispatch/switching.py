"""A conversation whose prompt cache is at a key that cannot be asked just now: wait for that key, or go on elsewhere.

Loaded with the first such call. Who waits here holds nothing and stands in no line, so it keeps nobody else waiting.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from keyturn.core import Entry, Price, Switch, cached_tokens, claims, weigh

if TYPE_CHECKING:
    from .gateway import Gateway
    from .run import Grant, Run

MOST_WAITING = 200
"""Calls that wait so at the same time; others go on elsewhere."""
BEHIND = 0.001
"""Seconds after its return that a key is asked: less could be lost in rounding."""


class Awaited(NamedTuple):
    """What a call has waited for."""

    entry: Entry
    switch: Switch


async def waited(gateway: Gateway, run: Run, grant: Grant) -> bool:
    """Whether it was better to wait than to send *run* to *grant*, which is given back then; who holds its prompt cache
    may be asked now. What was decided stands in its trail."""
    now = gateway.clock.mono()
    holder = _holder(gateway, run, grant, now)
    tokens = cached_tokens(gateway.estimator.estimate(run.call, str(grant.pool.deployment)).likely)
    if holder is None or not tokens:
        return False
    wait = _returns(gateway, run, holder, now)
    if not 0.0 < wait < inf:
        return False
    bounds = run.generation.config.waiting
    most = min(bounds.for_cache, run.wait_until(now) - now)
    here, there = _price(run, holder), _price(run, grant.entry)
    switch = weigh(tokens, wait, here, there, usd_per_hour=bounds.usd_per_hour, most=most)
    if not switch.waits or gateway.adapting.holding >= MOST_WAITING:
        run.trail.notes.append(
            f"moved on from the key that holds the prompt cache, back in {wait:.1f} s: {switch.stake} left behind"
        )
        return False
    grant.close()
    gateway.adapting.holding += 1
    try:
        await gateway.clock.sleep_until(now + wait + BEHIND)
    finally:
        gateway.adapting.holding -= 1
        run.trail.waited += gateway.clock.mono() - now
    run.awaited = Awaited(holder, switch)
    return True


def tell(run: Run, grant: Grant) -> None:
    """*grant* is what came of waiting."""
    if run.awaited is None:
        return
    (entry, switch), run.awaited = run.awaited, None
    if entry is grant.entry:
        said = f"waited {switch.wait:.1f} s for the key that holds the prompt cache: {switch.stake} kept"
    else:
        said = f"waited {switch.wait:.1f} s in vain for the key that holds the prompt cache: {switch.stake} left behind"
    run.trail.notes.append(said)


def _holder(gateway: Gateway, run: Run, grant: Grant, now: float) -> Entry | None:
    """Who holds the prompt cache of *run*, of those that the plan has before *grant* or beside it."""
    assert run.conversation is not None, "only conversations are weighed"
    for deployment in run.deployments:
        pool = run.generation.pools.of(deployment)
        order, until = pool.holders.get(run.conversation[0], (-1, 0.0))
        rotation = run.generation.config.rotations.get(deployment.provider)
        if until > now and not (rotation is not None and rotation.each_call):
            entry = pool.entries[order]
            better = pool is grant.pool and grant.entry.rank.level < entry.rank.level
            return None if better or entry is grant.entry else entry
        if deployment == grant.pool.deployment:
            return None
    return None


def _returns(gateway: Gateway, run: Run, entry: Entry, now: float) -> float:
    """Seconds until *entry* has room for *run* again; infinite where time alone does not tell. 0: it may be asked."""
    mark = gateway.marks.blocked(entry.scopes, now)
    if mark is not None and mark.block != "limit":
        return inf
    limits = [limit for scope in entry.limit_scopes for limit in gateway.live.limits(scope)]
    cost = run.generation.reserving.cost(run, entry.candidate.deployment)
    return max(mark.wait(now) if mark is not None else 0.0, gateway.live.wait(claims(limits, cost), now)[0])


def _price(run: Run, entry: Entry) -> Price | None:
    """What *entry* charges; None: nothing, or nobody knows."""
    if entry.free:
        return None
    return run.generation.prices.of(entry.candidate.deployment)
