"""Which limits the owner declared for a credential on a model, and under which names they are counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from keyturn.config import Config, LimitRule, LimitSpec
from keyturn.core import MONTH, Credential, Deployment, Limit, Source, Window, credential_scope, model_scope
from keyturn.providers import Provider

SECONDS = {"second": 1.0, "10s": 10.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
"""The lengths of the windows that limits are declared and reported for."""
EVERYBODY = "*"
"""The owner of what is counted for all credentials together."""


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
    spelled = model.lower()
    found: dict[str | None, LimitRule] = {}
    for rule in config.limit_rules.get(provider, ()):
        if rule.plan not in (None, plan):
            continue
        pattern = rule.pattern.lower()
        if pattern == spelled:
            if rule.plan not in found or found[rule.plan].pattern.lower() != spelled:
                found[rule.plan] = rule
        elif rule.plan not in found and fnmatchcase(spelled, pattern):
            found[rule.plan] = rule
    return [found[each] for each in (None, plan) if each in found] if plan else list(found.values())


def withheld(config: Config, deployment: Deployment, credential: Credential) -> bool:
    """Whether the plan of *credential* does not offer the model at all."""
    provider, model = deployment
    return any(rule.unavailable for rule in rules_for(config, model, provider, credential.plan))


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
    own, provider = model_scope(deployment, credential.group), config.providers[name]

    def choose(scope: str, specs: Iterable[LimitSpec], source: Source = "declared", *, yields: bool = False) -> None:
        for spec in specs:
            if (spec.metric, spec.window) not in chosen:
                window = window_of(provider, spec.metric, spec.window)
                limit = Limit(scope, spec.metric, window, spec.capacity, source, yields=yields)
                chosen[spec.metric, spec.window] = limit

    choose(own, config.limits.get(name, ()))
    for rule in rules:
        scope = _scope(rule, deployment, credential, grouped)
        choose(scope, _specs(config, name, rule), yields=rule.plan is not None)
    if not rules and credential.plan == "free":
        choose(own, config.default_limits, "default", yields=True)
    found: dict[str, list[Limit]] = {}
    for limit in chosen.values():
        found.setdefault(limit.scope, []).append(limit)
    most = config.max_concurrent.get(name)
    if most:
        scope = credential_scope(credential)
        found.setdefault(scope, []).append(Limit(scope, "concurrency", Window("inflight", 0.0), most))
    return {scope: tuple(limits) for scope, limits in found.items()}


def _specs(config: Config, provider: str, rule: LimitRule) -> Iterable[LimitSpec]:
    """What *rule* says; with what the others say whose models count together with its own, the tightest of each."""
    if not rule.quota_group:
        return rule.specs
    tightest: dict[tuple[str, str], LimitSpec] = {}
    for other in config.limit_rules.get(provider, ()):
        if (other.quota_group, other.scope, other.plan) == (rule.quota_group, rule.scope, rule.plan):
            for spec in other.specs:
                key = (spec.metric, spec.window)
                if key not in tightest or spec.capacity < tightest[key].capacity:
                    tightest[key] = spec
    return tightest.values()


def _scope(rule: LimitRule, deployment: Deployment, credential: Credential, grouped: bool) -> str:
    """The name under which a rule's limits are counted: whose use, and of which models together."""
    key = f"key {credential.fingerprint}" if grouped else credential.fingerprint  # a group is named after a member
    owner = {"quota_group": credential.group, "key": key, "shared": EVERYBODY + (rule.plan or "")}[rule.scope]
    models = f"#{rule.quota_group}" if rule.quota_group else deployment.model
    return f"{deployment.provider}/{owner}|{models}"


def budgets(config: Config) -> list[Limit]:
    """The budget of every role and every caller that has one."""
    roles = [route.budget for route in config.names.values() if route.budget is not None]
    callers = (*config.callers.values(), config.default_caller)
    return roles + [limit for caller in callers for limit in caller.limits if limit.metric == "cost"]
