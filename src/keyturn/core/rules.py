"""What is special about one provider's errors and limit headers: pure data, filled from the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .model import Meaning, Scope


@dataclass(frozen=True, slots=True)
class Rules:
    """Where a provider differs from what most OpenAI-compatible servers do.

    *codes*, *texts* and *statuses* name the meaning of a code, of a phrase (lower case, contained in the error's text)
    and of an HTTP status outright. `rate_limited` there says "some limit": which one is still read from the answer.
    """

    name: str = "generic"
    codes: Mapping[str, Meaning] = field(default_factory=dict)
    texts: Mapping[str, Meaning] = field(default_factory=dict)
    statuses: Mapping[int, Meaning] = field(default_factory=dict)

    minute_scope: Scope = "quota_group"
    """What short limits are counted in."""
    quota_scope: Scope | None = None
    """What day, week and month quotas are counted in; None: the same."""
    unowned_scope: Scope | None = None
    """Of a rate limit that is not the caller's own by its text ("your", "organization", "account") or headers."""
    shared_texts: tuple[str, ...] = ()
    """Texts of limits that the whole quota group shares although `minute_scope` is narrower."""
    overload_scope: Scope | None = None
    """Of an overload at any status but 529; None: the model when the text speaks of one, else the provider."""

    relays: Literal["", "named", "exception"] = ""
    """How an aggregator shows that the fault is its upstream's: *named* in `metadata.provider_name` or by the word
    `upstream`, or by the *exception* class that begins the message beside a `provider` member."""

    day_hints_mislead: bool = False
    """It states seconds even when the quota of the day is spent: the reset of the day counts instead."""
    day_zone: str = ""
    """The time zone at whose midnight day quotas reset; empty when they do not, or it is not known."""

    header_windows: Mapping[str, str] = field(default_factory=dict)
    """The window of a limit header that names none, per metric (`requests`, `tokens`, …); else a minute."""
    reset_unit: Literal["s", "ms"] = "s"
    """The unit of a bare number in a reset header."""


GENERIC = Rules()
"""For unknown OpenAI-compatible servers."""
