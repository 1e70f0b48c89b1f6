"""Who would be asked for a name, in which order, and who is left out and why: by the code that routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keyturn.core import (
    FOREVER,
    Call,
    Caller,
    Deployment,
    Entry,
    Exhausted,
    claims,
    dollars,
    needs_listing,
    pick,
    resolve,
)
from keyturn.errors import KeyturnError

from .clock import draw
from .reserving import SMALL

if TYPE_CHECKING:
    from .gateway import Gateway


async def explain(gateway: Gateway, call: Call, caller: Caller) -> dict[str, Any]:
    """What would become of *call*: `steps` in order, each with its candidates, and `refusals`. Sends nothing.

    `{"route", "caller", "error", "strategy", "steps": [{"deployments": [{"provider", "model", "provider_tier",
    "stands_in", "price_tier", "usd_per_million", "candidates": [{"key", "state", "why", "wait_s"}]}]}], "refusals",
    "own_limits"}`. The candidates that are `free` would be asked in this order. `stands_in`: it is there as the same
    model under another name.
    """
    generation = gateway.generation
    told: dict[str, Any] = {"route": call.model, "caller": caller.name, "error": None, "steps": [], "refusals": []}
    if needs_listing(call, generation.lists.catalog):
        await generation.lists.refresh()
    try:
        plan = resolve(call, caller, generation.lists.catalog)
    except KeyturnError as error:
        told["error"] = {"code": error.code, "status": error.status, "message": gateway.redact(error.message)}
        return told
    order = generation.pools.fastest_first(plan) if plan.strategy == "fastest" else plan.deployments
    told["refusals"] = list(plan.refusals)
    told["strategy"] = plan.strategy
    for step in plan.steps:
        members = [each for each in order if each in step.deployments]
        rows = [_deployment(gateway, each, each in plan.added and not plan.defaults) for each in members]
        told["steps"].append({"deployments": rows})
    own = caller.limits + ((plan.role.budget,) if plan.role is not None and plan.role.budget is not None else ())
    told["own_limits"] = [gateway.own_limit(limit) for limit in own]
    return told


def _deployment(gateway: Gateway, deployment: Deployment, stands_in: bool) -> dict[str, Any]:
    prices = gateway.generation.prices
    facts = gateway.config.facts.get(deployment)
    price = prices.of(deployment)
    return {
        "provider": deployment.provider,
        "model": deployment.model,
        "provider_tier": gateway.config.tier_of(deployment.provider),
        "stands_in": stands_in,
        "price_tier": facts.price_tier if facts is not None else None,
        "usd_per_million": None
        if price is None
        else {"input": dollars(round(price.input * 1e6)), "output": dollars(round(price.output * 1e6))},
        "candidates": list(_candidates(gateway, deployment)),
    }


def _candidates(gateway: Gateway, deployment: Deployment) -> Iterator[dict[str, Any]]:
    """The credentials of *deployment*: those that could be asked now in the order of the strategy, then the others."""
    now, real = gateway.clock.mono(), gateway.pools.of(deployment)
    copy = real.copy(gateway.config.credentials[deployment.provider])
    tried: set[int] = set()
    later: list[tuple[float, dict[str, Any]]] = []
    while not isinstance(entry := pick(copy, SMALL, tried, now, draw), Exhausted):
        tried.add(entry.order)
        row, wait = _row(gateway, real.entries[entry.order], now)
        if row["state"] == "free":
            yield row
        else:
            later.append((wait, row))
    for entry in real.entries:
        if entry.order not in tried:
            row, wait = _row(gateway, entry, now)
            later.append((wait, row))
    yield from (row for _, row in sorted(later, key=lambda each: each[0]))


def _row(gateway: Gateway, entry: Entry, now: float) -> tuple[dict[str, Any], float]:
    """One candidate: `free`, or what keeps it away and for how long."""
    key = entry.candidate.credential.shown
    mark = gateway.marks.blocked(entry.scopes, now)
    if mark is not None:
        wait = mark.wait(now)
        return {"key": key, "state": mark.state, "why": mark.reason, "wait_s": _seconds(wait)}, wait
    limits = [limit for scope in entry.limit_scopes for limit in gateway.live.limits(scope)]
    wait, limit = gateway.live.wait(claims(limits, SMALL), now)
    if limit is None:
        return {"key": key, "state": "free", "why": "", "wait_s": 0.0}, 0.0
    why = f"{limit.metric} limit of {limit.capacity} reached"
    return {"key": key, "state": "limited", "why": why, "wait_s": _seconds(wait)}, wait


def _seconds(wait: float) -> float | None:
    return round(wait, 1) if wait < FOREVER else None
