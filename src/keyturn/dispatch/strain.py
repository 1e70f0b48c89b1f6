"""How hard the process itself is pressed, and which calls are refused for it: values in, decisions out, no clock."""

from __future__ import annotations

from collections import Counter, deque

from keyturn.core import Caller, CallerClass
from keyturn.errors import Overloaded

WINDOW = 3.0
"""Seconds that are looked back on."""
LATE = (0.1, 0.5)
"""By how many seconds the event loop is late when class batch is refused, and when class normal is too."""
SHARES = (0.6, 0.9)
"""Of the window, how much of it must have been so late, for each of the two."""
CALM = 0.1
"""When so little of the window was later than half of that, they are taken again."""
LONGEST = 2.0
"""Seconds that one stall counts at most, unless it follows on another: one that is over is no reason to refuse what is
not batch."""
FULL, EASED = 0.85, 0.8
"""Shares of the memory limit at which large requests are refused, and below which they are taken again."""
SMALL_BODY = 64 * 1024
"""Bytes of a request that is taken even then."""
CLASS_HEADER = b"x-keyturn-class"
_RANKS: dict[str, int] = {"interactive": 2, "normal": 1, "batch": 0}
_CLASSES: tuple[CallerClass, ...] = ("batch", "normal", "interactive")


class Strain:
    """What was measured, and what follows from it. *on* is all that a call looks at while nothing is wrong."""

    def __init__(self) -> None:
        self.on = False
        """Something is refused: look closer."""
        self.level = 0
        """Classes that are refused for lag: 0 none, 1 batch, 2 batch and normal."""
        self.full = False
        """Memory is short: no request above 64 KiB is taken."""
        self.lag = 0.0
        """Seconds that the event loop was late, the largest of the last three seconds."""
        self.resident = 0
        """Bytes of this process in memory; 0 when the system does not say."""
        self.memory_limit = 0
        """Bytes that it may use; 0 when nobody says."""
        self.connections = 0
        """Open connections of clients."""
        self.refused: Counter[str] = Counter()
        """Connections that were refused: `total`, `per_ip`."""
        self.shed: Counter[tuple[str, str]] = Counter()
        """Calls that were refused, by class and reason: `lag`, `memory`."""
        self._stalls: deque[tuple[float, float, float]] = deque()
        """When each measurement was made, what stretch of time it speaks of, how late it was."""

    def measured(self, now: float, stretch: float, late: float) -> None:
        """The loop was *late* by so many seconds, measured over the *stretch* of seconds until *now*."""
        stalls = self._stalls
        again = bool(stalls) and stalls[-1][2] > LATE[1]
        stalls.append((now, stretch if again else min(stretch, LONGEST), late))
        while stalls[0][0] <= now - WINDOW:
            stalls.popleft()
        self.lag = max(each[2] for each in stalls)
        level = self.level
        if level < 2 and self._share(LATE[1]) >= SHARES[1]:
            level = 2
        elif level < 1 and self._share(LATE[0]) >= SHARES[0]:
            level = 1
        while level and level <= self.level and self._share(LATE[level - 1] / 2) < CALM:
            level -= 1
        self.level = level
        self.on = bool(level) or self.full

    def weighed(self, resident: int) -> None:
        """The process holds *resident* bytes of memory."""
        self.resident = resident
        if self.memory_limit:
            self.full = resident > (EASED if self.full else FULL) * self.memory_limit
            self.on = self.full or bool(self.level)

    def admit(self, caller: Caller, stated: bytes, length: int) -> None:
        """Raises Overloaded when a call of *caller*, whose `x-keyturn-class` is *stated*, is not taken now.

        *length*: bytes of its body as announced.
        """
        rank = class_of(caller, stated)
        if _RANKS[rank] < self.level:
            self.shed[rank, "lag"] += 1
            raise Overloaded(
                f"the gateway has too much to do and refuses calls of class {rank} for a moment; ask again then",
                retry_after=WINDOW,
            )
        if self.full and length > SMALL_BODY:
            raise self.too_full(caller, stated)

    def too_full(self, caller: Caller, stated: bytes) -> Overloaded:
        """The refusal of a call whose body is too large for the memory that is left."""
        self.shed[class_of(caller, stated), "memory"] += 1
        return Overloaded(
            f"the gateway is short of memory and takes no request above {SMALL_BODY // 1024} KiB for a moment",
            retry_after=WINDOW,
        )

    def told(self) -> str:
        """What is refused, in a few words for who looks after it; `none`."""
        words = [("", "calls of class batch are refused", "calls of class batch and normal are refused")[self.level]]
        if self.full:
            words.append("requests above 64 KiB are refused for lack of memory")
        return "; ".join(filter(None, words)) or "none"

    def _share(self, late: float) -> float:
        return sum(stretch for _, stretch, by in self._stalls if by > late) / WINDOW


def class_of(caller: Caller, stated: bytes) -> CallerClass:
    """The class of a call: that of its caller, unless the call itself (*stated*) asks for a lower one."""
    if not stated:
        return caller.rank
    rank = _RANKS[caller.rank]
    return _CLASSES[min(rank, _RANKS.get(stated.decode("latin-1").strip().lower(), rank))]
