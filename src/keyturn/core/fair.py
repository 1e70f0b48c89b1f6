"""Fair cycles: which keys of a provider were exhausted since the cycle began, and when it begins anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from .lasting import LONGEST, KeptCycle, left_of, moment

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

    def dump(self, provider: str, counted: str, offset: float) -> KeptCycle:
        """The cycle of *provider* for what is *counted* together, with moments *offset* later."""
        renewed = {name: when + offset for name, when in self._renewed.items()}
        return KeptCycle(provider, counted, moment(self.ends, offset), sorted(self.spent), renewed)

    def restore(self, kept: KeptCycle, fingerprints: Collection[str], now: float, offset: float) -> None:
        """Take over what an earlier process knew of these keys. Only for a cycle in which nothing has happened."""
        self.spent = {name for name in kept.spent if name in fingerprints}
        self.ends = left_of(kept.ends, offset, now, LONGEST) if self.spent else FOREVER
        self._renewed = {name: min(when - offset, now) for name, when in kept.renewed.items() if name in fingerprints}
        self.version += 1

    def copy(self) -> Cycle:
        """One in which the same keys were exhausted, and by which this one does not change."""
        copied = Cycle()
        copied.spent, copied.ends = set(self.spent), self.ends
        return copied
