"""A candidate in a pool with what picking needs to know of it, and the rank that it has while it is ready."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable
from math import exp
from typing import TYPE_CHECKING, Any

from .credentials import Block, credential_scope, model_scope, scopes_of
from .model import Candidate

if TYPE_CHECKING:
    from .pool import Pool

FOREVER = float("inf")
FADING = 30.0
"""Seconds in which a measured time loses two thirds of its weight, and of its size while nothing new is measured."""


class Pace:
    """How long it takes until answers begin, lately: rises at once with a slow answer, falls slowly with quick ones.

    While nothing is measured it fades, so that what was slow once is tried again.
    """

    __slots__ = ("_at", "_seconds")

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._at = now

    def observe(self, seconds: float, now: float) -> None:
        """An answer began after *seconds*."""
        if seconds < self._seconds:
            old = exp((self._at - now) / FADING) if now > self._at else 1.0
            seconds = self._seconds * old + seconds * (1 - old)
        self._seconds, self._at = seconds, now

    def at(self, now: float) -> float:
        """What to expect, in seconds."""
        return self._seconds * exp((self._at - now) / FADING) if now > self._at else self._seconds


class Entry:
    """A candidate in a pool, with what picking needs to know of it."""

    __slots__ = (
        "active",
        "answer_headers",
        "block",
        "candidate",
        "capped",
        "ended",
        "flow",
        "free",
        "grade",
        "heads",
        "last_used",
        "limit_scopes",
        "load",
        "load_until",
        "onset_due",
        "order",
        "own_scopes",
        "pace",
        "parked_until",
        "rank",
        "recorded",
        "report_due",
        "scopes",
        "short_cost",
        "short_until",
        "shown",
        "spent",
        "stacked",
    )

    rank: Rank
    """Where it stands while it is ready."""

    def __init__(self, candidate: Candidate, order: int, counted: str = "", endpoint: str = "") -> None:
        """*counted* and *endpoint*: see `scopes_of`."""
        credential = candidate.credential
        self.candidate = candidate
        self.order = order
        self.free = credential.plan == "free"
        self.shown = credential.shown
        """Its credential, as logs and answers show it."""
        self.scopes = scopes_of(candidate, counted, endpoint)
        self.own_scopes = self.scopes[:-2]
        """All but the deployment's and the provider's, which a pool looks at once for all its entries."""
        self.limit_scopes: tuple[str, ...] = (
            model_scope(candidate.deployment, credential.group, counted),
            credential_scope(credential),
        )
        self.answer_headers: tuple[tuple[bytes, bytes], ...] | None = None
        """The response headers that name it, once they have been written."""
        self.heads: dict[bool, Any] = {}
        """What all requests to it have in common that are alike, by whether a stream is asked for, once one was
        written."""
        self.recorded: dict[Hashable, Any] = {}
        """How the record of calls names it, by who asks what, once that has been written."""
        self.active = 0
        """Attempts under way."""
        self.ended = 0
        """Attempts that are over."""
        self.onset_due = -FOREVER
        """From when it is worth a look how soon one of its streams began, also while hardly any is under way."""
        self.grade = 0
        """The place of its key priority among those of the pool, from 0."""
        self.spent = False
        """It was exhausted in this fair cycle."""
        self.stacked = False
        """Its credential has as many calls under way as the soft target says, or more."""
        self.flow: Flow | None = None
        """The calls under way of its credential, where there is a soft target."""
        self.capped = False
        """It is parked because of a custom cap."""
        self.last_used = -1
        self.load = 0.0
        self.load_until = -FOREVER
        self.parked_until = -FOREVER
        self.block: Block | None = None
        """Why it is parked; None while it is ready."""
        self.report_due = -FOREVER
        """From when the limits in an answer's headers are worth a look again."""
        self.short_cost = 0
        """A call of at least so many tokens does not fit before `short_until`, though a smaller one would."""
        self.short_until = -FOREVER
        self.pace: Pace | None = None
        """None until it is measured."""

    def standing(self, now: float) -> tuple[int, float | None, int, float | None]:
        """How it stands when it is chosen: the members of `Pick`."""
        pace = self.pace
        return (
            len(self.rank.ready),
            self.load if self.load_until > now else None,
            self.active,
            None if pace is None else pace.at(now),
        )


class Flow:
    """The calls of one credential that are under way, over all pools that it stands in."""

    __slots__ = ("active", "places")

    def __init__(self) -> None:
        self.active = 0
        self.places: list[tuple[Pool, Entry]] = []


class Rank:
    """What is ready of one rank of a pool: positions of entries, sorted."""

    __slots__ = ("free", "fresh", "grade", "heaviest", "level", "members", "places", "ready", "stacked")

    def __init__(self, level: int, grade: int, members: list[int], places: list[int] | None, *, stacked: bool) -> None:
        self.level = level
        """How good it is, 0 first, whether or not its keys are above their soft target."""
        self.grade = grade
        self.stacked = stacked
        """Its keys have as many calls under way as the soft target says."""
        self.members = members
        """All of its key priority, ready or not, of this rank or not."""
        self.places = places
        """Their positions among all credentials of the provider; None where there is one priority."""
        self.ready: list[int] = []
        self.free: list[int] = []
        """Those of `ready` whose credential is of plan free."""
        self.fresh: deque[int] | None = None
        """Positions of members that may not have been measured yet; None until somebody asks for them."""
        self.heaviest = 0.0

    def add(self, entry: Entry) -> None:
        """*entry* is ready."""
        insort(self.ready, entry.order)
        if entry.free:
            insort(self.free, entry.order)

    def remove(self, entry: Entry) -> None:
        """*entry* is not any more."""
        self.ready.pop(bisect_left(self.ready, entry.order))
        if entry.free:
            self.free.pop(bisect_left(self.free, entry.order))
