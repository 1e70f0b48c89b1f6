"""What is said of every limit, by whom, since when and why, for `limits list`; and forgetting it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from keyturn.config import Pin
from keyturn.core import Credential, Limit, Told
from keyturn.errors import BadRequest
from keyturn.providers import known, nearest

from .declared import EVERYBODY, OF_CAP, window_name

if TYPE_CHECKING:
    from .gateway import Gateway

FORGETTABLE = ("learned", "reported", "pinned")
"""The sources that `limits clear` forgets; what is declared stands in files of the owner."""


class Choice(NamedTuple):
    """Which limits are meant."""

    provider: str | None = None
    model: str | None = None
    """A name, or a pattern with `*` and `?`."""
    key: str | None = None
    """A label, a shown form or a fingerprint; with it, all that are counted together with it."""
    sources: Collection[str] = FORGETTABLE


def limit_rows(gateway: Gateway, provider: str | None = None) -> list[dict[str, Any]]:
    """The limits that are known for keys, per what is counted together; pins that nothing was counted for yet last."""
    rows: list[dict[str, Any]] = []
    shown: set[Pin] = set()
    for scope in gateway.live.meters.book.every_scope():
        where = _where(gateway, scope)
        if where is None or provider not in (None, where.provider):
            continue
        for told in _said(gateway, scope):
            row = _row(where, told)
            if told.limit.source == "pinned":
                pins = _pins_behind(gateway, where, told.limit)
                shown.update(pins)
                row["date"] = _date(max((pin.at for pin in pins), default=None))
            rows.append(row)
    rows += [
        _pin_row(gateway, pin) for pin in gateway.adapting.pins if provider in (None, pin.provider) and pin not in shown
    ]
    return sorted(rows, key=lambda row: (row["provider"], row["model"] or "", row["metric"], row["window"]))


def clear_limits(gateway: Gateway, choice: Choice) -> tuple[list[dict[str, Any]], list[Limit]]:
    """Forget what was learned and reported of the limits that *choice* means: the rows and the limits that it was. Pins
    are the caller's to forget: see `pins_but`."""
    cleared, limits = [], []
    for scope in gateway.live.meters.book.every_scope():
        where = _where(gateway, scope)
        if where is None or not _is_meant(gateway, choice, where):
            continue
        for told in _said(gateway, scope):
            source = told.limit.source
            if source in choice.sources and (source == "learned" or source == "reported"):
                gateway.live.forget(told.limit, "learned" if source == "learned" else "reported")
                cleared.append(_row(where, told))
                limits.append(told.limit)
    gateway.adapting.cleared()
    return cleared, limits


def pins_but(gateway: Gateway, choice: Choice) -> tuple[tuple[Pin, ...], list[dict[str, Any]]]:
    """The pins that stay when those that *choice* means are forgotten, and what these were."""
    stay, gone = [], []
    for pin in gateway.adapting.pins:
        mine = [each for each in gateway.config.credentials.get(pin.provider, ()) if each.fingerprint == pin.key]
        named = _named(gateway, choice.key)
        meant = (
            "pinned" in choice.sources
            and choice.provider in (None, pin.provider)
            and (choice.model is None or fnmatchcase(pin.model.lower(), choice.model.lower()))
            and (choice.key is None or any(each in named for each in mine))
        )
        gone.append(_pin_row(gateway, pin)) if meant else stay.append(pin)
    return tuple(stay), gone


def choice_of(gateway: Gateway, provider: str | None, model: str | None, key: str | None, source: str | None) -> Choice:
    """What an owner chose. Raises BadRequest, which names the nearest valid word."""
    row = known(provider) if provider is not None else None
    name = row.name if row is not None else provider
    if name is not None and name not in gateway.config.providers:
        near = _near(provider or name, gateway.config.providers)
        raise BadRequest(f"no configured provider is called {(provider or name)[:80]!r}; {near}")
    if key is not None and not _named(gateway, key):
        labels = [each.label for keys in gateway.config.credentials.values() for each in keys]
        raise BadRequest(f"no key has the label that --key gives; {_near(key, labels)}")
    if source is not None and source not in FORGETTABLE:
        raise BadRequest(f"{source[:80]!r} is no source that can be cleared; {_near(source, FORGETTABLE)}")
    if model is not None and name is not None:
        model = model.removeprefix(f"{name}/").removeprefix(f"{provider}/")
    return Choice(name, model, key, FORGETTABLE if source is None else (source,))


class _Where(NamedTuple):
    """What a scope counts."""

    provider: str
    model: str | None
    """None: all models of a key."""
    credentials: tuple[Credential, ...]


def _where(gateway: Gateway, scope: str) -> _Where | None:
    """What *scope* counts; None for that of a caller, of a key that is gone, and of a custom cap."""
    provider, _, rest = scope.partition("/")
    owner, bar, model = rest.partition("|")
    every = gateway.config.credentials.get(provider, ())
    if OF_CAP in scope or not every:
        return None
    alone = owner.removeprefix("key ")
    if owner.startswith(EVERYBODY):
        mine = every
    elif not bar or alone != owner:
        mine = tuple(each for each in every if each.fingerprint == alone)
    else:
        mine = tuple(each for each in every if each.group == owner)
    return _Where(provider, model if bar else None, mine) if mine else None


def _said(gateway: Gateway, scope: str) -> Iterator[Told]:
    clock = gateway.clock
    yield from gateway.live.meters.book.told(scope, clock.wall() - clock.mono())


def _is_meant(gateway: Gateway, choice: Choice, where: _Where) -> bool:
    if choice.provider not in (None, where.provider):
        return False
    if choice.model is not None and not fnmatchcase((where.model or "").lower(), choice.model.lower()):
        return False
    return choice.key is None or any(each in where.credentials for each in _named(gateway, choice.key))


def _named(gateway: Gateway, key: str | None) -> tuple[Credential, ...]:
    return () if key is None else gateway.config.find_keys(key)


def _row(where: _Where, told: Told) -> dict[str, Any]:
    limit = told.limit
    return {
        "provider": where.provider,
        "model": where.model,
        "keys": [each.shown for each in where.credentials],
        "metric": limit.metric,
        "window": window_name(limit.window),
        "capacity": limit.capacity,
        "source": limit.source,
        "holds": told.holds,
        "date": _date(told.at),
        "until": _date(told.until),
        "evidence": list(told.evidence),
    }


def _pins_behind(gateway: Gateway, where: _Where, limit: Limit) -> list[Pin]:
    """The pins that *limit* may be from: those that name its model, else those of its number."""
    groups = {each.group for each in where.credentials}
    alike = [
        pin
        for pin in gateway.adapting.pins
        if (pin.provider, pin.metric, pin.capacity) == (where.provider, limit.metric, limit.capacity)
        and _window_of(pin) == window_name(limit.window)
        and (not pin.key or any(each.group in groups for each in _pinned_key(gateway, pin)))
    ]
    model = (where.model or "").lower()
    return [pin for pin in alike if fnmatchcase(model, pin.model.lower())] or (alike if len(alike) == 1 else [])


def _pinned_key(gateway: Gateway, pin: Pin) -> tuple[Credential, ...]:
    return tuple(each for each in gateway.config.credentials.get(pin.provider, ()) if each.fingerprint == pin.key)


def _window_of(pin: Pin) -> str:
    return "in flight" if pin.window == "inflight" else pin.window


def _pin_row(gateway: Gateway, pin: Pin) -> dict[str, Any]:
    every = gateway.config.credentials.get(pin.provider, ())
    return {
        "provider": pin.provider,
        "model": pin.model,
        "keys": [each.shown for each in every if pin.key in ("", each.fingerprint)],
        "metric": pin.metric,
        "window": _window_of(pin),
        "capacity": pin.capacity,
        "source": "pinned",
        "holds": True,
        "date": _date(pin.at),
        "until": None,
        "evidence": [],
    }


def _date(wall: float | None) -> str | None:
    if not wall:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _near(word: str, words: Collection[str]) -> str:
    near = nearest(word, words)
    return f"did you mean {near}?" if near else f"there are {', '.join(list(words)[:20])}"
