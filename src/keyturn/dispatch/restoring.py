"""Live state over a restart: the snapshot is read before the first call, and kept current behind the calls.

What is written: marks as they change (those that follow one another within 200 ms together), counters and reported
limits that changed once a second, everything at the end. So a gateway that is killed loses at most about a second of
it, and of that second the ledger knows every attempt: what began after the snapshot was taken is charged again from
there, at the tokens that were estimated or counted. Not covered: that second where there is no ledger, or its database
is away at the start; output beyond its estimate of what was under way at a kill; cooldowns of the last 200 ms, when
there were several.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING

from keyturn.core import (
    Caller,
    Cost,
    Credential,
    Deployment,
    Entry,
    Instant,
    KeptUse,
    Limit,
    ScopeKey,
    TimerHandle,
    claims,
    offset_of,
    scope_in,
)
from keyturn.errors import StoreAway, StoreError
from keyturn.stores import (
    AttemptRow,
    Changes,
    Head,
    Kept,
    Kind,
    MemoryState,
    Name,
    Snapshots,
    UsageQuery,
    boot_name,
)

from .declared import EVERYBODY, GROUP, OF_CAP
from .rotations import Rotations

if TYPE_CHECKING:
    from keyturn.config import Config

    from .gateway import Gateway

PACE = 1.0
"""Seconds between two looks at what changed."""
SOON = 0.2
"""Seconds after which a changed mark is written, when another has just been."""
SLICE = 256
"""Counters that are looked at in one turn of the loop."""
WHOLE = 3600
"""Looks after which everything is written anew, so that what is at rest does not stay for ever."""
MOST_POOLS = 200
"""Pools that are made at once, so that what was counted is in sight."""
LAPSE = 10.0
"""Seconds after a snapshot in which its process is believed to have lived on, where the clock does not tell."""
MOST_CALLS = 5000
"""Calls that are charged again after a crash."""
Put = tuple[Kind, str, object]
QUIET = 60.0
"""Seconds between two complaints that the snapshot cannot be written."""
_log = logging.getLogger("keyturn")


class Restoring:
    """Keeps the live state of *gateway*, which is in the memory *live*, in *snapshots*."""

    def __init__(self, gateway: Gateway, live: MemoryState, snapshots: Snapshots) -> None:
        self._gateway = gateway
        self._clock = gateway.clock
        self._live = live
        self._snapshots = snapshots
        self._boot = boot_name()
        self._timer: TimerHandle | None = None
        self._soon: TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._looks = 0
        self._uses: set[str] = set()
        """Limits whose use is to be written."""
        self._marks: set[ScopeKey] = set()
        self._limits: set[str] = set()
        self._cycles: dict[tuple[str, str], int] = {}
        """The fair cycles as they were written: name -> version."""
        self._everything = False
        """The next write is to be of everything."""
        self._marked = self._complained = -inf
        self._open = self._loaded = False
        self._began = 0.0
        """When this process opened it, Unix seconds."""

    async def open(self) -> None:
        """Take over what an earlier process left, and begin to keep what changes. Raises StoreError. What cannot be
        read just now is taken over later, and nothing is written before."""
        self._began = self._clock.wall()
        try:
            await self._load()
        except StoreAway as error:
            self._failed(error)
        self._live.meters.changed()
        self._live.marks.touched, self._live.meters.book.touched = self._marks, self._limits
        self._open = True
        if self._loaded:
            await self._written(True)
        self._timer = self._clock.call_at(self._clock.mono() + PACE, self._look)

    async def _load(self) -> None:
        """Take over what an earlier process left, unless that is done: what is written takes its place."""
        if self._loaded:
            return
        kept = await self._snapshots.load()
        self._loaded = True
        if kept is not None:
            await self._go_on(kept)

    async def _go_on(self, kept: Kept) -> None:
        now = self._instant()
        restore(self._gateway, self._live, kept, now)
        if kept.unread:
            _log.warning("%d rows of the snapshot of live state cannot be read, and were left out", kept.unread)
        if not kept.head.clean and self._gateway.ledger.keeps:
            try:
                await self._charge_again(kept, offset_of(kept.head.instant, now))
            except StoreAway as error:
                _log.warning("calls of the last moment before the last end are not counted again: %s", error.message)

    def marked(self) -> None:
        """A mark was set or cleared: it is written at once, and those that follow it together a little later."""
        if self._open and self._soon is None:
            now = self._clock.mono()
            if now < self._marked + SOON or self._writing is not None:
                self._soon = self._clock.call_at(now + SOON, self._begin)
            else:
                self._marked = now
                self._begin()

    def stepped(self) -> None:
        """The wall clock was set: all moments are to be written anew."""
        self._everything = True

    async def close(self) -> None:
        """Write everything, as the state at the end. What goes wrong is logged."""
        was, self._open = self._open, False
        for timer in (self._timer, self._soon):
            if timer is not None:
                timer.cancel()
        try:
            if self._writing is not None:
                await asyncio.wait([self._writing])
            if was:
                await self._write(whole=True, clean=True)
        except StoreError as error:
            _log.warning("the snapshot of live state could not be written at the end: %s", error.message)
        finally:
            if self._writing is not None:
                self._writing.cancel()
            await self._snapshots.close()

    def abandon(self) -> None:
        """As `close`, where there is no loop any more: nothing is written."""
        self._open = False
        self._snapshots.let_go()

    def _look(self) -> None:
        """Once a second: write what changed."""
        self._looks += 1
        self._timer = self._clock.call_at(self._clock.mono() + PACE, self._look)
        if not self._looks % WHOLE:
            self._everything = True
        self._uses |= self._live.meters.changed()
        if self._uses or self._marks or self._limits or self._everything or self._turned():
            self._begin()

    def _turned(self) -> list[tuple[str, str]]:
        """The fair cycles that are not written as they are."""
        versions = self._gateway.rotations.versions()
        return [name for name, version in versions.items() if self._cycles.get(name) != version]

    def _begin(self) -> None:
        """Write in a task, one at a time; what changes meanwhile is written by the next."""
        self._soon = None
        if self._writing is None:
            whole, self._everything = self._everything, False
            self._writing = asyncio.get_running_loop().create_task(self._written(whole))

    async def _written(self, whole: bool) -> None:
        try:
            await self._write(whole=whole)
        except StoreError as error:
            self._failed(error)
        finally:
            self._writing = None

    def _failed(self, error: StoreError) -> None:
        self._everything = True  # nobody knows any more what is there
        now = self._clock.mono()
        if now >= self._complained + QUIET:
            self._complained = now
            _log.warning("the snapshot of live state cannot be used; it is tried again: %s", error.message)

    async def _write(self, *, whole: bool, clean: bool = False) -> None:
        """Write what changed, or everything. Of a change that comes while this goes on, the next write takes note."""
        await self._load()
        now, live = self._instant(), self._live
        offset = now.wall - now.mono
        head = Head(*now, clean, digests(self._gateway.config))
        self._uses |= live.meters.changed()
        uses = live.meters.keys() if whole else list(self._uses)
        self._uses.clear()
        cycles = self._gateway.rotations.versions()
        puts, gone = self._few(now.mono, offset, whole=whole)
        for start in range(0, len(uses), SLICE):
            if start:
                await self._clock.sleep_until(self._clock.mono())
            some = uses[start : start + SLICE]
            found = live.meters.dump(some, self._clock.mono(), offset)
            puts += (("use", each.key, each) for each in found)
            gone += (("use", key) for key in set(some).difference(each.key for each in found))
        puts = [each for each in puts if _sound(each[1])]
        gone = [each for each in gone if _sound(each[1])]
        await self._snapshots.write(head, Changes(puts, gone, whole))
        self._cycles = cycles

    def _few(self, now: float, offset: float, *, whole: bool) -> tuple[list[Put], list[Name]]:
        """What is to be written, and what removed, of all that there is little of: everything but counters."""
        live, rotations = self._live, self._gateway.rotations
        puts: list[Put] = []
        gone: list[Name] = []
        if whole:
            puts += (("mark", _named(each.scope), each) for each in live.marks.dump(now, offset))
            puts += (("faults", _named(each.scope), each) for each in live.marks.faults())
        for scope in () if whole else self._marks:
            mark = live.marks.kept(scope, now, offset)
            gone.append(("mark", _named(scope))) if mark is None else puts.append(("mark", _named(scope), mark))
        for name in live.meters.book.scopes() if whole else self._limits:
            reported = live.meters.book.dump(name, offset)
            puts.append(("limit", name, reported)) if reported else gone.append(("limit", name))
        for cycle in list(rotations.versions()) if whole else self._turned():
            puts.append(("cycle", "|".join(cycle), rotations.dump(cycle, offset)))
        self._marks.clear()
        self._limits.clear()
        return puts, gone

    def _instant(self) -> Instant:
        return Instant(self._clock.wall(), self._clock.mono(), self._boot)

    async def _charge_again(self, kept: Kept, offset: float) -> None:
        """Charge what the ledger knows of attempts that began after the snapshot was taken."""
        ledger, since, until = self._gateway.ledger, int(kept.head.wall * 1000), int(self._began * 1000) + 1
        if until <= since:  # the clock was set back: none of this process can be among them
            until = since + int(LAPSE * 1000)
        query = UsageQuery("call", since, until, MOST_CALLS)
        calls = await ledger.usage(query)
        if len(calls) == MOST_CALLS:
            _log.warning("of the calls after the last snapshot, the latest %d are counted again", MOST_CALLS)
        for call in calls:
            story = await ledger.story(call.name)
            asked = False
            for row in () if story is None else story.attempts:
                if since <= row.at < until:
                    self._charge(row, row.at / 1000 - offset, asked=asked)
                    asked = True

    def _charge(self, row: AttemptRow, moment: float, *, asked: bool) -> None:
        """Charge the attempt *row*, of *moment*; *asked*: its caller has been charged the request by another one."""
        config, live = self._gateway.config, self._live
        provider = config.providers.get(row.provider)
        entry = _entry_of(self._gateway, row)
        if provider is not None and entry is not None:
            limits = [limit for scope in entry.limit_scopes for limit in live.limits(scope)]
            _take(live, limits, Cost(row.input, row.output if provider.counts_output else 0), moment)
        caller = next((each for each in _callers(config) if each.name == row.caller), None)
        if caller is not None:
            own = [limit for limit in caller.limits if not (asked and limit.metric == "requests")]
            _take(live, own, Cost(row.input, row.output), moment)


def restore(gateway: Gateway, live: MemoryState, kept: Kept, now: Instant) -> None:
    """Have *live*, in which nothing has happened yet, go on where *kept* ended, as far as keys are still there."""
    config = gateway.config
    offset = offset_of(kept.head.instant, now)
    every = [each for group in config.credentials.values() for each in group]
    owners = {each.fingerprint for each in every}
    groups = {each.group for each in every}
    callers = {each.name for each in _callers(config)}
    known = owners | groups
    uses = [each for each in kept.uses if _present(scope_in(each.key), known, callers)]
    live.meters.restore(uses, now.mono, offset)
    limits = (each for each in kept.limits if config.learning.enabled or each.source != "learned")
    live.meters.book.restore((each for each in limits if _present(each.scope, known, callers)), now.mono, offset)
    live.marks.restore(kept.marks, now.mono, offset, kept.faults)
    caps = digests(config)
    recapped = {name for name, digest in kept.head.caps.items() if caps.get(name) != digest}
    live.marks.keep(owners, groups, recapped | (caps.keys() - kept.head.caps.keys()))
    _restore_cycles(gateway.rotations, config, kept, now.mono, offset)
    for deployment in _asked_for(config, uses):
        gateway.pools.of(deployment)
    gateway.lists.changed()


def _callers(config: Config) -> tuple[Caller, ...]:
    return (*config.callers.values(), config.default_caller)


def _restore_cycles(rotations: Rotations, config: Config, kept: Kept, now: float, offset: float) -> None:
    fingerprints = {name: {each.fingerprint for each in group} for name, group in config.credentials.items()}
    rotations.restore(kept.cycles, fingerprints, now, offset)


def digests(config: Config) -> dict[str, str]:
    """Provider -> what its custom caps say, in short: whether they are others than before."""
    return {name: sha256(repr(caps).encode()).hexdigest()[:16] for name, caps in config.modes.caps.items()}


def _present(scope: str, owners: set[str], callers: set[str]) -> bool:
    """Whether *scope* is that of a caller or of a key that there still is."""
    kind, _, name = scope.partition("/")
    if kind == "caller":
        return name in callers
    owner = name.partition("|")[0].removeprefix("key ")
    return owner in owners or owner.startswith(EVERYBODY)


def _asked_for(config: Config, uses: Iterable[KeptUse]) -> Iterator[Deployment]:
    """The models that something was used of."""
    found: dict[Deployment, None] = {}
    for each in uses:
        provider, _, rest = scope_in(each.key).partition("/")
        model = rest.partition("|")[2]
        if model and not model.startswith(GROUP) and OF_CAP not in model and config.credentials.get(provider):
            found[Deployment(provider, model)] = None
        if len(found) == MOST_POOLS:
            break
    return iter(found)


def _entry_of(gateway: Gateway, row: AttemptRow) -> Entry | None:
    """Where the key of *row* stands in the pool of its deployment; None when either is gone."""
    deployment = Deployment(row.provider, row.model)
    credential: Credential | None = next(
        (each for each in gateway.config.credentials.get(row.provider, ()) if each.fingerprint == row.fingerprint), None
    )
    if credential is None:
        return None
    entries = gateway.pools.of(deployment).entries
    return next((each for each in entries if each.candidate.credential is credential), None)


def _take(live: MemoryState, limits: Iterable[Limit], cost: Cost, moment: float) -> None:
    for claim in claims((limit for limit in limits if limit.metric not in ("cost", "concurrency")), cost):
        live.take(claim.limit, claim.cost, moment)


def _sound(name: str) -> bool:
    """Whether *name* can be written down: a client may have asked for a model that is called half a character."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(scope: ScopeKey) -> str:
    return "|".join(scope)
