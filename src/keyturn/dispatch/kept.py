"""Answers that are kept to be given again: in the memory of this process, bounded in number, in bytes and in time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from .reply import Reply

BLOCK = 16 * 1024
"""Bytes of a stream that are written together when it is given again; what came as one piece is never divided."""
OVERHEAD = 1024
"""Bytes that an answer takes up beside its content."""
OWN_HEADERS = frozenset({b"x-keyturn-call", b"request-id", b"x-keyturn-attempts", b"x-keyturn-cache", b"age"})
"""Headers that tell of one call, not of its answer."""


class Kept:
    """One complete answer. *blocks* is None when it came as a whole."""

    __slots__ = ("blocks", "body", "born", "headers", "size")

    def __init__(self, reply: Reply, born: float, pieces: Iterable[bytes] | None = None) -> None:
        self.headers = lasting(reply)
        self.body = b"" if pieces is not None else reply.body
        self.blocks = tuple(_joined(pieces)) if pieces is not None else None
        self.born = born
        """When it was complete, in monotonic seconds."""
        self.size = OVERHEAD + len(self.body) + sum(map(len, self.blocks or ()))


class KeptAnswers:
    """Key -> answer, each for *ttl* seconds. What was not asked for longest goes first when there is no room."""

    def __init__(self, ttl: float, max_entries: int, max_bytes: int) -> None:
        self._ttl = ttl
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._by_use: OrderedDict[bytes, Kept] = OrderedDict()
        """The one not asked for longest is first."""
        self._by_age: OrderedDict[bytes, None] = OrderedDict()
        """The same keys, oldest first: all are kept for as long, so the first is the first to expire."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_use)

    def get(self, key: bytes, now: float) -> Kept | None:
        """The answer that is kept under *key*, if it is not too old at *now*."""
        self.expire(now)
        kept = self._by_use.get(key)
        if kept is not None:
            self._by_use.move_to_end(key)
        return kept

    def put(self, key: bytes, kept: Kept, now: float) -> None:
        """Keep *kept*, in place of what was kept under *key*; one that has no room at all is not kept."""
        self.expire(now)
        self._drop(key)
        if kept.size > self._max_bytes:
            return
        self._by_use[key] = kept
        self._by_age[key] = None
        self.bytes += kept.size
        while self.bytes > self._max_bytes or len(self._by_use) > self._max_entries:
            self._drop(next(iter(self._by_use)))

    def expire(self, now: float) -> None:
        """Forget what is too old at *now*; only that is looked at."""
        while self._by_age:
            oldest = next(iter(self._by_age))
            if self._by_use[oldest].born + self._ttl > now:
                return
            self._drop(oldest)

    def clear(self) -> None:
        """Forget everything."""
        self._by_use.clear()
        self._by_age.clear()
        self.bytes = 0

    def _drop(self, key: bytes) -> None:
        kept = self._by_use.pop(key, None)
        if kept is not None:
            del self._by_age[key]
            self.bytes -= kept.size


def lasting(reply: Reply) -> list[tuple[bytes, bytes]]:
    """The headers of *reply* that another call with the same answer gets as well."""
    return [(name, value) for name, value in reply.headers if name not in OWN_HEADERS]


def _joined(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """*pieces*, small ones together."""
    block: list[bytes] = []
    size = 0
    for piece in pieces:
        if block and size + len(piece) > BLOCK:
            yield b"".join(block)
            block, size = [], 0
        block.append(piece)
        size += len(piece)
    if block:
        yield b"".join(block)
