"""Fair cycles: which keys of a provider were exhausted since the cycle began, and when it begins anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

FOREVER = float("inf")


class FairRule(NamedTuple):
    """How a provider's keys take turns at being exhausted. Seconds."""

    threshold: float = 300.0
    """A rest of at least so long means that a key is exhausted."""
    duration: float = 86_400.0
    """After so long a cycle is over, whoever was exhausted in it."""
    cross_priority: bool = False
    """A cycle lasts until the keys of all priorities are exhausted, not those of one."""
    per_key: bool = False
    """A key that is exhausted for one model counts as exhausted for all of them."""


class Cycle:
    """Who was exhausted since the cycle began. One for all pools that count together; it only ever orders their keys.

    *version* changes with every change, so that a pool notices.
    """

    __slots__ = ("_renewed", "ends", "spent", "version")

    def __init__(self) -> None:
        self.spent: set[str] = set()
        """Fingerprints."""
        self.ends = FOREVER
        """When it is over anyway (monotonic seconds); counted from the first that was exhausted."""
        self.version = 0
        self._renewed: dict[str, float] = {}
        """Since when each key is in the present cycle, where it was exhausted in one before."""

    def exhaust(self, fingerprint: str, since: float, now: float, duration: float) -> None:
        """A key is exhausted by what stands against it *since* then; in an earlier cycle, if that is as long ago."""
        if fingerprint not in self.spent and since >= self._renewed.get(fingerprint, -FOREVER):
            if not self.spent:
                self.ends = now + duration
            self.spent.add(fingerprint)
            self.version += 1

    def begin_anew(self, fingerprints: Iterable[str], now: float) -> None:
        """For these keys the cycle is over."""
        over = self.spent.intersection(fingerprints)
        if over:
            self.spent -= over
            self._renewed.update(dict.fromkeys(over, now))
            self.version += 1
        if not self.spent:
            self.ends = FOREVER

    def copy(self) -> Cycle:
        """One in which the same keys were exhausted, and by which this one does not change."""
        copied = Cycle()
        copied.spent, copied.ends = set(self.spent), self.ends
        return copied
