"""The shapes of failure that a drill plays: what goes wrong, whom it hits, for how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Reach = Literal["nobody", "key", "provider", "everybody"]
"""Who is hit: nobody, the key that is asked first, all keys of the provider that is asked first, or all there are."""
Mode = Literal["plain", "stream"]
MODES: tuple[Mode, ...] = ("plain", "stream")
UNAUTHORIZED = '{"error":{"message":"Unauthorized"}}'
TOO_MANY = '{"error":{"message":"Too many requests"}}'
BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One way to fail. *calls* are made, one every *every* seconds, whether or not those before have ended."""

    name: str
    title: str
    reach: Reach
    fault: Mapping[str, Any] = field(default_factory=dict)
    """Members of the simulator's `Fault`; without any, and without a *connection*, nothing goes wrong."""
    connection: str = ""
    """The kind of `TransportError` that every connection ends with."""
    vanishes: float = 0.0
    """Seconds until it does."""
    allows: int | None = None
    """Requests per minute of each key, of which the gateway is not told."""
    ends: float = math.inf
    """Seconds after which all is well again."""
    modes: tuple[Mode, ...] = MODES
    calls: int = 3
    every: float = 1.0
    mistake: bool = False
    """The client is at fault: the answer is to come back as it is, from one attempt."""
    dead: bool = False
    """The key is of no use from then on: asking it again is in vain."""
    tools: bool = True
    """It may happen to a command line tool too."""
    keyed: bool = False
    """It can only happen where there are keys."""


def _key(name: str, title: str, **members: Any) -> Shape:
    return _shape(name, title, "key", members)


def _provider(name: str, title: str, **members: Any) -> Shape:
    return _shape(name, title, "provider", members)


def _everybody(name: str, title: str, **members: Any) -> Shape:
    return _shape(name, title, "everybody", members)


def _shape(name: str, title: str, reach: Reach, members: dict[str, Any]) -> Shape:
    own = {member: members.pop(member) for member in list(members) if member in Shape.__slots__}
    return Shape(name=name, title=title, reach=reach, fault=MappingProxyType(members), **own)


def _quirk(name: str) -> frozenset[str]:
    """That quirk of the simulator alone."""
    return frozenset({name})


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        _shape("healthy", "nothing fails", "nobody", {}),
        # What is said of a key.
        _key("revoked-key", "the first key is revoked", error="invalid_key", dead=True, keyed=True),
        _key("vague-401", "the first key answers 401 once", status=401, body=UNAUTHORIZED, times=1, keyed=True),
        _provider("login-outage", "every key of the first provider answers 401", error="invalid_key", keyed=True),
        _key("no-credit", "the first key has no credit left", error="insufficient_credit", dead=True),
        _provider("no-credit-at-all", "no key of the first provider has credit left", error="insufficient_credit"),
        _key("forbidden-model", "the first key may not use the model", error="forbidden", dead=True, keyed=True),
        _provider("model-gone", "the first provider has the model no more", error="not_found"),
        # Limits.
        _key("minute-limit", "the first key is at its limit for 30 s", error="rate_limited", wait=30.0, ends=30.0),
        _provider(
            "minute-limit-all",
            "every key of the first provider is at its limit for 30 s",
            error="rate_limited",
            wait=30.0,
            ends=30.0,
        ),
        _provider(
            "brief-limit-all",
            "every key of the first provider is at its limit for 8 s",
            error="rate_limited",
            wait=8.0,
            ends=8.0,
        ),
        _provider("wordless-429", "the first provider answers 429 without a wait", status=429, body=TOO_MANY),
        _key("day-quota", "the day of the first key is used up", error="daily_quota", dead=True),
        _provider("day-quota-all", "the day of every key of the first provider is used up", error="daily_quota"),
        _provider(
            "tight-limits",
            "each key of the first provider allows 3 requests a minute, and nobody said so; 12 calls in 24 s",
            allows=3,
            calls=12,
            every=2.0,
        ),
        _everybody(
            "limits-everywhere",
            "all keys of all providers are at their limits",
            error="rate_limited",
            wait=30.0,
            ends=30.0,
        ),
        # Faults of the upstream.
        _provider("one-500", "the first provider answers 500 once", status=500, times=1, calls=1),
        _provider("only-500s", "the first provider answers 500 to everything", status=500),
        _provider(
            "bad-gateway", "a proxy before the first provider answers 502 with a page", status=502, body=BAD_GATEWAY
        ),
        _provider("overloaded", "the first provider is overloaded", error="overloaded"),
        _provider(
            "outage",
            "the first provider answers 503 for 5 minutes; a call every 5 s",
            status=503,
            ends=300.0,
            calls=72,
            every=5.0,
        ),
        _everybody("outage-everywhere", "all providers answer 503", status=503),
        # Connections.
        _provider("no-such-host", "the name of the first provider does not resolve", connection="dns", tools=False),
        _provider("refused", "nobody listens at the first provider", connection="refused", tools=False),
        _provider("bad-certificate", "the first provider shows a wrong certificate", connection="tls", tools=False),
        _provider(
            "packets-vanish",
            "packets to the first provider vanish",
            connection="connect_timeout",
            vanishes=5.0,
            calls=1,
            tools=False,
        ),
        _provider("hangs", "the first provider takes requests and never answers", does="hang", calls=1),
        _provider("slow-to-begin", "the first provider takes 45 s to begin", latency=45.0, calls=1),
        _provider(
            "reset", "the first provider breaks one connection off before its answer", does="reset", times=1, calls=1
        ),
        # Answers that are none.
        _provider(
            "web-page", "a web page with status 200 comes from the first provider", quirks=_quirk("html"), tools=False
        ),
        _provider("redirect", "the first provider redirects elsewhere", quirks=_quirk("redirect"), tools=False),
        _provider("error-in-a-200", "the first provider reports overload inside a 200", error="overloaded", status=200),
        _provider(
            "half-an-answer",
            "an answer of the first provider stops half way",
            quirks=_quirk("truncated_json"),
            times=1,
            calls=1,
            modes=("plain",),
        ),
        _provider("empty-answer", "the first provider answers without any content", quirks=_quirk("empty"), calls=1),
        # Streams.
        _provider(
            "cut-stream",
            "a stream of the first provider ends in the middle",
            does="end",
            at_chunk=4,
            times=1,
            calls=1,
            modes=("stream",),
            tools=False,
        ),
        _provider(
            "silent-stream",
            "a stream of the first provider falls silent",
            does="hang",
            at_chunk=4,
            times=1,
            calls=1,
            modes=("stream",),
            tools=False,
        ),
        _provider(
            "error-in-a-stream",
            "a stream of the first provider reports an error",
            error="server_error",
            at_chunk=4,
            times=1,
            calls=1,
            modes=("stream",),
            tools=False,
        ),
        # The client's own mistakes.
        _provider("bad-request", "the first provider refuses the request", error="bad_request", mistake=True, calls=1),
        _provider(
            "content-filter", "the first provider refuses what is asked", error="content_filter", mistake=True, calls=1
        ),
    )
}
"""All shapes by name, in the order in which they are played."""
