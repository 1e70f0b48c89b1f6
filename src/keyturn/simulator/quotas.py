"""Whose key it is and what it may use: rules per key, and the limiters that keys of one project share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from .limiters import DAY, Kind, Limiter, Slots, limiter
from .personas import CASES, Persona
from .script import unknown_members

Charge = Literal["input", "output", "max_output"]
Meter = tuple[str, str]
"""Metric (requests, tokens) and window (second, minute, day)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """One simulated key. Without limits it is served without any.

    *state* is `ok` or the case that every request of this key meets (`invalid_key`, `insufficient_credit`,
    `forbidden` …). Keys with the same *project* share their limiters (the rule seen first sets them); a key without
    one is its own project. Limits count per model unless *per_model* is false. *limiter* and *day* choose how the
    second and minute limits and the day limits are kept; by default as the persona's provider keeps them. *charge*:
    tokens of the input alone, with the output once it is known, or with the stated output bound from the start.
    """

    state: str = "ok"
    project: str = ""
    rps: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    tpd: int | None = None
    concurrency: int | None = None
    limiter: Kind | None = None
    day: Kind | None = None
    zone: str = ""
    per_model: bool = True
    charge: Charge | None = None
    models: tuple[str, ...] | None = None
    """The models that this key may use; others answer `forbidden`."""


def rule_of(members: Any, problems: list[str]) -> KeyRule | None:
    """A KeyRule from JSON members of the same names; None with what is wrong in *problems*."""
    if not isinstance(members, Mapping):
        problems.append("a key's rule must be an object")
        return None
    if unknown := unknown_members(members, [each.name for each in dataclasses.fields(KeyRule)], "of a key"):
        problems.extend(unknown)
        return None
    try:
        rule = msgspec.convert(dict(members), KeyRule)
    except msgspec.ValidationError as error:
        problems.append(str(error))
        return None
    if rule.state != "ok" and rule.state not in CASES:
        near = get_close_matches(rule.state, ["ok", *CASES], n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        problems.append(f"unknown state {rule.state!r}{meant}, one of ok, {', '.join(sorted(CASES))}")
    capacities = (rule.rps, rule.rpm, rule.tpm, rule.rpd, rule.tpd, rule.concurrency)
    if any(each is not None and each < 0 for each in capacities):
        problems.append("a limit must not be negative")
    try:
        ZoneInfo(rule.zone or "UTC")
    except (ValueError, LookupError, OSError):
        problems.append(f"zone: there is no time zone {rule.zone!r}")
    return rule


class Refusal(NamedTuple):
    """Why a limit refused: the numbers that error texts state. *wait* is in seconds, infinite when it can never fit."""

    metric: str
    window: str
    limit: int
    used: int
    requested: int
    wait: float


class Quota:
    """The limiters of one project and model."""

    def __init__(self, rule: KeyRule, persona: Persona) -> None:
        minute = rule.limiter or persona.minute
        day = rule.day or persona.day
        zone = rule.zone or persona.zone
        self.charge = rule.charge or persona.charge
        self.meters: dict[Meter, Limiter] = {}
        for meter, capacity, kind, seconds in (
            (("requests", "second"), rule.rps, minute, 1.0),
            (("requests", "minute"), rule.rpm, minute, 60.0),
            (("tokens", "minute"), rule.tpm, minute, 60.0),
            (("requests", "day"), rule.rpd, day, DAY),
            (("tokens", "day"), rule.tpd, day, DAY),
        ):
            if capacity is not None:
                self.meters[meter] = limiter(kind, capacity, seconds, zone)
        self.slots = Slots(rule.concurrency) if rule.concurrency is not None else None

    def admit(self, now: float, tokens: int) -> Refusal | None:
        """Charge one request of *tokens* on every limit, or on none and say which one refused for longest."""
        worst: Refusal | None = None
        for (metric, window), meter in self.meters.items():
            cost = 1 if metric == "requests" else tokens
            wait = meter.wait(now, cost)
            if wait > 0 and (worst is None or wait > worst.wait):
                used = math.ceil(meter.used(now))
                worst = Refusal(metric, window, meter.capacity, used, cost, wait)
        if worst is not None:
            return worst
        if self.slots is not None and not self.slots.enter():
            return Refusal("concurrency", "now", self.slots.capacity, self.slots.open, 1, 0.0)
        for (metric, _), meter in self.meters.items():
            meter.take(now, 1 if metric == "requests" else tokens)
        return None

    def settle(self, now: float, tokens: int) -> None:
        """Charge tokens that were not known at admission; they may leave a debt."""
        for (metric, _), meter in self.meters.items():
            if metric == "tokens" and tokens:
                meter.take(now, tokens)

    def leave(self) -> None:
        """The admitted request has ended."""
        if self.slots is not None:
            self.slots.leave()


class Quotas:
    """All keys and their quotas. *unknown* is the rule of a key that is not listed; None refuses it as invalid."""

    def __init__(self, keys: Mapping[str, Mapping[str, KeyRule]], unknown: KeyRule | None) -> None:
        self._keys = keys
        self._unknown = unknown
        self._quotas: dict[tuple[str, str, str], Quota] = {}

    def rule(self, provider: str, key: str) -> KeyRule | None:
        """The rule of *key*; None when the provider does not know it. A provider without listed keys takes any."""
        listed = self._keys.get(provider)
        if listed is None:
            return self._unknown or KeyRule()
        return listed.get(key, self._unknown)

    def quota(self, persona: Persona, rule: KeyRule, key: str, model: str) -> Quota:
        """The limiters that count this key and model."""
        project = f"project:{rule.project}" if rule.project else f"key:{key}"
        place = (persona.name, project, model if rule.per_model else "*")
        quota = self._quotas.get(place)
        if quota is None:
            quota = self._quotas[place] = Quota(rule, persona)
        return quota
