"""What routing knows: what providers offer, what is known of each deployment, and the names that stand for chains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, NamedTuple

from .equivalents import NO_EQUIVALENTS, Equivalents
from .limitbook import Limit
from .model import Deployment, Kind
from .pricing import Price

if TYPE_CHECKING:
    from .routes import Plan

PRICE_TIERS = ("free", "cheap", "budget", "performance", "ultra")
RouteStrategy = Literal["in_order", "cheapest", "fastest"]
AUTO = "auto"
"""The name of a call that leaves the model to each provider's default, unless the configuration gives it away."""
PlanKey = tuple[str, str, frozenset[str], bool]
"""Name, kind, needs, stream: what a plan depends on, of all that a call says."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one deployment beside its name. *price* None: unknown, which is never taken for zero."""

    paid: bool = False
    price_tier: str | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    """Of `streaming`, `vision`, `tools`, `json`, `audio`: whether it can. What is missing is unknown, but a deployment
    that lists any capability without `vision` has no vision."""
    context_length: int | None = None
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A name that stands for a chain: a role or an alias. Each entry of *chain* is one step.

    With *providers*, an entry is those providers' own id, asked in that order. Without, it is a route id,
    `provider/model`, or a bare id.
    """

    name: str
    kind: Literal["role", "alias"]
    chain: tuple[str, ...]
    providers: tuple[str, ...] = ()
    """Canonical names."""
    strategy: RouteStrategy = "in_order"
    """How the deployments of one step are ordered."""
    description: str = ""
    budget: Limit | None = None
    """What it may cost a month, counted under `role/<name>`."""


UNKNOWN = ModelFacts()
BLIND = ModelFacts(capabilities={"vision": False})
"""What is known of a default model without sight: nothing of what it costs."""


VARIANTS = frozenset({"free", "nitro", "floor", "online", "extended", "thinking", "exacto", "beta"})
"""Endings of a model's name that choose how it is served (OpenRouter's model variants), not another model."""


def base_of(model: str) -> tuple[str, str]:
    """*model* without its variants, and these: `a/b:nitro:online` -> `a/b`, `:nitro:online`."""
    base, colon, variant = model.rpartition(":")
    if not colon or variant.lower() not in VARIANTS:
        return model, ""
    name, more = base_of(base)
    return name, f"{more}:{variant}"


def plain_of(model: str) -> str:
    """*model* without its variants; `:free` alone is a model of its own."""
    base, variants = base_of(model)
    return model if variants.lower() == ":free" else base


def ids_of(provider: str, model: str) -> tuple[str, str]:
    """How a rule of the owner may write a model of *provider*: by its id, or with the provider before it; in small
    letters."""
    spelled = model.lower()
    return spelled, f"{provider}/{spelled}"


def facts_of(facts: Mapping[Deployment, ModelFacts], deployment: Deployment) -> ModelFacts:
    """What is known of *deployment*. A variant is what it is a variant of, but for `:free` alone."""
    found = facts.get(deployment)
    if found is None:
        plain = plain_of(deployment.model)
        if plain != deployment.model:
            found = facts.get(Deployment(deployment.provider, plain))
    return found or UNKNOWN


class Offer(NamedTuple):
    """One provider as routing sees it."""

    tier: int
    usable: bool
    """It has at least one credential."""
    models: frozenset[str] | None
    """The upstream ids that it is known to offer; None while unknown."""
    set_up: str = ""
    """How to make it usable: the variable to set, or the command."""
    lists: bool = True
    """False when it has no list of models to ask for: then any name may be its."""
    kinds: frozenset[str] = frozenset({"chat", "embeddings"})
    withheld: tuple[tuple[tuple[str, str], ...], ...] = ()
    """Lists of models (shell wildcards), each with the reason why none of its credentials may use it; empty: they may.
    In each list the name itself goes before a pattern, and of patterns the first counts; one list may withhold."""
    prefix: str = ""
    """What names of models may carry in front without meaning another one: `models/`."""
    text_only: bool = False
    """A command line tool: it takes no images, no tools and no schema."""
    last_resort: bool = False
    """Asked after everybody else, whatever the tiers are."""
    complete: bool = False
    """*models* is all that it offers: its list was read."""
    allowed: tuple[str, ...] = ()
    """Models (shell wildcards, small letters) that its owner lets through whatever *ignored* says."""
    ignored: tuple[str, ...] = ()
    """Models that its owner lets nobody use, as *ignoring* says."""
    ignoring: str = ""
    """The setting that says so."""

    def ignores(self, provider: str, model: str) -> bool:
        """Whether the owner lets nobody use *model* of this offer, which is *provider*'s. A variant is left out with
        what it is a variant of, and let through by its own name only."""
        if not self.ignored:
            return False
        spelled = ids_of(provider, model)
        if any(fnmatchcase(each, pattern) for pattern in self.allowed for each in spelled):
            return False
        every = (*spelled, *ids_of(provider, plain_of(model)))
        return any(fnmatchcase(each, pattern) for pattern in self.ignored for each in every)


@dataclass(frozen=True, slots=True)
class RouteCatalog:
    """A snapshot of all providers by name, their aliases, the known providers that are not configured, and the names
    that stand for chains."""

    offers: Mapping[str, Offer]
    aliases: Mapping[str, str] = field(default_factory=dict)
    unconfigured: Mapping[str, str] = field(default_factory=dict)
    """Known provider or alias without a key -> the variable to set."""
    advice: str = ""
    """What to do about a name that nobody offers, when there is more to say than the nearest names."""
    names: Mapping[str, Route] = field(default_factory=dict)
    """Roles and aliases."""
    routes: Mapping[str, tuple[Deployment, ...]] = field(default_factory=dict)
    """Route ids."""
    facts: Mapping[Deployment, ModelFacts] = field(default_factory=dict)
    use_paid: bool = False
    price_tiers: frozenset[str] | None = None
    """Price tiers that may be used; None: all."""
    price: Callable[[Deployment], Price | None] = lambda deployment: None
    """What a deployment costs, for the strategy `cheapest`; None: unknown."""
    spellings: Mapping[tuple[str, str], Deployment] = field(default_factory=dict)
    """Provider and model in small letters -> the deployment as facts and routes spell it."""
    equivalents: Equivalents = NO_EQUIVALENTS
    """Who serves the same model as whom."""
    defaults: Mapping[Kind, tuple[Deployment, ...]] = field(default_factory=dict)
    """`chat` and `embeddings` -> what each provider is asked for when a call names no model, in order."""
    without_default: Mapping[Kind, str] = field(default_factory=dict)
    """The same kinds -> what to set, so that such a call can be answered."""
    plans: dict[PlanKey, Plan] = field(default_factory=dict, repr=False, compare=False)
    """What names resolved to, by name and needs of the call: filled by `resolve`, as good as this snapshot is."""
    narrowed: dict[tuple[PlanKey, tuple[str, ...]], Plan] = field(default_factory=dict, repr=False, compare=False)
    """The same without what the routes of a caller do not name, by these routes."""

    def provider(self, name: str) -> str | None:
        """The configured provider of that name or alias."""
        lowered = name.lower().replace("-", "_")
        found = self.aliases.get(lowered, lowered)
        return found if found in self.offers else None

    def deployment(self, provider: str, model: str) -> Deployment:
        """The deployment of *model*, however it is spelled: what is known of it must hold under every name.

        A name that is known as it stands is never taken for another.
        """
        offer = self.offers[provider]
        while offer.prefix and model.startswith(offer.prefix) and model != offer.prefix:
            model = model.removeprefix(offer.prefix)
        found = Deployment(provider, model)
        if found in self.facts or (offer.models is not None and model in offer.models):
            return found
        spelled = self.spellings.get((provider, model.lower()))
        if spelled is not None:
            return spelled
        base, variants = base_of(model)
        spelled = self.spellings.get((provider, base.lower()))
        return found if spelled is None else Deployment(provider, spelled.model + variants)

    def rank(self, provider: str) -> tuple[bool, int, str]:
        """Where *provider* stands among all: the last resort last, else by tier, then by name."""
        offer = self.offers[provider]
        return offer.last_resort, offer.tier, provider

    def same_as(self, deployment: Deployment) -> tuple[Deployment, ...]:
        """The configured deployments that serve the same model as *deployment*, without itself."""
        return tuple(each for each in self._configured(self.equivalents.of(deployment)) if each != deployment)

    def same_as_named(self, model: str) -> tuple[Deployment, ...]:
        """The configured deployments that serve what some provider calls *model*."""
        return self._configured(self.equivalents.named(model))

    def _configured(self, group: Iterable[Deployment]) -> tuple[Deployment, ...]:
        found = (self.deployment(each.provider, each.model) for each in group if each.provider in self.offers)
        return tuple(dict.fromkeys(found))

    def about(self, deployment: Deployment) -> ModelFacts:
        """What is known of *deployment*, in whatever spelling."""
        found = facts_of(self.facts, deployment)
        if found is UNKNOWN:
            provider, model = deployment
            base, variants = base_of(model)
            spelled = self.spellings.get((provider, model.lower()))
            if spelled is None and variants.lower() != ":free":
                spelled = self.spellings.get((provider, base.lower()))
            if spelled is not None:
                return self.facts[spelled]
        return found

    def offered(self) -> Iterable[str]:
        """Every `provider/model` that is known to be offered."""
        for provider, offer in self.offers.items():
            for model in offer.models or ():
                if not offer.ignores(provider, model):
                    yield f"{provider}/{model}"

    def known(self) -> Iterable[str]:
        """Every name that can be asked for, as far as it is known."""
        yield from self.names
        yield from self.routes
        if self.defaults:
            yield AUTO
        yield from self.offered()
