"""What follows from the outcome of an attempt for the ones after it: cooldowns, rotation, and what is learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.core import PROFILES, Outcome, Report, Verdict, cleared, judge, seconds_to_reset

from .clock import draw

if TYPE_CHECKING:
    from .exchange import Exchange


def judged(exchange: Exchange, outcome: Outcome) -> None:
    """Have *outcome* change what stands against the candidate, and tell whoever learns from it."""
    grant, gateway = exchange.grant, exchange.gateway
    if outcome.meaning == "ok":
        if not gateway.marks and not gateway.adapting.alert:
            return
        if changes := cleared(gateway.marks, grant.entry.scopes, grant.attempt.started):
            gateway.cool(Verdict(changes), grant.entry.candidate)
    elif exchange.run.call.kind == "count" and outcome.meaning in ("rate_limited", "daily_quota", "overloaded"):
        return  # its limits are its own
    else:
        _cooled(exchange, outcome)
    for onlooker in gateway.adapting.onlookers:
        onlooker(exchange, outcome)


def _cooled(exchange: Exchange, outcome: Outcome) -> None:
    """Have *outcome*, which is no success, cool what it tells against."""
    grant, gateway = exchange.grant, exchange.gateway
    candidate = grant.entry.candidate
    first_step = _first_step(exchange)
    longer = gateway.adapting.lasting(exchange, outcome) if first_step is None else None
    verdict = judge(
        gateway.marks,
        Report(
            candidate,
            grant.entry.scopes,
            outcome if longer is None else replace(outcome, wait_s=longer),
            grant.attempt.started,
            gateway.clock.mono(),
            len(grant.pool.entries),
            len(exchange.run.deployments) > 1,
            seconds_to_reset(exchange.provider.rules, gateway.clock.wall()),
            first_step,
            PROFILES[exchange.run.generation.config.cooldown],
            exchange.provider.longest_rests,
        ),
        draw,
    )
    if verdict.transitions or verdict.alarm:
        gateway.cool(verdict, candidate)
    if grant.pool.cycle is not None:
        now = gateway.clock.mono()
        grant.pool.exhausted(grant.entry, gateway.marks.blocked(grant.entry.own_scopes, now), now)
    if outcome.meaning in ("rate_limited", "daily_quota"):
        grant.pool.strategy.moved(grant.pool, grant.entry, grant.attempt.started, gateway.clock.mono())


def _first_step(exchange: Exchange) -> float | None:
    rotation = exchange.run.generation.config.rotations.get(exchange.provider.name)
    return rotation.cooldown_seconds if rotation is not None else None
