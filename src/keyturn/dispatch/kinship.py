"""Keys that share a quota without their owner having said so: noticed, told once, and treated as one quota group.

Loaded with the first 429 in a pool of several keys, or when something was found out before, which is in `kept_groups`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from math import inf, nextafter
from typing import TYPE_CHECKING, Any

from keyturn.config import Config, DataFolder
from keyturn.core import (
    Credential,
    Entry,
    Kin,
    Kinship,
    Outcome,
    Pool,
    Stated,
    TimerHandle,
    Transition,
    Verdict,
    parse_limits,
)

from .events import Alarm
from .kept_groups import Known, Remembered, told

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway
    from .run import Grant, Run

NAME = "kinship"
"""In `Adapting.alert`."""
PACE = 30.0
"""Seconds between two looks at what became of suspicions."""
WIDEST = 256
"""Keys of a pool up to which it is counted who is busy."""
SHORTEST_REST, LONGEST_REST = 5.0, 12.0
"""Seconds that a suspected key rests after a refusal that does not say for how long: then it may be asked, and it is
ready."""
MOST_ASKED = 8
"""Attempts of a call from which on it does not come back to suspected keys."""
MINUTE = ("requests", "requests_minute")
_log = logging.getLogger("keyturn")


class Kindred:
    """What one gateway finds out about its keys. Outlives its configurations."""

    def __init__(self, gateway: Gateway, folder: DataFolder | None) -> None:
        self._gateway = gateway
        self._clock = gateway.clock
        self._folder = folder
        self._kinship = Kinship()
        self.remembered = Remembered.of(folder)
        self.suggested: list[Known] = []
        """What was told to the owner only."""
        self._found: list[Kin] = []
        self._soon: TimerHandle | None = None
        self._timer: TimerHandle | None = None
        self._led: dict[tuple[str, str], list[Pool]] = {}
        """The pools in which somebody may lead, by place."""
        self._writing: asyncio.Future[None] | None = None
        self._late = False
        """Something changed while the last write was under way."""

    def look(self, exchange: Exchange, outcome: Outcome) -> None:
        """Learn from the outcome of an attempt."""
        entry, pool, now = exchange.grant.entry, exchange.grant.pool, self._clock.mono()
        if exchange.run.generation is not self._gateway.generation:
            return  # its keys may be named otherwise
        credential, place = entry.candidate.credential, (entry.scopes[2][1], entry.scopes[2][3])
        if credential.declared or len(pool.entries) < 2:
            return
        refused = _is_refusal(outcome)
        if not refused and not (outcome.meaning == "ok" and self._kinship.watches(place)):
            return
        sent, cost = exchange.grant.attempt.started, exchange.estimate()
        names = self._kinship.lead(place)
        full = self._full(pool) if refused else []
        stated = self._stated(exchange, outcome) if credential.group in names else ()
        scope = entry.limit_scopes[0]
        busy = _busy(pool, None if refused else names)
        earlier = exchange.run.trail.attempts[-2:-1]
        if earlier and earlier[0].ended == sent:
            sent = nextafter(sent, inf)  # the clock does not tell, but it was sent after that
        if refused:
            found = self._kinship.refused(
                place,
                credential.group,
                sent,
                now,
                wait=outcome.wait_s,
                cost=cost,
                busy=busy,
                stated=stated,
                full=full,
                bounded=any(each.metric == "requests" for each in self._gateway.live.limits(scope)),
            )
        else:
            owners = (each.candidate.credential for each in pool.entries) if earlier else ()
            after = next((each.group for each in owners if each.shown == earlier[0].key), "")
            found = self._kinship.admitted(
                place, credential.group, sent, now, cost=cost, busy=busy, stated=stated, after=after
            )
        self._take(found)
        self._follow(place, pool)
        if refused and outcome.wait_s is None:
            self._rest_less(place, credential.group, now)

    def _rest_less(self, place: tuple[str, str], group: str, now: float) -> None:
        """*group* was refused, and nobody said for how long. What is refused again and again because of another key
        must not rest for longer and longer; and who follows a leader is to be asked as soon as that is refused."""
        names = next((each for each in self._kinship.leads(place) if group in each), ())
        for name in names:
            mark = self._gateway.marks.get(("group_model", place[0], name, place[1]))
            if mark is None or (mark.state, mark.reason) != ("cooling", "rate_limited"):
                continue
            if not self._kinship.serves(place, name, now):
                continue  # it may be spent for long
            asked = group == names[0] != name and mark.since <= now - SHORTEST_REST
            until = now if asked else now + LONGEST_REST
            if mark.until > until:
                strikes = min(mark.strikes, 2)
                change = Transition(mark.scope, mark.state, until, mark.reason, strikes, mark.since, shorten=True)
                self._gateway.cool(Verdict([change]), None)

    def let_wait(self, run: Run, grant: Grant) -> None:
        """A call was refused by a key that is suspected to share with others: when it has asked all of them that can be
        asked now, it may ask them again, so that the leader is the first that serves it."""
        pool, now = grant.pool, self._clock.mono()
        _, provider, group, counted = grant.entry.scopes[2]
        names = next((each for each in self._kinship.leads((provider, counted)) if group in each), ())
        if not names or run.progress.attempts >= MOST_ASKED:
            return
        tried = run.progress.tried.get(pool.deployment, set())
        orders = {each.order for each in pool.entries if each.candidate.credential.group in names}
        if all(
            pool.entries[each].block is not None and pool.entries[each].parked_until > now for each in orders - tried
        ):
            tried -= {each for each in orders if (pool.deployment, each) in run.progress.limited}

    def suspects(self, entry: Entry) -> bool:
        """Whether the key of *entry* is suspected to share its quota of a model with another one."""
        _, provider, group, counted = entry.scopes[2]
        return self._kinship.suspects((provider, counted), group)

    def tests(self, pool: Pool, entry: Entry) -> bool:
        """Whether it is just being found out whether the key of *entry* shares its quota of a model with others that
        are used: until then nobody can say how large its own is."""
        _, provider, group, counted = entry.scopes[2]
        credential = entry.candidate.credential
        if credential.declared or self._gateway.config.learning.groups == "off":
            return False
        used = (
            each.candidate.credential.group
            for each in (pool.entries if len(pool.entries) <= WIDEST else ())
            if each.last_used >= 0 and not each.candidate.credential.declared
        )
        return self._kinship.unsettled((provider, counted), group, used, self._clock.mono())

    def _full(self, pool: Pool) -> list[str]:
        """Who is not asked because of what it is known to be allowed, and not because it was refused."""
        marks, now = self._gateway.marks, self._clock.mono()
        return [
            each.candidate.credential.group
            for each in (pool.entries if len(pool.entries) <= WIDEST else ())
            if each.block in ("limit", "busy") and marks.blocked(each.own_scopes, now) is None
        ]

    def _stated(self, exchange: Exchange, outcome: Outcome) -> list[Stated]:
        """What the answer's headers say of its limits per minute."""
        response = exchange.response
        if response is None:
            return []
        rules, wall = exchange.provider.rules, self._clock.wall()
        rows = outcome.limits or parse_limits(response.headers, rules, wall, resets=False)
        found = []
        for name in MINUTE:
            row = rows.get(name)
            if isinstance(row, Mapping) and row.get("window") == "minute":
                capacity, remaining = row.get("limit"), row.get("remaining")
                if isinstance(capacity, int) and isinstance(remaining, int) and capacity > 0:
                    found.append(Stated(capacity, remaining))
        return found

    def _follow(self, place: tuple[str, str], pool: Pool) -> None:
        """Have calls at *place* go to who leads there, and successes told as long as anything is suspected."""
        alert = self._gateway.adapting.alert
        if self._kinship:
            alert.add(NAME)
            if self._timer is None:
                self._timer = self._clock.call_at(self._clock.mono() + PACE, self._look_again)
        else:
            alert.discard(NAME)
        if self._kinship.lead(place):
            pools = self._led.setdefault(place, [])
            if not any(each is pool for each in pools):
                from keyturn.core import Leading

                pool.strategy = Leading(pool.strategy, self._leads(place))
                in_use = {id(each) for each in self._gateway.pools}
                pools[:] = [*(each for each in pools if id(each) in in_use), pool]
        elif place in self._led:
            self._let_go(place)

    def _leads(self, place: tuple[str, str]) -> Callable[[], tuple[tuple[str, ...], ...]]:
        return lambda: self._kinship.leads(place)

    def _let_go(self, place: tuple[str, str]) -> None:
        """Nobody leads at *place* any more."""
        from keyturn.core import Leading

        for pool in self._led.pop(place, ()):
            if isinstance(pool.strategy, Leading):
                pool.strategy = pool.strategy.usual

    def _look_again(self) -> None:
        """The timer: drop suspicions of which nothing was heard for long."""
        self._timer = None
        self._take(self._kinship.expire(self._clock.mono()))
        for place in [each for each in self._led if not self._kinship.lead(each)]:
            self._let_go(place)
        if self._kinship:
            self._timer = self._clock.call_at(self._clock.mono() + PACE, self._look_again)
        else:
            self._gateway.adapting.alert.discard(NAME)

    def _take(self, found: list[Kin]) -> None:
        if found:
            self._found += found
            if self._soon is None:  # the call that told it goes on first
                self._soon = self._clock.call_at(self._clock.mono(), self._settle)

    def _settle(self) -> None:
        """Act on what was found."""
        self._soon = None
        found, self._found = self._found, []
        for kin in found:
            self._believe(kin)

    def _believe(self, kin: Kin) -> None:
        """These two share: they are one quota group from now on, or its owner is told only."""
        config = self._gateway.config
        every = config.credentials.get(kin.provider, ())
        named = {each.fingerprint: each.group for each in every}  # a group has the name of one of its keys
        one, other = named.get(kin.one, kin.one), named.get(kin.other, kin.other)
        members = [each for each in every if each.group in (one, other) and not each.declared]
        keys = tuple(each.fingerprint for each in members)
        if len({each.group for each in members}) < 2:
            return
        if config.learning.groups == "off" or self.remembered.forbids(kin.provider, keys):
            self._kinship.keep_apart(kin.provider, one, other, inf)
            return
        shown = {each.group: each.shown for each in reversed(members)}
        evidence = tuple(said.format(one=shown[one], other=shown[other]) for said in kin.evidence)
        known = Known(kin.provider, keys, self._clock.wall(), evidence)
        if config.learning.groups == "suggest":
            self._kinship.keep_apart(kin.provider, one, other, inf)
            self.suggested.append(known)
            self._tell(known, members, suggested=True)
            return
        kept = [each for each in self.remembered.groups if not set(each.keys) & set(keys)]
        earlier = [said for each in self.remembered.groups if each not in kept for said in each.evidence]
        self.remembered.groups = [*kept, replace(known, evidence=(*earlier, *evidence)[-8:])]
        self._carry_over(members, min(keys))
        self._kinship.forget(kin.provider, {each.group for each in members})
        for place in [each for each in self._led if each[0] == kin.provider]:
            self._let_go(place)
        self._gateway.adopt(config)
        self._write()
        self._tell(known, members)

    def _tell(self, known: Known, members: list[Credential], *, suggested: bool = False) -> None:
        names = ", ".join(each.shown for each in members)
        done = (
            "declare it with QUOTA_GROUP_<P>, if that is so"
            if suggested
            else "they are one quota group from now on; if that is wrong, `keyturn keys ungroup` undoes it"
        )
        why = "; ".join(known.evidence[-2:])
        self._gateway.events.emit(
            Alarm(
                f"{names} share one quota at {known.provider}: {done}. More keys of that account do not help, only "
                f"keys of another account or project do. Why: {why}"
            )
        )

    def _carry_over(self, members: list[Credential], name: str) -> None:
        """What was used of each, and what stands against each, counts for all of them under *name*."""
        gateway = self._gateway
        moved = {each.group for each in members} - {name}
        for credential in members:
            for _, entry in gateway.pools.entries(credential):
                self._add_up(entry.limit_scopes[0], name)
        changes = [
            Transition(
                (mark.scope[0], mark.scope[1], name, *mark.scope[3:]),
                mark.state,
                mark.until,
                mark.reason,
                mark.strikes,
                mark.since,
            )
            for mark in gateway.marks.of(members[0].provider)
            if mark.scope[0] in ("group", "group_model") and mark.scope[2] in moved
        ]
        if changes:
            gateway.cool(Verdict(changes), None)

    def _add_up(self, old: str, name: str) -> None:
        """What is used of the limits of *old* is used of those of the same models in the group *name* too."""
        live, now = self._gateway.live, self._clock.mono()
        provider, _, rest = old.partition("/")
        new = f"{provider}/{name}|{rest.partition('|')[2]}"
        known, view = {limit.key for limit in live.limits(new)}, live.view(now)
        for limit in live.limits(old):
            if limit.source == "learned":  # of one of them alone
                live.forget(limit, "learned")
            if old == new or limit.metric == "concurrency":
                continue
            row, target = view.row(limit, now), replace(limit, scope=new)
            if limit.source == "reported" and target.key not in known:
                live.report(new, limit.metric, limit.window, limit.capacity, now)
            live.take(target, row.used + row.reserved, now)

    def grouped(self, config: Config) -> Config:
        """*config* with the quota groups that were found out, as far as their keys are still there, and their owner
        does not say otherwise."""
        present = {each.fingerprint: each for group in config.credentials.values() for each in group}
        names: dict[str, str] = {}
        kept: list[Known] = []
        for known in self.remembered.groups if config.learning.groups == "infer" else ():
            keys = tuple(
                key
                for key in known.keys
                if key in present and present[key].provider == known.provider and not present[key].declared
            )
            if len(keys) > 1:
                names |= dict.fromkeys(keys, min(keys))
                kept.append(replace(known, keys=keys))
        if config.learning.groups == "infer" and kept != self.remembered.groups:
            self.remembered.groups = kept
            self._write()
        every = {
            provider: tuple(_in_group(each, names.get(each.fingerprint)) for each in group)
            for provider, group in config.credentials.items()
        }
        if every == config.credentials:  # credentials are compared by identity
            return config
        return replace(config, credentials=every)

    def told(self) -> list[dict[str, Any]]:
        """What is known, for people: keys as they are shown, with the evidence."""
        return told(self._gateway.config, self.remembered, self.suggested)

    def ungroup(self, fingerprints: Iterable[str]) -> list[str]:
        """The owner says that these keys share with nobody, which is remembered. The keys that were in groups with
        them, by fingerprint."""
        wrong = set(fingerprints)
        doubted = [each for each in self.suggested if wrong.intersection(each.keys)]
        self.suggested = [each for each in self.suggested if each not in doubted]
        self.remembered.apart += [(each.provider, frozenset(each.keys)) for each in doubted]
        broken = self.remembered.refuse(wrong)
        if broken:
            for provider in {each.provider for each in broken}:
                self._kinship.forget(provider)
            self._gateway.adopt(self._gateway.config)
        if broken or doubted:
            self._write()
        broken += doubted
        return [key for each in broken for key in each.keys]

    def _write(self) -> None:
        """Write down what is known, in a thread; the latest wins."""
        if self._folder is None:
            return
        if self._writing is not None:
            self._late = True
            return
        writing = asyncio.get_running_loop().run_in_executor(
            None, self._folder.write_quota_groups, self.remembered.told()
        )
        self._writing = writing
        writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        if self._writing is not writing:
            return
        self._writing = None
        error = None if writing.cancelled() else writing.exception()
        if error is not None:
            _log.warning("quota_groups.json could not be written: %s", error)
        if self._late:
            self._late = False
            self._write()

    async def close(self) -> None:
        """No look any more; what is being written is waited for. May be called twice."""
        for timer in (self._soon, self._timer):
            if timer is not None:
                timer.cancel()
        self._soon = self._timer = None
        while (writing := self._writing) is not None:
            await asyncio.wait([writing])
            if self._writing is writing:
                self._written(writing)


def _is_refusal(outcome: Outcome) -> bool:
    """Whether it says that a limit of a key, or of its project, is used up; how many calls at once is no such limit."""
    own = outcome.meaning in ("rate_limited", "daily_quota") and outcome.scope in ("key", "quota_group", "model")
    return own and not outcome.no_quota and "concurren" not in outcome.message.lower()


def _busy(pool: Pool, names: Collection[str] | None) -> dict[str, int]:
    """The attempts of *names* (None: of all) that are under way at one model."""
    counts: dict[str, int] = {}
    for entry in pool.entries if names != () and len(pool.entries) <= WIDEST else ():
        group = entry.candidate.credential.group
        if names is None or group in names:
            counts[group] = counts.get(group, 0) + entry.active
    return counts


def _in_group(credential: Credential, name: str | None) -> Credential:
    """*credential* in the quota group *name*; None: in its own, unless its owner put it elsewhere."""
    if credential.declared:
        return credential
    name = name or credential.fingerprint
    return credential if credential.group == name else replace(credential, group=name)
