"""What outlives a process: its shapes, and how the times in it are read by another run with other clocks.

Moments are Unix seconds by the clock of the process that wrote them. Whoever reads them works out once what that clock
would show now, see `offset_of`, and translates every moment by that one number: so no clock that was set in between
makes anything last longer than it had left, and where the machine was not started anew none ends early either.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import msgspec

LONGEST = 32 * 86_400.0
"""Seconds that a mark lasts at most after it was read: longer than any provider asks for."""
DAY = 86_400.0


class Instant(NamedTuple):
    """One moment by both clocks, in seconds, and the start of the machine that the monotonic one belongs to."""

    wall: float
    mono: float
    boot: str = ""
    """Names the run of the operating system; empty where it has no name."""


def offset_of(written: Instant, now: Instant) -> float:
    """What to take from a moment written at *written* to have it in monotonic seconds of *now*.

    While the machine runs on, the monotonic clock says how much time has passed, whatever the wall clock was set to;
    otherwise the wall clock does, and none has passed when it went back.
    """
    if written.boot and written.boot == now.boot and now.mono >= written.mono:
        passed = now.mono - written.mono
    else:
        passed = max(0.0, now.wall - written.wall)
    return written.wall + passed - now.mono


class KeptUse(msgspec.Struct, array_like=True, gc=False):
    """What was used of one limit. What attempts under way held when it was written counts as used.

    rolling    *at* is when its slot 0 would have begun; *amounts* the units by slot number
    calendar   *at* is when the period began; *amounts* the units by the beginning of the period
    bucket     *level* was in it at *at*
    """

    key: str
    """The limit's, with its metric, window and scope."""
    capacity: int
    at: float
    amounts: list[tuple[float, int]] = []
    level: float = 0.0


class KeptMark(msgspec.Struct, array_like=True, gc=False):
    """One mark."""

    scope: tuple[str, ...]
    state: str
    until: float | None
    """None: until the configuration changes."""
    reason: str
    strikes: int
    since: float


class KeptLimit(msgspec.Struct, array_like=True, gc=False):
    """A limit that a provider reported or that was learned, and until when that is believed."""

    scope: str
    metric: str
    kind: str
    seconds: float
    zone: str
    capacity: int
    """0, where gateways tell each other: it is forgotten."""
    until: float
    source: str = "reported"
    at: float = 0.0
    """Unix seconds: when a learned one was learned. The rest is that of `Grounds`."""
    evidence: tuple[str, ...] = ()
    reached: int = 0
    patience: int = 0


class KeptFaults(msgspec.Struct, array_like=True, gc=False):
    """The credentials of the latest faults of a deployment, with no success between."""

    scope: tuple[str, ...]
    credentials: list[str]


class KeptCycle(msgspec.Struct, array_like=True, gc=False):
    """One fair cycle."""

    provider: str
    counted: str
    ends: float | None
    spent: list[str]
    renewed: dict[str, float]


def left_of(until: float | None, offset: float, now: float, longest: float) -> float:
    """The monotonic moment that *until* is, at most *longest* seconds from now. Without an end: in a day."""
    return now + DAY if until is None else min(until - offset, now + longest)


def moment(mono: float, offset: float) -> float | None:
    """*mono* as it is written down; None for never."""
    return None if mono == inf else mono + offset
