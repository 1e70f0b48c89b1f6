"""How many attempts are under way at once where an upstream has had too many: learned, and kept as a limit.

A bound is a limit of metric `concurrency` and source `learned` in the live state, so that reservations hold it like
any other, gateways tell each other, and a restart finds it. Streams that begin late are a sign too. Loaded with the
first stream, or the first sign of overload.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from keyturn.core import (
    FOREVER,
    INFLIGHT,
    Begun,
    Bound,
    Entry,
    Grounds,
    Limit,
    Onset,
    Outcome,
    Pool,
    narrowed,
    overload,
    widened,
)

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway

NAME = "narrowing"
TIDY_EVERY = 10.0
"""Seconds between two looks at all of them."""
MOST = 2000
"""Bounds that are kept; then the one that has been left alone for longest is forgotten, as models come from clients."""


class Narrowing:
    """The bounds of one gateway. Outlives its configurations."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._clock = gateway.clock
        self._live = gateway.live
        self._bounds: OrderedDict[str, Bound] = OrderedDict()
        self._onsets: OrderedDict[str, Onset] = OrderedDict()
        """When streams begin, by what a bound would hold for; the one left alone for longest first."""
        self._tidied = -FOREVER

    def __len__(self) -> int:
        return len(self._bounds)

    def look(self, exchange: Exchange, outcome: Outcome) -> None:
        """An attempt was answered or failed."""
        grant, now = exchange.grant, self._clock.mono()
        scope = grant.entry.limit_scopes[0]
        bound = self._bounds.get(scope)
        if bound is not None and self._live.meters.book.learned(_limit(scope)) is None:  # the owner cleared it
            self._drop(scope)
            bound = None
        if outcome.meaning == "ok":
            if now >= self._tidied + TIDY_EVERY:
                self._tidy(now)
            onset = self._onsets.get(scope)
            told = exchange.stream is None or grant.open  # a stream's end says nothing more
            if bound is not None and told and (onset is None or not onset.trying(now)):
                self._set(scope, bound, widened(bound, _under_way(grant.pool, grant.entry) + (not grant.open), now))
        elif overload(outcome) and self._gateway.marks.get(grant.pool.scope[-1]) is None:  # an outage is no crowd
            after = narrowed(bound, _under_way(grant.pool, grant.entry) + 1, grant.attempt.started, now)
            if after is not None:
                self._set(scope, bound, after, grant.attempt.id)

    def begun(self, exchange: Exchange, now: float) -> None:
        """A stream has its first content: from that follows whether calls wait at the upstream."""
        grant, entry = exchange.grant, exchange.grant.entry
        scope = entry.limit_scopes[0]
        if self._live.standing().replicas > 1:  # how many the others have under way is not known here
            self._onsets.pop(scope, None)
            return
        if self._gateway.marks.get(grant.pool.scope[-1]) is not None:  # an outage is no crowd
            return
        onset = self._onsets.setdefault(scope, Onset())
        self._onsets.move_to_end(scope)
        if len(self._onsets) > MOST:
            self._onsets.popitem(last=False)
        bound = self._bounds.get(scope)
        together = [each for each in grant.pool.entries if each.limit_scopes[0] == scope]
        beside = sum(each.active for each in together) - entry.active
        size, attempt = exchange.run.call.text_bytes, grant.attempt
        stream = Begun(size, exchange.crowd + beside, attempt.started, now)
        after = onset.observe(stream, bound, sum(each.ended for each in together))
        if after is not bound:
            self._set(scope, bound, after, attempt.id)
        if after is not None or onset.watchful:
            entry.onset_due = -FOREVER

    def heard(self, limits: Iterable[Limit]) -> None:
        """Something became known of *limits*, which another process learned or forgot."""
        now, book = self._clock.mono(), self._live.meters.book
        for limit in limits:
            known = book.learned(limit) if limit.metric == "concurrency" else None
            if known is not None:
                stated, grounds = known
                too_much = max(grounds.reached, stated.capacity + 1)
                self._keep(limit.scope, Bound(stated.capacity, too_much, now, 0, max(float(grounds.patience), 1.0)))
            elif limit.metric == "concurrency":
                self._drop(limit.scope)

    def _tidy(self, now: float) -> None:
        """Forget what has been quiet for so long, also where nobody is asked any more."""
        self._tidied = now
        for scope in [scope for scope, bound in self._bounds.items() if bound.over(now)]:
            self._set(scope, None, None)

    def _set(self, scope: str, before: Bound | None, after: Bound | None, attempt: str = "") -> None:
        """*before* has become *after*; None: it is forgotten. *attempt*: what showed it."""
        if after is None:
            self._drop(scope)
            self._live.forget(_limit(scope), "learned")
            return
        self._keep(scope, after)
        if before is None or before.limit != after.limit:
            limit = _limit(scope, after.limit)
            known = self._live.meters.book.learned(limit)
            evidence = known[1].evidence if known is not None else ()
            if attempt:
                evidence = (*evidence, attempt)[-3:]
            grounds = Grounds(self._clock.wall(), evidence, after.too_much, int(after.patience))
            self._live.learn(limit, grounds, self._clock.mono())

    def _keep(self, scope: str, bound: Bound) -> None:
        self._bounds[scope] = bound
        self._bounds.move_to_end(scope)
        self._gateway.adapting.alert.add(NAME)
        if len(self._bounds) > MOST:
            oldest, _ = self._bounds.popitem(last=False)
            self._live.forget(_limit(oldest), "learned")

    def _drop(self, scope: str) -> None:
        self._bounds.pop(scope, None)
        if not self._bounds:
            self._gateway.adapting.alert.discard(NAME)


def _limit(scope: str, most: int = 1) -> Limit:
    return Limit(scope, "concurrency", INFLIGHT, most, "learned")


def _under_way(pool: Pool, entry: Entry) -> int:
    """How many attempts of the quota group and model of *entry* are under way."""
    scope = entry.limit_scopes[0]
    return sum(each.active for each in pool.entries if each.limit_scopes[0] == scope)
