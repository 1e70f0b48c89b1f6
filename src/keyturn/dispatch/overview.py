"""What the owner sees of the pool: keys with their state and limits, providers, models; and what he may change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from keyturn.config import LimitSpec
from keyturn.core import (
    FOREVER,
    SHARED,
    Caller,
    Credential,
    Limit,
    LimitRow,
    Mark,
    Transition,
    Verdict,
    dollars,
    key_scope,
)

from .declared import GROUP, OF_CAP, budgets, window_name
from .signing_in import trouble_of

if TYPE_CHECKING:
    from .gateway import Gateway

Owner = tuple[bool, str]
"""Whose a mark is: whether a quota group's, and its name. A group may be named after one of its members."""
EVERYBODY: Owner = (False, "")
"""All keys of a provider."""
STATES = ("disabled", "invalid", "exhausted", "unentitled", "cooling", "probation")
MISSING = "missing"
"""The state of a command line tool that is not on the PATH."""
"""The worst first: the state of a key is its worst mark."""


def keys(gateway: Gateway, provider: str | None = None) -> list[dict[str, object]]:
    """The rows of `keys list --json`, in the order of the configuration."""
    rows: list[dict[str, object]] = []
    for name, credentials in gateway.config.credentials.items():
        if provider in (None, name):
            marks = _marks(gateway, name)
            rows.extend(_row(gateway, each, _of(marks, each)) for each in credentials)
    return rows


def states(gateway: Gateway, name: str) -> dict[str, int]:
    """How many keys of provider *name* are in each state."""
    marks = _marks(gateway, name)
    counts: dict[str, int] = {}
    missing = _missing(gateway, name)
    for credential in gateway.config.credentials.get(name, ()):
        state = MISSING if missing else _state(_of(marks, credential), gateway.clock.mono())[0]
        counts[state] = counts.get(state, 0) + 1
    return counts


def providers(gateway: Gateway) -> list[dict[str, object]]:
    """The rows of `GET /v1/providers`, by tier, then name, the last resort last."""
    rows: list[dict[str, object]] = []
    catalog = gateway.lists.catalog
    for name, offer in sorted(catalog.offers.items(), key=lambda item: catalog.rank(item[0])):
        counts = states(gateway, name)
        resting = counts.get("probation", 0) + counts.get("cooling", 0) + counts.get("exhausted", 0)
        rows.append(
            {
                "name": name,
                "tier": offer.tier,
                "base_url": gateway.config.providers[name].base_url,
                "endpoints": list(gateway.config.providers[name].endpoints),
                "fallback": offer.last_resort,
                "credentials": sum(counts.values()),
                "models": len(offer.models or ()),
                "state": "ready" if counts.get("healthy") else "cooling" if resting else "unavailable",
            }
        )
    return rows


def reset(gateway: Gateway, key: str | None) -> list[str]:
    """Clear what stands against the keys that *key* names (None: all), but `disabled`; the keys that had something.

    Faults that were only counted go too, and with them what the deployments of a whole provider have met.
    """
    touched: list[str] = []
    changes: list[Transition] = []
    owners = {owner for each in matching(gateway, key) for owner in _owners(each)}
    for name, credentials in gateway.config.credentials.items():
        whole = key is None or key == name
        if whole:
            gateway.adapting.steadiness.forget(name)
        cleared: set[Owner] = set()
        for mark in gateway.marks.of(name, counting=True):
            shared = mark.scope[0] in SHARED
            if mark.state != "disabled" and (whole if shared else _owner(mark) in owners):
                changes.append(Transition(mark.scope, None))
                if not shared:
                    cleared.add(_owner(mark))
                elif mark.scope == ("provider", name, ""):
                    cleared.add(EVERYBODY)
        touched += [each.shown for each in credentials if cleared.intersection((*_owners(each), EVERYBODY))]
    for each in matching(gateway, key):
        if each.tokens is not None:
            each.tokens.reset()
    gateway.cool(Verdict(changes), None)
    if key is None:
        gateway.room.forget_promises()
    return touched


def disable(gateway: Gateway, key: str) -> list[str]:
    """Take the keys that *key* names out of use until `enable`; their shown names."""
    found = matching(gateway, key)
    gateway.disabled.update(each.fingerprint for each in found)
    switch_off(gateway, gateway.disabled)
    return [each.shown for each in found]


def switch_off(gateway: Gateway, fingerprints: Collection[str]) -> None:
    """Mark those of the present credentials that the owner took out of use."""
    now = gateway.clock.mono()
    every = [each for group in gateway.config.credentials.values() for each in group]
    scopes = [key_scope(each) for each in every if each.fingerprint in fingerprints]
    gateway.cool(Verdict([Transition(each, "disabled", FOREVER, "disabled", 0, now) for each in scopes]), None)
    if scopes:
        gateway.lists.changed()


def enable(gateway: Gateway, key: str) -> list[str]:
    """Take the keys that *key* names into use again; those that were disabled."""
    marked = [(each, gateway.marks.get(key_scope(each))) for each in matching(gateway, key)]
    found = [each for each, mark in marked if mark is not None and mark.state == "disabled"]
    gateway.disabled.difference_update(each.fingerprint for each in found)
    gateway.cool(Verdict([Transition(key_scope(each), None) for each in found]), None)
    gateway.lists.changed()
    return [each.shown for each in found]


def matching(gateway: Gateway, key: str | None) -> list[Credential]:
    """The credentials named by a label (`groq-2`), the shown form, a fingerprint or a provider; None: all."""
    every = [each for credentials in gateway.config.credentials.values() for each in credentials]
    if key is None:
        return every
    return [each for each in every if key in _names(each)]


def _names(credential: Credential) -> tuple[str, ...]:
    mark = credential.fingerprint
    return credential.label, credential.shown, mark, mark[:6], credential.provider


def _owner(mark: Mark) -> Owner:
    return mark.scope[0].startswith("group"), mark.scope[2]


def _owners(credential: Credential) -> tuple[Owner, Owner]:
    return (False, credential.fingerprint), (True, credential.group)


def _marks(gateway: Gateway, provider: str) -> dict[Owner, list[Mark]]:
    """The marks on each key and on each quota group."""
    found: dict[Owner, list[Mark]] = {}
    for mark in gateway.marks.of(provider):
        if mark.scope[0] not in SHARED:
            found.setdefault(_owner(mark), []).append(mark)
        elif mark.scope == ("provider", provider, ""):  # one endpoint of several is no state of a key
            found.setdefault(EVERYBODY, []).append(mark)
    return found


def _of(marks: Mapping[Owner, list[Mark]], credential: Credential) -> list[Mark]:
    return [mark for owner in (*_owners(credential), EVERYBODY) for mark in marks.get(owner, ())]


def _state(marks: Iterable[Mark], now: float) -> tuple[str, Mark | None]:
    """The worst state that *marks* amount to, and the mark that says so."""
    worst = min(
        ((STATES.index(mark.state if mark.until > now else "probation"), -mark.until, mark.scope) for mark in marks),
        default=None,
    )
    if worst is None:
        return "healthy", None
    return STATES[worst[0]], next(mark for mark in marks if mark.scope == worst[2])


def _row(gateway: Gateway, credential: Credential, marks: list[Mark]) -> dict[str, object]:
    now = gateway.clock.mono()
    state, mark = _state(marks, now)
    until, reason = None, None
    if mark is not None:
        until = _date(gateway, mark.until) if mark.until > now else None
        reason = mark.reason
        if len(mark.scope) > 3:
            reason += f" ({_models(gateway, credential.provider, mark.scope[3])})"
    if trouble := trouble_of(credential):
        state, reason = "invalid" if state == "healthy" else state, trouble
    if state == "healthy" and (missing := _missing(gateway, credential.provider)):
        state, reason = MISSING, missing
    return {
        "provider": credential.provider,
        "key": credential.shown,
        "state": state,
        "until": until,
        "reason": reason,
        "limits": list(_limits(gateway, credential)),
    }


def _missing(gateway: Gateway, provider: str) -> str:
    """Why nothing of *provider* can be run; empty when it can."""
    tool = gateway.config.providers[provider].tool
    return "" if tool is None or tool.found else f"{tool.argv[0]} is not on the PATH"


def _limits(gateway: Gateway, credential: Credential) -> Iterator[dict[str, object]]:
    """Every limit of a key: those in use as they stand, then those declared for models that nobody asked for yet."""
    now, seen, models = gateway.clock.mono(), set(), set()
    for pool, entry in gateway.pools.entries(credential):
        models.add(pool.deployment.model)
        for scope in entry.limit_scopes:
            if scope in seen:
                continue
            seen.add(scope)
            _, bar, counted = scope.partition("|")
            for row in gateway.live.view(now).snapshot(scope, now):
                yield _limit(gateway, row, _models(gateway, credential.provider, counted) if bar else None)
    if not models:
        yield from (_unused(spec, None, "declared") for spec in gateway.config.limits.get(credential.provider, ()))
    for rule in gateway.config.limit_rules.get(credential.provider, ()):
        used = any(fnmatchcase(model, rule.pattern) for model in models)
        if rule.plan in (None, credential.plan) and not rule.unavailable and not used:
            yield from (_unused(spec, rule.pattern, "declared") for spec in rule.specs)


def _models(gateway: Gateway, provider: str, counted: str) -> str:
    """What is counted together, for people: a model, or the patterns of the models that share a quota."""
    counted = counted.partition(OF_CAP)[0]
    if not counted.startswith(GROUP):
        return counted
    members = gateway.config.modes.groups.get(provider, {}).get(counted.removeprefix(GROUP))
    if members:
        return ", ".join(members)
    rules = gateway.config.limit_rules.get(provider, ())
    return ", ".join(dict.fromkeys(rule.pattern for rule in rules if f"#{rule.quota_group}" == counted)) or counted


def _limit(gateway: Gateway, row: LimitRow, model: str | None) -> dict[str, object]:
    now = gateway.clock.mono()
    return {
        "metric": row.metric,
        "window": window_name(row.window),
        "model": model,
        "capacity": row.capacity,
        "used": row.used,
        "reserved": row.reserved,
        "free": row.free,
        "resets_at": _date(gateway, now + row.resets_in) if row.resets_in else None,
        "source": row.source,
    }


def _unused(spec: LimitSpec, model: str | None, source: str) -> dict[str, object]:
    """A limit that was declared and that nothing has used yet."""
    return {
        "metric": spec.metric,
        "window": "in flight" if spec.window == "inflight" else spec.window,
        "model": model,
        "capacity": spec.capacity,
        "used": 0,
        "reserved": 0,
        "free": spec.capacity,
        "resets_at": None,
        "source": source,
    }


def limit_scopes(gateway: Gateway) -> Iterator[str]:
    """The scope of every limit of keys in use, all of which are shown."""
    for credentials in gateway.config.credentials.values():
        for credential in credentials:
            for _, entry in gateway.pools.entries(credential):
                yield from entry.limit_scopes


def own_limits(gateway: Gateway) -> list[Limit]:
    """The budgets and callers' own limits that are shown."""
    callers = (*gateway.config.callers.values(), gateway.config.default_caller)
    return [*budgets(gateway.config), *(limit for caller in callers for limit in caller.limits)]


def own_limit(gateway: Gateway, limit: Limit) -> dict[str, object]:
    """One limit of a caller or of a role as it stands; money in dollars."""
    now = gateway.clock.mono()
    row = gateway.live.view(now).row(limit, now)
    kind, _, name = limit.scope.partition("/")
    told = {"of": kind, "name": name, **_limit(gateway, row, None)}
    del told["model"], told["source"]
    if limit.metric == "cost":
        told["metric"] = "usd"
        told |= {each: dollars(getattr(row, each)) for each in ("capacity", "used", "reserved", "free")}
    return told


def quota_stats(gateway: Gateway, caller: Caller, provider: str | None) -> dict[str, Any]:
    """The answer to `GET /v1/quota-stats`: for `default` all keys and budgets, for any other caller its own limits."""
    owner = caller.name == Caller().name
    rows = keys(gateway, provider) if owner else []
    own = dict.fromkeys((*budgets(gateway.config), *caller.limits) if owner else caller.limits)
    by_state: dict[str, int] = {}
    for row in rows:
        by_state[str(row["state"])] = by_state.get(str(row["state"]), 0) + 1
    return {
        "object": "quota_stats",
        "keys": rows,
        "own": [own_limit(gateway, limit) for limit in own],
        "totals": {
            "keys": len(rows),
            "states": by_state,
            "limits": _totals(rows),
        },
    }


def _totals(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The sums over all keys: per provider, model, metric and window."""
    sums: dict[tuple[object, ...], dict[str, int]] = {}
    for row in rows:
        limits = row["limits"]
        assert isinstance(limits, list)
        for each in limits:
            key = (row["provider"], each["model"], each["metric"], each["window"])
            total = sums.setdefault(key, {"capacity": 0, "used": 0, "reserved": 0, "free": 0})
            for name in total:
                total[name] += each[name]
    return [
        {"provider": provider, "model": model, "metric": metric, "window": window, **total}
        for (provider, model, metric, window), total in sums.items()
    ]


def _date(gateway: Gateway, mono: float) -> str | None:
    """A monotonic moment as RFC 3339 in UTC."""
    if mono >= FOREVER:
        return None
    wall = mono - gateway.clock.mono() + gateway.clock.wall()
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
