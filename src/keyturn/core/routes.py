"""What a name means: from the model that a client asks for to the deployments that may answer, in order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import NamedTuple

from keyturn.errors import KeyturnError, ModelNotFound

from .catalog import Offer, Route, RouteCatalog, RouteStrategy
from .gates import Barrier, all_barred, barrier, not_permitted, permitted
from .model import Call, Caller, Deployment
from .tokens import likely_tokens

MOST_PLANS = 4096
"""Names come from clients: above so many the one resolved first is forgotten."""
OWNER = Caller().name
DEEPEST = 8
"""Aliases within aliases."""
UNKNOWN_PRICE = float("inf")


class Step(NamedTuple):
    """One step of a fallback chain: deployments that are asked before the next step is."""

    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to try for one call, in order."""

    route: str
    steps: tuple[Step, ...]
    refusals: tuple[str, ...] = ()
    """Who was left out, and why."""
    role: Route | None = None
    """The role that was asked for, when it was one."""
    strategy: RouteStrategy = "in_order"
    first: Deployment | None = None
    """Who would have been asked first if nothing had been left out: who else answers is a fallback."""
    listed: bool = False
    """It depends on the lists of models that providers give."""
    shortest: int | None = None
    """The smallest context length among its deployments, in tokens; None when none is known."""
    deployments: tuple[Deployment, ...] = field(init=False)
    """Those of all steps, in order."""

    def __post_init__(self) -> None:
        flat = tuple(dict.fromkeys(each for step in self.steps for each in step.deployments))
        object.__setattr__(self, "deployments", flat)
        if self.first is None and flat:
            object.__setattr__(self, "first", flat[0])


class _Found(NamedTuple):
    """What one entry of a chain means: its step, who was left out, and whether a list of models was looked at."""

    deployments: tuple[Deployment, ...]
    barriers: tuple[Barrier, ...] = ()
    listed: bool = False


def needs_listing(call: Call, catalog: RouteCatalog) -> bool:
    """Whether the plan depends on what the providers offer: on a bare id that no route declares."""
    plan = catalog.plans.get((call.model, call.kind, call.needs, call.stream))
    return plan.listed if plan is not None else _undeclared(call.model, catalog)


def _undeclared(name: str, catalog: RouteCatalog) -> bool:
    route = catalog.names.get(name)
    if route is not None:
        if route.providers:
            return any(not _declared(entry, route, catalog) for entry in route.chain)
        return any(entry != name and _undeclared(entry, catalog) for entry in route.chain)
    head, slash, rest = name.partition("/")
    return name not in catalog.routes and not (slash and rest and catalog.provider(head))


def resolve(call: Call, caller: Caller, catalog: RouteCatalog) -> Plan:
    """The plan for *call*. First match: a role or an alias; a route id; `<configured provider or alias>/<rest>`; a bare
    id that configured providers offer, by provider tier.

    Raises ModelNotFound, with the nearest names or the variable to set, NoValidCredentials, PaidRoute, BadRequest when
    nothing behind the name can do what the call needs, and RouteNotAllowed.
    """
    key = (call.model, call.kind, call.needs, call.stream)
    plan = catalog.plans.get(key)
    if plan is None:
        try:
            plan = _resolve(call, catalog)
        except KeyturnError:
            if permitted(caller, call.model, (), catalog):
                raise
            raise not_permitted(caller, call.model) from None  # what else is wrong with it is no business of theirs
        if len(catalog.plans) >= MOST_PLANS:
            del catalog.plans[next(iter(catalog.plans))]
        catalog.plans[key] = plan
    if caller.name != OWNER and not caller.routes:
        plan = _without_tools(plan, caller, catalog)
    elif not permitted(caller, call.model, plan.deployments, catalog):
        raise not_permitted(caller, call.model)
    if plan.shortest is not None and len(plan.deployments) > 1 and likely_tokens(call) > plan.shortest:
        return _without_the_short(plan, call, catalog)
    return plan


def _without_tools(plan: Plan, caller: Caller, catalog: RouteCatalog) -> Plan:
    """*plan* without command line tools, which act in their owner's name: who else may use them has to be said."""
    tools = [each for each in plan.deployments if catalog.offers[each.provider].text_only]
    if not tools:
        return plan
    kept = tuple(each for each in plan.deployments if each not in tools)
    if not kept:
        raise not_permitted(caller, plan.route)
    steps = (tuple(each for each in step.deployments if each in kept) for step in plan.steps)
    refusals = (
        *plan.refusals,
        *(f"{each}: not for caller {caller.name}, whose routes do not name it" for each in tools),
    )
    return replace(plan, steps=tuple(Step(each) for each in steps if each), refusals=refusals)


def _resolve(call: Call, catalog: RouteCatalog) -> Plan:
    name = call.model
    route = catalog.names.get(name)
    if route is not None:
        return _chain(route, call, catalog)
    if name in catalog.routes:
        return _plan(name, [_Found(catalog.routes[name])], call, catalog)
    head, slash, rest = name.partition("/")
    provider = catalog.provider(head) if slash and rest else None
    if provider is not None:
        if call.kind not in catalog.offers[provider].kinds:
            raise ModelNotFound(f"{provider} offers no {call.kind} here; ask a provider that does", param="model")
        return _plan(name, [_Found((catalog.deployment(provider, rest),))], call, catalog)
    return _bare(call, catalog)


def _chain(route: Route, call: Call, catalog: RouteCatalog) -> Plan:
    """The plan of a role or an alias."""
    return _plan(route.name, _steps(route, call, catalog), call, catalog, route)


def _steps(route: Route, call: Call, catalog: RouteCatalog, depth: int = 0) -> list[_Found]:
    """The steps of a chain; an entry may be an alias in turn. The configuration refuses circles, as does the bound."""
    found: list[_Found] = []
    for entry in route.chain if depth < DEEPEST else ():
        if route.providers:
            found.append(_by_providers(entry, route, catalog))
        elif entry in catalog.names and entry != route.name:
            found += _steps(catalog.names[entry], call, catalog, depth + 1)
        else:
            found.append(_named(entry, call, catalog))
    return found


def _named(entry: str, call: Call, catalog: RouteCatalog) -> _Found:
    """What an entry without `providers` means: a route id, `provider/model`, or a bare id."""
    if entry in catalog.routes:
        return _Found(catalog.routes[entry])
    head, slash, rest = entry.partition("/")
    provider = catalog.provider(head) if slash and rest else None
    if provider is not None:
        return _Found((catalog.deployment(provider, rest),))
    variable = catalog.unconfigured.get(head.lower().replace("-", "_")) if slash else None
    if variable is not None:
        return _Found((), (Barrier("key", entry, f"no key, set {variable}"),))
    found, _ = _offering(entry, call, catalog)
    if not found:
        return _Found((), (Barrier("absent", entry, "no configured provider offers it"),), listed=True)
    return _Found(tuple(catalog.deployment(each, entry) for each in found), listed=True)


def _declared(entry: str, route: Route, catalog: RouteCatalog) -> tuple[Deployment, ...]:
    """Whom `provider_routes` name for *entry* among the providers of *route*, in the order of those."""
    by_provider: dict[str, Deployment] = {}
    for deployment in catalog.routes.get(entry, ()):
        by_provider.setdefault(deployment.provider, deployment)
    return tuple(by_provider[each] for each in route.providers if each in by_provider)


def _by_providers(entry: str, route: Route, catalog: RouteCatalog) -> _Found:
    """Each listed provider that offers *entry*, in order. Who is not known to is asked only when nobody is."""
    declared = _declared(entry, route, catalog)
    if declared:
        return _Found(declared)
    offers = [(each, catalog.offers[each]) for each in route.providers if each in catalog.offers]
    missing = tuple(
        Barrier("key", f"{each}/{entry}", f"no key, set {catalog.unconfigured[each]}")
        for each in route.providers
        if each not in catalog.offers and each in catalog.unconfigured
    )
    found = [each for each, offer in offers if offer.models is not None and entry in offer.models]
    found = found or [each for each, offer in offers if offer.models is None or not offer.lists]
    if not found and not missing:
        missing = (Barrier("absent", entry, f"none of {', '.join(route.providers)} offers it"),)
    return _Found(tuple(catalog.deployment(each, entry) for each in found), missing, listed=True)


def _plan(name: str, found: list[_Found], call: Call, catalog: RouteCatalog, route: Route | None = None) -> Plan:
    """The plan of what was *found*, without who is barred. Raises when nobody is left."""
    steps: list[Step] = []
    barriers: list[Barrier] = []
    for each in found:
        open_ones = []
        for deployment in each.deployments:
            bar = barrier(deployment, call, catalog)
            if bar is None:
                open_ones.append(deployment)
            else:
                barriers.append(bar)
        barriers += each.barriers
        if open_ones:
            steps.append(Step(_ordered(open_ones, route, catalog)))
    if not steps:
        raise all_barred(name, barriers)
    lengths = [catalog.about(one).context_length for step in steps for one in step.deployments]
    return Plan(
        name,
        tuple(steps),
        tuple(dict.fromkeys(map(str, barriers))),
        route if route is not None and route.kind == "role" else None,
        route.strategy if route is not None else "in_order",
        next((each.deployments[0] for each in found if each.deployments), None),
        any(each.listed for each in found),
        min((length for length in lengths if length), default=None),
    )


def _ordered(deployments: list[Deployment], route: Route | None, catalog: RouteCatalog) -> tuple[Deployment, ...]:
    """One step in the order in which it is asked; an unknown price comes last."""
    if route is None or route.strategy != "cheapest":
        return tuple(deployments)

    def cost(deployment: Deployment) -> float:
        price = catalog.price(deployment)
        return UNKNOWN_PRICE if price is None else price.blended

    return tuple(sorted(deployments, key=cost))


def _without_the_short(plan: Plan, call: Call, catalog: RouteCatalog) -> Plan:
    """*plan* without the deployments whose context is too short for *call*, unless that is all of them."""
    size, steps, refusals = likely_tokens(call), [], list(plan.refusals)
    for step in plan.steps:
        fits = []
        for deployment in step.deployments:
            length = catalog.about(deployment).context_length
            if length is None or size <= length:
                fits.append(deployment)
            else:
                refusals.append(f"{deployment}: its context of {length} tokens is too short for about {size:.0f}")
        if fits:
            steps.append(Step(tuple(fits)))
    if not steps:
        return plan
    return Plan(plan.route, tuple(steps), tuple(refusals), plan.role, plan.strategy, plan.first, plan.listed)


def _offering(name: str, call: Call, catalog: RouteCatalog) -> tuple[list[str], list[tuple[str, Offer]]]:
    """Who offers a bare id, by provider tier; and everybody, ranked."""
    ranked = sorted(catalog.offers.items(), key=lambda item: (item[1].tier, item[0]))
    able = [(provider, offer) for provider, offer in ranked if call.kind in offer.kinds and offer.usable]
    found = [provider for provider, offer in able if offer.models is not None and name in offer.models]
    if not found and name.partition("/")[0].lower().replace("-", "_") not in catalog.unconfigured:
        nobody_knows = all(offer.models is None for _, offer in able)
        found = [each for each, offer in able if offer.models is None and (nobody_knows or not offer.lists)]
    return found, ranked


def _bare(call: Call, catalog: RouteCatalog) -> Plan:
    name = call.model
    found, ranked = _offering(name, call, catalog)
    if not found:
        raise _not_found(name, catalog)
    left = [each for each, _ in ranked if each not in found]
    others = [f"{each}: {_why_not(catalog.offers[each])}" for each in left]
    steps = [_Found((catalog.deployment(each, name),), listed=True) for each in found]
    plan = _plan(name, steps, call, catalog)
    refusals = (*plan.refusals, *others)
    return Plan(name, plan.steps, refusals, first=plan.first, listed=True, shortest=plan.shortest)


def _why_not(offer: Offer) -> str:
    if offer.usable:
        return "does not offer it"
    return f"no usable key: {offer.set_up}" if offer.set_up else "no usable key"


def nearest_models(name: str, catalog: RouteCatalog, count: int = 3) -> list[str]:
    """Up to *count* names on offer that look like *name*, nearest first."""
    known = {full.lower(): full for full in catalog.known()}
    for full in list(known.values()):
        known.setdefault(full.partition("/")[2].lower(), full)
    near = get_close_matches(name.lower(), list(known)[:5000], n=count * 2, cutoff=0.5)
    return list(dict.fromkeys(known[each] for each in near))[:count]


def _not_found(name: str, catalog: RouteCatalog) -> ModelNotFound:
    head = name.partition("/")[0].lower().replace("-", "_")
    if head in catalog.unconfigured:
        return ModelNotFound(
            f"model {name!r} needs a key that is not set: set {catalog.unconfigured[head]}, in .env for instance",
            param="model",
        )
    unknown = [provider for provider, offer in catalog.offers.items() if offer.models is None]
    near = nearest_models(name, catalog)
    hint = f"nearest: {', '.join(near)}" if near else catalog.advice or "GET /v1/models lists what is"
    if unknown and not catalog.advice:
        hint += f" (the models of {', '.join(unknown)} could not be listed: ask for {unknown[0]}/… by name)"
    return ModelNotFound(f"model {name!r} is not offered by any configured provider; {hint}", param="model")
