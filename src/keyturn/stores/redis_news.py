"""What other gateways changed: heard on the channel, told with answers, and looked for when a message was missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keyturn.core import Clock, ScopeKey

from .live import Learned
from .redis_counts import Denials
from .redis_lessons import Lessons, texts_of
from .redis_marks import SharedMarks, scope_of
from .redis_port import Argument, Link

Ask = Callable[[str, Sequence[Argument]], "asyncio.Future[Any]"]


class Turned(NamedTuple):
    """A gateway moved the round robin of a provider."""

    gateway: str
    provider: str
    position: int


class Marked(NamedTuple):
    """A mark changed; *text* is how Redis keeps it."""

    version: int
    scope: ScopeKey
    text: str


class Taught(NamedTuple):
    """A gateway learned a limit, or forgot it; *text* is how Redis keeps it."""

    gateway: str
    text: str


class News:
    """Takes in what others did: marks into *marks*, limits into *lessons*, wakes through *woken*, all of it to those
    who follow.

    Each change of a mark has the next version. So a missed message is noticed with the next one, with the next answer
    to a reservation, or at the next look.
    """

    def __init__(
        self,
        name: str,
        link: Link,
        ask: Ask,
        clock: Clock,
        marks: SharedMarks,
        lessons: Lessons,
        denials: Denials,
        woken: Callable[[str], None],
    ) -> None:
        self.followers: list[Callable[[Learned], None]] = []
        self._name = name
        self._link = link
        self._ask = ask
        self._clock = clock
        self._marks = marks
        self._lessons = lessons
        self._denials = denials
        self._woken = woken
        self._looking: asyncio.Future[Any] | None = None

    def hear(self, message: bytes) -> None:
        """One message of the channel; what is none of ours is passed over."""
        found = _read(message)
        if isinstance(found, str):
            scope = self._denials.lift(found)
            if scope is not None:
                self._woken(scope)
        elif isinstance(found, Turned):
            if found.gateway != self._name:
                self._tell(Learned(turned=((found.provider, found.position),)))
        elif isinstance(found, Taught):
            if found.gateway != self._name:
                self._learn([found.text])
        elif found is not None:
            self._marked(found)

    def told(self, version: int, changes: Sequence[bytes] | None) -> None:
        """What a script told of marks that changed, and the version after it; None: too many to tell."""
        if version <= self._marks.version:
            return  # the channel was faster, and what it told is newer
        if changes is None:
            self.look(everything=True)
            return
        if changes:
            freed = self._marks.take(changes, self._link.shift, self._clock.mono())
            if freed:
                self._tell(Learned(freed=tuple(freed)))
        self._marks.version = version

    def look(self, *, everything: bool = False) -> None:
        """Ask what changed; the answer is taken in when it comes. One question at a time is enough."""
        if self._looking is None:
            self._looking = self._question(everything)
            self._looking.add_done_callback(self._looked)

    async def sought(self) -> None:
        """Learn what changed, now. Raises Away."""
        self._take(await self._question(self._marks.version < 0))

    async def load(self) -> None:
        """Learn every mark and round robin that Redis knows. Raises Away."""
        self._marks.version = -1  # until all is known; an emptied Redis begins to count anew
        await self.sought()

    def _question(self, everything: bool) -> asyncio.Future[Any]:
        return self._ask("look", [self._marks.version, "all" if everything else ""])

    def _looked(self, future: asyncio.Future[Any]) -> None:
        self._looking = None
        if not future.cancelled() and future.exception() is None:
            self._take(future.result())

    def _take(self, reply: Sequence[Any]) -> None:
        _, version, changes, turns, *lessons = reply
        self.told(int(version), changes)
        if turns:
            pairs = zip(turns[::2], turns[1::2], strict=True)
            self._tell(Learned(turned=tuple((provider.decode(), int(index)) for provider, index in pairs)))
        if lessons and lessons[0]:
            self._learn(texts_of(lessons[0]))

    def _learn(self, texts: Sequence[bytes | str]) -> None:
        taught = self._lessons.take(texts, self._clock.mono())
        if taught:
            self._tell(Learned(taught=taught))

    def _marked(self, change: Marked) -> None:
        if change.version <= self._marks.version:
            return
        if change.version > self._marks.version + 1:
            self.look()
            return
        self._marks.version = change.version
        if self._marks.learn(change.scope, change.text, self._link.shift, self._clock.mono()):
            self._tell(Learned(freed=(change.scope,)))

    def _tell(self, news: Learned) -> None:
        for learned in self.followers:
            learned(news)


def _read(message: bytes) -> str | Turned | Taught | Marked | None:
    """A message: the name of a limit that came free, a round robin, a limit or a mark; None for what is none of
    these."""
    try:
        kind, *rest = json.loads(message)
        if kind == "wake":
            return str(rest[0])
        if kind == "turn":
            return Turned(str(rest[0]), str(rest[1]), int(rest[2]))
        if kind == "lesson":
            return Taught(str(rest[0]), str(rest[1]))
        if kind == "mark" and len(str(rest[2]).split(" ")) == 7:
            return Marked(int(rest[0]), scope_of(rest[1]), str(rest[2]))
    except (ValueError, TypeError, IndexError):
        pass
    return None
