"""What a store tells its owner of its troubles: each kind at most once a minute, and that it is over if it was told."""

from __future__ import annotations

import logging

from keyturn.core import Clock

EVERY = 60.0

_log = logging.getLogger("keyturn")


class Troubles:
    """Of one store."""

    __slots__ = ("_clock", "_said_at", "_told")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said_at: dict[str, float] = {}
        self._told: set[str] = set()
        """The kinds that are in the log and not over."""

    def say(self, kind: str, text: str) -> None:
        """There is trouble of *kind*."""
        now = self._clock.mono()
        if now >= self._said_at.get(kind, -EVERY) + EVERY:
            self._said_at[kind] = now
            self._told.add(kind)
            _log.error(text)

    def over(self, kind: str, text: str) -> None:
        """Trouble of *kind* is over."""
        if kind in self._told:
            self._told.discard(kind)
            _log.warning(text)
