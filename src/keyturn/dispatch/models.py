"""What the providers offer: their lists of models, fetched when needed and believed for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from keyturn.config import Config
from keyturn.core import Clock, Credential, Offer, RouteCatalog, Transport
from keyturn.errors import TransportError
from keyturn.providers import CATALOG, prepare_models, read_models

from .clock import Watch

PATIENCE = 10.0
"""Seconds that a list of models may take."""
MOST_ASKED = 8
"""Keys that are asked for one list at most, when the first are refused."""
NO_LIST = frozenset({404, 405, 501})
LARGEST_LIST = 16 * 1024 * 1024
RETRY_AFTER = 30.0
"""Seconds until a list that could not be had is asked for again."""


class ModelRow(NamedTuple):
    """One line of `GET /v1/models`."""

    id: str
    provider: str
    created: int


class ModelLists:
    """The lists of all providers, and the snapshot of them that routing reads."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        transport: Transport,
        pickable: Callable[[Credential], bool],
        healthy: Callable[[Credential], bool],
    ) -> None:
        self._config = config
        self._clock = clock
        self._transport = transport
        self._pickable = pickable
        """Whether the owner left it in use."""
        self._healthy = healthy
        """Whether nothing stands against it."""
        self._lists: dict[str, tuple[str, ...]] = {}
        self._listless: set[str] = set()
        """Providers that turned out to have no list."""
        self._due: dict[str, float] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._catalog: RouteCatalog | None = None

    @property
    def catalog(self) -> RouteCatalog:
        """The snapshot for `resolve`; made again when a list or the usable keys changed."""
        if self._catalog is None:
            self._catalog = self._snapshot()
        return self._catalog

    def changed(self) -> None:
        """The usable credentials changed."""
        self._catalog = None

    async def refresh(self) -> None:
        """Fetch every list that is missing or too old, all at once; what fails keeps its old list."""
        now = self._clock.mono()
        for name, provider in self._config.providers.items():
            if name not in self._fetching and provider.models_path and self._due.get(name, 0.0) <= now:
                task = asyncio.create_task(self._fetch(name), name=f"models of {name}")
                self._fetching[name] = task
                task.add_done_callback(lambda _, name=name: self._fetching.pop(name, None))  # type: ignore[misc]
        if self._fetching:
            await asyncio.wait(list(self._fetching.values()))

    async def rows(self) -> list[ModelRow]:
        """Every model on offer as `provider/model`, by provider tier, then name."""
        await self.refresh()
        ranked = sorted(self.catalog.offers.items(), key=lambda item: (item[1].tier, item[0]))
        return [
            ModelRow(f"{name}/{model}", name, 0)
            for name, offer in ranked
            if offer.usable
            for model in sorted(offer.models or ())
        ]

    def known(self, name: str) -> int:
        """How many models *name* is known to offer."""
        return len(self.catalog.offers[name].models or ())

    async def close(self) -> None:
        """End what is still being fetched."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _fetch(self, name: str) -> None:
        """Ask with the first healthy key; when it is refused, with the next, and so on."""
        self._due[name] = self._clock.mono() + RETRY_AFTER
        credentials = [each for each in self._config.credentials.get(name, ()) if self._pickable(each)]
        healthy = [each for each in credentials if self._healthy(each)]
        for credential in (healthy or credentials)[:MOST_ASKED]:
            if await self._fetch_with(name, credential) in (0, 200, 404):
                return

    async def _fetch_with(self, name: str, credential: Credential) -> int:
        """Take over the list that *name* gives this key; the status, 0 when there was none."""
        provider = self._config.providers[name]
        response = None
        try:
            with Watch(self._clock, self._clock.mono() + PATIENCE, "models"):
                response = await self._transport.send(prepare_models(provider, credential), lambda: None)
                body = await response.read(LARGEST_LIST)
        except TransportError:
            return 0
        finally:
            if response is not None:
                response.close()
        if response.status in NO_LIST:
            self._listless.add(name)
            self._due[name] = self._clock.mono() + self._config.timeouts.models_ttl
            self._catalog = None
        found = read_models(provider, body) if response.status == 200 else []
        if found:
            self._lists[name] = tuple(found)
            self._due[name] = self._clock.mono() + self._config.timeouts.models_ttl
            self._catalog = None
        return response.status

    def _snapshot(self) -> RouteCatalog:
        config, offers, aliases = self._config, {}, {}
        for name, provider in config.providers.items():
            credentials = config.credentials.get(name, ())
            fixed = (*provider.models, *config.static_models.get(name, ()))
            listed = (*fixed, *self._lists.get(name, ()))
            kinds = {"chat"} | ({"embeddings"} if provider.embeddings_path else set())
            offers[name] = Offer(
                tier=config.tiers.get(name, provider.tier),
                usable=any(self._pickable(each) for each in credentials),
                models=frozenset(listed) if listed else None,
                set_up=f"`keyturn keys enable {name}` takes those that were disabled into use again",
                lists=bool(provider.models_path) and name not in self._listless,
                kinds=frozenset(kinds),
            )
            aliases.update(dict.fromkeys(provider.aliases, name))
        unconfigured = {}
        for name, provider in CATALOG.items():
            if name not in offers and provider.variables:
                variable = f"{provider.variables[0]}_API_KEY"
                if provider.keyless:
                    variable = f"{provider.variables[0]}_API_BASE"
                elif not provider.base_url:
                    variable += f" and {provider.variables[0]}_API_BASE"
                unconfigured.update(dict.fromkeys((name, *provider.aliases), variable))
        advice = "no key is configured, so only demo/… models are served: `keyturn keys add PROVIDER` adds a key"
        return RouteCatalog(offers, aliases, unconfigured, advice if config.demo else "")
