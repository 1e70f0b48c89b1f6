"""Admission decisions on every kind of window, judged by exact logs: nothing may be admitted above a limit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from keyturn.core import Cost, Limit, Meters, Usage, Window, claims

DAY = 86_400.0
KINDS: list[list[tuple[str, Window, int]]] = [
    [("requests", Window("rolling", 60.0), 30), ("tokens", Window("rolling", 60.0), 20_000)],
    [("requests", Window("rolling", DAY), 400), ("input_tokens", Window("rolling", 60.0), 9_000)],
    [("requests", Window("calendar", DAY, "UTC"), 500), ("concurrency", Window("inflight", 0.0), 4)],
    [("tokens", Window("bucket", DAY), 100_000), ("output_tokens", Window("rolling", 60.0), 5_000)],
]
"""The limits of each pool of counters under test: every window and every metric."""


class Log:
    """An exact log of what was charged to one limit: the judge, which shares no code with the counters."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.held = 0
        self._entries: deque[list[float]] = deque()
        self._sum = 0.0
        self._level_at = 0.0

    def used(self, now: float) -> float:
        """Units that count at *now*, by the definition of the window."""
        window = self.limit.window
        if window.kind == "bucket":
            self._sum = max(0.0, self._sum - (now - self._level_at) * self.limit.capacity / window.seconds)
            self._level_at = now
        elif window.kind == "rolling":
            self._forget(now - window.seconds)
        elif window.kind == "calendar":
            self._forget(now // DAY * DAY - 1e-9)
        return self._sum

    def _forget(self, until: float) -> None:
        while self._entries and self._entries[0][0] <= until:
            self._sum -= self._entries.popleft()[1]

    def charge(self, now: float, units: float) -> list[float]:
        self.used(now)
        self._sum += units
        entry = [now, units]
        if self.limit.window.kind != "bucket":
            self._entries.append(entry)
        return entry

    def correct(self, entry: list[float], units: float, now: float) -> None:
        """A charge turned out smaller; one that has left the window or drained away stays as it was."""
        self.used(now)
        if self._entries and entry[0] >= self._entries[0][0]:
            self._sum += units - entry[1]
            entry[1] = units


class Attempt:
    """One reservation, and what it will really use."""

    def __init__(self, id: str, logs: list[Log], cost: Cost, usage: Usage | None) -> None:
        self.id = id
        self.cost = cost
        self.usage = usage
        self.parts = [(log, self._units(log, cost.input, cost.output)) for log in logs]
        self.entries: list[tuple[Log, list[float]]] = []

    def _units(self, log: Log, input: int, output: int) -> int:
        table = {"tokens": input + output, "input_tokens": input, "output_tokens": output}
        return table.get(log.limit.metric, 1)

    def over(self, now: float) -> str:
        """Which exact log says that this should not have been admitted; empty when none does."""
        for log, units in self.parts:
            if log.used(now) + log.held + units > log.limit.capacity + 1e-6:
                return f"{log.limit} had {log.used(now):.1f} used, {log.held} held, and {units} more were admitted"
        return ""

    def hold(self, sign: int) -> None:
        for log, units in self.parts:
            log.held += sign * units

    def count(self, now: float) -> None:
        """The provider has it: what it counts at admission moves from held to the log."""
        for log, units in self.parts:
            if log.limit.metric not in ("output_tokens", "concurrency"):
                # A bucket drains meanwhile, so the log takes what is certain from the start and is never corrected.
                sure = min(units, self._actual(log, units)) if log.limit.window.kind == "bucket" else units
                log.held -= units
                self.entries.append((log, log.charge(now, sure)))

    def settle(self, now: float, *, counted: bool) -> None:
        charged = {id(log) for log, _ in self.entries}
        for log, units in self.parts:
            if counted and log.limit.metric == "output_tokens":
                log.charge(now, self._actual(log, units))
            if id(log) not in charged:
                log.held -= units
        for log, entry in self.entries:
            units = next(units for other, units in self.parts if other is log)
            actual = self._actual(log, units)
            if actual < units:
                log.correct(entry, actual, now)
            elif actual > units:
                log.charge(now, actual - units)

    def _actual(self, log: Log, units: int) -> int:
        return units if self.usage is None else self._units(log, self.usage.input, self.usage.output)


def limits(size: int, seed: int) -> list[str]:
    """*size* admission decisions on every kind of window against exact logs: nothing may be admitted above a limit."""
    random = Random(seed)
    meters = Meters()
    pools = []
    for number in range(4 * len(KINDS)):
        pool = [Limit(f"pool-{number}", *kind, "declared") for kind in KINDS[number % len(KINDS)]]  # type: ignore[arg-type]
        meters.declare(f"pool-{number}", pool)
        pools.append((pool, [Log(limit) for limit in pool]))
    found: list[str] = []
    seen: Counter[str] = Counter()
    coming: list[tuple[float, int, Callable[[float], None]]] = []
    now, serial = 0.0, 0

    def later(delay: float, what: Callable[[float], None]) -> None:
        nonlocal serial
        serial += 1
        heappush(coming, (now + delay, serial, what))

    def count(attempt: Attempt, at: float) -> None:
        meters.counted(attempt.id, at)
        attempt.count(at)

    def settle(attempt: Attempt, at: float) -> None:
        meters.settle(attempt.id, attempt.usage, at)
        attempt.settle(at, counted=True)

    def give_up(attempt: Attempt, at: float) -> None:
        meters.release(attempt.id)
        attempt.settle(at, counted=False)

    for decision in range(size):
        # Mostly dense, sometimes an idle spell or a night.
        now += (
            random.choice((0.0, 0.001, 0.05, 0.3)) if random.random() < 0.9998 else random.choice((30.0, 4_000.0, DAY))
        )
        while coming and coming[0][0] <= now:
            at, _, what = heappop(coming)
            what(at)
        pool, logs = pools[random.randrange(len(pools))]
        cost = Cost(random.randint(1, 1_500), random.randint(1, 400), 1)
        attempt = Attempt(f"{decision:x}", logs, cost, _usage(random, cost))
        if meters.reserve(attempt.id, claims(pool, cost), now) is not None:
            seen["denied"] += 1
            continue
        seen["admitted"] += 1
        if wrong := attempt.over(now):
            found.append(f"decision {decision} at {now:.3f}: {wrong}")
        attempt.hold(+1)
        sent = random.random() * 0.5
        if random.random() < 0.1:
            later(sent, lambda at, attempt=attempt: give_up(attempt, at))  # type: ignore[misc]
        else:
            later(sent, lambda at, attempt=attempt: count(attempt, at))  # type: ignore[misc]
            later(sent + random.expovariate(0.2), lambda at, attempt=attempt: settle(attempt, at))  # type: ignore[misc]
    for at, _, what in sorted(coming, key=lambda item: item[:2]):
        what(at)
    if meters.held():
        found.append(f"{meters.held()} reservations are open at the end")
    print(
        f"limits: {size:,} decisions, {seen['admitted']:,} admitted, {seen['denied']:,} denied, {now / DAY:,.0f} days"
    )
    return found


def _usage(random: Random, cost: Cost) -> Usage | None:
    """Mostly less than was charged, sometimes more, sometimes never told."""
    if random.random() < 0.1:
        return None
    share = random.uniform(0.1, 1.0) if random.random() < 0.8 else random.uniform(1.0, 2.0)
    return Usage(int(cost.input * share), int(cost.output * share))
