"""Measures how hard this process is pressed, and counts its connections: what the gateway's strain is told."""

from __future__ import annotations

import ipaddress
from collections import Counter

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
FILES_APART = 200 + MOST_LINGERING
"""Open files that belong to no accepted connection and to no upstream's."""


class Guard:
    """One per server. `admit` and `release` for each connection, `start` and `stop` around all of them."""

    def __init__(
        self, clock: Clock, strain: Strain, most: int, most_per_ip: int = 0, limit: int = 0, workers: int = 1
    ) -> None:
        """*most* connections together, *most_per_ip* from one address (0: no bound); *limit*: bytes of memory that this
        process may use, 0: its part, one of *workers*, of what the container or the system allows."""
        self.closing = False
        """The gateway stops: every connection ends with its next answer."""
        self.lingering = 0
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

    def admit(self, ip: str) -> str:
        """Takes a connection from *ip*, to be released; else `total` or `per_ip`, the bound that it would break."""
        strain = self._strain
        refused = ""
        if strain.connections >= self._most:
            refused = "total"
        elif self._most_per_ip:
            place = network_of(ip)
            if self._by_ip[place] >= self._most_per_ip:
                refused = "per_ip"
            else:
                self._by_ip[place] += 1
        if refused:
            strain.refused[refused] += 1
        else:
            strain.connections += 1
        return refused

    def release(self, ip: str) -> None:
        """A connection that was taken is gone."""
        self._strain.connections -= 1
        if self._most_per_ip:
            place = network_of(ip)
            self._by_ip[place] -= 1
            if self._by_ip[place] <= 0:
                del self._by_ip[place]

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
