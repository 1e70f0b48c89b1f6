"""From a call's plan to a grant: an entry picked, every limit of it reserved, or a place in the line for one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from keyturn.core import (
    Attempt,
    Claim,
    Cost,
    Denied,
    Deployment,
    Entry,
    Exhausted,
    Foreseen,
    Limit,
    Pool,
    Refuse,
    Transition,
    Verdict,
    claims,
    holder_in,
    peek,
    pick,
    stand_by,
    standing,
    together,
)
from keyturn.stores import Reservation

from .asking import Asking
from .clock import draw, new_id
from .foreseeing import Foreseeing
from .lines import Held, Line, Waiter
from .owning import OwnLimits
from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway
    from .generation import Generation

FOREVER = float("inf")
SHORTEST = 0.001
"""Seconds that an entry is set aside at least: less could be lost in rounding, and it would be picked again at once."""
USED_UP = 0.99
"""The share of a cap in tokens that is as good as all of it: hardly any call fits into the rest."""
AGAIN = 0.05
"""Seconds that an entry is set aside when a shared store said no and nobody knows why any more."""
LOOKED_AT = 8
"""How many entries are looked at for an attempt beside another."""
EARLY = 5.0
"""Seconds before its turn that a call is told to come back, at most, where others wait too."""
FREE = Cost(0, 0, 0)
"""The cost of a call where nothing is limited."""
SMALL = Cost(1, 1, 1)
"""That of a call that fits wherever any call fits."""


class Reserving:
    """Finds an entry for a call and takes its limits. Only `wait` ever waits."""

    def __init__(self, generation: Generation, gateway: Gateway) -> None:
        self._generation = generation
        self._config = generation.config
        self._pools = generation.pools
        self._clock = gateway.clock
        self._live = gateway.live
        self._marks = gateway.marks
        self._room = gateway.room
        self._adapting = gateway.adapting
        self._estimator = gateway.estimator
        self._own = OwnLimits(generation, gateway)
        self._foreseeing = Foreseeing(generation, gateway)
        self._wake_marked = gateway.wake_marked
        self._cool = gateway.cool

    def claim(self, run: Run) -> Grant | Exhausted:
        """An entry with its reservation. Who asks for the first time takes nothing that somebody waits for."""
        grant = self.take(run, polite=not run.progress.attempts and run.place is None)
        if self._room.promises.open and not run.came_back and isinstance(grant, Grant):
            self._foreseeing.came_back(run, self._line(run))
        return grant

    def again(self, run: Run, resend: Entry | None) -> Grant | None:
        """The same credential once more, which `advance` allows when nothing else is free; unless it rests by now."""
        if resend is None or self._marks.blocked(resend.scopes, self._clock.mono()) is not None:
            return None
        deployment = resend.candidate.deployment
        grant = self._reserve(run, self._pools.of(deployment), resend, self._clock.mono())
        if not isinstance(grant, Grant):
            return None
        grant.attempt.resend = True
        run.progress.resent |= {(deployment, resend.order)}
        return grant

    def beside(self, run: Run, grant: Grant, roomy: float) -> Grant | None:
        """For an attempt beside that of *grant*: an entry of another quota group, whose limits are used to less than
        *roomy*, of the same deployment or of another first choice. None: there is none, or others wait for it. Raises
        what `claim` raises."""
        now, (first, credential) = self._clock.mono(), grant.entry.candidate
        others = [each for each in run.deployments if each in run.first] if first in run.first else []
        for deployment in dict.fromkeys((first, *others)):
            if not run.progress.open(deployment) or self._room.wanted(deployment, self._generation.number):
                continue
            pool = self._pools.of(deployment)
            cost = self._cost(run, deployment) if pool.limited else FREE
            tried = set(run.progress.tried.get(deployment, ()))
            if deployment.provider == first.provider:
                group = credential.group
                tried.update(each.order for each in pool.entries if each.candidate.credential.group == group)
            for _ in range(LOOKED_AT):
                entry = pick(pool, cost, tried, now, draw)
                if isinstance(entry, Exhausted):
                    break
                tried.add(entry.order)
                found = self._reserve(run, pool, entry, now) if pool.load(entry, now) < roomy else None
                if isinstance(found, Grant):
                    return found
        return None

    async def wait(self, run: Run, short: Exhausted) -> Grant | Exhausted:
        """Stand in line for an entry. Exhausted: none will come in time, as far as can be foreseen, or none came."""
        now, line = self._clock.mono(), self._line(run)
        latest, first = self._latest(run, now), run.trail.position is None
        if first and not run.came_back and not self._foreseeing.came_back(run, line):
            self._foreseeing.asked(run, line, self._least(run))
        if isinstance(stand_by(short, now, latest), Refuse):
            return self._refused(run, short, "never")
        if first:  # who was let in once is not turned away because things look worse by now
            foreseen = self._foreseen(run, line, short, latest - now)
            if foreseen.wait is not None and now + foreseen.wait > latest and not run.hindered:
                return self._refused(run, short, "predicted")
        if not self._room.has_room(run.caller.name, run.call.size):
            return self._refused(run, short, "full")
        if first:
            run.trail.position, run.trail.expected_wait = foreseen.position, foreseen.wait
        try:
            grant = await self._room.wait(
                line,
                self._waiter(run, Asking(self, run)),
                returns=now if short.by_size else now + short.wait,
                latest=latest,
                counts_tokens=self._foreseeing.counts_tokens(run),
                unsure=short.busy > 0,
            )
        finally:
            run.trail.waited += self._clock.mono() - now
        return self._in_vain(run) if grant is None else grant

    def _latest(self, run: Run, now: float) -> float:
        """Until when *run* waits: not so long that no time would be left for an answer."""
        deployment = next(filter(run.progress.open, run.deployments), None)
        takes = 0.0 if deployment is None else self._room.answers.usual(deployment, stream=run.call.stream)
        return min(run.wait_until(now), min(run.deadline, run.content_by) - takes)

    def _in_vain(self, run: Run) -> Grant | Exhausted:
        """*run* does not wait any more. What came free just now it gets all the same, where nobody waits for it."""
        if self._clock.mono() < min(run.deadline, run.content_by):
            grant = self.take(run, polite=True)
            if isinstance(grant, Grant):
                return grant
        return self._told(run, self._look(run))

    def answered(self, run: Run, grant: Grant) -> None:
        """*run*, which has waited, has its answer, or the beginning of a stream."""
        now = self._clock.mono()
        deployment = grant.entry.candidate.deployment
        self._room.answers.observe(deployment, now - grant.attempt.started, stream=run.call.stream)

    def _foreseen(self, run: Run, line: Line, short: Exhausted, patience: float) -> Foreseen:
        """What *run* has to expect that would wait for *patience* seconds at most. Who comes back as it was told to
        does not stand behind others who were."""
        foreseeing, cost = self._foreseeing, self._least(run)
        bare = foreseeing.look(run, line, short, cost)
        if run.came_back or (bare.wait is not None and bare.wait > patience):
            return bare
        seen = foreseeing.within(run, line, short, cost, patience, bare)
        if seen.wait is None or seen.wait <= patience:
            return seen
        return bare if foreseeing.came_back(run, line, within=patience) else seen

    def hopeless(self, run: Run, latest: float) -> str:
        """Why *run*, which waits, will not get anything by *latest*, as far as is known: as in `WaitingRoom.refused`.
        Empty: it may."""
        now, short = self._clock.mono(), self._look(run)
        if isinstance(stand_by(short, now, latest), Refuse):
            return "never"
        if short.busy or run.hindered or run.trail.waited:  # who was let in once is not turned away by a guess
            return ""
        foreseen = self._foreseeing.of_waiter(run, short)
        late = foreseen is not None and foreseen.wait is not None and now + foreseen.wait > latest
        return "predicted" if late else ""

    def foreseen(self, run: Run, short: Exhausted) -> Foreseen:
        """What *run* has to expect when it comes again, beside all others who were told to. The wait is to a little
        before that where others wait, so that it stands in line when its turn comes."""
        seen = self._foreseeing.told(run, self._line(run), short, self._least(run))
        if seen.wait is None or seen.position <= 1:
            return seen
        early = min(EARLY, run.patience / 4, seen.wait / 4)
        return seen._replace(wait=max(seen.wait - early, short.wait if short.wait < FOREVER else 0.0))

    def expected(self, run: Run) -> Foreseen | None:
        """What *run* has to expect, which waits; None when it does not wait."""
        return self._foreseeing.of_waiter(run)

    def promise(self, run: Run, wait: float) -> None:
        """*run* is told to come back in *wait* seconds."""
        self._foreseeing.promise(run, self._line(run), self._least(run), wait)

    def limiting(self, run: Run) -> dict[str, Any] | None:
        """Which limit is in the way of *run*: what it holds for, its metric, and when it gives way, in Unix seconds."""
        return self._foreseeing.limiting(run, lambda: self._costs(run), self._least(run))

    def fits_first(self, run: Run, kept: Held | None) -> Held | None:
        """The key that *run* will fit into first; None when nobody knows. *kept*: which that was before, if any."""
        return self._foreseeing.fits_first(run, self._costs(run), kept)

    def _waiter(self, run: Run, asking: Asking) -> Waiter[Grant]:
        cost, caller = self._least(run), run.caller
        tokens = cost.input + cost.output
        return Waiter(self._placed(run), run.rank, caller.name, caller.weight, tokens, run.call.size, asking)

    def cost(self, run: Run, deployment: Deployment) -> Cost:
        """What *run* is charged on *deployment*."""
        return self._cost(run, deployment)

    def _costs(self, run: Run) -> dict[Deployment, Cost]:
        """What *run* is charged, by who may still be asked."""
        return {each: self._cost(run, each) for each in run.deployments if run.progress.open(each)}

    def _least(self, run: Run) -> Cost:
        """What *run* is charged by the first that may still be asked."""
        for deployment in run.deployments:
            if run.progress.open(deployment):
                return self._cost(run, deployment)
        return SMALL

    def _refused(self, run: Run, short: Exhausted, why: str) -> Exhausted:
        """*run* does not wait."""
        self._room.refused[run.rank, why] += 1
        return self._told(run, short)

    def _placed(self, run: Run) -> int:
        """The place of *run* among all who wait: by when it first came."""
        if run.place is None:
            run.place = self._room.arrival()
        return run.place

    def _told(self, run: Run, short: Exhausted) -> Exhausted:
        """Nothing is left for *run*: how the keys stand is noted in its trail."""
        now, tried = self._clock.mono(), run.progress.tried
        for deployment in run.deployments:
            if run.progress.open(deployment):
                run.trail.notes.append(standing(self._pools.of(deployment), tried.get(deployment, ()), now))
        return short

    def _line(self, run: Run) -> Line:
        """Where *run* waits: with the calls of the same configuration that the same deployments may answer."""
        return Line(self._generation.number, run.deployments)

    def returns(self, entry: Entry, now: float) -> float:
        """Seconds until *entry*, which rests, can be asked again; infinite when time alone will not bring it back.

        What its limits say counts too: a provider that asks for 20 s may have said that the minute is spent.
        """
        mark = self._marks.blocked(entry.scopes, now)
        if mark is None or mark.block not in ("limit", "fault"):
            return FOREVER
        limits = [limit for scope in entry.limit_scopes for limit in self._live.limits(scope)]
        return max(mark.wait(now), self._live.wait(claims(limits, SMALL), now)[0])

    def _look(self, run: Run) -> Exhausted:
        """What keeps *run* from every candidate, without taking one that has just become free."""
        now, due, short = self._clock.mono(), self._room.due(self._line(run)), []
        for deployment in run.deployments:
            if run.progress.open(deployment):
                pool = self._pools.of(deployment)
                cost = self._cost(run, deployment) if pool.limited else FREE
                found = peek(pool, cost, run.progress.tried.get(deployment, ()), now, draw)
                short.append(found if isinstance(found, Exhausted) else self._behind(deployment, due, now))
        return together(short)

    def _behind(self, deployment: Deployment, due: float, now: float) -> Exhausted:
        """What there is to expect behind others, the first of whom waits *due* seconds: faults, if all is faulty."""
        found = peek(self._pools.of(deployment), SMALL, (), now, draw)
        if isinstance(found, Exhausted):
            faulty = found.faults > 0 and not found.limits
        else:  # free by now, to be probed after faults it may be
            marks = (self._marks.get(scope) for scope in found.scopes)
            faulty = any(mark is not None and mark.state != "counting" and mark.block == "fault" for mark in marks)
        return Exhausted(due, not faulty and due < FOREVER, due == FOREVER, faulty, 0)

    def take(self, run: Run, *, polite: bool = False, kept: Collection[Held] = ()) -> Grant | Exhausted:
        """The first candidate in the order of the plan that may be asked now, none of *kept*; never waits."""
        now = self._clock.mono()
        short: dict[Deployment, Exhausted] = {}
        due, is_open, already = None, run.progress.open, run.progress.tried
        for deployment in run.deployments:
            if not is_open(deployment):
                continue
            if polite and self._room.wanted(deployment, self._generation.number):
                due = self._room.due(self._line(run)) if due is None else due
                short[deployment] = self._behind(deployment, due, now)
                continue
            pool = self._pools.of(deployment)
            cost = self._cost(run, deployment) if pool.limited else FREE
            tried = self._tried(run, deployment, kept) if kept else already.get(deployment, ())
            while True:
                holder = self._holder(run, pool, cost, tried, now) if run.conversation is not None else None
                entry = holder or pick(pool, cost, tried, now, draw)
                if isinstance(entry, Exhausted):
                    short[deployment] = entry
                    break
                grant = self._reserve(run, pool, entry, now)
                if isinstance(grant, Grant):
                    if short:
                        self._tell_passed_over(run, short)
                    return grant
                if grant is None:
                    self._leave_out_unpriced(run, pool, entry)
                else:
                    self._set_aside(run, pool, entry, grant, now)
                cost = self._cost(run, deployment)
                tried = self._tried(run, deployment, kept)
        return together(list(short.values()))

    def _tried(self, run: Run, deployment: Deployment, kept: Collection[Held]) -> Collection[int]:
        """The entries of *deployment* that are of no use to *run*: those it tried, and what is kept for others."""
        tried = run.progress.tried.get(deployment, ())
        return {*tried, *(order for each, order in kept if each == deployment)} if kept else tried

    def _holder(self, run: Run, pool: Pool, cost: Cost, tried: Collection[int], now: float) -> Entry | None:
        """Who holds the prompt cache of the conversation; None for one that begins, and where keys take turns."""
        if run.conversation is None or not run.conversation[1] or len(pool.entries) < 2:
            return None
        rotation = self._config.rotations.get(pool.deployment.provider)
        if rotation is not None and rotation.each_call:
            return None
        return holder_in(pool, run.conversation[0], cost.input + cost.output, tried, now)

    def _reserve(self, run: Run, pool: Pool, entry: Entry, now: float) -> Grant | Denied | None:
        """Take every limit of *entry*, and the caller's own, at once, before a byte is sent.

        None: the caller has a budget and nobody knows what this costs. Raises CallerLimit and BudgetExhausted.
        """
        deployment = entry.candidate.deployment
        limits: tuple[Limit, ...] = ()
        for scope in entry.limit_scopes:
            limits += self._live.charged(scope)
        pool.limited = pool.limited or bool(limits)
        attempt = Attempt(new_id(self._clock.wall()), deployment.provider, deployment.model, entry.shown, now)
        needed: list[Claim] = claims(limits, self._cost(run, deployment)) if limits else []
        if run.call.kind == "count":  # providers count counting apart (Anthropic and Gemini, rate limits)
            own = (limit for limit in run.own if limit.metric == "requests" and not run.counted)
            needed = claims(own, SMALL)  # the owner of this gateway did not say so of its callers
        elif run.own:
            cost = self._own.cost(run, entry)
            if cost is None:
                return None
            needed += claims((limit for limit in run.own if not (run.counted and limit.metric == "requests")), cost)
        got = self._live.reserve(attempt.id, needed, now, entry.scopes)
        if isinstance(got, Denied):
            if got.limit.owner == "caller":
                raise self._own.refusal(got)
            return got
        if len(pool.entries) > 1:
            attempt.pick = entry.standing(now)
        pool.used(entry)
        self._live.begin(entry.scopes, attempt.id, now)
        budget = next((each for each in needed if each.limit.metric == "cost"), None) if run.paying else None
        return Grant(self.over, pool, entry, attempt, got, budget)

    async def confirmed(self, run: Run, grant: Grant) -> bool:
        """Whether the shared store, which has to be asked, grants *grant*; else its entry is set aside: pick again.

        Raises CallerLimit, BudgetExhausted and LimiterUnavailable.
        """
        got: Reservation | Denied | None = None
        assert not isinstance(grant.reservation, Reservation)
        try:
            got = await grant.reservation
        finally:
            if not isinstance(got, Reservation):
                grant.close()
        if isinstance(got, Reservation):
            grant.reservation, grant.pending = got, False
            return True
        now, entry = self._clock.mono(), grant.entry
        if got is None:  # a cooldown became known, which the next pick obeys
            if self._marks.blocked(entry.scopes, now) is None:
                grant.pool.park(entry, now + AGAIN, "busy")
        elif got.limit.owner == "caller":
            raise self._own.refusal(got)
        else:
            self._set_aside(run, grant.pool, entry, got, now)
        return False

    def rest_at_cap(self, entry: Entry, now: float, denied: Denied | None = None) -> None:
        """Let *entry* rest for its model, for as long as a custom cap says that is used up, or has *denied* a call; and
        with it whatever is counted together with it there.

        What attempts under way only hold is not used up: they may give it back.
        """
        rests = self._pools.rests
        if not rests:
            return
        view = self._live.view(now)
        for scope in entry.limit_scopes:
            rest = rests.get(scope)
            if rest is None:
                continue
            until = 0.0
            for limit in self._live.limits(scope):
                row = view.row(limit, now)
                least = row.capacity * USED_UP if limit.metric == "tokens" else row.capacity
                refused = denied is not None and denied.limit == limit and 0 < denied.wait_any < FOREVER
                if row.used >= least or refused:
                    until = max(until, now + rest.seconds + (row.resets_in if rest.after_reset else 0.0))
            if until > now:
                for each in self._pools.counted_under(scope):
                    self._rest(each, until, now)

    def _rest(self, entry: Entry, until: float, now: float) -> None:
        deployment, credential = entry.candidate
        scope = ("key_model", deployment.provider, credential.fingerprint, deployment.model)
        mark = self._marks.get(scope)
        if mark is None or mark.until <= now or mark.state == "counting" or mark.reason != "custom_cap":
            # Since its end: a success of what is under way must not clear it.
            change = Transition(scope, "cooling", until, "custom_cap", mark.strikes if mark is not None else 0, until)
            self._cool(Verdict([change]), entry.candidate)

    def _leave_out_unpriced(self, run: Run, pool: Pool, entry: Entry) -> None:
        """A budget cannot cover what nobody knows the price of."""
        deployment = pool.deployment
        run.progress.tried.setdefault(deployment, set()).add(entry.order)
        if deployment not in run.unpriced:
            run.unpriced |= {deployment}
            run.trail.refusals.append(f"{deployment}: its price is not known, and a budget applies")

    def _set_aside(self, run: Run, pool: Pool, entry: Entry, denied: Denied, now: float) -> None:
        """The limiter said no: keep *entry* out of the picks until it can say yes."""
        if denied.never:
            run.too_big = denied.limit
            run.progress.tried.setdefault(pool.deployment, set()).add(entry.order)
        elif denied.wait_any > 0:
            if denied.limit.source == "learned":
                self._adapting.hindered(denied.limit)
            until = now + max(denied.wait_any, SHORTEST)
            if denied.limit.source == "cap":
                self.rest_at_cap(entry, now, denied)
                mark = self._marks.blocked(entry.own_scopes, now)
                pool.park_capped(entry, until if mark is None else max(until, mark.until))
            else:
                pool.park(entry, until, "limit" if until < FOREVER else "busy")
            pool.exhausted_until(entry, until, now)
        else:
            cost = self._cost(run, pool.deployment)
            entry.short_cost, entry.short_until = cost.input + cost.output, now + max(denied.wait, SHORTEST)

    def _tell_passed_over(self, run: Run, short: Mapping[Deployment, Exhausted]) -> None:
        """Another deployment answers than the plan has first: why those before it were not even asked."""
        trail, now = run.trail, self._clock.mono()
        asked, known = {(each.provider, each.model) for each in trail.attempts}, tuple(trail.refusals)
        for deployment, shortage in short.items():
            if deployment in asked or (known and any(line.startswith(f"{deployment}: ") for line in known)):
                continue
            if shortage.limits or shortage.busy:
                why = "every key is at its limit"
            else:
                why = "every key rests after a fault" if shortage.faults else "no key can be used"
            again = f"; one is free again in {shortage.wait:.1f} s" if shortage.wait < FOREVER else ""
            trail.refusals.append(f"{deployment}: {why}{again}")
            trail.notes.append(standing(self._pools.of(deployment), run.progress.tried.get(deployment, ()), now))

    def _cost(self, run: Run, deployment: Deployment) -> Cost:
        """What *run* is charged on *deployment*; only calls that meet a limit ask."""
        cost = run.costs.get(deployment)
        if cost is not None:
            return cost
        name, model = deployment
        provider = self._config.providers[name]
        cost = run.costs[deployment] = self._estimator.charge(
            run.call,
            f"{name}/{model}",
            counts_output=provider.counts_output,
            charges_max_output=provider.charges_max_output,
        )
        return cost

    def over(self, attempt: Attempt) -> None:
        """*attempt* is over, or its grant was not used: what it probed without a verdict may be probed again, and who
        waits for the deployment may be able to go."""
        probed = self._live.end(attempt.id)
        if probed:
            self._wake_marked(probed)
        if self._room.anybody:
            self._room.freed(Deployment(attempt.provider, attempt.model))
