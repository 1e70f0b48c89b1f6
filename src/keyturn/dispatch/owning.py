"""The limits of a caller and of a role: what a call is charged on them, and what it is told when one says no."""

from __future__ import annotations

import re
from math import ceil
from typing import TYPE_CHECKING

from msgspec.structs import replace

from keyturn.core import Call, Cost, Denied, Deployment, Entry, Limit, Price, Usage, dollars
from keyturn.errors import BudgetExhausted, CallerLimit, RequestExceedsLimit

from .run import Run

if TYPE_CHECKING:
    from .gateway import Gateway
    from .generation import Generation

FOREVER = float("inf")
UNSTATED_OUTPUT = 16_384
"""Tokens of output that a budget is held for at least, when a call does not state its largest."""
_CANDIDATES = re.compile(rb'"candidate(?:C|_c)ount"\s*:\s*([^,}]+)')
MOST_CHOICES = 128
"""Answers to one request: OpenAI's own bound."""


class OwnLimits:
    """By the prices of one configuration."""

    def __init__(self, generation: Generation, gateway: Gateway) -> None:
        self._prices = generation.prices
        self._clock = gateway.clock
        self._live = gateway.live
        self._estimator = gateway.estimator

    def cost(self, run: Run, entry: Entry) -> Cost | None:
        """What *run* is charged on the limits of its caller and role; None when it must be paid and has no price.

        Output counts here also where the provider does not count it.
        """
        deployment = entry.candidate.deployment
        cost = self._estimator.charge(run.call, str(deployment), counts_output=True, charges_max_output=False)
        if not run.paying:
            return cost
        price = self._prices.of(deployment)
        return None if price is None else self._priced(run, cost, deployment, price)

    def _priced(self, run: Run, cost: Cost, deployment: Deployment, price: Price) -> Cost:
        """*cost* with the most that it may come to in money: a budget is held for all that the call allows."""
        call, model = run.call, str(deployment)
        output = 0
        if call.kind == "chat":
            output = call.max_output or max(self._estimator.output(model), UNSTATED_OUTPUT)
            output *= choices_of(call)
        most = Usage(self._estimator.estimate(call, model).bound, output)
        return replace(cost, money=max(price.of(most), 1), price=price)

    def refusal(self, denied: Denied) -> CallerLimit | BudgetExhausted | RequestExceedsLimit:
        """The caller's or the role's own limit says no: no other candidate is a remedy."""
        limit = denied.limit
        kind, _, name = limit.scope.partition("/")
        if limit.metric == "cost":
            return self._budget(limit, f"the monthly budget of {kind} {name}, {dollars(limit.capacity):g} USD,", denied)
        unit = "requests" if limit.metric == "requests" else "tokens"
        said = f"{kind} {name} may use {limit.capacity} {unit} a minute"
        if denied.never:
            return RequestExceedsLimit(f"{said}, and this request needs more: send less")
        wait = denied.wait if denied.wait < FOREVER else 1.0
        return CallerLimit(f"{said}; there is room again in {wait:.1f} s", retry_after=wait)

    def _budget(self, limit: Limit, budget: str, denied: Denied) -> CallerLimit | BudgetExhausted:
        if denied.busy:
            return CallerLimit(f"what is left of {budget} is held by calls under way", retry_after=1.0)
        left = self._live.view(0.0).row(limit, self._clock.mono()).free
        if left:
            return BudgetExhausted(
                f"{budget} has {dollars(left):.6f} USD left, and this call may cost more: send less, state fewer "
                "max_tokens, or wait for the next month"
            )
        return BudgetExhausted(f"{budget} is spent; it begins anew with the next month")


def choices_of(call: Call) -> int:
    """How many answers *call* asks for; what cannot be read counts as many, for it may be read elsewhere."""
    if call.dialect == "gemini":  # wherever the word stands: the upstream may read another one than we would
        found = _CANDIDATES.findall(call.members.get("generationConfig", b""))
        return max((_number(each.strip()) for each in found), default=1)
    return _number(call.members.get("n", b"1"))


def _number(stated: bytes) -> int:
    try:
        return max(1, ceil(min(float(stated), MOST_CHOICES))) if stated != b"null" else 1
    except ValueError:
        return MOST_CHOICES
