"""The life of one call: plan, pick, reserve, attempt, judge, relay, settle, record."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from keyturn.config import Config, DataFolder
from keyturn.core import (
    SHARED,
    Attempt,
    Call,
    Caller,
    Candidate,
    Clock,
    Entry,
    Estimator,
    Exhausted,
    Latencies,
    Limit,
    Marks,
    Redactor,
    Refuse,
    Relay,
    ScopeKey,
    Trace,
    Trail,
    Transport,
    TryNext,
    Verdict,
    advance,
    needs_listing,
)
from keyturn.errors import Draining, KeyturnError
from keyturn.stores import Learned, Ledger, LiveState

from . import answering, overview, unanswered
from .adapting import Adapting
from .adopting import adopt
from .carried import Carried
from .closing import close_all, groups_of
from .declared import budgets
from .events import Alarm, CallEnded, Cooled, Events
from .exchange import Exchange
from .generation import Generation
from .models import ModelLists, ModelRow
from .planning import lay_out, listed, move_on
from .pools import Pools
from .preparing import at_once, prepared, written
from .readiness import readiness
from .recording import ending, intent, says_it_all
from .relay import RelayStream
from .reply import Reply
from .restoring import Restoring
from .rotations import Rotations
from .run import Failed, Grant, Run
from .signatures import SignatureMemory
from .signing_in import furnish
from .strain import Strain
from .timekeeping import follow_clock
from .waiting import MovedOn, WaitingRoom

if TYPE_CHECKING:
    from keyturn.login import Refresher

    from .keeping import KeptResponses

FOREVER = float("inf")
ANYBODY = Caller()
MOST_RECENT = 256


class Gateway:
    """One pool of credentials and all that answers from it. Made by `build`."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        transport: Transport,
        live: LiveState,
        marks: Marks,
        ledger: Ledger,
        redactor: Redactor,
        folder: DataFolder | None = None,
    ) -> None:
        self.clock = clock
        self.transport = transport
        self.live = live
        self.marks = marks
        self.ledger = ledger
        self.events = Events()
        self.estimator = Estimator()
        self.latencies = Latencies()
        """What answers usually take, where timeouts follow it."""
        self.signatures = SignatureMemory()
        self.keep_answer = 0
        """How many bytes of each answer `CallEnded` carries: 0 unless requests are recorded."""
        self.redactor = redactor
        self.redact = redactor.text
        self.room: WaitingRoom[Grant] = WaitingRoom(clock, config.waiting.most, config.waiting.most_bytes)
        self.carried = Carried(folder, clock, live, config.spent)
        self.rotations = Rotations(self.carried, live, self.events)
        self.adapting = Adapting(self)
        self.restoring: Restoring | None = None
        """Has live state outlive the process, where it is kept in its memory."""
        self.generations = 0
        """How many configurations there have been."""
        self.disabled: set[str] = set()
        """Fingerprints of the credentials that the owner took out of use, present or not."""
        self.refresher: Refresher | None = None
        """Gives accounts their tokens, once there are any."""
        self.generation = Generation(furnish(self, config)[0], self)
        self.retired: list[Generation] = []
        """Earlier configurations that calls still run on."""
        self.older_lists: list[ModelLists] = []
        """Lists of earlier configurations, which may still be fetched for somebody."""
        live.subscribe(self._wake)
        live.follow(self._learned)
        if not ledger.keeps:
            self.carried.take_over(budgets(config))
        self.recent: OrderedDict[str, Trail] = OrderedDict()
        """The trails of the latest calls, for who asks what happened to one."""
        self.inflight = 0
        self.strain = Strain()
        """How hard the process is pressed, as far as the server measures it."""
        self.leaving = False
        """It will drain soon: no traffic should be sent here, but calls are still taken."""
        self.draining = False
        self.tracer: Callable[[Call, str], Trace] | None = None
        """Where tracing is on: gives a call, with its id, its place in a trace."""
        self.before_attempt: Callable[[str, Call, Attempt], Awaitable[None]] | None = None
        """Awaited before each attempt is prepared; it may change the call's members. What it raises ends the call."""
        self._idle: asyncio.Event | None = None

    @cached_property
    def responses(self) -> KeptResponses:
        """The answers of the Responses API that are kept; loaded with the first that is asked for."""
        from .keeping import KeptResponses

        return KeptResponses(self)

    async def open(self) -> None:
        """Ready the stores and take over what was remembered. To be awaited once, before the first call, wherever
        something is to last or is shared. Raises StoreError."""
        await self.ledger.open()
        await self.live.open()
        await self.carried.open(self.ledger, budgets(self.config))
        if self.restoring is not None:
            await self.restoring.open()
        self.adapting.resume()

    async def handle(self, call: Call, caller: Caller, call_id: str) -> Reply:
        """Answer *call*. Errors come back as replies; only cancellation is raised, and leaves nothing behind."""
        generation = self.generation
        trail = Trail(call_id, call.model, self.clock.mono(), stream=call.stream, caller=caller.name)
        run = Run(call, caller, trail, generation)
        if self.tracer is not None:
            trail.trace = self.tracer(call, call_id)
        self.inflight += 1
        generation.calls += 1
        if call.stream and (call.commit_after is not None or generation.config.stream.commit_after is not None):
            from .committing import commits, committed

            after = commits(run)
            if after is not None:
                return await committed(self, run, after)
        return await self.answered(run)

    async def answered(self, run: Run) -> Reply:
        """The answer to *run*, which is recorded with it, or when its stream ends."""
        reply = None
        try:
            if self.draining:
                raise Draining("the gateway is shutting down; ask again in a moment", retry_after=1.0)
            keep = await self.responses.begin(run) if run.call.dialect == "openai_responses" else None
            generation = run.generation
            if needs_listing(run.call, generation.lists.catalog):
                await listed(self, run, generation)
            lay_out(self, run, generation)
            if generation is not self.generation:
                await move_on(self, run)
            sharing = run.generation.sharing
            if sharing is not None and keep is None:  # kept answers have ids of their own
                reply = await sharing.answer(run)
            if keep is not None:
                reply = keep(self._relayed(run, await self.obtain(run)))
            elif reply is None:
                reply = self._relayed(run, await self.obtain(run))
        except KeyturnError as error:
            reply = answering.refused(self, run, error)
        finally:
            if reply is None or reply.stream is None:
                self._ended(run, reply)
        return reply

    async def ask(self, run: Run) -> Reply:
        """Have *run*, which has been planned, answered by who can. Raises what keeps everybody from it."""
        return self._relayed(run, await self.obtain(run))

    def _relayed(self, run: Run, got: Exchange | Reply) -> Reply:
        """What `obtain` *got*, on its way to the client."""
        if isinstance(got, Reply):
            return got
        reply = None
        try:
            reply = answering.relayed(self, run, got)
        finally:
            if reply is None:
                got.close()
        return reply

    async def obtain(self, run: Run, resend: Entry | None = None) -> Exchange | Reply:
        """Ask one candidate after the other until one answers: the exchange that has the answer, or the beginning of a
        stream, to be relayed and closed by who asked for it; or the reply that says why none does. *resend*: who may be
        asked once more if nobody else is free. Raises what keeps everybody from answering."""
        if self.adapting.alert and not run.progress.attempts:
            self.adapting.steadiness.spare(run)
        while True:
            reserving = run.generation.reserving
            grant = reserving.claim(run)
            if isinstance(grant, Exhausted):
                try:
                    again = reserving.again(run, resend)
                    if again is None and run.progress.give_back():
                        continue
                    grant = again or (grant if self.draining else await reserving.wait(run, grant))
                except MovedOn:
                    await move_on(self, run)
                    continue
            if isinstance(grant, Exhausted):
                return unanswered.given_up(self, run, grant)
            if grant.pending and not await reserving.confirmed(run, grant):
                resend = None
                continue
            if run.last_asked is not None and not self.adapting.steadiness.allows(run, grant):
                resend = None
                continue
            exchange = written(self, run, grant) if at_once(self, run, grant) else await prepared(self, run, grant)
            if exchange is None:
                continue
            hedging = run.generation.hedging
            if hedging is None or not hedging.watches(run):
                failed = await (self.attempt(run, exchange) if self.adapting.alert else exchange.perform())
            else:
                grant, exchange, failed = await hedging.attempt(run, grant, exchange)
            if failed is None:
                return exchange
            move = advance(run.progress, grant.entry, failed.outcome, self.clock.mono())
            if isinstance(move, Relay):
                return answering.as_it_came(self, run, failed)
            run.remember(failed)
            if failed.outcome.meaning == "rate_limited":
                run.progress.met_limit(grant.entry)
                self.adapting.let_wait(exchange)
            if isinstance(move, Refuse):
                raise unanswered.stopped(run, move)
            resend = move.resend if isinstance(move, TryNext) else None

    async def attempt(self, run: Run, exchange: Exchange) -> Failed | None:
        """Send it. None: there is an answer, and *exchange* is open."""
        if not self.adapting.alert:
            return await exchange.perform()
        retry, failed = self.adapting.steadiness.begins(run, exchange.grant), None
        try:
            failed = await exchange.perform()
        finally:
            if retry is not None:
                self.adapting.steadiness.ends(retry, failed=failed is not None)
        return failed

    def intended(self, run: Run, grant: Grant) -> Awaitable[None] | None:
        """*grant* is about to be sent: it counts, and goes on record. What to wait for until it is there, if any."""
        run.progress.attempts += 1
        run.trail.attempts.append(grant.attempt)
        ledger = self.ledger
        if not ledger.keeps:
            return None
        line, shared = intent(self, run, grant)
        return ledger.intend(line, shared, paying=run.paying)

    def left(self, generation: Generation) -> None:
        """A call does not run on *generation* any more."""
        generation.calls -= 1
        if not generation.calls and generation in self.retired:
            self.retired.remove(generation)

    def stream_ended(self, stream: RelayStream) -> None:
        """The client has all of *stream*, or left."""
        usage = stream.attempt.usage
        if usage is not None and stream.run.costs and not stream.run.trail.code:
            self.estimator.learn(f"{stream.attempt.provider}/{stream.attempt.model}", stream.run.call, usage)
        if not stream.run.joint:
            self.record(stream.run, stream.kept)

    def landed(self, run: Run) -> None:
        """What *run* asked for several calls is over; each of them is recorded by itself."""
        self.left(run.generation)

    def _ended(self, run: Run, reply: Reply | None) -> None:
        """A call without a stream is over; *reply* None: the client left."""
        if reply is None:
            run.trail.status, run.trail.code = 499, "client_left"
        else:
            run.trail.status = 200 if run.committed else reply.status
        self.record(run, reply.body[: self.keep_answer] if self.keep_answer and reply is not None else None)

    def record(self, run: Run, answer: bytes | None) -> None:
        """*run* is over; *answer*: the beginning of what its client got."""
        trail = run.trail
        trail.ended = self.clock.mono()
        self.recent[trail.call] = trail
        if len(self.recent) > MOST_RECENT:
            self.recent.popitem(last=False)
        if self.ledger.keeps and not says_it_all(trail):
            self.ledger.ended(ending(self, run))
        self.inflight -= 1
        self.left(run.generation)
        if not self.inflight and self._idle is not None:
            self._idle.set()
        self.events.emit(CallEnded(run.call, run.caller, trail, answer))

    def cool(self, verdict: Verdict, candidate: Candidate | None) -> None:
        """Perform what `judge` decided, and tell."""
        now = self.clock.mono()
        for change in verdict.transitions:
            eased = self.live.cool(change)
            if self.restoring is not None:
                self.restoring.marked()
            if eased or change.state is None:
                self.wake_marked([change.scope])
            if change.state is None or change.shorten:
                continue
            if candidate is not None and change.state != "counting":
                model = (
                    candidate.deployment.model if change.scope[0] in ("group_model", "key_model", "deployment") else ""
                )
                key = "" if change.scope[0] in SHARED else candidate.credential.shown
                self.events.emit(Cooled(change.scope[1], key, model, change.reason, change.until - now))
        if verdict.alarm:
            self.events.emit(Alarm(verdict.alarm))

    def wake_marked(self, scopes: Sequence[ScopeKey]) -> None:
        """The marks on *scopes* are gone, or may be probed again: by calls on earlier configurations too."""
        self.generation.pools.wake_marked(scopes)
        for older in self.retired:
            older.pools.wake_marked(scopes)

    def _wake(self, scope: str) -> None:
        """What somebody waited for came free early."""
        self.generation.pools.wake(scope)
        for older in self.retired:
            older.pools.wake(scope)

    def _learned(self, news: Learned) -> None:
        """Another gateway that shares the live state changed it."""
        if news.freed:
            self.disabled.difference_update(scope[2] for scope in news.freed if scope[0] == "key")
            self.wake_marked(news.freed)
        for provider, index in news.turned:
            self.rotations.follow(provider, index)
        if news.taught:
            self.adapting.heard(news.taught)

    def adopt(self, config: Config) -> None:
        """Answer by *config* from now on; calls under way finish on what they began with."""
        adopt(self, config)

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self.generation.config

    @property
    def pools(self) -> Pools:
        """Its pools."""
        return self.generation.pools

    @property
    def generations_in_use(self) -> tuple[Generation, ...]:
        """Its configuration, and earlier ones that calls still run on."""
        return (self.generation, *self.retired)

    @property
    def lists_in_use(self) -> tuple[ModelLists, ...]:
        """The lists of its configuration, and earlier ones that somebody may still wait for."""
        return (self.generation.lists, *self.older_lists)

    @property
    def lists(self) -> ModelLists:
        """What its providers offer."""
        return self.generation.lists

    def keep_time(self) -> None:
        """To be called each second: limits that reset at midnight follow the wall clock when it is set."""
        follow_clock(self)

    async def models(self, caller: Caller = ANYBODY) -> list[ModelRow]:
        """Every name that *caller* may ask for and that somebody can answer, as `GET /v1/models` lists them."""
        rows = await self.lists.rows()
        if caller.name == ANYBODY.name and not caller.routes:
            return rows
        if not caller.routes:
            tools = {name for name, row in self.config.providers.items() if row.tool is not None}
            return [row for row in rows if any(each.provider not in tools for each in row.behind)]
        return [row for row in rows if self.lists.reaches(caller, row)]

    async def refresh(self) -> None:
        """Have every limit stand as all gateways that share it know it, for who wants to see them."""
        await self.live.refresh(overview.limit_scopes(self), overview.own_limits(self))

    def quota_stats(self, caller: Caller, provider: str | None = None) -> dict[str, Any]:
        """What `GET /v1/quota-stats` answers: every key with its limits, totals, and *caller*'s own limits."""
        return overview.quota_stats(self, caller, provider)

    async def explain(self, call: Call, caller: Caller) -> dict[str, Any]:
        """Who would be asked for *call*, and who not and why."""
        from .explain import explain

        return await explain(self, call, caller)

    async def headroom(
        self, caller: Caller, route: str | None = None, tokens: int | None = None, output: int | None = None
    ) -> dict[str, Any]:
        """What `GET /v1/headroom` answers: what each route of *caller*, or *route* alone, can take now and in a minute.

        Calls of *tokens* in their prompt are counted, with *output* in their answers at most. Raises what `resolve`
        does for *route*.
        """
        from .headroom import USUAL, Size, headroom

        return await headroom(self, caller, route, Size(USUAL.tokens if tokens is None else tokens, output))

    def headroom_gauges(self) -> Iterable[tuple[str, float, float]]:
        """Each role, alias and route id with the calls that fit now and in a minute; none where there are no names."""
        if not self.config.names and not self.config.routes:
            return ()
        from .headroom import gauges

        return gauges(self)

    def own_limit(self, limit: Limit) -> dict[str, object]:
        """How one limit of a caller or a role stands, money in dollars."""
        return overview.own_limit(self, limit)

    def keys(self, provider: str | None = None) -> list[dict[str, object]]:
        """The rows of `keys list --json`."""
        return overview.keys(self, provider)

    def providers(self, caller: Caller = ANYBODY) -> list[dict[str, object]]:
        """The rows of `GET /v1/providers`; their addresses are for who may do everything."""
        rows = overview.providers(self)
        return rows if caller.name == ANYBODY.name else [{**row, "base_url": None} for row in rows]

    def reset(self, key: str | None) -> list[str]:
        """Clear the cooldowns of the keys that *key* names, of all by default; their shown names."""
        return overview.reset(self, key)

    def disable(self, key: str) -> list[str]:
        """Take the keys that *key* names out of use; their shown names."""
        return overview.disable(self, key)

    def enable(self, key: str) -> list[str]:
        """Take disabled keys into use again; their shown names."""
        return overview.enable(self, key)

    def ready(self) -> str | None:
        """Why no traffic should be sent here; None when it should."""
        return readiness(self).reason

    def drain(self) -> None:
        """Take no new calls; those that wait are refused, those that run go on."""
        self.draining = True
        self.room.dismiss()

    async def drained(self, seconds: float) -> bool:
        """Wait until nothing runs, at most *seconds*; True when nothing does."""
        if self.inflight:
            self._idle = asyncio.Event()
            timer = self.clock.call_at(self.clock.mono() + seconds, self._idle.set)
            await self._idle.wait()
            timer.cancel()
        return not self.inflight

    async def close(self) -> None:
        """End the background work, write down what must last, and close the connections to upstreams: within 4 s."""
        self.drain()
        await close_all(self.clock, groups_of(self))
