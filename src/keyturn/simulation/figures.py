"""From counts to figures: shares of the bound, waits, refusals per thousand, and how fairly it was shared out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .bound import Bound
from .running import PerCaller, Tally


class Figures(NamedTuple):
    """One strategy's row. Waits in seconds, *cost* in USD, shares from 0 to 1; None: nothing to measure it by."""

    strategy: str
    asked: int
    served: int
    refused: int
    of_bound: float | None
    """Served, as a share of the fluid bound, in calls or in tokens, whichever is less; None for a run ended early."""
    wait_p50: float
    wait_p99: float
    limited_per_1000: float
    """Refusals for limits by upstreams (429) per 1,000 calls served."""
    attempts_per_served: float
    invalid: int
    """Requests with a dead key."""
    cost: float
    cached: float
    """Of all tokens of input, those that the provider had cached."""
    fairness: float
    advised: int
    kept: float | None
    """Of the refused calls that came back when they were told to, those that a provider then let in."""
    statuses: dict[str, int]
    """What the calls saw that were not served."""
    complete: bool
    until: float


def figures(tally: Tally, most: Bound | None) -> Figures:
    """The row of *tally*, beside what could have been served at most."""
    counts = tally.counts
    served = max(1, tally.served)
    waits = sorted(tally.waits)
    return Figures(
        tally.strategy,
        tally.asked,
        tally.served,
        sum(tally.statuses.values()),
        of_bound(tally, most) if most is not None and tally.complete else None,
        percentile(waits, 0.5),
        percentile(waits, 0.99),
        1000 * counts.limited / served,
        counts.requests / served,
        counts.invalid,
        counts.cost,
        counts.cached / max(1, counts.input),
        fairness(tally.callers),
        tally.advised,
        tally.admitted / tally.advised if tally.advised else None,
        {str(status): count for status, count in sorted(tally.statuses.items())},
        tally.complete,
        tally.until,
    )


def of_bound(tally: Tally, most: Bound) -> float | None:
    """What *tally* served of *most*: the smaller of its shares of calls and of tokens."""
    tokens = sum(caller.served_tokens for caller in tally.callers)
    return min(tally.served / most.served, tokens / most.tokens) if most.served else None


def told(row: Figures) -> dict[str, Any]:
    """*row* as JSON has it."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row._asdict().items()}


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which *part* of *ordered* lies; 0 of none."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def fairness(callers: Iterable[PerCaller]) -> float:
    """Jain's index of what each caller got as a share of what is fair: 1 when all have the same, 1/n when one has all.

    Fair is what weighted max-min sharing of the same tokens gives: nobody more than asked for, and nobody less than
    another of the same weight unless it asked for less. So a loud caller cannot do better by asking more.
    """
    asking = [caller for caller in callers if caller.asked_tokens]
    total = sum(caller.served_tokens for caller in asking)
    if not total:
        return 1.0
    shares = max_min([float(each.asked_tokens) for each in asking], [each.weight for each in asking], float(total))
    return jain([each.served_tokens / share for each, share in zip(asking, shares, strict=True) if share > 0])


def max_min(asked: Sequence[float], weights: Sequence[float], total: float) -> list[float]:
    """*total* shared out among those who ask for *asked*: in proportion to *weights*, but to nobody more than asked."""
    shares = [0.0] * len(asked)
    left, open_ = total, list(range(len(asked)))
    while open_ and left > 0:
        level = left / sum(weights[each] for each in open_)
        full = [each for each in open_ if asked[each] <= level * weights[each]]
        if not full:
            for each in open_:
                shares[each] = level * weights[each]
            break
        for each in full:
            shares[each] = asked[each]
            left -= asked[each]
        open_ = [each for each in open_ if each not in full]
    return shares


def jain(values: Sequence[float]) -> float:
    """Jain's index of *values*: the square of their sum, by their number times the sum of their squares."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
