"""What models.yaml and roles.yaml say about names: routes and their facts, aliases, roles and what these may cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from keyturn.core import MONTH, Deployment, Limit, ModelFacts, Price, Route, nano
from keyturn.providers import CATALOG, known, nearest, plain_name

from .addresses import base_url
from .filed import Filed, FiledProvider
from .files import Files, Read
from .settings import Settings

if TYPE_CHECKING:
    from .shape_models import LegacyModel, ModelsFile, RouteShape
    from .shape_roles import RolesFile

NANO_PER_TOKEN = 1000.0
"""Nano-dollars a token, of a dollar per million tokens."""
NEAR = 0.9
"""How alike an entry and a name must be for one to be taken for a slip."""
MOST_LOOKED_AT = 50
CAPABILITIES = (
    ("streaming", "streaming"),
    ("vision", "vision"),
    ("tools", "tools"),
    ("json", "json_"),
    ("audio", "audio"),
)


@dataclass(slots=True)
class Routing:
    """Names of every kind, each checked against the providers that are known."""

    routes: dict[str, tuple[Deployment, ...]] = field(default_factory=dict)
    facts: dict[Deployment, ModelFacts] = field(default_factory=dict)
    names: dict[str, Route] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """Name -> where it was given."""


class ProviderNames:
    """Finds the canonical name of a provider, in any spelling."""

    def __init__(self, settings: Settings, filed: Filed) -> None:
        self._settings = settings
        self._filed = filed
        self._found: dict[str, str | None] = {}

    def canonical(self, name: str) -> str | None:
        """None when there is no such provider."""
        if name not in self._found:
            row = known(name)
            self._found[name] = row.name if row else self._settings.names.find(plain_name(name).upper())
        return self._found[name]

    def find(self, name: str, place: str) -> str | None:
        """The same; an unknown one is a mistake at *place*."""
        found = self.canonical(name)
        if found is None and plain_name(name) not in self._filed.spoiled:
            near = self._settings.names.nearest(name)
            meant = f"did you mean {near.lower()}?" if near else "give it an entry under providers: in models.yaml"
            self._settings.report.problem(place, f"no provider is called {name}; {meant}")
        return found


def add_endpoints(files: Files, filed: Filed, settings: Settings) -> None:
    """Makes providers of the addresses in the older `models` section, where nothing else says how to reach them."""
    source = files.models
    for name, model in source.content.models.items() if source is not None else ():
        if model.api_endpoint is None or source is None:
            continue
        provider, place = plain_name(model.provider_name), source.at("models", name, "api_endpoint")
        row = known(model.provider_name)
        provider = row.name if row is not None else provider
        url = model.api_endpoint.removesuffix("/").removesuffix("/chat/completions")
        if provider in filed.providers or provider in filed.spoiled:
            continue
        if row is not None and (row.tool or urlsplit(row.base_url).netloc == urlsplit(url).netloc):
            continue  # the catalog knows its paths better
        try:
            checked = base_url(url)
        except ValueError as refusal:
            settings.report.problem(place, f"models.{name}.api_endpoint: {refusal}")
            continue
        filed.providers[provider] = FiledProvider(provider, place, checked)
        if provider not in CATALOG:
            settings.names.add(provider)


def find_routing(files: Files, filed: Filed, settings: Settings) -> Routing:
    """All names; what is wrong with them goes into the report."""
    routing = Routing()
    providers = ProviderNames(settings, filed)
    if files.models is not None:
        _add_routes(routing, files.models, providers, settings)
        _add_legacy(routing, files.models, providers)
        _add_aliases(routing, files.models, providers, settings)
    if files.roles is not None:
        _add_roles(routing, files.roles, providers, settings)
    _refuse_circles(routing, settings)
    _note_near_misses(routing, providers, settings)
    return routing


def deployment_of(provider: str, model: str) -> Deployment:
    """The deployment of *model*, without what its name may carry in front and means nothing (`models/`)."""
    row = CATALOG.get(provider)
    return Deployment(provider, model.removeprefix(row.model_prefix) or model if row is not None else model)


def _add_routes(routing: Routing, source: Read[ModelsFile], providers: ProviderNames, settings: Settings) -> None:
    report = settings.report
    found: dict[str, dict[Deployment, int]] = {}
    ordered: dict[str, tuple[Any, int]] = {}
    for index, route in enumerate(source.content.provider_routes):
        at = source.entries[index] if source.entries else index
        listed = route.providers or (() if route.provider is None else (route.provider,))
        if (route.provider is None) == (route.providers is None):
            said = "give only one of provider and providers" if listed else "has no provider; write provider: groq"
            report.problem(source.at("provider_routes", at), f"provider_routes.{route.id}: {said}")
            continue
        deployments = found.setdefault(route.id, {})
        for written in listed:
            name = providers.canonical(written)
            if name is None:
                step = "providers" if route.providers else "provider"
                providers.find(written, source.at("provider_routes", at, step))
                continue
            deployment = deployment_of(name, route.model or route.id)
            if deployment in deployments:
                first = source.at("provider_routes", deployments[deployment])
                said = f"provider_routes.{route.id}: is at {written} twice (first at {first}); keep one of them"
                report.problem(source.at("provider_routes", at), said)
                continue
            deployments[deployment] = at
            _learn(routing.facts, deployment, _facts(route))
        if route.strategy is not None:
            ordered.setdefault(route.id, (route.strategy, at))
        for alias in route.aliases:
            _name(routing, Route(alias, "alias", (route.id,)), source, ("provider_routes", at, "aliases"), settings)
    routing.routes.update((name, tuple(deployments)) for name, deployments in found.items() if deployments)
    for name, (strategy, at) in ordered.items():
        route_name = Route(name, "alias", (name,), strategy=strategy)
        _name(routing, route_name, source, ("provider_routes", at, "strategy"), settings)


def _facts(route: RouteShape) -> ModelFacts:
    said, price = route.capabilities, route.price
    can = {} if said is None else {name: getattr(said, member) for name, member in CAPABILITIES}
    return ModelFacts(
        route.tier not in (None, "free") if route.is_paid is None else route.is_paid,
        route.tier,
        {name: able for name, able in can.items() if able is not None},
        route.context_length,
        None
        if price is None
        else Price(
            price.input * NANO_PER_TOKEN,
            price.output * NANO_PER_TOKEN,
            None if price.cached is None else price.cached * NANO_PER_TOKEN,
        ),
    )


def _learn(facts: dict[Deployment, ModelFacts], deployment: Deployment, new: ModelFacts) -> None:
    """Two routes may tell of one deployment: the first that says something counts, and paid is paid."""
    old = facts.get(deployment)
    facts[deployment] = (
        new
        if old is None
        else ModelFacts(
            old.paid or new.paid,
            old.price_tier or new.price_tier,
            {**new.capabilities, **old.capabilities},
            old.context_length or new.context_length,
            new.price if old.price is None else old.price,
        )
    )


def _add_legacy(routing: Routing, source: Read[ModelsFile], providers: ProviderNames) -> None:
    for name, model in source.content.models.items():
        provider = providers.find(model.provider_name, source.at("models", name, "provider_name"))
        if provider is None:
            continue
        deployment = deployment_of(provider, model.model or name)
        if name not in routing.routes:
            routing.routes[name] = (deployment,)
        _learn(routing.facts, deployment, _legacy_facts(model))


def _legacy_facts(model: LegacyModel) -> ModelFacts:
    price = None
    if model.cost_per_1k_tokens is not None:
        each = model.cost_per_1k_tokens * 1000 * NANO_PER_TOKEN
        price = Price(each, each)
    return ModelFacts(bool(model.is_paid), model.tier, {}, model.context_length, price)


def _add_aliases(routing: Routing, source: Read[ModelsFile], providers: ProviderNames, settings: Settings) -> None:
    for name, said in source.content.aliases.items():
        if isinstance(said, str):
            route = Route(name, "alias", (said,))
        elif isinstance(said, tuple):
            route = Route(name, "alias", said)
        else:
            asked = _providers(said.providers, providers, source.at("aliases", name, "providers"))
            route = Route(name, "alias", said.chain, asked, said.strategy or "in_order", said.description)
        _name(routing, route, source, ("aliases", name), settings)


def _add_roles(routing: Routing, source: Read[RolesFile], providers: ProviderNames, settings: Settings) -> None:
    for name, role in source.content.roles.items():
        chain = role.model_chain or ()
        if role.model is not None and role.model not in chain:
            chain = (role.model, *chain)
        if not chain:
            said = f"roles.{name}: has neither model nor model_chain; write model: gemini-2.5-flash"
            settings.report.problem(source.at("roles", name), said)
            continue
        budget = None
        if role.budgets is not None:
            if role.budgets.monthly_limit is not None:
                capacity = max(nano(role.budgets.monthly_limit), 1)
                budget = Limit(f"role/{name}", "cost", MONTH, capacity, owner="caller")
            if role.budgets.current_usage:
                routing.spent[name] = nano(role.budgets.current_usage)
        asked = _providers(role.providers, providers, source.at("roles", name, "providers"))
        route = Route(name, "role", chain, asked, role.strategy or "in_order", role.description or role.name, budget)
        _name(routing, route, source, ("roles", name), settings)


def _providers(written: Iterable[str] | None, providers: ProviderNames, place: str) -> tuple[str, ...]:
    found = [providers.find(name, place) for name in written or ()]
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _name(routing: Routing, route: Route, source: Read[Any], path: tuple[str | int, ...], settings: Settings) -> None:
    """Gives *route* its name, which no other role or alias may have."""
    first = routing.names.get(route.name)
    if first == route:
        return
    if first is not None:
        said = f"{route.name}: is the name of another {first.kind} ({routing.origins[route.name]}); choose another"
        settings.report.problem(source.at(*path), said)
        return
    routing.names[route.name] = route
    routing.origins[route.name] = source.at(*path)


def _refuse_circles(routing: Routing, settings: Settings) -> None:
    """A name whose chain leads back to it would never end. In its own chain a name means the route of that id."""
    told: set[str] = set()
    done: set[str] = set()
    for start in routing.names:
        trail: dict[str, Iterator[str]] = {start: _inner(start, routing)}
        while trail:
            name = next(reversed(trail))
            entry = next(trail[name], None)
            if entry is None:
                done.add(name)
                del trail[name]
            elif entry in trail:
                circle = [*list(trail)[list(trail).index(entry) :], entry]
                if told.isdisjoint(circle):
                    said = "names itself" if len(circle) == 2 else f"leads back to itself: {' → '.join(circle)}"
                    fix = "name a route, provider/model, or another model instead"
                    settings.report.problem(routing.origins[entry], f"{entry}: {said}; {fix}")
                told.update(circle)
            elif entry not in done:
                trail[entry] = _inner(entry, routing)


def _inner(name: str, routing: Routing) -> Iterator[str]:
    """The entries of a name's chain that are names of roles or aliases."""
    route = routing.names[name]
    return iter(
        []
        if route.providers
        else [
            entry for entry in route.chain if entry in routing.names and (entry != name or name not in routing.routes)
        ]
    )


def _note_near_misses(routing: Routing, providers: ProviderNames, settings: Settings) -> None:
    """An entry that is almost a name may be a slip, or a model that a provider lists: both go on."""
    looked = 0
    known = dict.fromkeys((*routing.routes, *routing.names, *(each.model for each in routing.facts)))
    for name, route in routing.names.items():
        for entry in route.chain:
            head, slash, _ = entry.partition("/")
            if entry in known or (slash and not route.providers and providers.canonical(head)):
                continue
            looked += 1
            near = nearest(entry, known) if looked <= MOST_LOOKED_AT else None
            if near is not None and SequenceMatcher(None, entry, near).ratio() >= NEAR:
                said = f"{name}: no route is called {entry}; was {near} meant? (It is asked for under its own name.)"
                settings.report.note(routing.origins[name], said)
