"""What tokens cost. Money is whole nano-dollars (10⁻⁹ USD), so that sums are exact; prices are nano-dollars a token."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from .message import Usage

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""


class Price(NamedTuple):
    """Nano-dollars per token; a dollar per million tokens is 1,000. *cached* None: it costs what input does."""

    input: float
    output: float
    cached: float | None = None
    request: float = 0.0
    """Nano-dollars per request, whatever its length."""
    longer: tuple[tuple[int, Price], ...] = ()
    """From the shortest: above so many tokens of input, all tokens of the call cost this instead."""

    def at(self, tokens: int) -> Price:
        """The price that holds for a call of so many tokens of input."""
        return next((price for above, price in reversed(self.longer) if tokens > above), self)

    def of(self, usage: Usage) -> int:
        """What *usage* costs, rounded up."""
        if self.longer and (longer := self.at(usage.input)) is not self:
            return longer.of(usage)
        cached = self.input if self.cached is None else self.cached
        plain = max(usage.input - usage.cached, 0)
        return ceil(self.request + plain * self.input + usage.cached * cached + usage.output * self.output)

    @property
    def blended(self) -> float:
        """One figure to compare prices by: three tokens of input to one of output."""
        return (3 * self.input + self.output) / 4


def cost_of(usage: Usage, price: Price | None) -> int | None:
    """Nano-dollars that *usage* cost: the upstream's own figure, else by *price*; None when neither is known."""
    if usage.cost is not None:
        return usage.cost
    return None if price is None else price.of(usage)


ZERO = Price(0.0, 0.0, 0.0)


def dollars(nano: int) -> float:
    """*nano* in dollars, for people."""
    return nano / NANO


def nano(dollars: float) -> int:
    """Dollars as nano-dollars."""
    return round(dollars * NANO)
