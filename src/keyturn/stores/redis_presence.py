"""Who shares a Redis, what its clock says, and whether it still knows what it knew: one heartbeat tells all three."""

from __future__ import annotations

import hashlib
from collections import deque
from math import inf
from typing import Any

from keyturn.core import Draw

from .redis_scripts import part
from .redis_wire import packed

KEPT = 60
"""Samples of the clock, one each heartbeat: those of a minute, so that a drifting clock is followed."""
SEEN_FOR = 5.0
"""Seconds for which a gateway counts as present after its last heartbeat, in `lua/presence.lua` as well."""
REMEMBERED = 3600.0
"""Seconds for which Redis remembers a heartbeat, in `lua/presence.lua` as well."""
SET_BY = 0.005
"""Seconds by which two samples may disagree beyond their round trips; more: Redis's clock was set."""


class Presence:
    """This gateway among those that share *prefix*. Pure: it makes the command and reads its reply.

    `shift` is Redis's time (Unix seconds) minus our monotonic time, by the sample with the least round trip.
    """

    def __init__(self, prefix: str, draw: Draw) -> None:
        self.source = part("presence")
        self.id = f"{int(draw() * 2**53):014x}"
        self.epoch: bytes | None = None
        """What the data in Redis is called; None before the first heartbeat."""
        self.shift = 0.0
        self.rewound = inf
        """The moment of Redis's clock after which it lost what it was told, by the last heartbeat; infinite: none."""
        self._seen = 0
        """The moment of the last heartbeat that was answered, in ms."""
        self._samples: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._counts: deque[tuple[float, int]] = deque()
        self._draw = draw
        self._present, self._epoch = f"{{{prefix}}}:present", f"{{{prefix}}}:epoch"
        self._own = f"{{{prefix}}}:seen:{self.id}"
        self._sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @property
    def replicas(self) -> int:
        """The most gateways that were present within the last seconds; at least 1.

        The most, so that those who come back one by one after a loss do not each believe to be alone.
        """
        return max((count for _, count in self._counts), default=1)

    def beat(self) -> bytes:
        """The command of a heartbeat."""
        fresh = f"{int(self._draw() * 2**53):014x}"
        return packed(("EVALSHA", self._sha, 3, self._present, self._epoch, self._own, self.id, fresh))

    def leave(self) -> bytes:
        """The command that takes this gateway from among the others."""
        return packed(("ZREM", self._present, self.id))

    def heard(self, reply: Any, asked: float, now: float) -> bool:
        """Read the reply of a heartbeat, sent at *asked*. True when Redis lost all that it knew when we last asked;
        what it lost of late only, `rewound` tells.

        Raises ValueError for a reply of another shape.
        """
        try:
            seconds, micros, count, epoch = int(reply[0]), int(reply[1]), int(reply[2]), bytes(reply[3])
            before = int(reply[4] or 0)
        except (TypeError, IndexError) as error:
            raise ValueError("the heartbeat was answered by something else") from error
        self._sample(seconds + micros / 1e6, asked, now)
        self._count(count, now)
        lost = self.epoch is not None and self.epoch != epoch
        self.epoch = epoch
        seen = seconds * 1000 + micros // 1000
        missing = before < self._seen and seen - self._seen < REMEMBERED * 1000
        self.rewound = before / 1000 if missing and not lost else inf
        self._seen = seen
        return lost

    def _sample(self, time: float, asked: float, now: float) -> None:
        trip, shift = now - asked, time - (asked + now) / 2
        if self._samples and abs(shift - self.shift) > SET_BY + (trip + min(self._samples)[0]) / 2:
            self._samples.clear()
        self._samples.append((trip, shift))
        self.shift = min(self._samples)[1]

    def _count(self, count: int, now: float) -> None:
        counts = self._counts
        if counts and counts[-1][0] <= now - SEEN_FOR:  # after a loss the others may not have come back yet
            most = self.replicas
            counts.clear()
            counts.append((now, most))
        while counts and counts[0][0] <= now - SEEN_FOR:
            counts.popleft()
        counts.append((now, max(1, count)))
