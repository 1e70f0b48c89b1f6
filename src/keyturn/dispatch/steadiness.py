"""How a failing provider is treated: second tries by its budget, the breaker, and the throttle before that.

A provider has a record here from its first fault until all is well again; while there is none nothing is looked at.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from keyturn.core import (
    FOREVER,
    OUTAGE,
    Breaker,
    Budget,
    Others,
    Outcome,
    ScopeKey,
    Seen,
    Throttle,
    Transition,
    Verdict,
    affords,
    earned,
    price_of_retry,
    retry_began,
    retry_ended,
)
from keyturn.errors import BadUpstream
from keyturn.providers import endpoint_of

from .clock import draw
from .run import Grant, Run

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway

NAME = "steadiness"
QUIET = 120.0
"""Seconds without a fault after which a record whose budget is full is let go: what the throttle looks back on."""
LET_GO = 600.0
"""Seconds without a fault after which any is."""
TIDY_EVERY = 10.0
AGAIN = 5.0
"""Seconds after which a call that the throttle refused may be sent again."""


class Retry(NamedTuple):
    """A second try that is under way, what it costs if it fails, and whether another provider had failed."""

    key: ScopeKey
    price: int
    elsewhere: bool


class Upstream:
    """The record of one provider and endpoint."""

    __slots__ = ("breaker", "budget", "failed_at", "throttle")

    def __init__(self, breaker: Breaker, now: float) -> None:
        self.breaker = breaker
        self.budget = Budget()
        self.throttle = Throttle()
        self.failed_at = now
        """When it met a fault last."""


class Steadiness:
    """All records of one gateway. Their number is that of the providers and endpoints."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._upstreams: dict[ScopeKey, Upstream] = {}
        self._tidied = -FOREVER
        self.held_back: Counter[str] = Counter()
        """Second tries that a budget did not allow, by provider."""
        self.spared: Counter[str] = Counter()
        """Calls that left a provider alone because most of its answers were faults."""
        self.opened: Counter[str] = Counter()
        """How often each provider's breaker opened."""

    def look(self, exchange: Exchange, outcome: Outcome) -> None:
        """An attempt was answered or failed: the onlooker of `Adapting`."""
        grant, now = exchange.grant, self._gateway.clock.mono()
        key = grant.pool.scope[-1]
        fault = outcome.meaning in OUTAGE and outcome.status != 429
        if not fault and outcome.meaning != "ok" and key not in self._upstreams:
            return
        if outcome.meaning == "ok" and exchange.stream is not None and not grant.open:
            return  # it was counted when its content began
        if self._gateway.marks.get(key) is not None and not self._breaks(exchange):  # switched off while it was open
            self._cool(exchange, [Transition(key, None, started=grant.attempt.started)])
        upstream = self._record(key, exchange, now) if fault else self._upstreams.get(key)
        deployment = grant.entry.candidate.deployment
        used = grant.entry.candidate.credential.fingerprint
        seen = Seen(deployment, grant.attempt.started, now, outcome.wait_s, outcome.code, used)
        if not fault:
            if upstream is not None:
                upstream.throttle.accepted(now)
            if outcome.meaning == "ok":
                self._answered(exchange, key, upstream, seen)
                if now >= self._tidied + TIDY_EVERY:
                    self._tidy(now)
            return
        assert upstream is not None
        upstream.failed_at = now
        upstream.throttle.failed(now)
        if self._breaks(exchange):
            longest = exchange.provider.longest_rests.get("server_error", FOREVER)
            changes = upstream.breaker.failed(self._gateway.marks, seen, draw, longest, self._others(grant, now))
            self._cool(exchange, changes)

    def _others(self, grant: Grant, now: float) -> Others:
        """Who of the pool of *grant* could be asked instead."""
        marks, entries = self._gateway.marks, grant.pool.entries

        return lambda beside: any(
            each.candidate.credential.fingerprint not in beside and marks.blocked(each.own_scopes, now) is None
            for each in entries
        )

    def forget(self, provider: str) -> None:
        """What *provider* has met so far does not count any more: its keys were reset."""
        for key, upstream in self._upstreams.items():
            if key[1] == provider:
                upstream.breaker.forget()
                upstream.throttle.clear()
                upstream.budget = Budget(flying=upstream.budget.flying)

    def _breaks(self, exchange: Exchange) -> bool:
        """Whether there are breakers: the other profiles say themselves how long what rests."""
        config = exchange.run.generation.config
        return config.steady.breaker and config.cooldown == "adaptive"

    def _answered(self, exchange: Exchange, key: ScopeKey, upstream: Upstream | None, seen: Seen) -> None:
        marks = self._gateway.marks
        if upstream is None:
            if marks.get(key) is None:
                return
            upstream = self._record(key, exchange, seen.now)  # another gateway has opened the breaker
        self._cool(exchange, upstream.breaker.answered(marks, seen))
        if exchange.run.progress.attempts == 1:
            upstream.budget = earned(upstream.budget)

    def _tidy(self, now: float) -> None:
        """Let go of the records of what is well again, and of what nobody asks any more."""
        self._tidied = now
        for key, upstream in list(self._upstreams.items()):
            quiet = now - upstream.failed_at
            if quiet >= LET_GO or (quiet >= QUIET and upstream.budget == Budget()):
                del self._upstreams[key]
        if not self._upstreams:
            self._gateway.adapting.alert.discard(NAME)

    def _cool(self, exchange: Exchange, changes: list[Transition]) -> None:
        if not changes:
            return
        gateway, first = self._gateway, changes[0]
        if first.scope[0] == "provider" and first.state is not None and first.width == 1:
            self._upstreams[first.scope].throttle.clear()
            self.opened[first.scope[1]] += 1
        if first.width == 1:
            gateway.cool(Verdict(changes), exchange.grant.entry.candidate)
        else:
            gateway.live.cool(first)
            gateway.wake_marked([first.scope])

    def _record(self, key: ScopeKey, exchange: Exchange, now: float) -> Upstream:
        upstream = self._upstreams.get(key)
        if upstream is None:
            endpoints, endpoint = exchange.provider.endpoints, key[2]
            covers = (lambda model: endpoint_of(endpoints, model) == endpoint) if endpoint else (lambda model: True)
            upstream = self._upstreams[key] = Upstream(Breaker(key, covers), now)
            self._gateway.adapting.alert.add(NAME)
        return upstream

    # --- the throttle

    def spare(self, run: Run) -> None:
        """Have *run*, which begins, leave a provider alone whose answers are mostly faults, by chance. Raises
        BadUpstream when nobody else could answer it."""
        spared: dict[str, tuple[int, int]] = {}
        now, pools = self._gateway.clock.mono(), run.generation.pools
        asked_first = self._upstreams.get(pools.of(run.deployments[0]).scope[-1])
        if asked_first is not None:
            asked_first.breaker.wanted(now)
        for key, upstream in self._upstreams.items():
            share = upstream.throttle.share(now)
            few = bool(share) and upstream.breaker.only_some_keys(now)
            if share and not few and draw() < share and self._gateway.marks.get(key) is None:
                for each in run.deployments:
                    mine = each.provider == key[1] and pools.of(each).scope[-1] == key
                    if mine and not upstream.breaker.works(each, now):
                        spared[each.provider] = upstream.throttle.counts(now)
                        run.progress.closed |= {each}
        if not spared:
            return
        told = [
            f"{name}: {faults} of its last {answers} answers were faults" for name, (faults, answers) in spared.items()
        ]
        self.spared.update(spared.keys())
        if all(map(run.progress.closed.__contains__, run.deployments)):
            raise BadUpstream(
                f"{'; '.join(told)}: this call is not sent, so that it can recover; ask again in a moment",
                retry_after=AGAIN,
            )
        run.trail.refusals.extend(f"{line}; this call leaves it alone" for line in told)
        run.progress.meanings |= {"server_error"}

    # --- second tries

    def allows(self, run: Run, grant: Grant) -> bool:
        """Whether the provider of *grant* may be asked by *run*, whose last attempt failed. If not the grant is given
        back, and nothing behind the same address is asked any more."""
        price, key = price_of_retry(run.last), grant.pool.scope[-1]
        upstream = self._upstreams.get(key)
        if upstream is None or not run.generation.config.steady.retry_budget:
            return True
        if affords(upstream.budget, price, self._gateway.inflight, elsewhere=run.last_asked != key):
            return True
        grant.close()
        provider = key[1]
        pools = run.generation.pools
        run.progress.closed |= {
            each for each in run.deployments if each.provider == provider and pools.of(each).scope[-1] == key
        }
        run.unafforded = True
        self.held_back[provider] += 1
        run.trail.refusals.append(
            f"{provider}: too many second tries of late, while its answers are mostly faults; it is not asked again"
        )
        return False

    def begins(self, run: Run, grant: Grant) -> Retry | None:
        """An attempt of *run* is sent: when it is a second try that costs something, it is to be ended by `ends`."""
        price, key = price_of_retry(run.last), grant.pool.scope[-1]
        upstream = self._upstreams.get(key)
        if upstream is not None:
            upstream.throttle.began(self._gateway.clock.mono())
        if not price:
            return None
        elsewhere = run.last_asked != key
        if upstream is not None:
            upstream.budget = retry_began(upstream.budget, price, elsewhere=elsewhere)
        return Retry(key, price, elsewhere or upstream is None)

    def ends(self, retry: Retry, *, failed: bool) -> None:
        """It was answered, or *failed*, or its client left."""
        upstream = self._upstreams.get(retry.key)
        if upstream is not None:
            upstream.budget = retry_ended(upstream.budget, retry.price, elsewhere=retry.elsewhere, failed=failed)
