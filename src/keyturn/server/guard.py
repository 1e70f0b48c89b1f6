"""Measures how hard this process is pressed, and says which connections it has room for."""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from math import inf
from typing import Literal, Protocol

from keyturn.core import Clock, TimerHandle
from keyturn.dispatch import Strain

from .memory import Resident, give_back, memory_limit

EVERY = 0.1
"""Seconds between two looks at how late the event loop is."""
WEIGHED_EVERY = 10
"""Every so many looks memory is measured too."""
GIVES_BACK_EVERY = 100
"""Every so many looks at most, while memory is short, what is free is handed back to the system."""
MOST_LINGERING = 256
"""Refused connections that are kept for a moment, so that their clients see why; those beyond are closed at once."""
RESERVE = 16
"""Connections beyond the bound that may say what they want: who looks after the gateway is answered all the same."""
FILES_APART = 200 + MOST_LINGERING + RESERVE
"""Open files that belong to no accepted connection and to no upstream's."""
LEAST_IDLE = 1.0
"""Seconds without a request after which a connection may have to make room: a client is likely to use it before."""
MOST_ASKED = 16
"""Idle connections that are asked to make room for one."""
TOLD_EVERY = 60.0
"""Seconds at least between two lines of the log that connections are refused."""

Bound = Literal["", "total", "per_ip"]
"""The bound that one connection more would break; empty: none."""
BOUNDS: dict[Bound, str] = {
    "total": "as many connections as it takes (server.max_connections)",
    "per_ip": "as many connections from this address as it takes (server.max_connections_per_ip)",
}

_log = logging.getLogger("keyturn.server")


class Connection(Protocol):
    """What the guard asks of one."""

    def make_room(self) -> bool:
        """End now and release the place, as it is idle; False when the client has an answer left to read."""
        ...

    def refuse(self) -> None:
        """End, as it was not admitted: its client is told so."""
        ...


class Guard:
    """One per server. `admit` and `release` for each connection, `start` and `stop` around all of them.

    At the bound of all connections the one that is idle for longest makes room for the next. Who is not admitted even
    so may be `heard`: it has a place in the reserve until it has said what it wants, or another one needs the place.
    """

    def __init__(
        self, clock: Clock, strain: Strain, most: int, most_per_ip: int = 0, limit: int = 0, workers: int = 1
    ) -> None:
        """*most* connections together, *most_per_ip* from one address (0: no bound); *limit*: bytes of memory that this
        process may use, 0: its part, one of *workers*, of what the container or the system allows."""
        self.closing = False
        """The gateway stops: every connection ends with its next answer."""
        self.lingering = 0
        self.idle: dict[Connection, float] = {}
        """Connections that await a request, and since when; the longest idle first."""
        self._unheard: dict[Connection, None] = {}
        """Those in the reserve that have not said what they want, the oldest first."""
        self._heard: set[Connection] = set()
        """Those in the reserve that are answered."""
        self._told_at = -inf
        """When the log last told of refused connections."""
        self._clock = clock
        self._strain = strain
        self._most = most
        self._most_per_ip = most_per_ip
        self._by_ip: Counter[str] = Counter()
        self._memory = Resident()
        strain.memory_limit = limit or memory_limit() // max(workers, 1)
        self._timer: TimerHandle | None = None
        self._due = self._last = 0.0
        self._looks = 0
        self._gives_back_at = 0

    def start(self) -> None:
        """Measure from now on."""
        self._strain.weighed(self._memory.read())
        self._last = self._clock.mono()
        self._set()

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._memory.close()

    def admit(self, ip: str) -> Bound:
        """Takes a connection from *ip*, to be released; else the bound that it would break."""
        most_per_ip = self._most_per_ip
        if most_per_ip and self._by_ip[network_of(ip)] >= most_per_ip:
            return "per_ip"
        if self._strain.connections >= self._most and not self._makes_room():
            return "total"
        if most_per_ip:
            self._by_ip[network_of(ip)] += 1
        self._strain.connections += 1
        return ""

    def release(self, ip: str) -> None:
        """A connection that was taken is gone."""
        self._strain.connections -= 1
        if self._most_per_ip:
            place = network_of(ip)
            self._by_ip[place] -= 1
            if self._by_ip[place] <= 0:
                del self._by_ip[place]

    def hear(self, connection: Connection) -> bool:
        """Whether a connection that was not admitted may say what it wants. The oldest that has not may lose its place
        for it; `leave` ends it."""
        if len(self._unheard) + len(self._heard) >= RESERVE:
            if not self._unheard:
                return False
            oldest = next(iter(self._unheard))
            del self._unheard[oldest]
            oldest.refuse()
        self._unheard[connection] = None
        return True

    def answer(self, connection: Connection) -> None:
        """One of the reserve is answered: it keeps its place until it leaves."""
        if connection in self._unheard:
            del self._unheard[connection]
            self._heard.add(connection)

    def is_unheard(self, connection: Connection) -> bool:
        """Whether it is in the reserve and nothing is decided."""
        return connection in self._unheard

    def leave(self, connection: Connection) -> None:
        """It is not in the reserve any more, if it was."""
        self._unheard.pop(connection, None)
        self._heard.discard(connection)

    def refused(self, bound: Bound) -> None:
        """Counts a connection that was told so, and tells of it once a minute."""
        refused, now = self._strain.refused, self._clock.mono()
        refused[bound] += 1
        if now - self._told_at >= TOLD_EVERY:
            self._told_at = now
            _log.warning("connections are refused, %d so far: the gateway has %s", refused.total(), BOUNDS[bound])

    def _makes_room(self) -> bool:
        """Whether a connection that was idle made room for another one."""
        if not self.idle:
            return False
        before = self._clock.mono() - LEAST_IDLE
        for _ in range(min(len(self.idle), MOST_ASKED)):
            connection = next(iter(self.idle))
            if self.idle[connection] > before:
                return False
            if connection.make_room():
                return True
            self.idle[connection] = self.idle.pop(connection)  # it is asked last the next time
        return False

    def _set(self) -> None:
        self._due = self._clock.mono() + EVERY
        self._timer = self._clock.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._clock.mono()
        try:
            self._strain.measured(now, now - self._last, max(0.0, now - self._due))
            self._last = now
            self._looks += 1
            if self._looks % WEIGHED_EVERY == 0:
                self._weigh()
        finally:
            self._set()  # whatever happened: nobody else would take back what is refused

    def _weigh(self) -> None:
        self._strain.weighed(self._memory.read())
        if self._strain.full and self._looks >= self._gives_back_at:
            self._gives_back_at = self._looks + GIVES_BACK_EVERY
            give_back()
            self._strain.weighed(self._memory.read())


def network_of(ip: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, which one site has to itself."""
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip.partition("%")[0])
    except ValueError:
        return ip
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else f"{int(address) >> 64:x}"


def room_for_connections(wanted: int) -> int:
    """How many connections the limit of open files leaves room for, at most *wanted*; that limit is raised first.

    A call needs two, for its client and its upstream.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    needed = 2 * wanted + FILES_APART
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (OSError, ValueError):  # macOS has a bound of its own below an infinite one
            pass
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    return max((soft - FILES_APART) // 2, 1)
