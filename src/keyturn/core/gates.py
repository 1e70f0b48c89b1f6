"""May this deployment answer this call? Keys, paid models, price tiers, plans, capabilities; each with its reason."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, TypeVar

from keyturn.errors import (
    BadRequest,
    KeyturnError,
    ModelNotFound,
    NoValidCredentials,
    PaidRoute,
    RouteNotAllowed,
)

from .catalog import BLIND, ModelFacts, RouteCatalog, ids_of, plain_of
from .model import Call, Caller, Deployment

Cause = Literal["key", "kind", "paid", "withheld", "capability", "absent"]
CAPABILITIES = ("vision", "audio", "tools", "json")


class Barrier(NamedTuple):
    """Why a deployment, or a whole provider, is not asked."""

    cause: Cause
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


def barrier(deployment: Deployment, call: Call, catalog: RouteCatalog) -> Barrier | None:
    """What keeps *deployment* from answering *call*; None when nothing does."""
    provider, model = deployment
    offer = catalog.offers.get(provider)
    what = str(deployment)
    if offer is None:
        variable = catalog.unconfigured.get(provider)
        return Barrier("key", what, f"no key, set {variable}" if variable else f"{provider} is not configured")
    if not offer.usable:
        return Barrier("key", what, f"no usable key: {offer.set_up}")
    if call.kind not in offer.kinds:
        return Barrier("kind", what, f"{provider} offers no {call.kind} here")
    facts = catalog.about(deployment)
    if why := _too_dear(facts, catalog):
        return Barrier("paid", what, why)
    if offer.ignored and offer.ignores(provider, model):
        return Barrier("withheld", what, f"is left out by {offer.ignoring}")
    for rules in offer.withheld:
        if why := _withheld(deployment, rules):
            return Barrier("withheld", what, why)
    return _incapable(what, call, facts, text_only=offer.text_only)


def too_dear(deployment: Deployment, catalog: RouteCatalog) -> bool:
    """Whether what it costs keeps *deployment* from answering, whatever else does."""
    return bool(_too_dear(catalog.about(deployment), catalog))


def _too_dear(facts: ModelFacts, catalog: RouteCatalog) -> str:
    """Why a deployment of these *facts* costs more than is allowed; empty when it does not."""
    if facts.paid and not catalog.use_paid:
        return "is marked paid, and USE_PAID_MODELS is false"
    if catalog.price_tiers is not None:
        tier = facts.price_tier or ("free" if not facts.paid else None)
        if tier not in catalog.price_tiers:
            named = f"its price tier is {tier}" if tier else "it is paid and has no price tier"
            return f"{named}, ALLOWED_MODEL_TIERS has {', '.join(sorted(catalog.price_tiers))}"
    return ""


def stand_in_barrier(deployment: Deployment, catalog: RouteCatalog, *, must_be_free: bool) -> Barrier | None:
    """What keeps *deployment* from standing in for the same model elsewhere: its provider is known not to list it, or
    (*must_be_free*) the model is paid where it was asked for, and nothing says that it is free here."""
    offer, what = catalog.offers[deployment.provider], str(deployment)
    if offer.complete and deployment.model not in (offer.models or ()):
        return Barrier("absent", what, "its provider does not list it")
    if must_be_free and catalog.facts.get(deployment, BLIND) == BLIND:
        price = catalog.price(deployment)
        if price is None or price.blended > 0:
            return Barrier("paid", what, "the same model is marked paid elsewhere, and nothing says it is free here")
    return None


def _withheld(deployment: Deployment, rules: Iterable[tuple[str, str]]) -> str:
    """Why no credential may use *deployment*; empty: it may."""
    return said_of(*deployment, rules) or ""


T = TypeVar("T")


def said_of(provider: str, model: str, rules: Iterable[tuple[str, T]]) -> T | None:
    """What *rules*, patterns of models each with what it says, say of *model*: the one with its own name, else the
    first pattern that fits; of a variant that none of them names, what they say of what it is a variant of."""
    rules = tuple(rules)
    for name in dict.fromkeys((model, plain_of(model))):
        spelled, found = ids_of(provider, name), None
        for pattern, said in rules:
            if pattern.lower() in spelled:
                return said
            if found is None and any(fnmatchcase(each, pattern.lower()) for each in spelled):
                found = said
        if found is not None:
            return found
    return None


def _incapable(what: str, call: Call, facts: ModelFacts, *, text_only: bool) -> Barrier | None:
    """What *call* needs and the deployment cannot do. An unknown ability is taken for one, but never sight."""
    able = facts.capabilities
    for need in CAPABILITIES if call.needs else ():
        if need in call.needs and (
            text_only or able.get(need) is False or (need == "vision" and able and not able.get(need))
        ):
            return Barrier("capability", what, f"has no {need}")
    if call.stream and able.get("streaming") is False:
        return Barrier("capability", what, "does not stream")
    return None


def permitted(caller: Caller, name: str, deployments: Iterable[Deployment], catalog: RouteCatalog) -> bool:
    """Whether *caller* may ask for *name*: one of its patterns matches the name, or each deployment behind it.

    `provider/model` is matched as the deployment that it means, under every name of its provider, never as it was
    written: a pattern for the ids of one provider must not let in another whose name begins alike.
    """
    if not caller.routes:
        return True
    meant = _meant(name, catalog)
    if not meant and _matches(caller, name):
        return True
    behind = (*meant, *deployments)
    return bool(behind) and all(names(caller, each, catalog) for each in behind)


def names(caller: Caller, deployment: Deployment, catalog: RouteCatalog) -> bool:
    """Whether one of *caller*'s patterns fits *deployment*, under any name of its provider."""
    return any(_matches(caller, each) for each in _spelled(deployment, catalog))


def _meant(name: str, catalog: RouteCatalog) -> tuple[Deployment, ...]:
    """The deployment that *name* writes out as `provider/model`; none when it is a name of another kind."""
    head, slash, rest = name.partition("/")
    provider = catalog.provider(head) if slash and rest else None
    if provider is None or name in catalog.names or name in catalog.routes:
        return ()
    return (catalog.deployment(provider, rest),)


def _matches(caller: Caller, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in caller.routes)


def _spelled(deployment: Deployment, catalog: RouteCatalog) -> list[str]:
    """*deployment* under each name of its provider."""
    provider, model = deployment
    names = [provider, *(alias for alias, row in catalog.aliases.items() if row == provider)]
    return [f"{each}/{model}" for each in names]


def not_permitted(caller: Caller, name: str) -> RouteNotAllowed:
    """The error for a route that *caller* may not use."""
    if not caller.routes:
        said = f"caller {caller.name} may not use {name}: its routes have to name the command line tool"
        return RouteNotAllowed(said, param="model")
    allowed = ", ".join(caller.routes)
    return RouteNotAllowed(f"caller {caller.name} may not use {name}; its routes are {allowed}", param="model")


def _told(barrier: Barrier, name: str) -> str:
    """A key that is missing is told once per provider, not for each of its models."""
    if barrier.what == name:
        return barrier.why
    return f"{barrier.what.partition('/')[0]}: {barrier.why}" if barrier.cause == "key" else str(barrier)


def all_barred(name: str, barriers: list[Barrier]) -> KeyturnError:
    """The error that says why nobody is left to ask for *name*, with every reason in it."""
    causes = {each.cause for each in barriers}
    told = [_told(each, name) for each in barriers]
    reasons = "; ".join(dict.fromkeys(told))
    if causes <= {"key"}:
        return NoValidCredentials(f"no usable key for {name}: {reasons}")
    if "paid" in causes:
        return PaidRoute(
            f"{name} would need a model that is not allowed: {reasons}. USE_PAID_MODELS=true and ALLOWED_MODEL_TIERS "
            "say what may be used",
            param="model",
        )
    if causes & {"capability", "kind"}:
        return BadRequest(f"nothing behind {name} can do what this request needs: {reasons}", param="model")
    if "key" in causes:
        return NoValidCredentials(f"nothing behind {name} can be used: {reasons}")
    return ModelNotFound(f"nothing behind {name} can be used: {reasons}", param="model")
