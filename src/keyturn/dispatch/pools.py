"""The pools of all deployments that were asked for: made when first used, woken when something comes free."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator

from keyturn.config import Config
from keyturn.core import Clock, Credential, Deployment, Entry, Plan, Pool, ScopeKey, Strategy, strategy_named
from keyturn.stores import LiveState

from .declared import declared, withheld
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
    ) -> None:
        self._config = config
        self._clock = clock
        self._live = live
        self._freed = freed
        self._rotations = rotations
        self._pools: OrderedDict[Deployment, Pool] = OrderedDict()
        self._members: dict[Deployment, dict[str, list[Entry]]] = {}
        """Per deployment: fingerprint or quota group -> entries."""
        self._entries = 0
        self.successor: Callable[[Deployment], bool] | None = None
        """Set when another configuration is in use, whose word on limits holds then: has its pool made; False when it
        does not have the provider any more."""
        self._shared: dict[str, dict[Deployment, list[Entry]]] = {}
        """What several models or credentials count together: scope -> its entries by deployment."""

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
        pool = Pool(deployment, credentials, self._strategy(name, len(every)), self._live.view(0.0), every)
        members: dict[str, list[Entry]] = {}
        sizes = Counter(each.group for each in every)
        self._pools[deployment] = pool
        self._members[deployment] = members
        for entry in pool.entries:
            credential = entry.candidate.credential
            for owner in {credential.fingerprint, credential.group}:
                members.setdefault(owner, []).append(entry)
            self._declare(deployment, entry, grouped=sizes[credential.group] > 1)
        self._entries += len(pool.entries)
        while len(self._pools) > MOST_POOLS or (self._entries > MOST_ENTRIES and len(self._pools) > 1):
            self._let_go()
        return pool

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
        for scope in more:
            self._shared.setdefault(scope, {}).setdefault(deployment, []).append(entry)
        entry.limit_scopes = (*entry.limit_scopes, *more)
        if self.successor is None or not self.successor(deployment):
            for scope in entry.limit_scopes:
                self._live.declare(scope, limits.get(scope, ()))

    def _let_go(self) -> None:
        """Forget the pool unused for longest, and what was declared for it alone."""
        gone, old = self._pools.popitem(last=False)
        del self._members[gone]
        self._entries -= len(old.entries)
        unused = [entry.limit_scopes[0] for entry in old.entries]
        for scope in dict.fromkeys(scope for entry in old.entries for scope in entry.limit_scopes):
            together = self._shared.get(scope)
            if together is not None and together.pop(gone, None) is not None and not together:
                del self._shared[scope]
                unused.append(scope)
        for scope in unused if self.successor is None else ():
            self._live.declare(scope, ())

    def fastest_first(self, plan: Plan) -> tuple[Deployment, ...]:
        """The deployments of *plan*: in each step who began to answer soonest lately, after who was never measured."""
        now = self._clock.mono()

        def delay(deployment: Deployment) -> float:
            pool = self._pools.get(deployment)
            return 0.0 if pool is None or pool.pace is None else pool.pace.at(now)

        ordered = (sorted(step.deployments, key=delay) for step in plan.steps)
        return tuple(dict.fromkeys(each for step in ordered for each in step))
