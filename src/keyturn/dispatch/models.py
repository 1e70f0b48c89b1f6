"""What the providers offer: their lists of models, fetched when needed and believed for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from keyturn.config import Config, LimitRule, ModelList, blind_defaults, default_models, what_to_set
from keyturn.core import (
    AUTO,
    Call,
    Caller,
    Clock,
    Credential,
    Deployment,
    Offer,
    Price,
    RouteCatalog,
    Transport,
    barrier,
    permitted,
    resolve,
)
from keyturn.errors import KeyturnError, NoToken, TransportError
from keyturn.providers import CATALOG, Provider, prepare_models, read_models

from .clock import Watch

PATIENCE = 10.0
"""Seconds that a list of models may take."""
MOST_ASKED = 8
"""Keys that are asked for one list at most, when the first are refused."""
NO_LIST = frozenset({404, 405, 501})
EVERY_MODEL = ModelList()
LARGEST_LIST = 16 * 1024 * 1024
COUNTERS = frozenset({"anthropic", "gemini"})
"""Dialects whose providers count tokens."""
RETRY_AFTER = 30.0
"""Seconds until a list that could not be had is asked for again."""


ANYBODY = Caller()
NOTHING_SPECIAL = Call("openai_chat", "chat", "", {}, 0)
"""A call that needs nothing that some model cannot do."""


class ModelRow(NamedTuple):
    """One line of `GET /v1/models`."""

    id: str
    provider: str
    created: int
    behind: tuple[Deployment, ...] = ()
    """The deployments that it stands for."""


class ModelLists:
    """The lists of all providers, and the snapshot of them that routing reads."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        transport: Transport,
        pickable: Callable[[Credential], bool],
        healthy: Callable[[Credential], bool],
        price: Callable[[Deployment], Price | None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._transport = transport
        self._pickable = pickable
        """Whether the owner left it in use."""
        self._healthy = healthy
        """Whether nothing stands against it."""
        self._price = price
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

    def inherit(self, older: ModelLists) -> None:
        """Take over what is known of providers that are asked at the same address as before."""
        for name, provider in self._config.providers.items():
            before = older._config.providers.get(name)
            fetched = name in older._due and name not in older._fetching
            same = before is not None and (before.base_url, before.endpoints) == (provider.base_url, provider.endpoints)
            if same and fetched:
                self._due[name] = older._due[name]
                if name in older._lists:
                    self._lists[name] = older._lists[name]
                if name in older._listless:
                    self._listless.add(name)

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
        """Every name on offer: roles, aliases, route ids, `provider/model` by provider tier and name, then `auto`."""
        await self.refresh()
        catalog = self.catalog
        rows = [row for name in (*catalog.names, *catalog.routes) if (row := self._named(name)) is not None]
        ranked = sorted(catalog.offers.items(), key=lambda item: catalog.rank(item[0]))
        for name, offer in ranked:
            for model in sorted(offer.models or ()) if offer.usable else ():
                deployment = Deployment(name, model)
                if barrier(deployment, NOTHING_SPECIAL, catalog) is None:
                    rows.append(ModelRow(str(deployment), name, 0, (deployment,)))
        if (default := self._named(AUTO)) is not None:
            rows.append(default)
        return list({row.id: row for row in rows}.values())

    def _named(self, name: str, caller: Caller = ANYBODY) -> ModelRow | None:
        """The row of a role, an alias, a route id or `auto`; None when nobody could answer it to *caller* now."""
        try:
            plan = resolve(replace(NOTHING_SPECIAL, model=name), caller, self.catalog)
        except KeyturnError:
            return None
        owner = "keyturn" if plan.defaults or name in self.catalog.names else plan.deployments[0].provider
        return ModelRow(name, owner, 0, plan.deployments)

    def reaches(self, caller: Caller, row: ModelRow) -> bool:
        """Whether *caller* may ask for *row*. Of the defaults it gets those that its routes name."""
        if row.id == AUTO:
            return self._named(AUTO, caller) is not None
        return permitted(caller, row.id, row.behind, self.catalog)

    def known(self, name: str) -> int:
        """How many models *name* is known to offer."""
        return len(self.catalog.offers[name].models or ())

    @property
    def busy(self) -> bool:
        """Whether a list is being fetched."""
        return bool(self._fetching)

    def cancel(self) -> None:
        """End what is still being fetched."""
        for task in self._fetching.values():
            task.cancel()

    async def close(self) -> None:
        """The same, and wait until it has ended."""
        tasks = list(self._fetching.values())
        self.cancel()
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
        """Take over the list that *name* gives this key, or those of its endpoints; the status, 0 when there was none,
        of several lists that of the first which is a list."""
        provider = self._config.providers[name]
        asked = [self._ask(provider, credential, endpoint) for endpoint in provider.endpoints or ("",)]
        answers = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
        status = next((status for status, found in answers if found), answers[0][0])
        if status in NO_LIST:
            self._listless.add(name)
            self._due[name] = self._clock.mono() + self._config.timeouts.models_ttl
            self._catalog = None
        found = tuple(dict.fromkeys(model for _, models in answers for model in models))
        if found:
            self._lists[name] = found
            self._due[name] = self._clock.mono() + self._config.timeouts.models_ttl
            self._catalog = None
        return status

    async def _ask(self, provider: Provider, credential: Credential, endpoint: str) -> tuple[int, list[str]]:
        """Status and list of one endpoint; 0 when it gave no answer."""
        response = None
        try:
            with Watch(self._clock, self._clock.mono() + PATIENCE, "models"):
                if credential.tokens is not None and credential.tokens.current() is None:
                    await credential.tokens.obtain()
                response = await self._transport.send(prepare_models(provider, credential, endpoint), lambda: None)
                body = await response.read(LARGEST_LIST)
        except NoToken:
            return 401, []
        except TransportError:
            return 0, []
        finally:
            if response is not None:
                response.close()
        return response.status, read_models(provider, body, endpoint) if response.status == 200 else []

    def _snapshot(self) -> RouteCatalog:
        config, offers, aliases = self._config, {}, {}
        for name, provider in config.providers.items():
            offers[name] = self._offer(provider)
            aliases.update(dict.fromkeys(provider.aliases, name))
        missing = _unconfigured(config)
        advice = "no key is configured, so only demo/… models are served: `keyturn keys add PROVIDER` adds a key"
        return RouteCatalog(
            offers,
            aliases,
            missing,
            advice if config.demo else "",
            config.names,
            config.routes,
            blind_defaults(config) | {**config.facts},
            config.use_paid,
            config.price_tiers,
            self._price,
            _spellings(config),
            config.equivalents,
            default_models(config),
            what_to_set(config, missing),
        )

    def _offer(self, provider: Provider) -> Offer:
        config, name = self._config, provider.name
        credentials = config.credentials.get(name, ())
        declared = (each.model for each in config.facts if each.provider == name)
        listed = (*provider.models, *config.static_models.get(name, ()), *declared, *self._lists.get(name, ()))
        kinds = {"chat", "completions"} | provider.kinds | ({"embeddings"} if provider.embeddings_path else set())
        if provider.dialect in COUNTERS:
            kinds.add("count")
        usable = any(self._pickable(each) for each in credentials)
        set_up = f"`keyturn keys enable {name}` takes those that were disabled into use again"
        if provider.tool is not None and not provider.tool.found:
            usable = False
            set_up = f"the program {provider.tool.argv[0]} is not on the PATH; install it, or change its cmd"
        chosen = config.modes.lists.get(name, EVERY_MODEL)
        return Offer(
            tier=config.tier_of(name),
            usable=usable,
            models=frozenset(listed) if listed else None,
            set_up=set_up,
            lists=bool(provider.models_path) and name not in self._listless,
            kinds=frozenset(kinds),
            withheld=_withheld(config, credentials),
            prefix=provider.model_prefix,
            text_only=provider.tool is not None,
            last_resort=config.last_resort(name),
            complete=name in self._lists,
            allowed=chosen.allow,
            ignored=chosen.ignore,
            ignoring=chosen.place,
        )


def _spellings(config: Config) -> dict[tuple[str, str], Deployment]:
    """Provider and model in small letters -> the deployment that is known, where that is one."""
    found: dict[tuple[str, str], list[Deployment]] = {}
    for each in config.facts:
        found.setdefault((each.provider, each.model.lower()), []).append(each)
    return {key: each[0] for key, each in found.items() if len(each) == 1}


def _withheld(config: Config, credentials: Sequence[Credential]) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What limits.yaml says of the models of one provider: for all plans and, when all keys are of one, for that; as
    far as any of it is that no credential may use one."""
    if not credentials:
        return ()
    plans = {each.plan for each in credentials}
    found = []
    for plan in (None, *plans) if len(plans) == 1 else (None,):
        rules = [rule for rule in config.limit_rules.get(credentials[0].provider, ()) if rule.plan == plan]
        if any(rule.unavailable for rule in rules):
            found.append(tuple((rule.pattern, _why(rule)) for rule in rules))
    needed = config.modes.needed.get(credentials[0].provider, ())
    best = min((each.priority or 0 for each in credentials), default=0)  # a key without a priority may serve any model
    if any(best > priority for _, priority in needed):
        found.append(tuple((pattern, _too_low(priority) if best > priority else "") for pattern, priority in needed))
    return tuple(found)


def _too_low(priority: int) -> str:
    better = f"{priority} or better" if priority > 1 else "1"
    return f"needs a key of key priority {better}, and none has it"


def _why(rule: LimitRule) -> str:
    if not rule.unavailable:
        return ""
    return f"not offered on plan {rule.plan} ({rule.origin})" if rule.plan else f"not offered ({rule.origin})"


def _unconfigured(config: Config) -> dict[str, str]:
    """Every known provider that has no key, by all its names -> what to set."""
    found = dict(config.unset)
    for name, provider in CATALOG.items():
        if name not in config.providers and provider.variables:
            variable = config.unset.get(name) or f"{provider.variables[0]}_API_KEY"
            if provider.keyless:
                variable = f"{provider.variables[0]}_API_BASE"
            elif not provider.base_url:
                variable += f" and {provider.variables[0]}_API_BASE"
            found.update(dict.fromkeys((name, *provider.aliases), variable))
    return found
