"""Whose turn it is at each provider: one index for all its pools, and who was exhausted in its fair cycles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set

from keyturn.core import Cycle, KeptCycle, KeyIndex
from keyturn.stores import LiveState

from .carried import Carried
from .events import Events, Rotated

MOST_CYCLES = 2000
"""Fair cycles that are remembered: models come from clients."""


class Rotations:
    """The round robin and the fair cycles of every provider, the same through every reload. An index is remembered
    over restarts too, and told when it moves."""

    __slots__ = ("_carried", "_counts", "_cycles", "_events", "_indexes", "_live")

    def __init__(self, carried: Carried, live: LiveState, events: Events) -> None:
        self._carried = carried
        self._live = live
        self._events = events
        self._indexes: dict[str, KeyIndex] = {}
        self._counts: dict[str, int] = {}
        self._cycles: OrderedDict[tuple[str, str], Cycle] = OrderedDict()

    def of(self, provider: str, count: int) -> KeyIndex:
        """The index of *provider*, which has *count* credentials now."""
        self._counts[provider] = count
        index = self._indexes.get(provider)
        if index is None:
            start = self._carried.index(provider)
            index = self._indexes[provider] = KeyIndex(start, lambda position: self._moved(provider, position))
        return index

    def cycle(self, provider: str, counted: str) -> Cycle:
        """The fair cycle of *provider* for what is *counted* together: a model, a group of them, or all (empty)."""
        cycle = self._cycles.setdefault((provider, counted), Cycle())
        self._cycles.move_to_end((provider, counted))
        if len(self._cycles) > MOST_CYCLES:
            self._cycles.popitem(last=False)
        return cycle

    def versions(self) -> dict[tuple[str, str], int]:
        """Of each fair cycle in which something happened, the number of its latest change."""
        return {name: cycle.version for name, cycle in self._cycles.items() if cycle.version}

    def dump(self, name: tuple[str, str], offset: float) -> KeptCycle:
        """The fair cycle called *name* by `versions`, with moments *offset* later."""
        return self._cycles[name].dump(*name, offset)

    def restore(
        self, kept: Iterable[KeptCycle], fingerprints: Mapping[str, Set[str]], now: float, offset: float
    ) -> None:
        """Take over the fair cycles of an earlier process, of the keys that each provider still has."""
        for each in kept:
            if each.provider in fingerprints:
                cycle = self.cycle(each.provider, each.counted)
                if not cycle.version:
                    cycle.restore(each, fingerprints[each.provider], now, offset)

    def follow(self, provider: str, position: int) -> None:
        """Another gateway moved the round robin of *provider*."""
        index = self._indexes.get(provider)
        if index is not None:
            index.index = position
        self._carried.moved(provider, position)

    def _moved(self, provider: str, position: int) -> None:
        self._carried.moved(provider, position)
        self._live.turn(provider, position)
        self._events.emit(Rotated(provider, position + 1, self._counts[provider]))
