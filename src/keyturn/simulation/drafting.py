"""A scenario from a ledger: when calls came, how large they were, who asked, and the keys and limits of now."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import yaml

from keyturn.config import Config
from keyturn.core import Credential, Deployment, Limit
from keyturn.providers import price_of

from .arrivals import DAY
from .figures import percentile

LEAST_FOR_A_DAY = 0.5 * DAY
"""Seconds of record from which on the swing of a day can be seen."""
NANO, MILLION = 1e9, 1e6
NAMES = {
    ("requests", 1.0): "rps",
    ("requests", 60.0): "rpm",
    ("requests", DAY): "rpd",
    ("tokens", 60.0): "tpm",
    ("tokens", DAY): "tpd",
}
HEAD = """\
# Made from the ledger: {calls:,} calls from {first} to {last} UTC.
# The limits are those that Keyturn knows now; what a key truly may use, nobody but its provider knows.
"""


class Recorded(msgspec.Struct):
    """One call of the ledger. *at* and *ms* in milliseconds, *at* since 1970."""

    at: int
    caller: str
    model: str
    """`provider/model`; empty when nobody answered."""
    input: int
    output: int
    ms: float


def recorded(rows: Sequence[Mapping[str, Any]]) -> list[Recorded]:
    """The calls in rows of `keyturn usage --by call --json`, in the order in which they came."""
    found = [
        Recorded(
            round(datetime.fromisoformat(str(row["at"]).replace("Z", "+00:00")).timestamp() * 1000),
            str(row.get("caller") or "default"),
            str(row.get("model") or ""),
            int(row["input"]),
            int(row["output"]),
            float(row.get("ms") or 0.0),
        )
        for row in rows
        if row.get("at")
    ]
    return sorted(found, key=lambda call: call.at)


def drafted(
    calls: Sequence[Recorded], config: Config, limits: Callable[[Deployment, Credential], Sequence[Limit]], replay: str
) -> str:
    """The text of a scenario file. *limits*: those that hold for a credential; *replay*: a file that `lines` made, or
    empty to draw calls like those that came. There must be a call that somebody answered."""
    first, last = calls[0].at / 1000, calls[-1].at / 1000
    span = max(last - first, 60.0)
    scenario: dict[str, Any] = {
        "title": "As recorded",
        "duration": f"{min(DAY, max(3600.0, span)):.0f}s",
        "starts": f"{first % DAY:.0f}s",
        "providers": _providers(calls, config, limits),
        "calls": {"replay": replay} if replay else _drawn(calls, first, span),
    }
    asking = Counter(call.caller for call in calls)
    if len(asking) > 1:
        scenario["callers"] = [{"name": _plain(name), "share": count} for name, count in asking.most_common(200)]
    begins, ends = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" for at in (first, last))
    head = HEAD.format(calls=len(calls), first=begins, last=ends)
    return head + str(yaml.safe_dump(scenario, sort_keys=False, allow_unicode=True, width=120))


def lines(calls: Sequence[Recorded]) -> str:
    """The calls as a scenario replays them: JSON, one a line, times in seconds from the first."""
    rows = (
        {
            "at": round((call.at - calls[0].at) / 1000, 3),
            "input": call.input,
            "output": call.output,
            "caller": _plain(call.caller),
        }
        for call in calls
    )
    return "".join(msgspec.json.encode(row).decode() + "\n" for row in rows)


def _providers(
    calls: Sequence[Recorded], config: Config, limits: Callable[[Deployment, Credential], Sequence[Limit]]
) -> dict[str, Any]:
    """The providers that answered, by how much they did, each with the model that it was asked for most."""
    asked = Counter(call.model for call in calls if call.model)
    found: dict[str, Any] = {}
    for name, _ in asked.most_common():
        provider, _, model = name.partition("/")
        keys = config.credentials.get(provider, ())
        if provider in found or not keys:
            continue
        took = sorted(call.ms / 1000 for call in calls if call.model == name and call.ms > 0)
        told = {
            NAMES[limit.metric, limit.window.seconds]: limit.capacity
            for limit in limits(Deployment(provider, model), keys[0])
            if (limit.metric, limit.window.seconds) in NAMES
        }
        found[_plain(provider, "_").lower()] = {
            "model": model,
            "keys": len(keys),
            "per_account": max(Counter(key.group for key in keys).values()),
            "limits": told,
            "latency": [round(percentile(took, 0.1), 2), round(percentile(took, 0.9), 2)] if took else [1.0, 1.0],
            **_price(provider, model),
        }
    return found


def _price(provider: str, model: str) -> dict[str, Any]:
    price = price_of(provider, model)
    if price is None:
        return {}
    return {
        "price": {"input": round(price.input * MILLION / NANO, 4), "output": round(price.output * MILLION / NANO, 4)}
    }


def _drawn(calls: Sequence[Recorded], first: float, span: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rate": f"{len(calls) / span * 3600:.2f}/hour",
        "input": _spread([call.input for call in calls if call.input > 0]),
        "output": _spread([call.output for call in calls if call.output > 0]),
    }
    if span >= LEAST_FOR_A_DAY:
        swing, peak = _swing([call.at / 1000 for call in calls])
        found |= {"diurnal": swing, "peak": f"{peak:.0f}s"}
    return found


def _spread(sizes: Sequence[int]) -> dict[str, Any]:
    """The log-normal spread that *sizes* suggest."""
    if not sizes:
        return {"median": 1, "sigma": 0}
    logs = [math.log(size) for size in sizes]
    middle = sum(logs) / len(logs)
    sigma = math.sqrt(sum((each - middle) ** 2 for each in logs) / len(logs))
    return {"median": max(1, round(math.exp(middle))), "sigma": round(min(4.0, sigma), 2), "most": max(sizes)}


def _swing(times: Sequence[float]) -> tuple[float, float]:
    """By how much the rate swings over a day, and the second of the day at which it is highest: its first harmonic."""
    turns = [2 * math.pi * (at % DAY) / DAY for at in times]
    across, up = sum(map(math.cos, turns)) / len(turns), sum(map(math.sin, turns)) / len(turns)
    return round(min(1.0, 2 * math.hypot(across, up)), 2), math.atan2(up, across) % (2 * math.pi) / (2 * math.pi) * DAY


def _plain(name: str, between: str = "-") -> str:
    """*name* as a scenario may have it."""
    kept = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "_.-") else between for sign in name)[:60]
    return kept if kept[:1].isalnum() else f"x{kept}"
