"""What a call has to expect that cannot be answered at once: its place in the line, and when its turn will be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from keyturn.core import (
    PROBE,
    CallerClass,
    Cost,
    Crowd,
    Deployment,
    Entry,
    Exhausted,
    Foreseen,
    KeySupply,
    Limit,
    Mark,
    Promise,
    Refill,
    Supply,
    Wants,
    Weighed,
    claims,
    expected_until,
    returns_of,
    work_before,
)

from .lines import FOREVER, HOLDS, Bundle, Held, Known, Line, Made, Supplies, sort_of
from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway
    from .generation import Generation

TOKENS = frozenset({"tokens", "input_tokens", "output_tokens"})
LOOKED_AT = 4
"""Keys of a deployment that are looked at for limits in tokens, and for the limit that a client is told."""
MOST_KEYS, MOST_OF_ONE = 128, 32
"""Keys whose limits are looked at for a supply, of all deployments together and of each. Of more, some are looked at,
and the others taken to be like them."""
KEPT, KEPT_PARKED = 10.0, 300.0
"""Seconds that it is believed how the limits of a key stand which is not used meanwhile; and of one that a limit keeps
from being used."""
DOUBTED = 2
"""After so many failures in a row a key that rests is good for one call, as far as can be foreseen: the one that tries
it."""
MOST_KEPT = 4096
"""Keys of which that is remembered."""
MOST_DEPLOYMENTS = 8
MOST_LINES = 64
"""Lines of which it is kept in mind what was worked out: supplies, where nobody waits; crowds; which limit is in the
way; whether tokens count."""
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
AHEAD = tuple(5.0 * 2 ** (each / 2) for each in range(31))
"""Seconds that promises are looked at ahead where many callers have some: up to two days."""
TRIES = 6
"""Moments that are looked at for one when who was told to come back before leaves something, at most; of more, one
after all of them is told."""
MOST_TOLD = 1024
"""Callers of whom it is remembered for when one was told last: the next looks from there."""
ROUNDS = 3
"""How often it is looked at anew who will have come by a call's turn, and go before it."""
NEAR = 0.5
"""Seconds by which that must change the turn to be looked at again."""
WORTH, WORTH_IN_LINE, MOST_HELD = 0.05, 0.2, 30.0
"""What was worked out is believed for so much of the wait that it tells, or for so much of it where others wait, so
that everything that is taken is known; and at most for so many seconds."""
ALIKE = 3
"""Sorts of calls by their size that are told the same limit."""
CANDIDATES = 16
"""Keys of which it is worked out when a call that is too large for all of them will fit."""


_Used = tuple[int, int, float, float, bool]
"""How a key was used last, until when it rests, and whether it is doubted."""
_Stood = tuple[float, _Used, KeySupply]
"""Until when it is believed how the limits of a key stand, as long as it is used no more."""


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
        self._crowds: dict[tuple[tuple[Deployment, ...], bool, float, bool], Known] = {}
        self._told: dict[tuple[tuple[Deployment, ...], CallerClass, str], float] = {}
        """For when one of a caller was told to come back last."""
        self._keys: dict[int, dict[Entry, _Stood]] = {}
        """By size of calls and key: how its limits stand."""
        self._kept = 0
        """Of how many."""
        self._limiting: dict[tuple[tuple[Deployment, ...], int], tuple[float, dict[str, Any] | None]] = {}
        """Until when it is believed which limit is in the way of calls of a size, and which it is."""

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

    def within(self, run: Run, line: Line, short: Exhausted, cost: Cost, patience: float, bare: Foreseen) -> Foreseen:
        """When it would be the turn of *run* if it began to wait in *line* for *patience* seconds at most; *bare*: if
        nobody came back meanwhile.

        Who was told to come back before that has the right of way, as far as it will come back.
        """
        seen = bare
        if bare.wait is not None and self._room.promises.concerns(line.deployments, self._clock.mono()):
            for part in PARTS:
                if seen.wait is None or seen.wait <= part * patience:
                    seen = self.look(run, line, short, cost, ahead=part * patience, all_come=False)
                    if seen.wait is None or seen.wait <= part * patience:
                        break
        return seen

    def told(self, run: Run, line: Line, short: Exhausted, cost: Cost) -> Foreseen:
        """What *run* has to expect when it comes again: the first moment, as far as is looked for it, by which the keys
        take it beside all who wait and who were told to come back by then.

        What these leave until then others will take who come meanwhile. So it does not count for later moments.
        """
        promises, now = self._room.promises, self._clock.mono()
        if not promises.concerns(line.deployments, now):
            return self.look(run, line, short, cost)
        # of many callers each is told too rarely to begin where it was told last
        key = (line.deployments, run.rank, run.caller.name if promises.callers <= FEW else "")
        ahead = max(self._told.pop(key, now) - now, 0.0)
        for _ in range(TRIES):
            seen = self.look(run, line, short, cost, ahead=max(ahead, NEAR))
            if seen.wait is None or seen.wait <= ahead + NEAR:
                break
            ahead = seen.wait
        else:
            seen = self.look(run, line, short, cost, ahead=FOREVER)
        if seen.wait is not None:
            self._told[key] = now + seen.wait
            if len(self._told) > MOST_TOLD:
                del self._told[next(iter(self._told))]
        return seen

    def look(
        self, run: Run, line: Line, short: Exhausted, cost: Cost, *, ahead: float = 0.0, all_come: bool = True
    ) -> Foreseen:
        """When it would be the turn of *run* if it began to wait in *line*. *ahead*: reckoning with those who were told
        to come back within so many seconds: with all that may come, or only with those that surely do."""
        bundle = self._room.bundle(line)
        counts = self.counts_tokens(run) if bundle is None else bundle.shares.counts_tokens
        wants = self._others_and(run, line, bundle, counts=counts, ahead=ahead, all_come=all_come)
        asked = wanted = 0.0
        for others in wants.values():
            for each in others.values():
                if each.calls:
                    asked += each.work
                    wanted += each.calls
        if not wanted:
            return Foreseen(short.wait if short.wait < FOREVER else None, 1)
        own = cost.input + cost.output if counts else 1
        usual = (asked + own) / (wanted + 1.0)
        rank, name, weight = run.rank, run.caller.name, run.caller.weight
        work, calls = work_before(wants, rank, name, weight, own)
        wait, coming = self._when(line, bundle, short, cost, usual, work), 0.0
        for _ in range(ROUNDS):
            if wait is None or wait <= coming + NEAR:
                break
            coming, before = wait, work
            work, _ = work_before(wants, rank, name, weight, own, coming)
            if work <= before:
                break
            wait = self._when(line, bundle, short, cost, usual, work)
        return Foreseen(wait, max(1, round(calls)))

    def _others_and(
        self, run: Run, line: Line, bundle: Bundle[Grant] | None, *, counts: bool, ahead: float, all_come: bool
    ) -> Wants:
        """What everybody wants who stands before *run*, its own caller by itself; its calls that come later do not.
        *ahead*, *all_come*: see `look`."""
        promises, now = self._room.promises, self._clock.mono()
        if not promises.concerns(line.deployments, now):
            ahead = 0.0
        elif promises.callers > FEW and 0.0 < ahead < FOREVER:  # else each patience makes a crowd of its own
            ahead = next((each for each in AHEAD if ahead <= each), ahead)
        crowd = self._crowd(line, bundle, counts=counts, ahead=ahead, all_come=all_come)
        rank, name = run.rank, run.caller.name
        own = crowd.own(rank, name) if crowd.size <= FEW else None if bundle is None else bundle.has(rank, name)
        if run.place is not None and own is not None:  # those that came after it stand behind it
            own = self._room.earlier(line, (rank, name), run.place)._replace(weight=run.caller.weight)
        elif crowd.size <= FEW:
            return crowd.besides(rank, name, own)
        if ahead:
            until = now + ahead
            own = promises.wants_of(rank, name, own, line.deployments, counts=counts, until=until, all_come=all_come)
        return crowd.besides(rank, name, own)

    def _crowd(self, line: Line, bundle: Bundle[Grant] | None, *, counts: bool, ahead: float, all_come: bool) -> Crowd:
        """What everybody wants, as it is; of a large crowd as it was a moment ago."""
        now, key = self._clock.mono(), (line.deployments, counts, ahead, all_come)
        known = self._crowds.get(key) if self._crowds else None
        if known is not None and known.left > 0 and now < known.until:
            known.left -= 1
            return known.crowd
        wants = {} if bundle is None else bundle.wants()
        if ahead:
            wants = self._room.promises.wants(
                line.deployments, wants, counts=counts, until=now + ahead, all_come=all_come
            )
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
            self._crowds[key] = Known(crowd, until, int(crowd.size * AS_IT_WAS))
        elif self._crowds:
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
        now, supplies = self._clock.mono(), self._supplies_of(line, bundle)
        taken, calls = 0 if bundle is None else bundle.taken, work / usual
        made, wait = supplies.get(usual), -FOREVER
        if made is not None:  # in calls of that size, whether limits count calls or tokens
            wait = made.supply.time_for(work / min(usual, made.of) + taken - made.taken) - (now - made.at)
        worth = WORTH if bundle is None else WORTH_IN_LINE
        if made is None or now - made.at >= max(HOLDS, min(worth * wait, MOST_HELD)):
            made = supplies.put(Made(self._made(line, bundle, cost, usual, now), now, usual, taken))
            wait = made.supply.time_for(calls)
        wait = max(wait, short.wait if short.wait < FOREVER else 0.0, 0.0)
        if short.busy:
            served: deque[float] = deque() if bundle is None else bundle.served
            while len(served) > 1 and served[0] < now - PACE:
                served.popleft()
            if len(served) < LEAST_SERVED:
                return None
            wait = max(wait, calls * max(now - served[0], 1.0) / len(served))
        return wait if wait < FOREVER else None

    def _supplies_of(self, line: Line, bundle: Bundle[Grant] | None) -> Supplies:
        """What was worked out for the keys that may answer those in *line*."""
        if bundle is not None:
            return bundle.supplies
        supplies = self._supplies.get(line.deployments)
        if supplies is None:
            if len(self._supplies) >= MOST_LINES:
                self._supplies.clear()
            supplies = self._supplies[line.deployments] = Supplies()
        return supplies

    def _made(self, line: Line, bundle: Bundle[Grant] | None, cost: Cost, usual: float, now: float) -> Supply:
        """How many calls all keys that may answer will take, one of which takes *usual*."""
        lines = (line,) if bundle is None else bundle.lines
        deployments = dict.fromkeys(each for other in lines for each in other.deployments)
        total = max(cost.input + cost.output, 1)
        units = {
            "tokens": usual,
            "input_tokens": usual * cost.input / total,
            "output_tokens": usual * cost.output / total,
        }
        pools = [self._pools.of(deployment) for deployment in tuple(deployments)[:MOST_DEPLOYMENTS]]
        step = max(1, -(-sum(len(pool.entries) for pool in pools) // MOST_KEYS))
        keys, sort = dict[KeySupply, float](), sort_of(usual)
        blocked, unmarked = self._marks.blocked, self._marks.unmarked()
        same: dict[tuple[object, ...], KeySupply] = {}
        stood = self._keys.setdefault(sort, {})
        for pool in pools:
            mark = blocked(pool.scope, now)
            closed = 0.0 if mark is None else mark.until - now
            opens = now + max(closed, 0.0) if closed else 0.0
            least = -(-len(pool.entries) // MOST_OF_ONE)
            looked = pool.entries[:: max(1, least, min(step, len(pool.entries) // LOOKED_AT))]
            like = len(pool.entries) / max(len(looked), 1)
            for entry in looked:
                if unmarked(entry.own_scopes) or (mark := blocked(entry.own_scopes, now)) is None:
                    until, doubted = opens, False
                elif (rests := _rests(mark, now)) < FOREVER:
                    until = now + max(rests, closed) if rests or closed else 0.0
                    doubted = mark.strikes >= DOUBTED
                else:
                    continue
                used = (entry.last_used, entry.active, entry.parked_until, until, doubted)
                known = stood.get(entry)
                if known is not None and now < known[0] and known[1] == used:
                    key = known[2]
                else:
                    key = self._stands(entry, sort, used, units, now, same)
                keys[key] = keys.get(key, 0.0) + like
        return Supply(keys, now)

    def _stands(
        self,
        entry: Entry,
        sort: int,
        used: _Used,
        units: dict[str, float],
        now: float,
        same: dict[tuple[object, ...], KeySupply],
    ) -> KeySupply:
        """How the limits of *entry* stand, to be believed as long as *used* stays as it is. *same*: what others that
        stand alike were found to; of many that are used up until their day begins anew, a few are left."""
        until, doubted = used[3:]
        returns = returns_of(self._refills(entry, units, now), now)
        if doubted:
            returns += (PROBE,)
        key = same.get((until, returns))
        if key is None:
            key = same[until, returns] = KeySupply(max(until - now, 0.0), returns, now)
        if self._kept >= MOST_KEPT:
            for each in self._keys.values():
                each.clear()
            self._kept = 0
        stood = self._keys[sort]
        self._kept += entry not in stood
        # at the same moments for all: those that stand alike do so again
        kept = KEPT_PARKED if entry.block == "limit" and entry.parked_until > now else KEPT
        stood[entry] = (now // kept + 1.0) * kept, used, key
        return key

    def _refills(self, entry: Entry, units: dict[str, float], now: float) -> list[Refill]:
        view, meters = self._live.view(now), self._live.meters
        return [
            Refill(limit, meters.counter(limit), view.shared(limit, now), max(units.get(limit.metric, 1.0), 1e-6))
            for scope in entry.limit_scopes
            for limit in meters.limits(scope)
            if limit.metric not in ("cost", "concurrency")
        ]

    def fits_first(self, run: Run, costs: dict[Deployment, Cost], kept: Held | None) -> Held | None:
        """The key that a call which is too large for all of them will fit into first; None when nobody knows.

        *kept*: the key that it was before. As nobody else uses that one, it stays the first.
        """
        now, best, soonest = self._clock.mono(), None, FOREVER
        for deployment, cost in costs.items():
            tried = run.progress.tried.get(deployment, ())
            for entry in self._returning(deployment, kept):
                wait = FOREVER if entry.order in tried else self._fits_in(entry, cost, now)
                if wait < soonest:
                    soonest, best = wait, (deployment, entry.order)
        return best

    def _returning(self, deployment: Deployment, kept: Held | None) -> Iterator[Entry]:
        """The few keys of *deployment* that return first, as far as was seen."""
        pool = self._pools.of(deployment)
        soonest = pool.soonest(CANDIDATES)
        yield from soonest
        if kept is not None and kept[0] == deployment and pool.entries[kept[1]] not in soonest:
            yield pool.entries[kept[1]]

    def _fits_in(self, entry: Entry, cost: Cost, now: float) -> float:
        """Seconds until a call of *cost* fits into *entry*; infinite when nobody knows."""
        limits = [limit for scope in entry.limit_scopes for limit in self._live.limits(scope)]
        return max(
            self._live.wait(claims(limits, cost), now)[0], _rests(self._marks.blocked(entry.own_scopes, now), now)
        )

    def limiting(self, run: Run, costs: Callable[[], dict[Deployment, Cost]], cost: Cost) -> dict[str, Any] | None:
        """Which limit keeps *run* waiting: that of the key that it would fit into first; None when no limit does.

        Of calls that cost about as much as *cost* it is told as it was found for one of them a moment ago.
        """
        now, key = self._clock.mono(), (run.deployments, sort_of(cost.input + cost.output) // ALIKE)
        if not run.progress.tried:
            known = self._limiting.get(key)
            if known is not None and now < known[0]:
                return None if known[1] is None else dict(known[1])  # another adds to it
        found, soonest = self._found_limiting(costs(), now)
        if not run.progress.tried:
            if len(self._limiting) >= MOST_LINES:
                self._limiting.clear()
            self._limiting[key] = now + max(min(soonest, MOST_HELD), HOLDS), found
        return None if found is None else dict(found)

    def _found_limiting(self, costs: dict[Deployment, Cost], now: float) -> tuple[dict[str, Any] | None, float]:
        """The same, and in how many seconds it gives way."""
        soonest, live = FOREVER, self._live
        found: tuple[Deployment, Limit] | None = None
        for deployment, cost in costs.items():
            for entry in self._pools.of(deployment).soonest(LOOKED_AT):
                limits = [limit for scope in entry.limit_scopes for limit in live.limits(scope)]
                wait, limit = live.wait(claims(limits, cost), now, soonest)
                if limit is not None and wait < soonest:
                    soonest, found = wait, (deployment, limit)
        if found is None:
            return None, 0.0
        deployment, limit = found
        scope = str(deployment) if "|" in limit.scope else deployment.provider
        resets_at = round(self._clock.wall() + soonest, 3)
        return {"scope": scope, "metric": limit.metric, "resets_at": resets_at}, soonest

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
            hash((*run.call.members.values(), run.call.raw)),
        )


def _rests(mark: Mark | None, now: float) -> float:
    """Seconds until *mark* does not stand against a key any more; infinite when that cannot be used."""
    if mark is None:
        return 0.0
    return FOREVER if mark.block == "dead" else max(mark.until - now, 0.0)
