"""What becomes of limits while Redis is away: each gateway's own part of them, all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Literal

from msgspec.structs import replace as changed

from keyturn.core import Claim, Denied, Limit, LimitRow, Meters, Usage, gravest
from keyturn.errors import LimiterUnavailable

Without = Literal["local_share", "open", "closed"]
AGAIN = 5.0
"""Seconds after which a call is to ask again that is larger than a gateway's part will ever be: Redis alone helps it,
and nobody knows when. Who waits is woken then."""
LEASE = 50.0
"""Seconds in which what others hold is given back or forgotten."""


class Share:
    """What this gateway may admit while Redis is away, of each limit L among R gateways.

    In the first window after the loss at most the smaller of L/R and 1/R of what was last known to be left, after it
    L/R, both rounded down: so all together stay within every limit, as long as R is not less than there are. It counts
    what is admitted while Redis is away, and nothing else.
    """

    def __init__(
        self,
        without: Without,
        replicas: int,
        began: float,
        row: Callable[[Limit], LimitRow],
        own: Meters,
        wake: Callable[[str], None],
    ) -> None:
        """*row* tells how a limit stood when Redis was lost; *own* counts all that this gateway uses."""
        self._without = without
        self._replicas = max(1, replicas)
        self._began = began
        self._row = row
        self._own = own
        self._meters = Meters(wake)
        """What was admitted, against the present part."""
        self._after = Meters()
        """The same against the part after the first window: when it fits then."""
        self._first: dict[str, tuple[int, float]] = {}
        """By limit: the part of the first window, and when that is over."""
        self._refused = 0
        self.denied: set[str] = set()
        """Scopes at which somebody was denied: worth another look when Redis is back."""

    @property
    def wall_offset(self) -> float:
        """See `Meters`."""
        return self._meters.wall_offset

    @wall_offset.setter
    def wall_offset(self, seconds: float) -> None:
        self._meters.wall_offset = self._after.wall_offset = seconds

    def reserve(self, attempt_id: str, claims: Sequence[Claim], now: float) -> Denied | None:
        """Take *claims* of our own part. Raises LimiterUnavailable where a limit is closed while Redis is away."""
        parted, large = [], []
        for claim in claims:
            policy = self._policy(claim.limit)
            if policy == "closed":
                raise self._unavailable(claim.limit)
            if policy == "open":
                continue
            parted.append(claim)
            if min(claim.cost, claim.limit.capacity) > self._part(claim.limit, now)[0]:
                large.append(claim)
        if large:
            return self._denied(large, now)
        denied = self._meters.reserve(
            attempt_id, [_within(claim, self._part(claim.limit, now)[0]) for claim in parted], now
        )
        if denied is None:
            self._after.reserve(attempt_id, [_within(claim, self._whole(claim.limit)) for claim in parted], now)
            return None
        told = self._denied(parted, now)
        # A bucket that was smaller in the first window is fuller for a while than one that never was.
        return told if told.wait else replace(told, wait=denied.wait, wait_any=denied.wait_any)

    def uncounted(self, claims: Sequence[Claim]) -> list[Claim]:
        """*claims* for a meter that is to count them and, where the policy is open, to deny none."""
        return [
            changed(claim, limit=replace(claim.limit, capacity=2**53)) if self._policy(claim.limit) == "open" else claim
            for claim in claims
        ]

    def counted(self, attempt_id: str, now: float) -> None:
        self._meters.counted(attempt_id, now)
        self._after.counted(attempt_id, now)

    def settle(self, attempt_id: str, usage: Usage | None, now: float) -> None:
        self._after.settle(attempt_id, usage, now)
        self._meters.settle(attempt_id, usage, now)

    def release(self, attempt_id: str) -> None:
        self._after.release(attempt_id, refuse=False)
        self._meters.release(attempt_id, refuse=False)

    def _denied(self, claims: Sequence[Claim], now: float) -> Denied:
        """Why *claims* do not fit, and when they will."""
        found = []
        for claim in claims:
            wait = self._wait(claim, now)
            if wait:
                self.denied.add(claim.limit.scope)
            found.append(Denied(wait, claim.limit, self._wait(changed(claim, cost=1), now) if wait else 0.0))
        return gravest(found)

    def _wait(self, claim: Claim, now: float) -> float:
        """Seconds until *claim* fits: by what leaves the present part, or by the end of the first window, which may
        widen that. Infinite when only the end of attempts can free it."""
        part, until = self._part(claim.limit, now)
        whole, cost = self._whole(claim.limit), min(claim.cost, claim.limit.capacity)
        if cost > whole:
            return AGAIN
        meters = self._meters if now < until else self._after  # whose parts do not change
        wait = inf if cost > part else meters.wait([_within(claim, part)], now)[0]
        if not wait or (wait == inf and cost <= part):
            return wait
        if now < until:
            wait = min(wait, max(until - now, self._after.wait([_within(claim, whole)], now)[0]))
        own = self._own.wait([claim], now)[0]
        return max(wait, own) if own < inf else wait

    def _policy(self, limit: Limit) -> Without:
        if limit.metric == "cost":
            return "closed"
        return "local_share" if limit.owner == "caller" else self._without

    def _whole(self, limit: Limit) -> int:
        """The part after the first window."""
        return limit.capacity // self._replicas

    def _part(self, limit: Limit, now: float) -> tuple[int, float]:
        """The present part, and when the first window is over."""
        whole = self._whole(limit)
        first = self._first.get(limit.key)
        if first is None:
            row = self._row(limit)
            kind, seconds, _ = limit.window
            if kind == "inflight":
                seconds = LEASE
            elif kind in ("calendar", "month"):
                seconds = row.resets_in or 0.0
            first = self._first[limit.key] = (row.free // self._replicas, self._began + seconds)
        return whole if now >= first[1] else min(whole, first[0]), first[1]

    def _unavailable(self, limit: Limit) -> LimiterUnavailable:
        self._refused += 1
        what = "Limits in money are" if limit.metric == "cost" else "The providers' limits are"
        return LimiterUnavailable(
            f"{what} kept in Redis, which does not answer. Try again in a moment.",
            retry_after=float(1 + self._refused % 3),
        )


def _within(claim: Claim, part: int) -> Claim:
    """*claim* on a part of its limit."""
    return changed(claim, limit=replace(claim.limit, capacity=max(1, part), source="default"))
