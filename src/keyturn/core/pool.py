"""The credentials of one deployment: which are ready, which are set aside until when, and in which rank each stands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, MutableMapping, Sequence
from heapq import heapify, heappop, heappush, nsmallest
from typing import Protocol

import msgspec

from .credentials import Block, Mark, ScopeKey
from .entries import FOREVER, Entry, Flow, Pace, Rank
from .fair import Cycle, FairRule
from .model import Candidate, Credential, Deployment, Draw

MOST_HOLDERS = 4096
"""Conversations whose prompt cache is remembered, per pool."""
UNRANKED = 1_000_000
"""The key priority of a key that has none, where others have one."""
NO_RULE = FairRule()
LOOKED_AT = 64
"""Of a pool's entries, how many are looked at for those that have room first."""


class View(Protocol):
    """What a pick reads of the live state. `load`: the used share of the fullest limit, and until when that holds."""

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None: ...
    def load(self, scope: str, now: float) -> tuple[float, float]: ...


class Exhausted(msgspec.Struct, frozen=True, gc=False):
    """Nothing can be picked now. *wait*: seconds until the earliest candidate returns, infinite when unknown."""

    wait: float
    limits: int
    """How many candidates only limits keep away; `busy`: until an attempt under way ends; `faults`, `dead` likewise."""
    busy: int
    faults: int
    dead: int
    by_size: bool = False
    """A smaller call would fit now."""


class Strategy(Protocol):
    """Chooses among the ready entries of a rank, leaving out those in *tried* and those too full for *tokens*."""

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None: ...

    def moved(self, pool: Pool, entry: Entry, started: float = FOREVER, now: float = -FOREVER) -> None:
        """An attempt on *entry* that began at *started* met a limit (429, quota)."""
        ...

    def preview(self) -> Strategy:
        """One that chooses the same, and by which nothing moves."""
        ...


def _places(credentials: Sequence[Credential], among: Sequence[Credential]) -> list[int]:
    """The position of each of *credentials* among all."""
    positions = {each: place for place, each in enumerate(among)}
    return [positions[each] for each in credentials]


class Pool:
    """The credentials of one deployment. Mutable and deterministic."""

    __slots__ = (
        "_heap",
        "_uses",
        "at_cap",
        "blocks",
        "capped",
        "cycle",
        "deployment",
        "entries",
        "fair",
        "followed",
        "grades",
        "holders",
        "keeps",
        "limited",
        "pace",
        "places",
        "ranks",
        "scope",
        "soft",
        "strategy",
        "unspent",
        "view",
        "width",
    )

    capped: bool
    """Custom caps hold for it."""
    at_cap: int
    """How many entries are parked because of one."""
    followed: int
    """The version of the cycle that its ranks show."""
    grades: int
    """How many key priorities it has."""

    def __init__(
        self,
        deployment: Deployment,
        credentials: Sequence[Credential],
        strategy: Strategy,
        view: View,
        among: Sequence[Credential] = (),
        *,
        soft: int = 0,
        flows: MutableMapping[str, Flow] | None = None,
        cycle: Cycle | None = None,
        fair: FairRule = NO_RULE,
        keeps: float = FOREVER,
        counted: Sequence[str] = (),
        endpoint: str = "",
    ) -> None:
        """*among*: all credentials of the provider in their order, where *credentials* are not all of them.

        *soft*: the soft target of calls under way per credential, 0 for none, counted in *flows* by fingerprint.
        *keeps*: seconds that a conversation is remembered. *counted* (per credential), *endpoint*: see `scopes_of`.
        """
        self.deployment = deployment
        named = zip(credentials, counted or ("",) * len(credentials), strict=True)
        self.entries = [
            Entry(Candidate(deployment, each), order, name, endpoint) for order, (each, name) in enumerate(named)
        ]
        self.width = len(among) or len(self.entries)
        """How many credentials the provider has."""
        self.places = _places(credentials, among) if self.width != len(self.entries) else None
        """The position of each entry among those; None where it is the entry's own."""
        self.pace: Pace | None = None
        """How soon the deployment begins to answer, over all its credentials; None until it is measured."""
        self.scope: tuple[ScopeKey, ...] = (("deployment", *deployment), ("provider", deployment.provider, endpoint))
        """What holds for all of its entries."""
        self.strategy = strategy
        self.view = view
        self.holders: OrderedDict[int, tuple[int, float]] = OrderedDict()
        """Conversation -> the position of the entry that holds its prompt cache, and until when that is believed; the
        one used longest ago is first."""
        self.keeps = keeps
        self.limited = False
        """Some entry has met a limit: what a call costs matters from then on."""
        self.capped = False
        self.at_cap = 0
        self.blocks: dict[Block, int] = {"limit": 0, "busy": 0, "fault": 0, "dead": 0}
        self.soft = soft
        self.cycle = cycle
        """The fair cycle that it follows; None: none."""
        self.fair = fair
        self.followed = -1
        self.unspent: list[int] = []
        """How many of each key priority were not exhausted in the cycle, as far as it is followed."""
        self._heap: list[tuple[float, int]] = []
        self._uses = 0
        self.grades = 1
        self.ranks: list[Rank] = []
        """The best first."""
        self._rank(flows if flows is not None else {})

    def copy(self, among: Sequence[Credential]) -> Pool:
        """One that chooses as this one would, and by which nothing moves, with nobody set aside. *among*: as it was
        made with."""
        entries, flows = self.entries, {}
        for each in entries:
            if each.flow is not None:
                flow = flows[each.candidate.credential.fingerprint] = Flow()
                flow.active = each.flow.active
        copied = Pool(
            self.deployment,
            [each.candidate.credential for each in entries],
            self.strategy.preview(),
            self.view,
            among if self.places is not None else (),
            soft=self.soft,
            flows=flows,
            cycle=self.cycle.copy() if self.cycle is not None else None,
            fair=self.fair,
        )
        copied.scope = self.scope
        for old, new in zip(entries, copied.entries, strict=True):
            new.scopes, new.own_scopes, new.limit_scopes = old.scopes, old.own_scopes, old.limit_scopes
            new.active, new.last_used, new.pace = old.active, old.last_used, old.pace
        return copied

    def _rank(self, flows: MutableMapping[str, Flow]) -> None:
        """Make the ranks, and put every entry into its own."""
        entries = self.entries
        priorities = sorted({entry.candidate.credential.priority or UNRANKED for entry in entries}) or [UNRANKED]
        grades = {priority: grade for grade, priority in enumerate(priorities)}
        self.grades = len(priorities)
        members: list[list[int]] = [[] for _ in priorities]
        for entry in entries:
            entry.grade = grades[entry.candidate.credential.priority or UNRANKED]
            members[entry.grade].append(entry.order)
        for spent in (False, True) if self.cycle is not None else (False,):
            for grade, those in enumerate(members):
                places = [self.place(entries[each]) for each in those] if self.grades > 1 else None
                for stacked in (False, True) if self.soft else (False,):
                    rank = Rank(spent * self.grades + grade, grade, those, places, stacked=stacked)
                    rank.heaviest = max((entries[each].candidate.credential.weight for each in those), default=0.0)
                    self.ranks.append(rank)
        for entry in entries:
            if self.soft:
                flow = entry.flow = flows.setdefault(entry.candidate.credential.fingerprint, Flow())
                flow.places.append((self, entry))
                entry.stacked = flow.active >= self.soft
            entry.rank = self._rank_of(entry)
            entry.rank.ready.append(entry.order)
            if entry.free:
                entry.rank.free.append(entry.order)

    def _rank_of(self, entry: Entry) -> Rank:
        place = entry.spent * self.grades + entry.grade
        return self.ranks[2 * place + entry.stacked] if self.soft else self.ranks[place]

    def _rerank(self, entry: Entry) -> None:
        """What the rank of *entry* depends on has changed."""
        rank = self._rank_of(entry)
        if rank is not entry.rank:
            if entry.block is None:
                entry.rank.remove(entry)
                rank.add(entry)
            entry.rank = rank

    @property
    def ready(self) -> list[int]:
        """The positions of all entries that may be used as far as anyone knows."""
        return (
            self.ranks[0].ready if len(self.ranks) == 1 else sorted(each for rank in self.ranks for each in rank.ready)
        )

    def place(self, entry: Entry) -> int:
        """The position of *entry* among all credentials of its provider, the same in all its pools."""
        return entry.order if self.places is None else self.places[entry.order]

    def park(self, entry: Entry, until: float, block: Block) -> None:
        """Set *entry* aside until a moment (infinite: until `unpark`)."""
        if entry.block is None:
            entry.rank.remove(entry)
        else:
            self.blocks[entry.block] -= 1
            self._off_cap(entry)
        entry.parked_until, entry.block = until, block
        self.blocks[block] += 1
        if until < FOREVER:
            heappush(self._heap, (until, entry.order))
            if len(self._heap) > 2 * len(self.entries) + 64:
                self._heap = [(each.parked_until, each.order) for each in self.entries if each.block is not None]
                heapify(self._heap)

    def found_blocked(self, entry: Entry, mark: Mark, now: float) -> None:
        """*entry*, which was ready, is kept away by *mark*: set it aside until that is over, or its probe is."""
        if mark.until <= now:
            self.park(entry, FOREVER, "busy")
            return
        self.park(entry, mark.until, mark.block)
        if self.cycle is not None:
            self.exhausted(entry, mark, now)
            if self.cycle.version != self.followed:
                self.follow(now)

    def unpark(self, entry: Entry) -> None:
        """Something that blocked *entry* may have gone: it is ready until the next look says otherwise."""
        entry.short_until = entry.load_until = -FOREVER
        if entry.block is not None:
            self.blocks[entry.block] -= 1
            entry.block = None
            entry.parked_until = -FOREVER
            self._off_cap(entry)
            entry.rank.add(entry)

    def park_capped(self, entry: Entry, until: float) -> None:
        """Set *entry* aside because of a custom cap; infinite: until attempts under way give back what they hold."""
        self.park(entry, until, "limit" if until < FOREVER else "busy")
        if until < FOREVER:
            entry.capped = True
            self.at_cap += 1

    def _off_cap(self, entry: Entry) -> None:
        if entry.capped:
            entry.capped = False
            self.at_cap -= 1

    def revive(self, now: float) -> None:
        """Make ready what is parked no longer than *now*."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            until, order = heappop(heap)
            entry = self.entries[order]
            if entry.block is not None and entry.parked_until == until:
                self.unpark(entry)

    def used(self, entry: Entry) -> None:
        """An attempt on *entry* begins."""
        self._uses += 1
        entry.last_used = self._uses
        entry.active += 1
        entry.load_until = -FOREVER
        flow = entry.flow
        if flow is not None:
            flow.active += 1
            if flow.active == self.soft:
                for pool, each in flow.places:
                    pool.stack(each, stacked=True)

    def done(self, entry: Entry) -> None:
        """An attempt on *entry* is over."""
        entry.active -= 1
        entry.ended += 1
        entry.load_until = -FOREVER
        flow = entry.flow
        if flow is not None:
            flow.active -= 1
            if flow.active == self.soft - 1:
                for pool, each in flow.places:
                    pool.stack(each, stacked=False)

    def stack(self, entry: Entry, *, stacked: bool) -> None:
        """The credential of *entry* has reached the soft target, or is below it again."""
        entry.stacked = stacked
        self._rerank(entry)

    def let_go(self) -> None:
        """The pool is not used any more: what its credentials share with other pools forgets it."""
        for entry in self.entries:
            if entry.flow is not None:
                entry.flow.places = [each for each in entry.flow.places if each[0] is not self]

    def exhausted(self, entry: Entry, mark: Mark | None, now: float) -> None:
        """*entry* may have begun a rest that counts in the fair cycle: *mark* says until when it rests, and why."""
        if self.cycle is None or mark is None or mark.until <= now:
            return
        dead = mark.block == "dead"
        if dead or max(mark.until - now, mark.until - mark.since) >= self.fair.threshold:
            self._spend(entry, now if dead or mark.since > now else mark.since, now)

    def exhausted_until(self, entry: Entry, until: float, now: float) -> None:
        """The same for an entry that only its limits keep away from now on."""
        if self.cycle is not None and self.fair.threshold <= until - now < FOREVER:
            self._spend(entry, now, now)

    def _spend(self, entry: Entry, since: float, now: float) -> None:
        """*entry* goes behind the others. The cost does not grow with the pool unless a cycle is over by it."""
        cycle = self.cycle
        if cycle is None:
            return
        followed = cycle.version == self.followed
        cycle.exhaust(entry.candidate.credential.fingerprint, since, now, self.fair.duration)
        if followed and cycle.version != self.followed:
            self.followed = cycle.version
            entry.spent = True
            self._rerank(entry)
            self.unspent[entry.grade] -= 1
            if not (any(self.unspent) if self.fair.cross_priority else self.unspent[entry.grade]):
                self.follow(now)

    def follow(self, now: float) -> None:
        """Take over who was exhausted in the fair cycle; it begins anew for those of whom all were, and when it has
        lasted long enough. Who cannot be used at all stays behind."""
        cycle, entries = self.cycle, self.entries
        if cycle is None:
            return
        if cycle.ends <= now:
            cycle.begin_anew(tuple(cycle.spent), now)
        marks = [entry.candidate.credential.fingerprint for entry in entries]
        every = [range(len(entries))] if self.fair.cross_priority else [rank.members for rank in self.ranks]
        for members in every:
            if cycle.spent.issuperset(marks[each] for each in members):
                cycle.begin_anew([marks[each] for each in members if entries[each].block != "dead"], now)
        self.followed = cycle.version
        self.unspent = [0] * self.grades
        for entry, mark in zip(entries, marks, strict=True):
            entry.spent = mark in cycle.spent
            self.unspent[entry.grade] += not entry.spent
            self._rerank(entry)

    def holds(self, entry: Entry, conversation: int, now: float) -> None:
        """*entry* has answered a call of *conversation*: its account holds the prompt cache."""
        holders = self.holders
        holders[conversation] = (entry.order, now + self.keeps)
        holders.move_to_end(conversation)
        while holders and (len(holders) > MOST_HOLDERS or next(iter(holders.values()))[1] <= now):
            holders.popitem(last=False)

    def observed(self, entry: Entry, seconds: float, now: float) -> None:
        """An answer of *entry* began after *seconds*."""
        for each in (entry, self):
            if each.pace is None:
                each.pace = Pace(seconds, now)
            else:
                each.pace.observe(seconds, now)

    def load(self, entry: Entry, now: float) -> float:
        """The used share of the fullest limit of *entry*; computed again only when it may have changed."""
        if entry.load_until <= now:
            share, until, load = 0.0, FOREVER, self.view.load
            for scope in entry.limit_scopes:
                part, holds = load(scope, now)
                if part > share:
                    share = part
                if holds < until:
                    until = holds
            entry.load, entry.load_until = share, until
        return entry.load

    def returns(self, tokens: int, tried: Collection[int], now: float) -> Exhausted:
        """Why nothing can be picked, and when something can be."""
        earliest, by_size, stuck, entries = FOREVER, False, 0, self.entries
        for rank in self.ranks:
            for order in rank.ready:
                entry = entries[order]
                if order not in tried and entry.short_until > now and tokens >= entry.short_cost:
                    earliest, by_size = min(earliest, entry.short_until), True
                    stuck += entry.short_until == FOREVER
        heap = self._heap
        while heap and entries[heap[0][1]].parked_until != heap[0][0]:
            heappop(heap)
        if heap:
            until, order = heap[0]
            if order in tried:
                until = min((until for until, order in heap if order not in tried), default=FOREVER)
            if until < earliest:
                earliest = until
        blocks = self.blocks
        if tried:  # what was tried is of no use to this call, whenever it returns
            blocks = dict(blocks)
            for order in tried:
                block = entries[order].block
                if block is not None:
                    blocks[block] -= 1
        wait = earliest - now if earliest > now else 0.0
        return Exhausted(
            wait, blocks["limit"] + by_size, blocks["busy"] + stuck, blocks["fault"], blocks["dead"], by_size
        )

    def soonest(self, most: int) -> list[Entry]:
        """A few, *most* at the utmost of each sort, that will have room first: of those that are ready, and of those
        that a limit keeps away. The cost of it does not grow with the pool."""
        ready = [self.entries[order] for rank in self.ranks for order in rank.ready[: 2 * LOOKED_AT]]
        found = nsmallest(most, ready, key=lambda each: each.short_until) if ready else []
        heap, met = self._heap, set[int]()
        front = [(heap[0], 0)] if heap else []
        for _ in range(LOOKED_AT):
            if not front or len(met) >= most:
                break
            (until, order), at = heappop(front)
            for below in (2 * at + 1, 2 * at + 2):
                if below < len(heap):
                    heappush(front, (heap[below], below))
            entry = self.entries[order]
            if entry.block == "limit" and entry.parked_until == until and order not in met:
                met.add(order)
                found.append(entry)
        return found

    def closed(self, mark: Mark, tried: int, now: float) -> Exhausted:
        """Nothing can be picked because of a mark on the whole deployment; *tried* entries are of no use anyway."""
        block = mark.block
        if mark.until <= now:  # a probe is out, and who waits for its end waits because of what it probes
            return Exhausted(FOREVER, 0, 1, block == "fault", 0)
        wait = mark.until - now if tried < len(self.entries) else FOREVER
        return Exhausted(wait, block == "limit", 0, block == "fault", block == "dead")
