"""What one attempt asks of each limit, and what it turns out to have used of it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .limitbook import Limit
from .message import Usage
from .pricing import Price, cost_of


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What an attempt is charged at admission, in tokens. *output* 0: the provider does not count it."""

    input: int
    output: int
    floor: int = 0
    """The least that the input can be."""
    money: int = 0
    """The most that it is expected to cost, in nano-dollars."""
    price: Price | None = None
    """By which it is settled."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What one attempt needs of one limit."""

    limit: Limit
    cost: int
    floor: int = 0
    """The least it can cost; above the capacity it can never be sent. Of money that is all of it: no clamping."""
    output: int = 0
    """How much of the cost is output; 0 when real output is not to be counted either."""
    price: Price | None = None
    """Of a limit in money: what the real usage is charged by, unless the upstream itself says what it cost."""


def claims(limits: Iterable[Limit], cost: Cost) -> list[Claim]:
    """The claims of one attempt of *cost* on each of *limits*, which must be of different windows or scopes."""
    tokens, output, floor = cost.input, cost.output, cost.floor
    found = []
    for limit in limits:
        metric = limit.metric
        if metric == "requests" or metric == "concurrency":
            found.append(Claim(limit, 1, 1))
        elif metric == "tokens":
            found.append(Claim(limit, tokens + output, floor, output))
        elif metric == "input_tokens":
            found.append(Claim(limit, tokens, floor))
        elif metric == "output_tokens":
            found.append(Claim(limit, output, 0, output))
        else:
            found.append(Claim(limit, cost.money, cost.money, 0, cost.price))
    return found


def actual_of(claim: Claim, cost: int, usage: Usage | None) -> int:
    """What an attempt that was charged *cost* really used of the claim's limit."""
    metric = claim.limit.metric
    if metric == "concurrency":
        return 0
    if usage is None:
        return 0 if claim.limit.owner == "caller" and metric != "requests" else cost
    if metric == "requests":
        return cost
    if metric == "cost":
        return _spent(claim, cost, usage)
    if metric == "tokens":
        used = usage.input + usage.output if claim.output else usage.input
    else:
        used = usage.input if metric == "input_tokens" else usage.output
    return max(used, 0 if usage.exact else cost)


def charged(claim: Claim, usage: Usage | None) -> int:
    """Nano-dollars that a budget is charged by *claim*, once its attempt is settled with *usage*."""
    return 0 if usage is None else _spent(claim, claim.cost, usage)


def _spent(claim: Claim, cost: int, usage: Usage) -> int:
    """Nano-dollars that an attempt of *usage* cost: what the upstream says, else what its tokens cost."""
    money = cost_of(usage, claim.price)
    if money is None:
        return cost
    return money if usage.exact or usage.cost is not None else max(money, cost)
