"""Calls of tools that wait for their results, found by id, by name and by age without a search."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from typing import Generic, TypeVar

Called = TypeVar("Called")


class Unanswered(Generic[Called]):
    """The calls in the order in which they were made. What is found is no longer among them.

    Each step takes the same time however many wait: a conversation may hold tens of thousands, answered in any order.
    """

    def __init__(self) -> None:
        self._made = 0
        self._waiting: OrderedDict[int, Called] = OrderedDict()
        """By number of making; only an ordered dict finds its first entry fast when many before it are gone."""
        self._by_id: defaultdict[str, deque[int]] = defaultdict(deque)
        self._by_name: defaultdict[str, deque[int]] = defaultdict(deque)

    def add(self, call: Called, identity: str, name: str) -> None:
        """*call* waits from now on."""
        self._waiting[self._made] = call
        self._by_id[identity].append(self._made)
        self._by_name[name].append(self._made)
        self._made += 1

    def place(self, identity: str) -> int:
        """A number that is larger the later the oldest call with this id was made; -1 when none waits."""
        found = self._first(self._by_id, identity)
        return -1 if found is None else found

    def with_id(self, identity: str) -> Called | None:
        """The oldest call with this id."""
        return self._taken(self._first(self._by_id, identity))

    def named(self, name: str) -> Called | None:
        """The oldest call of the tool *name*."""
        return self._taken(self._first(self._by_name, name))

    def oldest(self) -> Called | None:
        """The oldest call of all."""
        return self._taken(next(iter(self._waiting), None))

    def rest(self) -> list[Called]:
        """All of them."""
        found = list(self._waiting.values())
        self._waiting.clear()
        return found

    def _first(self, places: dict[str, deque[int]], key: str) -> int | None:
        queue = places.get(key)
        while queue:
            if queue[0] in self._waiting:
                return queue[0]
            queue.popleft()
        return None

    def _taken(self, number: int | None) -> Called | None:
        return None if number is None else self._waiting.pop(number)
