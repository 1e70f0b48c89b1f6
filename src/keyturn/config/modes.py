"""How keys are used beyond their order: priorities, soft targets, shared quotas, caps, fair cycles, lists of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyturn.core import FairRule, said_of

from .caps import Cap

STICKINESS = 3600.0


@dataclass(frozen=True, slots=True)
class ModelList:
    """Which models of a provider may be used: what *allow* names; else not what *ignore* names; else all."""

    allow: tuple[str, ...] = ()
    """Names or shell wildcards, in small letters."""
    ignore: tuple[str, ...] = ()
    place: str = ""
    """What said *ignore*: a variable, or a place in models.yaml."""


@dataclass(frozen=True, slots=True)
class Modes:
    """Mappings are keyed by the provider's canonical name; one that is missing has nothing of the kind."""

    soft: Mapping[str, int] = field(default_factory=dict)
    """Calls under way per key up to which a key is preferred to those that have as many."""
    multipliers: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Key priority -> by what the bound of calls under way is multiplied; 0 for keys of every other priority."""
    needed: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Pattern of a model -> the worst key priority that may serve it; a name wins, then the first that fits."""
    groups: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Name -> models (or patterns) that share one quota; none: what limits.yaml calls so is no group."""
    caps: Mapping[str, tuple[Cap, ...]] = field(default_factory=dict)
    fair: Mapping[str, FairRule] = field(default_factory=dict)
    """Where the fair cycle is on."""
    lists: Mapping[str, ModelList] = field(default_factory=dict)
    stickiness: float = STICKINESS
    """Seconds that a conversation prefers the key that answered it last; 0: not at all."""

    def enough(self, provider: str, model: str, priority: int | None) -> bool:
        """Whether a key of *priority* may serve *model*; one without a priority may."""
        patterns = self.needed.get(provider)
        if not patterns or priority is None:
            return True
        worst = said_of(provider, model, patterns)
        return worst is None or priority <= worst
