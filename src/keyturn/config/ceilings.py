"""What limits.yaml and callers.yaml allow: rules per provider and model, and who may call how much."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from keyturn.core import MINUTE, MONTH, Caller, Limit, nano

from .credentials import key_flaw
from .files import Files, Read
from .model import LimitRule, LimitSpec
from .routing import ProviderNames
from .settings import Settings

if TYPE_CHECKING:
    from .shape_callers import CallersFile, CallerShape
    from .shape_limits import ModelLimits, RatesShape

SPECS: dict[
    str,
    tuple[
        Literal["requests", "tokens", "concurrency"], Literal["second", "minute", "hour", "day", "month", "inflight"]
    ],
] = {
    "rps": ("requests", "second"),
    "rpm": ("requests", "minute"),
    "rph": ("requests", "hour"),
    "rpd": ("requests", "day"),
    "rpmonth": ("requests", "month"),
    "tpm": ("tokens", "minute"),
    "tph": ("tokens", "hour"),
    "tpd": ("tokens", "day"),
    "tpmonth": ("tokens", "month"),
    "concurrency": ("concurrency", "inflight"),
}
OWN = "default"
"""The caller that presents PROXY_API_KEY, or the key in the data folder."""


@dataclass(slots=True)
class Callers:
    """Who may call."""

    by_key: dict[str, Caller] = field(default_factory=dict)
    """SHA-256 of the key → caller."""
    own: Caller = field(default_factory=Caller)
    places: dict[str, str] = field(default_factory=dict)


def limit_rules(files: Files, settings: Settings, providers: ProviderNames) -> dict[str, tuple[LimitRule, ...]]:
    """The rules of limits.yaml by provider, in the order of the file; a block's `default` comes last."""
    source = files.limits
    if source is None:
        if files.present and "limits.yaml" not in files.present:
            said = "there is none, so only limits that providers report or LIMITS_<P> declares hold"
            settings.report.note(f"{files.shown}/limits.yaml", said)
        return {}
    found: dict[str, list[LimitRule]] = {}
    for written, blocks in source.content.providers.items():
        name = providers.find(written, source.at("providers", written))
        several = isinstance(blocks, tuple)
        for index, block in enumerate(blocks if isinstance(blocks, tuple) else (blocks,)):
            path = ("providers", written, index) if several else ("providers", written)
            rules = found.setdefault(name or written, [])
            for pattern, model in block.models.items():
                rules.append(_rule(pattern, model, block, source.at(*path, "models", pattern)))
            if block.default is not None:
                rules.append(_rule("*", block.default, block, source.at(*path, "default")))
    return {name: tuple(rules) for name, rules in found.items()}


def _rule(pattern: str, model: ModelLimits, block: Any, place: str) -> LimitRule:
    scope = model.scope or block.scope
    return LimitRule(pattern, specs_of(model), block.plan, scope, model.quota_group or "", model.unavailable, place)


def specs_of(rates: RatesShape | None) -> tuple[LimitSpec, ...]:
    """The capacities that are given; what is absent, null, 0 or negative is unlimited."""
    if rates is None:
        return ()
    capacities = ((name, getattr(rates, name)) for name in SPECS)
    return tuple(LimitSpec(*SPECS[name], capacity) for name, capacity in capacities if capacity and capacity > 0)


def find_callers(files: Files, settings: Settings) -> Callers:
    """The callers of callers.yaml that can log in."""
    callers = Callers()
    source = files.callers
    if source is None:
        return callers
    own_key = settings.text("PROXY_API_KEY")
    own_hash = _hash(own_key) if own_key else ""
    for name, said in source.content.root.items():
        place = source.at(name)
        caller = _caller(name, said)
        callers.places[name] = place
        if name == OWN:
            callers.own = caller
            if said.key_env or said.key_hash:
                said_of_it = f"{OWN}: is whoever presents PROXY_API_KEY; take its key out here, its limits may stay"
                settings.report.problem(place, said_of_it)
            continue
        key = _key_hash(name, said, source, settings)
        if not key:
            continue
        if key == own_hash:
            settings.report.problem(place, f"{name}: has the key of PROXY_API_KEY; give it another")
        elif key in callers.by_key:
            other = callers.by_key[key].name
            settings.report.problem(
                place, f"{name}: has the same key as {other} ({callers.places[other]}); give it another"
            )
        else:
            callers.by_key[key] = caller
    return callers


def key_variables_of(files: Files) -> set[str]:
    """The variables that hold callers' keys."""
    source = files.callers
    return set() if source is None else {said.key_env for said in source.content.root.values() if said.key_env}


def _key_hash(name: str, said: CallerShape, source: Read[CallersFile], settings: Settings) -> str:
    """SHA-256 of the caller's key in hexadecimal; empty, with a word about it, when it has none."""
    place, report = source.at(name), settings.report
    if (said.key_env is None) == (said.key_hash is None):
        missing = f"has no key; write key_env: THE_VARIABLE, or make one with `keyturn callers add {name}`"
        report.problem(place, f"{name}: {'give only one of key_env and key_hash' if said.key_env else missing}")
        return ""
    if said.key_hash is not None:
        return said.key_hash.removeprefix("sha256:").lower()
    key = settings.text(said.key_env or "")
    if key is None:
        report.note(place, f"{name} cannot log in: {said.key_env} is not set")
        return ""
    report.hide(key)
    if flaw := key_flaw(key):
        report.problem(said.key_env or "", flaw)
        return ""
    return _hash(key)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _caller(name: str, said: CallerShape) -> Caller:
    scope = f"caller/{name}"
    limits = []
    if said.rpm and said.rpm > 0:
        limits.append(Limit(scope, "requests", MINUTE, said.rpm, owner="caller"))
    if said.tpm and said.tpm > 0:
        limits.append(Limit(scope, "tokens", MINUTE, said.tpm, owner="caller"))
    if said.monthly_usd is not None:
        limits.append(Limit(scope, "cost", MONTH, max(nano(said.monthly_usd), 1), owner="caller"))
    return Caller(name, said.routes, tuple(limits), said.weight, said.rank)
