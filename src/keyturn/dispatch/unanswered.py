"""What a call is told when nothing is left to try: the truth, and when asking again will help."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from keyturn.core import ALL_EXHAUSTED, FAULTS, QUOTAS, Exhausted, Refuse, refusal, together
from keyturn.errors import (
    BadUpstream,
    BudgetExhausted,
    Capacity,
    DeadlineExceeded,
    KeyturnError,
    ModelNotFound,
    RequestExceedsLimit,
)

from . import answering
from .reply import Reply
from .run import Failed, Run

if TYPE_CHECKING:
    from .gateway import Gateway

FOREVER = float("inf")
SOONEST = 0.001
"""Seconds after which a client is told to come back, at least: that is the least that can be said of it."""
NEAR = 0.1
"""Seconds that are not told apart."""


def given_up(gateway: Gateway, run: Run, shortage: Exhausted) -> Reply:
    """Nothing is left to try: the first final answer, if that is all that stood in the way. Raises the refusal else."""
    first = run.first_final
    all_final = (run.finals | run.inexpressible.keys()).issuperset(run.deployments)
    if first is not None and (run.defaults or not all_final) and _lacks_what_nobody_named(run, first):
        first = None
        run.progress.meanings -= {"not_found"}
    if first is not None and all_final:
        return answering.as_it_came(gateway, run, first)
    waiting = shortage.limits or shortage.busy or shortage.faults or run.progress.meanings & (QUOTAS | FAULTS)
    if first is not None and not waiting:  # the others have no usable key: they say nothing of the request
        return answering.as_it_came(gateway, run, first)
    if run.inexpressible and run.inexpressible.keys() >= set(run.deployments):
        raise next(iter(run.inexpressible.values()))
    raise _refusal(gateway, run, shortage)


def _lacks_what_nobody_named(run: Run, failed: Failed) -> bool:
    """No such model, says one that was asked for a default, or in place of another: the client made no mistake."""
    return failed.outcome.meaning == "not_found" and failed.entry.candidate.deployment in run.added


def stopped(run: Run, move: Refuse) -> KeyturnError:
    """The bounds of one call are reached, though candidates may be left for the next."""
    if run.progress.meanings <= QUOTAS:
        return refusal(run.progress, together([]), run.call.model, 1.0)
    return _explained(run, BadUpstream(f"no usable answer for {run.call.model}: {move.why}"))


def _refusal(gateway: Gateway, run: Run, shortage: Exhausted) -> KeyturnError:
    if run.defaults and run.finals.issuperset(run.deployments):
        return ModelNotFound(f"no default model is offered any more: {'; '.join(run.hints)}", param="model")
    if run.too_big is not None and not run.progress.attempts and not (shortage.limits or shortage.busy):
        limit = run.too_big
        return RequestExceedsLimit(
            f"this request needs more than {limit.capacity} {limit.metric.replace('_', ' ')}, the "
            f"{limit.source} limit of every key for {run.call.model}: send less, or ask a model with a higher limit"
        )
    if run.unpriced and not run.progress.attempts:
        unknown = ", ".join(map(str, sorted(run.unpriced)))
        return BudgetExhausted(
            f"a budget applies to this call, and nobody knows what {unknown} costs: give its route a price in "
            "models.yaml"
        )
    if gateway.clock.mono() >= min(run.deadline, run.content_by):
        return DeadlineExceeded(f"no key for {run.call.model} was free before the call's deadline")
    foreseen = run.generation.reserving.foreseen(run, shortage)
    returns = _returns(gateway, run, shortage.wait)
    wait = returns if foreseen.wait is None else _returns(gateway, run, foreseen.wait)
    wait = None if wait is None else max(wait, SOONEST)
    turn = foreseen.wait is not None and wait is not None and (returns is None or wait > returns + NEAR)
    error = _explained(run, refusal(run.progress, shortage, run.call.model, wait, turn=turn))
    if isinstance(error, Capacity):
        _told_when(gateway, run, error, foreseen.position, wait)
    if run.defaults:
        error.message = f"{ALL_EXHAUSTED}: {error.message}"
    return error


def _explained(run: Run, error: KeyturnError) -> KeyturnError:
    last = run.trail.attempts[-1] if run.trail.attempts else None
    if isinstance(error, BadUpstream) and last is not None and last.detail:
        error.message += f"; the last, {last.provider}: {last.detail}"
    if run.hints:
        error.message += f"; {'; '.join(run.hints)}"
    return error


def _told_when(gateway: Gateway, run: Run, error: Capacity, position: int, wait: float | None) -> None:
    """What the client is told of the limit in its way and of its place; it is expected when it is told to come back."""
    limiting = run.generation.reserving.limiting(run)
    if limiting is not None:
        limiting["resets_at"] = _written(ceil(limiting["resets_at"]))
        error.more = {"limiting": limiting, "queue_position": position}
    else:
        error.more = {"queue_position": position}
    if wait is not None:
        run.generation.reserving.promise(run, wait)


@lru_cache(maxsize=1024)  # many calls in a row are told the same moment
def _written(moment: int) -> str:
    """*moment*, in Unix seconds, as clients are told it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _returns(gateway: Gateway, run: Run, wait: float) -> float | None:
    """Seconds until some candidate may be used, those that were tried in this call included; *wait* for the others."""
    now = gateway.clock.mono()
    for deployment, orders in run.progress.tried.items():
        entries = run.generation.pools.of(deployment).entries
        wait = min([wait, *(run.generation.reserving.returns(entries[order], now) for order in orders)])
    return wait if wait < FOREVER else None
