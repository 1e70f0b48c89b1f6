"""Failover as a state machine: after each attempt, what next?

Faults of the upstream (transport, timeout, 5xx, overload) may be met at most twice per provider and four times per
call. Faults of the credential (401, 402, 403, 429) are bounded by the twenty attempts and the deadline alone, so that
the one good key of eight is found. A client's mistake is sent once and handed back as it came.

    outcome                              next
    ok, bad_request, content_filter      Relay
    not_found, context_length            the deployment is final; TryNext deployment, else the first such answer
    a fault that other keys share        the deployment or provider is closed; TryNext
    any other                            TryNext: another credential, deployment, step; the same one only for
                                         500, 408, 425, once, and only when nothing else is free
"""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

from keyturn.errors import BadUpstream, Capacity, NoValidCredentials, PoolError

from .entries import Entry
from .model import Deployment
from .outcome import Outcome
from .pool import Exhausted

MOST_ATTEMPTS = 20
MOST_FAULTS = 4
MOST_FAULTS_PER_PROVIDER = 2
FAULTS = frozenset({"server_error", "timeout", "overloaded"})
FINAL = frozenset({"ok", "bad_request", "content_filter"})
QUOTAS = frozenset({"rate_limited", "daily_quota"})
NONE: frozenset[Any] = frozenset()


class Relay(NamedTuple):
    """Hand this answer to the client."""


class TryNext(NamedTuple):
    """Look for another candidate. *resend*: the entry that may be asked once more if nothing else is free."""

    resend: Entry | None = None


class WaitUntil(NamedTuple):
    """Nothing is free; something will be at *when* (monotonic seconds)."""

    when: float


class Refuse(NamedTuple):
    """The bounds are reached."""

    why: str


Move = Relay | TryNext | WaitUntil | Refuse


class Progress:
    """What one call has tried so far. Its sets are put in place of others, not changed: most calls need none."""

    __slots__ = (
        "attempts",
        "closed",
        "closed_providers",
        "faults",
        "faults_of",
        "limited",
        "meanings",
        "resent",
        "tried",
    )

    def __init__(self) -> None:
        self.attempts = 0
        self.faults = 0
        self.faults_of: dict[str, int] = {}
        self.tried: dict[Deployment, set[int]] = {}
        """Per deployment the positions in its pool that were asked."""
        self.closed: frozenset[Deployment] = NONE
        self.closed_providers: frozenset[str] = NONE
        self.limited: dict[tuple[Deployment, int], bool] = {}
        """Who refused it for a minute's limit, and whether it was asked once more since."""
        self.resent: frozenset[tuple[Deployment, int]] = NONE
        self.meanings: frozenset[str] = NONE

    def open(self, deployment: Deployment) -> bool:
        """Whether *deployment* may still be asked in this call."""
        if not (self.closed or self.closed_providers):
            return True
        return deployment not in self.closed and deployment.provider not in self.closed_providers

    def met_limit(self, entry: Entry) -> None:
        """*entry* refused for a minute's limit: it may be asked once more when that is over."""
        self.limited.setdefault((entry.candidate.deployment, entry.order), False)

    def give_back(self) -> bool:
        """Nobody else is left: those who refused for a minute's limit may be asked once more, when they have rested.
        False: there is none."""
        found = False
        for who, again in self.limited.items():
            if not again:
                deployment, order = who
                self.limited[who] = found = True
                self.tried[deployment].discard(order)
        return found


def advance(progress: Progress, entry: Entry, outcome: Outcome, now: float) -> Move:
    """Record *outcome* of the attempt on *entry* and say what to do next."""
    deployment = entry.candidate.deployment
    progress.meanings |= {outcome.meaning}
    if outcome.meaning in FINAL:
        return Relay()
    progress.tried.setdefault(deployment, set()).add(entry.order)
    if outcome.meaning in FAULTS:
        provider = deployment.provider
        progress.faults += 1
        met = progress.faults_of[provider] = progress.faults_of.get(provider, 0) + 1
        if met >= MOST_FAULTS_PER_PROVIDER:
            progress.closed_providers |= {provider}
        if progress.faults >= MOST_FAULTS:
            return Refuse("upstreams failed four times")
    if not outcome.try_other_key:
        if outcome.scope == "provider" and outcome.meaning != "overloaded":
            progress.closed_providers |= {deployment.provider}
        else:
            progress.closed |= {deployment}
    if progress.attempts >= MOST_ATTEMPTS:
        return Refuse("twenty attempts were made")
    again = (deployment, entry.order)
    if outcome.retry_same and again not in progress.resent and progress.open(deployment):
        return TryNext(resend=entry)
    return TryNext()


def together(shortages: list[Exhausted]) -> Exhausted:
    """One shortage for several deployments: the earliest return, the sums of the reasons."""
    wait, limits, busy, faults, dead, by_size = float("inf"), 0, 0, 0, 0, False
    for each in shortages:
        if each.wait < wait:
            wait = each.wait
        limits += each.limits
        busy += each.busy
        faults += each.faults
        dead += each.dead
        by_size = by_size or each.by_size
    return Exhausted(wait, limits, busy, faults, dead, by_size)


def stand_by(shortage: Exhausted, now: float, latest: float) -> WaitUntil | Refuse:
    """Nothing is free: wait when the earliest return, or the end of something under way, may come by *latest*."""
    if now < latest and (now + shortage.wait <= latest or shortage.busy):
        return WaitUntil(min(now + shortage.wait, latest))
    return Refuse("nothing returns in time")


def refusal(
    progress: Progress, shortage: Exhausted, route: str, retry_after: float | None, *, turn: bool = False
) -> PoolError:
    """The error that tells the truth about why nothing could answer. *turn*: *retry_after* is when the call's turn
    comes, which is later than when a key is free."""
    if shortage.faults and not progress.attempts:
        when = "" if retry_after is None else f"; one is tried again in {retry_after:.1f} s"
        return BadUpstream(f"every key for {route} rests after faults of its upstream{when}", retry_after=retry_after)
    if progress.faults or shortage.faults:
        return BadUpstream(f"every upstream for {route} failed; the attempts are listed", retry_after=retry_after)
    if shortage.limits or shortage.busy or progress.meanings & QUOTAS:
        wait = 1.0 if retry_after is None else retry_after
        when = f"your turn comes in about {_told(wait)}" if turn else f"one is free again in {_told(wait)}"
        return Capacity(f"every key for {route} is at its limit; {when}", retry_after=wait)
    if progress.meanings - {"invalid_key", "insufficient_credit", "forbidden"}:
        return BadUpstream(f"no upstream gave a usable answer for {route}; the attempts are listed")
    return NoValidCredentials(
        f"no usable key is left for {route}: all are invalid, without credit, not entitled to it or disabled; "
        "`keyturn keys list` tells which and why"
    )


def _told(wait: float) -> str:
    """*wait* as it is told: never as nothing, nor as less than it is."""
    if wait < 0.1:
        return f"{max(ceil(wait * 1000), 1)} ms"
    return f"{ceil(round(wait * 10, 6)) / 10:.1f} s"
