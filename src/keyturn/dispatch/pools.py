"""The pools of all deployments that were asked for: made when first used, woken when something comes free."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

from keyturn.config import Config, Pin, Rest
from keyturn.core import (
    Clock,
    Credential,
    Cycle,
    Deployment,
    Entry,
    FairRule,
    Flow,
    Limit,
    Plan,
    Pool,
    ScopeKey,
    Strategy,
    strategy_named,
)
from keyturn.providers import endpoint_of
from keyturn.stores import LiveState

from .declared import GROUP, OF_CAP, caps_of, counted_as, declared, withheld
from .rotations import Rotations

MOST_POOLS = 2000
MOST_MADE_AGAIN = 200
MOST_ENTRIES_AT_ONCE = 5000
"""Pools and credentials in them that a reload makes again at once: calls wait for that long."""
MOST_ENTRIES = 100_000
"""Above either the pool unused for longest is let go: names come from clients and must not fill the memory."""


class Pools:
    """Deployment -> Pool. Credentials that the owner disabled stay in their pools, marked."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        live: LiveState,
        freed: Callable[[Deployment], None],
        rotations: Rotations,
        pins: Callable[[], Sequence[Pin]] = tuple,
    ) -> None:
        self._config = config
        self._clock = clock
        self._live = live
        self._freed = freed
        self._rotations = rotations
        self._pins = pins
        """What the owner pinned."""
        self._pools: OrderedDict[Deployment, Pool] = OrderedDict()
        self._members: dict[Deployment, dict[str, list[Entry]]] = {}
        """Per deployment: fingerprint or quota group -> entries."""
        self._entries = 0
        self.successor: Callable[[Deployment], bool] | None = None
        """Set when another configuration is in use, whose word on limits holds then: has its pool made; False when it
        does not have the provider any more."""
        self._shared: dict[str, dict[Deployment, list[Entry]]] = {}
        """What several models or credentials count together: scope -> its entries by deployment."""
        self._flows: dict[str, dict[str, Flow]] = {}
        """Provider -> the calls under way of each of its credentials, where there is a soft target."""
        self.rests: dict[str, Rest] = {}
        """Scope of a custom cap -> how long a key rests once it is reached, where it does not come back by itself."""

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def entries(self, credential: Credential) -> Iterator[tuple[Pool, Entry]]:
        """Where *credential* stands in each pool of its provider."""
        for deployment, members in self._members.items():
            if deployment.provider == credential.provider:
                for entry in members.get(credential.fingerprint, ()):
                    if entry.candidate.credential is credential:  # a group may be named after one of its members
                        yield self._pools[deployment], entry

    def of(self, deployment: Deployment) -> Pool:
        """The pool of *deployment*."""
        pool = self._pools.get(deployment)
        if pool is None:
            return self._make(deployment)
        self._pools.move_to_end(deployment)
        return pool

    def counted_under(self, scope: str) -> Iterator[Entry]:
        """What several models or credentials count together under *scope*."""
        for entries in self._shared.get(scope, {}).values():
            yield from entries

    def make_again(self, older: Pools) -> None:
        """The pools of *older* that were used last, as far as their providers are still there: so that what was
        counted is in sight at once, and not with the next call."""
        for deployment in reversed([*reversed(older._pools)][:MOST_MADE_AGAIN]):
            width = len(self._config.credentials.get(deployment.provider, ()))
            if width and self._entries + width <= MOST_ENTRIES_AT_ONCE:
                self._make(deployment)

    def wake(self, scope: str) -> None:
        """What is counted under *scope* (see `model_scope` and `credential_scope`) came free early."""
        together = self._shared.get(scope)
        if together is not None:
            for deployment, entries in together.items():
                for entry in entries:
                    self._pools[deployment].unpark(entry)
                self._freed(deployment)
            return
        provider, _, rest = scope.partition("/")
        owner, bar, model = rest.partition("|")
        self._unpark(provider, model if bar else None, owner)

    def wake_marked(self, scopes: Iterable[ScopeKey]) -> None:
        """The marks on *scopes* are gone, or may be probed again."""
        for kind, provider, *rest in scopes:
            if kind == "deployment":  # looked at by each pick: nobody is parked for it
                self._freed(Deployment(provider, rest[0]))
            elif kind == "provider":
                for deployment in self._pools:
                    if deployment.provider == provider:
                        self._freed(deployment)
            elif kind == "group_model" and rest[1].startswith(GROUP):
                self.wake(f"{provider}/{rest[0]}|{rest[1]}")
            elif kind != "absent":
                self._unpark(provider, rest[1] if len(rest) > 1 else None, rest[0])

    def _unpark(self, provider: str, model: str | None, owner: str) -> None:
        if model is not None:
            found = self._pools.get(Deployment(provider, model))
            pools = [found] if found is not None else []
        else:
            pools = [pool for deployment, pool in self._pools.items() if deployment.provider == provider]
        for pool in pools:
            for entry in self._members[pool.deployment].get(owner, ()):
                pool.unpark(entry)
            self._freed(pool.deployment)

    def _make(self, deployment: Deployment) -> Pool:
        name = deployment.provider
        every = self._config.credentials.get(name, ())
        credentials = [each for each in every if not withheld(self._config, deployment, each)]
        pool = self._ranked(deployment, credentials, every)
        members: dict[str, list[Entry]] = {}
        sizes = Counter(each.group for each in every)
        self._pools[deployment] = pool
        self._members[deployment] = members
        for entry in pool.entries:
            credential = entry.candidate.credential
            for owner in {credential.fingerprint, credential.group}:
                members.setdefault(owner, []).append(entry)
            self._declare(deployment, entry, grouped=sizes[credential.group] > 1)
        if name in self._config.modes.caps:
            for entry in pool.entries:
                self.cap(pool, entry)
        self._entries += len(pool.entries)
        while len(self._pools) > MOST_POOLS or (self._entries > MOST_ENTRIES and len(self._pools) > 1):
            self._let_go()
        return pool

    def _ranked(self, deployment: Deployment, credentials: list[Credential], every: tuple[Credential, ...]) -> Pool:
        """The pool of *deployment* with the ranks that its provider's modes ask for."""
        name, modes = deployment.provider, self._config.modes
        counted = [counted_as(self._config, deployment, each.plan) for each in credentials]
        cycle: Cycle | None = None
        rule = modes.fair.get(name)
        if rule is not None:
            cycle = self._rotations.cycle(name, "" if rule.per_key or not counted else counted[0])
        return Pool(
            deployment,
            credentials,
            self._strategy(name, len(every)),
            self._live.view(0.0),
            every,
            soft=modes.soft.get(name, 0),
            flows=self._flows.setdefault(name, {}),
            cycle=cycle,
            fair=rule or FairRule(),
            keeps=modes.stickiness,
            counted=[each if each.startswith(GROUP) else "" for each in counted],
            endpoint=self._endpoint(deployment),
        )

    def _endpoint(self, deployment: Deployment) -> str:
        """Which of its provider's endpoints serves it; empty where there is one."""
        endpoints = self._config.providers[deployment.provider].endpoints
        return endpoint_of(endpoints, deployment.model) if endpoints else ""

    def _strategy(self, provider: str, count: int) -> Strategy:
        """The strategy of one pool of *provider*, which has *count* credentials in all."""
        mode = self._config.strategies.get(provider, "balanced")
        if mode != "round_robin":
            return strategy_named(mode)
        rotation = self._config.rotations.get(provider)
        each_call = rotation is not None and rotation.each_call
        return strategy_named(mode, self._rotations.of(provider, count), each_call=each_call)

    def _declare(self, deployment: Deployment, entry: Entry, *, grouped: bool) -> None:
        """Tell the live state what the owner declared, or no longer declares."""
        limits = declared(self._config, deployment, entry.candidate.credential, grouped=grouped)
        more = [scope for scope in limits if scope not in entry.limit_scopes]
        for scope in (*more, entry.limit_scopes[0]) if f"|{GROUP}" in entry.limit_scopes[0] else more:
            self._shared.setdefault(scope, {}).setdefault(deployment, []).append(entry)
        entry.limit_scopes = (*entry.limit_scopes, *more)
        if self.successor is None or not self.successor(deployment):
            for scope in entry.limit_scopes:
                self._live.declare(scope, limits.get(scope, ()))
            if self._pins():
                self._pin(deployment, entry)

    def pin(self) -> None:
        """What the owner pinned changed: it holds for all pools."""
        for deployment, pool in self._pools.items():
            for entry in pool.entries:
                self._pin(deployment, entry)
                if pool.capped:
                    self.cap(pool, entry)

    def _pin(self, deployment: Deployment, entry: Entry) -> None:
        from .pinning import pinned

        declared = {scope: self._live.meters.book.declared(scope) for scope in entry.limit_scopes}
        limits = pinned(self._config, self._pins(), deployment, entry.candidate.credential, declared)
        for scope in entry.limit_scopes:
            self._live.pin(scope, limits.get(scope, ()))

    def cap(self, pool: Pool, entry: Entry) -> None:
        """Tell the live state what custom caps *entry* has; again when a limit is known of which some are a share."""
        deployment, credential = entry.candidate
        known = [limit for scope in entry.limit_scopes for limit in self._live.limits(scope) if limit.source != "cap"]
        for scope, limits, rest in caps_of(self._config, deployment, credential, known):
            if scope not in entry.limit_scopes:
                self._shared.setdefault(scope, {}).setdefault(deployment, []).append(entry)
                entry.limit_scopes = (*entry.limit_scopes, scope)
                pool.capped = True
                if not rest.plain:
                    self.rests[scope] = rest
            if self.successor is None:
                self._cap(scope, limits, known)

    def _cap(self, scope: str, limits: tuple[Limit, ...], known: list[Limit]) -> None:
        """Have *limits* hold for *scope*. What was used of a known limit of the same keys and window before counts."""
        now, before = self._clock.mono(), {limit.key for limit in self._live.limits(scope)}
        own, view = scope.partition(OF_CAP)[0], self._live.view(now)
        self._live.declare(scope, limits)
        for limit in limits:
            if limit.key not in before and not view.used(limit, now):
                alike = (each for each in known if each.scope.lower() == own.lower() and _same(each, limit))
                self._live.take(limit, max((view.used(each, now) for each in alike), default=0), now)

    def _let_go(self) -> None:
        """Forget the pool unused for longest, and what was declared for it alone."""
        gone, old = self._pools.popitem(last=False)
        del self._members[gone]
        self._entries -= len(old.entries)
        old.let_go()
        unused = [entry.limit_scopes[0] for entry in old.entries if entry.limit_scopes[0] not in self._shared]
        for scope in dict.fromkeys(scope for entry in old.entries for scope in entry.limit_scopes):
            together = self._shared.get(scope)
            if together is not None and together.pop(gone, None) is not None and not together:
                del self._shared[scope]
                self.rests.pop(scope, None)
                unused.append(scope)
        for scope in unused if self.successor is None else ():
            self._live.declare(scope, ())
            self._live.pin(scope, ())

    def fastest_first(self, plan: Plan) -> tuple[Deployment, ...]:
        """The deployments of *plan*: in each step who began to answer soonest lately, after who was never measured."""
        now = self._clock.mono()

        def delay(deployment: Deployment) -> float:
            pool = self._pools.get(deployment)
            return 0.0 if pool is None or pool.pace is None else pool.pace.at(now)

        ordered = (sorted(step.deployments, key=delay) for step in plan.steps)
        return tuple(dict.fromkeys(each for step in ordered for each in step))


def _same(one: Limit, other: Limit) -> bool:
    """Whether both count the same metric over a window of the same length."""
    return one.metric == other.metric and one.window.seconds == other.window.seconds
