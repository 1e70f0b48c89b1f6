"""How many attempts an upstream bears at once, learned from its overloads: a value per quota group and model.

Nothing is bounded until it says that it has too much to do (an overload, a refusal for too many at once, no first token
in time) while more than three attempts are under way. Then at most 0.7 of what was under way are allowed, and again 0.7
of that for each further sign from an attempt that began since: what was sent before says nothing of the new bound, nor
does a single probe.

The bound grows while it is used (four fifths of it or more): up to nine tenths of what was too much by a quarter with
each round of answers, from there to just below it by one. There it stays for a while, before more than that is tried
again: ten seconds, twice as long each time that it was too much again, ten minutes at most. Without such rest every
second spent at the bound would be paid for by an overload a moment later.

Ten minutes without any sign and it is forgotten; so is one that has grown to more than 512.
"""

from __future__ import annotations

from typing import NamedTuple

from .outcome import Outcome

LESS = 0.7
FEW = 3
"""So few under way are hardly what an upstream has too much of."""
HALF = 0.5
"""A bound that is used less than that is not what an overload was about."""
MOST = 512
IN_USE = 0.8
NEAR = 0.9
"""Up to this share of what was too much it grows quickly."""
QUICK = 4
"""How many times as quickly."""
PATIENCE = 10.0
MOST_PATIENCE = 600.0
QUIET = 600.0
"""Seconds without a sign after which it is forgotten."""


AT_ONCE = ("concurren", "parallel", "simultaneous", "in-flight", "in flight")
"""How a refusal with 429 speaks of too many at a time."""


def overload(outcome: Outcome) -> bool:
    """Whether *outcome* is a sign that an upstream had too much to do at once."""
    if outcome.meaning == "overloaded":
        return True
    if outcome.meaning == "timeout":
        return outcome.code == "first_token"
    said = f"{outcome.code} {outcome.message}".lower()
    return outcome.meaning == "rate_limited" and any(word in said for word in AT_ONCE)


class Bound(NamedTuple):
    """At most *limit* at a time. Times are monotonic seconds."""

    limit: int
    too_much: int
    """How many were under way when it was too much last."""
    since: float
    """When that was."""
    answers: int = 0
    """Since it grew last."""
    patience: float = PATIENCE
    """Seconds before as many are tried again."""

    def over(self, now: float) -> bool:
        """Whether it is to be forgotten: for so long there was no sign."""
        return now >= self.since + QUIET


def narrowed(bound: Bound | None, under_way: int, started: float, now: float) -> Bound | None:
    """A sign of overload from an attempt that began at *started*, itself one of *under_way*. None: nothing follows."""
    if bound is None:
        return Bound(int(LESS * under_way), under_way, now) if under_way > FEW else None
    if started <= bound.since or under_way < HALF * bound.limit:
        return None
    reached = min(bound.limit, max(under_way, 1))
    again = reached >= bound.too_much - 1
    patience = min(bound.patience * 2, MOST_PATIENCE) if again else PATIENCE
    return Bound(max(1, int(LESS * bound.limit)), max(reached, 2), now, 0, patience)


def widened(bound: Bound, under_way: int, now: float) -> Bound | None:
    """An answer came, of one of *under_way*. None: it is forgotten."""
    if bound.over(now):
        return None
    if under_way < IN_USE * bound.limit:
        return bound
    answers = bound.answers + 1
    quick = bound.limit < NEAR * (bound.too_much - 1)
    if answers < (max(1, bound.limit // QUICK) if quick else bound.limit):
        return bound._replace(answers=answers)
    if bound.limit >= bound.too_much - 1 and now < bound.since + bound.patience:
        return bound._replace(answers=bound.limit)
    return bound._replace(limit=bound.limit + 1, answers=0) if bound.limit < MOST else None
