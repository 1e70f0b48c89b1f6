"""Who would be asked for a name, in which order, and who is left out and why: by the code that routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keyturn.core import (
    FOREVER,
    Call,
    Caller,
    Cost,
    Deployment,
    Entry,
    Exhausted,
    Plan,
    Pool,
    Trail,
    Usage,
    dollars,
    needs_listing,
    pick,
    resolve,
)
from keyturn.errors import KeyturnError

from .candidates import Stand, claims_of, cost_there, moment_of, seconds, standing_of
from .clock import draw
from .reserving import SMALL
from .run import Run

if TYPE_CHECKING:
    from .gateway import Gateway


async def explain(gateway: Gateway, call: Call, caller: Caller) -> dict[str, Any]:
    """What would become of *call*: `steps` in order, each with its candidates, and `refusals`. Sends nothing.

    `{"route", "caller", "error", "strategy", "steps": [{"deployments": [{"provider", "model", "provider_tier",
    "stands_in", "price_tier", "usd_per_million", "strategy", "tokens", "usd", "candidates": [{"key", "state", "why",
    "wait_s", "returns_at", "chosen", "load", "active", "pace_ms"}]}]}], "refusals", "own_limits", "wait"}`. The
    candidates that are `free` would be asked in this order, the `chosen` one first. `stands_in`: it is there as the
    same model under another name. `tokens` is what the call would be charged, `usd` what it would cost; of a call of no
    size both are None, and a key is free that could take the smallest one. `wait`: what there is to expect while nobody
    is free; None when somebody is.
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
        rows = [_deployment(gateway, call, each, each in plan.added and not plan.defaults) for each in members]
        told["steps"].append({"deployments": rows})
    own = caller.limits + ((plan.role.budget,) if plan.role is not None and plan.role.budget is not None else ())
    told["own_limits"] = [gateway.own_limit(limit) for limit in own]
    rows = [each for step in told["steps"] for each in step["deployments"]]
    first = _first(gateway, rows)
    if first is not None:
        first["chosen"] = True
    candidates = [row for each in rows for row in each["candidates"]]
    told["wait"] = _wait(gateway, call, caller, plan, candidates) if first is None else None
    return told


def _first(gateway: Gateway, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The candidate that a call sent now would get; None when all are away, or others wait for those that are free."""
    room, number = gateway.room, gateway.generation.number
    for each in rows:
        if room.wanted(Deployment(each["provider"], each["model"]), number):
            continue
        candidates: list[dict[str, Any]] = each["candidates"]
        free = next((row for row in candidates if row["state"] == "free"), None)
        if free is not None:
            return free
    return None


def _wait(gateway: Gateway, call: Call, caller: Caller, plan: Plan, candidates: list[dict[str, Any]]) -> dict[str, Any]:
    """What a call would meet that nobody can answer now: its place in the line, how long it would wait at least, and
    how long it would wait at most before it is refused."""
    generation = gateway.generation
    run = Run(call, caller, Trail("", call.model, gateway.clock.mono()), generation)
    run.planned(plan, generation)
    soonest: float = min((row["wait_s"] for row in candidates if row["wait_s"] is not None), default=FOREVER)
    busy = sum(row["state"] == "limited" and row["wait_s"] is None for row in candidates)
    short = Exhausted(soonest, int(soonest < FOREVER), busy, 0, 0)
    foreseen = generation.reserving.foreseen(run, short)
    wait = foreseen.wait if foreseen.wait is not None else soonest if not busy else FOREVER
    return {
        "expected_s": seconds(wait),
        "at": moment_of(gateway, wait),
        "position": foreseen.position,
        "patience_s": seconds(run.patience),
        "waits": wait <= run.patience or (wait == FOREVER and busy > 0),
    }


def _deployment(gateway: Gateway, call: Call, deployment: Deployment, stands_in: bool) -> dict[str, Any]:
    generation = gateway.generation
    price = generation.prices.of(deployment)
    facts = gateway.config.facts.get(deployment)
    sized = bool(call.text_bytes)
    cost = cost_there(gateway, generation, call, deployment) if sized else SMALL
    likely = gateway.estimator.estimate(call, str(deployment)).likely
    output = min(gateway.estimator.output(str(deployment)), call.max_output or EVER)
    return {
        "provider": deployment.provider,
        "model": deployment.model,
        "provider_tier": gateway.config.tier_of(deployment.provider),
        "stands_in": stands_in,
        "price_tier": facts.price_tier if facts is not None else None,
        "usd_per_million": None
        if price is None
        else {"input": dollars(round(price.input * 1e6)), "output": dollars(round(price.output * 1e6))},
        "strategy": gateway.config.strategies.get(deployment.provider, "balanced"),
        "tokens": {"input": cost.input, "output": cost.output} if sized else None,
        "usd": dollars(price.of(Usage(likely, output))) if sized and price is not None else None,
        "candidates": list(_candidates(gateway, deployment, cost)),
    }


def _candidates(gateway: Gateway, deployment: Deployment, cost: Cost) -> Iterator[dict[str, Any]]:
    """The credentials of *deployment*: those that could be asked now in the order of the strategy, then the others."""
    now, real = gateway.clock.mono(), gateway.pools.of(deployment)
    copy = real.copy(gateway.config.credentials[deployment.provider])
    tried: set[int] = set()
    later: list[tuple[float, dict[str, Any]]] = []
    while not isinstance(entry := pick(copy, cost, tried, now, draw), Exhausted):
        tried.add(entry.order)
        row, wait = _row(gateway, real, real.entries[entry.order], cost, now)
        if row["state"] == "free":
            yield row
        else:
            later.append((wait, row))
    for entry in real.entries:
        if entry.order not in tried:
            row, wait = _row(gateway, real, entry, cost, now)
            later.append((wait, row))
    yield from (row for _, row in sorted(later, key=lambda each: each[0]))


def _row(gateway: Gateway, pool: Pool, entry: Entry, cost: Cost, now: float) -> tuple[dict[str, Any], float]:
    """One candidate with its score: `free`, or what keeps it away and for how long."""
    needed = claims_of(gateway, entry, cost)
    stand = standing_of(gateway, entry, needed, now)
    if any(claim.floor > claim.limit.capacity for claim in needed) and stand.wait == FOREVER:
        stand = Stand("too_small", f"{stand.why.removesuffix(' reached')}, and this call needs more", FOREVER)
    return {
        "key": entry.candidate.credential.shown,
        "state": stand.state,
        "why": stand.why,
        "wait_s": 0.0 if stand.free else seconds(stand.wait),
        "returns_at": None if stand.free else moment_of(gateway, stand.wait),
        "chosen": False,
        "load": round(pool.load(entry, now), 3),
        "active": entry.active,
        "pace_ms": None if entry.pace is None else round(entry.pace.at(now) * 1000, 1),
    }, stand.wait


EVER = 2**62
"""More tokens than any answer has."""
