"""What one call carries through dispatch: its plan, its bounds in time, what it has tried, and its trail."""

from __future__ import annotations

from typing import NamedTuple

from keyturn.config import Timeouts
from keyturn.core import (
    FAULTS,
    Attempt,
    Call,
    Caller,
    Cost,
    Deployment,
    Entry,
    Limit,
    Outcome,
    Plan,
    Pool,
    Progress,
    Trail,
)
from keyturn.stores import LiveState, Reservation


class Run:
    """One call under way. Times are monotonic seconds."""

    __slots__ = (
        "call",
        "caller",
        "content_by",
        "costs",
        "deadline",
        "deployments",
        "finals",
        "first_final",
        "progress",
        "started",
        "too_big",
        "trail",
        "wait_until",
    )

    def __init__(self, call: Call, caller: Caller, trail: Trail, timeouts: Timeouts) -> None:
        self.call = call
        self.caller = caller
        self.trail = trail
        self.started = trail.started
        stated = call.timeout
        self.deadline = self.started + min(timeouts.total, stated or timeouts.total)
        self.content_by = self.started + (timeouts.to_content or timeouts.total)
        """`GLOBAL_TIMEOUT`: by then the first content must have come."""
        patience = timeouts.queue_wait if stated is None else stated
        self.wait_until = min(self.started + patience, self.deadline, self.content_by)
        self.deployments: tuple[Deployment, ...] = ()
        self.costs: dict[Deployment, Cost] = {}
        self.progress = Progress()
        self.too_big: Limit | None = None
        """A limit that even the least this call can cost exceeds."""
        self.first_final: Failed | None = None
        """The first answer that is final for its deployment, handed back when all say so."""
        self.finals: set[Deployment] = set()
        """The deployments that gave such an answer."""

    def planned(self, plan: Plan) -> None:
        """The steps to take are known."""
        self.deployments = plan.deployments
        self.trail.refusals.extend(plan.refusals)

    def remember(self, failed: Failed) -> None:
        """Keep the first of the answers that no other key of the same deployment would change."""
        outcome = failed.outcome
        if outcome.try_other_key or outcome.scope == "provider" or outcome.meaning in FAULTS or not failed.body:
            return
        self.finals.add(failed.entry.candidate.deployment)
        if self.first_final is None:
            self.first_final = failed


class Grant:
    """An entry that was picked, with the reservation of its attempt. `close` gives it back unused."""

    __slots__ = ("_live", "_open", "attempt", "entry", "pool", "reservation", "sent")

    def __init__(self, live: LiveState, pool: Pool, entry: Entry, attempt: Attempt, reservation: Reservation) -> None:
        self._live = live
        self._open = True
        self.pool = pool
        self.entry = entry
        self.attempt = attempt
        self.reservation = reservation
        self.sent = False
        """The whole request is on its way: what it reserved counts."""

    @property
    def open(self) -> bool:
        return self._open

    def shut(self) -> bool:
        """Mark as over; True the first time."""
        was, self._open = self._open, False
        return was

    def close(self) -> None:
        """Nothing was sent: give everything back."""
        if self.shut():
            self.reservation.close()
            self.pool.done(self.entry)
            self._live.end(self.attempt.id)


class Failed(NamedTuple):
    """An attempt that gave no answer to relay: its outcome, and the upstream's answer where there was one."""

    entry: Entry
    outcome: Outcome
    status: int
    content_type: str
    body: bytes
