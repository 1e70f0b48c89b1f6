"""Limits that the owner pinned: where each is counted, and bringing them into use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from keyturn.config import PIN_METRICS, PIN_WINDOWS, Config, Pin
from keyturn.core import UNKNOWN, Credential, Deployment, Limit, model_scope
from keyturn.errors import BadRequest
from keyturn.providers import known, nearest

from .declared import EVERYBODY, counted_as, window_of

if TYPE_CHECKING:
    from .gateway import Gateway

SHORT = {
    "rps": "requests/second",
    "rpm": "requests/minute",
    "rph": "requests/hour",
    "rpd": "requests/day",
    "rpmonth": "requests/month",
    "tpm": "tokens/minute",
    "tph": "tokens/hour",
    "tpd": "tokens/day",
    "tpmonth": "tokens/month",
    "concurrency": "concurrency/inflight",
}
"""How limits.yaml calls them."""


def pinned(
    config: Config,
    pins: Iterable[Pin],
    deployment: Deployment,
    credential: Credential,
    declared: Mapping[str, tuple[Limit, ...]],
) -> dict[str, list[Limit]]:
    """Scope -> what is pinned for *credential* on *deployment*: where a provider's own word would be counted, and
    where a limit of the same kind is *declared*."""
    found: dict[tuple[str, str, float], Limit] = {}
    counted = counted_as(config, deployment, credential.plan)
    own = model_scope(deployment, credential.group, counted)
    for pin in sorted(pins, key=lambda pin: (bool(pin.key), pin.model == deployment.model)):  # the most exact last
        if not _is_about(config, pin, deployment, credential, counted):
            continue
        window = window_of(config.providers[deployment.provider], pin.metric, pin.window)
        alike = {
            scope
            for scope, limits in declared.items()
            for each in limits
            if (each.metric, each.window.seconds) == (pin.metric, window.seconds) and "|" in scope
        }
        for scope in {own} | {each for each in alike if not (pin.key and f"/{EVERYBODY}" in each)}:
            found[scope, pin.metric, window.seconds] = Limit(scope, pin.metric, window, pin.capacity, "pinned")
    scopes: dict[str, list[Limit]] = {}
    for limit in found.values():
        scopes.setdefault(limit.scope, []).append(limit)
    return scopes


def _is_about(config: Config, pin: Pin, deployment: Deployment, credential: Credential, counted: str) -> bool:
    if pin.provider != deployment.provider:
        return False
    if pin.key:
        named = (each for each in config.credentials[pin.provider] if each.fingerprint == pin.key)
        if credential.group not in {each.group for each in named}:
            return False
    if fnmatchcase(deployment.model.lower(), pin.model.lower()):
        return True
    return counted_as(config, Deployment(pin.provider, pin.model), credential.plan) == counted


def pin_again(gateway: Gateway, pins: Iterable[Pin]) -> None:
    """Have exactly *pins* hold from now on."""
    gateway.adapting.pins = tuple(pins)
    gateway.pools.pin()


def read_pin(
    config: Config, provider: str, model: str, limit: str, capacity: int, key: str | None = None, at: float = 0.0
) -> Pin:
    """The pin that an owner described. Raises BadRequest, which names the nearest valid word."""
    row = known(provider)
    name = row.name if row is not None else provider
    if name not in config.providers:
        raise BadRequest(f"no configured provider is called {provider[:80]!r}; {_near(provider, config.providers)}")
    model = model.removeprefix(f"{name}/").removeprefix(f"{provider}/")
    if not model or not 1 <= capacity < UNKNOWN:
        raise BadRequest(
            f"a pin needs the name of a model (or a pattern such as '*') and a number from 1 to {UNKNOWN - 1:,}"
        )
    metric, _, window = SHORT.get(limit.lower(), limit.lower()).partition("/")
    metrics = {each: each for each in PIN_METRICS}
    if metric not in metrics:
        raise BadRequest(f"{metric[:80]!r} is no metric; {_near(metric, metrics)}, as in requests/minute or rpm")
    window = "inflight" if metric == "concurrency" else window
    if window not in (*PIN_WINDOWS, "inflight") or (window == "inflight") != (metric == "concurrency"):
        raise BadRequest(f"{window[:80]!r} is no window; {_near(window, PIN_WINDOWS)}, as in requests/minute or rpm")
    found = config.find_keys(key) if key else ()
    found = tuple(each for each in found if each.provider == name)
    if key and len(found) != 1:
        labels = [each.label for each in config.credentials.get(name, ())]
        raise BadRequest(
            f"--key must name one key of {name} by its label, and names {len(found)}; {_near(key, labels)}"
        )
    fingerprint = found[0].fingerprint if found else ""
    return Pin(name, model, metric, window, capacity, fingerprint, at)  # type: ignore[arg-type]


def _near(word: str, words: Iterable[str]) -> str:
    words = list(words)
    near = nearest(word, words)
    return f"did you mean {near}?" if near else f"there are {', '.join(words[:20])}"
