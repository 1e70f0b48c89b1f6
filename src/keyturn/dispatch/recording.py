"""What the ledger is told of attempts and calls: rows made from a run, by the wall clock and in nano-dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.core import Attempt, Claim, Usage, charged, cost_of
from keyturn.stores import AttemptRow, CallRow

from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway

LONGEST_NAME = 200
"""Characters of what a client may have made up."""


def intent(gateway: Gateway, run: Run, grant: Grant) -> AttemptRow:
    """*grant* is about to be sent: what is held stands for what will be used."""
    budget = grant.budget
    attempt, deployment = grant.attempt, grant.entry.candidate.deployment
    cost = run.costs.get(deployment)
    likely = gateway.estimator.estimate(run.call).likely if cost is None else cost.input
    output = cost.output if cost is not None else 0
    if budget is not None:
        held: int | None = budget.cost
    else:
        held = cost_of(Usage(likely, output), run.generation.prices.of(deployment))
    return AttemptRow(
        "i",
        attempt.id,
        run.trail.call,
        _wall_ms(gateway, attempt.started),
        run.caller.name,
        run.trail.route[:LONGEST_NAME],
        run.role,
        deployment.provider,
        deployment.model[:LONGEST_NAME],
        attempt.key,
        grant.entry.candidate.credential.fingerprint,
        attempt.tier,
        attempt.resend,
        likely,
        output,
        budget.cost if budget is not None else 0,
        cost=held,
    )


def outcome(gateway: Gateway, run: Run, grant: Grant, attempt: Attempt) -> AttemptRow:
    """*attempt*, made with *grant*, is over. Without usage nothing was delivered, and no tokens are counted."""
    usage = attempt.usage
    deployment = grant.entry.candidate.deployment
    cost = None
    if usage is not None:
        cost = cost_of(usage, run.generation.prices.of(deployment))
    used = usage or _NOTHING
    began, ended = attempt.started, attempt.ended or attempt.started
    first = attempt.first_token
    return AttemptRow(
        "f",
        attempt.id,
        run.trail.call,
        _wall_ms(gateway, began),
        run.caller.name,
        run.trail.route[:LONGEST_NAME],
        run.role,
        deployment.provider,
        deployment.model[:LONGEST_NAME],
        attempt.key,
        grant.entry.candidate.credential.fingerprint,
        attempt.tier,
        attempt.resend,
        used.input,
        used.output,
        _paid(grant.budget, usage, cost),
        attempt.meaning,
        attempt.status,
        _ms(ended - began),
        None if first is None else _ms(first - began),
        used.cached,
        used.written,
        used.reasoning,
        used.exact,
        cost,
        attempt.detail,
    )


def says_it_all(run: Run) -> bool:
    """Whether the only attempt of *run* tells the whole call: then the call needs no row of its own."""
    trail = run.trail
    if len(trail.attempts) != 1 or trail.status != 200 or trail.code or trail.waited or trail.shared:
        return False
    return trail.attempts[0].meaning == "ok" and not (trail.refusals or trail.notes or trail.attempts[0].resend)


def ending(gateway: Gateway, run: Run) -> CallRow:
    """The call of *run* is over."""
    trail = run.trail
    return CallRow(
        "c",
        trail.call,
        _wall_ms(gateway, trail.started),
        run.caller.name,
        trail.route[:LONGEST_NAME],
        trail.status,
        trail.code,
        _ms(trail.ended - trail.started) if trail.ended else 0.0,
        _ms(trail.waited) if trail.waited else 0.0,
        len(trail.attempts),
        trail.stream,
        trail.refusals,
        trail.notes,
    )


_NOTHING = Usage(0, 0)


def _paid(budget: Claim | None, usage: Usage | None, cost: int | None) -> int:
    """What budgets are charged. Where none applies it is the price: one that is set later in the month counts it."""
    if budget is not None:
        return charged(budget, usage)
    return cost or 0


def _ms(seconds: float) -> float:
    """Milliseconds, rounded to tenths: `round` takes three times as long."""
    return int(seconds * 10_000 + 0.5) / 10


def _wall_ms(gateway: Gateway, mono: float) -> int:
    return int((mono + gateway.live.wall_offset) * 1000)
