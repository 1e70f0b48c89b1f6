"""What the simulated providers saw: a log of every request, and counts by provider, key and model."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .quotas import Refusal
from .script import Fault

Result = Literal["open", "served", "limited", "refused", "faulted", "cancelled"]


@dataclass(slots=True, eq=False)
class Exchange:
    """One request as the upstream saw it. Times are the clock's monotonic seconds.

    *result*: `served` a whole answer; `limited` by the simulator's own limiters; `refused` for its key or its content;
    `faulted` by the script; `cancelled` when the client left first, which was noticed at *ended*; `open` until then.
    *kind* is chat (in any wire format), completions, embeddings, models, count, images, audio, moderations or rerank;
    *dialect* the wire format: openai_chat, openai_responses, openai_completions, anthropic, gemini, empty for kinds
    that have but one; *path* is the path that was asked for.
    """

    number: int
    started: float
    provider: str
    key: str
    kind: str
    model: str = ""
    stream: bool = False
    status: int | None = None
    ended: float | None = None
    result: Result = "open"
    case: str = ""
    """The error case that was answered, empty when none was."""
    fault: Fault | None = None
    refusal: Refusal | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    bytes_sent: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    dialect: str = ""
    path: str = ""
    cached_tokens: int = 0
    """Of the input, told to be from a prompt cache."""


class Record:
    """The log and the counts. *log_limit* bounds the log, not the counts; None keeps everything."""

    def __init__(self, log_limit: int | None = None) -> None:
        self.log: deque[Exchange] = deque(maxlen=log_limit)
        self.results: Counter[str] = Counter()
        self._places: dict[tuple[str, str, str], Counter[str]] = {}
        self._numbers = 0

    def begin(self, started: float, provider: str, key: str, kind: str) -> Exchange:
        self._numbers += 1
        exchange = Exchange(self._numbers, started, provider, key, kind)
        self.log.append(exchange)
        self.results["open"] += 1
        return exchange

    def end(self, exchange: Exchange, result: Result, now: float) -> None:
        """Close *exchange*; only the first call counts."""
        if exchange.result != "open":
            return
        exchange.result, exchange.ended = result, now
        self.results["open"] -= 1
        self.results[result] += 1
        place = (exchange.provider, exchange.key, exchange.model)
        counts = self._places.setdefault(place, Counter())
        counts["requests"] += 1
        counts[result] += 1
        counts[f"status_{exchange.status or 'none'}"] += 1

    def select(self, **members: Any) -> list[Exchange]:
        """The logged exchanges whose members equal the given ones: `select(provider="groq", status=429)`."""
        return [
            exchange
            for exchange in self.log
            if all(getattr(exchange, name) == value for name, value in members.items())
        ]

    def stats(self) -> dict[str, Any]:
        """Counts for people and scripts. Keys are shown by their first four characters and a fingerprint only."""
        rows = [
            {"provider": provider, "key": shown(key), "model": model} | dict(counts)
            for (provider, key, model), counts in sorted(self._places.items())
        ]
        names: tuple[Result, ...] = ("served", "limited", "refused", "faulted", "cancelled", "open")
        totals: dict[str, Any] = {name: self.results[name] for name in names}
        return {"requests": self._numbers} | totals | {"own_429": self.results["limited"], "by_key": rows}


def shown(key: str) -> str:
    """A key made fit to print."""
    return f"{key[:4]}…{hashlib.sha256(key.encode()).hexdigest()[:6]}" if key else ""
