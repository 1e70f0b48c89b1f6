"""Keys that share a quota without their owner having said so: noticed, told once, and treated as one quota group.

Loaded with the first 429 in a pool of several keys, or when something was found out before. What is found out lies in
`quota_groups.json` of the data folder, with what the owner said against it; keys are named there by fingerprint, so
that a key with another value is another key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf, nextafter
from typing import TYPE_CHECKING, Any

from keyturn.config import Config, DataFolder
from keyturn.core import (
    Credential,
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

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway

NAME = "kinship"
"""In `Adapting.alert`."""
PACE = 30.0
"""Seconds between two looks at what became of suspicions."""
WIDEST = 256
"""Keys of a pool up to which it is counted who is busy."""
MINUTE = ("requests", "requests_minute")
_log = logging.getLogger("keyturn")


@dataclass(frozen=True, slots=True)
class Known:
    """Keys of one provider that were found to share a quota, by fingerprint."""

    provider: str
    keys: tuple[str, ...]
    since: float
    """Unix seconds."""
    evidence: tuple[str, ...]

    def told(self) -> dict[str, Any]:
        """As it is written down."""
        return {
            "provider": self.provider,
            "keys": list(self.keys),
            "since": self.since,
            "evidence": list(self.evidence),
        }


@dataclass(slots=True)
class Remembered:
    """What `quota_groups.json` holds."""

    groups: list[Known]
    apart: list[tuple[str, frozenset[str]]]
    """Provider, and keys of which the owner said that they do not share."""

    @classmethod
    def of(cls, folder: DataFolder | None) -> Remembered:
        """What is written down; what cannot be read is left out."""
        read = cls([], [])
        found = folder.quota_groups() if folder is not None else {}
        for row in _rows(found, "groups"):
            provider, since = row.get("provider"), row.get("since")
            keys, evidence = _texts(row.get("keys")), _texts(row.get("evidence"))
            if isinstance(provider, str) and isinstance(since, int | float) and len(keys) > 1:
                read.groups.append(Known(provider, keys, float(since), evidence))
        for row in _rows(found, "apart"):
            provider = row.get("provider")
            if isinstance(provider, str):
                read.apart.append((provider, frozenset(_texts(row.get("keys")))))
        return read

    def __bool__(self) -> bool:
        return bool(self.groups or self.apart)

    def told(self) -> dict[str, Any]:
        """As it is written down."""
        apart = [{"provider": provider, "keys": sorted(keys)} for provider, keys in self.apart]
        return {"groups": [each.told() for each in self.groups], "apart": apart}

    def refuse(self, fingerprints: Iterable[str]) -> list[Known]:
        """The owner says that these keys share with nobody: the groups that they were in, which are gone."""
        wrong = frozenset(fingerprints)
        broken = [each for each in self.groups if wrong.intersection(each.keys)]
        self.groups = [each for each in self.groups if each not in broken]
        for each in broken:
            self.apart.append((each.provider, frozenset(each.keys)))
            rest = tuple(key for key in each.keys if key not in wrong)
            if len(rest) > 1:
                self.groups.append(replace(each, keys=rest))
                self.apart[-1] = (each.provider, wrong.intersection(each.keys) | {rest[0]})
                self.apart += [(each.provider, wrong.intersection(each.keys) | {key}) for key in rest[1:]]
        return broken

    def forbids(self, provider: str, keys: Iterable[str]) -> bool:
        """Whether the owner said of some two of *keys* that they do not share."""
        together = set(keys)
        return any(name == provider and len(together & apart) > 1 for name, apart in self.apart)


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
        earlier = exchange.run.trail.attempts[-2:-1]
        if earlier and earlier[0].ended == sent:
            sent = nextafter(sent, inf)  # the clock does not tell, but it was sent after that
        names = self._kinship.lead(place)
        stated = self._stated(exchange, outcome) if credential.group in names else ()
        busy = _busy(pool, names)
        if refused:
            found = self._kinship.refused(
                place, credential.group, sent, now, wait=outcome.wait_s, cost=cost, busy=busy, stated=stated
            )
        else:
            found = self._kinship.admitted(place, credential.group, sent, now, cost=cost, busy=busy, stated=stated)
        self._take(found)
        self._follow(place, pool)

    def tests(self, provider: str, group: str, counted: str) -> bool:
        """Whether it is just being found out whether *group* shares its quota of a model: until then nobody can say
        how large its own is."""
        return group in self._kinship.lead((provider, counted))

    def _stated(self, exchange: Exchange, outcome: Outcome) -> list[Stated]:
        """What the answer's headers say of its limits per minute."""
        response = exchange.response
        if response is None:
            return []
        rows = outcome.limits or parse_limits(response.headers, exchange.provider.rules, self._clock.wall())
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

    def _leads(self, place: tuple[str, str]) -> Callable[[], tuple[str, ...]]:
        return lambda: self._kinship.lead(place)

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
        self._kinship.forget(kin.provider)
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


def told(config: Config, remembered: Remembered, suggested: Iterable[Known] = ()) -> list[dict[str, Any]]:
    """The quota groups that were found out, for people."""
    shown = {each.fingerprint: each.shown for group in config.credentials.values() for each in group}
    rows = []
    for state, groups in (("inferred", remembered.groups), ("suggested", suggested)):
        for known in groups:
            since = datetime.fromtimestamp(known.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            keys = [shown[key] for key in known.keys if key in shown]
            rows.append({**known.told(), "keys": keys, "since": since, "state": state})
    return rows


def groups_kept(config: Config, folder: DataFolder) -> list[dict[str, Any]]:
    """The same while no gateway runs, as far as it is written down."""
    return told(config, Remembered.of(folder))


def refuse_apart(folder: DataFolder, fingerprints: Iterable[str]) -> list[str]:
    """As `Kindred.ungroup`, while no gateway runs. Raises OSError."""
    remembered = Remembered.of(folder)
    broken = remembered.refuse(fingerprints)
    if broken:
        folder.write_quota_groups(remembered.told())
    return [key for each in broken for key in each.keys]


def _is_refusal(outcome: Outcome) -> bool:
    """Whether it says that a limit of a key, or of its project, is used up; how many calls at once is no such limit."""
    own = outcome.meaning in ("rate_limited", "daily_quota") and outcome.scope in ("key", "quota_group", "model")
    return own and not outcome.no_quota and "concurren" not in outcome.message.lower()


def _busy(pool: Pool, names: tuple[str, ...]) -> dict[str, int]:
    """The attempts of *names* that are under way at one model."""
    counts = dict.fromkeys(names, 0)
    for entry in pool.entries if names and len(pool.entries) <= WIDEST else ():
        group = entry.candidate.credential.group
        if group in counts:
            counts[group] += entry.active
    return counts


def _in_group(credential: Credential, name: str | None) -> Credential:
    """*credential* in the quota group *name*; None: in its own, unless its owner put it elsewhere."""
    if credential.declared:
        return credential
    name = name or credential.fingerprint
    return credential if credential.group == name else replace(credential, group=name)


def _rows(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    rows = found.get(name)
    return [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
