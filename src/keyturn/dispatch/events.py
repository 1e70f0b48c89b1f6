"""What happened, for logs, metrics and hooks: small values and the one place that hands them on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from keyturn.core import Call, Caller, Trail

_log = logging.getLogger("keyturn")


class CallEnded(NamedTuple):
    """A call is over. *answer* holds the first bytes of what the client got, when recording is on."""

    call: Call | None
    """None when the request could not be read."""
    caller: Caller
    trail: Trail
    answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Cooled:
    """Something may not be used for *seconds*: a key, for *model* or (empty) for all."""

    provider: str
    key: str
    model: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LimitLearned:
    """429s taught another number for a limit, or it has risen since."""

    provider: str
    text: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """The owner should look."""

    text: str


@dataclass(frozen=True, slots=True)
class Rotated:
    """The round robin of *provider* moved on. *position* counts from 1, of *count* keys."""

    provider: str
    position: int
    count: int


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration changed on the disk. With *problems* the old one stays in use."""

    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """What is different now, in a few words each."""


Event = CallEnded | Cooled | Alarm | Rotated | Reloaded | LimitLearned


class Events:
    """Hands each event to every subscriber, at once; a subscriber must not block."""

    __slots__ = ("_subscribers",)

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        """*subscriber* wants no more."""
        self._subscribers = [each for each in self._subscribers if each != subscriber]

    def emit(self, event: Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:  # a broken hook must not break the call it watches
                _log.exception("a subscriber failed on %s", type(event).__name__)
