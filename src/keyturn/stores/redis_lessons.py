"""Limits that many gateways learn together: what is told of one's own, and what is taken over from others.

Redis keeps the latest word on each; a limit that was forgotten is a word too, of capacity 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import msgspec

from keyturn.core import LEARNED_FOR, Grounds, KeptLimit, Limit, Meters, grounds_kept, kept_limit, limit_kept

from .redis_port import Argument

_decoder = msgspec.json.Decoder(KeptLimit)


class Lessons:
    """The learned limits in *meters* beside those in Redis. *wall*: Unix seconds now."""

    __slots__ = ("_meters", "_name", "_wall")

    def __init__(self, name: str, meters: Meters, wall: Callable[[], float]) -> None:
        self._name = name
        self._meters = meters
        self._wall = wall

    def told(self, limit: Limit, grounds: Grounds) -> list[Argument]:
        """The arguments of `learn` for what was learned here."""
        return self._argued(kept_limit(limit, grounds, 0.0))

    def gone(self, limit: Limit) -> list[Argument]:
        """The same for what was forgotten here."""
        learned = kept_limit(replace(limit, source="learned"), Grounds(self._wall()), 0.0)
        learned.capacity = 0
        return self._argued(learned)

    def mine(self) -> list[list[Argument]]:
        """The same for all that is known here."""
        return [self.told(limit, grounds) for limit, grounds in self._meters.book.every_learned()]

    def take(self, texts: Iterable[bytes | str], now: float) -> tuple[Limit, ...]:
        """Take over what others learned or forgot, where it is newer than what is known here: the limits that it is
        about."""
        taken = []
        for text in texts:
            try:
                kept = _decoder.decode(text)
            except msgspec.DecodeError:
                continue
            gone = not kept.capacity
            kept.source, kept.capacity = "learned", kept.capacity or 1
            limit = limit_kept(kept)
            if limit is not None and self._taken(limit, grounds_kept(kept), now, gone=gone):
                taken.append(limit)
        return tuple(taken)

    def _taken(self, limit: Limit, grounds: Grounds, now: float, *, gone: bool) -> bool:
        book = self._meters.book
        known = book.learned(limit)
        if known is not None and known[1].at >= grounds.at:
            return False
        if gone:
            return self._meters.amend(limit.scope, lambda book: book.forget(limit, "learned"))
        age = max(0.0, self._wall() - grounds.at)
        if age >= LEARNED_FOR:
            return False
        self._meters.amend(limit.scope, lambda book: book.learn(limit, grounds, now - age))
        return True

    def _argued(self, kept: KeptLimit) -> list[Argument]:
        name = f"{kept.metric} {kept.seconds!r} {kept.scope}"
        return [self._name, _plain(name), repr(kept.at), msgspec.json.encode(_sound(kept)).decode()]


def _plain(name: str) -> str:
    """Models come from clients and may hold anything."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def _sound(kept: KeptLimit) -> KeptLimit:
    """*kept* so that it can be written down: half a character cannot."""
    kept.scope = kept.scope.encode("utf-8", "replace").decode()
    return kept


def texts_of(lessons: Sequence[bytes]) -> Sequence[bytes]:
    """Name, text, name, text … as `look` tells them: the texts."""
    return lessons[1::2]
