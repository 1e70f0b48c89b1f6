"""Why an attempt could not reserve what it needs, and which of several reasons is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from .limitbook import Limit


@dataclass(frozen=True, slots=True)
class Denied:
    """Why nothing was reserved, and when asking again helps. Seconds."""

    wait: float
    """Until this cost fits if nothing else happens; infinite when only the end of other attempts can free it.

    Of money: until the budget begins anew when it is spent, infinite while it is only held by others.
    """
    limit: Limit
    """The limit with the longest wait; whenever a caller's own limit is in the way, that one."""
    wait_any: float
    """Until any call at all (one request, one token) would fit; 0: smaller calls fit now."""
    never: bool = False
    """Even the least this can cost is above a declared or reported limit."""

    @property
    def busy(self) -> bool:
        """Only the end of other attempts can free it: nothing is spent that time would give back."""
        return self.wait == inf and not self.never


def gravest(found: list[Denied]) -> Denied:
    """The one to tell of, given how each claim of one attempt stands; a caller's own limit comes first."""
    own = [each for each in found if each.limit.owner == "caller" and each.wait > 0.0]
    found = own or found
    return replace(max(found, key=_gravity), wait_any=max(each.wait_any for each in found))


def _gravity(denied: Denied) -> tuple[bool, bool, float]:
    """Which of several denials is told: what time does not heal, then a spent budget, then the longest wait."""
    return denied.never, denied.limit.metric == "cost" and 0.0 < denied.wait < inf, denied.wait
