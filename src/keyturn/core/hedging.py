"""When a slow call may be sent a second time, to whoever else can answer: values in, decisions out.

Only what costs nothing but tokens may be sent twice: chat, completions and embeddings, whose tools the client itself
runs, and of which nothing is kept at the provider. A call is slow when it takes a quarter longer than 95 of a hundred
like it took to begin to answer: so what is sent twice is not what would have been answered a moment later. Nothing is
known of its like before twenty were seen.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from math import ceil
from typing import Any, NamedTuple

from .latency import Like
from .model import Call

KINDS = frozenset({"chat", "completions", "embeddings"})
CLIENT_TOOLS = frozenset({"function", "custom"})
"""Types of tools that the client runs; one without a type is Anthropic's or Gemini's for such a tool."""
SERVED = frozenset({"background", "container", "conversation", "mcp_servers", "plugins", "web_search_options"})
"""Members that have the provider do more than answer."""
LONGER = 1.25
WINDOW = 64
ENOUGH = 20
MOST_KINDS = 1024
FADING = 10_000
"""Requests after which old ones count half."""
ROOMY = 0.5
"""The share of its limits that a second key may have used."""


def hedgeable(call: Call) -> bool:
    """Whether *call* may be sent twice without doing anything twice."""
    if call.kind not in KINDS or call.raw or not SERVED.isdisjoint(call.members):
        return False
    stored = call.members.get("store", b"true" if call.dialect == "openai_responses" else b"false")
    if stored not in (b"false", b"null"):
        return False
    tools = call.members.get("tools")
    return tools is None or _client_tools(tools)


def _client_tools(raw: bytes) -> bool:
    try:
        tools = json.loads(raw)
    except ValueError:
        return False
    return tools is None or (isinstance(tools, list) and all(map(_client_tool, tools)))


def _client_tool(tool: Any) -> bool:
    if not isinstance(tool, dict):
        return False
    if "functionDeclarations" in tool or "function_declarations" in tool:
        return len(tool) == 1
    if "type" in tool:
        return tool["type"] in CLIENT_TOOLS
    return "name" in tool


class Times:
    """How long answers took to begin, lately, by their like. Seconds."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: OrderedDict[Like, deque[float]] = OrderedDict()

    def observe(self, kind: Like, seconds: float) -> None:
        """An answer began, or its caller stopped waiting for it, after *seconds*."""
        row = self._kinds.get(kind)
        if row is None:
            row = self._kinds[kind] = deque(maxlen=WINDOW)
            if len(self._kinds) > MOST_KINDS:
                self._kinds.popitem(last=False)
        row.append(seconds)
        self._kinds.move_to_end(kind)

    def slow(self, kind: Like, percentile: float) -> float | None:
        """After how many seconds an answer is slow, by what *percentile* of a hundred took; None while too few were
        seen."""
        row = self._kinds.get(kind)
        if row is None or len(row) < ENOUGH:
            return None
        return LONGER * sorted(row)[ceil(len(row) * percentile / 100) - 1]


class Spent(NamedTuple):
    """Requests that may be sent twice and what they cost, and how much of that was for the second ones. *money* is in
    nano-dollars, as far as prices are known."""

    requests: float = 0
    second: float = 0
    tokens: float = 0
    second_tokens: float = 0
    money: float = 0
    second_money: float = 0


def sent(spent: Spent, tokens: int, money: int) -> Spent:
    """A request that may be sent twice is sent."""
    if spent.requests >= FADING:
        spent = Spent(*(each / 2 for each in spent))
    return spent._replace(requests=spent.requests + 1, tokens=spent.tokens + tokens, money=spent.money + money)


def sent_twice(spent: Spent, tokens: int, money: int) -> Spent:
    """It is sent a second time."""
    return spent._replace(
        second=spent.second + 1,
        tokens=spent.tokens + tokens,
        second_tokens=spent.second_tokens + tokens,
        money=spent.money + money,
        second_money=spent.second_money + money,
    )


def affordable(spent: Spent, tokens: int, money: int, most_requests: float, most_cost: float) -> bool:
    """Whether a second request of *tokens* and *money* stays within the two shares of all."""
    after = sent_twice(spent, tokens, money)
    return (
        after.second <= most_requests * after.requests
        and after.second_tokens <= most_cost * after.tokens
        and after.second_money <= most_cost * after.money
    )
