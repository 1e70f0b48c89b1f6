"""From a call's plan to a grant: an entry picked, every limit of it reserved, or a place in the line for one."""

from __future__ import annotations

from keyturn.config import Config
from keyturn.core import (
    Attempt,
    Clock,
    Cost,
    Denied,
    Deployment,
    Entry,
    Estimator,
    Exhausted,
    Marks,
    Pool,
    Refuse,
    charge,
    claims,
    pick,
    stand_by,
    together,
)
from keyturn.stores import LiveState, Reservation

from .clock import draw, new_id
from .pools import Pools
from .run import Grant, Run
from .waiting import WaitingRoom

FOREVER = float("inf")
SHORTEST = 0.001
"""Seconds that an entry is set aside at least: less could be lost in rounding, and it would be picked again at once."""
FREE = Cost(0, 0, 0)
"""The cost of a call where nothing is limited."""


class Reserving:
    """Finds an entry for a call and takes its limits. Only `wait` ever waits."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        live: LiveState,
        marks: Marks,
        pools: Pools,
        room: WaitingRoom[Grant],
        estimator: Estimator,
    ) -> None:
        self._config = config
        self._clock = clock
        self._live = live
        self._marks = marks
        self._pools = pools
        self._room = room
        self._estimator = estimator

    def claim(self, run: Run) -> Grant | Exhausted:
        """An entry with its reservation. Who asks for the first time takes nothing that somebody waits for."""
        return self._take(run, polite=not run.progress.attempts)

    def again(self, run: Run, resend: Entry | None) -> Grant | None:
        """The same credential once more, which `advance` allows when nothing else is free; unless it rests by now."""
        if resend is None or self._marks.blocked(resend.scopes, self._clock.mono()) is not None:
            return None
        deployment = resend.candidate.deployment
        grant = self._reserve(run, self._pools.of(deployment), resend, self._clock.mono())
        if isinstance(grant, Denied):
            return None
        grant.attempt.resend = True
        run.progress.resent.add((deployment, resend.order))
        return grant

    async def wait(self, run: Run, short: Exhausted) -> Grant | Exhausted:
        """Stand in line for an entry. Exhausted: none will come in time, or none came."""
        now = self._clock.mono()
        latest = run.wait_until(now)
        if isinstance(stand_by(short, now, latest), Refuse) or self._room.full:
            return short
        hindered = run.progress.attempts > 0
        try:
            grant = await self._room.wait(
                run.deployments, lambda: self._take(run), returns=now + short.wait, latest=latest, hindered=hindered
            )
        finally:
            run.trail.waited += self._clock.mono() - now
        return self._look(run) if grant is None else grant

    def _look(self, run: Run) -> Exhausted:
        """What keeps *run* from every candidate, without taking one that has just become free."""
        now, short = self._clock.mono(), []
        for deployment in run.deployments:
            if run.progress.open(deployment):
                pool = self._pools.of(deployment)
                cost = self._cost(run, deployment) if pool.limited else FREE
                found = pick(pool, cost, run.progress.tried.get(deployment, ()), now, draw)
                short.append(found if isinstance(found, Exhausted) else self._behind(run))
        return together(short)

    def _behind(self, run: Run) -> Exhausted:
        """What there is to expect where others wait already."""
        due = self._room.due(run.deployments)
        return Exhausted(due, due < FOREVER, due == FOREVER, 0, 0)

    def _take(self, run: Run, *, polite: bool = False) -> Grant | Exhausted:
        """The first candidate in the order of the plan that may be asked now; never waits."""
        now, short = self._clock.mono(), []
        for deployment in run.deployments:
            if not run.progress.open(deployment):
                continue
            if polite and self._room.wanted(deployment):
                short.append(self._behind(run))
                continue
            pool = self._pools.of(deployment)
            cost = self._cost(run, deployment) if pool.limited else FREE
            tried = run.progress.tried.get(deployment, ())
            while True:
                entry = pick(pool, cost, tried, now, draw)
                if isinstance(entry, Exhausted):
                    short.append(entry)
                    break
                grant = self._reserve(run, pool, entry, now)
                if isinstance(grant, Grant):
                    return grant
                self._set_aside(run, pool, entry, grant, now)
                cost = self._cost(run, deployment)
                tried = run.progress.tried.get(deployment, ())
        return together(short)

    def _reserve(self, run: Run, pool: Pool, entry: Entry, now: float) -> Grant | Denied:
        """Take every limit of *entry* at once, before a byte is sent."""
        deployment, credential = entry.candidate
        model_scope, key_scope = entry.limit_scopes
        limits = self._live.limits(model_scope) + self._live.limits(key_scope)
        attempt = Attempt(new_id(self._clock.wall()), deployment.provider, deployment.model, credential.shown, now)
        needed = claims(limits, self._cost(run, deployment)) if limits else ()
        pool.limited = pool.limited or bool(limits)
        got = self._live.reserve(attempt.id, needed, now)
        if isinstance(got, Denied):
            return got
        if not isinstance(got, Reservation):
            raise TypeError("a live state that decides later is not supported yet")
        pool.used(entry)
        self._live.begin(entry.scopes, attempt.id, now)
        return Grant(self.over, pool, entry, attempt, got)

    def _set_aside(self, run: Run, pool: Pool, entry: Entry, denied: Denied, now: float) -> None:
        """The limiter said no: keep *entry* out of the picks until it can say yes."""
        if denied.never:
            run.too_big = denied.limit
            run.progress.tried.setdefault(pool.deployment, set()).add(entry.order)
        elif denied.wait_any > 0:
            until = now + max(denied.wait_any, SHORTEST)
            pool.park(entry, until, "limit" if until < FOREVER else "busy")
        else:
            cost = self._cost(run, pool.deployment)
            entry.short_cost, entry.short_until = cost.input + cost.output, now + max(denied.wait, SHORTEST)

    def _cost(self, run: Run, deployment: Deployment) -> Cost:
        """What *run* is charged on *deployment*; only calls that meet a limit ask."""
        cost = run.costs.get(deployment)
        if cost is not None:
            return cost
        provider = self._config.providers[deployment.provider]
        cost = run.costs[deployment] = charge(
            self._estimator.estimate(run.call, str(deployment)),
            run.call,
            counts_output=provider.counts_output,
            charges_max_output=provider.charges_max_output,
            learned_output=self._estimator.output(str(deployment)),
        )
        return cost

    def over(self, attempt: Attempt) -> None:
        """*attempt* is over, or its grant was not used: what it probed without a verdict may be probed again, and who
        waits for the deployment may be able to go."""
        probed = self._live.end(attempt.id)
        if probed:
            self._pools.wake_marked(probed)
        self._room.freed(Deployment(attempt.provider, attempt.model))
