"""What rate-limit headers say, in one shape for all providers.

A row per limit: `{"requests": {"limit": 60, "remaining": 59, "reset_s": 1.0, "window": "minute"}, …}`. Header families:
`x-ratelimit-{limit,remaining,reset}[-metric][-window]` (OpenAI, Groq, Azure, Mistral, Cerebras, SambaNova, Fireworks,
xAI, G4F), the same without a metric (Together, OpenRouter, GitHub), `anthropic-ratelimit-metric-{limit,…}`,
`x-tokenlimit-*` (Together), `ratelimitbysize-*` (older Mistral), `x-trial-endpoint-call-limit` (Cohere) and the IETF
fields `RateLimit` and `RateLimit-Policy` (Hugging Face Hub). A header's name is understood once and remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from .hints import number, reset
from .rules import Rules

FIELDS = frozenset({"limit", "remaining", "reset", "renewalperiod"})
METRICS = {"": "requests", "req": "requests", "request": "requests", "after": "requests", "token": "tokens"}
NAMED = {"tokens-cache-adjusted-prompt": "tokens_uncached_prompt"}
WHOLE = {
    "x-trial-endpoint-call-limit": ("limit", "requests", "minute"),
    "x-endpoint-monthly-call-limit": ("limit", "requests", "month"),
    "ratelimit-policy": ("policy", "", ""),
    "ratelimit": ("structured", "", ""),
    "x-ratelimit-policy": ("policy", "", ""),
}
PREFIXES = (
    ("x-ratelimitbysize-", "tokens"),
    ("ratelimitbysize-", "tokens"),
    ("x-tokenlimit-", "tokens"),
    ("anthropic-ratelimit-", ""),
    ("x-ratelimit-", ""),
    ("ratelimit-", ""),
)
WINDOW_WORDS = ("second", "minute", "hour", "day", "week", "month")
LENGTHS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0, "month": 2.6e6}
LONGEST_MINUTE = 63.0
"""Seconds until a limit per minute is whole again, at most: providers round, and their clocks differ."""
BY_LENGTH = {int(seconds): word for word, seconds in LENGTHS.items()}


class Role(NamedTuple):
    """What one header tells: which field of which metric over which window (empty: the provider's default)."""

    field: str
    metric: str
    window: str


@lru_cache(maxsize=1024)
def _role(name: str) -> Role | None:
    """The role of the header *name*, in whatever case it is written; None when it is no limit."""
    name = name.lower()
    plain = name.replace("rate-limit", "ratelimit")
    if plain in WHOLE:
        return Role(*WHOLE[plain])
    for prefix, implied in PREFIXES:
        if plain.startswith(prefix):
            role = _read_name(plain[len(prefix) :], implied)
            # Azure: `x-rate-limit-reset-tokens: 55` is seconds, whatever its `x-ratelimit-reset-*` are
            return role._replace(field="reset_s") if plain != name and role and role.field == "reset" else role
    return None


def _read_name(rest: str, implied: str) -> Role | None:
    """`limit-tokens-minute`, `input-tokens-remaining`, `limit-minute`, `tokens-query-cost`, `reset`."""
    if rest.endswith("query-cost"):
        metric = rest.removesuffix("query-cost").strip("-") or implied
        return Role("cost", metric, "") if metric == "tokens" else None
    if rest == "over-limit":  # Fireworks: yes or no
        return None
    first, _, tail = rest.partition("-")
    if first in FIELDS:
        field, metric = first, tail
    else:
        metric, _, field = rest.rpartition("-")
        if field not in FIELDS or metric.startswith("unified"):
            return None
    known, window = _split_window(metric)
    if implied == "tokens":
        return Role(field, "tokens", window)
    known = METRICS.get(known, known)
    if window and known not in ("requests", "tokens"):
        known = metric
    known = NAMED.get(known, known.replace("-", "_"))
    return Role(field, known, window)


def _split_window(metric: str) -> tuple[str, str]:
    """`tokens-minute` -> (`tokens`, `minute`); `req-10-second` -> (`req`, `10s`)."""
    head, _, word = metric.rpartition("-")
    if word not in WINDOW_WORDS:
        return metric, ""
    head = head.removesuffix("-per") if head != "per" else ""
    body, _, count = head.rpartition("-")
    if count.isascii() and count.isdigit() and len(count) < 6:
        seconds = int(int(count) * LENGTHS[word])
        return body, BY_LENGTH.get(seconds, f"{seconds}s")
    return head, word


def window_seconds(window: str) -> float:
    """How long a window's name lasts: `minute`, `10s`, `300s fixed`; 0 when unknown."""
    known = LENGTHS.get(window)
    if known is not None:
        return known
    return number(window.partition("s")[0]) or 0.0


def parse_limits(headers: Mapping[str, str], rules: Rules, now: float, *, resets: bool = True) -> dict[str, Any]:
    """The limits that *headers* state, `{}` when none. *now* is the moment of the answer, in Unix seconds.

    Beside the rows there may be `query_cost_tokens`, a number (Mistral: what this very call was charged). Without
    *resets* it need not be read when the limits are whole again: that is done only where it tells their windows.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    extra: dict[str, Any] = {}
    structured = policy = ""
    assumed: dict[str, None] = {}
    endless: list[tuple[str, str]] = []  # Azure's -1: no limit, or none that it knows
    for name, value in headers.items():
        if "imit" not in name and "IMIT" not in name:  # most headers; cheaper than the look-up below
            continue
        role = _role(name)
        if role is None:
            continue
        field, metric, window = role
        if not resets and field == "reset" and value[-1:].isalpha() and rules.header_windows.get(metric):
            continue  # a duration or a date, where the catalog says over what it is counted
        if field == "structured":
            structured = value
        elif field == "policy":
            policy = value
        elif (told := _told(field, value, rules, now)) is None:
            continue
        elif field == "cost":
            extra["query_cost_tokens"] = told["cost"]
        else:
            if not window:
                window = rules.header_windows.get(metric, "")
                if not window:
                    window = "minute"
                    assumed[metric] = None
            row = rows.get((metric, window))
            if row is None:
                rows[metric, window] = {"limit": None, "remaining": None, "reset_s": None, "window": window, **told}
            else:
                row.update(told)
            if field == "limit" and told["limit"] < 0:
                endless.append((metric, window))
    for limit in endless:
        rows.pop(limit, None)
    for metric in assumed:
        _lengthen(rows, metric)
    if structured or policy:
        _read_structured(rows, structured, policy)
    if rows:
        extra.update(zip(_names(tuple(rows)), rows.values(), strict=True))
    return extra


def _lengthen(rows: dict[tuple[str, str], dict[str, Any]], metric: str) -> None:
    """A limit of which something is left, and which needs longer than a minute until all of it is free again, is none
    per minute: some servers name no window and count days."""
    row = rows.get((metric, "minute"))
    if row is None or row["window"] != "minute" or not row["remaining"]:
        return
    seconds = row["reset_s"]
    if seconds is None or seconds <= LONGEST_MINUTE:
        return
    longer = "hour" if seconds <= LENGTHS["hour"] else "day"
    if (metric, longer) not in rows:
        rows[metric, longer] = {**rows.pop((metric, "minute")), "window": longer}


def _told(field: str, value: str, rules: Rules, now: float) -> dict[str, Any] | None:
    """What one header adds to its row; None when its value is not understood."""
    if field in ("reset", "reset_s"):
        seconds, epoch_ms = reset(value, now, rules.reset_unit if field == "reset" else "s")
        if epoch_ms is None:
            return None if seconds is None else {"reset_s": seconds}
        if 0 < epoch_ms / 1000.0 - now <= 61.0:
            return {"reset_epoch_ms": epoch_ms, "window": "minute"}
        return {"reset_epoch_ms": epoch_ms}
    count = _count(value)
    if count is None:
        return None
    if field == "renewalperiod":
        return {"window": BY_LENGTH.get(count, f"{count}s")}
    return {field: count if field == "limit" else max(count, 0)}


def _count(value: str) -> int | None:
    """A whole number; the first of a list (`100, 100;w=60`: the limit that is nearest, then all of them)."""
    if value.isdecimal() and value.isascii() and len(value) < 20:
        return int(value)
    plain = number(value.partition(",")[0].strip())
    return None if plain is None else int(plain)


@lru_cache(maxsize=256)
def _names(keys: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The names of the limits *keys*, (metric, window) each. A metric with one window has its bare name; once a metric
    has several, limits above a minute carry their window in the name, and so does every month."""
    several = len({metric for metric, _ in keys}) < len(keys)
    names: dict[tuple[str, str], str] = {}
    for metric, window in sorted(keys, key=lambda key: window_seconds(key[1])):
        long = several and window_seconds(window) > 60 and not metric.endswith(window)
        long = long or (window == "month" and metric in ("requests", "tokens"))
        names[metric, window] = f"{metric}_{window}" if long or metric in names.values() else metric
    return tuple(names[key] for key in keys)


def _read_structured(rows: dict[tuple[str, str], dict[str, Any]], values: str, policies: str) -> None:
    """`RateLimit: "api";r=999;t=295` beside `RateLimit-Policy: "fixed window";"api";q=1000;w=300`; in older drafts
    `limit=100, remaining=50, reset=5` beside `100;w=60`."""
    if "remaining=" in values:
        values = values.replace(",", ";").replace("remaining=", "r=").replace("reset=", "t=")
    quotas: dict[str, tuple[int | None, str]] = {}
    for item in policies[:1024].split(",")[:8]:
        name, members = _parts(item)
        seconds = _count(members.get("w", ""))
        window = "minute" if seconds is None else BY_LENGTH.get(seconds, f"{seconds}s")
        if "fixed window" in item:
            window = f"{seconds or 60}s fixed"
        quotas[name] = (_count(members.get("q", name)), window)
    for position, item in enumerate(values[:1024].split(",")[:8]):
        name, members = _parts(item)
        limit, window = quotas.get(name) or next(iter(quotas.values()), (None, "minute"))
        limit = _count(members.get("limit", "")) or limit
        remaining, reset_s = _count(members.get("r", "")), number(members.get("t", ""))
        if remaining is None and limit is None:
            continue
        remaining = None if remaining is None else max(remaining, 0)
        reset_s = None if reset_s is None else max(reset_s, 0.0)
        row = {"limit": limit, "remaining": remaining, "reset_s": reset_s, "window": window}
        rows["requests" if position == 0 else f"requests_{name or position}", window] = row


def _parts(item: str) -> tuple[str, dict[str, str]]:
    """The last bare name of a structured item and its parameters."""
    name, members = "", {}
    for part in item.split(";")[:12]:
        key, equals, value = part.strip().partition("=")
        if equals:
            members[key.strip()] = value.strip().strip('"')
        else:
            name = key.strip('"')
    return name, members
