"""Whose turn it is at each provider: one index for all its pools, remembered over restarts and told when it moves."""

from __future__ import annotations

from keyturn.core import KeyIndex

from .carried import Carried
from .events import Events, Rotated


class Rotations:
    """The round robin of every provider, the same through every reload."""

    __slots__ = ("_carried", "_counts", "_events", "_indexes")

    def __init__(self, carried: Carried, events: Events) -> None:
        self._carried = carried
        self._events = events
        self._indexes: dict[str, KeyIndex] = {}
        self._counts: dict[str, int] = {}

    def of(self, provider: str, count: int) -> KeyIndex:
        """The index of *provider*, which has *count* credentials now."""
        self._counts[provider] = count
        index = self._indexes.get(provider)
        if index is None:
            start = self._carried.index(provider)
            index = self._indexes[provider] = KeyIndex(start, lambda position: self._moved(provider, position))
        return index

    def _moved(self, provider: str, position: int) -> None:
        self._carried.moved(provider, position)
        self._events.emit(Rotated(provider, position + 1, self._counts[provider]))
