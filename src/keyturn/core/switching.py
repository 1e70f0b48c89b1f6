"""What it costs to go on with a conversation at another key than that which has its prompt in the cache, and whether
waiting for that one is cheaper.

Elsewhere the beginning of the conversation is processed anew: that costs the difference between the full price of its
tokens and the cached one, and takes some seconds. Waiting costs seconds alone. Both are compared in money, by what an
hour of waiting is worth.
"""

from __future__ import annotations

from typing import NamedTuple

from .pricing import NANO, Price

SHARE = 0.8
"""Of a prompt that is taken for cached: its end is new in each turn."""
LEAST = 4000
"""Tokens of a cached beginning below which nothing is weighed."""
PACE = 5000.0
"""Tokens of a prompt that are assumed to be processed in a second."""


class Switch(NamedTuple):
    """One decision, and what it was made from. Seconds, and nano-dollars."""

    waits: bool
    wait: float
    """Until the key that holds the cache can be asked."""
    tokens: int
    """That are in the cache, about."""
    money: int
    """What processing them anew costs more."""
    longer: float
    """How much longer that takes."""

    @property
    def stake(self) -> str:
        """What waiting keeps, and switching loses: `about 0.031 USD and 38,000 cached tokens`."""
        usd = f"{self.money / NANO:.3f} USD and " if self.money >= NANO / 2000 else ""
        return f"about {usd}{self.tokens:,} cached tokens"


def cached_tokens(prompt: int) -> int:
    """How many of the tokens of a *prompt* are in the cache, about; 0: too few to matter."""
    tokens = int(prompt * SHARE)
    return tokens if tokens >= LEAST else 0


def weigh(
    tokens: int, wait: float, here: Price | None, there: Price | None, *, usd_per_hour: float, most: float
) -> Switch:
    """Whether to wait *wait* seconds, at most *most*, for the key that has *tokens* of the prompt in its cache.

    *here*: what it charges; *there*: what who would be asked instead does. None: nothing, or nobody knows; then seconds
    decide alone.
    """
    money = 0
    if there is not None:
        full, kept = there.at(tokens), (here or there).at(tokens)
        cached = kept.input if kept.cached is None else kept.cached
        money = max(0, round(tokens * (full.input - cached)))
    longer = tokens / PACE
    worth = usd_per_hour * NANO / 3600.0
    waits = 0.0 < wait <= most and (wait - longer) * worth < money
    if not worth:
        waits = 0.0 < wait <= most and (money > 0 or wait < longer)
    return Switch(waits, wait, tokens, money, longer)
