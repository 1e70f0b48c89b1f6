"""What a call has to expect that cannot be answered at once: its place in the line, and when its turn will be."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keyturn.core import (
    CallerClass,
    Cost,
    Crowd,
    Deployment,
    Entry,
    Exhausted,
    Foreseen,
    KeySupply,
    Limit,
    Promise,
    Refill,
    Supply,
    Weighed,
    claims,
    expected_until,
    returns_of,
    work_before,
)

from .lines import FOREVER, HOLDS, Bundle, Held, Line, Made, Supplies
from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway
    from .generation import Generation

TOKENS = frozenset({"tokens", "input_tokens", "output_tokens"})
LOOKED_AT = 4
"""Keys of a deployment that are looked at for limits in tokens, and for the limit that a client is told."""
MOST_KEYS = 24
"""Keys of a deployment whose limits are looked at for its supply, at most; of all together about twice as many. The
others of it are taken to be like them."""
MOST_DEPLOYMENTS = 8
MOST_LINES = 64
"""Lines of which it is kept in mind what was worked out: supplies, where nobody waits; crowds; whether
tokens count."""
STEADY, LONGEST = 0.0005, 1.0
"""Seconds, for each caller and at most, that a large crowd is believed to be as it was, if few calls were compared
with it since."""
AS_IT_WAS = 0.1
"""How many those are, for each caller of it."""
FEW = 24
"""Callers up to which a crowd is looked at anew for each call."""
PACE = 60.0
"""Seconds over which it is measured how fast calls are served, where the end of others decides."""
LEAST_SERVED = 3
"""So many make a pace."""
PARTS = (0.25, 0.5, 1.0)
"""Of the time that a call would wait: it is let in if its turn comes within one of them."""
AHEAD = tuple(5.0 * 2**each for each in range(10))
"""Seconds that promises are looked at ahead where many callers have some."""
ROUNDS = 3
"""How often it is looked at anew who will have come by a call's turn, and go before it."""
NEAR = 0.5
"""Seconds by which that must change the turn to be looked at again."""
CANDIDATES = 16
"""Keys of which it is worked out when a call that is too large for all of them will fit."""


class _Known:
    """A large crowd, and until when and for how many calls more it is believed to be as it was."""

    __slots__ = ("crowd", "left", "until")

    def __init__(self, crowd: Crowd, until: float, left: int) -> None:
        self.crowd = crowd
        self.until = until
        self.left = left


class Foreseeing:
    """By the pools of one configuration."""

    def __init__(self, generation: Generation, gateway: Gateway) -> None:
        self._pools = generation.pools
        self._clock = gateway.clock
        self._live = gateway.live
        self._marks = gateway.marks
        self._room = gateway.room
        self._supplies: dict[tuple[Deployment, ...], Supplies] = {}
        self._counting: dict[tuple[Deployment, ...], tuple[float, bool]] = {}
        """Until when it is believed whether these count tokens, and whether they do."""
        self._crowds: dict[tuple[tuple[Deployment, ...], bool, float], _Known] = {}

    def counts_tokens(self, run: Run) -> bool:
        """Whether limits in tokens hold for who may answer *run*. Believed for a second."""
        now, known = self._clock.mono(), self._counting.get(run.deployments)
        if known is not None and known[0] > now:
            return known[1]
        counts = any(
            limit.metric in TOKENS
            for deployment in run.deployments
            for entry in self._pools.of(deployment).entries[:LOOKED_AT]
            for scope in entry.limit_scopes
            for limit in self._live.limits(scope)
        )
        if len(self._counting) >= MOST_LINES:
            self._counting.clear()
        self._counting[run.deployments] = now + HOLDS, counts
        return counts

    def within(self, run: Run, line: Line, short: Exhausted, cost: Cost, patience: float) -> Foreseen:
        """When it would be the turn of *run* if it began to wait in *line* for *patience* seconds at most.

        Who was told to come back before that has the right of way, as far as it will come back.
        """
        if not self._room.promises.concerns(line.deployments, self._clock.mono()):
            return self.look(run, line, short, cost)
        for part in PARTS:
            seen = self.look(run, line, short, cost, ahead=part * patience)
            if seen.wait is None or seen.wait <= part * patience:
                break
        return seen

    def look(self, run: Run, line: Line, short: Exhausted, cost: Cost, *, ahead: float = 0.0) -> Foreseen:
        """When it would be the turn of *run* if it began to wait in *line*. *ahead*: reckoning with those who were told
        to come back within so many seconds; infinite: with all of them, as if they were sure to come."""
        bundle = self._room.bundle(line)
        counts = self.counts_tokens(run) if bundle is None else bundle.shares.counts_tokens
        wants = self._others_and(run, line, bundle, counts=counts, ahead=ahead)
        callers = [each for others in wants.values() for each in others.values() if each.calls]
        if not callers:
            return Foreseen(short.wait if short.wait < FOREVER else None, 1)
        own = cost.input + cost.output if counts else 1
        usual = (sum(each.work for each in callers) + own) / (sum(each.calls for each in callers) + 1.0)
        rank, name, weight = run.rank, run.caller.name, run.caller.weight
        work, calls = work_before(wants, rank, name, weight, own)
        wait, coming = self._when(line, bundle, short, cost, usual, work), 0.0
        for _ in range(ROUNDS):
            if wait is None or wait <= coming + NEAR:
                break
            coming = wait
            work, _ = work_before(wants, rank, name, weight, own, coming)
            wait = self._when(line, bundle, short, cost, usual, work)
        return Foreseen(wait, max(1, round(calls)))

    def _others_and(
        self, run: Run, line: Line, bundle: Bundle[Grant] | None, *, counts: bool, ahead: float
    ) -> dict[CallerClass, dict[str, Weighed]]:
        """What everybody wants who stands before *run*, its own caller by itself; its calls that come later do not.
        *ahead*: see `look`."""
        promises, now = self._room.promises, self._clock.mono()
        if not promises.concerns(line.deployments, now):
            ahead = 0.0
        elif promises.callers > FEW and 0.0 < ahead < FOREVER:  # else each patience makes a crowd of its own
            ahead = next((each for each in AHEAD if ahead <= each), ahead)
        crowd = self._crowd(line, bundle, counts=counts, ahead=ahead)
        rank, name = run.rank, run.caller.name
        own = None if bundle is None else bundle.has(rank, name)
        if ahead:
            own = promises.wants_of(rank, name, own, line.deployments, counts=counts, until=now + ahead)
        if run.place is not None and own is not None:  # those that came after it stand behind it
            own = self._room.earlier(line, (rank, name), run.place)._replace(weight=run.caller.weight)
            if ahead and not run.came_back:
                own = promises.wants_of(rank, name, own, line.deployments, counts=counts, until=now + ahead)
        return crowd.besides(rank, name, own)

    def _crowd(self, line: Line, bundle: Bundle[Grant] | None, *, counts: bool, ahead: float) -> Crowd:
        """What everybody wants, as it is; of a large crowd as it was a moment ago."""
        now, key = self._clock.mono(), (line.deployments, counts, ahead)
        known = self._crowds.get(key)
        if known is not None and known.left > 0 and now < known.until:
            known.left -= 1
            return known.crowd
        wants = {} if bundle is None else bundle.wants()
        if ahead:
            wants = self._room.promises.wants(line.deployments, wants, counts=counts, until=now + ahead)
        demand = self._room.demand
        for rank, callers in wants.items():
            for caller, each in callers.items():
                work, calls = demand.coming(line.deployments, rank, caller, now)
                if calls:
                    callers[caller] = Weighed(each.weight, each.work, each.calls, work, calls)
        crowd = Crowd(wants)
        if crowd.size > FEW:
            if len(self._crowds) >= MOST_LINES:
                self._crowds.clear()
            until = now + min(STEADY * crowd.size, LONGEST)
            self._crowds[key] = _Known(crowd, until, int(crowd.size * AS_IT_WAS))
        else:
            self._crowds.pop(key, None)
        return crowd

    def of_waiter(self, run: Run, short: Exhausted | None = None) -> Foreseen | None:
        """The same for *run* while it waits; None when it does not. *short*: what keeps it away, where that is known
        better than when its line was last served."""
        line = self._room.line_of(run.place) if run.place is not None else None
        bundle = self._room.bundle(line) if line is not None else None
        if run.place is None or line is None or bundle is None:
            return None
        work, calls = self._room.before(run.place)
        usual = bundle.shares.work / max(bundle.shares.calls, 1)
        due = self._room.due(line)
        short = short or Exhausted(due, due < FOREVER, due == FOREVER, 0, 0)
        when = self._when(line, bundle, short, Cost(round(usual), 0), usual, work)
        return Foreseen(when, max(1, round(calls)))

    def _when(
        self, line: Line, bundle: Bundle[Grant] | None, short: Exhausted, cost: Cost, usual: float, work: float
    ) -> float | None:
        """Seconds until so much *work* is done, where a call makes *usual* of it; None when nobody knows."""
        now = self._clock.mono()
        made = self._supply(line, bundle, cost, usual, now)
        calls, taken = work / made.of, 0 if bundle is None else bundle.taken - made.taken
        wait = made.supply.time_for(calls + taken) - (now - made.at)
        wait = max(wait, short.wait if short.wait < FOREVER else 0.0, 0.0)
        if short.busy:
            served: deque[float] = deque() if bundle is None else bundle.served
            while len(served) > 1 and served[0] < now - PACE:
                served.popleft()
            if len(served) < LEAST_SERVED:
                return None
            wait = max(wait, calls * max(now - served[0], 1.0) / len(served))
        return wait if wait < FOREVER else None

    def _supply(self, line: Line, bundle: Bundle[Grant] | None, cost: Cost, usual: float, now: float) -> Made:
        """How many calls all keys that may answer will take, one of which takes *usual*."""
        if bundle is not None:
            supplies, taken = bundle.supplies, bundle.taken
        else:
            if line.deployments not in self._supplies and len(self._supplies) >= MOST_LINES:
                self._supplies.clear()
            supplies, taken = self._supplies.setdefault(line.deployments, Supplies()), 0
        made = supplies.get(usual, now)
        if made is None:
            lines = (line,) if bundle is None else bundle.lines
            deployments = tuple(dict.fromkeys(each for other in lines for each in other.deployments))
            made = supplies.put(Made(self._made(deployments, cost, usual, now), now, usual, taken))
        return made

    def _made(self, deployments: tuple[Deployment, ...], cost: Cost, usual: float, now: float) -> Supply:
        total = max(cost.input + cost.output, 1)
        units = {
            "tokens": usual,
            "input_tokens": usual * cost.input / total,
            "output_tokens": usual * cost.output / total,
        }
        keys, some = [], deployments[:MOST_DEPLOYMENTS]
        most = min(MOST_KEYS, 2 * MOST_KEYS // max(len(some), 1))
        for deployment in some:
            pool = self._pools.of(deployment)
            mark = self._marks.blocked(pool.scope, now)
            closed = 0.0 if mark is None else mark.until - now
            step = max(1, -(-len(pool.entries) // most))
            looked = pool.entries[::step]
            like = len(pool.entries) / max(len(looked), 1)
            for entry in looked:
                blocked = self._blocked(entry, now)
                if blocked < FOREVER:
                    keys.append(
                        KeySupply(max(blocked, closed), returns_of(self._refills(entry, units, now), now), like)
                    )
        return Supply(keys)

    def _blocked(self, entry: Entry, now: float) -> float:
        """Seconds until no mark stands against *entry*; infinite when it cannot be used."""
        mark = self._marks.blocked(entry.own_scopes, now)
        if mark is None:
            return 0.0
        return FOREVER if mark.block == "dead" else max(mark.until - now, 0.0)

    def _refills(self, entry: Entry, units: dict[str, float], now: float) -> list[Refill]:
        view, meters = self._live.view(now), self._live.meters
        return [
            Refill(limit, meters.counter(limit), view.row(limit, now), max(units.get(limit.metric, 1.0), 1e-6))
            for scope in entry.limit_scopes
            for limit in self._live.limits(scope)
            if limit.metric not in ("cost", "concurrency")
        ]

    def fits_first(self, run: Run, costs: dict[Deployment, Cost], kept: Held | None) -> Held | None:
        """The key that a call which is too large for all of them will fit into first; None when nobody knows.

        *kept*: the key that it was before. As nobody else uses that one, it stays the first.
        """
        now, best, soonest = self._clock.mono(), None, FOREVER
        for deployment, cost in costs.items():
            tried = run.progress.tried.get(deployment, ())
            for entry in self._returning(deployment, kept, CANDIDATES):
                wait = FOREVER if entry.order in tried else self._fits_in(entry, cost, now)
                if wait < soonest:
                    soonest, best = wait, (deployment, entry.order)
        return best

    def _returning(self, deployment: Deployment, kept: Held | None, most: int) -> Iterator[Entry]:
        """The few keys of *deployment* that return first, as far as was seen."""
        pool = self._pools.of(deployment)
        soonest = pool.soonest(most)
        yield from soonest
        if kept is not None and kept[0] == deployment and pool.entries[kept[1]] not in soonest:
            yield pool.entries[kept[1]]

    def _fits_in(self, entry: Entry, cost: Cost, now: float) -> float:
        """Seconds until a call of *cost* fits into *entry*; infinite when nobody knows."""
        limits = [limit for scope in entry.limit_scopes for limit in self._live.limits(scope)]
        return max(self._live.wait(claims(limits, cost), now)[0], self._blocked(entry, now))

    def limiting(self, run: Run, costs: dict[Deployment, Cost]) -> dict[str, Any] | None:
        """Which limit keeps *run* waiting: that of the key that it would fit into first; None when no limit does."""
        now, soonest = self._clock.mono(), FOREVER
        found: tuple[Deployment, Limit] | None = None
        for deployment, cost in costs.items():
            for entry in self._returning(deployment, None, LOOKED_AT):
                limits = [limit for scope in entry.limit_scopes for limit in self._live.limits(scope)]
                wait, limit = self._live.wait(claims(limits, cost), now)
                if limit is not None and wait < soonest:
                    soonest, found = wait, (deployment, limit)
        if found is None:
            return None
        deployment, limit = found
        scope = str(deployment) if "|" in limit.scope else deployment.provider
        return {"scope": scope, "metric": limit.metric, "resets_at": round(self._clock.wall() + soonest, 3)}

    def asked(self, run: Run, line: Line, cost: Cost) -> None:
        """*run* came, and could not be answered at once."""
        counts = self.counts_tokens(run)
        work = float(cost.input + cost.output) if counts else 1.0
        self._room.demand.asked(line.deployments, run.rank, run.caller.name, work, self._clock.mono())

    def promise(self, run: Run, line: Line, cost: Cost, wait: float) -> None:
        """*run* is told to come back in *wait* seconds: others reckon with it."""
        now = self._clock.mono()
        if run.place is None:
            run.place = self._room.arrival()
        self._room.promises.make(self._like(run, line, cost, now + wait, now), now)

    def came_back(self, run: Run, line: Line, *, within: float = 0.0) -> bool:
        """Whether *run* takes up what was promised to it for now; or, if it comes earlier and with more patience than
        it had, what was for the next *within* seconds. It stands where it stood, then."""
        promises, now = self._room.promises, self._clock.mono()
        like = self._like(run, line, Cost(0, 0), now, now)
        found = promises.due(like, now)
        if found is None and within:
            latest = promises.latest(like, now)
            if latest is not None and latest.at <= now + within and latest.patience < run.patience:
                found = latest
        if found is None:
            return False
        promises.take_up(found)
        run.came_back = True
        if run.place is None:
            run.place = found.number
        return True

    def _like(self, run: Run, line: Line, cost: Cost, at: float, now: float) -> Promise:
        return Promise(
            run.place or 0,
            at,
            expected_until(at, now),
            line.deployments,
            run.rank,
            run.caller.name,
            run.caller.weight,
            cost.input + cost.output,
            run.call.size,
            run.patience,
        )
