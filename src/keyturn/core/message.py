"""The neutral model that dialects translate to and from: usage, stop reason, reply. Grows with the dialects."""

from __future__ import annotations

from typing import Literal, NamedTuple

StopReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]


class Usage(NamedTuple):
    """Tokens that one attempt used. *input* includes cached tokens, *output* includes reasoning tokens."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    exact: bool = True
    """False when it is our own estimate."""
    cost: int | None = None
    """Nano-dollars that the upstream itself says it charged."""

    @property
    def total(self) -> int:
        return self.input + self.output


class Reply(NamedTuple):
    """A complete answer, read as far as the gateway needs it."""

    text: str = ""
    stop: StopReason | None = None
    usage: Usage | None = None
    model: str = ""
    tool_calls: int = 0
    empty: bool = False
    """True when it carries no choice and no data at all: an answer without content."""
