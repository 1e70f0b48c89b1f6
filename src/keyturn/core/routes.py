"""What a name means: from the model that a client asks for to the deployments that may answer, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import NamedTuple

from keyturn.errors import BadRequest, KeyturnError, ModelNotFound, NoValidCredentials

from .catalog import AUTO, Offer, PlanKey, Route, RouteCatalog, RouteStrategy
from .equivalents import NO_EQUIVALENTS
from .gates import Barrier, all_barred, barrier, names, not_permitted, permitted, stand_in_barrier, too_dear
from .model import Call, Caller, Deployment, Kind
from .tokens import likely_tokens

MOST_PLANS = 4096
"""Names come from clients: above so many the one resolved first is forgotten."""
OWNER = Caller().name
DEEPEST = 8
"""Aliases within aliases."""
UNKNOWN_PRICE = float("inf")
NOBODY: frozenset[Deployment] = frozenset()
ALL_EXHAUSTED = "All API keys exhausted across all providers"
"""How the refusal of a call without a model begins."""


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
    added: frozenset[Deployment] = NOBODY
    """Deployments that the name does not write out: those of the same model elsewhere, and defaults. A caller with
    routes reaches only those that its routes name."""
    defaults: bool = False
    """The call named no model: each provider is asked for its default."""
    primary: frozenset[Deployment] | None = None
    """The first choice: of the first step, those whose provider tier is not after that of *first*; nobody when *first*
    was left out. Who else answers is a fallback. None: all of the first step."""
    deployments: tuple[Deployment, ...] = field(init=False)
    """Those of all steps, in order."""

    def __post_init__(self) -> None:
        flat = tuple(dict.fromkeys(each for step in self.steps for each in step.deployments))
        object.__setattr__(self, "deployments", flat)
        if self.first is None and flat:
            object.__setattr__(self, "first", flat[0])
        if self.primary is None:
            object.__setattr__(self, "primary", frozenset(self.steps[0].deployments if self.steps else ()))


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
    if name == AUTO and name not in catalog.names:
        return False
    route = catalog.names.get(name)
    if route is not None:
        if route.providers:
            return any(not _declared(entry, route, catalog) for entry in route.chain)
        return any(entry != name and _undeclared(entry, catalog) for entry in route.chain)
    head, slash, rest = name.partition("/")
    return name not in catalog.routes and not (slash and rest and catalog.provider(head))


def resolve(call: Call, caller: Caller, catalog: RouteCatalog) -> Plan:
    """The plan for *call*. First match: a role or an alias; a route id; `auto`; `<configured provider or its
    alias>/<rest>`; a bare id that configured providers offer. The last two are followed by the same model elsewhere,
    with a step for each provider tier.

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
    else:
        if plan.added and caller.routes:
            plan = _narrowed(plan, key, call, caller, catalog)
        if not permitted(caller, call.model, plan.deployments, catalog):
            raise not_permitted(caller, call.model)
    if plan.shortest is not None and len(plan.deployments) > 1 and likely_tokens(call) > plan.shortest:
        return _without_the_short(plan, call, catalog)
    return plan


def _without_tools(plan: Plan, caller: Caller, catalog: RouteCatalog) -> Plan:
    """*plan* without command line tools, which act in their owner's name: who else may use them has to be said."""
    tools = [each for each in plan.deployments if catalog.offers[each.provider].text_only]
    if not tools:
        return plan
    if len(tools) == len(plan.deployments):
        raise not_permitted(caller, plan.route)
    return _without(plan, tools, caller)


def _narrowed(plan: Plan, key: PlanKey, call: Call, caller: Caller, catalog: RouteCatalog) -> Plan:
    """*plan* without what was added to it and the routes of *caller* do not name."""
    if plan.defaults and permitted(caller, call.model, (), catalog):
        return plan
    found = catalog.narrowed.get((key, caller.routes))
    if found is None:
        left = [each for each in plan.deployments if each in plan.added and not names(caller, each, catalog)]
        found = _without(plan, left, caller) if left else plan
        if not found.steps:
            if plan.defaults:
                raise not_permitted(caller, call.model)
            return _resolve(call, replace(catalog, equivalents=NO_EQUIVALENTS))
        if len(catalog.narrowed) >= MOST_PLANS:
            catalog.narrowed.clear()
        catalog.narrowed[key, caller.routes] = found
    return found


def _without(plan: Plan, left_out: list[Deployment], caller: Caller) -> Plan:
    """*plan* without some deployments, which *caller* may not use."""
    steps = (tuple(each for each in step.deployments if each not in left_out) for step in plan.steps)
    why = tuple(f"{each}: not for caller {caller.name}, whose routes do not name it" for each in left_out)
    return _left(plan, tuple(Step(each) for each in steps if each), (*plan.refusals, *why))


def _left(plan: Plan, steps: tuple[Step, ...], refusals: tuple[str, ...]) -> Plan:
    """*plan* with what is left of its steps."""
    kept = bool(steps) and plan.first in steps[0].deployments
    return replace(plan, steps=steps, refusals=refusals, primary=plan.primary if kept else NOBODY)


def _resolve(call: Call, catalog: RouteCatalog) -> Plan:
    name = call.model
    route = catalog.names.get(name)
    if route is not None:
        return _chain(route, call, catalog)
    if name in catalog.routes:
        return _plan(name, [_Found(catalog.routes[name])], call, catalog)
    if name == AUTO:
        return _auto(call, catalog)
    head, slash, rest = name.partition("/")
    provider = catalog.provider(head) if slash and rest else None
    if provider is not None:
        if call.kind not in catalog.offers[provider].kinds:
            raise ModelNotFound(f"{provider} offers no {call.kind} here; ask a provider that does", param="model")
        asked = catalog.deployment(provider, rest)
        same = catalog.same_as(asked)
        return _plan(name, _tiers((asked,), same, catalog, asked), call, catalog, added=frozenset(same))
    return _bare(call, catalog)


def _tiers(
    found: tuple[Deployment, ...], same: tuple[Deployment, ...], catalog: RouteCatalog, asked: Deployment | None = None
) -> list[_Found]:
    """A step for each provider tier, with who was *found* by name before who serves the *same* model.

    With *asked*, its own tier is the first step and it is first in that; the lower tiers follow, then the higher ones.
    A last resort comes after all others.
    """
    own = 1 if asked is None else catalog.offers[asked.provider].tier

    def step(deployment: Deployment) -> tuple[bool, bool, int]:
        offer = catalog.offers[deployment.provider]
        if deployment == asked:
            return False, False, own
        return offer.last_resort, asked is not None and offer.tier < own, offer.tier

    steps: dict[tuple[bool, bool, int], list[Deployment]] = {}
    for each in sorted((*found, *same), key=lambda one: (step(one), one != asked, one in same, one.provider)):
        steps.setdefault(step(each), []).append(each)
    return [_Found(tuple(each), listed=asked is None) for each in steps.values()]


def _auto(call: Call, catalog: RouteCatalog) -> Plan:
    """The plan of a call that names no model: the default of each provider, a step for each provider tier."""
    if call.kind not in ("chat", "completions", "count", "embeddings"):
        raise BadRequest(f"{call.model} has no model for {call.kind}: name one", param="model")
    found = _defaults(call, catalog)
    advice = catalog.without_default.get(_kind_of_default(call), "give one a key")
    if not found:
        raise NoValidCredentials(f"{ALL_EXHAUSTED}: none has a key and a default model; {advice}")
    try:
        plan = _plan(call.model, found, call, catalog)
    except NoValidCredentials as error:
        raise NoValidCredentials(f"{ALL_EXHAUSTED}: {error.message}; {advice}") from None
    return replace(plan, added=frozenset(plan.deployments), defaults=True)


def _kind_of_default(call: Call) -> Kind:
    return "embeddings" if call.kind == "embeddings" else "chat"


def _defaults(call: Call, catalog: RouteCatalog) -> list[_Found]:
    steps: dict[tuple[bool, int], list[Deployment]] = {}
    for each in catalog.defaults.get(_kind_of_default(call), ()):
        steps.setdefault(catalog.rank(each.provider)[:2], []).append(each)
    return [_Found(tuple(each)) for each in steps.values()]


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
        elif entry == AUTO and entry not in catalog.names and entry not in catalog.routes:
            found += _defaults(call, catalog)
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


def _plan(
    name: str,
    found: list[_Found],
    call: Call,
    catalog: RouteCatalog,
    route: Route | None = None,
    *,
    added: frozenset[Deployment] = NOBODY,
) -> Plan:
    """The plan of what was *found*, without who is barred. Raises when nobody is left."""
    steps: list[Step] = []
    barriers: list[Barrier] = []
    bars = {one: barrier(one, call, catalog) for each in found for one in each.deployments}
    if added:
        paid = any(too_dear(one, catalog) for one in [each for each in bars if each not in added] or bars)
        for one in added:
            bars[one] = bars[one] or stand_in_barrier(one, catalog, must_be_free=paid)
    for each in found:
        open_ones = []
        for deployment in each.deployments:
            bar = bars[deployment]
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
        added,
        primary=_primary(found, bars, route, catalog),
    )


def _primary(
    found: list[_Found], bars: Mapping[Deployment, Barrier | None], route: Route | None, catalog: RouteCatalog
) -> frozenset[Deployment]:
    """Who is no fallback, of what was *found*. Where a step is ordered anew, all of it are equals."""
    step = next((each.deployments for each in found if each.deployments), ())
    if not step or bars[step[0]] is not None:
        return NOBODY
    if route is not None and route.strategy != "in_order":
        return frozenset(step)
    first = catalog.rank(step[0].provider)[:2]
    return frozenset(each for each in step if bars[each] is None and catalog.rank(each.provider)[:2] <= first)


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
    return replace(_left(plan, tuple(steps), tuple(refusals)), shortest=None)


def _offering(
    name: str, call: Call, catalog: RouteCatalog, *, guess: bool = True
) -> tuple[list[str], list[tuple[str, Offer]]]:
    """Who offers a bare id, by provider tier; and everybody, ranked. *guess*: if nobody is known to, who may."""
    ranked = sorted(catalog.offers.items(), key=lambda item: catalog.rank(item[0]))
    able = [(provider, offer) for provider, offer in ranked if call.kind in offer.kinds and offer.usable]
    found = [provider for provider, offer in able if offer.models is not None and name in offer.models]
    if guess and not found and name.partition("/")[0].lower().replace("-", "_") not in catalog.unconfigured:
        nobody_knows = all(offer.models is None for _, offer in able)
        found = [each for each, offer in able if offer.models is None and (nobody_knows or not offer.lists)]
    return found, ranked


def _bare(call: Call, catalog: RouteCatalog) -> Plan:
    name = call.model
    same = dict.fromkeys(catalog.same_as_named(name))
    offering, ranked = _offering(name, call, catalog, guess=not same)
    found = tuple(catalog.deployment(each, name) for each in offering)
    for each in found:
        same.update(dict.fromkeys(catalog.same_as(each)))
    added = tuple(each for each in same if each not in found)
    head, slash, _ = name.partition("/")
    if not found and (not added or (slash and head.lower().replace("-", "_") in catalog.unconfigured)):
        raise _not_found(name, catalog)  # a provider that was asked for by its name and has no key is not replaced
    plan = _plan(name, _tiers(found, added, catalog), call, catalog, added=frozenset(added))
    asked = {each.provider for each in (*found, *added)}
    others = [f"{each}: {_why_not(catalog.offers[each])}" for each, _ in ranked if each not in asked]
    return replace(plan, refusals=(*plan.refusals, *others), listed=True)


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
