"""The pools of all deployments that were asked for: made when first used, woken when something comes free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from keyturn.config import Config
from keyturn.core import (
    Credential,
    Deployment,
    Entry,
    Limit,
    Pool,
    ScopeKey,
    Strategy,
    Window,
    credential_scope,
    model_scope,
    strategy_named,
)
from keyturn.providers import Provider
from keyturn.stores import LiveState

MOST_POOLS = 2000
"""Above this the pool unused for longest is let go: names come from clients and must not fill the memory."""
SECONDS = {"second": 1.0, "10s": 10.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
"""The lengths of the windows that limits are declared and reported for."""


def window_of(provider: Provider, metric: str, name: str) -> Window:
    """How *provider* counts *metric* over the window *name*: rolling unless its catalog row knows better."""
    if metric == "concurrency":
        return Window("inflight", 0.0)
    kind = provider.windows.get(f"{metric}_{name}", "rolling")
    if kind == "calendar":
        return Window("calendar", SECONDS[name], provider.zone)
    return Window("bucket" if kind == "bucket" else "rolling", SECONDS[name])


def window_name(window: Window) -> str:
    """What people call *window*: `minute`, `day`, `in flight`, or its length in seconds."""
    if window.kind == "inflight":
        return "in flight"
    return next((name for name, seconds in SECONDS.items() if seconds == window.seconds), f"{window.seconds:g}s")


class Pools:
    """Deployment -> Pool. Credentials that the owner disabled stay in their pools, marked."""

    def __init__(self, config: Config, live: LiveState, freed: Callable[[Deployment], None]) -> None:
        self._config = config
        self._live = live
        self._freed = freed
        self._pools: OrderedDict[Deployment, Pool] = OrderedDict()
        self._members: dict[Deployment, dict[str, list[Entry]]] = {}
        """Per deployment: fingerprint or quota group -> entries."""
        live.subscribe(self.wake)

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

    def wake(self, scope: str) -> None:
        """What is counted under *scope* (see `model_scope` and `credential_scope`) came free early."""
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
        strategy: Strategy = strategy_named(self._config.strategies.get(name, "balanced"))
        pool = Pool(deployment, self._config.credentials.get(name, ()), strategy, self._live.view(0.0))
        members: dict[str, list[Entry]] = {}
        for entry in pool.entries:
            credential = entry.candidate.credential
            for owner in {credential.fingerprint, credential.group}:
                members.setdefault(owner, []).append(entry)
            self._declare(deployment, credential)
        self._pools[deployment] = pool
        self._members[deployment] = members
        if len(self._pools) > MOST_POOLS:
            gone, old = self._pools.popitem(last=False)
            del self._members[gone]
            for entry in old.entries:
                self._live.declare(entry.limit_scopes[0], ())
        return pool

    def _declare(self, deployment: Deployment, credential: Credential) -> None:
        """Tell the live state the limits that the owner declared."""
        config, name = self._config, deployment.provider
        specs = config.limits.get(name, ())
        if specs:
            scope = model_scope(deployment, credential.group)
            provider = config.providers[name]
            windows = [(spec, window_of(provider, spec.metric, spec.window)) for spec in specs]
            self._live.declare(
                scope, [Limit(scope, spec.metric, window, spec.capacity, "declared") for spec, window in windows]
            )
        most = config.max_concurrent.get(name)
        if most:
            scope = credential_scope(credential)
            self._live.declare(scope, [Limit(scope, "concurrency", Window("inflight", 0.0), most, "declared")])
