"""What is usual elsewhere, to compare with: round robin with a cooldown, least used by counts, random with retries.

Each asks the same played upstreams as the gateway does. None of them waits for a key: when none is left, it refuses.
"""

from __future__ import annotations

from collections.abc import Callable

from keyturn.core import Clock

from .arrivals import Asked
from .house import declared_of
from .played import Upstreams
from .shape import Scenario

COOLDOWN = 60.0
"""Seconds that a key is left alone after any failure."""
RETRIES = 3
BACKOFF = (1.0, 2.0, 4.0)
"""Seconds before each retry of `random`."""
WINDOWS = {"rps": 1.0, "rpm": 60.0, "tpm": 60.0, "rpd": 86_400.0, "tpd": 86_400.0}


class Baseline:
    """What they have in common: a clock, the keys, and until when each is left alone."""

    def __init__(self, scenario: Scenario, upstreams: Upstreams, clock: Clock, draw: Callable[[], float]) -> None:
        self.upstreams = upstreams
        self.keys = upstreams.keys
        self.clock = clock
        self.draw = draw
        self.until = [0.0] * len(self.keys)
        self.scenario = scenario

    async def answer(self, asked: Asked) -> tuple[int, float | None]:
        """The status that the client sees, and the `Retry-After` with it."""
        raise NotImplementedError

    async def attempt(self, place: int, asked: Asked) -> int:
        """Ask with one key; it rests after any failure."""
        status = (await self.upstreams.ask(self.keys[place], asked)).status
        if status != 200:
            self.until[place] = self.clock.mono() + COOLDOWN
        return status

    def refused(self, status: int) -> tuple[int, float | None]:
        """Nobody is left: come back when the first key has rested."""
        now = self.clock.mono()
        resting = [until - now for until in self.until if until > now]
        return (status, min(resting)) if resting else (status, None)


class RoundRobin(Baseline):
    """Keys in turn; one that fails rests a minute, and the next is asked, until none is left."""

    def __init__(self, scenario: Scenario, upstreams: Upstreams, clock: Clock, draw: Callable[[], float]) -> None:
        super().__init__(scenario, upstreams, clock, draw)
        self._next = 0

    async def answer(self, asked: Asked) -> tuple[int, float | None]:
        tried: set[int] = set()
        while (place := self._turn(tried)) is not None:
            tried.add(place)
            if await self.attempt(place, asked) == 200:
                return 200, None
        return self.refused(429)

    def _turn(self, tried: set[int]) -> int | None:
        now, count = self.clock.mono(), len(self.keys)
        for _ in range(count):
            place, self._next = self._next, (self._next + 1) % count
            if place not in tried and self.until[place] <= now:
                return place
        return None


class LeastUsed(Baseline):
    """The key with the fewest requests of this minute, of those below their declared limits by counts of our own: in
    fixed windows, counted when the answer has come, as is usual. One that fails rests a minute."""

    def __init__(self, scenario: Scenario, upstreams: Upstreams, clock: Clock, draw: Callable[[], float]) -> None:
        super().__init__(scenario, upstreams, clock, draw)
        told = {name: declared_of(upstream) for name, upstream in scenario.providers.items()}
        self._books = [_Book(told[key.provider]) for key in self.keys]

    async def answer(self, asked: Asked) -> tuple[int, float | None]:
        tried: set[int] = set()
        while (place := self._least(asked, tried)) is not None:
            tried.add(place)
            status = await self.attempt(place, asked)
            self._books[place].count(self.clock.wall(), asked.judged, asked.output if status == 200 else 0)
            if status == 200:
                return 200, None
        return self.refused(429)

    def _least(self, asked: Asked, tried: set[int]) -> int | None:
        now, wall = self.clock.mono(), self.clock.wall()
        best: tuple[int, float] | None = None
        found = None
        for place, book in enumerate(self._books):
            if place in tried or self.until[place] > now or not book.fits(wall, asked.judged):
                continue
            key = (book.minute(wall), self.draw())
            if best is None or key < best:
                best, found = key, place
        return found


class _Book:
    """What one key used, in fixed windows of our own clock."""

    __slots__ = ("_limits", "_window")

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits = {name: value for name, value in limits.items() if name in WINDOWS}
        self._window: dict[str, tuple[int, int]] = {}

    def fits(self, wall: float, tokens: int) -> bool:
        for name, limit in self._limits.items():
            if self._used(name, wall) + (1 if name[0] == "r" else tokens) > limit:
                return False
        return True

    def minute(self, wall: float) -> int:
        return self._used("rpm", wall)

    def count(self, wall: float, input: int, output: int) -> None:
        for name in {*self._limits, "rpm"}:
            used = self._used(name, wall) + (1 if name[0] == "r" else input + output)
            self._window[name] = (int(wall // WINDOWS[name]), used)

    def _used(self, name: str, wall: float) -> int:
        window, used = self._window.get(name, (0, 0))
        return used if window == int(wall // WINDOWS[name]) else 0


class Random(Baseline):
    """Any key that does not rest; three retries, a second, two and four later."""

    async def answer(self, asked: Asked) -> tuple[int, float | None]:
        ends = self.clock.mono() + asked.patience
        for retry in range(RETRIES + 1):
            now = self.clock.mono()
            ready = [place for place, until in enumerate(self.until) if until <= now]
            if ready and await self.attempt(ready[int(self.draw() * len(ready))], asked) == 200:
                return 200, None
            if retry < RETRIES and self.clock.mono() + BACKOFF[retry] < ends:
                await self.clock.sleep_until(self.clock.mono() + BACKOFF[retry])
        return self.refused(429)


BASELINES: dict[str, type[Baseline]] = {"round_robin": RoundRobin, "least_used": LeastUsed, "random": Random}
