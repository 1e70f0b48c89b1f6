"""What becomes of limits while Redis is away: each gateway's own part of them, all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from keyturn.core import Claim, Denied, Limit, LimitRow, Meters, Usage
from keyturn.errors import LimiterUnavailable

Without = Literal["local_share", "open", "closed"]
AGAIN = 1.0
"""Seconds after which it is worth asking again where a gateway's part is too small for a call."""
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
        wake: Callable[[str], None],
    ) -> None:
        self._without = without
        self._replicas = max(1, replicas)
        self._began = began
        self._row = row
        self._meters = Meters(wake)
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
        self._meters.wall_offset = seconds

    def reserve(self, attempt_id: str, claims: Sequence[Claim], now: float) -> Denied | None:
        """Take *claims* of our own part. Raises LimiterUnavailable where a limit is closed while Redis is away."""
        mine = []
        for claim in claims:
            policy = self._policy(claim.limit)
            if policy == "closed":
                raise self._unavailable(claim.limit)
            if policy == "open":
                continue
            part = self._part(claim.limit, now)
            if min(claim.cost, claim.limit.capacity) > part:
                self.denied.add(claim.limit.scope)
                return Denied(AGAIN, claim.limit, AGAIN)
            mine.append(claim._replace(limit=replace(claim.limit, capacity=max(1, part), source="default")))
        denied = self._meters.reserve(attempt_id, mine, now)
        if denied is None:
            return None
        self.denied.add(denied.limit.scope)
        return replace(denied, limit=next(each.limit for each in claims if each.limit.key == denied.limit.key))

    def uncounted(self, claims: Sequence[Claim]) -> list[Claim]:
        """*claims* for a meter that is to count them and, where the policy is open, to deny none."""
        return [
            claim._replace(limit=replace(claim.limit, capacity=2**53)) if self._policy(claim.limit) == "open" else claim
            for claim in claims
        ]

    def counted(self, attempt_id: str, now: float) -> None:
        self._meters.counted(attempt_id, now)

    def settle(self, attempt_id: str, usage: Usage | None, now: float) -> None:
        self._meters.settle(attempt_id, usage, now)

    def release(self, attempt_id: str) -> None:
        self._meters.release(attempt_id, refuse=False)

    def _policy(self, limit: Limit) -> Without:
        if limit.metric == "cost":
            return "closed"
        return "local_share" if limit.owner == "caller" else self._without

    def _part(self, limit: Limit, now: float) -> int:
        whole = limit.capacity // self._replicas
        first = self._first.get(limit.key)
        if first is None:
            row = self._row(limit)
            kind, seconds, _ = limit.window
            if kind == "inflight":
                seconds = LEASE
            elif kind in ("calendar", "month"):
                seconds = row.resets_in or 0.0
            first = self._first[limit.key] = (row.free // self._replicas, self._began + seconds)
        return whole if now >= first[1] else min(whole, first[0])

    def _unavailable(self, limit: Limit) -> LimiterUnavailable:
        self._refused += 1
        what = "Limits in money are" if limit.metric == "cost" else "The providers' limits are"
        return LimiterUnavailable(
            f"{what} kept in Redis, which does not answer. Try again in a moment.",
            retry_after=float(1 + self._refused % 3),
        )
