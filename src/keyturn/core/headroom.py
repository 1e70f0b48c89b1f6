"""How much fits: calls and tokens that a route's keys can take at one moment, from what their limits and marks leave.

A figure is a promise: so many calls, sent at that moment, are all let through, and the next is not. What is under way
stays under way, and nothing else is sent until then. So nothing is promised that depends on how others behave.

Every *bound* has a name and room for so much: a limit in its own units, a mark that is over in calls (one probes). A
key on a deployment is a *seat*: it may be asked as long as each of its bounds has room for one more call. Bounds that
several seats share are spent once. Seats fill up in the order of the plan, as calls fill them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .claims import Claim
from .counters import Counter, Shift, counter_for, most_of
from .credentials import Mark
from .limits import Limit, LimitRow

__all__ = ["Fill", "Room", "Seat", "cost_within", "fill_seats", "room_after", "room_of"]

TOKENS = frozenset({"tokens", "input_tokens"})
"""The metrics by which a number of tokens is bounded."""


class Room(NamedTuple):
    """What one bound leaves, in its own units: now, and at the later moment."""

    now: int
    later: int


class Seat(NamedTuple):
    """One key on one deployment."""

    calls: tuple[tuple[str, int], ...]
    """Its bounds, and what one call takes of each."""
    tokens: tuple[str, ...]
    """Those of them that are counted in tokens."""


class Fill(NamedTuple):
    """What fits. None: any number."""

    calls: int | None
    tokens: int | None


def room_of(limit: Limit, own: Counter | None, row: LimitRow | None, now: float, then: float) -> Room:
    """What *limit* leaves at *now* and at *then*.

    *own* is what this process counted, None when nothing; *row* how the limit stands over all that share it, None when
    nobody else does. What others used is back when all is back, what they hold stays held.
    """
    if own is None and row is None:
        most = most_of(limit.window, limit.capacity)
        return Room(most, most)
    counter = own or counter_for(limit.window, limit.scope, limit.capacity, Shift())
    if counter.capacity != limit.capacity:
        counter.resize(limit.capacity, now)
    if row is None:
        return Room(counter.room(now, now), counter.room(then, now))
    used = max(0, row.used - counter.used(now))
    held = max(0, row.reserved - counter.held)
    later = 0 if row.resets_in <= then - now else used
    return Room(
        max(0, counter.room(now, now) - used - held),
        max(0, counter.room(then, now) - later - held),
    )


def room_after(mark: Mark | None, now: float, then: float) -> Room | None:
    """How many calls *mark* lets through at both moments; None: it restricts nothing.

    When its time is over one call probes (of a provider that was away, a few), and nobody else may pass before that
    call is answered.
    """
    if mark is None or mark.state == "counting":
        return None
    probing = mark.width - len(mark.probes)
    return Room(probing if mark.until <= now else 0, probing if mark.until <= then else 0)


def cost_within(claim: Claim) -> int | None:
    """What one call takes of the limit of *claim*; None when it can never be sent. Tokens are charged as the capacity
    at most, money is not."""
    limit = claim.limit
    if claim.floor > limit.capacity:
        return None
    if limit.metric == "cost":
        return claim.cost
    return min(claim.cost, most_of(limit.window, limit.capacity))


def fill_seats(seats: Sequence[Seat], rooms: Mapping[str, int], ahead: int = 0) -> Fill:
    """What fits into *seats* with that room at their bounds, beside the *ahead* calls that come before any other."""
    calls = _calls(seats, rooms)
    if calls is None:
        return Fill(None, _tokens(seats, rooms))
    if calls <= ahead:
        return Fill(0, 0)
    tokens = _tokens(seats, rooms)
    if tokens is not None and ahead:
        tokens = tokens * (calls - ahead) // calls
    return Fill(calls - ahead, tokens)


def _calls(seats: Iterable[Seat], rooms: Mapping[str, int]) -> int | None:
    left: dict[str, int] = {}
    total = 0
    for seat in seats:
        fits = min((left.get(name, rooms[name]) // cost for name, cost in seat.calls if cost), default=None)
        if fits is None:
            return None
        total += fits
        if fits:
            for name, cost in seat.calls:
                left[name] = left.get(name, rooms[name]) - fits * cost
    return total


def _tokens(seats: Iterable[Seat], rooms: Mapping[str, int]) -> int | None:
    """Tokens of the seats that a call could be sent to."""
    left: dict[str, int] = {}
    total = 0
    for seat in seats:
        if any(rooms[name] < cost for name, cost in seat.calls):
            continue
        if not seat.tokens:
            return None
        fits = min(left.get(name, rooms[name]) for name in seat.tokens)
        total += fits
        for name in seat.tokens:
            left[name] = left.get(name, rooms[name]) - fits
    return total
