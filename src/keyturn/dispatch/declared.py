"""Which limits and caps the owner declared for a credential on a model, and under which names they are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from keyturn.config import Cap, Config, LimitRule, LimitSpec, Rest
from keyturn.core import (
    MONTH,
    Credential,
    Deployment,
    Limit,
    Source,
    Window,
    credential_scope,
    model_scope,
    plain_of,
    said_of,
)
from keyturn.providers import Provider

SECONDS = {"second": 1.0, "10s": 10.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
"""The lengths of the windows that limits are declared and reported for."""
EVERYBODY = "*"
"""The owner of what is counted for all credentials together."""
GROUP = "#"
"""Begins the name under which several models are counted together."""
OF_CAP = "!cap "
"""Stands in the name of what a custom cap counts, before the cap."""


def window_of(provider: Provider, metric: str, name: str) -> Window:
    """How *provider* counts *metric* over the window *name*: rolling unless its catalog row knows better."""
    if metric == "concurrency":
        return Window("inflight", 0.0)
    if name == "month":
        return Window("month", MONTH.seconds, provider.zone)
    kind = provider.windows.get(f"{metric}_{name}", "rolling")
    if kind == "calendar":
        return Window("calendar", SECONDS[name], provider.zone)
    return Window("bucket" if kind == "bucket" else "rolling", SECONDS[name])


def window_name(window: Window) -> str:
    """What people call *window*: `minute`, `day`, `month`, `in flight`, or its length in seconds."""
    if window.kind == "inflight":
        return "in flight"
    if window.kind == "month":
        return "month"
    return next((name for name, seconds in SECONDS.items() if seconds == window.seconds), f"{window.seconds:g}s")


def rules_for(config: Config, model: str, provider: str, plan: str | None) -> list[LimitRule]:
    """The rules of limits.yaml that hold for *model*: the nearest of those for all plans, and of those for *plan*."""
    return list(_nearest(_Rules(config.limit_rules.get(provider, ())), model.lower(), plan))


class _Rules:
    """A provider's rules, equal to themselves alone: comparing and hashing a thousand of them would take too long."""

    __slots__ = ("every",)

    def __init__(self, every: tuple[LimitRule, ...]) -> None:
        self.every = every

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rules) and other.every is self.every

    def __hash__(self) -> int:
        return id(self.every)


@lru_cache(maxsize=64)  # a pool asks for each of its keys, and they have few plans
def _nearest(rules: _Rules, spelled: str, plan: str | None) -> tuple[LimitRule, ...]:
    found: dict[str | None, LimitRule] = {}
    for rule in rules.every:
        if rule.plan not in (None, plan):
            continue
        pattern = rule.pattern.lower()
        if pattern == spelled:
            if rule.plan not in found or found[rule.plan].pattern.lower() != spelled:
                found[rule.plan] = rule
        elif rule.plan not in found and fnmatchcase(spelled, pattern):
            found[rule.plan] = rule
    return tuple(found[each] for each in (None, plan) if each in found) if plan else tuple(found.values())


def withheld(config: Config, deployment: Deployment, credential: Credential) -> bool:
    """Whether the plan of *credential* does not offer the model at all, or its key priority is not good enough."""
    provider, model = deployment
    return not config.modes.enough(provider, model, credential.priority) or any(
        rule.unavailable for rule in rules_for(config, model, provider, credential.plan)
    )


def counted_as(config: Config, deployment: Deployment, plan: str | None) -> str:
    """Under which name the use of a model is counted, and cools, for keys of *plan*: `#flash` for one that shares the
    quota `flash`, else the model's own.

    What `QUOTA_GROUPS_<P>_<NAME>` says comes before limits.yaml.
    """
    provider, model = deployment
    group = _named_group(config, provider, model)
    if not group:
        groups = (_filed_group(config, provider, rule) for rule in rules_for(config, model, provider, plan))
        group = next((each for each in groups if each), "")
    return f"{GROUP}{group}" if group else model


def _named_group(config: Config, provider: str, model: str) -> str:
    """The group of several models that the owner put *model* into by name or pattern."""
    groups = config.modes.groups.get(provider)
    if not groups:
        return ""
    return said_of(provider, model, [(member, group) for group, members in groups.items() for member in members]) or ""


def _filed_group(config: Config, provider: str, rule: LimitRule) -> str:
    """The group that limits.yaml puts a rule's models into, unless the owner says by name who is in it."""
    group = rule.quota_group
    if group and group.lower().replace("_", "-") in config.modes.groups.get(provider, {}):
        return ""
    return group


def declared(
    config: Config, deployment: Deployment, credential: Credential, *, grouped: bool = False
) -> Mapping[str, tuple[Limit, ...]]:
    """Scope -> the limits that are declared for *credential* on *deployment*. *grouped*: others are in its quota group.

    `LIMITS_<P>` wins over limits.yaml, and there what holds for all plans over what holds for one: of each metric and
    window one limit. What is said of a plan, and the default limits, yield to what the provider reports.
    """
    name, model = deployment
    rules = rules_for(config, model, name, credential.plan)
    chosen: dict[tuple[str, str], Limit] = {}
    counted = counted_as(config, deployment, credential.plan)
    own, provider = model_scope(deployment, credential.group, counted), config.providers[name]

    def choose(scope: str, specs: Iterable[LimitSpec], source: Source = "declared", *, yields: bool = False) -> None:
        for spec in specs:
            if (spec.metric, spec.window) not in chosen:
                window = window_of(provider, spec.metric, spec.window)
                limit = Limit(scope, spec.metric, window, spec.capacity, source, yields=yields)
                chosen[spec.metric, spec.window] = limit

    choose(own, config.limits.get(name, ()))
    for rule in rules:
        group = _named_group(config, name, model) or _filed_group(config, name, rule)
        scope = _scope(rule, deployment, credential, grouped, group)
        choose(scope, _specs(config, name, rule, group), yields=rule.plan is not None)
    if not rules and credential.plan == "free":
        choose(own, config.default_limits, "default", yields=True)
    found: dict[str, list[Limit]] = {}
    for limit in chosen.values():
        found.setdefault(limit.scope, []).append(limit)
    most = most_at_once(config, credential)
    if most:
        scope = credential_scope(credential)
        found.setdefault(scope, []).append(Limit(scope, "concurrency", Window("inflight", 0.0), most))
    return {scope: tuple(limits) for scope, limits in found.items()}


def most_at_once(config: Config, credential: Credential) -> int:
    """How many calls *credential* may have under way, by its key priority; 0: any number."""
    most = config.max_concurrent.get(credential.provider, 0)
    multipliers = config.modes.multipliers.get(credential.provider)
    if multipliers:
        most *= multipliers.get(credential.priority or 0) or multipliers.get(0, 1)
    return most


class Capped(NamedTuple):
    """What one cap counts for a credential on a model, and how long it rests once that is reached."""

    scope: str
    limits: tuple[Limit, ...]
    rest: Rest


def caps_of(config: Config, deployment: Deployment, credential: Credential, known: Iterable[Limit]) -> Iterator[Capped]:
    """The custom caps of *credential* on *deployment*, counted per quota group. *known*: the limits that hold, of which
    some caps are a share; one that nobody knows yet has no limits."""
    name, model = deployment
    provider = config.providers[name]
    capacities: dict[tuple[str, float], int] = {}
    for limit in known:
        key = (limit.metric, limit.window.seconds)
        capacities[key] = min(limit.capacity, capacities.get(key, limit.capacity))
    counted = counted_as(config, deployment, credential.plan)
    # A variant, or another spelling, is no way round a cap.
    own = model_scope(deployment, credential.group, plain_of(model).lower() if counted == model else counted)
    alike: Counter[str] = Counter()
    for cap in config.modes.caps.get(name, ()):
        if not _holds(cap, deployment, credential):
            continue
        said = f"{','.join(cap.models)} {','.join(map(str, cap.priorities))}"
        scope = f"{own}{OF_CAP}{said}" + (f" {alike[said]}" if alike[said] else "")
        alike[said] += 1
        limits = []
        for bound in cap.bounds:
            window = window_of(provider, bound.metric, bound.window)
            capacity = bound.amount.of(capacities.get((bound.metric, window.seconds)))
            if capacity is not None:
                window = window if window.kind != "bucket" else Window("rolling", window.seconds)
                limits.append(Limit(scope, bound.metric, window, capacity, "cap"))
        yield Capped(scope, tuple(limits), cap.rest)


def _holds(cap: Cap, deployment: Deployment, credential: Credential) -> bool:
    if cap.priorities and credential.priority not in cap.priorities:
        return False
    return said_of(*deployment, [(pattern, True) for pattern in cap.models]) or False


def _specs(config: Config, provider: str, rule: LimitRule, group: str) -> Iterable[LimitSpec]:
    """What *rule* says; with what the others say whose models count together with its own, the tightest of each."""
    if not group:
        return rule.specs
    members = config.modes.groups.get(provider, {}).get(group)
    every = config.limit_rules.get(provider, ())
    if members is None:
        together = [other for other in every if other.quota_group == group]
    else:
        together = [other for other in every if _governs(config, other, provider, members)]
    tightest: dict[tuple[str, str], LimitSpec] = {}
    for other in (rule, *together):
        if (other.scope, other.plan) == (rule.scope, rule.plan):
            for spec in other.specs:
                key = (spec.metric, spec.window)
                if key not in tightest or spec.capacity < tightest[key].capacity:
                    tightest[key] = spec
    return tightest.values()


def _governs(config: Config, rule: LimitRule, provider: str, members: Iterable[str]) -> bool:
    """Whether *rule* says something of one of *members*, which may be patterns."""
    return any(
        fnmatchcase(rule.pattern.lower(), name.lower()) or rule in rules_for(config, name, provider, rule.plan)
        for member in members
        for name in {member, member.removeprefix(f"{provider}/")}
    )


def _scope(rule: LimitRule, deployment: Deployment, credential: Credential, grouped: bool, group: str) -> str:
    """The name under which a rule's limits are counted: whose use, and of which models together."""
    key = f"key {credential.fingerprint}" if grouped else credential.fingerprint  # a group is named after a member
    owner = {"quota_group": credential.group, "key": key, "shared": EVERYBODY + (rule.plan or "")}[rule.scope]
    return f"{deployment.provider}/{owner}|{f'{GROUP}{group}' if group else deployment.model}"


def budgets(config: Config) -> list[Limit]:
    """The budget of every role and every caller that has one."""
    roles = [route.budget for route in config.names.values() if route.budget is not None]
    callers = (*config.callers.values(), config.default_caller)
    return roles + [limit for caller in callers for limit in caller.limits if limit.metric == "cost"]
