"""What a name means: from the model that a client asks for to the deployments that may answer, in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple

from keyturn.errors import ModelNotFound, NoValidCredentials

from .catalog import RouteCatalog
from .model import Call, Caller, Deployment

MOST_PLANS = 4096
"""Names come from clients: above so many they are resolved each time."""


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
    deployments: tuple[Deployment, ...] = field(init=False)
    """Those of all steps, in order."""

    def __post_init__(self) -> None:
        flat = tuple(each for step in self.steps for each in step.deployments)
        object.__setattr__(self, "deployments", flat)


def needs_listing(call: Call, catalog: RouteCatalog) -> bool:
    """Whether the plan depends on what the providers offer: a bare id rather than `provider/model`."""
    plan = catalog.plans.get((call.model, call.kind))
    if plan is not None and plan.route != plan.deployments[0].model:
        return False
    head, slash, rest = call.model.partition("/")
    return not (slash and rest and catalog.provider(head))


def resolve(call: Call, caller: Caller, catalog: RouteCatalog) -> Plan:
    """The plan for *call*. First match: `<configured provider or alias>/<rest>`; a bare id that configured providers
    offer, by provider tier.

    Raises ModelNotFound, with the nearest names or the variable to set, and NoValidCredentials.
    """
    key = (call.model, call.kind)
    plan = catalog.plans.get(key)
    if plan is None:
        plan = _resolve(call, catalog)
        if len(catalog.plans) < MOST_PLANS:
            catalog.plans[key] = plan
    return plan


def _resolve(call: Call, catalog: RouteCatalog) -> Plan:
    head, slash, rest = call.model.partition("/")
    provider = catalog.provider(head) if slash and rest else None
    if provider is not None:
        offer = catalog.offers[provider]
        if call.kind not in offer.kinds:
            raise ModelNotFound(f"{provider} offers no {call.kind} here; ask a provider that does", param="model")
        if not offer.usable:
            raise NoValidCredentials(f"no usable key for {provider}: {offer.set_up}")
        return Plan(call.model, (Step((Deployment(provider, rest),)),))
    return _bare(call, catalog)


def _bare(call: Call, catalog: RouteCatalog) -> Plan:
    name, refusals = call.model, []
    ranked = sorted(catalog.offers.items(), key=lambda item: (item[1].tier, item[0]))
    able = [(provider, offer) for provider, offer in ranked if call.kind in offer.kinds and offer.usable]
    found = [(provider, offer) for provider, offer in able if offer.models is not None and name in offer.models]
    if not found and name.partition("/")[0].lower().replace("-", "_") not in catalog.unconfigured:
        nobody_knows = all(offer.models is None for _, offer in able)
        found = [item for item in able if item[1].models is None and (nobody_knows or not item[1].lists)]
    for provider, offer in ranked:
        if (provider, offer) not in found:
            refusals.append(f"{provider}: {'does not offer it' if offer.usable else 'no usable key'}")
    if not found:
        raise _not_found(name, catalog)
    return Plan(name, tuple(Step((Deployment(provider, name),)) for provider, _ in found), tuple(refusals))


def nearest_models(name: str, catalog: RouteCatalog, count: int = 3) -> list[str]:
    """Up to *count* names on offer that look like *name*, nearest first."""
    known = {full.lower(): full for full in catalog.names()}
    for full in list(known.values()):
        known.setdefault(full.partition("/")[2].lower(), full)
    near = get_close_matches(name.lower(), list(known)[:5000], n=count * 2, cutoff=0.5)
    return list(dict.fromkeys(known[each] for each in near))[:count]


def _not_found(name: str, catalog: RouteCatalog) -> ModelNotFound:
    head = name.partition("/")[0].lower().replace("-", "_")
    if head in catalog.unconfigured:
        return ModelNotFound(
            f"model {name!r} needs a key that is not set: set {catalog.unconfigured[head]} and start again",
            param="model",
        )
    unknown = [provider for provider, offer in catalog.offers.items() if offer.models is None]
    near = nearest_models(name, catalog)
    hint = f"nearest: {', '.join(near)}" if near else catalog.advice or "GET /v1/models lists what is"
    if unknown and not catalog.advice:
        hint += f" (the models of {', '.join(unknown)} could not be listed: ask for {unknown[0]}/… by name)"
    return ModelNotFound(f"model {name!r} is not offered by any configured provider; {hint}", param="model")
